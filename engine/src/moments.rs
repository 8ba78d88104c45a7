//! Variance, standard deviation, covariance and correlation: our own, because a partial must come back as the very state it was.
//!
//! Why: a pane that was spilled, or restored from a checkpoint, starts from its partial. The engine's accumulators merge a partial into
//! an empty group by `mean * n / n`, which is not `mean` in floating point, so where a pane lay would change its result (RP-1).
//!
//! | function | columns of its partial |
//! | --- | --- |
//! | var, stddev | `count` UInt64, `mean` Float64, `m2` Float64: sum of squared deviations from the mean |
//! | covar | `count`, `mean_x`, `mean_y`, `m_xy`: sum of products of the deviations |
//! | corr | `count`, `mean_x`, `m2_x`, `mean_y`, `m2_y`, `m_xy` |
//!
//! Source: Welford's update and the pairwise merge of Chan, Golub and LeVeque.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, UInt64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

/// What is made of the moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statistic {
    Variance,
    Deviation,
    Covariance,
    Correlation,
}

/// A function of the first two moments of one or two columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MomentFunction {
    statistic: Statistic,
    /// Divides by n - 1 instead of n.
    sample: bool,
}

impl MomentFunction {
    /// The function of that name, in the engine's spelling.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (statistic, sample) = match name {
            "var" | "var_samp" | "var_sample" => (Statistic::Variance, true),
            "var_pop" | "var_population" => (Statistic::Variance, false),
            "stddev" | "stddev_samp" => (Statistic::Deviation, true),
            "stddev_pop" => (Statistic::Deviation, false),
            "covar" | "covar_samp" => (Statistic::Covariance, true),
            "covar_pop" => (Statistic::Covariance, false),
            "corr" => (Statistic::Correlation, false),
            _ => return None,
        };
        Some(Self { statistic, sample })
    }

    /// Columns of its partial.
    pub(crate) fn parts(self) -> &'static [(&'static str, DataType)] {
        match self.statistic {
            Statistic::Variance | Statistic::Deviation => {
                &[("count", DataType::UInt64), ("mean", DataType::Float64), ("m2", DataType::Float64)]
            }
            Statistic::Covariance => &[
                ("count", DataType::UInt64),
                ("mean_x", DataType::Float64),
                ("mean_y", DataType::Float64),
                ("m_xy", DataType::Float64),
            ],
            Statistic::Correlation => &[
                ("count", DataType::UInt64),
                ("mean_x", DataType::Float64),
                ("m2_x", DataType::Float64),
                ("mean_y", DataType::Float64),
                ("m2_y", DataType::Float64),
                ("m_xy", DataType::Float64),
            ],
        }
    }

    /// Where the partial's columns after `count` lie in a [`Moments`].
    fn places(self) -> &'static [fn(&mut Moments) -> &mut f64] {
        match self.statistic {
            Statistic::Variance | Statistic::Deviation => &[|m| &mut m.mean_x, |m| &mut m.m2_x],
            Statistic::Covariance => &[|m| &mut m.mean_x, |m| &mut m.mean_y, |m| &mut m.m_xy],
            Statistic::Correlation => &[|m| &mut m.mean_x, |m| &mut m.m2_x, |m| &mut m.mean_y, |m| &mut m.m2_y, |m| &mut m.m_xy],
        }
    }

    pub(crate) fn accumulator(self) -> Box<dyn GroupsAccumulator> {
        Box::new(MomentAccumulator { function: self, groups: Vec::new() })
    }

    /// NULL where there are too few rows, and for a correlation with a constant.
    fn value(self, moments: &Moments) -> Option<f64> {
        let least = if self.sample || self.statistic == Statistic::Correlation { 2 } else { 1 };
        if moments.count < least {
            return None;
        }
        let divisor = (moments.count - u64::from(self.sample)) as f64;
        match self.statistic {
            Statistic::Variance => Some(moments.m2_x / divisor),
            Statistic::Deviation => Some((moments.m2_x / divisor).sqrt()),
            Statistic::Covariance => Some(moments.m_xy / divisor),
            Statistic::Correlation => {
                let spread = moments.m2_x.sqrt() * moments.m2_y.sqrt();
                (spread != 0.0).then(|| moments.m_xy / spread)
            }
        }
    }
}

/// Moments of one group; `y` stays 0 where there is one column.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Moments {
    count: u64,
    mean_x: f64,
    m2_x: f64,
    mean_y: f64,
    m2_y: f64,
    m_xy: f64,
}

impl Moments {
    fn add(&mut self, x: f64, y: f64) {
        self.count += 1;
        let n = self.count as f64;
        let (dx, dy) = (x - self.mean_x, y - self.mean_y);
        self.mean_x += dx / n;
        self.mean_y += dy / n;
        self.m2_x += dx * (x - self.mean_x);
        self.m2_y += dy * (y - self.mean_y);
        self.m_xy += dx * (y - self.mean_y);
    }

    /// A partial that comes to an empty group becomes its state as it is.
    fn merge(&mut self, other: &Self) {
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = *other;
            }
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let n = a + b;
        let (dx, dy) = (other.mean_x - self.mean_x, other.mean_y - self.mean_y);
        let weight = a * b / n;
        *self = Self {
            count: self.count + other.count,
            mean_x: (self.mean_x * a + other.mean_x * b) / n,
            m2_x: self.m2_x + other.m2_x + dx * dx * weight,
            mean_y: (self.mean_y * a + other.mean_y * b) / n,
            m2_y: self.m2_y + other.m2_y + dy * dy * weight,
            m_xy: self.m_xy + other.m_xy + dx * dy * weight,
        };
    }
}

