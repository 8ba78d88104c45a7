//! Triggers: an upstream shard commits, hints travel, two workers share one receiver by leases.
//!
//! The question is whether an epoch can be left behind: no hint on its way, nobody at work, and the receiver's positions short of it.

use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{ClaimDecision, OwnerLiveness, TriggerDecision, decide_claim, decide_commit, decide_trigger};
use weir_model::head::{InputState, Owner};
use weir_model::{Epoch, Head, InputCut, Inputs, ShardKey};

use crate::world::{Row, advance, catch, explore, key, owner};

const EPOCHS: u64 = 2;
const CLOCK_MAX: i64 = 2;
const CRASHES_MAX: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// C6: a trigger that meets a lease is taken for done.
    AcknowledgedOnLease,
    /// C6: a trigger is acknowledged by the claim, not by the positions.
    AcknowledgedOnClaim,
    /// C6: no delayed check is armed for what is unsettled.
    NoDelayedCheck,
}

/// A hint: upstream stands at `epoch`. Not looked at before `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Trigger {
    at: i64,
    epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Idle,
    Holding {
        head: Arc<Head>,
        version: u64,
        seen: Option<u64>,
        trigger: Option<Trigger>,
    },
    /// Released; will look upstream once more.
    Released {
        trigger: Option<Trigger>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    upstream: u64,
    receiver: Row,
    clock: i64,
    triggers: Vec<Trigger>,
    workers: [Worker; 2],
    crashes: u8,
    lost: u8,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Produce,
    Handle { worker: usize, trigger: usize },
    Double(usize),
    Lose(usize),
    LookUpstream(usize),
    CommitAndRelease(usize),
    LookAgain(usize),
    Crash(usize),
    Tick,
    DelayedCheck,
}

struct Wake {
    flaw: Flaw,
    /// Whether the feed may lose a trigger; then only the delayed check helps.
    lossy: bool,
}

fn upstream() -> ShardKey {
    key(0, 0)
}

fn position(row: &Row) -> u64 {
    row.head.input(upstream()).epoch.0
}

impl Wake {
    fn take(state: &State, worker: usize) -> Option<Arc<Head>> {
        let owner = Owner { lease_until_micros: state.clock + 1, ..owner(worker) };
        match decide_claim(&state.receiver.head, &owner, state.clock, OwnerLiveness::Unknown) {
            ClaimDecision::Take(head) => Some(Arc::new(*head)),
            ClaimDecision::Held { .. } => None,
        }
    }

    fn decide(state: &State, worker: usize, epoch: u64) -> TriggerDecision {
        let liveness = OwnerLiveness::Unknown;
        decide_trigger(&state.receiver.head, upstream(), Epoch(epoch), owner(worker).id, state.clock, liveness)
    }

    fn claim(state: &mut State, worker: usize, trigger: Option<Trigger>) -> Option<()> {
        let (head, version) = (Self::take(state, worker)?, state.receiver.version);
        state.receiver.put(version, &head);
        state.workers[worker] = Worker::Holding { head, version: version + 1, seen: None, trigger };
        Some(())
    }

    fn handle(&self, state: &mut State, worker: usize, index: usize) -> Option<()> {
        let trigger = state.triggers.remove(index);
        match Self::decide(state, worker, trigger.epoch) {
            TriggerDecision::Acknowledge => {}
            TriggerDecision::ComeBack { .. } if self.flaw == Flaw::AcknowledgedOnLease => {}
            TriggerDecision::ComeBack { at_micros } => state.triggers.push(Trigger { at: at_micros, ..trigger }),
            TriggerDecision::Run => {
                let kept = (self.flaw != Flaw::AcknowledgedOnClaim).then_some(trigger);
                Self::claim(state, worker, kept)?;
            }
        }
        Some(())
    }

    /// Gives a trigger back to the feed unless the positions include it.
    fn settle(state: &mut State, worker: usize, trigger: Option<Trigger>) {
        state.workers[worker] = Worker::Idle;
        let open = |trigger: &Trigger| Self::decide(state, worker, trigger.epoch) != TriggerDecision::Acknowledge;
        let again = trigger.filter(open);
        state.triggers.extend(again);
    }

    fn commit(state: &mut State, worker: usize) -> Option<()> {
        let Worker::Holding { head, version, seen: Some(seen), trigger } = state.workers[worker].clone() else { return None };
        let (from, after) = (upstream(), head.input(upstream()).epoch);
        let cut = InputCut { from, after, upto: Epoch(seen), watermark: head.watermark };
        let mut batch = advance(&head, seen, Inputs::Segments(vec![cut]));
        batch.inputs.insert(from.to_string(), InputState { epoch: Epoch(seen), ..InputState::default() });
        batch.owner = None;
        let next = Arc::new(decide_commit(&head, batch).ok()?);
        if state.receiver.put(version, &next) {
            state.workers[worker] = Worker::Released { trigger };
        } else {
            Self::settle(state, worker, trigger);
        }
        Some(())
    }

    fn crash(state: &mut State, worker: usize) {
        let trigger = match &state.workers[worker] {
            Worker::Holding { trigger, .. } | Worker::Released { trigger } => *trigger,
            Worker::Idle => None,
        };
        state.workers[worker] = Worker::Idle;
        state.triggers.extend(trigger);
        state.crashes += 1;
    }

