//! Claim, commit, lost and late answers, warm cache, spill: one stateful lane, two processes.
//!
//! The lane folds rows of its source into a state; the digest of each entry says what its state holds, so a row that is folded twice
//! or not at all shows in the head itself.

use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{
    ClaimDecision, OwnerLiveness, Resolution, cache_is_valid, decide_claim, decide_commit, decide_resolve, spill,
};
use weir_model::head::ManifestRef;
use weir_model::{CommitId, Generation, Head, Inputs, Offset, Watermark};

use crate::world::{FATES, Fate, Row, advance, catch, explore, key, owner};

const ROWS: u64 = 3;
/// Event times of the rows: out of order, so that a watermark taken from one batch alone would move back.
const TIMES: [i64; ROWS as usize] = [20, 10, 30];
const GENERATIONS_MAX: u64 = 3;
const ATTEMPTS_MAX: u64 = 3;
const TRAVELLING_MAX: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// T5: "not there" is taken for "never", though the version is unchanged.
    NotThereMeansNever,
    /// T5: a refusal is taken for a fence, though it was our own first write that moved the version.
    RefusedMeansFenced,
    /// T5: what spilled into a manifest is not looked for.
    ManifestForgotten,
    /// C2: the cache outlives an unclear commit and is compared by epoch.
    CacheByEpoch,
    /// C2: the cache outlives an unclear commit under the id of the commit before.
    CacheKeptAfterUnclear,
    /// Idea 2: heads are written unconditionally.
    Unfenced,
    /// FN-1: the write is conditional on the epoch, which a claim does not move.
    FencedByEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write {
    version: u64,
    epoch: u64,
    next: Arc<Head>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    write: Write,
    id: u64,
    memory: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Out,
    Claiming(Write),
    Holding { head: Arc<Head>, version: u64, memory: u64, warm: bool },
    Sending(Attempt),
    Unclear(Attempt),
}

/// State kept in memory by a process that holds nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cache {
    left_at: Option<CommitId>,
    epoch: u64,
    memory: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    row: Row,
    phases: [Phase; 2],
    caches: [Option<Cache>; 2],
    travelling: Vec<Write>,
    /// Commits in each manifest; its number is its name.
    manifests: Vec<Vec<CommitId>>,
    attempts: u64,
    /// What was told, against what happened.
    committed: Vec<u64>,
    confirmed: Vec<u64>,
    given_up: Vec<u64>,
    /// A write of an older generation was applied, or a watermark moved back.
    stale_write: bool,
    watermark_fell: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Read(usize),
    SendClaim(usize, Fate),
    Prepare { process: usize, rows: u64, spills: bool },
    SendCommit(usize, Fate),
    Resolve(usize),
    GiveUpAsking(usize),
    Leave(usize),
    Crash(usize),
    Arrive(usize),
}

struct Lane {
    flaw: Flaw,
}

/// The state after the first `rows` rows: two bits count each row.
fn folded(rows: u64) -> u64 {
    (0..rows).map(|row| 1 << (2 * row)).sum()
}

fn place(head: &Head) -> u64 {
    head.source.unwrap_or_default().at
}

impl Lane {
    /// The batch of the next `rows` rows: the head after it and the state after it.
    fn batch(head: &Head, memory: u64, rows: u64, id: u64) -> Option<(Head, u64)> {
        let (from, upto) = (place(head), place(head) + rows);
        let offset = |at| Offset { split: 0, at };
        let memory = memory + (from..upto).map(|row| 1u64 << (2 * row)).sum::<u64>();
        let seen = TIMES.iter().skip(from as usize).take(rows as usize).copied().max().unwrap_or(i64::MIN);
        let watermark = head.watermark.max(Watermark(seen));
        let mut next = advance(head, id, Inputs::Reference { from: offset(from), upto: offset(upto) });
        next.source = Some(offset(upto));
        next.entry.watermark = watermark;
        next.entry.recipe.watermark_after = watermark;
        next.entry.recipe.digest = memory;
        decide_commit(head, next).ok().map(|head| (head, memory))
    }

