//! Handles, transactions and guards that are kept, moved to other threads, and live in tasks.

use std::sync::Arc;
use std::time::Duration;

use foreword_pages::{Change, Error, Options, PageMut, PageRef, Session, Store, Txn};

fn small() -> Options {
    let log = foreword::Options::new().segment_bytes(256 << 10);
    Options::new().page_bytes(4096).pool_bytes(64 * 4096).background(false).log(log)
}

#[test]
fn all_of_them_can_be_sent_anywhere() {
    fn can<T: Send + 'static>() {}
    fn can_be_shared<T: Sync>() {}
    can::<Store>();
    can::<Txn>();
    can::<Session>();
    can::<PageRef>();
    can::<PageMut>();
    can::<foreword_pages::Commit>();
    can_be_shared::<Store>();
    can_be_shared::<Session>();
    can_be_shared::<PageRef>();
}

#[test]
fn guards_are_moved_to_other_threads_and_outlive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let (one, two) = (txn.allocate().unwrap(), txn.allocate().unwrap());
    let (mut a, mut b) = (txn.fetch_exclusive(one).unwrap(), txn.fetch_exclusive(two).unwrap());
    // The transaction, its guards and a handle are on another thread now.
    let other = store.clone();
    let (txn, a) = std::thread::spawn(move || {
        let mut change = Change::new();
        change.write(one, 0, b"one").write(two, 0, b"two");
        txn.apply(&change, &mut [&mut a, &mut b]).unwrap();
        assert!(other.session().try_fetch_shared(two).unwrap().is_none());
        drop(b);
        assert_eq!(&other.session().fetch_shared(two).unwrap()[..3], b"two");
        (txn, a)
    })
    .join()
    .unwrap();
    let a = a.downgrade();
    txn.commit().unwrap();
    // Shared by two, it is not upgraded; alone, it is.
    let second = store.read(one).unwrap();
    let a = a.try_upgrade().unwrap_err();
    assert_eq!((&a[..3], a.id()), (&b"one"[..], one));
    drop(second);
    let a = a.try_upgrade().unwrap().downgrade();
    drop(store);
    // The files are closed: they can be opened again. The guard has the page as it was.
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    txn.update(one, 0, b"ONE").unwrap();
    txn.commit().unwrap();
    assert_eq!(&a[..3], b"one");
    std::thread::spawn(move || drop(a)).join().unwrap();
}

/// Without a handle a transaction goes on, and keeps the files.
#[test]
fn a_transaction_outlives_the_handles() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().background(true).open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    let session = store.session();
    drop(store);
    txn.update(page, 0, b"late").unwrap();
    txn.commit().unwrap();
    assert!(matches!(small().open(dir.path()), Err(Error::Log(foreword::Error::Locked { .. }))));
    assert_eq!(&session.fetch_shared(page).unwrap()[..4], b"late");
    drop(session);
    assert_eq!(&small().open(dir.path()).unwrap().read(page).unwrap()[..4], b"late");
}

/// After closing by one handle the others write nothing: another process may have the files.
#[test]
fn a_store_that_is_closed_is_closed_for_all_handles() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let (page, other) = (txn.allocate().unwrap(), txn.allocate().unwrap());
    txn.update(page, 0, b"kept").unwrap();
    txn.update(other, 0, b"read").unwrap();
    txn.commit().unwrap();
    let mut lost = store.begin();
    lost.update(page, 0, b"lost").unwrap();
    let (handle, guard) = (store.clone(), store.session().fetch_shared(other).unwrap());
    store.close().unwrap();
    let is_closed = |error: Error| matches!(error, Error::Log(foreword::Error::Closed));
    assert!(is_closed(lost.update(page, 10, b"x").unwrap_err()));
    assert!(is_closed(handle.begin().update(page, 10, b"x").unwrap_err()));
    assert!(is_closed(handle.checkpoint_all().unwrap_err()));
    assert!(is_closed(lost.commit().unwrap_err()));
    assert_eq!(&guard[..4], b"read");
    let again = small().open(dir.path()).unwrap();
    assert_eq!(again.recovery().losers, 1);
    assert!(is_closed(handle.close().unwrap_err()));
    assert_eq!(&again.read(page).unwrap()[..4], b"kept");
    again.close().unwrap();
}

/// Hundreds of transactions live in tasks, with few threads, and wait for durability without one.
#[test]
fn transactions_live_in_tasks_and_commit_without_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Arc<Vec<_>> = Arc::new((0..8).map(|_| txn.allocate().unwrap()).collect());
    txn.commit().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..400usize)
            .map(|task| {
                let (store, pages) = (store.clone(), pages.clone());
                tokio::spawn(async move {
                    let mut txn = store.begin();
                    txn.update(pages[task % 8], 8 * task, &(task as u64 + 1).to_le_bytes()).unwrap();
                    // It goes on, perhaps on another thread.
                    tokio::time::sleep(Duration::from_millis(task as u64 % 3)).await;
                    txn.update(pages[(task + 1) % 8], 8 * task, &(task as u64 + 1).to_le_bytes()).unwrap();
                    if task % 10 == 9 {
                        txn.abort().unwrap();
                        return None;
                    }
                    let commit = txn.commit_async().unwrap();
                    let lsn = commit.lsn();
                    assert_eq!(commit.await.unwrap(), lsn);
                    assert!(store.stats().log.durable_lsn >= lsn);
                    Some(lsn)
                })
            })
            .collect();
        let mut lsns = Vec::new();
        for task in tasks {
            lsns.extend(task.await.unwrap());
        }
        lsns.sort();
        lsns.dedup();
        assert_eq!(lsns.len(), 360);
        // Nothing to wait for.
        assert_eq!(store.begin().commit_async().unwrap().await.unwrap(), foreword::Lsn::ZERO);
        assert_eq!(store.durable(foreword::Lsn::ZERO).unwrap().await.unwrap(), foreword::Lsn::ZERO);
        // Another waits for what was committed without waiting.
        let mut txn = store.begin();
        txn.update(pages[0], 0, b"another").unwrap();
        let lsn = txn.commit_with(foreword::Durability::Buffered).unwrap();
        assert_eq!(store.durable(lsn).unwrap().await.unwrap(), lsn);
        assert!(store.stats().log.durable_lsn >= lsn);
        let mut txn = store.begin();
        txn.update(pages[0], 0, &1u64.to_le_bytes()).unwrap();
        txn.commit().unwrap();
    });
    for task in 0..400usize {
        let expected = if task % 10 == 9 { 0 } else { task as u64 + 1 };
        for page in [pages[task % 8], pages[(task + 1) % 8]] {
            if 8 * task + 8 <= store.page_len() {
                assert_eq!(store.read(page).unwrap()[8 * task..][..8], expected.to_le_bytes());
            }
        }
    }
    store.close().unwrap();
}
