//! Feeding parts: which of their rows are open, decoded, and appended under a key that says so.
//!
//! A part may be fed several times, each time other rows of it: the filter was another, or another build reads more. Each time has a key
//! of its own whose row names the rows taken. So what is open is what no key of the part names, and two runs at once cannot both take a
//! row: only one of them gets the next key.

use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::{Stream as Tallies, StreamExt, TryStreamExt, stream};
use weir_coordinator::streams;
use weir_ingest::{Appender, Lasts, Refusal, RequestKey, RowsRequest};
use weir_model::ShardKey;
use weir_model::stream::StreamRow;
use weir_state::KeptSegment;

use super::aside::Aside;
use super::condition::Condition;
use super::fit::Fit;
use super::part::{Part, RowSet};
use crate::context::Ctx;
use crate::kept;

/// Segments that are read ahead.
const SEGMENTS_AHEAD: usize = 4;
/// Parts under way: they share commits.
const PARTS_UNDER_WAY: usize = 16;
/// How long a part waits for a lane, or for a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const WAIT: Duration = Duration::from_millis(250);
/// Rows and reasons that a report shows.
const SHOWN_MAX: usize = 10;

/// Where rows go.
#[derive(Debug)]
pub(super) enum Way {
    Into(Appender),
    /// They are only counted and shown.
    Nowhere,
}

/// Feeds parts to a stream.
#[derive(Debug)]
pub(super) struct Feeder<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) stream: &'a StreamRow,
    pub(super) fit: Fit,
    pub(super) only: Option<Condition>,
    pub(super) way: Way,
}

/// What became of rows.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    pub(super) left_out: u64,
    pub(super) before: u64,
    pub(super) fed: u64,
    pub(super) unreadable: u64,
    /// The first rows fed; only where they go nowhere.
    pub(super) first: Vec<RecordBatch>,
    /// Why the first of the unreadable rows are.
    pub(super) reasons: Vec<String>,
}

impl Tally {
    pub(super) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.left_out += more.left_out;
        self.before += more.before;
        self.fed += more.fed;
        self.unreadable += more.unreadable;
        self.reasons.extend(more.reasons);
        self.reasons.truncate(SHOWN_MAX);
        for rows in more.first {
            let shown: usize = self.first.iter().map(RecordBatch::num_rows).sum();
            self.first.push(rows.slice(0, rows.num_rows().min(SHOWN_MAX - shown)));
        }
        self.first.retain(|rows| rows.num_rows() > 0);
    }
}

impl Feeder<'_> {
    /// Feeds all rows; a tally for each part, in no order.
    pub(super) fn feed<'a>(&'a self, aside: &'a Aside) -> impl Tallies<Item = anyhow::Result<Tally>> + 'a {
        let segments = stream::iter(&aside.segments).map(move |(shard, segment)| self.parts(aside, *shard, segment));
        let parts = segments.buffered(SEGMENTS_AHEAD).map_ok(|parts| stream::iter(parts.into_iter().map(anyhow::Ok)));
        parts.try_flatten().map_ok(move |part| self.part(part)).try_buffer_unordered(PARTS_UNDER_WAY)
    }

    async fn parts(&self, aside: &Aside, shard: ShardKey, segment: &KeptSegment) -> anyhow::Result<Vec<Part>> {
        let rows = kept::read(self.ctx.objects.as_ref(), &self.ctx.cache, segment).await?;
        let named = |rows: RecordBatch| RecordBatch::try_new(SchemaRef::clone(&aside.columns), rows.columns().to_vec());
        let rows = rows.into_iter().map(named).collect::<Result<Vec<_>, _>>()?;
        Ok(Part::split(aside.kind, shard, segment.epoch, &rows)?)
    }

    /// Feeds one part; again as long as it helps.
    async fn part(&self, part: Part) -> anyhow::Result<Tally> {
        let began = self.ctx.clock.monotonic_micros();
        let until = began.saturating_add(i64::try_from(PATIENCE.as_micros()).unwrap_or(i64::MAX));
        loop {
            let refusal = match self.attempt(&part).await? {
                Ok(tally) => return Ok(tally),
                Err(refusal) => refusal,
            };
            let over = self.ctx.clock.monotonic_micros() > until;
            let name = &self.stream.name;
            match refusal {
                // Another run took rows of the part: some of them may be left.
                Refusal::KeyReused => continue,
                Refusal::Closed => anyhow::bail!("stream {name} is closed, it takes nothing any more: feed another"),
                Refusal::Busy if over => anyhow::bail!(
                    "other processes hold all {} lanes of stream {name}: stop one (weir serve, weir run --listen) and run this again, what was taken is remembered",
                    self.stream.lanes
                ),
                Refusal::Unavailable(why) if over => anyhow::bail!("{why}\nhelp: run this again, what was taken is remembered"),
                Refusal::Busy | Refusal::Unavailable(_) => self.ctx.clock.sleep(WAIT).await,
            }
        }
    }

    async fn attempt(&self, part: &Part) -> anyhow::Result<Result<Tally, Refusal>> {
        let count = part.rows.num_rows();
        let (taken, time) = self.taken(part).await?;
        let wanted = self.only.as_ref().map_or_else(|| Ok(RowSet::all(count)), |only| only.holds(&part.rows))?;
        let open = wanted.without(&taken);
        let fitted = self.fit.rows(&open.of(&part.rows)?)?;
        let fed = open.without_places(fitted.bad.iter().map(|(place, _)| *place));
        let reasons = fitted.bad.iter().take(SHOWN_MAX).map(|(_, reason)| reason.clone()).collect();
        let mut tally = Tally {
            rows: count as u64,
            left_out: count as u64 - wanted.len(),
            before: wanted.and(&taken).len(),
            fed: fed.len(),
            unreadable: fitted.bad.len() as u64,
            first: Vec::new(),
            reasons,
        };
        match &self.way {
            Way::Into(appender) if tally.fed > 0 => {
                let key = RequestKey { key: part.key(time), body: fed.to_text(), lasts: Lasts::Ever };
                let request = RowsRequest { batches: vec![fitted.rows], key: Some(key), room: None };
                Ok(appender.append(request).await.map(|receipt| tally.told(receipt.repeated)))
            }
            Way::Into(_) => Ok(Ok(tally)),
            Way::Nowhere => {
                tally.first = vec![fitted.rows];
                Ok(Ok(tally))
            }
        }
    }

    /// Rows of the part that the stream has taken, and how often it took some.
    async fn taken(&self, part: &Part) -> anyhow::Result<(RowSet, usize)> {
        let rows = part.rows.num_rows();
        let (mut taken, mut time) = (RowSet::none(rows), 0);
        loop {
            let key = part.key(time);
            let Some(row) = streams::remembered(self.ctx.table.as_ref(), self.stream.stream, &key).await? else {
                return Ok((taken, time));
            };
            let of_this = RowSet::parse(&row.body, rows).filter(|_| row.key == key);
            let of_this = of_this
                .ok_or_else(|| anyhow::anyhow!("what stream {} remembers under {key} is no set of rows", self.stream.name))?;
            taken = taken.or(&of_this);
            time += 1;
        }
    }
}

impl Tally {
    /// - `repeated`: another run had just taken the same rows.
    fn told(self, repeated: bool) -> Self {
        if repeated { Self { before: self.before + self.fed, fed: 0, ..self } } else { self }
    }
}
