//! Hints about whether another process still lives. No correctness rests on them (idea 5): a wrong hint costs effort, the fence
//! keeps the data right.
//!
//! On one machine a process holds an exclusive lock on `owners/{owner}.lock` for as long as it lives, the process of a single
//! invocation on `owners/{owner}.invocation`; the operating system lets go of it at the process's death, however it died, so its
//! shards are taken over at once instead of after a lease.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_model::OwnerId;
use weir_model::decide::OwnerLiveness;

/// Asks about owners.
pub trait Liveness: Send + Sync + std::fmt::Debug {
    /// Whether `owner` lives.
    fn of(&self, owner: OwnerId) -> OwnerLiveness;

    /// Number of processes that take part, this one included; at least 1. Those of single invocations belong to one of them.
    fn participants(&self) -> usize {
        1
    }

    /// Whether whoever asks should leave its shards to another process; one that hears yes leaves.
    fn share_wanted(&self) -> bool {
        self.participants() > 1
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

/// What a process takes part as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It runs for itself and takes its share of the work.
    Process,
    /// It serves one invocation for another process, or only looks for a while: it counts as nobody's equal.
    Invocation,
}

impl Part {
    const ALL: [Self; 2] = [Self::Process, Self::Invocation];

    const fn extension(self) -> &'static str {
        match self {
            Self::Process => "lock",
            Self::Invocation => "invocation",
        }
    }

    fn path(self, folder: &Path, owner: OwnerId) -> PathBuf {
        folder.join(format!("{owner}.{}", self.extension()))
    }

    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?;
        Self::ALL.into_iter().find(|part| extension == part.extension())
    }
}

/// Extension of a lock file that does not have its name yet.
const UNNAMED: &str = "new";
/// Age past which such a file is taken to be left by a dead process: naming it takes a moment.
const ABANDONED: Duration = Duration::from_secs(60);

/// Lock files in one folder.
#[derive(Debug)]
pub struct LockedOwners {
    folder: PathBuf,
    /// This process, if it takes part, with its lock, held for its life.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    id: OwnerId,
    part: Part,
    path: PathBuf,
    _lock: File,
}

impl LockedOwners {
    /// Registers this process as `owner` in `folder`, and removes what dead ones left there.
    ///
    /// # Errors
    /// The folder cannot be made or the file not be locked.
    pub fn register(folder: &Path, owner: OwnerId, part: Part) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        // Locked before it has its name: others take a lock file that nobody holds for a dead process's.
        let unnamed = folder.join(format!("{owner}.{UNNAMED}"));
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        let path = part.path(folder, owner);
        std::fs::rename(&unnamed, &path)?;
        let registered = Self { folder: folder.to_owned(), own: Some(Own { id: owner, part, path, _lock: lock }) };
        registered.sweep();
        Ok(registered)
    }

    /// Looks at the owners in `folder` without being one.
    #[must_use]
    pub fn watch(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), own: None }
    }

    /// Files of others, whether they live or not.
    fn others(&self) -> Vec<PathBuf> {
        let own = self.own.as_ref().map(|own| &own.path);
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| Some(path) != own).collect()
    }

    /// Removes the files of the dead. Several processes may: whoever comes second finds them gone.
    fn sweep(&self) {
        for path in self.others() {
            let is_left = match Part::of(&path) {
                Some(_) => true,
                None => path.extension().is_some_and(|extension| extension == UNNAMED) && is_old(&path),
            };
            if is_left && is_locked(&path) == OwnerLiveness::Dead {
                drop(std::fs::remove_file(&path));
            }
        }
    }
}

fn is_old(path: &Path) -> bool {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED))
}

fn is_locked(path: &Path) -> OwnerLiveness {
    match File::open(path).map(|file| file.try_lock_shared()) {
        Err(error) if error.kind() == ErrorKind::NotFound => OwnerLiveness::Dead,
        Ok(Ok(())) => OwnerLiveness::Dead,
        Ok(Err(TryLockError::WouldBlock)) => OwnerLiveness::Alive,
        Ok(Err(TryLockError::Error(_))) | Err(_) => OwnerLiveness::Unknown,
    }
}

impl Liveness for LockedOwners {
    fn of(&self, owner: OwnerId) -> OwnerLiveness {
        if self.own.as_ref().is_some_and(|own| own.id == owner) {
            return OwnerLiveness::Alive;
        }
        let parts = Part::ALL.map(|part| is_locked(&part.path(&self.folder, owner)));
        parts.into_iter().find(|liveness| *liveness != OwnerLiveness::Dead).unwrap_or(OwnerLiveness::Dead)
    }

    fn participants(&self) -> usize {
        let mut living = 1;
        for path in self.others().into_iter().filter(|path| Part::of(path) == Some(Part::Process)) {
            match is_locked(&path) {
                OwnerLiveness::Alive => living += 1,
                // The dead leave their file behind; whoever sees it sweeps.
                OwnerLiveness::Dead => drop(std::fs::remove_file(&path)),
                OwnerLiveness::Unknown => {}
            }
        }
        living
    }

    /// The process of an invocation is told by the one that called it.
    fn share_wanted(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.part == Part::Process) && self.participants() > 1
    }
}

impl Drop for LockedOwners {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            drop(std::fs::remove_file(&own.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(folder: &Path, owner: u128, part: Part) -> LockedOwners {
        LockedOwners::register(folder, OwnerId(owner), part).expect("registers")
    }

    #[test]
    fn an_owner_lives_as_long_as_its_lock_is_held() {
        let folder = tempfile::tempdir().expect("tempdir");
        let me = register(folder.path(), 1, Part::Process);
        let other = register(folder.path(), 2, Part::Process);
        assert_eq!(me.of(OwnerId(2)), OwnerLiveness::Alive);
        assert_eq!(me.participants(), 2);
        drop(other);
        assert_eq!(me.of(OwnerId(2)), OwnerLiveness::Dead);
        assert_eq!(me.of(OwnerId(3)), OwnerLiveness::Dead);
        assert_eq!(me.participants(), 1);
    }

    #[test]
    fn the_process_of_an_invocation_lives_but_takes_no_share() {
        let folder = tempfile::tempdir().expect("tempdir");
        let me = register(folder.path(), 1, Part::Process);
        let invocation = register(folder.path(), 2, Part::Invocation);
        assert_eq!((me.of(OwnerId(2)), me.participants(), me.share_wanted()), (OwnerLiveness::Alive, 1, false));
        assert!(!invocation.share_wanted(), "its caller decides");
        drop(invocation);
        assert_eq!(me.of(OwnerId(2)), OwnerLiveness::Dead);
    }

    #[test]
    fn what_dead_processes_left_is_swept_by_the_next() {
        let folder = tempfile::tempdir().expect("tempdir");
        let file = |name: &str, age: Duration| {
            let path = folder.path().join(name);
            let file = File::create(&path).expect("a file");
            let modified = file.metadata().and_then(|meta| meta.modified()).expect("a time") - age;
            file.set_modified(modified).expect("an older file");
            path
        };
        let hour = Duration::from_secs(3_600);
        let left = [file("a.lock", Duration::ZERO), file("b.invocation", Duration::ZERO), file("c.new", hour)];
        let stays = [file("d.new", Duration::ZERO), file("e.txt", hour)];
        let living = register(folder.path(), 1, Part::Process);
        assert_eq!(left.map(|path| path.exists()), [false; 3]);
        assert_eq!(stays.map(|path| path.exists()), [true; 2]);
        let _next = register(folder.path(), 2, Part::Process);
        assert_eq!(living.participants(), 2, "the living are not swept");
    }
}
