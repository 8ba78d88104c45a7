use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt16Array, new_null_array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit, UnionFields, UnionMode};
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, path::Path};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Compression;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;
use weir_model::ShardId;

use super::*;
use crate::error::Kind;
use crate::{CountingStore, SegmentCache, StateError};

const OBJECT: &str = "jobs/x/data/00/a.parquet";

fn rows(from: i64, to: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(from..to);
    let names = StringArray::from_iter_values((from..to).map(|id| format!("name-{id}")));
    let channels = StringArray::from_iter((from..to).map(|id| (id % 5 != 0).then(|| format!("channel-{}", id % 7))));
    let groups = UInt16Array::from_iter_values((from..to).map(|id| u16::try_from(id % 720).unwrap()));
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("__kg", Arc::new(groups), false),
        ("id", Arc::new(ids), false),
        ("name", Arc::new(names), false),
        ("channel", Arc::new(channels), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn encoded(groups: &[(ShardId, Vec<RecordBatch>)]) -> EncodedSegment {
    encode(&rows(0, 1).schema(), SegmentMeta { kind: SegmentKind::Exchange, plan: 1 }, groups).unwrap()
}

async fn stored(groups: &[(ShardId, Vec<RecordBatch>)]) -> (CountingStore, SegmentRef) {
    let encoded = encoded(groups);
    let segment = encoded.reference(SegmentKind::Exchange, OBJECT.to_owned());
    let store = CountingStore::new(Arc::new(InMemory::new()), Arc::default());
    store.put(&Path::from(OBJECT), encoded.bytes.into()).await.unwrap();
    (store, segment)
}

fn metadata(bytes: &bytes::Bytes) -> Arc<ParquetMetaData> {
    Arc::clone(ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new()).unwrap().metadata())
}

#[tokio::test]
async fn each_receiver_reads_its_own_rows_from_small_and_large_objects() {
    for rows_each in [10, 100_000] {
        let groups = [(ShardId(0), vec![rows(0, rows_each)]), (ShardId(1), vec![rows(5, 8), rows(8, rows_each)])];
        let (store, segment) = stored(&groups).await;
        for (receiver, batches) in &groups {
            let read = read_for(&store, &SegmentCache::new(0), &segment, *receiver).await.unwrap();
            assert_eq!(read, [concat_batches(&batches[0].schema(), batches).unwrap()]);
        }
        assert!(read_for(&store, &SegmentCache::new(0), &segment, ShardId(9)).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_receiver_without_rows_moves_no_other_receivers_rows() {
    let groups = [
        (ShardId(0), vec![]),
        (ShardId(1), vec![rows(0, 3)]),
        (ShardId(2), vec![rows(0, 0)]),
        (ShardId(3), vec![rows(3, 7), rows(7, 7)]),
    ];
    let (store, segment) = stored(&groups).await;
    let named: Vec<(u16, u32, u32)> = segment.groups.iter().map(|group| (group.index, group.receiver.0, group.rows)).collect();
    assert_eq!(named, [(0, 1, 3), (1, 3, 4)]);
    let read = read_for(&store, &SegmentCache::new(0), &segment, ShardId(3)).await.unwrap();
    assert_eq!(read, [rows(3, 7)]);
}

#[tokio::test]
async fn a_small_object_costs_one_get_however_many_receivers_share_it() {
    let groups: Vec<_> = (0..5).map(|shard| (ShardId(shard), vec![rows(0, 10 + i64::from(shard))])).collect();
    let (store, segment) = stored(&groups).await;
    let receivers = [ShardId(1), ShardId(4)];
    let read = read_for_all(&store, &SegmentCache::new(0), &segment, &receivers).await.unwrap();
    assert_eq!(read, [(ShardId(1), rows(0, 11)), (ShardId(4), rows(0, 14))]);
    assert_eq!((store.hook().counts().gets, store.hook().counts().lists), (1, 0));
}

#[tokio::test]
async fn a_large_object_costs_its_footer_once_and_one_get_per_receiver() {
    let groups: Vec<_> = (0..4).map(|shard| (ShardId(shard), vec![rows(0, 100_000)])).collect();
    let (store, segment) = stored(&groups).await;
    assert!(segment.bytes > 2 << 20, "{}", segment.bytes);
    let cache = SegmentCache::new(1 << 30);
    for shard in [2, 3] {
        assert_eq!(read_for(&store, &cache, &segment, ShardId(shard)).await.unwrap(), [rows(0, 100_000)]);
    }
    assert_eq!(store.hook().counts().gets, 3);
    assert!(store.hook().counts().bytes_got < segment.bytes * 6 / 10);
    for shard in [2, 3] {
        assert_eq!(read_for(&store, &cache, &segment, ShardId(shard)).await.unwrap(), [rows(0, 100_000)]);
    }
    assert_eq!(store.hook().counts().gets, 3, "what was read is in the cache");
    let all = [ShardId(0), ShardId(1), ShardId(2), ShardId(3)];
    assert_eq!(read_for_all(&store, &cache, &segment, &all).await.unwrap().len(), 4);
    assert_eq!(store.hook().counts().gets, 4, "neighbours come in one request");
}

#[tokio::test]
async fn a_sole_reader_gets_a_large_object_in_one_get() {
    let (store, segment) = stored(&[(ShardId(0), vec![rows(0, 100_000)])]).await;
    assert_eq!(read_for(&store, &SegmentCache::new(0), &segment, ShardId(0)).await.unwrap(), [rows(0, 100_000)]);
    assert_eq!(store.hook().counts().gets, 1);
}

#[test]
fn equal_rows_have_equal_bytes_whatever_batches_they_come_in() {
    let whole = encoded(&[(ShardId(0), vec![rows(0, 30_000)])]);
    let cut = encoded(&[(ShardId(0), (0..30).map(|part| rows(part * 1_000, (part + 1) * 1_000)).collect())]);
    assert_eq!(whole, cut);
    assert_ne!(whole.digest, encoded(&[(ShardId(0), vec![rows(0, 30_001)])]).digest);
    let swapped = take_record_batch(&rows(0, 2), &arrow::array::UInt32Array::from(vec![1, 0])).unwrap();
    assert_ne!(encoded(&[(ShardId(0), vec![rows(0, 2)])]).digest, encoded(&[(ShardId(0), vec![swapped])]).digest);
}

#[test]
fn the_file_is_written_as_the_module_says() {
    let segment = encoded(&[(ShardId(0), vec![rows(0, 10_000)])]);
    let metadata = metadata(&segment.bytes);
    let columns = metadata.row_group(0).columns();
    assert!(columns.iter().all(|column| column.compression() == Compression::LZ4_RAW));
    let dictionaries: Vec<bool> = columns.iter().map(|column| column.dictionary_page_offset().is_some()).collect();
    assert_eq!(dictionaries, [false, false, false, true], "only the channel repeats");
    let statistics: Vec<bool> = columns.iter().map(|column| column.statistics().is_some()).collect();
    assert_eq!(statistics, [true, false, false, false]);
    assert_eq!(
        segment.footer_bytes as usize,
        8 + {
            let tail = segment.bytes.len() - 8;
            u32::from_le_bytes(segment.bytes[tail..tail + 4].try_into().unwrap()) as usize
        }
    );
    let pairs = metadata.file_metadata().key_value_metadata().unwrap();
    let value = |key| pairs.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    assert_eq!(value("weir.format"), Some("1"));
    assert_eq!(value("weir.kind"), Some("exchange"));
    assert_eq!(value("weir.plan"), Some("1"));
    assert_eq!(value("weir.schema"), Some(format!("{:016x}", fingerprint(&rows(0, 1).schema()).unwrap()).as_str()));
}

#[tokio::test]
async fn a_cut_object_is_corrupt_and_a_missing_one_is_missing() {
    for rows_each in [10, 100_000] {
        let groups = [(ShardId(0), vec![rows(0, rows_each)]), (ShardId(1), vec![rows(0, rows_each)])];
        let (store, segment) = stored(&groups).await;
        let path = Path::from(OBJECT);
        let whole = store.get(&path).await.unwrap().bytes().await.unwrap();
        let read = async || read_for(&store, &SegmentCache::new(0), &segment, ShardId(1)).await.unwrap_err();
        store.delete(&path).await.unwrap();
        assert_eq!(read().await.kind(), Kind::Missing);
        for kept in [100, whole.len() - 1] {
            store.put(&path, whole.slice(..kept).into()).await.unwrap();
            assert!(matches!(read().await, StateError::Corrupt { .. }));
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        store.put(&path, longer.into()).await.unwrap();
        assert_eq!(read().await.kind(), Kind::Corrupt);
    }
}

#[tokio::test]
async fn a_reference_that_does_not_fit_the_object_is_corrupt() {
    let (store, mut segment) = stored(&[(ShardId(0), vec![rows(0, 10)])]).await;
    segment.groups[0].rows = 11;
    let error = read_for(&store, &SegmentCache::new(0), &segment, ShardId(0)).await.unwrap_err();
    assert!(error.to_string().contains("11 rows were committed in row group 0, 10 are there"), "{error}");
    segment.groups[0].index = 3;
    let error = read_for(&store, &SegmentCache::new(0), &segment, ShardId(0)).await.unwrap_err();
    assert!(error.to_string().contains("row group 3 was committed"), "{error}");
}

#[test]
fn an_unknown_format_is_refused_with_the_remedy() {
    let pair = KeyValue::new("weir.format".to_owned(), "999".to_owned());
    let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![pair])).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows(0, 1).schema(), Some(properties)).unwrap();
    writer.write(&rows(0, 1)).unwrap();
    let error = decode("x", bytes::Bytes::from(writer.into_inner().unwrap()), &[0]).unwrap_err();
    assert!(error.to_string().contains("segment format 999, this build reads 1: use the build that wrote it"), "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test]
async fn columns_of_another_plan_are_refused_by_name() {
    let (store, segment) = stored(&[(ShardId(0), vec![rows(0, 10)])]).await;
    let cache = SegmentCache::new(1 << 20);
    let mut fields: Vec<Field> = rows(0, 1).schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    assert!(read_as(&store, &cache, &segment, ShardId(0), &Arc::new(Schema::new(fields.clone()))).await.is_ok());
    fields[1] = Field::new("id", DataType::Int32, false);
    let error = read_as(&store, &cache, &segment, ShardId(0), &Arc::new(Schema::new(fields.clone()))).await.unwrap_err();
    assert!(error.to_string().contains("has id Int64 where the plan has id Int32"), "{error}");
    fields.pop();
    let error = read_as(&store, &cache, &segment, ShardId(0), &Arc::new(Schema::new(fields))).await.unwrap_err();
    assert!(error.to_string().contains("has 4 columns where the plan has 3 columns"), "{error}");
}

fn list_of(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", data_type, true)))
}

#[test]
fn types_that_parquet_cannot_hold_are_refused_by_column_even_inside_others() {
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let union = DataType::Union(UnionFields::empty(), UnionMode::Sparse);
    for (data_type, refused) in [(interval.clone(), &interval), (list_of(interval.clone()), &interval), (union.clone(), &union)] {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", data_type, true)]));
        assert_eq!(unstorable(&schema), Some(("b".to_owned(), refused.clone())));
        let error = encode(&schema, SegmentMeta { kind: SegmentKind::Output, plan: 1 }, &[]).unwrap_err();
        assert!(error.to_string().starts_with("column b cannot be stored"), "{error}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn every_type_that_is_not_refused_comes_back_as_it_was() {
    let item = Arc::new(Field::new("item", DataType::Int32, true));
    let entries = Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)]);
    let mut types = vec![
        DataType::Null,
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Date32,
        DataType::Date64,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        DataType::FixedSizeBinary(3),
        DataType::Decimal32(5, 2),
        DataType::Decimal64(12, 2),
        DataType::Decimal128(30, 4),
        DataType::Decimal256(60, 4),
        DataType::Time32(TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond),
        list_of(DataType::Utf8),
        DataType::LargeList(Arc::clone(&item)),
        DataType::FixedSizeList(item, 2),
        DataType::Struct(Fields::from(vec![Field::new("x", DataType::Int64, true)])),
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false),
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    ];
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.push(DataType::Timestamp(unit, None));
        types.push(DataType::Timestamp(unit, Some("UTC".into())));
        types.push(DataType::Duration(unit));
    }
    for data_type in types {
        let schema = Arc::new(Schema::new(vec![Field::new("c", data_type.clone(), true)]));
        assert_eq!(unstorable(&schema), None);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![new_null_array(&data_type, 3)]).unwrap();
        let meta = SegmentMeta { kind: SegmentKind::Output, plan: 1 };
        let encoded =
            encode(&schema, meta, &[(ShardId(0), vec![batch.clone()])]).unwrap_or_else(|error| panic!("{data_type}: {error}"));
        let read = decode("x", encoded.bytes, &[0]).unwrap_or_else(|error| panic!("{data_type}: {error}"));
        assert_eq!(read, [batch], "{data_type}");
    }
}

