//! A case as its file says it, checked against the job: see docs/testing.md.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde::Deserialize;
use toml::Spanned;
use weir_engine::LaneOperator;
use weir_model::Watermark;
use weir_model::key_group::KEY_GROUPS_DEFAULT;
use weir_plan::{JobPlan, Pipeline, SinkTable, SourceTable, nearest};

use super::given::GivenRows;
use super::{results, rows};
use crate::cli::{in_script, read_script};
use crate::job::ScriptSettings;

/// The wall clock where a case does not say: later than the event times that people write.
const NOW_DEFAULT: &str = "2030-01-01 00:00:00";
/// Stands for every connector of the job.
const CONNECTOR: &str = "test";

/// What of a case is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Whole,
    /// Expected rows are about to be written anew: they need not even be rows.
    WithoutExpected,
}

/// A case, ready to be played.
#[derive(Debug)]
pub(super) struct Case {
    /// The job's script.
    pub(super) sql: String,
    /// What it compiles to, with its connectors taken away.
    pub(super) plan: JobPlan,
    pub(super) steps: Vec<Step>,
    /// Rows of all steps that come after their window has fired.
    pub(super) late: u64,
    /// Rows of all steps that become dead letters.
    pub(super) dead: u64,
}

#[derive(Debug)]
pub(super) struct Step {
    /// By table that the job reads; those that the step does not name are there too, without rows.
    pub(super) given: BTreeMap<String, GivenRows>,
    pub(super) now_micros: i64,
    pub(super) closes: bool,
    pub(super) expected: Vec<Expected>,
}

/// What is expected of one table after a step.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) table: String,
    pub(super) what: What,
    /// Rows as a JSON file sink writes them.
    pub(super) rows: Vec<String>,
    /// Where they stand in the file.
    pub(super) span: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// `expect`: rows that came since they were last expected; of results that change, those that count now.
    Rows,
    /// `changes`: what the step changed.
    Changes,
}

impl What {
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Rows => "expect",
            Self::Changes => "changes",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    job: Scripts,
    now: Option<String>,
    #[serde(default)]
    late: u64,
    #[serde(default)]
    dead: u64,
    #[serde(default, rename = "step")]
    steps: Vec<StepTable>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a script's path, or a list of them")]
enum Scripts {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StepTable {
    rows: BTreeMap<String, String>,
    advance: Option<String>,
    now: Option<String>,
    close: bool,
    expect: BTreeMap<String, Spanned<String>>,
    changes: BTreeMap<String, Spanned<String>>,
}

impl Case {
    /// Reads a case and compiles its job.
    ///
    /// # Errors
    /// A message that names the place and what to write.
    pub(super) async fn read(path: &Path, reading: Reading) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let file: CaseFile = toml::from_str(&text)?;
        let (sql, plan) = compile(path, &file.job).await?;
        ensure!(!file.steps.is_empty(), "the case has no [[step]]");
        let mut times = EventTimes::new(&plan).await?;
        let mut now_micros = instant("now", file.now.as_deref().unwrap_or(NOW_DEFAULT))?;
        let mut steps = Vec::new();
        let count = file.steps.len();
        for (number, table) in (1..).zip(&file.steps) {
            let read = async {
                ensure!(!table.close || number == count, "close = true ends the input: no step may follow");
                now_micros = table.now.as_deref().map_or(Ok(now_micros), |now| instant("now", now))?;
                step(&plan, table, now_micros, &mut times, reading).await
            };
            steps.push(read.await.with_context(|| format!("step {number}"))?);
        }
        let expects = steps.iter().any(|step| !step.expected.is_empty()) || file.late + file.dead > 0;
        ensure!(expects, "the case expects nothing: say expect.TABLE = '''rows''' in a step");
        Ok(Self { sql, plan, steps, late: file.late, dead: file.dead })
    }
}

async fn compile(case: &Path, scripts: &Scripts) -> anyhow::Result<(String, JobPlan)> {
    let paths = match scripts {
        Scripts::One(path) => std::slice::from_ref(path),
        Scripts::Several(paths) => paths,
    };
    let folder = case.parent().unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = paths.iter().map(|path| folder.join(path)).collect();
    let last = paths.last().context("job names no script")?;
    let mut sql = String::new();
    for path in &paths {
        sql += &read_script(path)?;
        sql.push('\n');
    }
    // Several scripts are one text: lines are counted from the first.
    let mut plan = weir_plan::compile_to_look(&sql).await.map_err(|error| in_script(last, &error))?;
    ScriptSettings::new(&plan.options)?;
    for pipeline in &mut plan.pipelines {
        let taken_away = BTreeMap::from([("connector".to_owned(), CONNECTOR.to_owned())]);
        pipeline.source.options.clone_from(&taken_away);
        pipeline.sink.options = taken_away;
    }
    Ok((sql, plan))
}

async fn step(
    plan: &JobPlan,
    table: &StepTable,
    now_micros: i64,
    times: &mut EventTimes,
    reading: Reading,
) -> anyhow::Result<Step> {
    let advance = table.advance.as_deref().map(|advance| instant("advance", advance)).transpose()?;
    let known = |name: &String| source(plan, name).is_some();
    if let Some(unknown) = table.rows.keys().find(|name| !known(name)) {
        bail!(
            "rows.{unknown}: {}",
            no_table(unknown, "reads", plan.pipelines.iter().map(|pipeline| pipeline.source.name.as_str()))
        );
    }
    times.begin(plan, now_micros);
    let mut given = BTreeMap::new();
    for source in plan.pipelines.iter().map(|pipeline| &pipeline.source) {
        if !given.contains_key(&source.name) {
            let text = table.rows.get(&source.name).map_or("", String::as_str);
            let rows = rows::read_strictly(&source.schema, text);
            let rows = rows.map_err(anyhow::Error::msg).with_context(|| format!("rows.{}", source.name))?;
            let reached = times.after(&source.name, &rows, advance.map(Watermark)).await?;
            given.insert(source.name.clone(), GivenRows { rows, reached });
        }
    }
    let mut expected = Vec::new();
    for (what, tables) in [(What::Rows, &table.expect), (What::Changes, &table.changes)] {
        for (name, text) in tables {
            let context = || format!("{}.{name}", what.key());
            expected.push(expect(plan, what, name, text, reading).with_context(context)?);
        }
    }
    Ok(Step { given, now_micros, closes: table.close, expected })
}

fn expect(plan: &JobPlan, what: What, name: &str, text: &Spanned<String>, reading: Reading) -> anyhow::Result<Expected> {
    let sinks = || plan.pipelines.iter().map(|pipeline| &pipeline.sink);
    let Some(sink) = sinks().find(|sink| sink.name == *name) else {
        bail!(no_table(name, "writes", sinks().map(|sink| sink.name.as_str())));
    };
    if what == What::Changes && !sink.changes.has_op() {
        bail!("the results of {name} do not change, rows are only added: say expect.{name}");
    }
    let rows = match reading {
        Reading::Whole => read_expected(sink, what, text.get_ref())?,
        Reading::WithoutExpected => Vec::new(),
    };
    Ok(Expected { table: name.to_owned(), what, rows, span: text.span() })
}

fn read_expected(sink: &SinkTable, what: What, text: &str) -> anyhow::Result<Vec<String>> {
    let written = |schema, text| rows::read_strictly(schema, text).map_err(anyhow::Error::msg);
    match what {
        What::Rows => rows::lines(&written(&sink.schema, text)?),
        What::Changes => results::changes_as_written(&written(&results::schema_with_op(sink), text)?),
    }
}

fn source<'a>(plan: &'a JobPlan, name: &str) -> Option<&'a SourceTable> {
    plan.pipelines.iter().map(|pipeline| &pipeline.source).find(|source| source.name == name)
}