    /// The check that the dispatcher keeps armed while a head is unsettled: due when its lease is over.
    fn check_is_due(&self, state: &State) -> bool {
        let lease = state.receiver.head.owner.as_ref().map_or(i64::MIN, |owner| owner.lease_until_micros);
        self.lossy
            && self.flaw != Flaw::NoDelayedCheck
            && state.triggers.is_empty()
            && position(&state.receiver) < state.upstream
            && lease <= state.clock
    }
}

impl Model for Wake {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let receiver = Row::new(Head::new(key(1, 0)));
        let workers = [Worker::Idle, Worker::Idle];
        vec![State { upstream: 0, receiver, clock: 0, triggers: Vec::new(), workers, crashes: 0, lost: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.upstream < EPOCHS {
            actions.push(Action::Produce);
        }
        for (index, trigger) in state.triggers.iter().enumerate() {
            if state.triggers.len() < 3 {
                actions.push(Action::Double(index));
            }
            if self.lossy && state.lost < 2 {
                actions.push(Action::Lose(index));
            }
            let idle = (0..2).filter(|worker| trigger.at <= state.clock && state.workers[*worker] == Worker::Idle);
            actions.extend(idle.map(|worker| Action::Handle { worker, trigger: index }));
        }
        for (worker, phase) in state.workers.iter().enumerate() {
            match phase {
                Worker::Idle => continue,
                Worker::Holding { seen: None, .. } => actions.push(Action::LookUpstream(worker)),
                Worker::Holding { seen: Some(_), .. } => actions.push(Action::CommitAndRelease(worker)),
                Worker::Released { .. } => actions.push(Action::LookAgain(worker)),
            }
            if state.crashes < CRASHES_MAX {
                actions.push(Action::Crash(worker));
            }
        }
        let held = state.receiver.head.owner.as_ref().is_some_and(|owner| owner.lease_until_micros > state.clock);
        if state.clock < CLOCK_MAX && (held || state.triggers.iter().any(|trigger| trigger.at > state.clock)) {
            actions.push(Action::Tick);
        }
        actions.extend(self.check_is_due(state).then_some(Action::DelayedCheck));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Produce => {
                state.upstream += 1;
                state.triggers.push(Trigger { at: 0, epoch: state.upstream });
            }
            Action::Handle { worker, trigger } => self.handle(&mut state, worker, trigger)?,
            Action::Double(trigger) => state.triggers.push(last.triggers[trigger]),
            Action::Lose(trigger) => {
                state.triggers.remove(trigger);
                state.lost += 1;
            }
            Action::LookUpstream(worker) => {
                if let Worker::Holding { seen, .. } = &mut state.workers[worker] {
                    *seen = Some(last.upstream);
                }
            }
            Action::CommitAndRelease(worker) => Self::commit(&mut state, worker)?,
            Action::LookAgain(worker) => {
                let Worker::Released { trigger } = last.workers[worker] else { return None };
                let more = position(&last.receiver) < last.upstream;
                if !more || Self::claim(&mut state, worker, trigger).is_none() {
                    Self::settle(&mut state, worker, trigger);
                }
            }
            Action::Crash(worker) => Self::crash(&mut state, worker),
            Action::Tick => state.clock += 1,
            Action::DelayedCheck => state.triggers.push(Trigger { at: last.clock, epoch: last.upstream }),
        }
        state.triggers.sort_unstable();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NOTHING_LEFT, |model, state| {
                let quiet = state.triggers.is_empty() && state.workers.iter().all(|worker| *worker == Worker::Idle);
                let ticking = state.receiver.head.owner.is_some() && model.lossy && model.flaw != Flaw::NoDelayedCheck;
                !quiet || position(&state.receiver) == state.upstream || ticking || model.check_is_due(state)
            }),
            Property::<Self>::sometimes("everything is consumed", |_, state| position(&state.receiver) == EPOCHS),
            Property::<Self>::sometimes("a trigger comes back after a lease", |_, state| {
                state.triggers.iter().any(|trigger| trigger.at > 0)
            }),
            Property::<Self>::sometimes("a holder was taken over", |_, state| {
                let behind =
                    |worker: &Worker| matches!(worker, Worker::Holding { version, .. } if *version < state.receiver.version);
                state.workers.iter().any(behind)
            }),
        ]
    }
}

const NOTHING_LEFT: &str = "C6: no epoch is left behind";

#[test]
fn no_epoch_is_left_behind_when_triggers_are_kept() {
    explore("wake", Wake { flaw: Flaw::None, lossy: false }, 2_000);
}

#[test]
fn no_epoch_is_left_behind_when_triggers_are_lost() {
    explore("wake, lossy", Wake { flaw: Flaw::None, lossy: true }, 2_000);
}

#[test]
fn each_flaw_of_waking_is_caught() {
    for (flaw, lossy) in [(Flaw::AcknowledgedOnLease, false), (Flaw::AcknowledgedOnClaim, false), (Flaw::NoDelayedCheck, true)] {
        catch(flaw, Wake { flaw, lossy }, NOTHING_LEFT);
    }
}
