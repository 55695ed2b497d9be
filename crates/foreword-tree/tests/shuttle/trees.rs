//! Trees under shuttle: thousands of thread schedules of small scenarios, on whole stores.

use foreword_sim::SimDisk;
use foreword_tree::foreword_pages::foreword::{self, Durability, SyncPolicy};
use foreword_tree::{Db, Options, Result, Tree, Txn};
use shuttle::thread;

/// Explores a scenario, with the deliberate bug that `FOREWORD_BUG` names.
fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    #[cfg(feature = "sabotage")]
    {
        use foreword_tree::sabotage::{Bug, switch};
        let name = std::env::var("FOREWORD_BUG").unwrap_or_default();
        switch(Bug::OF_THREADS.iter().copied().find(|bug| format!("{bug:?}") == name));
    }
    crate::explore::explore(scenario);
}

/// A tree with some keys. A leaf has room for four.
fn open(keys: impl IntoIterator<Item = u8>) -> (Db, Tree) {
    let log = foreword::Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    let options = Options::new().page_bytes(4096).pool_bytes(32 * 4096).background(false).recovery_threads(1);
    let db = Db::open_with(options.disk(SimDisk::new(1).handle()).log(log), "/store").unwrap();
    let tree = db.tree("keys").unwrap();
    let mut txn = db.begin();
    keys.into_iter().for_each(|key| put(&mut txn, tree, key, 0).unwrap());
    txn.commit_with(Durability::Buffered).unwrap();
    (db, tree)
}

fn put(txn: &mut Txn, tree: Tree, key: u8, value: u8) -> Result<()> {
    txn.put(tree, [key], [value; 900])
}

/// All keys, in their order, each with the first byte of its value.
fn scan(txn: &Txn, tree: Tree, is_back: bool) -> Result<Vec<(u8, u8)>> {
    let scan = if is_back { txn.scan_back(tree, ..) } else { txn.scan(tree, ..) };
    let mut found = scan.map(|entry| entry.map(|(key, value)| (key[0], value[0]))).collect::<Result<Vec<_>>>()?;
    if is_back {
        found.reverse();
    }
    Ok(found)
}

