//! A batch as people read it: its recipe, what it read, made and changed, and whether that is what was committed.

use std::fmt::Write;

use datafusion::arrow::util::pretty::pretty_format_batches;
use weir_model::{Activity, CommitEntry, Epoch, Head, InputCut, Inputs, SegmentKind, SegmentRef, Watermark};

use super::super::live::{count, shown_time};
use crate::job::Loaded;
use crate::topology::Role;
use crate::worker::rerun::{Change, Input, Origin, Rerun, Sample, StateChange};

/// Windows that are listed; of more, how many there are.
const WINDOWS_MAX: usize = 8;

/// Kinds of segments that a batch makes.
const MADE: [SegmentKind; 5] =
    [SegmentKind::Exchange, SegmentKind::Behind, SegmentKind::Output, SegmentKind::Late, SegmentKind::Dead];

/// What a shard is called.
pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Lane => "lane",
        Role::Merge => "merge shard",
        Role::Publish => "publisher",
    }
}

/// A batch that was run again, and what was committed of it.
///
/// # Errors
/// Rows that cannot be shown.
pub(super) fn batch(loaded: &Loaded, (head, of): (&Head, Role), entry: &CommitEntry, rerun: &Rerun) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(text, "{}  {}  {}  epoch {} of {}", loaded.name, head.shard, role(of), entry.epoch, head.epoch)?;
    recipe(&mut text, entry)?;
    for Input { from, rows } in &rerun.inputs {
        let name = match from {
            Origin::Shard(shard, kind) => format!("{shard} {}", kind_name(*kind)),
            Origin::Source => "source".to_owned(),
        };
        sample(&mut text, "read", &name, rows, None)?;
    }
    for kind in MADE {
        let made = rerun.outputs.iter().find(|(made, _)| *made == kind).map(|(_, rows)| rows);
        let committed = entry.segment(kind).map(SegmentRef::rows);
        if made.is_some() || committed.is_some() {
            let nothing = Sample::new(0);
            sample(&mut text, "made", kind_name(kind), made.unwrap_or(&nothing), Some(committed.unwrap_or(0)))?;
        }
    }
    if let Some(change) = &rerun.state {
        state(&mut text, change)?;
    }
    let committed = entry.recipe.digest;
    let verdict = if rerun.differs.is_some() { format!("{committed:016x} was committed") } else { "as committed".to_owned() };
    writeln!(text, "digest {:016x}, {verdict}", rerun.digest)?;
    Ok(text)
}

