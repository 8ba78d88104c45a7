use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use weir_model::{JobId, ShardId, StageId};

use super::*;

fn columns() -> SchemaRef {
    SchemaRef::new(Schema::new(vec![
        Field::new("song", DataType::Utf8, false),
        Field::new("day", DataType::Int64, false),
        Field::new("score", DataType::Float64, true),
    ]))
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn target(pairs: &[(&str, &str)]) -> Result<PostgresTarget, OptionsError> {
    let options = options(pairs);
    let shard = ShardKey::new(JobId(1), StageId(2), ShardId(0));
    PostgresTarget::new(TableOptions { table: "hot", options: &options }, columns(), vec![0, 1], shard)
}

fn changes(rows: &[(&str, i64, Option<f64>, &str)]) -> RecordBatch {
    let mut fields: Vec<Field> = columns().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("op", DataType::Utf8, false));
    RecordBatch::try_new(
        SchemaRef::new(Schema::new(fields)),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.3))),
        ],
    )
    .unwrap()
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

#[test]
fn the_newest_of_each_key_is_written_or_deleted() {
    let rows = [
        changes(&[("a", 1, Some(0.5), "+I"), ("b", 1, Some(1.0), "+I"), ("a", 2, None, "+I")]),
        changes(&[("b", 1, Some(1.0), "-D"), ("a", 1, Some(0.75), "+U")]),
    ];
    let split = Split::new(&rows, &columns(), &[0, 1]).unwrap();
    let written = rows::texts(&split.written[0]).unwrap();
    assert_eq!(written, [vec![text("a"), text("a")], vec![text("2"), text("1")], vec![None, text("0.75")]]);
    assert_eq!(rows::texts(&split.deleted[0]).unwrap(), [vec![text("b")], vec![text("1")]]);
}

#[test]
fn rows_that_are_only_added_to_stay_as_they_are() {
    let rows = [changes(&[("a", 1, None, "+I"), ("a", 1, None, "+I")])];
    let split = Split::new(&rows, &columns(), &[]).unwrap();
    assert_eq!((split.written, split.deleted), (rows.to_vec(), Vec::new()));
    assert_eq!(Split::new(&[], &columns(), &[0]).unwrap(), Split { written: Vec::new(), deleted: Vec::new() });
}

#[test]
fn times_are_texts_that_postgresql_reads() {
    let times: arrow::array::ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None]));
    let batch = RecordBatch::try_from_iter([("at", times)]).unwrap();
    assert_eq!(rows::texts(&batch).unwrap(), [vec![text("2023-11-14T22:13:20.123456"), None]]);
}

#[test]
fn statements_quote_names_and_take_the_types_of_the_table() {
    let types = options(&[("song", "character varying"), ("day", "integer"), ("score", "numeric")]);
    let statements = Statements::new("my.ho\"t", &columns(), &[0, 1], &types).unwrap();
    assert_eq!(
        statements.write,
        "INSERT INTO \"my\".\"ho\"\"t\" (\"song\", \"day\", \"score\") \
         SELECT c0::character varying, c1::integer, c2::numeric \
         FROM unnest($1::text[], $2::text[], $3::text[]) AS given (c0, c1, c2) \
         ON CONFLICT (\"song\", \"day\") DO UPDATE SET \"score\" = EXCLUDED.\"score\""
    );
    assert_eq!(
        statements.delete.unwrap(),
        "DELETE FROM \"my\".\"ho\"\"t\" AS kept USING unnest($1::text[], $2::text[]) AS given (c0, c1) \
         WHERE kept.\"song\" IS NOT DISTINCT FROM given.c0::character varying AND kept.\"day\" IS NOT DISTINCT FROM given.c1::integer"
    );
    let missing = Statements::new("hot", &columns(), &[0], &options(&[("song", "text")])).unwrap_err();
    assert_eq!(missing, "the table has no column day, only song");
}

#[test]
fn a_table_is_made_with_its_key() {
    assert_eq!(
        sql::create_table("hot", &columns(), &[0, 1]),
        "CREATE TABLE IF NOT EXISTS \"hot\" (\"song\" text NOT NULL, \"day\" bigint NOT NULL, \"score\" double precision, \
         PRIMARY KEY (\"song\", \"day\"))"
    );
}

#[test]
fn wrong_options_name_what_to_write() {
    let right = target(&[("connector", "jdbc"), ("url", "jdbc:postgresql://db:5433/music"), ("username", "me")]).unwrap();
    assert_eq!(right.place(), "hot in postgresql://db:5433/music");
    for (pairs, expected) in [
        (vec![("connector", "jdbc")], "option 'url' is missing"),
        (vec![("url", "jdbc:mysql://db/music")], "only PostgreSQL is known"),
        (vec![("url", "jdbc:postgresql://db")], "names no database"),
        (vec![("url", "jdbc:postgresql://db/music"), ("tabel-name", "x")], "did you mean 'table-name'?"),
    ] {
        let error = target(&pairs).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_away() {
    let nobody = target(&[("url", "jdbc:postgresql://127.0.0.1:1/music?connect_timeout=1")]).unwrap();
    let error = nobody.carry_out(0, &[]).await.unwrap_err();
    assert!(matches!(error, SourceError::Away { .. }), "{error:?}");
}