/// Runs a transaction until it commits: `work` says whether it is to. It begins anew when it meets
/// others.
fn run(db: &Db, work: impl Fn(&mut Txn) -> Result<bool>) {
    loop {
        let mut txn = db.begin();
        let done = work(&mut txn).and_then(|commits| match commits {
            true => txn.commit_with(Durability::Buffered).map(|_| ()),
            false => txn.abort(),
        });
        match done {
            Err(error) if error.is_conflict() => thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

type Work = Box<dyn FnOnce(&Db, Tree) + Send>;

/// Runs threads, checks all pages, and that the tree has these keys and no others.
fn together<const N: usize>((db, tree): (Db, Tree), threads: [Work; N], expected: &[(u8, u8)]) {
    let start = |work: Work| {
        let db = db.clone();
        thread::spawn(move || work(&db, tree))
    };
    threads.map(start).into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(scan(&db.begin(), tree, false).unwrap(), expected);
    db.verify(true).unwrap();
}

/// One thread adds keys from the left to the right, and pages split; another removes keys from the
/// right to the left, and pages are joined. A third looks some up that stay.
#[test]
fn splits_and_joins_come_from_both_ends() {
    explore(|| {
        let adds = |db: &Db, tree| {
            for key in [1, 3, 5, 7, 9] {
                run(db, |txn| put(txn, tree, key, 1).map(|()| true));
            }
        };
        let removes = |db: &Db, tree| {
            for key in [18, 16, 14, 12, 10, 8] {
                run(db, |txn| txn.delete(tree, [key]));
            }
        };
        let looks = |db: &Db, tree| {
            for key in [20, 6, 0] {
                run(db, |txn| Ok(txn.get(tree, [key])?.is_some()));
            }
        };
        let expected = [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 1), (6, 0), (7, 1), (9, 1), (20, 0)];
        together(open((0..=20).step_by(2)), [Box::new(adds), Box::new(removes), Box::new(looks)], &expected);
    });
}

/// Scans in both directions, each twice in its transaction, beside transactions that add keys in
/// several leaves, which split. Each shows every key once, and all that a transaction has added or
/// none, and the second shows what the first did.
#[test]
fn a_scan_shows_each_key_once_and_the_same_twice() {
    explore(|| {
        let adds = |db: &Db, tree| {
            for keys in [&[9][..], &[7], &[1, 5]] {
                run(db, |txn| keys.iter().try_for_each(|key| put(txn, tree, *key, 1)).map(|()| true));
            }
        };
        let states: [&[u8]; 4] = [&[0, 2, 4, 6, 8], &[0, 2, 4, 6, 8, 9], &[0, 2, 4, 6, 7, 8, 9], &[0, 1, 2, 4, 5, 6, 7, 8, 9]];
        let scans = move |is_back: bool| {
            move |db: &Db, tree| {
                run(db, |txn| {
                    let keys = scan(txn, tree, is_back)?;
                    assert!(states.iter().any(|state| keys.iter().map(|(key, _)| key).eq(*state)), "{keys:?}");
                    thread::yield_now();
                    assert_eq!(scan(txn, tree, is_back)?, keys);
                    Ok(true)
                });
            }
        };
        let expected: Vec<_> = states[3].iter().map(|key| (*key, key % 2)).collect();
        together(open([0, 2, 4, 6, 8]), [Box::new(adds), Box::new(scans(false)), Box::new(scans(true))], &expected);
    });
}

/// A transaction adds and removes keys, splits and joins pages for that, and is rolled back. Another
/// scans twice, and sees nothing of it; a third puts keys of its own into the same leaves.
#[test]
fn an_abort_leaves_nothing_and_takes_nothing_of_others() {
    explore(|| {
        let aborts = |db: &Db, tree| {
            run(db, |txn| {
                txn.delete(tree, [20])?;
                put(txn, tree, 50, 9)?;
                txn.delete(tree, [60])?;
                put(txn, tree, 10, 9)?;
                thread::yield_now();
                Ok(false)
            });
        };
        let adds = |db: &Db, tree| {
            for key in [30, 45] {
                run(db, |txn| put(txn, tree, key, 1).map(|()| true));
            }
        };
        let scans = |db: &Db, tree| {
            run(db, |txn| {
                let keys = scan(txn, tree, false)?;
                let old: Vec<_> = keys.iter().copied().filter(|entry| ![(30, 1), (45, 1)].contains(entry)).collect();
                assert_eq!(old, [0, 20, 40, 60, 80].map(|key| (key, 0)));
                thread::yield_now();
                assert_eq!(scan(txn, tree, false)?, keys);
                Ok(true)
            });
        };
        let expected = [(0, 0), (20, 0), (30, 1), (40, 0), (45, 1), (60, 0), (80, 0)];
        together(open([0, 20, 40, 60, 80]), [Box::new(aborts), Box::new(adds), Box::new(scans)], &expected);
    });
}

/// Transactions change two keys in opposite order, so that each may wait for the other. One of them
/// is told, and is run again; all commit in the end, one after the other.
#[test]
fn a_deadlock_is_told_to_one_that_waits() {
    explore(|| {
        let changes = |keys: [u8; 2], value| {
            move |db: &Db, tree| {
                let done = db.run(|txn| {
                    keys.into_iter().try_for_each(|key| {
                        let old = txn.get_for_update(tree, [key])?.unwrap();
                        put(txn, tree, key, old[0] + value)
                    })
                });
                done.unwrap();
            }
        };
        let threads: [Work; 3] = [Box::new(changes([0, 2], 1)), Box::new(changes([2, 0], 10)), Box::new(changes([0, 2], 100))];
        together(open([0, 1, 2]), threads, &[(0, 111), (1, 0), (2, 111)]);
    });
}

/// Transactions read a key, and then change what they have read. None loses the change of another.
#[test]
fn locks_that_become_exclusive_lose_no_change() {
    explore(|| {
        let counts = |db: &Db, tree| {
            for _ in 0..2 {
                run(db, |txn| {
                    let old = txn.get(tree, [1])?.unwrap();
                    put(txn, tree, 1, old[0] + 1)?;
                    Ok(true)
                });
            }
        };
        together(open([1]), [Box::new(counts), Box::new(counts), Box::new(counts)], &[(1, 6)]);
    });
}
