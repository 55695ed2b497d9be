//! Committing: a thread waits until its record is written or durable. It leads a flush, waits a
//! moment for others to join it, sleeps, or takes turns with others.

use std::time::{Duration, Instant};

use crate::sync::{WaitWord, deadline, yield_now};
use crate::write::inner::LogInner;
use crate::write::state::flushes::Gathering;
use crate::write::state::{Goal, Guard, LogState};
use crate::{Error, Lsn, Result};

/// On how many processors committers may take turns. Asked once, when it first matters: that takes
/// 0.1 ms. Where this thread may use fewer than the process sees (turns would burn a quota, and a
/// pinned thread has no others to yield to), on more than there are.
fn processors() -> usize {
    static PROCESSORS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *PROCESSORS.get_or_init(|| match std::thread::available_parallelism() {
        Ok(usable) if seen_processors().is_none_or(|seen| seen == usable.get()) => usable.get(),
        _ => usize::MAX,
    })
}

/// Those that the process may run on, quota or not.
fn seen_processors() -> Option<usize> {
    #[cfg(target_os = "linux")]
    return Some(
        rustix::thread::sched_getaffinity(rustix::thread::Pid::from_raw(std::process::id() as i32)).ok()?.count() as usize
    );
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether committers that wait take turns. Shuttle, which knows no time, explores both.
fn turns_pay(state: &LogState) -> bool {
    let pay = state.flushes.pace.takes_turns(processors);
    #[cfg(shuttle)]
    let pay = pay || shuttle::rand::Rng::r#gen(&mut shuttle::rand::thread_rng());
    pay
}

impl LogInner {
    /// Returns when everything up to a record is written, or durable.
    pub(crate) fn reach<'a>(&'a self, mut state: Guard<'a>, goal: Goal, sync: bool) -> Result<()> {
        self.dir.check_process()?;
        let lsn = goal.lsn;
        let (mut joined, mut awake) = (false, sync);
        loop {
            let reached = if sync { state.flushes.durable().lsn } else { state.flushes.written() };
            if state.is_cut(goal) || lsn <= reached {
                return Ok(());
            }
            if let Some(error) = state.life.failure() {
                return Err(error.clone());
            }
            if sync && !std::mem::replace(&mut joined, true) {
                self.committers.arrive();
            }
            if state.flushes.begun(sync) < lsn && !state.flushes.is_running() {
                let complete = !sync || self.committers.arrived() >= state.flushes.pace.share();
                if complete || state.flushes.gathering.is_none() {
                    // The thread that completes a group leads its flush. It is running already; the
                    // thread that gathers may still wait for a processor.
                    state = if complete { self.unlock_and_flush(state, sync) } else { self.unlock_and_gather(state) };
                    continue;
                }
            }
            let slot = self.committers.slot(state.flushes.covering(lsn, sync));
            if awake && turns_pay(&state) {
                awake = self.take_turns(state, slot);
            } else {
                let enlisted = slot.enlist();
                drop(state);
                slot.wait(enlisted);
            }
            if sync && self.readable.durable() >= lsn {
                return Ok(());
            }
            state = self.lock();
        }
    }

    /// Waits a moment for threads that are about to commit, and then flushes for all, unless one of
    /// them does.
    #[inline(never)] // What most commits run stays small.
    fn unlock_and_gather<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let flushes = self.committers.flushes();
        let committers = self.committers.arrived();
        let patience = Duration::from_nanos(state.flushes.pace.patience());
        let started = Instant::now();
        state.flushes.gathering = Some(Gathering { flushes, started, committers });
        drop(state);
        let (mut arrived, mut waited, mut last) = (committers, Duration::ZERO, Duration::ZERO);
        while self.committers.flushes() == flushes && waited < last + patience && waited < 2 * patience {
            // They need the processor more than this thread does.
            yield_now();
            waited = started.elapsed();
            let now = self.committers.arrived();
            if now > arrived {
                (arrived, last) = (now, waited);
            }
        }
        let mut state = self.lock();
        if state.flushes.gathering.as_ref().is_none_or(|gathering| gathering.flushes != flushes) {
            return state;
        }
        // It leads, even if its own record has become durable meanwhile by other means: threads
        // that came since sleep until some thread leads.
        if state.has_unsynced() && !state.flushes.is_running() {
            return self.unlock_and_flush(state, true);
        }
        // A flush is under way: its leader wakes the next.
        state.flushes.gathering = None;
        state
    }

    /// Yields the processor to other committers, again and again, until the slot's word changes.
    /// `false`: to go on so makes no sense, and it is time to sleep.
    fn take_turns(&self, state: Guard<'_>, slot: &WaitWord) -> bool {
        let turn = slot.turn();
        let [round, limit] = state.flushes.pace.turns().map(Duration::from_nanos);
        drop(state);
        let (started, mut last) = (Instant::now(), Duration::ZERO);
        while slot.turn() == turn {
            yield_now();
            let now = started.elapsed();
            if now > last + round || now > limit {
                self.lock().flushes.pace.crowded_out();
                return false;
            }
            last = now;
        }
        true
    }

    /// Waits until a record that is there is durable, or was when it was cut (`true`), the time is
    /// over, or the log is closed. [`Error::Busy`] where it might wait for itself.
    pub(crate) fn wait_durable(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        self.dir.check_process()?;
        self.may_wait()?;
        let deadline = deadline(timeout);
        let mut state = self.lock();
        let goal = state.goal_if_appended(lsn)?;
        while !state.has_reached(goal) {
            match state.life.failure() {
                Some(Error::Closed) => return Ok(false),
                Some(error) => return Err(error.clone()),
                None => self.may_wait_for_sync(&state, deadline)?,
            }
            match self.wait_changed_until(state, deadline) {
                Some(changed) => state = changed,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
