//! Locks, and calls of code that is not ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic: no foreign code runs under a lock, so no panic leaves the
/// contents half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs foreign code, and catches a panic in it, or in dropping the panic's payload.
pub(crate) fn run(work: impl FnOnce()) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(work)) {
        _ = catch_unwind(AssertUnwindSafe(|| drop(thrown))).map_err(std::mem::forget);
    }
}
