//! Runs foreign code: wakers, hooks, subscribers of events, recorders of metrics, the disk. Foreign
//! code runs under no lock, because it may use the log or take long. A panic in foreign code ends
//! here: in the disk's code it is an error, in any other code it has no effect.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use crate::sync::thread_local;
use crate::{Error, Result};

thread_local! {
    /// For which log this thread is at work that others wait for: its address, or 0.
    static AT_WORK: Cell<usize> = const { Cell::new(0) };
}

/// That this thread is at work for a log, while this lives. What a stranger calls meanwhile from
/// here must not wait for that log: it might wait for itself.
pub(crate) struct AtWork(usize);

impl AtWork {
    pub(crate) fn on<T>(log: &T) -> AtWork {
        AtWork(AT_WORK.with(|at| at.replace(std::ptr::from_ref(log).addr())))
    }

    pub(crate) fn is_on<T>(log: &T) -> bool {
        AT_WORK.with(Cell::get) == std::ptr::from_ref(log).addr()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        AT_WORK.with(|at| at.set(self.0));
    }
}

/// Whether it came to its end.
pub(crate) fn run(work: impl FnOnce()) -> bool {
    let ended = catch_unwind(AssertUnwindSafe(work));
    // What was thrown is a stranger's, too, and may panic when it is dropped.
    ended.map_err(|thrown| catch_unwind(AssertUnwindSafe(|| drop(thrown))).map_err(std::mem::forget)).is_ok()
}

pub(crate) fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        run(|| waker.wake());
    }
}

/// Drops a waker that is not needed any more: it may own anything, a reader or another commit too.
pub(crate) fn discard(waker: Option<Waker>) {
    run(|| drop(waker));
}

/// Something that asks the disk: if that panics, it is an error.
pub(crate) fn attempt<T>(doing: &'static str, path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut result = None;
    run(|| result = Some(work()));
    result.unwrap_or_else(|| {
        let source = Arc::new(io::Error::other("a panic meanwhile"));
        Err(Error::Io { doing, path: path.to_owned(), source })
    })
}
