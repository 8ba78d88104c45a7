use arrow::array::{ArrayRef, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Float64Type, Int8Type, Int64Type, TimeUnit, TimestampMillisecondType,
};
use weir_model::Offset;

use super::*;
use crate::generate::testing::{Still, with};
use crate::source::{Pull, Source};

/// Microseconds of the clock, 2026-01-01 00:00:00 UTC.
const NOW: i64 = 1_767_225_600_000_000;

fn column(name: &str, data_type: DataType) -> Fields {
    Fields::from(vec![Field::new(name, data_type, true)])
}

fn everything() -> Fields {
    let types = [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(12, 2),
        DataType::Decimal128(38, 20),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
    ];
    Fields::from(types.into_iter().zip(0..).map(|(of, at)| Field::new(format!("c{at}"), of, true)).collect::<Vec<_>>())
}

fn open(pairs: &[(&str, &str)], columns: Fields) -> Result<DatagenSource, OptionsError> {
    let options = with(pairs);
    let options = TableOptions { table: "t", options: &options };
    DatagenSource::new(options, Arc::new(Schema::new(columns)), Arc::new(Still(NOW)))
}

fn refusal(pairs: &[(&str, &str)], columns: Fields) -> String {
    open(pairs, columns).unwrap_err().to_string()
}

fn rows(source: &DatagenSource, numbers: Range<u64>) -> RecordBatch {
    source.generator.rows(numbers, &[], &source.schema).unwrap()
}

/// The first 10,000 values of a table of one column.
fn values(pairs: &[(&str, &str)], columns: Fields) -> ArrayRef {
    Arc::clone(rows(&open(pairs, columns).unwrap(), 0..10_000).column(0))
}

#[test]
fn a_range_is_the_concatenation_of_its_parts() {
    let source = open(&[("fields.c4.null-rate", "0.5"), ("fields.c12.max-past", "1 h"), ("seed", "3")], everything()).unwrap();
    let parts = [0..1, 1..7, 7..130, 130..500].map(|part| rows(&source, part));
    assert_eq!(concat_batches(&source.schema, &parts).unwrap(), rows(&source, 0..500));
}

#[test]
fn a_projection_makes_the_same_values() {
    let source = open(&[], everything()).unwrap();
    let all = rows(&source, 5..50);
    let some = Arc::new(source.schema.project(&[2, 9]).unwrap());
    assert_eq!(source.generator.rows(5..50, &[2, 9], &some).unwrap(), all.project(&[2, 9]).unwrap());
}

#[test]
fn whole_numbers_lie_between_their_ends_and_reach_them() {
    let ends = [("fields.n.min", "-3"), ("fields.n.max", "3")];
    let small = values(&ends, column("n", DataType::Int64));
    let found = small.as_primitive::<Int64Type>().values();
    assert!((-3..=3).all(|number| found.contains(&number)));
    assert!(found.iter().all(|number| (-3..=3).contains(number)));
    let tiny = values(&[], column("n", DataType::Int8));
    let found = tiny.as_primitive::<Int8Type>().values();
    assert!(found.contains(&i8::MIN) && found.contains(&i8::MAX));
    let wide = values(&[], column("n", DataType::Int64));
    let negative = wide.as_primitive::<Int64Type>().values().iter().filter(|number| **number < 0).count();
    assert!((4_700..5_300).contains(&negative), "{negative}");
}

#[test]
fn doubles_are_multiples_of_a_sixty_fourth_within_their_ends() {
    let doubles = values(&[("fields.x.min", "-0.1"), ("fields.x.max", "0.1")], column("x", DataType::Float64));
    let found = doubles.as_primitive::<Float64Type>().values();
    assert!(found.iter().all(|number| (number * 64.0).fract() == 0.0 && number.abs() <= 0.1));
    assert!(found.contains(&(6.0 / 64.0)) && found.contains(&(-6.0 / 64.0)));
}

#[test]
fn decimals_lie_between_their_ends() {
    let ends = [("fields.d.min", "-1.5"), ("fields.d.max", "0.25")];
    let decimals = values(&ends, column("d", DataType::Decimal128(10, 2)));
    let found = decimals.as_primitive::<Decimal128Type>().values();
    assert!(found.iter().all(|units| (-150..=25).contains(units)));
    assert!(found.contains(&-150) && found.contains(&25));
    let wide = values(&[], column("d", DataType::Decimal128(38, 20)));
    assert!(wide.as_primitive::<Decimal128Type>().values().iter().all(|units| (0..10i128.pow(18)).contains(units)));
}

