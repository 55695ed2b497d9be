//! The seals, from X on: whether a segment was left, and what was not sealed.

use super::evidence::{DamagedSeal, LinkFound};
use super::files::{LinkState, Segments};
use crate::Result;
use crate::bug::bug;
use crate::files::names::Names;
use crate::files::segment::Found;
use crate::format::{self, Kind, Position, Promise};

/// What the seals say.
#[derive(Debug, Default)]
pub(super) struct Seals {
    /// See [`Survey`](super::Survey).
    pub(super) unsealed: Vec<u64>,
    /// The last that is damaged.
    pub(super) damaged: Option<DamagedSeal>,
    /// The file that the seal of the newest segment, or of the tip, vouches for, if it is not there.
    pub(super) gone: Option<u64>,
    /// The segment of X has a seal with an end no later than X: the log had left it.
    pub(super) left: bool,
}

/// Reads the seals of the active segments from X on. The fork is in an earlier one, if no promise
/// reaches as far. Of the tip, too, the seal vouches for the next file: behind it an unfinished fork
/// may have begun what has LINKs.
pub(super) fn look_at_seals(segments: &Segments<'_>, names: &Names, tip: u64, at: Position, promise: Promise) -> Result<Seals> {
    let mut seals = Seals::default();
    let newest = segments.newest();
    let fork = at.epoch.min(promise.position.epoch);
    for epoch in segments.actives().filter(|&epoch| epoch >= fork) {
        seals.unsealed.push(epoch);
        if epoch < at.epoch {
            continue;
        }
        match seal(segments, epoch)? {
            Seal::Absent => {}
            Seal::Damaged => {
                let last = segments.found.get(&epoch).map_or(1, |found| found.blocks) - 1;
                seals.damaged = Some(DamagedSeal { at: Position::new(epoch, last), inner: epoch < newest });
            }
            Seal::There(end) => {
                let mut last = epoch == newest || epoch == tip;
                bug!(HideLost, last = epoch == newest);
                if last && !names.epochs.contains(&(epoch + 1)) {
                    seals.gone = Some(epoch + 1);
                }
                seals.left |= epoch == at.epoch && end <= at.block;
            }
        }
    }
    Ok(seals)
}

/// What there is against the LINK with which the log goes on behind its tip.
pub(super) fn next_link(segments: &Segments<'_>, tip: u64, left: bool) -> LinkFound {
    match segments.found.get(&(tip + 1)).filter(|_| left).map(|found| &found.link) {
        Some(LinkState::Damaged(why)) => LinkFound::Broken(why),
        Some(LinkState::Unwritten) => LinkFound::Absent,
        Some(LinkState::Active { .. }) | None => LinkFound::Sound,
    }
}

enum Seal {
    /// With the end that it names.
    There(u32),
    Absent,
    Damaged,
}

fn seal(segments: &Segments<'_>, epoch: u64) -> Result<Seal> {
    let Some(found) = segments.found.get(&epoch).filter(|found| found.short.is_none()) else { return Ok(Seal::Absent) };
    let segment = segments.open(epoch)?;
    let mut buf = Vec::new();
    Ok(match segment.frame(found.blocks - 1, found.blocks, &mut buf)? {
        Found::Frame(header) if header.kind == Kind::Seal && header.payload_len >= 4 => {
            Seal::There(format::u32_at(format::payload(&header, &buf), 0))
        }
        Found::Unwritten | Found::Torn => Seal::Absent,
        Found::Frame(_) | Found::Damaged(_) => Seal::Damaged,
    })
}
