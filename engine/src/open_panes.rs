//! The panes of a merge shard that take rows, in memory up to a budget and on disk past it.
//!
//! Where a pane lies changes nothing in what it gives: see [`crate::spill`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use datafusion::arrow::array::RecordBatch;

use weir_model::KeyGroupRange;

use crate::EngineError;
use crate::pane_table::{PaneShape, PaneTable};
use crate::sorted_rows::SortedRows;
use crate::spill::{Rows, SpilledPane};
use crate::spill_files::SpillFiles;

/// How much a merge shard may hold in memory, and where the rest goes.
#[derive(Debug, Clone)]
pub struct StateBudget {
    /// Bytes of open panes, or of a table by key, in memory.
    pub bytes_max: usize,
    /// Folder of spill files; they have no names and vanish with the process.
    pub folder: PathBuf,
    /// Key groups of the shard, by which what lies on disk is cut into buckets; those of the whole job if it is `None`. Not those of the
    /// rows that are there when it is first cut: a checkpoint that is taken back brings the lowest first.
    pub key_groups: Option<KeyGroupRange>,
}

impl StateBudget {
    /// First key group of the shard, and how many it has.
    pub(crate) fn range(&self, shape: &PaneShape) -> (u16, u16) {
        let whole = KeyGroupRange { start: 0, end: shape.key_group_count() };
        let range = self.key_groups.filter(|range| !range.is_empty()).unwrap_or(whole);
        (range.start, range.len().max(1))
    }
}

impl Default for StateBudget {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, folder: std::env::temp_dir(), key_groups: None }
    }
}

#[derive(Debug)]
enum Pane {
    Held(PaneTable),
    Spilled(Box<SpilledPane>),
}

impl Pane {
    fn bytes(&self) -> usize {
        match self {
            Self::Held(table) => table.bytes(),
            Self::Spilled(spilled) => spilled.bytes(),
        }
    }

    fn has_news(&self) -> bool {
        match self {
            Self::Held(table) => table.has_news(),
            Self::Spilled(spilled) => spilled.has_news(),
        }
    }
}

/// How far a checkpoint, or the giving of results of panes that stay, has come; dropped half-way, the operator must be dropped too.
#[derive(Debug, Default)]
pub(crate) struct PanePass {
    after: Option<i64>,
    /// The last pane of it, if there is one.
    upto: Option<i64>,
    /// Whether it gives results; what was given of each group is then said with [`OpenPanes::keep`].
    gives: Option<Gives>,
    moving: Option<Moving>,
    /// The pane whose rows are to be kept, if it is held.
    taken: Option<i64>,
}

/// Which groups of a pane that stays are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// All.
    All,
    /// Those that are not what was given of them.
    News,
}

impl PanePass {
    /// Of one pane, which stays.
    pub(crate) fn giving(pane: i64, gives: Gives) -> Self {
        Self { after: pane.checked_sub(1), upto: Some(pane), gives: Some(gives), ..Self::default() }
    }

    fn next_of(&self, panes: &BTreeMap<i64, Pane>) -> Option<i64> {
        let next = match self.after {
            Some(after) => after.checked_add(1)?,
            None => i64::MIN,
        };
        panes.range(next..).next().map(|(number, _)| *number).filter(|number| self.upto.is_none_or(|upto| *number <= upto))
    }
}

/// A spilled pane on its way into a file of its folded rows.
#[derive(Debug)]
struct Moving {
    number: i64,
    from: Box<SpilledPane>,
    to: Box<SpilledPane>,
    bucket: usize,
}

/// A pane that gives its results in parts; no row is folded into it any more.
#[derive(Debug)]
struct Firing {
    number: i64,
    /// Results of the pane or of one of its buckets, and how many of them were given; never all.
    ready: SortedRows,
    given: usize,
    /// Where the rest lies, and its next bucket.
    rest: Option<(Box<SpilledPane>, usize)>,
}

/// Open panes by number.
#[derive(Debug)]
pub(crate) struct OpenPanes {
    /// Before all others.
    firing: Option<Firing>,
    panes: BTreeMap<i64, Pane>,
    held: usize,
    budget: StateBudget,
    files: SpillFiles,
    scratch: Vec<usize>,
}

