//! The plan in words: stages, operators, exchange keys, state, watermark and guarantee.

use std::fmt::Write;
use std::time::Duration;

use crate::changes::Changes;
use crate::job::{AggregateStage, Grouping, JobPlan, OnError, Pipeline, Sees, SinkTable};
use crate::types::type_name;

/// Describes `plan` for people; one block per INSERT.
#[must_use]
pub fn explain(plan: &JobPlan) -> String {
    let mut text = String::new();
    let mut stage = 0;
    for (index, pipeline) in plan.pipelines.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let written = pipeline_text(&mut text, index, pipeline, &mut stage);
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    text
}

fn pipeline_text(text: &mut String, index: usize, pipeline: &Pipeline, stage: &mut usize) -> std::fmt::Result {
    let source = &pipeline.source;
    let connector = |options: &std::collections::BTreeMap<String, String>| options.get("connector").cloned().unwrap_or_default();
    writeln!(text, "pipeline {index}: {} -> {}", source.name, pipeline.sink.name)?;
    writeln!(text, "  stage {stage}: lanes")?;
    let columns: Vec<&str> = source.projection.iter().map(|&column| source.schema.field(column).name().as_str()).collect();
    writeln!(text, "    source      {} ({}), reads {}", source.name, connector(&source.options), list(&columns))?;
    match &source.rowtime {
        Some(rowtime) => writeln!(text, "    watermark   {} - {}", rowtime.column, duration(rowtime.delay_micros))?,
        None => writeln!(text, "    watermark   none needed")?,
    }
    if source.on_error == OnError::DeadLetter {
        writeln!(text, "    on error    the row goes to the dead letters")?;
    }
    for line in pipeline.input.plan.display_indent().to_string().lines() {
        writeln!(text, "    fragment    {line}")?;
    }
    *stage += 1;
    for (number, aggregate) in pipeline.aggregates.iter().enumerate() {
        aggregate_text(text, aggregate, if number == 0 { "its lanes commit" } else { "the stage before commits" }, stage)?;
    }
    let sink = connector(&pipeline.sink.options);
    let guarantee = match sink.as_str() {
        "filesystem" => "exactly once: files appear when committed, and are finished by whoever comes after a crash",
        "jdbc" => "exactly once: the transaction that writes rows also writes which step they are of",
        "print" => "at least once: rows committed but not acknowledged are printed again after a crash",
        "blackhole" => "rows are counted and dropped where they are made; no publisher, no output segments",
        _ => "as the connector says",
    };
    if sink != "blackhole" {
        writeln!(text, "  stage {stage}: publisher")?;
        *stage += 1;
    }
    writeln!(text, "    sink        {} ({sink}), {guarantee}", pipeline.sink.name)?;
    if let Some(rows) = changes_text(&pipeline.sink) {
        writeln!(text, "    rows        {rows}")?;
    }
    let columns: Vec<String> =
        pipeline.sink.schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
    writeln!(text, "    columns     {}", list(&columns))
}

/// What a row of the sink says of earlier ones; nothing where rows are only added.
fn changes_text(sink: &SinkTable) -> Option<String> {
    match &sink.changes {
        Changes::Append => None,
        Changes::Upsert { key } if key.is_empty() => Some("change".to_owned()),
        Changes::Upsert { key } => {
            let names: Vec<&str> = key.iter().map(|&place| sink.schema.field(place).name().as_str()).collect();
            Some(format!("change: the last of each key ({}) counts", list(&names)))
        }
        Changes::Retract => Some("change: each is taken back before another takes its place".to_owned()),
    }
}

/// - `when`: its rows come.
fn aggregate_text(text: &mut String, aggregate: &AggregateStage, when: &str, stage: &mut usize) -> std::fmt::Result {
    let keys: Vec<&str> = aggregate.keys.iter().map(|key| key.name().as_str()).collect();
    let named = if keys.is_empty() { "no key".to_owned() } else { list(&keys) };
    let (partial, state) = match aggregate.grouping {
        Grouping::Tumble { .. } => {
            (format!("(pane, {named})"), "panes: one partial per (pane, key), constant size each".to_owned())
        }
        Grouping::Updating { ttl, .. } => {
            (format!("({named})"), format!("keyed table: one partial per key, constant size each, {}", kept(ttl)))
        }
    };
    let values = if aggregate.sets.is_empty() { "" } else { "; beside it a row per distinct value" };
    writeln!(text, "    aggregate   partial per {partial}")?;
    for set in &aggregate.sets {
        let columns: Vec<&str> = keys.iter().copied().chain([set.text.as_str()]).collect();
        let columns = list(&columns);
        match aggregate.retracted {
            Some(_) => writeln!(text, "    values      one row per ({columns}), with the number of rows that have it")?,
            None => {
                let conditions = set.conditions.len();
                writeln!(text, "    distinct    one row per ({columns}), a bit for each of its {conditions} conditions")?;
            }
        }
    }
    writeln!(text, "    exchange    by key group of ({})", list(&keys))?;
    writeln!(text, "  stage {stage}: merge")?;
    grouping_text(text, aggregate.grouping, when)?;
    for aggregate in &aggregate.aggregates {
        writeln!(text, "    result      {} = {}", aggregate.name, aggregate.text)?;
    }
    writeln!(text, "    state       {state}{values}")?;
    if let Some(condition) = &aggregate.condition {
        for line in condition.plan.display_indent().to_string().lines() {
            writeln!(text, "    condition   {line}")?;
        }
    }
    for line in aggregate.output.plan.display_indent().to_string().lines() {
        writeln!(text, "    fragment    {line}")?;
    }
    *stage += 1;
    Ok(())
}

fn grouping_text(text: &mut String, grouping: Grouping, when: &str) -> std::fmt::Result {
    match grouping {
        Grouping::Tumble { size_micros, offset_micros, emit } => {
            let offset = if offset_micros == 0 { String::new() } else { format!(", offset {}", duration(offset_micros)) };
            writeln!(text, "    window      TUMBLE {}{offset}; fires when the watermark passes its end", duration(size_micros))?;
            if let Some(every) = emit.every_micros {
                writeln!(text, "    early       every {}, the results that have changed", duration(every))?;
            }
            if emit.lateness_micros > 0 {
                writeln!(
                    text,
                    "    late        rows up to {} after its end, each giving its result anew",
                    duration(emit.lateness_micros)
                )?;
            }
            Ok(())
        }
        Grouping::Updating { sees: Sees::After, .. } => {
            writeln!(text, "    updates     a key's new result whenever {when}")
        }
        Grouping::Updating { sees: Sees::BeforeAndAfter, .. } => {
            writeln!(text, "    updates     a key's old and new result whenever {when}")
        }
    }
}

/// How long a key is kept.
fn kept(ttl: Option<Duration>) -> String {
    let micros = |ttl: Duration| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
    ttl.map_or_else(|| "for ever".to_owned(), |ttl| format!("until no row of it has come for {}", duration(micros(ttl))))
}

fn list<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ") }
}

fn duration(micros: i64) -> String {
    match micros {
        0 => "0 s".to_owned(),
        m if m % 3_600_000_000 == 0 => format!("{} h", m / 3_600_000_000),
        m if m % 60_000_000 == 0 => format!("{} min", m / 60_000_000),
        m if m % 1_000_000 == 0 => format!("{} s", m / 1_000_000),
        m if m % 1_000 == 0 => format!("{} ms", m / 1_000),
        m => format!("{m} us"),
    }
}
