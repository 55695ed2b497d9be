//! Transactions that wait for each other, disks that are full or fail: no call waits without end,
//! and nothing is there in part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use foreword_sim::{Effect, Fault, OpKind, SimDisk};
use foreword_tests::hooked::{Op, hooked};
use foreword_tree::foreword_pages::PageId;
use foreword_tree::{Db, Error, Result, Txn};

use crate::common::{DIR, options};

fn open(disk: &SimDisk) -> Db {
    Db::open_with(options(disk, 1), DIR).unwrap()
}

/// A deadline for what must not hang.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_transaction_waits_for_another_and_sees_what_it_did() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    for commits in [true, false] {
        let mut one = db.begin();
        one.put(tree, "a", "1").unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            for what in 0..4 {
                let (db, tell) = (&db, tell.clone());
                scope.spawn(move || {
                    let other = db.begin();
                    let found = match what {
                        0 => other.get(tree, "a").unwrap().is_some(),
                        1 => other.scan(tree, ..).map(Result::unwrap).count() == 1,
                        2 => other.scan_back(tree, ..).map(Result::unwrap).count() == 1,
                        _ => other.get_for_update(tree, "a").unwrap().is_some(),
                    };
                    other.abort().unwrap();
                    tell.send((what, found)).unwrap();
                });
            }
            assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "they wait");
            if commits {
                _ = one.commit().unwrap();
            } else {
                one.abort().unwrap()
            }
            for _ in 0..4 {
                let (what, found) = told.recv_timeout(SOON).unwrap();
                assert_eq!(found, commits, "{what}");
            }
        });
        db.run(|txn| txn.delete(tree, "a")).unwrap();
    }
}

#[test]
fn of_two_that_wait_for_each_other_one_is_told() {
    let disk = SimDisk::new(2);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    db.run(|txn| ["a", "b"].iter().try_for_each(|key| txn.put(tree, key, "0"))).unwrap();
    // Whoever comes second is told, and runs again. So no update is lost.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for _ in 0..50 {
                    db.run(|txn| {
                        let a = txn.get(tree, "a")?.unwrap().len();
                        std::thread::yield_now();
                        let b = txn.get(tree, "b")?.unwrap().len();
                        txn.put(tree, "b", vec![b'0'; b + 1])?;
                        txn.put(tree, "a", vec![b'0'; a + 1])
                    })
                    .unwrap();
                }
            });
        }
    });
    let txn = db.begin();
    assert_eq!([txn.get(tree, "a").unwrap().unwrap().len(), txn.get(tree, "b").unwrap().unwrap().len()], [201; 2]);
    // And by hand.
    drop(txn);
    let (mut one, two) = (db.begin(), db.begin());
    assert!(one.get(tree, "a").unwrap().is_some() && two.get(tree, "b").unwrap().is_some());
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || {
            let mut two = two;
            two.put(tree, "a", "2").map(|()| two)
        });
        let started = Instant::now();
        // (Whoever asks last is told.)
        std::thread::sleep(Duration::from_millis(20));
        let first = one.put(tree, "b", "1");
        assert!(started.elapsed() < SOON);
        let id = one.id();
        match first {
            Err(error @ Error::Deadlock { .. }) => {
                assert!(error.to_string().contains(&id.to_string()), "{error}");
                drop(one);
                drop(waits.join().unwrap().unwrap());
            }
            Ok(()) => assert!(matches!(waits.join().unwrap(), Err(Error::Deadlock { .. }))),
            Err(error) => panic!("{error}"),
        }
    });
}

