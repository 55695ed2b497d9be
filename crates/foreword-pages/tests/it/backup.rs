//! Backups: copies of a store that works, restored to any LSN behind them.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use foreword::Lsn;
use foreword::disk::Access;
use foreword_pages::{Error, Options, Store};
use foreword_sim::SimDisk;

use crate::common::copies::{Copies, backed_up};
use crate::common::{DIR, crashes_wanted, options};

/// Transactions run at each page that is copied, checkpoints too, with so small a pool that pages are
/// written all the time.
#[test]
fn a_store_that_works_is_backed_up_and_restored_to_random_lsns() {
    let (mut restores, wanted) = (0, crashes_wanted(100));
    for seed in 0.. {
        let more = backed_up(seed, seed % 4 != 0, 6);
        restores += more.unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        if restores >= wanted {
            break;
        }
    }
}

/// As it is used: threads that write meanwhile, and a background thread that takes checkpoints.
#[test]
fn threads_write_while_a_backup_is_made() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().join("store");
    let store = Options::new().pool_bytes(1 << 20).checkpoint_bytes(1 << 20).open(&dir).unwrap();
    foreword::View::open(dir.join("log")).unwrap().hold("test", Lsn::FIRST).unwrap();
    const THREADS: usize = 3;
    let pages: Vec<Vec<_>> = (0..THREADS)
        .map(|_| {
            let mut txn = store.begin();
            let pages = (0..100).map(|_| txn.allocate().unwrap()).collect();
            txn.commit().unwrap();
            pages
        })
        .collect();
    // Each thread writes the number of the round to all of its pages, in one transaction.
    let stop = AtomicBool::new(false);
    let mut copy = Vec::new();
    let (backup, rounds) = std::thread::scope(|scope| {
        let writers: Vec<_> = pages
            .iter()
            .map(|pages| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    let mut rounds = Vec::new();
                    while !stop.load(Ordering::Relaxed) || rounds.len() < 3 {
                        let mut txn = store.begin();
                        let round = rounds.len() as u64 + 1;
                        pages.iter().for_each(|&page| txn.update(page, 0, &round.to_le_bytes()).unwrap());
                        rounds.push(txn.commit().unwrap());
                    }
                    rounds
                })
            })
            .collect();
        let backup = store.backup(&mut copy).unwrap();
        let behind = backup.consistent.0 + 1_000;
        while store.stats().log.durable_lsn.0 < behind {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        (backup, writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>())
    });
    store.close().unwrap();
    let view = foreword::View::open(dir.join("log")).unwrap();
    for to in [backup.consistent, Lsn(backup.consistent.0 + 500), Lsn(backup.consistent.0 + 1_000)] {
        let restored = tmp.path().join(format!("restored{to}"));
        let log = foreword::Options::new().first_lsn(backup.log_start).open(restored.join("log")).unwrap();
        for record in view.iter(backup.log_start).map(Result::unwrap).take_while(|record| record.lsn <= to) {
            log.append_copies(record.lsn, [(record.time, &record.data)]).unwrap();
        }
        log.close().unwrap();
        fs::write(restored.join("PAGES.backup"), &copy).unwrap();
        let store = Store::open(&restored).unwrap();
        for (pages, rounds) in pages.iter().zip(&rounds) {
            let round = rounds.iter().take_while(|lsn| **lsn <= to).count() as u64;
            for &page in pages {
                assert_eq!(store.read(page).unwrap()[..8], round.to_le_bytes(), "page {page} at {to}");
            }
        }
        assert!(!restored.join("PAGES.backup").exists());
        store.close().unwrap();
    }
}

fn refused(copies: &Copies, dir: &std::path::Path) -> String {
    match copies.options.open(dir) {
        Err(Error::NotAStore { why, .. }) => why,
        opened => panic!("{opened:?}"),
    }
}

