//! Latches, frames and top actions under shuttle: thousands of thread schedules of small scenarios,
//! on whole stores. (Shuttle knows no time: where a thread would wait until its patience ends, it
//! reports a deadlock.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use foreword_pages::foreword::{self, Durability, SyncPolicy};
use foreword_pages::{Change, Error, Options, PageId, PageMut, Store, Txn};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};
use foreword_tests::hooked::{Op, hooked};
use shuttle::thread;

/// Explores a scenario, with the deliberate bug that `FOREWORD_BUG` names.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    #[cfg(feature = "sabotage")]
    {
        use foreword_pages::sabotage::{Bug, switch};
        let name = std::env::var("FOREWORD_BUG").unwrap_or_default();
        switch(Bug::OF_THREADS.iter().copied().find(|bug| format!("{bug:?}") == name));
    }
    crate::explore::explore(scenario);
}

/// A store with the smallest pool that there is. Others go on while it reads, writes and syncs.
fn open(disk: &SimDisk) -> Store {
    open_with(disk, |options| options)
}

fn open_with(disk: &SimDisk, with: impl FnOnce(Options) -> Options) -> Store {
    let log = foreword::Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    let options = Options::new().page_bytes(4096).pool_bytes(16 * 4096).background(false).recovery_threads(1);
    let disk = hooked(disk.clone(), |op, _| {
        if op.writes() || matches!(op, Op::Read(_) | Op::Sync) {
            thread::yield_now();
        }
        Ok(())
    });
    with(options).disk(disk).log(log).open("/store").unwrap()
}

/// Pages that begin with a count of zero, and have their number behind it.
fn allocate(store: &Store, count: usize) -> Vec<PageId> {
    let mut txn = store.begin();
    let pages: Vec<PageId> = (0..count).map(|_| txn.allocate().unwrap()).collect();
    pages.iter().for_each(|page| txn.update(*page, 8, &page.0.to_le_bytes()).unwrap());
    commit(txn);
    pages
}

fn commit(txn: Txn) {
    txn.commit_with(Durability::Buffered).unwrap();
}

fn count(page: &[u8]) -> u64 {
    u64::from_le_bytes(page[..8].try_into().unwrap())
}

/// Adds one to the counts of pages.
fn add(txn: &mut Txn, pages: &mut [&mut PageMut]) {
    let mut change = Change::new();
    pages.iter().for_each(|page| _ = change.write(page.id(), 0, &(count(page) + 1).to_le_bytes()));
    txn.apply(&change, pages).unwrap();
}

/// The same in a transaction of its own, which is committed.
fn add_one(store: &Store, page: PageId) {
    let mut txn = store.begin();
    let mut latched = txn.fetch_exclusive(page).unwrap();
    add(&mut txn, &mut [&mut latched]);
    commit(txn);
}

fn counts(store: &Store, pages: &[PageId]) -> Vec<u64> {
    let has_its_number = |page: &PageId| {
        let found = store.read(*page).unwrap();
        assert_eq!(found[8..16], page.0.to_le_bytes());
        count(&found)
    };
    pages.iter().map(has_its_number).collect()
}

/// A reader that finds the same count on two pages.
fn sees_both(a: PageId, b: PageId) -> impl Fn(&Store) + Copy + Send + 'static {
    move |store| {
        let session = store.session();
        for _ in 0..2 {
            let one = session.fetch_shared(a).unwrap();
            let two = session.fetch_shared(b).unwrap();
            assert_eq!(count(&one), count(&two));
        }
    }
}

type Work = Box<dyn FnOnce(&Store) + Send>;

fn run<const N: usize>(store: &Store, threads: [Work; N]) {
    let start = |work: Work| {
        let store = store.clone();
        thread::spawn(move || work(&store))
    };
    threads.map(start).into_iter().for_each(|thread| thread.join().unwrap());
}

/// Writers and readers latch two pages, always in the same order. All get through, and no reader
/// sees half of a change.
#[test]
fn latches_in_one_order_let_all_through() {
    explore(|| {
        let store = open(&SimDisk::new(1));
        let pages = allocate(&store, 2);
        let (a, b) = (pages[0], pages[1]);
        let write = move |store: &Store| {
            for _ in 0..2 {
                let mut txn = store.begin();
                let (mut one, mut two) = (txn.fetch_exclusive(a).unwrap(), txn.fetch_exclusive(b).unwrap());
                add(&mut txn, &mut [&mut one, &mut two]);
                let one = one.downgrade();
                assert_eq!(count(&one), count(&two));
                drop(one);
                commit(txn);
            }
        };
        let read = sees_both(a, b);
        run(&store, [Box::new(write), Box::new(write), Box::new(read), Box::new(read)]);
        assert_eq!(counts(&store, &pages), [4, 4]);
    });
}

/// A latch that is upgraded is its owner's alone, and the page is as the owner has read it. One that
/// cannot be is still shared.
#[test]
fn of_those_that_upgrade_at_once_none_loses_a_change() {
    explore(|| {
        let store = open(&SimDisk::new(1));
        let pages = allocate(&store, 1);
        let page = pages[0];
        let upgrade = move |store: &Store| {
            for _ in 0..2 {
                let mut txn = store.begin();
                let shared = txn.fetch_shared(page).unwrap();
                let before = count(&shared);
                let mut latched = match shared.try_upgrade() {
                    Ok(latched) => {
                        assert_eq!(count(&latched), before);
                        latched
                    }
                    Err(shared) => {
                        assert_eq!(count(&shared), before);
                        drop(shared);
                        txn.fetch_exclusive(page).unwrap()
                    }
                };
                add(&mut txn, &mut [&mut latched]);
                drop(latched);
                commit(txn);
            }
        };
        run(&store, [Box::new(upgrade), Box::new(upgrade), Box::new(upgrade)]);
        assert_eq!(counts(&store, &pages), [6]);
    });
}

