//! Readers beside a log's workload, and what they know of it by what they were given and told.

use std::collections::BTreeMap;

use foreword::{Error, Log, Lsn, Reader, View};

use super::log::DIR;
use super::model::{Checked, Model, ensure, violated};
use crate::SimDisk;

/// A reader that goes on from where it is.
pub(crate) struct Follower {
    who: &'static str,
    reader: Reader,
    /// It is a view's, which is asked to look before it goes on.
    looks: Option<View>,
    /// It is a view's that nobody asks to look: it may show the log as it was.
    lags: bool,
    /// It has read to the end of the log as it is.
    current: bool,
    knows: BTreeMap<u64, Vec<u8>>,
    /// How often the log had been cut when it was as this knows it.
    generation: u64,
}

impl Follower {
    pub(crate) fn of_log(log: &Log) -> Follower {
        Follower::new("a reader of the log", log.reader_at(Lsn::ZERO), None)
    }

    pub(crate) fn of_view(view: View) -> Follower {
        Follower::new("a view", view.reader_at(Lsn::ZERO), Some(view))
    }

    /// Of a view that nobody asks to look.
    pub(crate) fn lazy(view: &View) -> Follower {
        let follower = Follower::new("a view that is not asked to look", view.reader_at(Lsn::ZERO), None);
        Follower { lags: true, ..follower }
    }

    pub(crate) fn lags(&self) -> bool {
        self.lags
    }

    fn new(who: &'static str, reader: Reader, looks: Option<View>) -> Follower {
        Follower { who, reader, looks, lags: false, current: false, knows: BTreeMap::new(), generation: 0 }
    }

    /// What a view shows of a disk where nobody is at work: nothing, where there is no log.
    pub(crate) fn before_recovery(disk: &SimDisk) -> Checked<Option<Follower>> {
        match View::open_on(disk.handle(), DIR) {
            Ok(view) => {
                let mut follower = Follower::of_view(view);
                follower.who = "a view from before the recovery";
                follower.follow()?;
                Ok(Some(follower))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => violated("a view opens what a crash leaves", error.to_string()),
        }
    }

    /// Reads to the end, if nothing is in the way.
    pub(crate) fn follow(&mut self) -> Checked {
        self.current = false;
        if let Some(view) = &self.looks {
            let _ = view.last_lsn();
        }
        loop {
            match self.reader.next() {
                Ok(Some(record)) => {
                    let before = self.knows.insert(record.lsn.0, record.data.to_vec());
                    ensure(before.is_none(), "a reader is given a record once", || format!("{}: {}", self.who, record.lsn))?;
                }
                Ok(None) => {
                    self.current = !self.lags;
                    return Ok(());
                }
                Err(Error::Cut { at, .. }) => drop(self.knows.split_off(&at.0)),
                Err(Error::Dropped { start, .. }) => self.reader.seek(start),
                Err(Error::Io { .. } | Error::Poisoned(_) | Error::Closed) => return Ok(()),
                Err(error) => return violated("a reader of a sound log finds it sound", format!("{}: {error}", self.who)),
            }
        }
    }

    /// The last LSN that it was given, before one from which on that may be cut.
    pub(crate) fn shown(&self, before: Option<u64>) -> u64 {
        self.knows.range(..before.unwrap_or(u64::MAX)).next_back().map_or(0, |(&lsn, _)| lsn)
    }

    /// Whether it knows the log as it is: it was not cut since.
    pub(crate) fn is_current(&self, model: &Model) -> bool {
        self.current && self.generation == model.generation()
    }

    /// A cut that had not returned may have come about or not.
    pub(crate) fn forget_from(&mut self, lsn: u64) {
        drop(self.knows.split_off(&lsn));
    }

    /// All that it knows is so; or was, between two cuts, if it may not have heard of the last.
    pub(crate) fn check(&mut self, model: &Model) -> Checked {
        let newest = model.generation();
        let oldest = if self.current { newest } else { self.generation };
        let wrong = |generation: u64| {
            let mut known = self.knows.range(model.start()..);
            known.find(|&(&lsn, data)| model.as_of(generation, lsn) != Some(&data[..])).map(|(&lsn, _)| lsn)
        };
        let Some(generation) = (oldest..=newest).rev().find(|&generation| wrong(generation).is_none()) else {
            let seen = format!("{}: LSN {:?}", self.who, wrong(newest));
            return violated("what a reader shows is there, until it is told of a cut", seen);
        };
        self.generation = generation;
        Ok(())
    }
}
