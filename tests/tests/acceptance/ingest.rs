//! Rows by HTTP: a real server, a real client, a real job in processes of their own; what is killed is started again.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::ipc::writer::StreamWriter;
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::generate::{Generator as _, Plays};

use crate::background::Background;
use crate::real_parts::{RealCase, variable};
use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows, text, weir};

const KILLS: u32 = 20;

/// A case whose job reads the stream `plays`.
pub(crate) struct HttpCase {
    pub(crate) case: Case,
    pub(crate) port: u16,
    /// Where everything is, as variables.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// Makes a case's job read the stream `plays` instead of its files.
pub(crate) fn read_by_http(case: &Case) {
    let script = std::fs::read_to_string(case.script()).expect("the script is there");
    let (before, after) = script.split_once("'connector' = 'filesystem', 'path'").expect("the source comes first");
    let (_, after) = after.split_once("'format' = 'json'").expect("its format");
    std::fs::write(case.script(), format!("{before}'connector' = 'http'{after}")).expect("the script can be written");
}

/// A free port that a server can be killed on and come back to: below those that outgoing connections are given, one of which would
/// otherwise sit on it now and then.
pub(crate) fn port_to_return_to() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 10_000).expect("below ten thousand");
    let mut candidates = (0..10_000).map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

impl HttpCase {
    /// In a folder, with the table beside.
    pub(crate) fn new(rows: u64, files: u64) -> Self {
        let case = Case::new(rows, files);
        let store = format!("file://{}", case.path("store").display());
        Self::of(case, vec![("WEIR_STORE", store)])
    }

    /// In MinIO and DynamoDB Local.
    pub(crate) fn on_real_parts(rows: u64) -> Self {
        let real = RealCase::new(rows);
        let endpoints = [
            ("AWS_ENDPOINT_URL_S3", variable("WEIR_TEST_S3_ENDPOINT")),
            ("AWS_ENDPOINT_URL_DYNAMODB", variable("WEIR_TEST_DYNAMODB_ENDPOINT")),
        ];
        let places = real.places().into_iter().chain(endpoints).collect();
        Self::of(real.case, places)
    }

    fn of(case: Case, environment: Vec<(&'static str, String)>) -> Self {
        read_by_http(&case);
        Self { case, port: port_to_return_to(), environment }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command.args(arguments).current_dir(self.case.folder.path()).env("WEIR_SERVER", self.url());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A server that listens.
    pub(crate) fn serve(&self, more: &[&str]) -> Server {
        self.serve_on(self.port, more)
    }

    pub(crate) fn serve_on(&self, port: u16, more: &[&str]) -> Server {
        let address = format!("127.0.0.1:{port}");
        let mut serve = self.weir(&["serve", "--listen", &address]);
        let mut child = Background::start(serve.args(more).stdout(Stdio::piped()));
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        output.read_line(&mut line).expect("it says where it listens");
        assert_eq!(line.trim(), format!("listening on http://{address}"), "{}", child.complaints());
        Server { child, _output: output }
    }

    pub(crate) fn run(&self, more: &[&str]) -> Background {
        let mut run = self.weir(&["run", "job.sql", "--commit-interval", "50ms", "--quiet"]);
        Background::start(run.args(more))
    }

    pub(crate) fn file(&self, number: u64) -> PathBuf {
        self.case.input().join(format!("{number:03}.json"))
    }

    pub(crate) async fn assert_equals_batch(&self, what: &str) {
        assert_same(what, &sink_rows(&self.case.output()).await, &hot_songs_batch(&self.case.input()).await);
    }
}

/// A server's process; it ends with the test.
pub(crate) struct Server {
    child: Background,
    _output: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn kill(&mut self) {
        self.child.end();
    }

    /// Asks it to stop.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill starts").success());
        assert!(self.child.wait().expect("it ends").success(), "a server that is asked to stop ends well");
    }
}

/// One request at a time, so that the rows keep the order of their file.
pub(crate) const IN_ORDER: [&str; 5] = ["--parallel", "1", "--chunk", "64KiB", "--quiet"];

/// However slow the machine is.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn rows_sent_by_http_give_the_batch_result() {
    let case = HttpCase::new(300_000, 3);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let server = case.serve(&[]);
    // Before the job is there: it reads what was sent from the beginning.
    for number in 0..2 {
        let mut ingest = case.weir(&["ingest", "plays"]);
        assert_ok(&ingest.arg(case.file(number)).args(IN_ORDER).output().expect("weir starts"));
    }
    let mut job = case.run(&["--parallelism", "2"]);
    let file = std::fs::File::open(case.file(2)).expect("the file is there");
    assert_ok(&case.weir(&["ingest", "plays"]).args(IN_ORDER).stdin(file).output().expect("weir starts"));
    let listed = text(&case.weir(&["stream", "list"]).output().expect("weir starts").stdout);
    assert!(listed.contains("plays") && listed.contains("300,000 rows") && listed.contains("open"), "{listed}");
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    job.ends("the job", LIFE_MAX).await;
    case.assert_equals_batch("by HTTP").await;
    let closed = case.weir(&["ingest", "plays"]).arg(case.file(0)).output().expect("weir starts");
    assert!(text(&closed.stderr).contains("closed"), "{}", text(&closed.stderr));
    server.stop();
}

