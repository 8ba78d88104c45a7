//! A continuous source: when the known files are read, it looks for new ones.
//!
//! The files seen so far are the reader's *ledger*: offsets are places in it, so it has to be kept beside them, part by part as files
//! are picked up. A file is picked up
//! when two looks, one interval apart, find the same version of it: a file that is still being written would soon be another version
//! than the pinned one. Files that are found together are read by modification time and path.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use weir_model::{Clock, Offset};

use super::listing::{FileListing, expand, look};
use super::{FileSource, PinnedFile};
use crate::source::{Pull, SourceError, SourceReader};

/// The one lane of a continuous source; its others have nothing.
#[derive(Debug)]
pub(crate) struct FollowReader {
    source: FileSource,
    clock: Arc<dyn Clock>,
    projection: Vec<usize>,
    idle_lane: bool,
    listing: Arc<FileListing>,
    known: HashSet<String>,
    /// Files and splits that are pinned with the job, and those that the ledger's parts name.
    pinned: (usize, usize),
    told: (usize, usize),
    at: Offset,
    reader: Option<Box<dyn SourceReader>>,
    /// Files of the last look that may still be growing, by path.
    unsettled: BTreeMap<String, PinnedFile>,
    next_look_micros: i64,
}

impl FollowReader {
    pub(crate) fn new(
        source: FileSource,
        clock: Arc<dyn Clock>,
        lane: u32,
        from: Offset,
        ledger: &[Bytes],
        projection: &[usize],
    ) -> Result<Self, SourceError> {
        let mut listing = FileListing::clone(&source.listing);
        let pinned = (listing.files.len(), listing.splits.len());
        for part in ledger {
            let part: FileListing = serde_json::from_slice(part).map_err(|error| {
                SourceError::format(&source.options.path, format!("the ledger of files that were read is damaged: {error}"))
            })?;
            listing.files.extend(part.files);
            listing.splits.extend(part.splits);
        }
        if from.split > listing.splits.len() as u64 {
            let message = format!("offset {}/{} lies beyond the files that the ledger names", from.split, from.at);
            return Err(SourceError::format(&source.options.path, message));
        }
        let known = listing.files.iter().map(|file| file.path.clone()).collect();
        Ok(Self {
            source,
            clock,
            projection: projection.to_vec(),
            idle_lane: lane > 0,
            told: (listing.files.len(), listing.splits.len()),
            pinned,
            listing: Arc::new(listing),
            known,
            at: from,
            reader: None,
            unsettled: BTreeMap::new(),
            next_look_micros: i64::MIN,
        })
    }

    /// Looks for files; `true` if some were picked up.
    async fn look(&mut self) -> Result<bool, SourceError> {
        let now = self.clock.monotonic_micros();
        if now < self.next_look_micros {
            return Ok(false);
        }
        self.next_look_micros =
            now.saturating_add(i64::try_from(self.source.options.monitor_interval.as_micros()).unwrap_or(i64::MAX));
        let failed = |error: crate::OptionsError| SourceError::format(&self.source.options.path, error.message);
        let options = &self.source.options;
        let mut settled = Vec::new();
        let mut unsettled = BTreeMap::new();
        for local in expand(options).map_err(failed)? {
            // A file may vanish between the two calls: it was never picked up, so nothing is lost.
            let Ok(found) = look(self.source.store.store(), options, &local).await else { continue };
            if self.known.contains(&found.file.path) {
                continue;
            }
            if self.unsettled.get(&found.file.path) == Some(&found.file) {
                settled.push((found.modified_micros, found.file));
            } else {
                unsettled.insert(found.file.path.clone(), found.file);
            }
        }
        self.unsettled = unsettled;
        settled.sort_by(|a, b| (a.0, &a.1.path).cmp(&(b.0, &b.1.path)));
        let mut picked_up = false;
        for (_, file) in settled {
            let path = file.path.clone();
            match Arc::make_mut(&mut self.listing).pin(&self.source.store, options, file).await {
                Ok(()) => picked_up |= self.known.insert(path),
                // Written again since the two looks: it has to settle anew.
                Err(SourceError::Changed { .. } | SourceError::Vanished { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(picked_up)
    }
}

#[async_trait]
impl SourceReader for FollowReader {
    async fn next(&mut self) -> Result<Pull, SourceError> {
        if self.idle_lane {
            return Ok(Pull::End);
        }
        loop {
            if self.reader.is_none() {
                self.reader = Some(self.source.reader(&self.listing, 1, self.at, &self.projection)?);
            }
            let Some(reader) = &mut self.reader else { return Ok(Pull::Later) };
            match reader.next().await? {
                Pull::Rows(rows) => {
                    self.at = rows.upto;
                    return Ok(Pull::Rows(rows));
                }
                other @ (Pull::Later | Pull::Advanced { .. }) => return Ok(other),
                Pull::End => {
                    let next_split = self.listing.splits.len() as u64;
                    if !self.look().await? {
                        return Ok(Pull::Later);
                    }
                    self.at = Offset { split: next_split, at: 0 };
                    self.reader = None;
                }
            }
        }
    }

    fn ledger(&mut self, whole: bool) -> Option<Bytes> {
        let now = (self.listing.files.len(), self.listing.splits.len());
        if self.told == now {
            return None;
        }
        let (files, splits) = if whole { self.pinned } else { self.told };
        let part = FileListing {
            format: self.listing.format,
            files: self.listing.files[files..].to_vec(),
            splits: self.listing.splits[splits..].to_vec(),
        };
        // A listing is plain data: it always serialises.
        let bytes = serde_json::to_vec(&part).ok()?;
        self.told = now;
        Some(Bytes::from(bytes))
    }
}