#[test]
fn texts_are_hexadecimal_of_their_length() {
    let texts = values(&[("fields.s.length", "17")], column("s", DataType::Utf8));
    let hexadecimal = |text: &str| text.len() == 17 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(texts.as_string::<i32>().iter().flatten().all(hexadecimal));
    let bytes = values(&[("fields.s.length", "13")], column("s", DataType::Binary));
    assert!(bytes.as_binary::<i32>().iter().flatten().all(|value| value.len() == 13));
    let usual = values(&[], column("s", DataType::Utf8));
    assert_eq!(usual.as_string::<i32>().value(9).len(), 100);
}

#[test]
fn times_follow_from_the_start_and_the_rows_number() {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let exact = values(&[("start-time", "5000000"), ("rows-per-second", "1000")], column("at", time.clone()));
    assert_eq!(exact.as_primitive::<TimestampMillisecondType>().values()[..3], [5_000, 5_001, 5_002]);
    let past = values(&[("fields.at.max-past", "2 s")], column("at", time));
    let behind = |row: usize, millis: i64| NOW / 1_000 + i64::try_from(row).unwrap() / 10 - millis;
    let found = past.as_primitive::<TimestampMillisecondType>().values();
    assert!(found.iter().enumerate().all(|(row, millis)| (0..=2_000).contains(&behind(row, *millis))));
    let days = values(&[], column("day", DataType::Date32));
    assert_eq!(i64::from(days.as_primitive::<Date32Type>().value(0)), NOW / 86_400_000_000);
}

#[test]
fn a_null_rate_is_the_share_of_nulls() {
    for (rate, expected) in [("0", 0..=0), ("0.25", 2_300..=2_700), ("1", 10_000..=10_000)] {
        for data_type in [DataType::Utf8, DataType::Boolean, DataType::Float32, DataType::Date32] {
            let nulls = values(&[("fields.x.null-rate", rate)], column("x", data_type.clone())).null_count();
            assert!(expected.contains(&nulls), "{data_type} at {rate}: {nulls}");
        }
    }
}

