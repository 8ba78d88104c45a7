//! Windows that give results more than once: early ones of open panes, late ones of panes that have fired and still take rows.
//!
//! ```text
//! pane:  takes rows ---------------------------> end ---------------------> end + allowed lateness
//!        early: what has changed, when asked      on time: all groups        gone
//!                                                 late: what has changed, with each batch
//! ```
//! A pane that gives results and stays goes on from exactly the partial rows it gave, each marked as given or as withheld by the condition, as
//! after a checkpoint. So what is given depends on rows, watermarks and the recipe's word alone: not on where the pane lies, nor on restores
//! between (RP-1). Which panes have fired on time is not stored: those whose end the watermark has passed, except while a batch has left some
//! for the next; there is no checkpoint then.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Int8Array, RecordBatch, StringArray, UInt32Array};
use datafusion::arrow::compute::{and, concat_batches, filter_record_batch, is_not_null};
use datafusion::arrow::datatypes::{Int8Type, UInt32Type};
use weir_model::Watermark;
use weir_plan::{Firing, Op};

use super::WindowOperator;
use crate::EngineError;
use crate::merge::Moment;
use crate::open_panes::{Gives, PanePass};
use crate::pane_table::Given;

/// How far panes that stay have given results.
#[derive(Debug)]
pub(super) struct Place {
    /// Panes up to this one have fired on time.
    fired_upto: i64,
    /// Panes up to this one have given their early results; the batch had no room for the next.
    early_upto: Option<i64>,
    /// Whether panes that are due wait for the next batch.
    has_more: bool,
}

impl Default for Place {
    fn default() -> Self {
        Self { fired_upto: i64::MIN, early_upto: None, has_more: false }
    }
}

impl WindowOperator {
    /// Least time between two early results, microseconds.
    pub(crate) fn early_every(&self) -> Option<i64> {
        self.emit.every_micros
    }

    /// The panes that were stored have fired as far as `watermark` says.
    pub(crate) fn stand_at(&mut self, watermark: Watermark) {
        self.place = Place { fired_upto: self.last_ended(watermark), ..Place::default() };
    }

    /// Whether early results were asked for, and the batch had no room for all.
    pub(crate) fn owes_early(&self) -> bool {
        self.place.early_upto.is_some()
    }

    /// Whether an open pane may have results that it has not given.
    pub(crate) fn has_news(&self) -> bool {
        self.early_every().is_some() && self.panes.numbers().any(|pane| self.panes.has_news(pane))
    }

    /// Whether some of the results that are due have been given and not all: there is no checkpoint of such a state.
    pub(crate) fn is_firing(&self) -> bool {
        self.panes.is_firing() || self.place.has_more || self.place.early_upto.is_some()
    }

    /// The first pane that has not fired on time.
    pub(super) fn next_unfired(&self) -> Option<i64> {
        self.panes.next_after(self.place.fired_upto)
    }

    /// Late results of panes that had fired, results of those that end now, early ones of the others if they are asked for; panes that take
    /// no rows any more go.
    pub(super) async fn fire_again(&mut self, moment: Moment) -> Result<Vec<RecordBatch>, EngineError> {
        let mut given = Vec::new();
        let mut room = self.fired_rows_max;
        if self.emit.lateness_micros == 0 {
            let mut closed = Vec::new();
            for results in self.close(moment.after, room)? {
                room = room.saturating_sub(results.num_rows());
                let met = self.met(&results).await?;
                closed.extend(judged(&results, &met)?);
            }
            given.extend(self.said(closed, Firing::OnTime).await?);
        } else {
            given.extend(self.give_late().await?);
            room = room.saturating_sub(rows_in(&given));
            let on_time = self.give_on_time(moment.after, &mut room).await?;
            given.extend(on_time);
            self.drop_gone(moment.after);
        }
        self.place.has_more = self.is_due(moment.after);
        if moment.early || self.place.early_upto.is_some() {
            given.extend(self.give_early(moment.after, room).await?);
        }
        Ok(given)
    }