fn no_table<'a>(name: &str, verb: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let hint = nearest(name, known.clone()).map_or_else(
        || format!("it {verb} {}", known.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean {near}?"),
    );
    format!("the job {verb} no table {name}: {hint}")
}

/// Microseconds UTC.
fn instant(key: &str, text: &str) -> anyhow::Result<i64> {
    let nanos = string_to_timestamp_nanos(text);
    let nanos = nanos.map_err(|_| anyhow::anyhow!("{key} = {text:?} is no instant: write it as \"2026-01-01 00:00:10\""))?;
    Ok(nanos.div_euclid(1_000))
}

/// Where event time is after the rows of each step: what one lane that reads them all would say. So it is the same at every parallelism.
struct EventTimes {
    lanes: Vec<(Pipeline, LaneOperator)>,
    skew_micros: i64,
    latest_micros: i64,
}

impl EventTimes {
    async fn new(plan: &JobPlan) -> anyhow::Result<Self> {
        let mut lanes = Vec::new();
        for pipeline in plan.pipelines.iter().filter(|pipeline| pipeline.source.rowtime.is_some()) {
            lanes.push((pipeline.clone(), LaneOperator::new(pipeline, KEY_GROUPS_DEFAULT, Watermark::NONE).await?));
        }
        let skew = ScriptSettings::new(&plan.options)?.skew_max.unwrap_or(crate::job::SKEW_MAX_DEFAULT);
        let skew_micros = i64::try_from(skew.as_micros()).unwrap_or(i64::MAX);
        Ok(Self { lanes, skew_micros, latest_micros: i64::MAX })
    }

    fn begin(&mut self, plan: &JobPlan, now_micros: i64) {
        plan.clock.set(now_micros);
        self.latest_micros = now_micros.saturating_add(self.skew_micros);
    }

    async fn after(&mut self, table: &str, rows: &RecordBatch, advance: Option<Watermark>) -> anyhow::Result<Watermark> {
        let mut reached = advance.unwrap_or(Watermark::NONE);
        for (pipeline, lane) in self.lanes.iter_mut().filter(|(pipeline, _)| pipeline.source.name == table) {
            if rows.num_rows() > 0 {
                lane.push(rows.project(&pipeline.source.projection)?, self.latest_micros).await?;
            }
            lane.advance(reached);
            let _epoch = lane.finish()?;
            reached = reached.max(lane.watermark());
        }
        Ok(reached)
    }
}
