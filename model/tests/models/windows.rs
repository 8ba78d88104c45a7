//! Time: two lanes with watermarks, idleness and an end; a merge shard that folds rows into panes and fires what the watermark passed.
//!
//! Every order of commits and every cut of a batch is explored: results may not depend on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stateright::{Model, Property};
use weir_model::decide::{
    InputView, Joined, Run, activity_after, combined, decide_commit, decide_join, decide_run, found_by_joining, travels_as_rows,
};
use weir_model::head::InputState;
use weir_model::{Activity, Epoch, Head, InputCut, Inputs, ShardKey, Watermark};

use crate::world::{advance, catch, explore, key};

const PANE: i64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// R3: the watermark is the one the inputs have reached, not the one of the epochs consumed.
    WatermarkOfUnread,
    /// R3: rows are judged late by the watermark after the batch.
    LateByWatermarkAfter,
    /// W1: no active input is taken for no input at all.
    IdleIsClosed,
    /// W2: a lane that has committed nothing is not counted.
    SilentLanesUncounted,
    /// C4: only the end of an open pane wakes the shard.
    WakesForOpenPanesOnly,
    /// W2: a shard is closed as soon as its inputs are, though it has results to give.
    ClosesWhileFiring,
    /// W2: a lane that slept goes on as if it had not.
    WakesAsIfAwake,
    /// W2: a lane that slept joins at the watermark that it sees, while its receivers move on.
    JoinsWhatMovesOn,
}

/// One epoch of a lane: event times of its rows, then its watermark and activity.
struct LaneEpoch {
    rows: &'static [i64],
    watermark: i64,
    activity: Activity,
}

const fn epoch(rows: &'static [i64], watermark: i64) -> LaneEpoch {
    LaneEpoch { rows, watermark, activity: Activity::Active }
}

const fn idle(watermark: i64) -> LaneEpoch {
    LaneEpoch { rows: &[], watermark, activity: Activity::Idle }
}

const CLOSED: LaneEpoch = LaneEpoch { rows: &[], watermark: i64::MAX, activity: Activity::Closed };

type Script = [&'static [LaneEpoch]; 2];

/// Nobody is idle; the row 3 is behind its own lane's watermark, but its window is open until that is passed: nothing may be late.
const ORDERLY: Script = [
    &[epoch(&[5], 5), epoch(&[15, 3], 15), epoch(&[21, 24], 24), CLOSED],
    &[epoch(&[7], 7), epoch(&[12, 8], 8), epoch(&[], 22), epoch(&[23], 23), CLOSED],
];

/// The second lane is idle at first and once more: its rows may be late, for nobody waited for it.
const SLEEPER: Script = [
    &[epoch(&[5], 5), epoch(&[15], 15), epoch(&[25], 25), CLOSED],
    &[idle(i64::MIN), epoch(&[7], 7), epoch(&[8], 8), epoch(&[16], 16), idle(16), epoch(&[18], 18), CLOSED],
];

/// What a lane has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Said {
    watermark: Watermark,
    activity: Activity,
    /// Whether all of its rows travel as rows.
    as_rows: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Epochs committed by each lane.
    lanes: [Vec<Said>; 2],
    merge: Arc<Head>,
    panes: BTreeMap<i64, BTreeSet<i64>>,
    /// Results in the order in which they were published: pane and rows.
    results: Vec<(i64, BTreeSet<i64>)>,
    late: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Lane(usize),
    /// Consumes so many epochs of each lane.
    Merge([usize; 2]),
}

struct Windows {
    flaw: Flaw,
    script: Script,
    may_be_late: &'static [i64],
}

fn lane(index: usize) -> ShardKey {
    key(0, index as u32)
}

fn consumed(state: &State, index: usize) -> usize {
    state.merge.input(lane(index)).epoch.0 as usize
}

/// What a lane said with its `count`th epoch; before the first one nothing.
fn said(state: &State, index: usize, count: usize) -> InputState {
    let said = count.checked_sub(1).and_then(|last| state.lanes[index].get(last));
    let epoch = Epoch(count as u64);
    said.map_or_else(InputState::default, |said| InputState { epoch, watermark: said.watermark, activity: said.activity })
}

impl Windows {
    /// What a lane says with its next epoch.
    fn says(&self, state: &State, index: usize) -> Said {
        let committed = &state.lanes[index];
        let (before, next) = (said(state, index, committed.len()), &self.script[index][committed.len()]);
        if self.flaw == Flaw::WakesAsIfAwake {
            return Said { watermark: Watermark(next.watermark), activity: next.activity, as_rows: false };
        }
        let joining = committed.iter().rev().take_while(|said| said.activity == Activity::Joining).count();
        let receiver = Joined { taken: Epoch(consumed(state, index) as u64), watermark: state.merge.watermark };
        let since = if self.flaw == Flaw::JoinsWhatMovesOn { 0 } else { committed.len() - joining + 1 };
        let found = (joining > 0).then(|| found_by_joining(Epoch(since as u64), [receiver])).flatten();
        let watermark = before.watermark.max(Watermark(next.watermark));
        let (activity, watermark) = decide_join(before.activity, next.activity, watermark, found);
        Said { watermark, activity, as_rows: travels_as_rows(before.activity) }
    }

