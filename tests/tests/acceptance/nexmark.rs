//! The auction benchmark's queries as their authors wrote them, over the combined table of ROWs, against the flat table of bids.

use std::path::Path;

use crate::support::{Bag, assert_ok, assert_same, weir};

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

/// Rows of `query` over `tables`, as lines of a file sink.
fn rows(tables: &str, query: &str) -> Bag {
    let folder = tempfile::tempdir().expect("a folder");
    let sink =
        format!("WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json')", folder.path().join("out").display());
    let script = tables.to_owned() + &query.replace("WITH ('connector' = 'blackhole')", &sink);
    std::fs::write(folder.path().join("job.sql"), script).expect("the script can be written");
    let run = ["run", "job.sql", "--store", "file://store", "--durability", "process", "--parallelism", "2"];
    assert_ok(&std::process::Command::new(weir()).args(run).current_dir(folder.path()).output().expect("weir starts"));
    let mut bag = Bag::new();
    for file in std::fs::read_dir(folder.path().join("out")).expect("results").flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "json") {
            for line in std::fs::read_to_string(file).expect("a result").lines() {
                *bag.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    bag
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
