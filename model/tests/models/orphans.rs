//! Objects that no head names: two shards, a round whose object is shared, a second owner, a collector, a pinned reader.
//!
//! ```text
//! writer A holds both shards, uploads x anchored at shard 0, commits it for shard 1 on condition that shard 0 is still its own
//! writer B claims a shard, replaces the checkpoint of shard 0 or names an object of its own
//! collector reads generations, names, pins, dooms objects; deletes them at any later time
//! reader Q pins everything, reads shard 0's checkpoint, lets go
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{
    ClaimDecision, Orphan, OwnerLiveness, PinDecision, decide_claim, decide_commit, decide_fence, decide_orphan, decide_pin,
    orphans_may_go,
};
use weir_model::head::CheckpointRef;
use weir_model::retention::{Pin, Retention};
use weir_model::{Generation, Head, Inputs};

use crate::world::{Fate, Row, advance, catch, explore, key, owner, segment};

const GENERATIONS_MAX: u64 = 3;
const CYCLES_MAX: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// G1: what no head names is deleted, whoever may still commit it.
    AgeDecides,
    /// C3: a commit does not check the generation of its object's anchor.
    AnchorUnchecked,
    /// T6: a writer that thinks it lost deletes its object.
    LoserDeletes,
    /// G1: names are read before generations.
    NamesBeforeGenerations,
    /// G2: orphans are deleted while a reader has pinned their shard.
    PinsIgnored,
    /// G2: pins are read before names.
    PinsBeforeNames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Object {
    anchor: usize,
    generation: Generation,
    exists: bool,
}

/// A transaction: one shard's next head, on condition of its version and of its object's anchor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write {
    shard: usize,
    version: u64,
    next: Arc<Head>,
    anchor: Option<(usize, Generation)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Out,
    Holding { shard: usize, head: Arc<Head>, version: u64 },
    Uploaded { object: usize, write: Write },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Generations,
    Names(usize),
    Pins,
}

/// What the collector has read in this cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Cycle {
    steps: usize,
    generations: Vec<Generation>,
    named: BTreeSet<usize>,
    may_go: Vec<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Query {
    Out,
    Pinned,
    Viewing(Option<usize>),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    rows: [Row; 2],
    objects: Vec<Object>,
    /// A holds both shards from the start; B comes later.
    writers: [Writer; 2],
    travelling: Option<Write>,
    cycle: Cycle,
    cycles: u8,
    doomed: BTreeSet<usize>,
    retention: Retention,
    query: Query,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Claim(usize),
    Upload(usize),
    Commit(usize, Fate),
    Arrive,
    Collect,
    ClaimQuiet(usize),
    Delete(usize),
    Pin,
    View,
    Unpin,
}

struct Collection {
    flaw: Flaw,
}

fn named(head: &Head) -> BTreeSet<usize> {
    let checkpoint = head.checkpoint.iter().flat_map(|checkpoint| checkpoint.objects.iter());
    let entries = head.recent.iter().flat_map(|entry| &entry.segments);
    checkpoint.chain(entries).filter_map(|segment| segment.object.parse().ok()).collect()
}

/// The head after a batch of nothing that names `object`: shard 0 as its checkpoint, shard 1 as an epoch's segment.
fn naming(head: &Head, object: usize) -> Option<Head> {
    let mut batch = advance(head, head.generation.0, Inputs::Segments(Vec::new()));
    let object = segment(&object.to_string());
    if head.shard == key(0, 0) {
        let inputs = Default::default();
        let epoch = head.epoch.next();
        batch.checkpoint = Some(CheckpointRef { epoch, objects: vec![object], inputs, watermark: head.watermark });
    } else {
        batch.entry.segments.push(object);
    }
    decide_commit(head, batch).ok()
}

impl Collection {
    fn steps(&self) -> [Step; 4] {
        use Step::{Generations, Names, Pins};
        match self.flaw {
            Flaw::NamesBeforeGenerations => [Names(1), Names(0), Generations, Pins],
            Flaw::PinsBeforeNames => [Generations, Pins, Names(1), Names(0)],
            _ => [Generations, Names(1), Names(0), Pins],
        }
    }

    fn apply(&self, state: &mut State, write: &Write) -> bool {
        let anchored = |(shard, generation): (usize, Generation)| state.rows[shard].head.generation == generation;
        let holds = self.flaw == Flaw::AnchorUnchecked || write.anchor.is_none_or(anchored);
        holds && state.rows[write.shard].put(write.version, &write.next)
    }

