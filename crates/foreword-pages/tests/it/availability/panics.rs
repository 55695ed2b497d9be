//! A disk that panics harms nothing, or poisons the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use foreword_pages::Error;
use foreword_sim::SimDisk;

use super::{fill, holds, put, within};
use crate::common::{DIR, Hooked, options};

/// A disk panics once, in any operation on the page file. (Panics in the log's files are the log's
/// own matter.)
#[test]
fn a_disk_that_panics_harms_nothing_or_poisons_the_store() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("deliberate") {
            others(panic)
        }
    }));
    let (mut poisoned, mut at) = (0, 0);
    while within(Duration::from_secs(30), move || panic_at(at))
        .inspect(|&was_poisoned| poisoned += u32::from(was_poisoned))
        .is_some()
    {
        at += 1;
    }
    assert!(at > 50 && poisoned > 10, "{at}, {poisoned}");
}

/// Works on a disk that panics at an operation. Returns whether that poisoned the store. `None`:
/// the work has fewer operations.
fn panic_at(at: u64) -> Option<bool> {
    let disk = SimDisk::new(at);
    let hooked = Hooked::new(&disk);
    let store = options(&disk, 1).disk(hooked.handle()).open(DIR).unwrap();
    let pages = fill(&store, 30, 1).unwrap();
    let passed = Arc::new(AtomicU64::new(0));
    let count = passed.clone();
    hooked.before_each(move |_, path| {
        assert!(!path.ends_with("PAGES") || count.fetch_add(1, Ordering::Relaxed) != at, "deliberate")
    });
    let (mut committed, mut tried) = (vec![1; pages.len()], vec![1; pages.len()]);
    for round in 2..6u8 {
        let work = || {
            for i in (round as usize..pages.len()).step_by(3) {
                let mut txn = store.begin();
                tried[i] = round;
                txn.update(pages[i], 0, &vec![round; store.page_len()])?;
                txn.commit()?;
                committed[i] = round;
            }
            let grown = store.begin().allocate();
            store.checkpoint_all().and(grown)
        };
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
    if passed.load(Ordering::Relaxed) <= at {
        return None;
    }
    // No call hangs, no frame is lost, and readers see what was committed.
    let is_poisoned = matches!(put(&store, pages[0], 1), Err(Error::Poisoned(_)));
    if !is_poisoned {
        committed[0] = 1;
        let _guards: Vec<_> = pages[..16].iter().map(|&page| store.read(page).unwrap()).collect();
        pages.iter().zip(&committed).take(16).for_each(|(&page, &byte)| assert!(holds(&store, page, byte), "page {page}"));
    }
    hooked.clear();
    if !is_poisoned {
        pages.iter().zip(&committed).for_each(|(&page, &byte)| assert!(holds(&store, page, byte), "page {page}"));
        store.checkpoint_all().unwrap();
    }
    drop(store);
    let store = options(&disk.kill(), 1).open(DIR).unwrap();
    for (i, &page) in pages.iter().enumerate() {
        let byte = store.read(page).unwrap()[0];
        assert!(holds(&store, page, byte), "page {page} is in parts");
        assert!([committed[i], tried[i], 1].contains(&byte), "page {page} holds {byte}");
    }
    Some(is_poisoned)
}