/// An owner that has a page asks for it again, while another waits to change it. It has the page a
/// second time, or is told at once, and the other gets through.
#[test]
fn an_owner_that_would_wait_for_itself_is_told() {
    explore(|| {
        let store = open(&SimDisk::new(1));
        let pages = allocate(&store, 1);
        let page = pages[0];
        let ask = move |store: &Store| {
            let txn = store.begin();
            let shared = txn.fetch_shared(page).unwrap();
            let again = txn.fetch_shared(page);
            assert!(matches!(again, Ok(_) | Err(Error::Deadlock { .. })));
            let exclusive = txn.fetch_exclusive(page);
            assert!(matches!(exclusive, Err(Error::Deadlock { .. })));
            drop((shared, again));
        };
        run(&store, [Box::new(ask), Box::new(ask), Box::new(move |store| add_one(store, page))]);
        assert_eq!(counts(&store, &pages), [1]);
    });
}

/// There are more pages than frames. Pages that are changed, and that others wait for, leave the
/// pool and come back all the time, beside a page that is latched and was not changed yet.
#[test]
fn pages_leave_the_pool_beside_those_that_use_them() {
    explore(|| {
        let store = open(&SimDisk::new(1));
        let pages = allocate(&store, 18);
        store.checkpoint_all().unwrap();
        let all = pages.clone();
        let change = move |store: &Store| {
            for page in &all[..2] {
                let mut txn = store.begin();
                let mut latched = txn.fetch_exclusive(*page).unwrap();
                counts(store, &all[12..16]);
                add(&mut txn, &mut [&mut latched]);
                commit(txn);
            }
        };
        let all = pages.clone();
        let read = move |store: &Store| assert!(counts(store, &all).iter().all(|count| *count <= 2));
        let others = pages[10..].to_vec();
        let write = move |store: &Store| others.iter().rev().for_each(|page| add_one(store, *page));
        run(&store, [Box::new(change.clone()), Box::new(change), Box::new(read), Box::new(write)]);
        let found = counts(&store, &pages);
        assert_eq!(found, [&[2; 2][..], &[0; 8], &[1; 8]].concat());
    });
}

/// Threads ask for a page at once, and the first that reads it from the disk fails. Those that
/// wait for it read it themselves.
#[test]
fn a_page_that_could_not_be_read_is_read_by_one_that_waits() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk);
        let pages = allocate(&store, 1);
        store.close().unwrap();
        let store = open(&disk);
        let failed = Arc::new(AtomicU64::new(0));
        disk.fault(Fault::new(OpKind::Read, Effect::Eio).on("PAGES"));
        let (page, counts_failed) = (pages[0], failed.clone());
        let read = move |store: &Store| match store.read(page) {
            Ok(found) => assert_eq!(found[8..16], page.0.to_le_bytes()),
            Err(error) => {
                assert!(matches!(error, Error::Io { .. }), "{error}");
                counts_failed.fetch_add(1, SeqCst);
            }
        };
        run(&store, [Box::new(read.clone()), Box::new(read.clone()), Box::new(read)]);
        assert_eq!(failed.load(SeqCst), 1);
    });
}

/// Top actions change two pages, one after the other, and let go of the guards. None but the owner
/// sees a page in between, also not where the top action fails and is undone.
#[test]
fn what_a_top_action_has_changed_is_seen_when_it_is_closed() {
    explore(|| {
        let store = open(&SimDisk::new(1));
        let pages = allocate(&store, 2);
        let (a, b) = (pages[0], pages[1]);
        let act = move |store: &Store, succeeds: bool| {
            let mut txn = store.begin();
            let done = txn.nested(|txn| {
                let mut one = txn.fetch_exclusive(a)?;
                add(txn, &mut [&mut one]);
                drop(one);
                thread::yield_now();
                let mut two = txn.fetch_exclusive(b)?;
                add(txn, &mut [&mut two]);
                if succeeds { Ok(()) } else { txn.free(PageId(0)) }
            });
            assert_eq!(done.is_ok(), succeeds);
            commit(txn);
        };
        let works = move |store: &Store| act(store, true);
        let fails = move |store: &Store| act(store, false);
        run(&store, [Box::new(works), Box::new(fails), Box::new(works), Box::new(sees_both(a, b))]);
        assert_eq!(counts(&store, &pages), [2, 2]);
    });
}

/// Transactions commit while checkpoints are taken, by the background thread, too, which ends with
/// the store. What was committed is there after a power failure that takes all that was not synced.
#[test]
fn what_commits_beside_checkpoints_survives() {
    explore(|| {
        let disk = SimDisk::new(1);
        let background = |options: Options| options.background(true).checkpoint_interval(None).checkpoint_bytes(512);
        let store = open_with(&disk, background);
        let pages = allocate(&store, 3);
        let (a, b, last) = (pages[0], pages[1], pages[2]);
        let change = move |page| {
            move |store: &Store| {
                for n in 0..5 {
                    let mut txn = store.begin();
                    txn.update(page, 16 + n, b"x").unwrap();
                    commit(txn);
                }
            }
        };
        let checkpoint = |store: &Store| _ = store.checkpoint_all().unwrap();
        run(&store, [Box::new(change(a)), Box::new(change(b)), Box::new(checkpoint)]);
        store.checkpoint().unwrap();
        // Durable, and so all before it.
        let mut txn = store.begin();
        txn.update(last, 100, b"the last").unwrap();
        txn.commit().unwrap();
        let after = disk.crash(&Choice::None);
        drop(store);
        let store = open(&after);
        for page in [a, b] {
            assert_eq!(store.read(page).unwrap()[16..21], *b"xxxxx");
        }
    });
}
