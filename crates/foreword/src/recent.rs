//! What readers need not fetch again: the frames written last, for those that follow the tail, and where frames were found before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::Lsn;
use crate::assemble::Placed;
use crate::format::{BLOCK, FRAME_MAX, FrameHeader, Position};
use crate::reader::Chain;
use crate::segment::Segment;
use crate::sync::lock;

/// So many bytes of the last frames are kept while a reader follows the tail.
const RECENT_MAX: usize = 1 << 20;
/// So many frames' places are known at most: of more, every other one is forgotten, and found again from its neighbours.
const PLACES_MAX: usize = 4096;
/// So many segments stay open for those who read one record here and one there.
const OPEN_MAX: usize = 4;

/// The frames written last, as they lie on the disk. Direct writes leave the page cache empty: without this, a reader that follows the tail would
/// fetch each group from the device that has just taken it.
///
/// Written to by who flushes, after the flush: a copy is cheaper there than to keep the buffers from their next use.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Option<Ring>>);

#[derive(Debug)]
struct Ring {
    bytes: Vec<u8>,
    /// Where the next frame goes.
    at: usize,
    /// From the oldest on.
    frames: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    segment: Arc<Segment>,
    block: u32,
    start: usize,
    len: usize,
}

impl Recent {
    /// From here on frames are kept, or from here on not.
    pub(crate) fn keeps(&self, keeps: bool) {
        let mut ring = lock(&self.0);
        if keeps != ring.is_some() {
            let new = || Ring { bytes: vec![0; RECENT_MAX], at: 0, frames: VecDeque::new() };
            *ring = keeps.then(new);
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        lock(&self.0).is_some()
    }

    pub(crate) fn keep<'a>(&self, frames: impl IntoIterator<Item = &'a Placed>) {
        let mut ring = lock(&self.0);
        let Some(ring) = &mut *ring else { return };
        frames.into_iter().for_each(|frame| ring.keep(frame));
    }

    /// Copies frames that lie one behind the other from a position on: how many bytes.
    pub(crate) fn read(&self, from: Position, buf: &mut Vec<u8>) -> usize {
        let ring = lock(&self.0);
        let Some(ring) = &*ring else { return 0 };
        let Some(first) = ring.frames.iter().rposition(|kept| kept.segment.at(kept.block) == from) else { return 0 };
        let (mut filled, mut next) = (0, from);
        for kept in ring.frames.range(first..) {
            if kept.segment.at(kept.block) != next || filled + kept.len > FRAME_MAX {
                break;
            }
            if buf.len() < filled + kept.len {
                buf.resize(filled + kept.len, 0);
            }
            buf[filled..filled + kept.len].copy_from_slice(&ring.bytes[kept.start..kept.start + kept.len]);
            filled += kept.len;
            next.block += (kept.len / BLOCK) as u32;
        }
        filled
    }

    /// A segment of which frames are kept: open already.
    pub(crate) fn segment(&self, epoch: u64) -> Option<Arc<Segment>> {
        let ring = lock(&self.0);
        ring.as_ref()?.frames.iter().rev().map(|kept| &kept.segment).find(|segment| segment.epoch() == epoch).cloned()
    }
}

impl Ring {
    fn keep(&mut self, frame: &Placed) {
        let bytes = frame.bytes();
        if self.at + bytes.len() > self.bytes.len() {
            // What lies in the rest is the oldest.
            while self.frames.front().is_some_and(|kept| kept.start >= self.at) {
                self.frames.pop_front();
            }
            self.at = 0;
        }
        let end = self.at + bytes.len();
        while self.frames.front().is_some_and(|kept| (self.at..end).contains(&kept.start)) {
            self.frames.pop_front();
        }
        self.bytes[self.at..end].copy_from_slice(bytes);
        self.frames.push_back(Kept { segment: frame.segment.clone(), block: frame.block, start: self.at, len: bytes.len() });
        self.at = end;
    }
}

/// Where frames were found, and the segments that were open last. What is written stays where it is, so what is known stays true.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By segment and first LSN: a frame's block, and the LSN behind its records.
    frames: BTreeMap<(u64, Lsn), (u32, Lsn)>,
    /// The one used last is the last.
    open: VecDeque<Arc<Segment>>,
}

/// Where a record is to be looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// It begins in the frame at this block.
    At(u32),
    /// It does in one from the first block on that begins before the other.
    Between(u32, u32),
}

impl Places {
    pub(crate) fn note(&self, at: Position, header: &FrameHeader) {
        if header.records == 0 {
            return;
        }
        let known = &mut *lock(&self.0);
        if known.frames.len() >= PLACES_MAX {
            let mut other = false;
            known.frames.retain(|_, _| {
                other = !other;
                other
            });
        }
        known.frames.insert((at.epoch, header.first_lsn()), (at.block, header.next_lsn()));
    }

    /// Narrows the stretch of a segment in which a record begins.
    pub(crate) fn find(&self, epoch: u64, lsn: Lsn, (mut low, mut high): (u32, u32)) -> Place {
        let known = lock(&self.0);
        let within = |block: u32| (low..high).contains(&block);
        if let Some((_, &(block, next))) =
            known.frames.range((epoch, Lsn::ZERO)..=(epoch, lsn)).next_back().filter(|(_, f)| within(f.0))
        {
            if lsn < next {
                return Place::At(block);
            }
            low = block;
        }
        let behind = known.frames.range((epoch, lsn.next())..=(epoch, Lsn::MAX)).next();
        if let Some((_, &(block, _))) = behind.filter(|(_, f)| (low..high).contains(&f.0)) {
            high = block;
        }
        Place::Between(low, high)
    }

    pub(crate) fn segment(&self, epoch: u64) -> Option<Arc<Segment>> {
        let open = &mut lock(&self.0).open;
        let at = open.iter().position(|segment| segment.epoch() == epoch)?;
        let segment = open.remove(at)?;
        open.push_back(segment.clone());
        Some(segment)
    }

    pub(crate) fn opened(&self, segment: &Arc<Segment>) {
        let mut known = lock(&self.0);
        known.open.push_back(segment.clone());
        let oldest = if known.open.len() > OPEN_MAX { known.open.pop_front() } else { None };
        drop(known);
        drop(oldest); // It may close a file: not under the lock.
    }

    /// Forgets what is not of the log any more: a file that is held open keeps its space. Under no lock: it closes files.
    pub(crate) fn keep_to(&self, chain: &Chain) {
        let on_chain = |epoch| chain.entries.binary_search_by_key(&epoch, |e| e.epoch).is_ok();
        let front = chain.entries.first().map_or(0, |e| e.epoch);
        let mut known = lock(&self.0);
        let (kept, gone): (VecDeque<_>, VecDeque<_>) = known.open.drain(..).partition(|segment| on_chain(segment.epoch()));
        known.open = kept;
        if known.frames.first_key_value().is_some_and(|(&(epoch, _), _)| epoch < front) {
            known.frames.retain(|&(epoch, _), _| epoch >= front);
        }
        drop(known);
        drop(gone);
    }
}
