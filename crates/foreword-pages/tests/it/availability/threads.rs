//! Owners that wait for themselves or for each other get an error, and no checkpoint chases
//! writers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use foreword_pages::{Error, PageId, Store};
use foreword_sim::{OpKind, SimDisk};

use super::{fill, holds, put, small, within};
use crate::common::{DIR, Hooked, options};

/// The owner of a latch is its transaction or session, whatever thread its guard is on.
#[test]
fn an_owner_that_would_wait_for_itself_is_told_at_once() {
    within(Duration::from_secs(8), || {
        let dir = tempfile::tempdir().unwrap();
        let store = small().open(dir.path()).unwrap();
        let pages = fill(&store, 3, 1).unwrap();
        let (page, other) = (pages[0], pages[1]);
        let deadlock = |done: foreword_pages::Result<()>| {
            assert!(matches!(done, Err(Error::Deadlock { page: of, .. }) if of == page), "{done:?}")
        };
        let mut txn = store.begin();
        txn.update(page, 0, b"first").unwrap();
        let held = txn.fetch_shared(page).unwrap();
        deadlock(txn.update(page, 0, b"again"));
        deadlock(txn.fetch_exclusive(page).map(drop));
        // Not waiting for it is an answer, too. And it may have the page more than once.
        deadlock(txn.try_fetch_exclusive(page).map(drop));
        drop(txn.fetch_shared(page).unwrap());
        // Another has the page shared, and not exclusively.
        drop(store.begin().fetch_shared(page).unwrap());
        assert!(store.begin().try_fetch_exclusive(page).unwrap().is_none());
        // The transaction can change other pages.
        txn.update(other, 0, b"other").unwrap();
        let session = store.session();
        let sessions = session.fetch_shared(page).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| put(&store, page, 9));
            wait_for_a_writer(&store, page);
            // On this thread or another: it would wait behind the writer, which waits for it.
            deadlock(txn.fetch_shared(page).map(drop));
            scope.spawn(|| deadlock(session.fetch_shared(page).map(drop))).join().unwrap();
            drop((held, sessions));
            writer.join().unwrap().unwrap();
        });
        let held = txn.fetch_exclusive(page).unwrap();
        deadlock(txn.fetch_exclusive(page).map(drop));
        deadlock(txn.fetch_shared(page).map(drop));
        deadlock(txn.update(page, 0, b"again"));
        drop(held);
        // Without the guards the transaction goes on.
        txn.update(page, 0, b"again").unwrap();
        txn.commit().unwrap();
        assert_eq!(&store.read(page).unwrap()[..5], b"again");
    });
}

#[test]
fn what_cannot_be_undone_for_a_guard_is_undone_at_the_next_checkpoint() {
    within(Duration::from_secs(8), || {
        let dir = tempfile::tempdir().unwrap();
        let store = small().open(dir.path()).unwrap();
        let page = fill(&store, 1, 1).unwrap()[0];
        let mut txn = store.begin();
        txn.update(page, 0, b"changed").unwrap();
        let held = txn.fetch_shared(page).unwrap();
        assert!(matches!(txn.abort(), Err(Error::Deadlock { .. })));
        assert_eq!(store.stats().orphans, 1);
        // A checkpoint does not wait for the page, either.
        store.checkpoint_all().unwrap();
        drop(held);
        store.checkpoint().unwrap();
        assert_eq!(store.stats().orphans, 0);
        assert!(holds(&store, page, 1));
    });
}

/// Two transactions have a page each, and ask for the other's. And a checkpoint waits for a page
/// that a transaction has.
#[test]
fn owners_that_wait_for_each_other_are_told() {
    within(Duration::from_secs(60), || {
        let dir = tempfile::tempdir().unwrap();
        let store = small().open(dir.path()).unwrap();
        let pages = fill(&store, 3, 1).unwrap();
        // The checkpoint has the last of them to write alone, so it is that one that it waits for.
        store.checkpoint_all().unwrap();
        put(&store, pages[2], 4).unwrap();
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            let (store, barrier) = (&store, &barrier);
            let crosswise = [(pages[0], pages[1]), (pages[1], pages[0])].map(|(mine, others)| {
                scope.spawn(move || {
                    let mut txn = store.begin();
                    let _held = txn.fetch_exclusive(mine).unwrap();
                    barrier.wait();
                    txn.update(others, 0, b"x")
                })
            });
            let txn = store.begin();
            let held = txn.fetch_exclusive(pages[2]).unwrap();
            let told = store.checkpoint_all();
            assert!(matches!(told, Err(Error::Deadlock { page, .. }) if page == pages[2]), "{told:?}");
            // Guards for reading are not in its way, nor is one who waits for those.
            let held = held.downgrade();
            let writer = scope.spawn(|| put(store, pages[2], 2));
            wait_for_a_writer(store, pages[2]);
            store.checkpoint_all().unwrap();
            drop(held);
            writer.join().unwrap().unwrap();
            let told = crosswise.map(|thread| thread.join().unwrap());
            assert!(told.iter().any(|told| matches!(told, Err(Error::Deadlock { .. }))), "{told:?}");
        });
        pages.iter().for_each(|&page| put(&store, page, 3).unwrap());
    });
}

/// Waits until a writer waits for a page that this thread holds.
fn wait_for_a_writer(store: &Store, page: PageId) {
    let started = Instant::now();
    let mut seen = 0;
    while seen < 20 {
        seen = if store.session().try_fetch_shared(page).unwrap().is_none() { seen + 1 } else { 0 };
        assert!(started.elapsed().as_secs() < 5, "none comes");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Writers go on changing pages, and a checkpoint writes only the pages that were dirty when it
/// began.
#[test]
fn a_checkpoint_does_not_chase_writers() {
    let disk = SimDisk::new(10);
    let hooked = Hooked::new(&disk);
    let log = foreword::Options::new().segment_bytes(4 << 20).background(false).on_error(|_| ());
    let store = options(&disk, 1).pool_bytes(64 * 4096).disk(hooked.handle()).log(log).open(DIR).unwrap();
    let pages = fill(&store, 20, 1).unwrap();
    let dirty = store.stats().pages_dirty;
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel();
    let (written, answered) = (Arc::new(AtomicU64::new(0)), Mutex::new(answered));
    std::thread::scope(|scope| {
        let (store, pages) = (&store, &pages);
        scope.spawn(move || {
            for round in 0u8.. {
                if asked.recv().is_err() {
                    return;
                }
                let mut txn = store.begin();
                pages.iter().for_each(|&page| txn.update(page, 0, &[round; 10]).unwrap());
                txn.commit_with(foreword::Durability::Buffered).unwrap();
                answer.send(()).unwrap();
            }
        });
        // Before each write of a page, all pages change again.
        let count = written.clone();
        hooked.before_each(move |op, path| {
            if op == OpKind::Write && path.ends_with("PAGES") && count.fetch_add(1, Ordering::Relaxed) < 1000 {
                ask.send(()).unwrap();
                answered.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
            }
        });
        let done = store.checkpoint_all().unwrap();
        hooked.clear();
        assert!(done.pages_written <= dirty, "{} pages instead of {dirty}", done.pages_written);
    });
    assert!(written.load(Ordering::Relaxed) >= dirty);
}
