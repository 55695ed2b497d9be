//! The flushes of a log, and how far the log has come with each step to the disk.
//!
//! A flush takes everything that is placed, so flushes begin in the order of the log. They may be
//! done in any order, but *count* in the order of the log. These LSNs follow from that. Each stands
//! for all records up to it; each only rises, but for a cut, which sets all of them back.
//!
//! | LSN | up to it, records are | advanced by, under the log's lock |
//! |---|---|---|
//! | `LogState::last_lsn` | appended | the appending thread |
//! | `begun` | covered by a flush that has begun | the flush's leader, before it writes: [`begin`](Flushes::begin) |
//! | `begun_synced` | covered by one with a sync | the same |
//! | `written` | with the operating system | the leader that comes back: [`count`](Flushes::count) |
//! | `durable` | on the disk | the same; `Readable` has a copy for threads without the lock |
//!
//! At all times `durable <= written <= begun <= last_lsn`, and `durable <= begun_synced <= begun`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::Lsn;
use crate::assemble::placed::Placed;
use crate::files::segment::Segment;
use crate::format::{Position, Promise};
use crate::write::pace::Pace;

/// A group of frames on its way to the disk.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) id: u64,
    /// The log's end when it began.
    reach: Promise,
    sync: bool,
    /// Its frames are written, and synced if it syncs.
    done: bool,
    /// It reopens a closed log.
    reopens: bool,
    started: Instant,
}

/// A leader that waits for more committers to join its group.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// How many flushes with a sync had begun before.
    pub(in crate::write) flushes: u64,
    pub(in crate::write) started: Instant,
    /// How many committers there were when it began.
    pub(in crate::write) committers: u32,
}

/// Owned by the leader of a flush: it changes this when it begins one, and when it comes back with
/// the result.
#[derive(Debug)]
pub(crate) struct Flushes {
    /// Begun and not counted, in the order of the log. Empty once the log has failed.
    queue: VecDeque<Flush>,
    next_id: u64,
    /// Leaders that may be writing, also those of flushes that a failure has taken out of the
    /// queue.
    leaders: usize,
    begun: Lsn,
    begun_synced: Lsn,
    /// When the last flush with a sync began.
    synced_at: Instant,
    written: Lsn,
    durable: Promise,
    /// Where the highest promise in the log stands. No records lie between it and what is durable
    /// when the log is opened.
    promised: Position,
    /// Behind the last MARK that was written because the log had fallen idle: that one needs no
    /// promise itself.
    idle_end: Position,
    /// Segments with written bytes that no flush under way syncs. The next with a sync takes them
    /// over.
    pub(in crate::write) dirty: Vec<Arc<Segment>>,
    /// Set by the thread that gathers; taken back by it, or by the leader of a flush that begins
    /// meanwhile.
    pub(in crate::write) gathering: Option<Gathering>,
    pub(in crate::write) pace: Pace,
}

impl Flushes {
    pub(super) fn new(durable: Promise, promised: Position) -> Flushes {
        Flushes {
            queue: VecDeque::new(),
            next_id: 0,
            leaders: 0,
            begun: durable.lsn,
            begun_synced: durable.lsn,
            synced_at: Instant::now(),
            written: durable.lsn,
            durable,
            promised,
            idle_end: promised,
            dirty: Vec::new(),
            gathering: None,
            pace: Pace::default(),
        }
    }

    /// A flush begins, of frames that promise what `promise` says, up to the end of the log: its
    /// id.
    pub(in crate::write) fn begin(
        &mut self,
        frames: &VecDeque<Placed>,
        promise: Promise,
        reach: Promise,
        sync: bool,
        started: Instant,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.leaders += 1;
        let reopens = frames.front().is_some_and(|frame| frame.again);
        self.queue.push_back(Flush { id, reach, sync, done: false, reopens, started });
        self.promised = self.promised.max(if frames.is_empty() { Position::default() } else { promise.position });
        self.begun = reach.lsn;
        if sync {
            self.synced_at = started;
            self.begun_synced = reach.lsn;
        }
        self.check();
        id
    }

