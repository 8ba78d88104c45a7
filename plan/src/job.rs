//! What a compiled script is: pipelines, each a source, a fragment, aggregates if there are any, and a sink.

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
    /// The aggregates, from the source to the sink: each is fed with what the one before gives. None in a stateless pipeline.
    pub aggregates: Vec<AggregateStage>,
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

impl Pipeline {
    /// The fragment whose rows feed aggregate `index`: that of the lanes, or the output of the aggregate before.
    #[must_use]
    pub fn feeding(&self, index: usize) -> &Fragment {
        match index.checked_sub(1).and_then(|before| self.aggregates.get(before)) {
            Some(before) => &before.output,
            None => &self.input,
        }
    }

    /// Whether what aggregate `index` gives feeds another.
    #[must_use]
    pub fn feeds_another(&self, index: usize) -> bool {
        index + 1 < self.aggregates.len()
    }
}

/// A GROUP BY: partials per (pane, key) where its rows are made, merged by key.
#[derive(Debug, Clone)]
pub struct AggregateStage {
    /// When a group's result is given.
    pub grouping: Grouping,
    /// What is known of its rows if they may be taken back.
    pub retracted: Option<Retracted>,
    /// Key columns: columns 1.. of the output of the fragment that feeds it.
    pub keys: Vec<FieldRef>,
    /// Aggregates, in the order of their results.
    pub aggregates: Vec<AggregateSpec>,
    /// Of windows that fire more than once, what a result must meet to be given: `__pane`, keys and results to one column, a Boolean. One that
    /// met it and does no longer is taken back. Elsewhere a condition is part of the output.
    pub condition: Option<Fragment>,
    /// Values of which the DISTINCT ones take each once; where rows may be taken back, also those that MIN and MAX look at.
    pub sets: Vec<DistinctSet>,
    /// `__pane`, keys and results to the sink's columns. Where results change, `__change` UInt32 is passed through from leaf to end; where
    /// windows fire more than once, `__firing` Utf8 before it. Where it feeds another aggregate: to the columns of that one, and the leaf
    /// of results that change ends with `__weight` Int64, 1 of a result and -1 of one that is taken back.
    pub output: Fragment,
}

impl AggregateStage {
    /// Whether results wait for the end of a window.
    #[must_use]
    pub const fn is_window(&self) -> bool {
        matches!(self.grouping, Grouping::Tumble { .. })
    }
}

/// Rows that may be taken back: each bears a weight, 1 or -1, and its aggregates are sums of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retracted {
    /// The aggregate that counts all rows of a group: one without rows is gone.
    pub rows: usize,
    /// Where the weight is: a column of the output of the fragment that feeds it.
    pub weight: usize,
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
    /// Where it finds its values, if it does not take them from rows.
    pub distinct: Option<SetBit>,
    /// What it is told of them.
    pub told: Told,
    /// The call as written, for people.
    pub text: String,
}

/// What an aggregate is told of the values of a set; of one without a set it means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Told {
    /// Each value that is new.
    #[default]
    Values,
    /// Of rows that may be taken back: 1 for each value that has come, -1 for each that is gone.
    Weights,
    /// The same, times the value.
    Signed,
    /// The least value that is there.
    Least,
    /// The greatest value that is there.
    Greatest,
}

/// The values of one column that a group has seen, and which conditions were true of a row with each. Where rows may be taken back it has
/// one condition, and each value the sum of the weights of its rows: it is there while this is above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DistinctSet {
    /// The value: a column of the input fragment's output. NULL is none.
    pub value: usize,
    /// By bit the condition, a boolean column of the input fragment's output, or none for all rows. At most
    /// [`CONDITIONS_MAX`](Self::CONDITIONS_MAX).
    pub conditions: Vec<Option<usize>>,
    /// Whether an aggregate asks for the least or greatest of its values.
    pub is_ordered: bool,
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
