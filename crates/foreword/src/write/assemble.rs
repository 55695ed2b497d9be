//! Turns units (records, batches) into frames with a place in a segment. No I/O: what is placed here is written by a flight.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::bug::{self, Bug};
use crate::error::Doing;
use crate::files::segment::{Segment, now_micros};
use crate::format::{
    self, BLOCK, CLOSED, CONTINUED, CONTINUES, Control, Count, FrameBuf, FrameHeader, HEADER, Kind, Link, Position, Promise,
};
use crate::recovery::Entry;
use crate::write::copying::{Copier, Copying};
use crate::write::payload::{self, Payload};
use crate::{Lsn, Result};

/// At the end of each segment, for MARKs and checkpoint records: so that they find room when the disk is full.
const RESERVE_BLOCKS: u32 = 6;
/// What copies leave of it: for two MARKs.
const COPY_LEAVES: u32 = 2;
/// In microseconds.
const SECOND: u64 = 1_000_000;
/// The largest checkpoint record: the reserve has room for two, and for what must follow them.
pub(crate) const CHECKPOINT_BLOCKS: u32 = 2;

/// The longest frame that is made, of [`FRAME_BLOCKS_MAX`](format::FRAME_BLOCKS_MAX) that a reader takes: a flipped bit costs the records of a frame.
const FRAME_BLOCKS: u32 = 16;
pub(crate) const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK;

/// So many buffers and lists are kept for the next use: 8 MiB, as much as [`Options::buffer_bytes`](crate::Options::buffer_bytes) lets gather by default.
const FREE_MAX: usize = 128;

/// How much something is needed on a full disk. Each leaves the end of the segment to what is needed more.
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
    fn leaves(self) -> u32 {
        match self {
            _ if bug::is(Bug::NoReserve) => 0,
            Urgency::Ordinary => RESERVE_BLOCKS,
            Urgency::Copy => COPY_LEAVES,
            Urgency::Checkpoint => 2,
            Urgency::Mark => 1,
            Urgency::Last => 0,
        }
    }
}

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

    /// Puts the promise in, and the time unless it has one, and computes the checksums; what is then written.
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

#[derive(Debug)]
struct Building {
    buf: FrameBuf,
    header: FrameHeader,
    /// The longest payload that its place allows.
    max: usize,
}

