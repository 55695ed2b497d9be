//! A log's background work: it syncs (for futures, by policy, and the mark when the log falls
//! idle), prepares the next segment and removes those that were dropped, and tells other processes
//! how the log is doing. Each is a task of the [`Runtime`]; all end before the log does.

use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use crate::error::Doing;
use crate::observe::publish::Publisher;
use crate::write::inner::LogInner;
use crate::write::retain::Retention;
use crate::write::runtime::{Lane, Next, Runtime, Tasks};
use crate::write::state::LogState;
use crate::{Error, Result, sync};

#[derive(Debug)]
pub(crate) struct Background {
    /// None once it was stopped.
    runtime: Mutex<Option<Runtime>>,
    publisher: Arc<Mutex<Publisher>>,
}

impl Background {
    pub(crate) fn start(log: &Arc<LogInner>) -> Result<Background> {
        let publishes = log.options.publish || cfg!(feature = "metrics");
        let runtime = match &log.options.runtime {
            Some(runtime) if runtime.is_forked() => {
                let why = "it was made by a process that this one was forked from, and its threads are there".to_owned();
                return Err(Error::Invalid { what: "runtime", why });
            }
            Some(runtime) => runtime.clone(),
            None => Runtime::start(1, publishes).doing("start a thread", &log.dir.path)?,
        };
        let publisher = Arc::new(Mutex::new(Publisher::new()));
        let (mut flusher, mine) = (Flusher::new(), log.clone());
        let sync = runtime.add(Lane::Sync, Box::new(move || flusher.step(&mine)));
        let (mut preparer, mine) = (Preparer::new(), log.clone());
        let prepare = runtime.add(Lane::Prepare, Box::new(move || preparer.step(&mine)));
        let (mine, its) = (log.clone(), publisher.clone());
        let publish = publishes.then(|| runtime.add(Lane::Publish, Box::new(move || sync::lock(&its).step(&mine))));
        let _ = log.tasks.set(Tasks::new(sync, prepare, publish));
        // (What they would have been kicked for until now.)
        log.kick_all();
        Ok(Background { runtime: Mutex::new(Some(runtime)), publisher })
    }

    /// Ends the tasks, which were told to stop: waits for what they are doing, if this thread does
    /// not do it itself.
    pub(crate) fn stop(&self, log: &LogInner) {
        log.tasks.get().into_iter().for_each(Tasks::end);
        match self.publisher.try_lock() {
            Ok(mut publisher) => publisher.withdraw(log),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().withdraw(log),
            // It runs further up, and told a recorder, which has closed the log. The file is the
            // next writer's to remove.
            Err(TryLockError::WouldBlock) => {}
        }
        // (The threads of a log of its own end with it.)
        let runtime = sync::lock(&self.runtime).take();
        drop(runtime);
    }
}

/// What the task that syncs remembers of the log.
struct Flusher {
    /// The failure was reported.
    reported: bool,
    /// No record that is not on its way is older than this.
    unsynced_since: Instant,
    /// The flush count when the log was last seen busy, and when that was.
    busy: (u64, Instant),
    /// It sleeps until it is kicked.
    idle: bool,
}

impl Flusher {
    fn new() -> Flusher {
        let now = Instant::now();
        Flusher { reported: false, unsynced_since: now, busy: (u64::MAX, now), idle: false }
    }

