use std::collections::BTreeMap;

use tempfile::TempDir;
use weir_coordinator::jobs;
use weir_model::invocation::{Invocation, Left};
use weir_state::manifest::entries_left;

use super::*;
use crate::collector::{Search, collect};
use crate::config::Config;
use crate::job::open_or_create;
use crate::topology::Role;

const WINDOWS: &str = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE, etime TIMESTAMP(3),
      WATERMARK FOR etime AS etime - INTERVAL '1' SECOND
    ) WITH ('connector' = 'plays', 'number-of-rows' = '400000', 'disorder-ms' = '4000');
    CREATE TABLE hot (window_start TIMESTAMP(3), song_id BIGINT, plays BIGINT, score DOUBLE)
      WITH ('connector' = 'filesystem', 'path' = '${folder}', 'format' = 'parquet');
    INSERT INTO hot SELECT window_start, song_id, count(*), sum(play_score)
    FROM TABLE(TUMBLE(TABLE plays, DESCRIPTOR(etime), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, song_id;";

const UPDATING: &str = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE)
      WITH ('connector' = 'plays', 'number-of-rows' = '400000');
    CREATE TABLE totals (song_id BIGINT, plays BIGINT, score DOUBLE, PRIMARY KEY (song_id) NOT ENFORCED)
      WITH ('connector' = 'filesystem', 'path' = '${folder}', 'format' = 'json');
    INSERT INTO totals SELECT song_id, count(*), sum(play_score) FROM plays GROUP BY song_id HAVING count(*) % 5 <> 0;";

const STATELESS: &str = "CREATE TABLE plays (song_id BIGINT, play_score DOUBLE)
      WITH ('connector' = 'plays', 'number-of-rows' = '400000');
    CREATE TABLE cheap (song_id BIGINT, play_score DOUBLE)
      WITH ('connector' = 'filesystem', 'path' = '${folder}', 'format' = 'json');
    INSERT INTO cheap SELECT song_id, play_score FROM plays WHERE song_id % 3 = 0;";

/// A job whose lanes and merge shards have said all, and of which nothing was published or deleted.
struct Ran {
    ctx: Ctx,
    loaded: Loaded,
    heads: BTreeMap<ShardKey, Head>,
    _folder: TempDir,
}

impl Ran {
    async fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sql = sql.replace("${folder}", &folder.path().display().to_string());
        let config = Config { store: "memory:".to_owned(), parallelism: Some(2), ..Config::default() };
        let mut ctx = crate::open::open(&config).await.unwrap().ctx;
        ctx.tuning.epoch_rows_max = 1;
        ctx.tuning.checkpoints.replay_epochs_max = 3;
        let loaded = std::sync::Arc::new(open_or_create(&ctx, "job", &sql, 2, 16).await.unwrap());
        let publishes = |shard: &ShardKey| loaded.topology.stage(shard.stage).role == Role::Publish;
        let shards = loaded.topology.all_shards().into_iter().filter(|shard| !publishes(shard)).collect();
        let invocation = Invocation { job: loaded.job, shards, rounds_max: None, run_millis_max: None };
        assert_eq!(crate::worker::run(&invocation, &ctx, &loaded).await.unwrap(), Left::Done);
        let heads = jobs::heads(ctx.table.as_ref(), &loaded.topology.all_shards()).await.unwrap();
        let heads = heads.into_iter().map(|head| (head.shard, head)).collect();
        let loaded = crate::job::open(&ctx, loaded.job).await.unwrap();
        // Another process has read nothing yet.
        ctx.cache = std::sync::Arc::new(weir_state::SegmentCache::new(1 << 20));
        Self { ctx, loaded, heads, _folder: folder }
    }

    fn of_role(&self, role: Role) -> impl Iterator<Item = &Head> {
        self.heads.values().filter(move |head| self.loaded.topology.stage(head.shard.stage).role == role)
    }

    async fn entries(&self, head: &Head) -> Vec<CommitEntry> {
        entries_left(self.ctx.objects.as_ref(), head).await.unwrap()
    }

    async fn again(&self, head: &Head, entries: &[CommitEntry], entry: &CommitEntry) -> Result<Rerun, WorkerError> {
        let past = Past { head, entries, upstream: &self.heads };
        match self.loaded.topology.stage(head.shard.stage).role {
            Role::Lane => lane(&self.ctx, &self.loaded, past, entry, 3).await,
            Role::Merge | Role::Publish => merge(&self.ctx, &self.loaded, past, entry, 3).await,
        }
    }

    /// Every batch of the shards of `role`, run again; fails where one gives something else.
    async fn all_again(&self, role: Role) -> Vec<Rerun> {
        let mut all = Vec::new();
        for head in self.of_role(role) {
            let entries = self.entries(head).await;
            assert_eq!(entries.len() as u64, head.epoch.0, "nothing was deleted");
            for entry in &entries {
                let again = self.again(head, &entries, entry).await.unwrap();
                let differs = again.differs.as_ref().map(ToString::to_string);
                assert_eq!((differs, again.digest), (None, entry.recipe.digest), "{} {}", head.shard, entry.epoch);
                for (kind, rows) in &again.outputs {
                    assert_eq!(Some(rows.rows), entry.segment(*kind).map(weir_model::SegmentRef::rows));
                }
                all.push(again);
            }
        }
        all
    }
}

