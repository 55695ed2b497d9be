//! Nested top actions and undo by handlers: an index that many transactions change at a time, with
//! crashes anywhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreword_pages::{Change, Error, PageId, Store};
use foreword_sim::{Choice, SimDisk};

use crate::common::{DIR, Rng, Shelf, Shelves, crashes_wanted, options, with_types};

fn is_made_up(error: &Error) -> bool {
    matches!(error, Error::NotAllocated { page: PageId(0), .. })
}

const MADE_UP: PageId = PageId(0);

/// Fails as a caller's own work may.
fn fail<T>(store: &Store) -> foreword_pages::Result<T> {
    store.begin().update(MADE_UP, 0, b"x").map(|()| unreachable!())
}

#[test]
fn random_work_on_a_shared_index_and_crashes_at_random_writes() {
    let (mut crashes, wanted) = (0, crashes_wanted(300));
    for seed in 0.. {
        let mut shelves = Shelves::new(seed);
        shelves.run(6).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        crashes += shelves.crashes;
        if crashes >= wanted {
            println!("{crashes} crashes, {} seeds", seed + 1);
            break;
        }
    }
}

/// A small fixed piece of work is cut at every write, and each recovery from that is cut, too.
#[test]
fn a_crash_at_every_write_of_a_shared_index_and_in_the_recovery() {
    let run = |change: u64| {
        let mut shelves = Shelves::new(4);
        let store = shelves.reopen(0).unwrap();
        shelves.disk.power_off_at(shelves.disk.changes() + change);
        shelves.live(store, 200).unwrap();
        let is_cut = shelves.disk.is_off();
        (shelves, is_cut)
    };
    // In a campaign at each change.
    let (sparse, dense) = if crashes_wanted(0) > 1000 { (5, 1) } else { (20, 4) };
    let mut recoveries = 0;
    for change in 1.. {
        let (shelves, is_cut) = run(change);
        for choice in [Choice::None, Choice::Seed(change)] {
            let crashed = shelves.disk.crash(&choice);
            for second in (1 + change % 4..).step_by(if change % 4 == 0 { dense } else { sparse }) {
                let disk = crashed.copy();
                disk.power_off_at(disk.changes() + second);
                drop(with_types(options(&disk, 2)).open(DIR));
                let is_cut_again = disk.is_off();
                let after = disk.crash(&Choice::Seed(second));
                let mut again = Shelves { disk: after, rng: Rng::new(second), ..shelves.clone() };
                drop(again.reopen(0).unwrap_or_else(|v| panic!("cut at {change} ({choice:?}) and {second}: {v}")));
                recoveries += 1;
                if !is_cut_again {
                    break;
                }
            }
        }
        if !is_cut {
            break;
        }
    }
    println!("{recoveries} recoveries");
    assert!(recoveries > 150, "{recoveries}");
}