/// The disk is full, anywhere in the work. What is refused has changed nothing, or is rolled back
/// when there is space.
#[test]
fn a_disk_that_becomes_full_leaves_nothing_in_part() {
    let (mut unended, mut refused) = (0, 0);
    for free in 0..40u64 {
        let disk = SimDisk::new(free);
        let db = open(&disk);
        let tree = db.tree("t").unwrap();
        db.store().checkpoint_all().unwrap();
        disk.set_free(free * 3 * 1024);
        let (mut committed, mut txn) = (0, db.begin());
        let is_full = (0..4000u32).any(|n| {
            let value = vec![n as u8; if n % 50 == 49 { 9000 } else { (n as usize * 13 + free as usize) % 700 }];
            let mut done = txn.put(tree, (n * 7 % 4001).to_be_bytes(), value);
            if done.is_ok() && n % 3 == 2 && n > 10 {
                done = txn.delete(tree, ((n - 5) * 7 % 4001).to_be_bytes()).map(drop);
            }
            if done.is_ok() && n % 10 == 9 {
                done = std::mem::replace(&mut txn, db.begin()).commit().map(drop);
                committed = if done.is_ok() { n + 1 } else { committed };
            }
            done.is_err_and(|error| {
                assert!(error.is_no_space(), "{error}");
                true
            })
        });
        assert!(is_full);
        refused += 1;
        drop(txn);
        let expect = |db: &Db| {
            let mut expected: Vec<u32> = (0..committed).map(|n| n * 7 % 4001).collect();
            expected.retain(|key| {
                let n = (0..4001).find(|n| n * 7 % 4001 == *key).unwrap();
                !((n + 5) % 3 == 2 && n + 5 > 10 && n + 5 < committed)
            });
            expected.sort_unstable();
            let txn = db.begin();
            let found: Vec<u32> =
                txn.scan(tree, ..).map(|entry| u32::from_be_bytes(entry.unwrap().0.try_into().unwrap())).collect();
            assert_eq!(found, expected, "free: {free}");
            db.verify(true).unwrap();
        };
        if db.store().stats().orphans > 0 {
            unended += 1;
            // What is not rolled back yet is not seen.
            let other = db.begin().get(tree, "x");
            assert!(other.as_ref().is_err_and(Error::is_no_space), "{other:?}");
        } else {
            expect(&db);
        }
        let killed = disk.kill();
        disk.set_capacity(None);
        db.store().checkpoint().unwrap();
        db.store().checkpoint().unwrap();
        expect(&db);
        killed.set_capacity(None);
        expect(&open(&killed));
    }
    println!("{refused} refused, {unended} not rolled back at once");
    assert!(unended > 0);
}

/// A page cannot be read when a transaction is to be rolled back. The next checkpoint does it.
#[test]
fn a_rollback_that_fails_once_is_made_good_by_a_checkpoint() {
    let disk = SimDisk::new(5);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let key = |n: u32| n.to_be_bytes();
    db.run(|txn| (0..1000).try_for_each(|n| txn.put(tree, key(n), [1; 400]))).unwrap();
    let mut one = db.begin();
    one.put(tree, key(0), "2").unwrap();
    // What it has changed leaves the pool.
    for _ in 0..3 {
        assert!((100..1000).all(|n| db.begin().get(tree, key(n)).unwrap().is_some()));
    }
    disk.fault(Fault::new(OpKind::Read, Effect::Eio).on("PAGES"));
    let failed = one.abort().unwrap_err();
    let refused = db.begin().get(tree, key(500)).unwrap_err();
    assert_eq!((failed.to_string(), failed.is_no_space()), (refused.to_string(), false));
    db.store().checkpoint().unwrap();
    assert_eq!(db.begin().get(tree, key(0)).unwrap().unwrap(), [1; 400]);
    db.verify(true).unwrap();
}

/// The disk panics once, in any operation while a transaction ends. Others wait for nothing, and see
/// nothing of it that was not committed.
#[test]
fn a_disk_that_panics_while_a_transaction_ends_leaves_no_lock() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("deliberate") {
            others(panic)
        }
    }));
    let end = |txn: Txn, name: &str| match name {
        "abort" => txn.abort(),
        "commit" => txn.commit().map(drop),
        _ => {
            drop(txn);
            Ok(())
        }
    };
    let (mut panics, mut unended) = (0, 0);
    for name in ["abort", "drop", "commit"] {
        for at in 0.. {
            let disk = SimDisk::new(at);
            let left = Arc::new(AtomicU64::new(u64::MAX));
            let count = left.clone();
            let hook = move |_: Op, _: &str| {
                let is_last = count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) == Err(0);
                if is_last {
                    count.store(u64::MAX, SeqCst);
                    panic!("deliberate");
                }
                Ok(())
            };
            let db = Db::open_with(options(&disk, 1).disk(hooked(disk.clone(), hook)), DIR).unwrap();
            let tree = db.tree("t").unwrap();
            let key = |n: u32| n.to_be_bytes();
            db.run(|txn| (0..1000).try_for_each(|n| txn.put(tree, key(n), [1; 400]))).unwrap();
            let mut one = db.begin();
            (0..8).try_for_each(|n| one.put(tree, key(n * 9), "2")).unwrap();
            // What it has changed leaves the pool.
            assert!((100..1000).all(|n| db.begin().get(tree, key(n)).unwrap().is_some()));
            left.store(at, SeqCst);
            let ended = catch_unwind(AssertUnwindSafe(|| end(one, name)));
            let has_panicked = left.swap(u64::MAX, SeqCst) > at;
            panics += u32::from(has_panicked);
            let (tell, told) = mpsc::channel();
            let other = db.clone();
            std::thread::spawn(move || {
                let get = || other.begin().get(tree, 0u32.to_be_bytes());
                let first = get();
                let again = first.is_err().then(|| other.store().checkpoint().map_err(Error::from).and_then(|_| get()));
                tell.send((first, again)).unwrap();
            });
            let (first, again) = told.recv_timeout(SOON).unwrap_or_else(|_| panic!("{name}, {at}: it hangs"));
            unended += u32::from(first.is_err());
            let is_whole = |value: &Option<Vec<u8>>| match value.as_deref() {
                Some(b"2") => name == "commit",
                value => value == Some(&[1; 400]) && (name != "commit" || has_panicked),
            };
            let answers = [Some(first), again].into_iter().flatten().filter_map(|answer| answer.ok());
            answers.for_each(|value| assert!(is_whole(&value), "{name}, {at}: {value:?}, {ended:?}"));
            if !has_panicked {
                break;
            }
        }
    }
    println!("{panics} panics, {unended} not rolled back at once");
    assert!(panics > 10 && unended > 0, "{panics}, {unended}");
}

