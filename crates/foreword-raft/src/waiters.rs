//! Callbacks that wait for their records to become durable. They run under no lock, one at a time, in the order of their LSNs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use foreword::{Log, Lsn};

use crate::Result;
use crate::cache::Cache;

/// Locks a mutex whose contents no panic leaves half changed: no stranger's code runs under one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
struct Queue {
    /// Several may wait for one record: appends without entries.
    waiting: BTreeMap<(Lsn, u64), Callback>,
    arrivals: u64,
    /// A thread calls them; it goes on until none is due.
    calling: bool,
    stop: bool,
}

#[derive(Default)]
pub(crate) struct Waiters {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Waiters {
    /// Called under the lock of the group, so that the callbacks of a group come in the order of its records.
    pub(crate) fn add(&self, lsn: Lsn, callback: Callback) {
        let mut queue = lock(&self.queue);
        queue.arrivals += 1;
        let key = (lsn, queue.arrivals);
        queue.waiting.insert(key, callback);
        self.arrived.notify_one();
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.queue).waiting.len()
    }

    /// Calls those whose records are durable; once the log has failed or was closed, the others with its error. If another thread is at it, it does this, too.
    pub(crate) fn settle(&self, log: &Log) {
        let mut queue = lock(&self.queue);
        while !queue.calling {
            let ended = queue.stop;
            let Some(first) = queue.waiting.first_entry() else { return };
            let lsn = first.key().0;
            let result = if lsn <= log.durable_lsn() {
                Ok(())
            } else {
                match log.failure() {
                    // It may have become durable meanwhile.
                    Some(_) if lsn <= log.durable_lsn() => Ok(()),
                    // Its last flush may be under way: what becomes of this is known when it is closed.
                    Some(foreword::Error::Closed) if !ended => return,
                    Some(failure) => Err(failure.into()),
                    None => return,
                }
            };
            let callback = first.remove();
            queue.calling = true;
            drop(queue);
            run(|| callback(result));
            queue = lock(&self.queue);
            queue.calling = false;
        }
    }

    /// The owner of the callbacks: makes durable what is waited for, all that has gathered with one flush.
    pub(crate) fn serve(&self, log: &Log, cache: &Cache) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.waiting.is_empty() && !queue.stop {
                queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let Some((&(last, _), _)) = queue.waiting.last_key_value() else { return };
            drop(queue);
            let synced = log.sync_to(last);
            self.settle(log);
            cache.trim(log.durable_lsn());
            if synced.is_err() {
                std::thread::sleep(std::time::Duration::from_millis(1)); // Not to turn in circles while the log is being closed.
            }
        }
    }

    /// Called when the log is closed, or could not be: what is not durable now fails. Ends `serve`, once nobody waits.
    pub(crate) fn stop(&self) {
        lock(&self.queue).stop = true;
        self.arrived.notify_all();
    }
}

/// Runs code that is not ours: a panic in it, or in dropping what it threw, ends here.
pub(crate) fn run(work: impl FnOnce()) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(work)) {
        _ = catch_unwind(AssertUnwindSafe(|| drop(thrown))).map_err(std::mem::forget);
    }
}
