//! Publishing into a folder of files: three processes, crashes between any two steps, zombies that wake up late.
//!
//! The target compares nothing: a rename replaces whatever is there. What stops a zombie is that its staging folder is gone.
//!
//! ```text
//! read head --> make staging folder of the next generation --> claim it --> remove older folders --> look, stage, rename --> ...
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{Advance, ClaimDecision, OwnerLiveness, PublishRecovery, decide_claim, decide_commit, decide_recovery};
use weir_model::head::{InputState, PendingPublish, PublishState};
use weir_model::{Epoch, Generation, Head, Inputs, ShardKey};

use crate::world::{Fate, Row, advance, catch, explore, key, owner};

/// Upstream epochs to publish, one row each.
const ROWS: u64 = 3;
const ROWS_PER_FILE: u64 = 2;
const GENERATIONS_MAX: u64 = 3;
const PROCESSES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// X5: staging folders of older generations stay.
    StagingStays,
    /// X5: a writer makes its staging folder anew when it is missing.
    StagingRemade,
    /// X5: contenders for one generation share a staging folder, so a late one makes it again for a zombie.
    StagingShared,
    /// X5: the step is carried out before a commit names it.
    CarriedOutUnnamed,
    /// X5: the commit that names a step acknowledges it.
    AcknowledgedEarly,
    /// X5: a named step is carried out again without looking.
    RecoveryIsBlind,
    /// A file need not grow with its rows, so its size does not say whether a step was carried out.
    SizesRepeat,
}

/// What a holder does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    RemoveOlder,
    /// Look at the target; stage the file where the step is not there yet.
    CarryOut,
    Rename,
    Acknowledge,
    /// Somebody else changed the file: the step's rows go to a new one.
    MoveOn,
    Name,
}

/// `head` and `version` are those last written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    head: Arc<Head>,
    version: u64,
    step: Step,
    /// A step that no commit names, in the flawed orders.
    unnamed: Option<PendingPublish>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Process {
    Out,
    /// Has read the head; will make the staging folder of the generation it hopes for.
    Contending(Generation),
    /// Has made it; will claim.
    Prepared(Generation),
    Holding(Holder),
}

/// A staging folder: generation and owner.
type Folder = (Generation, usize);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    row: Row,
    processes: [Process; PROCESSES],
    travelling: Option<(u64, Arc<Head>)>,
    /// Staging folders and the file in them.
    staging: BTreeMap<Folder, Option<Vec<u64>>>,
    target: BTreeMap<String, Vec<u64>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Contend(usize),
    Prepare(usize),
    Claim(usize),
    /// The one thing a holder can do next; commits have a fate.
    Next(usize, Fate),
    /// Names a step of so many rows.
    Name(usize, u64, Fate),
    Crash(usize),
    Arrive,
}

struct Publisher {
    flaw: Flaw,
}

fn upstream() -> ShardKey {
    key(1, 0)
}

fn acknowledged(head: &Head) -> u64 {
    head.input(upstream()).epoch.0
}

fn file_name(number: u64) -> String {
    format!("part-{number}")
}

fn place(head: &Head) -> PublishState {
    head.publish.clone().unwrap_or_default()
}

fn upto(pending: &PendingPublish) -> u64 {
    pending.upto.get(&upstream().to_string()).map(|input| input.epoch.0).unwrap_or_default()
}

/// The rows of a step.
fn rows_of(pending: &PendingPublish) -> Vec<u64> {
    (upto(pending) + 1 - pending.rows..=upto(pending)).collect()
}

fn commit_of(head: &Head, change: impl FnOnce(&mut Advance)) -> Option<Head> {
    let mut batch = advance(head, head.epoch.next().0, Inputs::Segments(Vec::new()));
    change(&mut batch);
    decide_commit(head, batch).ok()
}

impl Publisher {
    fn size(&self, rows: usize) -> u64 {
        if self.flaw == Flaw::SizesRepeat && rows > 0 { 10 } else { 10 * rows as u64 }
    }

    fn folder(&self, generation: Generation, process: usize) -> Folder {
        (generation, if self.flaw == Flaw::StagingShared { 0 } else { process })
    }

