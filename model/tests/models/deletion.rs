//! Deletion with floors, pins and orphans (G1, G2, G3, GC-1).
//!
//! A lane commits epochs, each naming one object; a receiver consumes and checkpoints; a reader of the past pins, then reads every epoch
//! it found; a collector raises the floor and deletes below it. A worker of an older generation may have uploaded an object that it
//! commits late; the collector may also meet objects that nobody names.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Model, Property};
use weir_model::decide::{Orphan, PinDecision, Reader, decide_floors, decide_orphan, decide_pin};
use weir_model::retention::{Pin, Retention};
use weir_model::{Epoch, Generation};

use super::{catches, explore};

const EPOCHS: u64 = 3;
const LANE: &str = "lane";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// Floors follow the receiver's committed positions, not its restart point (G3).
    FloorAtPositions,
    /// The reader looks at heads before its pin is written (G2).
    PinAfterRead,
    /// Objects that nobody names are deleted whatever their maker's generation (G1).
    OrphansByName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    generation: u64,
    epoch: u64,
    /// Objects there: committed ones by epoch.
    objects: BTreeSet<u64>,
    /// An object uploaded for the next epoch by a worker of this generation, not named yet.
    uploaded: Option<u64>,
    uploaded_there: bool,
    position: u64,
    checkpoint: u64,
    floor: u64,
    pinned_from: Option<u64>,
    reader: ReaderState,
    broken: bool,
    deleted_something: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum ReaderState {
    Away,
    /// Has pinned and not looked yet.
    Pinned,
    /// Has looked: reads epochs `next..=upto`.
    Reading { next: u64, upto: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Upload,
    Commit,
    TakeOver,
    Consume,
    Checkpoint,
    Replay,
    Pin,
    Look,
    Read,
    Collect,
    CollectOrphan,
}

#[derive(Debug, Clone)]
struct DeletionModel(Flaw);

fn row(state: &State) -> Retention {
    let mut row = Retention::new();
    row.floors.insert(LANE.to_owned(), Epoch(state.floor));
    if let Some(from) = state.pinned_from {
        row.pins.insert("reader".to_owned(), Pin { needs: BTreeMap::from([(LANE.to_owned(), Epoch(from))]), everything: false });
    }
    row
}

impl DeletionModel {
    fn collect(&self, state: &mut State) {
        let restart = if self.0 == Flaw::FloorAtPositions { state.position } else { state.checkpoint };
        let readers = [Reader { of: LANE.to_owned(), restart: Epoch(restart) }];
        if let Some(next) = decide_floors(&row(state), &readers) {
            state.floor = next.floor(LANE).0;
            state.objects.retain(|epoch| *epoch > state.floor);
            state.deleted_something = true;
        }
    }

    fn pin(&self, state: &mut State) {
        // The reader wants all that is not gone.
        let pin = Pin { needs: BTreeMap::from([(LANE.to_owned(), Epoch(state.floor + 1))]), everything: false };
        match decide_pin(&row(state), "reader", pin) {
            PinDecision::Write(_) => state.pinned_from = Some(state.floor + 1),
            PinDecision::TooLate { .. } => {}
        }
    }
}

impl Model for DeletionModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            generation: 1,
            epoch: 0,
            objects: BTreeSet::new(),
            uploaded: None,
            uploaded_there: false,
            position: 0,
            checkpoint: 0,
            floor: 0,
            pinned_from: None,
            reader: ReaderState::Away,
            broken: false,
            deleted_something: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.epoch < EPOCHS && state.uploaded.is_none() {
            actions.push(Action::Upload);
        }
        if state.uploaded.is_some() {
            actions.extend([Action::Commit, Action::CollectOrphan]);
        }
        if state.generation < 3 {
            actions.push(Action::TakeOver);
        }
        if state.position < state.epoch {
            actions.push(Action::Consume);
        }
        if state.checkpoint < state.position {
            actions.extend([Action::Checkpoint, Action::Replay]);
        }
        actions.push(Action::Collect);
        match &state.reader {
            ReaderState::Away => actions.push(if self.0 == Flaw::PinAfterRead { Action::Look } else { Action::Pin }),
            ReaderState::Pinned => actions.push(Action::Look),
            ReaderState::Reading { .. } => {
                actions.push(Action::Read);
                if self.0 == Flaw::PinAfterRead && state.pinned_from.is_none() {
                    actions.push(Action::Pin);
                }
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Upload => {
                state.uploaded = Some(state.generation);
                state.uploaded_there = true;
            }
            Action::Commit => {
                // Only the generation that made the object can still commit it (C3).
                if state.uploaded.take() == Some(state.generation) {
                    state.epoch += 1;
                    if state.uploaded_there {
                        state.objects.insert(state.epoch);
                    } else {
                        state.broken = true;
                    }
                }
            }
            Action::TakeOver => state.generation += 1,
            Action::Consume => {
                state.position += 1;
                state.broken |= !state.objects.contains(&state.position);
            }
            Action::Checkpoint => state.checkpoint = state.position,
            // The receiver's process died: its successor re-reads everything after the checkpoint.
            Action::Replay => state.broken |= (state.checkpoint + 1..=state.position).any(|epoch| !state.objects.contains(&epoch)),
            Action::Pin => {
                self.pin(&mut state);
                if state.reader == ReaderState::Away {
                    state.reader = ReaderState::Pinned;
                }
            }
            Action::Look => {
                let from = state.pinned_from.unwrap_or(state.floor + 1);
                state.reader = ReaderState::Reading { next: from, upto: state.epoch };
            }
            Action::Read => {
                let ReaderState::Reading { next, upto } = state.reader else { return None };
                if next > upto {
                    state.reader = ReaderState::Away;
                    state.pinned_from = None;
                } else {
                    state.broken |= !state.objects.contains(&next);
                    state.reader = ReaderState::Reading { next: next + 1, upto };
                }
            }
            Action::Collect => self.collect(&mut state),
            Action::CollectOrphan => {
                let made_by = state.uploaded?;
                let decision = decide_orphan(Generation(made_by), Generation(state.generation), false);
                if decision == Orphan::Delete || self.0 == Flaw::OrphansByName {
                    state.uploaded_there = false;
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("GC-1: nothing that can be reached is deleted", |_, state: &State| !state.broken),
            Property::sometimes("something is deleted", |_, state: &State| state.deleted_something),
            Property::sometimes("a pin holds the floor back", |_, state: &State| {
                state.pinned_from.is_some_and(|from| from <= state.checkpoint)
            }),
            Property::sometimes("an orphan is deleted", |_, state: &State| state.uploaded.is_some() && !state.uploaded_there),
        ]
    }
}

#[test]
fn deletion_spares_everything_that_a_reader_restart_point_or_pin_needs() {
    explore("deletion", DeletionModel(Flaw::None), 500);
}

#[test]
fn the_checker_catches_floors_at_committed_positions() {
    catches("G3 floor at positions", DeletionModel(Flaw::FloorAtPositions), "GC-1: nothing that can be reached is deleted");
}

#[test]
fn the_checker_catches_a_pin_written_after_the_heads_were_read() {
    catches("G2 pin after read", DeletionModel(Flaw::PinAfterRead), "GC-1: nothing that can be reached is deleted");
}

#[test]
fn the_checker_catches_orphans_deleted_while_their_maker_may_commit() {
    catches("G1 orphans by name", DeletionModel(Flaw::OrphansByName), "GC-1: nothing that can be reached is deleted");
}
