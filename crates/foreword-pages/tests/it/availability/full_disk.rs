//! A full disk refuses what needs room, and poisons nothing.

use std::path::Path;
use std::time::Instant;

use foreword::disk::Access;
use foreword_pages::Error;
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

use super::{fill, holds, put};
use crate::common::{DIR, Hooked, options};

/// The room of a page is taken when the page is allocated. So the page can be written, whatever
/// fills the disk afterwards.
#[test]
fn pages_that_were_allocated_are_written_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 40, 7).unwrap();
    disk.set_free(0);
    store.checkpoint_all().unwrap();
    // There are more pages than the pool has room for: to read each, another is written.
    assert!(pages.iter().all(|&page| holds(&store, page, 7)));
    assert_eq!(store.stats().pages_dirty, 0);
    drop(store);
    let disk = disk.crash(&Choice::None);
    disk.set_capacity(None);
    let store = options(&disk, 1).open(DIR).unwrap();
    assert!(pages.iter().all(|&page| holds(&store, page, 7)));
}

/// An allocation without room is refused, and nothing else happens.
#[test]
fn an_allocation_without_room_is_refused_and_harms_nothing() {
    let disk = SimDisk::new(2);
    // The log has room enough: only the page file has none.
    let log = foreword::Options::new().segment_bytes(4 << 20).background(false).on_error(|_| ());
    let options = |disk: &SimDisk| options(disk, 1).log(log.clone());
    let store = options(&disk).open(DIR).unwrap();
    let pages = fill(&store, 10, 1).unwrap();
    store.checkpoint_all().unwrap();
    disk.set_free(0);
    let mut txn = store.begin();
    let mut more = Vec::new();
    let refused = loop {
        match txn.allocate() {
            Ok(page) => more.push(page),
            Err(refused) => break refused,
        }
        assert!(more.len() < 10_000);
    };
    assert!(matches!(&refused, Error::NoSpace { path, .. } if path.ends_with("PAGES")), "{refused}");
    assert!(refused.is_no_space());
    // There is room for five pages, though the file would grow by more.
    disk.set_free(5 * 4096);
    let five = std::iter::from_fn(|| txn.allocate().ok());
    let before = more.len();
    more.extend(five);
    assert_eq!(more.len() - before, 5);
    // The transaction goes on, and so does everything else.
    more.iter().for_each(|&page| txn.update(page, 0, b"taken").unwrap());
    txn.commit().unwrap();
    for (round, &page) in pages.iter().enumerate() {
        put(&store, page, round as u8).unwrap();
        assert!(holds(&store, page, round as u8));
    }
    store.checkpoint_all().unwrap();
    assert_eq!(store.stats().pages_used, (pages.len() + more.len()) as u64);
    disk.set_capacity(None);
    let mut txn = store.begin();
    let page = txn.allocate().unwrap();
    assert!(!more.contains(&page), "given out twice");
    txn.commit().unwrap();
}

/// Where a disk cannot reserve space (Btrfs, a thin volume), zeros are written.
#[test]
fn where_space_cannot_be_reserved_it_is_written() {
    let disk = SimDisk::new(3);
    let store = options(&disk, 1).disk(Hooked::new(&disk).handle()).open(DIR).unwrap();
    let pages = fill(&store, 40, 9).unwrap();
    disk.set_free(0);
    store.checkpoint_all().unwrap();
    assert!(pages.iter().all(|&page| holds(&store, page, 9)));
}

/// The room that was taken before a lack of room was found is given back.
#[test]
fn an_allocation_that_is_refused_takes_no_room() {
    let disk = SimDisk::new(12);
    let log = foreword::Options::new().segment_bytes(4 << 20).background(false).on_error(|_| ());
    let large = options(&disk, 1).page_bytes(64 << 10).pool_bytes(1 << 20).log(log);
    let store = large.disk(Hooked::new(&disk).handle()).open(DIR).unwrap();
    disk.set_free(15 * 4096);
    let mut txn = store.begin();
    while txn.allocate().is_ok() {}
    let other = disk.handle().open_dir(Path::new("/store")).unwrap().open("other", Access::Create).unwrap();
    other.write_all_at(&[1; 15 * 4096], 0).unwrap();
}

