//! The table in one SQLite file: WAL, and with `fsync` durability `synchronous=FULL`.
//!
//! One writer thread folds waiting transactions into one SQLite transaction and one fsync; reads have a connection and thread of
//! their own; neither runs on an async worker. Several processes may use one file: SQLite's lock orders their transactions, and the
//! feed thread sees their changes by `PRAGMA data_version` while somebody listens.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{oneshot, watch};

use crate::store::{
    Changes, Conflict, CoordinationStore, Item, ItemKey, StoreError, TransactOutcome, Write, check_limits, holds,
};

/// Version of the tables' layout; a file of any other is refused.
const FORMAT: i64 = 1;
/// How long a transaction waits for other processes.
const BUSY: Duration = Duration::from_secs(20);
/// How often the feed looks for other processes' changes while somebody listens.
const FEED_INTERVAL: Duration = Duration::from_millis(20);
/// Waiting transactions folded into one.
const FOLD_MAX: usize = 64;

/// Items in a SQLite file.
#[derive(Debug)]
pub struct SqliteTable {
    writer: mpsc::Sender<Transact>,
    reader: mpsc::Sender<Read>,
    changed: watch::Sender<u64>,
    /// Dropping it ends the feed thread.
    _feed: mpsc::Sender<()>,
}

struct Transact {
    writes: Vec<Write>,
    answer: oneshot::Sender<Result<TransactOutcome, StoreError>>,
}

struct Read {
    partition: String,
    sort: Option<String>,
    answer: oneshot::Sender<Result<Vec<Item>, StoreError>>,
}

impl SqliteTable {
    /// Opens `file`, made with its folder if missing.
    ///
    /// - `fsync`: a commit survives a power cut; else the death of the process.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] naming the file and the remedy.
    pub fn open(file: &Path, fsync: bool) -> Result<Self, StoreError> {
        let unusable = |error: &dyn std::fmt::Display| {
            StoreError::Invalid(format!(
                "coordination file {}: {error}; choose a file this user may write with --coordination sqlite://FILE",
                file.display()
            ))
        };
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
        }
        let mut writer = connect(file, fsync).map_err(|error| unusable(&error))?;
        prepare(&mut writer, file)?;
        forget_expired(&writer).map_err(|error| unusable(&error))?;
        let reader = connect(file, fsync).map_err(|error| unusable(&error))?;
        let feed = connect(file, fsync).map_err(|error| unusable(&error))?;
        let changed = watch::Sender::new(0);
        let (to_writer, writes) = mpsc::channel();
        let (to_reader, reads) = mpsc::channel();
        let (feed_end, ended) = mpsc::channel();
        let (notify, listeners) = (changed.clone(), changed.clone());
        spawn("weir-table-write", move || write_loop(&mut writer, &writes, &notify)).map_err(|error| unusable(&error))?;
        spawn("weir-table-read", move || read_loop(&reader, &reads)).map_err(|error| unusable(&error))?;
        spawn("weir-table-feed", move || feed_loop(&feed, &ended, &listeners)).map_err(|error| unusable(&error))?;
        Ok(Self { writer: to_writer, reader: to_reader, changed, _feed: feed_end })
    }

    async fn read(&self, partition: &str, sort: Option<&str>) -> Result<Vec<Item>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let read = Read { partition: partition.to_owned(), sort: sort.map(str::to_owned), answer };
        let gone = || StoreError::Determinate("the table's reader thread has ended".to_owned());
        self.reader.send(read).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn connect(file: &Path, fsync: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if fsync { "FULL" } else { "NORMAL" })?;
    Ok(connection)
}

fn prepare(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let shown: PathBuf = file.to_owned();
    let unusable = |error: rusqlite::Error| StoreError::Invalid(format!("coordination file {}: {error}", shown.display()));
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unusable)?;
    transaction
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS items (partition TEXT NOT NULL, sort TEXT NOT NULL, version INTEGER NOT NULL,
                 body BLOB NOT NULL, PRIMARY KEY (partition, sort)) WITHOUT ROWID;",
        )
        .map_err(unusable)?;
    transaction.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?1)", [FORMAT]).map_err(unusable)?;
    let found: i64 =
        transaction.query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| row.get(0)).map_err(unusable)?;
    if found != FORMAT {
        return Err(StoreError::Invalid(format!(
            "coordination file {} has format {found}, this build reads {FORMAT}: use the build that wrote it",
            file.display()
        )));
    }
    transaction.commit().map_err(unusable)
}

