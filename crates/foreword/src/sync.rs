//! What threads share: the standard library's, or shuttle's where its schedules explore the commit path (`--cfg shuttle`).

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, atomic},
    thread::yield_now,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread::yield_now,
};
#[cfg(shuttle)]
pub(crate) use std::sync::PoisonError;

/// A word on which a whole group sleeps and is woken by one system call, without a lock that each of them would have to take on waking: a futex.
#[cfg(not(shuttle))]
#[derive(Debug, Default)]
pub(crate) struct WaitWord(atomic::AtomicU32);

#[cfg(not(shuttle))]
impl WaitWord {
    /// To be read under the lock that guards what is waited for.
    pub(crate) fn read(&self) -> u32 {
        self.0.load(atomic::Ordering::Relaxed)
    }

    /// To be called under that lock, when it has changed; then one of the wakes, with the lock or without.
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, atomic::Ordering::Relaxed);
    }

    /// Sleeps, unless the word has changed since it was read. May return for nothing.
    pub(crate) fn wait(&self, seen: u32) {
        atomic_wait::wait(&self.0, seen);
    }

    pub(crate) fn wake_one(&self) {
        atomic_wait::wake_one(&self.0);
    }

    pub(crate) fn wake_all(&self) {
        atomic_wait::wake_all(&self.0);
    }
}

#[cfg(shuttle)]
#[derive(Debug, Default)]
pub(crate) struct WaitWord {
    word: Mutex<u32>,
    changed: Condvar,
}

#[cfg(shuttle)]
impl WaitWord {
    fn lock(&self) -> MutexGuard<'_, u32> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> u32 {
        *self.lock()
    }

    pub(crate) fn bump(&self) {
        *self.lock() += 1;
    }

    pub(crate) fn wait(&self, seen: u32) {
        let word = self.lock();
        if *word == seen {
            drop(self.changed.wait(word));
        }
    }

    pub(crate) fn wake_one(&self) {
        self.changed.notify_one();
    }

    pub(crate) fn wake_all(&self) {
        self.changed.notify_all();
    }
}