/// Moments by group.
#[derive(Debug)]
struct MomentAccumulator {
    function: MomentFunction,
    groups: Vec<Moments>,
}

impl MomentAccumulator {
    fn make_room(&mut self, groups: usize) {
        if self.groups.len() < groups {
            self.groups.resize(groups, Moments::default());
        }
    }
}

impl GroupsAccumulator for MomentAccumulator {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.make_room(total_num_groups);
        let columns = values.iter().map(|column| cast(column, &DataType::Float64)).collect::<Result<Vec<_>, _>>()?;
        let columns: Vec<&Float64Array> = columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let counts = |row: usize| {
            columns.iter().all(|column| column.is_valid(row))
                && opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        for (row, group) in group_indices.iter().enumerate() {
            if counts(row) {
                self.groups[*group].add(columns[0].value(row), columns.get(1).map_or(0.0, |column| column.value(row)));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.make_room(total_num_groups);
        let count = values[0].as_primitive::<UInt64Type>();
        let parts: Vec<&Float64Array> = values[1..].iter().map(|part| part.as_primitive::<Float64Type>()).collect();
        for (row, group) in group_indices.iter().enumerate() {
            let mut partial = Moments { count: count.value(row), ..Moments::default() };
            for (part, place) in parts.iter().zip(self.function.places()) {
                *place(&mut partial) = part.value(row);
            }
            self.groups[*group].merge(&partial);
        }
        Ok(())
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut groups = emit_to.take_needed(&mut self.groups);
        let mut state: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from_iter_values(groups.iter().map(|group| group.count)))];
        for place in self.function.places() {
            state.push(Arc::new(Float64Array::from_iter_values(groups.iter_mut().map(|group| *place(group)))));
        }
        Ok(state)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut each = Self { function: self.function, groups: Vec::new() };
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = emit_to.take_needed(&mut self.groups);
        Ok(Arc::new(Float64Array::from_iter(groups.iter().map(|group| self.function.value(group)))))
    }

    fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Moments>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] = ["var", "var_pop", "stddev", "stddev_pop", "covar_samp", "covar_pop", "corr"];

    fn column(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    fn evaluated(name: &str, x: &[Option<f64>], y: &[Option<f64>]) -> Option<f64> {
        let mut accumulator = MomentFunction::named(name).unwrap().accumulator();
        accumulator.update_batch(&[column(x), column(y)], &vec![0; x.len()], None, 1).unwrap();
        let value = accumulator.evaluate(EmitTo::All).unwrap();
        let value = value.as_primitive::<Float64Type>();
        value.is_valid(0).then(|| value.value(0))
    }

    #[test]
    fn values_are_those_of_the_definitions_and_rows_with_a_null_do_not_count() {
        let x = [1.0, 2.0, 4.0].map(Some).into_iter().chain([None, Some(9.0)]).collect::<Vec<_>>();
        let y = [2.0, 1.0, 7.0].map(Some).into_iter().chain([Some(9.0), None]).collect::<Vec<_>>();
        // Over the three whole rows: mean 7/3 and 10/3, squares 14/3 and 62/3, products 26/3.
        let close = |name: &str, expected: f64| {
            let found = evaluated(name, &x, &y).unwrap();
            assert!((found - expected).abs() < 1e-12, "{name}: {found}, not {expected}");
        };
        close("covar_pop", 26.0 / 9.0);
        close("covar_samp", 26.0 / 6.0);
        close("corr", 26.0 / (14.0f64 * 62.0).sqrt());
        close("var", 14.0 / 6.0);
        close("stddev_pop", (14.0f64 / 9.0).sqrt());
    }

    #[test]
    fn too_few_rows_and_constants_give_null() {
        let one = [Some(5.0)];
        let found = NAMES.map(|name| evaluated(name, &one, &one));
        assert_eq!(found, [None, Some(0.0), None, Some(0.0), None, Some(0.0), None]);
        assert_eq!(evaluated("corr", &[Some(1.0), Some(1.0)], &[Some(1.0), Some(2.0)]), None);
        assert_eq!(NAMES.map(|name| evaluated(name, &[None], &[None])), [None; 7]);
    }

    #[test]
    fn a_partial_comes_back_as_the_state_it_was() {
        let draw = |n: u64| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / 1e9;
        for name in NAMES {
            let function = MomentFunction::named(name).unwrap();
            let (mut live, mut restored) = (function.accumulator(), function.accumulator());
            let rows = |from: u64| {
                [from, from + 1_000].map(|from| column(&(from..from + 97).map(|n| Some(draw(n))).collect::<Vec<_>>()))
            };
            live.update_batch(&rows(0), &[0; 97], None, 1).unwrap();
            let state = live.state(EmitTo::All).unwrap();
            assert_eq!(state.len(), function.parts().len());
            live.update_batch(&rows(0), &[0; 97], None, 1).unwrap();
            restored.merge_batch(&state, &[0], 1).unwrap();
            for accumulator in [&mut live, &mut restored] {
                accumulator.update_batch(&rows(500), &[0; 97], None, 1).unwrap();
                accumulator.merge_batch(&state, &[0], 1).unwrap();
            }
            assert_eq!(live.state(EmitTo::All).unwrap(), restored.state(EmitTo::All).unwrap(), "{name}");
        }
    }
}
