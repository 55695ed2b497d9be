//! The records that begin in one frame, as a reader has them.

use std::ops::Range;

use crate::Lsn;
use crate::format::{self, FrameHeader, Position};

/// The records that begin in one frame; the last may have been gathered from several.
#[derive(Debug, Default)]
pub(super) struct Span {
    /// The frame, whose payload is in the walker, at this place; or the stream is in `joined`.
    pub(super) header: Option<FrameHeader>,
    pub(super) at: Position,
    pub(super) place: Range<usize>,
    pub(super) joined: Vec<u8>,
    pub(super) is_joined: bool,
    pub(super) micros: u64,
    pub(super) first: Lsn,
    pub(super) records: u32,
    /// Where the record after the one read last begins, and its LSN.
    pub(super) offset: usize,
    pub(super) lsn: Lsn,
    /// Where each record begins, once a reader went backward.
    pub(super) index: Vec<u32>,
}

impl Span {
    pub(super) fn has(&self, lsn: Lsn) -> bool {
        self.header.is_some() && lsn >= self.first && lsn.0 - self.first.0 < u64::from(self.records)
    }
}

/// Where the record ends that begins at an offset.
#[inline]
pub(super) fn record_end(stream: &[u8], at: usize) -> Option<usize> {
    let len = stream.get(at..at.checked_add(4)?)?;
    let end = at + 4 + format::record_len(format::u32_at(len, 0))?;
    (end <= stream.len()).then_some(end)
}

pub(super) fn offsets(stream: &[u8], mut at: usize) -> Vec<u32> {
    let mut index = Vec::new();
    while let Some(after) = record_end(stream, at) {
        index.push(at as u32);
        at = after;
    }
    index
}

/// How many bytes of the last record are not in the stream; `None` if it does not add up.
pub(super) fn missing_bytes(stream: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < stream.len() {
        let (len, rest) = stream[at..].split_at_checked(4)?;
        let len = format::record_len(format::u32_at(len, 0))?;
        if len > rest.len() {
            return Some(len - rest.len());
        }
        at += 4 + len;
    }
    Some(0)
}
