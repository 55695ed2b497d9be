//! Transactions: what is committed comes back, and nothing else does.

use foreword_pages::{Error, PageId};

use super::{read, small};

#[test]
fn what_is_committed_comes_back_after_closing_and_after_not_closing() {
    let dir = tempfile::tempdir().unwrap();
    let mut pages: Vec<PageId> = Vec::new();
    for round in 0u64..8 {
        let store = small().open(dir.path()).unwrap();
        assert_eq!(store.stats().pages_used, pages.len() as u64);
        for (i, &page) in pages.iter().enumerate() {
            assert_eq!(read(&store, page, 8), (round * 1000 + i as u64).to_le_bytes(), "round {round}");
        }
        let mut txn = store.begin();
        pages.extend((0..100).map(|_| txn.allocate().unwrap()));
        for (i, &page) in pages.iter().enumerate() {
            txn.update(page, 0, &((round + 1) * 1000 + i as u64).to_le_bytes()).unwrap();
        }
        txn.commit().unwrap();
        match round % 2 {
            0 => store.close().unwrap(),
            _ => drop(store),
        }
    }
}

#[test]
fn a_transaction_is_live_until_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let txns = [(); 3].map(|()| store.begin());
    let ids = txns.each_ref().map(foreword_pages::Txn::id);
    assert!(ids.iter().all(|&id| store.is_live(id)));
    let [one, two, three] = txns;
    one.commit().unwrap();
    two.abort().unwrap();
    assert_eq!(ids.map(|id| store.is_live(id)), [false, false, true]);
    drop(three);
    assert!(!ids.iter().any(|&id| store.is_live(id)));
}

#[test]
fn what_is_not_committed_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.update(page, 10, b"committed").unwrap();
    txn.commit().unwrap();

    let mut dropped = store.begin();
    dropped.update(page, 10, b"XXXXXXXXX").unwrap();
    let other = dropped.allocate().unwrap();
    drop(dropped);
    assert_eq!(&store.read(page).unwrap()[10..19], b"committed");
    assert!(matches!(store.read(other), Err(Error::NotAllocated { page, .. }) if page == other));

    // The transaction is alive when the store is closed, and its changes are on disk.
    let mut lost = store.begin();
    lost.update(page, 10, b"YYYYYYYYY").unwrap();
    let other = lost.allocate().unwrap();
    lost.free(page).unwrap();
    store.close().unwrap();
    assert!(matches!(lost.update(page, 10, b"Z"), Err(Error::Log(foreword_pages::foreword::Error::Closed))));
    drop(lost);
    let store = small().open(dir.path()).unwrap();
    assert_eq!(store.recovery().losers, 1);
    assert_eq!(store.recovery().undo.records, 2);
    assert_eq!(&store.read(page).unwrap()[10..19], b"committed");
    assert!(matches!(store.read(other), Err(Error::NotAllocated { .. })));
    drop(store);
    let store = small().open(dir.path()).unwrap();
    assert_eq!(store.recovery().losers, 0, "it was undone once and for all");
}

#[test]
fn savepoints_take_back_what_came_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.update(page, 0, b"one").unwrap();
    let first = txn.savepoint();
    txn.update(page, 0, b"two").unwrap();
    let second = txn.savepoint();
    txn.update(page, 0, b"three").unwrap();
    txn.free(page).unwrap();
    txn.rollback_to(&second).unwrap();
    assert_eq!(read(&store, page, 5), b"two\0\0");
    txn.rollback_to(&first).unwrap();
    assert!(matches!(txn.rollback_to(&second), Err(Error::Invalid { .. })));
    assert!(matches!(store.begin().rollback_to(&first), Err(Error::Invalid { .. })));
    txn.update(page, 0, b"four").unwrap();
    txn.rollback_to(&first).unwrap();
    txn.rollback_to(&first).unwrap();
    assert_eq!(read(&store, page, 5), b"one\0\0");
    txn.update(page, 3, b"!").unwrap();
    txn.commit().unwrap();
    drop(store);
    let store = small().open(dir.path()).unwrap();
    assert_eq!(read(&store, page, 5), b"one!\0");
}

#[test]
fn a_transaction_larger_than_its_memory_and_the_pool_is_rolled_back_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..300).map(|_| txn.allocate().unwrap()).collect();
    let fill = |byte: u8| vec![byte; store.page_len()];
    pages.iter().for_each(|&page| txn.update(page, 0, &fill(1)).unwrap());
    txn.commit().unwrap();
    let mut txn = store.begin();
    for byte in 2..6 {
        pages.iter().for_each(|&page| txn.update(page, 0, &fill(byte)).unwrap());
        store.checkpoint().unwrap();
    }
    assert!(store.stats().pages_written > 300, "the pool is smaller than that");
    txn.abort().unwrap();
    for &page in &pages {
        assert_eq!(*store.read(page).unwrap(), fill(1)[..]);
    }
}

#[test]
fn freed_pages_are_given_out_again_but_not_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.update(page, 0, b"old").unwrap();
    txn.commit().unwrap();
    let mut freeing = store.begin();
    freeing.free(page).unwrap();
    assert!(matches!(freeing.free(page), Err(Error::NotAllocated { .. })));
    let mut other = store.begin();
    assert_ne!(other.allocate().unwrap(), page);
    drop(freeing);
    assert_eq!(read(&store, page, 3), b"old");
    let mut freeing = store.begin();
    freeing.free(page).unwrap();
    freeing.commit().unwrap();
    assert!(matches!(other.update(page, 0, b"x"), Err(Error::NotAllocated { .. })));
    assert_eq!(other.allocate().unwrap(), page);
    assert_eq!(read(&store, page, 3), b"\0\0\0", "a page begins empty");
}

#[test]
fn the_root_goes_with_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    assert_eq!(store.root().unwrap(), None);
    let mut txn = store.begin();
    txn.set_root(None).unwrap();
    assert!(matches!(txn.set_root(PageId(2)), Err(Error::NotAllocated { page: PageId(2), .. })));
    assert!(matches!(txn.set_root(PageId(1)), Err(Error::NotAllocated { .. })), "a map");
    assert_eq!(txn.commit().unwrap(), foreword_pages::foreword::Lsn::ZERO, "it has changed nothing");

    let mut txn = store.begin();
    let (one, two) = (txn.allocate().unwrap(), txn.allocate().unwrap());
    txn.set_root(one).unwrap();
    let savepoint = txn.savepoint();
    txn.set_root(two).unwrap();
    assert_eq!(store.root().unwrap(), Some(two));
    txn.rollback_to(&savepoint).unwrap();
    assert_eq!(store.root().unwrap(), Some(one));
    txn.commit().unwrap();
    drop(store);

    let store = small().open(dir.path()).unwrap();
    assert_eq!(store.root().unwrap(), Some(one));
    let mut txn = store.begin();
    txn.set_root(two).unwrap();
    // The new root reaches the page file, and recovery takes it back.
    store.close().unwrap();
    drop(txn);
    let store = small().open(dir.path()).unwrap();
    assert_eq!((store.root().unwrap(), store.recovery().losers), (Some(one), 1));
    let mut txn = store.begin();
    txn.set_root(None).unwrap();
    txn.commit().unwrap();
    store.close().unwrap();
    assert_eq!(small().open(dir.path()).unwrap().root().unwrap(), None);
}