    /// A flush has come back; whether it is done. It counts with [`count`](Flushes::count), once
    /// all before it are.
    pub(in crate::write) fn end(&mut self, id: u64) {
        self.leaders -= 1;
        if let Some(flush) = self.queue.iter_mut().find(|flush| flush.id == id) {
            flush.done = true;
        }
    }

    /// Counts the oldest flush, if it is done: its id. To be asked until there is none.
    #[inline]
    pub(in crate::write) fn count(&mut self) -> Option<u64> {
        self.queue.front().filter(|flush| flush.done)?;
        let Flush { id, reach, sync, .. } = self.queue.pop_front()?;
        self.written = self.written.max(reach.lsn);
        if sync {
            self.durable = reach;
        }
        self.check();
        Some(id)
    }

    /// What holds of the LSNs at all times.
    fn check(&self) {
        debug_assert!(self.durable.lsn <= self.written && self.written <= self.begun, "{self:?}");
        debug_assert!(self.durable.lsn <= self.begun_synced && self.begun_synced <= self.begun, "{self:?}");
    }

    /// The log has failed: nothing that is under way will count.
    pub(super) fn abandon(&mut self) {
        self.queue.clear();
    }

    /// The log goes on in a fork, which is durable; nothing is under way.
    pub(in crate::write) fn cut_to(&mut self, durable: Promise) {
        self.durable = durable;
        self.written = durable.lsn;
        self.begun = durable.lsn;
        self.begun_synced = durable.lsn;
    }

    /// What lies before this is the MARK of a log that fell idle.
    pub(in crate::write) fn idle_at(&mut self, end: Position) {
        self.idle_end = end;
    }

    pub(crate) fn begun_synced(&self) -> Lsn {
        self.begun_synced
    }

    pub(crate) fn begun(&self, sync: bool) -> Lsn {
        if sync { self.begun_synced } else { self.begun }
    }

    pub(crate) fn written(&self) -> Lsn {
        self.written
    }

    pub(crate) fn durable(&self) -> Promise {
        self.durable
    }

    pub(crate) fn synced_at(&self) -> Instant {
        self.synced_at
    }

    /// The id of the next flush. It changes with each.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// When each flush that is not done began.
    pub(crate) fn running(&self) -> impl Iterator<Item = Instant> {
        self.queue.iter().filter(|flush| !flush.done).map(|flush| flush.started)
    }

    /// Whether a flush is not done: then no committer leads another. (Two groups at once were
    /// slower for few committers, and about as fast for many, where it was measured.)
    pub(crate) fn is_running(&self) -> bool {
        self.running().next().is_some()
    }

    /// Whether flushes have begun that do not count yet.
    pub(crate) fn has_uncounted(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether any thread may be writing to the log's files.
    pub(crate) fn has_leader(&self) -> bool {
        self.leaders > 0
    }

    /// The flush after which a record is durable (or written, without `sync`): the first under way
    /// that covers it, or the next.
    #[inline]
    pub(in crate::write) fn covering(&self, lsn: Lsn, sync: bool) -> u64 {
        let covers = |flush: &&Flush| flush.reach.lsn >= lsn && (flush.sync || !sync);
        self.queue.iter().find(covers).map_or(self.next_id, |flush| flush.id)
    }

    /// Whether a flush that reopens the closed log is not done, of those before one.
    pub(in crate::write) fn is_reopening(&self, before: u64) -> bool {
        self.queue.iter().any(|flush| flush.id < before && flush.reopens && !flush.done)
    }

    /// Whether one before another is still writing, and does not sync what it writes.
    pub(in crate::write) fn is_writing_unsynced(&self, before: u64) -> bool {
        self.queue.iter().any(|flush| flush.id < before && !flush.sync && !flush.done)
    }

    /// Whether more is durable than the log says, and it is not only the MARK that said so last.
    pub(super) fn needs_promise(&self) -> bool {
        self.durable.position > self.promised && self.durable.position != self.idle_end
    }
}