    async fn give_late(&mut self) -> Result<Vec<RecordBatch>, EngineError> {
        let mut given = Vec::new();
        let fired: Vec<i64> = self.panes.numbers().take_while(|pane| *pane <= self.place.fired_upto).collect();
        for pane in fired {
            let (rows, _) = self.give(pane, Gives::News).await?;
            given.extend(self.said(rows, Firing::Late).await?);
        }
        Ok(given)
    }

    /// Pane by pane: the last may give more than there is room for.
    async fn give_on_time(&mut self, after: Watermark, room: &mut usize) -> Result<Vec<RecordBatch>, EngineError> {
        let mut given = Vec::new();
        while *room > 0
            && let Some(pane) = self.next_unfired().filter(|pane| after.passed(self.grid.end(*pane)))
        {
            let (rows, asked) = self.give(pane, Gives::All).await?;
            *room = room.saturating_sub(asked);
            given.extend(self.said(rows, Firing::OnTime).await?);
            self.place.fired_upto = pane;
        }
        if !self.is_due(after) {
            // A pane that has no rows yet will have fired too, with no result.
            self.place.fired_upto = self.place.fired_upto.max(self.last_ended(after));
        }
        Ok(given)
    }

    /// As [`Self::give_on_time`].
    async fn give_early(&mut self, after: Watermark, mut room: usize) -> Result<Vec<RecordBatch>, EngineError> {
        let mut given = Vec::new();
        let mut upto = self.place.early_upto.take().unwrap_or(i64::MIN).max(self.last_ended(after));
        while let Some(pane) = self.panes.next_after(upto) {
            if room == 0 {
                self.place.early_upto = Some(upto);
                break;
            }
            let (rows, asked) = self.give(pane, Gives::News).await?;
            room = room.saturating_sub(asked);
            given.extend(self.said(rows, Firing::Early).await?);
            upto = pane;
        }
        Ok(given)
    }

    /// Results of a pane, which stays, and how many were asked for; what was given of its groups is kept with them.
    async fn give(&mut self, pane: i64, gives: Gives) -> Result<(Vec<RecordBatch>, usize), EngineError> {
        let mut pass = PanePass::giving(pane, gives);
        let (mut given, mut count) = (Vec::new(), 0);
        while let Some(rows) = self.panes.store_next(&self.shape, &mut pass)? {
            let before = rows.column(rows.num_columns() - 1).as_primitive::<Int8Type>();
            let is_asked = |before: &i8| Some(gives == Gives::All || !Given::is_said(*before));
            let asked: BooleanArray = before.values().iter().map(is_asked).collect();
            if asked.true_count() == 0 {
                self.panes.keep(&self.shape, &mut pass, &rows)?;
                continue;
            }
            let results = self.shape.results_of(&filter_record_batch(&rows, &asked)?)?;
            count += results.num_rows();
            let met = self.met(&results).await?;
            let are_groups = self.shape.sets().are_groups(&rows)?;
            let kept = self.shape.with_each_given(&rows, given_after(before, &and(&asked, &are_groups)?, &met))?;
            self.panes.keep(&self.shape, &mut pass, &kept)?;
            given.extend(judged(&results, &met)?);
        }
        Ok((given, count))
    }

    /// Which results meet the condition.
    async fn met(&mut self, results: &RecordBatch) -> Result<BooleanArray, EngineError> {
        let Some(condition) = &mut self.condition else { return Ok(BooleanArray::from(vec![true; results.num_rows()])) };
        let columns = results.columns()[..results.num_columns() - 1].to_vec();
        let rows = RecordBatch::try_new(Arc::clone(condition.input_schema()), columns)?;
        let met = concat_batches(&Arc::clone(condition.output_schema()), &condition.run(vec![rows]).await?)?;
        Ok(met.column(0).as_boolean().clone())
    }

