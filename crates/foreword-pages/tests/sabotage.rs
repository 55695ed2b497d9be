//! Deliberate bugs, each of which the crash suite must catch. Run with `--features sabotage`.
#![cfg(feature = "sabotage")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::copies::backed_up;
use common::full::FullDisk;
use common::{Bank, Checked, DIR, Rng, Shelves, World, options};
use foreword_pages::Error;
use foreword_pages::sabotage::{Bug, switch};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

fn random_work(seed: u64) -> Checked<u64> {
    let mut world = World::new(seed);
    world.run(6)?;
    Ok(world.crashes)
}

fn shared_index(seed: u64) -> Checked<u64> {
    let mut shelves = Shelves::new(seed);
    shelves.run(6)?;
    Ok(shelves.crashes)
}

fn switched_images(seed: u64) -> Checked<u64> {
    let mut world = World { switches_images: true, ..World::new(seed) };
    world.run(6)?;
    Ok(world.crashes)
}

fn money(seed: u64) -> Checked<u64> {
    let mut bank = Bank::new(seed, 4, 24)?;
    let mut rng = Rng::new(seed);
    (0..10).map(|_| bank.round(&mut rng)).sum()
}

/// A failed sync, a restart, and a power failure.
fn failed_sync(seed: u64) -> Checked<u64> {
    let disk = SimDisk::new(seed);
    let open = |disk: &SimDisk| options(disk, 2).full_page_images(false).open(DIR).map_err(|e| e.to_string());
    let store = open(&disk)?;
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    store.checkpoint_all().unwrap();
    let mut txn = store.begin();
    txn.update(page, 0, b"precious").unwrap();
    txn.commit().unwrap();
    disk.fault(Fault::new(OpKind::Sync, Effect::Eio).on("PAGES"));
    assert!(store.checkpoint_all().is_err());
    drop(store);
    let disk = disk.kill();
    open(&disk)?.checkpoint_all().unwrap();
    let store = open(&disk.crash(&Choice::None))?;
    let page = store.read(page).map_err(|e| e.to_string())?;
    if page.starts_with(b"precious") { Ok(2) } else { Err("what was committed is gone".into()) }
}

/// A disk becomes full, the process is killed, and the store is opened on the full disk and with
/// room.
fn full_disk(seed: u64) -> Checked<u64> {
    let work = FullDisk { free: seed % 200 * 4096, killed_at: 1 + seed * 7 % 300 };
    work.run(&SimDisk::new(seed)).map(|_| 2)
}

/// The disk is full. Each change that is refused is made after a checkpoint.
fn stays_full(seed: u64) -> Checked<u64> {
    let disk = SimDisk::new(seed);
    let store = options(&disk, 1).open(DIR).map_err(|e| e.to_string())?;
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    txn.commit().unwrap();
    disk.set_free(0);
    let change = |round: u64| {
        let mut txn = store.begin();
        txn.update(page, 0, &vec![round as u8; 1 + (seed * 97) as usize % 3000])?;
        txn.commit()
    };
    for round in 0..500 {
        if change(round).is_err() {
            store.checkpoint().map_err(|e| format!("a checkpoint on a full disk: {e}"))?;
            change(round).map_err(|e| format!("a checkpoint has freed nothing: {e}"))?;
        }
    }
    Ok(1)
}

/// The last checkpoint had a map on disk, and the map is blank.
fn blank_map(seed: u64) -> Checked<u64> {
    let disk = SimDisk::new(seed);
    let open = |disk: &SimDisk| options(disk, 1).open(DIR);
    let store = open(&disk).map_err(|e| e.to_string())?;
    let mut txn = store.begin();
    (0..20).for_each(|_| _ = txn.allocate().unwrap());
    txn.commit().unwrap();
    store.close().unwrap();
    let path = format!("{DIR}/PAGES");
    assert!(disk.cut(&path, 4096) && disk.cut(&path, 1 << 20));
    match open(&disk) {
        Err(Error::Rotten { .. }) => Ok(1),
        opened => Err(format!("it opens, with {:?} pages", opened.map(|store| store.stats().pages_used))),
    }
}

/// The page file is removed under an open store.
fn lost_file(seed: u64) -> Checked<u64> {
    let disk = SimDisk::new(seed);
    let store = options(&disk, 1).open(DIR).map_err(|e| e.to_string())?;
    let mut txn = store.begin();
    txn.allocate().unwrap();
    txn.commit().unwrap();
    assert!(disk.lose(format!("{DIR}/PAGES")));
    match store.checkpoint_all() {
        Err(Error::Displaced { .. }) => Ok(1),
        done => Err(format!("{done:?}")),
    }
}

/// A store that is backed up while it works, and restored.
fn backups(seed: u64) -> Checked<u64> {
    backed_up(seed, true, 4)
}

type Suite = fn(u64) -> Checked<u64>;

/// The number of crashes until the suite finds something. `None`: it finds nothing in `most`.
fn caught(suite: Suite, most: u64) -> Option<(u64, String)> {
    let mut crashes = 0;
    for seed in 0.. {
        // A bug may also break an assertion in the suite.
        match catch_unwind(AssertUnwindSafe(|| suite(seed))) {
            Ok(Ok(more)) => crashes += more,
            Ok(Err(violation)) => return Some((crashes + 1, violation)),
            Err(_) => return Some((crashes + 1, "a panic".into())),
        }
        if crashes > most {
            return None;
        }
    }
    None
}

#[test]
fn every_bug_is_caught() {
    let bugs: [(Bug, Suite); 25] = [
        (Bug::PageBeforeLog, random_work),
        (Bug::NoImage, random_work),
        (Bug::NoCompensation, random_work),
        (Bug::NoUndo, random_work),
        (Bug::NoRedoOfUndo, random_work),
        (Bug::NoPageSync, random_work),
        (Bug::NoDirtyPages, random_work),
        (Bug::NoLiveTransactions, random_work),
        (Bug::TruncateTooFar, random_work),
        (Bug::TruncateTooSoon, random_work),
        (Bug::SwitchSilently, switched_images),
        (Bug::CommitNotDurable, random_work),
        (Bug::FreeTooSoon, random_work),
        (Bug::CleanTooSoon, money),
        (Bug::TrustPages, failed_sync),
        (Bug::RoomLater, full_disk),
        (Bug::ForgetMaps, blank_map),
        (Bug::DropUnseen, lost_file),
        (Bug::IgnoreRefusal, stays_full),
        (Bug::NestedNotClosed, shared_index),
        (Bug::UndoByBytes, shared_index),
        (Bug::LatchNotKept, shared_index),
        (Bug::UndoNotClosed, shared_index),
        (Bug::NestedUndoneLate, shared_index),
        (Bug::BackupTooEarly, backups),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (bug, suite) in bugs {
        assert!(caught(suite, 50).is_none(), "without a bug there is nothing to find");
        switch(Some(bug));
        let found = caught(suite, 5000);
        switch(None);
        match found {
            Some((crashes, how)) => println!("{bug:?}: caught after {crashes} crashes: {how}"),
            None => missed.push(bug),
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
