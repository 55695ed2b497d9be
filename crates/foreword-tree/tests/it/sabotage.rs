//! Deliberate bugs, each of which a suite must catch. They are switched on in the whole process, so
//! nothing else may run in it: `cargo test -p foreword-tree --features sabotage --test it --
//! --ignored --nocapture every_bug`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use foreword_tree::sabotage::{Bug, switch};

use crate::common::{Checked, World};
use crate::serial::{contended, contended_and_cut};

fn random_work(seed: u64) -> Checked<u64> {
    let mut world = World::new(seed);
    world.run(6)?;
    Ok(world.crashes)
}

type Suite = fn(u64) -> Checked<u64>;

/// The number of crashes, or transactions, until the suite finds something. `None`: it finds nothing
/// in `most`.
fn caught(suite: Suite, most: u64) -> Option<(u64, String)> {
    let mut done = 0;
    for seed in 0.. {
        // A bug may also break an assertion in the suite.
        match catch_unwind(AssertUnwindSafe(|| suite(seed))) {
            Ok(Ok(more)) => done += more,
            Ok(Err(violation)) => return Some((done + 1, violation)),
            Err(_) => return Some((done + 1, "a panic".into())),
        }
        if done > most {
            return None;
        }
    }
    None
}

#[test]
#[ignore = "bugs are switched on in the whole process"]
fn every_bug_is_caught() {
    let crashes: (Suite, u64) = (random_work, 3000);
    let threads: (Suite, u64) = (contended, 60_000);
    let both: (Suite, u64) = (contended_and_cut, 1000);
    let bugs = [
        (Bug::NoTopAction, crashes),
        (Bug::UndoByPlace, crashes),
        (Bug::NoCoupling, threads),
        (Bug::JoinLeaks, crashes),
        (Bug::LongLeaks, crashes),
        (Bug::ScanForgetsNext, threads),
        (Bug::InsertForgetsNext, threads),
        (Bug::RemoveForgetsNext, threads),
        (Bug::ReadLocksEnd, threads),
        (Bug::UnlockBeforeUndo, threads),
        (Bug::NoSecondLook, threads),
        (Bug::ReadNotDurable, crashes),
        (Bug::LongFreedSoon, crashes),
        (Bug::NoCouplingAside, threads),
        (Bug::PassedLetGo, threads),
        (Bug::UnlockBeforeCommit, both),
    ];
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (bug, (suite, most)) in bugs {
        assert!(caught(suite, most / 100).is_none(), "without a bug there is nothing to find");
        switch(Some(bug));
        let found = caught(suite, most);
        switch(None);
        match found {
            Some((done, how)) => println!("{bug:?}: caught after {done}: {how}"),
            None => {
                println!("{bug:?}: missed");
                missed.push(bug);
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
