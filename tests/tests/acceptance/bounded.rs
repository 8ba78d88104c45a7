//! What a job that never ends keeps and asks for: its store stays as large as it is, its requests are paid for by its commits, and one
//! that has nothing to do makes none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use weir_coordinator::{ClaimOutcome, Condition, TransactOutcome, Write, claim, jobs, keys, retention};
use weir_functions::collector::{self, Search};
use weir_functions::config::Config;
use weir_functions::host::{self, Outcome};
use weir_functions::job::{self, Loaded};
use weir_functions::open::{self, Opened};
use weir_model::decide::OwnerLiveness;
use weir_model::head::Owner;
use weir_model::retention::Pin;
use weir_model::{Generation, Ids, OwnerId, ShardKey};
use weir_seams::{Durability, RandomIds};
use weir_state::paths::{self, Folder};

use crate::support::{assert_ok, text};
use crate::watched::{DEADLINE, Size, Table, Watched, endless_windows, owners};

/// Times the collector must have raised the floors before the folder is measured, and in each half of the measurement.
const PASSES_BEFORE: usize = 2;
const PASSES: usize = 3;
/// How long an idle job is watched.
const IDLE: Duration = Duration::from_secs(3);

const OUT: &str = "'connector' = 'filesystem', 'path' = '${folder}/out', 'format' = 'csv'";

async fn floors(table: &Table) -> u64 {
    let row = retention::read(&table.table, table.job).await.expect("the retention row");
    row.floors.values().map(|floor| floor.0).sum()
}

