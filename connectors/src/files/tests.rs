//! The readers against their promises: every record once, wherever files are split and reading is resumed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path as LocalPath;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use proptest::prelude::*;

use super::*;
use crate::source::{BadRow, Pull};

mod quick;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]))
}

fn with(path: &LocalPath, extra: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut options =
        BTreeMap::from([("connector".to_owned(), "filesystem".to_owned()), ("path".to_owned(), path.display().to_string())]);
    options.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    options
}

async fn source_of(schema: SchemaRef, path: &LocalPath, extra: &[(&str, &str)]) -> Result<FileSource, OptionsError> {
    let options = with(path, extra);
    let options = TableOptions { table: "t", options: &options };
    let store = local_store();
    let listing = Arc::new(discover(&store, options).await?);
    FileSource::new(store, listing, schema, options)
}

async fn source(path: &LocalPath, extra: &[(&str, &str)]) -> Result<FileSource, OptionsError> {
    source_of(schema(), path, extra).await
}

/// Ids and bad rows of one lane from `from`, with the place after each batch.
async fn read(source: &FileSource, lane: u32, lanes: u32, from: Offset) -> (Vec<i64>, Vec<BadRow>, Vec<(usize, usize, Offset)>) {
    let mut reader = source.open(lane, lanes, from, &[0]).await.unwrap();
    let (mut ids, mut bad, mut places) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match reader.next().await.unwrap() {
            Pull::Rows(rows) => {
                ids.extend(rows.batch.column(0).as_primitive::<Int64Type>().values());
                bad.extend(rows.bad);
                places.push((ids.len(), bad.len(), rows.upto));
            }
            Pull::Later | Pull::Advanced { .. } => panic!("a bounded file has rows or ends"),
            Pull::End => return (ids, bad, places),
        }
    }
}

fn raw(bad: &[BadRow]) -> Vec<String> {
    bad.iter().map(|bad| String::from_utf8_lossy(&bad.raw).into_owned()).collect()
}

fn json_lines(count: usize) -> String {
    let pad = "x".repeat(300);
    (0..count).map(|id| format!("{{\"id\":{id},\"name\":\"{pad}\"}}\n")).collect()
}

async fn all_lanes(source: &FileSource, lanes: u32) -> Vec<i64> {
    let mut all = Vec::new();
    for lane in 0..lanes {
        all.extend(read(source, lane, lanes, Offset::default()).await.0);
    }
    all.sort_unstable();
    all
}

#[tokio::test]
async fn every_record_is_read_once_by_any_number_of_lanes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), json_lines(120_000)).unwrap();
    std::fs::write(folder.path().join("b.json"), json_lines(10).trim_end()).unwrap();
    let source = source(folder.path(), &[("format", "json")]).await.unwrap();
    assert!(source.listing.splits.len() > 2, "the file is large enough to be split");
    let mut expected: Vec<i64> = (0..120_000).chain(0..10).collect();
    expected.sort_unstable();
    for lanes in [1, 2, 7] {
        assert!(all_lanes(&source, lanes).await == expected, "{lanes} lanes");
    }
    assert!(read(&source, 6, 7, Offset::default()).await.0.is_empty(), "a lane without splits ends at once");
}

