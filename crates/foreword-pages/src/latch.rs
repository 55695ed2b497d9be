//! The latch of a page, and the page that it protects.
//!
//! Invariant: a latch is held by owners (transactions, sessions), not by threads. A guard that has
//! the latch shared has a reference to the page's bytes; the one that has it exclusively has taken
//! the page out. So a guard borrows nothing, and may be kept and moved. (A change of one place has
//! no guard: it is made in place, with the latch's state locked.)
//!
//! Invariant: nothing waits without end. An owner that waits for itself is told at once, and one
//! that waits for others after [`PATIENCE`]. (A page that is being loaded is waited for as long as
//! that takes: its loader waits for no latch.)

use std::time::{Duration, Instant};

use crate::page::Page;
use crate::sabotage::{self, Bug};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError, hint, lock, thread};

/// How long an owner waits for another: longer than any operation takes that does not wait itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a latch is looked at before its thread sleeps: most latches are held for less time
/// than falling asleep takes. (Of schedules, nearly all would sleep nowhere.)
const LOOKS: u32 = if cfg!(shuttle) { 1 } else { 20 };

/// Which transaction or session holds a latch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    /// Recovery, and callers that hold one latch at most: one does not wait for itself.
    pub(crate) const NONE: Owner = Owner(0);

    pub(crate) fn transaction(id: u64) -> Owner {
        Owner(id << 1 | 1)
    }

    /// `number` is not zero.
    pub(crate) fn session(number: u64) -> Owner {
        Owner(number << 1)
    }
}

/// The owner would wait for itself, or has waited for others for too long.
#[derive(Debug)]
pub(crate) struct Deadlock;

/// Whether a call waits for a latch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    Bounded,
}