    fn take(state: &State, shard: usize, process: usize) -> Option<Arc<Head>> {
        let row = &state.rows[shard];
        match decide_claim(&row.head, &owner(process), 0, OwnerLiveness::Dead) {
            ClaimDecision::Take(next) if row.head.generation.0 < GENERATIONS_MAX => Some(Arc::new(*next)),
            ClaimDecision::Take(_) | ClaimDecision::Held { .. } => None,
        }
    }

    fn fenced(state: &State, shard: usize) -> Option<Arc<Head>> {
        let row = &state.rows[shard];
        match decide_fence(&row.head, 0, OwnerLiveness::Dead) {
            ClaimDecision::Take(next) if row.head.generation.0 < GENERATIONS_MAX => Some(Arc::new(*next)),
            ClaimDecision::Take(_) | ClaimDecision::Held { .. } => None,
        }
    }

    /// A shares its object between shards: anchored at 0, named by 1. B anchors at the shard it holds.
    fn upload(state: &mut State, process: usize) -> Option<()> {
        let Writer::Holding { shard, head, version } = &state.writers[process] else { return None };
        let (shard, version, generation) = (*shard, *version, head.generation);
        let anchor = if process == 0 { 0 } else { shard };
        let object = state.objects.len();
        let next = Arc::new(naming(head, object)?);
        state.objects.push(Object { anchor, generation, exists: true });
        let write = Write { shard, version, next, anchor: Some((anchor, generation)) };
        state.writers[process] = Writer::Uploaded { object, write };
        Some(())
    }

    fn commit(&self, state: &mut State, process: usize, fate: Fate) -> Option<()> {
        let Writer::Uploaded { object, write } = state.writers[process].clone() else { return None };
        state.writers[process] = Writer::Done;
        if fate == Fate::Late {
            state.travelling = Some(write);
        } else {
            let applied = self.apply(state, &write);
            if applied && fate == Fate::Heard {
                return Some(());
            }
        }
        // Refused or unclear: whether it landed is for `decide_resolve`; the object is left to the collector in any case.
        if self.flaw == Flaw::LoserDeletes {
            state.objects[object].exists = false;
        }
        Some(())
    }

    fn collect(&self, state: &mut State) {
        let steps = self.steps();
        match steps[state.cycle.steps] {
            Step::Generations => state.cycle.generations = state.rows.iter().map(|row| row.head.generation).collect(),
            Step::Names(shard) => state.cycle.named.extend(named(&state.rows[shard].head)),
            Step::Pins => {
                let may_go =
                    |shard: u32| self.flaw == Flaw::PinsIgnored || orphans_may_go(&state.retention, &key(0, shard).to_string());
                state.cycle.may_go = vec![may_go(0), may_go(1)];
            }
        }
        state.cycle.steps += 1;
        if state.cycle.steps == steps.len() {
            let cycle = std::mem::take(&mut state.cycle);
            let goes = |(name, object): (usize, &Object)| {
                let decision = decide_orphan(object.generation, cycle.generations[object.anchor], cycle.named.contains(&name));
                let deletes = match decision {
                    Orphan::Delete => true,
                    Orphan::ClaimFirst => self.flaw == Flaw::AgeDecides,
                    Orphan::Keep => false,
                };
                (object.exists && deletes && cycle.may_go[object.anchor]).then_some(name)
            };
            state.doomed.extend(state.objects.iter().enumerate().filter_map(goes));
            state.cycles += 1;
        }
    }
}