#[tokio::test]
async fn reading_resumes_at_every_place_it_ever_gave() {
    let folder = tempfile::tempdir().unwrap();
    let lines = json_lines(9_000);
    std::fs::write(folder.path().join("a.json"), &lines).unwrap();
    // Two frames, two members: both formats may be concatenated.
    let (first, second) = lines.split_at(lines.len() / 3);
    let frames: Vec<u8> = [first, second].iter().flat_map(|part| zstd::encode_all(part.as_bytes(), 1).unwrap()).collect();
    std::fs::write(folder.path().join("b.json.zst"), frames).unwrap();
    let member = |part: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(part.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    std::fs::write(folder.path().join("c.json.gz"), [member(first), member(second)].concat()).unwrap();
    let source = source(folder.path(), &[("format", "json")]).await.unwrap();
    let (all, bad, places) = read(&source, 0, 1, Offset::default()).await;
    assert_eq!((all.len(), bad.len()), (27_000, 0));
    assert!(places.len() > 6);
    for (rows, _, place) in places {
        assert!(read(&source, 0, 1, place).await.0 == all[rows..], "resumed at {place:?}");
    }
}

#[tokio::test]
async fn compressed_data_that_is_cut_short_is_an_error_that_names_the_file() {
    let lines = json_lines(1_000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    for (name, bytes) in [("a.json.gz", gzip.finish().unwrap()), ("a.json.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap())] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), &bytes[..bytes.len() - 9]).unwrap();
        let source = source(folder.path(), &[("format", "json")]).await.unwrap();
        let mut reader = source.open(0, 1, Offset::default(), &[0]).await.unwrap();
        let error = loop {
            match reader.next().await {
                Ok(Pull::Rows(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains(name) && error.contains("cut short"), "{error}");
    }
}

#[tokio::test]
async fn bad_lines_are_kept_with_their_bytes_and_place_and_cost_no_good_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"id\":1}\n{\"id\":\"x\"}\nnot json\n{\"id\":2}{\"id\":3}\n{\"id\":\n4}\n\n{\"id\":5}\n{\"id\":6";
    std::fs::write(folder.path().join("a.json"), text).unwrap();
    let source = source(folder.path(), &[("format", "json")]).await.unwrap();
    let (ids, bad, _) = read(&source, 0, 1, Offset::default()).await;
    assert_eq!(ids, [1, 5]);
    assert_eq!(raw(&bad), ["{\"id\":\"x\"}", "not json", "{\"id\":2}{\"id\":3}", "{\"id\":", "4}", "{\"id\":6"]);
    assert_eq!(bad.iter().map(|bad| bad.offset).collect::<Vec<_>>(), [9, 20, 29, 46, 53, 66]);
    assert!(bad[0].source.ends_with("a.json") && !bad[0].reason.is_empty());
}

#[tokio::test]
async fn lines_that_would_make_up_for_each_other_are_all_bad() {
    let folder = tempfile::tempdir().unwrap();
    // Three rows in three lines for a decoder that does not look at line ends.
    std::fs::write(folder.path().join("a.json"), "{\"name\":\"}\n{\"}\n{}{}\n{\"id\":1}\n").unwrap();
    let source = source(folder.path(), &[("format", "json")]).await.unwrap();
    let (ids, bad, _) = read(&source, 0, 1, Offset::default()).await;
    assert_eq!((ids, raw(&bad)), (vec![1], vec!["{\"name\":\"}".to_owned(), "{\"}".to_owned(), "{}{}".to_owned()]));
}

#[tokio::test]
async fn csv_takes_quoted_line_ends_a_header_and_refuses_short_rows() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}id,name\r\n1,\"a\nb\"\n2\nx,y\n3,\"he said \"\"no\"\"\"\n4,5\" pipe\n5,z\n6,\"cut";
    std::fs::write(folder.path().join("a.csv"), text).unwrap();
    let source = source(folder.path(), &[("format", "csv"), ("csv.header", "true")]).await.unwrap();
    let (ids, bad, _) = read(&source, 0, 1, Offset::default()).await;
    assert_eq!(ids, [1, 3, 4, 5]);
    assert_eq!(raw(&bad), ["2", "x,y", "6,\"cut"]);
}

#[tokio::test]
async fn without_newlines_in_values_a_quote_left_open_costs_its_own_line_only() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "1,\"open\n2,b\n3,\"c\"\n4,d\r5,e\n6,f\n").unwrap();
    let source = source(folder.path(), &[("format", "csv"), ("csv.newlines-in-values", "false")]).await.unwrap();
    let (ids, bad, _) = read(&source, 0, 1, Offset::default()).await;
    assert_eq!(ids, [2, 3, 6]);
    assert_eq!(raw(&bad), ["1,\"open", "4,d\r5,e"]);
}

#[tokio::test]
async fn a_header_in_another_order_is_an_error_not_swapped_columns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "name,id\nx,1\n").unwrap();
    let source = source(folder.path(), &[("format", "csv"), ("csv.header", "true")]).await.unwrap();
    let error = source.open(0, 1, Offset::default(), &[0]).await.unwrap().next().await.unwrap_err().to_string();
    assert!(error.contains("a.csv") && error.contains("in that order"), "{error}");
}

