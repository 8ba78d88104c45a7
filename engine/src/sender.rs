//! What an aggregate gives as partial rows of the next: the part of a lane, at the end of a merge stage.
//!
//! rows of the output fragment (`__pane`, keys, arguments and filters) --PaneTable of the batch--> partial rows by key group

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use weir_plan::Pipeline;

use crate::EngineError;
use crate::fragment::FragmentRunner;
use crate::pane_table::{PaneShape, PaneTable};

/// Folds what each batch gives.
#[derive(Debug)]
pub(crate) struct Sender {
    shape: Arc<PaneShape>,
    scratch: Vec<usize>,
}

impl Sender {
    /// Of what aggregate `index` gives; `None` if no other is fed with it.
    pub(crate) async fn new(pipeline: &Pipeline, index: usize, key_groups: u16) -> Result<Option<Self>, EngineError> {
        let Some(next) = pipeline.aggregates.get(index + 1) else { return Ok(None) };
        let feeding = FragmentRunner::new(pipeline.feeding(index + 1)).await?;
        let shape = PaneShape::new(next, feeding.output_schema(), key_groups)?;
        Ok(Some(Self { shape: Arc::new(shape), scratch: Vec::new() }))
    }

    /// Columns of partial rows.
    pub(crate) fn partial_schema(&self) -> &SchemaRef {
        &self.shape.partial_schema
    }

    /// Partial rows of what a batch gave.
    pub(crate) fn partials(&mut self, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>, EngineError> {
        if rows.iter().all(|rows| rows.num_rows() == 0) {
            return Ok(Vec::new());
        }
        // An aggregate of an aggregate has no windows: all rows are of pane 0.
        let mut table = PaneTable::new(&self.shape)?;
        for rows in rows {
            table.update(&self.shape, rows, &mut self.scratch)?;
        }
        Ok(vec![table.into_partial(&self.shape, 0)?])
    }
}
