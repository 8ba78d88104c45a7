//! Dispatch: commits become calls, calls may be lost and doubled, workers come, look, and go without a word if there is none to say.
//!
//! The question is whether an epoch can be left unseen: nothing on its way, nobody at work, and no worker that has looked at it. And
//! the other one: that what was seen is not called for again and again.

use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{Called, ClaimDecision, Dispatch, OwnerLiveness, decide_claim, decide_commit, decide_dispatch};
use weir_model::head::{InputState, Owner};
use weir_model::{Epoch, Generation, Head, InputCut, Inputs, ShardKey};

use crate::world::{Row, advance, catch, explore, key, owner};

/// The last epoch is the only one that the receiver has something to say about.
const EPOCHS: u64 = 2;
const CLOCK_MAX: i64 = 2;
const EVENTS_MAX: usize = 4;
const GENERATIONS_MAX: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// C6: a change that meets a lease is taken for done.
    LeaseSettles,
    /// C6: no look follows a call.
    NoLookAfterCall,
    /// A call settles what it was for although nobody came.
    UnansweredSettles,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Event {
    Changed { epoch: u64 },
    Call,
    Look { at: i64, generation: Option<u64>, upto: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    Holding { head: Arc<Head>, version: u64, looked: Option<u64> },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    upstream: u64,
    receiver: Row,
    /// Greatest epoch that a worker has seen through.
    seen: u64,
    clock: i64,
    events: Vec<Event>,
    workers: [Worker; 2],
    crashes: u8,
    lost: u8,
    doubled: u8,
    /// Calls made although every epoch had been seen.
    needless: u8,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Produce,
    Handle(usize),
    Double(usize),
    Lose(usize),
    Take { worker: usize, call: usize },
    LookUpstream(usize),
    Leave(usize),
    Crash(usize),
    Tick,
}

struct Dispatching {
    flaw: Flaw,
}

fn upstream() -> ShardKey {
    key(0, 0)
}

impl Dispatching {
    fn called(&self, generation: Option<u64>, upto: u64) -> Option<Called> {
        let generation = if self.flaw == Flaw::UnansweredSettles { generation.map(|_| 0) } else { generation };
        let generations = generation.map(Generation).into_iter().collect();
        Some(Called { generations, upto: vec![(upstream(), Epoch(upto))] })
    }

    fn decide(state: &State, epoch: u64, called: Option<&Called>) -> Dispatch {
        let reads = |_: ShardKey, _: ShardKey| true;
        decide_dispatch(std::slice::from_ref(&*state.receiver.head), reads, &[(upstream(), Epoch(epoch))], called, state.clock)
    }

    fn handle(&self, state: &mut State, index: usize) -> Option<()> {
        let (epoch, generation, upto) = match state.events.remove(index) {
            Event::Changed { epoch } => (epoch, None, 0),
            Event::Look { generation, upto, .. } => (state.upstream, generation, upto),
            Event::Call => return None,
        };
        let called = self.called(generation, upto);
        match Self::decide(state, epoch, called.as_ref().filter(|_| generation.is_some())) {
            Dispatch::Settled => {}
            Dispatch::LookAt { .. } if self.flaw == Flaw::LeaseSettles => {}
            Dispatch::LookAt { at_micros } => state.events.push(Event::Look { at: at_micros, generation, upto }),
            Dispatch::Call => {
                state.needless += u8::from(state.seen == state.upstream);
                state.events.push(Event::Call);
                let generation = Some(state.receiver.head.generation.0);
                if self.flaw != Flaw::NoLookAfterCall {
                    state.events.push(Event::Look { at: state.clock + 1, generation, upto: epoch });
                }
            }
        }
        Some(())
    }

    /// A worker that finds the shard held leaves.
    fn take(state: &mut State, worker: usize, call: usize) {
        state.events.remove(call);
        let owner = Owner { lease_until_micros: state.clock + 1, ..owner(worker) };
        let decision = decide_claim(&state.receiver.head, &owner, state.clock, OwnerLiveness::Unknown);
        if let ClaimDecision::Take(head) = decision {
            let (head, version) = (Arc::new(*head), state.receiver.version);
            state.receiver.put(version, &head);
            state.workers[worker] = Worker::Holding { head, version: version + 1, looked: None };
        }
    }

    /// Commits what there is to say, or only lets go.
    fn leave(state: &mut State, worker: usize) -> Option<()> {
        let Worker::Holding { head, version, looked: Some(looked) } = state.workers[worker].clone() else { return None };
        let after = head.input(upstream()).epoch;
        let next = if looked == EPOCHS && after < Epoch(EPOCHS) {
            let cut = InputCut { from: upstream(), after, upto: Epoch(looked), watermark: head.watermark };
            let mut batch = advance(&head, looked, Inputs::Segments(vec![cut]));
            batch.inputs.insert(upstream().to_string(), InputState { epoch: Epoch(looked), ..InputState::default() });
            batch.owner = None;
            decide_commit(&head, batch).ok()?
        } else {
            Head { owner: None, ..(*head).clone() }
        };
        if state.receiver.put(version, &Arc::new(next)) {
            state.seen = state.seen.max(looked);
        }
        state.workers[worker] = Worker::Idle;
        Some(())
    }
}

impl Model for Dispatching {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // Held once before: a shard that never was is called by its creation.
        let receiver = Row::new(Head { generation: Generation(1), ..Head::new(key(1, 0)) });
        let workers = [Worker::Idle, Worker::Idle];
        vec![State {
            upstream: 0,
            receiver,
            seen: 0,
            clock: 0,
            events: Vec::new(),
            workers,
            crashes: 0,
            lost: 0,
            doubled: 0,
            needless: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.upstream < EPOCHS {
            actions.push(Action::Produce);
        }
        for (index, event) in state.events.iter().enumerate() {
            if state.doubled < 1 && state.events.len() < EVENTS_MAX {
                actions.push(Action::Double(index));
            }
            match event {
                Event::Call => {
                    if state.lost < 1 {
                        actions.push(Action::Lose(index));
                    }
                    let idle = (0..2).filter(|worker| state.workers[*worker] == Worker::Idle);
                    actions.extend(idle.map(|worker| Action::Take { worker, call: index }));
                }
                Event::Look { at, .. } if *at > state.clock => {}
                Event::Changed { .. } | Event::Look { .. } => actions.push(Action::Handle(index)),
            }
        }
        for (worker, phase) in state.workers.iter().enumerate() {
            match phase {
                Worker::Idle => continue,
                Worker::Holding { looked: None, .. } => actions.push(Action::LookUpstream(worker)),
                Worker::Holding { looked: Some(_), .. } => actions.push(Action::Leave(worker)),
            }
            if state.crashes < 1 {
                actions.push(Action::Crash(worker));
            }
        }
        let waits = state.events.iter().any(|event| matches!(event, Event::Look { at, .. } if *at > state.clock));
        if state.clock < CLOCK_MAX && waits {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Produce => {
                state.upstream += 1;
                state.events.push(Event::Changed { epoch: state.upstream });
            }
            Action::Handle(index) => self.handle(&mut state, index)?,
            Action::Double(index) => {
                state.events.push(last.events[index].clone());
                state.doubled += 1;
            }
            Action::Lose(index) => {
                state.events.remove(index);
                state.lost += 1;
            }
            Action::Take { worker, call } => Self::take(&mut state, worker, call),
            Action::LookUpstream(worker) => {
                if let Worker::Holding { looked, .. } = &mut state.workers[worker] {
                    *looked = Some(last.upstream);
                }
            }
            Action::Leave(worker) => Self::leave(&mut state, worker)?,
            Action::Crash(worker) => {
                state.workers[worker] = Worker::Idle;
                state.crashes += 1;
            }
            Action::Tick => state.clock += 1,
        }
        state.events.sort_unstable();
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.events.len() <= EVENTS_MAX && state.needless <= 2 && state.receiver.head.generation <= Generation(GENERATIONS_MAX)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NOTHING_UNSEEN, |_, state| {
                let quiet = state.events.is_empty() && state.workers.iter().all(|worker| *worker == Worker::Idle);
                !quiet || state.seen == state.upstream
            }),
            Property::<Self>::always("what was seen and let go of is settled by the look after its call", |model, state| {
                let free = state.receiver.head.owner.is_none() && state.seen == state.upstream;
                let generation = state.receiver.head.generation.0.checked_sub(1);
                let called = model.called(generation, state.upstream);
                !free || generation == Some(0) || Self::decide(state, state.upstream, called.as_ref()) == Dispatch::Settled
            }),
            Property::<Self>::sometimes("everything is seen and it is quiet", |_, state| {
                state.events.is_empty() && state.upstream == EPOCHS && state.seen == EPOCHS
            }),
            Property::<Self>::sometimes("a lost call is made again", |_, state| state.lost == 1 && state.seen == EPOCHS),
            Property::<Self>::sometimes("a worker died and another saw it through", |_, state| {
                state.crashes == 1 && state.seen == EPOCHS
            }),
        ]
    }
}

const NOTHING_UNSEEN: &str = "C6: no epoch is left unseen";

#[test]
fn no_epoch_is_left_unseen_by_workers_that_must_be_called() {
    explore("dispatch", Dispatching { flaw: Flaw::None }, 2_000);
}

#[test]
fn each_flaw_of_dispatch_is_caught() {
    for flaw in [Flaw::LeaseSettles, Flaw::NoLookAfterCall, Flaw::UnansweredSettles] {
        catch(flaw, Dispatching { flaw }, NOTHING_UNSEEN);
    }
}
