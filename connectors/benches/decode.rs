//! Decoding of seven-column bids, by format, projection and decoder: MB/s and million rows/s of one core.
//!
//! `cargo bench -p weir-connectors --bench decode`. Medians of several runs; the candidates that were not taken stay measured.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and a panic is its error message")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use weir_connectors::TableOptions;
use weir_connectors::encode::encode;
use weir_connectors::files::Format;
use weir_connectors::files::decode::{TextOptions, decode_all, decoder};

const ROWS: usize = 400_000;
const RUNS: usize = 5;

fn schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, true);
    let text = |name| Field::new(name, DataType::Utf8, true);
    let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true);
    Arc::new(Schema::new(vec![
        number("auction"),
        number("bidder"),
        number("price"),
        text("channel"),
        text("url"),
        time,
        text("extra"),
    ]))
}

/// Bids with values as long as the generator's.
fn bids() -> RecordBatch {
    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
    let mix = |row: usize, salt: u64| (row as u64 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let numbers =
        |salt: u64, below: u64| Arc::new(Int64Array::from_iter_values((0..ROWS).map(move |row| (mix(row, salt) % below) as i64)));
    let texts = |salt: u64, length: usize| {
        let text = move |row: usize| format!("{:0>length$x}", mix(row, salt) as u128 * 0x1_0000_0001_0001);
        Arc::new(StringArray::from_iter_values((0..ROWS).map(text)))
    };
    let urls = StringArray::from_iter_values(
        (0..ROWS).map(|row| format!("https://www.nexmark.com/item.htm?query=1&channel_id={}", mix(row, 5))),
    );
    let times = TimestampMillisecondArray::from_iter_values((0..ROWS).map(|row| 1_436_918_400_000 + row as i64 / 10));
    let columns: Vec<arrow::array::ArrayRef> = vec![
        numbers(1, 100_000),
        numbers(2, 50_000),
        numbers(3, 100_000_000),
        texts(4, 10),
        Arc::new(urls),
        Arc::new(times),
        texts(6, 28),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The median time of a run, printed as rates.
fn report(name: &str, bytes: usize, mut run: impl FnMut() -> usize) {
    let mut seconds: Vec<f64> = (0..RUNS)
        .map(|_| {
            #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
            let started = std::time::Instant::now();
            assert_eq!(black_box(run()), ROWS);
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[RUNS / 2];
    println!("{name:<52} {:>8.0} MB/s {:>8.2} M rows/s", bytes as f64 / median / 1e6, ROWS as f64 / median / 1e6);
}

fn ours(format: Format, projection: &[usize], text: &Bytes, block: usize) -> usize {
    let options = BTreeMap::new();
    let options = TextOptions::new(TableOptions { table: "bids", options: &options }).unwrap();
    let mut decoder = decoder(format, &schema(), projection, &options).unwrap();
    decode_all(decoder.as_mut(), format, &options, text, block, |batch| batch.num_rows()).unwrap()
}

fn arrow_json(projection: &[usize], text: &Bytes) -> usize {
    let wanted = Arc::new(schema().project(projection).unwrap());
    let reader = arrow::json::ReaderBuilder::new(wanted).with_batch_size(8_192).build(Cursor::new(text)).unwrap();
    reader.map(|batch| batch.unwrap().num_rows()).sum()
}

fn arrow_csv(projection: &[usize], text: &Bytes) -> usize {
    let builder = arrow::csv::ReaderBuilder::new(schema()).with_batch_size(8_192).with_projection(projection.to_vec());
    builder.build(Cursor::new(text)).unwrap().map(|batch| batch.unwrap().num_rows()).sum()
}

fn parquet(projection: &[usize], file: &Bytes, rows: usize) -> usize {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap().with_batch_size(rows);
    let mask = ProjectionMask::roots(builder.parquet_schema(), projection.iter().copied());
    builder.with_projection(mask).build().unwrap().map(|batch| batch.unwrap().num_rows()).sum()
}

fn main() {
    let bids = [bids()];
    let file = |format| Bytes::from(encode(format, &schema(), &bids).unwrap());
    let (json, csv, parquet_file) = (file(Format::Json), file(Format::Csv), file(Format::Parquet));
    // Some lines of every block have an escape, so that the quick decoder declines.
    let escaped = Bytes::from(String::from_utf8_lossy(&json).replace("channel_id=1", "channel_id\\u003d1"));
    println!("{ROWS} bids: JSON {} CSV {} Parquet {} bytes/row", json.len() / ROWS, csv.len() / ROWS, parquet_file.len() / ROWS);
    let projections: [(&str, &[usize]); 3] =
        [("bidder, time", &[1, 5]), ("price, time, auction", &[0, 2, 5]), ("all 7", &[0, 1, 2, 3, 4, 5, 6])];
    for (columns, projection) in projections {
        for block in [256 << 10, 1 << 20, 4 << 20] {
            let name = format!("json  ours, blocks of {:>4} KiB: {columns}", block >> 10);
            report(&name, json.len(), || ours(Format::Json, projection, &json, block));
        }
        report(&format!("json  ours, with escapes: {columns}"), escaped.len(), || {
            ours(Format::Json, projection, &escaped, 1 << 20)
        });
        report(&format!("json  arrow: {columns}"), json.len(), || arrow_json(projection, &json));
        for block in [256 << 10, 1 << 20, 4 << 20] {
            let name = format!("csv   ours, blocks of {:>4} KiB: {columns}", block >> 10);
            report(&name, csv.len(), || ours(Format::Csv, projection, &csv, block));
        }
        report(&format!("csv   arrow: {columns}"), csv.len(), || arrow_csv(projection, &csv));
        for rows in [8_192, 32_768, 65_536] {
            report(&format!("parquet, batches of {rows}: {columns}"), parquet_file.len(), || {
                parquet(projection, &parquet_file, rows)
            });
        }
    }
}
