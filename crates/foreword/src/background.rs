//! The one owner of background work: a thread that syncs (for futures, by policy, and the mark when the log falls idle), and one that
//! prepares the next segment and removes those that were dropped, and one that tells other processes how the log is doing. All end before the log does.

use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use crate::Result;
use crate::commit::{Guard, Shared};
use crate::error::Doing;
use crate::publish::{self, Publisher};
use crate::remove::RETRY_AFTER;
use crate::sync;

/// So long after its last flush a log is idle, and says in a MARK what is durable.
const IDLE_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Background {
    ids: Vec<ThreadId>,
    /// None once they were joined.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Background {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Background> {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        let made = |threads: Vec<JoinHandle<()>>| Background {
            ids: threads.iter().map(|thread| thread.thread().id()).collect(),
            threads: Mutex::new(threads),
        };
        let tells = shared.options.publish || cfg!(feature = "metrics");
        let publish = tells.then_some(("foreword-stats", publish as fn(&Shared)));
        for (name, work) in [("foreword-sync", flush as fn(&Shared)), ("foreword-prepare", prepare)].into_iter().chain(publish) {
            let mine = shared.clone();
            let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&mine));
            match spawned.doing("start a thread", &shared.dir.path) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.lock().stop = true;
                    made(threads).join(shared);
                    return Err(error);
                }
            }
        }
        Ok(made(threads))
    }

    /// Whether the calling thread is one of them.
    pub(crate) fn is_this_thread(&self) -> bool {
        self.ids.contains(&std::thread::current().id())
    }

    /// Waits until the threads have ended, which were told to stop.
    pub(crate) fn join(&self, shared: &Shared) {
        shared.kick.notify_all();
        let this = std::thread::current().id();
        for thread in std::mem::take(&mut *sync::lock(&self.threads)) {
            thread.thread().unpark();
            // A waker or a hook may have closed or dropped the log on one of them: that one ends by itself.
            if thread.thread().id() != this {
                let _ = thread.join();
            }
        }
    }
}

fn flush(shared: &Shared) {
    let interval = shared.options.sync.interval;
    let mut state = shared.lock();
    let mut reported = false;
    // No record that is not on its way is older than this. And the flush count when the log was last seen busy.
    let mut unsynced_since = Instant::now();
    let mut busy = (state.activity(), Instant::now());
    while !state.stop {
        if shared.has_news(&state) {
            state = shared.tell(state);
            continue;
        }
        if let Some(error) = state.failure() {
            if !reported {
                reported = true;
                let error = error.clone();
                drop(state);
                shared.report(&error);
                state = shared.lock();
                continue; // It may have been told to stop meanwhile.
            }
            (state.idle, state.asleep) = (true, true);
            state = sleep(shared, state, None);
            state.asleep = false;
            continue;
        }
        let now = Instant::now();
        // A sync that has left took all that was there.
        unsynced_since = if state.has_unsynced() { unsynced_since.max(state.synced_at) } else { now };
        // (Options bound the interval to a day.)
        let sync_at = interval.filter(|_| state.has_unsynced()).map(|interval| unsynced_since + interval);
        let due = sync_at.is_some_and(|at| at <= now);
        // However much there is to write, a sync that is due comes first.
        if due || state.wants_sync() || state.wants_write() {
            let sync = due || state.wants_sync();
            state = shared.fly(state, sync);
            continue;
        }
        if busy.0 != state.activity() {
            busy = (state.activity(), now);
        }
        // (What is in the air will need one when it has landed. Without a time to wake at until then, each commit of a busy log would wake this thread.)
        let mark_at = (state.needs_promise() || state.is_flying()).then_some(busy.1 + IDLE_AFTER);
        if mark_at.is_some_and(|at| at <= now) {
            let (after, marked) = shared.mark_idle(state);
            state = after;
            if marked {
                continue;
            }
        }
        let until = [sync_at, mark_at].into_iter().flatten().filter(|&at| at > now).min();
        state.idle = until.is_none();
        let idle = state.idle;
        state.asleep = true;
        state = sleep(shared, state, until.map(|at| at - now));
        state.asleep = false;
        if idle {
            // An append has woken it, just now.
            unsynced_since = Instant::now();
        }
    }
}

fn prepare(shared: &Shared) {
    let mut state = shared.lock();
    while !state.stop {
        let now = Instant::now();
        state.prepare_again = state.prepare_again.filter(|&at| at > now);
        if shared.keeping.is_due() {
            drop(state);
            shared.keep_reserve(Vec::new());
            state = shared.lock();
            continue;
        }
        if state.wants_removal(now) {
            state = shared.remove_some(state, now);
            continue;
        }
        if !state.wants_spare() {
            let again = state.prepare_again.into_iter().chain(state.remove_again()).min();
            state = sleep(shared, state, again.map(|at| at.saturating_duration_since(now)));
            continue;
        }
        let (after, prepared) = shared.prepare_one(state);
        state = after;
        if let Err(error) = prepared {
            // Whoever needs the segment tries again, and gets the error.
            state.prepare_again = Some(Instant::now() + RETRY_AFTER);
            state.no_space = error.is_no_space().then(|| error.clone());
            drop(state);
            crate::trace::warn!(error = %error, "cannot prepare a segment");
            state = shared.lock();
        }
    }
}

fn publish(shared: &Shared) {
    let mut publisher = Publisher::new();
    loop {
        // Not with the others, who are woken again and again.
        std::thread::park_timeout(publish::EVERY);
        if shared.lock().stop {
            return publisher.withdraw(shared);
        }
        publisher.publish(shared);
    }
}

fn sleep<'a>(shared: &'a Shared, state: Guard<'a>, time: Option<Duration>) -> Guard<'a> {
    match time {
        Some(time) => shared.kick.wait_timeout(state, time),
        None => shared.kick.wait(state),
    }
}
