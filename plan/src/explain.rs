//! The plan in words: stages, operators, exchange keys, state, watermark and guarantee.

use std::fmt::Write;

use crate::job::{JobPlan, OnError, Pipeline, WindowStage};
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
    if let Some(window) = &pipeline.window {
        window_text(text, window, stage)?;
    }
    let sink = connector(&pipeline.sink.options);
    let guarantee = match sink.as_str() {
        "filesystem" => "exactly once: files appear when committed, and are finished by whoever comes after a crash",
        "print" => "at least once: rows committed but not acknowledged are printed again after a crash",
        "blackhole" => "rows are counted and dropped where they are made; no publisher, no output segments",
        _ => "as the connector says",
    };
    if sink != "blackhole" {
        writeln!(text, "  stage {stage}: publisher")?;
        *stage += 1;
    }
    writeln!(text, "    sink        {} ({sink}), {guarantee}", pipeline.sink.name)?;
    let columns: Vec<String> =
        pipeline.sink.schema.fields().iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
    writeln!(text, "    columns     {}", list(&columns))
}

fn window_text(text: &mut String, window: &WindowStage, stage: &mut usize) -> std::fmt::Result {
    let keys: Vec<&str> = window.keys.iter().map(|key| key.name().as_str()).collect();
    writeln!(text, "    aggregate   partial per (pane, {})", if keys.is_empty() { "no key".to_owned() } else { list(&keys) })?;
    writeln!(text, "    exchange    by key group of ({})", list(&keys))?;
    writeln!(text, "  stage {stage}: merge")?;
    let offset = if window.offset_micros == 0 { String::new() } else { format!(", offset {}", duration(window.offset_micros)) };
    writeln!(text, "    window      TUMBLE {}{offset}; fires when the watermark passes its end", duration(window.size_micros))?;
    for aggregate in &window.aggregates {
        writeln!(text, "    result      {} = {}", aggregate.name, aggregate.text)?;
    }
    writeln!(text, "    state       panes: one partial per (pane, key), constant size each")?;
    for line in window.output.plan.display_indent().to_string().lines() {
        writeln!(text, "    fragment    {line}")?;
    }
    *stage += 1;
    Ok(())
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
