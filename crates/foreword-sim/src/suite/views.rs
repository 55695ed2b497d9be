//! Readers beside a workload with cuts, kills, and a power failure behind each kill: what one of them shows is there, with those bytes, until it is
//! told of a cut.

use std::collections::BTreeMap;

use foreword::{Durability, Error, Log, Lsn, Reader, View};

use crate::disk::{Choice, SimDisk};
use crate::rng::{Rng, mix};
use crate::suite::model::{Checked, Violation, ensure, violated};
use crate::suite::runner::{DIR, options};

const SEGMENT_BYTES: u64 = 64 << 10;

/// A reader, and what it knows of the log by what it was given and told.
struct Follower {
    who: &'static str,
    reader: Reader,
    knows: BTreeMap<u64, Vec<u8>>,
}

impl Follower {
    fn new(who: &'static str, reader: Reader) -> Follower {
        Follower { who, reader, knows: BTreeMap::new() }
    }

    /// Reads to the end.
    fn follow(&mut self) -> Checked {
        loop {
            match self.reader.next() {
                Ok(Some(record)) => {
                    let before = self.knows.insert(record.lsn.0, record.data.to_vec());
                    ensure(before.is_none(), "a reader is given a record once", || format!("{}: {}", self.who, record.lsn))?;
                }
                Ok(None) => return Ok(()),
                Err(Error::Cut { at, .. }) => drop(self.knows.split_off(&at.0)),
                Err(Error::Dropped { start, .. }) => self.reader.seek(start),
                Err(Error::Io { .. } | Error::Poisoned(_) | Error::Closed) => return Ok(()),
                Err(error) => return violated("a reader of a sound log finds it sound", format!("{}: {error}", self.who)),
            }
        }
    }

    /// All that it knows is so.
    fn check(&self, log: &Log) -> Checked {
        for (&lsn, data) in self.knows.range(log.start_lsn().0..) {
            let there = log.get(Lsn(lsn));
            let same = there.as_ref().is_ok_and(|there| there == data);
            ensure(same, "what a reader shows is there, until it is told of a cut", || {
                format!("{}: LSN {lsn}: {:?}", self.who, there.map(|_| "another record"))
            })?;
        }
        Ok(())
    }
}

/// Runs one workload; what went wrong.
///
/// # Errors
/// The invariant that does not hold.
pub fn views(seed: u64) -> Result<(), Violation> {
    let mut rng = Rng::new(mix(&[seed, 4]));
    let (mut disk, mut serial) = (SimDisk::new(seed), 0);
    let mut before: Vec<Follower> = Vec::new();
    for _ in 0..4 {
        let log = match options(&disk, SEGMENT_BYTES).open(DIR) {
            Ok(log) => log,
            Err(error) => return violated("what a crash leaves opens", error.to_string()),
        };
        // What was shown before the power failed is there still.
        before.iter().try_for_each(|follower| follower.check(&log))?;
        let view = match View::open_on(disk.handle(), DIR) {
            Ok(view) => view,
            Err(error) => return violated("a view opens beside a writer", error.to_string()),
        };
        let mut followers = vec![Follower::new("a reader", log.reader()), Follower::new("a view", view.reader_at(Lsn::ZERO))];
        disk.power_off_at(disk.changes() + 1 + rng.below(60));
        let mut cut_at = None;
        while !disk.is_off() {
            cut_at = step(&log, &mut rng, &mut serial);
            if disk.is_off() {
                break;
            }
            let _ = view.last_lsn(); // It looks now.
            for follower in &mut followers {
                follower.follow()?;
                follower.check(&log)?;
            }
        }
        // The process dies; somebody looks, what is proven and what else there is; then the power fails.
        let killed = disk.kill();
        match View::open_on(killed.handle(), DIR) {
            Ok(view) => {
                let mut after = Follower::new("a view after a kill", view.reader_at(Lsn::ZERO));
                after.follow()?;
                followers.push(after);
            }
            Err(error) => return violated("a view opens what a kill leaves", error.to_string()),
        }
        // A cut that had not returned may have come about or not.
        for follower in &mut followers {
            drop(follower.knows.split_off(&cut_at.unwrap_or(u64::MAX)));
        }
        before = followers;
        disk = killed.crash(&Choice::Seed(rng.next()));
    }
    Ok(())
}

/// Does something to a log: the LSN from which on it was cut, if it was the last thing that it did.
fn step(log: &Log, rng: &mut Rng, serial: &mut u64) -> Option<u64> {
    let mut record = || {
        *serial += 1;
        format!("record {serial} {}", "x".repeat((*serial * 911 % 3000) as usize))
    };
    let (start, last) = (log.start_lsn().0, log.last_lsn().0);
    let some_lsn = Lsn(start + rng.below(last.saturating_sub(start) + 2));
    match rng.below(12) {
        0..=5 => drop(log.commit(record().as_bytes())),
        6..=8 => drop(log.append_with(record().as_bytes(), Durability::Written)),
        9 => drop(log.append(record().as_bytes())),
        10 => {
            let _ = log.truncate_back(some_lsn);
            return Some(some_lsn.0);
        }
        _ => drop(log.truncate_front(Lsn(start + rng.below(4)))),
    }
    None
}
