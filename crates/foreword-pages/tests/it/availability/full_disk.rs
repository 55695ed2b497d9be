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
