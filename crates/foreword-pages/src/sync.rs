//! What threads share: the standard library's, or shuttle's where its schedules explore the latches
//! (`--cfg shuttle`). Without poisoning: [`file`](crate::file) poisons the store where a panic
//! matters. (The threads of recovery are always the standard library's: schedules open a store with
//! one thread.)

#[cfg(not(shuttle))]
pub(crate) use std::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread::{self, sleep},
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};

pub(crate) use std::sync::{PoisonError, TryLockError};

/// Shuttle knows no time: others go on meanwhile.
#[cfg(shuttle)]
pub(crate) fn sleep(_: std::time::Duration) {
    thread::yield_now();
}

/// Takes a lock, also if a thread panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
