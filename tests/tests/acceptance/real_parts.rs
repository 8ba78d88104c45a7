//! The same jobs on real parts, MinIO and DynamoDB Local by the project's own script: killed over and over, and with the stores
//! themselves killed under load.

use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::killing::ended_within;
use crate::network::Network;
use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows, weir};

const KILLS: u32 = 50;

/// One at a time: a store that one of them kills is the other's too.
pub(crate) static STACK: Mutex<()> = Mutex::const_new(());

fn variable(name: &str) -> String {
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
        let case = Case::new(rows, 1);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_minio_and_dynamodb_killed_over_and_over_gives_the_batch_result() {
    let _alone = STACK.lock().await;
    let real = RealCase::new(2_000_000);
    let mut kills = 0;
    for attempt in 0u64.. {
        assert!(attempt < 400, "the job makes no progress under kills");
        let mut child = real.run(&["--commit-interval", "20ms"]).stderr(Stdio::null()).spawn().expect("weir starts");
        let life = if kills < KILLS { Duration::from_millis(350 + attempt * 37 % 200) } else { Duration::from_secs(300) };
        if ended_within(&mut child, life).await {
            break;
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        kills += 1;
    }
    assert!(kills >= KILLS, "only {kills} kills before the job was done: give it more rows");
    real.assert_equals_batch("after kills").await;
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
    let mut child = real.run(&["--commit-interval", "20ms"]).stderr(Stdio::null()).spawn().expect("weir starts");
    for part in ["minio", "dynamodb", "minio"] {
        assert!(!ended_within(&mut child, Duration::from_millis(400)).await, "the job was done before its stores were killed");
        assert_ok(&Command::new(restart).arg(part).output().expect("the script starts"));
    }
    if !ended_within(&mut child, Duration::from_secs(300)).await {
        child.kill().expect("SIGKILL");
        panic!("the job does not end");
    }
    real.assert_equals_batch("after the stores were killed").await;
}

#[tokio::test]
async fn a_bucket_without_a_table_beside_it_is_refused_with_the_remedy() {
    let case = Case::new(10, 1);
    let output =
        Command::new(weir()).arg("run").arg(case.script()).args(["--store", "s3://weir/x"]).output().expect("weir starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("--coordination dynamodb://TABLE"), "{said}");
}
