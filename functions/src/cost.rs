//! Counted requests, bytes and function seconds in money: quantity times price, line by line, from a price file that can be replaced.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The price file that is built in.
pub const PRICES: &str = include_str!("cost/prices.toml");

/// Prices in one currency.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Prices {
    /// Where they hold, for people.
    pub region: String,
    /// Thousand objects stored, or prefixes listed.
    pub s3_put_per_thousand: f64,
    /// Thousand reads of objects or ranges.
    pub s3_get_per_thousand: f64,
    /// 10^9 bytes of objects kept for a month.
    pub s3_gigabyte_month: f64,
    /// Million write request units.
    pub dynamodb_write_units_per_million: f64,
    /// Million read request units.
    pub dynamodb_read_units_per_million: f64,
    /// 10^9 bytes of rows kept for a month.
    pub dynamodb_gigabyte_month: f64,
    /// Million requests for records of the table's stream, by others than functions.
    pub stream_reads_per_million: f64,
    /// 2^30 bytes of a function's memory for a second.
    pub lambda_gigabyte_second: f64,
    /// Million invocations.
    pub lambda_requests_per_million: f64,
    /// Million requests to a queue.
    pub sqs_requests_per_million: f64,
}

/// What was used, all in the same span of time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Usage {
    /// Events read; what the total is divided by.
    pub events: f64,
    /// Objects stored.
    pub puts: f64,
    /// Reads of objects or ranges.
    pub gets: f64,
    /// Prefixes listed.
    pub lists: f64,
    /// 10^9 bytes of objects, times months kept.
    pub stored_gigabyte_months: f64,
    /// Write request units.
    pub write_units: f64,
    /// Read request units.
    pub read_units: f64,
    /// 10^9 bytes of rows, times months kept.
    pub table_gigabyte_months: f64,
    /// Requests for records of the table's stream, by others than functions.
    pub stream_reads: f64,
    /// 2^30 bytes of functions' memory, times seconds.
    pub function_gigabyte_seconds: f64,
    /// Invocations.
    pub function_requests: f64,
    /// Requests to the queue.
    pub queue_requests: f64,
}

/// Memory of a function that gets one processor, in gigabytes of 2^30 bytes: AWS Lambda shares processors out by memory.
pub const GIGABYTES_PER_CPU: f64 = 1_769.0 / 1_024.0;

/// Figure of a row that says what an idle hour takes: the seconds that were measured.
pub const IDLE_SECONDS: &str = "idle-seconds";

/// A row of a measurement: what `weir bench --json` prints and `weir cost --from` reads.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Measured {
    /// What was measured.
    pub name: String,
    /// What it took; of an hour if it is idle, when there are no events.
    pub usage: Usage,
    /// Other figures, by name and unit.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
}

impl Measured {
    /// A row with these figures.
    pub fn new(name: impl Into<String>, usage: Usage, figures: &[(&str, f64)]) -> Self {
        Self { name: name.into(), usage, figures: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect() }
    }

    /// Whether it says what an hour takes in which nothing happens.
    #[must_use]
    pub fn is_of_an_hour(&self) -> bool {
        self.figures.contains_key(IDLE_SECONDS)
    }
}

/// One line of a bill: `money = quantity / per * price`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What it is for.
    pub item: &'static str,
    /// How much of it.
    pub quantity: f64,
    /// What the price is for: this many.
    pub per: f64,
    /// Price of that many.
    pub price: f64,
    /// What it costs.
    pub money: f64,
}

/// A bill.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bill {
    /// Its lines; one for each price.
    pub lines: Vec<Line>,
    /// Their sum.
    pub total: f64,
    /// For a million events; none if there were no events.
    pub per_million_events: Option<f64>,
}

/// What `usage` costs.
#[must_use]
pub fn bill(usage: &Usage, prices: &Prices) -> Bill {
    let line = |item, quantity: f64, per: f64, price: f64| Line { item, quantity, per, price, money: quantity / per * price };
    let lines = vec![
        line("objects: PUT, LIST", usage.puts + usage.lists, 1e3, prices.s3_put_per_thousand),
        line("objects: GET", usage.gets, 1e3, prices.s3_get_per_thousand),
        line("objects: GB-months", usage.stored_gigabyte_months, 1.0, prices.s3_gigabyte_month),
        line("table: write units", usage.write_units, 1e6, prices.dynamodb_write_units_per_million),
        line("table: read units", usage.read_units, 1e6, prices.dynamodb_read_units_per_million),
        line("table: GB-months", usage.table_gigabyte_months, 1.0, prices.dynamodb_gigabyte_month),
        line("table: stream reads", usage.stream_reads, 1e6, prices.stream_reads_per_million),
        line("functions: GB-seconds", usage.function_gigabyte_seconds, 1.0, prices.lambda_gigabyte_second),
        line("functions: requests", usage.function_requests, 1e6, prices.lambda_requests_per_million),
        line("queue: requests", usage.queue_requests, 1e6, prices.sqs_requests_per_million),
    ];
    let total = lines.iter().map(|line| line.money).sum::<f64>();
    let per_million_events = (usage.events > 0.0).then(|| total / usage.events * 1e6);
    Bill { lines, total, per_million_events }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_price_counts_for_its_unit() {
        let prices: Prices = toml::from_str(PRICES).unwrap();
        let usage = Usage {
            events: 2e6,
            puts: 900.0,
            gets: 10_000.0,
            lists: 100.0,
            stored_gigabyte_months: 2.0,
            write_units: 4e6,
            read_units: 8e6,
            table_gigabyte_months: 4.0,
            stream_reads: 5e6,
            function_gigabyte_seconds: 1e5,
            function_requests: 5e6,
            queue_requests: 1e6,
        };
        let bill = bill(&usage, &prices);
        let money: Vec<f64> = bill.lines.iter().map(|line| line.money).collect();
        let expected = [0.005, 0.004, 0.046, 2.5, 1.0, 1.0, 1.0, 1.33334, 1.0, 0.4];
        assert_eq!(money.len(), expected.len());
        for (found, expected) in money.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{money:?}");
        }
        assert!((bill.total - 8.28834).abs() < 1e-9 && (bill.per_million_events.unwrap() - 4.14417).abs() < 1e-9);
    }

    #[test]
    fn nothing_costs_nothing_and_an_unknown_price_is_refused() {
        let prices: Prices = toml::from_str(PRICES).unwrap();
        let bill = bill(&Usage::default(), &prices);
        assert_eq!((bill.total, bill.per_million_events), (0.0, None));
        let error = toml::from_str::<Prices>(&format!("{PRICES}\ns4-put = 1.0")).unwrap_err().to_string();
        assert!(error.contains("s4-put"), "{error}");
    }
}
