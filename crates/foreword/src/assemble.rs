//! Turns units (records, batches) into frames with a place in a segment. **No I/O**: what is placed
//! here is written by a flush.

pub(crate) mod copying;
mod large;
pub(crate) mod payload;
pub(crate) mod placed;
pub(crate) mod room;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::assemble::copying::Copier;
use crate::assemble::payload::Payload;
use crate::assemble::placed::{Placed, seal};
use crate::assemble::room::{FRAME_BLOCKS, FRAME_BYTES, Urgency, fresh_room};
use crate::bug::bug;
use crate::files::segment::Segment;
use crate::files::time::now_micros;
use crate::format::{self, BLOCK, CLOSED, Control, Count, Entry, FrameBuf, FrameHeader, HEADER, Kind, Link, Position, Promise};
use crate::{Lsn, Result};

/// In microseconds.
const SECOND: u64 = 1_000_000;
/// So many buffers and lists at most are kept for the next use: 8 MiB, as much as
/// [`Options::buffer_bytes`](crate::Options::buffer_bytes) lets gather by default.
const FREE_MAX: usize = 128;

#[derive(Debug)]
struct Building {
    buf: FrameBuf,
    header: FrameHeader,
    /// The longest payload that its place allows.
    max: usize,
}

/// A unit that is to be placed, and what that may take.
pub(crate) struct Placement<'a> {
    pub(crate) unit: &'a Payload<'a>,
    pub(crate) urgency: Urgency,
    /// Prepared segments: those that are needed are taken from the front.
    pub(crate) spares: &'a mut VecDeque<Arc<Segment>>,
    /// What the LINK of each says.
    pub(crate) control: &'a Control,
}

/// So many prepared segments are needed before the unit can be placed, or the space of the one in
/// use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeedSegments(pub(crate) usize);

#[derive(Debug)]
pub(crate) struct Assembler {
    segment: Arc<Segment>,
    /// The size of the segments to come.
    segment_blocks: u32,
    /// Where the next frame goes.
    block: u32,
    /// What comes next.
    next: Count,
    /// The time of the records that are placed, if they were written before.
    time: u64,
    building: Option<Building>,
    placed: VecDeque<Placed>,
    placed_bytes: usize,
    /// The CLOSED frame of a log that was closed, until it goes on: the page cache may show one
    /// that the disk never got, so that it is written again before anything behind it.
    closed: Option<Placed>,
    /// The segment, of a log that was closed, has not all of its space, as a copy of it may have
    /// none for what is zeros: nothing is placed in it.
    lacks_space: bool,
    /// Memory of what was written, for what comes: in steady state nothing is allocated.
    free: Vec<FrameBuf>,
    free_lists: Vec<VecDeque<Placed>>,
    rotations: Vec<Rotation>,
}

/// That the log has gone on in another segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// Where it left the one before.
    pub(crate) from: Position,
    pub(crate) to_epoch: u64,
    pub(crate) first: Count,
    pub(crate) time: u64,
}

impl Rotation {
    /// Takes it into a chain.
    pub(crate) fn extend(&self, chain: &mut Vec<Entry>) {
        if let Some(last) = chain.last_mut().filter(|e| e.epoch == self.from.epoch) {
            last.end = Some(self.from.block);
        }
        let Count { lsn: first_lsn, bytes } = self.first;
        chain.push(Entry { epoch: self.to_epoch, first_lsn, bytes: Some(bytes), time: Some(self.time), end: None });
    }
}

impl Assembler {
    /// Goes on at a place in an active segment.
    pub(crate) fn new(segment: Arc<Segment>, segment_blocks: u32, block: u32, next: Count) -> Assembler {
        Assembler {
            segment,
            segment_blocks,
            block,
            next,
            time: 0,
            building: None,
            placed: VecDeque::new(),
            placed_bytes: 0,
            closed: None,
            lacks_space: false,
            free: Vec::new(),
            free_lists: Vec::new(),
            rotations: Vec::new(),
        }
    }

    /// Begins a prepared segment with its LINK.
    pub(crate) fn link(segment: Arc<Segment>, segment_blocks: u32, next: Count, link: &Link) -> Assembler {
        let mut new = Assembler::new(segment, segment_blocks, format::LINK_BLOCK, next);
        new.place_small(Kind::Link, 0, &link.encode());
        new
    }

    /// The same, behind the CLOSED frame of a log that was closed. Nothing is written until
    /// something is appended, and the segment has its space.
    pub(crate) fn behind_closed(segment: Arc<Segment>, segment_blocks: u32, closed: Placed, has_space: bool) -> Assembler {
        let new = Assembler::new(segment, segment_blocks, closed.block + closed.header.blocks(), closed.header.first);
        Assembler { closed: Some(closed), lacks_space: !has_space, ..new }
    }

    /// Whether the segment has to get its space first.
    pub(crate) fn lacks_space(&self) -> bool {
        self.lacks_space
    }

    /// It has got it.
    pub(crate) fn has_space_now(&mut self) {
        self.lacks_space = false;
    }

