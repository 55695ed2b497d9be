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
    chain: RwLock<Arc<Chain>>,
    /// Rises with each change of the chain.
    version: AtomicU64,
    /// Readers that follow the tail.
    pub(crate) tails: Tails,
    pub(crate) recent: Recent,
    pub(super) places: Places,
}

impl Readable {
    pub(super) fn new(durable: Lsn, chain: Chain) -> Readable {
        Readable {
            durable: AtomicU64::new(durable.0),
            chain: RwLock::new(Arc::new(chain)),
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

    pub(super) fn set_chain(&self, chain: Chain) {
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(chain);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn chain(&self) -> Arc<Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes when the chain does.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}