impl Model for Collection {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let first = |shard| Head { generation: Generation(1), owner: Some(owner(0)), ..Head::new(key(0, shard)) };
        let checkpointed = naming(&first(0), 0).unwrap_or_else(|| first(0));
        let rows = [Row::new(checkpointed), Row::new(first(1))];
        let holding = Writer::Holding { shard: 1, head: Arc::clone(&rows[1].head), version: rows[1].version };
        vec![State {
            rows,
            objects: vec![Object { anchor: 0, generation: Generation(1), exists: true }],
            writers: [holding, Writer::Out],
            travelling: None,
            cycle: Cycle::default(),
            cycles: 0,
            doomed: BTreeSet::new(),
            retention: Retention::new(),
            query: Query::Out,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (process, writer) in state.writers.iter().enumerate() {
            match writer {
                Writer::Out => actions.extend([Action::Claim(0), Action::Claim(1)]),
                Writer::Holding { .. } => actions.push(Action::Upload(process)),
                Writer::Uploaded { .. } => {
                    let fates = [Fate::Heard, Fate::AnswerLost, Fate::Late].into_iter();
                    let fates = fates.filter(|fate| *fate != Fate::Late || state.travelling.is_none());
                    actions.extend(fates.map(|fate| Action::Commit(process, fate)));
                }
                Writer::Done => {}
            }
        }
        actions.extend(state.travelling.iter().map(|_| Action::Arrive));
        if state.cycles < CYCLES_MAX {
            actions.push(Action::Collect);
            actions.extend([Action::ClaimQuiet(0), Action::ClaimQuiet(1)]);
        }
        actions.extend(state.doomed.iter().map(|object| Action::Delete(*object)));
        match state.query {
            Query::Out => actions.push(Action::Pin),
            Query::Pinned => actions.push(Action::View),
            Query::Viewing(_) => actions.push(Action::Unpin),
            Query::Done => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim(shard) => {
                let (head, version) = (Self::take(last, shard, 1)?, last.rows[shard].version);
                state.rows[shard].put(version, &head);
                state.writers[1] = Writer::Holding { shard, head, version: version + 1 };
            }
            Action::Upload(process) => Self::upload(&mut state, process)?,
            Action::Commit(process, fate) => self.commit(&mut state, process, fate)?,
            Action::Arrive => {
                let write = state.travelling.take()?;
                self.apply(&mut state, &write);
            }
            Action::Collect => self.collect(&mut state),
            Action::ClaimQuiet(shard) => {
                let next = Self::fenced(last, shard)?;
                state.rows[shard].put(last.rows[shard].version, &next);
            }
            Action::Delete(object) => {
                state.doomed.remove(&object);
                state.objects[object].exists = false;
            }
            Action::Pin => {
                let pin = Pin { everything: true, ..Pin::default() };
                let PinDecision::Write(row) = decide_pin(&last.retention, "q", pin) else { return None };
                state.retention = row;
                state.query = Query::Pinned;
            }
            Action::View => {
                let checkpoint = last.rows[0].head.checkpoint.as_ref()?.objects.first()?;
                state.query = Query::Viewing(checkpoint.object.parse().ok());
            }
            Action::Unpin => {
                state.retention.pins.clear();
                state.query = Query::Done;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(NAMED, |_, state| {
                state.rows.iter().flat_map(|row| named(&row.head)).all(|object| state.objects[object].exists)
            }),
            Property::<Self>::always(PINNED, |_, state| match state.query {
                Query::Viewing(Some(object)) => state.objects[object].exists,
                Query::Viewing(None) | Query::Out | Query::Pinned | Query::Done => true,
            }),
            Property::<Self>::sometimes("a replaced checkpoint is deleted", |_, state| !state.objects[0].exists),
            Property::<Self>::sometimes("an object that never was committed is deleted", |_, state| {
                let gone = |(name, object): (usize, &Object)| !object.exists && name > 0;
                state.objects.iter().enumerate().any(gone)
            }),
            Property::<Self>::sometimes("a shared object is named by a shard it is not anchored at", |_, state| {
                named(&state.rows[1].head).iter().any(|object| state.objects[*object].anchor == 0)
            }),
            Property::<Self>::sometimes("a reader holds a checkpoint that was replaced", |_, state| {
                let replaced = |object: usize| !named(&state.rows[0].head).contains(&object);
                matches!(state.query, Query::Viewing(Some(object)) if replaced(object))
            }),
            Property::<Self>::sometimes("a deletion comes late", |_, state| !state.doomed.is_empty() && state.cycle.steps > 0),
        ]
    }
}

const NAMED: &str = "GC-1: what a head names is there";
const PINNED: &str = "GC-1: what a pinned reader saw is there";

#[test]
fn only_what_nobody_can_ever_name_is_collected() {
    explore("orphans", Collection { flaw: Flaw::None }, 50_000);
}

#[test]
fn each_flaw_of_orphan_collection_is_caught() {
    let flaws = [
        (Flaw::AgeDecides, NAMED),
        (Flaw::AnchorUnchecked, NAMED),
        (Flaw::LoserDeletes, NAMED),
        (Flaw::NamesBeforeGenerations, NAMED),
        (Flaw::PinsIgnored, PINNED),
        (Flaw::PinsBeforeNames, PINNED),
    ];
    for (flaw, property) in flaws {
        catch(flaw, Collection { flaw }, property);
    }
}
