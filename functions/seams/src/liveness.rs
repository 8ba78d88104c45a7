//! Hints about whether another process still lives. No correctness rests on them (idea 5): a wrong hint costs effort, the fence
//! keeps the data right.
//!
//! On one machine a process holds an exclusive lock on `owners/{owner}.lock` for as long as it lives; the operating system lets go
//! of it at the process's death, however it died, so its shards are taken over at once instead of after a lease.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use weir_model::OwnerId;
use weir_model::decide::OwnerLiveness;

/// Asks about owners.
pub trait Liveness: Send + Sync + std::fmt::Debug {
    /// Whether `owner` lives.
    fn of(&self, owner: OwnerId) -> OwnerLiveness;

    /// Number of processes that take part, this one included; at least 1.
    fn participants(&self) -> usize {
        1
    }
}

/// Nothing is known: leases alone decide how long to be polite.
#[derive(Debug, Default)]
pub struct UnknownLiveness;

impl Liveness for UnknownLiveness {
    fn of(&self, _owner: OwnerId) -> OwnerLiveness {
        OwnerLiveness::Unknown
    }
}

/// Lock files in one folder.
#[derive(Debug)]
pub struct LockedOwners {
    folder: PathBuf,
    /// This process, if it takes part, with its lock, held for its life.
    owner: Option<(OwnerId, File)>,
}

impl LockedOwners {
    /// Registers this process as `owner` in `folder`.
    ///
    /// # Errors
    /// The folder cannot be made or the file not be locked.
    pub fn register(folder: &Path, owner: OwnerId) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Locked before it has its name: others take a lock file that nobody holds for a dead process's.
        let unnamed = folder.join(format!("{owner}.new"));
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        std::fs::rename(&unnamed, lock_path(folder, owner))?;
        Ok(Self { folder: folder.to_owned(), owner: Some((owner, lock)) })
    }

    /// Looks at the owners in `folder` without being one.
    #[must_use]
    pub fn watch(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), owner: None }
    }

    fn own_lock(&self) -> Option<PathBuf> {
        self.owner.as_ref().map(|(owner, _)| lock_path(&self.folder, *owner))
    }

    fn is_locked(path: &Path) -> OwnerLiveness {
        match File::open(path).map(|file| file.try_lock_shared()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => OwnerLiveness::Dead,
            Ok(Ok(())) => OwnerLiveness::Dead,
            Ok(Err(TryLockError::WouldBlock)) => OwnerLiveness::Alive,
            Ok(Err(TryLockError::Error(_))) | Err(_) => OwnerLiveness::Unknown,
        }
    }
}

impl Liveness for LockedOwners {
    fn of(&self, owner: OwnerId) -> OwnerLiveness {
        if self.owner.as_ref().is_some_and(|(own, _)| *own == owner) {
            return OwnerLiveness::Alive;
        }
        Self::is_locked(&lock_path(&self.folder, owner))
    }

    fn participants(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return 1 };
        let mut living = 1;
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_lock = path.extension().is_some_and(|extension| extension == "lock");
            if !is_lock || Some(&path) == self.own_lock().as_ref() {
                continue;
            }
            match Self::is_locked(&path) {
                OwnerLiveness::Alive => living += 1,
                // The dead leave their file behind; whoever sees it sweeps.
                OwnerLiveness::Dead => drop(std::fs::remove_file(&path)),
                OwnerLiveness::Unknown => {}
            }
        }
        living
    }
}

impl Drop for LockedOwners {
    fn drop(&mut self) {
        if let Some(path) = self.own_lock() {
            drop(std::fs::remove_file(path));
        }
    }
}

fn lock_path(folder: &Path, owner: OwnerId) -> PathBuf {
    folder.join(format!("{owner}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_lives_as_long_as_its_lock_is_held() {
        let folder = tempfile::tempdir().expect("tempdir");
        let me = LockedOwners::register(folder.path(), OwnerId(1)).expect("registers");
        let other = LockedOwners::register(folder.path(), OwnerId(2)).expect("registers");
        assert_eq!(me.of(OwnerId(2)), OwnerLiveness::Alive);
        assert_eq!(me.participants(), 2);
        drop(other);
        assert_eq!(me.of(OwnerId(2)), OwnerLiveness::Dead);
        assert_eq!(me.of(OwnerId(3)), OwnerLiveness::Dead);
        assert_eq!(me.participants(), 1);
    }
}
