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
    /// How long after its end a window takes rows, microseconds: `'allowed-lateness'`.
    pub allowed_lateness_micros: i64,
    /// After how long without a row a lane is not waited for any more, microseconds: `'scan.watermark.idle-timeout'`.
    pub idle_after_micros: Option<i64>,
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
    /// Values of which the DISTINCT ones take each once.
    pub sets: Vec<DistinctSet>,
    /// `__pane`, keys and results to the sink's columns. Where results change, `__change` UInt32 is passed through from leaf to end; where
    /// windows fire more than once, `__firing` Utf8 before it.
    pub output: Fragment,
}

/// When a group's result is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// When the watermark has passed the end of its tumbling window.
    Tumble {
        /// Length of the window, microseconds.
        size_micros: i64,
        /// Start of window 0, microseconds.
        offset_micros: i64,
        /// When it is given besides.
        emit: Emit,
    },
    /// Whenever it changes. All rows are of pane 0.
    Updating {
        /// What the output fragment sees of a change.
        sees: Sees,
        /// A key of which no row has come for so long is forgotten; `None`: never.
        ttl: Option<Duration>,
    },
}

/// When a window gives results besides the moment at which the watermark passes its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Emit {
    /// Least time between two early results of an open window, microseconds of processing time; none if it is `None`.
    pub every_micros: Option<i64>,
    /// How long after its end a window takes rows and gives its results anew for them, microseconds of event time.
    pub lateness_micros: i64,
}

impl Emit {
    /// Whether a group may have more than one result.
    #[must_use]
    pub const fn changes(self) -> bool {
        self.every_micros.is_some() || self.lateness_micros > 0
    }
}

/// Why a window gives results; the numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Firing {
    /// It is still open.
    Early = 0,
    /// The watermark has passed its end.
    OnTime = 1,
    /// A row came after that, and within the allowed lateness.
    Late = 2,
}

impl Firing {
    /// What `FIRING()` gives.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::OnTime => "on-time",
            Self::Late => "late",
        }
    }
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
    /// Its FILTER: a boolean column of the input fragment's output. None of a DISTINCT one: its set has it.
    pub filter: Option<usize>,
    /// Where it finds its values, if it takes each only once.
    pub distinct: Option<SetBit>,
    /// The call as written, for people.
    pub text: String,
}

/// The values of one column that a group has seen, and which conditions were true of a row with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctSet {
    /// The value: a column of the input fragment's output. NULL is none.
    pub value: usize,
    /// By bit the condition, a boolean column of the input fragment's output, or none for all rows. At most
    /// [`CONDITIONS_MAX`](Self::CONDITIONS_MAX).
    pub conditions: Vec<Option<usize>>,
    /// The value as written, for people.
    pub text: String,
}

impl DistinctSet {
    /// Conditions of one set: the bits of an unsigned integer that Parquet has.
    pub const CONDITIONS_MAX: usize = 64;
}

/// One condition of one set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetBit {
    /// Place of the set among the stage's.
    pub set: usize,
    /// Place of the condition among the set's.
    pub bit: usize,
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