/// What a publisher says instead.
pub(super) fn publisher(head: &Head, epoch: Epoch, entry: Option<&CommitEntry>) -> String {
    let mut lines = vec![format!(
        "{} is a publisher: it carries rows to the sink, which is no computation to replay. Its commits name steps and acknowledge them.",
        head.shard
    )];
    match entry.map(|entry| &entry.recipe.inputs) {
        Some(Inputs::Segments(cuts)) if !cuts.is_empty() => {
            let cuts: Vec<String> = cuts.iter().map(|cut| format!("{} of {}", epochs(cut), cut.from)).collect();
            lines.push(format!("Epoch {epoch} of {} acknowledged {}.", head.epoch, cuts.join(", ")));
        }
        Some(_) => lines.push(format!("Epoch {epoch} of {} acknowledged nothing: it named a step.", head.epoch)),
        None => lines.push(format!("The entry of epoch {epoch} of {} was deleted.", head.epoch)),
    }
    lines.push(match head.publish.as_ref().map(|publish| (publish, &publish.pending)) {
        Some((_, Some(step))) => format!(
            "Its present step is number {}: {} rows to {}, named and not acknowledged yet.",
            step.number,
            count(step.rows),
            if step.file.is_empty() { "standard output" } else { &step.file }
        ),
        Some((publish, None)) => format!("Its last step was number {}; it is acknowledged.", publish.file_number),
        None => "It has named no step yet.".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn recipe(text: &mut String, entry: &CommitEntry) -> std::fmt::Result {
    let recipe = &entry.recipe;
    let activity = match entry.activity {
        Activity::Active => "active",
        Activity::Idle => "idle",
        Activity::Joining => "joining: not idle any more, and not told yet how far the windows are",
        Activity::Closed => "closed",
    };
    writeln!(text, "  commit     {}, generation {}", entry.commit, entry.generation)?;
    writeln!(text, "  plan       {}, build {}", recipe.plan, recipe.build)?;
    writeln!(text, "  now        {}", exact_time(Watermark(recipe.now_micros)))?;
    writeln!(text, "  watermark  {} -> {}", exact_time(recipe.watermark_before), exact_time(recipe.watermark_after))?;
    writeln!(text, "  activity   {activity}")?;
    if recipe.early {
        writeln!(text, "  early      results of open windows, as far as they had changed")?;
    }
    if recipe.as_rows {
        writeln!(text, "  joining    all rows travelled as rows")?;
    }
    match &recipe.inputs {
        Inputs::Reference { from, upto } => {
            writeln!(text, "  input      split {} at {} to split {} at {}", from.split, from.at, upto.split, upto.at)
        }
        Inputs::Segments(cuts) if cuts.is_empty() => writeln!(text, "  input      nothing"),
        Inputs::Segments(cuts) => cuts.iter().try_for_each(|cut| {
            writeln!(text, "  input      {} {}, watermark {}", cut.from, epochs(cut), exact_time(cut.watermark))
        }),
    }
}

/// `epoch 4` or `epochs 4 to 7`.
fn epochs(cut: &InputCut) -> String {
    let first = cut.after.next();
    if first >= cut.upto { format!("epoch {}", cut.upto) } else { format!("epochs {first} to {}", cut.upto) }
}

/// - `committed`: how many rows of the kind were.
fn sample(text: &mut String, verb: &str, name: &str, rows: &Sample, committed: Option<u64>) -> anyhow::Result<()> {
    let shown: u64 = rows.first.iter().map(|batch| batch.num_rows() as u64).sum();
    let first = if shown > 0 && shown < rows.rows { format!(", the first {shown}") } else { String::new() };
    let other = committed.filter(|committed| *committed != rows.rows);
    let other = other.map_or_else(String::new, |committed| format!("; {} were committed", count(committed)));
    let noun = if rows.rows == 1 { "row" } else { "rows" };
    writeln!(text, "{verb} {name}: {} {noun}{first}{other}", count(rows.rows))?;
    if shown > 0 {
        writeln!(text, "{}", pretty_format_batches(&rows.first)?)?;
    }
    Ok(())
}

fn state(text: &mut String, change: &StateChange) -> std::fmt::Result {
    let StateChange { checkpoint, replayed, windows, groups } = change;
    let from = if *checkpoint == Epoch(0) { "the beginning".to_owned() } else { format!("the checkpoint of epoch {checkpoint}") };
    let since = if *replayed == 1 { "1 batch".to_owned() } else { format!("{replayed} batches") };
    writeln!(text, "state from {from} and {since} since")?;
    let Change { opened, updated, closed, left } = windows;
    if [opened, updated, closed, left].iter().any(|windows| !windows.is_empty()) {
        writeln!(text, "  windows  opened {}", listed(opened))?;
        writeln!(text, "           updated {}", listed(updated))?;
        writeln!(text, "           closed {}", listed(closed))?;
        writeln!(text, "           open {}", listed(left))?;
    }
    let number = |number: usize| count(number as u64);
    let [opened, updated, closed, left] = [groups.opened, groups.updated, groups.closed, groups.left].map(number);
    writeln!(text, "  groups   opened {opened}, updated {updated}, closed {closed}, in memory {left}")
}

/// How many windows, and when they start.
fn listed(starts: &[i64]) -> String {
    let times = starts.iter().take(WINDOWS_MAX).map(|start| exact_time(Watermark(*start)));
    let mut times: Vec<String> = times.collect();
    if starts.len() > WINDOWS_MAX {
        times.push("..".to_owned());
    }
    let separator = if times.is_empty() { "" } else { ": " };
    format!("{}{separator}{}", starts.len(), times.join(", "))
}

/// UTC, with the fraction of a second if there is one.
fn exact_time(watermark: Watermark) -> String {
    let text = shown_time(watermark);
    let fraction = watermark.0.rem_euclid(1_000_000);
    if fraction == 0 || !text.contains(' ') { text } else { format!("{text}.{fraction:06}") }
}

const fn kind_name(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Exchange => "partials",
        SegmentKind::Behind => "rows behind",
        SegmentKind::Output => "results",
        SegmentKind::Late => "late rows",
        SegmentKind::Dead => "dead letters",
        SegmentKind::Checkpoint => "checkpoint",
        SegmentKind::Events => "events",
        SegmentKind::Ledger => "ledger",
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{JobId, ShardId, ShardKey, StageId};

    use super::*;

    #[test]
    fn times_keep_their_fraction_and_windows_their_number() {
        assert_eq!(exact_time(Watermark(1_500_000)), "1970-01-01 00:00:01.500000");
        assert_eq!([Watermark(0), Watermark::NONE].map(exact_time), ["1970-01-01 00:00:00", "none"]);
        assert_eq!(listed(&[]), "0");
        assert_eq!(listed(&[0, 10_000_000]), "2: 1970-01-01 00:00:00, 1970-01-01 00:00:10");
        assert!(listed(&[0; 9]).starts_with("9: ") && listed(&[0; 9]).ends_with(", .."));
    }

    #[test]
    fn a_cut_is_told_by_its_first_and_last_epoch() {
        let from = ShardKey::new(JobId(1), StageId(0), ShardId(0));
        let cut = |after, upto| InputCut { from, after: Epoch(after), upto: Epoch(upto), watermark: Watermark::NONE };
        assert_eq!([epochs(&cut(3, 4)), epochs(&cut(3, 7))], ["epoch 4", "epochs 4 to 7"]);
    }

    #[test]
    fn a_publisher_says_that_there_is_nothing_to_replay() {
        let head = Head { epoch: Epoch(4), ..Head::new(ShardKey::new(JobId(1), StageId(2), ShardId(0))) };
        let said = publisher(&head, Epoch(2), None);
        assert!(
            said.starts_with("s002-00000 is a publisher") && said.contains("The entry of epoch 2 of 4 was deleted"),
            "{said}"
        );
        assert!(said.ends_with("It has named no step yet.\n"), "{said}");
    }
}
