//! Random schemas, rows, disorder and queries of the supported set: the stream's result is the batch's, at any parallelism and however often
//! the process is killed.
//!
//! `WEIR_COUNT_QUERIES=1000 cargo test --release random_queries` tries more; a failure prints its seed and its script.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use datafusion::prelude::{JsonReadOptions, ParquetReadOptions, SessionContext};
use serde_json::{Value, json};

use crate::killing::killed_at_work;
use crate::support::{Bag, Case, assert_ok, assert_same, bag};

/// Numbers that follow from the seed alone.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let count = u64::try_from(all.len()).expect("a count");
        &all[usize::try_from(self.below(count)).expect("a place")]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Int,
    BigInt,
    Double,
    Decimal,
    Text,
    Bool,
}

impl Type {
    const ALL: [Self; 6] = [Self::Int, Self::BigInt, Self::Double, Self::Decimal, Self::Text, Self::Bool];

    fn sql(self) -> &'static str {
        match self {
            Self::Int => "INT",
            Self::BigInt => "BIGINT",
            Self::Double => "DOUBLE",
            Self::Decimal => "DECIMAL(10, 2)",
            Self::Text => "STRING",
            Self::Bool => "BOOLEAN",
        }
    }

    fn is_number(self) -> bool {
        !matches!(self, Self::Text | Self::Bool)
    }

    /// Few values, so that groups have several rows; doubles are multiples of 1/64, so that sums are exact.
    fn value(self, draw: &mut Draw) -> Value {
        let n = i64::try_from(draw.below(23)).expect("small") - 7;
        match self {
            _ if draw.one_in(8) => Value::Null,
            Self::Int | Self::BigInt => json!(n),
            Self::Double => json!(f64::from(i32::try_from(n).expect("small")) / 64.0),
            Self::Decimal => serde_json::from_str(&format!("{n}.{:02}", draw.below(100))).expect("a number"),
            Self::Text => {
                json!(["", "a", "Bee", "çé", "with \"quotes\", and a comma"][usize::try_from(draw.below(5)).expect("small")])
            }
            Self::Bool => json!(draw.one_in(2)),
        }
    }
}

/// What becomes of a query's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    Stateless,
    Window,
    EarlyWindow,
    Updating,
}

/// An aggregate of the results of another.
struct Outer {
    /// Result columns, keys first: name, type, expression over the columns of the inner results.
    selected: Vec<(String, String, String)>,
    keys: usize,
    having: String,
}

impl Outer {
    /// - `inner`: name and type of each column.
    fn new(inner: &[(String, String)], draw: &mut Draw) -> Self {
        let mut selected: Vec<(String, String, String)> = Vec::new();
        for n in 0..1 + draw.below(2) {
            let (name, data_type) = draw.of(inner).clone();
            // A key is told apart by its bits.
            if data_type != "DOUBLE" && !selected.iter().any(|(_, _, known)| *known == name) {
                selected.push((format!("k{n}"), data_type, name));
            }
        }
        let keys = selected.len();
        for n in 0..1 + draw.below(4) {
            let (name, data_type) = draw.of(inner).clone();
            let is_whole = data_type == "BIGINT" || data_type == "INT";
            let (result, call) = match draw.below(6) {
                0 => ("BIGINT".to_owned(), "COUNT(*)".to_owned()),
                1 if is_whole => ("BIGINT".to_owned(), format!("SUM({name})")),
                1 if data_type.starts_with("DECIMAL") => ("DECIMAL(38, 2)".to_owned(), format!("SUM({name})")),
                2 if data_type != "BOOLEAN" => (data_type, format!("MIN({name})")),
                3 if data_type != "BOOLEAN" => (data_type, format!("MAX({name})")),
                4 => ("BIGINT".to_owned(), format!("COUNT(DISTINCT {name})")),
                5 if is_whole => ("BIGINT".to_owned(), format!("SUM(DISTINCT {name})")),
                _ => ("BIGINT".to_owned(), format!("COUNT({name})")),
            };
            let (filter, _) = draw.of(inner).clone();
            let call = if draw.one_in(4) { format!("{call} FILTER (WHERE {filter} IS NOT NULL)") } else { call };
            selected.push((format!("a{n}"), result, call));
        }
        let having = if draw.one_in(3) { format!("HAVING COUNT(*) % {} <> 0", 2 + draw.below(3)) } else { String::new() };
        Self { selected, keys, having }
    }