/// A page that cannot be written for lack of room stays in memory, and nothing else is harmed.
#[test]
fn a_write_that_finds_no_room_all_the_same_poisons_nothing() {
    let disk = SimDisk::new(4);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 30, 1).unwrap();
    store.checkpoint_all().unwrap();
    let (dirty, clean) = pages.split_at(12);
    dirty.iter().for_each(|&page| put(&store, page, 2).unwrap());
    disk.fault(Fault::new(OpKind::Write, Effect::NoSpace).on("PAGES").forever());
    let refused = store.checkpoint_all().unwrap_err();
    assert!(refused.is_no_space(), "{refused}");
    // Clean pages make room for those that are read, again and again.
    for round in 0..10 {
        assert!(clean.iter().all(|&page| holds(&store, page, 1)), "{round}");
    }
    put(&store, clean[0], 3).unwrap();
    disk.heal();
    store.checkpoint_all().unwrap();
    assert!(dirty.iter().all(|&page| holds(&store, page, 2)) && holds(&store, clean[0], 3));
    // No frame is lost: there are sixteen.
    let all: Vec<_> = clean[2..].iter().map(|&page| store.read(page).unwrap()).collect();
    assert_eq!(all.len(), 16);
    drop(all);
    store.close().unwrap();
}

/// In a poisoned store dirty pages stay where they are, and a call that needs their frames gets the
/// error.
#[test]
fn a_poisoned_store_loses_no_frames() {
    let disk = SimDisk::new(11);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 30, 1).unwrap();
    store.checkpoint_all().unwrap();
    let (dirty, clean) = pages.split_at(14);
    dirty.iter().for_each(|&page| put(&store, page, 2).unwrap());
    disk.fault(Fault::new(OpKind::Write, Effect::Eio).on("PAGES"));
    assert!(store.checkpoint_all().is_err());
    let started = Instant::now();
    for &page in clean.iter().cycle().take(100) {
        match store.read(page) {
            Ok(page) => assert_eq!(page[0], 1),
            Err(e) => assert!(matches!(e, Error::Poisoned(_)), "{e}"),
        }
    }
    assert!(started.elapsed().as_secs() < 5);
}

/// Whatever a checkpoint has to write, and wherever in its segment the log is refused a record: one
/// checkpoint frees log, and the change that was refused is made. With and without dirty pages that
/// hold the log back.
#[test]
fn a_checkpoint_frees_log_for_the_change_that_was_refused() {
    for pages in [1, 5, 12] {
        for spread in [1, 700, 3000] {
            let disk = SimDisk::new(20);
            let store = options(&disk, 1).open(DIR).unwrap();
            let pages = fill(&store, pages, 1).unwrap();
            disk.set_free(0);
            let change = |round: u64| {
                let mut txn = store.begin();
                let bytes = vec![round as u8; 1 + (round * spread) as usize % 3500];
                txn.update(pages[round as usize % pages.len()], 0, &bytes)?;
                txn.commit().map(drop)
            };
            let mut refusals = 0;
            for round in 0..3000 {
                let Err(refused) = change(round) else { continue };
                assert!(refused.is_no_space(), "{refused}");
                refusals += 1;
                let done = store.checkpoint().unwrap();
                assert_eq!(done.pages_dirty, 0);
                change(round).unwrap_or_else(|e| {
                    panic!("{} pages, spread {spread}, round {round}: {e}, {:?}", pages.len(), store.stats())
                });
            }
            assert!(refusals > 3, "{refusals}");
        }
    }
}

