//! Aggregates of rows that may be taken back: each row bears a weight, 1 when it comes and -1 when it goes.
//!
//! ```text
//! COUNT(x) -> sum of weights where x is not NULL        SUM(x) -> sum of x times weight, NULL where no x is left
//! AVG(x)   -> that sum by that count                    BOOL_AND(x) -> no weight is left where x is false
//! MIN(x), MAX(x), COUNT(DISTINCT x), ..  -> the values that are there, each with the sum of its weights: a set
//! ```
//! So a partial of any rows in any order is a few sums, and merging them knows nothing of retraction. What remains of a group is its
//! number of rows: without any it is gone, and so is what rounding left in its sums.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, cast, ident, lit, when};

use super::CutError;
use super::shape::AggregateShape;
use crate::PlanError;
use crate::job::{AggregateSpec, SetBit, Told};

/// Column of a row's weight.
pub(super) const WEIGHT: &str = "__weight";

/// Name of the aggregate that counts a group's rows.
pub(super) const ROWS: &str = "__rows";

/// Adds what `call` needs to `shape`; returns what it is of their results.
///
/// - `name`: of its result. - `weight`: column of the weight.
pub(super) fn result(
    shape: &mut AggregateShape,
    aggregate: &Aggregate,
    call: AggregateFunction,
    name: String,
    weight: usize,
) -> Result<Expr, CutError> {
    let text = Expr::AggregateFunction(call.clone()).schema_name().to_string();
    let data_type = Expr::AggregateFunction(call.clone()).get_type(aggregate.input.schema())?;
    let mut weighed =
        Weighed { shape, aggregate, name, text, weight, function: call.func.name().to_owned(), params: call.params };
    match weighed.function.as_str() {
        "count" => weighed.count(),
        "sum" => weighed.sum(data_type),
        "avg" | "mean" if data_type == DataType::Float64 => weighed.average(),
        "min" => weighed.extreme(call.func, Told::Least, data_type),
        "max" => weighed.extreme(call.func, Told::Greatest, data_type),
        "bool_and" => weighed.all_true(),
        "bool_or" => weighed.any_true(),
        other => Err(PlanError::new(format!("{} of results that change is not supported yet", other.to_uppercase()))
            .hint("supported: COUNT, SUM, AVG, MIN, MAX, BOOL_AND, BOOL_OR; others of what a window gives when it closes")
            .into()),
    }
}

/// A sum of column `column`.
pub(super) fn sum(name: String, column: usize, filter: Option<usize>, text: String) -> AggregateSpec {
    AggregateSpec { name, function: sum_udaf(), args: vec![column], filter, distinct: None, told: Told::Values, text }
}

/// One call over rows with weights.
struct Weighed<'a> {
    shape: &'a mut AggregateShape,
    aggregate: &'a Aggregate,
    function: String,
    params: AggregateFunctionParams,
    name: String,
    text: String,
    weight: usize,
}

