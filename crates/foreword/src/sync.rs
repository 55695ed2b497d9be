//! What threads share: the standard library's, or shuttle's where its schedules explore the commit
//! path (`--cfg shuttle`).

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError, atomic},
    thread::{self, ThreadId, yield_now},
    thread_local,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard, RwLock, atomic},
    thread::{self, ThreadId, yield_now},
    thread_local,
};
#[cfg(shuttle)]
pub(crate) use std::sync::{PoisonError, TryLockError};

#[cfg(shuttle)]
use shuttle::sync::Condvar;
#[cfg(not(shuttle))]
use std::sync::Condvar;
use std::time::{Duration, Instant};

use atomic::{AtomicU32, Ordering::Relaxed};

/// Takes a lock of the standard library, which no schedule explores; also if a thread panicked with
/// it.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a time from now is over; what lies beyond all clocks is no deadline.
pub(crate) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|time| Instant::now().checked_add(time))
}

/// A condition variable that costs nothing while no thread waits: to notify the standard library's
/// is always a system call. All that use one hold the same lock when they begin to wait, and when
/// they change what is waited for.
#[derive(Debug, Default)]
pub(crate) struct Event {
    changed: Condvar,
    waiting: AtomicU32,
}

impl Event {
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Relaxed);
        let guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Relaxed);
        guard
    }

    /// May return early, for nothing.
    pub(crate) fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Relaxed);
        let (guard, _) = self.changed.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Relaxed);
        guard
    }

    /// To be called when something has changed under the lock; with the lock or without.
    pub(crate) fn notify_all(&self) {
        if self.waiting.load(Relaxed) > 0 {
            self.changed.notify_all();
        }
    }
}

/// A word on which a whole group sleeps and is woken by one system call, without a lock that each
/// of them would have to take on waking: a futex. Its lowest bit says that a thread may sleep, so
/// that no system call is made where none does; the others change when sleepers are to wake.
#[derive(Debug, Default)]
pub(crate) struct WaitWord(Word);

impl WaitWord {
    /// Changes when waiting threads are to look again: for a thread that waits without sleeping.
    pub(crate) fn turn(&self) -> u32 {
        self.0.value().load(Relaxed) >> 1
    }

    /// To be called under the lock that guards what is waited for; then [`wait`](WaitWord::wait)
    /// with what it returns.
    pub(crate) fn enlist(&self) -> u32 {
        self.0.value().fetch_or(1, Relaxed) | 1
    }

    /// Sleeps, unless the word has changed since. May return for nothing.
    pub(crate) fn wait(&self, enlisted: u32) {
        self.0.wait(enlisted);
    }

    /// Under that lock, when what all of them wait for is there. Whether
    /// [`wake_all`](WaitWord::wake_all) is to be called, with the lock or without.
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        let before = self.0.value().load(Relaxed);
        self.0.value().store((before | 1).wrapping_add(1), Relaxed);
        before & 1 == 1
    }

    /// Under that lock, when one of them is needed. Whether [`wake_one`](WaitWord::wake_one) is to
    /// be called, with the lock or without.
    #[must_use]
    pub(crate) fn call_one(&self) -> bool {
        self.0.value().fetch_add(2, Relaxed) & 1 == 1
    }

    pub(crate) fn wake_one(&self) {
        self.0.wake_one();
    }

    pub(crate) fn wake_all(&self) {
        self.0.wake_all();
    }
}

#[cfg(not(shuttle))]
#[derive(Debug, Default)]
struct Word(AtomicU32);

#[cfg(not(shuttle))]
impl Word {
    fn value(&self) -> &AtomicU32 {
        &self.0
    }

    fn wait(&self, value: u32) {
        atomic_wait::wait(&self.0, value);
    }

    fn wake_one(&self) {
        atomic_wait::wake_one(&self.0);
    }

    fn wake_all(&self) {
        atomic_wait::wake_all(&self.0);
    }
}

/// A futex as shuttle can have one.
#[cfg(shuttle)]
#[derive(Debug, Default)]
struct Word {
    value: AtomicU32,
    sleepers: Mutex<()>,
    changed: Condvar,
}

#[cfg(shuttle)]
impl Word {
    fn value(&self) -> &AtomicU32 {
        &self.value
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the value and falls asleep in one step, seen from threads that wake.
    fn wait(&self, value: u32) {
        let guard = self.lock();
        if self.value.load(Relaxed) == value {
            drop(self.changed.wait(guard));
        }
    }

    fn wake_one(&self) {
        drop(self.lock());
        self.changed.notify_one();
    }

    fn wake_all(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }
}
