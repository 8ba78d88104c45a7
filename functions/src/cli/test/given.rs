//! What a case gives: the job's sources, told step by step, and its sinks, in place of its own connectors.
//!
//! A place in a source is (step, 0 before its rows | 1 after them), so every process reads the same again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, UInt32Array};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::error::ArrowError;
use weir_connectors::sink::FileTarget;
use weir_connectors::{OptionsError, Pull, Source, SourceBatch, SourceError, SourceReader, TableOptions};
use weir_model::{Offset, ShardKey, Watermark};
use weir_plan::{SinkTable, SourceTable};

use crate::changelog;
use crate::connect::{Connectors, Pinned, Target};

/// What one step gives one table.
#[derive(Debug, Clone)]
pub(super) struct GivenRows {
    /// Declared columns; perhaps no rows.
    pub(super) rows: RecordBatch,
    /// Where event time is after them.
    pub(super) reached: Watermark,
}

#[derive(Debug, Default)]
struct Told {
    /// By table, what each step gave.
    tables: BTreeMap<String, Vec<GivenRows>>,
    steps: u64,
    closed: bool,
}

/// What the sources of a run have been told so far.
#[derive(Debug, Default)]
pub(super) struct Given(Mutex<Told>);

impl Given {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every table its rows of a step.
    pub(super) fn add(&self, step: &BTreeMap<String, GivenRows>, closes: bool) {
        let mut told = self.told();
        for (table, given) in step {
            told.tables.entry(table.clone()).or_default().push(given.clone());
        }
        told.steps += 1;
        told.closed = closes;
    }

    /// Steps so far.
    pub(super) fn steps(&self) -> u64 {
        self.told().steps
    }
}

/// Opens what the case gives for the job's sources, and a folder for each publisher of its sinks.
#[derive(Debug)]
pub(super) struct CaseConnectors {
    pub(super) given: Arc<Given>,
    pub(super) folder: PathBuf,
}

impl CaseConnectors {
    /// Where a publisher's rows are, as NDJSON files.
    pub(super) fn folder_of(&self, shard: ShardKey) -> PathBuf {
        self.folder.join(shard.stage.0.to_string())
    }
}

#[async_trait]
impl Connectors for CaseConnectors {
    async fn pin(&self, _table: &SourceTable) -> Result<Pinned, OptionsError> {
        Ok(Pinned::Nothing)
    }

    fn source(&self, table: &SourceTable, _pinned: &Pinned) -> Result<Arc<dyn Source>, OptionsError> {
        Ok(Arc::new(CaseSource { given: Arc::clone(&self.given), table: table.name.clone() }))
    }

    fn target(&self, table: &SinkTable, shard: ShardKey) -> Result<Target, OptionsError> {
        let path = self.folder_of(shard).display().to_string();
        let options = BTreeMap::from([("path".to_owned(), path), ("format".to_owned(), "json".to_owned())]);
        let options = TableOptions { table: &table.name, options: &options };
        Ok(Target::Files(FileTarget::new(options, changelog::sink_schema(table), shard, false)?))
    }
}

#[derive(Debug)]
struct CaseSource {
    given: Arc<Given>,
    table: String,
}

#[async_trait]
impl Source for CaseSource {
    async fn open(
        &self,
        lane: u32,
        lanes: u32,
        from: Offset,
        projection: &[usize],
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        Ok(Box::new(CaseReader {
            given: Arc::clone(&self.given),
            table: self.table.clone(),
            projection: projection.to_vec(),
            lane,
            lanes: lanes.max(1),
            at: from,
        }))
    }
}

#[derive(Debug)]
struct CaseReader {
    given: Arc<Given>,
    table: String,
    projection: Vec<usize>,
    lane: u32,
    lanes: u32,
    at: Offset,
}

impl CaseReader {
    /// Rows of a step are dealt one by one: every lane has some of them.
    fn own(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let all = u32::try_from(rows.num_rows()).unwrap_or(u32::MAX);
        let own = UInt32Array::from_iter_values((0..all).filter(|row| row % self.lanes == self.lane));
        take_record_batch(&rows.project(&self.projection)?, &own)
    }
}

#[async_trait]
impl SourceReader for CaseReader {
    async fn next(&mut self) -> Result<Pull, SourceError> {
        let given = Arc::clone(&self.given);
        let told = given.told();
        let step = usize::try_from(self.at.split).unwrap_or(usize::MAX);
        let Some(given) = told.tables.get(&self.table).and_then(|steps| steps.get(step)) else {
            return Ok(if told.closed { Pull::End } else { Pull::Later });
        };
        if self.at.at == 0 {
            self.at.at = 1;
            let batch = self.own(&given.rows)?;
            if batch.num_rows() > 0 {
                let bytes = batch.get_array_memory_size() as u64;
                return Ok(Pull::Rows(SourceBatch { batch, upto: self.at, bytes, bad: Vec::new() }));
            }
        }
        self.at = Offset { split: self.at.split + 1, at: 0 };
        Ok(Pull::Advanced { to: given.reached, upto: self.at })
    }
}