#[tokio::test]
async fn csv_nulls_are_empty_values_or_the_literal() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "1,\n,\\N\n2,x\n").unwrap();
    let texts = async |extra: &[(&str, &str)]| {
        let source = source(folder.path(), extra).await.unwrap();
        let Pull::Rows(rows) = source.open(0, 1, Offset::default(), &[1]).await.unwrap().next().await.unwrap() else {
            panic!("no rows")
        };
        rows.batch.column(0).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(texts(&[("format", "csv")]).await, [None, Some("\\N".to_owned()), Some("x".to_owned())]);
    let literal = texts(&[("format", "csv"), ("csv.null-literal", "\\N")]).await;
    assert_eq!(literal, [Some(String::new()), None, Some("x".to_owned())]);
}

#[tokio::test]
async fn a_projection_of_no_columns_still_counts_rows() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), "{\"id\":1}\n\n{\"id\":2}\nbad\n{\"e\":\"\\n\"}\n").unwrap();
    std::fs::write(folder.path().join("b.csv"), "1,\"a\"\n2,b\n3,c\n").unwrap();
    std::fs::write(folder.path().join("c.parquet"), parquet_file(3)).unwrap();
    for (name, format) in [("a.json", "json"), ("b.csv", "csv"), ("c.parquet", "parquet")] {
        let source = source(&folder.path().join(name), &[("format", format)]).await.unwrap();
        let Pull::Rows(rows) = source.open(0, 1, Offset::default(), &[]).await.unwrap().next().await.unwrap() else {
            panic!("no rows")
        };
        assert_eq!((rows.batch.num_rows(), rows.batch.num_columns()), (3, 0), "{format}");
    }
}

fn parquet_file(rows: i64) -> Vec<u8> {
    let ids = arrow::array::Int64Array::from_iter_values(0..rows);
    let names = arrow::array::StringArray::from_iter_values((0..rows).map(|_| "n"));
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap();
    crate::encode::encode(Format::Parquet, &schema(), &[rows]).unwrap()
}

#[tokio::test]
async fn parquet_is_read_by_row_group_and_resumes_within_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.parquet"), parquet_file(600_000)).unwrap();
    let source = source(folder.path(), &[("format", "parquet")]).await.unwrap();
    let (all, _, places) = read(&source, 0, 1, Offset::default()).await;
    assert!(all.iter().copied().eq(0..600_000));
    for (rows, _, place) in places.into_iter().step_by(5) {
        assert!(read(&source, 0, 1, place).await.0 == all[rows..]);
    }
    assert!(all_lanes(&source, 2).await == all);
}

#[tokio::test]
async fn a_parquet_column_that_is_missing_or_too_wide_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.parquet"), parquet_file(3)).unwrap();
    let failure = async |field: Field| {
        let source = source_of(Arc::new(Schema::new(vec![field])), folder.path(), &[("format", "parquet")]).await.unwrap();
        source.open(0, 1, Offset::default(), &[0]).await.unwrap().next().await.unwrap_err().to_string()
    };
    let missing = failure(Field::new("user", DataType::Int64, true)).await;
    assert!(missing.contains("a.parquet: there is no column user; the file has id, name"), "{missing}");
    let narrow = failure(Field::new("id", DataType::Int32, true)).await;
    assert!(narrow.contains("column id is Int64") && narrow.contains("Int32"), "{narrow}");
}

#[tokio::test]
async fn a_file_that_changes_or_vanishes_under_the_job_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    std::fs::write(&file, json_lines(3)).unwrap();
    let source = source(folder.path(), &[("format", "json")]).await.unwrap();
    let failure = async || source.open(0, 1, Offset::default(), &[0]).await.unwrap().next().await.unwrap_err().to_string();
    std::fs::write(&file, json_lines(4)).unwrap();
    let changed = failure().await;
    assert!(changed.contains("a.json") && changed.contains("changed"), "{changed}");
    std::fs::remove_file(&file).unwrap();
    let gone = failure().await;
    assert!(gone.contains("a.json") && gone.contains("gone"), "{gone}");
}

#[tokio::test]
async fn a_file_name_may_have_any_characters() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("100% of #1, ü.json"), "{\"id\":1}\n").unwrap();
    let source = source(folder.path(), &[("format", "json")]).await.unwrap();
    assert_eq!(read(&source, 0, 1, Offset::default()).await.0, [1]);
}

