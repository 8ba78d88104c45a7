//! What every object store must do; each of ours is held to it by tests.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};

/// A size that stores which put in parts put in several.
const LARGE_BYTES: usize = (20 << 20) + 7;

/// Holds `store` to the contract, on names below `folder` that it leaves empty.
///
/// # Panics
/// With the sentence that does not hold.
#[expect(clippy::expect_used, reason = "a contract is held to by tests")]
pub async fn holds(store: &dyn ObjectStore, folder: &str) {
    let name = |name: &str| Path::from(format!("{folder}/{name}"));
    let put = async |path: &Path, bytes: Bytes| store.put(path, bytes.into()).await.expect("an object is stored");
    let read = async |path: &Path| store.get(path).await.expect("it is there").bytes().await.expect("it is read");

    let (a, b) = (name("a/1"), name("b/2"));
    assert!(matches!(store.get(&a).await, Err(Error::NotFound { .. })), "what was never stored is not found");
    put(&a, Bytes::from_static(b"0123456789")).await;
    assert_eq!(read(&a).await.as_ref(), b"0123456789", "what was stored is read at once");
    put(&a, Bytes::from_static(b"0123456789")).await;
    assert_eq!(read(&a).await.as_ref(), b"0123456789", "storing the same again changes nothing");

    assert_eq!(store.get_range(&a, 2..5).await.expect("a range").as_ref(), b"234", "a range is read by itself");
    let ranges = store.get_ranges(&a, &[0..1, 8..10]).await.expect("ranges");
    assert_eq!(ranges, [Bytes::from_static(b"0"), Bytes::from_static(b"89")], "ranges come in the order asked");

    let large = Bytes::from((0..=250).cycle().take(LARGE_BYTES).collect::<Vec<u8>>());
    put(&b, large.clone()).await;
    assert_eq!(read(&b).await, large, "a large object is read as it was stored");
    let end = LARGE_BYTES as u64;
    assert_eq!(store.get_range(&b, end - 3..end).await.expect("its end"), large.slice(LARGE_BYTES - 3..), "its end alone too");

    let listed = async || {
        let found: Vec<_> = store.list(Some(&Path::from(folder))).try_collect().await.expect("a listing");
        let mut names: Vec<_> = found.into_iter().map(|meta| (meta.location, meta.size)).collect();
        names.sort();
        names
    };
    assert_eq!(listed().await, [(a.clone(), 10), (b.clone(), end)], "a listing names what is there, with its size");

    let missing = name("c/3");
    let gone = [Ok(a.clone()), Ok(missing), Ok(b.clone())];
    let answers: Vec<_> = store.delete_stream(futures::stream::iter(gone).boxed()).collect().await;
    let fine = |answer: &Result<Path, Error>| matches!(answer, Ok(_) | Err(Error::NotFound { .. }));
    assert!(
        answers.len() == 3 && answers.iter().all(fine),
        "deleting answers for each name, one that is not there too: {answers:?}"
    );
    assert_eq!(listed().await, [], "what was deleted is listed no more");
    assert!(matches!(store.get(&a).await, Err(Error::NotFound { .. })), "what was deleted is not found");
}
