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

/// Whether the thread is to stop, and what wakes it.
#[derive(Debug, Default)]
struct Signal {
    stop: Mutex<bool>,
    changed: Condvar,
}

type Job = Box<dyn FnMut() -> io::Result<()> + Send>;

/// Syncs in the background.
#[derive(Debug)]
pub struct Syncer {
    signal: Arc<Signal>,
    /// Gives `sync` back, or the error.
    thread: Option<JoinHandle<io::Result<Job>>>,
}

impl Syncer {
    /// Starts the thread.
    pub fn start(interval: Duration, sync: impl FnMut() -> io::Result<()> + Send + 'static) -> Syncer {
        let signal = Arc::new(Signal::default());
        let thread = std::thread::spawn({
            let (signal, mut sync) = (signal.clone(), Box::new(sync) as Job);
            move || {
                while signal.pause(interval) {
                    sync()?;
                }
                Ok(sync)
            }
        });
        Syncer { signal, thread: Some(thread) }
    }

    /// Stops the thread, waits for a sync that it may be in, and syncs a last time.
    ///
    /// # Errors
    /// The first that any sync returned.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.signal.stop();
        let mut sync = thread.join().map_err(|_| io::Error::other("the sync panicked"))??;
        sync()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let _ = self.end(); // Nobody is left to be told.
    }
}

impl Signal {
    fn stop(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for so long, or until it is to stop: whether to go on. A wake-up may come for no
    /// reason, so the time is looked at again.
    fn pause(&self, interval: Duration) -> bool {
        let started = Instant::now();
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stop {
            let Some(left) = interval.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { return true };
            stop = self.changed.wait_timeout(stop, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}
