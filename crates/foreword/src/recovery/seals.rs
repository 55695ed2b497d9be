//! The seals, from X on: whether a segment was left, where the log goes on, and what was not sealed.

use super::evidence::{DamagedSeal, LinkFound};
use super::files::{LinkState, Segments};
use crate::Result;
use crate::bug::bug;
use crate::files::names::Names;
use crate::files::segment::Seal;
use crate::format::{LINK_BLOCK, Position, Promise};

/// What the seals say.
#[derive(Debug)]
pub(super) struct Seals {
    /// See [`Survey`](super::Survey).
    pub(super) unsealed: Vec<u64>,
    /// The last that is damaged.
    pub(super) damaged: Option<DamagedSeal>,
    /// The file that the tip's seal vouches for, if it is not there, and was not superseded.
    pub(super) gone: Option<u64>,
    /// The segment of X has a seal with an end no later than X: the log had left it.
    pub(super) left: bool,
    /// The LINK with which the log goes on behind its tip, if it had left that: what there is
    /// against it, and the epoch.
    pub(super) next_link: (u64, LinkFound),
}

/// Reads the seals of the tip and of the active segments, from X on. The fork is in an earlier one,
/// if no promise reaches as far.
pub(super) fn look_at_seals(segments: &Segments<'_>, names: &Names, tip: u64, at: Position, promise: Promise) -> Result<Seals> {
    let mut seals = Seals { unsealed: Vec::new(), damaged: None, gone: None, left: false, next_link: (0, LinkFound::Sound) };
    let newest = segments.newest();
    let fork = at.epoch.min(promise.position.epoch);
    let mut last = tip;
    bug!(HideLost, last = newest);
    for &epoch in segments.found.range(fork..).map(|(epoch, _)| epoch) {
        let active = segments.active(epoch).is_some();
        seals.unsealed.extend(active.then_some(epoch));
        // (Whether a waiver gave up the tip's LINK makes no difference to its seal.)
        if epoch < at.epoch || !(active || epoch == tip) {
            continue;
        }
        match seal(segments, epoch)? {
            Seal::Absent => {}
            Seal::Damaged => {
                let last = segments.found.get(&epoch).map_or(1, |found| found.blocks) - 1;
                seals.damaged = Some(DamagedSeal { at: Position::new(epoch, last), inner: epoch < newest });
            }
            Seal::There(end) => {
                seals.left |= epoch == at.epoch && end <= at.block;
                if epoch == last && !names.epochs.contains(&(epoch + 1)) {
                    seals.gone = Some(epoch + 1);
                }
            }
        }
    }
    if seals.left {
        seals.next_link = next_link(segments, tip);
        let mut superseded = seals.gone.is_some() && supersedes(seals.next_link, at, promise);
        bug!(NameSuperseded, superseded = false);
        seals.gone = seals.gone.filter(|_| !superseded);
    }
    Ok(seals)
}

/// Whether the log had left the tip, in which X is, for a file whose LINK is not there any more, or
/// damaged: X is that LINK, and nothing behind it in the tip is the log's.
pub(super) fn has_left(segments: &Segments<'_>, at: Position, promise: Promise) -> Result<bool> {
    let left = matches!(seal(segments, at.epoch)?, Seal::There(end) if end <= at.block);
    Ok(left && supersedes(next_link(segments, at.epoch), at, promise))
}

/// What there is against the LINK of the next file behind the tip.
fn next_link(segments: &Segments<'_>, tip: u64) -> (u64, LinkFound) {
    let Some((&epoch, found)) = segments.found.range(tip + 1..).next() else { return (tip + 1, LinkFound::Sound) };
    let against = match found.link {
        LinkState::Damaged(why) => LinkFound::Broken(why),
        LinkState::Unwritten => LinkFound::Absent,
        LinkState::Active { .. } => LinkFound::Sound,
    };
    (epoch, against)
}

/// Whether the next file that is there has superseded those for which the tip's seal vouches: it
/// was the log's, as what is left of its LINK says, or a promise, and no promise lies between.
fn supersedes((epoch, against): (u64, LinkFound), at: Position, promise: Promise) -> bool {
    let beyond = promise.position > Position::new(epoch, LINK_BLOCK);
    match against {
        LinkFound::Sound => false,
        LinkFound::Absent => beyond,
        LinkFound::Broken(_) => beyond || promise.position <= at,
    }
}

fn seal(segments: &Segments<'_>, epoch: u64) -> Result<Seal> {
    let is_whole = segments.found.get(&epoch).is_some_and(|found| found.short.is_none());
    if is_whole { segments.open(epoch)?.seal() } else { Ok(Seal::Absent) }
}
