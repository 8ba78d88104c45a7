//! `weir cost`: what counted requests, bytes and function seconds cost.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use serde_json::Value;

use crate::cost::{Bill, Measured, PRICES, Prices, Usage, bill};

/// Hours of a month, as cloud providers count them.
const HOURS_PER_MONTH: f64 = 730.0;
/// Bytes that a function's price calls a gigabyte, in its megabytes.
const MEGABYTES: f64 = 1024.0;

/// Quantities of one span of time; `weir bench` prints them per million events.
#[derive(Debug, Args)]
pub(super) struct CostArgs {
    /// Quantities as JSON, for example {"events": 1e6, "puts": 200}, or the rows of weir bench --json; - is standard input. Flags are
    /// added to each
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Events read
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    events: f64,
    /// Objects stored
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    puts: f64,
    /// Reads of objects or ranges
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    gets: f64,
    /// Prefixes listed
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    lists: f64,
    /// Write units of the table
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    write_units: f64,
    /// Read units of the table
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    read_units: f64,
    /// Gigabytes of objects, times months that they are kept
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    stored: f64,
    /// Gigabytes of rows in the table, times months that they are kept
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    table_stored: f64,
    /// Requests for records of the table's stream, by others than functions
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    stream_reads: f64,
    /// Requests to the queue: a delayed message is three
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    queue_requests: f64,
    /// Seconds of functions
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    function_seconds: f64,
    /// Memory of these functions, megabytes
    #[arg(long, value_name = "MB", default_value_t = 1024.0)]
    function_memory: f64,
    /// Invocations
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    invocations: f64,
    /// All this is used each hour: also print the month
    #[arg(long)]
    per_hour: bool,
    /// Price file [default: list prices of AWS, see --show-prices]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print the price file that is built in, to be changed and given with --prices
    #[arg(long)]
    show_prices: bool,
    /// Print the bill as JSON
    #[arg(long)]
    json: bool,
}

impl CostArgs {
    /// One of each row of the file; what the flags say alone if there is none.
    fn measured(&self) -> anyhow::Result<Vec<Measured>> {
        let mut rows = match &self.from {
            None => vec![Measured::default()],
            Some(file) => rows(&text(file)?).with_context(|| format!("quantities {}", file.display()))?,
        };
        for row in &mut rows {
            self.add_to(&mut row.usage);
        }
        Ok(rows)
    }

    fn add_to(&self, usage: &mut Usage) {
        usage.events += self.events;
        usage.puts += self.puts;
        usage.gets += self.gets;
        usage.lists += self.lists;
        usage.write_units += self.write_units;
        usage.read_units += self.read_units;
        usage.stored_gigabyte_months += self.stored;
        usage.table_gigabyte_months += self.table_stored;
        usage.stream_reads += self.stream_reads;
        usage.queue_requests += self.queue_requests;
        usage.function_gigabyte_seconds += self.function_seconds * self.function_memory / MEGABYTES;
        usage.function_requests += self.invocations;
    }

    fn prices(&self) -> anyhow::Result<Prices> {
        match &self.prices {
            None => Ok(toml::from_str(PRICES)?),
            Some(file) => {
                toml::from_str(&text(file)?).with_context(|| format!("price file {}: see --show-prices", file.display()))
            }
        }
    }
}

/// JSON objects one after the other, each the quantities themselves or a row that has them in `usage`.
fn rows(text: &str) -> anyhow::Result<Vec<Measured>> {
    let row = |value: Value| -> serde_json::Result<Measured> {
        if value.get("usage").is_some() {
            return serde_json::from_value(value);
        }
        Ok(Measured { usage: serde_json::from_value(value)?, ..Measured::default() })
    };
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let rows: Vec<Measured> = values.map(|value| row(value?)).collect::<Result<_, _>>()?;
    anyhow::ensure!(!rows.is_empty(), "there is no JSON object in it");
    Ok(rows)
}

fn text(file: &PathBuf) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

