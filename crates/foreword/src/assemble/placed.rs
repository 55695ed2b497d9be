//! Frames that have their place, and wait to be written.

use std::io;
use std::sync::Arc;

use crate::Result;
use crate::assemble::copying::Copying;
use crate::error::Doing;
use crate::files::segment::Segment;
use crate::files::time::now_micros;
use crate::format::{Count, FrameBuf, FrameHeader, HEADER, Kind, Position, Promise};

/// A frame that has its place, and everything but its promise and checksums.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) segment: Arc<Segment>,
    pub(crate) block: u32,
    pub(crate) header: FrameHeader,
    pub(crate) buf: FrameBuf,
    /// It lies there already, and is written again as it is.
    pub(crate) again: bool,
    /// Its payload is being copied: where it comes from.
    pub(crate) copying: Option<Arc<Copying>>,
}

impl Placed {
    /// Waits for its bytes, if they are not there yet. Frames are to ask in the order of the log.
    pub(crate) fn await_bytes(&mut self) -> Result<()> {
        if let Some(copying) = self.copying.take() {
            self.buf = copying.next().doing("copy a record", &self.segment.path)?;
        }
        Ok(())
    }

    /// Writes it alone, with its promise.
    pub(crate) fn write(&mut self, promise: Promise, durable: bool) -> Result<()> {
        let (segment, block) = (self.segment.clone(), self.block);
        segment.write(block, &mut [io::IoSlice::new(self.finish(promise, now_micros()))], durable)
    }

    /// Puts the promise in, and the time unless it has one, and computes the checksums; what is
    /// then written.
    pub(crate) fn finish(&mut self, promise: Promise, now: u64) -> &[u8] {
        if self.again {
            return self.bytes();
        }
        self.header.promise = promise;
        if self.header.time == 0 {
            self.header.time = now;
        }
        self.segment.binding.encode(self.block, &self.header, &mut self.buf);
        self.bytes()
    }

    /// Whether it lies at this position.
    pub(crate) fn is_at(&self, position: Position) -> bool {
        self.block == position.block && self.segment.epoch() == position.epoch
    }

    /// What is written, once it is finished.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf[..self.header.frame_len()]
    }
}

/// A segment's SEAL, placed.
pub(crate) fn seal(segment: &Arc<Segment>, end: u32, next: Count) -> Placed {
    let mut header = FrameHeader::new(Kind::Seal, next);
    header.payload_len = 8;
    let mut buf = FrameBuf::zeroed(header.frame_len());
    buf[HEADER..HEADER + 4].copy_from_slice(&end.to_le_bytes());
    Placed { segment: segment.clone(), block: segment.data_end(), header, buf, again: false, copying: None }
}
