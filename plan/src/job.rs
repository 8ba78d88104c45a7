//! What a compiled script is: pipelines, each a source, a fragment, perhaps a window, and a sink.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan};

use crate::changes::Changes;
use crate::clock::BatchClock;

/// A compiled script.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// `SET 'key' = 'value'` of the script.
    pub options: BTreeMap<String, String>,
    /// One per `INSERT INTO`.
    pub pipelines: Vec<Pipeline>,
    /// What clock functions of the fragments read.
    pub clock: BatchClock,
}

/// One `INSERT INTO`.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Where rows come from.
    pub source: SourceTable,
    /// Source columns to: the sink's columns (no aggregate), or `__pane`, the keys, then arguments and filters of the aggregates.
    pub input: Fragment,
    /// The same with a `__row` UInt32 column passed through from leaf to end; only with a window.
    pub input_with_row: Option<Fragment>,
    /// The aggregate, if there is one.
    pub aggregate: Option<AggregateStage>,
    /// Where results go.
    pub sink: SinkTable,
}

/// A declared stream that a pipeline reads.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// Name in the script.
    pub name: String,
    /// Declared physical columns.
    pub schema: SchemaRef,
    /// Indices of the columns that the pipeline reads, ascending: the leaf of its input fragment.
    pub projection: Vec<usize>,
    /// `WITH` options.
    pub options: BTreeMap<String, String>,
    /// Event time, if a watermark is declared.
    pub rowtime: Option<Rowtime>,
    /// What happens to a row on which an expression fails before any state: `'on-error'`.
    pub on_error: OnError,
}

/// What happens to a row on which an expression fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// The job stops and shows it.
    #[default]
    Stop,
    /// It goes to the dead letters, and the rest goes on.
    DeadLetter,
}

/// `WATERMARK FOR column AS column - delay`.
#[derive(Debug, Clone)]
pub struct Rowtime {
    /// Declared column, physical or computed.
    pub column: String,
    /// Its value over the source's projected columns; a timestamp.
    pub expr: Expr,
    /// How far rows may be out of order, microseconds.
    pub delay_micros: i64,
}

/// A stateless part of the plan: analysed, optimised, and with one leaf, [`crate::FragmentInput`].
#[derive(Debug, Clone)]
pub struct Fragment {
    /// The plan.
    pub plan: LogicalPlan,
    /// Whether an expression can fail on rows that a filter or CASE keeps away: then nothing may move past those.
    pub guards: bool,
}

/// A GROUP BY: partials per (pane, key) at the lanes, merged by key.
#[derive(Debug, Clone)]
pub struct AggregateStage {
    /// When a group's result is given.
    pub grouping: Grouping,
    /// Key columns: columns 1.. of the input fragment's output.
    pub keys: Vec<FieldRef>,
    /// Aggregates, in the order of their results.
    pub aggregates: Vec<AggregateSpec>,
    /// `__pane`, keys and results to the sink's columns; of an updating one with a `__change` UInt32 column passed through to the end.
    pub output: Fragment,
}

/// When a group's result is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Once, when the watermark has passed the end of its tumbling window.
    Tumble {
        /// Length of the window, microseconds.
        size_micros: i64,
        /// Start of window 0, microseconds.
        offset_micros: i64,
    },
    /// Whenever it changes. All rows are of pane 0.
    Updating {
        /// What the output fragment sees of a change.
        sees: Sees,
        /// A key of which no row has come for so long is forgotten; `None`: never.
        ttl: Option<Duration>,
    },
}

/// Which results of a changed group the output fragment is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// The new one: nothing above can tell the old one apart.
    After,
    /// The old one too: a condition may hold for one and not for the other, or the sink takes retractions.
    BeforeAndAfter,
}

/// One aggregate call.
#[derive(Debug, Clone)]
pub struct AggregateSpec {
    /// Name of its result; prefix of its state columns.
    pub name: String,
    /// The function.
    pub function: Arc<AggregateUDF>,
    /// Its arguments: columns of the input fragment's output.
    pub args: Vec<usize>,
    /// Its FILTER: a boolean column of the input fragment's output.
    pub filter: Option<usize>,
    /// The call as written, for people.
    pub text: String,
}

/// A declared table that results go to.
#[derive(Debug, Clone)]
pub struct SinkTable {
    /// Name in the script.
    pub name: String,
    /// Declared columns: what results have.
    pub schema: SchemaRef,
    /// `WITH` options.
    pub options: BTreeMap<String, String>,
    /// How later results relate to earlier ones.
    pub changes: Changes,
}