    /// The query over `inner`, which names its columns.
    fn query(&self, inner: &str, named: bool) -> String {
        let name = |(name, _, expr): &(String, String, String)| if named { format!("{expr} AS {name}") } else { expr.clone() };
        let selected: Vec<_> = self.selected.iter().map(name).collect();
        let keys: Vec<_> = self.selected[..self.keys].iter().map(|(_, _, expr)| expr.clone()).collect();
        format!("SELECT {} FROM ({inner}) AS inner_results GROUP BY {} {}", selected.join(", "), keys.join(", "), self.having)
    }
}

/// A random job, and the same as a batch.
struct Random {
    shape: Shape,
    columns: Vec<(String, Type)>,
    disorder_seconds: u64,
    window_seconds: u64,
    /// Result columns: name, type, expression.
    selected: Vec<(String, String, String)>,
    keys: Vec<String>,
    condition: String,
    having: String,
    /// What is done with the results of a window or of a table by key.
    outer: Option<Outer>,
}

impl Random {
    fn new(draw: &mut Draw) -> Self {
        let shape =
            *draw.of(&[Shape::Stateless, Shape::Window, Shape::Window, Shape::EarlyWindow, Shape::Updating, Shape::Updating]);
        let columns: Vec<_> = (0..2 + draw.below(4)).map(|n| (format!("c{n}"), *draw.of(&Type::ALL))).collect();
        let mut job = Self {
            shape,
            disorder_seconds: draw.below(6),
            window_seconds: 1 + draw.below(20),
            selected: Vec::new(),
            keys: Vec::new(),
            condition: predicate(&columns, draw).map(|condition| format!("WHERE {condition}")).unwrap_or_default(),
            having: String::new(),
            outer: None,
            columns,
        };
        if shape == Shape::Stateless {
            for n in 0..1 + draw.below(3) {
                let (data_type, expr) = expression(&job.columns, draw);
                job.selected.push((format!("r{n}"), data_type, expr));
            }
            return job;
        }
        let least = u64::from(shape == Shape::Updating);
        for n in 0..least + draw.below(4) {
            let (name, data_type) = draw.of(&job.columns).clone();
            if !job.keys.contains(&name) {
                job.selected.push((format!("k{n}"), data_type.sql().to_owned(), name.clone()));
                job.keys.push(name);
            }
        }
        for n in 0..1 + draw.below(4) {
            let (data_type, expr) = aggregate(&job.columns, draw);
            job.selected.push((format!("a{n}"), data_type, expr));
        }
        if draw.one_in(3) {
            job.having = format!("HAVING COUNT(*) % {} <> 0", 2 + draw.below(3));
        }
        if matches!(shape, Shape::Window | Shape::Updating) && draw.one_in(2) {
            let outer = Outer::new(&job.given(), draw);
            job.outer = (outer.keys > 0).then_some(outer);
        }
        job
    }

    fn is_window(&self) -> bool {
        matches!(self.shape, Shape::Window | Shape::EarlyWindow)
    }

    /// Columns of its results, without the outer aggregate.
    fn given(&self) -> Vec<(String, String)> {
        let window = self.is_window().then(|| ("w".to_owned(), "TIMESTAMP(3)".to_owned()));
        let selected = self.selected.iter().map(|(name, data_type, _)| (name.clone(), data_type.clone()));
        window.into_iter().chain(selected).collect()
    }

    /// Columns of the sink, and how many of them, the first, are its key.
    fn sink(&self) -> (Vec<(String, String)>, usize) {
        match &self.outer {
            Some(outer) => {
                (outer.selected.iter().map(|(name, data_type, _)| (name.clone(), data_type.clone())).collect(), outer.keys)
            }
            None => (self.given(), self.keys.len() + usize::from(self.is_window())),
        }
    }

    fn changes(&self) -> bool {
        self.outer.is_some() || matches!(self.shape, Shape::EarlyWindow | Shape::Updating)
    }

    fn rows(&self, draw: &mut Draw) -> String {
        let count = 1 + draw.below(3_000);
        let mut text = String::new();
        for row in 0..count {
            let mut object = serde_json::Map::new();
            for (name, data_type) in &self.columns {
                object.insert(name.clone(), data_type.value(draw));
            }
            // Ten rows a second, each as much too late as is declared at most.
            let millis = 100_000 + row * 100 - draw.below(self.disorder_seconds * 1_000 + 1);
            object.insert(
                "t".to_owned(),
                json!(format!(
                    "2026-01-01T{:02}:{:02}:{:02}.{:03}",
                    millis / 3_600_000,
                    millis / 60_000 % 60,
                    millis / 1_000 % 60,
                    millis % 1_000
                )),
            );
            writeln!(text, "{}", Value::Object(object)).expect("text is written");
        }
        text
    }

