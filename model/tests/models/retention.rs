//! Floors and pins: two upstream shards that share an object per round, a stateful and a stateless reader, a collector, a query.
//!
//! ```text
//! U0, U1 --(object e holds epoch e of both)--> R0 reads U0, keeps state, restarts from its checkpoint
//!                                             R1 reads U0 and U1, keeps none, restarts from its positions
//!                                             Q pins, reads R0's head, needs what R0 would replay
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{PinDecision, Reader, decide_commit, decide_floors, decide_pin};
use weir_model::head::{CheckpointRef, InputState};
use weir_model::retention::{Pin, Retention};
use weir_model::{Epoch, Head, InputCut, Inputs, ShardKey};

use crate::world::{advance, catch, explore, key, segment};

const EPOCHS: u64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// G3: floors follow committed positions, not restart points.
    PositionsNotRestartPoints,
    /// G3: one reader of a shard is not asked.
    ReaderForgotten,
    /// G2: objects are deleted before the floor is committed.
    DeletesBeforeFloor,
    /// G2: the floor is written without a compare.
    FloorUnconditional,
    /// G2: floors pass pins.
    FloorsPassPins,
    /// G2: a reader reads heads, then pins without asking the floors.
    PinUnchecked,
    /// G2: the heads that say what lives were read before the floors rose.
    NamesBeforeFloors,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Restarts,
    Row,
    Raise,
    Names(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Cycle {
    steps: usize,
    restarts: Vec<(ShardKey, Epoch)>,
    seen: Option<(Retention, u64)>,
    floors: BTreeMap<String, Epoch>,
    names: [Option<Arc<Head>>; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Query {
    Out,
    /// Pinned everything, read nothing yet.
    Pinned,
    /// Read the head first; the pin comes after.
    Read {
        after: u64,
        upto: u64,
    },
    /// Pinned, and needs these epochs of U0.
    Viewing {
        after: u64,
        upto: u64,
        narrow: bool,
    },
    TooLate,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    upstream: [Arc<Head>; 2],
    readers: [Arc<Head>; 2],
    /// Object of each round, from epoch 1.
    objects: [bool; EPOCHS as usize],
    row: Retention,
    version: u64,
    cycle: Cycle,
    doomed: BTreeSet<u64>,
    query: Query,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Produce,
    Consume { reader: usize, of: usize, checkpoint: bool },
    Collect,
    Delete(u64),
    PinEverything,
    ReadFirst,
    View,
    PinNeeds,
    Narrow,
    Unpin,
}

struct Floors {
    flaw: Flaw,
}

fn upstream(of: usize) -> ShardKey {
    key(0, of as u32)
}

fn needs(after: u64) -> Pin {
    Pin { needs: BTreeMap::from([(upstream(0).to_string(), Epoch(after + 1))]), everything: false }
}

fn object_of(epoch: u64) -> usize {
    epoch as usize - 1
}

impl Floors {
    fn steps(&self) -> [Step; 5] {
        use Step::{Names, Raise, Restarts, Row};
        match self.flaw {
            Flaw::NamesBeforeFloors => [Names(1), Restarts, Row, Raise, Names(0)],
            Flaw::DeletesBeforeFloor => [Restarts, Row, Names(1), Names(0), Raise],
            _ => [Restarts, Row, Raise, Names(1), Names(0)],
        }
    }

    fn produce(state: &mut State) -> Option<()> {
        for head in &mut state.upstream {
            let epoch = head.epoch.next().0;
            let mut batch = advance(head, epoch, Inputs::Segments(Vec::new()));
            batch.entry.segments.push(segment(&epoch.to_string()));
            *head = Arc::new(decide_commit(head, batch).ok()?);
        }
        Some(())
    }

    fn consume(state: &mut State, reader: usize, of: usize, checkpoint: bool) -> Option<()> {
        let (from, head) = (upstream(of), &state.readers[reader]);
        let (after, upto) = (head.input(from).epoch, head.input(from).epoch.next());
        let cut = InputCut { from, after, upto, watermark: head.watermark };
        let mut batch = advance(head, upto.0, Inputs::Segments(vec![cut]));
        let input = InputState { epoch: upto, ..InputState::default() };
        batch.inputs.insert(from.to_string(), input);
        if checkpoint {
            let (epoch, inputs) = (head.epoch.next(), batch.inputs.clone());
            batch.checkpoint = Some(CheckpointRef { epoch, objects: Vec::new(), inputs, watermark: head.watermark });
        }
        state.readers[reader] = Arc::new(decide_commit(head, batch).ok()?);
        Some(())
    }

    /// Restart points of every reader, by the shard that is read.
    fn restarts(&self, state: &State) -> Vec<(ShardKey, Epoch)> {
        let stateless = self.flaw == Flaw::PositionsNotRestartPoints;
        let mut restarts = vec![(upstream(0), state.readers[0].restart_point(upstream(0), stateless))];
        if self.flaw != Flaw::ReaderForgotten {
            restarts.push((upstream(0), state.readers[1].restart_point(upstream(0), true)));
        }
        restarts.push((upstream(1), state.readers[1].restart_point(upstream(1), true)));
        restarts
    }

    fn raised(&self, row: &Retention, restarts: &[(ShardKey, Epoch)]) -> Option<Retention> {
        let readers: Vec<_> = restarts.iter().map(|(of, restart)| Reader { of: of.to_string(), restart: *restart }).collect();
        if self.flaw != Flaw::FloorsPassPins {
            return decide_floors(row, &readers);
        }
        let unpinned = Retention { pins: BTreeMap::new(), ..row.clone() };
        decide_floors(&unpinned, &readers).map(|next| Retention { pins: row.pins.clone(), ..next })
    }

    /// Returns false where the race for the row was lost and the cycle starts over.
    fn raise(&self, state: &mut State) -> bool {
        let Some((row, version)) = state.cycle.seen.take() else { return false };
        let next = self.raised(&row, &state.cycle.restarts);
        if version != state.version && self.flaw != Flaw::FloorUnconditional {
            return false;
        }
        if let Some(next) = next {
            state.cycle.floors = next.floors.clone();
            state.row = next;
            state.version += 1;
        }
        true
    }

    fn collect(&self, state: &mut State) {
        let step = self.steps()[state.cycle.steps];
        state.cycle.steps += 1;
        match step {
            Step::Restarts => state.cycle.restarts = self.restarts(state),
            Step::Row => {
                state.cycle.seen = Some((state.row.clone(), state.version));
                let early = self.flaw == Flaw::DeletesBeforeFloor;
                let floors = if early { self.raised(&state.row, &state.cycle.restarts) } else { None };
                state.cycle.floors = floors.unwrap_or_else(|| state.row.clone()).floors;
            }
            Step::Raise => {
                if !self.raise(state) {
                    state.cycle = Cycle::default();
                }
            }
            Step::Names(of) => state.cycle.names[of] = Some(Arc::clone(&state.upstream[of])),
        }
        if let [Some(first), Some(second)] = &state.cycle.names {
            let named = |head: &Head, fell: bool| {
                let floor = state.cycle.floors.get(&head.shard.to_string()).copied().unwrap_or_default();
                let entries = head.recent.iter().filter(|entry| (entry.epoch <= floor) == fell);
                entries.map(|entry| entry.epoch.0).collect::<BTreeSet<_>>()
            };
            let live = &named(first, false) | &named(second, false);
            let fallen = &named(first, true) | &named(second, true);
            let exists = |epoch: &&u64| state.objects[object_of(**epoch)];
            let doomed: BTreeSet<_> = fallen.difference(&live).filter(exists).copied().collect();
            state.doomed.extend(doomed);
            if self.flaw == Flaw::DeletesBeforeFloor {
                state.cycle.names = [None, None];
            }
        }
        if state.cycle.steps == self.steps().len() {
            state.cycle = Cycle::default();
        }
    }

    fn pin(&self, state: &mut State, pin: Pin) -> bool {
        let row = if self.flaw == Flaw::PinUnchecked {
            let mut row = state.row.clone();
            row.pins.insert("q".to_owned(), pin);
            row
        } else {
            match decide_pin(&state.row, "q", pin) {
                PinDecision::Write(row) => row,
                PinDecision::TooLate { .. } => return false,
            }
        };
        state.row = row;
        state.version += 1;
        true
    }

    fn view(state: &State) -> (u64, u64) {
        let head = &state.readers[0];
        (head.restart_point(upstream(0), false).0, head.input(upstream(0)).epoch.0)
    }
}

impl Model for Floors {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let head = |stage, shard| Arc::new(Head::new(key(stage, shard)));
        vec![State {
            upstream: [head(0, 0), head(0, 1)],
            readers: [head(1, 0), head(1, 1)],
            objects: [true; EPOCHS as usize],
            row: Retention::new(),
            version: 1,
            cycle: Cycle::default(),
            doomed: BTreeSet::new(),
            query: Query::Out,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.upstream[0].epoch.0 < EPOCHS {
            actions.push(Action::Produce);
        }
        for (reader, of) in [(0, 0), (1, 0), (1, 1)] {
            if state.readers[reader].input(upstream(of)).epoch < state.upstream[of].epoch {
                let kinds: &[bool] = if reader == 0 { &[false, true] } else { &[false] };
                actions.extend(kinds.iter().map(|checkpoint| Action::Consume { reader, of, checkpoint: *checkpoint }));
            }
        }
        actions.push(Action::Collect);
        actions.extend(state.doomed.iter().map(|epoch| Action::Delete(*epoch)));
        match state.query {
            Query::Out => actions.extend([Action::PinEverything, Action::ReadFirst]),
            Query::Pinned => actions.push(Action::View),
            Query::Read { .. } => actions.push(Action::PinNeeds),
            Query::Viewing { narrow: false, .. } => actions.extend([Action::Narrow, Action::Unpin]),
            Query::Viewing { narrow: true, .. } => actions.push(Action::Unpin),
            Query::TooLate | Query::Done => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match (action, &last.query) {
            (Action::Produce, _) => Self::produce(&mut state)?,
            (Action::Consume { reader, of, checkpoint }, _) => Self::consume(&mut state, reader, of, checkpoint)?,
            (Action::Collect, _) => self.collect(&mut state),
            (Action::Delete(epoch), _) => {
                state.doomed.remove(&epoch);
                state.objects[object_of(epoch)] = false;
            }
            (Action::PinEverything, _) => {
                self.pin(&mut state, Pin { everything: true, ..Pin::default() });
                state.query = Query::Pinned;
            }
            (Action::ReadFirst, _) => {
                let (after, upto) = Self::view(last);
                state.query = Query::Read { after, upto };
            }
            (Action::View, _) => {
                let (after, upto) = Self::view(last);
                state.query = Query::Viewing { after, upto, narrow: false };
            }
            (Action::PinNeeds, Query::Read { after, upto }) => {
                let (after, upto) = (*after, *upto);
                let pinned = self.pin(&mut state, needs(after));
                state.query = if pinned { Query::Viewing { after, upto, narrow: true } } else { Query::TooLate };
            }
            (Action::Narrow, Query::Viewing { after, upto, .. }) => {
                let (after, upto) = (*after, *upto);
                // A narrower pin of the same reader takes the place of the wide one; it can't be too late.
                let pinned = self.pin(&mut state, needs(after));
                state.query = if pinned { Query::Viewing { after, upto, narrow: true } } else { Query::TooLate };
            }
            (Action::Unpin, _) => {
                state.row.pins.clear();
                state.version += 1;
                state.query = Query::Done;
            }
            (Action::PinNeeds | Action::Narrow, _) => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn there(state: &State, after: Epoch, upto: Epoch) -> bool {
            (after.0 + 1..=upto.0).all(|epoch| state.objects[object_of(epoch)])
        }
        vec![
            Property::<Self>::always(READERS, |_, state| {
                let stateful = state.readers[0].restart_point(upstream(0), false);
                let stateless = |of| there(state, state.readers[1].restart_point(upstream(of), true), state.upstream[of].epoch);
                there(state, stateful, state.upstream[0].epoch) && stateless(0) && stateless(1)
            }),
            Property::<Self>::always(PINNED, |_, state| match state.query {
                Query::Viewing { after, upto, .. } => there(state, Epoch(after), Epoch(upto)),
                Query::Out | Query::Pinned | Query::Read { .. } | Query::TooLate | Query::Done => true,
            }),
            Property::<Self>::always(ABOVE, |_, state| {
                let above = |of: usize| there(state, state.row.floor(&upstream(of).to_string()), state.upstream[of].epoch);
                above(0) && above(1)
            }),
            Property::<Self>::sometimes("everything is deleted", |_, state| state.objects.iter().all(|exists| !exists)),
            Property::<Self>::sometimes("something is deleted under a narrow pin", |_, state| {
                matches!(state.query, Query::Viewing { narrow: true, .. }) && state.objects.iter().any(|exists| !exists)
            }),
            Property::<Self>::sometimes("a pin comes too late", |_, state| state.query == Query::TooLate),
            Property::<Self>::sometimes("the stateful reader stands past its restart point", |_, state| {
                let head = &state.readers[0];
                head.input(upstream(0)).epoch > head.restart_point(upstream(0), false)
            }),
        ]
    }
}

const READERS: &str = "GC-1, G3: what a reader may read again is there";
const PINNED: &str = "GC-1, G2: what a pinned reader needs is there";
const ABOVE: &str = "G2: nothing above a floor is deleted";

#[test]
fn floors_never_pass_what_a_reader_or_a_pin_needs() {
    explore("retention", Floors { flaw: Flaw::None }, 50_000);
}

#[test]
fn each_flaw_of_retention_is_caught() {
    let flaws = [
        (Flaw::PositionsNotRestartPoints, READERS),
        (Flaw::ReaderForgotten, READERS),
        (Flaw::DeletesBeforeFloor, PINNED),
        (Flaw::FloorUnconditional, PINNED),
        (Flaw::FloorsPassPins, PINNED),
        (Flaw::PinUnchecked, PINNED),
        (Flaw::NamesBeforeFloors, READERS),
    ];
    for (flaw, property) in flaws {
        catch(flaw, Floors { flaw }, property);
    }
}
