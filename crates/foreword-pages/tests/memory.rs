//! The memory budget: the memory of the store and of its recovery is bounded, whatever the pages,
//! the transactions and the log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;
use std::sync::atomic::{AtomicBool, Ordering};

use foreword_pages::{Options, PageId};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MIB: usize = 1 << 20;

/// Bytes that are allocated now. The counters are read one after the other: they belong together if
/// a second reading is the same. (On a busy machine this thread may have to wait between two of
/// them, while others allocate megabytes and free them.)
fn allocated() -> usize {
    loop {
        let stats = COUNTED.stats();
        if stats == COUNTED.stats() {
            return stats.bytes_allocated.saturating_sub(stats.bytes_deallocated);
        }
    }
}

/// The most bytes that were allocated at a time during some work, by samples.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let (before, is_over) = (allocated(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(allocated());
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            peak
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        (done, watch.join().unwrap().saturating_sub(before))
    })
}

#[test]
fn pool_and_recovery_keep_within_their_memory() {
    let dir = tempfile::tempdir().unwrap();
    let log = foreword::Options::new().segment_bytes(8 << 20).buffer_bytes(MIB);
    let (pool, window) = (4 * MIB, 2 * MIB);
    let options = Options::new().pool_bytes(pool).recovery_bytes(window).recovery_threads(2).background(false).log(log);
    // Room for the log's buffers, its reading, and the frames that it keeps for readers (2 MiB);
    // for a transaction, and for bookkeeping.
    let rest = 8 * MIB;
    let (store, most) = peak(|| {
        let store = options.open(dir.path()).unwrap();
        // Ten times what the pool holds, in one transaction; all of it read, changed, and undone.
        let mut txn = store.begin();
        let pages: Vec<PageId> = (0..5000).map(|_| txn.allocate().unwrap()).collect();
        pages.iter().for_each(|&page| txn.update(page, 0, &vec![page.0 as u8 | 1; store.page_len()]).unwrap());
        txn.commit().unwrap();
        store.checkpoint().unwrap();
        pages.iter().for_each(|&page| assert_eq!(store.read(page).unwrap()[8000], page.0 as u8 | 1));
        let mut txn = store.begin();
        pages.iter().for_each(|&page| txn.update(page, 0, &[0xaa; 4000]).unwrap());
        txn.abort().unwrap();
        for round in 0..100u64 {
            let mut txn = store.begin();
            pages.iter().for_each(|&page| txn.update(page, 100, &round.to_le_bytes()).unwrap());
            txn.commit_with(foreword::Durability::Buffered).unwrap();
        }
        store
    });
    assert_eq!(store.stats().pool_pages, (pool / 8192) as u64);
    assert!(most > pool && most < pool + rest, "{:.1} MiB", most as f64 / MIB as f64);
    drop(store);
    let (store, most) = peak(|| options.open(dir.path()).unwrap());
    let recovery = store.recovery();
    assert!(recovery.redo.bytes > 100 << 20 && recovery.redo.records > 500_000, "{recovery}");
    assert!(most > pool && most < pool + 2 * window + rest, "{:.1} MiB", most as f64 / MIB as f64);
}
