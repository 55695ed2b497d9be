//! Checkpoints: what they bound, when they come, and the name of the last one.

use std::time::{Duration, Instant};

use foreword_pages::{Error, PageId};

use super::{overwrite, read, small};

#[test]
fn checkpoints_bound_the_log_and_the_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().background(false).open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..40).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    for round in 0u64..50 {
        for &page in &pages[..if round < 40 { 40 } else { 10 }] {
            let mut txn = store.begin();
            txn.update(page, 100, &round.to_le_bytes()).unwrap();
            txn.commit_with(foreword::Durability::Buffered).unwrap();
        }
        let done = store.checkpoint().unwrap();
        assert!(done.redo_from.0 + 200 > done.begin.0, "round {round}: {done:?}");
        assert_eq!(done.log_start, done.redo_from);
    }
    assert!(store.stats().log.segments < 10);
    drop(store);
    let store = small().open(dir.path()).unwrap();
    assert!(store.recovery().redo.records < 200, "{}", store.recovery());
    for (i, &page) in pages.iter().enumerate() {
        let expected: u64 = if i < 10 { 49 } else { 39 };
        assert_eq!(store.read(page).unwrap()[100..108], expected.to_le_bytes());
    }
}

#[test]
fn a_damaged_name_of_the_last_checkpoint_costs_a_search_and_a_name_the_log_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().background(false).open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.update(page, 0, b"before").unwrap();
    txn.commit().unwrap();
    store.checkpoint().unwrap();
    let mut txn = store.begin();
    txn.update(page, 0, b"behind").unwrap();
    txn.commit().unwrap();
    drop(store);
    let sector = || std::fs::read(dir.path().join("PAGES")).unwrap()[512..1024].to_vec();
    assert_ne!(sector(), [0; 512], "the checkpoint has no name");

    overwrite(dir.path(), 512, |byte| *byte ^= 1);
    let store = small().background(false).open(dir.path()).unwrap();
    assert_eq!(read(&store, page, 6), b"behind");
    drop(store);

    // A whole sector that names a checkpoint the log does not have: LSN 1,000,000.
    let mut name = 1_000_000u64.to_le_bytes().to_vec();
    name.extend(crc32c::crc32c(&name).to_le_bytes());
    for (at, new) in name.into_iter().enumerate() {
        overwrite(dir.path(), 512 + at as u64, |byte| *byte = new);
    }
    match small().background(false).open(dir.path()) {
        Err(Error::NotAStore { why, .. }) => assert!(why.contains("1000000"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_background_checkpoint_comes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().checkpoint_bytes(100_000).open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    let started = std::time::Instant::now();
    for round in 0u64.. {
        let mut txn = store.begin();
        txn.update(page, 0, &[round as u8 | 1; 1000]).unwrap();
        txn.update(page, 0, &[round as u8 & !1; 1000]).unwrap();
        txn.commit_with(foreword::Durability::Buffered).unwrap();
        if store.stats().checkpoints >= 3 {
            break;
        }
        assert!(started.elapsed().as_secs() < 60);
    }
    store.close().unwrap();
}

#[test]
fn a_background_checkpoint_comes_by_time_if_anything_changed() {
    let dir = tempfile::tempdir().unwrap();
    let interval = Duration::from_millis(20);
    let store = small().checkpoint_bytes(u64::MAX).checkpoint_interval(Some(interval)).open(dir.path()).unwrap();
    for _ in 0..3 {
        let before = store.stats().checkpoints;
        let mut txn = store.begin();
        txn.allocate().unwrap();
        txn.commit().unwrap();
        let changed = Instant::now();
        while store.stats().checkpoints == before {
            assert!(changed.elapsed().as_secs() < 60, "none comes");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last changes may have been made while a checkpoint was taken: then there is another.
        // From then on there is none.
        std::thread::sleep(5 * interval);
        let quiet = store.stats().checkpoints;
        std::thread::sleep(10 * interval);
        assert_eq!(store.stats().checkpoints, quiet, "nothing has changed");
    }
    store.close().unwrap();
}
