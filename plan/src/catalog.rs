//! The script's tables and views, as plans by name.
//!
//! A table's plan is a scan of its physical columns and a projection that adds the computed ones; its event-time column is marked in
//! its metadata (see [`crate::window_assign`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion::physical_plan::ExecutionPlan;

use crate::PlanError;
use crate::functions::not_null;
use crate::window_assign::ROWTIME_KEY;

/// A declared table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Physical columns.
    pub(crate) schema: SchemaRef,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) rowtime: Option<DeclaredRowtime>,
    /// Computed columns in the order of declaration, over the physical ones.
    pub(crate) computed: Vec<(String, Expr)>,
    /// All columns in the order of declaration.
    pub(crate) order: Vec<String>,
    /// Places of the declared key's columns among the physical ones.
    pub(crate) primary_key: Vec<usize>,
}

/// A declared watermark.
#[derive(Debug, Clone)]
pub(crate) struct DeclaredRowtime {
    pub(crate) column: String,
    pub(crate) delay_micros: i64,
}

/// Tables and views by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    tables: BTreeMap<String, Arc<Table>>,
    plans: BTreeMap<String, LogicalPlan>,
}

impl Catalog {
    pub(crate) fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    pub(crate) fn plan(&self, name: &str) -> Option<&LogicalPlan> {
        self.plans.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.plans.keys().map(String::as_str)
    }

    pub(crate) fn add_table(&mut self, table: Table) -> Result<(), PlanError> {
        self.free(&table.name)?;
        let table = Arc::new(table);
        let plan = table.plan().map_err(PlanError::from_engine)?;
        self.plans.insert(table.name.clone(), plan);
        self.tables.insert(table.name.clone(), table);
        Ok(())
    }

    pub(crate) fn add_view(&mut self, name: &str, plan: LogicalPlan) -> Result<(), PlanError> {
        self.free(name)?;
        self.plans.insert(name.to_owned(), plan);
        Ok(())
    }

    /// A view that hides a table or view of the same name.
    pub(crate) fn shadow(&mut self, name: &str, plan: LogicalPlan) {
        self.plans.insert(name.to_owned(), plan);
    }

    fn free(&self, name: &str) -> Result<(), PlanError> {
        match self.plans.contains_key(name) {
            true => Err(PlanError::new(format!("table or view {name} is declared twice")).hint("choose another name")),
            false => Ok(()),
        }
    }
}

impl Table {
    /// Type that a reference to column `name` has, computed ones included.
    fn expr(&self, name: &str) -> Expr {
        let physical = || Expr::Column(Column::new(Some(TableReference::bare(self.name.clone())), name));
        self.computed.iter().find(|(computed, _)| computed == name).map_or_else(physical, |(_, expr)| expr.clone())
    }

    /// Event time over the physical columns.
    pub(crate) fn rowtime_expr(&self) -> Option<Expr> {
        self.rowtime.as_ref().map(|rowtime| self.expr(&rowtime.column))
    }

    fn plan(self: &Arc<Self>) -> Result<LogicalPlan> {
        let provider = provider_as_source(Arc::new(StreamTable(Arc::clone(self))));
        let scan = LogicalPlanBuilder::scan(TableReference::bare(self.name.clone()), provider, None)?;
        let columns = self.order.iter().map(|name| {
            let expr = self.expr(name);
            let marked = self.rowtime.as_ref().is_some_and(|rowtime| rowtime.column == *name);
            match (marked, &expr) {
                (true, _) => {
                    let metadata = FieldMetadata::from(HashMap::from([(ROWTIME_KEY.to_owned(), self.name.clone())]));
                    expr.alias_with_metadata(name, Some(metadata))
                }
                (false, Expr::Column(_)) => expr,
                (false, _) => expr.alias(name),
            }
        });
        scan.project(columns)?.alias(TableReference::bare(self.name.clone()))?.build()
    }
}

/// What the engine's planner sees of a stream: its columns. It is never scanned; the cut replaces it by the fragment's input.
#[derive(Debug)]
pub(crate) struct StreamTable(pub(crate) Arc<Table>);

#[async_trait::async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Err(DataFusionError::Internal(format!("stream {} is read by lanes, not by a scan", self.0.name)))
    }
}

/// Casts `plan`'s columns to `schema`, by position; names become the schema's. NULL in a column that is NOT NULL is an error of the row.
pub(crate) fn cast_to_sink(plan: LogicalPlan, schema: &Schema, sink: &str) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = (plan.schema().iter().zip(schema.fields()))
        .map(|((qualifier, from), to)| {
            let column = Expr::Column(Column::new(qualifier.cloned(), from.name()));
            let cast_needed = from.data_type() != to.data_type();
            let value = if cast_needed { cast(column, to.data_type().clone()) } else { column };
            let value = if from.is_nullable() && !to.is_nullable() { not_null(value, sink, to.name()) } else { value };
            value.alias(to.name())
        })
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Whether a query column may go into a sink column without the user's word: as Flink, within a family and never to a smaller type.
pub(crate) fn casts_implicitly(from: &DataType, to: &DataType) -> bool {
    let rank = |data_type: &DataType| {
        Some(match data_type {
            DataType::Int8 => 1,
            DataType::Int16 | DataType::UInt8 => 2,
            DataType::Int32 | DataType::UInt16 => 3,
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => 4,
            DataType::Decimal128(_, _) => 5,
            DataType::Float32 => 6,
            DataType::Float64 => 7,
            _ => return None,
        })
    };
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    from == to
        || *from == DataType::Null
        || rank(from).zip(rank(to)).is_some_and(|(from, to)| from <= to)
        || (is_text(from) && is_text(to))
        || matches!((from, to), (DataType::Timestamp(_, a), DataType::Timestamp(_, b)) if a.is_some() == b.is_some())
        || matches!((from, to), (DataType::Binary | DataType::BinaryView | DataType::LargeBinary, DataType::Binary))
}

/// A physical schema from declared columns.
pub(crate) fn physical_schema(columns: impl Iterator<Item = (String, DataType, bool)>) -> SchemaRef {
    Arc::new(Schema::new(columns.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable)).collect::<Vec<_>>()))
}

/// The columns of a table as the planner names them.
pub(crate) fn qualified(table: &str, schema: &SchemaRef) -> Result<DFSchema> {
    DFSchema::try_from_qualified_schema(TableReference::bare(table.to_owned()), schema)
}