    /// The publisher's place once a step of the next `rows` rows is named.
    fn named(head: &Head, rows: u64) -> PublishState {
        let mut next = place(head);
        if next.file_rows == ROWS_PER_FILE {
            next = PublishState { file_number: next.file_number + 1, ..PublishState::default() };
        }
        let input = InputState { epoch: Epoch(acknowledged(head) + rows), ..InputState::default() };
        let upto = BTreeMap::from([(upstream().to_string(), input)]);
        let (number, bytes_before) = (next.file_number, next.file_bytes);
        next.pending =
            Some(PendingPublish { number, file: file_name(number), bytes_before, rows_before: bytes_before, upto, rows });
        next
    }

    fn acknowledge(&self, head: &Head, pending: &PendingPublish) -> Option<Head> {
        let rows_before = if pending.bytes_before == 0 { 0 } else { place(head).file_rows };
        let file_rows = rows_before + pending.rows;
        let file_bytes = self.size(file_rows as usize);
        let publish = PublishState { file_number: pending.number, file_bytes, file_rows, pending: None };
        commit_of(head, |batch| (batch.inputs, batch.publish) = (pending.upto.clone(), Some(publish)))
    }

    /// One commit. A process that hears nothing, or no, leaves: whoever claims next finds what was named.
    fn commit(state: &mut State, process: usize, next: Head, then: Step, fate: Fate) -> Option<()> {
        let Process::Holding(holder) = std::mem::replace(&mut state.processes[process], Process::Out) else { return None };
        let next = Arc::new(next);
        if fate == Fate::Late {
            state.travelling = Some((holder.version, next));
        } else if state.row.put(holder.version, &next) && fate == Fate::Heard {
            let holder = Holder { head: next, version: holder.version + 1, step: then, unnamed: None };
            state.processes[process] = Process::Holding(holder);
        }
        Some(())
    }

    /// Looks at the target and stages the file as it will be; `None` where the staging folder is gone.
    fn carry_out(&self, state: &mut State, process: usize, generation: Generation, pending: &PendingPublish) -> Option<Step> {
        let found = state.target.get(&pending.file).cloned();
        let rows = rows_of(pending);
        let bytes_now = found.as_ref().map(|found| self.size(found.len()));
        let ends_with_step = bytes_now > Some(pending.bytes_before) && found.as_ref().is_some_and(|found| found.ends_with(&rows));
        let blind = matches!(self.flaw, Flaw::RecoveryIsBlind | Flaw::CarriedOutUnnamed | Flaw::AcknowledgedEarly);
        let decision = decide_recovery(pending.bytes_before, bytes_now, ends_with_step);
        match if blind { PublishRecovery::CarryOut } else { decision } {
            PublishRecovery::AlreadyDone => Some(Step::Acknowledge),
            PublishRecovery::TargetChanged => Some(Step::MoveOn),
            PublishRecovery::CarryOut => {
                let folder = self.folder(generation, process);
                if self.flaw == Flaw::StagingRemade {
                    state.staging.entry(folder).or_default();
                }
                *state.staging.get_mut(&folder)? = Some(found.unwrap_or_default().into_iter().chain(rows).collect());
                Some(Step::Rename)
            }
        }
    }

    /// The one thing a holder does next. `None`: it is fenced and leaves.
    fn next(&self, state: &mut State, process: usize, fate: Fate) -> Option<()> {
        let Process::Holding(mut holder) = state.processes[process].clone() else { return None };
        let generation = holder.head.generation;
        let pending = holder.unnamed.clone().or_else(|| place(&holder.head).pending);
        holder.step = match holder.step {
            Step::RemoveOlder => {
                if self.flaw != Flaw::StagingStays {
                    state.staging.retain(|(folder, _), _| *folder >= generation);
                }
                if pending.is_some() { Step::CarryOut } else { Step::Name }
            }
            Step::CarryOut => self.carry_out(state, process, generation, &pending?)?,
            Step::Rename => {
                let content = state.staging.get_mut(&self.folder(generation, process))?.take()?;
                state.target.insert(pending?.file, content);
                if self.flaw == Flaw::AcknowledgedEarly { Step::Name } else { Step::Acknowledge }
            }
            Step::Acknowledge => {
                let next = self.acknowledge(&holder.head, &pending?)?;
                return Self::commit(state, process, next, Step::Name, fate);
            }
            Step::MoveOn => {
                let pending = pending?;
                let number = pending.number + 1;
                let moved = PendingPublish { number, file: file_name(number), bytes_before: 0, ..pending };
                let publish = PublishState { pending: Some(moved), ..place(&holder.head) };
                let next = commit_of(&holder.head, |batch| batch.publish = Some(publish))?;
                return Self::commit(state, process, next, Step::CarryOut, fate);
            }
            Step::Name => return None,
        };
        state.processes[process] = Process::Holding(holder);
        Some(())
    }

