//! Compaction: the front of the log goes up to what is in force, and what is in force at the front goes to the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use foreword::Lsn;

use crate::logs::Shared;
use crate::record::{Body, Record};
use crate::waiters::lock;
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

/// When compaction is due, and who is at it.
#[derive(Default)]
pub(crate) struct Compactor {
    /// Bytes written, and bytes that went out of force, since it last ran.
    since: AtomicU64,
    running: AtomicBool,
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    due: bool,
    stop: bool,
}

impl Compactor {
    pub(crate) fn note(&self, bytes: u64) {
        self.since.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn wake_if_due(&self, slack: u64) {
        if self.since.load(Ordering::Relaxed) > slack / 4 {
            self.since.store(0, Ordering::Relaxed);
            lock(&self.due).due = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        lock(&self.due).stop = true;
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        lock(&self.due).stop
    }

    /// Whether there is more to do.
    fn wait(&self) -> bool {
        let mut due = lock(&self.due);
        while !due.due && !due.stop {
            due = self.changed.wait(due).unwrap_or_else(PoisonError::into_inner);
        }
        due.due = false;
        !due.stop
    }
}

/// That one thread compacts. Not a lock: hooks of the log run meanwhile, and may call what they like.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Shared {
    /// The work of the thread. What fails is tried again when it is due again; the log reports by itself what it cannot go on with.
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

    /// Drops what lies before the first record in force, if that is worth a flush.
    fn drop_unneeded(&self) -> Result<()> {
        // In this order: what is written from here on lies behind, and groups that have written before are among those looked at.
        let end = self.log.last_lsn().next();
        let slots: Vec<_> = lock(&self.groups).values().cloned().collect();
        let first_needed = slots.iter().filter_map(|slot| lock(&slot.state).first_needed()).min();
        let front = first_needed.unwrap_or(end).min(end);
        let start = self.log.start_lsn();
        // What took the records before it out of force must not be lost when they are.
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

    /// Walks the log from its front, and writes again what is in force; at most once through what is there now.
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
                    // On a full disk, what has come to the end so far makes room.
                    Err(Error::Log(foreword::Error::NoSpace { .. })) => break,
                    bytes => moved += bytes?,
                }
                front = record.lsn.next();
            }
            done.moved_bytes += moved;
            self.moved.fetch_add(moved, Ordering::Relaxed);
            // The copies, and what took the others out of force, are durable before those are dropped (the mark that drops them stands behind them in the log
            // in any case), and before the cache lets go of the copies: until then they are read from there.
            self.log.sync()?;
            self.cache.remove(&copies);
            if front == begin || !self.drop_before(front)? {
                break; // There is no room for a copy, or somebody holds the front.
            }
        }
        Ok(())
    }

    /// Drops the front of the log, as far as nobody holds it: whether nobody does. On a full disk that works if it frees a segment; if not, a later step may.
    fn drop_before(&self, front: Lsn) -> Result<bool> {
        match self.log.truncate_front(front) {
            Err(foreword::Error::NoSpace { .. }) => Ok(true),
            start => Ok(start? >= front),
        }
    }

    /// Writes a record again, if it is in force: the bytes of the copy.
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
