//! Dispatch: commits become calls, calls may be lost, doubled or fail, workers come, look, and go without a word if there is none to say.
//!
//! The questions: can an epoch be left unseen, with nothing on its way, nobody at work, and no worker that has looked at it? Is one that
//! somebody may not have seen called for as soon as the slot is free, and not when some look comes? Does a look come soon after the lease
//! of a holder that died, and is no lease longer for holders that let go? And: is what was seen called for again and again?

use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{
    Act, Called, ClaimDecision, LOOK_AFTER, Leaving, OwnerLiveness, SlotMemory, decide_claim, decide_commit, decide_leave,
    lease_factor,
};
use weir_model::head::{InputState, Owner};
use weir_model::{Epoch, Generation, Head, InputCut, Inputs, ShardKey};

use crate::world::{Row, advance, catch, explore_ways_of, key, owner};

/// The last epoch is the only one that the receiver has something to say about.
const EPOCHS: u64 = 2;
const EVENTS_MAX: usize = 4;
const OWN_MAX: usize = 3;
const GENERATIONS_MAX: u64 = 4;
const SECOND: i64 = 1_000_000;
const CLOCK_MAX: i64 = 18 * SECOND;
const LEASE: i64 = 3 * SECOND;
/// How much too early a look may come.
const EARLY: i64 = 2 * SECOND;
/// How long after the end of a lease a look may come.
const SOON: i64 = 5 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// C6: a change that meets a lease is taken for done.
    LeaseSettles,
    /// C6: no look follows a call.
    NoLookAfterCall,
    /// A call settles what it was for although nobody came.
    UnansweredSettles,
    /// Who let go without a commit counts as vanished.
    CleanLeavingCounts,
    /// No look is armed for a lease if any is, however late.
    AnyLookWillDo,
    /// A look that has come is still taken for one that will.
    LookStaysArmed,
    /// Release, then look upstream once more: nobody does.
    ReleaseAsksNothing,
    /// A call is under way although it failed.
    FailedCallIsUnderWay,
}

/// How often what may go wrong does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Mishaps {
    crashes: u8,
    lost: u8,
    doubled: u8,
    /// Calls that fail after their look was armed; the event comes again.
    failed: u8,
    /// The dispatcher's process ends.
    forgotten: u8,
    /// Workers whose time is over before they have seen all.
    handed_on: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Event {
    Changed { epoch: u64 },
    Call,
    Look { at: i64, called: Called },
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
    /// Changes of the receiver's own head, in order: the end of its lease.
    own: Vec<Option<i64>>,
    workers: [Worker; 2],
    memory: SlotMemory,
    had: Mishaps,
    /// Calls made although every epoch had been seen.
    needless: u8,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Produce,
    Handle { event: usize, call_fails: bool },
    HandleOwn { call_fails: bool },
    Double(usize),
    Lose(usize),
    Forget,
    Take { worker: usize, call: usize },
    LookUpstream(usize),
    Leave(usize),
    HandOn(usize),
    Crash(usize),
    Tick,
}

struct Dispatching {
    flaw: Flaw,
    most: Mishaps,
}

fn upstream() -> ShardKey {
    key(0, 0)
}

impl State {
    fn write(&mut self, version: u64, head: Head) -> bool {
        let until = head.owner.as_ref().map(|owner| owner.lease_until_micros);
        let applied = self.receiver.put(version, &Arc::new(head));
        if applied {
            self.own.push(until);
        }
        applied
    }

    fn decide(&self, news: &[(ShardKey, Epoch)], look: Option<&Called>) -> Act {
        self.memory.decide(std::slice::from_ref(&*self.receiver.head), |_, _| true, news, look, self.clock)
    }

    fn is_idle(&self) -> bool {
        self.workers.iter().all(|worker| *worker == Worker::Idle)
    }

    /// Nothing will happen before some look comes.
    fn waits_for_looks(&self) -> bool {
        self.is_idle() && self.own.is_empty() && self.events.iter().all(|event| matches!(event, Event::Look { .. }))
    }

    fn looks(&self) -> impl Iterator<Item = i64> {
        self.events.iter().filter_map(|event| if let Event::Look { at, .. } = event { Some(*at) } else { None })
    }
}

