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

use crate::bug::bug;

/// Takes a lock of the standard library, which no schedule explores; also if a thread panicked with
/// it.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lock on what is in memory for this process. In one that is forked from it, the thread that has
/// the lock does not exist: there it is not waited for.
#[derive(Debug)]
pub(crate) struct ProcessLock<T> {
    process: u32,
    of: std::sync::Mutex<T>,
}

impl<T> ProcessLock<T> {
    pub(crate) fn new(of: T) -> ProcessLock<T> {
        ProcessLock { process: std::process::id(), of: std::sync::Mutex::new(of) }
    }

    pub(crate) fn is_forked(&self) -> bool {
        bug!(WaitInFork, return false);
        self.process != std::process::id()
    }

    /// `None` in a forked process where it is taken.
    pub(crate) fn lock(&self) -> Option<std::sync::MutexGuard<'_, T>> {
        self.try_lock().or_else(|| (!self.is_forked()).then(|| lock(&self.of)))
    }

    /// `None` where it is taken.
    pub(crate) fn try_lock(&self) -> Option<std::sync::MutexGuard<'_, T>> {
        match self.of.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T: Default> Default for ProcessLock<T> {
    fn default() -> Self {
        ProcessLock::new(T::default())
    }
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

#[cfg(all(test, unix))]
pub(crate) mod fork {
    /// A forked process, in which a test asks something.
    pub(crate) struct Child(libc::pid_t);

    // A fork of a process with threads can be had in no other way.
    #[allow(unsafe_code)]
    impl Child {
        /// The child asks what it is to ask, and ends; if it hangs, after 20 s.
        pub(crate) fn fork(asks: impl FnOnce() -> bool) -> Child {
            // SAFETY: the child calls what a forked process may call of a log, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: it ends this process, if that hangs.
                unsafe { libc::alarm(20) };
                let right = asks();
                // SAFETY: it does not return.
                unsafe { libc::_exit(i32::from(!right)) }
            }
            Child(child)
        }

        /// Its status when it has ended: 0 if the answer was yes.
        pub(crate) fn status(self) -> i32 {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
            status
        }
    }
}

#[cfg(all(test, unix, not(shuttle)))]
mod tests {
    use super::fork::Child;
    use super::*;

    #[test]
    fn a_lock_that_is_taken_at_a_fork_is_not_waited_for_in_the_child() {
        let (free, taken) = (ProcessLock::new(1), ProcessLock::new(2));
        let held = taken.lock();
        let child = Child::fork(|| taken.lock().is_none() && free.lock().is_some_and(|free| *free == 1));
        assert_eq!(child.status(), 0);
        drop(held);
        assert!(taken.lock().is_some());
    }
}
