//! Stores are made, opened, recovered and closed on a full disk, or say that there is no room.

use foreword_sim::{Choice, SimDisk};

use super::{fill, holds, put};
use crate::common::full::FullDisk;
use crate::common::{DIR, options};

/// The log is full of records that no page needs, and transactions are to be undone. Opening makes
/// the room for that.
#[test]
fn opening_undoes_transactions_on_a_full_disk() {
    let disk = SimDisk::new(5);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 12, 1).unwrap();
    store.checkpoint_all().unwrap();
    // Committed work, and then a transaction that is alive when the process is killed, with more to
    // undo than there is room for.
    (2..40).for_each(|byte| put(&store, pages[0], byte).unwrap());
    let mut txn = store.begin();
    for round in 0..8u8 {
        pages[1..].iter().for_each(|&page| txn.update(page, 0, &vec![round | 0x80; store.page_len()]).unwrap());
    }
    let _alive = txn;
    // Opening copies what no promise covers.
    (2..40).for_each(|byte| put(&store, pages[0], byte).unwrap());
    let killed = disk.kill();
    let segment = 64 << 10;
    // Room for the log to open, and less than undoing all of that takes.
    let mut opened = 0;
    for segments in 2..8 {
        let disk = killed.copy();
        disk.set_free(segments * segment);
        match options(&disk, 1).open(DIR) {
            Ok(store) => {
                assert_eq!(store.recovery().losers, 1);
                assert!(holds(&store, pages[0], 39) && pages[1..].iter().all(|&page| holds(&store, page, 1)));
                opened += 1;
            }
            Err(e) => assert!(e.is_no_space(), "{e}"),
        }
    }
    assert!(opened > 4, "{opened} times");
}

/// Redo without the room that it needs is an error, as often as it is tried, and nothing is lost.
#[test]
fn redo_without_room_says_so_and_succeeds_when_there_is_some() {
    let disk = SimDisk::new(6);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 40, 3).unwrap();
    drop(store);
    // The log has everything: the page file may be as it was when it was made.
    let disk = disk.crash(&Choice::None);
    assert!(disk.cut(format!("{DIR}/PAGES"), 4096));
    for free in [0, 70_000, 100_000] {
        disk.set_free(free);
        let before = disk.copy();
        match options(&before.kill(), 1).open(DIR) {
            Err(error) => assert!(error.is_no_space(), "{error}"),
            Ok(store) => assert!(pages.iter().all(|&page| holds(&store, page, 3))),
        }
    }
    disk.set_capacity(None);
    let store = options(&disk, 2).open(DIR).unwrap();
    assert!(pages.iter().all(|&page| holds(&store, page, 3)));
}

/// The disk becomes full at any point of a small piece of work, the process is killed at any other,
/// and the store is opened on the full disk, and again when there is room.
#[test]
fn a_full_disk_and_a_kill_at_every_point_end_in_a_store_that_commits() {
    let (mut refusals, mut runs) = (0, 0);
    for free in (0..).map(|pages| pages * 4096) {
        let mut was_full = false;
        for killed_at in (1..160).step_by(5).map(|at| at + free / 4096 % 5).chain([u64::MAX / 2]) {
            let work = FullDisk { free, killed_at };
            let (refused, _) = work.run(&SimDisk::new(free)).unwrap_or_else(|why| panic!("{work:?}: {why}"));
            was_full |= refused > 0;
            refusals += refused;
            runs += 1;
        }
        if !was_full {
            break;
        }
    }
    println!("{runs} runs, {refusals} refusals");
    assert!(refusals > 100, "{refusals}");
}

/// On a full disk checkpoints succeed, as often as they are taken, and so does closing.
#[test]
fn checkpoints_and_closing_succeed_on_a_full_disk() {
    let disk = SimDisk::new(8);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 12, 1).unwrap();
    disk.set_free(0);
    let refused = (0u64..).find_map(|i| put(&store, pages[i as usize % 12], i as u8 | 1).err()).unwrap();
    assert!(refused.is_no_space(), "{refused}");
    let done = store.checkpoint_all().unwrap();
    let last = store.stats().log.appended_lsn;
    for _ in 0..20 {
        // Nothing has changed since the checkpoint.
        assert_eq!(store.checkpoint().unwrap().begin, done.begin);
        assert_eq!(store.checkpoint_all().unwrap().begin, done.begin);
    }
    assert_eq!(store.stats().log.appended_lsn, last);
    store.close().unwrap();
}

/// Making a store without room for it is an error, and succeeds when there is room.
#[test]
fn a_store_is_made_or_there_was_no_room() {
    let mut made = 0;
    for pages in 0..60 {
        let disk = SimDisk::new(pages);
        disk.set_capacity(Some(pages * 4096));
        match options(&disk, 1).open(DIR) {
            Ok(_) => made += 1,
            Err(e) => assert!(e.is_no_space(), "{e}"),
        }
        let disk = disk.kill();
        disk.set_capacity(None);
        fill(&options(&disk, 1).open(DIR).unwrap(), 1, 1).unwrap();
    }
    assert!(made > 10 && made < 50, "{made}");
}