/// Threads insert and remove keys of their own in one index, and roll back, until the power fails.
#[test]
fn threads_share_an_index_and_crash() {
    const THREADS: usize = 4;
    for seed in 0..crashes_wanted(100) / 10 {
        let mut disk = SimDisk::new(seed);
        let open = |disk: &SimDisk| with_types(options(disk, 2).pool_bytes(64 * 4096)).open(DIR);
        let store = open(&disk).unwrap();
        let mut txn = store.begin();
        let ledgers = [(); THREADS].map(|()| txn.allocate().unwrap());
        let shelf = Shelf::new(&mut txn).unwrap();
        txn.commit().unwrap();
        drop(store);
        // All sets of keys that a thread has tried to commit, and how many it was told of.
        let states = [(); THREADS].map(|()| Mutex::new(vec![Vec::<u32>::new()]));
        let told = [(); THREADS].map(|()| AtomicU64::new(0));
        for round in 0..5 {
            let store = open(&disk).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
            let (found, pages) = shelf.read(&store.session()).unwrap_or_else(|e| panic!("seed {seed}, round {round}: {e}"));
            assert_eq!(store.stats().pages_used, pages + THREADS as u64);
            for thread in 0..THREADS {
                let mine: Vec<u32> = found.keys().copied().filter(|key| *key as usize % THREADS == thread).collect();
                let ledger = store.read(ledgers[thread]).unwrap();
                let n = u64::from_le_bytes(ledger[..8].try_into().unwrap());
                let mut states = states[thread].lock().unwrap();
                assert!(n >= told[thread].load(Ordering::SeqCst) && states[n as usize] == mine, "seed {seed}, round {round}");
                states.truncate(n as usize + 1);
                told[thread].store(n, Ordering::SeqCst);
            }
            disk.power_off_at(disk.changes() + 20 + Rng::new(seed * 7 + round).below(150));
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (store, disk, states, told, ledger) = (&store, &disk, &states[thread], &told[thread], ledgers[thread]);
                    let mut rng = Rng::new(seed * 100 + round * 10 + thread as u64);
                    scope.spawn(move || {
                        while !disk.is_off() {
                            let mut keys = states.lock().unwrap().last().unwrap().clone();
                            let work = || -> foreword_pages::Result<()> {
                                let mut txn = store.begin();
                                for _ in 0..1 + rng.below(8) {
                                    let key = (rng.below(60) as usize * THREADS + thread) as u32;
                                    match keys.binary_search(&key) {
                                        Ok(at) => {
                                            assert!(shelf.remove(&mut txn, key)?.is_some());
                                            keys.remove(at);
                                        }
                                        Err(at) => {
                                            assert!(shelf.insert(&mut txn, key, 7, &mut |_, _| Ok(()))?);
                                            keys.insert(at, key);
                                        }
                                    }
                                }
                                if rng.chance(10) {
                                    shelf.shrink(&mut txn)?;
                                }
                                if rng.chance(5) {
                                    store.checkpoint()?;
                                }
                                if rng.chance(30) {
                                    return txn.abort();
                                }
                                let n = states.lock().unwrap().len() as u64;
                                txn.update(ledger, 0, &n.to_le_bytes())?;
                                states.lock().unwrap().push(keys);
                                txn.commit()?;
                                told.store(n, Ordering::SeqCst);
                                Ok(())
                            };
                            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                            if !disk.is_off() {
                                done.expect("a thread panicked").expect("a thread failed");
                            }
                        }
                    });
                }
            });
            let after = disk.crash(&Choice::Seed(seed + round));
            drop(store);
            disk = after;
        }
    }
}

#[test]
fn a_top_action_stays_when_its_transaction_does_not() {
    let disk = SimDisk::new(1);
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.update(page, 0, b"before").unwrap();
    txn.commit().unwrap();

    let mut txn = store.begin();
    txn.update(page, 0, b"lost").unwrap();
    let savepoint = txn.savepoint();
    let kept = txn
        .nested(|txn| {
            assert!(matches!(txn.rollback_to(&savepoint), Ok(())), "the savepoint is where it begins");
            let kept = txn.allocate()?;
            txn.update(kept, 0, b"kept")?;
            // An inner one that fails is undone alone.
            let failed = txn.nested(|txn| {
                txn.update(kept, 0, b"gone")?;
                let gone = txn.allocate()?;
                txn.free(page)?;
                txn.update(gone, 0, b"gone")?;
                fail::<()>(&store)
            });
            assert!(is_made_up(&failed.unwrap_err()));
            Ok::<_, Error>(kept)
        })
        .unwrap();
    assert_eq!(store.stats().pages_used, 2);
    txn.update(kept, 4, b" not").unwrap();
    txn.rollback_to(&savepoint).unwrap();
    assert_eq!(&store.read(kept).unwrap()[..8], b"kept\0\0\0\0");
    txn.update(kept, 4, b" not").unwrap();
    // Pages that a top action frees are free when it closes.
    let mut freeing = store.begin();
    let other = freeing.allocate().unwrap();
    freeing.nested(|txn| txn.free(other)).unwrap();
    assert_eq!(store.begin().allocate().unwrap(), other);
    assert!(matches!(store.read(other), Err(Error::NotAllocated { .. })));
    // After a crash, too.
    store.sync_to(store.stats().log.appended_lsn).unwrap();
    let recovered = options(&disk.kill(), 1).open(DIR).unwrap();
    assert_eq!(recovered.recovery().losers, 2, "{}", recovered.recovery());
    assert_eq!(&recovered.read(kept).unwrap()[..8], b"kept\0\0\0\0");
    assert_eq!(&recovered.read(page).unwrap()[..6], b"before");
    drop(recovered);
    txn.abort().unwrap();
    assert_eq!(&store.read(page).unwrap()[..6], b"before");
    assert_eq!(&store.read(kept).unwrap()[..8], b"kept\0\0\0\0");
    assert_eq!(store.stats().pages_used, 2);
}

