//! A log's background work: it syncs (for futures, by policy, and the mark when the log falls idle), prepares the next segment and removes those that were dropped,
//! and tells other processes how the log is doing. Each is a task of the [`Runtime`]; all end before the log does.

use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use crate::error::Doing;
use crate::observe::publish::Publisher;
use crate::write::commit::Shared;
use crate::write::hold::Retention;
use crate::write::remove::RETRY_AFTER;
use crate::write::runtime::{Lane, Next, Runtime, Task};
use crate::{Error, Result, sync};

#[derive(Debug)]
pub(crate) struct Background {
    /// None once it was stopped.
    runtime: Mutex<Option<Runtime>>,
    publisher: Arc<Mutex<Publisher>>,
}

/// A log's tasks, by lane. None without background work.
#[derive(Debug)]
pub(crate) struct Tasks([Option<Task>; 3]);

impl Shared {
    /// Has a task of the background work look at what has changed.
    #[inline]
    pub(crate) fn kick(&self, lane: Lane) {
        if let Some(Tasks(tasks)) = self.tasks.get() {
            tasks[lane as usize].iter().for_each(Task::kick);
        }
    }

    pub(crate) fn kick_all(&self) {
        [Lane::Sync, Lane::Prepare, Lane::Publish].into_iter().for_each(|lane| self.kick(lane));
    }

    /// Whether the calling thread does this log's background work, further up.
    pub(crate) fn is_background(&self) -> bool {
        self.tasks.get().is_some_and(|Tasks(tasks)| tasks.iter().flatten().any(Task::is_on_this_thread))
    }

    /// Whether other logs wait for the thread that a task runs on.
    pub(crate) fn is_in_the_way(&self, lane: Lane) -> bool {
        self.tasks.get().and_then(|Tasks(tasks)| tasks[lane as usize].as_ref()).is_some_and(Task::is_in_the_way)
    }
}

impl Background {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Background> {
        let publishes = shared.options.publish || cfg!(feature = "metrics");
        let runtime = match &shared.options.runtime {
            Some(runtime) if runtime.is_forked() => {
                let why = "it was made by a process that this one was forked from, and its threads are there".to_owned();
                return Err(Error::Invalid { what: "runtime", why });
            }
            Some(runtime) => runtime.clone(),
            None => Runtime::start(1, publishes).doing("start a thread", &shared.dir.path)?,
        };
        let publisher = Arc::new(Mutex::new(Publisher::new()));
        let (mut flusher, mine) = (Flusher::new(), shared.clone());
        let sync = runtime.add(Lane::Sync, Box::new(move || flusher.step(&mine)));
        let mine = shared.clone();
        let prepare = runtime.add(Lane::Prepare, Box::new(move || prepare(&mine)));
        let (mine, its) = (shared.clone(), publisher.clone());
        let publish = publishes.then(|| runtime.add(Lane::Publish, Box::new(move || sync::lock(&its).step(&mine))));
        let _ = shared.tasks.set(Tasks([Some(sync), Some(prepare), publish]));
        // (What they would have been kicked for until now.)
        shared.kick_all();
        Ok(Background { runtime: Mutex::new(Some(runtime)), publisher })
    }

