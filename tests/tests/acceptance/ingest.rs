//! Rows by HTTP: a real server, a real client, a real job in processes of their own; what is killed is started again.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::killing::ended_within;
use crate::support::{Case, assert_ok, assert_same, hot_songs_batch, sink_rows, text, weir};

const KILLS: u32 = 20;

/// A case whose job reads the stream `plays`.
struct HttpCase {
    case: Case,
    port: u16,
}

/// Makes a case's job read the stream `plays` instead of its files.
pub(crate) fn read_by_http(case: &Case) {
    let script = std::fs::read_to_string(case.script()).expect("the script is there");
    let (before, after) = script.split_once("'connector' = 'filesystem', 'path'").expect("the source comes first");
    let (_, after) = after.split_once("'format' = 'json'").expect("its format");
    std::fs::write(case.script(), format!("{before}'connector' = 'http'{after}")).expect("the script can be written");
}

impl HttpCase {
    fn new(rows: u64, files: u64) -> Self {
        let case = Case::new(rows, files);
        read_by_http(&case);
        // Nobody else takes it before the server does.
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
        Self { case, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command.args(arguments).current_dir(self.case.folder.path());
        command.env("WEIR_STORE", format!("file://{}", self.case.path("store").display())).env("WEIR_SERVER", self.url());
        command
    }

    /// A server that listens.
    fn serve(&self) -> Server {
        let mut child = self
            .weir(&["serve", "--listen", &format!("127.0.0.1:{}", self.port)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("weir starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        output.read_line(&mut line).expect("it says where it listens");
        assert_eq!(line.trim(), format!("listening on {}", self.url()));
        Server { child, _output: output }
    }

    fn run(&self, more: &[&str]) -> Child {
        let mut run = self.case.run(&["--commit-interval", "50ms", "--quiet"]);
        run.args(more).stderr(Stdio::null()).spawn().expect("weir starts")
    }

    fn file(&self, number: u64) -> PathBuf {
        self.case.input().join(format!("{number:03}.json"))
    }

    async fn assert_equals_batch(&self, what: &str) {
        assert_same(what, &sink_rows(&self.case.output()).await, &hot_songs_batch(&self.case.input()).await);
    }
}

/// A server's process; it ends with the test.
struct Server {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Server {
    fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("it is dead");
    }

    /// Asks it to stop.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill starts").success());
        assert!(self.child.wait().expect("it ends").success(), "a server that is asked to stop ends well");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One request at a time, so that the rows keep the order of their file.
const IN_ORDER: [&str; 5] = ["--parallel", "1", "--chunk", "64KiB", "--quiet"];

async fn ends(child: &mut Child, what: &str) {
    if !ended_within(child, Duration::from_secs(120)).await {
        child.kill().expect("SIGKILL");
        panic!("{what} does not end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_sent_by_http_give_the_batch_result() {
    let case = HttpCase::new(300_000, 3);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let server = case.serve();
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
    ends(&mut job, "the job").await;
    case.assert_equals_batch("by HTTP").await;
    let closed = case.weir(&["ingest", "plays"]).arg(case.file(0)).output().expect("weir starts");
    assert!(text(&closed.stderr).contains("closed"), "{}", text(&closed.stderr));
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_job_killed_over_and_over_count_each_row_once() {
    let case = HttpCase::new(1_000_000, 1);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let (mut server, mut job) = (case.serve(), case.run(&["--parallelism", "2"]));
    let mut ingest = case.weir(&["ingest", "plays"]).arg(case.file(0)).args(IN_ORDER).spawn().expect("weir starts");
    let mut kills = 0;
    for attempt in 0_u64.. {
        let life = if kills < KILLS { Duration::from_millis(80 + attempt * 31 % 120) } else { Duration::from_secs(120) };
        if ended_within(&mut ingest, life).await {
            break;
        }
        assert!(kills < KILLS, "the client does not end");
        server.kill();
        if attempt % 2 == 0 {
            job.kill().expect("SIGKILL");
            job.wait().expect("it is dead");
            job = case.run(&["--parallelism", "2"]);
        }
        server = case.serve();
        kills += 1;
    }
    assert!(kills >= 10, "only {kills} kills before all rows were sent: give it more rows");
    assert_ok(&case.weir(&["stream", "close", "plays"]).output().expect("weir starts"));
    ends(&mut job, "the job").await;
    server.stop();
    case.assert_equals_batch("after kills").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_cut_goes_on_where_it_stopped() {
    let case = HttpCase::new(200_000, 1);
    assert_ok(&case.weir(&["stream", "create", "job.sql"]).output().expect("weir starts"));
    let server = case.serve();
    let arguments = ["ingest", "plays", "--resume", "night-7", "--chunk", "64KiB"];
    let mut cut = case.weir(&arguments).arg(case.file(0)).arg("--quiet").spawn().expect("weir starts");
    let _ended = ended_within(&mut cut, Duration::from_millis(120)).await;
    cut.kill().expect("SIGKILL");
    cut.wait().expect("it is dead");
    let resumed = case.weir(&arguments).arg(case.file(0)).output().expect("weir starts");
    assert_ok(&resumed);
    assert!(text(&resumed.stdout).contains("plays: 200,000 rows"), "{}", text(&resumed.stdout));
    let listed = text(&case.weir(&["stream", "list"]).output().expect("weir starts").stdout);
    assert!(listed.contains("200,000 rows"), "{listed}");
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
    ends(&mut job, "the job").await;
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
    let server = case.serve();
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
