//! Files that are lost, cut, damaged, or those of another store.

use std::path::Path;

use foreword_pages::{Error, PageId, Store};
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};

use super::{fill, holds, make, put, small};
use crate::common::{DIR, options};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
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
        // All zeros; an older copy; garbage.
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

/// A map is no damage if the log rebuilds it.
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
        // The map is the first page that the checkpoint writes.
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
    // Another file in its place, though it is a whole copy.
    std::fs::rename(dir.path().join("copy"), &path).unwrap();
    displaced(store.checkpoint_all());
    std::fs::write(&path, b"none at all").unwrap();
    displaced(store.checkpoint_all());
    assert_eq!(store.stats().log.start_lsn, start, "it was dropped");
    // The file is put back, and all is well.
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

/// A store is made only in a directory of its own. Nothing is made in another's.
#[test]
fn no_store_is_made_beside_the_files_of_others() {
    let refused = |dir: &Path, other: &str| {
        let before = names(dir);
        match small().open(dir) {
            Err(error @ Error::NotAStore { .. }) => {
                let text = error.to_string();
                assert!(text.contains(&format!("({other})")) && text.contains(&dir.display().to_string()), "{text}");
            }
            opened => panic!("{opened:?}"),
        }
        assert_eq!(names(dir), before);
    };
    let dir = tempfile::tempdir().unwrap();
    // Somebody's file; somebody's directory.
    std::fs::write(dir.path().join("notes"), "mine").unwrap();
    refused(dir.path(), "notes");
    std::fs::remove_file(dir.path().join("notes")).unwrap();
    std::fs::create_dir(dir.path().join("src")).unwrap();
    refused(dir.path(), "src");
    std::fs::remove_dir(dir.path().join("src")).unwrap();

    // A log's own directory, closed or open; also the log of a store.
    let log = foreword::Options::new().segment_bytes(64 << 10).reserve(false).background(false);
    let open = log.open(dir.path().join("mylog")).unwrap();
    for log_dir in ["mylog", "mylog"] {
        let names = names(&dir.path().join(log_dir));
        assert!(names.contains(&"LOG".into()), "{names:?}");
    }
    let opened = small().open(dir.path().join("mylog"));
    assert!(matches!(&opened, Err(Error::NotAStore { why, .. }) if why.contains("other files")), "{opened:?}");
    open.close().unwrap();
    let store = dir.path().join("store");
    make(&store, 3);
    let opened = small().open(store.join("log"));
    assert!(matches!(&opened, Err(Error::NotAStore { why, .. }) if why.contains("other files")), "{opened:?}");
    assert!(!names(&store.join("log")).contains(&"PAGES".into()) && !names(&dir.path().join("mylog")).contains(&"log".into()));

    // `log` is there, and is another's.
    let logs = tempfile::tempdir().unwrap();
    std::fs::create_dir(logs.path().join("log")).unwrap();
    std::fs::write(logs.path().join("log").join("daemon.log"), "started").unwrap();
    let opened = small().open(logs.path());
    assert!(matches!(&opened, Err(Error::Log(foreword::Error::NotALog { .. }))), "{opened:?}");
    assert_eq!(names(logs.path()), ["log"]);
}

/// What a creation leaves that was cut short is no other's, nor is what a file system makes. Once
/// there is a store, other files beside it are left alone.
#[test]
fn a_store_is_made_where_a_creation_was_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::write(dir.path().join("PAGES.tmp"), "begun").unwrap();
    foreword::Options::new().segment_bytes(256 << 10).open(dir.path().join("log")).unwrap().close().unwrap();
    let store = small().open(dir.path()).unwrap();
    let pages = fill(&store, 3, 1).unwrap();
    store.close().unwrap();
    std::fs::write(dir.path().join("notes"), "mine").unwrap();
    assert!(holds(&small().open(dir.path()).unwrap(), pages[0], 1));

    // A log without a record, beside other files, is not taken for a creation that was cut short.
    let other = tempfile::tempdir().unwrap();
    foreword::Options::new().segment_bytes(256 << 10).open(other.path().join("log")).unwrap().close().unwrap();
    std::fs::write(other.path().join("notes"), "mine").unwrap();
    let opened = small().open(other.path());
    assert!(matches!(&opened, Err(Error::NotAStore { why, .. }) if why.contains("(notes)")), "{opened:?}");
    assert_eq!(names(other.path()), ["log", "notes"]);
}

/// A copy of the directory is the store, if no process had the store open: whether it was closed, or
/// its process ended before that.
#[test]
fn a_copy_of_a_store_that_no_process_has_open_is_the_store() {
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to.join("log")).unwrap();
        for name in ["", "log"] {
            for entry in std::fs::read_dir(from.join(name)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    std::fs::copy(&path, to.join(name).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
    };
    for closes in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (original, backup) = (dir.path().join("store"), dir.path().join("backup"));
        let store = small().open(&original).unwrap();
        let pages = fill(&store, 30, 1).unwrap();
        store.checkpoint().unwrap();
        pages[..20].iter().for_each(|&page| put(&store, page, 2).unwrap());
        if closes {
            store.close().unwrap();
        } else {
            drop(store);
        }
        copy(&original, &backup);
        let store = small().open(&backup).unwrap();
        assert_eq!(store.recovery().pages > 0, !closes, "{}", store.recovery());
        assert!(pages.iter().enumerate().all(|(i, &page)| holds(&store, page, if i < 20 { 2 } else { 1 })));
    }
}
