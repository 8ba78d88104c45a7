//! A job's plan object: everything a cold process needs to run one of its shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use weir_coordinator::jobs::{self, CreateOutcome, NewJob};
use weir_model::job::{DesiredState, JOB_FORMAT, JobRow};
use weir_model::{Incarnation, JobId, StageId};
use weir_plan::{AggregateStage, Changes, Emit, Grouping, JobPlan, Pipeline};
use weir_state::paths;

use crate::config::parse_duration;
use crate::connect::Pinned;
use crate::context::Ctx;
use crate::stream;
use crate::topology::{Role, Topology};

/// Version of the plan object's encoding; a reader refuses any other.
pub const PLAN_FORMAT: u16 = 1;
/// Version of a job's first plan.
pub const FIRST_PLAN: u32 = 1;

/// How far event times may be ahead of the clock where the script does not say (W3).
pub(crate) const SKEW_MAX_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// `SET` keys a script may use.
const SET_KEYS: [&str; 5] =
    ["pipeline.name", "parallelism.default", "execution.checkpointing.interval", "event-time.skew-max", "table.exec.state.ttl"];

/// What is stored of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanObject {
    /// [`PLAN_FORMAT`].
    pub format: u16,
    /// The script.
    pub sql: String,
    /// Shards of every lane and merge stage.
    pub parallelism: u16,
    /// Key groups.
    pub key_groups: u16,
    /// By pipeline, what its source was pinned to.
    pub pinned: Vec<Pinned>,
    /// By pipeline, the meaning of its stages: a build that compiles the script to another meaning refuses to go on.
    pub fingerprints: Vec<u64>,
}

/// A job that cannot be opened or created.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The script does not compile.
    #[error("{0}")]
    Plan(#[from] weir_plan::PlanError),
    /// An option of the script is not known or wrong.
    #[error("{0}")]
    Options(String),
    /// A connector's option is wrong.
    #[error("{0}")]
    Connector(#[from] weir_connectors::OptionsError),
    /// The table does not answer.
    #[error(transparent)]
    Table(#[from] weir_coordinator::StoreError),
    /// The plan object cannot be written or read.
    #[error("plan {object}: {message}")]
    Object {
        /// The object.
        object: String,
        /// Why.
        message: String,
    },
    /// Another script runs under the name.
    #[error(
        "job {name:?} exists with another script\nhelp: a running job's script cannot be edited in place yet; put the old text back, or run the new one beside it with --name {name}-2"
    )]
    Edited {
        /// The name.
        name: String,
    },
}

/// A compiled job, ready for a worker.
#[derive(Debug)]
pub struct Loaded {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// The compiled script; its clock is this worker's alone.
    pub plan: JobPlan,
    /// Its shards.
    pub topology: Topology,
    /// By pipeline, what its source was pinned to.
    pub pinned: Vec<Pinned>,
    /// Key groups.
    pub key_groups: u16,
    /// Version of the plan.
    pub plan_version: u32,
    /// Event times later than now plus this are quarantined (W3).
    pub skew_max: Duration,
    /// The commit interval that the script sets.
    pub commit_interval: Option<Duration>,
}

/// Settings that the script itself may give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptSettings {
    /// `pipeline.name`.
    pub name: Option<String>,
    /// `parallelism.default`.
    pub parallelism: Option<u16>,
    /// `execution.checkpointing.interval`: the commit interval.
    pub commit_interval: Option<Duration>,
    /// `event-time.skew-max`.
    pub skew_max: Option<Duration>,
}

