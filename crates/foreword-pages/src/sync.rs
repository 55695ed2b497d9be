//! Locks of the standard library, without its poisoning: [`file`](crate::file) poisons the store
//! where a panic matters.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, also if a thread panicked while it held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
