//! One invocation at a time, in memory, by a clock that moves when somebody sleeps.

use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use weir_coordinator::claim::read_head;
use weir_coordinator::{Condition, TransactOutcome, Write, jobs, keys};
use weir_ingest::{Appender, FoldSettings, RowsRequest};
use weir_model::decide::VANISHED_MAX;
use weir_model::head::Owner;
use weir_model::time::Sleep;
use weir_model::{Clock, Head, OwnerId};

use super::*;
use crate::config::Config;
use crate::context::Tuning;

const SQL: &str = "CREATE TABLE plays (id BIGINT) WITH ('connector' = 'http', 'lanes' = '1');
    CREATE TABLE sink (id BIGINT) WITH ('connector' = 'blackhole');
    INSERT INTO sink SELECT id FROM plays;";

#[derive(Debug, Default)]
struct Stepping(AtomicI64);

impl Clock for Stepping {
    fn now_micros(&self) -> i64 {
        1_800_000_000_000_000 + self.monotonic_micros()
    }
    fn monotonic_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.fetch_add(i64::try_from(duration.as_micros()).unwrap(), Ordering::Relaxed);
        Box::pin(tokio::task::yield_now())
    }
}

/// A job whose one lane reads the one lane of a stream.
struct World {
    ctx: Ctx,
    loaded: Arc<Loaded>,
    invocation: Invocation,
}

impl World {
    async fn new(tuning: impl FnOnce(&mut Tuning)) -> Self {
        let config = Config { store: "memory:".to_owned(), parallelism: Some(1), ..Config::default() };
        let mut ctx = crate::open::open(&config).await.unwrap().ctx;
        let loaded = Arc::new(job::open_or_create(&ctx, "job", SQL, 1, 8).await.unwrap());
        ctx.clock = Arc::new(Stepping::default());
        tuning(&mut ctx.tuning);
        let shards = loaded.topology.slots().remove(0);
        let invocation = Invocation { job: loaded.job, shards, rounds_max: None, run_millis_max: None };
        Self { ctx, loaded, invocation }
    }

    /// Commits one epoch of the stream for each row; the last says that the stream is idle.
    async fn append(&self, rows: std::ops::Range<i64>) {
        let clock = Arc::new(weir_seams::SystemClock::new());
        let seams = weir_ingest::Seams { clock, ..crate::stream::ingest_seams(&self.ctx) };
        let row = self.loaded.pinned[0].stream().unwrap().row.clone();
        let schema = weir_ingest::read_schema(&seams, &row).await.unwrap();
        let appender = Appender::start(&seams, row, schema, FoldSettings::default());
        for id in rows {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values([id]));
            let rows = RecordBatch::try_from_iter_with_nullable([("id", column, true)]).unwrap();
            let request = RowsRequest { batches: vec![rows], ..RowsRequest::default() };
            appender.append(request).await.unwrap();
        }
        appender.leave().await;
    }

    fn lane(&self) -> ShardKey {
        self.invocation.shards[0]
    }

    async fn head(&self, shard: ShardKey) -> Head {
        read_head(self.ctx.table.as_ref(), shard).await.unwrap().0
    }

    /// Epochs of the stream, and how many of them the job's lane has read.
    async fn read(&self) -> (Epoch, Epoch) {
        let stream = self.loaded.pinned[0].stream().unwrap().row.shards()[0];
        (self.head(stream).await.epoch, self.head(self.lane()).await.input(stream).epoch)
    }

    async fn write(&self, change: impl FnOnce(&mut Head)) {
        let (mut head, version) = read_head(self.ctx.table.as_ref(), self.lane()).await.unwrap();
        change(&mut head);
        let (key, body) = (keys::head(self.lane()), serde_json::to_vec(&head).unwrap().into());
        let write = Write::Put { key, condition: Condition::VersionIs(version), body };
        assert_eq!(self.ctx.table.transact(vec![write]).await.unwrap(), TransactOutcome::Applied);
    }

    async fn run(&self) -> Result<Left, WorkerError> {
        run(&self.invocation, &self.ctx, &self.loaded).await
    }
}

#[tokio::test]
async fn a_worker_does_not_leave_while_rows_wait_for_the_end_of_a_commit_interval() {
    // Each epoch of the lane takes one of the stream; the next is due long after the worker would have left.
    let world = World::new(|tuning| tuning.epoch_rows_max = 1).await;
    assert!(world.ctx.tuning.linger < world.ctx.tuning.commit_interval);
    world.append(0..3).await;
    assert_eq!(world.run().await.unwrap(), Left::Idle);
    let (epochs, read) = world.read().await;
    assert!(epochs >= Epoch(3));
    assert_eq!(read, epochs);
}

