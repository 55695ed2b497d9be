//! Readers at the tail: which there are, and how they wait.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use crate::read::source::{End, Source};
use crate::sync::ProcessLock;
use crate::{Lsn, Result};

/// The readers that follow a log's tail.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    there: ProcessLock<Vec<Weak<AtomicU64>>>,
    wakers: ProcessLock<Wakers>,
}

impl Tails {
    pub(crate) fn attend(&self, at: &Arc<AtomicU64>) {
        if let Some(mut tails) = self.those_there() {
            tails.push(Arc::downgrade(at));
        }
    }

    /// How many there are, and the last LSN that the slowest has read.
    pub(crate) fn slowest(&self) -> (u64, Lsn) {
        let Some(tails) = self.those_there() else { return (0, Lsn::ZERO) };
        let read = tails.iter().filter_map(|tail| Some(tail.upgrade()?.load(Ordering::Relaxed)));
        (tails.len() as u64, Lsn(read.min().unwrap_or(0)))
    }

    pub(crate) fn wakers(&self) -> Option<MutexGuard<'_, Wakers>> {
        self.wakers.lock()
    }

    /// Wakes all that wait. No lock is held that they might take.
    pub(crate) fn wake(&self) {
        let wakers = self.wakers().map(|mut wakers| wakers.take(|()| true)).unwrap_or_default();
        if !wakers.is_empty() {
            crate::strangers::wake(wakers);
        }
    }

    fn those_there(&self) -> Option<MutexGuard<'_, Vec<Weak<AtomicU64>>>> {
        let mut tails = self.there.lock()?;
        tails.retain(|tail| tail.strong_count() > 0);
        Some(tails)
    }
}

/// Completes when it is worth reading again.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) source: Arc<dyn Source>,
    pub(super) end: End,
    /// Under which its waker is kept.
    pub(super) id: Option<u64>,
}

impl Future for Tail {
    type Output = Result<bool>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        let Tail { source, end, id } = &mut *self;
        source.clone().poll(*end, id, cx.waker())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.source.forget(id);
        }
    }
}

/// Wakers of readers that wait, by the ids under which they are found again.
#[derive(Debug)]
pub(crate) struct Wakers<T = ()> {
    kept: BTreeMap<u64, (T, Waker)>,
    last_id: u64,
}

impl<T> Default for Wakers<T> {
    fn default() -> Self {
        Wakers { kept: BTreeMap::new(), last_id: 0 }
    }
}

impl<T> Wakers<T> {
    /// Keeps one, under its id or a new one. What it replaces is returned: it may own anything, and
    /// is not to be dropped under a lock.
    pub(crate) fn keep(&mut self, id: &mut Option<u64>, of: T, waker: Waker) -> Option<Waker> {
        let id = *id.get_or_insert_with(|| {
            self.last_id += 1;
            self.last_id
        });
        self.kept.insert(id, (of, waker)).map(|(_, before)| before)
    }

    pub(crate) fn forget(&mut self, id: u64) -> Option<Waker> {
        self.kept.remove(&id).map(|(_, waker)| waker)
    }

    /// Takes out those for which something holds.
    pub(crate) fn take(&mut self, of: impl Fn(&T) -> bool) -> Vec<Waker> {
        // (Asked with every flush, when there are mostly none.)
        if self.kept.is_empty() || !self.kept.values().any(|(what, _)| of(what)) {
            return Vec::new();
        }
        let (taken, left): (BTreeMap<_, _>, _) = std::mem::take(&mut self.kept).into_iter().partition(|(_, (what, _))| of(what));
        self.kept = left;
        taken.into_values().map(|(_, waker)| waker).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