#[test]
fn a_copy_that_is_not_complete_or_not_of_this_log_is_refused_and_left_as_it_was() {
    let mut copies = Copies::new(1, true);
    let (backup, copy) = copies.back_up().unwrap();
    let mut others = Copies::new(2, true);
    let (other_backup, other) = others.back_up().unwrap();
    others.stop();
    for _ in 0..30 {
        copies.step().unwrap();
    }
    let last = copies.stop();
    // Cut short anywhere, and not only between pages.
    for len in (0..copy.len()).step_by(1000) {
        let dir = copies.restored(&copy[..len], backup.log_start, last);
        refused(&copies, &dir);
        assert!(!dir.join("PAGES").exists());
        // What is complete takes its place.
        fs::write(dir.join("PAGES.backup"), &copy).unwrap();
        if len % 7 == 0 {
            copies.check(&dir, last).unwrap();
        }
    }
    for (first, to) in [(backup.log_start.next(), last), (backup.log_start, backup.consistent.prev())] {
        let why = refused(&copies, &copies.restored(&copy, first, to));
        assert!(why.contains("it needs the log from"), "{why}");
    }
    let start = other_backup.log_start.min(backup.log_start);
    let why = refused(&copies, &copies.restored(&other, start, last.max(other_backup.consistent)));
    assert!(why.contains("another store") || why.contains("not the checkpoint"), "{why}");
    // Beside a page file it means nothing.
    let dir = copies.restored(&copy, backup.log_start, last);
    copies.check(&dir, last).unwrap();
    fs::write(dir.join("PAGES.backup"), &copy[..5000]).unwrap();
    copies.check(&dir, last).unwrap();
}

/// An old copy restores to no point behind a switch; one that is made after it does.
#[test]
fn images_that_were_switched_on_or_off_need_a_new_copy() {
    for images in [true, false] {
        let mut copies = Copies::new(3, images);
        let (backup, copy) = copies.back_up().unwrap();
        let last = copies.stop();
        copies.options = copies.options.clone().full_page_images(!images);
        copies.store = Some(copies.options.open(copies.tmp.path().join("store")).unwrap());
        (0..20).for_each(|_| copies.step().unwrap());
        let (later, later_copy) = copies.back_up().unwrap();
        let end = copies.stop();
        let why = refused(&copies, &copies.restored(&copy, backup.log_start, end));
        assert!(why.contains("switched"), "{why}");
        copies.check(&copies.restored(&copy, backup.log_start, last), last).unwrap();
        copies.check(&copies.restored(&later_copy, later.log_start, end), end).unwrap();
    }
}

#[test]
fn a_page_that_is_damaged_is_not_copied() {
    let mut copies = Copies::new(4, true);
    let store = copies.store.clone().unwrap();
    store.checkpoint_all().unwrap();
    let path = copies.tmp.path().join("store/PAGES");
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * 4096 + 1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let failed = store.backup(&mut Vec::new());
    assert!(matches!(failed, Err(Error::Rotten { page, .. }) if page.0 == 3), "{failed:?}");
    copies.stop();
}

/// The power fails at each change that making the copy the page file takes, and recovery.
#[test]
fn a_crash_while_a_copy_becomes_the_page_file_is_continued() {
    let mut copies = Copies::new(5, true);
    let (backup, copy) = copies.back_up().unwrap();
    (0..20).for_each(|_| copies.step().unwrap());
    let last = copies.stop();
    let from = copies.restored(&copy, backup.log_start, last);
    let log = foreword::View::open(from.join("log")).unwrap();
    let disk = SimDisk::new(5);
    let restored = foreword::Options::new().segment_bytes(64 << 10).disk(disk.handle()).first_lsn(backup.log_start);
    let restored = restored.open(format!("{DIR}/log")).unwrap();
    for record in log.iter(Lsn::ZERO).map(Result::unwrap) {
        restored.append_copies(record.lsn, [(record.time, &record.data)]).unwrap();
    }
    restored.close().unwrap();
    let handle = foreword::disk::Disk::open_dir(&disk, DIR.as_ref()).unwrap();
    let file = handle.open("PAGES.backup", Access::Create).unwrap();
    file.write_all_at(&copy, 0).unwrap();
    file.sync().unwrap();
    handle.sync().unwrap();
    drop((file, handle));
    let expected = copies.states.last_key_value().unwrap().1;
    for at in 1.. {
        let mut disk = disk.copy();
        disk.power_off_at(disk.changes() + at);
        let opened = options(&disk, 2).open(DIR);
        drop(opened);
        let is_off = disk.is_off();
        if is_off {
            disk = disk.crash(&foreword_sim::Choice::Seed(at));
        }
        disk.power_off_at(u64::MAX);
        let store = options(&disk, 2).open(DIR).unwrap_or_else(|e| panic!("cut at {at}: {e}"));
        for (&page, bytes) in expected {
            assert_eq!(store.read(page).unwrap()[..], bytes[..], "cut at {at}: page {page}");
        }
        if !is_off {
            assert!(at > 10, "{at}");
            break;
        }
    }
}
