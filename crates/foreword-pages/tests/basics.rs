//! The store's main job, as a user would have it do it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

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

    // Alive when the store goes, with its changes on disk.
    let mut lost = store.begin();
    lost.update(page, 10, b"YYYYYYYYY").unwrap();
    let other = lost.allocate().unwrap();
    lost.free(page).unwrap();
    store.checkpoint_all().unwrap();
    std::mem::forget(lost);
    drop(store);
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

    // A whole sector, but of another time: LSN 1,000,000.
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
        // The last changes may have been made while it was taken: then there is another. From then on there is none.
        std::thread::sleep(5 * interval);
        let quiet = store.stats().checkpoints;
        std::thread::sleep(10 * interval);
        assert_eq!(store.stats().checkpoints, quiet, "nothing has changed");
    }
    store.close().unwrap();
}

/// Records of very different sizes: windows end before they were expected to, in every thread.
#[test]
fn recovery_with_little_memory_reads_each_record_once_and_makes_each_change() {
    let dir = tempfile::tempdir().unwrap();
    for images in [true, false] {
        let kept = dir.path().join(format!("kept {images}"));
        let options = small().full_page_images(images).background(false);
        let store = options.open(&kept).unwrap();
        let mut txn = store.begin();
        let pages: Vec<PageId> = (0..40).map(|_| txn.allocate().unwrap()).collect();
        txn.commit().unwrap();
        let begin = store.checkpoint_all().unwrap().begin;
        let mut changes = 0;
        for round in 0..60usize {
            let mut txn = store.begin();
            for (i, &page) in pages.iter().enumerate() {
                // Some twenty bytes, and now and then three thousand.
                let len = if (round / 7 + i / 9) % 5 == 0 { 3000 } else { 20 };
                let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + round * 31 + i) as u8 | 1).collect();
                txn.update(page, round, &bytes).unwrap();
                changes += 1;
            }
            txn.commit().unwrap();
        }
        let expected: Vec<Vec<u8>> = pages.iter().map(|&page| store.read(page).unwrap().to_vec()).collect();
        let records = store.stats().log.durable_lsn.0 - begin.0 + 1;
        drop(store);
        for (bytes, threads) in
            [1, 3_000, 30_000, 300_000].into_iter().flat_map(|bytes| [1, 2, 3].map(|threads| (bytes, threads)))
        {
            let what = format!("{bytes} bytes, {threads} threads, images: {images}");
            let copy = dir.path().join(&what);
            copy_all(&kept, &copy);
            let store = options.clone().recovery_bytes(bytes).recovery_threads(threads).open(&copy).unwrap();
            let recovery = store.recovery();
            assert_eq!(recovery.redo.records, records, "{what}: {recovery}");
            assert_eq!(recovery.applied + recovery.skipped, changes, "{what}: {recovery}");
            for (&page, expected) in pages.iter().zip(&expected) {
                assert!(*store.read(page).unwrap() == expected[..], "{what}: page {page}");
            }
            drop(store);
            std::fs::remove_dir_all(copy).unwrap();
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { copy_all(&source, &target) } else { _ = std::fs::copy(source, target).unwrap() }
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
fn a_torn_page_is_rebuilt_from_its_image_and_a_rotten_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let flip = |page: PageId, at: u64| overwrite(dir.path(), page.0 * 4096 + at, |byte| *byte ^= 1);
    let options = small().background(false);
    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    let (cold, warm) = (txn.allocate().unwrap(), txn.allocate().unwrap());
    txn.update(cold, 0, b"cold").unwrap();
    txn.update(warm, 0, b"warm").unwrap();
    txn.commit().unwrap();
    store.close().unwrap();

    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    txn.update(warm, 0, b"hot!").unwrap();
    txn.commit().unwrap();
    drop(store);
    flip(warm, 2000);
    flip(cold, 2000);
    let store = options.open(dir.path()).unwrap();
    assert_eq!(store.recovery().images, 1);
    assert_eq!(read(&store, warm, 4), b"hot!");
    match store.read(cold) {
        Err(Error::Rotten { page, .. }) => assert_eq!(page, cold),
        other => panic!("{other:?}"),
    }
    drop(store);
    flip(cold, 2000);
    assert_eq!(read(&options.open(dir.path()).unwrap(), cold, 4), b"cold");

    // A page that was in use cannot be blank.
    options.open(dir.path()).unwrap().close().unwrap();
    let len = std::fs::metadata(dir.path().join("PAGES")).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("PAGES")).unwrap();
    file.set_len(cold.0 * 4096).unwrap();
    file.set_len(len).unwrap();
    let store = options.open(dir.path()).unwrap();
    assert!(matches!(store.read(cold), Err(Error::Rotten { .. })));
    assert!(matches!(store.begin().update(cold, 0, b"x"), Err(Error::Rotten { .. })));
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
    for other in [1, 3] {
        let mut of_another_version = kept.clone();
        of_another_version[8] = other;
        std::fs::write(pages(&one), &of_another_version).unwrap();
        let refused = small().open(one.path());
        assert!(matches!(refused, Err(Error::UnsupportedVersion { found, supported: 2, .. }) if found == u32::from(other)));
    }
    std::fs::write(pages(&one), &kept).unwrap();
    small().open(one.path()).unwrap();
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
    // It reaches the page file, and is taken back by recovery.
    store.checkpoint_all().unwrap();
    std::mem::forget(txn);
    drop(store);
    let store = small().open(dir.path()).unwrap();
    assert_eq!((store.root().unwrap(), store.recovery().losers), (Some(one), 1));
    let mut txn = store.begin();
    txn.set_root(None).unwrap();
    txn.commit().unwrap();
    store.close().unwrap();
    assert_eq!(small().open(dir.path()).unwrap().root().unwrap(), None);
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
fn without_full_page_images_recovery_reads_the_pages_and_skips_what_they_have() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().full_page_images(false).background(false).recovery_threads(3);
    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..200).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    for round in 1u64..20 {
        let mut txn = store.begin();
        pages.iter().for_each(|&page| txn.update(page, 8 * round as usize, &round.to_le_bytes()).unwrap());
        txn.commit().unwrap();
    }
    drop(store);
    let store = options.open(dir.path()).unwrap();
    let recovery = store.recovery();
    assert_eq!(recovery.images, 0, "{recovery}");
    assert!(recovery.applied > 0 && recovery.skipped > 0, "the pool is smaller than the pages: {recovery}");
    assert_eq!(recovery.applied + recovery.skipped, 19 * 200, "{recovery}");
    for &page in &pages {
        let page = store.read(page).unwrap();
        assert!((1u64..20).all(|round| page[8 * round as usize..][..8] == round.to_le_bytes()));
    }
}

#[test]
fn without_full_page_images_a_torn_page_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().full_page_images(false).background(false);
    let store = options.open(dir.path()).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    let mut txn = store.begin();
    txn.update(page, 0, b"x").unwrap();
    txn.commit().unwrap();
    drop(store);
    overwrite(dir.path(), page.0 * 4096 + 2048, |byte| *byte ^= 1);
    match options.open(dir.path()) {
        Err(Error::Rotten { page: named, .. }) => assert_eq!(named, page),
        other => panic!("{other:?}"),
    }
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
