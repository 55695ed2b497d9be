//! The engine: what the store, its transactions, its checkpoints and recovery share. It imports
//! none of them.

pub(crate) mod schedule;
pub(crate) mod txns;
mod work;

use std::sync::Arc;

use foreword::Lsn;

use crate::Result;
use crate::alloc::Allocator;
use crate::latch::{Owner, Wait};
use crate::page::PageId;
use crate::pool::{Load, PageMut, PageRef, Pool};
use crate::record::Record;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{HandlerError, Types};

use schedule::Schedule;
use txns::{Active, TxnTable};
pub(crate) use work::Nested;

/// How the records of a type of the user's are undone.
pub(crate) trait UndoType: Send + Sync {
    /// Undoes a record, by changes for its transaction.
    fn undo(&self, engine: &Arc<Engine>, active: &mut Active, payload: &[u8]) -> Result<(), HandlerError>;
}

pub(crate) type UndoTypes = Types<dyn UndoType>;

/// A page file and its log, with all that is known of both in memory.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) alloc: Allocator,
    pub(crate) txns: TxnTable,
    pub(crate) checkpoints: Schedule,
    /// How the user's record types are undone.
    pub(crate) types: UndoTypes,
    /// Sessions that there have been.
    sessions: AtomicU64,
    /// Bytes of records that were appended.
    logged_bytes: AtomicU64,
}

impl Engine {
    /// An engine before recovery: no map is loaded, and no transaction is known.
    pub(crate) fn new(pool: Pool, types: UndoTypes, checkpoint_bytes: u64) -> Engine {
        Engine {
            alloc: Allocator::new(pool.body()),
            pool,
            txns: TxnTable::default(),
            checkpoints: Schedule::new(checkpoint_bytes),
            types,
            sessions: AtomicU64::new(0),
            logged_bytes: AtomicU64::new(0),
        }
    }

    /// Appends a record to the log. `scratch` is memory for its bytes.
    pub(crate) fn append(&self, record: &Record<'_>, scratch: &mut Vec<u8>) -> Result<Lsn> {
        record.encode(scratch);
        let appended = self.pool.file.guard("append to the log", || self.pool.log.append(&*scratch));
        let lsn = appended.inspect_err(|e| {
            if matches!(e, foreword::Error::NoSpace { .. }) {
                self.checkpoints.log_refused();
            }
        })?;
        let before = self.logged_bytes.fetch_add(scratch.len() as u64, Ordering::Relaxed);
        self.checkpoints.logged(before, scratch.len() as u64);
        Ok(lsn)
    }

    /// The owner of a new session's latches.
    pub(crate) fn new_session(&self) -> Owner {
        Owner::session(1 + self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    /// Latches a page of the user's for reading. `None`: that would have to wait.
    pub(crate) fn share(&self, page: PageId, owner: Owner, wait: Wait) -> Result<Option<PageRef>> {
        self.alloc.check(page)?;
        let latched = self.pool.share(page, owner, wait)?;
        if let Some(latched) = &latched {
            self.pool.check_written(page, latched.lsn())?;
        }
        Ok(latched)
    }

    /// Latches a page of the user's for changing. `None`: that would have to wait.
    pub(crate) fn exclude(&self, page: PageId, owner: Owner, wait: Wait) -> Result<Option<PageMut>> {
        self.alloc.check(page)?;
        let latched = self.pool.try_exclude(page, owner, Load::Read, wait)?;
        if let Some(latched) = &latched {
            self.pool.check_written(page, latched.lsn())?;
        }
        Ok(latched)
    }

    /// The page that the first map names as the root.
    pub(crate) fn root(&self) -> Result<Option<PageId>> {
        let (map, at) = self.alloc.root_place();
        let Some(latched) = self.pool.share(map, Owner::NONE, Wait::Bounded)? else { return Ok(None) };
        let id = latched[at..].iter().rev().fold(0, |id, &byte| id << 8 | u64::from(byte));
        Ok((id > 0).then_some(PageId(id)))
    }
}