#[tokio::test]
async fn years_9999_and_1900_are_times_like_any_other() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema = Arc::new(Schema::new(vec![Field::new("t", time, true)]));
    let folder = tempfile::tempdir().unwrap();
    // The escape sends the second file to Arrow's decoder: both ways must agree.
    std::fs::write(folder.path().join("a.json"), "{\"t\":\"9999-12-31 23:59:59.999\"}\n{\"t\":\"1900-01-01T00:00:00Z\"}\n")
        .unwrap();
    std::fs::write(
        folder.path().join("b.json"),
        "{\"t\":\"9999-12-31 23:59:59.999\"}\n{\"t\":\"1900-01-01T00:00:00Z\",\"e\":\"\\n\"}\n",
    )
    .unwrap();
    for file in ["a.json", "b.json"] {
        let source = source_of(Arc::clone(&schema), &folder.path().join(file), &[("format", "json")]).await.unwrap();
        let Pull::Rows(rows) = source.open(0, 1, Offset::default(), &[0]).await.unwrap().next().await.unwrap() else {
            panic!("no rows")
        };
        assert!(rows.bad.is_empty(), "{:?}", rows.bad);
        let times = rows.batch.column(0).as_primitive::<arrow::datatypes::TimestampMillisecondType>().values().to_vec();
        assert_eq!(times, [253_402_300_799_999, -2_208_988_800_000]);
    }
}

#[tokio::test]
async fn a_path_without_files_and_an_unknown_option_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = source(folder.path(), &[("format", "json")]).await.unwrap_err().to_string();
    assert!(empty.contains("names no file"), "{empty}");
    let typo = source(folder.path(), &[("fromat", "json")]).await.unwrap_err().to_string();
    assert!(typo.contains("did you mean 'format'"), "{typo}");
    let format = source(folder.path(), &[("format", "jsno")]).await.unwrap_err().to_string();
    assert!(format.contains("did you mean 'json'"), "{format}");
}

#[derive(Debug, Default)]
struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic_micros(&self) -> i64 {
        self.now_micros()
    }

    fn sleep(&self, _: std::time::Duration) -> weir_model::time::Sleep {
        Box::pin(std::future::ready(()))
    }
}

/// Lets an interval pass and reads what there is.
async fn pull_ids(reader: &mut dyn SourceReader, clock: &TestClock) -> (Vec<i64>, Option<Offset>) {
    clock.0.fetch_add(1_000_000, Ordering::Relaxed);
    let (mut ids, mut place) = (Vec::new(), None);
    while let Pull::Rows(rows) = reader.next().await.unwrap() {
        ids.extend(rows.batch.column(0).as_primitive::<Int64Type>().values());
        place = Some(rows.upto);
    }
    (ids, place)
}

#[tokio::test]
async fn a_continuous_source_picks_up_finished_files_once_and_resumes_from_its_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let options = with(folder.path(), &[("format", "json"), ("mode", "continuous")]);
    let options = TableOptions { table: "t", options: &options };
    let store = local_store();
    let listing = Arc::new(discover(&store, options).await.unwrap());
    let clock = Arc::new(TestClock::default());
    let source = FileSource::continuous(store, listing, schema(), options, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    assert!(!source.bounded());
    let mut reader = source.open(0, 2, Offset::default(), &[0]).await.unwrap();
    assert!(
        matches!(source.open(1, 2, Offset::default(), &[0]).await.unwrap().next().await.unwrap(), Pull::End),
        "one lane only"
    );
    assert_eq!(pull_ids(reader.as_mut(), &clock).await.0, [0; 0]);
    std::fs::write(folder.path().join("b.json"), "{\"id\":1}\n").unwrap();
    assert_eq!(pull_ids(reader.as_mut(), &clock).await.0, [0; 0], "it may still be growing");
    std::fs::write(folder.path().join("b.json"), "{\"id\":1}\n{\"id\":2}\n").unwrap();
    assert_eq!(pull_ids(reader.as_mut(), &clock).await.0, [0; 0], "and so it did");
    let (ids, place) = pull_ids(reader.as_mut(), &clock).await;
    assert_eq!(ids, [1, 2]);
    let ledger = reader.ledger(false).unwrap();
    assert_eq!(reader.ledger(false), None, "told once");
    std::fs::write(folder.path().join("a.json"), "{\"id\":3}\n").unwrap();
    assert_eq!(pull_ids(reader.as_mut(), &clock).await.0, [0; 0]);
    assert_eq!(pull_ids(reader.as_mut(), &clock).await.0, [3]);
    let (ids, end) = pull_ids(reader.as_mut(), &clock).await;
    assert_eq!(ids, [0; 0], "nothing twice");
    let parts = [ledger.clone(), reader.ledger(false).unwrap()];
    assert!(!parts[1].windows(6).any(|name| name == b"b.json"), "only what is new");
    let mut last = source.open_with_ledger(0, 2, end.unwrap_or(Offset { split: 2, at: 0 }), &parts, &[0]).await.unwrap();
    assert_eq!(pull_ids(last.as_mut(), &clock).await.0, [0; 0]);
    // Another process goes on from the first ledger and place.
    let mut resumed = source.open_with_ledger(0, 2, place.unwrap(), &[ledger], &[0]).await.unwrap();
    assert_eq!(pull_ids(resumed.as_mut(), &clock).await.0, [0; 0]);
    assert_eq!(pull_ids(resumed.as_mut(), &clock).await.0, [3]);
    let lost = source.open(0, 2, Offset { split: 2, at: 0 }, &[0]).await.unwrap_err().to_string();
    assert!(lost.contains("ledger"), "{lost}");
}

