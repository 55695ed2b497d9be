//! A segment's first block.

use crate::Lsn;
use crate::format::frame::{Binding, FrameHeader, Head, Kind, payload};
use crate::format::id::LogId;
use crate::format::position::Count;
use crate::format::{BLOCK, BLOCK_0_HEADER, SECTOR, u32_at, u64_at};

/// The contents of block 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) segment_blocks: u32,
    pub(crate) log: LogId,
    pub(crate) epoch: u64,
    pub(crate) created_ms: u64,
    pub(crate) recycled_from: u64,
    /// What a reader must know to read the segment, beyond this version: a bit each. There is none
    /// yet.
    pub(crate) features: u32,
}

/// Of block 0: behind the fields, 4 bytes of features that a reader may not know, and the place for
/// a key's id and a salt.
const SEGMENT_HEADER_LEN: usize = 96;

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut frame = vec![0; BLOCK];
        let mut header = FrameHeader::new(Kind::Header, Count { lsn: Lsn::ZERO, bytes: 0 });
        header.payload_len = SEGMENT_HEADER_LEN as u32;
        let put = &mut frame[BLOCK_0_HEADER..];
        put[0..4].copy_from_slice(&self.version.to_le_bytes());
        put[4..8].copy_from_slice(&self.segment_blocks.to_le_bytes());
        put[8..24].copy_from_slice(&self.log.0);
        put[24..32].copy_from_slice(&self.created_ms.to_le_bytes());
        put[32..40].copy_from_slice(&self.recycled_from.to_le_bytes());
        put[40..44].copy_from_slice(&self.features.to_le_bytes());
        Binding::new(self.log, self.epoch).encode(0, &header, &mut frame);
        frame
    }

    /// Reads block 0 by the identity that it states itself; `None` if its checksums do not hold.
    pub(crate) fn decode(block: &mut [u8]) -> Option<SegmentHeader> {
        let mut log = [0; 16];
        log.copy_from_slice(&block[BLOCK_0_HEADER + 8..BLOCK_0_HEADER + 24]);
        let binding = Binding::new(LogId(log), u64_at(block, 56));
        let Head::Frame(header) = binding.head(0, &block[..SECTOR]) else { return None };
        if header.kind != Kind::Header || header.frame_len() != BLOCK || header.payload_len < 40 {
            return None;
        }
        binding.open_body(0, &header, block).ok()?;
        let at = payload(&header, block);
        Some(SegmentHeader {
            version: u32_at(at, 0),
            segment_blocks: u32_at(at, 4),
            log: binding.log,
            epoch: binding.epoch,
            created_ms: u64_at(at, 24),
            recycled_from: u64_at(at, 32),
            // (The first version had none.)
            features: at.get(40..44).map_or(0, |at| u32_at(at, 0)),
        })
    }
}
