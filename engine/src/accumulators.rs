//! The accumulators of a pane's or a table's groups: rows, partials and what sets tell go in, partials and results come out.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::numeric::neg_wrapping;
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use weir_plan::Told;

use crate::EngineError;
use crate::aggregate::Aggregate;
use crate::distinct::with_bit;
use crate::pane_table::PaneShape;

/// One accumulator for each aggregate of a shape.
pub(crate) struct Accumulators(Vec<Box<dyn GroupsAccumulator>>);

impl Accumulators {
    /// Without groups.
    pub(crate) fn new(aggregates: &[Aggregate]) -> Result<Self, EngineError> {
        Ok(Self(aggregates.iter().map(Aggregate::accumulator).collect::<Result<_, _>>()?))
    }

    /// Folds rows of the input fragment; `groups` has the group of each, all below `count`.
    pub(crate) fn update(
        &mut self,
        shape: &PaneShape,
        rows: &RecordBatch,
        groups: &[usize],
        count: usize,
    ) -> Result<(), EngineError> {
        for (aggregate, accumulator) in shape.aggregates.iter().zip(&mut self.0) {
            let (args, mut filter) = aggregate.arguments(rows);
            if aggregate.distinct().is_some() {
                // It is shown each group, and told values by the sets.
                filter = Some(BooleanArray::new(BooleanBuffer::new_unset(rows.num_rows()), None));
            }
            accumulator.update_batch(&args, groups, filter.as_ref(), count)?;
        }
        Ok(())
    }

    /// Shows groups `0..count` to every aggregate, and a value to none: a group that none was shown of has a sum of 0, not NULL.
    pub(crate) fn show(&mut self, shape: &PaneShape, count: usize) -> Result<(), EngineError> {
        let groups: Vec<usize> = (0..count).collect();
        let nothing = BooleanArray::new(BooleanBuffer::new_unset(count), None);
        for (aggregate, accumulator) in shape.aggregates.iter().zip(&mut self.0) {
            let is_told = matches!(aggregate.told(), Told::Least | Told::Greatest);
            accumulator.update_batch(&aggregate.null_arguments(count), &groups, is_told.then_some(&nothing), count)?;
        }
        Ok(())
    }

    /// Tells the aggregates of set `set` which values came and went; `groups` has the group of each, all below `count` and shown before.
    pub(crate) fn tell_flips(
        &mut self,
        shape: &PaneShape,
        set: usize,
        flips: &Flips,
        groups: &[usize],
        count: usize,
    ) -> Result<(), EngineError> {
        for (aggregate, accumulator) in shape.aggregates.iter().zip(&mut self.0) {
            if aggregate.distinct().is_some_and(|at| at.set == set) {
                accumulator.update_batch(&[flips.told(aggregate.told())?], groups, None, count)?;
            }
        }
        Ok(())
    }

    /// Tells the aggregates of set `set` elements; `groups` has the group of each, all below `count` and shown before.
    pub(crate) fn tell(
        &mut self,
        shape: &PaneShape,
        set: usize,
        (values, bits): (&[ArrayRef], &[u64]),
        groups: &[usize],
        count: usize,
    ) -> Result<(), EngineError> {
        for (aggregate, accumulator) in shape.aggregates.iter().zip(&mut self.0) {
            if let Some(at) = aggregate.distinct().filter(|at| at.set == set) {
                accumulator.update_batch(values, groups, Some(&with_bit(bits, at.bit)), count)?;
            }
        }
        Ok(())
    }

    /// Folds partials: the state columns of partial rows.
    pub(crate) fn merge(
        &mut self,
        shape: &PaneShape,
        states: &[ArrayRef],
        groups: &[usize],
        count: usize,
    ) -> Result<(), EngineError> {
        let mut at = 0;
        for (aggregate, accumulator) in shape.aggregates.iter().zip(&mut self.0) {
            let end = at + aggregate.state_fields().len();
            accumulator.merge_batch(&states[at..end], groups, count)?;
            at = end;
        }
        Ok(())
    }

    /// The state columns of all groups; nothing is left.
    pub(crate) fn states(&mut self) -> Result<Vec<ArrayRef>, EngineError> {
        let mut columns = Vec::new();
        for accumulator in &mut self.0 {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        Ok(columns)
    }

    /// The result columns of all groups; nothing is left.
    pub(crate) fn results(&mut self) -> Result<Vec<ArrayRef>, EngineError> {
        Ok(self.0.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All)).collect::<Result<_, _>>()?)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|accumulator| accumulator.size()).sum()
    }
}

/// Values that came into a set or went from it.
pub(crate) struct Flips {
    pub(crate) values: ArrayRef,
    /// 1 or -1.
    pub(crate) signs: Int64Array,
    /// The least and the greatest value of the group of each, where they are asked for.
    pub(crate) extremes: Option<Vec<ArrayRef>>,
}

impl Flips {
    fn told(&self, what: Told) -> Result<ArrayRef, EngineError> {
        let extreme = |place: usize| {
            let extreme = self.extremes.as_ref().map(|extremes| Arc::clone(&extremes[place]));
            extreme.ok_or_else(|| EngineError::Schema { place: "set", expected: "an order".to_owned(), found: "none".to_owned() })
        };
        match what {
            Told::Values => Ok(Arc::clone(&self.values)),
            Told::Weights => Ok(Arc::new(self.signs.clone())),
            Told::Signed => {
                let comes: BooleanArray = self.signs.values().iter().map(|sign| Some(*sign > 0)).collect();
                Ok(zip(&comes, &self.values, &neg_wrapping(&self.values)?)?)
            }
            Told::Least => extreme(0),
            Told::Greatest => extreme(1),
        }
    }
}