/// Savepoints do not reach out of a top action, nor into one that has ended.
#[test]
fn a_top_action_is_whole_for_savepoints() {
    let disk = SimDisk::new(1);
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    let before = txn.savepoint();
    txn.update(page, 0, b"one").unwrap();
    let inside = txn
        .nested(|txn| {
            txn.update(page, 10, b"two")?;
            assert!(matches!(txn.rollback_to(&before), Err(Error::Invalid { .. })));
            Ok::<_, Error>(txn.savepoint())
        })
        .unwrap();
    assert!(matches!(txn.rollback_to(&inside), Err(Error::Invalid { .. })));
    txn.rollback_to(&before).unwrap();
    assert_eq!(&store.read(page).unwrap()[..13], b"\0\0\0\0\0\0\0\0\0\0two");
}

/// Until a top action is over no one else gets what it has changed: not another transaction, a
/// reader or the one that guards go to. Its own transaction does, and checkpoints.
#[test]
fn what_a_top_action_has_changed_is_latched_until_it_is_over() {
    for fails in [false, true] {
        let disk = SimDisk::new(1);
        let store = options(&disk, 1).open(DIR).unwrap();
        let mut txn = store.begin();
        let pages = [(); 3].map(|()| txn.allocate().unwrap());
        txn.commit().unwrap();
        let others = |page| store.session().try_fetch_shared(page).unwrap().is_some();
        let mut txn = store.begin();
        let held = txn.nested(|txn| {
            txn.update(pages[0], 0, b"update")?;
            let mut change = Change::new();
            change.write(pages[1], 0, b"apply").write(pages[2], 0, b"apply");
            let (mut one, mut two) = (txn.fetch_exclusive(pages[1])?, txn.fetch_exclusive(pages[2])?);
            txn.apply(&change, &mut [&mut one, &mut two])?;
            let shared = two.downgrade();
            drop(one);
            assert!(!pages.iter().any(|&page| others(page)));
            store.checkpoint_all()?;
            // One guard at a time, of either kind.
            let again = txn.fetch_shared(pages[0])?;
            assert!(matches!(txn.try_fetch_exclusive(pages[0]), Err(Error::Deadlock { .. })));
            assert!(again.try_upgrade().is_ok());
            assert!(!others(pages[0]));
            txn.nested(|txn| txn.update(pages[0], 10, b"inner"))?;
            assert!(!others(pages[0]), "the outer one has changed it, too");
            if fails {
                drop(shared);
                return fail(&store);
            }
            Ok::<_, Error>(shared)
        });
        assert!(others(pages[0]) && others(pages[1]) && others(pages[2]));
        // A guard that was left behind keeps its latch.
        let is_free = store.begin().try_fetch_exclusive(pages[2]).unwrap().is_some();
        assert_eq!(is_free, fails);
        assert_eq!(held.is_err(), fails);
        let expected = if fails { b"\0\0\0\0\0" } else { b"apply" };
        assert_eq!(&store.read(pages[1]).unwrap()[..5], expected);
        assert_eq!(&store.read(pages[0]).unwrap()[10..15], b"inner");
        drop(held);
        txn.commit().unwrap();
    }
}

/// A guard is in the way of undoing: the transaction can only be rolled back, and is.
#[test]
fn a_top_action_that_cannot_be_undone_leaves_only_rollback() {
    let disk = SimDisk::new(1);
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    for way in 0..3 {
        let mut txn = store.begin();
        let savepoint = txn.savepoint();
        txn.update(page, 100, b"before").unwrap();
        let mut held = None;
        let mut work = || {
            txn.nested(|txn| {
                txn.update(page, 0, b"half")?;
                held = Some(txn.fetch_exclusive(page)?);
                if way == 2 {
                    panic!("deliberate");
                }
                fail::<()>(&store)
            })
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut work)) {
            Ok(failed) => assert!(is_made_up(&failed.unwrap_err())),
            Err(_) => assert_eq!(way, 2),
        }
        assert!(matches!(txn.update(page, 200, b"more"), Err(Error::Invalid { .. })));
        assert!(matches!(txn.nested(|_| Ok::<_, Error>(())), Err(Error::Invalid { .. })));
        drop(held);
        assert!(store.session().try_fetch_shared(page).unwrap().is_none(), "it is not undone yet");
        match way {
            0 => {
                txn.rollback_to(&savepoint).unwrap();
                txn.update(page, 200, b"on").unwrap();
                txn.commit().unwrap();
            }
            1 => assert!(matches!(txn.commit(), Err(Error::Invalid { .. }))),
            _ => txn.abort().unwrap(),
        }
        assert_eq!(&store.read(page).unwrap()[..4], b"\0\0\0\0");
        assert_eq!(&store.read(page).unwrap()[100..106], &[0; 6]);
        assert_eq!(&store.read(page).unwrap()[200..202], b"on");
    }
}