#[tokio::test]
async fn a_table_ends_with_its_shortest_sequence() {
    let pairs = [
        ("rows-per-second", "0"),
        ("fields.a.kind", "sequence"),
        ("fields.a.start", "-2"),
        ("fields.a.end", "2"),
        ("fields.b.kind", "sequence"),
        ("fields.b.start", "1"),
        ("fields.b.end", "1_000"),
    ];
    let columns = Fields::from(vec![Field::new("a", DataType::Int8, true), Field::new("b", DataType::Utf8, true)]);
    let source = open(&pairs, columns).unwrap();
    assert!(source.bounded());
    let mut lane = source.open(0, 1, Offset::default(), &[0, 1]).await.unwrap();
    let Pull::Rows(rows) = lane.next().await.unwrap() else { panic!("no rows") };
    assert_eq!(rows.batch.column(0).as_primitive::<Int8Type>().values()[..], [-2, -1, 0, 1, 2]);
    assert_eq!(rows.batch.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
    assert!(matches!(lane.next().await.unwrap(), Pull::End));
}

#[test]
fn a_table_is_paced_unless_it_has_a_number_of_rows() {
    let rate = |pairs: &[(&str, &str)]| open(pairs, column("n", DataType::Int64)).unwrap().rate;
    assert_eq!(rate(&[]), Some(10_000));
    assert_eq!(rate(&[("number-of-rows", "5")]), None);
    assert_eq!(rate(&[("number-of-rows", "5"), ("rows-per-second", "7")]), Some(7));
    assert_eq!(rate(&[("rows-per-second", "0")]), None);
    let bounded = open(&[("number-of-rows", "5")], column("n", DataType::Int64)).unwrap();
    assert_eq!((bounded.bounded(), bounded.describe()), (true, "datagen, 5 rows, seed 0".to_owned()));
    let endless = open(&[], column("n", DataType::Int64)).unwrap();
    assert_eq!(endless.describe(), "datagen, without end, seed 0, 10,000 rows per second");
    assert!(!endless.bounded());
}

#[tokio::test]
async fn a_batch_is_cut_again_where_an_earlier_reader_of_the_paced_rows_did() {
    let start = (NOW - 60_000_000).to_string();
    let source = open(&[("rows-per-second", "10"), ("start-time", &start)], column("n", DataType::Int64)).unwrap();
    let mut reader = source.open(0, 1, Offset::default(), &[0]).await.unwrap();
    let cut = Offset { split: 0, at: 10 };
    reader.end_at(cut);
    for expected in [(10, cut), (54, Offset { split: 1, at: 0 })] {
        let Pull::Rows(rows) = reader.next().await.unwrap() else { panic!("rows are due") };
        assert_eq!((rows.batch.num_rows(), rows.upto), expected);
    }
}

#[test]
fn an_option_of_no_column_is_refused_with_the_nearest() {
    let score = || column("score", DataType::Int64);
    assert_eq!(
        refusal(&[("fields.scroe.min", "1")], score()),
        "table t: option 'fields.scroe.min': there is no column 'scroe' to generate: did you mean 'score'?"
    );
    assert_eq!(
        refusal(&[("fields.elsewhere.min", "1")], score()),
        "table t: option 'fields.elsewhere.min': there is no column 'elsewhere' to generate: columns are score"
    );
    assert_eq!(
        refusal(&[("fields.score.mni", "1")], score()),
        "table t: unknown option 'fields.score.mni': did you mean 'fields.score.min'?"
    );
    assert_eq!(
        refusal(&[("row-per-second", "1")], score()),
        "table t: unknown option 'row-per-second': did you mean 'rows-per-second'?"
    );
}

#[test]
fn an_option_that_does_not_fit_its_column_is_refused_with_those_that_do() {
    let stray = refusal(&[("fields.s.min", "1")], column("s", DataType::Utf8));
    assert_eq!(
        stray,
        "table t: column s: option 'fields.s.min' means nothing for random values of Utf8: \
         write 'fields.s.kind', 'fields.s.null-rate', 'fields.s.length'"
    );
    let number = |pairs: &[(&str, &str)], data_type: DataType| refusal(pairs, column("n", data_type));
    assert_eq!(
        number(&[("fields.n.max", "128")], DataType::Int8),
        "table t: option 'fields.n.max' = '128' is not a whole number from -128 to 127"
    );
    assert_eq!(
        number(&[("fields.n.max", "0.125")], DataType::Decimal128(4, 2)),
        "table t: option 'fields.n.max' = '0.125' is not a number of at most 4 digits, 2 of them decimal places"
    );
    let crossed = number(&[("fields.n.min", "5"), ("fields.n.max", "4")], DataType::Int32);
    assert_eq!(crossed, "table t: column n: 'fields.n.min' is above 'fields.n.max': write both");
    let endless = number(&[("fields.n.kind", "sequence"), ("fields.n.start", "1")], DataType::Int32);
    assert_eq!(endless, "table t: column n: a sequence needs 'fields.n.end'");
    let share = number(&[("fields.n.null-rate", "2")], DataType::Int32);
    assert_eq!(share, "table t: option 'fields.n.null-rate' = '2' is not a share from 0 to 1");
}

#[test]
fn a_column_that_cannot_be_generated_is_named_with_what_can() {
    let list = DataType::new_list(DataType::Int64, true);
    let refused = refusal(&[], column("items", list));
    assert!(refused.starts_with("table t: column items: values of List("), "{refused}");
    assert!(refused.contains("declare it as BOOLEAN, TINYINT"), "{refused}");
    let sequence = refusal(&[("fields.b.kind", "sequence")], column("b", DataType::Boolean));
    assert!(sequence.contains("a sequence cannot be of Boolean: declare it as BIGINT"), "{sequence}");
    let never = Fields::from(vec![Field::new("n", DataType::Int64, false)]);
    let refused = refusal(&[("fields.n.null-rate", "0.1")], never);
    assert_eq!(refused, "table t: column n: it is NOT NULL: leave 'fields.n.null-rate' out");
}
