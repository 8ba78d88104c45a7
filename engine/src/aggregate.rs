//! The aggregates of a window stage: which columns they read, what their partial looks like, and how to make accumulators.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use datafusion::arrow::compute::prep_null_mask_filter;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::logical_expr::GroupsAccumulator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use weir_plan::{AggregateSpec, SetBit, Told};

use crate::EngineError;
use crate::extreme;
use crate::moments::MomentFunction;

/// One aggregate, bound to the columns of the lane's fragment.
#[derive(Debug)]
pub struct Aggregate {
    function: AggregateFunctionExpr,
    own: Option<Own>,
    args: Vec<usize>,
    arg_types: Vec<DataType>,
    filter: Option<usize>,
    distinct: Option<SetBit>,
    told: Told,
    state: Vec<FieldRef>,
}

/// What stands instead of the engine's accumulator.
#[derive(Debug)]
enum Own {
    Moments(MomentFunction),
    /// The extreme that it is told; the type of the values.
    Extreme(DataType),
}

impl Own {
    fn of(spec: &AggregateSpec, result: &DataType) -> Option<Self> {
        if matches!(spec.told, Told::Least | Told::Greatest) {
            return Some(Self::Extreme(result.clone()));
        }
        MomentFunction::named(spec.function.name()).map(Self::Moments)
    }

    /// Columns of its partial.
    fn parts(&self) -> Vec<(&'static str, DataType)> {
        match self {
            Self::Moments(moments) => moments.parts().to_vec(),
            Self::Extreme(values) => extreme::parts(values).to_vec(),
        }
    }
}

impl Aggregate {
    /// Binds `spec` to the columns of `input`, the output of the lane's fragment.
    ///
    /// # Errors
    /// [`EngineError::Query`] if the function does not take those columns.
    pub fn new(spec: &AggregateSpec, input: &SchemaRef) -> Result<Self, EngineError> {
        let column = |&index: &usize| Arc::new(Column::new(input.field(index).name(), index)) as Arc<dyn PhysicalExpr>;
        let args: Vec<_> = spec.args.iter().map(column).collect();
        let function = AggregateExprBuilder::new(Arc::clone(&spec.function), args)
            .schema(Arc::clone(input))
            .alias(spec.name.clone())
            .build()?;
        let own = Own::of(spec, function.field().data_type());
        let part = |name: String, data_type: &DataType| Arc::new(Field::new(name, data_type.clone(), true));
        let state = match &own {
            Some(own) => own.parts().iter().map(|(name, data_type)| part(format!("{}__{name}", spec.name), data_type)).collect(),
            None => (function.state_fields()?.iter())
                .map(|field| part(state_name(&spec.name, field.name()), field.data_type()))
                .collect(),
        };
        let arg_types = spec.args.iter().map(|&index| input.field(index).data_type().clone()).collect();
        let AggregateSpec { args, filter, distinct, told, .. } = spec;
        Ok(Self { function, own, args: args.clone(), arg_types, filter: *filter, distinct: *distinct, told: *told, state })
    }

    /// What it is told of the values of its set.
    pub(crate) fn told(&self) -> Told {
        self.told
    }

    /// Where it finds its values, if it does not take them from rows.
    pub(crate) fn distinct(&self) -> Option<SetBit> {
        self.distinct
    }

    /// Arguments of `rows` rows that count for nothing.
    pub(crate) fn null_arguments(&self, rows: usize) -> Vec<ArrayRef> {
        self.arg_types.iter().map(|data_type| new_null_array(data_type, rows)).collect()
    }

    /// Columns of its partial, named `{output}__{part}`.
    #[must_use]
    pub fn state_fields(&self) -> &[FieldRef] {
        &self.state
    }

    /// Its result column.
    #[must_use]
    pub fn result_field(&self) -> FieldRef {
        let field = self.function.field();
        Arc::new(Field::new(self.function.name(), field.data_type().clone(), true))
    }

    /// A fresh accumulator.
    ///
    /// # Errors
    /// [`EngineError::Query`] if the function has no vectorised form; the plan lists only those that do.
    pub fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>, EngineError> {
        match &self.own {
            Some(Own::Moments(moments)) => Ok(moments.accumulator()),
            Some(Own::Extreme(values)) => Ok(extreme::accumulator(values)),
            None => Ok(self.function.create_groups_accumulator()?),
        }
    }

    /// Its argument columns of `rows` and the rows its FILTER lets through.
    #[must_use]
    pub fn arguments(&self, rows: &RecordBatch) -> (Vec<ArrayRef>, Option<BooleanArray>) {
        let args = self.args.iter().map(|&index| Arc::clone(rows.column(index))).collect();
        let filter = self.filter.and_then(|index| rows.column(index).as_any().downcast_ref::<BooleanArray>()).map(|mask| {
            // A NULL condition is not true.
            if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() }
        });
        (args, filter)
    }
}

/// `{output}__{part}`; the engine names a part `{output}[{part}]`.
fn state_name(output: &str, engine_name: &str) -> String {
    let part = engine_name.strip_prefix(output).unwrap_or(engine_name);
    let part = part.trim_start_matches('[').trim_end_matches(']');
    format!("{output}__{}", if part.is_empty() { "value" } else { part })
}
