//! The store is always there: a full disk, a file that is lost or in another's place, and threads that wait harm nothing, and are told.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::full::FullDisk;
use common::{DIR, Hooked, options};
use foreword::disk::Access;
use foreword_pages::{Error, Options, PageId, Store};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

fn small() -> Options {
    let log = foreword::Options::new().segment_bytes(256 << 10);
    Options::new().page_bytes(4096).pool_bytes(64 * 4096).background(false).log(log)
}

/// A transaction that allocates pages, and writes a byte all over each.
fn fill(store: &Store, pages: usize, byte: u8) -> foreword_pages::Result<Vec<PageId>> {
    let mut txn = store.begin();
    let pages: Vec<_> = (0..pages).map(|_| txn.allocate()).collect::<Result<_, _>>()?;
    for &page in &pages {
        txn.update(page, 0, &vec![byte; store.page_len()])?;
    }
    txn.commit()?;
    Ok(pages)
}

fn put(store: &Store, page: PageId, byte: u8) -> foreword_pages::Result<()> {
    let mut txn = store.begin();
    txn.update(page, 0, &vec![byte; store.page_len()])?;
    txn.commit()?;
    Ok(())
}

fn holds(store: &Store, page: PageId, byte: u8) -> bool {
    store.read(page).unwrap().iter().all(|&b| b == byte)
}

/// Does something in a thread of its own: what it said, or a panic if it says nothing for long.
fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || say.send(work()));
    said.recv_timeout(patience).expect("it hangs, or panicked")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

// A full disk.

/// The room of a page is taken when the page is allocated: whatever fills the disk afterwards, the page can be written.
#[test]
fn pages_that_were_allocated_are_written_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 40, 7).unwrap();
    disk.set_free(0);
    store.checkpoint_all().unwrap();
    // The pool has less room than that: each is read, and another written for it.
    assert!(pages.iter().all(|&page| holds(&store, page, 7)));
    assert_eq!(store.stats().pages_dirty, 0);
    drop(store);
    let disk = disk.crash(&Choice::None);
    disk.set_capacity(None);
    let store = options(&disk, 1).open(DIR).unwrap();
    assert!(pages.iter().all(|&page| holds(&store, page, 7)));
}

/// And where there is none, that is all that happens.
#[test]
fn an_allocation_without_room_is_refused_and_harms_nothing() {
    let disk = SimDisk::new(2);
    // A log that has room enough: it is the page file that has none.
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
    // As many as there is room for, though the file would grow by more.
    disk.set_free(5 * 4096);
    let five = std::iter::from_fn(|| txn.allocate().ok());
    let before = more.len();
    more.extend(five);
    assert_eq!(more.len() - before, 5);
    // The transaction goes on, and so does all else.
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

/// A disk that cannot reserve space (Btrfs, a thin volume): zeros are written instead.
#[test]
fn where_space_cannot_be_reserved_it_is_written() {
    let disk = SimDisk::new(3);
    let store = options(&disk, 1).disk(Hooked::new(&disk).handle()).open(DIR).unwrap();
    let pages = fill(&store, 40, 9).unwrap();
    disk.set_free(0);
    store.checkpoint_all().unwrap();
    assert!(pages.iter().all(|&page| holds(&store, page, 9)));
}

/// And what was taken before it turned out that there is not enough is given back.
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

/// What cannot be written for want of space stays in memory; nothing else is harmed.
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
    // What is clean makes room for what is read, again and again.
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

/// Pages that cannot be written any more stay where they are, and whoever needs their frames is told why.
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

/// The log is full of what no page needs, and transactions are to be undone: opening makes the room for that.
#[test]
fn opening_undoes_transactions_on_a_full_disk() {
    let disk = SimDisk::new(5);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 12, 1).unwrap();
    store.checkpoint_all().unwrap();
    // Committed work, and then a transaction that is alive when the process is killed, with more to undo than there is room for.
    (2..40).for_each(|byte| put(&store, pages[0], byte).unwrap());
    let mut txn = store.begin();
    for round in 0..8u8 {
        pages[1..].iter().for_each(|&page| txn.update(page, 0, &vec![round | 0x80; store.page_len()]).unwrap());
    }
    std::mem::forget(txn);
    // (What no promise covers yet, the log writes again as it is opened.)
    (2..40).for_each(|byte| put(&store, pages[0], byte).unwrap());
    let killed = disk.kill();
    let segment = 64 << 10;
    // For the log to open, and for less than it takes to undo all of that.
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

/// Redo that needs room, without any: an error that says so, as often as it is tried, and nothing is lost by it.
#[test]
fn redo_without_room_says_so_and_succeeds_when_there_is_some() {
    let disk = SimDisk::new(6);
    let store = options(&disk, 1).open(DIR).unwrap();
    let pages = fill(&store, 40, 3).unwrap();
    drop(store);
    // All of it is in the log: the page file may be as it was when it was made.
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

/// The disk becomes full at any point of a small piece of work, the process is killed at any other, and the store is opened on the
/// full disk, and again when there is room.
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

/// A checkpoint is all that a full disk leaves to be done: it succeeds, as often as it is taken, and so does closing.
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
        // Nothing has changed since.
        assert_eq!(store.checkpoint().unwrap().begin, done.begin);
        assert_eq!(store.checkpoint_all().unwrap().begin, done.begin);
    }
    assert_eq!(store.stats().log.appended_lsn, last);
    store.close().unwrap();
}