impl Weighed<'_> {
    fn count(&mut self) -> Result<Expr, CutError> {
        let name = self.name.clone();
        let of_all = matches!(self.params.args.first(), Some(Expr::Literal(value, _)) if !value.is_null());
        let number =
            if of_all && self.params.filter.is_none() && !self.params.distinct { ident(ROWS) } else { self.number(name)? };
        Ok(when(number.clone().is_null(), lit(0_i64)).otherwise(number)?)
    }

    fn sum(&mut self, data_type: DataType) -> Result<Expr, CutError> {
        let signed = self.signed(data_type)?;
        let number = self.number(format!("__rows_of_{}", self.name))?;
        Ok(when(number.gt(lit(0_i64)), signed).end()?)
    }

    fn average(&mut self) -> Result<Expr, CutError> {
        let signed = self.signed(DataType::Float64)?;
        let number = self.number(format!("__rows_of_{}", self.name))?;
        Ok(when(number.clone().gt(lit(0_i64)), signed / cast(number, DataType::Float64)).end()?)
    }

    fn all_true(&mut self) -> Result<Expr, CutError> {
        self.params.distinct = false;
        let number = self.number(format!("__rows_of_{}", self.name))?;
        let is_false = self.argument()?.is_false();
        let others = self.number_where(self.name.clone(), is_false, "are false");
        Ok(when(number.gt(lit(0_i64)), others.clone().is_null().or(others.eq(lit(0_i64)))).end()?)
    }

    fn any_true(&mut self) -> Result<Expr, CutError> {
        self.params.distinct = false;
        let number = self.number(format!("__rows_of_{}", self.name))?;
        let is_true = self.argument()?.is_true();
        let those = self.number_where(self.name.clone(), is_true, "are true");
        Ok(when(number.gt(lit(0_i64)), those.clone().is_not_null().and(those.gt(lit(0_i64)))).end()?)
    }

    /// The least or greatest value that is there.
    fn extreme(
        &mut self,
        function: Arc<datafusion::logical_expr::AggregateUDF>,
        told: Told,
        data_type: DataType,
    ) -> Result<Expr, CutError> {
        let set = self.set(true)?;
        let args = vec![self.shape.sets.value(set)];
        let (name, text) = (self.name.clone(), self.text.clone());
        self.shape.add(AggregateSpec { name, function, args, filter: None, distinct: Some(set), told, text }, data_type);
        Ok(ident(&self.name))
    }

    /// How many rows, or distinct values, there are that the call counts.
    fn number(&mut self, name: String) -> Result<Expr, CutError> {
        if self.params.distinct {
            return self.told_sum(name, self.weight, Told::Weights, DataType::Int64);
        }
        Ok(match self.argument()? {
            Expr::Literal(value, _) if !value.is_null() => {
                let text = self.text.clone();
                self.sum_where((name, text), self.weight, None, DataType::Int64)
            }
            argument => self.number_where(name, argument.is_not_null(), "are not NULL"),
        })
    }

    /// - `are`: what is said of the values that are counted.
    fn number_where(&mut self, name: String, condition: Expr, are: &str) -> Expr {
        let text = format!("rows of {} whose values {are}", self.text);
        self.sum_where((name, text), self.weight, Some(condition), DataType::Int64)
    }

    /// The sum of the argument times weight.
    fn signed(&mut self, data_type: DataType) -> Result<Expr, CutError> {
        let argument = self.argument()?;
        let signed = when(ident(WEIGHT).gt(lit(0_i64)), argument.clone()).otherwise(Expr::Negative(Box::new(argument)))?;
        let column = self.shape.column(signed, "signed");
        let name = self.name.clone();
        if self.params.distinct {
            return self.told_sum(name, column, Told::Signed, data_type);
        }
        let text = format!("sum of {}", self.text);
        Ok(self.sum_where((name, text), column, None, data_type))
    }

    /// A sum of column `column` over the rows that meet the call's condition and `besides`, by its name and what it is.
    fn sum_where(&mut self, (name, text): (String, String), column: usize, besides: Option<Expr>, data_type: DataType) -> Expr {
        let own = self.params.filter.as_deref().cloned();
        let condition = match (own, besides) {
            (Some(own), Some(besides)) => Some(own.and(besides)),
            (own, besides) => own.or(besides),
        };
        let filter = condition.map(|condition| self.shape.column(condition, "filter"));
        let result = ident(&name);
        self.shape.add(sum(name, column, filter, text), data_type);
        result
    }

    /// A sum of what is told of the values that come and go.
    ///
    /// - `like`: a column of the type that is told.
    fn told_sum(&mut self, name: String, like: usize, told: Told, data_type: DataType) -> Result<Expr, CutError> {
        let distinct = Some(self.set(false)?);
        let what = if told == Told::Weights { "number" } else { "sum" };
        let (result, text, function) = (ident(&name), format!("{what} of values of {}", self.text), sum_udaf());
        self.shape.add(AggregateSpec { name, function, args: vec![like], filter: None, distinct, told, text }, data_type);
        Ok(result)
    }

    fn set(&mut self, is_ordered: bool) -> Result<SetBit, CutError> {
        let AggregateShape { sets, input_columns, .. } = &mut *self.shape;
        sets.weighed(&self.function, &self.params, &self.aggregate.input, input_columns, is_ordered)
    }

    fn argument(&self) -> Result<Expr, CutError> {
        match self.params.args.as_slice() {
            [argument] => Ok(argument.clone()),
            _ => Err(PlanError::new(format!("{} takes one argument", self.function.to_uppercase())).into()),
        }
    }
}
