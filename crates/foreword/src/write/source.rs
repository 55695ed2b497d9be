//! The log as a source for readers of this process, and how they wait for more.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::format::Chain;
use crate::read::recent::{Places, Recent};
use crate::read::source::{End, Source};
use crate::strangers;
use crate::write::inner::LogInner;
use crate::write::runtime::Lane;
use crate::{Error, Lsn, Result};

impl Source for LogInner {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.readable.chain()
    }

    fn version(&self) -> u64 {
        self.readable.version()
    }

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(self.readable.durable())
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn attend(&self, at: &Arc<AtomicU64>) {
        self.readable.tails.attend(at);
        self.kick(Lane::Publish);
    }

    fn wait(&self, end: End, deadline: Option<Instant>) -> Result<bool> {
        self.dir.check_process()?;
        self.may_wait()?;
        let mut state = self.lock();
        loop {
            if let Some(news) = state.news(end)? {
                return Ok(news);
            }
            self.may_wait_for_sync(&state, deadline)?;
            match self.wait_changed_until(state, deadline) {
                Some(changed) => state = changed,
                None => return Ok(false),
            }
        }
    }

    fn poll(self: Arc<Self>, end: End, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<bool>> {
        self.dir.check_process()?;
        // The waker is kept before the state is read: a change after that wakes it.
        let waker = waker.clone();
        let before = self.readable.tails.wakers().and_then(|mut wakers| wakers.keep(id, (), waker));
        strangers::discard(before);
        let news = self.lock().news(end);
        news.transpose().map_or(Poll::Pending, Poll::Ready)
    }

    fn forget(&self, id: u64) {
        let forgotten = self.readable.tails.wakers().and_then(|mut wakers| wakers.forget(id));
        strangers::discard(forgotten);
    }

    fn recent(&self) -> Option<&Recent> {
        Some(&self.readable.recent)
    }

    fn places(&self) -> Option<&Places> {
        Some(&self.readable.places)
    }

    /// When the log is closed, another opening may have dropped or recycled the file since: it is
    /// damage only if the file still bears the log's evidence.
    fn judge(&self, error: Error) -> Error {
        if self.peek().is_none_or(|state| !state.life.closed) {
            return error;
        }
        let path = match &error {
            Error::Corruption(damage) => &damage.path,
            Error::Io { path, .. } => path,
            _ => return error,
        };
        let epoch = self.chain().entries.iter().map(|e| e.epoch).find(|&epoch| self.dir.segment(epoch) == *path);
        let there = |epoch| matches!(self.dir.open_segment(Some(self.id), epoch, Access::Read), Ok(Ok(_)));
        if epoch.is_some_and(there) { error } else { Error::Closed }
    }
}
