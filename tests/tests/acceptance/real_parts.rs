//! The same jobs on real parts, MinIO and DynamoDB Local by the project's own script: killed over and over, and with the stores
//! themselves killed under load.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use weir_coordinator::{CoordinationStore, jobs};
use weir_model::ShardKey;

use crate::background::Background;
use crate::network::Network;
use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows, text, weir};

const KILLS: u32 = 50;

/// How long a step of a job may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// One at a time: a store that one of them kills is the other's too.
pub(crate) static STACK: Mutex<()> = Mutex::const_new(());

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run eval \"$(infra/local/up --durable)\""))
}

/// A case whose objects lie in MinIO and whose table is in DynamoDB Local.
pub(crate) struct RealCase {
    pub(crate) case: Case,
    /// Of the table, and below the bucket.
    pub(crate) name: String,
}

impl RealCase {
    pub(crate) fn new(rows: u64) -> Self {
        Self::with_files(rows, 1)
    }

    pub(crate) fn with_files(rows: u64, files: u64) -> Self {
        let case = Case::new(rows, files);
        let name = case.folder.path().file_name().expect("a name").to_string_lossy().replace('.', "weir-");
        let this = Self { case, name };
        assert_ok(&this.weir(&["table", "create", &this.name]).output().expect("weir starts"));
        this
    }

    /// Where its objects and its table are, as variables.
    pub(crate) fn places(&self) -> [(&'static str, String); 2] {
        let store = format!("s3://{}/{}", variable("WEIR_TEST_S3_BUCKET"), self.name);
        [("WEIR_STORE", store), ("WEIR_COORDINATION", format!("dynamodb://{}", self.name))]
    }

    pub(crate) fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command.args(arguments).current_dir(self.case.folder.path());
        command.env("AWS_ENDPOINT_URL_S3", variable("WEIR_TEST_S3_ENDPOINT"));
        command.env("AWS_ENDPOINT_URL_DYNAMODB", variable("WEIR_TEST_DYNAMODB_ENDPOINT"));
        command
    }

    /// Others leave the shards of a dead process alone for so long: they cannot know that it is dead.
    pub(crate) fn set_lease(&self, lease: &str) {
        std::fs::write(self.case.path("weir.toml"), format!("lease = \"{lease}\"\n")).expect("settings can be written");
    }

    /// Its table, as the tests look at it.
    pub(crate) async fn table(&self) -> Arc<dyn CoordinationStore> {
        let places = weir_seams::Places {
            store: "memory:".to_owned(),
            coordination: Some(format!("dynamodb://{}", self.name)),
            durability: weir_seams::Durability::Fsync,
        };
        places.open_table().await.expect("the table opens")
    }

    fn run(&self, more: &[&str]) -> Command {
        let mut command = self.weir(&["run"]);
        command.arg(self.case.script()).args(["--parallelism", "2", "--quiet"]).args(more).envs(self.places());
        command
    }