/// A store that is made on a disk without room for it says so, and can be made when there is some.
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

// Files that are lost, or others.

fn make(dir: &Path, pages: usize) -> Vec<PageId> {
    let store = small().open(dir).unwrap();
    let pages = fill(&store, pages, 5).unwrap();
    store.close().unwrap();
    pages
}

fn rotten(opened: foreword_pages::Result<Store>) -> PageId {
    match opened {
        Err(Error::Rotten { page, .. }) => page,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_file_that_was_cut_is_damage() {
    for len in [4096, 8192, 20 * 4096] {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), 50);
        let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("PAGES")).unwrap();
        file.set_len(len).unwrap();
        assert_eq!(rotten(small().open(dir.path())), PageId(len / 4096), "cut to {len}");
    }
}

#[test]
fn a_map_that_is_blank_is_damage_though_the_file_has_its_length() {
    for images in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let pages = make(dir.path(), 50);
        let path = dir.path().join("PAGES");
        let bytes = std::fs::read(&path).unwrap();
        let older = {
            let store = small().full_page_images(images).open(dir.path()).unwrap();
            let mut txn = store.begin();
            txn.free(pages[3]).unwrap();
            txn.commit().unwrap();
            store.close().unwrap();
            bytes[4096..8192].to_vec()
        };
        let newer = std::fs::read(&path).unwrap();
        // All zeros; as it was before; garbage.
        for map in [vec![0; 4096], older, vec![0xa5; 4096]] {
            let mut bytes = newer.clone();
            bytes[4096..8192].copy_from_slice(&map);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(rotten(small().full_page_images(images).open(dir.path())), PageId(1));
        }
        std::fs::write(&path, &newer).unwrap();
        assert_eq!(small().open(dir.path()).unwrap().stats().pages_used, 49);
    }
}

/// What the log still holds is no damage.
#[test]
fn a_map_that_the_log_rebuilds_may_be_anything() {
    let dir = tempfile::tempdir().unwrap();
    let pages = make(dir.path(), 50);
    let store = small().open(dir.path()).unwrap();
    let mut txn = store.begin();
    txn.free(pages[3]).unwrap();
    txn.commit().unwrap();
    drop(store);
    let path = dir.path().join("PAGES");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..8192].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let store = small().open(dir.path()).unwrap();
    assert_eq!(store.stats().pages_used, 49);
}

