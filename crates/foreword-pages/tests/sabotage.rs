//! Deliberate bugs, each of which the crash suite must catch. Run with `--features sabotage`.
#![cfg(feature = "sabotage")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Bank, Checked, DIR, Rng, World, options};
use foreword_pages::sabotage::{Bug, switch};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

fn random_work(seed: u64) -> Checked<u64> {
    let mut world = World::new(seed);
    world.run(6)?;
    Ok(world.crashes)
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

type Suite = fn(u64) -> Checked<u64>;

/// How many crashes it takes until the suite finds something; `None` if it does not in so many.
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
    let bugs: [(Bug, Suite); 15] = [
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
