//! What the groups and the threads share, and how a record is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use foreword::{Log, Lsn};

use crate::cache::Cache;
use crate::compactor::Compactor;
use crate::error::{Damage, DamagedGroup};
use crate::index::Place;
use crate::record::{Body, Previous, Record};
use crate::state::GroupState;
use crate::sync::lock;
use crate::waiters::Waiters;
use crate::{Options, Result};

/// What all handles to one group share.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) state: Mutex<GroupState>,
}

/// What the groups share.
pub(crate) struct Shared {
    pub(crate) log: Log,
    pub(crate) groups: Mutex<HashMap<u64, Arc<Slot>>>,
    pub(crate) waiters: Waiters,
    pub(crate) cache: Cache,
    pub(crate) compactor: Compactor,
    /// The bytes of the records in force.
    pub(crate) live: AtomicU64,
    /// The bytes that compaction has written.
    pub(crate) moved: AtomicU64,
    /// No thread calls callbacks, or it has ended.
    pub(crate) ended: AtomicBool,
    pub(crate) damage: Option<Arc<Damage>>,
    pub(crate) options: Options,
}

impl Shared {
    /// Appends a record and applies it to its group's state, under the group's lock. If this fails,
    /// nothing has changed.
    ///
    /// On a full disk, records that free space go into the log's reserve for checkpoints, and are
    /// durable then.
    pub(crate) fn write(&self, state: &mut GroupState, group: u64, moved: bool, body: Body<'_>) -> Result<Place> {
        let record = Record { group, previous: Previous::after(state.last_record), moved, body };
        let bytes = record.encode();
        let lsn = match self.log.append(&bytes) {
            Err(foreword::Error::NoSpace { .. }) if !moved && matches!(body, Body::Purge(..) | Body::Removed) => {
                self.log.commit_checkpoint(&bytes)?
            }
            appended => appended?,
        };
        self.apply(state, lsn, bytes.len(), &record);
        Ok(Place { lsn, bytes: bytes.len() as u32 })
    }

    pub(crate) fn apply(&self, state: &mut GroupState, lsn: Lsn, bytes: usize, record: &Record<'_>) {
        let before = state.live_bytes();
        state.apply(lsn, bytes, record);
        let after = state.live_bytes();
        self.live.fetch_add(after.wrapping_sub(before), Ordering::Relaxed); // It wraps back.
        self.compactor.note(bytes as u64 + before.saturating_sub(after));
    }

    /// To be called after a write, under no lock.
    pub(crate) fn after_write(&self) {
        self.compactor.wake_if_due(self.options.slack);
        if self.ended.load(Ordering::Acquire) {
            self.waiters.settle(&self.log);
        }
    }

    /// To be called after records became durable, under no lock.
    pub(crate) fn after_sync(&self) {
        if self.ended.load(Ordering::Acquire) {
            self.waiters.settle(&self.log);
        }
        self.cache.trim(self.log.durable_lsn());
    }

    pub(crate) fn slot(&self, id: u64) -> Arc<Slot> {
        lock(&self.groups)
            .entry(id)
            .or_insert_with(|| {
                // If the log has lost records, an unknown group may have had all of its records
                // there.
                let unknown = || Box::new(DamagedGroup { group: id, missing: Vec::new(), proven: false });
                let damaged = self.damage.as_ref().map(|_| unknown());
                Arc::new(Slot { state: Mutex::new(GroupState { damaged, ..GroupState::default() }) })
            })
            .clone()
    }
}
