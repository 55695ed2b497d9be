//! Waiting: until a record is written or durable, in a thread or a future; committers who lead a flush, sleep, or take turns.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::bug::{self, Bug};
use crate::error::Damage;
use crate::files::disk::Access;
use crate::files::segment::Dir;
use crate::read::chain::{Chain, End, Source};
use crate::read::recent::{Places, Recent};
use crate::strangers;
use crate::sync::atomic::Ordering;
use crate::sync::{PoisonError, WaitWord, deadline, yield_now};
use crate::write::commit::{Goal, Guard, SLOTS, Shared, State};
use crate::write::runtime::Lane;
use crate::{Error, Lsn, Result};

/// On how many processors committers may take turns; asked once, when it first matters: that takes 0.1 ms. Where this thread may use fewer than the process
/// sees (a quota would be burnt by it, a pinned thread has no others to yield to), on more than there are.
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
fn turns_pay(state: &State) -> bool {
    let pay = state.pace.takes_turns(processors);
    #[cfg(shuttle)]
    let pay = pay || shuttle::rand::Rng::r#gen(&mut shuttle::rand::thread_rng());
    pay
}

impl Shared {
    /// Returns when everything up to a record is written, or durable.
    pub(crate) fn reach<'a>(&'a self, mut state: Guard<'a>, goal: Goal, sync: bool) -> Result<()> {
        self.dir.check_process()?;
        let lsn = goal.lsn;
        let (mut joined, mut awake) = (false, sync);
        loop {
            if state.is_cut(goal) || lsn <= if sync { state.durable.lsn } else { state.written } {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if sync && !std::mem::replace(&mut joined, true) {
                self.arrived.fetch_add(1, Ordering::Relaxed);
            }
            let launched = if sync { state.launched_synced } else { state.launched };
            if launched < lsn && !state.is_aloft() {
                let complete = !sync || self.arrived.load(Ordering::Relaxed) >= state.pace.share();
                if complete || state.gathering.is_none() {
                    // Who completes the group leads it: it has the processor, and the one that began to gather may have to wait for it.
                    state = if complete { self.fly(state, sync) } else { self.gather(state) };
                    continue;
                }
            }
            // Asleep on the flight that covers the record, or on the next, which will; or awake, if it is to be.
            let covering = state.flights.iter().find(|f| f.reach.lsn >= lsn && (f.sync || !sync));
            let slot = &self.slots[covering.map_or(state.next_flight, |f| f.id) as usize % SLOTS];
            if awake && turns_pay(&state) {
                awake = self.take_turns(state, slot);
            } else {
                let enlisted = slot.enlist();
                drop(state);
                slot.wait(enlisted);
            }
            if sync && self.durable.load(Ordering::Acquire) >= lsn.0 {
                return Ok(());
            }
            state = self.lock();
        }
    }

    /// Yields the processor to other committers, again and again, until the slot's word changes. Whether it makes sense to go on so: if not, it is time to sleep.
    fn take_turns(&self, state: Guard<'_>, slot: &WaitWord) -> bool {
        let turn = slot.turn();
        let [round, limit] = state.pace.turns().map(Duration::from_nanos);
        drop(state);
        let (started, mut last) = (Instant::now(), Duration::ZERO);
        while slot.turn() == turn {
            yield_now();
            let now = started.elapsed();
            if now > last + round || now > limit {
                self.lock().pace.crowded_out();
                return false;
            }
            last = now;
        }
        true
    }

    pub(crate) fn wait_changed<'a>(&'a self, state: Guard<'a>) -> Guard<'a> {
        self.changed.wait(state)
    }

