//! What readers read from: a chain of segments, as its source has it at a time.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::format::{Control, LINK_BLOCK, LogId, Waiver, is_later};
use crate::read::reader::Reader;
use crate::read::recent::{Places, Recent};
use crate::recovery::Entry;
use crate::{Error, Lsn, Result};

/// The segments of a log, as readers see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) log: LogId,
    pub(crate) entries: Vec<Entry>,
    pub(crate) waivers: Vec<Waiver>,
    pub(crate) start: Lsn,
    /// See [`Control::generation`].
    pub(crate) generation: u32,
    pub(crate) cuts: Cuts,
}

/// The cuts at the back that readers are told of: each with the generation behind it and the first
/// LSN that may stand for another record since. Both rise along the list, for what was cut again
/// further ahead counts for nothing beside that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cuts(Vec<(u32, Lsn)>);

/// So many are told apart; of more, the oldest two count as one, at the earlier place.
const CUTS_MAX: usize = 64;

impl Cuts {
    pub(crate) fn note(&mut self, generation: u32, at: Lsn) {
        self.0.retain(|&(_, before)| before < at);
        self.0.push((generation, at));
        if self.0.len() > CUTS_MAX {
            self.0[1].1 = self.0[0].1;
            self.0.remove(0);
        }
    }

    /// The first LSN that may stand for another record than it did in a generation.
    pub(super) fn since(&self, generation: u32) -> Option<Lsn> {
        self.0.iter().find(|&&(later, _)| is_later(later, generation)).map(|&(_, at)| at)
    }
}

impl Chain {
    pub(crate) fn new(log: LogId, entries: Vec<Entry>, control: &Control) -> Chain {
        let Control { start, generation, ref waivers, .. } = *control;
        Chain { log, entries, waivers: waivers.clone(), start, generation, cuts: Cuts::default() }
    }

    /// Whether a segment is of the log.
    pub(crate) fn has(&self, epoch: u64) -> bool {
        self.entries.binary_search_by_key(&epoch, |e| e.epoch).is_ok()
    }

    /// The entry in which a record begins, if it is in the log at all.
    pub(super) fn entry_of(&self, lsn: Lsn) -> Option<usize> {
        self.entries.partition_point(|e| e.first_lsn <= lsn).checked_sub(1)
    }

    /// The part of an entry's segment in which a record can begin, and the LSN of the first that
    /// does there: what was given up bounds it, for anything may lie there, or nothing.
    pub(crate) fn stretch(&self, entry: &Entry, lsn: Lsn) -> (Range<u32>, Lsn) {
        let (mut blocks, mut first) = (LINK_BLOCK..entry.end.unwrap_or(u32::MAX), entry.first_lsn);
        for waiver in &self.waivers {
            let behind = waiver.last_lost < lsn;
            if behind && waiver.to.epoch == entry.epoch && waiver.to.block > blocks.start {
                (blocks.start, first) = (waiver.to.block, waiver.last_lost.next());
            }
            if !behind && waiver.from.epoch == entry.epoch {
                blocks.end = blocks.end.min(waiver.from.block);
            }
        }
        (blocks, first)
    }

    /// The stretch in which an LSN was given up, if it was.
    pub(super) fn gap(&self, lsn: Lsn) -> Option<&Waiver> {
        self.waivers.iter().find(|w| (w.first_lost..=w.last_lost).contains(&lsn))
    }
}

/// Where a reader's log comes from.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    fn dir(&self) -> &Dir;
    /// The chain as it is now. Cheap if nothing has changed.
    fn chain(&self) -> Arc<Chain>;
    /// A number that changes whenever the chain does.
    fn version(&self) -> u64;
    /// The last LSN that may be read, looking for news if the reader has seen all up to `seen`.
    fn limit(&self, seen: Lsn) -> Result<Lsn>;
    /// Why the log ends where it does, if it should not.
    fn damage(&self) -> Option<Damage>;
    /// Takes note of a reader that follows the tail, by the last LSN that it has read.
    fn attend(&self, _at: &Arc<AtomicU64>) {}
    /// Waits until it is worth reading again (`true`), the time is over, or the log is closed.
    fn wait(&self, end: End, deadline: Option<Instant>) -> Result<bool>;
    /// As `wait`, without blocking: the waker is kept, under an id by which it is found again,
    /// until it is called or forgotten. `Ready(false)`: the log is closed.
    fn poll(self: Arc<Self>, end: End, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<bool>>;
    /// A waker that is not waited for any more.
    fn forget(&self, id: u64);
    /// The frames written last, where this process writes them.
    fn recent(&self) -> Option<&Recent> {
        None
    }
    /// Where frames were found before, if that is worth knowing.
    fn places(&self) -> Option<&Places> {
        None
    }
    /// What it means that a record cannot be read.
    fn judge(&self, error: Error) -> Error {
        error
    }
}

/// Where a reader waits: it has read all up to an LSN, in a generation. It is worth reading again
/// when either changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) lsn: Lsn,
    pub(crate) generation: u32,
}

/// A log that stands still: what a fork copies from.
#[derive(Debug)]
pub(crate) struct Snapshot {
    dir: Dir,
    chain: Arc<Chain>,
    last: Lsn,
}

impl Snapshot {
    /// A reader over the records from one LSN to another, even if they were dropped by a truncation
    /// that left them in their segment.
    pub(crate) fn reader(dir: &Dir, chain: &Chain, from: Lsn, last: Lsn) -> Reader {
        let chain = Arc::new(Chain { start: from, ..chain.clone() });
        Reader::new(Arc::new(Snapshot { dir: dir.clone(), chain, last }), from)
    }
}

impl Source for Snapshot {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.chain.clone()
    }

    fn version(&self) -> u64 {
        0
    }

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(self.last)
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn wait(&self, _end: End, _deadline: Option<Instant>) -> Result<bool> {
        Ok(false)
    }

    fn poll(self: Arc<Self>, _end: End, _id: &mut Option<u64>, _waker: &Waker) -> Poll<Result<bool>> {
        Poll::Ready(Ok(false))
    }

    fn forget(&self, _id: u64) {}
}
