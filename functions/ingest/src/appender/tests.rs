use arrow::array::{ArrayRef, Int64Array, StringArray};
use weir_coordinator::{Claim, ClaimOutcome, claim};
use weir_model::Activity;
use weir_model::decide::OwnerLiveness;
use weir_model::head::Owner;

use super::*;
use crate::testing::{head, ids, other, schema, seams, stream};
use crate::{close_lanes, read_schema};

fn rows(values: &[i64]) -> Vec<RecordBatch> {
    let id: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let name: ArrayRef = Arc::new(StringArray::from(vec!["x"; values.len()]));
    vec![RecordBatch::try_new(schema(), vec![id, name]).unwrap()]
}

fn key(key: &str, body: &str) -> Option<RequestKey> {
    Some(RequestKey { key: key.to_owned(), body: body.to_owned(), lasts: Lasts::Day })
}

fn request(batches: Vec<RecordBatch>, key: Option<RequestKey>) -> RowsRequest {
    RowsRequest { batches, key, room: None }
}

fn start(seams: &Seams, row: &StreamRow, settings: FoldSettings) -> Appender {
    Appender::start(seams, row.clone(), schema(), settings)
}

/// Takes a lane from whoever holds it.
async fn seize(seams: &Seams, row: &StreamRow, lane: usize) -> Claim {
    let owner = Owner { id: seams.owner, lease_until_micros: i64::MAX };
    match claim(seams.table.as_ref(), row.shards()[lane], &owner, 0, |_| OwnerLiveness::Dead).await.unwrap() {
        ClaimOutcome::Claimed(claim) => *claim,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_that_come_together_share_a_commit() {
    let seams = seams();
    let row = stream(&seams, 1).await;
    let appender = start(&seams, &row, FoldSettings { interval: Duration::from_millis(200), ..FoldSettings::default() });
    let first = appender.append(request(rows(&[0]), None)).await.unwrap();
    let together = futures::future::join_all((1..=50).map(|id| appender.append(request(rows(&[id]), None)))).await;
    let places: HashSet<_> = together.into_iter().map(|answer| answer.unwrap().place).collect();
    assert_eq!(first.place, Some((ShardId(0), Epoch(1))));
    assert_eq!(places, HashSet::from([Some((ShardId(0), Epoch(2)))]));
    appender.leave().await;
    assert_eq!(ids(&seams, &row).await, (0..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_repeat_is_answered_like_the_first_and_another_body_is_refused() {
    let seams = seams();
    let row = stream(&seams, 1).await;
    let appender = start(&seams, &row, FoldSettings::default());
    let first = appender.append(request(rows(&[1, 2]), key("k", "a"))).await.unwrap();
    assert!(!first.repeated);
    let again = appender.append(request(rows(&[1, 2]), key("k", "a"))).await.unwrap();
    assert_eq!(again, Receipt { repeated: true, ..first });
    assert_eq!(appender.append(request(rows(&[3]), key("k", "b"))).await, Err(Refusal::KeyReused));
    // With good requests in the same fold: they are not held up.
    let mixed = futures::future::join3(
        appender.append(request(rows(&[4]), key("new", "c"))),
        appender.append(request(rows(&[1, 2]), key("k", "a"))),
        appender.append(request(rows(&[5]), None)),
    );
    let (new, repeat, plain) = mixed.await;
    assert!(!new.unwrap().repeated && repeat.unwrap().repeated && !plain.unwrap().repeated);
    appender.leave().await;
    assert_eq!(ids(&seams, &row).await, [1, 2, 4, 5]);
}

#[tokio::test]
async fn one_key_sent_many_times_at_once_counts_once() {
    let seams = seams();
    let row = stream(&seams, 4).await;
    let appenders: Vec<_> =
        [seams.clone(), other(&seams)].iter().map(|seams| start(seams, &row, FoldSettings::default())).collect();
    let sent = (0..40).map(|number| appenders[number % 2].append(request(rows(&[9]), key("k", "a"))));
    let answers = futures::future::join_all(sent).await;
    let first = answers.iter().filter(|answer| !answer.as_ref().unwrap().repeated).count();
    assert_eq!(first, 1);
    assert_eq!(ids(&seams, &row).await, [9]);
}

#[tokio::test]
async fn more_keys_than_a_transaction_holds_go_into_several() {
    let seams = seams();
    let row = stream(&seams, 1).await;
    let appender = start(&seams, &row, FoldSettings::default());
    let sent = (0..250).map(|id| appender.append(request(rows(&[id]), key(&format!("k{id}"), "a"))));
    for answer in futures::future::join_all(sent).await {
        assert!(!answer.unwrap().repeated);
    }
    assert_eq!(ids(&seams, &row).await, (0..250).collect::<Vec<_>>());
    assert!(head(&seams, row.shards()[0]).await.epoch >= Epoch(3));
}

#[tokio::test]
async fn a_lane_that_was_taken_loses_no_request() {
    let seams = seams();
    let row = stream(&seams, 2).await;
    let appender = start(&seams, &row, FoldSettings::default());
    let (lane, _) = appender.append(request(rows(&[1]), None)).await.unwrap().place.unwrap();
    let _thief = seize(&other(&seams), &row, lane.0 as usize).await;
    let (elsewhere, _) = appender.append(request(rows(&[2]), None)).await.unwrap().place.unwrap();
    assert_ne!(elsewhere, lane);
    assert_eq!(ids(&seams, &row).await, [1, 2]);
}

#[tokio::test]
async fn a_stream_all_of_whose_lanes_are_held_is_busy() {
    let seams = seams();
    let row = stream(&seams, 1).await;
    let _holder = seize(&other(&seams), &row, 0).await;
    let appender = start(&seams, &row, FoldSettings::default());
    assert_eq!(appender.append(request(rows(&[1]), None)).await, Err(Refusal::Busy));
    assert!(ids(&seams, &row).await.is_empty());
}

#[tokio::test]
async fn a_quiet_lane_says_that_it_is_idle_and_is_free() {
    let seams = seams();
    let row = stream(&seams, 1).await;
    let appender = start(&seams, &row, FoldSettings { idle_after: Duration::from_millis(20), ..FoldSettings::default() });
    appender.append(request(rows(&[1]), None)).await.unwrap();
    let mut changes = seams.table.changes();
    loop {
        let found = head(&seams, row.shards()[0]).await;
        if found.activity == Activity::Idle {
            assert_eq!((found.owner, found.epoch), (None, Epoch(2)));
            break;
        }
        changes.next().await;
    }
    appender.append(request(rows(&[2]), None)).await.unwrap();
    assert_eq!(head(&seams, row.shards()[0]).await.activity, Activity::Active);
}

#[tokio::test]
async fn the_lane_of_a_dead_process_is_said_to_be_idle() {
    let seams = seams();
    let row = stream(&seams, 2).await;
    let dead = other(&seams);
    let gone = start(&dead, &row, FoldSettings { lease: Duration::ZERO, ..FoldSettings::default() });
    let (lane, _) = gone.append(request(rows(&[1]), None)).await.unwrap().place.unwrap();
    gone.folding.abort();
    let appender = start(&seams, &row, FoldSettings::default());
    // It takes the other lane, or the same one.
    let (own, _) = appender.append(request(rows(&[2]), None)).await.unwrap().place.unwrap();
    let of_dead = head(&seams, row.shards()[lane.0 as usize]).await;
    assert!(own == lane || of_dead.activity == Activity::Idle, "{:?}", of_dead.activity);
    assert_eq!(ids(&seams, &row).await, [1, 2]);
}

#[tokio::test]
async fn a_process_that_goes_on_speaks_for_one_that_died_meanwhile() {
    let seams = seams();
    let row = stream(&seams, 2).await;
    let appender = start(&seams, &row, FoldSettings { lease: Duration::ZERO, ..FoldSettings::default() });
    appender.append(request(rows(&[1]), None)).await.unwrap();
    let dead = Owner { id: other(&seams).owner, lease_until_micros: 0 };
    let taken = claim(seams.table.as_ref(), row.shards()[1], &dead, 0, |_| OwnerLiveness::Unknown).await.unwrap();
    assert!(matches!(taken, ClaimOutcome::Claimed(claim) if claim.head.activity == Activity::Active));
    appender.append(request(rows(&[2]), None)).await.unwrap();
    let lane = head(&seams, row.shards()[1]).await;
    assert_eq!((lane.activity, lane.owner), (Activity::Idle, None));
}

#[tokio::test]
async fn a_request_whose_client_has_gone_keeps_its_room_until_its_rows_are_committed() {
    let seams = seams();
    let row = stream(&seams, 1).await;
    let appender = start(&seams, &row, FoldSettings { interval: Duration::from_millis(200), ..FoldSettings::default() });
    appender.append(request(rows(&[1]), None)).await.unwrap();
    let room = Arc::new(tokio::sync::Semaphore::new(1));
    let taken = Arc::clone(&room).try_acquire_owned().unwrap();
    let gone = appender.append(RowsRequest { room: Some(taken), ..request(rows(&[2]), None) });
    assert!(futures::poll!(std::pin::pin!(gone)).is_pending());
    assert_eq!(room.available_permits(), 0);
    appender.leave().await;
    assert_eq!((room.available_permits(), ids(&seams, &row).await), (1, vec![1, 2]));
}

#[tokio::test]
async fn a_closed_stream_takes_nothing_and_keeps_what_it_has() {
    let seams = seams();
    let row = stream(&seams, 3).await;
    let appender = start(&seams, &row, FoldSettings::default());
    let first = appender.append(request(rows(&[1]), key("k", "a"))).await.unwrap();
    let closed = streams::close(seams.table.as_ref(), "plays").await.unwrap().unwrap();
    close_lanes(&other(&seams), &closed).await.unwrap();
    close_lanes(&other(&seams), &closed).await.unwrap();
    assert_eq!(appender.append(request(rows(&[2]), None)).await, Err(Refusal::Closed));
    assert_eq!(appender.append(request(rows(&[2]), key("new", "b"))).await, Err(Refusal::Closed));
    let again = appender.append(request(rows(&[1]), key("k", "a"))).await.unwrap();
    assert_eq!(again, Receipt { repeated: true, ..first });
    for shard in row.shards() {
        assert_eq!(head(&seams, shard).await.activity, Activity::Closed);
    }
    assert_eq!(ids(&seams, &row).await, [1]);
}

#[tokio::test]
async fn a_stream_is_made_once_whoever_makes_it() {
    let seams = seams();
    let made = futures::future::join_all((0..8).map(|_| stream(&seams, 2))).await;
    assert!(made.iter().all(|row| *row == made[0]));
    assert_eq!(read_schema(&seams, &made[0]).await.unwrap(), schema());
    let wrong = crate::open_or_create(&seams, "a/b", &schema(), 1).await.unwrap_err().to_string();
    assert!(wrong.contains("letters, digits"), "{wrong}");
}