/// Sends the case's rows to a server, which is killed up to `kills_max` times while its job is killed each time or every other; ends the
/// stream, and waits for the job. Returns how often the server was killed.
///
/// - `spares`: whether the job outlives every other kill.
pub(crate) async fn sent_under_kills(case: &HttpCase, kills_max: u32, spares: bool) -> u32 {
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let (mut server, mut job) = (case.serve(&[]), case.run(&["--parallelism", "2"]));
    let mut ingest = Background::start(case.weir(&["ingest", "plays"]).arg(case.file(0)).args(IN_ORDER));
    let mut kills = 0;
    for attempt in 0_u64.. {
        let life = if kills < kills_max { Duration::from_millis(80 + attempt * 31 % 120) } else { LIFE_MAX };
        if ingest.ended_within(life).await {
            break;
        }
        assert!(kills < kills_max, "the client does not end");
        server.kill();
        if attempt % 2 == 0 || !spares {
            job.end();
            job = case.run(&["--parallelism", "2"]);
        }
        server = case.serve(&[]);
        kills += 1;
    }
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    job.ends("the job", LIFE_MAX).await;
    server.stop();
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_job_killed_over_and_over_count_each_row_once() {
    let case = HttpCase::new(1_000_000, 1);
    let kills = sent_under_kills(&case, KILLS, true).await;
    assert!(kills >= 10, "only {kills} kills before all rows were sent: give it more rows");
    case.assert_equals_batch("after kills").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_goes_on_where_it_stopped() {
    let case = HttpCase::new(200_000, 1);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let server = case.serve(&[]);
    let arguments = ["ingest", "plays", "--resume", "night-7", "--chunk", "64KiB"];
    let mut cut = Background::start(case.weir(&arguments).arg(case.file(0)).arg("--quiet"));
    let _ended = cut.ended_within(Duration::from_millis(120)).await;
    cut.end();
    let resumed = case.weir(&arguments).arg(case.file(0)).output().expect("weir starts");
    assert_ok(&resumed);
    assert!(text(&resumed.stdout).contains("plays: 200,000 rows"), "{}", text(&resumed.stdout));
    let listed = text(&case.weir(&["stream", "list"]).output().expect("weir starts").stdout);
    assert!(listed.contains("200,000 rows"), "{listed}");
    server.stop();
}

/// Writes the plays of `case` as one file of `extension`.
fn plays_as(case: &HttpCase, rows: u64, extension: &str) -> PathBuf {
    let schema = Plays::schema();
    let batch = Plays::new(7, 4_000).rows(0..rows, &[], &schema).expect("plays are made");
    let bytes = match extension {
        "csv" => encode::encode(Format::Csv, &schema, &[batch]).expect("plays are encoded"),
        "parquet" => encode::encode(Format::Parquet, &schema, &[batch]).expect("plays are encoded"),
        _ => arrow_stream(&batch),
    };
    let file = case.case.path(&format!("plays.{extension}"));
    std::fs::write(&file, bytes).expect("the file can be written");
    file
}

/// As an Arrow IPC stream.
fn arrow_stream(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).expect("a stream begins");
    for start in (0..batch.num_rows()).step_by(10_000) {
        writer.write(&batch.slice(start, 10_000.min(batch.num_rows() - start))).expect("rows are written");
    }
    writer.into_inner().expect("the stream ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_each_format_sent_by_weir_ingest_give_the_batch_result() {
    const ROWS: u64 = 50_000;
    for extension in ["csv", "parquet", "arrow"] {
        let case = HttpCase::new(ROWS, 1);
        assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
        let (server, mut job) = (case.serve(&[]), case.run(&["--parallelism", "2"]));
        let file = plays_as(&case, ROWS, extension);
        let sent = case.weir(&["ingest", "plays"]).arg(&file).args(&IN_ORDER[..4]).output().expect("weir starts");
        assert_ok(&sent);
        assert!(text(&sent.stdout).contains("plays: 50,000 rows"), "{extension}: {}", text(&sent.stdout));
        assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
        job.ends("the job", LIFE_MAX).await;
        server.stop();
        case.assert_equals_batch(extension).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_token_opens_no_server_and_a_right_one_lets_rows_in() {
    let case = HttpCase::new(100, 1);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["ingest", "plays", "plays/000.json"]] {
        let refused = case.weir(arguments).env("WEIR_TOKEN", "").output().expect("weir starts");
        assert!(!refused.status.success() && text(&refused.stderr).contains("token is empty"), "{}", text(&refused.stderr));
    }
    std::fs::write(case.case.path("token"), "secret\n").expect("the token can be written");
    let server = case.serve(&["--token-file", "token"]);
    let send =
        |token: &str| case.weir(&["ingest", "plays", "plays/000.json"]).env("WEIR_TOKEN", token).output().expect("weir starts");
    let other = send("other");
    assert!(!other.status.success() && text(&other.stderr).contains("401"), "{}", text(&other.stderr));
    assert_ok(&send("secret"));
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_takes_rows_and_runs_the_job() {
    let case = HttpCase::new(100_000, 1);
    let mut job = case.run(&["--parallelism", "1", "--listen", &format!("127.0.0.1:{}", case.port)]);
    // The client tries again until the server is there and has made the stream.
    let ready = async {
        while !case.weir(&["stream", "list"]).output().is_ok_and(|listed| text(&listed.stdout).contains("plays")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready).await.expect("the job makes its stream");
    assert_ok(&case.weir(&["ingest", "plays"]).arg(case.file(0)).args(IN_ORDER).output().expect("weir starts"));
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    job.ends("the job", LIFE_MAX).await;
    case.assert_equals_batch("in one process").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_wrong_is_told_with_its_place() {
    let case = HttpCase::new(10, 1);
    let said = |output: std::process::Output| format!("{}{}", text(&output.stdout), text(&output.stderr));
    let memory = case.weir(&["serve", "--store", "memory:"]).output().expect("weir starts");
    assert!(said(memory).contains("weir run --listen"));
    let exposed = case.weir(&["serve", "--listen", "0.0.0.0:0"]).output().expect("weir starts");
    assert!(said(exposed).contains("WEIR_TOKEN"));
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let server = case.serve(&[]);
    let taken = case.weir(&["serve", "--listen", &format!("127.0.0.1:{}", case.port)]).output().expect("weir starts");
    assert!(said(taken).contains("--listen"));
    let bad = case.case.path("bad.json");
    let rows = "{\"song_id\":1}\n".repeat(3_000) + "{\"song_id\":\"x\"}\n";
    std::fs::write(&bad, rows).expect("the file can be written");
    let refused = case.weir(&["ingest", "plays", "--chunk", "8KiB"]).arg(&bad).output().expect("weir starts");
    let refused = said(refused);
    assert!(refused.contains("row 3001") && refused.contains("--resume"), "{refused}");
    let nowhere = case.weir(&["ingest", "playz"]).arg(&bad).output().expect("weir starts");
    assert!(said(nowhere).contains("there are plays"));
    let unknown = case.weir(&["stream", "close", "playz"]).output().expect("weir starts");
    assert!(said(unknown).contains("weir stream list"));
    server.stop();
}