#[expect(clippy::print_stdout, reason = "the command line speaks on standard output")]
pub(super) fn cost(args: &CostArgs) -> anyhow::Result<()> {
    if args.show_prices {
        print!("{PRICES}");
        return Ok(());
    }
    let prices = args.prices()?;
    let rows = args.measured()?;
    for row in &rows {
        let bill = bill(&row.usage, &prices);
        if args.json {
            println!("{}", serde_json::to_string_pretty(&bill)?);
        } else {
            let name = if row.name.is_empty() { String::new() } else { format!("{}\n", row.name) };
            print!("{name}{}", table(&bill, &prices, args.per_hour || row.is_of_an_hour()));
        }
    }
    Ok(())
}

fn table(bill: &Bill, prices: &Prices, per_hour: bool) -> String {
    let mut text = format!("{:<24} {:>16} {:>14} {:>12}   USD, {}\n", "", "quantity", "price", "money", prices.region);
    for line in bill.lines.iter().filter(|line| line.quantity != 0.0) {
        let price = match line.per {
            1.0 => format!("{}", line.price),
            per => format!("{}/{}", line.price, if per == 1e3 { "1k" } else { "1M" }),
        };
        text += &format!("{:<24} {:>16.3} {price:>14} {:>12.6}\n", line.item, line.quantity, line.money);
    }
    let sum = |name: &str, money: f64| format!("{name:<24} {:>16} {:>14} {money:>12.6}\n", "", "");
    text += &sum("total", bill.total);
    if let Some(money) = bill.per_million_events {
        text += &sum("per million events", money);
    }
    if per_hour {
        text += &sum("per month", bill.total * HOURS_PER_MONTH);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: CostArgs,
    }

    fn args(text: &str) -> CostArgs {
        Command::parse_from(text.split(' ')).args
    }

    #[test]
    fn flags_add_up_and_lines_without_quantity_are_left_out() {
        let args = args("cost --events 1000000 --puts 1000 --function-seconds 10 --function-memory 2048 --per-hour");
        let usage = args.measured().unwrap()[0].usage;
        assert_eq!((usage.puts, usage.function_gigabyte_seconds), (1_000.0, 20.0));
        let text = table(&bill(&usage, &args.prices().unwrap()), &args.prices().unwrap(), args.per_hour);
        assert!(text.contains("objects: PUT") && text.contains("0.005000") && !text.contains("queue"), "{text}");
        assert!(text.contains("per million events") && text.contains("per month"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = format!("{:#}", args("cost --prices /nowhere/prices.toml").prices().unwrap_err());
        assert!(error.contains("/nowhere/prices.toml"), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"{\"puts\": 1, \"pust\": 2}").unwrap();
        let error = format!("{:#}", args(&format!("cost --from {}", file.path().display())).measured().unwrap_err());
        assert!(error.contains("pust"), "{error}");
    }

    #[test]
    fn rows_of_a_bench_are_read_one_after_the_other_and_flags_are_added_to_each() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (name, puts) in [("q0", 1.0), ("q1", 2.0)] {
            let usage = Usage { events: 1e6, puts, ..Usage::default() };
            let row = Measured::new(name, usage, &[("peak-mb", 300.0)]);
            std::io::Write::write_all(&mut file, format!("{}\n", serde_json::to_string(&row).unwrap()).as_bytes()).unwrap();
        }
        let flags = "--lists 3 --queue-requests 4 --table-stored 5 --stream-reads 6";
        let rows = args(&format!("cost --from {} {flags}", file.path().display())).measured().unwrap();
        let found: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.usage.puts, row.usage.lists)).collect();
        assert_eq!(found, [("q0", 1.0, 3.0), ("q1", 2.0, 3.0)]);
        let usage = rows[1].usage;
        assert_eq!((usage.queue_requests, usage.table_gigabyte_months, usage.stream_reads), (4.0, 5.0, 6.0));
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", args(&format!("cost --from {}", empty.path().display())).measured().unwrap_err());
        assert!(error.contains("no JSON"), "{error}");
    }
}
