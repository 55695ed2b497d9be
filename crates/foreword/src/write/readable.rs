//! What readers of this process see of the log.

use std::sync::Arc;

use crate::Lsn;
use crate::format::Chain;
use crate::read::recent::{Places, Recent};
use crate::read::tails::Tails;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{PoisonError, RwLock};

/// What readers read without the log's lock. Changed under it: the durable LSN by the leader of a
/// flush, the chain by a rotation, both by a truncation.
#[derive(Debug)]
pub(crate) struct Readable {
    durable: AtomicU64,
    /// The chain, in the place that the version names, and the one before it. So what is read is
    /// not locked by a thread that changes it: in a forked process, that would never let go.
    chains: [RwLock<Arc<Chain>>; 2],
    /// Rises with each change of the chain, when it is made.
    version: AtomicU64,
    /// Readers that follow the tail.
    pub(crate) tails: Tails,
    pub(crate) recent: Recent,
    pub(super) places: Places,
}

impl Readable {
    pub(super) fn new(durable: Lsn, chain: Chain) -> Readable {
        let chain = Arc::new(chain);
        Readable {
            durable: AtomicU64::new(durable.0),
            chains: [RwLock::new(chain.clone()), RwLock::new(chain)],
            version: AtomicU64::new(0),
            tails: Tails::default(),
            recent: Recent::default(),
            places: Places::default(),
        }
    }

    /// The last durable LSN.
    #[inline]
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn set_durable(&self, lsn: Lsn) {
        self.durable.store(lsn.0, Ordering::Release);
    }

    /// Never in a forked process: there a reader that does not exist may have the lock.
    pub(super) fn set_chain(&self, chain: Chain) {
        let (chain, next) = (Arc::new(chain), self.version.load(Ordering::Relaxed) + 1);
        let before = std::mem::replace(&mut *self.place(next).write().unwrap_or_else(PoisonError::into_inner), chain);
        self.version.store(next, Ordering::Release);
        drop(before);
    }

    pub(super) fn chain(&self) -> Arc<Chain> {
        self.place(self.version()).read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn place(&self, version: u64) -> &RwLock<Arc<Chain>> {
        &self.chains[(version % 2) as usize]
    }

    /// Changes when the chain does.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