/// Deletes what requests were told once no client tries again: the only rows that expire (T2). By the clock of SQLite: an hour more or
/// less changes nothing.
fn forget_expired(writer: &Connection) -> rusqlite::Result<usize> {
    writer.execute(
        "DELETE FROM items WHERE partition >= 'key/' AND partition < 'key0' AND sort = 'key'
         AND json_extract(CAST(body AS TEXT), '$.expires_at') < CAST(strftime('%s', 'now') AS INTEGER)",
        [],
    )
}

fn write_loop(connection: &mut Connection, writes: &mpsc::Receiver<Transact>, changed: &watch::Sender<u64>) {
    while let Ok(first) = writes.recv() {
        let mut waiting = vec![first];
        waiting.extend(writes.try_iter().take(FOLD_MAX - 1));
        match write_together(connection, &waiting) {
            Ok(outcomes) => {
                if outcomes.contains(&TransactOutcome::Applied) {
                    changed.send_modify(|changes| *changes += 1);
                }
                for (transact, outcome) in waiting.into_iter().zip(outcomes) {
                    drop(transact.answer.send(Ok(outcome)));
                }
            }
            Err(error) => {
                for transact in waiting {
                    drop(transact.answer.send(Err(error.again())));
                }
            }
        }
    }
}

/// Why a fold of transactions failed; every one in it gets the same answer.
enum WriteError {
    Determinate(String),
    Indeterminate(String),
}

impl WriteError {
    fn again(&self) -> StoreError {
        match self {
            Self::Determinate(message) => StoreError::Determinate(message.clone()),
            Self::Indeterminate(message) => StoreError::Indeterminate(message.clone()),
        }
    }
}

fn write_together(connection: &mut Connection, waiting: &[Transact]) -> Result<Vec<TransactOutcome>, WriteError> {
    // Until COMMIT is sent nothing can have happened: a dropped transaction rolls back.
    let before = |error: rusqlite::Error| WriteError::Determinate(error.to_string());
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(before)?;
    let mut outcomes = Vec::with_capacity(waiting.len());
    for transact in waiting {
        outcomes.push(apply(&transaction, &transact.writes).map_err(before)?);
    }
    match transaction.commit() {
        Ok(()) => Ok(outcomes),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
            Err(WriteError::Determinate(format!("{error}: free some space; nothing was lost")))
        }
        Err(error) => Err(WriteError::Indeterminate(error.to_string())),
    }
}

/// Checks every condition, then writes; nothing is written if one does not hold.
fn apply(connection: &Connection, writes: &[Write]) -> rusqlite::Result<TransactOutcome> {
    let mut conflicts = Vec::new();
    let mut versions = Vec::with_capacity(writes.len());
    for (index, write) in writes.iter().enumerate() {
        let (key, condition) = write.target();
        let found = get(connection, key)?;
        if !holds(condition, found.as_ref().map(|item| (item.version, item.body.as_ref()))) {
            conflicts.push(Conflict { index, found });
            continue;
        }
        versions.push(found.map_or(0, |item| item.version));
    }
    if !conflicts.is_empty() {
        return Ok(TransactOutcome::Refused(conflicts));
    }
    for (write, version) in writes.iter().zip(versions) {
        match write {
            Write::Put { key, body, .. } => {
                let mut put = connection.prepare_cached("INSERT OR REPLACE INTO items VALUES (?1, ?2, ?3, ?4)")?;
                put.execute(params![key.partition, key.sort, i64::try_from(version + 1).unwrap_or(i64::MAX), body.as_ref()])?;
            }
            Write::Delete { key, .. } => {
                let mut delete = connection.prepare_cached("DELETE FROM items WHERE partition = ?1 AND sort = ?2")?;
                delete.execute(params![key.partition, key.sort])?;
            }
            Write::Check { .. } => {}
        }
    }
    Ok(TransactOutcome::Applied)
}

fn get(connection: &Connection, key: &ItemKey) -> rusqlite::Result<Option<Item>> {
    let mut select = connection.prepare_cached("SELECT sort, version, body FROM items WHERE partition = ?1 AND sort = ?2")?;
    select.query_row(params![key.partition, key.sort], |row| item(&key.partition, row)).optional()
}

fn item(partition: &str, row: &rusqlite::Row<'_>) -> rusqlite::Result<Item> {
    let version: i64 = row.get(1)?;
    let body: Vec<u8> = row.get(2)?;
    let key = ItemKey::new(partition, row.get::<_, String>(0)?);
    Ok(Item { key, version: u64::try_from(version).unwrap_or(0), body: Bytes::from(body) })
}