#[tokio::test]
async fn a_batch_of_a_lane_that_reads_a_stream_reads_the_same_rows_again() {
    let world = World::new(|tuning| tuning.epoch_rows_max = 1).await;
    world.append(0..3).await;
    assert_eq!(world.run().await.unwrap(), Left::Idle);
    let stream = world.loaded.pinned[0].stream().unwrap().row.shards()[0];
    let (head, upstream) = (world.head(world.lane()).await, [(stream, world.head(stream).await)].into());
    let entries = weir_state::manifest::entries_left(world.ctx.objects.as_ref(), &head).await.unwrap();
    let past = rerun::Past { head: &head, entries: &entries, upstream: &upstream };
    let mut ids = Vec::new();
    for entry in &entries {
        let again = rerun::lane(&world.ctx, &world.loaded, past, entry, 10).await.unwrap();
        assert!(again.differs.is_none());
        for rows in &again.inputs[0].rows.first {
            ids.extend_from_slice(rows.column(0).as_primitive::<Int64Type>().values());
        }
    }
    assert_eq!(ids, [0, 1, 2]);
}

#[tokio::test]
async fn an_invocation_whose_time_is_over_commits_what_there_is_and_hands_on() {
    let world = World::new(|tuning| tuning.epoch_rows_max = 1).await;
    world.append(0..3).await;
    let now = world.ctx.clock.monotonic_micros();
    assert_eq!(run_until(now, &world.invocation, &world.ctx, &world.loaded).await.unwrap(), Left::More);
    let head = world.head(world.lane()).await;
    assert!(world.read().await.1 >= Epoch(1));
    assert_eq!(head.owner.map(|owner| owner.lease_until_micros <= world.ctx.clock.now_micros()), Some(true));
}

#[tokio::test]
async fn time_spent_before_the_first_round_counts() {
    let world = World::new(|_| {}).await;
    let invocation = Invocation { run_millis_max: Some(100), ..world.invocation.clone() };
    let leave_at = leave_at(&invocation, &world.ctx);
    // Opening the job took longer than there was time.
    drop(world.ctx.clock.sleep(Duration::from_secs(1)));
    let began = world.ctx.clock.monotonic_micros();
    assert_eq!(run_until(leave_at, &invocation, &world.ctx, &world.loaded).await.unwrap(), Left::More);
    assert!(world.ctx.clock.monotonic_micros() - began < 100_000);
}

#[tokio::test]
async fn a_shard_with_nothing_to_say_gets_no_longer_lease_by_being_asked() {
    let world = World::new(|_| {}).await;
    for _ in 0..6 {
        assert_eq!(world.run().await.unwrap(), Left::Idle);
        let head = world.head(world.lane()).await;
        assert_eq!((head.claims_since_commit, head.owner), (0, None));
    }
}

#[tokio::test]
async fn the_lease_of_a_commit_is_no_longer_for_holders_that_vanished_before_it() {
    let world = World::new(|_| {}).await;
    world.write(|head| head.claims_since_commit = 3).await;
    world.append(0..1).await;
    let claimed = claiming::claim_all(&world.ctx, &world.loaded, &world.invocation.shards).await.unwrap();
    assert_eq!(claimed.vanished, 3);
    let lease = |head: Head| head.owner.unwrap().lease_until_micros - world.ctx.clock.now_micros();
    let base = i64::try_from(world.ctx.tuning.lease.as_micros()).unwrap();
    assert_eq!(lease(world.head(world.lane()).await), 8 * base);
    let mut worker = Worker::load(&world.ctx, &world.loaded, &claimed.claims).await.unwrap();
    let mut committer = Committer::new(world.ctx.clone(), claimed.claims);
    let mut round = Round::new(&world.ctx, true);
    worker.run_round(&world.ctx, &world.loaded, &mut round).await.unwrap();
    assert!(committer.submit(round).await.unwrap() && committer.drain().await.unwrap());
    let head = world.head(world.lane()).await;
    assert_eq!((head.claims_since_commit, lease(head)), (0, base));
}

#[tokio::test]
async fn a_shard_that_kills_its_workers_is_given_up_with_its_name_and_what_to_do() {
    let world = World::new(|tuning| tuning.vanished_max = VANISHED_MAX).await;
    world.append(0..1).await;
    let lease_until_micros = world.ctx.clock.now_micros();
    let dead = Owner { id: OwnerId(9), lease_until_micros };
    world.write(|head| (head.claims_since_commit, head.owner) = (VANISHED_MAX, Some(dead))).await;
    let error = world.run().await.unwrap_err().to_string();
    assert!(error.contains(&world.lane().to_string()) && error.contains("weir run"), "{error}");
    // Where somebody watches it is tried, with small batches; a commit ends it.
    let watched = Ctx { tuning: Tuning { vanished_max: u32::MAX, ..world.ctx.tuning.clone() }, ..world.ctx.clone() };
    assert_eq!(run(&world.invocation, &watched, &world.loaded).await.unwrap(), Left::Idle);
    assert_eq!(world.head(world.lane()).await.claims_since_commit, 0);
    assert_eq!(world.run().await.unwrap(), Left::Idle);
}