#[test]
fn the_fingerprint_of_columns_is_frozen() {
    let fields = vec![
        Field::new("__kg", DataType::UInt16, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("tags", list_of(DataType::Utf8), true),
        Field::new("price", DataType::Decimal128(12, 2), true),
    ];
    assert_eq!(format!("{:016x}", fingerprint(&Schema::new(fields.clone())).unwrap()), "3464436ffe7ea880");
    let renamed = fingerprint(&Schema::new(vec![Field::new("ab", DataType::Int8, false)])).unwrap();
    assert_ne!(renamed, fingerprint(&Schema::new(vec![Field::new("a", DataType::Int8, false)])).unwrap());
    assert_ne!(renamed, fingerprint(&Schema::new(vec![Field::new("ab", DataType::Int8, true)])).unwrap());
}

/// Segments of format 1 are read for ever: the file was written when the format was frozen and is never written anew.
const GOLDEN: &[u8] = include_bytes!("../../tests/golden/segment-1.parquet");

#[test]
fn the_golden_segment_of_format_1_is_read() {
    let read = decode("golden", bytes::Bytes::from_static(GOLDEN), &[0, 1]).unwrap();
    assert_eq!(read, [rows(0, 300), rows(300, 310)]);
    assert_eq!(read[0].column(0).as_primitive::<arrow::datatypes::UInt16Type>().value(299), 299);
}

/// `cargo test -p weir-state -- --ignored` writes the golden file of a *new* format version.
#[test]
#[ignore = "writes a golden file"]
fn write_the_golden_segment() {
    let segment = encoded(&[(ShardId(0), vec![rows(0, 300)]), (ShardId(7), vec![rows(300, 310)])]);
    let name = format!("tests/golden/segment-{SEGMENT_FORMAT}.parquet");
    std::fs::write(name, &segment.bytes).unwrap();
}
