//! `weir cost`: what counted requests, bytes and function seconds cost.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::cost::{Bill, PRICES, Prices, Usage, bill};

/// Hours of a month, as cloud providers count them.
const HOURS_PER_MONTH: f64 = 730.0;
/// Bytes that a function's price calls a gigabyte, in its megabytes.
const MEGABYTES: f64 = 1024.0;

/// Quantities of one span of time; `weir bench` prints them per million events.
#[derive(Debug, Args)]
pub(super) struct CostArgs {
    /// Quantities as JSON, for example {"events": 1e6, "puts": 200}; - is standard input. Flags are added to it
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
    /// Write units of the table
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    write_units: f64,
    /// Read units of the table
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    read_units: f64,
    /// Gigabytes of objects, times months that they are kept
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    stored: f64,
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
    fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = match &self.from {
            None => Usage::default(),
            Some(file) => serde_json::from_str(&text(file)?).with_context(|| format!("quantities {}", file.display()))?,
        };
        usage.events += self.events;
        usage.puts += self.puts;
        usage.gets += self.gets;
        usage.write_units += self.write_units;
        usage.read_units += self.read_units;
        usage.stored_gigabyte_months += self.stored;
        usage.function_gigabyte_seconds += self.function_seconds * self.function_memory / MEGABYTES;
        usage.function_requests += self.invocations;
        Ok(usage)
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
    let bill = bill(&args.usage()?, &prices);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&bill)?);
    } else {
        print!("{}", table(&bill, &prices, args.per_hour));
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
        let usage = args.usage().unwrap();
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
        let error = format!("{:#}", args(&format!("cost --from {}", file.path().display())).usage().unwrap_err());
        assert!(error.contains("pust"), "{error}");
    }
}