impl Dispatching {
    /// As the dispatcher's: the slot's head, and of a slot that was let go of what it reads. Whether the event is done.
    fn consider(
        &self,
        state: &mut State,
        news: &[(ShardKey, Epoch)],
        all: bool,
        look: Option<&Called>,
        call_fails: bool,
    ) -> bool {
        let mut act = state.decide(news, look);
        if act == Act::Settled && all {
            act = state.decide(&[(upstream(), Epoch(state.upstream))], look);
        }
        match act {
            Act::Settled | Act::Waits | Act::GivenUp { .. } => true,
            Act::Arm { .. } if self.flaw == Flaw::LeaseSettles => true,
            Act::Arm { .. } if self.flaw == Flaw::AnyLookWillDo && state.looks().any(|at| at > state.clock) => true,
            Act::Arm { at_micros, called } => {
                Self::arm(state, at_micros, called);
                true
            }
            Act::Call(called) => self.call(state, called, call_fails),
        }
    }

    fn arm(state: &mut State, at: i64, called: Called) {
        let at = state.memory.plan(at);
        state.events.push(Event::Look { at, called });
        state.memory.armed(at);
    }

    fn call(&self, state: &mut State, mut called: Called, fails: bool) -> bool {
        if self.flaw == Flaw::UnansweredSettles {
            called.generations = vec![Generation(0)];
        }
        if self.flaw != Flaw::NoLookAfterCall {
            Self::arm(state, state.clock + i64::try_from(LOOK_AFTER.as_micros()).unwrap(), called.clone());
        }
        if !fails || self.flaw == Flaw::FailedCallIsUnderWay {
            state.memory.called(called, state.clock);
        }
        if fails {
            state.had.failed += 1;
            return false;
        }
        state.needless += u8::from(state.seen == state.upstream);
        state.events.push(Event::Call);
        true
    }

    fn handle(&self, state: &mut State, index: usize, call_fails: bool) -> Option<()> {
        let event = state.events.remove(index);
        let failed = state.had.failed;
        let done = match &event {
            Event::Changed { epoch } => {
                let news = [(upstream(), Epoch(*epoch))];
                state.memory.hear(&news);
                state.memory.is_left_to_its_holder(state.clock) || self.consider(state, &news, false, None, call_fails)
            }
            Event::Look { at, called } => self.look(state, *at, called, call_fails),
            Event::Call => return None,
        };
        if !done {
            state.events.push(event);
        }
        (call_fails == (state.had.failed > failed)).then_some(())
    }

    fn look(&self, state: &mut State, at: i64, called: &Called, call_fails: bool) -> bool {
        if !state.memory.begin_look(at) {
            return true;
        }
        if self.flaw == Flaw::LookStaysArmed {
            state.memory.armed(at);
        }
        let done = self.consider(state, &[], true, Some(called), call_fails);
        if !done {
            state.memory.take_look_back(at);
        }
        done
    }

    fn handle_own(&self, state: &mut State, call_fails: bool) -> Option<()> {
        let until = state.own.remove(0);
        let failed = state.had.failed;
        state.memory.hear_of_holder(until, state.clock);
        let left = until.is_some() && state.memory.is_left_to_its_holder(state.clock);
        let all = until.is_none() && self.flaw != Flaw::ReleaseAsksNothing;
        if !left && !self.consider(state, &[], all, None, call_fails) {
            state.own.insert(0, until);
        }
        (call_fails == (state.had.failed > failed)).then_some(())
    }

    /// A worker that finds the shard held leaves.
    fn take(state: &mut State, worker: usize, call: usize) {
        state.events.remove(call);
        let lease = LEASE * lease_factor(state.receiver.head.claims_since_commit);
        let owner = Owner { lease_until_micros: state.clock + lease, ..owner(worker) };
        let decision = decide_claim(&state.receiver.head, &owner, state.clock, OwnerLiveness::Unknown);
        if let ClaimDecision::Take(head) = decision {
            let version = state.receiver.version;
            state.write(version, (*head).clone());
            state.workers[worker] = Worker::Holding { head: Arc::new(*head), version: version + 1, looked: None };
        }
    }

    /// Commits what there is to say, or only lets go.
    fn leave(&self, state: &mut State, worker: usize) -> Option<()> {
        let Worker::Holding { head, version, looked: Some(looked) } = state.workers[worker].clone() else { return None };
        let after = head.input(upstream()).epoch;
        let next = if looked == EPOCHS && after < Epoch(EPOCHS) {
            let cut = InputCut { from: upstream(), after, upto: Epoch(looked), watermark: head.watermark };
            let mut batch = advance(&head, looked, Inputs::Segments(vec![cut]));
            batch.inputs.insert(upstream().to_string(), InputState { epoch: Epoch(looked), ..InputState::default() });
            batch.owner = None;
            decide_commit(&head, batch).ok()?
        } else if self.flaw == Flaw::CleanLeavingCounts {
            Head { owner: None, ..(*head).clone() }
        } else {
            decide_leave(&head, Leaving::Released)
        };
        if state.write(version, next) {
            state.seen = state.seen.max(looked);
        }
        state.workers[worker] = Worker::Idle;
        Some(())
    }

