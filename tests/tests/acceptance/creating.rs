//! Two scripts under one name at the same time: one becomes the job, the other is told so and leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::sync::Barrier;
use weir_coordinator::{
    Changes, CoordinationStore, Item, ItemKey, MemoryTable, StoreError, TransactOutcome, Write, jobs, keys, retention, streams,
};
use weir_functions::config::Config;
use weir_functions::context::Ctx;
use weir_functions::job::{self, JobError};
use weir_functions::open;
use weir_model::JobId;

/// Whoever looks for the job's name waits until both have looked, and found nothing.
#[derive(Debug)]
struct LookTogether {
    inner: MemoryTable,
    looks: AtomicUsize,
    both: Barrier,
    /// Partitions that were written.
    written: std::sync::Mutex<Vec<ItemKey>>,
}

#[async_trait]
impl CoordinationStore for LookTogether {
    async fn get(&self, key: &ItemKey) -> Result<Option<Item>, StoreError> {
        let found = self.inner.get(key).await?;
        if *key == keys::name("job") && self.looks.fetch_add(1, Ordering::Relaxed) < 2 {
            assert!(found.is_none(), "nobody has created it yet");
            self.both.wait().await;
        }
        Ok(found)
    }

    async fn query(&self, partition: &str) -> Result<Vec<Item>, StoreError> {
        self.inner.query(partition).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<TransactOutcome, StoreError> {
        let keys = writes.iter().map(|write| write.target().0.clone()).collect::<Vec<_>>();
        self.written.lock().expect("lock").extend(keys);
        self.inner.transact(writes).await
    }

    fn changes(&self) -> Changes {
        self.inner.changes()
    }
}

fn sql(divisor: u32) -> String {
    format!(
        "CREATE TABLE plays (song_id BIGINT, etime TIMESTAMP(3), WATERMARK FOR etime AS etime) WITH ('connector' = 'http', 'lanes' = '1');
         CREATE TABLE seen (song_id BIGINT) WITH ('connector' = 'blackhole');
         CREATE TABLE also (song_id BIGINT) WITH ('connector' = 'blackhole');
         EXECUTE STATEMENT SET
         BEGIN
         INSERT INTO seen SELECT song_id FROM plays WHERE song_id % {divisor} = 0;
         INSERT INTO also SELECT song_id FROM plays;
         END;"
    )
}

/// Jobs and streams that own an object.
async fn owners_of_objects(ctx: &Ctx) -> Vec<String> {
    let listed = ctx.objects.list_with_delimiter(Some(&"jobs".into())).await.expect("listed");
    let mut owners: Vec<String> =
        listed.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_owned)).collect();
    owners.sort();
    owners
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_scripts_under_one_name_one_runs_and_the_other_leaves_nothing_behind() {
    let mut ctx = open::open(&Config { store: "memory:".to_owned(), ..Config::default() }).await.expect("opens").ctx;
    let table = Arc::new(LookTogether {
        inner: MemoryTable::new(),
        looks: AtomicUsize::new(0),
        both: Barrier::new(2),
        written: std::sync::Mutex::default(),
    });
    ctx.table = Arc::clone(&table) as Arc<dyn CoordinationStore>;
    // The stream is there before: which of the two makes it is another race.
    let plan = weir_plan::compile(&sql(2)).await.expect("compiles");
    weir_functions::stream::attach(&ctx, &plan.pipelines[0].source, "plays").await.expect("a stream");

    let (two, three) = (sql(2), sql(3));
    let (one, other) =
        tokio::join!(job::open_or_create(&ctx, "job", &two, 2, 12), job::open_or_create(&ctx, "job", &three, 2, 12));
    let (won, lost) = match (one, other) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => panic!("one of them wins: {both:?}"),
    };
    assert!(matches!(&lost, JobError::Edited { name } if name == "job"), "{lost}");
    assert!(lost.to_string().contains("--name job-2"), "{lost}");

    let row = jobs::row(ctx.table.as_ref(), won.job).await.expect("the job is there");
    assert_eq!((row.name.as_str(), jobs::list(ctx.table.as_ref()).await.expect("listed").len()), ("job", 1));
    let stream = streams::find(ctx.table.as_ref(), "plays").await.expect("found").expect("there").stream;
    let pins = retention::read(ctx.table.as_ref(), stream).await.expect("the stream's row").pins;
    assert!(pins.keys().eq([&retention::job_reader(won.job)]), "only the job that is there holds the stream's past: {pins:?}");
    let mut expected = vec![won.job.to_string(), stream.to_string()];
    expected.sort();
    assert_eq!(owners_of_objects(&ctx).await, expected);
    assert_no_row_of_others(&table, &[won.job, stream]).await;
}

/// Every row that was ever written and names another job or stream is gone.
async fn assert_no_row_of_others(table: &LookTogether, known: &[JobId]) {
    let written = std::mem::take(&mut *table.written.lock().expect("lock"));
    let is_known = |key: &ItemKey| {
        let named = known.iter().any(|job| key.partition.contains(&job.to_string()));
        named || !key.partition.contains('/')
    };
    let mut others = 0;
    for key in written.iter().filter(|key| !is_known(key)) {
        // A refused transaction wrote nothing; what an earlier one wrote was taken back.
        assert!(table.inner.get(key).await.expect("it answers").is_none(), "{key} is left");
        others += 1;
    }
    assert!(others > 0, "the loser had written something");
}