    /// The same until a time, if there is one; `None` when it is over.
    fn wait_changed_until<'a>(&'a self, state: Guard<'a>, deadline: Option<Instant>) -> Option<Guard<'a>> {
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => None,
            Some(left) => Some(self.changed.wait_timeout(state, left)),
            None => Some(self.wait_changed(state)),
        }
    }

    /// Waits until a record that is there is durable, or was when it was cut (`true`), the time is over, or the log is closed.
    pub(crate) fn wait_durable(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        self.dir.check_process()?;
        self.may_wait()?;
        let deadline = deadline(timeout);
        let mut state = self.lock();
        let goal = state.goal(state.appended(lsn)?);
        while !state.has_reached(goal) {
            match &state.failed {
                Some(Error::Closed) => return Ok(false),
                Some(error) => return Err(error.clone()),
                None => {}
            }
            match self.wait_changed_until(state, deadline) {
                Some(changed) => state = changed,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// For a [`Commit`]: whether its record is durable; if not, the waker is kept, under an id by which it is found again.
    pub(crate) fn poll_durable(&self, goal: Goal, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<()>> {
        let lsn = goal.lsn;
        if self.durable.load(Ordering::Acquire) >= lsn.0 {
            return Poll::Ready(Ok(()));
        }
        self.dir.check_process()?;
        // To clone it runs its code. (What is declared before the guard is dropped after it.)
        let waker = waker.clone();
        let before;
        let mut state = self.lock();
        if state.has_reached(goal) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let id = *id.get_or_insert_with(|| {
            state.waker_ids += 1;
            state.waker_ids
        });
        before = state.wakers.insert((lsn, id), waker);
        // Somebody must lead its flight: the background thread, unless a committer comes first.
        if state.launched_synced < lsn {
            state.idle = false;
            self.kick(Lane::Sync);
        }
        drop(state);
        strangers::discard(before);
        Poll::Pending
    }

    /// A [`Commit`] that is not waited for any more.
    pub(crate) fn forget(&self, lsn: Lsn, id: u64) {
        let Some(mut state) = self.peek() else { return };
        let forgotten = state.wakers.remove(&(lsn, id));
        if bug::is(Bug::ForgetOthers) {
            state.wakers.retain(|(other, _), _| *other != lsn);
        }
        drop(state);
        strangers::discard(forgotten);
    }
}

impl Source for Shared {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(Lsn(self.durable.load(Ordering::Acquire)))
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn attend(&self, at: &Arc<std::sync::atomic::AtomicU64>) {
        self.tails.attend(at);
        self.kick(Lane::Publish);
    }

    fn wait(&self, end: End, deadline: Option<Instant>) -> Result<bool> {
        self.dir.check_process()?;
        self.may_wait()?;
        let mut state = self.lock();
        loop {
            if let Some(news) = state.news(end)? {
                return Ok(news);
            }
            match self.wait_changed_until(state, deadline) {
                Some(changed) => state = changed,
                None => return Ok(false),
            }
        }
    }

    fn poll(self: Arc<Self>, end: End, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<bool>> {
        // Kept before it is looked whether it is needed: what changes after that wakes it.
        let waker = waker.clone();
        let before = self.tails.wakers().keep(id, (), waker);
        strangers::discard(before);
        let news = self.lock().news(end);
        news.transpose().map_or(Poll::Pending, Poll::Ready)
    }

    fn forget(&self, id: u64) {
        let forgotten = self.tails.wakers().forget(id);
        strangers::discard(forgotten);
    }

    fn recent(&self) -> Option<&Recent> {
        Some(&self.recent)
    }

    fn places(&self) -> Option<&Places> {
        Some(&self.places)
    }

    /// When the log is closed, another opening may have dropped or recycled the file since: only what still bears the log's evidence is damage.
    fn judge(&self, error: Error) -> Error {
        if !self.lock().closed {
            return error;
        }
        let path = match &error {
            Error::Corruption(damage) => &damage.path,
            Error::Io { path, .. } => path,
            _ => return error,
        };
        let epoch = self.chain().entries.iter().map(|e| e.epoch).find(|&epoch| self.dir.segment(epoch) == *path);
        let there = |epoch| matches!(self.dir.open_segment(Some(self.log), epoch, Access::Read), Ok(Ok(_)));
        if epoch.is_some_and(there) { error } else { Error::Closed }
    }
}