/// Measures while the floors rise `passes` times and until `commits` were made; returns the largest size met, and the commits.
async fn largest(job: &Watched, table: &Table, passes: usize, commits: u64) -> (Size, u64) {
    let (mut largest, mut seen, mut rises) = (Size::default(), floors(table).await, 0);
    let began = std::time::Instant::now();
    loop {
        largest = largest.max(job.size());
        let (now, made) = (floors(table).await, table.commits().await);
        rises += usize::from(now > seen);
        seen = now;
        if rises >= passes && made >= commits {
            return (largest, made);
        }
        assert!(began.elapsed() < DEADLINE, "{rises} passes of the collector, {made} of {commits} commits: {}", job.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stays_bounded(invoke: &str) {
    // A shard keeps what it read since its last checkpoint, 64 of its commits ago: with short windows that is soon.
    let job = Watched::new(&endless_windows(1, OUT), 2);
    let mut process = job.start(&["--quiet", "--invoke", invoke]);
    let table = job.table().await;
    let (_, before) = largest(&job, &table, PASSES_BEFORE, 0).await;
    let (first, halfway) = largest(&job, &table, PASSES, 0).await;
    let (second, after) = largest(&job, &table, PASSES, halfway + (halfway - before)).await;
    println!("{invoke}: {first:?} until {halfway} commits, {second:?} until {after}");
    assert!(process.is_running(), "{}", job.said());
    assert!(halfway - before >= 64, "only {} commits in the first half", halfway - before);
    let limit = |first: u64| first + first / 2;
    assert!(second.bytes <= limit(first.bytes) && second.files <= limit(first.files), "{first:?}, then {second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_an_endless_job_stays_bounded_in_threads() {
    stays_bounded("thread").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_an_endless_job_stays_bounded_in_processes() {
    stays_bounded("process").await;
}

/// A job in this process.
struct Here {
    opened: Opened,
    loaded: Arc<Loaded>,
    config: Config,
}

impl Here {
    async fn new(store: &str, sql: &str) -> Self {
        let config = Config {
            store: store.to_owned(),
            parallelism: Some(2),
            commit_interval: Duration::from_millis(20),
            durability: Durability::Process,
            ..Config::default()
        };
        let opened = open::open(&config).await.expect("the store opens");
        let loaded = job::open_or_create(&opened.ctx, "job", sql, 2, 720).await.expect("the job is created");
        Self { opened, loaded: Arc::new(loaded), config }
    }

    fn start(&self) -> tokio::task::JoinHandle<Result<Outcome, weir_functions::worker::WorkerError>> {
        let (ctx, loaded, config) = (self.opened.ctx.clone(), Arc::clone(&self.loaded), self.config.clone());
        tokio::spawn(async move { host::run(&ctx, &loaded, &config).await })
    }

    /// Waits for something to be counted.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Opened) -> bool) {
        let began = std::time::Instant::now();
        while !holds(&self.opened) {
            assert!(began.elapsed() < DEADLINE, "{what}: not after {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stores an object that nothing names, made by the present generation of `shard`.
    async fn put_unnamed(&self, shard: ShardKey) -> ObjectPath {
        let generation = self.generation(shard).await;
        let object = paths::object(Folder::Data, RandomIds::new().object(), shard, generation);
        let object = ObjectPath::from(object);
        self.opened.ctx.objects.put(&object, "never committed".into()).await.expect("stored");
        object
    }

    async fn generation(&self, shard: ShardKey) -> Generation {
        claim::read_head(self.opened.ctx.table.as_ref(), shard).await.expect("a head").0.generation
    }

    async fn exists(&self, object: &ObjectPath) -> bool {
        self.opened.ctx.objects.head(object).await.is_ok()
    }

    async fn collect(&self) {
        collector::collect(&self.opened.ctx, &self.loaded, Search::Orphans).await.expect("collects");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_costs_at_most_two_puts_and_two_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'csv'", folder.path().join("out").display());
    let job = Here::new("memory:", &endless_windows(10, &sink)).await;
    let (objects, table) = (job.opened.object_requests(), job.opened.table_requests());
    let run = job.start();
    // Long enough for the collector to pass too.
    job.until("commits and a pass", |opened| opened.ctx.progress.commits.get() >= 600 && opened.object_requests().deletes > 0)
        .await;
    job.opened.ctx.stop.request();
    assert_eq!(run.await.expect("no panic").expect("stops"), Outcome::Stopped);
    let commits = job.opened.ctx.progress.commits.get();
    let puts = job.opened.object_requests().puts - objects.puts;
    let writes = job.opened.table_requests().writes - table.writes;
    println!("{commits} commits: {puts} puts, {writes} rows written");
    assert!(puts <= 2 * commits && writes <= 2 * commits, "{commits} commits: {puts} puts, {writes} rows written");
}

fn continuous(folder: &str) -> String {
    format!(
        "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
           WITH ('connector' = 'filesystem', 'path' = '{folder}/in', 'format' = 'json', 'mode' = 'continuous', 'source.monitor-interval' = '20ms');
         CREATE TABLE seen (song_id BIGINT) WITH ('connector' = 'filesystem', 'path' = '{folder}/out', 'format' = 'csv');
         INSERT INTO seen SELECT song_id FROM plays;"
    )
}

fn add(folder: &Path, name: &str, rows: u64) {
    let lines: String = (0..rows).map(|song| format!("{{\"song_id\":{song},\"etime\":\"2026-01-01 00:00:00\"}}\n")).collect();
    std::fs::write(folder.join("new"), lines).expect("a file");
    std::fs::create_dir_all(folder.join("in")).expect("a folder");
    std::fs::rename(folder.join("new"), folder.join("in").join(name)).expect("a file");
}

/// Runs a job that has read everything, and asserts that it makes no request but reads of the table.
async fn asks_nothing_while_idle(job: &Here, begin: impl Fn(&Opened) -> bool) {
    let run = job.start();
    job.until("what there is to do", |opened| begin(opened)).await;
    let reads = |opened: &Opened| opened.table_requests().reads;
    // What follows the last row has been committed when nobody writes for as long as somebody looks.
    let mut writes = u64::MAX;
    while writes != job.opened.table_requests().transactions {
        writes = job.opened.table_requests().transactions;
        let looked = reads(&job.opened);
        job.until("looks", |opened| reads(opened) >= looked + 30).await;
    }
    let (objects, table) = (job.opened.object_requests(), job.opened.table_requests());
    job.until("looks while idle", |opened| reads(opened) >= table.reads + 60).await;
    let now = (job.opened.object_requests(), job.opened.table_requests().transactions);
    assert_eq!(now, (objects, table.transactions), "an idle job made requests");
    job.opened.ctx.stop.request();
    assert_eq!(run.await.expect("no panic").expect("stops"), Outcome::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_files_are_read_asks_nothing_of_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    add(folder.path(), "a.json", 1_000);
    let job = Here::new("memory:", &continuous(&folder.path().display().to_string())).await;
    asks_nothing_while_idle(&job, |opened| opened.ctx.progress.published.get() == 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_stream_is_quiet_asks_nothing_of_the_store() {
    let sql = "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime) WITH ('connector' = 'http');
         CREATE TABLE hot (song_id BIGINT, plays BIGINT) WITH ('connector' = 'print');
         INSERT INTO hot SELECT song_id, count(*)
         FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id;";
    let job = Here::new("memory:", sql).await;
    asks_nothing_while_idle(&job, |opened| opened.table_requests().reads > 30).await;
}

/// Watches an idle job from outside: no head is written and no object comes or goes.
async fn writes_nothing(job: &Watched, table: &Table) {
    let objects = || {
        let mut names = Vec::new();
        files(&job.path("store/jobs"), &mut names);
        names
    };
    let (versions, before) = (table.versions().await, objects());
    tokio::time::sleep(IDLE).await;
    assert_eq!(table.versions().await, versions, "an idle job wrote: {}", job.said());
    assert_eq!(objects(), before);
}

fn files(folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), names);
        } else {
            names.push(entry.path().display().to_string());
        }
    }
    names.sort();
}

/// Lines of a sink.
fn published(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file());
    files.map(|path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count())).sum()
}

/// Waits until the sink holds `rows` rows and that is acknowledged.
async fn until_published(job: &Watched, table: &Table, rows: usize) {
    crate::watched::until("results", || (published(&job.path("out")) == rows).then_some(()));
    let settled = |heads: &[weir_model::Head]| {
        let pending = heads.iter().any(|head| head.publish.as_ref().is_some_and(|publish| publish.pending.is_some()));
        (!pending).then_some(())
    };
    table.until("the sink's acknowledgement", settled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_job_in_processes_writes_nothing_and_goes_on_when_there_is_more() {
    let job = Watched::new(&continuous("${folder}"), 2);
    add(job.path("").as_path(), "a.json", 100);
    let _process = job.start(&["--quiet", "--invoke", "process"]);
    let table = job.table().await;
    until_published(&job, &table, 100).await;
    writes_nothing(&job, &table).await;
    add(job.path("").as_path(), "b.json", 50);
    until_published(&job, &table, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_idle_processes_share_a_job_and_leave_each_other_alone_however_short_the_lease() {
    let job = Watched::new(&continuous("${folder}"), 2);
    std::fs::write(job.path("weir.toml"), "lease = \"200ms\"\n").expect("settings");
    add(job.path("").as_path(), "a.json", 100);
    let _processes = [job.start(&["--quiet"]), job.start(&["--quiet"])];
    let table = job.table().await;
    table.until("a share for each", |heads| (owners(heads).len() == 2).then_some(())).await;
    until_published(&job, &table, 100).await;
    writes_nothing(&job, &table).await;
    add(job.path("").as_path(), "b.json", 50);
    until_published(&job, &table, 150).await;
}

const BOUNDED: &str = "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
       WITH ('connector' = 'plays', 'number-of-rows' = '20000');
     CREATE TABLE hot (song_id BIGINT, plays BIGINT) WITH ('connector' = 'blackhole');
     INSERT INTO hot SELECT song_id, count(*)
     FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id;";

/// The same of a stream.
const FED: &str =
    "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime) WITH ('connector' = 'http');
     CREATE TABLE hot (song_id BIGINT, plays BIGINT) WITH ('connector' = 'blackhole');
     INSERT INTO hot SELECT song_id, count(*)
     FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id;";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_last_generation_of_a_quiet_shard_never_committed_is_collected() {
    let job = Here::new("memory:", BOUNDED).await;
    assert_eq!(job.start().await.expect("no panic").expect("runs"), Outcome::Finished);
    let shards = job.loaded.topology.all_shards();
    let mut left = Vec::new();
    for shard in &shards {
        left.push(job.put_unnamed(*shard).await);
    }
    // One of them is held by somebody whose lease runs.
    let (held, now) = (shards[0], job.opened.ctx.clock.now_micros());
    let owner = Owner { id: OwnerId(7), lease_until_micros: now + 3_600_000_000 };
    let table = job.opened.ctx.table.as_ref();
    let ClaimOutcome::Claimed(claimed) =
        claim::claim(table, held, &owner, now, |_| OwnerLiveness::Unknown).await.expect("claims")
    else {
        panic!("the shard was free");
    };
    let under_way = job.put_unnamed(held).await;
    job.collect().await;
    for object in &left {
        assert!(!job.exists(object).await, "{object} is still there");
    }
    assert!(job.exists(&under_way).await, "what a living holder has under way stays");
    assert_eq!(job.generation(held).await, claimed.head.generation, "a holder is not fenced");

    claim::release(table, vec![*claimed]).await.expect("releases");
    let heads = jobs::heads(table, &shards).await.expect("heads");
    job.collect().await;
    assert!(!job.exists(&under_way).await, "it let go without a commit");
    job.collect().await;
    let after = jobs::heads(table, &shards).await.expect("heads");
    let claims = |heads: &[weir_model::Head]| heads.iter().map(|head| head.generation.0).sum::<u64>();
    assert_eq!(claims(&after), claims(&heads) + 1, "a shard without such objects is not claimed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pin_of_somebody_who_died_while_looking_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let job = Here::new(&format!("file://{}", folder.path().join("store").display()), FED).await;
    let table = job.opened.ctx.table.as_ref();
    let stream = job.loaded.pinned[0].stream().expect("it reads a stream").row.stream;
    let living = [retention::look_reader(job.opened.ctx.owner), "somebody".to_owned()];
    for pinned in [job.loaded.job, stream] {
        let everything = Pin { everything: true, ..Pin::default() };
        for reader in [&retention::look_reader(OwnerId(7)), &living[0], &living[1]] {
            let _pinned = retention::pin(table, pinned, reader, &everything).await.expect("pins");
        }
    }
    job.collect().await;
    for pinned in [job.loaded.job, stream] {
        let mut pins = retention::read(table, pinned).await.expect("the row").pins;
        // A stream's past is also held for the job that reads it.
        pins.remove(&retention::job_reader(job.loaded.job));
        assert!(pins.keys().eq(living.iter()), "{pins:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_collected_ends_and_says_why() {
    let job = Here::new("memory:", &endless_windows(10, "'connector' = 'blackhole'")).await;
    let write = Write::Put { key: keys::retention(job.loaded.job), condition: Condition::Exists, body: "nonsense".into() };
    assert_eq!(job.opened.ctx.table.transact(vec![write]).await.expect("written"), TransactOutcome::Applied);
    let error = job.start().await.expect("no panic").expect_err("its store would grow for ever").to_string();
    assert!(error.contains("retention"), "{error}");
    assert!(job.opened.ctx.stop.requested());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_open_windows_can_be_read_while_the_job_deletes_what_it_no_longer_needs() {
    let job = Watched::new(&endless_windows(10, "'connector' = 'blackhole'"), 2);
    let mut process = job.start(&["--quiet"]);
    let table = job.table().await;
    let (mut copied, first) = (0, floors(&table).await);
    let mut number = 0;
    // Until the collector has passed twice while copies were made.
    let mut rises = 0;
    let mut seen = first;
    while rises < 2 || copied == 0 {
        let folder = format!("copy-{number}");
        let output = job.weir(&["partials", "job", "--copy", &folder]).output().expect("weir starts");
        assert_ok(&output);
        for file in text(&output.stdout).lines() {
            copied += partial_rows(&job.path("").join(file));
        }
        let now = floors(&table).await;
        rises += usize::from(now > seen);
        (seen, number) = (now, number + 1);
        assert!(process.is_running(), "{}", job.said());
        // A pin holds all floors: the collector must find times without one.
        table.until_commits(table.commits().await + 40).await;
    }
    println!("{number} copies of {copied} partial rows");
    let row = retention::read(&table.table, table.job).await.expect("the row");
    assert!(row.pins.is_empty(), "a pin is left: {:?}", row.pins);
    let listed = job.weir(&["partials", "job"]).output().expect("weir starts");
    assert_ok(&listed);
    assert!(text(&listed.stderr).contains("--copy DIR"), "{}", text(&listed.stderr));
}

fn partial_rows(file: &Path) -> usize {
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let file = std::fs::File::open(file).expect("a copy");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("readable");
    reader.map(|batch| batch.expect("rows").num_rows()).sum()
}
