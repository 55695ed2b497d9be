//! Exercise 2: a sync in the background, and a graceful stop (chapter 4).
//!
//! A thread calls `sync` once in each interval. `stop` ends it at once, not after what is left of
//! the interval; then, when the thread is done, it syncs a last time. The first error ends the
//! thread, and `stop` returns it: nothing is synced after that. A `Syncer` that is dropped stops
//! the same way, but the error is lost.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Syncs in the background.
#[derive(Debug)]
pub struct Syncer {
    // Which fields? What the thread and `stop` share (a flag under a mutex, and a condition
    // variable), and the thread.
}

impl Syncer {
    /// Starts the thread.
    pub fn start(interval: Duration, sync: impl FnMut() -> io::Result<()> + Send + 'static) -> Syncer {
        // The thread waits on the condition variable with a timeout, so that `stop` need not wait
        // for the interval.
        todo!("exercise 2")
    }

    /// Stops the thread, waits for a sync that it may be in, and syncs a last time.
    ///
    /// # Errors
    /// The first that any sync returned.
    pub fn stop(mut self) -> io::Result<()> {
        todo!("exercise 2")
    }
}

// A `Syncer` that is dropped is to stop, too.
