//! Fuzzy checkpoints: what recovery will need is logged while changes go on, and the log before
//! that is dropped.

use std::sync::atomic::Ordering;

use foreword::Lsn;

use crate::engine::Engine;
use crate::engine::schedule::LastCheckpoint;
use crate::latch::{self, Deadlock};
use crate::record::{Checkpoint, Record};
use crate::sabotage::{self, Bug};
use crate::{Error, Result};

/// Which pages a checkpoint writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// The dirty pages whose recLSN is before the begin of the last checkpoint. The log rebuilds
    /// every other page from that begin on, so redo never begins before it.
    Old,
    /// All dirty pages.
    All,
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpointed {
    /// The LSN of the checkpoint's begin.
    pub begin: Lsn,
    /// Where redo would begin now.
    pub redo_from: Lsn,
    /// Where the log starts now. It starts before `redo_from` if an old transaction is alive, or a
    /// hold keeps records.
    pub log_start: Lsn,
    /// Pages that the checkpoint wrote.
    pub pages_written: u64,
    /// Pages that are still dirty.
    pub pages_dirty: u64,
}

impl Engine {
    pub(crate) fn checkpoint(&self, write: WriteBack) -> Result<Checkpointed> {
        let mut last = latch::lock_or_deadlock(&self.checkpoints.last).map_err(|Deadlock| Error::Deadlock { page: None })?;
        self.roll_back_orphans();
        self.checkpoints.begin();
        let taken = self.take_checkpoint(write, &mut last);
        self.checkpoints.note(taken.as_ref().err().cloned());
        taken
    }

    /// Takes a checkpoint, unless the last one is as good, and drops the log before it.
    fn take_checkpoint(&self, write: WriteBack, last: &mut LastCheckpoint) -> Result<Checkpointed> {
        let Engine { pool, .. } = self;
        let before = pool.counters.writes.load(Ordering::Relaxed);
        if !self.is_current(write, last) {
            *last = self.log_checkpoint(write, last.begin)?;
        }
        if !sabotage::has(Bug::DropUnseen) {
            pool.file.look(last.end)?;
        }
        let log_start = pool.log.truncate_front(last.keep)?;
        let pages_written = pool.counters.writes.load(Ordering::Relaxed) - before;
        let LastCheckpoint { begin, redo_from, pages_dirty, .. } = *last;
        Ok(Checkpointed { begin, redo_from, log_start, pages_written, pages_dirty })
    }

    /// Whether another checkpoint would log the same as the last: nothing was logged since, and no
    /// page is to be written.
    fn is_current(&self, write: WriteBack, last: &LastCheckpoint) -> bool {
        let Engine { pool, .. } = self;
        last.end > Lsn::ZERO
            && last.end == pool.log.last_lsn()
            && last.images == pool.logs_images()
            && (write == WriteBack::Old || last.pages_dirty == 0)
    }

    fn log_checkpoint(&self, write: WriteBack, last: Lsn) -> Result<LastCheckpoint> {
        let Engine { pool, .. } = self;
        let begin = self.log_small(&Record::CheckpointBegin)?;
        // Invariant: from here on, a page that changes is logged whole, unless it was logged whole
        // since `begin`. So a page that the lists below miss has its image behind `begin`.
        pool.raise_image_floor(begin);
        let images = pool.logs_images();
        let old = if write == WriteBack::All { Lsn::MAX } else { last };
        let (lists, end) = match self.write_and_list(begin, images, old) {
            // Once all pages are written, the record is small enough for the room that the log
            // reserves.
            Err(error) if error.is_no_space() && write == WriteBack::Old => self.write_and_list(begin, images, Lsn::MAX)?,
            logged => logged?,
        };
        let Checkpoint { live, dirty, .. } = lists;
        let redo_from = dirty.iter().map(|&(_, from)| from).fold(begin, Lsn::min);
        let keep = live.iter().map(|&(_, first, _)| first).fold(redo_from, Lsn::min);
        if sabotage::has(Bug::TruncateTooSoon) {
            pool.log.truncate_front(keep)?;
        }
        pool.file.set_checkpoint(end)?;
        let keep = if sabotage::has(Bug::TruncateTooFar) { begin } else { keep };
        Ok(LastCheckpoint { begin, end, images, redo_from, keep, pages_dirty: dirty.len() as u64 })
    }

    /// Writes the dirty pages whose recLSN is before `old`, each once; then logs what recovery
    /// needs. Returns what the record has, and its LSN.
    fn write_and_list(&self, begin: Lsn, images: bool, old: Lsn) -> Result<(Checkpoint, Lsn)> {
        let Engine { pool, txns, .. } = self;
        for (page, _) in pool.dirty_pages().into_iter().filter(|&(_, from)| from < old) {
            pool.write_page(page)?;
        }
        let dirty = pool.dirty_pages();
        let (next_txn, live) = txns.snapshot();
        let (pages, maps) = (pool.end(), pool.file.maps());
        // A page that the list has as clean was written before this sync.
        pool.file.sync()?;
        let lists = Checkpoint { begin, images, next_txn, live, dirty, pages, maps };
        let mut said = lists.clone();
        if sabotage::has(Bug::NoDirtyPages) {
            said.dirty.clear();
        }
        if sabotage::has(Bug::NoLiveTransactions) {
            said.live.clear();
        }
        if sabotage::has(Bug::ForgetMaps) {
            said.maps.clear();
        }
        let end = self.log_small(&Record::CheckpointEnd(said))?;
        Ok((lists, end))
    }

    /// Logs a record of a checkpoint durably. A small record finds room even on a full disk.
    fn log_small(&self, record: &Record<'_>) -> Result<Lsn> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        match self.pool.log.commit_checkpoint(&bytes) {
            Err(foreword::Error::TooLarge { .. }) => Ok(self.pool.log.commit(&bytes)?),
            logged => Ok(logged?),
        }
    }
}
