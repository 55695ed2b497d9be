//! Exercise 3: group commit (chapter 5).
//!
//! Threads commit records, and wait until theirs is durable. One flush at a time is under way.
//! Threads that arrive meanwhile wait, and share the next flush. No thread exists only to flush:
//! one of the committers leads, the others follow.
//!
//! A failed flush is final: all waiting threads get an error, and so does every later commit. The
//! device is not asked again.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What makes records durable.
pub trait Device: Send + Sync {
    /// Appends records and makes them durable, together. Takes long.
    ///
    /// # Errors
    /// Nothing is known of what is durable.
    fn flush(&self, records: &[Vec<u8>]) -> io::Result<()>;
}

/// A log whose committers share flushes.
#[derive(Debug)]
pub struct GroupCommit<D> {
    device: D,
    state: Mutex<State>,
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Records for the next flush.
    waiting: Vec<Vec<u8>>,
    /// The last LSN that was given out,
    last: u64,
    /// and the last that is durable.
    durable: u64,
    flushing: bool,
    failed: bool,
}

impl<D: Device> GroupCommit<D> {
    /// An empty log on a device.
    pub fn new(device: D) -> GroupCommit<D> {
        GroupCommit { device, state: Mutex::default(), flushed: Condvar::new() }
    }

    /// The device, to look at.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// How many records wait for the next flush.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Appends a record and returns its LSN, from 1, when it is durable.
    ///
    /// # Errors
    /// If the device has failed, now or before.
    pub fn commit(&self, record: &[u8]) -> io::Result<u64> {
        let mut state = self.lock();
        if state.failed {
            return Err(failed());
        }
        state.last += 1;
        state.waiting.push(record.to_vec());
        let lsn = state.last;
        while state.durable < lsn {
            if state.failed {
                return Err(failed());
            }
            state =
                if state.flushing { self.flushed.wait(state).unwrap_or_else(PoisonError::into_inner) } else { self.flush(state) };
        }
        Ok(lsn)
    }

    /// Flushes the records of all waiting threads; without the lock, so that others can gather for
    /// the next flush.
    fn flush<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let (group, last) = (std::mem::take(&mut state.waiting), state.last);
        state.flushing = true;
        drop(state);
        let result = self.device.flush(&group);
        let mut state = self.lock();
        state.flushing = false;
        match result {
            Ok(()) => state.durable = last,
            Err(_) => state.failed = true,
        }
        self.flushed.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed() -> io::Error {
    io::Error::other("a flush has failed")
}
