//! Answers that are lost, late or refusals of the service (T5).

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use weir_model::decide::OwnerLiveness;
use weir_model::head::Owner;
use weir_model::job::{DesiredState, JOB_FORMAT, JobRow};
use weir_model::routes::{ROUTES_FORMAT, RoutesRow};
use weir_model::{CommitId, Epoch, Incarnation, JobId, OwnerId};

use super::network::{Fate, start};
use super::*;
use crate::claim::{ClaimOutcome, claim};
use crate::commit::tests::{NoManifests, next, shard};
use crate::commit::{CommitOutcome, commit};
use crate::jobs::{self, CreateOutcome, NewJob, create};
use crate::store::Condition;

/// A table, and the same table through a network that fails as told.
struct Through {
    direct: DynamoTable,
    faulty: DynamoTable,
}

async fn through(fates: &[Fate]) -> Through {
    through_with(fates, RetryConfig::disabled()).await
}

async fn through_with(fates: &[Fate], retries: RetryConfig) -> Through {
    let (connection, place) = fresh().await;
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(1_500)).build();
    let config = connection.table.config().to_builder().endpoint_url(start(&endpoint(), fates));
    let client = Client::from_conf(config.timeout_config(timeouts).retry_config(retries).build());
    let faulty = DynamoTable::new(client, place.clone(), Arc::new(RealClock), Arc::new(RandomIds::default()));
    Through { direct: table(&connection, &place), faulty }
}

fn key(sort: &str) -> ItemKey {
    ItemKey::new("p", sort)
}

fn put(sort: &str, condition: Condition) -> Write {
    Write::Put { key: key(sort), condition, body: "{}".into() }
}

async fn version(table: &DynamoTable, sort: &str) -> Option<u64> {
    table.get(&key(sort)).await.unwrap().map(|item| item.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_is_applied_once_and_heard_of() {
    for fate in [Fate::AnswerLost, Fate::AnswerHangs, Fate::ServerError, Fate::RequestLost] {
        let Through { direct, faulty } = through(&[fate; 2]).await;
        assert_eq!(faulty.transact(vec![put("a", Condition::Absent)]).await.unwrap(), TransactOutcome::Applied, "{fate:?}");
        assert_eq!(version(&direct, "a").await, Some(1), "{fate:?}");
        assert_eq!(faulty.transact(vec![put("a", Condition::VersionIs(1))]).await.unwrap(), TransactOutcome::Applied);
        assert_eq!(version(&direct, "a").await, Some(2), "{fate:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_answer_was_lost_is_applied_once_and_heard_of() {
    for fate in [Fate::AnswerLost, Fate::ServerError, Fate::RequestLost] {
        for _ in 0..5 {
            let Through { direct, faulty } = through(&[fate, fate]).await;
            let both = vec![put("a", Condition::Absent), put("b", Condition::Absent)];
            assert_eq!(faulty.transact(both).await.unwrap(), TransactOutcome::Applied, "{fate:?}");
            assert_eq!((version(&direct, "a").await, version(&direct, "b").await), (Some(1), Some(1)), "{fate:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_unclear_is_indeterminate_and_never_refused() {
    let Through { direct, faulty } = through(&[Fate::AnswerLost; 5]).await;
    let lost = faulty.transact(vec![put("a", Condition::Absent)]).await;
    assert!(matches!(lost, Err(StoreError::Indeterminate(_))), "{lost:?}");
    assert_eq!(version(&direct, "a").await, Some(1));
    let Through { direct, faulty } = through(&[Fate::AnswerLost]).await;
    let _ = direct.transact(vec![put("a", Condition::Absent)]).await.unwrap();
    let blind = faulty.transact(vec![put("a", Condition::Exists)]).await;
    assert!(matches!(blind, Err(StoreError::Indeterminate(_))), "{blind:?}");
    assert_eq!(version(&direct, "a").await, Some(2), "a blind write is sent once");
    let Through { direct, faulty } = through(&[Fate::AnswerLost]).await;
    let _ = direct.transact(vec![put("a", Condition::Absent)]).await.unwrap();
    let gone = faulty.transact(vec![Write::Delete { key: key("a"), condition: Condition::VersionIs(1) }]).await;
    assert!(matches!(gone, Err(StoreError::Indeterminate(_))), "nothing is left to prove it by: {gone:?}");
    assert_eq!(version(&direct, "a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_and_conflicts_are_waited_out_and_never_refusals() {
    let passing = [Fate::RefusedAs("ThrottlingException"), Fate::RefusedAs("TransactionConflictException")];
    let Through { direct, faulty } = through(&passing).await;
    assert_eq!(faulty.transact(vec![put("a", Condition::Absent)]).await.unwrap(), TransactOutcome::Applied);
    assert_eq!(version(&direct, "a").await, Some(1));
    let Through { direct, faulty } = through(&[Fate::RefusedAs("ProvisionedThroughputExceededException"); 5]).await;
    let throttled = faulty.transact(vec![put("a", Condition::Absent)]).await;
    assert!(matches!(throttled, Err(StoreError::Determinate(_))), "{throttled:?}");
    assert_eq!(version(&direct, "a").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_retries_by_itself_does_not_hide_that_its_write_was_applied() {
    let Through { direct, faulty } = through_with(&[Fate::AnswerLost; 2], RetryConfig::standard()).await;
    assert_eq!(faulty.transact(vec![put("a", Condition::Absent)]).await.unwrap(), TransactOutcome::Applied);
    assert_eq!(version(&direct, "a").await, Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_serves_has_done_nothing() {
    let (connection, place) = fresh().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = connection.table.config().to_builder().endpoint_url(format!("http://{nobody}")).build();
    let away = DynamoTable::new(Client::from_conf(config), place, Arc::new(RealClock), Arc::new(RandomIds::default()));
    let outcome = away.transact(vec![put("a", Condition::Absent)]).await;
    assert!(matches!(&outcome, Err(StoreError::Determinate(text)) if text.contains("nothing answers")), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_claims_and_commits_survive_lost_answers() {
    let Through { direct, faulty } = through(&[Fate::AnswerLost, Fate::ServerError, Fate::AnswerLost, Fate::AnswerLost]).await;
    let job = shard().job;
    let routes = RoutesRow { format: ROUTES_FORMAT, job, slots: Vec::new(), routes: Vec::new() };
    let row = job_row(job);
    let new = NewJob { row: &row, layouts: &[], routes: &routes, shards: &[shard()], holds: &[] };
    assert_eq!(create(&faulty, &new).await.unwrap(), CreateOutcome::Created);
    let owner = Owner { id: OwnerId(1), lease_until_micros: 0 };
    let claimed = match claim(&faulty, shard(), &owner, 0, |_| OwnerLiveness::Unknown).await.unwrap() {
        ClaimOutcome::Claimed(claimed) => *claimed,
        other => panic!("{other:?}"),
    };
    let head = next(&claimed, CommitId(7));
    let outcome = commit(&faulty, &RealClock, &NoManifests, vec![(claimed, head)], CommitId(7)).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    let head = jobs::heads(&direct, &[shard()]).await.unwrap().remove(0);
    assert_eq!((head.epoch, head.last_commit, head.claims_since_commit), (Epoch(1), Some(CommitId(7)), 0));
}

fn job_row(job: JobId) -> JobRow {
    JobRow {
        format: JOB_FORMAT,
        job,
        name: "job".into(),
        incarnation: Incarnation(1),
        plan: "plan".into(),
        plan_version: 1,
        sql_digest: 0,
        desired: DesiredState::Running,
        stages: 1,
        created_micros: 0,
    }
}
