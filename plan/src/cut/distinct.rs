//! DISTINCT inside aggregates: which sets of values a stage keeps, and which aggregate looks at which.
//!
//! ```text
//! count(DISTINCT v), count(DISTINCT v) FILTER (WHERE a), sum(DISTINCT v) FILTER (WHERE a)
//!   --> one set of the values of v, two conditions: every row, a      bit 0 | bit 1 of what is kept with each value
//! ```
//! An aggregate that is the same with DISTINCT and without needs no set.

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::CutError;
use crate::PlanError;
use crate::job::{DistinctSet, SetBit};
use crate::types::type_name;

/// Aggregates for which a value's second row changes nothing.
const SAME_WITHOUT: [&str; 6] = ["min", "max", "bool_and", "bool_or", "bit_and", "bit_or"];

/// Sets of one stage at most: their numbers are stored as a byte.
const SETS_MAX: usize = 64;

/// The sets of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Sets {
    sets: Vec<DistinctSet>,
    /// Values and conditions that have a column.
    columns: Vec<(Expr, usize)>,
}

impl Sets {
    pub(super) fn into_sets(self) -> Vec<DistinctSet> {
        self.sets
    }

    /// Column of the input fragment that has the values of the bit's set.
    pub(super) fn value(&self, bit: SetBit) -> usize {
        self.sets[bit.set].value
    }

    /// Finds or makes the set of `call`'s argument and the bit of its condition; `None` if the call means the same without DISTINCT.
    ///
    /// - `input`: what the call reads. - `columns`: of the input fragment, to which values and conditions are added.
    pub(super) fn bit_of(
        &mut self,
        function: &str,
        call: &AggregateFunctionParams,
        input: &LogicalPlan,
        columns: &mut Vec<Expr>,
    ) -> Result<Option<SetBit>, CutError> {
        if !call.distinct || SAME_WITHOUT.contains(&function) {
            return Ok(None);
        }
        let value = value_of(function, call, input)?;
        let set = self.set_of(value, columns)?;
        let condition = call.filter.as_ref().map(|condition| self.column_of(condition, "filter", columns));
        let conditions = &mut self.sets[set].conditions;
        let bit = conditions.iter().position(|known| *known == condition).unwrap_or(conditions.len());
        if bit == conditions.len() {
            conditions.push(condition);
        }
        if conditions.len() > DistinctSet::CONDITIONS_MAX {
            let message = format!("more than {} conditions for DISTINCT values of {value}", DistinctSet::CONDITIONS_MAX);
            return Err(PlanError::new(message).hint("write some of them in an INSERT of their own").into());
        }
        Ok(Some(SetBit { set, bit }))
    }

    /// Finds or makes the set of the values of `call`'s argument in rows that may be taken back and meet its condition: each set has one.
    ///
    /// - `is_ordered`: the call asks for the least or greatest.
    pub(super) fn weighed(
        &mut self,
        function: &str,
        call: &AggregateFunctionParams,
        input: &LogicalPlan,
        columns: &mut Vec<Expr>,
        is_ordered: bool,
    ) -> Result<SetBit, CutError> {
        let value = value_of(function, call, input)?;
        let column = self.column_of(value, "value", columns);
        let condition = call.filter.as_ref().map(|condition| self.column_of(condition, "filter", columns));
        let known = self.sets.iter().position(|set| set.value == column && set.conditions == [condition]);
        let set = match known {
            Some(known) => known,
            None => self.add(column, vec![condition], value)?,
        };
        self.sets[set].is_ordered |= is_ordered;
        Ok(SetBit { set, bit: 0 })
    }

    fn set_of(&mut self, value: &Expr, columns: &mut Vec<Expr>) -> Result<usize, PlanError> {
        let column = self.column_of(value, "value", columns);
        if let Some(known) = self.sets.iter().position(|set| set.value == column) {
            return Ok(known);
        }
        self.add(column, Vec::new(), value)
    }

    fn add(&mut self, column: usize, conditions: Vec<Option<usize>>, value: &Expr) -> Result<usize, PlanError> {
        if self.sets.len() == SETS_MAX {
            return Err(PlanError::new(format!("values of more than {SETS_MAX} columns are kept, for DISTINCT or MIN and MAX"))
                .hint("write some of them in an INSERT of their own"));
        }
        let text = value.schema_name().to_string();
        self.sets.push(DistinctSet { value: column, conditions, is_ordered: false, text });
        Ok(self.sets.len() - 1)
    }

    fn column_of(&mut self, expr: &Expr, what: &str, columns: &mut Vec<Expr>) -> usize {
        if let Some((_, column)) = self.columns.iter().find(|(known, _)| known == expr) {
            return *column;
        }
        let column = columns.len();
        columns.push(expr.clone().alias(format!("__{what}_{column}")));
        self.columns.push((expr.clone(), column));
        column
    }
}

fn value_of<'a>(function: &str, call: &'a AggregateFunctionParams, input: &LogicalPlan) -> Result<&'a Expr, CutError> {
    let [value] = call.args.as_slice() else {
        return Err(PlanError::new(format!("{}(DISTINCT ..) of several columns is not supported yet", function.to_uppercase()))
            .hint("take one column, or group by them: SELECT a, b, COUNT(*) .. GROUP BY a, b")
            .into());
    };
    let data_type = value.get_type(input.schema().as_ref())?;
    if is_value(&data_type) {
        return Ok(value);
    }
    let distinct = if call.distinct { "DISTINCT .." } else { ".." };
    Err(PlanError::new(format!("{}({distinct}) of {} is not supported", function.to_uppercase(), type_name(&data_type)))
        .hint("take one of its fields")
        .into())
}

/// Whether values of this type can be told apart and stored.
fn is_value(data_type: &DataType) -> bool {
    let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_time = matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32 | DataType::Time32(_) | DataType::Time64(_));
    let is_number =
        data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64 | DataType::Decimal128(_, _));
    is_text || is_time || is_number || matches!(data_type, DataType::Boolean | DataType::Binary)
}
