use arrow::array::{AsArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("score", DataType::Float64, true),
    ]))
}

fn read(format: BodyFormat, text: &str) -> Body {
    decode(format, &schema(), &Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn ids(body: &Body) -> Vec<Option<i64>> {
    body.batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
}

#[test]
fn each_text_format_gives_the_same_rows() {
    let json = r#"[{"id":1,"name":"a]}\"","score":0.5}, {"id":2,"extra":{"x":[1,"]"]}} ]"#;
    let lines = "{\"id\":1,\"name\":\"a]}\\\"\",\"score\":0.5}\r\n\n{\"id\":2}";
    let csv = "1,\"a]}\"\"\",0.5\n2,,\n";
    let header = "score,id,name\n0.5,1,\"a]}\"\"\"\n,2,\n";
    for (format, text) in [
        (BodyFormat::Json, json),
        (BodyFormat::NdJson, lines),
        (BodyFormat::Csv { header: false }, csv),
        (BodyFormat::Csv { header: true }, header),
    ] {
        let body = read(format, text);
        assert_eq!((ids(&body), body.rows, body.bad.len()), (vec![Some(1), Some(2)], 2, 0), "{format:?}");
        let batch = arrow::compute::concat_batches(&schema(), &body.batches).unwrap();
        assert_eq!(batch.column(1).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("a]}\""), None], "{format:?}");
    }
    assert_eq!(ids(&read(BodyFormat::Json, r#" {"id":7} "#)), [Some(7)]);
    assert_eq!(read(BodyFormat::Json, "[ ]").rows, 0);
}

#[test]
fn bad_rows_are_named_by_their_number() {
    let lines = "{\"id\":1}\n\n{\"id\":\"x\"}\n{\"id\":3}\nnonsense\n";
    let body = read(BodyFormat::NdJson, lines);
    assert_eq!((ids(&body), body.bad.iter().map(|bad| bad.row).collect::<Vec<_>>()), (vec![Some(1), Some(3)], vec![2, 4]));
    let array = read(BodyFormat::Json, r#"[{"id":1},{"id":[]},{"id":3}]"#);
    assert_eq!(array.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [2]);
    let csv = read(BodyFormat::Csv { header: true }, "id,name\n1,a\nx,b\n3,c,d\n");
    assert_eq!(csv.bad.iter().map(|bad| bad.row).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn all_bad_rows_are_counted_and_the_first_are_kept() {
    let body = read(BodyFormat::NdJson, &"x\n".repeat(5_000));
    assert_eq!((body.bad_rows, body.bad.len(), body.bad[999].row), (5_000, BAD_ROWS_KEPT, 1_000));
}

#[test]
fn a_short_body_that_stands_for_many_bytes_is_refused() {
    let wrong = decode(BodyFormat::NdJson, &schema(), &"{}\n".repeat(COLUMN_BYTES_MAX / 8).into()).unwrap_err();
    assert!(wrong.contains("several requests"), "{wrong}");
}

#[test]
fn rows_of_later_blocks_keep_their_numbers() {
    let long = "x".repeat(600_000);
    let good = format!("{{\"id\":1,\"name\":\"{long}\"}}\n");
    let body = read(BodyFormat::NdJson, &format!("{good}{good}{good}{{\"id\":true}}\n{good}"));
    assert_eq!((body.rows, body.bad[0].row), (4, 4));
    assert!(body.batches.len() > 1, "the text is decoded in several blocks");
}

#[test]
fn what_is_wrong_with_a_whole_body_is_said() {
    for (format, text, said) in [
        (BodyFormat::Json, "7", "array of objects"),
        (BodyFormat::Json, "[1]", "element 1 of the array is no object"),
        (BodyFormat::Json, r#"[{"id":1}{"id":2}]"#, "comma"),
        (BodyFormat::Json, r#"[{"id":1},{"id"#, "was the body cut"),
        (BodyFormat::Json, r#"[{"id":1}"#, "comma or the array's end"),
        (BodyFormat::Json, "{\"id\":1}\n{\"id\":2}", "application/x-ndjson"),
        (BodyFormat::Csv { header: true }, "id,nme\n1,a\n", "there is no column nme; the stream has id, name, score"),
        (BodyFormat::Csv { header: true }, "id,id\n1,1\n", "twice"),
        (BodyFormat::Arrow, "nonsense", "no Arrow IPC"),
        (BodyFormat::Parquet, "nonsense", "no Parquet file"),
    ] {
        let error = decode(format, &schema(), &Bytes::copy_from_slice(text.as_bytes())).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

fn columns() -> RecordBatch {
    let fields = vec![
        Field::new("score", DataType::Float64, true),
        Field::new("id", DataType::Int32, true),
        Field::new("name", DataType::Utf8, true),
    ];
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Float64Array::from(vec![0.5, 1.5])),
        Arc::new(Int32Array::from(vec![4, 5])),
        Arc::new(StringArray::from(vec!["a", "b"])),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[test]
fn columns_are_taken_by_name_and_widened() {
    let batch = columns();
    let mut stream = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    stream.write(&batch).unwrap();
    let mut file = arrow::ipc::writer::FileWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    file.write(&batch).unwrap();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    for (format, bytes) in [
        (BodyFormat::Arrow, stream.into_inner().unwrap()),
        (BodyFormat::Arrow, file.into_inner().unwrap()),
        (BodyFormat::Parquet, parquet.into_inner().unwrap()),
    ] {
        let body = decode(format, &schema(), &Bytes::from(bytes)).unwrap();
        assert_eq!(ids(&body), [Some(4), Some(5)], "{format:?}");
    }
}

#[test]
fn a_missing_or_narrower_column_is_refused_by_name() {
    let id = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as arrow::array::ArrayRef;
    let batch = RecordBatch::try_from_iter([("id", id(vec![1]))]).unwrap();
    assert_eq!(conformed(&schema(), &batch).unwrap_err(), "there is no column name; the body has id");
    let text: arrow::array::ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let batch = RecordBatch::try_from_iter([("id", text)]).unwrap();
    assert!(conformed(&schema(), &batch).unwrap_err().contains("column id is Utf8"));
}

#[test]
fn a_length_that_promises_too_much_is_refused_before_anything_is_allocated() {
    let mut stream = 0xffff_ffff_u32.to_le_bytes().to_vec();
    stream.extend(0x7fff_fff8_i32.to_le_bytes());
    let mut file = b"ARROW1\0\0".to_vec();
    file.extend(0x7fff_fff8_i32.to_le_bytes());
    file.extend(b"ARROW1");
    for body in [stream, file] {
        let error = decode(BodyFormat::Arrow, &schema(), &Bytes::from(body)).unwrap_err();
        assert!(error.contains("no Arrow IPC"), "{error}");
    }
}

#[test]
fn a_small_file_that_stands_for_too_many_rows_is_refused() {
    let rows = 1 << 20;
    let id: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![7; rows]));
    let name: arrow::array::ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(512); rows]));
    let score: arrow::array::ArrayRef = Arc::new(Float64Array::from(vec![1.0; rows]));
    let batch = RecordBatch::try_new(schema(), vec![id, name, score]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = Bytes::from(writer.into_inner().unwrap());
    assert!(bytes.len() < 1 << 20);
    let error = decode(BodyFormat::Parquet, &schema(), &bytes).unwrap_err();
    assert!(error.contains("several requests"), "{error}");
}

#[test]
fn media_types_name_formats() {
    for media_type in BodyFormat::MEDIA_TYPES {
        assert!(BodyFormat::of_media_type(media_type).is_some(), "{media_type}");
    }
    assert_eq!(BodyFormat::of_media_type("Text/CSV; header=present"), Some(BodyFormat::Csv { header: true }));
    assert_eq!(BodyFormat::of_media_type("text/plain"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:a\\\\1 ]{0,60}") {
        for body in [bytes, text.into_bytes()] {
            for media_type in BodyFormat::MEDIA_TYPES {
                let format = BodyFormat::of_media_type(media_type).unwrap();
                let read = decode(format, &schema(), &Bytes::from(body.clone()));
                prop_assert!(read.is_err() || read.is_ok_and(|body| body.rows < 300));
            }
        }
    }

    #[test]
    fn an_array_is_read_like_its_elements(elements in proptest::collection::vec("\\{\"(id|name)\": ?(1|null|\"[a-z\\]\\[{},]{0,6}\")\\}", 0..8)) {
        let array = read(BodyFormat::Json, &format!("[{}]", elements.join(" ,\n")));
        let lines = read(BodyFormat::NdJson, &elements.join("\n"));
        prop_assert_eq!(ids(&array), ids(&lines));
        prop_assert_eq!(array.bad, lines.bad);
    }
}
