//! Encoding and decoding of bids and of partials: our segments (Parquet, LZ4_RAW) against Arrow IPC, plain and LZ4.
//!
//! `cargo bench -p weir-state` prints one line per (rows, format): median of several runs, rows per second and bytes per row.
//! Kept for `docs/decisions/0001`: the exchange's format follows from it.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt16Array};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use weir_model::{SegmentKind, ShardId};
use weir_state::{SegmentMeta, encode, key_groups, key_sort, segment};

type Failure = Box<dyn std::error::Error>;

/// Rows handled per measurement, so that small batches are measured over many rounds.
const ROWS_PER_RUN: usize = 400_000;
const RUNS: usize = 5;

fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<9} {:>7} {:<12} {:>12} {:>12} {:>10}", "rows", "batch", "format", "encode M/s", "decode M/s", "bytes/row")?;
    for rows in [1_000, 10_000, 100_000] {
        for (name, batch) in [("bids", bids(rows)?), ("partials", partials(rows)?)] {
            for format in [Format::Segment, Format::Ipc, Format::IpcLz4] {
                let measured = measure(format, &batch)?;
                let (encode, decode) = (measured.encode_rows_per_micro, measured.decode_rows_per_micro);
                writeln!(
                    out,
                    "{name:<9} {rows:>7} {:<12} {encode:>12.2} {decode:>12.2} {:>10.1}",
                    format.name(),
                    measured.bytes_per_row
                )?;
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Segment,
    Ipc,
    IpcLz4,
}

impl Format {
    const fn name(self) -> &'static str {
        match self {
            Self::Segment => "parquet-lz4",
            Self::Ipc => "ipc",
            Self::IpcLz4 => "ipc-lz4",
        }
    }

    fn encode(self, batch: &RecordBatch) -> Result<bytes::Bytes, Failure> {
        let compression = match self {
            Self::Segment => {
                let meta = SegmentMeta { kind: SegmentKind::Exchange, plan: 1 };
                return Ok(encode(&batch.schema(), meta, &[(ShardId(0), vec![batch.clone()])])?.bytes);
            }
            Self::Ipc => None,
            Self::IpcLz4 => Some(CompressionType::LZ4_FRAME),
        };
        let options = IpcWriteOptions::default().try_with_compression(compression)?;
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), batch.schema_ref(), options)?;
        writer.write(batch)?;
        writer.finish()?;
        Ok(writer.into_inner()?.into())
    }

    fn decode(self, bytes: &bytes::Bytes) -> Result<usize, Failure> {
        Ok(match self {
            Self::Segment => segment::decode("bench", bytes.clone(), &[0])?.iter().map(RecordBatch::num_rows).sum(),
            Self::Ipc | Self::IpcLz4 => {
                let mut rows = 0;
                for batch in StreamReader::try_new(bytes.as_ref(), None)? {
                    rows += batch?.num_rows();
                }
                rows
            }
        })
    }
}

struct Measured {
    encode_rows_per_micro: f64,
    decode_rows_per_micro: f64,
    bytes_per_row: f64,
}

fn measure(format: Format, batch: &RecordBatch) -> Result<Measured, Failure> {
    let encoded = format.encode(batch)?;
    let encode = median(batch.num_rows(), || Ok(format.encode(batch)?.len()))?;
    let decode = median(batch.num_rows(), || format.decode(&encoded))?;
    let bytes_per_row = as_f64(encoded.len()) / as_f64(batch.num_rows());
    Ok(Measured { encode_rows_per_micro: encode, decode_rows_per_micro: decode, bytes_per_row })
}

/// Median of rows per microsecond.
fn median(rows: usize, mut work: impl FnMut() -> Result<usize, Failure>) -> Result<f64, Failure> {
    let rounds = ROWS_PER_RUN.div_ceil(rows);
    let mut rates = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let began = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(work()?);
        }
        rates.push(as_f64(rows * rounds) / (began.elapsed().as_secs_f64() * 1e6));
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[RUNS / 2])
}

/// Row counts and sizes here are far below 2^52.
fn as_f64(number: usize) -> f64 {
    number as f64
}

/// A fixed scramble of the row number: the data is the same in every run.
fn drawn(row: usize, column: u64, below: u64) -> i64 {
    let number = u64::try_from(row).unwrap_or(u64::MAX);
    let drawn = (number ^ (column << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i64::try_from((drawn ^ (drawn >> 29)) % below).unwrap_or(0)
}

/// Nexmark-like bids: seven columns.
fn bids(rows: usize) -> Result<RecordBatch, Failure> {
    let integers =
        |column, below| Arc::new(Int64Array::from_iter_values((0..rows).map(|row| drawn(row, column, below)))) as ArrayRef;
    let channels = ["Apple", "Google", "Facebook", "Baidu"];
    let channel = (0..rows).map(|row| channels[usize::try_from(drawn(row, 4, 4)).unwrap_or(0)]);
    let url = (0..rows).map(|row| format!("https://www.nexmark.com/{:x}/item.htm?query=1", drawn(row, 5, 1 << 40)));
    let times = (0..rows).map(|row| 1_700_000_000_000 + i64::try_from(row / 10).unwrap_or(0));
    Ok(RecordBatch::try_from_iter([
        ("auction", integers(1, 20_000)),
        ("bidder", integers(2, 10_000)),
        ("price", integers(3, 100_000_000)),
        ("channel", Arc::new(StringArray::from_iter_values(channel)) as ArrayRef),
        ("url", Arc::new(StringArray::from_iter_values(url)) as ArrayRef),
        ("date_time", Arc::new(TimestampMillisecondArray::from_iter_values(times)) as ArrayRef),
        (
            "extra",
            Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{:032x}", drawn(row, 6, u64::MAX / 2)))))
                as ArrayRef,
        ),
    ])?)
}

/// Count and sum per (pane, key), sorted by key group as an exchange is.
fn partials(rows: usize) -> Result<RecordBatch, Failure> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| drawn(row, 1, 10_000_000))));
    let mut groups = Vec::new();
    key_groups(std::slice::from_ref(&keys), rows, 720, &mut groups)?;
    let integers =
        |column, below| Arc::new(Int64Array::from_iter_values((0..rows).map(|row| drawn(row, column, below)))) as ArrayRef;
    let sums = (0..rows).map(|row| f64::from(u32::try_from(drawn(row, 3, 1 << 20)).unwrap_or(0)) / 64.0);
    let batch = RecordBatch::try_from_iter([
        ("__kg", Arc::new(UInt16Array::from(groups)) as ArrayRef),
        ("__pane", Arc::new(Int64Array::from_value(170_000_000, rows)) as ArrayRef),
        ("bidder", keys),
        ("plays__count", integers(2, 20)),
        ("score__sum", Arc::new(Float64Array::from_iter_values(sums)) as ArrayRef),
    ])?;
    Ok(key_sort::sorted_by_key_group(&batch, 0, 720)?)
}
