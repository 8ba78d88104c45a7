//! Jobs, inputs and oracles that the tests share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{JsonReadOptions, ParquetReadOptions, SessionContext};
use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_connectors::generate::{Generator, Plays};

/// Rows as text, counted: append results are compared as bags.
pub(crate) type Bag = BTreeMap<String, usize>;

/// Writes `rows` plays into `files` NDJSON files of a folder.
pub(crate) fn write_plays(folder: &Path, rows: u64, files: u64, disorder_millis: u64) {
    write_plays_of(7, folder, rows, files, disorder_millis);
}

/// As [`write_plays`], of another seed.
pub(crate) fn write_plays_of(seed: u64, folder: &Path, rows: u64, files: u64, disorder_millis: u64) {
    std::fs::create_dir_all(folder).expect("the folder can be made");
    let plays = Plays::new(seed, disorder_millis);
    let schema = Plays::schema();
    for file in 0..files {
        let range = rows * file / files..rows * (file + 1) / files;
        let batch = plays.rows(range, &[], &schema).expect("plays are made");
        let bytes = encode::encode(Format::Json, &schema, &[batch]).expect("plays are encoded");
        std::fs::write(folder.join(format!("{file:03}.json")), bytes).expect("the file can be written");
    }
}

/// The example's job over `input`, into `output`.
pub(crate) fn hot_songs(input: &Path, output: &Path) -> String {
    format!(
        "CREATE TABLE plays (song_id BIGINT, user_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3),
           WATERMARK FOR etime AS etime - INTERVAL '5' SECOND
         ) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
         INSERT INTO hot
         SELECT window_start, song_id, count(*), sum(play_score)
         FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND))
         GROUP BY window_start, window_end, song_id;",
        input.display(),
        output.display()
    )
}

/// The same as one batch.
pub(crate) async fn hot_songs_batch(input: &Path) -> Bag {
    let sql = "SELECT CAST(date_bin(INTERVAL '10' SECOND, etime) AS TIMESTAMP(3)) AS window_start, song_id, count(*) AS plays, \
               sum(play_score) AS score FROM plays GROUP BY 1, 2";
    let context = SessionContext::new();
    let schema = Plays::schema();
    let options = JsonReadOptions::default().schema(&schema).file_extension("json");
    context.register_json("plays", input.display().to_string(), options).await.expect("input registers");
    bag(&context.sql(sql).await.expect("batch plans").collect().await.expect("batch runs"))
}

/// Rows of the Parquet files of a sink.
pub(crate) async fn sink_rows(output: &Path) -> Bag {
    let context = SessionContext::new();
    let path = format!("{}/", output.display());
    context.register_parquet("hot", path, ParquetReadOptions::default()).await.expect("sink registers");
    bag(&context.sql("SELECT * FROM hot").await.expect("sink plans").collect().await.expect("sink reads"))
}

/// Lines of the NDJSON files of a sink, file by file in the order in which they were written.
pub(crate) fn lines(output: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(output).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    files.sort();
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("a result");
    files.iter().flat_map(|path| text(path).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A changelog applied by key: the rows that count in the end, without what happened to them.
///
/// Fails where a key's changes contradict each other.
pub(crate) fn applied(changelog: &[String], key: &[&str]) -> Vec<String> {
    let mut rows: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for line in changelog {
        let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("a line is JSON");
        let op = row.remove("op").expect("what happened");
        let epoch = row.remove("epoch").and_then(|epoch| epoch.as_u64()).expect("when it happened");
        let named = key.iter().map(|name| row[*name].to_string()).collect::<Vec<_>>().join("|");
        let earlier = rows.get(&named).map(|(epoch, _)| *epoch);
        assert!(earlier.is_none_or(|earlier| earlier < epoch), "{line} is older than what was said before");
        match op.as_str() {
            Some("+I") => assert!(earlier.is_none(), "{line}: the key has a row"),
            Some("+U" | "-D") => assert!(earlier.is_some(), "{line}: the key has no row"),
            _ => panic!("{line}: no change by key"),
        }
        if op == "-D" {
            rows.remove(&named);
        } else {
            rows.insert(named, (epoch, serde_json::Value::Object(row).to_string()));
        }
    }
    rows.into_values().map(|(_, row)| row).collect()
}

pub(crate) fn bag(batches: &[RecordBatch]) -> Bag {
    let mut bag = Bag::new();
    for batch in batches {
        let options = FormatOptions::default();
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("formats")).collect();
        for row in 0..batch.num_rows() {
            let text: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            *bag.entry(text.join("|")).or_default() += 1;
        }
    }
    bag
}

/// Asserts that two bags are equal, and shows the first differences.
pub(crate) fn assert_same(what: &str, found: &Bag, expected: &Bag) {
    if found != expected {
        let only = |a: &Bag, b: &Bag| {
            a.iter().filter(|(row, n)| b.get(*row) != Some(n)).take(5).map(|(r, n)| format!("{n} x {r}")).collect::<Vec<_>>()
        };
        panic!(
            "{what}: {} rows found, {} expected\nfound: {:?}\nexpected: {:?}",
            found.len(),
            expected.len(),
            only(found, expected),
            only(expected, found)
        );
    }
}

/// The `weir` binary beside this test's own.
pub(crate) fn weir() -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let binary = test.ancestors().nth(2).expect("a target folder").join("weir");
    assert!(binary.exists(), "{} is missing: run cargo build --release --bins first, as ./check does", binary.display());
    binary
}

/// A folder with a script, plays and a store.
pub(crate) struct Case {
    pub(crate) folder: tempfile::TempDir,
}

impl Case {
    pub(crate) fn new(rows: u64, files: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        write_plays(&folder.path().join("plays"), rows, files, 4_000);
        let case = Self { folder };
        std::fs::write(case.script(), hot_songs(&case.input(), &case.output())).expect("the script can be written");
        case
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.path("plays")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.path("hot")
    }

    pub(crate) fn script(&self) -> PathBuf {
        self.path("job.sql")
    }

    /// `weir run` of the case's script with more arguments.
    pub(crate) fn run(&self, more: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command.arg("run").arg(self.script()).arg("--store").arg(format!("file://{}", self.path("store").display())).args(more);
        command.current_dir(self.folder.path());
        command
    }

    pub(crate) fn weir(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(weir());
        command.args(arguments).arg("--store").arg(format!("file://{}", self.path("store").display()));
        command.current_dir(self.folder.path()).output().expect("weir starts")
    }
}

pub(crate) fn assert_ok(output: &Output) {
    assert!(output.status.success(), "stdout: {}\nstderr: {}", text(&output.stdout), text(&output.stderr));
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
