//! Where objects and the table are: addresses in, stores out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use weir_coordinator::dynamodb::DynamoTable;
use weir_coordinator::{CoordinationStore, MemoryTable, SqliteTable};
use weir_model::{Clock, OwnerId};
use weir_state::{s3, store};

use crate::aws;
use crate::liveness::{Liveness, LockedOwners, Part, UnknownLiveness};
use crate::system::{RandomIds, SystemClock};

/// How hard a commit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Objects, folders and the table are synced before a commit counts: survives a power cut.
    #[default]
    Fsync,
    /// What the operating system has taken counts: survives the death of the process.
    Process,
}

impl std::str::FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "process" => Ok(Self::Process),
            _ => Err(format!("{text:?} is no durability: write fsync or process")),
        }
    }
}

/// A place that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Objects.
    #[error(transparent)]
    Store(#[from] weir_state::StateError),
    /// The table.
    #[error(transparent)]
    Table(#[from] weir_coordinator::StoreError),
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// Addresses of the objects and of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `memory:`, `file://DIR` or `s3://BUCKET/PREFIX`.
    pub store: String,
    /// `memory:`, `sqlite://FILE` or `dynamodb://TABLE`; by default beside the objects.
    pub coordination: Option<String>,
    /// How hard a commit holds; of folders and files only.
    pub durability: Durability,
}

impl Places {
    /// Where the table is: as set, else in the store's own place.
    #[must_use]
    pub fn coordination(&self) -> String {
        match (&self.coordination, self.store.strip_prefix("file://")) {
            (Some(set), _) => set.clone(),
            (None, Some(folder)) => format!("sqlite://{folder}/coordination.sqlite"),
            (None, None) => "memory:".to_owned(),
        }
    }

    /// The folder that several processes share, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        self.store.strip_prefix("file://").map(PathBuf::from).filter(|_| self.coordination() != "memory:")
    }

    /// Refuses a folder that is not there: whoever only looks makes nothing.
    ///
    /// # Errors
    /// [`OpenError::Settings`] naming the folder.
    pub fn must_exist(&self) -> Result<(), OpenError> {
        match self.folder().filter(|folder| !folder.is_dir()) {
            None => Ok(()),
            Some(folder) => {
                let shown = folder.display();
                let message = format!("there is no store in {shown}: name the one of the job with --store file://DIR");
                Err(OpenError::Settings(message))
            }
        }
    }

    /// Opens the objects.
    ///
    /// # Errors
    /// [`OpenError`] naming the place and the remedy.
    pub async fn open_objects(&self) -> Result<Arc<dyn ObjectStore>, OpenError> {
        if !s3::is_bucket(&self.store) {
            return Ok(store::open(&self.store, self.durability == Durability::Fsync)?);
        }
        let bucket = self.bucket().await?;
        bucket.check().await?;
        Ok(bucket.store)
    }

    /// Opens the objects as [`open_objects`](Self::open_objects) does, for the process of an invocation: whoever called it has checked
    /// the place.
    ///
    /// # Errors
    /// [`OpenError`] naming the place.
    pub async fn open_checked_objects(&self) -> Result<Arc<dyn ObjectStore>, OpenError> {
        if !s3::is_bucket(&self.store) {
            return Ok(store::open_checked(&self.store, self.durability == Durability::Fsync)?);
        }
        Ok(self.bucket().await?.store)
    }

    async fn bucket(&self) -> Result<s3::Bucket, OpenError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Ok(s3::open(&self.store, aws::access(Arc::clone(&clock)).await, clock)?)
    }

    /// Opens the table.
    ///
    /// # Errors
    /// [`OpenError`] naming the place and the remedy.
    pub async fn open_table(&self) -> Result<Arc<dyn CoordinationStore>, OpenError> {
        if self.coordination.is_none() && s3::is_bucket(&self.store) {
            let message =
                "a bucket needs a table beside it: name one with --coordination dynamodb://TABLE (weir table create TABLE)";
            return Err(OpenError::Settings(message.to_owned()));
        }
        let address = self.coordination();
        if address == "memory:" {
            return Ok(Arc::new(MemoryTable::new()));
        }
        if let Some(file) = address.strip_prefix("sqlite://") {
            return Ok(Arc::new(SqliteTable::open(Path::new(file), self.durability == Durability::Fsync)?));
        }
        if let Some(name) = address.strip_prefix("dynamodb://") {
            let (clock, ids) = (Arc::new(SystemClock::new()), Arc::new(RandomIds::new()));
            return Ok(Arc::new(DynamoTable::open(name, None, clock, ids).await?));
        }
        Err(OpenError::Settings(format!(
            "coordination {address:?} is not understood: write memory:, sqlite://FILE or dynamodb://TABLE"
        )))
    }

    /// Registers `owner` where other processes see that it lives.
    ///
    /// # Errors
    /// [`OpenError::Settings`] naming the folder.
    pub fn take_part(&self, owner: OwnerId, part: Part) -> Result<Arc<dyn Liveness>, OpenError> {
        let Some(folder) = self.folder() else { return Ok(Arc::new(UnknownLiveness)) };
        match LockedOwners::register(&folder.join("owners"), owner, part) {
            Ok(registered) => Ok(Arc::new(registered)),
            Err(error) => Err(OpenError::Settings(format!(
                "folder {}: {error}; choose a folder this user may write with --store file://DIR",
                folder.display()
            ))),
        }
    }

    /// Looks at who lives there without being one of them.
    #[must_use]
    pub fn watch(&self) -> Arc<dyn Liveness> {
        match self.folder() {
            Some(folder) => Arc::new(LockedOwners::watch(&folder.join("owners"))),
            None => Arc::new(UnknownLiveness),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lies_beside_the_objects() {
        let places = Places { store: "file:///tmp/x".into(), coordination: None, durability: Durability::Process };
        assert_eq!(places.coordination(), "sqlite:///tmp/x/coordination.sqlite");
        assert_eq!(places.folder(), Some(PathBuf::from("/tmp/x")));
    }
}
