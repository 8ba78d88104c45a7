//! A PostgreSQL table as a publisher's target (X5): `'connector' = 'jdbc'`, with Flink's names of options.
//!
//! ```text
//! commit: "step n takes these epochs"  -->  BEGIN; lock progress; n not applied? rows, progress = n; COMMIT  -->  commit: "done"
//! ```
//! The number of the last step applied lies in a table of the target, [`sql::PROGRESS`], and is written by the transaction that writes the
//! step's rows: whoever carries a step out again finds it done. What a step holds is fixed by the commit that named it, so it makes no
//! difference whether a zombie or its successor applies it.
//!
//! | results | rows become |
//! | --- | --- |
//! | are only added to | INSERT |
//! | change, by PRIMARY KEY | INSERT .. ON CONFLICT DO UPDATE, and DELETE: the newest of each key in the step |
//! Invariants: EO-2, X5 (see `model::invariants`).

mod connect;
mod rows;
mod sql;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, Transaction};
use weir_model::ShardKey;

use crate::options::{OptionsError, TableOptions};
use crate::source::SourceError;
use rows::Split;
use sql::Statements;

/// Options that the connector knows.
const OPTIONS: [&str; 5] = ["connector", "url", "table-name", "username", "password"];

/// Rows that one statement takes.
const STATEMENT_ROWS: usize = 10_000;

/// A table as one publisher shard sees it. Connects with the first step, and again after a connection was lost.
#[derive(Debug)]
pub struct PostgresTarget {
    config: Config,
    /// Host, database and table, for messages.
    place: String,
    table: String,
    /// Columns that the target has: without what a changelog adds.
    columns: SchemaRef,
    /// Places of the key's columns; none where rows are only added.
    key: Vec<usize>,
    shard: ShardKey,
    session: Mutex<Option<Session>>,
}

/// A connection and the statements that suit the table it found.
#[derive(Debug)]
struct Session {
    client: Client,
    statements: Arc<Statements>,
}

impl PostgresTarget {
    /// The target of publisher `shard`. Connects to nothing.
    ///
    /// - `columns`: the sink's, as declared.
    /// - `key`: places of its primary key where results change.
    ///
    /// # Errors
    /// [`OptionsError`] naming the option or a column whose type the target cannot hold.
    pub fn new(options: TableOptions<'_>, columns: SchemaRef, key: Vec<usize>, shard: ShardKey) -> Result<Self, OptionsError> {
        options.only(&OPTIONS)?;
        let config = connect::config(options)?;
        let table = options.get("table-name").unwrap_or(options.table).to_owned();
        for field in columns.fields() {
            sql::declared_type(field).map_err(|message| options.error(message))?;
        }
        let place = format!("{} in {}", table, connect::shown(&config));
        Ok(Self { config, place, table, columns, key, shard, session: Mutex::new(None) })
    }

    /// Host, database and table.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Applies step `number`, or finds that it was applied: idempotent.
    ///
    /// - `rows`: with `op` and `epoch` after the columns where results change.
    ///
    /// # Errors
    /// [`SourceError::Away`] if the server does not answer or asks to try again; [`SourceError::Refused`] with what it says.
    pub async fn carry_out(&self, number: u64, rows: &[RecordBatch]) -> Result<(), SourceError> {
        let mut session = self.session.lock().await;
        let mut connected = match session.take() {
            Some(session) if !session.client.is_closed() => session,
            _ => self.connect().await?,
        };
        self.apply(&mut connected, number, rows).await?;
        // Only a connection on which all went well is used again.
        *session = Some(connected);
        Ok(())
    }

    async fn connect(&self) -> Result<Session, SourceError> {
        let mut client = connect::connect(&self.config).await.map_err(|error| self.failed(&error))?;
        let statements = self.prepare(&mut client).await?;
        Ok(Session { client, statements: Arc::new(statements) })
    }

    /// Makes the tables if they are missing, and looks at the columns there are.
    async fn prepare(&self, client: &mut Client) -> Result<Statements, SourceError> {
        let failed = |error| self.failed(&error);
        client.batch_execute(sql::SESSION).await.map_err(failed)?;
        let found = client.query_one(sql::TABLES_THERE, &[&sql::PROGRESS, &sql::quoted(&self.table)]).await.map_err(failed)?;
        let (progress, table): (bool, bool) = (found.get(0), found.get(1));
        if !progress {
            client.batch_execute(&sql::create_progress()).await.map_err(failed)?;
        }
        if !table {
            client.batch_execute(&sql::create_table(&self.table, &self.columns, &self.key)).await.map_err(failed)?;
        }
        let columns = client.query(sql::COLUMNS, &[&sql::quoted(&self.table)]).await.map_err(failed)?;
        let types: BTreeMap<String, String> = columns.iter().map(|column| (column.get(0), column.get(1))).collect();
        Statements::new(&self.table, &self.columns, &self.key, &types)
            .map_err(|message| SourceError::Refused { place: self.place.clone(), message })
    }

    async fn apply(&self, session: &mut Session, number: u64, rows: &[RecordBatch]) -> Result<(), SourceError> {
        let failed = |error| self.failed(&error);
        let statements = Arc::clone(&session.statements);
        let (job, shard) = (self.shard.job.to_string(), self.shard.to_string());
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let transaction = session.client.transaction().await.map_err(failed)?;
        transaction.execute(sql::FIRST_STEP, &[&job, &shard]).await.map_err(failed)?;
        let applied: i64 = transaction.query_one(sql::LOCK_STEP, &[&job, &shard]).await.map_err(failed)?.get(0);
        if applied >= number {
            return Ok(());
        }
        let split = Split::new(rows, &self.columns, &self.key)?;
        self.run(&transaction, statements.delete.as_deref(), &split.deleted).await?;
        self.run(&transaction, Some(&statements.write), &split.written).await?;
        transaction.execute(sql::SET_STEP, &[&job, &shard, &number]).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    /// Runs a statement that takes one array of texts for each column.
    async fn run(&self, transaction: &Transaction<'_>, sql: Option<&str>, rows: &[RecordBatch]) -> Result<(), SourceError> {
        let Some(sql) = sql else { return Ok(()) };
        for batch in rows {
            let mut at = 0;
            while at < batch.num_rows() {
                let part = batch.slice(at, STATEMENT_ROWS.min(batch.num_rows() - at));
                let texts = rows::texts(&part)?;
                let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                    texts.iter().map(|column| column as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
                transaction.execute(sql, &parameters).await.map_err(|error| self.failed(&error))?;
                at += part.num_rows();
            }
        }
        Ok(())
    }

    fn failed(&self, error: &tokio_postgres::Error) -> SourceError {
        let (place, message) = (self.place.clone(), connect::told(error));
        if connect::is_passing(error) { SourceError::Away { place, message } } else { SourceError::Refused { place, message } }
    }
}

#[cfg(test)]
mod tests;