/// The disk is full, anywhere in a split. The transaction goes on, or waits as an orphan with its
/// pages latched until there is space; nothing is there in part.
#[test]
fn a_disk_that_becomes_full_in_a_top_action_leaves_nothing_in_part() {
    let (mut refused, mut orphans) = (0, 0);
    for free in 0..60u64 {
        let disk = SimDisk::new(free);
        let open = |disk: &SimDisk| with_types(options(disk, 1)).open(DIR);
        let store = open(&disk).unwrap();
        let mut txn = store.begin();
        let filler = txn.allocate().unwrap();
        let shelf = Shelf::new(&mut txn).unwrap();
        txn.commit().unwrap();
        store.checkpoint_all().unwrap();
        disk.set_free(free * 1024);
        let mut committed = 0;
        let mut txn = store.begin();
        for key in 0..4000u32 {
            // What else the log is filled with varies where the space ends.
            let fill = vec![key as u8; 1 + (free as usize * 13) % 700];
            let done =
                txn.update(filler, 0, &fill).and_then(|()| shelf.insert(&mut txn, key * 7 % 4001, key, &mut |_, _| Ok(())));
            match done {
                Ok(is_new) => assert!(is_new),
                Err(e) => {
                    assert!(e.is_no_space(), "{e}");
                    break;
                }
            }
            if key % 10 == 9 {
                match txn.commit() {
                    Ok(_) => committed = key + 1,
                    Err(e) => {
                        assert!(e.is_no_space(), "{e}");
                        txn = store.begin();
                        break;
                    }
                }
                txn = store.begin();
            }
            assert!(key < 3999, "the disk is not full");
        }
        refused += 1;
        drop(txn);
        orphans += store.stats().orphans;
        let killed = disk.kill();
        let expect = |store: &Store| {
            let (found, pages) = shelf.read(&store.session()).unwrap();
            assert_eq!(found.len() as u32, committed, "free: {free}");
            assert_eq!(store.stats().pages_used, pages + 1);
        };
        disk.set_capacity(None);
        store.checkpoint().unwrap();
        store.checkpoint().unwrap();
        assert_eq!(store.stats().orphans, 0);
        expect(&store);
        // And the same after a kill.
        killed.set_capacity(None);
        expect(&open(&killed).unwrap());
    }
    println!("{refused} refused, {orphans} orphans");
    assert!(orphans > 0);
}

/// No latch is waited for while another is held, by a rollback of several pages.
#[test]
fn a_change_of_several_pages_is_undone_page_by_page() {
    let disk = SimDisk::new(3);
    let store = options(&disk, 1).open(DIR).unwrap();
    let mut txn = store.begin();
    let pages = [(); 3].map(|()| txn.allocate().unwrap());
    txn.commit().unwrap();
    let mut txn = store.begin();
    let savepoint = txn.savepoint();
    let mut guards: Vec<_> = pages.iter().map(|&page| txn.fetch_exclusive(page).unwrap()).collect();
    let mut change = Change::new();
    pages.iter().for_each(|&page| _ = change.write(page, 0, b"all").write(page, 1, b"of it"));
    txn.apply(&change, &mut guards.iter_mut().collect::<Vec<_>>()).unwrap();
    assert!(guards.iter().all(|guard| &guard[..6] == b"aof it" && guard.lsn() == guards[0].lsn()));
    drop(guards);
    // One page of it cannot be undone. The others behind it are.
    let held = store.session().fetch_shared(pages[0]).unwrap();
    let before = store.recovery().undo.records;
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| txn.rollback_to(&savepoint).map(|()| txn));
        while store.read(pages[1]).unwrap()[..3] != [0; 3] {
            std::thread::sleep(Duration::from_millis(1));
        }
        store.checkpoint().unwrap();
        let recovered = options(&disk.kill(), 1).open(DIR).unwrap();
        assert!(pages.iter().all(|&page| recovered.read(page).unwrap()[..6] == [0; 6]));
        assert_eq!(recovered.recovery().undo.records - before, 1);
        drop(held);
        drop(waits.join().unwrap().unwrap());
    });
    assert!(pages.iter().all(|&page| store.read(page).unwrap()[..6] == [0; 6]));
}