    fn name(&self, state: &mut State, process: usize, rows: u64, fate: Fate) -> Option<()> {
        let Process::Holding(mut holder) = state.processes[process].clone() else { return None };
        let publish = Self::named(&holder.head, rows);
        let pending = publish.pending.clone();
        match self.flaw {
            Flaw::CarriedOutUnnamed => {
                (holder.unnamed, holder.step) = (pending, Step::CarryOut);
                state.processes[process] = Process::Holding(holder);
            }
            Flaw::AcknowledgedEarly => {
                Self::commit(state, process, self.acknowledge(&holder.head, pending.as_ref()?)?, Step::CarryOut, fate)?;
                if let Process::Holding(holder) = &mut state.processes[process] {
                    holder.unnamed = pending;
                }
            }
            _ => {
                let next = commit_of(&holder.head, |batch| batch.publish = Some(publish))?;
                Self::commit(state, process, next, Step::CarryOut, fate)?;
            }
        }
        Some(())
    }

    /// Failure is drawn only while somebody may still claim, so that a quiet state is a finished one.
    fn fates(state: &State) -> Vec<Fate> {
        let mut fates = vec![Fate::Heard];
        if state.row.head.generation.0 < GENERATIONS_MAX {
            fates.push(Fate::AnswerLost);
            fates.extend(state.travelling.is_none().then_some(Fate::Late));
        }
        fates
    }

    fn claim(state: &mut State, process: usize, prepared: Generation) -> Option<()> {
        let decision = decide_claim(&state.row.head, &owner(process), 0, OwnerLiveness::Dead);
        let ClaimDecision::Take(next) = decision else { return None };
        if next.generation != prepared {
            // Somebody was faster: there is no staging folder for the generation that a claim would give now.
            state.processes[process] = Process::Out;
            return Some(());
        }
        let (head, version) = (Arc::new(*next), state.row.version);
        state.row.put(version, &head);
        state.processes[process] =
            Process::Holding(Holder { head, version: version + 1, step: Step::RemoveOlder, unnamed: None });
        Some(())
    }

    fn actions_of(state: &State, process: usize, holder: &Holder, actions: &mut Vec<Action>) {
        match holder.step {
            Step::Name => {
                let left = ROWS - acknowledged(&holder.head);
                let room = ROWS_PER_FILE - place(&holder.head).file_rows % ROWS_PER_FILE;
                for rows in 1..=left.min(room) {
                    actions.extend(Self::fates(state).into_iter().map(|fate| Action::Name(process, rows, fate)));
                }
            }
            Step::Acknowledge | Step::MoveOn => {
                actions.extend(Self::fates(state).into_iter().map(|fate| Action::Next(process, fate)));
            }
            Step::RemoveOlder | Step::CarryOut | Step::Rename => actions.push(Action::Next(process, Fate::Heard)),
        }
    }
}

fn holders(state: &State) -> impl Iterator<Item = (usize, &Holder)> {
    state.processes.iter().enumerate().filter_map(|(process, phase)| match phase {
        Process::Holding(holder) => Some((process, holder)),
        Process::Out | Process::Contending(_) | Process::Prepared(_) => None,
    })
}

