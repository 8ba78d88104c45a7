//! What the sinks of a run hold: rows that came, and of results that change those that count now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weir_plan::{Changes, JobPlan, SinkTable};

use super::given::CaseConnectors;
use super::rows;
use crate::changelog;
use crate::job::Loaded;
use crate::topology::Role;

/// Rows, counted.
pub(super) type Bag = BTreeMap<String, usize>;

/// What one step did to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Rows that came; of results that change, the step's changes, each with its `op` first.
    pub(super) came: Vec<String>,
    /// Of results that change, the rows that count after the step.
    pub(super) counting: Option<Vec<String>>,
}

/// Columns of `sink` with what happened to a row, as people write changes.
pub(super) fn schema_with_op(sink: &SinkTable) -> SchemaRef {
    let op = Arc::new(Field::new("op", DataType::Utf8, false));
    Arc::new(Schema::new(sink.schema.fields().iter().cloned().chain([op]).collect::<Vec<_>>()))
}

/// Changes as [`Seen::came`] has them, of rows with columns [`schema_with_op`].
pub(super) fn changes_as_written(rows: &RecordBatch) -> anyhow::Result<Vec<String>> {
    let last = rows.num_columns() - 1;
    let (ops, rows) = (ops(rows, last)?, rows.project(&(0..last).collect::<Vec<_>>())?);
    Ok(ops.iter().zip(rows::lines(&rows)?).map(|(op, row)| change(op, &row)).collect())
}

fn ops(rows: &RecordBatch, column: usize) -> anyhow::Result<Vec<String>> {
    let ops = rows.column(column).as_string_opt::<i32>().context("op is text")?;
    Ok((0..ops.len()).map(|row| ops.value(row).to_owned()).collect())
}

fn change(op: &str, row: &str) -> String {
    format!("{{\"op\":\"{op}\",{}", row.strip_prefix('{').unwrap_or(row))
}

/// The sinks of a run, followed step by step.
#[derive(Debug)]
pub(super) struct Results(BTreeMap<String, Sink>);

#[derive(Debug)]
struct Sink {
    table: SinkTable,
    /// Folders of its publishers, and how many of their lines were looked at.
    folders: Vec<(PathBuf, usize)>,
    /// By key (of retracted results by the whole row) the rows that count, and how often.
    counting: BTreeMap<String, (String, usize)>,
}

impl Results {
    pub(super) fn new(loaded: &Loaded, plan: &JobPlan, connectors: &CaseConnectors) -> Self {
        let mut sinks = BTreeMap::new();
        for stage in loaded.topology.stages.iter().filter(|stage| stage.role == Role::Publish) {
            let table = &plan.pipelines[stage.pipeline].sink;
            let empty = || Sink { table: table.clone(), folders: Vec::new(), counting: BTreeMap::new() };
            let sink: &mut Sink = sinks.entry(table.name.clone()).or_insert_with(empty);
            sink.folders.extend(loaded.topology.shards(stage.id).into_iter().map(|shard| (connectors.folder_of(shard), 0)));
        }
        Self(sinks)
    }

    /// What has come since it was last asked, by table.
    ///
    /// # Errors
    /// Changes that contradict each other.
    pub(super) fn look(&mut self) -> anyhow::Result<BTreeMap<String, Seen>> {
        let look = |(name, sink): (&String, &mut Sink)| {
            let seen = sink.look().with_context(|| format!("results in {name}"))?;
            Ok((name.clone(), seen))
        };
        self.0.iter_mut().map(look).collect()
    }
}

impl Sink {
    fn look(&mut self) -> anyhow::Result<Seen> {
        let mut came = Vec::new();
        for (folder, seen) in &mut self.folders {
            let lines = lines(folder)?;
            came.extend(lines.get(*seen..).context("rows that were there have gone")?.iter().cloned());
            *seen = lines.len();
        }
        if self.table.changes == Changes::Append {
            return Ok(Seen { came, counting: None });
        }
        let before = self.counting.clone();
        self.apply(&came.join("\n"))?;
        let counting = self.counting.values().flat_map(|(row, count)| std::iter::repeat_n(row.clone(), *count)).collect();
        Ok(Seen { came: net(&before, &self.counting), counting: Some(counting) })
    }

    /// Applies a changelog, line by line.
    fn apply(&mut self, changelog: &str) -> anyhow::Result<()> {
        let all = rows::read(&changelog::sink_schema(&self.table), changelog).map_err(anyhow::Error::msg)?;
        let columns = self.table.schema.fields().len();
        let shown = all.project(&(0..columns).collect::<Vec<_>>())?;
        let rows = rows::lines(&shown)?;
        let keys = match &self.table.changes {
            Changes::Upsert { key } => rows::lines(&shown.project(key)?)?,
            Changes::Append | Changes::Retract => rows.clone(),
        };
        for ((op, key), row) in ops(&all, columns)?.iter().zip(keys).zip(rows) {
            self.apply_one(op, key, row)?;
        }
        Ok(())
    }

    fn apply_one(&mut self, op: &str, key: String, row: String) -> anyhow::Result<()> {
        let by_key = matches!(self.table.changes, Changes::Upsert { .. });
        let earlier = self.counting.get(&key).map_or(0, |(_, count)| *count);
        match (op, by_key) {
            ("+I", true) => ensure!(earlier == 0, "+I {row}: its key has a row"),
            ("+U" | "-D", true) | ("-U" | "-D", false) => ensure!(earlier > 0, "{op} {row}: there is no row to change"),
            ("+I" | "+U", false) => {}
            _ => bail!("{op} {row}: no change of such a table"),
        }
        let count = match (op.starts_with('+'), by_key) {
            (true, true) => 1,
            (true, false) => earlier + 1,
            (false, _) => earlier - 1,
        };
        if count == 0 {
            self.counting.remove(&key);
        } else {
            self.counting.insert(key, (row, count));
        }
        Ok(())
    }
}

/// The changes that lead from one table to another, however many were made on the way.
fn net(before: &BTreeMap<String, (String, usize)>, after: &BTreeMap<String, (String, usize)>) -> Vec<String> {
    let mut changes = Vec::new();
    for (key, (row, count)) in after {
        let (earlier, earlier_count) = before.get(key).map_or((row, 0), |(row, count)| (row, *count));
        if earlier_count == 0 {
            changes.extend(std::iter::repeat_n(change("+I", row), *count));
        } else if earlier != row {
            changes.push(change("+U", row));
        } else if *count > earlier_count {
            changes.extend(std::iter::repeat_n(change("+I", row), *count - earlier_count));
        }
    }
    for (key, (row, count)) in before {
        let left = after.get(key).map_or(0, |(_, count)| *count);
        changes.extend(std::iter::repeat_n(change("-D", row), count.saturating_sub(left)));
    }
    changes
}

/// Lines of the files of a publisher, in the order in which they were written.
fn lines(folder: &Path) -> anyhow::Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        lines.extend(std::fs::read_to_string(&file)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// Rows of `after` that are not in `before`, each as often as it is more often there.
pub(super) fn minus(after: &[String], before: &[String]) -> Vec<String> {
    let mut counts = Bag::new();
    before.iter().for_each(|row| *counts.entry(row.clone()).or_default() += 1);
    let is_more = |row: &&String| match counts.get_mut(*row) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    after.iter().filter(is_more).cloned().collect()
}