    fn hand_on(state: &mut State, worker: usize) -> Option<()> {
        let Worker::Holding { head, version, .. } = state.workers[worker].clone() else { return None };
        state.write(version, decide_leave(&head, Leaving::HandedOn { at_micros: state.clock }));
        state.workers[worker] = Worker::Idle;
        state.had.handed_on += 1;
        Some(())
    }

    /// The next instant at which something may be due.
    fn next_instant(state: &State) -> Option<i64> {
        let lease = state.receiver.head.owner.as_ref().map(|owner| owner.lease_until_micros);
        let instants = state.looks().flat_map(|at| [at - EARLY, at]).chain(lease);
        instants.filter(|at| *at > state.clock).min().filter(|at| *at <= CLOCK_MAX)
    }

    fn event_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let fails = |actions: &mut Vec<Action>, act: &dyn Fn(bool) -> Action| {
            actions.push(act(false));
            actions.extend((state.had.failed < self.most.failed).then(|| act(true)));
        };
        for (event, what) in state.events.iter().enumerate() {
            if state.had.doubled < self.most.doubled && state.events.len() < EVENTS_MAX {
                actions.push(Action::Double(event));
            }
            match what {
                Event::Call => {
                    if state.had.lost < self.most.lost {
                        actions.push(Action::Lose(event));
                    }
                    let idle = (0..2).filter(|worker| state.workers[*worker] == Worker::Idle);
                    actions.extend(idle.map(|worker| Action::Take { worker, call: event }));
                }
                Event::Look { at, .. } if *at - EARLY > state.clock => {}
                Event::Changed { .. } | Event::Look { .. } => fails(actions, &|call_fails| Action::Handle { event, call_fails }),
            }
        }
        if !state.own.is_empty() {
            fails(actions, &|call_fails| Action::HandleOwn { call_fails });
        }
    }
}

impl Model for Dispatching {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        // Held once before: a shard that never was is called by its creation.
        let receiver = Row::new(Head { generation: Generation(1), ..Head::new(key(1, 0)) });
        vec![State {
            upstream: 0,
            receiver,
            seen: 0,
            clock: 0,
            events: Vec::new(),
            own: Vec::new(),
            workers: [Worker::Idle, Worker::Idle],
            memory: SlotMemory::default(),
            had: Mishaps::default(),
            needless: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.upstream < EPOCHS {
            actions.push(Action::Produce);
        }
        self.event_actions(state, actions);
        for (worker, phase) in state.workers.iter().enumerate() {
            match phase {
                Worker::Idle => continue,
                Worker::Holding { looked: None, .. } => actions.push(Action::LookUpstream(worker)),
                Worker::Holding { looked: Some(_), .. } => actions.push(Action::Leave(worker)),
            }
            actions.extend((state.had.handed_on < self.most.handed_on).then_some(Action::HandOn(worker)));
            actions.extend((state.had.crashes < self.most.crashes).then_some(Action::Crash(worker)));
        }
        actions.extend((state.had.forgotten < self.most.forgotten).then_some(Action::Forget));
        actions.extend(Self::next_instant(state).map(|_| Action::Tick));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Produce => {
                state.upstream += 1;
                state.events.push(Event::Changed { epoch: state.upstream });
            }
            Action::Handle { event, call_fails } => self.handle(&mut state, event, call_fails)?,
            Action::HandleOwn { call_fails } => self.handle_own(&mut state, call_fails)?,
            Action::Double(event) => {
                state.events.push(last.events[event].clone());
                state.had.doubled += 1;
            }
            Action::Lose(event) => {
                state.events.remove(event);
                state.had.lost += 1;
            }
            Action::Forget => {
                state.memory = SlotMemory::default();
                state.had.forgotten += 1;
            }
            Action::Take { worker, call } => Self::take(&mut state, worker, call),
            Action::LookUpstream(worker) => {
                if let Worker::Holding { looked, .. } = &mut state.workers[worker] {
                    *looked = Some(last.upstream);
                }
            }
            Action::Leave(worker) => self.leave(&mut state, worker)?,
            Action::HandOn(worker) => Self::hand_on(&mut state, worker)?,
            Action::Crash(worker) => {
                state.workers[worker] = Worker::Idle;
                state.had.crashes += 1;
            }
            Action::Tick => state.clock = Self::next_instant(last)?,
        }
        state.events.sort_unstable();
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.events.len() <= EVENTS_MAX
            && state.own.len() <= OWN_MAX
            && state.needless <= 1
            && state.receiver.head.generation <= Generation(GENERATIONS_MAX)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NOTHING_UNSEEN, |_, state| {
                !state.waits_for_looks() || !state.events.is_empty() || state.seen == state.upstream
            }),
            Property::<Self>::always(CALLED_AT_ONCE, |_, state| {
                let free = state.waits_for_looks() && state.receiver.head.owner.is_none();
                !free || state.seen == state.upstream || state.had.lost > 0
            }),
            Property::<Self>::always(LOOKED_AT_SOON, |_, state| {
                let owner = state.receiver.head.owner.as_ref().filter(|_| state.waits_for_looks() && state.had.lost == 0);
                owner.is_none_or(|owner| state.looks().any(|at| at <= state.clock.max(owner.lease_until_micros + SOON)))
            }),
            Property::<Self>::always(FAIR_LEASES, |_, state| {
                state.receiver.head.owner.is_some() || lease_factor(state.receiver.head.claims_since_commit) == 1
            }),
            Property::<Self>::always("what was seen and let go of is settled by the look after its call", |_, state| {
                let free = state.receiver.head.owner.is_none() && state.seen == state.upstream;
                let generation = state.receiver.head.generation.0 - 1;
                let upto = vec![(upstream(), Epoch(state.upstream))];
                let called = Called { generations: vec![Generation(generation)], upto: upto.clone() };
                !free || generation == 0 || state.decide(&upto, Some(&called)) == Act::Settled
            }),
            Property::<Self>::sometimes("everything is seen and it is quiet", |_, state| {
                state.events.is_empty() && state.upstream == EPOCHS && state.seen == EPOCHS
            }),
            Property::<Self>::sometimes("every mishap is met and everything is seen", |model, state| {
                state.had == model.most && state.seen == EPOCHS
            }),
        ]
    }
}