/// A disk that loses the write of a map is found out when the map is read again.
#[test]
fn a_map_whose_write_was_lost_is_damage() {
    for images in [true, false] {
        let disk = SimDisk::new(9);
        let options = |disk: &SimDisk| options(disk, 1).full_page_images(images);
        let store = options(&disk).open(DIR).unwrap();
        let pages = fill(&store, 40, 1).unwrap();
        store.checkpoint_all().unwrap();
        disk.fault(Fault::new(OpKind::Write, Effect::Lost).on("PAGES"));
        let mut txn = store.begin();
        txn.free(pages[0]).unwrap();
        txn.commit().unwrap();
        // (The map is the first page that is written.)
        store.checkpoint_all().unwrap();
        disk.drop_caches();
        drop(store);
        assert_eq!(rotten(options(&disk.crash(&Choice::All)).open(DIR)), PageId(1), "images: {images}");
    }
}

#[test]
fn the_log_is_not_dropped_when_the_page_file_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("PAGES"), dir.path().join("aside"));
    let store = small().open(dir.path()).unwrap();
    let pages = fill(&store, 50, 1).unwrap();
    store.checkpoint_all().unwrap();
    std::fs::copy(&path, dir.path().join("copy")).unwrap();
    std::fs::rename(&path, &aside).unwrap();
    let start = store.stats().log.start_lsn;
    let displaced = |done: foreword_pages::Result<_>| assert!(matches!(done, Err(Error::Displaced { .. })), "{done:?}");
    for round in 0..50 {
        put(&store, pages[round % 50], 2).unwrap();
    }
    displaced(store.checkpoint_all());
    displaced(store.checkpoint());
    // Another in its place, though it is as whole as can be.
    std::fs::rename(dir.path().join("copy"), &path).unwrap();
    displaced(store.checkpoint_all());
    std::fs::write(&path, b"none at all").unwrap();
    displaced(store.checkpoint_all());
    assert_eq!(store.stats().log.start_lsn, start, "it was dropped");
    // Put back, all is well.
    std::fs::rename(&aside, &path).unwrap();
    let done = store.checkpoint_all().unwrap();
    assert!(done.log_start > start);
    put(&store, pages[7], 3).unwrap();
    std::fs::rename(&path, &aside).unwrap();
    displaced(store.close().map(|()| done));
    std::fs::rename(&aside, &path).unwrap();
    let store = small().open(dir.path()).unwrap();
    assert!(holds(&store, pages[7], 3) && holds(&store, pages[8], 2));
}

#[test]
fn a_page_file_that_is_cut_under_an_open_store_is_found_out_before_the_log_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = small().open(dir.path()).unwrap();
    let pages = fill(&store, 50, 1).unwrap();
    store.checkpoint_all().unwrap();
    put(&store, pages[0], 2).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("PAGES")).unwrap();
    file.set_len(8 * 4096).unwrap();
    let start = store.stats().log.start_lsn;
    assert!(matches!(store.checkpoint_all(), Err(Error::Rotten { page: PageId(8), .. })));
    assert_eq!(store.stats().log.start_lsn, start);
    assert!(matches!(put(&store, pages[0], 3), Err(Error::Poisoned(_))));
}

#[test]
fn a_store_whose_log_is_gone_is_refused_and_nothing_is_made_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 5);
    let log = dir.path().join("log");
    std::fs::rename(&log, dir.path().join("kept")).unwrap();
    let refused = || match small().open(dir.path()) {
        Err(Error::NotAStore { path, .. }) => assert_eq!(path, log),
        other => panic!("{other:?}"),
    };
    refused();
    assert_eq!(names(dir.path()), ["PAGES", "kept"]);
    std::fs::create_dir(&log).unwrap();
    refused();
    assert_eq!(names(&log), [""; 0]);
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(dir.path().join("kept"), &log).unwrap();
    assert_eq!(small().open(dir.path()).unwrap().stats().pages_used, 5);
}

