//! `weir late` and `weir dead`: the rows that are in no result, read from what the heads have committed.

use std::io::{ErrorKind, Write as _};

use weir_connectors::encode;
use weir_connectors::files::Format;
use weir_coordinator::claim;
use weir_state::Kept;

use super::named;
use crate::config::Config;
use crate::kept::{Stream, read};
use crate::open::Opened;

/// What is said where there are none.
const fn none(stream: Stream) -> &'static str {
    match stream {
        Stream::Late => "no late rows: every row committed so far came before its window had fired",
        Stream::Dead => "no dead letters: every row committed so far was decoded and has a place in time",
    }
}

/// Prints the rows of a stream on standard output, one JSON object a line, in the order (shard, epoch, row); what is to be said
/// about them goes to standard error.
///
/// - Requests: the heads, their lists of segments, one or two per segment. Memory: one segment.
///
/// # Errors
/// No such job, or something that was committed cannot be read.
pub(super) async fn print(config: &Config, name: &str, stream: Stream) -> anyhow::Result<()> {
    let (opened, loaded) = named::open(config, name).await?;
    let mut counted = 0;
    for shard in loaded.topology.all_shards() {
        let (head, _) = claim::read_head(opened.ctx.table.as_ref(), shard).await?;
        let kept = stream.find(opened.ctx.objects.as_ref(), &head).await?;
        counted += kept.rows;
        if print_rows(&opened, &kept).await? == Reader::Gone {
            return Ok(());
        }
    }
    if counted == 0 {
        eprintln!("{name}: {}", none(stream));
    }
    Ok(())
}

/// Who reads standard output.
#[derive(Debug, PartialEq, Eq)]
enum Reader {
    There,
    /// It has seen enough, as `head` does.
    Gone,
}

async fn print_rows(opened: &Opened, kept: &Kept) -> anyhow::Result<Reader> {
    for segment in &kept.segments {
        let batches = read(opened.ctx.objects.as_ref(), &opened.ctx.cache, segment).await?;
        let Some(first) = batches.first() else { continue };
        let lines = encode::encode(Format::Json, first.schema_ref(), &batches)?;
        match std::io::stdout().write_all(&lines) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Reader::Gone),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Reader::There)
}
