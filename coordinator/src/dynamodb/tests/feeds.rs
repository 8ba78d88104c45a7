//! The change feed.

use super::*;
use crate::store::Condition;

const PATIENCE: Duration = Duration::from_secs(20);

fn put(sort: &str, condition: Condition) -> Write {
    Write::Put { key: ItemKey::new("p", sort), condition, body: "{}".into() }
}

async fn done(table: &DynamoTable, writes: Vec<Write>) {
    assert_eq!(table.transact(writes).await.unwrap(), TransactOutcome::Applied);
}

async fn read(feed: &mut Feed, wanted: usize) -> Vec<(String, Option<u64>)> {
    let mut changed = Vec::new();
    while changed.len() < wanted {
        let batch = feed.poll().await;
        assert!(batch.failed.is_none(), "{:?}", batch.failed);
        changed.extend(batch.changed.into_iter().map(|change| (change.key.sort, change.version)));
        RealClock.sleep(Duration::from_millis(50)).await;
    }
    changed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_tells_each_write_of_an_item_in_order() {
    let (connection, place) = fresh().await;
    let table = table(&connection, &place);
    let stream = describe(&connection.table, &place).await.unwrap().stream;
    done(&table, vec![put("a", Condition::Absent)]).await;
    let mut late = Feed::new(connection.streams.clone(), place.clone(), stream.clone(), Since::Now);
    assert!(late.poll().await.gap, "what was before is not told, and that is");
    done(&table, vec![put("a", Condition::VersionIs(1)), put("b", Condition::Absent)]).await;
    done(&table, vec![Write::Delete { key: ItemKey::new("p", "a"), condition: Condition::VersionIs(2) }]).await;
    let mut feed = Feed::new(connection.streams.clone(), place, stream, Since::Oldest);
    let (early, late) =
        tokio::join!(tokio::time::timeout(PATIENCE, read(&mut feed, 4)), tokio::time::timeout(PATIENCE, read(&mut late, 3)));
    let of = |changed: &[(String, Option<u64>)], sort: &str| -> Vec<Option<u64>> {
        changed.iter().filter(|(of, _)| of == sort).map(|(_, version)| *version).collect()
    };
    let (early, late) = (early.unwrap(), late.unwrap());
    assert_eq!((of(&early, "a"), of(&early, "b")), (vec![Some(1), Some(2), None], vec![Some(1)]));
    assert_eq!((of(&late, "a"), of(&late, "b")), (vec![Some(2), None], vec![Some(1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_wakes_when_one_writes() {
    let (connection, place) = fresh().await;
    let one = table(&connection, &place);
    let (clock, ids) = (Arc::new(RealClock), Arc::new(RandomIds::default()));
    let two = DynamoTable::open(&place.table, Some(&endpoint()), clock, ids).await.unwrap();
    let mut changes = two.changes();
    for round in 0..2 {
        while tokio::time::timeout(Duration::from_millis(1_500), changes.next()).await.is_ok() {}
        let sort = format!("seen-{round}");
        done(&one, vec![put(&sort, Condition::Absent)]).await;
        tokio::time::timeout(PATIENCE, changes.next()).await.unwrap();
        assert!(two.get(&ItemKey::new("p", sort)).await.unwrap().is_some());
    }
}