// Threads.

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    within(Duration::from_secs(8), || {
        let dir = tempfile::tempdir().unwrap();
        let store = small().open(dir.path()).unwrap();
        let pages = fill(&store, 3, 1).unwrap();
        let (page, other) = (pages[0], pages[1]);
        let deadlock = |done: foreword_pages::Result<()>| {
            assert!(matches!(done, Err(Error::Deadlock { page: Some(of), .. }) if of == page), "{done:?}")
        };
        let mut txn = store.begin();
        txn.update(page, 0, b"first").unwrap();
        let held = store.read(page).unwrap();
        deadlock(txn.update(page, 0, b"again"));
        deadlock(store.begin().update(page, 0, b"by another transaction"));
        // Others go on, in this thread, too.
        txn.update(other, 0, b"other").unwrap();
        std::thread::scope(|scope| {
            // A second guard of the same page is given, unless a writer stands in between.
            drop(store.read(page).unwrap());
            let writer = scope.spawn(|| put(&store, page, 9));
            wait_for_a_writer(&store, page);
            deadlock(store.read(page).map(drop));
            drop(held);
            writer.join().unwrap().unwrap();
        });
        // And it goes on.
        txn.update(page, 0, b"again").unwrap();
        txn.commit().unwrap();
        assert_eq!(&store.read(page).unwrap()[..5], b"again");
    });
}

#[test]
fn what_cannot_be_undone_for_a_guard_is_undone_at_the_next_checkpoint() {
    within(Duration::from_secs(8), || {
        let dir = tempfile::tempdir().unwrap();
        let store = small().open(dir.path()).unwrap();
        let page = fill(&store, 1, 1).unwrap()[0];
        let mut txn = store.begin();
        txn.update(page, 0, b"changed").unwrap();
        let held = store.read(page).unwrap();
        assert!(matches!(txn.abort(), Err(Error::Deadlock { .. })));
        assert_eq!(store.stats().orphans, 1);
        // A checkpoint by the thread that holds it does not wait for it, either.
        store.checkpoint_all().unwrap();
        drop(held);
        store.checkpoint().unwrap();
        assert_eq!(store.stats().orphans, 0);
        assert!(holds(&store, page, 1));
    });
}

/// Two threads that hold a page each, and want the other's. And a thread that holds a page and takes a checkpoint, while another's
/// checkpoint waits for a writer that waits for the page.
#[test]
fn threads_that_wait_for_each_other_are_told() {
    within(Duration::from_secs(60), || {
        let dir = tempfile::tempdir().unwrap();
        let store = small().open(dir.path()).unwrap();
        let pages = fill(&store, 3, 1).unwrap();
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            let (store, barrier) = (&store, &barrier);
            let crosswise = [(pages[0], pages[1]), (pages[1], pages[0])].map(|(mine, others)| {
                scope.spawn(move || {
                    let _held = store.read(mine).unwrap();
                    barrier.wait();
                    put(store, others, 2)
                })
            });
            let held = store.read(pages[2]).unwrap();
            let writer = scope.spawn(|| put(store, pages[2], 2));
            wait_for_a_writer(store, pages[2]);
            let checkpoint = scope.spawn(|| store.checkpoint_all());
            std::thread::sleep(Duration::from_millis(100));
            let told = store.checkpoint_all();
            assert!(matches!(told, Err(Error::Deadlock { page: None, .. })), "{told:?}");
            drop(held);
            writer.join().unwrap().unwrap();
            checkpoint.join().unwrap().unwrap();
            let told = crosswise.map(|thread| thread.join().unwrap());
            assert!(told.iter().any(|told| matches!(told, Err(Error::Deadlock { .. }))), "{told:?}");
        });
        pages.iter().for_each(|&page| put(&store, page, 3).unwrap());
    });
}

/// Until a writer waits for a page that this thread holds.
fn wait_for_a_writer(store: &Store, page: PageId) {
    let started = Instant::now();
    while store.read(page).is_ok() {
        assert!(started.elapsed().as_secs() < 5, "none comes");
    }
}

