//! A log that stands still, as a source for readers.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::format::Chain;
use crate::read::reader::Reader;
use crate::read::source::{End, Source};
use crate::{Lsn, Result};

/// A log that stands still: what a fork copies from.
#[derive(Debug)]
pub(crate) struct Snapshot {
    dir: Dir,
    chain: Arc<Chain>,
    last: Lsn,
}

impl Snapshot {
    /// A reader over the records from one LSN to another, even if they were dropped by a truncation
    /// that left them in their segment.
    pub(crate) fn reader(dir: &Dir, chain: &Chain, from: Lsn, last: Lsn) -> Reader {
        let chain = Arc::new(Chain { start: from, ..chain.clone() });
        Reader::new(Arc::new(Snapshot { dir: dir.clone(), chain, last }), from)
    }
}

impl Source for Snapshot {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.chain.clone()
    }

    fn version(&self) -> u64 {
        0
    }

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(self.last)
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn wait(&self, _end: End, _deadline: Option<Instant>) -> Result<bool> {
        Ok(false)
    }

    fn poll(self: Arc<Self>, _end: End, _id: &mut Option<u64>, _waker: &Waker) -> Poll<Result<bool>> {
        Poll::Ready(Ok(false))
    }

    fn forget(&self, _id: u64) {}
}