    pub(crate) async fn assert_equals_batch(&self, what: &str) {
        assert_same(what, &sink_rows(&self.case.output()).await, &hot_songs_batch(&self.case.input()).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_minio_and_dynamodb_gives_the_batch_result() {
    let _alone = STACK.lock().await;
    for more in [&["--commit-interval", "50ms"][..], &["--invoke", "process", "--commit-interval", "1s"]] {
        let real = RealCase::new(200_000);
        assert_ok(&real.run(more).output().expect("weir starts"));
        real.assert_equals_batch(&format!("{more:?}")).await;
    }
}

/// How far a job is, summed over its heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Standing {
    generations: u64,
    epochs: u64,
}

impl Standing {
    /// Of the only job in the table; nothing before it is there.
    async fn of(table: &dyn CoordinationStore) -> Self {
        let found = jobs::list(table).await.expect("jobs are listed");
        let Some((_, job)) = found.first() else { return Self::default() };
        let routes = jobs::routes(table, *job).await.expect("routes are read");
        let shards: Vec<ShardKey> = routes.into_iter().flat_map(|routes| routes.slots).flatten().collect();
        let heads = jobs::heads(table, &shards).await.expect("heads are read");
        heads.iter().fold(Self::default(), |sum, head| Self {
            generations: sum.generations + head.generation.0,
            epochs: sum.epochs + head.epoch.0,
        })
    }
}

/// Waits until the job has moved as `moved` says; `false` if its process ended before.
async fn goes_on_until(child: &mut Background, table: &dyn CoordinationStore, moved: impl Fn(&Standing) -> bool) -> bool {
    let waiting = async {
        loop {
            if child.ended_within(Duration::from_millis(5)).await {
                return false;
            }
            if moved(&Standing::of(table).await) {
                return true;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the job makes progress")
}

/// Kills the job's processes, `kills` counting on, until there were enough or the job is done. Every fourth dies once it holds a
/// shard, the others in the middle of their commits. Returns how many had claimed and not committed.
async fn kill_over_and_over(real: &RealCase, kills: &mut u32) -> u32 {
    let table = real.table().await;
    let mut after_claim = 0;
    while *kills < KILLS {
        let before = Standing::of(table.as_ref()).await;
        let mut child = Background::start(&mut real.run(&["--commit-interval", "20ms"]));
        let has_moved = |now: &Standing| match *kills % 4 {
            3 => now.generations > before.generations,
            _ => now.epochs > before.epochs,
        };
        let longer = Duration::from_millis(u64::from(*kills) * 37 % 60);
        if !goes_on_until(&mut child, table.as_ref(), has_moved).await || child.ended_within(longer).await {
            break;
        }
        child.end();
        *kills += 1;
        after_claim += u32::from(Standing::of(table.as_ref()).await.epochs == before.epochs);
    }
    after_claim
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_on_minio_and_dynamodb_killed_over_and_over_give_the_batch_result() {
    let _alone = STACK.lock().await;
    let (mut kills, mut after_claim, mut jobs) = (0, 0, 0);
    while kills < KILLS {
        assert!(jobs < 10, "only {kills} kills of {jobs} jobs: give them more rows");
        let real = RealCase::new(3_000_000);
        real.set_lease("300ms");
        after_claim += kill_over_and_over(&real, &mut kills).await;
        assert_ok(&real.run(&[]).output().expect("weir starts"));
        real.assert_equals_batch("after kills").await;
        jobs += 1;
    }
    println!("{kills} kills of processes that held shards, {after_claim} of them before a commit, in {jobs} jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_behind_networks_that_cut_delay_and_drop_gives_the_batch_result() {
    let _alone = STACK.lock().await;
    let objects = Network::start(&variable("WEIR_TEST_S3_ENDPOINT"), 7);
    let table = Network::start(&variable("WEIR_TEST_DYNAMODB_ENDPOINT"), 8);
    let real = RealCase::new(1_000_000);
    let mut run = real.run(&["--commit-interval", "20ms"]);
    run.env("AWS_ENDPOINT_URL_S3", &objects.endpoint).env("AWS_ENDPOINT_URL_DYNAMODB", &table.endpoint);
    let output = run.output().expect("weir starts");
    let (objects, table) = (objects.counts(), table.counts());
    println!("requests and spoilt ones: {objects:?} to the store, {table:?} to the table");
    assert_ok(&output);
    assert!(objects.1 >= 5 && table.1 >= 5, "too few faults to mean anything: {objects:?} {table:?}");
    real.assert_equals_batch("behind bad networks").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_when_its_stores_were_killed_under_it() {
    let _alone = STACK.lock().await;
    let restart = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/local/restart");
    let real = RealCase::new(3_000_000);
    let mut child = Background::start(&mut real.run(&["--commit-interval", "20ms"]));
    let table = real.table().await;
    for part in ["minio", "dynamodb", "minio"] {
        let before = Standing::of(table.as_ref()).await;
        let commits = |now: &Standing| now.epochs > before.epochs;
        assert!(goes_on_until(&mut child, table.as_ref(), commits).await, "the job was done before its stores were killed");
        assert_ok(&Command::new(restart).args(["--kill", part]).output().expect("the script starts"));
    }
    child.ends("the job", Duration::from_secs(300)).await;
    real.assert_equals_batch("after the stores were killed").await;
}

/// Waits until the store behind `network` has had so many more requests.
async fn asked_again(network: &Network, more: u64) {
    let wanted = network.counts().0 + more;
    let asked = async {
        while network.counts().0 < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the job asks the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fills_up_is_waited_for_and_then_named_with_the_remedy() {
    let _alone = STACK.lock().await;
    let objects = Network::clear(&variable("WEIR_TEST_S3_ENDPOINT"));
    let real = RealCase::new(3_000_000);
    let run = || {
        let mut run = real.run(&["--commit-interval", "20ms"]);
        run.env("AWS_ENDPOINT_URL_S3", &objects.endpoint).stderr(Stdio::piped());
        run
    };
    let child = run().spawn().expect("weir starts");
    asked_again(&objects, 30).await;
    objects.set_full(true);
    asked_again(&objects, 6).await;
    objects.set_full(false);
    let refused = objects.counts().1;
    asked_again(&objects, 30).await;
    objects.set_full(true);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output =
        tokio::time::timeout(PATIENCE * 2, ended).await.expect("it gives up").expect("it is waited for").expect("it ended");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("free some space") && said.contains("nothing committed is lost"), "{said}");
    assert!(refused > 0 && objects.counts().1 > refused, "it was full twice");
    objects.set_full(false);
    assert_ok(&run().output().expect("weir starts"));
    real.assert_equals_batch("after the bucket was full").await;
}

#[tokio::test]
async fn a_bucket_without_a_table_beside_it_is_refused_with_the_remedy() {
    let case = Case::new(10, 1);
    let output =
        Command::new(weir()).arg("run").arg(case.script()).args(["--store", "s3://weir/x"]).output().expect("weir starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--coordination dynamodb://TABLE"), "{said}");
}
