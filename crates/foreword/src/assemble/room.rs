//! How much of a segment is for what: records leave its end to what a full disk needs more. **No
//! I/O.**

use crate::bug::bug;
use crate::format::{self, BLOCK};

/// At the end of each segment, for MARKs and checkpoint records: so that they find room when the
/// disk is full.
const RESERVE_BLOCKS: u32 = 6;
/// What copies leave of it: for two MARKs.
const COPY_LEAVES: u32 = 2;
/// The largest checkpoint record: the reserve has room for two, and for what must follow them.
pub(crate) const CHECKPOINT_BLOCKS: u32 = 2;

/// The longest frame that is made, of [`FRAME_BLOCKS_MAX`](format::FRAME_BLOCKS_MAX) that a reader
/// takes: a flipped bit costs the records of a frame.
pub(super) const FRAME_BLOCKS: u32 = 16;
pub(crate) const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK;

/// How much something is needed on a full disk. Each leaves the end of the segment to what is
/// needed more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Ordinary,
    /// What a fork writes again where there is little room.
    Copy,
    Checkpoint,
    Mark,
    /// What frees a segment for what comes next, or is the last thing that is written.
    Last,
}

impl Urgency {
    /// The blocks that it leaves.
    pub(super) fn leaves(self) -> u32 {
        bug!(NoReserve, return 0);
        match self {
            Urgency::Ordinary => RESERVE_BLOCKS,
            Urgency::Copy => COPY_LEAVES,
            Urgency::Checkpoint => 2,
            Urgency::Mark => 1,
            Urgency::Last => 0,
        }
    }
}

/// The blocks for ordinary frames in a segment that has only its LINK.
pub(crate) fn fresh_room(blocks: u32) -> u32 {
    blocks - 1 - RESERVE_BLOCKS - (format::LINK_BLOCK + 1)
}

/// The same for what a fork writes again.
pub(crate) fn copy_room(blocks: u32) -> u32 {
    copied_end(blocks) - (format::LINK_BLOCK + 1)
}

/// Where what a fork may have to write again ends in a segment, at the latest: the last blocks hold
/// only MARKs, which are not. So all of a segment can be written again in another of the size.
pub(crate) fn copied_end(blocks: u32) -> u32 {
    blocks - 1 - COPY_LEAVES
}
