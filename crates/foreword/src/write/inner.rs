//! What is behind a [`Log`](crate::Log): shared by its handle, its background tasks, its readers
//! and its futures.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Instant;

use crate::files::dir::Dir;
use crate::files::reserve::Keeping;
use crate::format::{Chain, LogId};
use crate::observe::counters::Counters;
use crate::open::opened::Opened;
use crate::options::BackgroundError;
use crate::strangers::{self, AtWork};
use crate::sync::atomic::AtomicU32;
use crate::sync::{Event, Mutex, PoisonError, TryLockError, thread, yield_now};
use crate::write::circle::Thing;
use crate::write::clock::Clock;
use crate::write::committers::{Committers, Slots};
use crate::write::readable::Readable;
use crate::write::runtime::{Lane, Tasks};
use crate::write::state::{Guard, LogState};
use crate::{Error, Options, Result};

/// So often a thread that does not get the lock pauses before each of its next tries: some
/// microseconds. The lock is held for a tenth of one; to sleep and to be woken costs more than both.
const PAUSES: [u32; 3] = [64, 128, 256];
/// And so often it yields its processor then.
const YIELDS: usize = 2;

/// A method that returns the guard it was given, and lets the lock go meanwhile, says so:
/// `unlock_and_...` works, and `wait_changed` waits. What was read before such a call is to be read
/// again after it.
#[derive(Debug)]
pub(crate) struct LogInner {
    pub(crate) dir: Dir,
    pub(crate) id: LogId,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) state: Mutex<LogState>,
    /// Notified under the lock, or after it, when a flush or the preparation or removal of a
    /// segment ends, when the right to change the log is free, and when the log ends.
    pub(crate) changed: Event,
    /// The background tasks, once they run. Never set without background work.
    pub(crate) tasks: OnceLock<Tasks>,
    pub(crate) committers: Committers,
    /// How many threads wait for a segment; changed by each itself.
    pub(crate) starved: AtomicU32,
    pub(crate) readable: Readable,
    pub(crate) counters: Counters,
    pub(crate) keeping: Keeping,
}

impl LogInner {
    pub(crate) fn new(dir: Dir, options: Options, opened: Opened) -> LogInner {
        let id = opened.log;
        let chain = Chain::new(id, opened.entries.clone(), &opened.control);
        LogInner {
            id,
            options,
            clock: Clock::start(),
            changed: Event::default(),
            tasks: OnceLock::new(),
            committers: Committers::default(),
            starved: AtomicU32::new(0),
            readable: Readable::new(opened.durable.lsn, chain),
            state: Mutex::new(LogState::new(opened)),
            counters: Counters::new(&dir.path),
            keeping: Keeping::default(),
            dir,
        }
    }

