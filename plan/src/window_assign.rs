//! `TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), INTERVAL ..))` in the logical plan: the input's columns and `window_start`,
//! `window_end`, `window_time`.
//!
//! Why a node of its own: the engine's rewrites may move filters and projections past it, but never take it apart. What the cut
//! must know of a column (that it is the stream's event time, or one of the window's bounds) is marked in its metadata where it is
//! made, and believed only where it came unchanged ([`is_unchanged`]): the engine's casts pass metadata on.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

/// Metadata key of a stream's event-time column; its value is the stream's name.
pub(crate) const ROWTIME_KEY: &str = "weir.rowtime";
/// Metadata key of a window's bound; its value is a [`Bound`]'s name.
pub(crate) const BOUND_KEY: &str = "weir.window";

/// Which bound of its window a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Bound {
    Start,
    End,
    Time,
}

impl Bound {
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Start, "window_start"), (Self::End, "window_end"), (Self::Time, "window_time")];

    /// The bound that `field` is, by its metadata.
    pub(crate) fn of(field: &Field) -> Option<Self> {
        let name = field.metadata().get(BOUND_KEY)?;
        Self::ALL.iter().find(|(_, known)| known == name).map(|(bound, _)| *bound)
    }
}

/// Whether `column` of `plan` is, unchanged, a column that was marked with `key` below: through names, views and filters, but no
/// computation, not even a cast.
pub(crate) fn is_unchanged(plan: &LogicalPlan, column: &Column, key: &str) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.maybe_index_of_column(column);
            let mut expr = index.and_then(|index| projection.expr.get(index));
            while let Some(Expr::Alias(alias)) = expr {
                if alias.metadata.as_ref().is_some_and(|metadata| metadata.inner().contains_key(key)) {
                    return true;
                }
                expr = Some(&alias.expr);
            }
            matches!(expr, Some(Expr::Column(inner)) if is_unchanged(&projection.input, inner, key))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(index) = alias.schema.maybe_index_of_column(column) else { return false };
            is_unchanged(&alias.input, &alias.input.schema().columns()[index], key)
        }
        LogicalPlan::Filter(filter) => is_unchanged(&filter.input, column, key),
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowAssign>() {
            Some(assign) if assign.input.schema().has_column(column) => is_unchanged(&assign.input, column, key),
            Some(assign) => {
                let field = assign.schema.maybe_index_of_column(column).map(|index| assign.schema.field(index));
                field.is_some_and(|field| field.metadata().contains_key(key))
            }
            None => false,
        },
        _ => false,
    }
}

/// Assigns each row to one tumbling window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowAssign {
    pub(crate) input: LogicalPlan,
    /// The event-time column.
    pub(crate) time: Column,
    pub(crate) size_micros: i64,
    pub(crate) offset_micros: i64,
    schema: DFSchemaRef,
}

impl WindowAssign {
    pub(crate) fn new(input: LogicalPlan, time: Column, size_micros: i64, offset_micros: i64) -> Result<Self> {
        let time_type = Expr::Column(time.clone()).to_field(input.schema().as_ref())?.1.data_type().clone();
        let mut fields: Vec<(Option<datafusion::common::TableReference>, FieldRef)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        fields.extend(Bound::ALL.iter().map(|(_, name)| (None, bound_field(name, &time_type))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(Self { input, time, size_micros, offset_micros, schema })
    }
}

fn bound_field(name: &str, time_type: &DataType) -> FieldRef {
    let metadata = HashMap::from([(BOUND_KEY.to_owned(), name.to_owned())]);
    Arc::new(Field::new(name, time_type.clone(), false).with_metadata(metadata))
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, _other: &Self) -> Option<std::cmp::Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &'static str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![Expr::Column(self.time.clone())]
    }

    /// A filter on the input's own columns may go below; one on the window's bounds stays.
    fn prevent_predicate_push_down_columns(&self) -> std::collections::HashSet<String> {
        Bound::ALL.iter().map(|(_, name)| (*name).to_owned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowAssign: TUMBLE {} size={}us offset={}us", self.time, self.size_micros, self.offset_micros)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let time = match exprs.into_iter().next() {
            Some(Expr::Column(column)) => column,
            _ => self.time.clone(),
        };
        let input = inputs.pop().unwrap_or_else(|| self.input.clone());
        Self::new(input, time, self.size_micros, self.offset_micros)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let inputs = self.input.schema().fields().len();
        let time = self.input.schema().maybe_index_of_column(&self.time)?;
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|&column| column < inputs).chain([time]).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
