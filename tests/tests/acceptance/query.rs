//! `weir query`: one consistent cut of whatever a job has committed, in every format and by the PostgreSQL protocol.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use weir_coordinator::{SqliteTable, claim, jobs, retention};

use crate::killing::killed_at_work;
use crate::real_parts::variable;
use crate::support::{Case, assert_ok, assert_same, bag, hot_songs_batch, text};

/// What lives on in the page cache lives through a SIGKILL.
const DURABILITY: &[&str] = &["--durability", "process"];

fn ask(case: &Case, sql: &str) -> Output {
    case.weir(&["query", sql, "--format", "csv"])
}

/// The one number that `sql` gives.
fn number(case: &Case, sql: &str) -> u64 {
    let output = ask(case, sql);
    assert_ok(&output);
    let answer = text(&output.stdout);
    answer.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {answer}"))
}

/// Runs the case to its end.
fn run_to_its_end(case: &Case) {
    let arguments = ["--parallelism", "2", "--commit-interval", "10ms", "--quiet", "--durability", "process"];
    assert_ok(&case.run(&arguments).output().expect("weir starts"));
}

/// Rows that the lanes of the case's job have committed.
async fn committed_rows(case: &Case) -> u64 {
    let table = SqliteTable::open(&case.path("store/coordination.sqlite"), false).expect("the table opens");
    let mut rows = 0;
    for (_, job) in jobs::list(&table).await.expect("jobs") {
        for shard in 0..2 {
            let lane = weir_model::ShardKey::new(job, weir_model::StageId(0), weir_model::ShardId(shard));
            rows += claim::read_head(&table, lane).await.expect("a head").0.stats.rows_in;
        }
        assert!(retention::read(&table, job).await.expect("a row").pins.is_empty(), "a question left its pin");
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_in_one_place_of_a_cut_wherever_the_job_was_killed() {
    let case = Case::new(3_000_000, 1);
    let everywhere = "SELECT CAST((SELECT coalesce(sum(plays), 0) FROM hot) + (SELECT coalesce(sum(plays), 0) FROM live.hot) \
                      + (SELECT count(*) FROM late.hot) + (SELECT count(*) FROM dead.hot) AS BIGINT)";
    let (mut cuts, mut open) = (0, 0);
    for attempt in 0u64.. {
        assert!(attempt < 400, "the job makes no progress under kills");
        if killed_at_work(&case, Duration::from_millis(attempt * 13 % 90), DURABILITY).await {
            break;
        }
        assert_eq!(number(&case, everywhere), committed_rows(&case).await, "cut {cuts}");
        open += u64::from(number(&case, "SELECT count(*) FROM live.hot") > 0);
        cuts += 1;
    }
    assert!(cuts >= 8 && open >= 4, "{cuts} cuts, {open} with open windows: give it more rows");
    assert_eq!(number(&case, everywhere), 3_000_000);
    assert_eq!(number(&case, "SELECT count(*) FROM live.hot"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_the_batch_in_every_format() {
    let case = Case::new(60_000, 2);
    run_to_its_end(&case);
    let answer = case.path("answer.parquet");
    assert_ok(&case.weir(&["query", "SELECT * FROM hot", "--output", &answer.display().to_string()]));
    let context = datafusion::prelude::SessionContext::new();
    let read = context.read_parquet(answer.display().to_string(), Default::default()).await.expect("the answer is Parquet");
    assert_same("Parquet", &bag(&read.collect().await.expect("rows")), &hot_songs_batch(&case.input()).await);

    let first = "SELECT window_start, song_id, plays FROM hot ORDER BY window_start, song_id LIMIT 1";
    let csv = text(&ask(&case, first).stdout);
    let (header, row) = csv.trim_end().split_once('\n').expect("a header and a row");
    assert_eq!(header, "window_start,song_id,plays");
    let plays = row.rsplit(',').next().expect("a column");
    let json = text(&case.weir(&["query", first]).stdout);
    assert!(json.starts_with("{\"window_start\":\"") && json.ends_with(&format!("\"plays\":{plays}}}\n")), "{json}");
    let table = text(&case.weir(&["query", first, "--format", "table"]).stdout);
    assert!(table.contains("| window_start") && table.ends_with("1 row\n"), "{table}");

    let listed = text(&case.weir(&["query"]).stdout);
    for expected in [
        "results.hot(window_start TIMESTAMP, song_id BIGINT, plays BIGINT, score DOUBLE)",
        "live.hot(window_start TIMESTAMP,",
        "late.hot(",
        "dead.hot(source STRING,",
    ] {
        assert!(listed.contains(expected), "{expected} is not in {listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_change_are_the_newest_of_each_key() {
    let case = Case::new(1_500_000, 1);
    let sql = format!(
        "CREATE TABLE plays (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3)
         ) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE totals (song_id BIGINT, plays BIGINT, PRIMARY KEY (song_id) NOT ENFORCED)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO totals SELECT song_id, count(*) FROM plays GROUP BY song_id;",
        case.input().display(),
        case.output().display()
    );
    std::fs::write(case.script(), sql).expect("the script can be written");
    let mut cuts = 0;
    for attempt in 0u64.. {
        assert!(attempt < 400, "the job makes no progress under kills");
        if killed_at_work(&case, Duration::from_millis(attempt * 13 % 90), DURABILITY).await {
            break;
        }
        // The table by key has folded what the changelog may not have yet.
        assert_eq!(number(&case, "SELECT coalesce(sum(plays), 0) FROM live.totals"), committed_rows(&case).await);
        let keys = number(&case, "SELECT count(*) FROM totals");
        assert_eq!(keys, number(&case, "SELECT count(DISTINCT song_id) FROM changelog.totals"));
        cuts += 1;
    }
    assert!(cuts >= 2, "only {cuts} cuts: give it more rows");
    assert_eq!(number(&case, "SELECT sum(plays) FROM totals"), 1_500_000);
    assert_eq!(number(&case, "SELECT sum(plays) FROM live.totals"), 1_500_000, "what a job that has finished still knows");
}

/// Texts that CSV writes in quotes, or not at all, in many files of a folder whose name would be a pattern.
#[tokio::test(flavor = "multi_thread")]
async fn results_in_csv_come_back_whole() {
    let case = Case::new(1, 1);
    let note = |n: u64| ["two\nlines", "", "a \\\"quote\\\", and a comma", "plain"][(n % 4) as usize].replace('\n', "\\n");
    let rows: String = (0..60_000).map(|n| format!("{{\"n\":{n},\"note\":\"{}\",\"more\":null}}\n", note(n))).collect();
    std::fs::write(case.path("notes.json"), rows).expect("rows");
    let sql = format!(
        "CREATE TABLE notes (n BIGINT, note STRING NOT NULL, more STRING)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE copied (n BIGINT, note STRING NOT NULL, more STRING)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'sink.rolling-policy.file-size' = '64KB');
         INSERT INTO copied SELECT n, note, more FROM notes;",
        case.path("notes.json").display(),
        case.path("copied[1]").display()
    );
    std::fs::write(case.script(), sql).expect("the script can be written");
    let arguments = ["--parallelism", "1", "--commit-interval", "5ms", "--quiet", "--durability", "process"];
    assert_ok(&case.run(&arguments).output().expect("weir starts"));
    let files = std::fs::read_dir(case.path("copied[1]")).expect("the sink").count();
    assert!(files > 1, "one file would not show that all are read");
    assert_eq!(number(&case, "SELECT count(DISTINCT n) FROM copied"), 60_000);
    for (found, rows) in [
        ("note LIKE 'two%lines'", 15_000),
        ("note = ''", 15_000),
        ("note = 'a \"quote\", and a comma'", 15_000),
        ("note IS NULL", 0),
        ("more IS NULL", 60_000),
    ] {
        assert_eq!(number(&case, &format!("SELECT count(*) FROM copied WHERE {found}")), rows, "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_say_what_is_wrong() {
    let case = Case::new(100, 1);
    let nothing = ask(&case, "SELECT 1");
    assert!(!nothing.status.success() && text(&nothing.stderr).contains("store"), "{}", text(&nothing.stderr));
    run_to_its_end(&case);
    for (sql, expected) in [
        ("SELECT * FROM hott", "help: weir query without SQL lists the tables"),
        ("SELECT nme FROM hot", "nme"),
        ("SELEC 1", "SELEC"),
        ("INSERT INTO hot SELECT * FROM hot", "DML"),
        ("DROP TABLE hot", "DDL"),
        ("COPY hot TO '/tmp/x.csv'", "DML"),
    ] {
        let output = ask(&case, sql);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{sql}: {said}");
    }
    let other = case.weir(&["query", "SELECT 1", "--job", "jop"]);
    assert!(text(&other.stderr).contains("no job \"jop\" in the store; did you mean \"job\"?"), "{}", text(&other.stderr));
    let outside = case.weir(&["query", "--serve", "0.0.0.0:0"]);
    assert!(text(&outside.stderr).contains("use 127.0.0.1 and a tunnel"), "{}", text(&outside.stderr));
}

/// A server of questions; it ends with the test.
struct Served {
    child: Child,
    port: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Served {
    fn start(case: &Case) -> Self {
        let mut command = Command::new(crate::support::weir());
        command.args(["query", "--serve", "127.0.0.1:0", "--store", &format!("file://{}", case.path("store").display())]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("weir starts");
        let stderr = BufReader::new(child.stderr.take().expect("its stderr"));
        let line = stderr.lines().map_while(Result::ok).find(|line| line.contains("answers at")).expect("it says where");
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("postgresql://weir@")).expect("an address");
        let port = address.split([':', '/']).nth(1).expect("a port").to_owned();
        Self { child, port }
    }

    fn psql(&self, sql: &str) -> Output {
        let mut command = Command::new(variable("WEIR_TEST_PSQL"));
        command.args(["--no-psqlrc", "--tuples-only", "--no-align", "--host=127.0.0.1", "--port", &self.port]);
        command.args(["--username=weir", "--dbname=weir", "--set=ON_ERROR_STOP=1"]).env("PGCONNECT_TIMEOUT", "20");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql starts");
        child.stdin.take().expect("its stdin").write_all(sql.as_bytes()).expect("psql reads");
        child.wait_with_output().expect("psql ends")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_asks_what_weir_query_asks() {
    let case = Case::new(60_000, 1);
    run_to_its_end(&case);
    let served = Served::start(&case);
    let answer = served.psql("SELECT sum(plays) FROM hot;");
    assert_ok(&answer);
    assert_eq!(text(&answer.stdout).trim(), "60000");
    let columns = "SELECT min(window_start), 0.5, true, NULL, 'text', CAST(1 AS DOUBLE) FROM hot;";
    let answer = text(&served.psql(columns).stdout);
    assert!(answer.trim().ends_with("|0.5|t||text|1.0"), "{answer}");
    // Prepared: the extended protocol.
    let prepared = served.psql("SELECT count(*) FROM dead.hot \\bind \\g\n");
    assert_ok(&prepared);
    assert_eq!(text(&prepared.stdout).trim(), "0");
    assert_ok(&served.psql("BEGIN;"));
    let refused = served.psql("SELECT * FROM hott;");
    assert!(!refused.status.success() && text(&refused.stderr).contains("lists the tables"), "{}", text(&refused.stderr));
}