    /// Applies a write where its condition holds.
    fn apply(&self, state: &mut State, write: &Write) -> bool {
        let before = Arc::clone(&state.row.head);
        let version = match self.flaw {
            Flaw::Unfenced => state.row.version,
            Flaw::FencedByEpoch if write.epoch == before.epoch.0 => state.row.version,
            _ => write.version,
        };
        if !state.row.put(version, &write.next) {
            return false;
        }
        state.stale_write |= write.next.generation < before.generation;
        state.watermark_fell |= write.next.watermark < before.watermark;
        if let (true, Some(id)) = (write.next.epoch > before.epoch, write.next.last_commit) {
            state.committed.push(id.0 as u64);
        }
        true
    }

    fn load(&self, state: &mut State, process: usize, head: Arc<Head>, version: u64) {
        let fits = |cache: &Cache| match self.flaw {
            Flaw::CacheByEpoch => cache.epoch == head.epoch.0,
            _ => cache_is_valid(&head, cache.left_at),
        };
        let warm = state.caches[process].take().filter(fits);
        let memory = warm.as_ref().map_or(folded(place(&head)), |cache| cache.memory);
        state.phases[process] = Phase::Holding { head, version, memory, warm: warm.is_some() };
    }

    fn confirm(state: &mut State, process: usize, attempt: Attempt) {
        state.confirmed.push(attempt.id);
        let Attempt { write, memory, .. } = attempt;
        let version = write.version + 1;
        state.phases[process] = Phase::Holding { head: write.next, version, memory, warm: false };
    }

    /// What a process keeps of an attempt that it stopped pursuing.
    fn drop_attempt(&self, state: &mut State, process: usize, attempt: &Attempt) {
        let before = attempt.write.next.recent.iter().rev().nth(1).map(|entry| entry.commit);
        let (left_at, epoch) = match self.flaw {
            Flaw::CacheByEpoch => (None, attempt.write.next.epoch.0),
            Flaw::CacheKeptAfterUnclear => (before, attempt.write.epoch),
            _ => {
                state.caches[process] = None;
                return;
            }
        };
        state.caches[process] = Some(Cache { left_at, epoch, memory: attempt.memory });
    }

    fn give_up(&self, state: &mut State, process: usize, attempt: &Attempt) {
        state.given_up.push(attempt.id);
        self.drop_attempt(state, process, attempt);
        state.phases[process] = Phase::Out;
    }

    fn send_claim(&self, state: &mut State, process: usize, write: Write, fate: Fate) {
        state.phases[process] = Phase::Out;
        if fate == Fate::Late {
            state.travelling.push(write);
            return;
        }
        let applied = self.apply(state, &write);
        if applied && fate != Fate::AnswerLost {
            self.load(state, process, write.next, write.version + 1);
        }
    }

    fn send_commit(&self, state: &mut State, process: usize, attempt: Attempt, fate: Fate) {
        if fate == Fate::Late || fate == Fate::Doubled {
            state.travelling.push(attempt.write.clone());
        }
        let applied = fate != Fate::Late && self.apply(state, &attempt.write);
        match fate {
            Fate::Late | Fate::AnswerLost => state.phases[process] = Phase::Unclear(attempt),
            Fate::Heard | Fate::Doubled if applied => Self::confirm(state, process, attempt),
            Fate::Heard | Fate::Doubled if self.flaw == Flaw::RefusedMeansFenced => self.give_up(state, process, &attempt),
            Fate::Heard | Fate::Doubled => state.phases[process] = Phase::Unclear(attempt),
        }
    }

    fn resolve(&self, state: &mut State, process: usize, attempt: Attempt) {
        let id = CommitId(u128::from(attempt.id));
        let row = state.row.clone();
        let mut resolution = decide_resolve(&row.head, row.version, attempt.write.version, id, None);
        if resolution == Resolution::LookInManifest {
            let found = self.flaw != Flaw::ManifestForgotten && state.manifests.iter().any(|commits| commits.contains(&id));
            resolution = decide_resolve(&row.head, row.version, attempt.write.version, id, Some(found));
        }
        match resolution {
            Resolution::Committed if row.version == attempt.write.version + 1 => Self::confirm(state, process, attempt),
            Resolution::Committed => {
                // It landed, and the shard moved on without us: true for whoever asked, useless as a claim.
                state.confirmed.push(attempt.id);
                state.phases[process] = Phase::Out;
            }
            Resolution::Resend if self.flaw == Flaw::NotThereMeansNever => self.give_up(state, process, &attempt),
            Resolution::Resend => state.phases[process] = Phase::Sending(attempt),
            Resolution::Lost { .. } | Resolution::LookInManifest => self.give_up(state, process, &attempt),
        }
    }

