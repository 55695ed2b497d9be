//! Exercise 8: `guide/exercises/e8_harness.rs`. Six programs, of which four lie.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, IoSlice};
use std::path::Path;

use foreword::disk::Access;
use foreword::{Log, Lsn, Options, SyncPolicy};
use foreword_guide::e8_harness::{Program, survives};
use foreword_sim::SimDisk;

fn open(disk: &SimDisk) -> foreword::Result<Log> {
    let options = Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
    options.on_error(|_| ()).disk(disk.handle()).open("/log")
}

fn records(disk: &SimDisk) -> Result<u64, String> {
    Ok(open(disk).map_err(|e| e.to_string())?.last_lsn().0)
}

/// Commits three records.
struct Commits;

impl Program for Commits {
    type Told = u64;

    fn run(&self, disk: &SimDisk) -> u64 {
        let Ok(log) = open(disk) else { return 0 };
        (0..3).map_while(|_| log.commit(b"a record").ok()).last().map_or(0, |lsn| lsn.0)
    }

    fn check(&self, disk: &SimDisk, told: &u64) -> Result<(), String> {
        let found = records(disk)?;
        // One more than it was told of: its commit was under way.
        if (*told..=told + 1).contains(&found) { Ok(()) } else { Err(format!("{found} records of {told}")) }
    }
}

/// Two records that belong together.
struct Pairs {
    batch: bool,
}

impl Program for Pairs {
    type Told = ();

    fn run(&self, disk: &SimDisk) {
        let Ok(log) = open(disk) else { return };
        for _ in 0..2 {
            let done = if self.batch {
                log.commit_batch(&["debit", "credit"]).is_ok()
            } else {
                log.commit(b"debit").is_ok() && log.commit(b"credit").is_ok()
            };
            if !done {
                return;
            }
        }
    }

    fn check(&self, disk: &SimDisk, _: &()) -> Result<(), String> {
        if records(disk)? % 2 == 0 { Ok(()) } else { Err("a debit without its credit".into()) }
    }
}

/// Writes a file and says so, without a sync.
struct Hasty;

impl Program for Hasty {
    type Told = bool;

    fn run(&self, disk: &SimDisk) -> bool {
        let work = || -> io::Result<()> {
            let root = disk.handle().open_dir(Path::new("/"))?;
            let file = root.open("file", Access::Create)?;
            file.set_len(4)?;
            file.sync()?;
            root.sync()?;
            file.write_at(&[IoSlice::new(b"done")], 0)?;
            Ok(())
        };
        work().is_ok()
    }

    fn check(&self, disk: &SimDisk, told: &bool) -> Result<(), String> {
        if !told || disk.peek("/file", 0, 4).as_deref() == Some(b"done") { Ok(()) } else { Err("it is not done".into()) }
    }
}

/// Syncs the file, but not its name.
struct Nameless;

impl Program for Nameless {
    type Told = bool;

    fn run(&self, disk: &SimDisk) -> bool {
        let work = || -> io::Result<()> {
            let file = disk.handle().open_dir(Path::new("/"))?.open("file", Access::Create)?;
            file.write_at(&[IoSlice::new(b"done")], 0)?;
            file.sync()
        };
        work().is_ok()
    }

    fn check(&self, disk: &SimDisk, told: &bool) -> Result<(), String> {
        Hasty.check(disk, told)
    }
}

/// Adds what is in the log to a number in a file, and then drops the log: if it is cut short
/// between, it adds twice.
struct Twice;

impl Twice {
    fn recover(disk: &SimDisk) -> Result<u64, Box<dyn std::error::Error>> {
        let log = open(disk)?;
        let file = disk.handle().open_dir(Path::new("/"))?.open("number", Access::Write)?;
        let mut bytes = [0; 8];
        file.read_at(&mut bytes, 0)?;
        let added: u64 =
            log.iter(log.start_lsn()).map(|record| record.map(|r| u64::from(r.data[0]))).sum::<foreword::Result<_>>()?;
        let number = u64::from_le_bytes(bytes) + added;
        file.write_at(&[IoSlice::new(&number.to_le_bytes())], 0)?;
        file.sync()?;
        log.truncate_front(log.last_lsn().next())?;
        Ok(number)
    }
}

impl Program for Twice {
    type Told = bool;

    fn run(&self, disk: &SimDisk) -> bool {
        let work = || -> Result<Lsn, Box<dyn std::error::Error>> {
            let root = disk.handle().open_dir(Path::new("/"))?;
            let file = root.open("number", Access::Create)?;
            file.set_len(8)?;
            file.sync()?;
            root.sync()?;
            Ok(open(disk)?.commit(&[5])?)
        };
        work().is_ok()
    }

    fn check(&self, disk: &SimDisk, told: &bool) -> Result<(), String> {
        if disk.peek("/number", 0, 8).is_none() && !told {
            return Ok(());
        }
        match Twice::recover(disk).map_err(|e| e.to_string())? {
            5 => Ok(()),
            0 if !told => Ok(()),
            other => Err(format!("{other}")),
        }
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 8: a crash harness")]
fn honest_programs_survive_and_many_states_are_looked_at() {
    assert!(survives(&Commits, 4).unwrap() > 1000);
    assert!(survives(&Pairs { batch: true }, 4).unwrap() > 1000);
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 8: a crash harness")]
fn half_a_transaction_is_found() {
    assert_eq!(survives(&Pairs { batch: false }, 4).unwrap_err().why, "a debit without its credit");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 8: a crash harness")]
fn a_promise_without_a_sync_is_found_also_behind_the_last_change() {
    let failure = survives(&Hasty, 4).unwrap_err();
    assert_eq!((failure.why.as_str(), failure.again), ("it is not done", None));
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 8: a crash harness")]
fn a_file_whose_name_was_not_synced_is_found() {
    assert_eq!(survives(&Nameless, 4).unwrap_err().why, "it is not done");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 8: a crash harness")]
fn a_recovery_that_cannot_be_repeated_is_found_by_interrupting_it() {
    let failure = survives(&Twice, 4).unwrap_err();
    assert_eq!(failure.why, "10");
    assert!(failure.again.is_some(), "{failure:?}");
}