    /// Ends the tasks, which were told to stop: waits for what they are doing, if this thread does not do it itself.
    pub(crate) fn stop(&self, shared: &Shared) {
        shared.tasks.get().iter().flat_map(|tasks| &tasks.0).flatten().for_each(Task::end);
        match self.publisher.try_lock() {
            Ok(mut publisher) => publisher.withdraw(shared),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().withdraw(shared),
            // It runs further up, and told a recorder, which has closed the log. The file is the next writer's to remove.
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

    fn step(&mut self, shared: &Shared) -> Next {
        let mut state = shared.lock();
        state.asleep = false;
        let now = Instant::now();
        if std::mem::take(&mut self.idle) {
            // An append has woken it, just now.
            self.unsynced_since = now;
        }
        if state.stop {
            return Next::WhenKicked;
        }
        if shared.has_news(&state) {
            drop(shared.tell(state));
            return Next::Now;
        }
        if let Some(error) = state.failure() {
            if !std::mem::replace(&mut self.reported, true) {
                let error = error.clone();
                drop(state);
                shared.report(&error);
                return Next::Now;
            }
            (state.idle, state.asleep) = (true, true);
            return Next::WhenKicked;
        }
        // A sync that has left took all that was there.
        self.unsynced_since = if state.has_unsynced() { self.unsynced_since.max(state.synced_at) } else { now };
        // (Options bound the interval to a day.)
        let interval = shared.options.sync.interval.filter(|_| state.has_unsynced());
        let sync_at = interval.map(|interval| self.unsynced_since + interval);
        let due = sync_at.is_some_and(|at| at <= now);
        // However much there is to write, a sync that is due comes first.
        if due || state.wants_sync() || state.wants_write() {
            let sync = due || state.wants_sync();
            drop(shared.fly(state, sync));
            return Next::Now;
        }
        if self.busy.0 != state.activity() {
            self.busy = (state.activity(), now);
        }
        // (What is in the air will need one when it has landed. Without a time to wake at until then, each commit of a busy log would wake this thread.)
        let mark_at = (state.needs_promise() || state.is_flying())
            .then_some(self.busy.1)
            .zip(shared.options.idle_mark)
            .map(|(busy, after)| busy + after);
        if mark_at.is_some_and(|at| at <= now) {
            let (after, marked) = shared.mark_idle(state);
            state = after;
            if marked {
                return Next::Now;
            }
        }
        let until = [sync_at, mark_at].into_iter().flatten().filter(|&at| at > now).min();
        // An append must wake it, unless it is awake in time for that anyway.
        self.idle = until.is_none_or(|at| shared.options.sync.interval.is_some_and(|interval| now + interval < at));
        (state.idle, state.asleep) = (self.idle, true);
        until.map_or(Next::WhenKicked, Next::At)
    }
}

/// One thing that is to be done about segments.
fn prepare(shared: &Shared) -> Next {
    let mut state = shared.lock();
    if state.stop {
        return Next::WhenKicked;
    }
    let now = Instant::now();
    state.prepare_again = state.prepare_again.filter(|&at| at > now);
    if shared.keeping.is_due() {
        drop(state);
        shared.keep_reserve(Vec::new());
        return Next::Now;
    }
    if state.wants_removal(now) {
        drop(shared.remove_some(state, now));
        return Next::Now;
    }
    let due = match shared.retention(&state) {
        // (Whose change is under way may take its time, and other logs wait for this thread.)
        Retention::Drop(_) if state.changing.is_some() => None,
        Retention::Drop(before) if state.retain_again.is_none_or(|at| at <= now) => {
            let start = state.control.start;
            let changing = shared.begin_change(&mut state);
            drop(state);
            let dropped = shared.drop_front(before, changing);
            if !dropped.as_ref().is_ok_and(|&now| now > start) {
                // It failed, or a hold is in the way: of another process, maybe, which cannot kick when it moves it.
                shared.lock().retain_again = Some(Instant::now() + RETRY_AFTER);
            }
            match dropped {
                // That the log was closed is no error, and how it failed is told by the task that syncs.
                Ok(_) | Err(Error::Closed | Error::Poisoned(_)) => {}
                Err(error) => shared.report(&error),
            }
            return Next::Now;
        }
        Retention::Drop(_) => state.retain_again,
        Retention::At(at) => at,
    };
    if !state.wants_spare() {
        let again = state.prepare_again.into_iter().chain(state.remove_again()).chain(due).min();
        return again.map_or(Next::WhenKicked, Next::At);
    }
    let (mut state, prepared) = shared.prepare_one(state);
    if let Err(error) = prepared {
        // Whoever needs the segment tries again, and gets the error.
        state.prepare_again = Some(Instant::now() + RETRY_AFTER);
        state.no_space = error.is_no_space().then(|| error.clone());
        drop(state);
        crate::trace::warn!(error = %error, "cannot prepare a segment");
    }
    Next::Now
}