const NOTHING_UNSEEN: &str = "C6: no epoch is left unseen";
const CALLED_AT_ONCE: &str = "C6: what is unseen in a free slot waits for no look unless a call was lost";
const LOOKED_AT_SOON: &str = "C6: a slot whose holder is gone is looked at soon after its lease unless a call was lost";
const FAIR_LEASES: &str = "C1: who lets go doubles no lease";

const NO_MISHAP: Mishaps = Mishaps { crashes: 0, lost: 0, doubled: 0, failed: 0, forgotten: 0, handed_on: 0 };
/// Workers that die, calls that are lost.
const LOSSES: Mishaps = Mishaps { crashes: 1, lost: 1, ..NO_MISHAP };
/// Workers that die, events that come twice.
const REPEATS: Mishaps = Mishaps { crashes: 1, doubled: 1, ..NO_MISHAP };
/// Calls that fail, a dispatcher that forgets.
const INTERRUPTIONS: Mishaps = Mishaps { failed: 1, forgotten: 1, ..NO_MISHAP };
/// Workers whose time is over, calls that fail.
const DEADLINES: Mishaps = Mishaps { handed_on: 1, failed: 1, ..NO_MISHAP };

/// Steps of the ways that are explored: nearly twice as many as any flaw needs.
const WAY_MAX: usize = 17;

#[test]
fn no_epoch_is_left_unseen_by_workers_that_must_be_called() {
    for (name, most) in [("losses", LOSSES), ("repeats", REPEATS), ("interruptions", INTERRUPTIONS), ("deadlines", DEADLINES)] {
        explore_ways_of(&format!("dispatch, {name}"), Dispatching { flaw: Flaw::None, most }, 2_000, WAY_MAX);
    }
}

#[test]
fn each_flaw_of_dispatch_is_caught() {
    for (flaw, most, property) in [
        (Flaw::LeaseSettles, LOSSES, NOTHING_UNSEEN),
        (Flaw::NoLookAfterCall, LOSSES, NOTHING_UNSEEN),
        (Flaw::UnansweredSettles, LOSSES, NOTHING_UNSEEN),
        (Flaw::CleanLeavingCounts, LOSSES, FAIR_LEASES),
        (Flaw::AnyLookWillDo, LOSSES, LOOKED_AT_SOON),
        (Flaw::LookStaysArmed, LOSSES, LOOKED_AT_SOON),
        (Flaw::ReleaseAsksNothing, LOSSES, CALLED_AT_ONCE),
        (Flaw::FailedCallIsUnderWay, INTERRUPTIONS, CALLED_AT_ONCE),
    ] {
        catch(flaw, Dispatching { flaw, most }, property);
    }
}
