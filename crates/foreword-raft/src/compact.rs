//! Compaction: drops the front of the log up to the first record in force, and copies records in
//! force from the front to the end.

use std::sync::atomic::{AtomicBool, Ordering};

use foreword::Lsn;

use crate::record::{Body, Record};
use crate::shared::Shared;
use crate::sync::lock;
use crate::{Error, Result};

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compaction {
    /// The bytes of the records that it wrote again.
    pub moved_bytes: u64,
    /// The LSNs that it dropped.
    pub dropped: u64,
}

/// While it lives, one thread compacts. This is not a lock: hooks of the log run meanwhile, and may
/// call anything.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Shared {
    /// The work of the compaction thread. A failed compaction is tried again when the next one is
    /// due; the log itself reports failures that are final.
    pub(crate) fn compact_when_due(&self) {
        while self.compactor.wait() {
            _ = self.compact();
        }
    }

    pub(crate) fn compact(&self) -> Result<Compaction> {
        let mut done = Compaction::default();
        if self.damage.is_some() || self.compactor.running.swap(true, Ordering::Acquire) {
            return Ok(done);
        }
        let _running = Running(&self.compactor.running);
        let start = self.log.start_lsn();
        self.drop_unneeded()?;
        self.rewrite(&mut done)?;
        done.dropped = self.log.start_lsn().0 - start.0;
        Ok(done)
    }

    /// Drops the records before the first one in force, if they are worth a flush.
    fn drop_unneeded(&self) -> Result<()> {
        // In this order: records written from here on lie behind `end`, and all groups that have
        // written before are in `slots`.
        let end = self.log.last_lsn().next();
        let slots: Vec<_> = lock(&self.groups).values().cloned().collect();
        let first_needed = slots.iter().filter_map(|slot| lock(&slot.state).first_needed()).min();
        let front = first_needed.unwrap_or(end).min(end);
        let start = self.log.start_lsn();
        // The records that took the dropped ones out of force must be durable first.
        self.log.sync()?;
        if front > start && self.log.bytes_between(start, front)? > self.options.slack / 4 {
            self.drop_before(front)?;
        }
        Ok(())
    }

    /// Whether the log has too many bytes that are not in force.
    fn is_too_large(&self) -> Result<bool> {
        let bytes = self.log.bytes_between(self.log.start_lsn(), self.log.durable_lsn().next())?;
        let live = self.live.load(Ordering::Relaxed);
        Ok(bytes > live.saturating_mul(self.options.factor).max(live.saturating_add(self.options.slack)))
    }

    /// Walks the log from its front, and copies the records in force to the end. At most one pass
    /// over the records that are there now.
    fn rewrite(&self, done: &mut Compaction) -> Result<()> {
        let lap = self.log.durable_lsn();
        let mut front = self.log.start_lsn();
        while front <= lap && !self.compactor.stopped() && self.is_too_large()? {
            let begin = front;
            let mut reader = self.log.reader_at(begin);
            let (mut moved, mut seen, mut copies) = (0, 0, Vec::new());
            while front <= lap
                && moved < self.options.step
                && seen < 4 * self.options.step.max(1)
                && let Some(record) = reader.next()?
            {
                seen += record.data.len() as u64;
                match self.keep(record.lsn, record.data, &mut copies) {
                    // On a full disk, dropping what was copied so far frees space.
                    Err(Error::Log(foreword::Error::NoSpace { .. })) => break,
                    bytes => moved += bytes?,
                }
                front = record.lsn.next();
            }
            done.moved_bytes += moved;
            self.moved.fetch_add(moved, Ordering::Relaxed);
            // The copies, and the records that took the others out of force, are durable before the
            // front is dropped, and before the copies leave the cache, from which they are read
            // until then. (The mark that drops the front stands behind them in the log in any
            // case.)
            self.log.sync()?;
            self.cache.remove(&copies);
            if front == begin || !self.drop_before(front)? {
                break; // There is no space for a copy, or the front is held.
            }
        }
        Ok(())
    }

    /// Drops the front of the log as far as no hold keeps it. Returns whether all of it was
    /// dropped. On a full disk that works if it frees a segment; if it does not, a later step may.
    fn drop_before(&self, front: Lsn) -> Result<bool> {
        match self.log.truncate_front(front) {
            Err(foreword::Error::NoSpace { .. }) => Ok(true),
            start => Ok(start? >= front),
        }
    }

    /// Copies a record to the end if it is in force. Returns the bytes of the copy.
    fn keep(&self, lsn: Lsn, bytes: &[u8], copies: &mut Vec<Lsn>) -> Result<u64> {
        let record = Record::decode(lsn, bytes)?;
        let Some(slot) = lock(&self.groups).get(&record.group).cloned() else { return Ok(0) };
        let mut state = lock(&slot.state);
        if !state.needs(lsn, &record) {
            return Ok(0);
        }
        let copy = self.write(&mut state, record.group, true, record.body)?;
        if let Body::Append(_, data) = record.body {
            // Until it is durable, it is read from memory.
            self.cache.put(copy.lsn, data.into(), self.log.durable_lsn());
            copies.push(copy.lsn);
        }
        Ok(u64::from(copy.bytes))
    }
}