/// So many prepared segments are needed before the unit can be placed.
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
    /// The CLOSED frame of a log that was closed, until it goes on: the page cache may show one that the disk never got (hazard 11), so
    /// that it is written again before anything behind it.
    closed: Option<Placed>,
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
        chain.push(Entry { epoch: self.to_epoch, first_lsn, bytes, time: self.time, end: None });
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

    /// The same, behind the CLOSED frame of a log that was closed. Nothing is written until something is appended.
    pub(crate) fn behind_closed(segment: Arc<Segment>, segment_blocks: u32, closed: Placed) -> Assembler {
        let new = Assembler::new(segment, segment_blocks, closed.block + closed.header.blocks(), closed.header.first);
        Assembler { closed: Some(closed), ..new }
    }

    /// Whether the log is as it was closed: nothing was appended since, and nothing has to be written to close it.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(crate) fn next(&self) -> Count {
        self.next
    }

    pub(crate) fn next_lsn(&self) -> Lsn {
        self.next.lsn
    }

    /// From here on places records that were written before, at this time. A frame has one, which is that of all its records to the second: so crashes and
    /// cuts that follow one another do not leave each record a block of its own.
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
    pub(crate) fn put(
        &mut self,
        unit: Payload<'_>,
        urgency: Urgency,
        spares: &mut VecDeque<Arc<Segment>>,
        control: &Control,
    ) -> Result<Lsn, NeedSegments> {
        let first = self.next.lsn;
        if let Some(copier) = self.place_unit(unit, urgency, spares, control)? {
            copier.copy(unit);
            for frame in &mut self.placed {
                // (All of it is there.)
                let _ = frame.await_bytes();
            }
        }
        Ok(first)
    }

    /// Places a unit, whose first record gets the next LSN. All or nothing; prepared segments are taken from `spares` as needed. A large one is still to be
    /// copied: by what is returned, without the lock.
    #[inline]
    pub(crate) fn place_unit(
        &mut self,
        unit: Payload<'_>,
        urgency: Urgency,
        spares: &mut VecDeque<Arc<Segment>>,
        control: &Control,
    ) -> Result<Option<Box<Copier>>, NeedSegments> {
        if self.closed.is_some() {
            return self.place_behind_closed(unit, urgency, spares, control);
        }
        self.place_here(unit, urgency, spares, control)
    }

    /// The first unit of a log that was closed: behind CLOSED and a MARK, if there is room for one.
    #[cold]
    fn place_behind_closed(
        &mut self,
        unit: Payload<'_>,
        urgency: Urgency,
        spares: &mut VecDeque<Arc<Segment>>,
        control: &Control,
    ) -> Result<Option<Box<Copier>>, NeedSegments> {
        self.write_closed_again();
        let block = self.block;
        if self.room(Urgency::Mark) > 0 && !bug::is(Bug::NoOpenMark) {
            self.place_control(0, control);
        }
        let placed = self.place_here(unit, urgency, spares, control);
        if placed.is_err() {
            (self.block, self.placed_bytes) = (block, 0);
            self.placed.truncate(1);
            self.closed = self.placed.pop_front();
        }
        placed
    }

    fn write_closed_again(&mut self) {
        if let Some(closed) = self.closed.take().filter(|_| !bug::is(Bug::TrustClosed)) {
            self.placed_bytes += closed.header.frame_len();
            self.placed.push_back(closed);
        }
    }

    #[inline]
    fn place_here(
        &mut self,
        unit: Payload<'_>,
        urgency: Urgency,
        spares: &mut VecDeque<Arc<Segment>>,
        control: &Control,
    ) -> Result<Option<Box<Copier>>, NeedSegments> {
        let bytes = unit.framed() as usize;
        if let Some(building) = &self.building
            && building.header.payload_len as usize + bytes > building.max
        {
            self.close_frame(0);
        }
        if self.building.is_none() {
            if bytes > format::payload_max(FRAME_BLOCKS) {
                return self.lay_out(unit, spares, control).map(Some);
            }
            if bytes > format::payload_max(self.room(urgency)) {
                let next = spares.front().map_or(self.segment_blocks, |spare| spare.blocks);
                if bytes > format::payload_max(fresh_room(next)) {
                    // Small segments: less than a full frame fits one.
                    return self.lay_out(unit, spares, control).map(Some);
                }
                let spare = spares.pop_front().ok_or(NeedSegments(1))?;
                self.rotate(spare, control);
            }
            let buf = self.free.pop().unwrap_or_else(|| FrameBuf::zeroed(FRAME_BYTES));
            self.open_frame(self.room(urgency), buf);
        }
        if let Some(building) = &mut self.building {
            building.push(unit);
        }
        self.next.add(unit.count(), unit.bytes() as usize);
        if !matches!(urgency, Urgency::Ordinary | Urgency::Copy) {
            // Nobody else is to join it where only the urgent may be.
            self.close_frame(0);
        }
        Ok(None)
    }

    /// Lays a unit out that spans frames, which hold nothing else.
    fn lay_out(
        &mut self,
        unit: Payload<'_>,
        spares: &mut VecDeque<Arc<Segment>>,
        control: &Control,
    ) -> Result<Box<Copier>, NeedSegments> {
        let need = self.segments_for(unit.framed() as usize, unit.count(), spares);
        if spares.len() < need {
            return Err(NeedSegments(need));
        }
        let (mut flags, before) = (CONTINUES, self.placed.len());
        for record in unit.each().map(|parts| payload::sum(parts) as usize) {
            self.reserve_frame(5.min(4 + record), &mut flags, spares, control);
            let mut left = record;
            if let Some(building) = &mut self.building {
                building.header.payload_len += 4;
                building.header.records += 1;
                left -= building.reserve(left);
            }
            self.next.add(1, record);
            while left > 0 {
                self.reserve_frame(1, &mut flags, spares, control);
                if let Some(building) = &mut self.building {
                    let now = building.reserve(left);
                    building.header.head_len += now as u32;
                    left -= now;
                }
            }
        }
        self.close_frame(flags & CONTINUED);
        let mut copier = Box::new(Copier::new());
        for frame in self.placed.range_mut(before..).filter(|frame| frame.header.kind == Kind::Data) {
            frame.copying = Some(copier.lend(std::mem::take(&mut frame.buf), frame.header.payload_len));
        }
        Ok(copier)
    }

    /// Makes sure that a frame of a large unit is open with room for so many bytes.
    fn reserve_frame(&mut self, bytes: usize, flags: &mut u32, spares: &mut VecDeque<Arc<Segment>>, control: &Control) {
        if self.building.as_ref().is_some_and(|b| b.header.payload_len as usize + bytes <= b.max) {
            return;
        }
        if self.building.is_some() {
            self.close_frame(*flags);
            *flags |= CONTINUED;
        }
        if self.room(Urgency::Ordinary) == 0
            && let Some(spare) = spares.pop_front()
        {
            self.rotate(spare, control);
        }
        let room = self.room(Urgency::Ordinary);
        assert!(room > 0, "segments_for bounds what a large unit takes");
        let buf = self.free.pop().unwrap_or_default();
        self.open_frame(room, buf);
    }

    /// How many further segments a large unit takes. Each frame may waste the few bytes in which a length does not fit.
    fn segments_for(&self, bytes: usize, records: usize, spares: &VecDeque<Arc<Segment>>) -> usize {
        let capacity = |mut room: u32| {
            let mut sum = 0;
            while room > 0 {
                let blocks = room.min(FRAME_BLOCKS);
                sum += format::payload_max(blocks).saturating_sub(if records > 1 { 5 } else { 0 });
                room -= blocks;
            }
            sum
        };
        let mut left = bytes.saturating_sub(capacity(self.room(Urgency::Ordinary)));
        for (ready, spare) in spares.iter().enumerate() {
            if left == 0 {
                return ready;
            }
            left = left.saturating_sub(capacity(fresh_room(spare.blocks)));
        }
        spares.len() + left.div_ceil(capacity(fresh_room(self.segment_blocks)).max(1))
    }

    /// Places a MARK with the log's state; `false` if there is no room left for one.
    pub(crate) fn mark(&mut self, closed: bool, urgency: Urgency, control: &Control) -> bool {
        self.close_frame(0);
        if self.room(urgency) == 0 {
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
        if !bug::is(Bug::SkipSeal) {
            self.placed.push_back(seal(&self.segment, self.block, self.next));
        }
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

    /// Takes buffers of written frames back: enough for a group that is gathering and those in flight. What is left of the frames is to be dropped
    /// without the lock: much memory, or the last handle of a segment.
    pub(crate) fn reclaim(&mut self, written: &mut VecDeque<Placed>) {
        for Placed { buf, .. } in written {
            if buf.len() == FRAME_BYTES && self.free.len() < FREE_MAX {
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

/// The blocks for ordinary frames in a segment that has only its LINK.
pub(crate) fn fresh_room(blocks: u32) -> u32 {
    blocks - 1 - RESERVE_BLOCKS - (format::LINK_BLOCK + 1)
}

/// The same for what a fork writes again.
pub(crate) fn copy_room(blocks: u32) -> u32 {
    blocks - 1 - COPY_LEAVES - (format::LINK_BLOCK + 1)
}

/// A segment's SEAL, placed.
pub(crate) fn seal(segment: &Arc<Segment>, end: u32, next: Count) -> Placed {
    let mut header = FrameHeader::new(Kind::Seal, next);
    header.payload_len = 8;
    let mut buf = FrameBuf::zeroed(header.frame_len());
    buf[HEADER..HEADER + 4].copy_from_slice(&end.to_le_bytes());
    Placed { segment: segment.clone(), block: segment.data_end(), header, buf, again: false, copying: None }
}

impl Building {
    /// Takes room for as many bytes as there is room for: how many.
    fn reserve(&mut self, len: usize) -> usize {
        let now = len.min(self.max - self.header.payload_len as usize);
        self.header.payload_len += now as u32;
        now
    }

    /// Appends a unit, for which there is room.
    #[inline]
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