    fn prepare(state: &mut State, process: usize, rows: u64, spills: bool) {
        let Phase::Holding { head, version, memory, .. } = &state.phases[process] else { return };
        let (version, memory, mut base) = (*version, *memory, head.as_ref().clone());
        if spills {
            let (Some(first), Some(last)) = (base.recent.front(), base.recent.back()) else { return };
            let name = format!("m{}", state.manifests.len());
            let manifest = ManifestRef { object: name, first: first.epoch, last: last.epoch, bytes: 1 };
            state.manifests.push(base.recent.iter().map(|entry| entry.commit).collect());
            base = spill(&base, base.recent.len(), manifest, None);
        }
        let id = state.attempts + 1;
        if let Some((next, memory)) = Self::batch(&base, memory, rows, id) {
            state.attempts = id;
            let write = Write { version, epoch: base.epoch.0, next: Arc::new(next) };
            state.phases[process] = Phase::Sending(Attempt { write, id, memory });
        }
    }

    fn actions_of(state: &State, process: usize, actions: &mut Vec<Action>) {
        let room = state.travelling.len() < TRAVELLING_MAX;
        let fates = || FATES.into_iter().filter(move |fate| room || !matches!(fate, Fate::Late | Fate::Doubled));
        match &state.phases[process] {
            Phase::Out if state.row.head.generation.0 < GENERATIONS_MAX => actions.push(Action::Read(process)),
            Phase::Out => {}
            Phase::Claiming(_) => {
                actions.extend(fates().filter(|fate| *fate != Fate::Doubled).map(|fate| Action::SendClaim(process, fate)));
            }
            Phase::Holding { head, .. } => {
                let left = ROWS - place(head);
                if state.attempts < ATTEMPTS_MAX && left > 0 {
                    let spills = [false, true];
                    let kinds =
                        spills.into_iter().filter(|spills| !spills || (head.recent.len() == 1 && state.manifests.is_empty()));
                    for spills in kinds {
                        actions.extend((1..=left.min(2)).map(|rows| Action::Prepare { process, rows, spills }));
                    }
                }
                actions.push(Action::Leave(process));
            }
            Phase::Sending(_) => actions.extend(fates().map(|fate| Action::SendCommit(process, fate))),
            Phase::Unclear(_) => actions.extend([Action::Resolve(process), Action::GiveUpAsking(process)]),
        }
        if state.phases[process] != Phase::Out || state.caches[process].is_some() {
            actions.push(Action::Crash(process));
        }
    }
}

