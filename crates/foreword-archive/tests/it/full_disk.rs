//! A disk that fills up where a log, a store or a standby is restored. Without root these tests are
//! passed over.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use foreword::Lsn;
use foreword_archive::{Copied, Error, RestoreOptions, Result, Standby};

use crate::command::said;
use crate::support::*;

/// A small file system in memory, as long as it lives: `None` without root.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf, options: &str) -> Option<Disk> {
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            println!("passed over: no file system can be mounted here, which takes root");
            return None;
        }
        Some(Disk(at))
    }

    /// Takes all the space that is left. Gives the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }

    fn grow(&self, options: &str) {
        assert!(Command::new("mount").args(["-o", options]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success() || std::thread::panicking());
    }
}

#[test]
fn a_restore_that_fills_the_disk_says_so_and_goes_on_when_there_is_room() {
    let place = Place::new();
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 1..3_000, 1_000);
    log.close().unwrap();
    said(&place, "push log bucket --create --chunk 256K", 0);
    let Some(disk) = Disk::new(place.path("disk"), "size=2m") else { return };
    // Not even the first segment; and then some of them.
    let restore = "restore bucket disk/restored --segment-size";
    for size in ["64M", "256K"] {
        for _ in 0..2 {
            let full = said(&place, &format!("{restore} {size}"), 1);
            for part in ["no space to restore into disk/restored: ", "--segment-size", "it goes on where it was"] {
                assert!(full.contains(part), "{part}: {full}");
            }
            assert!(!place.path("disk/restored").exists());
        }
    }
    // In another place it is no different for a standby.
    assert!(
        said(&place, "follow bucket disk/standby --once --segment-size 256K", 1)
            .contains("no space to restore into disk/standby")
    );
    let there = foreword::View::open(place.path("disk/restored.restoring")).unwrap().recoverable_lsn().unwrap();
    assert!(there > Lsn(100), "{there}");
    disk.grow("remount,size=32m");
    said(&place, &format!("{restore} 256K"), 0);
    assert!(records(&place.path("disk/restored")) == records(&place.log()));
    said(&place, "follow bucket disk/standby --once --segment-size 256K", 0);
}

fn in_small_segments() -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.segment_bytes = 256 << 10;
    options
}

fn is_full<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::NoSpace { .. }))
}

/// The second time there is room for the store, but not for a second copy of its pages.
#[test]
fn a_restore_of_pages_that_fills_the_disk_takes_no_space_twice() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..3_000, 1_000);
        push_log(&log, &store).await.unwrap();
        let (id, pages) = (log.id(), dense_record(7, 4 << 20));
        let mut archive = open(&store).await;
        let backup = archive.back_up(move |to| {
            to.write_all(&pages)?;
            Ok(Copied { log: id, log_start: Lsn(1), consistent: Lsn(2) })
        });
        backup.await.unwrap();
        let Some(disk) = Disk::new(place.path("disk"), "size=5500k") else { return };
        let to = disk.0.join("store");
        for _ in 0..2 {
            let full = open(&store).await.restore_backup(&to, &in_small_segments()).await;
            assert!(is_full(&full), "{full:?}");
        }
        disk.grow("remount,size=8500k");
        open(&store).await.restore_backup(&to, &in_small_segments()).await.unwrap();
        assert!(records(&to.join("log")) == records(&place.log()));
    });
}

/// What is full is the room for the small file that says how far the standby has come.
#[test]
fn a_standby_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    run(async {
        let (place, (_, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..30, 1_000);
        push_log(&log, &store).await.unwrap();
        let Some(disk) = Disk::new(place.path("disk"), "size=4m") else { return };
        let to = disk.0.join("standby");
        let standby = async || Standby::open(open(&store).await, &to, in_small_segments()).await;
        let mut first = standby().await.unwrap();
        let ballast = disk.fill();
        commit_each(&log, 30..33, 100);
        push_log(&log, &store).await.unwrap();
        let full = first.catch_up().await;
        assert!(is_full(&full), "{full:?}");
        assert!(is_full(&first.close().await));
        std::fs::remove_file(&ballast).unwrap();
        let second = standby().await.unwrap();
        let ballast = disk.fill();
        let full = second.promote().await;
        assert!(is_full(&full), "{full:?}");
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(standby().await.unwrap().promote().await.unwrap(), Lsn(32));
        assert!(records(&to) == records(&place.log()));
    });
}
