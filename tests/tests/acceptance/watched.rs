//! A running `weir run` on a store of its own, watched from outside: by its table's rows and its folder's files.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use weir_coordinator::{SqliteTable, claim, jobs};
use weir_functions::topology::Topology;
use weir_model::{Head, JobId, OwnerId, ShardKey};

use crate::support::weir;

/// After this nothing is waited for any more.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
/// How often it is looked for what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Plays for ever, twenty seconds of event time each second, counted in windows of so many seconds of it.
pub(crate) fn endless_windows(window_seconds: u32, sink: &str) -> String {
    format!(
        "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
           WITH ('connector' = 'plays', 'rows-per-second' = '20000', 'disorder-ms' = '0');
         CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE) WITH ({sink});
         INSERT INTO hot SELECT window_start, song_id, count(*), sum(play_score)
         FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '{window_seconds}' SECOND)) GROUP BY window_start, window_end, song_id;"
    )
}

/// Looks until there is something, or fails with `what`.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: not after {DEADLINE:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A process in a group of its own that does not outlive the test.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// Sends a signal to the whole group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: &str) {
        let group = format!("-{}", self.0.id());
        assert!(Command::new("kill").args([signal, "--", &group]).status().expect("kill starts").success());
    }

    /// Whether one that has ended did so without an error.
    pub(crate) fn ended_well(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_some_and(|status| status.success())
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("it is dead");
    }
}

/// A script, and the folder with its store.
pub(crate) struct Watched {
    folder: tempfile::TempDir,
    sql: String,
    parallelism: u16,
}

impl Watched {
    /// - `sql`: `${folder}` stands for the folder.
    pub(crate) fn new(sql: &str, parallelism: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let sql = sql.replace("${folder}", &folder.path().display().to_string());
        std::fs::write(folder.path().join("job.sql"), &sql).expect("a script");
        Self { folder, sql, parallelism }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command.args(arguments).args(["--store", "file://store"]).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = self.weir(&["run", "job.sql", "--parallelism", &self.parallelism.to_string()]);
        command.args(["--commit-interval", "10ms", "--durability", "process"]).args(more);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("weir starts")
    }

    /// Starts it; what it says on standard error goes to the file `said`.
    pub(crate) fn start(&self, more: &[&str]) -> Process {
        let said = std::fs::OpenOptions::new().create(true).append(true).open(self.path("said")).expect("a file");
        let mut command = self.command(more);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Process(command.stdout(Stdio::null()).stderr(said).spawn().expect("weir starts"))
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).unwrap_or_default()
    }

    /// The table, once the job is in it.
    pub(crate) async fn table(&self) -> Table {
        let file = self.path("store/coordination.sqlite");
        until("the job's table", || file.exists().then_some(()));
        let table = SqliteTable::open(&file, false).expect("the table opens");
        let began = Instant::now();
        let job = loop {
            if let Some((_, job)) = jobs::list(&table).await.expect("it answers").first() {
                break *job;
            }
            assert!(began.elapsed() < DEADLINE, "the job was not created: {}", self.said());
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let plan = weir_plan::compile(&self.sql).await.expect("compiles");
        let shards = Topology::new(job, &plan, &[], self.parallelism, 720).all_shards();
        Table { table, job, shards }
    }

    /// Bytes and files of the store, staging and lock files and all.
    pub(crate) fn size(&self) -> Size {
        let mut size = Size::default();
        add_folder(&self.path("store"), &mut size);
        add_folder(&self.path("out/.weir-staging"), &mut size);
        size
    }
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Size {
    pub(crate) fn max(self, other: Self) -> Self {
        Self { bytes: self.bytes.max(other.bytes), files: self.files.max(other.files) }
    }
}

/// What goes while it is looked at does not count.
fn add_folder(folder: &Path, size: &mut Size) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => add_folder(&entry.path(), size),
            Ok(meta) => {
                size.bytes += meta.len();
                size.files += 1;
            }
            Err(_) => {}
        }
    }
}

/// The rows of a job.
pub(crate) struct Table {
    pub(crate) table: SqliteTable,
    pub(crate) job: JobId,
    pub(crate) shards: Vec<ShardKey>,
}

impl Table {
    pub(crate) async fn heads(&self) -> Vec<Head> {
        jobs::heads(&self.table, &self.shards).await.expect("heads")
    }

    /// Versions of the heads: each write moves one.
    pub(crate) async fn versions(&self) -> Vec<u64> {
        let mut versions = Vec::new();
        for shard in &self.shards {
            versions.push(claim::read_head(&self.table, *shard).await.expect("a head").1);
        }
        versions
    }

    pub(crate) async fn commits(&self) -> u64 {
        self.heads().await.iter().map(|head| head.epoch.0).sum()
    }

    /// Waits for something of the heads.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&[Head]) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            let heads = self.heads().await;
            if let Some(found) = look(&heads) {
                return found;
            }
            assert!(began.elapsed() < DEADLINE, "{what}: not after {DEADLINE:?}, {heads:#?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until that many commits were made.
    pub(crate) async fn until_commits(&self, commits: u64) {
        let enough = |heads: &[Head]| (heads.iter().map(|head| head.epoch.0).sum::<u64>() >= commits).then_some(());
        self.until("commits", enough).await;
    }
}

/// Owners of these heads, each once.
pub(crate) fn owners(heads: &[Head]) -> Vec<OwnerId> {
    let mut owners: Vec<OwnerId> = heads.iter().filter_map(|head| head.owner.as_ref()).map(|owner| owner.id).collect();
    owners.retain(|owner| *owner != OwnerId::NOBODY);
    owners.sort_unstable();
    owners.dedup();
    owners
}