#[tokio::test]
async fn a_worker_that_failed_hands_on_for_a_little_later() {
    let world = World::new(|_| {}).await;
    world.append(0..1).await;
    // The segment is gone: the store lost it.
    let stream = world.loaded.pinned[0].stream().unwrap().row.shards()[0];
    for segment in world.head(stream).await.recent.iter().flat_map(|entry| &entry.segments) {
        let path = object_store::path::Path::from(segment.object.as_str());
        object_store::ObjectStoreExt::delete(world.ctx.objects.as_ref(), &path).await.unwrap();
    }
    assert!(world.run().await.is_err());
    let head = world.head(world.lane()).await;
    let owner = head.owner.unwrap();
    assert!(owner.lease_until_micros > world.ctx.clock.now_micros(), "whoever comes at once would fail again");
    assert_eq!(head.claims_since_commit, 0, "it did not vanish");
}

#[tokio::test]
async fn a_job_that_is_closed_but_not_finished_is_finished_by_whoever_is_called() {
    let config = Config { store: "memory:".to_owned(), parallelism: Some(1), ..Config::default() };
    let function = crate::lambda::Worker::open(&config).await.unwrap();
    let ctx = function.ctx();
    let loaded = Arc::new(job::open_or_create(ctx, "job", SQL, 1, 8).await.unwrap());
    let shards = loaded.topology.slots().remove(0);
    let invocation = Invocation { job: loaded.job, shards, rounds_max: None, run_millis_max: None };
    let world = World { ctx: ctx.clone(), loaded, invocation };
    world.write(|head| head.activity = weir_model::Activity::Closed).await;
    assert_eq!(function.handle(world.invocation.clone(), Duration::from_secs(10)).await.unwrap(), Left::Done);
    let row = jobs::row(world.ctx.table.as_ref(), world.loaded.job).await.unwrap();
    assert_eq!(row.desired, weir_model::job::DesiredState::Finished);
    let stream = world.loaded.pinned[0].stream().unwrap().row.stream;
    let pins = weir_coordinator::retention::read(world.ctx.table.as_ref(), stream).await.unwrap().pins;
    assert!(pins.is_empty(), "the stream's past is let go of: {pins:?}");
}

#[tokio::test]
async fn a_function_commits_as_often_as_the_script_of_the_job_says() {
    let config = Config { store: "memory:".to_owned(), parallelism: Some(1), ..Config::default() };
    let function = crate::lambda::Worker::open(&config).await.unwrap();
    let sql = format!("SET 'execution.checkpointing.interval' = '70 ms';{SQL}");
    let loaded = job::open_or_create(function.ctx(), "job", &sql, 1, 8).await.unwrap();
    assert_eq!(function.ctx_for(&loaded).tuning.commit_interval, Duration::from_millis(70));
}

#[tokio::test]
async fn windows_that_give_results_again_read_a_stream_by_several_lanes() {
    let config = Config { store: "memory:".to_owned(), parallelism: Some(1), ..Config::default() };
    let function = crate::lambda::Worker::open(&config).await.unwrap();
    let sql = "CREATE TABLE plays (song BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime) WITH ('connector' = 'http');
        CREATE TABLE hot (w TIMESTAMP(3), n BIGINT, PRIMARY KEY (w) NOT ENFORCED) WITH ('connector' = 'blackhole');
        INSERT INTO hot SELECT window_start, count(*) FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' HOUR))
        GROUP BY window_start, window_end EMIT EVERY INTERVAL '1' SECOND;";
    let loaded = job::open_or_create(function.ctx(), "early", sql, 2, 8).await.unwrap();
    assert_eq!(loaded.topology.stages[0].layout.shards.len(), 2);
}

#[tokio::test]
async fn a_time_after_which_lanes_are_idle_is_not_for_streams() {
    let config = Config { store: "memory:".to_owned(), parallelism: Some(1), ..Config::default() };
    let function = crate::lambda::Worker::open(&config).await.unwrap();
    let sql = "CREATE TABLE plays (song BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime)
          WITH ('connector' = 'http', 'scan.watermark.idle-timeout' = '1 s');
        CREATE TABLE hot (w TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO hot SELECT window_start, count(*) FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '1' HOUR))
        GROUP BY window_start, window_end;";
    let refused = job::open_or_create(function.ctx(), "idle", sql, 1, 8).await.unwrap_err().to_string();
    assert!(refused.contains("plays: a stream's lanes say themselves"), "{refused}");
}
