//! What the shards of one INSERT have set aside, as their heads count it.

use datafusion::arrow::datatypes::SchemaRef;
use weir_coordinator::jobs;
use weir_model::{Head, ShardKey};
use weir_state::KeptSegment;

use crate::context::Ctx;
use crate::dead_letter;
use crate::job::Loaded;
use crate::kept::Stream;
use crate::query::{late_columns, names};
use crate::topology::Role;

/// Rows of one kind that one INSERT has set aside.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) kind: Stream,
    /// The INSERT, by its sink's name, and its place in the plan.
    pub(super) sink: String,
    pub(super) pipeline: usize,
    /// Columns of the rows.
    pub(super) columns: SchemaRef,
    /// Where they lie, in the order (shard, epoch).
    pub(super) segments: Vec<(ShardKey, KeptSegment)>,
    pub(super) rows: u64,
}

/// Which INSERT has set rows aside, by the heads of its shards.
struct Counted {
    sink: String,
    pipeline: usize,
    heads: Vec<Head>,
    rows: u64,
}

/// Finds the rows of `kind`; `None` if there are none.
///
/// # Errors
/// No such sink, or several INSERTs have such rows and none is named; a list that cannot be read.
pub(super) async fn find(ctx: &Ctx, loaded: &Loaded, kind: Stream, sink: Option<&str>) -> anyhow::Result<Option<Aside>> {
    let Some(chosen) = choose(counted(ctx, loaded, kind).await?, kind, sink)? else { return Ok(None) };
    let mut segments = Vec::new();
    for head in &chosen.heads {
        let kept = kind.find(ctx.objects.as_ref(), head).await?;
        segments.extend(kept.segments.into_iter().map(|segment| (head.shard, segment)));
    }
    let columns = match kind {
        Stream::Late => late_columns(loaded, chosen.pipeline)?,
        Stream::Dead => dead_letter::schema(),
    };
    Ok(Some(Aside { kind, sink: chosen.sink, pipeline: chosen.pipeline, columns, segments, rows: chosen.rows }))
}

async fn counted(ctx: &Ctx, loaded: &Loaded, kind: Stream) -> anyhow::Result<Vec<Counted>> {
    let role = match kind {
        Stream::Late => Role::Merge,
        Stream::Dead => Role::Lane,
    };
    let mut found = Vec::new();
    for (pipeline, sink) in names(loaded).into_iter().enumerate() {
        let stages = loaded.topology.stages.iter().filter(|stage| stage.pipeline == pipeline && stage.role == role);
        let shards: Vec<ShardKey> = stages.flat_map(|stage| loaded.topology.shards(stage.id)).collect();
        let heads = jobs::heads(ctx.table.as_ref(), &shards).await?;
        let rows = heads.iter().map(|head| kind.counted(head)).sum();
        found.push(Counted { sink, pipeline, heads, rows });
    }
    Ok(found)
}

/// Two INSERTs that read one table set the same rows aside: never both at once.
fn choose(found: Vec<Counted>, kind: Stream, sink: Option<&str>) -> anyhow::Result<Option<Counted>> {
    if let Some(wanted) = sink {
        let known: Vec<String> = found.iter().map(|counted| counted.sink.clone()).collect();
        let chosen = found.into_iter().find(|counted| counted.sink == wanted);
        let near = weir_plan::nearest(wanted, known.iter().map(String::as_str));
        let hint = near.map_or_else(|| known.join(", "), |near| format!("did you mean {near}?"));
        let chosen = chosen.ok_or_else(|| anyhow::anyhow!("no INSERT of the job has sink {wanted}: {hint}"))?;
        return Ok((chosen.rows > 0).then_some(chosen));
    }
    let mut with_rows: Vec<Counted> = found.into_iter().filter(|counted| counted.rows > 0).collect();
    let sinks: Vec<&str> = with_rows.iter().map(|counted| counted.sink.as_str()).collect();
    anyhow::ensure!(
        with_rows.len() <= 1,
        "several INSERTs have {}, and those that read one table have the same: choose with --sink {}",
        kind.noun(),
        sinks.join(" or --sink ")
    );
    Ok(with_rows.pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(sink: &str, rows: u64) -> Counted {
        Counted { sink: sink.to_owned(), pipeline: 0, heads: Vec::new(), rows }
    }

    fn chosen(found: Vec<Counted>, sink: Option<&str>) -> Result<Option<String>, String> {
        let chosen = choose(found, Stream::Dead, sink).map_err(|error| error.to_string())?;
        Ok(chosen.map(|counted| counted.sink))
    }

    #[test]
    fn rows_that_two_inserts_have_set_aside_are_never_fed_twice() {
        let both = || vec![counted("hot", 2), counted("cold", 2)];
        assert!(chosen(both(), None).unwrap_err().contains("--sink hot or --sink cold"));
        assert_eq!(chosen(both(), Some("cold")), Ok(Some("cold".to_owned())));
        assert_eq!(chosen(vec![counted("hot", 0), counted("cold", 2)], None), Ok(Some("cold".to_owned())));
        assert_eq!(chosen(vec![counted("hot", 0), counted("cold", 2)], Some("hot")), Ok(None));
        assert!(chosen(both(), Some("colt")).unwrap_err().contains("did you mean cold?"));
    }
}