#[tokio::test]
async fn a_split_of_one_byte_holds_the_record_that_begins_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), "{\"id\":1}\r\n\n{\"id\":2}\n{\"id\":3}").unwrap();
    let mut source = source(folder.path(), &[("format", "json")]).await.unwrap();
    let bytes = source.listing.files[0].bytes;
    Arc::make_mut(&mut source.listing).splits = listing::cut(0, bytes, 1);
    assert_eq!(read(&source, 0, 1, Offset::default()).await.0, [1, 2, 3]);
    assert_eq!(all_lanes(&source, 5).await, [1, 2, 3]);
}

/// A line of a file and the id it is good for.
fn any_line() -> impl Strategy<Value = (String, Option<i64>)> {
    prop_oneof![
        6 => (0i64..1_000_000, 0usize..40).prop_map(|(id, pad)| (format!("{{\"id\":{id},\"name\":\"{}\"}}", "x".repeat(pad)), Some(id))),
        1 => (0i64..1_000).prop_map(|id| (format!("{{\"name\":\"\\n\", \"id\": {id} }}"), Some(id))),
        1 => Just(("not json".to_owned(), None)),
        1 => Just(("{\"id\":true}".to_owned(), None)),
        1 => (100usize..200).prop_map(|pad| (format!("{{\"id\":7,\"name\":\"{}\"}}", "y".repeat(pad)), Some(7))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_line_is_a_row_or_a_bad_row_wherever_the_file_is_cut(
        lines in prop::collection::vec((any_line(), prop::sample::select(vec!["\n", "\r\n", "\n\n", "\n \r\n"])), 0..20),
        step in 16u64..300, lanes in 1u32..4, ended in any::<bool>(),
    ) {
        let mut text: String = lines.iter().map(|((line, _), end)| format!("{line}{end}")).collect();
        if !ended {
            text.truncate(text.trim_end().len());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.json"), format!("{text}\n")).unwrap();
            let whole = source(folder.path(), &[("format", "json")]).await.unwrap();
            let (expected, expected_bad, _) = read(&whole, 0, 1, Offset::default()).await;
            let good: Vec<i64> = lines.iter().filter_map(|((_, id), _)| *id).collect();
            assert_eq!(expected, good);
            assert_eq!(good.len() + expected_bad.len(), lines.len());

            // The same file without its last line end, cut anywhere.
            std::fs::write(folder.path().join("a.json"), &text).unwrap();
            let mut cut = source(folder.path(), &[("format", "json")]).await.unwrap();
            let bytes = cut.listing.files[0].bytes;
            Arc::make_mut(&mut cut.listing).splits = listing::cut(0, bytes, step);
            let (mut ids, mut bad) = (Vec::new(), 0);
            for lane in 0..lanes {
                let (lane_ids, lane_bad, places) = read(&cut, lane, lanes, Offset::default()).await;
                for (rows, bad_rows, place) in places {
                    let (rest, rest_bad, _) = read(&cut, lane, lanes, place).await;
                    assert_eq!(rest, lane_ids[rows..], "resumed at {place:?}");
                    assert_eq!(rest_bad, lane_bad[bad_rows..]);
                }
                ids.extend(lane_ids);
                bad += lane_bad.len();
            }
            ids.sort_unstable();
            let mut good = good;
            good.sort_unstable();
            assert_eq!((ids, bad), (good, expected_bad.len()));
        });
    }
}
