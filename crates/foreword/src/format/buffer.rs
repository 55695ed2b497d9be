//! The memory that a frame is made in.

use std::ops::{Deref, DerefMut};

use crate::format::BLOCK;

/// Bytes aligned to a block, as direct I/O wants them.
#[derive(Debug, Default)]
pub(crate) struct FrameBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl FrameBuf {
    pub(crate) fn zeroed(len: usize) -> FrameBuf {
        let bytes = vec![0; len + BLOCK - 1];
        let start = bytes.as_ptr().align_offset(BLOCK).min(BLOCK - 1);
        FrameBuf { bytes, start, len }
    }
}

impl Deref for FrameBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for FrameBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
