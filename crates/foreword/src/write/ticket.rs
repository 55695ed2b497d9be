//! Waiting for durability without a thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::strangers;
use crate::write::inner::LogInner;
use crate::write::runtime::Lane;
use crate::write::state::Goal;
use crate::{Lsn, Result};

/// A future that completes when a record (or batch) is durable, with its first LSN. Works on any
/// executor.
///
/// The record is appended already: dropping the future gives up only the waiting (so it is
/// cancel-safe). Without the background thread
/// ([`Options::background`](crate::Options::background)) it completes only when a call syncs.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
/// # fn block_on<F: std::future::IntoFuture>(f: F) -> F::Output {
/// #     let mut f = std::pin::pin!(f.into_future());
/// #     struct Unpark(std::thread::Thread);
/// #     impl std::task::Wake for Unpark { fn wake(self: std::sync::Arc<Self>) { self.0.unpark() } }
/// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
/// #     let mut cx = std::task::Context::from_waker(&waker);
/// #     loop {
/// #         if let std::task::Poll::Ready(v) = f.as_mut().poll(&mut cx) { return v; }
/// #         std::thread::park();
/// #     }
/// # }
/// let commits: Vec<_> = (0..1000).map(|i| log.commit_async(format!("record {i}").as_bytes())).collect::<Result<_, _>>()?;
/// for commit in commits {
///     block_on(commit)?; // any executor: this one is ten lines of std
/// }
/// assert_eq!(log.durable_lsn().0, 1000);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a commit that is not awaited may become durable at any time, or never"]
pub struct Commit {
    log: Arc<LogInner>,
    first: Lsn,
    last: Goal,
    /// Under which its waker is kept.
    id: Option<u64>,
}

impl Commit {
    pub(crate) fn new(log: Arc<LogInner>, first: Lsn, last: Goal) -> Commit {
        Commit { log, first, last, id: None }
    }

    /// The LSN of the record, or of the first of the batch: known before it is durable.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.first
    }
}

impl Future for Commit {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Lsn>> {
        let Commit { log, first, last, id } = &mut *self;
        log.poll_durable(*last, id, cx.waker()).map(|done| done.map(|()| *first))
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.log.forget_waker(self.last.lsn, id);
        }
    }
}

impl LogInner {
    /// Whether a record is durable; if not, the waker is kept, under an id by which it is found
    /// again.
    fn poll_durable(&self, goal: Goal, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<()>> {
        let lsn = goal.lsn;
        if self.readable.durable() >= lsn {
            return Poll::Ready(Ok(()));
        }
        self.dir.check_process()?;
        // A waker's code runs when it is cloned and when it is dropped: neither under the lock.
        // (What is declared before the guard is dropped after it.)
        let waker = waker.clone();
        let before;
        let mut state = self.lock();
        if state.has_reached(goal) {
            return Poll::Ready(Ok(()));
        }
        state.life.not_failed()?;
        before = state.wakers.keep(lsn, id, waker);
        // The background leads the record's flush, unless a committer comes first.
        if state.flushes.begun_synced() < lsn {
            state.requests.idle = false;
            self.kick(Lane::Sync);
        }
        drop(state);
        strangers::discard(before);
        Poll::Pending
    }

    /// A future gives up waiting.
    fn forget_waker(&self, lsn: Lsn, id: u64) {
        let Some(mut state) = self.peek() else { return };
        let forgotten = state.wakers.forget(lsn, id);
        drop(state);
        strangers::discard(forgotten);
    }
}