    fn drop_gone(&mut self, after: Watermark) {
        while let Some(pane) =
            self.panes.first().filter(|pane| *pane <= self.place.fired_upto && after.passed(self.goes_at(*pane)))
        {
            self.panes.drop_pane(pane);
        }
    }

    /// The last pane whose end `watermark` has passed.
    fn last_ended(&self, watermark: Watermark) -> i64 {
        match watermark {
            Watermark::NONE => i64::MIN,
            Watermark::INFINITY => i64::MAX,
            Watermark(time) => self.grid.pane_of(time).saturating_sub(1),
        }
    }

    /// Passes results through the output fragment: each says why it is given, and what it does to the row of its key.
    async fn said(&mut self, results: Vec<RecordBatch>, firing: Firing) -> Result<Vec<RecordBatch>, EngineError> {
        if results.is_empty() {
            return Ok(Vec::new());
        }
        let leaf = self.output.input_schema();
        let given = results.iter().map(|rows| {
            let (ops, values) =
                rows.columns().split_last().ok_or_else(|| EngineError::schema("results", leaf, &rows.schema()))?;
            let mut columns: Vec<ArrayRef> = values.to_vec();
            columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(firing.word(), rows.num_rows()))));
            columns.push(Arc::new(ops.as_primitive::<Int8Type>().unary::<_, UInt32Type>(|op| u32::from(op.unsigned_abs()))));
            Ok(RecordBatch::try_new(Arc::clone(leaf), columns)?)
        });
        let given = given.collect::<Result<Vec<_>, EngineError>>()?;
        let said = self.output.run(given).await?;
        said.iter().map(|rows| self.with_op(rows)).collect()
    }

    /// The fragment's last two columns, why and how, give way to the operation.
    fn with_op(&self, rows: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let last = rows.num_columns() - 1;
        let ops: &UInt32Array = rows.column(last).as_primitive();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(ops.unary::<_, Int8Type>(|op| i8::try_from(op).unwrap_or(Op::Insert as i8)))];
        columns.extend(rows.columns()[..last - 1].iter().cloned());
        Ok(RecordBatch::try_new(Arc::clone(&self.given_schema), columns)?)
    }
}

/// What was given of each group of a pane once it has given results: of those asked for what it is, if it meets the condition. Elements
/// of sets are not asked: they get theirs from their groups.
///
/// - `met`: of those asked for.
fn given_after(before: &Int8Array, asked: &BooleanArray, met: &BooleanArray) -> Int8Array {
    let mut met = met.values().iter();
    let after = |(before, asked): (&i8, bool)| match asked {
        true if met.next().unwrap_or(true) => Given::Same as i8,
        true => Given::Withheld as i8,
        false => *before,
    };
    before.values().iter().zip(asked.values().iter()).map(after).collect()
}

/// Results that say something, their last column now what they do to the row of their key, an [`Op`].
///
/// - `met`: which of them meet the condition.
fn judged(results: &RecordBatch, met: &BooleanArray) -> Result<Option<RecordBatch>, EngineError> {
    let before = results.column(results.num_columns() - 1).as_primitive::<Int8Type>();
    let is_there = |before: i8| before == Given::Same as i8 || before == Given::Changed as i8;
    let op = |(before, met): (&i8, bool)| match (is_there(*before), met) {
        (false, true) => Some(Op::Insert as i8),
        (true, true) => Some(Op::UpdateAfter as i8),
        (true, false) => Some(Op::Delete as i8),
        (false, false) => None,
    };
    let ops: Int8Array = before.values().iter().zip(met.values().iter()).map(op).collect();
    let says = is_not_null(&ops)?;
    if says.true_count() == 0 {
        return Ok(None);
    }
    let mut columns = results.columns().to_vec();
    columns.pop();
    columns.push(Arc::new(Int8Array::from_iter_values(ops.iter().map(|op| op.unwrap_or(Op::Insert as i8)))));
    Ok(Some(filter_record_batch(&RecordBatch::try_new(results.schema(), columns)?, &says)?))
}

fn rows_in(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[cfg(test)]
mod tests;
