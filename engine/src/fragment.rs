//! A stage's stateless part: one physical plan with a slot for its input, planned once and run for every batch.
//!
//! Why: planning costs milliseconds, a batch costs microseconds. The plan has one partition and no operator that spawns tasks, so
//! polling its stream to the end runs it on the caller's thread.
//! Never: keeps rows between runs; the slot is emptied by the run that fills it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, execute_stream,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionConfig;
use futures::TryStreamExt;
use weir_plan::{Fragment, FragmentInput};

use crate::EngineError;

/// Rows the engine's filters gather before they pass them on.
const BATCH_ROWS: usize = 8192;

type Slot = Arc<Mutex<Vec<RecordBatch>>>;

/// A fragment ready to run.
#[derive(Debug)]
pub struct FragmentRunner {
    plan: Arc<dyn ExecutionPlan>,
    slot: Slot,
    input: SchemaRef,
    columns: DFSchemaRef,
    output: SchemaRef,
    context: Arc<TaskContext>,
}

impl FragmentRunner {
    /// Plans `fragment`. Costs milliseconds; done once per shard and process.
    ///
    /// # Errors
    /// [`EngineError::Query`] if the engine cannot plan it.
    pub async fn new(fragment: &Fragment) -> Result<Self, EngineError> {
        let slot = Slot::default();
        let state = session(fragment.guards);
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(SlotPlanner { slot: Arc::clone(&slot) })]);
        let plan = planner.create_physical_plan(&fragment.plan, &state).await?;
        let columns = leaf_columns(&fragment.plan);
        let input = Arc::new(columns.as_arrow().clone());
        Ok(Self { output: plan.schema(), plan, slot, input, columns, context: state.task_ctx() })
    }

    /// Columns the input must have.
    #[must_use]
    pub fn input_schema(&self) -> &SchemaRef {
        &self.input
    }

    /// The same as the planner names them, for expressions over the input.
    #[must_use]
    pub fn input_columns(&self) -> &DFSchemaRef {
        &self.columns
    }

    /// Columns of what [`run`](Self::run) returns.
    #[must_use]
    pub fn output_schema(&self) -> &SchemaRef {
        &self.output
    }

    /// Runs the fragment over `batches`, in order. Returns the surviving rows in the order of the input.
    ///
    /// # Errors
    /// [`EngineError::Query`] if an expression fails on a row (division by zero, a failed cast).
    pub async fn run(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, EngineError> {
        if let Some(first) = batches.first()
            && !same_columns(&first.schema(), &self.input)
        {
            return Err(EngineError::schema("fragment input", &self.input, &first.schema()));
        }
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = batches;
        self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        let stream = execute_stream(Arc::clone(&self.plan), Arc::clone(&self.context))?;
        Ok(stream.try_collect().await?)
    }
}

fn same_columns(left: &Schema, right: &Schema) -> bool {
    left.fields().len() == right.fields().len()
        && left.fields().iter().zip(right.fields()).all(|(l, r)| l.data_type() == r.data_type())
}

fn leaf_columns(plan: &LogicalPlan) -> DFSchemaRef {
    let mut leaf = plan;
    while let Some(child) = leaf.inputs().first().copied() {
        leaf = child;
    }
    Arc::clone(leaf.schema())
}

/// One partition, no repartitioning, no dynamic filters: they would not be reset between runs.
///
/// - `guards`: no rewrite of the physical plan, which would merge filters and move projections below them.
fn session(guards: bool) -> SessionState {
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    let options = config.options_mut();
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    let builder = SessionStateBuilder::new().with_config(config);
    if guards { builder.with_physical_optimizer_rules(Vec::new()).build() } else { builder.build() }
}

#[derive(Debug)]
struct SlotPlanner {
    slot: Slot,
}

#[async_trait]
impl ExtensionPlanner for SlotPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session_state: &dyn Session,
        _planning: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(input) = node.as_any().downcast_ref::<FragmentInput>() else { return Ok(None) };
        let schema = Arc::new(input.schema.as_arrow().clone());
        Ok(Some(Arc::new(SlotExec::new(schema, Arc::clone(&self.slot)))))
    }
}

/// Leaf that yields what lies in the slot.
struct SlotExec {
    slot: Slot,
    properties: Arc<PlanProperties>,
}

impl SlotExec {
    fn new(schema: SchemaRef, slot: Slot) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { slot, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for SlotExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotExec")
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotExec")
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &'static str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batches = std::mem::take(&mut *self.slot.lock().unwrap_or_else(PoisonError::into_inner));
        let schema = self.schema();
        // The slot's batches may bear other nullability or metadata than the plan; columns were checked by type.
        let batches = batches
            .into_iter()
            .map(|batch| {
                let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                RecordBatch::try_new_with_options(Arc::clone(&schema), batch.columns().to_vec(), &options)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Box::pin(MemoryStream::try_new(batches, schema, None)?))
    }
}
