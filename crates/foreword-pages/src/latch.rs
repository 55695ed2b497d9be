//! Latches of pages, taken so that no thread waits for itself.
//!
//! Invariant: a call takes one latch at a time, and gives it back before the call returns. Only the
//! latch of a [`PageRef`](crate::PageRef) outlives its call, and its thread keeps a list of those
//! ([`Held`]).
//!
//! So in every circle of threads that wait for each other, a thread holds such a latch. That thread
//! does not wait without end, neither for a latch nor for a lock whose holder may wait for a latch
//! ([`lock_or_deadlock`]).

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use crate::page::Page;
use crate::sync::lock;

/// How long a thread that holds pages waits for another thread: longer than any operation takes
/// that does not wait itself.
const PATIENCE: Duration = Duration::from_secs(10);

thread_local! {
    /// The latches that this thread holds, by their addresses.
    static HELD: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The thread would wait for itself, or for a thread that waits for it.
pub(crate) struct Deadlock;

/// The latch of a page.
#[derive(Debug)]
pub(crate) struct Latch(RwLock<Page>);

/// Notes that this thread holds a latch, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held(usize);

impl Latch {
    pub(crate) fn new(page: Page) -> Latch {
        Latch(RwLock::new(page))
    }

    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'_, Page>, Deadlock> {
        self.take(|| self.0.read().unwrap_or_else(PoisonError::into_inner), || now(self.0.try_read()))
    }

    pub(crate) fn write(&self) -> Result<RwLockWriteGuard<'_, Page>, Deadlock> {
        self.take(|| self.0.write().unwrap_or_else(PoisonError::into_inner), || now(self.0.try_write()))
    }

    /// As [`write`](Latch::write). The caller knows that no thread has the latch.
    pub(crate) fn write_free(&self) -> RwLockWriteGuard<'_, Page> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this thread holds the latch after the call that took it.
    pub(crate) fn held(&self) -> Held {
        let held = Held(self.address());
        with_held(|all| all.push(held.0));
        held
    }

    fn take<G>(&self, wait: impl FnOnce() -> G, attempt: impl Fn() -> Option<G>) -> Result<G, Deadlock> {
        match with_held(|all| all.contains(&self.address())) {
            // A thread that is in the way waits for this thread. So waiting would not end.
            true => attempt().ok_or(Deadlock),
            false => take(wait, attempt),
        }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

/// Takes a lock whose holder may wait for latches.
pub(crate) fn lock_or_deadlock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>, Deadlock> {
    take(|| lock(mutex), || now(mutex.try_lock()))
}

/// Waits; but if this thread holds latches, not without end.
fn take<G>(wait: impl FnOnce() -> G, attempt: impl Fn() -> Option<G>) -> Result<G, Deadlock> {
    if !with_held(|all| !all.is_empty()) {
        return Ok(wait());
    }
    let started = Instant::now();
    loop {
        if let Some(guard) = attempt() {
            return Ok(guard);
        }
        if started.elapsed() > PATIENCE {
            return Err(Deadlock);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Passes on the list of what this thread holds. A thread that is ending has no list any more, and
/// counts as holding nothing.
fn with_held<R: Default>(look: impl FnOnce(&mut Vec<usize>) -> R) -> R {
    HELD.try_with(|held| look(&mut held.borrow_mut())).unwrap_or_default()
}

impl Drop for Held {
    fn drop(&mut self) {
        with_held(|all| {
            if let Some(at) = all.iter().rposition(|&at| at == self.0) {
                all.swap_remove(at);
            }
        });
    }
}

/// The guard, if it can be had at once. A panic under the lock left nothing half done.
fn now<G>(attempt: Result<G, TryLockError<G>>) -> Option<G> {
    match attempt {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
