//! What lies behind X, the first place without a valid frame: promises, and whether anything was
//! written.

use super::files::{LinkState, Segments};
use super::seals;
use crate::bug::bug;
use crate::format::{
    self, BLOCK, Binding, Control, Entry, FrameHeader, Head, Kind, LINK_BLOCK, Link, Position, Promise, SECTOR, Sector,
};
use crate::{Lsn, Result};

/// Read at once.
const READ_BLOCKS: u32 = 64;

/// What was found behind X.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The highest.
    pub(super) promise: Promise,
    /// The last LSN that a frame header names, promised or not.
    pub(super) known: Lsn,
    pub(super) start: Start,
    /// Whether any sector is written: of X's own segment, behind a torn frame and before the seal.
    pub(super) written: bool,
    pub(super) garbled: u64,
    /// See [`Survey`](super::Survey).
    pub(super) unwritten: Vec<u64>,
    pub(super) written_to: Option<Position>,
}

/// The highest start that a LINK or MARK names, and all before that frame: promised by it, if what
/// lies before the start is gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    pub(super) lsn: Lsn,
    pub(super) promise: Promise,
}

impl Start {
    /// The higher one; of two that name the same, the first.
    fn or(self, later: Start) -> Start {
        if later.lsn > self.lsn { later } else { self }
    }
}

impl Behind {
    /// Takes in another promise.
    pub(super) fn promise_too(&mut self, promise: Promise) {
        if promise.position > self.promise.position {
            self.promise = promise;
        }
    }

    /// Takes a block in, whose first sector is not the only one that counts: a tear may have left
    /// any. Whether all of it is unwritten.
    fn take(&mut self, binding: &Binding, active: bool, counts_start: bool, block: u32, bytes: &[u8]) -> bool {
        if let Head::Frame(header) = binding.head(block, &bytes[..SECTOR]) {
            self.known = self.known.max(header.next_lsn().prev()).max(header.promise.lsn);
            // A fork's LINK promises itself: while it is torn, nothing was acknowledged on its
            // word.
            let itself = header.promise.position > Position::new(binding.epoch, block);
            let mut counts = active || !itself;
            bug!(TrustTornLink, counts = true);
            bug!(IgnorePromises, counts = false);
            if counts {
                self.promise_too(header.promise);
            }
            if let Some(lsn) = start_of(binding, block, &header, bytes).filter(|_| counts_start) {
                let position = Position::new(binding.epoch, block);
                self.start = self.start.or(Start { lsn, promise: Promise { position, lsn: header.first_lsn().prev() } });
            }
        }
        let first = u64::from(block) * (BLOCK / SECTOR) as u64;
        let mut unwritten = true;
        for (sector, index) in bytes.chunks_exact(SECTOR).zip(first..) {
            match binding.classify(index, sector) {
                Sector::Unwritten => continue,
                Sector::Written { .. } => self.written = true,
                Sector::Garbled => self.garbled += 1,
            }
            unwritten = false;
        }
        unwritten
    }
}

/// The start LSN that a LINK or MARK names, if it is whole. (These have one block.)
fn start_of(binding: &Binding, block: u32, header: &FrameHeader, bytes: &[u8]) -> Option<Lsn> {
    if !matches!(header.kind, Kind::Link | Kind::Mark) || header.frame_len() != bytes.len() {
        return None;
    }
    let mut frame = bytes.to_vec();
    binding.open_body(block, header, &mut frame).ok()?;
    let payload = format::payload(header, &frame);
    let control = if header.kind == Kind::Link { Link::decode(payload)?.control } else { Control::decode(payload)? };
    Some(control.start)
}

/// Reads all that lies behind X: the rest of that segment (if the log does not leave it before),
/// and every file with a higher epoch.
///
/// A start counts only where the log goes along, for all that is known. A truncation that was on
/// its way in a crash did not come about, and its MARK may lie behind the place where the log went on
/// in a fork.
pub(super) fn look_behind(segments: &Segments<'_>, chain: &[Entry], at: Position) -> Result<Behind> {
    let mut behind = Behind::default();
    let tip = chain.last().map_or(0, |entry| entry.epoch);
    let log_ends = |epoch| match chain.iter().find(|entry| entry.epoch == epoch) {
        Some(entry) => entry.end.unwrap_or(u32::MAX),
        None if epoch > tip => u32::MAX,
        None => 0,
    };
    let mut own_start = Start::default();
    let there = || segments.found.range(at.epoch..);
    let blocks_max = there().map(|(_, found)| found.blocks.min(READ_BLOCKS)).max().unwrap_or(0);
    let mut buf = vec![0; blocks_max as usize * BLOCK];
    for (&epoch, found) in there() {
        let from = if epoch == at.epoch { at.block } else { LINK_BLOCK };
        let (segment, active) = (segments.open(epoch)?, segments.active(epoch).is_some());
        let mut log_end = log_ends(epoch);
        bug!(TrustStaleStart, log_end = u32::MAX);
        let (mut block, mut end) = (from, from);
        // Behind a torn frame, if X is one: what is written of it is no more than the tear.
        let mut behind_torn = from;
        while block < found.blocks {
            let want = READ_BLOCKS.min(found.blocks - block) as usize * BLOCK;
            let read = segment.read(block, &mut buf[..want])?;
            for (bytes, block) in buf[..read].chunks_exact(BLOCK).zip(block..) {
                if Position::new(epoch, block) == at
                    && let Head::Frame(header) = segment.binding.head(block, &bytes[..SECTOR])
                {
                    behind_torn = block + header.blocks();
                }
                // A seal is written when all before it is, or by a recovery: it says nothing of a
                // hole.
                let own_seal = block == found.blocks - 1 && epoch == at.epoch;
                let written = behind.written;
                if !behind.take(&segment.binding, active, block < log_end, block, bytes) && !own_seal {
                    end = block + 1;
                }
                behind.written &= written || (!own_seal && block >= behind_torn);
            }
            if read < want {
                break;
            }
            block += (want / BLOCK) as u32;
        }
        if epoch == at.epoch {
            behind.written_to = Some(Position::new(epoch, end));
            own_start = std::mem::take(&mut behind.start);
        } else if end == from && block >= found.blocks && matches!(found.link, LinkState::Unwritten) {
            behind.unwritten.push(epoch);
        }
    }
    let mut has_left = at.epoch == tip && own_start.lsn > Lsn::ZERO && seals::has_left(segments, at, behind.promise)?;
    bug!(TrustStaleStart, has_left = false);
    if !has_left {
        behind.start = own_start.or(behind.start);
    }
    Ok(behind)
}
