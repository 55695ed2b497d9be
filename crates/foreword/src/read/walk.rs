//! Walks a segment's frames forward in large reads: under recovery and under every reader.

use std::ops::Range;
use std::sync::Arc;

use crate::Result;
use crate::files::segment::{Found, Segment};
use crate::format::{self, BLOCK, Body, FRAME_MAX, FrameHeader, Head, SECTOR};
use crate::read::recent::Recent;

/// Read at once along the log. Large enough that the system call is cheap, small enough to stay in
/// the processor's cache.
const READ: usize = FRAME_MAX;
/// Read at a place that is come to anew, unless the frame there is longer: perhaps one record is
/// wanted, and what follows is not.
const FIRST_READ: usize = 16 << 10;

#[derive(Debug)]
pub(crate) struct Walker {
    segment: Arc<Segment>,
    /// The block behind the last that frames may have.
    end: u32,
    /// Where the next frame is looked for.
    block: u32,
    buf: Vec<u8>,
    /// The block at which the buffer begins, and how many bytes of it are filled.
    buf_block: u32,
    filled: usize,
    /// How much the next read takes.
    ahead: usize,
    /// The last frame, within the buffer.
    frame: (usize, usize),
}

impl Walker {
    pub(crate) fn new(segment: Arc<Segment>, block: u32, end: u32) -> Walker {
        let end = end.min(segment.data_end());
        Walker { segment, end, block, buf: Vec::new(), buf_block: block, filled: 0, ahead: FIRST_READ, frame: (0, 0) }
    }

    /// With another's buffer, so that a reader has one.
    pub(crate) fn replace(&mut self, segment: Arc<Segment>, block: u32, end: u32) {
        let (buf, ahead) = (std::mem::take(&mut self.buf), self.ahead);
        *self = Walker { buf, ahead, ..Walker::new(segment, block, end) };
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Where the next frame is looked for.
    pub(crate) fn block(&self) -> u32 {
        self.block
    }

    pub(crate) fn set_end(&mut self, end: u32) {
        self.end = end.min(self.segment.data_end());
    }

    pub(crate) fn at_end(&self) -> bool {
        self.block >= self.end
    }

    /// Goes to a block.
    pub(crate) fn seek(&mut self, block: u32) {
        if block != self.block {
            // (A frame that was opened is not as it was read.)
            (self.filled, self.ahead) = (0, FIRST_READ);
        }
        self.block = block;
    }

    /// The payload of the frame that `step` found last.
    pub(crate) fn payload(&self, header: &FrameHeader) -> &[u8] {
        format::payload(header, &self.buf[self.frame.0..self.frame.1])
    }

    /// Where that payload lies in the buffer, until the next step.
    pub(crate) fn place(&self, header: &FrameHeader) -> Range<usize> {
        let start = self.frame.0 + format::HEADER;
        start..start + header.payload_len as usize
    }

    /// What lies in the buffer at a place.
    pub(crate) fn buffered(&self, place: Range<usize>) -> &[u8] {
        self.buf.get(place).unwrap_or(&[])
    }

    /// Reads the frame at the current block, from those kept in memory if it is among them, and
    /// steps over it if it is whole.
    pub(crate) fn step(&mut self, recent: Option<&Recent>) -> Result<Found> {
        // What was read ahead may have been written since: what is no frame is read afresh before
        // it is believed.
        let stale = self.offset().is_some();
        match self.look(recent)? {
            Found::Frame(header) => {
                self.block += header.blocks();
                Ok(Found::Frame(header))
            }
            _ if stale => {
                (self.filled, self.ahead) = (0, FIRST_READ);
                self.step(recent)
            }
            other => Ok(other),
        }
    }

    /// Where the current block begins in the buffer, if its first sector is there.
    fn offset(&self) -> Option<usize> {
        let at = (self.block.checked_sub(self.buf_block)? as usize).checked_mul(BLOCK)?;
        (at + BLOCK <= self.filled).then_some(at)
    }

    /// Reads on from the current block, so many bytes at least.
    fn fill(&mut self, need: usize, recent: Option<&Recent>) -> Result<()> {
        self.buf_block = self.block;
        self.filled = recent.map_or(0, |recent| recent.read(self.segment.at(self.block), self.ahead, &mut self.buf));
        if self.filled > 0 {
            self.ahead = (self.ahead * 4).min(READ);
            return Ok(());
        }
        let want = self.ahead.max(need).min((self.segment.blocks.saturating_sub(self.block)) as usize * BLOCK);
        if self.buf.len() < want {
            // (Nothing of the old one is needed; and zeros that the system has are cheaper than
            // those that `resize` writes.)
            self.buf = vec![0; want];
        }
        self.filled = self.segment.read(self.block, &mut self.buf[..want])?;
        self.ahead = (self.ahead * 4).min(READ);
        Ok(())
    }

    fn look(&mut self, recent: Option<&Recent>) -> Result<Found> {
        if self.offset().is_none() {
            self.fill(BLOCK, recent)?;
        }
        let Some(mut at) = self.offset() else { return Ok(Found::Damaged("the file ends")) };
        let binding = self.segment.binding;
        let header = match binding.head(self.block, &self.buf[at..at + SECTOR]) {
            Head::Frame(header) => header,
            Head::Unwritten => return Ok(Found::Unwritten),
            Head::Middle => return Ok(Found::Damaged("the middle of a frame where one should begin")),
            Head::Damaged(why) => return Ok(Found::Damaged(why)),
        };
        if header.blocks() > self.end.saturating_sub(self.block) {
            return Ok(Found::Damaged("a frame that reaches beyond its bounds"));
        }
        let len = header.frame_len();
        if at + len > self.filled {
            self.fill(len, recent)?;
            at = 0;
        }
        if at + len > self.filled {
            return Ok(Found::Damaged("the file ends"));
        }
        self.frame = (at, at + len);
        Ok(match binding.open_body(self.block, &header, &mut self.buf[at..at + len]) {
            Ok(()) => Found::Frame(header),
            Err(Body::Torn) => Found::Torn,
            Err(Body::Damaged) => Found::Damaged("a frame that fails its checksum, though all of it was written"),
        })
    }
}