#[derive(Debug)]
pub(crate) struct Latch {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None`: the exclusive guard has the page, or it is being loaded.
    page: Option<Page>,
    is_loading: bool,
    /// The owner of each guard. One, if the latch is exclusive.
    holders: Vec<Owner>,
    is_exclusive: bool,
    keep: Keep,
    /// Of those that wait, how many would change the page. They come before new readers.
    writers: u32,
    waiting: u32,
}

/// Whether an exclusive latch outlives its guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    No,
    /// It does, and there is a guard.
    WithGuard,
    /// It has outlived its guard. Its owner can have another.
    Alone,
}

impl Latch {
    pub(crate) fn new(page: Page) -> Latch {
        let (keep, holders) = (Keep::No, Vec::new());
        let state = State { page: Some(page), is_loading: false, holders, is_exclusive: false, keep, writers: 0, waiting: 0 };
        Latch { state: Mutex::new(state), freed: Condvar::new() }
    }

    /// Takes the latch shared. `None`: it would have to wait.
    pub(crate) fn share(&self, owner: Owner, wait: Wait) -> Result<Option<Page>, Deadlock> {
        self.take(owner, wait, false, |state| {
            let is_free = !state.is_exclusive && state.writers == 0;
            (is_free || state.regain(owner)).then(|| state.page.clone())?
        })
    }

    /// Takes the latch exclusively. `None`: it would have to wait.
    pub(crate) fn exclude(&self, owner: Owner, wait: Wait) -> Result<Option<Page>, Deadlock> {
        self.take(owner, wait, true, |state| {
            if !state.regain(owner) && !state.holders.is_empty() {
                return None;
            }
            state.is_exclusive = true;
            state.page.take()
        })
    }

    /// Changes the page while no guard has it: as an exclusive guard that lives only so long, but
    /// in place. Meanwhile others wait for `work`, which waits for no latch.
    pub(crate) fn change<T>(&self, owner: Owner, work: impl FnOnce(&mut Page) -> T) -> Result<T, Deadlock> {
        let is_free = |state: &mut State| (state.holders.is_empty() && state.page.is_some()).then_some(());
        let found = self.wait_for(Wait::Bounded, owner, true, is_free)?;
        found.and_then(|(mut state, ())| state.page.as_mut().map(work)).ok_or(Deadlock)
    }

    /// Looks at the page as soon as no guard can be changing it, without the latch. `None`: it
    /// would have to wait.
    pub(crate) fn look<T>(&self, wait: Wait, look: impl FnOnce(&Page) -> T) -> Result<Option<T>, Deadlock> {
        let found = self.wait_for(wait, Owner::NONE, false, |state| state.page.is_some().then_some(()))?;
        Ok(found.and_then(|(state, ())| state.page.as_ref().map(look)))
    }

    fn take(
        &self,
        owner: Owner,
        wait: Wait,
        is_writer: bool,
        attempt: impl Fn(&mut State) -> Option<Page>,
    ) -> Result<Option<Page>, Deadlock> {
        let Some((mut state, page)) = self.wait_for(wait, owner, is_writer, attempt)? else { return Ok(None) };
        if state.keep != Keep::WithGuard && (is_writer || !sabotage::has(Bug::ReaderUncounted)) {
            state.holders.push(owner);
        }
        Ok(Some(page))
    }

    /// Waits until an attempt succeeds. `None`: it would have to wait.
    fn wait_for<T>(
        &self,
        wait: Wait,
        owner: Owner,
        is_writer: bool,
        attempt: impl Fn(&mut State) -> Option<T>,
    ) -> Result<Option<(MutexGuard<'_, State>, T)>, Deadlock> {
        let mut state = match wait {
            Wait::Bounded => lock(&self.state),
            Wait::No => match self.try_lock() {
                Some(state) => state,
                None => return Ok(None),
            },
        };
        if let Some(found) = attempt(&mut state) {
            return Ok(Some((state, found)));
        }
        // What is in the way waits for this owner. So waiting would not end.
        if state.holders.contains(&owner) && owner != Owner::NONE && !sabotage::has(Bug::WaitForItself) {
            return Err(Deadlock);
        }
        if wait == Wait::No {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            drop(state);
            hint::spin_loop();
            state = lock(&self.state);
            if let Some(found) = attempt(&mut state) {
                return Ok(Some((state, found)));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        state.waiting += 1;
        state.writers += u32::from(is_writer);
        let found = loop {
            // Those that wait longest are not told apart: the first that comes has the latch.
            state.writers -= u32::from(is_writer);
            if let Some(found) = attempt(&mut state) {
                break Some(found);
            }
            state.writers += u32::from(is_writer);
            let left = deadline.saturating_duration_since(Instant::now());
            state = match state.is_loading {
                true => self.freed.wait(state).unwrap_or_else(PoisonError::into_inner),
                false if left.is_zero() => {
                    state.writers -= u32::from(is_writer);
                    break None;
                }
                false => self.freed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        };
        state.waiting -= 1;
        match found {
            Some(found) => Ok(Some((state, found))),
            None => {
                // Readers may have waited only for this writer.
                self.freed.notify_all();
                Err(Deadlock)
            }
        }
    }

    /// The state, unless it is locked for longer than looking at it takes: the page is being
    /// changed in place.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        (0..LOOKS).find_map(|look| {
            if look > 0 {
                thread::yield_now();
            }
            match self.state.try_lock() {
                Ok(state) => Some(state),
                Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        })
    }

    /// Makes an only guard's shared latch exclusive. The guard has given its page back.
    pub(crate) fn upgrade(&self) -> Option<Page> {
        let mut state = lock(&self.state);
        if state.holders.len() != 1 && !sabotage::has(Bug::UpgradeBeside) {
            return None;
        }
        state.is_exclusive = true;
        state.page.take()
    }

    /// The page, for a guard that has the latch and gave the page back.
    pub(crate) fn page(&self) -> Option<Page> {
        lock(&self.state).page.clone()
    }

    /// Makes a guard's exclusive latch shared.
    pub(crate) fn downgrade(&self, page: Page) {
        let mut state = lock(&self.state);
        state.page = Some(page);
        // A latch that is kept stays exclusive.
        state.is_exclusive = state.keep != Keep::No;
        self.tell(&state);
    }

    /// Gives a guard's latch back. `page`: what an exclusive guard has taken.
    pub(crate) fn release(&self, owner: Owner, page: Option<Page>) {
        let mut state = lock(&self.state);
        if page.is_some() {
            state.page = page;
        }
        match state.keep {
            Keep::No => state.remove(owner),
            Keep::WithGuard | Keep::Alone => state.keep = Keep::Alone,
        }
        self.tell(&state);
    }

    /// Lets an exclusive latch outlive its guard, until [`let_go`](Latch::let_go). `false`: it does
    /// already.
    pub(crate) fn keep(&self) -> bool {
        let mut state = lock(&self.state);
        std::mem::replace(&mut state.keep, Keep::WithGuard) == Keep::No
    }

    /// A latch that was [kept](Latch::keep) ends with its guard, or now if there is none.
    pub(crate) fn let_go(&self, owner: Owner) {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.keep, Keep::No) == Keep::Alone {
            state.remove(owner);
            self.tell(&state);
        } else {
            // The guard may have been downgraded.
            state.is_exclusive = state.page.is_none();
            self.tell(&state);
        }
    }

    /// Takes the page out to load another. The caller knows that there is no guard.
    pub(crate) fn begin_loading(&self) -> Option<Page> {
        let mut state = lock(&self.state);
        (state.is_loading, state.is_exclusive) = (true, true);
        state.page.take()
    }

    pub(crate) fn end_loading(&self, page: Page) {
        let mut state = lock(&self.state);
        (state.is_loading, state.is_exclusive, state.page) = (false, false, Some(page));
        if !sabotage::has(Bug::LoadedUntold) {
            self.tell(&state);
        }
    }

    /// Waits until the page is loaded, or that has failed.
    pub(crate) fn wait_loaded(&self) {
        let mut state = lock(&self.state);
        state.waiting += 1;
        while state.is_loading {
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }

    fn tell(&self, state: &State) {
        if state.waiting > 0 && !sabotage::has(Bug::LatchWakesNone) {
            self.freed.notify_all();
        }
    }
}

impl State {
    /// Gives a latch that outlived its guard back to its owner.
    fn regain(&mut self, owner: Owner) -> bool {
        let regains = self.keep == Keep::Alone && self.holders.contains(&owner);
        if regains {
            self.keep = Keep::WithGuard;
        }
        regains
    }

    fn remove(&mut self, owner: Owner) {
        if let Some(at) = self.holders.iter().rposition(|&holder| holder == owner) {
            self.holders.swap_remove(at);
        }
        if self.holders.is_empty() {
            self.is_exclusive = false;
        }
    }
}