    fn views(&self, state: &State) -> Vec<InputView> {
        let view = |index: usize| {
            let said = said(state, index, state.lanes[index].len());
            let unread = &self.script[index][consumed(state, index)..state.lanes[index].len()];
            let unread_rows = unread.iter().map(|epoch| epoch.rows.len() as u64).sum();
            InputView {
                watermark: said.watermark,
                activity: said.activity,
                unread_bytes: unread_rows,
                unread_rows,
                unread_epochs: unread.len() as u64,
            }
        };
        (0..2).map(view).collect()
    }

    fn run(&self, state: &State) -> Run {
        let (head, views) = (&state.merge, self.views(state));
        let known = combined(head.watermark, views.iter().map(|view| (view.watermark, view.activity)));
        let pane = |watermark: Watermark| watermark.0.div_euclid(PANE);
        let crosses = pane(head.watermark) < pane(known.watermark) && self.flaw != Flaw::WakesForOpenPanesOnly;
        decide_run(head.watermark, &views, head.act_at, crosses, 1_000, head.activity == Activity::Closed)
    }

    /// Watermark and activity after consuming up to `counts`.
    fn after(&self, state: &State, counts: [usize; 2]) -> (Watermark, Activity) {
        let counts = if self.flaw == Flaw::WatermarkOfUnread { [0, 1].map(|index| state.lanes[index].len()) } else { counts };
        let counted = (0..2).filter(|index| self.flaw != Flaw::SilentLanesUncounted || counts[*index] > 0);
        let said = counted.map(|index| said(state, index, counts[index])).map(|said| match said.activity {
            Activity::Idle if self.flaw == Flaw::IdleIsClosed => (Watermark::INFINITY, Activity::Closed),
            activity => (said.watermark, activity),
        });
        let combined = combined(state.merge.watermark, said);
        (combined.watermark, combined.activity)
    }

    fn merge(&self, state: &mut State, counts: [usize; 2]) -> Option<()> {
        let head = Arc::clone(&state.merge);
        let (watermark, activity) = self.after(state, counts);
        let judge = if self.flaw == Flaw::LateByWatermarkAfter { watermark } else { head.watermark };
        let mut batch = advance(&head, head.epoch.next().0, Inputs::Segments(Vec::new()));
        let mut cuts = Vec::new();
        for (index, count) in counts.iter().copied().enumerate() {
            let (before, upto) = (consumed(state, index), said(state, index, count));
            for number in before..count {
                let (behind, as_rows) = (said(state, index, number).watermark, state.lanes[index][number].as_rows);
                for row in self.script[index][number].rows {
                    let pane = row.div_euclid(PANE);
                    // What is not behind its lane comes folded into a partial result: nobody can call it late.
                    let is_row = as_rows || *row < behind.0;
                    if is_row && judge.passed((pane + 1) * PANE) {
                        state.late.push(*row);
                    } else {
                        state.panes.entry(pane).or_default().insert(*row);
                    }
                }
            }
            if count > before {
                cuts.push(InputCut {
                    from: lane(index),
                    after: Epoch(before as u64),
                    upto: upto.epoch,
                    watermark: upto.watermark,
                });
                batch.inputs.insert(lane(index).to_string(), upto);
            }
        }
        // A batch gives one pane; the next goes on with those that are due.
        let due: Vec<i64> = state.panes.keys().copied().filter(|pane| watermark.passed((pane + 1) * PANE)).collect();
        state.results.extend(due.first().and_then(|pane| state.panes.remove_entry(pane)));
        let fires_more = due.len() > 1 && self.flaw != Flaw::ClosesWhileFiring;
        let activity = activity_after(activity, fires_more);
        state.late.sort_unstable();
        batch.act_at = state.panes.keys().next().map(|pane| Watermark((pane + 1) * PANE));
        batch.entry.recipe.inputs = Inputs::Segments(cuts);
        (batch.entry.watermark, batch.entry.recipe.watermark_after, batch.entry.activity) = (watermark, watermark, activity);
        state.merge = Arc::new(decide_commit(&head, batch).ok()?);
        Some(())
    }

    fn rows(&self) -> BTreeSet<i64> {
        self.script.iter().flat_map(|lane| lane.iter().flat_map(|epoch| epoch.rows)).copied().collect()
    }
}