/// It is in the log's memory, and comes no further: to find it there is not enough.
#[test]
fn a_tree_that_is_found_is_durable() {
    let disk = SimDisk::new(7);
    let db = open(&disk);
    disk.fault(Fault::new(OpKind::Write, Effect::Eio).on("log").forever());
    disk.fault(Fault::new(OpKind::DurableWrite, Effect::Eio).on("log").forever());
    assert!(db.tree("t").is_err());
    assert_eq!(db.trees().unwrap(), ["t"]);
    assert!(db.tree("t").is_err());
}

/// A check that waits for a leaf keeps no other part of a high tree.
#[test]
fn a_check_latches_a_page_and_one_below() {
    let disk = SimDisk::new(6);
    let db = open(&disk);
    let tree = db.tree("t").unwrap();
    let key = |n: u32| [&[b'k'; 400][..], &n.to_be_bytes()].concat();
    db.run(|txn| (0..1000).try_for_each(|n| txn.put(tree, key(n), [1; 400]))).unwrap();
    assert!(db.verify(true).unwrap().levels > 2);
    let pages = db.store().begin();
    // The first leaf.
    let leaf = (3..).map(PageId).find(|&id| {
        let page = db.store().read(id).unwrap();
        page[..2] == [1, 0] && page[16..18] == [0, 0] && page[18..20] != [0xff, 0xff]
    });
    let leaf = pages.fetch_exclusive(leaf.unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let checks = scope.spawn(|| db.verify(false));
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            // Joins begin at the root.
            db.run(|txn| (500..1000).try_for_each(|n| txn.delete(tree, key(n)).map(drop))).unwrap();
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_secs(5)).expect("it waits for the check");
        drop(leaf);
        checks.join().unwrap().unwrap();
    });
    assert_eq!(db.verify(true).unwrap().keys, 500);
}

/// The log fails while transactions wait for each other. All are told.
#[test]
fn a_log_that_fails_leaves_none_waiting() {
    for skip in 0..6 {
        let disk = SimDisk::new(skip);
        let db = open(&disk);
        let tree = db.tree("t").unwrap();
        disk.fault(Fault::new(OpKind::Write, Effect::Eio).on("log").skip(skip).forever());
        disk.fault(Fault::new(OpKind::DurableWrite, Effect::Eio).on("log").skip(skip).forever());
        let (tell, told) = mpsc::channel();
        for thread in 0..4u8 {
            let (db, tell) = (db.clone(), tell.clone());
            std::thread::spawn(move || {
                let done = (0..200u32).try_for_each(|n| {
                    db.run(|txn| {
                        let old = txn.get(tree, [n as u8 % 3])?.unwrap_or_default();
                        txn.put(tree, [n as u8 % 3], [&old[..], &[thread]].concat())
                    })
                });
                tell.send(done).unwrap();
            });
        }
        for _ in 0..4 {
            let done = told.recv_timeout(SOON).expect("a thread hangs");
            assert!(done.is_err_and(|error| !error.is_conflict()), "{skip}");
        }
    }
}