impl ScriptSettings {
    /// Reads the `SET` statements of a script.
    ///
    /// # Errors
    /// [`JobError::Options`] naming the key.
    pub fn new(options: &BTreeMap<String, String>) -> Result<Self, JobError> {
        let wrong = |key: &str, why: String| JobError::Options(format!("SET '{key}': {why}"));
        let mut settings = Self::default();
        for (key, value) in options {
            let duration = || parse_duration(&value.replace(' ', "")).map_err(|why| wrong(key, why));
            match key.as_str() {
                "pipeline.name" => settings.name = Some(value.clone()),
                "parallelism.default" => {
                    let parsed = value.parse().ok().filter(|n| *n > 0);
                    settings.parallelism = Some(parsed.ok_or_else(|| wrong(key, format!("{value:?} is not a number above 0")))?);
                }
                "execution.checkpointing.interval" => settings.commit_interval = Some(duration()?),
                "event-time.skew-max" => settings.skew_max = Some(duration()?),
                // Part of the plan.
                "table.exec.state.ttl" => {}
                unknown => {
                    let near = weir_plan::nearest(unknown, SET_KEYS);
                    let hint =
                        near.map_or_else(|| format!("known: {}", SET_KEYS.join(", ")), |near| format!("did you mean '{near}'?"));
                    return Err(wrong(key, format!("unknown key: {hint}")));
                }
            }
        }
        Ok(settings)
    }
}

/// Opens the job `name`, or creates it from `sql`.
///
/// # Errors
/// [`JobError`]; nothing is created then.
pub async fn open_or_create(ctx: &Ctx, name: &str, sql: &str, parallelism: u16, key_groups: u16) -> Result<Loaded, JobError> {
    if let Some(job) = jobs::find(ctx.table.as_ref(), name).await? {
        return open_same(ctx, job, name, sql).await;
    }
    let plan = weir_plan::compile(sql).await?;
    let settings = ScriptSettings::new(&plan.options)?;
    let parallelism = settings.parallelism.unwrap_or(parallelism).clamp(1, key_groups);
    create(ctx, name, sql, plan, parallelism, key_groups).await
}

/// Creates the job `name`, or opens the one that another process has created meanwhile.
///
/// - `plan`: what `sql` was compiled to.
///
/// # Errors
/// [`JobError`]; nothing is created then.
pub(crate) async fn create(
    ctx: &Ctx,
    name: &str,
    sql: &str,
    plan: JobPlan,
    parallelism: u16,
    key_groups: u16,
) -> Result<Loaded, JobError> {
    check_limits(&plan, parallelism)?;
    let pinned = pin_all(ctx, &plan).await?;
    let job = ctx.ids.job();
    let topology = Topology::new(job, &plan, &pinned, parallelism, key_groups);
    refuse_idle_timeouts_of_streams(&plan, &pinned)?;
    for stage in &topology.stages {
        if stage.role == crate::topology::Role::Publish {
            let shard = topology.shards(stage.id)[0];
            ctx.connectors.target(&plan.pipelines[stage.pipeline].sink, shard)?;
        }
    }
    let object = PlanObject {
        format: PLAN_FORMAT,
        sql: sql.to_owned(),
        parallelism,
        key_groups,
        pinned: pinned.clone(),
        fingerprints: plan.pipelines.iter().map(fingerprint).collect(),
    };
    let path = paths::plan(job, FIRST_PLAN);
    let failed = |message: String| JobError::Object { object: path.clone(), message };
    let bytes = serde_json::to_vec(&object).map_err(|error| failed(error.to_string()))?;
    ctx.objects.put(&Path::from(path.as_str()), bytes.into()).await.map_err(|error| failed(error.to_string()))?;
    let row = JobRow {
        format: JOB_FORMAT,
        job,
        name: name.to_owned(),
        incarnation: Incarnation(1),
        plan: path.clone(),
        plan_version: FIRST_PLAN,
        sql_digest: digest(sql),
        desired: DesiredState::Running,
        stages: u16::try_from(topology.stages.len()).unwrap_or(u16::MAX),
        created_micros: ctx.clock.now_micros(),
    };
    let layouts: Vec<(StageId, _)> = topology.stages.iter().map(|stage| (stage.id, stage.layout.clone())).collect();
    let (routes, shards, holds) = (topology.routes(&pinned), topology.all_shards(), stream::holds(&pinned));
    let new = NewJob { row: &row, layouts: &layouts, routes: &routes, shards: &shards, holds: &holds };
    match jobs::create(ctx.table.as_ref(), &new).await? {
        CreateOutcome::Created => loaded(row, object, plan),
        CreateOutcome::NameTaken(other) => {
            // Nobody else knows this id: nobody reads the plan. One that cannot be deleted is in nobody's way.
            if let Err(error) = ctx.objects.delete(&Path::from(path.as_str())).await {
                tracing::warn!(%error, object = path, "the plan of a job that came to nothing stays");
            }
            open_same(ctx, other, name, sql).await
        }
    }
}

