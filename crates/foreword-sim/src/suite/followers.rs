//! Readers beside a log's workload, and what they know: the records that they were given, less the
//! cuts that they were told of.

use std::collections::BTreeMap;

use foreword::{Error, Log, Lsn, Reader, View};

use super::log::DIR;
use super::model::{Checked, Model, ensure, violated};
use crate::SimDisk;

/// A reader that reads on from where it stopped.
pub(crate) struct Follower {
    name: &'static str,
    reader: Reader,
    /// The reader's view, which is refreshed before the reader reads on.
    refreshed: Option<View>,
    /// The reader is of a view that is never refreshed: it may show an older state of the log.
    lags: bool,
    /// The reader has read to the end of the log as it is.
    current: bool,
    knows: BTreeMap<u64, Vec<u8>>,
    /// How often the log had been cut in the state that the reader knows.
    generation: u64,
}

impl Follower {
    pub(crate) fn of_log(log: &Log) -> Follower {
        Follower::new("a reader of the log", log.reader_at(Lsn::ZERO), None)
    }

    pub(crate) fn of_view(view: View) -> Follower {
        Follower::new("a view", view.reader_at(Lsn::ZERO), Some(view))
    }

    /// A reader of a view that is never refreshed.
    pub(crate) fn lazy(view: &View) -> Follower {
        let follower = Follower::new("a view that is not asked to look", view.reader_at(Lsn::ZERO), None);
        Follower { lags: true, ..follower }
    }

    pub(crate) fn lags(&self) -> bool {
        self.lags
    }

    fn new(name: &'static str, reader: Reader, refreshed: Option<View>) -> Follower {
        Follower { name, reader, refreshed, lags: false, current: false, knows: BTreeMap::new(), generation: 0 }
    }

    /// A reader of a view on a disk that no process uses. `None`: there is no log.
    pub(crate) fn before_recovery(disk: &SimDisk) -> Checked<Option<Follower>> {
        match View::open_on(disk.handle(), DIR) {
            Ok(view) => {
                let mut follower = Follower::of_view(view);
                follower.name = "a view from before the recovery";
                follower.follow()?;
                Ok(Some(follower))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => violated("a view opens what a crash leaves", error.to_string()),
        }
    }

    /// Reads to the end, unless an error stops the reader.
    pub(crate) fn follow(&mut self) -> Checked {
        self.current = false;
        if let Some(view) = &self.refreshed {
            let _ = view.last_lsn();
        }
        loop {
            match self.reader.next() {
                Ok(Some(record)) => {
                    let before = self.knows.insert(record.lsn.0, record.data.to_vec());
                    ensure(before.is_none(), "a reader is given a record once", || format!("{}: {}", self.name, record.lsn))?;
                }
                Ok(None) => {
                    self.current = !self.lags;
                    return Ok(());
                }
                Err(Error::Cut { at, .. }) => drop(self.knows.split_off(&at.0)),
                Err(Error::Dropped { start, .. }) => self.reader.seek(start),
                Err(Error::Io { .. } | Error::Poisoned(_) | Error::Closed) => return Ok(()),
                Err(error) => return violated("a reader of a sound log finds it sound", format!("{}: {error}", self.name)),
            }
        }
    }

    /// The last LSN that the reader was given, before a cut that may still come.
    pub(crate) fn shown(&self, before: Option<u64>) -> u64 {
        self.knows.range(..before.unwrap_or(u64::MAX)).next_back().map_or(0, |(&lsn, _)| lsn)
    }

    /// Whether the reader knows the log as it is: the log was not cut since.
    pub(crate) fn is_current(&self, model: &Model) -> bool {
        self.current && self.generation == model.generation()
    }

    /// Drops the records that a cut with an unknown outcome may have removed.
    pub(crate) fn forget_from(&mut self, lsn: u64) {
        drop(self.knows.split_off(&lsn));
    }

    /// Checks that all that the reader knows is in the log. If the reader may not know of the last
    /// cuts, it was in the log between two of them.
    pub(crate) fn check(&mut self, model: &Model) -> Checked {
        let newest = model.generation();
        let oldest = if self.current { newest } else { self.generation };
        let wrong = |generation: u64| {
            let mut known = self.knows.range(model.start()..);
            known.find(|&(&lsn, data)| model.as_of(generation, lsn) != Some(&data[..])).map(|(&lsn, _)| lsn)
        };
        let Some(generation) = (oldest..=newest).rev().find(|&generation| wrong(generation).is_none()) else {
            let seen = format!("{}: LSN {:?}", self.name, wrong(newest));
            return violated("what a reader shows is there, until it is told of a cut", seen);
        };
        self.generation = generation;
        Ok(())
    }
}