fn read_loop(connection: &Connection, reads: &mpsc::Receiver<Read>) {
    while let Ok(read) = reads.recv() {
        let found = match &read.sort {
            Some(sort) => {
                get(connection, &ItemKey::new(read.partition.as_str(), sort.as_str())).map(|item| item.into_iter().collect())
            }
            None => query(connection, &read.partition),
        };
        drop(read.answer.send(found.map_err(|error| StoreError::Determinate(error.to_string()))));
    }
}

fn query(connection: &Connection, partition: &str) -> rusqlite::Result<Vec<Item>> {
    let mut select = connection.prepare_cached("SELECT sort, version, body FROM items WHERE partition = ?1 ORDER BY sort")?;
    let rows = select.query_map(params![partition], |row| item(partition, row))?;
    rows.collect()
}

fn feed_loop(connection: &Connection, ended: &mpsc::Receiver<()>, changed: &watch::Sender<u64>) {
    let data_version = || connection.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).ok();
    let mut last = data_version();
    while ended.recv_timeout(FEED_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        if changed.receiver_count() == 0 {
            continue;
        }
        let now = data_version();
        if now != last {
            last = now;
            changed.send_modify(|changes| *changes += 1);
        }
    }
}

#[async_trait]
impl CoordinationStore for SqliteTable {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        Ok(self.read(&key.partition, Some(&key.sort)).await?.pop())
    }

    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        self.read(partition, None).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        check_limits(&writes)?;
        let (answer, answered) = oneshot::channel();
        let gone = |_| StoreError::Determinate("the table's writer thread has ended".to_owned());
        self.writer.send(Transact { writes, answer }).map_err(gone)?;
        answered.await.map_err(|_| StoreError::Indeterminate("the table's writer thread has ended".to_owned()))?
    }

    fn changes(&self) -> Changes {
        Changes::new(self.changed.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use weir_model::JobId;

    use super::*;
    use crate::store::Condition;
    use crate::{contract, keys};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        contract::run(&SqliteTable::open(&file, true).unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_connections_to_one_file_race_and_see_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        let (one, two) = (SqliteTable::open(&file, false).unwrap(), SqliteTable::open(&file, false).unwrap());
        contract::race(&one, &two).await;
        let mut changes = two.changes();
        let write = Write::Put { key: ItemKey::new("p", "seen"), condition: Condition::Absent, body: "{}".into() };
        assert_eq!(one.transact(vec![write]).await.unwrap(), TransactOutcome::Applied);
        changes.next().await;
        assert!(two.get(&ItemKey::new("p", "seen")).await.unwrap().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_what_requests_were_told_is_forgotten_and_only_after_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        let (old, young) = (keys::request(JobId(1), "old"), keys::request(JobId(1), "young"));
        let head = ItemKey::new("head/1", "head");
        let put = |key: &ItemKey, expires_at: i64| {
            let body = format!("{{\"expires_at\": {expires_at}}}").into();
            Write::Put { key: key.clone(), condition: Condition::Absent, body }
        };
        let table = SqliteTable::open(&file, false).unwrap();
        let writes = vec![put(&old, 1), put(&young, i64::MAX), put(&head, 1)];
        assert_eq!(table.transact(writes).await.unwrap(), TransactOutcome::Applied);
        assert!(table.get(&old).await.unwrap().is_some());
        drop(table);
        let table = SqliteTable::open(&file, false).unwrap();
        assert!(table.get(&old).await.unwrap().is_none());
        assert!(table.get(&young).await.unwrap().is_some() && table.get(&head).await.unwrap().is_some());
    }

    #[test]
    fn a_file_of_another_format_or_that_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        drop(SqliteTable::open(&file, false).unwrap());
        Connection::open(&file).unwrap().execute("UPDATE meta SET value = 99", []).unwrap();
        let newer = SqliteTable::open(&file, false).unwrap_err().to_string();
        assert!(newer.contains("format 99") && newer.contains("a.sqlite"), "{newer}");
        let text = folder.path().join("b.sqlite");
        std::fs::write(&text, "this is no database, and long enough to be read as a header of one").unwrap();
        let foreign = SqliteTable::open(&text, false).unwrap_err().to_string();
        assert!(foreign.contains("b.sqlite"), "{foreign}");
    }
}