impl Model for Windows {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let merge = Arc::new(Head::new(key(1, 0)));
        vec![State { lanes: [Vec::new(), Vec::new()], merge, panes: BTreeMap::new(), results: Vec::new(), late: Vec::new() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let open = (0..2).filter(|index| state.lanes[*index].len() < self.script[*index].len());
        actions.extend(open.map(Action::Lane));
        if self.run(state) == Run::Now {
            let (from, upto) = ([0, 1].map(|index| consumed(state, index)), [0, 1].map(|index| state.lanes[index].len()));
            let cuts = (from[0]..=upto[0]).flat_map(|first| (from[1]..=upto[1]).map(move |second| [first, second]));
            // A batch that reads nothing says something only where panes are due that were read before.
            let fires = state.merge.act_at.is_some_and(|at| at <= state.merge.watermark);
            actions.extend(cuts.filter(|cut| *cut != from || fires).map(Action::Merge));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Lane(index) => state.lanes[index].push(self.says(last, index)),
            Action::Merge(counts) => self.merge(&mut state, counts)?,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn counted(state: &State) -> Vec<i64> {
            let results = state.results.iter().flat_map(|(_, rows)| rows);
            let mut all: Vec<i64> = results.chain(state.panes.values().flatten()).chain(&state.late).copied().collect();
            all.sort_unstable();
            all
        }
        vec![
            Property::<Self>::always(LATE, |model, state| state.late.iter().all(|row| model.may_be_late.contains(row))),
            Property::<Self>::always(ONCE, |_, state| {
                let panes: Vec<i64> = state.results.iter().map(|(pane, _)| *pane).collect();
                let distinct: BTreeSet<_> = panes.iter().collect();
                distinct.len() == panes.len() && counted(state).windows(2).all(|pair| pair[0] < pair[1])
            }),
            Property::<Self>::always(ALL, |model, state| {
                let mut actions = Vec::new();
                model.actions(state, &mut actions);
                let fired = state.panes.is_empty() && state.merge.activity == Activity::Closed;
                !actions.is_empty() || fired && counted(state).into_iter().eq(model.rows())
            }),
            Property::<Self>::always(TIMELY, |model, state| {
                // A shard that waits owes nothing: no pane that its inputs have passed is open, in its state or unread.
                let known =
                    combined(state.merge.watermark, model.views(state).iter().map(|view| (view.watermark, view.activity)));
                let unread = (0..2).flat_map(|index| &model.script[index][consumed(state, index)..state.lanes[index].len()]);
                let panes =
                    unread.flat_map(|epoch| epoch.rows).map(|row| row.div_euclid(PANE)).chain(state.panes.keys().copied());
                let owed = |pane: i64| {
                    let fired_late = state.merge.watermark.passed((pane + 1) * PANE) && !state.panes.contains_key(&pane);
                    known.watermark.passed((pane + 1) * PANE) && !fired_late
                };
                model.run(state) == Run::Now || !panes.into_iter().any(owed)
            }),
            Property::<Self>::sometimes("all is said", |_, state| state.merge.activity == Activity::Closed),
            Property::<Self>::sometimes("a shard waits with rows unread", |model, state| {
                model.run(state) == Run::Wait && model.views(state).iter().any(|view| view.unread_rows > 0)
            }),
            Property::<Self>::sometimes("a pane waits for the batch after the one that could have fired it", |_, state| {
                state.panes.keys().any(|pane| state.merge.watermark.passed((pane + 1) * PANE))
            }),
            Property::<Self>::sometimes("a lane that slept is waited for again, if one sleeps", |model, state| {
                let last = &state.lanes[1].last();
                let joined = last.is_some_and(|said| said.activity == Activity::Active && said.as_rows);
                joined || model.script[1].iter().all(|epoch| epoch.activity != Activity::Idle)
            }),
            Property::<Self>::sometimes("a pane fires while another is open", |_, state| {
                !state.results.is_empty() && !state.panes.is_empty()
            }),
        ]
    }
}

const ONCE: &str = "EO-1: no row is counted twice, no pane fires twice";
const LATE: &str = "WM-1: only a row whose lane was not waited for is late";
const ALL: &str = "EO-1: in the end every row is in a result or late";
const TIMELY: &str = "C4: a shard that waits owes no result";

fn orderly(flaw: Flaw) -> Windows {
    Windows { flaw, script: ORDERLY, may_be_late: &[] }
}

fn sleeper(flaw: Flaw) -> Windows {
    Windows { flaw, script: SLEEPER, may_be_late: &[7, 8, 16, 18] }
}

#[test]
fn results_do_not_depend_on_the_schedule_when_no_lane_is_disorderly() {
    explore("windows", orderly(Flaw::None), 100);
}

#[test]
fn an_idle_lane_is_not_waited_for_and_not_forgotten() {
    explore("windows, idle", sleeper(Flaw::None), 100);
}

#[test]
fn each_flaw_of_time_is_caught() {
    catch(Flaw::WatermarkOfUnread, orderly(Flaw::WatermarkOfUnread), ONCE);
    catch(Flaw::LateByWatermarkAfter, orderly(Flaw::LateByWatermarkAfter), LATE);
    catch(Flaw::SilentLanesUncounted, orderly(Flaw::SilentLanesUncounted), ONCE);
    catch(Flaw::IdleIsClosed, sleeper(Flaw::IdleIsClosed), ALL);
    catch(Flaw::WakesAsIfAwake, sleeper(Flaw::WakesAsIfAwake), ONCE);
    catch(Flaw::JoinsWhatMovesOn, sleeper(Flaw::JoinsWhatMovesOn), ONCE);
    catch(Flaw::ClosesWhileFiring, orderly(Flaw::ClosesWhileFiring), ALL);
    catch(Flaw::WakesForOpenPanesOnly, orderly(Flaw::WakesForOpenPanesOnly), TIMELY);
}
