//! Callbacks that wait for their records to become durable. They run under no lock, one at a time,
//! in the order of their LSNs.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};

use foreword::{Log, Lsn};

use crate::Result;
use crate::cache::Cache;
use crate::sync::{lock, run};

pub(crate) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

#[derive(Default)]
struct Queue {
    /// By LSN, and by arrival: several callbacks may wait for one record (appends without entries).
    waiting: BTreeMap<(Lsn, u64), Callback>,
    arrivals: u64,
    /// A thread is calling callbacks, and continues until none is due.
    calling: bool,
    stop: bool,
}

#[derive(Default)]
pub(crate) struct Waiters {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Waiters {
    /// Called under the lock of the group, so that the callbacks of a group come in the order of
    /// its records.
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

    /// Calls the callbacks whose records are durable; once the log has failed or was closed, the
    /// others with its error. If another thread is calling callbacks, that thread calls these, too.
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
                    // The record may have become durable meanwhile.
                    Some(_) if lsn <= log.durable_lsn() => Ok(()),
                    // The log's last flush may be under way: whether the record is durable is known
                    // when the log is closed.
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

    /// The work of the callback thread: makes records durable that callbacks wait for, all that
    /// have gathered with one flush.
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
                // Do not spin while the log is being closed.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    /// To be called when the log is closed, also if that failed: callbacks whose records are not
    /// durable now get an error. `serve` ends once no callback waits.
    pub(crate) fn stop(&self) {
        lock(&self.queue).stop = true;
        self.arrived.notify_all();
    }
}
