//! What readers need not fetch again: the frames written last, and where frames were found before.
//! In a forked process that may be nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::Lsn;
use crate::assemble::placed::Placed;
use crate::files::segment::Segment;
use crate::format::{BLOCK, Chain, FrameHeader, Position};
use crate::sync::ProcessLock;

/// So many of the last frames are kept at most: 2 MiB.
const RECENT_MAX: usize = 32;
/// So many frames' places are known at most: of more, every other one is forgotten, and found again
/// from its neighbours.
const PLACES_MAX: usize = 4096;
/// So many segments stay open for readers that read one record here and one there.
const OPEN_MAX: usize = 4;

/// The frames written last, as they lie on the disk. Direct writes leave the page cache empty:
/// without this, a reader of what was just written would fetch it from the device that has just
/// taken it.
///
/// Each flush leaves its frames here, and takes as many older ones along, whose buffers serve
/// again: nothing is copied for it.
#[derive(Debug, Default)]
pub(crate) struct Recent(ProcessLock<VecDeque<Placed>>);

impl Recent {
    /// Keeps frames that were written, up to a number; the oldest, which make room for them, are
    /// left in their place.
    pub(crate) fn keep(&self, frames: &mut VecDeque<Placed>, max: usize) {
        let Some(mut kept) = self.0.lock() else { return };
        while kept.len() < max.min(RECENT_MAX) {
            let Some(frame) = frames.pop_front() else { return };
            kept.push_back(frame);
        }
        for frame in frames {
            if let Some(oldest) = kept.pop_front() {
                kept.push_back(std::mem::replace(frame, oldest));
            }
        }
    }

    /// Copies frames that lie one behind the other from a position on: the first, and others until
    /// it is as many bytes as wanted. How many bytes.
    pub(crate) fn read(&self, from: Position, want: usize, buf: &mut Vec<u8>) -> usize {
        let Some(kept) = self.0.lock() else { return 0 };
        let Some(first) = kept.iter().rposition(|frame| frame.is_at(from)) else { return 0 };
        let (mut filled, mut next) = (0, from);
        for frame in kept.range(first..) {
            if !frame.is_at(next) || filled >= want {
                break;
            }
            let bytes = frame.bytes();
            // (Nothing of what the buffer has behind is needed; and zeros need not be written
            // first.)
            buf.truncate(filled);
            buf.extend_from_slice(bytes);
            filled += bytes.len();
            next.block += (bytes.len() / BLOCK) as u32;
        }
        filled
    }

    /// The block of a segment at which the frame begins in which a record does, if it is kept.
    pub(crate) fn find(&self, epoch: u64, lsn: Lsn) -> Option<u32> {
        let begins = |frame: &&Placed| {
            let header = &frame.header;
            frame.segment.epoch() == epoch && (header.first_lsn()..header.next_lsn()).contains(&lsn)
        };
        self.0.lock()?.iter().rev().find(begins).map(|frame| frame.block)
    }

    /// A segment of which frames are kept: open already.
    pub(crate) fn segment(&self, epoch: u64) -> Option<Arc<Segment>> {
        self.0.lock()?.iter().rev().map(|frame| &frame.segment).find(|segment| segment.epoch() == epoch).cloned()
    }

    /// Forgets all: what is to be dropped under no lock.
    pub(crate) fn take(&self) -> VecDeque<Placed> {
        self.0.lock().map(|mut kept| std::mem::take(&mut *kept)).unwrap_or_default()
    }

    /// Forgets what is of other segments than these: a file that is held open keeps its space.
    /// Under no lock: it closes files.
    pub(crate) fn retain(&self, of: impl Fn(u64) -> bool) {
        let Some(mut kept) = self.0.lock() else { return };
        let (frames, gone): (VecDeque<_>, VecDeque<_>) = kept.drain(..).partition(|frame| of(frame.segment.epoch()));
        *kept = frames;
        drop(kept);
        drop(gone);
    }
}

/// Where frames were found, and the segments that were open last. What is written stays where it
/// is, so what is known stays true.
#[derive(Debug, Default)]
pub(crate) struct Places(ProcessLock<Known>);

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
        let Some(mut known) = self.0.lock() else { return };
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
        let Some(known) = self.0.lock() else { return Place::Between(low, high) };
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
        let open = &mut self.0.lock()?.open;
        let at = open.iter().position(|segment| segment.epoch() == epoch)?;
        let segment = open.remove(at)?;
        open.push_back(segment.clone());
        Some(segment)
    }

    pub(crate) fn opened(&self, segment: &Arc<Segment>) {
        let Some(mut known) = self.0.lock() else { return };
        known.open.push_back(segment.clone());
        let oldest = if known.open.len() > OPEN_MAX { known.open.pop_front() } else { None };
        drop(known);
        drop(oldest); // It may close a file: not under the lock.
    }

    /// Forgets what is not of the log any more: a file that is held open keeps its space. Under no
    /// lock: it closes files.
    pub(crate) fn keep_to(&self, chain: &Chain) {
        let front = chain.entries.first().map_or(0, |e| e.epoch);
        let Some(mut known) = self.0.lock() else { return };
        let (kept, gone): (VecDeque<_>, VecDeque<_>) = known.open.drain(..).partition(|segment| chain.has(segment.epoch()));
        known.open = kept;
        if known.frames.first_key_value().is_some_and(|(&(epoch, _), _)| epoch < front) {
            known.frames.retain(|&(epoch, _), _| epoch >= front);
        }
        drop(known);
        drop(gone);
    }
}