fn made(again: &[Rerun], kind: SegmentKind) -> u64 {
    again.iter().flat_map(|again| &again.outputs).filter(|(made, _)| *made == kind).map(|(_, rows)| rows.rows).sum()
}

fn read(again: &[Rerun]) -> u64 {
    again.iter().flat_map(|again| &again.inputs).map(|input| input.rows.rows).sum()
}

#[tokio::test]
async fn every_batch_of_a_job_with_windows_gives_again_what_it_gave() {
    let ran = Ran::new(WINDOWS).await;
    let lanes = ran.all_again(Role::Lane).await;
    assert_eq!(read(&lanes), 400_000);
    assert!(made(&lanes, SegmentKind::Behind) > 0, "some rows are behind their lane's watermark");
    let merges = ran.all_again(Role::Merge).await;
    assert_eq!(read(&merges), made(&lanes, SegmentKind::Exchange) + made(&lanes, SegmentKind::Behind));
    assert_eq!(made(&merges, SegmentKind::Late), ran.heads.values().map(|head| head.stats.rows_late).sum::<u64>());
    assert_eq!(made(&merges, SegmentKind::Output), ran.of_role(Role::Merge).map(|head| head.stats.rows_out).sum::<u64>());
    let states: Vec<&StateChange> = merges.iter().filter_map(|again| again.state.as_ref()).collect();
    assert!(states.iter().any(|state| state.checkpoint > Epoch(0)) && states.iter().all(|state| state.replayed <= 4));
    let opened: usize = states.iter().map(|state| state.windows.opened.len()).sum();
    assert!(opened > 40, "{opened} windows in both shards");
    assert_eq!(opened, states.iter().map(|state| state.windows.closed.len()).sum::<usize>());
}

#[tokio::test]
async fn every_batch_of_a_table_by_key_gives_again_what_it_gave() {
    let ran = Ran::new(UPDATING).await;
    assert_eq!(read(&ran.all_again(Role::Lane).await), 400_000);
    let merges = ran.all_again(Role::Merge).await;
    let states: Vec<&StateChange> = merges.iter().filter_map(|again| again.state.as_ref()).collect();
    let opened: usize = states.iter().map(|state| state.groups.opened).sum();
    let mut left = 0;
    let mut before = 0;
    for head in ran.of_role(Role::Merge) {
        before += usize::try_from(head.epoch.0).unwrap();
        left += states[before - 1].groups.left;
    }
    assert_eq!(opened, left, "no key is ever closed");
    assert!(states.iter().any(|state| state.groups.updated > 0 && state.windows.left.is_empty()));
}

#[tokio::test]
async fn every_batch_of_a_stateless_job_gives_again_what_it_gave() {
    let ran = Ran::new(STATELESS).await;
    let lanes = ran.all_again(Role::Lane).await;
    assert_eq!(read(&lanes), 400_000);
    assert_eq!(made(&lanes, SegmentKind::Output), ran.of_role(Role::Lane).map(|head| head.stats.rows_out).sum::<u64>());
}

#[tokio::test]
async fn a_batch_that_gives_something_else_is_told_with_both_digests() {
    let ran = Ran::new(WINDOWS).await;
    let head = ran.of_role(Role::Merge).next().unwrap();
    let mut entries = ran.entries(head).await;
    let fired = entries.iter().position(|entry| entry.segment(SegmentKind::Output).is_some()).unwrap();
    let committed = entries[fired].recipe.digest;
    entries[fired].recipe.digest ^= 1;
    let again = ran.again(head, &entries, &entries[fired]).await.unwrap();
    assert_eq!(again.digest, committed);
    let said = again.differs.unwrap().to_string();
    assert!(said.contains(&format!("{committed:016x}")) && said.contains(&format!("{:016x}", committed ^ 1)), "{said}");
    entries[fired].recipe.digest = committed;
    // One that only leads to the state before another.
    let until_checkpoint = entries.iter().position(|entry| entry.segment(SegmentKind::Checkpoint).is_some()).unwrap();
    entries[until_checkpoint].recipe.digest ^= 1;
    let next = &entries[until_checkpoint + 1];
    assert!(ran.again(head, &entries, next).await.unwrap().differs.is_none(), "the checkpoint has it");
    entries[0].recipe.digest ^= 1;
    let failed = ran.again(head, &entries, &entries[1]).await;
    assert!(until_checkpoint == 0 || matches!(failed, Err(WorkerError::Replay { epoch: Epoch(1), .. })), "{failed:?}");
}

#[tokio::test]
async fn what_a_batch_read_and_nobody_needs_any_more_is_gone() {
    let ran = Ran::new(WINDOWS).await;
    collect(&ran.ctx, &ran.loaded, Search::Fallen).await.unwrap();
    let head = ran.of_role(Role::Merge).next().unwrap();
    let entries = ran.entries(head).await;
    let failed = ran.again(head, &entries, &entries[0]).await.unwrap_err();
    let is_gone = match &failed {
        WorkerError::Gone { .. } => true,
        WorkerError::State(error) => error.kind() == weir_state::Kind::Missing,
        _ => false,
    };
    assert!(is_gone, "{failed}");
    // A lane reads its source again.
    let lane = ran.of_role(Role::Lane).next().unwrap();
    let entries = ran.entries(lane).await;
    assert!(ran.again(lane, &entries, entries.last().unwrap()).await.unwrap().differs.is_none());
}
