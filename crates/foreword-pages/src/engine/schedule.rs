//! When a checkpoint is due, and what became of the last one.

use std::time::Duration;

use foreword::Lsn;

use crate::Error;
use crate::sabotage::{self, Bug};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, PoisonError, lock};

/// The checkpoints of a store: one at a time, each after so many bytes of log.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The last complete checkpoint. Its lock is held while the next is taken.
    pub(crate) last: Mutex<LastCheckpoint>,
    count: AtomicU64,
    /// Why the last attempt failed, if it did.
    failure: Mutex<Option<Error>>,
    each_bytes: u64,
    wish: Mutex<Wish>,
    wished: Condvar,
    has_changes: AtomicBool,
    /// The log has refused a record for lack of space, and no checkpoint has freed log since.
    refused: AtomicBool,
}

/// A checkpoint that is complete.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastCheckpoint {
    pub(crate) begin: Lsn,
    /// Zero: this process did not take the checkpoint.
    pub(crate) end: Lsn,
    /// Of the record that ends it.
    pub(crate) end_crc: u32,
    pub(crate) images: bool,
    /// Pages that were ever in use, with page 0.
    pub(crate) pages: u64,
    pub(crate) redo_from: Lsn,
    /// Recovery needs no record before this one.
    pub(crate) keep: Lsn,
    pub(crate) pages_dirty: u64,
}

#[derive(Debug, Default)]
struct Wish {
    due: bool,
    stop: bool,
}

impl Schedule {
    pub(crate) fn new(each_bytes: u64) -> Schedule {
        Schedule {
            last: Mutex::default(),
            count: AtomicU64::new(0),
            failure: Mutex::default(),
            each_bytes,
            wish: Mutex::default(),
            wished: Condvar::new(),
            has_changes: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Notes the checkpoint that recovery found.
    pub(crate) fn set_last(&self, begin: Lsn) {
        *lock(&self.last) = LastCheckpoint { begin, ..LastCheckpoint::default() };
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone()
    }

    /// A checkpoint begins. What is logged, or refused, from here on asks for another.
    pub(crate) fn begin(&self) {
        self.has_changes.store(false, Ordering::Relaxed);
        lock(&self.wish).due = false;
    }

    /// Notes the outcome of a checkpoint. After a failure there is as much to do as before.
    pub(crate) fn note(&self, failure: Option<Error>) {
        match failure {
            Some(_) => self.has_changes.store(true, Ordering::Relaxed),
            None => _ = self.count.fetch_add(1, Ordering::Relaxed),
        }
        *lock(&self.failure) = failure;
    }

    /// What a checkpoint left undone is not tried again at once, but after the interval.
    pub(crate) fn try_later(&self) {
        self.has_changes.store(true, Ordering::Relaxed);
        lock(&self.wish).due = false;
    }

    /// Notes that bytes were logged, `before` of them earlier.
    pub(crate) fn logged(&self, before: u64, bytes: u64) {
        self.has_changes.store(true, Ordering::Relaxed);
        if before / self.each_bytes != (before + bytes) / self.each_bytes {
            self.wish();
        }
    }

    /// Notes that the log refused a record for lack of space: a checkpoint is due, which frees log.
    pub(crate) fn log_refused(&self) {
        self.refused();
        self.wish();
    }

    /// The next checkpoint is to free what log it can.
    pub(crate) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Whether the next checkpoint is to free what log it can. It takes that upon itself.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.swap(false, Ordering::Relaxed)
    }

    fn wish(&self) {
        lock(&self.wish).due = true;
        self.wished.notify_one();
    }

    /// Ends the wait of the background thread for good.
    pub(crate) fn stop(&self) {
        lock(&self.wish).stop = true;
        if !sabotage::has(Bug::StopUntold) {
            self.wished.notify_one();
        }
    }

    /// Waits until a checkpoint is due, by bytes or by time. `None`: the thread is to end. `false`:
    /// the interval is over, and nothing has changed.
    pub(crate) fn wait(&self, interval: Option<Duration>) -> Option<bool> {
        let mut wish = lock(&self.wish);
        let mut timed_out = false;
        while !wish.due && !wish.stop && !timed_out {
            wish = match interval {
                Some(interval) => {
                    let (wish, wait) = self.wished.wait_timeout(wish, interval).unwrap_or_else(PoisonError::into_inner);
                    timed_out = wait.timed_out();
                    wish
                }
                None => self.wished.wait(wish).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if wish.stop {
            return None;
        }
        Some(std::mem::take(&mut wish.due) || self.has_changes.load(Ordering::Relaxed))
    }
}