impl OpenPanes {
    pub(crate) fn new(budget: StateBudget) -> Self {
        let files = SpillFiles::new(budget.folder.clone());
        Self { firing: None, panes: BTreeMap::new(), held: 0, budget, files, scratch: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.panes.len() + usize::from(self.firing.is_some())
    }

    /// Whether a pane has given some of its results and not all.
    pub(crate) fn is_firing(&self) -> bool {
        self.firing.is_some()
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.held
    }

    /// Panes on disk.
    #[cfg(test)]
    pub(crate) fn spilled(&self) -> usize {
        self.panes.values().filter(|pane| matches!(pane, Pane::Spilled(_))).count()
    }

    /// Distinct (pane, key) pairs in memory.
    pub(crate) fn groups(&self) -> usize {
        let groups = |pane: &Pane| match pane {
            Pane::Held(table) => table.groups(),
            Pane::Spilled(_) => 0,
        };
        self.panes.values().map(groups).sum()
    }

    /// Numbers of the panes, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = i64> {
        self.firing.iter().map(|firing| firing.number).chain(self.panes.keys().copied())
    }

    pub(crate) fn first(&self) -> Option<i64> {
        self.firing.as_ref().map(|firing| firing.number).or_else(|| self.panes.keys().next().copied())
    }

    /// Folds rows of one pane, in order; spills the largest panes once too much is held.
    pub(crate) fn fold(&mut self, shape: &PaneShape, number: i64, rows: Rows, batch: &RecordBatch) -> Result<(), EngineError> {
        let pane = match self.panes.entry(number) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Pane::Held(PaneTable::new(shape)?)),
        };
        let before = pane.bytes();
        match (&mut *pane, rows) {
            (Pane::Held(table), Rows::Partial) => table.merge(shape, batch, &mut self.scratch)?,
            (Pane::Held(table), Rows::Raw) => table.update(shape, batch, &mut self.scratch)?,
            (Pane::Spilled(spilled), rows) => spilled.append(&mut self.files, shape, rows, batch)?,
        }
        self.held = (self.held + pane.bytes()).saturating_sub(before);
        if self.held > self.budget.bytes_max { self.spill(shape) } else { Ok(()) }
    }

    /// The next results of the first pane, at most `rows_max`, sorted by key group and then by first arrival; `None` if it has none.
    ///
    /// How many come, and in which order, does not depend on where the pane lies.
    pub(crate) fn fire_next(&mut self, shape: &PaneShape, rows_max: usize) -> Result<Option<RecordBatch>, EngineError> {
        if self.firing.is_none() {
            self.firing = self.begin_firing(shape)?;
        }
        let Some(mut firing) = self.firing.take() else { return Ok(None) };
        let rows = firing.ready.slice(firing.given, rows_max.min(firing.ready.len() - firing.given))?;
        firing.given += rows.num_rows();
        let has_more = firing.given < firing.ready.len();
        self.firing = if has_more { Some(firing) } else { self.refill(shape, firing.number, firing.rest)? };
        Ok(Some(rows))
    }

    /// Takes the first pane; `None` if it has no results.
    fn begin_firing(&mut self, shape: &PaneShape) -> Result<Option<Firing>, EngineError> {
        let Some(number) = self.first() else { return Ok(None) };
        match self.take(number) {
            Some(Pane::Held(table)) => {
                let ready = table.into_results(shape, number)?;
                Ok((ready.len() > 0).then_some(Firing { number, ready, given: 0, rest: None }))
            }
            Some(Pane::Spilled(spilled)) => self.refill(shape, number, Some((spilled, 0))),
            None => Ok(None),
        }
    }

    /// The results of the next bucket that has any.
    fn refill(
        &mut self,
        shape: &PaneShape,
        number: i64,
        rest: Option<(Box<SpilledPane>, usize)>,
    ) -> Result<Option<Firing>, EngineError> {
        let Some((mut spilled, first)) = rest else { return Ok(None) };
        for bucket in first..SpilledPane::bucket_count() {
            let Some(table) = spilled.fold(&mut self.files, shape, bucket, &mut self.scratch)? else { continue };
            let ready = table.into_results(shape, number)?;
            if ready.len() > 0 {
                return Ok(Some(Firing { number, ready, given: 0, rest: Some((spilled, bucket + 1)) }));
            }
        }
        Ok(None)
    }

    /// Number of the first pane after `pane`.
    pub(crate) fn next_after(&self, pane: i64) -> Option<i64> {
        self.panes.range(pane.checked_add(1)?..).next().map(|(number, _)| *number)
    }

    /// Whether a group of pane `number` may not be what was given of it.
    pub(crate) fn has_news(&self, number: i64) -> bool {
        self.panes.get(&number).is_some_and(Pane::has_news)
    }

    /// Drops pane `number` and what it holds.
    pub(crate) fn drop_pane(&mut self, number: i64) {
        drop(self.take(number));
    }

    /// The next rows of a checkpoint, or of panes that give results and stay, ascending by pane and key group; `None` after the last.
    ///
    /// Each pane goes on from exactly the rows it gave; where it gives results, [`Self::keep`] takes these back before the next.
    pub(crate) fn store_next(&mut self, shape: &PaneShape, pass: &mut PanePass) -> Result<Option<RecordBatch>, EngineError> {
        loop {
            if let Some(rows) = self.store_bucket(shape, pass)? {
                return Ok(Some(rows));
            }
            let Some(number) = pass.next_of(&self.panes) else { return Ok(None) };
            pass.after = Some(number);
            if pass.gives == Some(Gives::News) && !self.has_news(number) {
                continue;
            }
            match self.take(number) {
                Some(Pane::Held(table)) => {
                    let rows = table.into_partial(shape, number)?;
                    if rows.num_rows() > 0 {
                        if pass.gives.is_some() {
                            pass.taken = Some(number);
                        } else {
                            self.fold(shape, number, Rows::Partial, &rows)?;
                        }
                        return Ok(Some(rows));
                    }
                }
                Some(Pane::Spilled(from)) => {
                    let to = Box::new(from.same_buckets());
                    pass.moving = Some(Moving { number, from, to, bucket: 0 });
                }
                None => {}
            }
        }
    }

    /// The next bucket of the spilled pane that is being stored, if one is.
    fn store_bucket(&mut self, shape: &PaneShape, pass: &mut PanePass) -> Result<Option<RecordBatch>, EngineError> {
        let Some(moving) = &mut pass.moving else { return Ok(None) };
        while moving.bucket < SpilledPane::bucket_count() {
            let folded = moving.from.fold(&mut self.files, shape, moving.bucket, &mut self.scratch)?;
            moving.bucket += 1;
            if let Some(table) = folded {
                let rows = table.into_partial(shape, moving.number)?;
                if pass.gives.is_none() {
                    moving.to.keep(&mut self.files, &rows, false)?;
                }
                return Ok(Some(rows));
            }
        }
        if let Some(Moving { number, to, .. }) = pass.moving.take() {
            self.panes.insert(number, Pane::Spilled(to));
        }
        Ok(None)
    }

    /// Takes the rows that a pass gave last back, each with what was given of its group.
    pub(crate) fn keep(&mut self, shape: &PaneShape, pass: &mut PanePass, rows: &RecordBatch) -> Result<(), EngineError> {
        match (pass.taken.take(), &mut pass.moving) {
            (Some(number), _) => self.fold(shape, number, Rows::Partial, rows),
            (None, Some(moving)) => moving.to.keep(&mut self.files, rows, true),
            (None, None) => Ok(()),
        }
    }

    fn take(&mut self, number: i64) -> Option<Pane> {
        let pane = self.panes.remove(&number)?;
        self.held = self.held.saturating_sub(pane.bytes());
        Some(pane)
    }

    /// Writes what spilled panes have gathered: nothing else is held any more.
    fn flush(&mut self, shape: &PaneShape) -> Result<(), EngineError> {
        for pane in self.panes.values_mut() {
            if let Pane::Spilled(spilled) = pane {
                spilled.flush(&mut self.files, shape)?;
            }
        }
        self.held = 0;
        Ok(())
    }

    /// Spills the largest panes until half of the budget is free.
    fn spill(&mut self, shape: &PaneShape) -> Result<(), EngineError> {
        while self.held > self.budget.bytes_max / 2 {
            let held = self.panes.iter().filter_map(|(number, pane)| match pane {
                Pane::Held(table) => Some((table.bytes(), *number)),
                Pane::Spilled(_) => None,
            });
            let Some((_, number)) = held.max() else { return self.flush(shape) };
            let Some(Pane::Held(table)) = self.take(number) else { return Ok(()) };
            let spilled = SpilledPane::new(&mut self.files, shape, self.budget.range(shape), number, table)?;
            self.panes.insert(number, Pane::Spilled(Box::new(spilled)));
        }
        Ok(())
    }
}
