//! The auction benchmark's queries as their authors wrote them, over the combined table of ROWs, against the flat table of bids.

use std::path::Path;

use datafusion::prelude::{JsonReadOptions, SessionConfig, SessionContext};

use crate::support::{Bag, applied, assert_ok, assert_same, bag, lines, weir};

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nexmark").join(name);
    std::fs::read_to_string(path).expect("the example is there").replace("'1000000'", "'50000'")
}

const FLAT_BIDS: &str = "CREATE TABLE bid (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, url VARCHAR,
  dateTime TIMESTAMP(3), extra VARCHAR, WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND)
  WITH ('connector' = 'nexmark', 'nexmark.table' = 'bid', 'events.num' = '50000');";

const WINDOWED: &str = "CREATE TABLE counts (window_start TIMESTAMP(3), bidder BIGINT, bids BIGINT, dearest BIGINT)
  WITH ('connector' = 'blackhole');
INSERT INTO counts SELECT window_start, bidder, COUNT(*), MAX(price)
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, bidder;";

/// What lies in `folder`'s sink once `query` has run over `tables`, line by line.
fn run(folder: &Path, tables: &str, query: &str) -> Vec<String> {
    let sink = format!("WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json')", folder.join("out").display());
    let script = tables.to_owned() + &query.replace("WITH ('connector' = 'blackhole')", &sink);
    std::fs::write(folder.join("job.sql"), script).expect("the script can be written");
    let run = ["run", "job.sql", "--store", "file://store", "--durability", "process", "--parallelism", "2"];
    assert_ok(&std::process::Command::new(weir()).args(run).current_dir(folder).output().expect("weir starts"));
    lines(&folder.join("out"))
}

/// Rows of `query` over `tables`, as lines of a file sink.
fn rows(tables: &str, query: &str) -> Bag {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bag = Bag::new();
    for line in run(folder.path(), tables, query) {
        *bag.entry(line).or_default() += 1;
    }
    bag
}

/// The bids as a table of a batch engine, times as text.
async fn batch_of_bids(folder: &Path) -> SessionContext {
    let copied = "CREATE TABLE copied (auction BIGINT, bidder BIGINT, price BIGINT, channel VARCHAR, dateTime TIMESTAMP(3))
      WITH ('connector' = 'blackhole');
    INSERT INTO copied SELECT auction, bidder, price, channel, dateTime FROM bid;";
    assert!(run(folder, FLAT_BIDS, copied).len() > 40_000);
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.enable_ident_normalization = false;
    let context = SessionContext::new_with_config(config);
    let path = folder.join("out").display().to_string();
    context.register_json("bid", path, JsonReadOptions::default().file_extension("json")).await.expect("bids register");
    context
}

/// The query of an example in the batch engine's words.
fn in_batch(example: &str) -> String {
    let (_, query) = example.split_once("SELECT").expect("a query");
    let query = query.replace("DATE_FORMAT(dateTime, 'yyyy-MM-dd')", "substr(dateTime, 1, 10)");
    format!(
        "SELECT {}",
        query.replace("DATE_FORMAT(dateTime, 'HH:mm')", "substr(dateTime, 12, 5)").replace('`', "\"").replace(';', "")
    )
}

#[test]
fn queries_over_the_combined_table_equal_those_over_flat_bids() {
    for (name, at_least) in [("q0.sql", 40_000), ("q1.sql", 40_000), ("q2.sql", 100)] {
        let flat = rows(FLAT_BIDS, &example(name));
        assert!(flat.values().sum::<usize>() > at_least, "{name}: {} rows", flat.len());
        assert_same(name, &rows(&example("tables.sql"), &example(name)), &flat);
    }
}

#[test]
fn a_window_over_a_view_of_the_combined_table_equals_one_over_flat_bids() {
    let flat = rows(FLAT_BIDS, WINDOWED);
    assert!(flat.len() > 1_000);
    assert_same("counts", &rows(&example("tables.sql"), WINDOWED), &flat);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_that_change_with_every_bid_end_as_those_of_a_batch() {
    let copied = tempfile::tempdir().expect("a folder");
    let batch = batch_of_bids(copied.path()).await;
    for (name, key, at_least) in
        [("q15.sql", "`day`", 1), ("q16.sql", "channel, `day`", 100), ("q17.sql", "auction, `day`", 1_000)]
    {
        let expected = batch.sql(&in_batch(&example(name))).await.expect("batch plans");
        let columns: Vec<String> = expected.schema().fields().iter().map(|field| field.name().clone()).collect();
        let expected = bag(&expected.collect().await.expect("batch runs"));
        assert!(expected.len() >= at_least, "{name}: {} rows", expected.len());
        let folder = tempfile::tempdir().expect("a folder");
        let keyed = example(name).replacen("\n) WITH", &format!(", PRIMARY KEY ({key}) NOT ENFORCED\n) WITH"), 1);
        let changelog = run(folder.path(), &example("tables.sql"), &keyed);
        let named: Vec<&str> = key.split(", ").map(|name| name.trim_matches('`')).collect();
        let mut found = Bag::new();
        for line in applied(&changelog, &named) {
            let row: serde_json::Value = serde_json::from_str(&line).expect("a row is JSON");
            let value = |name: &String| row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned);
            *found.entry(columns.iter().map(value).collect::<Vec<_>>().join("|")).or_default() += 1;
        }
        assert_same(name, &found, &whole_averages(expected, &columns));
    }
}

/// The batch engine's averages of whole numbers, cut as Flink does.
fn whole_averages(rows: Bag, columns: &[String]) -> Bag {
    let Some(average) = columns.iter().position(|column| column.starts_with("avg_")) else { return rows };
    let cut = |row: String| {
        let mut values: Vec<&str> = row.split('|').collect();
        values[average] = values[average].split('.').next().unwrap_or_default();
        values.join("|")
    };
    rows.into_iter().map(|(row, count)| (cut(row), count)).collect()
}