    fn script(&self, case: &Case) -> String {
        let declared = |columns: &[(String, String)]| {
            columns.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect::<Vec<_>>().join(", ")
        };
        let source: Vec<_> = self.columns.iter().map(|(name, data_type)| (name.clone(), data_type.sql().to_owned())).collect();
        let (sink, key) = self.sink();
        let key: Vec<_> = sink[..key].iter().map(|(name, _)| name.clone()).collect();
        let named = |(name, _, expr): &(String, String, String)| match self.outer {
            Some(_) => format!("{expr} AS {name}"),
            None => expr.clone(),
        };
        let mut selected: Vec<_> = self.selected.iter().map(named).collect();
        let mut grouped = self.keys.clone();
        let is_window = self.is_window();
        if is_window {
            selected.insert(0, "window_start AS w".to_owned());
            grouped.splice(0..0, ["window_start".to_owned(), "window_end".to_owned()]);
        }
        let primary_key = if self.changes() { format!(", PRIMARY KEY ({}) NOT ENFORCED", key.join(", ")) } else { String::new() };
        let from = if is_window {
            format!("TABLE(TUMBLE(TABLE src, DESCRIPTOR(t), INTERVAL '{}' SECOND))", self.window_seconds)
        } else {
            "src".to_owned()
        };
        let group = if self.shape == Shape::Stateless { String::new() } else { format!("GROUP BY {}", grouped.join(", ")) };
        let emit = if self.shape == Shape::EarlyWindow { "EMIT EVERY INTERVAL '1' MILLISECOND" } else { "" };
        let lateness = if self.shape == Shape::EarlyWindow { ", 'allowed-lateness' = '2 s'" } else { "" };
        let query = format!("SELECT {} FROM {from} {} {group} {}", selected.join(", "), self.condition, self.having);
        let query = self.outer.as_ref().map_or(query.clone(), |outer| outer.query(&query, false));
        format!(
            "CREATE TABLE src ({}, t TIMESTAMP(3), WATERMARK FOR t AS t - INTERVAL '{}' SECOND)
               WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json'{lateness});
             CREATE TABLE res ({}{primary_key}) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'parquet');
             INSERT INTO res {query} {emit};",
            declared(&source),
            self.disorder_seconds,
            case.path("src.json").display(),
            declared(&sink),
            case.output().display(),
        )
    }

    /// The same as one batch; what Weir calls a table of changes is then the present result of each key.
    async fn batch(&self, case: &Case) -> Bag {
        let context = SessionContext::new();
        let arrow_type = |data_type: Type| match data_type {
            Type::Int => "INT",
            Type::Text => "VARCHAR",
            other => other.sql(),
        };
        let columns: Vec<_> = self.columns.iter().map(|(name, data_type)| format!("{name} {}", arrow_type(*data_type))).collect();
        let empty = context.sql(&format!("CREATE TABLE shape ({}, t TIMESTAMP(3))", columns.join(", "))).await.expect("a schema");
        empty.collect().await.expect("a table");
        let schema = context.table("shape").await.expect("a table").schema().as_arrow().clone();
        let options = JsonReadOptions::default().schema(&schema).file_extension("json");
        context.register_json("src", case.path("src.json").display().to_string(), options).await.expect("input registers");
        let window = format!("CAST(date_bin(INTERVAL '{} second', t) AS TIMESTAMP(3))", self.window_seconds);
        let mut selected: Vec<_> = self.selected.iter().map(|(name, _, expr)| format!("{expr} AS {name}")).collect();
        let mut grouped = self.keys.clone();
        if self.is_window() {
            selected.insert(0, format!("{window} AS w"));
            grouped.insert(0, window);
        }
        let group = if self.shape == Shape::Stateless { String::new() } else { format!("GROUP BY {}", grouped.join(", ")) };
        let sql = format!("SELECT {} FROM src {} {group} {}", selected.join(", "), self.condition, self.having);
        let sql = self.outer.as_ref().map_or(sql.clone(), |outer| outer.query(&sql, true));
        bag(&context.sql(&sql).await.expect("batch plans").collect().await.expect("batch runs"))
    }

    /// What the sink holds; of a changelog the newest row of each key.
    async fn found(&self, output: &Path) -> Bag {
        if std::fs::read_dir(output).map_or(0, |files| files.flatten().filter(|file| file.path().is_file()).count()) == 0 {
            return Bag::new();
        }
        let context = SessionContext::new();
        context
            .register_parquet("res", format!("{}/", output.display()), ParquetReadOptions::default())
            .await
            .expect("sink registers");
        let (sink, key) = self.sink();
        let columns: Vec<_> = sink.into_iter().map(|(name, _)| name).collect();
        let key = &columns[..key];
        let sql = if self.changes() {
            format!(
                "SELECT {0} FROM (SELECT *, row_number() OVER (PARTITION BY {1} ORDER BY epoch DESC) AS place FROM res) WHERE place = 1 AND op <> '-D'",
                columns.join(", "),
                key.join(", ")
            )
        } else {
            format!("SELECT {} FROM res", columns.join(", "))
        };
        bag(&context.sql(&sql).await.expect("sink plans").collect().await.expect("sink reads"))
    }
}