/// Pages that a checkpoint left dirty hold the log back, and when nothing is logged any more, only
/// the next checkpoint writes them. After that there is nothing to do, and nothing is written.
#[test]
fn a_checkpoint_writes_what_the_last_one_left_though_nothing_was_logged() {
    let disk = SimDisk::new(21);
    let store = options(&disk, 1).open(DIR).unwrap();
    fill(&store, 10, 1).unwrap();
    let first = store.checkpoint().unwrap();
    assert!(first.pages_dirty > 0 && first.log_start < first.begin, "{first:?}");
    let second = store.checkpoint().unwrap();
    assert_eq!((second.pages_dirty, second.log_start), (0, second.begin));
    let changes = disk.changes();
    let third = store.checkpoint().unwrap();
    assert_eq!((third.begin, third.pages_written, disk.changes()), (second.begin, 0, changes));
}

/// Where the log's room for checkpoints is used up, because a hold keeps the log, a checkpoint says
/// so; once the hold is released, a checkpoint frees log.
#[test]
fn a_hold_that_is_released_frees_log_on_a_full_disk() {
    let disk = SimDisk::new(22);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 5, 1).unwrap();
    let view = foreword::View::open_on(disk.handle(), Path::new(DIR).join("log")).unwrap();
    view.hold("backup", foreword::Lsn(1)).unwrap();
    disk.set_free(0);
    let mut round = 1;
    let full = loop {
        round += 1;
        assert!(round < 10_000);
        if put(&store, pages[round % 5], round as u8).is_err()
            && let Err(full) = store.checkpoint()
        {
            break full;
        }
    };
    assert!(full.is_no_space(), "{full}");
    assert!(store.stats().checkpoint_failure.is_some_and(|e| e.is_no_space()));
    view.release("backup").unwrap();
    let done = store.checkpoint().unwrap();
    assert_eq!(done.log_start, done.begin);
    put(&store, pages[0], 9).unwrap();
}

/// The background thread frees log as soon as a change is refused, without being asked and without
/// waiting for its interval.
#[test]
fn the_background_thread_frees_log_when_a_change_is_refused() {
    let disk = SimDisk::new(23);
    let options = options(&disk, 1).background(true).checkpoint_interval(None).checkpoint_bytes(u64::MAX);
    let store = options.open(DIR).unwrap();
    let pages = fill(&store, 8, 1).unwrap();
    disk.set_free(0);
    let mut refusals = 0;
    let mut refused_at: Option<Instant> = None;
    for round in 0..2000u64 {
        while let Err(refused) = put(&store, pages[round as usize % 8], round as u8) {
            assert!(refused.is_no_space(), "{refused}");
            let since = *refused_at.get_or_insert_with(Instant::now);
            assert!(since.elapsed().as_secs() < 60, "it is stuck: {:?}", store.stats());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        refusals += u32::from(refused_at.take().is_some());
    }
    assert!(refusals > 3, "{refusals}");
}

/// Transactions that could not be rolled back for lack of space hold the log back. A checkpoint makes
/// the space, and rolls them back.
#[test]
fn a_rollback_that_was_refused_is_made_by_a_checkpoint_on_a_full_disk() {
    let mut orphans = 0;
    for len in 1..40 {
        let disk = SimDisk::new(24);
        let store = options(&disk, 1).open(DIR).unwrap();
        let pages = fill(&store, 12, 1).unwrap();
        store.checkpoint_all().unwrap();
        let mut txn = store.begin();
        txn.update(pages[0], 0, b"this is taken back").unwrap();
        disk.set_free(0);
        for round in 0..1_000_000u64 {
            let mut filler = store.begin();
            let bytes = vec![round as u8; len];
            if filler.update(pages[1], 0, &bytes).and_then(|()| filler.commit()).is_err() {
                break;
            }
        }
        let aborted = txn.abort();
        assert_eq!(aborted.is_err(), store.stats().orphans > 0);
        orphans += store.stats().orphans;
        store.checkpoint().unwrap();
        assert_eq!(store.stats().orphans, 0, "{len}");
        assert!(holds(&store, pages[0], 1));
        put(&store, pages[1], 7).unwrap();
    }
    assert!(orphans > 10, "{orphans}");
}