impl Model for Lane {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            row: Row::new(Head::new(key(0, 0))),
            phases: [Phase::Out, Phase::Out],
            caches: [None, None],
            travelling: Vec::new(),
            manifests: Vec::new(),
            attempts: 0,
            committed: Vec::new(),
            confirmed: Vec::new(),
            given_up: Vec::new(),
            stale_write: false,
            watermark_fell: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        (0..2).for_each(|process| Self::actions_of(state, process, actions));
        actions.extend((0..state.travelling.len()).map(Action::Arrive));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Read(process) => {
                // Liveness is only a hint: a claimant may be wrong about it at any time.
                let decision = decide_claim(&last.row.head, &owner(process), 0, OwnerLiveness::Dead);
                let ClaimDecision::Take(next) = decision else { return None };
                let write = Write { version: last.row.version, epoch: last.row.head.epoch.0, next: Arc::new(*next) };
                state.phases[process] = Phase::Claiming(write);
            }
            Action::SendClaim(process, fate) => {
                let Phase::Claiming(write) = &last.phases[process] else { return None };
                self.send_claim(&mut state, process, write.clone(), fate);
            }
            Action::Prepare { process, rows, spills } => Self::prepare(&mut state, process, rows, spills),
            Action::SendCommit(process, fate) => {
                let Phase::Sending(attempt) = &last.phases[process] else { return None };
                self.send_commit(&mut state, process, attempt.clone(), fate);
            }
            Action::Resolve(process) => {
                let Phase::Unclear(attempt) = &last.phases[process] else { return None };
                self.resolve(&mut state, process, attempt.clone());
            }
            Action::GiveUpAsking(process) => {
                let Phase::Unclear(attempt) = &last.phases[process] else { return None };
                self.drop_attempt(&mut state, process, attempt);
                state.phases[process] = Phase::Out;
            }
            Action::Leave(process) => {
                let Phase::Holding { head, memory, .. } = &last.phases[process] else { return None };
                state.caches[process] = Some(Cache { left_at: head.last_commit, epoch: head.epoch.0, memory: *memory });
                state.phases[process] = Phase::Out;
            }
            Action::Crash(process) => {
                state.caches[process] = None;
                state.phases[process] = Phase::Out;
            }
            Action::Arrive(index) => {
                let write = state.travelling.remove(index);
                self.apply(&mut state, &write);
            }
        }
        if !matches!(self.flaw, Flaw::Unfenced | Flaw::FencedByEpoch) {
            // What can never land any more need not be remembered.
            let version = state.row.version;
            state.travelling.retain(|write| write.version >= version);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always("FN-1: no write of an older generation is applied", |_, state| !state.stale_write),
            Property::<Self>::always("WM-1: the watermark never moves back", |_, state| !state.watermark_fell),
            Property::<Self>::always("EO-1, RP-1: each entry's state holds each row up to its place once", |_, state| {
                let holds = |entry: &weir_model::CommitEntry| match entry.recipe.inputs {
                    Inputs::Reference { upto, .. } => entry.recipe.digest == folded(upto.at),
                    Inputs::Segments(_) => false,
                };
                state.row.head.recent.iter().all(holds)
            }),
            Property::<Self>::always("T5: what was given up never lands", |_, state| {
                !state.given_up.iter().any(|id| state.committed.contains(id))
            }),
            Property::<Self>::always("T5: what was confirmed is there", |_, state| {
                state.confirmed.iter().all(|id| state.committed.contains(id))
            }),
            Property::<Self>::sometimes("everything is read", |_, state| place(&state.row.head) == ROWS),
            Property::<Self>::sometimes("a zombie is about to be fenced", |_, state| {
                state.phases.iter().any(|phase| is_zombie(phase, state))
            }),
            Property::<Self>::sometimes("a write may land after its sender gave up", |_, state| {
                let sender_is_gone = state.phases.iter().all(|phase| !matches!(phase, Phase::Sending(_) | Phase::Unclear(_)));
                sender_is_gone && state.travelling.iter().any(|write| write.version == state.row.version)
            }),
            Property::<Self>::sometimes("a cache is used", |_, state| {
                state.phases.iter().any(|phase| matches!(phase, Phase::Holding { warm: true, .. }))
            }),
            Property::<Self>::sometimes("a commit is found in a manifest only", |_, state| {
                let spilled = |phase: &Phase| match phase {
                    Phase::Unclear(attempt) => state.manifests.iter().flatten().any(|id| id.0 as u64 == attempt.id),
                    Phase::Out | Phase::Claiming(_) | Phase::Holding { .. } | Phase::Sending(_) => false,
                };
                state.row.head.manifest.is_some() && state.phases.iter().any(spilled)
            }),
            Property::<Self>::sometimes("the last generation commits", |_, state| {
                let last = state.row.head.recent.back().map(|entry| entry.generation);
                last == Some(Generation(GENERATIONS_MAX))
            }),
        ]
    }
}

fn is_zombie(phase: &Phase, state: &State) -> bool {
    match phase {
        Phase::Sending(attempt) | Phase::Unclear(attempt) => attempt.write.next.generation < state.row.head.generation,
        Phase::Out | Phase::Claiming(_) | Phase::Holding { .. } => false,
    }
}

const GIVEN_UP: &str = "T5: what was given up never lands";
const ONCE: &str = "EO-1, RP-1: each entry's state holds each row up to its place once";

#[test]
fn commits_survive_lost_and_late_answers_zombies_and_warm_caches() {
    explore("commit", Lane { flaw: Flaw::None }, 50_000);
}

#[test]
fn each_flaw_of_commit_is_caught() {
    let flaws = [
        (Flaw::NotThereMeansNever, GIVEN_UP),
        (Flaw::RefusedMeansFenced, GIVEN_UP),
        (Flaw::ManifestForgotten, GIVEN_UP),
        (Flaw::CacheByEpoch, ONCE),
        (Flaw::CacheKeptAfterUnclear, ONCE),
        (Flaw::Unfenced, "FN-1: no write of an older generation is applied"),
        (Flaw::FencedByEpoch, "FN-1: no write of an older generation is applied"),
    ];
    for (flaw, property) in flaws {
        catch(flaw, Lane { flaw }, property);
    }
}