/// A condition on some column, or none.
fn predicate(columns: &[(String, Type)], draw: &mut Draw) -> Option<String> {
    if draw.one_in(3) {
        return None;
    }
    let (name, data_type) = draw.of(columns).clone();
    let simple = match data_type {
        _ if draw.one_in(4) => format!("{name} IS NOT NULL"),
        Type::Text => format!("{name} <> 'a'"),
        Type::Bool => name,
        _ => format!("{name} {} {}", draw.of(&["<", ">=", "<>"]), draw.below(9)),
    };
    let another = if draw.one_in(2) { predicate(columns, draw) } else { None };
    Some(match another {
        Some(another) => format!("({simple} {} {another})", draw.of(&["AND", "OR"])),
        None => simple,
    })
}

/// A result of a row: type and expression.
fn expression(columns: &[(String, Type)], draw: &mut Draw) -> (String, String) {
    let (name, data_type) = draw.of(columns).clone();
    match data_type {
        Type::Text if draw.one_in(2) => ("STRING".to_owned(), format!("UPPER({name})")),
        Type::Text => ("STRING".to_owned(), format!("COALESCE({name}, 'none')")),
        Type::Bool => ("STRING".to_owned(), format!("CASE WHEN {name} THEN 'yes' ELSE 'other' END")),
        Type::BigInt => ("BIGINT".to_owned(), format!("{name} * 3 - 1")),
        other => (other.sql().to_owned(), name),
    }
}

/// An aggregate: type of its result and call.
fn aggregate(columns: &[(String, Type)], draw: &mut Draw) -> (String, String) {
    let (name, data_type) = draw.of(columns).clone();
    let (result, call) = match draw.below(7) {
        0 => ("BIGINT".to_owned(), "COUNT(*)".to_owned()),
        1 if data_type == Type::Decimal => ("DECIMAL(20, 2)".to_owned(), format!("SUM({name})")),
        1 if data_type == Type::Double => ("DOUBLE".to_owned(), format!("SUM({name})")),
        1 if data_type.is_number() => ("BIGINT".to_owned(), format!("SUM({name})")),
        2 if data_type == Type::Double => ("DOUBLE".to_owned(), format!("AVG({name})")),
        3 if data_type != Type::Bool => (data_type.sql().to_owned(), format!("MIN({name})")),
        4 if data_type != Type::Bool => (data_type.sql().to_owned(), format!("MAX({name})")),
        5 => ("BIGINT".to_owned(), format!("COUNT(DISTINCT {name})")),
        6 if data_type.is_number() && !matches!(data_type, Type::Decimal | Type::Double) => {
            ("BIGINT".to_owned(), format!("SUM(DISTINCT {name})"))
        }
        _ => ("BIGINT".to_owned(), format!("COUNT({name})")),
    };
    let filter = draw.one_in(3).then(|| predicate(columns, draw)).flatten();
    (result, filter.map_or(call.clone(), |filter| format!("{call} FILTER (WHERE {filter})")))
}

async fn try_one(seed: u64) {
    let mut draw = Draw(seed);
    let job = Random::new(&mut draw);
    let case = Case::new(1, 1);
    std::fs::write(case.path("src.json"), job.rows(&mut draw)).expect("rows");
    let script = job.script(&case);
    std::fs::write(case.script(), &script).expect("a script");
    let what = format!("seed {seed}, {:?}: {script}", job.shape);
    let mut kills = draw.below(3);
    while kills > 0 && !killed_at_work(&case, Duration::from_millis(draw.below(4)), &["--durability", "process"]).await {
        kills -= 1;
    }
    let parallelism = (1 + draw.below(5)).to_string();
    let arguments = ["--parallelism", &parallelism, "--commit-interval", "2ms", "--quiet", "--durability", "process"];
    let ran = case.run(&arguments).output().expect("weir starts");
    assert!(ran.status.success(), "{what}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert_ok(&ran);
    assert_same(&what, &job.found(&case.output()).await, &job.batch(&case).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_stream_to_the_batch_result() {
    let count = std::env::var("WEIR_COUNT_QUERIES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let first = std::env::var("WEIR_SIM_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + count {
        try_one(seed).await;
    }
}