    fn step(&mut self, log: &LogInner) -> Next {
        let mut state = log.lock();
        state.requests.asleep = false;
        let now = Instant::now();
        if std::mem::take(&mut self.idle) {
            // An append has woken it, just now.
            self.unsynced_since = now;
        }
        if state.life.stop {
            return Next::WhenKicked;
        }
        if log.has_news(&state) {
            drop(log.unlock_and_tell(state));
            return Next::Now;
        }
        if let Some(error) = state.life.failure() {
            if !std::mem::replace(&mut self.reported, true) {
                let error = error.clone();
                drop(state);
                log.report(&error);
                return Next::Now;
            }
            (state.requests.idle, state.requests.asleep) = (true, true);
            return Next::WhenKicked;
        }
        // A sync that has left took all that was there.
        self.unsynced_since = if state.has_unsynced() { self.unsynced_since.max(state.flushes.synced_at()) } else { now };
        // (Options bound the interval to a day.)
        let interval = log.options.sync.interval.filter(|_| state.has_unsynced());
        let sync_at = interval.map(|interval| self.unsynced_since + interval);
        let due = sync_at.is_some_and(|at| at <= now);
        // However much there is to write, a sync that is due comes first.
        if due || state.wants_sync() || state.wants_write() {
            let sync = due || state.wants_sync();
            drop(log.unlock_and_flush(state, sync));
            return Next::Now;
        }
        if self.busy.0 != state.flushes.next_id() {
            self.busy = (state.flushes.next_id(), now);
        }
        // (What is being flushed will need a promise when it counts. Without a time to wake at
        // until then, each commit of a busy log would wake this thread.)
        let mark_at = (state.needs_promise() || state.flushes.has_uncounted())
            .then_some(self.busy.1)
            .zip(log.options.idle_mark)
            .map(|(busy, after)| busy + after);
        if mark_at.is_some_and(|at| at <= now) {
            let (after, marked) = log.unlock_and_mark_idle(state);
            state = after;
            if marked {
                return Next::Now;
            }
        }
        let until = [sync_at, mark_at].into_iter().flatten().filter(|&at| at > now).min();
        // An append must wake it, unless it is awake in time for that anyway.
        self.idle = until.is_none_or(|at| log.options.sync.interval.is_some_and(|interval| now + interval < at));
        (state.requests.idle, state.requests.asleep) = (self.idle, true);
        until.map_or(Next::WhenKicked, Next::At)
    }
}

/// After the reserve could not be made, it is tried again so much later, and twice as long after each
/// try: at most [`RESERVE_PAUSE_MAX`].
const RESERVE_PAUSE: Duration = Duration::from_millis(500);
const RESERVE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the task that looks after segments remembers of the log.
struct Preparer {
    /// When it tries to make the reserve again. Space that the log has not freed itself (another
    /// program did, or closed the last file of a dropped segment) is told by nothing.
    reserve_at: Option<Instant>,
    /// How long it waits for that the next time.
    pause: Duration,
}

impl Preparer {
    fn new() -> Preparer {
        Preparer { reserve_at: None, pause: RESERVE_PAUSE }
    }

    /// One thing that is to be done about segments.
    fn step(&mut self, log: &LogInner) -> Next {
        let mut state = log.lock();
        if state.life.stop {
            return Next::WhenKicked;
        }
        let now = Instant::now();
        let prepare_again = state.spares.retry_at(now);
        if log.keeping.is_due() || self.is_reserve_due(log, &state, now) {
            drop(state);
            log.keep_reserve(Vec::new());
            return Next::Now;
        }
        if state.wants_removal(now) {
            drop(log.unlock_and_remove(state, now));
            return Next::Now;
        }
        let due = match log.retention(&mut state, now) {
            Retention::Drop(before) => {
                log.retain(state, before);
                return Next::Now;
            }
            Retention::At(at) => at,
        };
        if !state.wants_spare() {
            let again = [prepare_again, state.removals.retry_at(), due, self.reserve_at].into_iter().flatten().min();
            return again.map_or(Next::WhenKicked, Next::At);
        }
        let (mut state, prepared) = log.unlock_and_prepare(state);
        if let Err(error) = prepared {
            // An append that needs the segment tries again, and gets the error.
            state.spares.failed(&error);
            if error.is_too_many_files() && state.has_unsynced() {
                // What is synced has no file open.
                state.requests.sync_due = true;
                log.kick(Lane::Sync);
            }
            drop(state);
            crate::trace::warn!(error = %error, "cannot prepare a segment");
        }
        Next::Now
    }

    /// Whether it is time to try again to make the reserve. (A log that has failed writes nothing.)
    fn is_reserve_due(&mut self, log: &LogInner, state: &LogState, now: Instant) -> bool {
        if state.life.has_failed() || !(log.dir.reserve_is_short() || log.keeping.is_lacking()) {
            *self = Preparer::new();
            return false;
        }
        let at = *self.reserve_at.get_or_insert(now + self.pause);
        if at > now {
            return false;
        }
        self.pause = RESERVE_PAUSE_MAX.min(self.pause * 2);
        self.reserve_at = Some(now + self.pause);
        true
    }
}
