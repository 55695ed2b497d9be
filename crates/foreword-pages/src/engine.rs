//! The engine: what the store, its transactions, its checkpoints and recovery share. It imports
//! none of them.

pub(crate) mod schedule;
pub(crate) mod txns;

use std::sync::atomic::{AtomicU64, Ordering};

use foreword::Lsn;

use crate::Result;
use crate::alloc::Allocator;
use crate::page::PageId;
use crate::pool::{Load, Pool};
use crate::record::Record;

use schedule::Schedule;
use txns::TxnTable;

/// A page file and its log, with all that is known of both in memory.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) pool: Pool,
    pub(crate) alloc: Allocator,
    pub(crate) txns: TxnTable,
    pub(crate) checkpoints: Schedule,
    /// Bytes of records that were appended.
    logged_bytes: AtomicU64,
}

impl Engine {
    /// An engine before recovery: no map is loaded, and no transaction is known.
    pub(crate) fn new(pool: Pool, checkpoint_bytes: u64) -> Engine {
        Engine {
            alloc: Allocator::new(pool.body()),
            pool,
            txns: TxnTable::default(),
            checkpoints: Schedule::new(checkpoint_bytes),
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

    /// The page that the first map names as the root.
    pub(crate) fn root(&self) -> Result<Option<PageId>> {
        let (map, at) = self.alloc.root_place();
        let pin = self.pool.fetch(map, Load::Read)?;
        let id = pin.read()?.body()[at..].iter().rev().fold(0, |id, &byte| id << 8 | u64::from(byte));
        Ok((id > 0).then_some(PageId(id)))
    }
}