/// The lanes of a stream say themselves that they are idle; a time of the job's own would be passed over (W1).
fn refuse_idle_timeouts_of_streams(plan: &JobPlan, pinned: &[Pinned]) -> Result<(), JobError> {
    let mut streams = plan.pipelines.iter().zip(pinned).filter(|(_, pinned)| pinned.stream().is_some());
    match streams.find(|(pipeline, _)| pipeline.source.idle_after_micros.is_some()) {
        Some((pipeline, _)) => Err(JobError::Options(format!(
            "{}: a stream's lanes say themselves that they are idle, five seconds after their last row\n\
             help: leave out 'scan.watermark.idle-timeout'",
            pipeline.source.name
        ))),
        None => Ok(()),
    }
}

/// Most shards of a stage: a receiver's head names each of its inputs, and a row has a size (T4).
const PARALLELISM_MAX: u16 = 128;
/// Most INSERTs of a script: a job is created, and a worker's round committed, by one transaction.
const PIPELINES_MAX: usize = 24;

fn check_limits(plan: &JobPlan, parallelism: u16) -> Result<(), JobError> {
    let pipelines = plan.pipelines.len();
    if parallelism > PARALLELISM_MAX {
        return Err(JobError::Options(format!(
            "parallelism {parallelism} is too large: at most {PARALLELISM_MAX} shards a stage"
        )));
    }
    if pipelines > PIPELINES_MAX {
        return Err(JobError::Options(format!(
            "the script has {pipelines} INSERTs: at most {PIPELINES_MAX}; put the others in a script of their own"
        )));
    }
    Ok(())
}

async fn pin_all(ctx: &Ctx, plan: &JobPlan) -> Result<Vec<Pinned>, JobError> {
    let mut pinned = Vec::new();
    for pipeline in &plan.pipelines {
        pinned.push(match stream::name_of(&pipeline.source) {
            Some(name) => Pinned::Stream(stream::attach(ctx, &pipeline.source, name).await?),
            None => ctx.connectors.pin(&pipeline.source).await?,
        });
    }
    Ok(pinned)
}

async fn open_same(ctx: &Ctx, job: JobId, name: &str, sql: &str) -> Result<Loaded, JobError> {
    let row = jobs::row(ctx.table.as_ref(), job).await?;
    if row.sql_digest != digest(sql) {
        return Err(JobError::Edited { name: name.to_owned() });
    }
    open(ctx, job).await
}

/// Opens a job by its id, compiling its stored script anew.
///
/// # Errors
/// [`JobError`]; also if this build compiles the script to another meaning than the one that created the job.
pub async fn open(ctx: &Ctx, job: JobId) -> Result<Loaded, JobError> {
    let row = jobs::row(ctx.table.as_ref(), job).await?;
    let object = read_plan(ctx.objects.as_ref(), &row.plan).await?;
    let plan = weir_plan::compile(&object.sql).await?;
    let found: Vec<u64> = plan.pipelines.iter().map(fingerprint).collect();
    if found != object.fingerprints {
        let message = "this build compiles the script to another plan than the one that runs: use the build that created the job";
        return Err(JobError::Object { object: row.plan, message: message.to_owned() });
    }
    loaded(row, object, plan)
}

fn loaded(row: JobRow, object: PlanObject, plan: JobPlan) -> Result<Loaded, JobError> {
    let topology = Topology::new(row.job, &plan, &object.pinned, object.parallelism, object.key_groups);
    let settings = ScriptSettings::new(&plan.options)?;
    Ok(Loaded {
        job: row.job,
        name: row.name,
        plan,
        topology,
        pinned: object.pinned,
        key_groups: object.key_groups,
        plan_version: row.plan_version,
        skew_max: settings.skew_max.unwrap_or(SKEW_MAX_DEFAULT),
        commit_interval: settings.commit_interval,
    })
}

