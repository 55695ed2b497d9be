//! The bytes: frames, sector tags, promises. No I/O here.
//!
//! `docs/FORMAT.md` is the specification; this module is its only implementation in the library.
//! The ideas: everything in a segment is a *frame* of whole blocks, written once; each 512-byte
//! sector of a frame ends in a *tag* that no other place, segment or log can bear, so that what a
//! crash left unwritten is told from what has rotted; and each frame carries a *promise*: what was
//! durable when it was made.

mod buffer;
mod chain;
mod control;
mod frame;
mod header;
mod id;
mod position;

pub(crate) use buffer::FrameBuf;
pub(crate) use chain::{Chain, Cuts, Entry, way_in};
pub(crate) use control::{Control, Cut, Link, WAIVERS_MAX, Waiver, is_later};
pub(crate) use frame::{Binding, Body, CLOSED, CONTINUED, CONTINUES, FrameHeader, Head, Kind, Sector, payload, payload_max};
pub(crate) use header::SegmentHeader;
pub use id::{LogId, ParseLogIdError};
pub(crate) use position::{Count, Position, Promise};

use crate::Lsn;

pub(crate) const BLOCK: usize = 4096;
pub(crate) const SECTOR: usize = 512;
/// The length of a frame's header.
pub(crate) const HEADER: usize = 80;
/// The same of block 0, which has the same layout in every version.
const BLOCK_0_HEADER: usize = 64;
pub(crate) const FRAME_BLOCKS_MAX: u32 = 64;
pub(crate) const FRAME_MAX: usize = FRAME_BLOCKS_MAX as usize * BLOCK;
pub(crate) const VERSION: u32 = 2;
/// A record's length has so many bits. The two above are for what a later feature says of a record,
/// and zero until then.
pub(crate) const LENGTH_BITS: u32 = 30;
pub(crate) const SEGMENT_BLOCKS_MIN: u32 = 16;
/// 4 GiB: far below where a block number would overflow.
pub(crate) const SEGMENT_BLOCKS_MAX: u32 = 1 << 20;
/// The LINK's place in every segment.
pub(crate) const LINK_BLOCK: u32 = 1;
/// Beyond what the records of any log have; so bytes can be counted up without a thought of
/// overflow.
const BYTES_MAX: u64 = u64::MAX >> 1;
/// Beyond what any log reaches; so LSNs can be counted up without a thought of overflow.
pub(crate) const LSN_MAX: Lsn = Lsn(u64::MAX >> 1);

/// The length of the record whose length field this is; `None` if it says more than a length, as no
/// feature of this version does.
pub(crate) fn record_len(field: u32) -> Option<usize> {
    (field >> LENGTH_BITS == 0).then_some(field as usize)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