/// Writers go on dirtying pages: a checkpoint writes what was dirty when it began.
#[test]
fn a_checkpoint_does_not_chase_writers() {
    let disk = SimDisk::new(10);
    let hooked = Hooked::new(&disk);
    let log = foreword::Options::new().segment_bytes(4 << 20).background(false).on_error(|_| ());
    let store = options(&disk, 1).pool_bytes(64 * 4096).disk(hooked.handle()).log(log).open(DIR).unwrap();
    let pages = fill(&store, 20, 1).unwrap();
    let dirty = store.stats().pages_dirty;
    let (ask, asked) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel();
    let (written, answered) = (Arc::new(AtomicU64::new(0)), Mutex::new(answered));
    std::thread::scope(|scope| {
        let (store, pages) = (&store, &pages);
        scope.spawn(move || {
            for round in 0u8.. {
                if asked.recv().is_err() {
                    return;
                }
                let mut txn = store.begin();
                pages.iter().for_each(|&page| txn.update(page, 0, &[round; 10]).unwrap());
                txn.commit_with(foreword::Durability::Buffered).unwrap();
                answer.send(()).unwrap();
            }
        });
        // Before each write of a page, all pages change again.
        let count = written.clone();
        hooked.before_each(move |op, path| {
            if op == OpKind::Write && path.ends_with("PAGES") && count.fetch_add(1, Ordering::Relaxed) < 1000 {
                ask.send(()).unwrap();
                answered.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
            }
        });
        let done = store.checkpoint_all().unwrap();
        hooked.clear();
        assert!(done.pages_written <= dirty, "{} pages instead of {dirty}", done.pages_written);
    });
    assert!(written.load(Ordering::Relaxed) >= dirty);
}

// Panics, and options that are too large.

/// A disk that panics, once, in any operation on the page file. (What the log makes of that is the log's to say.)
#[test]
fn a_disk_that_panics_harms_nobody_or_poisons_the_store() {
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

/// Works on a disk that panics at an operation. Whether the store was poisoned by it; `None`: it did not come to that.
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
    // Nothing hangs, no frame is lost, and what is seen is what was committed.
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

#[test]
fn options_that_are_as_large_as_can_be_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let options = small().background(true).checkpoint_interval(Some(Duration::MAX)).checkpoint_bytes(u64::MAX);
        let store = options.recovery_bytes(usize::MAX).open(dir.path()).unwrap();
        (0..50).for_each(|_| drop(fill(&store, 1, 1).unwrap()));
        store.begin().allocate().unwrap();
        drop(store);
    }
    assert!(matches!(small().checkpoint_interval(Some(Duration::ZERO)).open(dir.path()), Err(Error::Invalid { .. })));
    assert!(matches!(small().pool_bytes(usize::MAX).open(dir.path()), Err(Error::Invalid { .. })));
}

/// A background checkpoint that fails is seen.
#[test]
fn a_checkpoint_that_failed_is_in_the_stats() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("PAGES"), dir.path().join("aside"));
    let interval = Some(Duration::from_millis(10));
    let store = small().background(true).checkpoint_interval(interval).open(dir.path()).unwrap();
    let until = |is: &dyn Fn(&Option<Error>) -> bool| {
        let started = Instant::now();
        while !is(&store.stats().checkpoint_failure) {
            assert!(started.elapsed().as_secs() < 20, "{:?}", store.stats().checkpoint_failure);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    std::fs::rename(&path, &aside).unwrap();
    fill(&store, 1, 1).unwrap();
    until(&|failure| matches!(failure, Some(Error::Displaced { .. })));
    // It is tried again, though nothing changes.
    std::fs::rename(&aside, &path).unwrap();
    until(&Option::is_none);
}

#[test]
fn the_command_does_not_panic_where_nobody_can_hear_it() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 5);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str], out: Stdio, err: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foreword-pages"));
        command.args(args).stdout(out).stderr(err).status().unwrap().code()
    };
    let path = dir.path().to_str().unwrap();
    assert_eq!(run(&["recover", "/nowhere"], Stdio::null(), full().into()), Some(1));
    assert_eq!(run(&["what"], Stdio::null(), full().into()), Some(2));
    // What was asked for is the output.
    assert_eq!(run(&["recover", path], full().into(), full().into()), Some(1));
    assert_eq!(run(&["--help"], full().into(), full().into()), Some(1));
}
