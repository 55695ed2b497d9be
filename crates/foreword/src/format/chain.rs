//! Which segments are the log's, in order, and what was cut and given up of them.

use std::ops::Range;

use crate::Lsn;
use crate::format::LINK_BLOCK;
use crate::format::control::{Control, Waiver, is_later};
use crate::format::frame::FrameHeader;
use crate::format::id::LogId;

/// A segment of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: u64,
    pub(crate) first_lsn: Lsn,
    /// What its first frame says, the LINK or the one to which a waiver leads: the bytes of all
    /// records before, and when it was begun. None where that cannot be read.
    pub(crate) bytes: Option<u64>,
    pub(crate) time: Option<u64>,
    /// Where the log leaves it, if it does.
    pub(crate) end: Option<u32>,
}

impl Entry {
    /// The segment that begins with a frame.
    pub(crate) fn new(epoch: u64, first: &FrameHeader) -> Entry {
        Entry { epoch, first_lsn: first.first.lsn, bytes: Some(first.first.bytes), time: Some(first.time), end: None }
    }
}

/// The waiver that leads from elsewhere into a segment.
pub(crate) fn way_in(epoch: u64, control: &Control) -> Option<&Waiver> {
    control.waivers.iter().find(|w| w.to.epoch == epoch && w.from.epoch < epoch)
}

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
    pub(crate) fn since(&self, generation: u32) -> Option<Lsn> {
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
    pub(crate) fn entry_of(&self, lsn: Lsn) -> Option<usize> {
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
    pub(crate) fn gap(&self, lsn: Lsn) -> Option<&Waiver> {
        self.waivers.iter().find(|w| (w.first_lost..=w.last_lost).contains(&lsn))
    }
}
