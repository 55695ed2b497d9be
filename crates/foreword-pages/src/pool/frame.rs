//! A frame of the buffer pool: memory for one page, its latch, and how it stands to the disk.

use std::ops::Deref;
use std::sync::Arc;

use foreword::Lsn;

use crate::Error;
use crate::latch::Latch;
use crate::page::{Page, PageId};
use crate::sabotage::{self, Bug};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, TryLockError, lock};

/// A frame of the buffer pool.
#[derive(Debug)]
pub(crate) struct BufferFrame {
    /// Has its bytes once a page was here: the pool takes memory as it fills.
    pub(crate) latch: Latch,
    dirty: Mutex<DirtyState>,
    /// Held while the page is written, so that no older copy overwrites a newer one.
    pub(super) writing: Mutex<()>,
    /// The page that is here, once it is loaded; 0: none.
    page: AtomicU64,
}

/// Whether the page file has what is in a frame.
#[derive(Debug, Default)]
pub(super) struct DirtyState {
    /// ARIES' *recLSN*: the log from this LSN on makes the frame's page of the page on disk.
    /// `None`: the page on disk is the same.
    pub(super) rec_lsn: Option<Lsn>,
    /// The `rec_lsn` once the copy that was last taken is written: it counts only later changes.
    pub(super) rec_lsn_after_copy: Option<Lsn>,
    pub(super) changes: u64,
}

impl DirtyState {
    /// Notes a change by the record with this LSN. `rebuilt`: the LSN from which on the log holds
    /// all of the page, if it does.
    pub(super) fn changed(&mut self, lsn: Lsn, rebuilt: Option<Lsn>) {
        self.changes += 1;
        match rebuilt {
            Some(_) => (self.rec_lsn, self.rec_lsn_after_copy) = (rebuilt, rebuilt),
            None => {
                self.rec_lsn.get_or_insert(lsn);
                self.rec_lsn_after_copy.get_or_insert(lsn);
            }
        }
    }

    /// Notes that a copy was written, which had so many changes.
    pub(super) fn written(&mut self, changes: u64) {
        let clean = self.changes == changes || sabotage::has(Bug::CleanTooSoon);
        self.rec_lsn = if clean { None } else { self.rec_lsn_after_copy };
    }
}

impl BufferFrame {
    /// A frame without a page.
    pub(super) fn new() -> BufferFrame {
        BufferFrame {
            latch: Latch::new(Page::blank(0)),
            dirty: Mutex::default(),
            writing: Mutex::default(),
            page: AtomicU64::new(0),
        }
    }

    pub(super) fn dirty(&self) -> MutexGuard<'_, DirtyState> {
        lock(&self.dirty)
    }

    /// Whether the page on disk is another. Does not wait: a page that is being changed counts.
    pub(super) fn is_dirty(&self) -> bool {
        match self.dirty.try_lock() {
            Ok(dirty) => dirty.rec_lsn.is_some(),
            Err(TryLockError::Poisoned(dirty)) => dirty.into_inner().rec_lsn.is_some(),
            Err(TryLockError::WouldBlock) => true,
        }
    }

    /// The page that is here; 0: none.
    pub(crate) fn page(&self) -> PageId {
        PageId(self.page.load(Ordering::Acquire))
    }

    pub(super) fn set_page(&self, page: PageId) {
        self.page.store(page.0, Ordering::Release);
    }

    /// Takes the page out of the frame.
    pub(super) fn take_page(&self) -> PageId {
        PageId(self.page.swap(0, Ordering::AcqRel))
    }
}

/// Keeps a page in the pool for as long as the pin lives. A pin comes into being only under the
/// shard's lock, or of another pin. So a frame that has none can be taken under that lock.
#[derive(Clone, Debug)]
pub(crate) struct Pin(Arc<BufferFrame>);

impl Pin {
    pub(super) fn new(frame: &Arc<BufferFrame>) -> Pin {
        Pin(frame.clone())
    }

    /// Whether no pin keeps the page of a frame in the pool.
    pub(super) fn is_unused(frame: &Arc<BufferFrame>) -> bool {
        Arc::strong_count(frame) == 1
    }

    pub(crate) fn deadlock(&self) -> Error {
        Error::Deadlock { page: self.0.page() }
    }
}

impl Deref for Pin {
    type Target = BufferFrame;

    fn deref(&self) -> &BufferFrame {
        &self.0
    }
}