    /// Whether the log is as it was closed: nothing was appended since, and nothing has to be
    /// written to close it.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(crate) fn next(&self) -> Count {
        self.next
    }

    pub(crate) fn next_lsn(&self) -> Lsn {
        self.next.lsn
    }

    /// From here on places records that were written before, at this time. A frame has one, which
    /// is that of all its records to the second: so crashes and cuts that follow one another do not
    /// leave each record a block of its own.
    pub(crate) fn written_at(&mut self, time: u64) {
        if time / SECOND != self.time / SECOND {
            self.close_frame(0);
            self.time = time;
        }
    }

    /// Where the log stands behind all that was placed; between units.
    pub(crate) fn end(&self) -> Promise {
        Promise { position: self.segment.at(self.block), lsn: self.next.lsn.prev() }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The epoch that the next segment is prepared for, behind those that are ready.
    pub(crate) fn next_epoch(&self, spares: &VecDeque<Arc<Segment>>) -> u64 {
        self.segment.epoch() + spares.len() as u64 + 1
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.building.is_none() && self.placed.is_empty()
    }

    /// Bytes of whole frames that wait to be written.
    pub(crate) fn placed_bytes(&self) -> usize {
        self.placed_bytes
    }

    /// How far into its segment the log is, from 0 to 1.
    pub(crate) fn fill(&self) -> f32 {
        self.block as f32 / self.segment.blocks as f32
    }

    /// Blocks that frames of this urgency may still have in the segment.
    fn room(&self, urgency: Urgency) -> u32 {
        (self.segment.data_end() - urgency.leaves()).saturating_sub(self.block)
    }

    /// Whether no record finds room in the segment any more.
    pub(crate) fn is_full(&self) -> bool {
        self.building.is_none() && self.room(Urgency::Ordinary) == 0
    }

    /// Places a unit, and copies it: the LSN of its first record.
    pub(crate) fn put(&mut self, placement: Placement<'_>) -> Result<Lsn, NeedSegments> {
        let (first, unit) = (self.next.lsn, placement.unit);
        if let Some(copier) = self.place_unit(placement)? {
            copier.copy(*unit);
            for frame in &mut self.placed {
                // (All of it is there.)
                let _ = frame.await_bytes();
            }
        }
        Ok(first)
    }

    /// Places a unit, whose first record gets the next LSN. All or nothing. A large one is still to
    /// be copied: by what is returned, without the lock.
    #[inline(always)]
    pub(crate) fn place_unit(&mut self, placement: Placement<'_>) -> Result<Option<Box<Copier>>, NeedSegments> {
        let reopened = match self.closed {
            Some(_) if self.lacks_space => return Err(NeedSegments(1)),
            Some(_) => Some(self.reopen(placement.control)),
            None => None,
        };
        let placed = self.place_here(placement);
        if let (Err(_), Some(block)) = (&placed, reopened) {
            self.stay_closed(block);
        }
        placed
    }

    /// Before the first unit of a log that was closed: places CLOSED again, and a MARK behind it,
    /// if there is room for one. Where CLOSED ends.
    #[cold]
    fn reopen(&mut self, control: &Control) -> u32 {
        self.write_closed_again();
        let block = self.block;
        let mut has_room = self.room(Urgency::Mark) > 0;
        bug!(NoOpenMark, has_room = false);
        if has_room {
            self.place_control(0, control);
        }
        block
    }

    /// Takes that back: the unit found no place.
    #[cold]
    fn stay_closed(&mut self, block: u32) {
        (self.block, self.placed_bytes) = (block, 0);
        self.placed.truncate(1);
        self.closed = self.placed.pop_front();
    }

    fn write_closed_again(&mut self) {
        let Some(closed) = self.closed.take() else { return };
        bug!(TrustClosed, return);
        self.placed_bytes += closed.header.frame_len();
        self.placed.push_back(closed);
    }

    #[inline(always)]
    fn place_here(&mut self, placement: Placement<'_>) -> Result<Option<Box<Copier>>, NeedSegments> {
        let bytes = placement.unit.framed() as usize;
        if let Some(building) = &self.building
            && building.header.payload_len as usize + bytes > building.max
        {
            self.close_frame(0);
        }
        if self.building.is_none() {
            if bytes > format::payload_max(FRAME_BLOCKS) {
                return self.lay_out(placement).map(Some);
            }
            if bytes > format::payload_max(self.room(placement.urgency)) {
                let next = placement.spares.front().map_or(self.segment_blocks, |spare| spare.blocks);
                if bytes > format::payload_max(fresh_room(next)) {
                    // Small segments: less than a full frame fits one.
                    return self.lay_out(placement).map(Some);
                }
                let spare = placement.spares.pop_front().ok_or(NeedSegments(1))?;
                self.rotate(spare, placement.control);
            }
            let buf = self.free.pop().unwrap_or_else(|| FrameBuf::zeroed(FRAME_BYTES));
            self.open_frame(self.room(placement.urgency), buf);
        }
        if let Some(building) = &mut self.building {
            building.push(*placement.unit);
        }
        self.next.add(placement.unit.count(), placement.unit.bytes() as usize);
        if !matches!(placement.urgency, Urgency::Ordinary | Urgency::Copy) {
            // No other unit is to join it where only urgent ones may be.
            self.close_frame(0);
        }
        Ok(None)
    }

    /// Places a MARK with the log's state; `false` if there is no room left for one.
    pub(crate) fn mark(&mut self, closed: bool, urgency: Urgency, control: &Control) -> bool {
        self.close_frame(0);
        if self.lacks_space || self.room(urgency) == 0 {
            return false;
        }
        self.write_closed_again();
        self.place_control(if closed { CLOSED } else { 0 }, control);
        true
    }

    fn place_control(&mut self, flags: u32, control: &Control) {
        let mut payload = Vec::with_capacity(64);
        control.encode(&mut payload);
        self.place_small(Kind::Mark, flags, &payload);
    }

    /// Seals the segment and goes on in a prepared one.
    pub(crate) fn rotate(&mut self, spare: Arc<Segment>, control: &Control) {
        self.close_frame(0);
        self.write_closed_again();
        let pred = self.segment.at(self.block);
        let time = if self.time > 0 { self.time } else { now_micros() };
        self.placed_bytes += BLOCK;
        self.placed.push_back(seal(&self.segment, self.block, self.next));
        bug!(SkipSeal, self.placed.pop_back());
        self.rotations.push(Rotation { from: pred, to_epoch: spare.epoch(), first: self.next, time });
        self.segment = spare;
        self.block = format::LINK_BLOCK;
        self.place_small(Kind::Link, 0, &Link { pred, cut: None, control: control.clone() }.encode());
    }

    /// Everything placed, in the order of the log; a frame still open is closed.
    pub(crate) fn take(&mut self) -> VecDeque<Placed> {
        self.close_frame(0);
        self.placed_bytes = 0;
        std::mem::replace(&mut self.placed, self.free_lists.pop().unwrap_or_default())
    }

    /// The rotations since this was asked last.
    pub(crate) fn rotations(&mut self) -> Vec<Rotation> {
        std::mem::take(&mut self.rotations)
    }

    /// Takes buffers of written frames back: enough for a group that is gathering and those being
    /// flushed. What is left of the frames is to be dropped without the lock: much memory, or the
    /// last handle of a segment.
    pub(crate) fn reclaim(&mut self, written: &mut VecDeque<Placed>, max: usize) {
        for Placed { buf, .. } in written {
            if buf.len() == FRAME_BYTES && self.free.len() < max.min(FREE_MAX) {
                self.free.push(std::mem::take(buf));
            }
        }
    }

    /// Takes the memory of a list of written frames back, once it is empty.
    pub(crate) fn reclaim_list(&mut self, list: VecDeque<Placed>) {
        if self.free_lists.len() < FREE_MAX {
            self.free_lists.push(list);
        }
    }

    /// Gives back, to be dropped without the lock, all buffers but so many.
    pub(crate) fn give_back(&mut self, kept: usize) -> (Vec<FrameBuf>, Vec<VecDeque<Placed>>) {
        let kept = self.free.split_off(self.free.len().saturating_sub(kept));
        (std::mem::replace(&mut self.free, kept), std::mem::take(&mut self.free_lists))
    }

    #[inline(always)]
    fn open_frame(&mut self, room: u32, buf: FrameBuf) {
        let mut header = FrameHeader::new(Kind::Data, self.next);
        header.time = self.time;
        self.building = Some(Building { buf, header, max: format::payload_max(room.min(FRAME_BLOCKS)) });
    }

    fn close_frame(&mut self, flags: u32) {
        if let Some(Building { buf, mut header, .. }) = self.building.take() {
            header.flags |= flags;
            self.place(header, buf);
        }
    }

    fn place_small(&mut self, kind: Kind, flags: u32, payload: &[u8]) {
        let mut header = FrameHeader::new(kind, self.next);
        header.time = self.time;
        header.flags = flags;
        header.payload_len = payload.len() as u32;
        let mut buf = FrameBuf::zeroed(header.frame_len());
        buf[HEADER..HEADER + payload.len()].copy_from_slice(payload);
        self.place(header, buf);
    }

    fn place(&mut self, header: FrameHeader, buf: FrameBuf) {
        let blocks = header.blocks();
        self.placed.push_back(Placed {
            segment: self.segment.clone(),
            block: self.block,
            header,
            buf,
            again: false,
            copying: None,
        });
        self.placed_bytes += blocks as usize * BLOCK;
        self.block += blocks;
    }
}

impl Building {
    /// Takes room for as many bytes as there is room for: how many.
    fn reserve(&mut self, len: usize) -> usize {
        let now = len.min(self.max - self.header.payload_len as usize);
        self.header.payload_len += now as u32;
        now
    }

    /// Appends a unit, for which there is room.
    #[inline(always)]
    fn push(&mut self, unit: Payload<'_>) {
        let mut at = HEADER + self.header.payload_len as usize;
        for record in unit.each() {
            self.buf[at..at + 4].copy_from_slice(&(payload::sum(record) as u32).to_le_bytes());
            at += 4;
            for part in record {
                self.buf[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        self.header.payload_len += unit.framed() as u32;
        self.header.records += unit.count() as u32;
    }
}
