//! Where readers read from: a log of this process, one of another, or one that stands still.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::format::Chain;
use crate::read::recent::{Places, Recent};
use crate::{Error, Lsn, Result};

/// Where a reader's log comes from.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    fn dir(&self) -> &Dir;
    /// The chain as it is now. Cheap if nothing has changed.
    fn chain(&self) -> Arc<Chain>;
    /// A number that changes whenever the chain does.
    fn version(&self) -> u64;
    /// The last LSN that may be read, looking for news if the reader has seen all up to `seen`.
    fn limit(&self, seen: Lsn) -> Result<Lsn>;
    /// Why the log ends where it does, if it should not.
    fn damage(&self) -> Option<Damage>;
    /// Takes note of a reader that follows the tail, by the last LSN that it has read.
    fn attend(&self, _at: &Arc<AtomicU64>) {}
    /// Waits until it is worth reading again (`true`), the time is over, or the log is closed.
    fn wait(&self, end: End, deadline: Option<Instant>) -> Result<bool>;
    /// As `wait`, without blocking: the waker is kept, under an id by which it is found again,
    /// until it is called or forgotten. `Ready(false)`: the log is closed.
    fn poll(self: Arc<Self>, end: End, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<bool>>;
    /// A waker that is not waited for any more.
    fn forget(&self, id: u64);
    /// The frames written last, where this process writes them.
    fn recent(&self) -> Option<&Recent> {
        None
    }
    /// Where frames were found before, if that is worth knowing.
    fn places(&self) -> Option<&Places> {
        None
    }
    /// What it means that a record cannot be read.
    fn judge(&self, error: Error) -> Error {
        error
    }
}

/// Where a reader waits: it has read all up to an LSN, in a generation. It is worth reading again
/// when either changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) lsn: Lsn,
    pub(crate) generation: u32,
}