    /// The state. That a thread has panicked with it does no harm: code that can panic leaves
    /// nothing in it half changed.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_if_free(&self) -> Option<Guard<'_>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// As [`lock`](LogInner::lock), but an error in a forked process where the thread that holds
    /// the lock does not exist.
    fn lock_in_process(&self) -> Result<Guard<'_>> {
        match self.lock_if_free() {
            Some(state) => Ok(state),
            None => self.lock_contended(),
        }
    }

    /// Tries again a few times, without the lock's cache line meanwhile: so the thread that has the
    /// lock appends some records more before the line moves to another processor. Then lets other
    /// threads run, of which one may have been interrupted with the lock; then sleeps.
    #[cold]
    fn lock_contended(&self) -> Result<Guard<'_>> {
        for pauses in PAUSES {
            (0..pauses).for_each(|_| std::hint::spin_loop());
            if let Some(state) = self.lock_if_free() {
                return Ok(state);
            }
        }
        for _ in 0..YIELDS {
            yield_now();
            if let Some(state) = self.lock_if_free() {
                return Ok(state);
            }
        }
        self.dir.check_process()?;
        Ok(self.lock())
    }

    /// The same, for calls that cannot fail.
    pub(crate) fn peek(&self) -> Option<Guard<'_>> {
        self.lock_in_process().ok()
    }

    /// The same, if the log has not failed and is not closed.
    pub(crate) fn open_state(&self) -> Result<Guard<'_>> {
        let state = self.lock_in_process()?;
        state.life.usable()?;
        Ok(state)
    }

    /// Waits until something has changed under the lock, which is let go meanwhile.
    pub(crate) fn wait_changed<'a>(&'a self, state: Guard<'a>) -> Guard<'a> {
        self.changed.wait(state)
    }

    /// The same until a time, if there is one; `None` when it is over.
    pub(super) fn wait_changed_until<'a>(&'a self, state: Guard<'a>, deadline: Option<Instant>) -> Option<Guard<'a>> {
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(std::time::Duration::ZERO) => None,
            Some(left) => Some(self.changed.wait_timeout(state, left)),
            None => Some(self.wait_changed(state)),
        }
    }

    /// What a thread waits for that waits for the one that closes the log.
    pub(super) fn ending(&self) -> Thing {
        Thing::of(&self.changed)
    }

    /// The same for the one that changes it.
    pub(super) fn change(&self) -> Thing {
        Thing::of(&self.state)
    }

    /// Has a background task look at what has changed.
    #[inline]
    pub(crate) fn kick(&self, lane: Lane) {
        if let Some(tasks) = self.tasks.get() {
            tasks.kick(lane);
        }
    }

    pub(crate) fn kick_all(&self) {
        [Lane::Sync, Lane::Prepare, Lane::Publish].into_iter().for_each(|lane| self.kick(lane));
    }

    /// Work that asks the disk, and that other calls wait for. It holds no lock of the log. A panic
    /// in it is an error.
    pub(crate) fn attempt<T>(&self, doing: &'static str, path: &std::path::Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _work = AtWork::on(self);
        strangers::attempt(doing, path, work)
    }

    /// [`Error::Busy`] if a call that waits may wait for itself: the disk, a subscriber or a
    /// recorder makes it, on a thread that works for this log.
    #[inline]
    pub(crate) fn may_wait(&self) -> Result<()> {
        if AtWork::is_on(self) { Err(Error::Busy) } else { Ok(()) }
    }

    /// [`Error::Busy`] if a call that waits until records become durable, or the log is closed, may
    /// wait for itself: on the thread that syncs, in a hook or a waker, or in a hook elsewhere, for
    /// which closing waits. What ends by itself may wait.
    pub(super) fn may_wait_for_sync(&self, state: &LogState, deadline: Option<Instant>) -> Result<()> {
        let syncs = || self.tasks.get().is_some_and(|tasks| tasks.have_this_thread(Lane::Sync));
        let tells = || state.hooks.telling == Some(thread::current().id());
        if deadline.is_none() && (syncs() || tells()) { Err(Error::Busy) } else { Ok(()) }
    }

    /// Tells the owner of an error that no call returns; under no lock.
    pub(crate) fn report(&self, error: &Error) {
        crate::trace::error!(error = %error, dir = %self.dir.path.display(), "background error");
        match &self.options.on_error {
            Some(hook) => {
                let told = BackgroundError { log: self.id, error: error.clone() };
                strangers::run(|| hook(told));
            }
            // Standard error may be closed, or full.
            None => _ = writeln!(io::stderr(), "foreword: {}: {error}", self.dir.path.display()),
        }
    }

    /// Fails the log outside of a flush, and has all waiters look again. What every call says from
    /// here on, and so the one that came upon the error.
    pub(crate) fn poison(&self, mut state: Guard<'_>, error: Error) -> Error {
        let failed = state.fail(&error);
        let failure = state.life.not_failed().err();
        self.kick_all();
        self.wake_everyone(state);
        if failed {
            self.tell_poisoned(&error);
        }
        failure.unwrap_or(error)
    }

    /// All that wait for anything look again.
    pub(crate) fn wake_everyone(&self, mut state: Guard<'_>) {
        let wakers = state.wakers.take_all();
        self.committers.wake(self.committers.release(Slots::ALL));
        self.changed.notify_all();
        drop(state);
        strangers::wake(wakers.into_values());
        self.readable.tails.wake();
    }

    pub(super) fn tell_poisoned(&self, error: &Error) {
        crate::trace::error!(error = %error, dir = %self.dir.path.display(), "the log is poisoned");
    }
}