async fn read_plan(store: &dyn ObjectStore, object: &str) -> Result<PlanObject, JobError> {
    let failed = |message: String| JobError::Object { object: object.to_owned(), message };
    let result = store.get(&Path::from(object)).await.map_err(|error| failed(error.to_string()))?;
    let bytes = result.bytes().await.map_err(|error| failed(error.to_string()))?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    if format != Some(u64::from(PLAN_FORMAT)) {
        return Err(failed(format!("plan format {format:?}, this build reads {PLAN_FORMAT}: use the build that wrote it")));
    }
    serde_json::from_value(value).map_err(|error| failed(error.to_string()))
}

fn digest(sql: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(sql.as_bytes())
}

/// The meaning of a pipeline's stages: what is read, kept and sent must be the same for state and segments to be understood.
fn fingerprint(pipeline: &Pipeline) -> u64 {
    let mut text = format!("{:?} {}", pipeline.source.projection, pipeline.input.plan.display_indent_schema());
    for stage in &pipeline.aggregates {
        text += &meaning(stage, &pipeline.sink.changes);
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

fn meaning(stage: &AggregateStage, changes: &Changes) -> String {
    let aggregates: Vec<_> = stage.aggregates.iter().map(|a| (&a.name, a.function.name(), &a.args, a.filter)).collect();
    let mut text = match stage.grouping {
        Grouping::Tumble { size_micros, offset_micros, emit } if emit.changes() => {
            let Emit { every_micros, lateness_micros } = emit;
            format!("{size_micros} {offset_micros} {every_micros:?} {lateness_micros} {changes:?}")
        }
        Grouping::Tumble { size_micros, offset_micros, .. } => format!("{size_micros} {offset_micros}"),
        Grouping::Updating { sees, ttl: None } => format!("updating {sees:?} {changes:?}"),
        Grouping::Updating { sees, ttl: Some(ttl) } => format!("updating {sees:?} {changes:?} for {} us", ttl.as_micros()),
    };
    text += &format!(" {:?} {aggregates:?} {}", stage.keys, stage.output.plan.display_indent_schema());
    if !stage.sets.is_empty() {
        let distinct: Vec<_> = stage.aggregates.iter().map(|a| a.distinct).collect();
        let sets: Vec<_> = stage.sets.iter().map(|set| (set.value, &set.conditions)).collect();
        text += &format!(" {distinct:?} {sets:?}");
    }
    if let Some(condition) = &stage.condition {
        text += &format!(" {}", condition.plan.display_indent_schema());
    }
    if let Some(retracted) = stage.retracted {
        let told: Vec<_> = stage.aggregates.iter().map(|a| a.told).collect();
        text += &format!(" {retracted:?} {told:?}");
    }
    text
}

impl Loaded {
    /// The aggregate that `stage` runs, if it is a merge stage.
    #[must_use]
    pub fn aggregate(&self, stage: StageId) -> Option<&AggregateStage> {
        let stage = self.topology.stage(stage);
        let aggregates = &self.plan.pipelines[stage.pipeline].aggregates;
        (stage.role == Role::Merge).then(|| aggregates.get(stage.aggregate)).flatten()
    }

    /// Sets the instant that the clock functions of the next batch see: now, but never less than the batch before (R1).
    pub fn begin_batch(&self, now_micros: i64, last_micros: i64) -> i64 {
        let now = now_micros.max(last_micros);
        self.plan.clock.set(now);
        now
    }
}

/// The build that ran a batch, as recipes name it (R6): version, architecture, and what its results follow from (`build.rs`).
#[must_use]
pub fn build() -> String {
    format!("{}+{}+{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, env!("WEIR_SOURCES"))
}

/// Shared ownership of a loaded job.
pub type LoadedJob = Arc<Loaded>;
