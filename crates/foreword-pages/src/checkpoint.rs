//! Fuzzy checkpoints: what recovery will need is logged while changes go on, and the log before
//! that is dropped.

use std::sync::Arc;

use foreword::Lsn;

use crate::engine::Engine;
use crate::engine::schedule::LastCheckpoint;
use crate::record::{Checkpoint, Record};
use crate::sabotage::{self, Bug};
use crate::sync::atomic::Ordering;
use crate::sync::lock;
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
    pub(crate) fn checkpoint(self: &Arc<Self>, write: WriteBack) -> Result<Checkpointed> {
        self.roll_back_orphans();
        let taken = {
            // Its holder waits for latches, but not without end.
            let mut last = lock(&self.checkpoints.last);
            self.checkpoints.begin();
            let taken = self.take_checkpoint(write, &mut last);
            self.checkpoints.note(taken.as_ref().err().cloned());
            taken
        };
        if self.txns.orphan_count() > 0 {
            // They hold the log back: what space there is now is theirs before it is anyone's.
            self.roll_back_orphans();
        }
        if self.txns.orphan_count() > 0 {
            self.checkpoints.try_later();
        }
        taken
    }

    /// Takes a checkpoint, unless the last one is as good, and drops the log before it.
    fn take_checkpoint(&self, write: WriteBack, last: &mut LastCheckpoint) -> Result<Checkpointed> {
        let Engine { pool, checkpoints, .. } = self;
        pool.file.check()?;
        let before = pool.counters.writes.load(Ordering::Relaxed);
        let refused = checkpoints.take_refused() && !sabotage::has(Bug::IgnoreRefusal);
        let dropped = if refused { self.free_log(last) } else { self.bound_log(write, last) };
        let log_start = dropped.inspect_err(|e| {
            if refused || matches!(e, Error::Log(foreword::Error::NoSpace { .. })) {
                checkpoints.refused();
            }
        })?;
        let pages_written = pool.counters.writes.load(Ordering::Relaxed) - before;
        let LastCheckpoint { begin, redo_from, pages_dirty, .. } = *last;
        Ok(Checkpointed { begin, redo_from, log_start, pages_written, pages_dirty })
    }

    /// The ordinary checkpoint. Returns where the log starts.
    fn bound_log(&self, write: WriteBack, last: &mut LastCheckpoint) -> Result<Lsn> {
        if !self.is_current(last) {
            *last = self.log_checkpoint(write, last.begin)?;
        }
        self.drop_log(last)
    }

    /// The checkpoint after the log has refused a record: it writes all pages, so that they do not
    /// hold the log back. Returns where the log starts.
    fn free_log(&self, last: &mut LastCheckpoint) -> Result<Lsn> {
        /// The room that a full segment keeps for checkpoints is used up after as many.
        const IN_SEGMENT_MAX: u32 = 4;
        let Engine { pool, .. } = self;
        if last.end > Lsn::ZERO {
            // What held records back may be gone, and what it held may be the room for a
            // checkpoint.
            self.drop_log(last)?;
        }
        let rotations = pool.log.stats().rotations;
        *last = self.log_checkpoint(WriteBack::All, last.begin)?;
        let mut log_start = self.drop_log(last)?;
        for _ in 1..IN_SEGMENT_MAX {
            // The newest segment is full: it refused a record. If no dropped segment follows it,
            // there may be no space until a checkpoint lies behind it.
            let stats = pool.log.stats();
            if stats.segments_prepared > 0 || stats.rotations > rotations {
                break;
            }
            match self.log_checkpoint(WriteBack::All, last.begin) {
                Err(e) if e.is_no_space() => break,
                taken => *last = taken?,
            }
            log_start = self.drop_log(last)?;
        }
        Ok(log_start)
    }

    /// Drops the log that recovery from a checkpoint does not need. Returns where the log starts.
    fn drop_log(&self, last: &LastCheckpoint) -> Result<Lsn> {
        let Engine { pool, .. } = self;
        if !sabotage::has(Bug::DropUnseen) {
            pool.file.look(last.end)?;
        }
        Ok(pool.log.truncate_front(last.keep)?)
    }

    /// Whether another checkpoint would log the same as the last: nothing was logged since, and no
    /// page was left dirty. (Pages that were left hold the log back. If nothing is logged any more,
    /// as on a full disk, only another checkpoint writes them.)
    fn is_current(&self, last: &LastCheckpoint) -> bool {
        let Engine { pool, .. } = self;
        last.end > Lsn::ZERO && last.end == pool.log.last_lsn() && last.images == pool.logs_images() && last.pages_dirty == 0
    }

    fn log_checkpoint(&self, write: WriteBack, last: Lsn) -> Result<LastCheckpoint> {
        let Engine { pool, .. } = self;
        let (begin, _) = self.log_small(&Record::CheckpointBegin)?;
        // Invariant: from here on, a page that changes is logged whole, unless it was logged whole
        // since `begin`. So a page that the lists below miss has its image behind `begin`.
        pool.raise_image_floor(begin);
        let images = pool.logs_images();
        let old = if write == WriteBack::All { Lsn::MAX } else { last };
        let (lists, (end, end_crc)) = match self.write_and_list(begin, images, old) {
            // Once all pages are written, the record is small enough for the room that the log
            // reserves.
            Err(error) if error.is_no_space() && write == WriteBack::Old => self.write_and_list(begin, images, Lsn::MAX)?,
            logged => logged?,
        };
        let Checkpoint { live, dirty, pages, .. } = lists;
        let redo_from = dirty.iter().map(|&(_, from)| from).fold(begin, Lsn::min);
        let keep = live.iter().map(|&(_, first, _)| first).fold(redo_from, Lsn::min);
        if sabotage::has(Bug::TruncateTooSoon) {
            pool.log.truncate_front(keep)?;
        }
        pool.file.set_checkpoint(end)?;
        let keep = if sabotage::has(Bug::TruncateTooFar) { begin } else { keep };
        Ok(LastCheckpoint { begin, end, end_crc, images, pages, redo_from, keep, pages_dirty: dirty.len() as u64 })
    }

    /// Writes the dirty pages whose recLSN is before `old`, each once; then logs what recovery
    /// needs. Returns what the record has, its LSN and its CRC.
    fn write_and_list(&self, begin: Lsn, images: bool, old: Lsn) -> Result<(Checkpoint, (Lsn, u32))> {
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

    /// Logs a record of a checkpoint durably. A small record finds room even on a full disk. Returns
    /// its LSN and its CRC.
    fn log_small(&self, record: &Record<'_>) -> Result<(Lsn, u32)> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let lsn = match self.pool.log.commit_checkpoint(&bytes) {
            Err(foreword::Error::TooLarge { .. }) => self.pool.log.commit(&bytes)?,
            logged => logged?,
        };
        Ok((lsn, crc32c::crc32c(&bytes)))
    }
}