impl Model for Publisher {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (row, processes) = (Row::new(Head::new(key(2, 0))), [const { Process::Out }; PROCESSES]);
        vec![State { row, processes, travelling: None, staging: BTreeMap::new(), target: BTreeMap::new() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let claimable = state.row.head.generation.0 < GENERATIONS_MAX;
        for (process, phase) in state.processes.iter().enumerate() {
            match phase {
                Process::Out => actions.extend(claimable.then_some(Action::Contend(process))),
                Process::Contending(_) => actions.push(Action::Prepare(process)),
                Process::Prepared(_) => actions.push(Action::Claim(process)),
                Process::Holding(holder) => {
                    Self::actions_of(state, process, holder, actions);
                    actions.extend(claimable.then_some(Action::Crash(process)));
                }
            }
        }
        actions.extend(state.travelling.iter().map(|_| Action::Arrive));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Contend(process) => state.processes[process] = Process::Contending(last.row.head.generation.next()),
            Action::Prepare(process) => {
                let Process::Contending(generation) = last.processes[process] else { return None };
                state.staging.entry(self.folder(generation, process)).or_default();
                state.processes[process] = Process::Prepared(generation);
            }
            Action::Claim(process) => {
                let Process::Prepared(generation) = last.processes[process] else { return None };
                Self::claim(&mut state, process, generation)?;
            }
            Action::Next(process, fate) => {
                if self.next(&mut state, process, fate).is_none() {
                    state.processes[process] = Process::Out;
                }
            }
            Action::Name(process, rows, fate) => {
                if self.name(&mut state, process, rows, fate).is_none() {
                    state.processes[process] = Process::Out;
                }
            }
            Action::Crash(process) => state.processes[process] = Process::Out,
            Action::Arrive => {
                let (version, next) = state.travelling.take()?;
                state.row.put(version, &next);
            }
        }
        let version = state.row.version;
        state.travelling = state.travelling.filter(|(from, _)| *from == version);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn seen(state: &State, row: u64) -> usize {
            state.target.values().flatten().filter(|seen| **seen == row).count()
        }
        fn finds(model: &Publisher, state: &State, step: Step) -> bool {
            let mut scratch = state.clone();
            let mut look = |(process, holder): (usize, &Holder)| {
                let pending = place(&holder.head).pending?;
                let recovers = holder.step == Step::CarryOut && holder.head.epoch == state.row.head.epoch;
                recovers.then(|| model.carry_out(&mut scratch, process, holder.head.generation, &pending)).flatten()
            };
            holders(state).any(|holder| look(holder) == Some(step))
        }
        vec![
            Property::<Self>::always(ONCE, |_, state| (1..=ROWS).all(|row| seen(state, row) <= 1)),
            Property::<Self>::always(KEPT, |_, state| (1..=acknowledged(&state.row.head)).all(|row| seen(state, row) == 1)),
            Property::<Self>::always(NAMED, |_, state| {
                let head = &state.row.head;
                let named = place(head).pending.map_or(acknowledged(head), |pending| upto(&pending));
                state.target.values().flatten().all(|row| *row <= named)
            }),
            Property::<Self>::always("EO-2: every row is published in the end", |model, state| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                !actions.is_empty() || (1..=ROWS).all(|row| seen(state, row) == 1) && acknowledged(&state.row.head) == ROWS
            }),
            Property::<Self>::always("X5: a file that only we write is never found changed", |_, state| {
                // A zombie may well find that its successor went on; it cannot commit what it concludes from that.
                let current = |holder: &Holder| holder.head.generation == state.row.head.generation;
                holders(state).all(|(_, holder)| holder.step != Step::MoveOn || !current(holder))
            }),
            Property::<Self>::sometimes("a step is found carried out", |model, state| finds(model, state, Step::Acknowledge)),
            Property::<Self>::sometimes("a step is found not carried out", |model, state| finds(model, state, Step::Rename)),
            Property::<Self>::sometimes("a zombie is about to rename into nothing", |model, state| {
                let gone = |process, holder: &Holder| !state.staging.contains_key(&model.folder(holder.head.generation, process));
                holders(state).any(|(process, holder)| holder.step == Step::Rename && gone(process, holder))
            }),
            Property::<Self>::sometimes("a commit may land after its sender gave up", |_, state| state.travelling.is_some()),
        ]
    }
}

const ONCE: &str = "EO-2: no row is seen twice";
const KEPT: &str = "EO-2: an acknowledged row is seen";
const NAMED: &str = "EO-2: only named rows are seen";

#[test]
fn rows_are_published_exactly_once_through_crashes_and_zombies() {
    explore("publisher", Publisher { flaw: Flaw::None }, 10_000);
}

#[test]
fn each_flaw_of_publishing_is_caught() {
    let flaws = [
        (Flaw::StagingStays, KEPT),
        (Flaw::StagingRemade, KEPT),
        (Flaw::StagingShared, KEPT),
        (Flaw::CarriedOutUnnamed, NAMED),
        (Flaw::AcknowledgedEarly, KEPT),
        (Flaw::RecoveryIsBlind, ONCE),
        (Flaw::SizesRepeat, ONCE),
    ];
    for (flaw, property) in flaws {
        catch(flaw, Publisher { flaw }, property);
    }
}
