//! When compaction is due, and whether a thread compacts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::sync::lock;

/// When compaction is due, and whether a thread compacts.
#[derive(Default)]
pub(crate) struct Compactor {
    /// Bytes written, and bytes that went out of force, since compaction was last due.
    since: AtomicU64,
    pub(crate) running: AtomicBool,
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    due: bool,
    stop: bool,
}

impl Compactor {
    pub(crate) fn note(&self, bytes: u64) {
        self.since.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn wake_if_due(&self, slack: u64) {
        if self.since.load(Ordering::Relaxed) > slack / 4 {
            self.since.store(0, Ordering::Relaxed);
            lock(&self.due).due = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        lock(&self.due).stop = true;
        self.changed.notify_all();
    }

    pub(crate) fn stopped(&self) -> bool {
        lock(&self.due).stop
    }

    /// Waits until compaction is due (`true`) or the logs are closed.
    pub(crate) fn wait(&self) -> bool {
        let mut due = lock(&self.due);
        while !due.due && !due.stop {
            due = self.changed.wait(due).unwrap_or_else(PoisonError::into_inner);
        }
        due.due = false;
        !due.stop
    }
}
