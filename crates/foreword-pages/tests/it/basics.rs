//! The store's main job, as a user would have it do it.

mod checkpoints;
mod recovery;
mod transactions;

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use foreword_pages::{Error, Options, PageId, Store};

fn small() -> Options {
    let log = foreword::Options::new().segment_bytes(256 << 10);
    Options::new().page_bytes(4096).pool_bytes(64 * 4096).checkpoint_interval(None).log(log)
}

/// Changes bytes of the page file behind the store's back.
fn overwrite(dir: &Path, at: u64, change: impl FnOnce(&mut u8)) {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(dir.join("PAGES")).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    change(&mut byte[0]);
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&byte).unwrap();
}

/// A page's first bytes.
fn read(store: &Store, page: PageId, len: usize) -> Vec<u8> {
    store.read(page).unwrap()[..len].to_vec()
}

#[test]
fn arguments_that_cannot_be_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(small().page_bytes(5000).open(dir.path()), Err(Error::Invalid { .. })));
    assert!(matches!(small().page_bytes(2048).open(dir.path()), Err(Error::Invalid { .. })));
    assert!(matches!(small().pool_bytes(4096).open(dir.path()), Err(Error::Invalid { .. })));
    assert!(matches!(small().recovery_threads(0).open(dir.path()), Err(Error::Invalid { .. })));
    let store = small().open(dir.path()).unwrap();
    assert!(matches!(small().open(dir.path()), Err(Error::Log(foreword::Error::Locked { .. }))));
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    for (offset, len) in [(0, 4096), (4064, 1), (usize::MAX, 2), (4000, 65)] {
        assert!(matches!(txn.update(page, offset, &vec![1; len]), Err(Error::OutOfBounds { .. })), "{offset} {len}");
    }
    txn.update(page, 4063, b"x").unwrap();
    for page in [0, 1, 3, 1 << 40, u64::MAX].map(PageId) {
        assert!(matches!(txn.update(page, 0, b"x"), Err(Error::NotAllocated { .. })));
        assert!(matches!(store.read(page), Err(Error::NotAllocated { .. })));
        assert!(matches!(txn.free(page), Err(Error::NotAllocated { .. })));
    }
}

#[test]
fn a_scan_of_many_pages_leaves_those_in_the_pool_that_others_work_with() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().pool_bytes(200 * 4096).background(false).open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..2120).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    let (hot, cold) = pages.split_at(120);
    let misses = |pages: &[PageId]| {
        let before = store.stats().pages_read;
        pages.iter().for_each(|&page| drop(store.read(page).unwrap()));
        store.stats().pages_read - before
    };
    (0..3).for_each(|_| _ = misses(hot));
    for _ in 0..3 {
        assert!(misses(cold) > 1900, "the scan is larger than the pool");
        let driven_out = misses(hot);
        assert!(driven_out <= 6, "{driven_out} of 120 hot pages were driven out");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        let store = small().open(dir.path()).unwrap();
        let mut txn = store.begin();
        let page = txn.allocate().unwrap();
        txn.update(page, 0, b"x").unwrap();
        txn.commit().unwrap();
        store.close().unwrap();
    }
    let pages = |dir: &tempfile::TempDir| dir.path().join("PAGES");
    let refused = |dir: &Path, words: &str| match small().open(dir) {
        Err(error @ Error::NotAStore { .. }) => assert!(error.to_string().contains(words), "{error}"),
        other => panic!("{other:?}"),
    };
    let kept = std::fs::read(pages(&one)).unwrap();
    std::fs::copy(pages(&two), pages(&one)).unwrap();
    refused(one.path(), "belongs to the log");
    std::fs::write(pages(&one), b"something else entirely, and long enough to be looked at").unwrap();
    refused(one.path(), "does not begin");
    std::fs::remove_file(pages(&one)).unwrap();
    refused(one.path(), "not there");
    for other in [1, 2, 4] {
        let mut of_another_version = kept.clone();
        of_another_version[8] = other;
        std::fs::write(pages(&one), &of_another_version).unwrap();
        let refused = small().open(one.path());
        assert!(matches!(refused, Err(Error::UnsupportedVersion { found, supported: 3, .. }) if found == u32::from(other)));
    }
    std::fs::write(pages(&one), &kept).unwrap();
    small().open(one.path()).unwrap();
}

#[test]
fn an_existing_store_keeps_its_page_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().page_bytes(16 << 10).pool_bytes(1 << 20).open(dir.path()).unwrap();
    assert_eq!(store.page_len(), (16 << 10) - 32);
    store.close().unwrap();
    let store = small().pool_bytes(1 << 20).open(dir.path()).unwrap();
    assert_eq!(store.page_len(), (16 << 10) - 32);
}

#[test]
fn holding_all_pages_is_an_error_and_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().pool_bytes(16 * 4096).open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..20).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    let held: Vec<_> = pages[..16].iter().map(|&page| store.read(page).unwrap()).collect();
    assert!(matches!(store.read(pages[17]), Err(Error::PoolExhausted { pages: 16, .. })));
    drop(held);
    store.read(pages[17]).unwrap();
}

#[test]
fn a_log_with_records_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    small().open(dir.path()).unwrap().close().unwrap();
    let log = foreword::Options::new().open(dir.path().join("log")).unwrap();
    log.commit(b"\x0fsomething else").unwrap();
    log.close().unwrap();
    assert!(matches!(small().open(dir.path()), Err(Error::BadRecord { .. })));
}

#[test]
fn many_threads_change_pages_of_their_own_while_checkpoints_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().checkpoint_bytes(10_000).pool_bytes(32 * 4096).open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let store = &store;
            scope.spawn(move || {
                let mut txn = store.begin();
                let pages: Vec<PageId> = (0..10).map(|_| txn.allocate().unwrap()).collect();
                txn.commit().unwrap();
                for round in 0u64..100 {
                    let mut txn = store.begin();
                    for &page in &pages {
                        txn.update(page, 0, &[thread, round].map(u64::to_le_bytes).concat()).unwrap();
                    }
                    match round % 3 {
                        0 => txn.abort().unwrap(),
                        1 => _ = txn.commit_with(foreword::Durability::Buffered).unwrap(),
                        _ => _ = txn.commit().unwrap(),
                    }
                    for &page in &pages {
                        let seen = store.read(page).unwrap()[8..16].to_vec();
                        let last = if round % 3 == 0 { round.saturating_sub(1) } else { round };
                        assert_eq!(seen, last.to_le_bytes());
                    }
                }
            });
        }
    });
    let stats = store.stats();
    assert!(stats.checkpoints > 1 && stats.pages_used == 60 && stats.transactions == 0, "{stats:?}");
    store.close().unwrap();
}
