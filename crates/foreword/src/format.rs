//! The bytes: frames, sector tags, promises. No I/O here.
//!
//! `docs/FORMAT.md` is the specification; this module is its only implementation in the library. The ideas:
//! everything in a segment is a *frame* of whole blocks, written once; each 512-byte sector of a frame ends in a *tag* that
//! no other place, segment or log can bear, so that what a crash left unwritten is told from what has rotted; and
//! each frame carries a *promise*: what was durable when it was made.

use std::fmt;
use std::str::FromStr;

use crate::Lsn;
use crate::bug::{self, Bug};
use crate::limit::{Hold, Holds, Limit};

pub(crate) const BLOCK: usize = 4096;
pub(crate) const SECTOR: usize = 512;
/// The length of a frame's header.
pub(crate) const HEADER: usize = 80;
pub(crate) const FRAME_BLOCKS_MAX: u32 = 64;
pub(crate) const FRAME_MAX: usize = FRAME_BLOCKS_MAX as usize * BLOCK;
pub(crate) const VERSION: u32 = 2;
/// A record's length has so many bits. The two above are for what a later feature says of a record, and zero until then.
pub(crate) const LENGTH_BITS: u32 = 30;
/// The LINK's place in every segment.
pub(crate) const LINK_BLOCK: u32 = 1;
/// Beyond what the records of any log have; so bytes can be counted up without a thought of overflow.
const BYTES_MAX: u64 = u64::MAX >> 1;
/// Beyond what any log reaches; so LSNs can be counted up without a thought of overflow.
pub(crate) const LSN_MAX: Lsn = Lsn(u64::MAX >> 1);
pub(crate) const HOLDS_MAX: usize = 32;
pub(crate) const HOLD_NAME_MAX: usize = 64;
pub(crate) const WAIVERS_MAX: usize = 32;
/// A field behind the control part: the limits of holds.
const HOLD_LIMITS: u16 = 1;
/// A hold's place among them, blocks, seconds.
const LIMIT_BYTES: usize = 9;

const MAGIC: [u8; 4] = *b"FWRD";
const TAG_AT: usize = SECTOR - 8;
const BLOCK_0_HEADER: usize = 64;

/// The identity of a log: 128 random bits, made with the log and borne by every byte of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    pub(crate) fn random() -> Result<LogId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40; // a version 4 UUID
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(LogId(bytes))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// That a text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseLogIdError;

impl fmt::Display for ParseLogIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID (8-4-4-4-12 lower-case hex digits)")
    }
}

impl std::error::Error for ParseLogIdError {}

impl FromStr for LogId {
    type Err = ParseLogIdError;

    fn from_str(text: &str) -> Result<Self, ParseLogIdError> {
        let mut bytes = [0u8; 16];
        let hex: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
        if hex.len() != 32 {
            return Err(ParseLogIdError);
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |b: u8| (b as char).to_digit(16).ok_or(ParseLogIdError);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        let id = LogId(bytes);
        // Only the one canonical spelling: a log's identity file is compared to the byte.
        if id.to_string() == text { Ok(id) } else { Err(ParseLogIdError) }
    }
}

/// A place in the log: a block of a segment. Ordered as the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) block: u32,
}

impl Position {
    pub(crate) const fn new(epoch: u64, block: u32) -> Position {
        Position { epoch, block }
    }

    pub(crate) const fn byte(self) -> u64 {
        self.block as u64 * BLOCK as u64
    }
}

/// What was durable when a frame was made: every block before `position`, every record up to `lsn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) position: Position,
    pub(crate) lsn: Lsn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Header = 1,
    Link = 2,
    Data = 3,
    Mark = 4,
    Seal = 5,
}

impl Kind {
    /// Block 0 has the same layout in every version, so that a reader can tell a newer log from a damaged one: without the time and the
    /// count of bytes that the other frames have.
    const fn header_len(self) -> usize {
        if matches!(self, Kind::Header) { BLOCK_0_HEADER } else { HEADER }
    }
}

/// The unit at the end of this frame goes on in the next.
pub(crate) const CONTINUES: u32 = 1;
/// This frame begins inside a unit.
pub(crate) const CONTINUED: u32 = 2;
/// The log was closed here.
pub(crate) const CLOSED: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    /// 24 bits.
    pub(crate) flags: u32,
    pub(crate) payload_len: u32,
    pub(crate) records: u32,
    pub(crate) head_len: u32,
    pub(crate) promise: Promise,
    pub(crate) first: Count,
    /// When its records were first written, or it was made: microseconds since 1970. Zero: not yet.
    pub(crate) time: u64,
    body_crc: u32,
}

/// A place between records, counted from the log's beginning: the LSN that comes next, and the bytes of all records before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) lsn: Lsn,
    pub(crate) bytes: u64,
}

impl Count {
    pub(crate) const START: Count = Count { lsn: Lsn::FIRST, bytes: 0 };

    /// Behind some more records.
    pub(crate) fn add(&mut self, records: usize, bytes: usize) {
        self.lsn.0 += records as u64;
        self.bytes += bytes as u64;
    }
}

impl FrameHeader {
    pub(crate) fn new(kind: Kind, first: Count) -> FrameHeader {
        FrameHeader {
            kind,
            flags: 0,
            payload_len: 0,
            records: 0,
            head_len: 0,
            promise: Promise::default(),
            first,
            time: 0,
            body_crc: 0,
        }
    }

    /// The LSN of the first record that begins in it, or that the next will have.
    pub(crate) fn first_lsn(&self) -> Lsn {
        self.first.lsn
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Header and payload, in bytes.
    fn content_len(&self) -> usize {
        self.kind.header_len() + self.payload_len as usize
    }

    pub(crate) fn frame_len(&self) -> usize {
        frame_len(self.content_len())
    }

    pub(crate) fn blocks(&self) -> u32 {
        (self.frame_len() / BLOCK) as u32
    }

    /// Whether it has only flags of its kind, and says nothing of records if it is of one that has none.
    pub(crate) fn adds_up(&self) -> bool {
        let flags = match self.kind {
            Kind::Data => CONTINUES | CONTINUED,
            Kind::Mark => CLOSED,
            Kind::Header | Kind::Link | Kind::Seal => 0,
        };
        self.flags & !flags == 0 && (self.kind == Kind::Data || (self.records == 0 && self.head_len == 0))
    }

    /// The LSN that follows the frame's records.
    pub(crate) fn next_lsn(&self) -> Lsn {
        Lsn(self.first.lsn.0.saturating_add(u64::from(self.records)))
    }
}

/// Where the table of replaced bytes begins: behind header and payload, aligned.
const fn table_at(content_len: usize) -> usize {
    content_len.next_multiple_of(8)
}

/// The place of each table entry, skipping the tags.
fn table_slots(table: usize) -> impl Iterator<Item = usize> {
    (table..).step_by(8).filter(|at| at % SECTOR != TAG_AT).take(table / SECTOR)
}

/// The length on disk of a frame whose header and payload have this length.
const fn frame_len(content_len: usize) -> usize {
    let table = table_at(content_len);
    let mut entries = table / SECTOR;
    let mut at = table;
    // As table_slots, in steps of a sector: 63 entries fit between two tags.
    while entries > 0 {
        let until_tag = (SECTOR + TAG_AT - at % SECTOR) % SECTOR / 8;
        if entries <= until_tag {
            at += entries * 8;
            break;
        }
        entries -= until_tag;
        at += until_tag * 8 + 8;
    }
    at.next_multiple_of(BLOCK)
}

/// `payload_max(blocks)`: the longest payload of a frame of at most so many blocks.
pub(crate) fn payload_max(blocks: u32) -> usize {
    const MAX: [u32; FRAME_BLOCKS_MAX as usize + 1] = {
        let mut max = [0; FRAME_BLOCKS_MAX as usize + 1];
        let mut blocks = 1;
        while blocks < max.len() {
            let mut content = blocks * BLOCK;
            while frame_len(content) > blocks * BLOCK {
                content -= 8;
            }
            max[blocks] = (content - HEADER) as u32;
            blocks += 1;
        }
        max
    };
    MAX[blocks.min(FRAME_BLOCKS_MAX) as usize] as usize
}

/// What binds bytes to one segment of one log: the seed of every checksum and tag in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) log: LogId,
    pub(crate) epoch: u64,
    seed: u32,
}

/// What a sector's tag says, seen from a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Written by this segment; `first` if a frame begins in it.
    Written { first: bool },
    /// Zero, or left from the file's earlier life.
    Unwritten,
    /// Neither: no crash can leave this.
    Garbled,
}

impl Binding {
    pub(crate) fn new(log: LogId, epoch: u64) -> Binding {
        let bound = if bug::is(Bug::IgnoreEpoch) { 0 } else { epoch };
        let seed = crc32c::crc32c_append(crc32c::crc32c(&log.0), &bound.to_le_bytes());
        Binding { log, epoch, seed }
    }

    fn tag(&self, sector: u64, first: bool) -> [u8; 8] {
        let place = sector * 2 + u64::from(first);
        let check = crc32c::crc32c_append(self.seed, &place.to_le_bytes());
        let mut tag = [0; 8];
        if !bug::is(Bug::IgnoreEpoch) {
            tag[..4].copy_from_slice(&(self.epoch as u32).to_le_bytes());
        }
        tag[4..].copy_from_slice(&check.to_le_bytes());
        tag
    }

    /// The class of the sector with this index in the segment.
    pub(crate) fn classify(&self, index: u64, sector: &[u8]) -> Sector {
        static ZEROS: [u8; SECTOR] = [0; SECTOR];
        let tag = &sector[TAG_AT..SECTOR];
        let low = u64::from(u32_at(tag, 0));
        for first in [true, false] {
            if low == self.epoch & 0xffff_ffff && tag == self.tag(index, first) {
                return Sector::Written { first };
            }
        }
        if *sector == ZEROS {
            return Sector::Unwritten;
        }
        // The latest earlier epoch with these low 32 bits is the only one that the tag can mean.
        let high = self.epoch & !0xffff_ffff;
        let older = if high | low < self.epoch { Some(high | low) } else { (high | low).checked_sub(1 << 32) };
        match older.map(|epoch| Binding::new(self.log, epoch)) {
            Some(old) if tag == old.tag(index, true) || tag == old.tag(index, false) => Sector::Unwritten,
            _ => Sector::Garbled,
        }
    }

    fn header_crc(&self, block: u32, header: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(self.seed, &u64::from(block).to_le_bytes());
        crc32c::crc32c_append(crc, &header[8..])
    }

    /// Finishes a frame in place: behind the header's place lies the payload; table, tags, padding, header and
    /// checksums are added. Returns the frame's length on disk. Bytes beyond it are not touched.
    pub(crate) fn encode(&self, block: u32, header: &FrameHeader, frame: &mut [u8]) -> usize {
        let len = header.frame_len();
        let frame = &mut frame[..len];
        frame[header.content_len()..].fill(0);
        for (i, slot) in table_slots(table_at(header.content_len())).enumerate() {
            frame.copy_within(i * SECTOR + TAG_AT..(i + 1) * SECTOR, slot);
        }
        let base = u64::from(block) * (BLOCK / SECTOR) as u64;
        for (i, sector) in frame.chunks_exact_mut(SECTOR).enumerate() {
            sector[TAG_AT..].copy_from_slice(&self.tag(base + i as u64, i == 0));
        }
        let (put, body) = frame.split_at_mut(header.kind.header_len());
        let body_crc = crc32c::crc32c(body);
        put[0..4].copy_from_slice(&MAGIC);
        put[8..12].copy_from_slice(&body_crc.to_le_bytes());
        put[12] = header.kind as u8;
        put[13..16].copy_from_slice(&header.flags.to_le_bytes()[..3]);
        put[16..20].copy_from_slice(&header.payload_len.to_le_bytes());
        put[20..24].copy_from_slice(&header.records.to_le_bytes());
        put[24..28].copy_from_slice(&header.head_len.to_le_bytes());
        put[28..32].copy_from_slice(&header.promise.position.block.to_le_bytes());
        put[32..40].copy_from_slice(&header.promise.position.epoch.to_le_bytes());
        put[40..48].copy_from_slice(&header.promise.lsn.0.to_le_bytes());
        put[48..56].copy_from_slice(&header.first.lsn.0.to_le_bytes());
        put[56..64].copy_from_slice(&self.epoch.to_le_bytes());
        if header.kind != Kind::Header {
            put[64..72].copy_from_slice(&header.time.to_le_bytes());
            put[72..80].copy_from_slice(&header.first.bytes.to_le_bytes());
        }
        let header_crc = self.header_crc(block, put);
        put[4..8].copy_from_slice(&header_crc.to_le_bytes());
        len
    }

    /// What stands at a block, judged by its first sector alone.
    pub(crate) fn head(&self, block: u32, sector: &[u8]) -> Head {
        match self.classify(u64::from(block) * (BLOCK / SECTOR) as u64, sector) {
            Sector::Unwritten => Head::Unwritten,
            Sector::Garbled => Head::Damaged("a garbled sector where a frame should begin"),
            Sector::Written { first: false } => Head::Middle,
            Sector::Written { first: true } => match self.parse(block, sector) {
                Some(header) => Head::Frame(header),
                None => Head::Damaged("a frame header that fails its checksum"),
            },
        }
    }

    fn parse(&self, block: u32, bytes: &[u8]) -> Option<FrameHeader> {
        let kind = match bytes[12] {
            1 => Kind::Header,
            2 => Kind::Link,
            3 => Kind::Data,
            4 => Kind::Mark,
            5 => Kind::Seal,
            _ => return None,
        };
        let right = u32_at(bytes, 4) == self.header_crc(block, &bytes[..kind.header_len()]) || bug::is(Bug::TrustHeader);
        let ours = u64_at(bytes, 56) == self.epoch || bug::is(Bug::IgnoreEpoch);
        if bytes[0..4] != MAGIC || !right || !ours {
            return None;
        }
        let (time, count) = if kind == Kind::Header { (0, 0) } else { (u64_at(bytes, 64), u64_at(bytes, 72)) };
        let header = FrameHeader {
            kind,
            flags: u32_at(bytes, 12) >> 8,
            payload_len: u32_at(bytes, 16),
            records: u32_at(bytes, 20),
            head_len: u32_at(bytes, 24),
            promise: Promise { position: Position::new(u64_at(bytes, 32), u32_at(bytes, 28)), lsn: Lsn(u64_at(bytes, 40)) },
            first: Count { lsn: Lsn(u64_at(bytes, 48)), bytes: count },
            time,
            body_crc: u32_at(bytes, 8),
        };
        // The checksum held, so these were written so: bounds against a writer that errs, not against rot.
        let within = header.next_lsn().max(header.promise.lsn) <= LSN_MAX;
        (within && header.payload_len as usize <= payload_max(FRAME_BLOCKS_MAX) && header.first.bytes <= BYTES_MAX)
            .then_some(header)
    }

    /// Checks a whole frame whose header was read, and puts the replaced bytes back, so that the payload is contiguous.
    pub(crate) fn open_body(&self, block: u32, header: &FrameHeader, frame: &mut [u8]) -> Result<(), Body> {
        if crc32c::crc32c(&frame[header.kind.header_len()..]) != header.body_crc && !bug::is(Bug::TrustBody) {
            let base = u64::from(block) * (BLOCK / SECTOR) as u64;
            let torn = frame
                .chunks_exact(SECTOR)
                .enumerate()
                .any(|(i, sector)| self.classify(base + i as u64, sector) == Sector::Unwritten);
            return Err(if torn { Body::Torn } else { Body::Damaged });
        }
        for (i, slot) in table_slots(table_at(header.content_len())).enumerate() {
            frame.copy_within(slot..slot + 8, i * SECTOR + TAG_AT);
        }
        Ok(())
    }
}

/// What stands where a frame may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Frame(FrameHeader),
    /// The inside of a frame.
    Middle,
    Unwritten,
    Damaged(&'static str),
}

/// Why a frame with a sound header is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Torn,
    Damaged,
}

/// The payload of an opened frame.
pub(crate) fn payload<'a>(header: &FrameHeader, frame: &'a [u8]) -> &'a [u8] {
    &frame[header.kind.header_len()..header.content_len()]
}

/// The length of the record whose length field this is; `None` if it says more than a length, as no feature of this version does.
pub(crate) fn record_len(field: u32) -> Option<usize> {
    (field >> LENGTH_BITS == 0).then_some(field as usize)
}

/// The contents of block 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) segment_blocks: u32,
    pub(crate) log: LogId,
    pub(crate) epoch: u64,
    pub(crate) created_ms: u64,
    pub(crate) recycled_from: u64,
    /// What a reader must know to read the segment, beyond this version: a bit each. There is none yet.
    pub(crate) features: u32,
}

/// Of block 0: behind the fields, 4 bytes of features that a reader may not know, and the place for a key's id and a salt.
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

/// Whether one generation comes after another: they count on from 0.
pub(crate) fn is_later(generation: u32, than: u32) -> bool {
    (generation.wrapping_sub(than) as i32) > 0
}

/// A stretch of the log that its owner gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiver {
    pub(crate) from: Position,
    pub(crate) to: Position,
    pub(crate) first_lost: Lsn,
    pub(crate) last_lost: Lsn,
}

/// All of the log's state that is not records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) start: Lsn,
    /// How often LSNs were cut off at the back, after which one may stand for another record. Counts on from 0 behind the highest.
    pub(crate) generation: u32,
    pub(crate) holds: Holds,
    pub(crate) waivers: Vec<Waiver>,
}

impl Default for Control {
    fn default() -> Self {
        Control { start: Lsn::FIRST, generation: 0, holds: Holds::new(), waivers: Vec::new() }
    }
}

impl Control {
    /// The state behind one more cut.
    pub(crate) fn cut(&mut self) {
        if !bug::is(Bug::ForgetCut) {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// LSNs that were given up: first and last of each stretch.
    pub(crate) fn lost(&self) -> Vec<(Lsn, Lsn)> {
        self.waivers.iter().map(|w| (w.first_lost, w.last_lost)).filter(|(first, last)| last >= first).collect()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.start.0.to_le_bytes());
        out.extend((self.holds.len() as u16).to_le_bytes());
        out.extend((self.waivers.len() as u16).to_le_bytes());
        out.extend(self.generation.to_le_bytes());
        for (name, hold) in &self.holds {
            out.extend(hold.lsn.0.to_le_bytes());
            out.push(name.len() as u8);
            out.extend(name.as_bytes());
        }
        for w in &self.waivers {
            out.extend(w.from.epoch.to_le_bytes());
            out.extend(w.to.epoch.to_le_bytes());
            out.extend(w.from.block.to_le_bytes());
            out.extend(w.to.block.to_le_bytes());
            out.extend(w.first_lost.0.to_le_bytes());
            out.extend(w.last_lost.0.to_le_bytes());
        }
        let limited = self.holds.values().enumerate().filter(|(_, hold)| !hold.limit.is_none());
        let limits: Vec<u8> = limited.flat_map(|(i, hold)| encode_limit(i, &hold.limit)).collect();
        if !limits.is_empty() {
            out.extend(HOLD_LIMITS.to_le_bytes());
            out.extend((limits.len() as u16).to_le_bytes());
            out.extend(limits);
        }
    }

    pub(crate) fn decode(mut at: &[u8]) -> Option<Control> {
        let mut take = |n: usize| {
            let (head, tail) = at.split_at_checked(n)?;
            at = tail;
            Some(head)
        };
        let fixed = take(16)?;
        let (holds, waivers) = (u16_at(fixed, 8), u16_at(fixed, 10));
        let (start, generation) = (Lsn(u64_at(fixed, 0)), u32_at(fixed, 12));
        let mut control = Control { start, generation, ..Control::default() };
        if control.start < Lsn::FIRST {
            return None;
        }
        for _ in 0..holds {
            let lsn = u64_at(take(8)?, 0);
            let len = take(1)?[0];
            let name = std::str::from_utf8(take(usize::from(len))?).ok()?;
            control.holds.insert(name.to_owned(), Hold { lsn: Lsn(lsn), limit: Limit::NONE });
        }
        for _ in 0..waivers {
            let w = take(40)?;
            let waiver = Waiver {
                from: Position::new(u64_at(w, 0), u32_at(w, 16)),
                to: Position::new(u64_at(w, 8), u32_at(w, 20)),
                first_lost: Lsn(u64_at(w, 24)),
                last_lost: Lsn(u64_at(w, 32)),
            };
            // One that led backward would lead a reader round in circles.
            if waiver.to <= waiver.from {
                return None;
            }
            control.waivers.push(waiver);
        }
        // What follows need not be known, nor be there.
        while let Some(field) = take(4) {
            let Some(bytes) = take(u16_at(field, 2).into()) else { break };
            if u16_at(field, 0) == HOLD_LIMITS {
                control.limit_holds(bytes);
            }
        }
        Some(control)
    }

    fn limit_holds(&mut self, limits: &[u8]) {
        for limit in limits.chunks_exact(LIMIT_BYTES) {
            if let Some(hold) = self.holds.values_mut().nth(limit[0].into()) {
                hold.limit = Limit::from_units(u32_at(limit, 1), u32_at(limit, 5));
            }
        }
    }
}

fn encode_limit(hold: usize, limit: &Limit) -> [u8; LIMIT_BYTES] {
    let (blocks, seconds) = limit.to_units();
    let mut out = [hold as u8; LIMIT_BYTES];
    out[1..5].copy_from_slice(&blocks.to_le_bytes());
    out[5..].copy_from_slice(&seconds.to_le_bytes());
    out
}

/// The first LSN that may stand for another record than it did in a generation, or in a later one before this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) since: u32,
    pub(crate) at: Lsn,
}

impl Cut {
    /// The two as one: the LINK that told of the earlier is superseded.
    pub(crate) fn and_later(self, later: Option<Cut>) -> Cut {
        Cut { since: self.since, at: later.map_or(self.at, |later| self.at.min(later.at)) }
    }
}

/// The contents of a LINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Where the predecessor ended; epoch 0 if there is none.
    pub(crate) pred: Position,
    /// What was cut since the generation of the predecessor, if that is another.
    pub(crate) cut: Option<Cut>,
    pub(crate) control: Control,
}

impl Link {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend(self.pred.epoch.to_le_bytes());
        out.extend(self.pred.block.to_le_bytes());
        out.extend(self.cut.map_or(0, |cut| cut.since).to_le_bytes());
        out.extend(self.cut.map_or(0, |cut| cut.at.0).to_le_bytes());
        self.control.encode(&mut out);
        out
    }

    pub(crate) fn decode(at: &[u8]) -> Option<Link> {
        let (fixed, control) = at.split_at_checked(24)?;
        let pred = Position::new(u64_at(fixed, 0), u32_at(fixed, 8));
        let cut = Cut { since: u32_at(fixed, 12), at: Lsn(u64_at(fixed, 16)) };
        Some(Link { pred, cut: Some(cut).filter(|cut| cut.at > Lsn::ZERO), control: Control::decode(control)? })
    }

    /// Whether a segment of this epoch can follow what the LINK says: nothing, or an older segment, from behind its HEADER.
    pub(crate) fn follows(&self, epoch: u64) -> bool {
        self.pred.epoch < epoch && (self.pred.epoch == 0 || self.pred.block >= LINK_BLOCK)
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOG: LogId = LogId([7; 16]);

    fn count(lsn: u64) -> Count {
        Count { lsn: Lsn(lsn), bytes: lsn * 100 }
    }

    fn frame(payload_len: usize) -> (Binding, FrameHeader, Vec<u8>, Vec<u8>) {
        let binding = Binding::new(LOG, 5);
        let data: Vec<u8> = (0..payload_len).map(|i| (i * 31 % 251) as u8).collect();
        let mut header = FrameHeader::new(Kind::Data, count(9));
        header.payload_len = payload_len as u32;
        let mut bytes = vec![0xee; FRAME_MAX];
        bytes[HEADER..HEADER + payload_len].copy_from_slice(&data);
        let len = binding.encode(3, &header, &mut bytes);
        bytes.truncate(len);
        (binding, header, data, bytes)
    }

    #[test]
    fn a_payload_of_any_length_comes_back() {
        for len in (0..3000).chain((3000..payload_max(FRAME_BLOCKS_MAX)).step_by(997)) {
            let (binding, _, data, mut bytes) = frame(len);
            let Head::Frame(header) = binding.head(3, &bytes) else { panic!("no header at {len}") };
            assert_eq!(header.frame_len(), bytes.len());
            binding.open_body(3, &header, &mut bytes).unwrap();
            assert_eq!(payload(&header, &bytes), data);
        }
    }

    #[test]
    fn frame_len_agrees_with_the_slots_and_payload_max_is_exact() {
        for len in 0..payload_max(FRAME_BLOCKS_MAX) {
            let table = table_at(len);
            let end = table_slots(table).last().map_or(table, |slot| slot + 8);
            assert_eq!(frame_len(len), end.next_multiple_of(BLOCK), "{len}");
        }
        for blocks in 1..=FRAME_BLOCKS_MAX {
            let max = payload_max(blocks);
            assert!(frame_len(HEADER + max) <= blocks as usize * BLOCK);
            assert!(frame_len(HEADER + max + 1) > blocks as usize * BLOCK);
        }
    }

    #[test]
    fn hazard_4_a_zero_block_is_never_a_frame() {
        for epoch in [0, 1, 5, 1 << 32] {
            assert_eq!(Binding::new(LOG, epoch).head(3, &[0; SECTOR]), Head::Unwritten);
        }
        assert_eq!(SegmentHeader::decode(&mut [0; BLOCK]), None);
    }

    #[test]
    fn hazard_3_and_6_bytes_of_another_place_segment_or_log_do_not_validate() {
        let (binding, _, _, bytes) = frame(100);
        assert!(matches!(binding.head(3, &bytes), Head::Frame(_)));
        assert!(matches!(binding.head(4, &bytes), Head::Damaged(_)), "another block");
        assert_eq!(Binding::new(LOG, 6).head(3, &bytes), Head::Unwritten, "a recycled file");
        assert!(matches!(Binding::new(LOG, 4).head(3, &bytes), Head::Damaged(_)), "from the future");
        assert!(matches!(Binding::new(LogId([8; 16]), 5).head(3, &bytes), Head::Damaged(_)), "another log");
        // An image of a whole frame inside a payload is never a frame: its tags are not where ours are.
        let mut outer = vec![0; FRAME_MAX];
        let mut header = FrameHeader::new(Kind::Data, count(1));
        header.payload_len = 20_000;
        let (image_at, image) = (BLOCK, Binding::new(LOG, 5).frame_image(3));
        outer[image_at..image_at + image.len()].copy_from_slice(&image);
        Binding::new(LOG, 5).encode(2, &header, &mut outer);
        assert_eq!(Binding::new(LOG, 5).head(3, &outer[image_at..]), Head::Middle);
    }

    impl Binding {
        fn frame_image(&self, block: u32) -> Vec<u8> {
            let mut image = vec![0; BLOCK];
            self.encode(block, &FrameHeader::new(Kind::Data, count(1)), &mut image);
            image
        }
    }

    #[test]
    fn hazard_10_an_epoch_beyond_32_bits_is_told_from_its_low_half() {
        let old = Binding::new(LOG, 5);
        let young = Binding::new(LOG, 5 + (1 << 32));
        assert_eq!(young.head(3, &old.frame_image(3)), Head::Unwritten);
        assert!(matches!(old.head(3, &young.frame_image(3)), Head::Damaged(_)));
        let between = Binding::new(LOG, 2 + (1 << 32));
        assert_eq!(between.head(3, &old.frame_image(3)), Head::Unwritten);
    }

    #[test]
    fn every_flipped_bit_is_damage_and_every_unwritten_sector_a_tear() {
        let (binding, header, _, bytes) = frame(5000);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match binding.head(3, &flipped) {
                Head::Frame(header) => {
                    assert_eq!(binding.open_body(3, &header, &mut flipped), Err(Body::Damaged), "bit {bit}");
                }
                found => assert!(matches!(found, Head::Damaged(_)), "bit {bit}: {found:?}"),
            }
        }
        for sector in 1..bytes.len() / SECTOR {
            let mut torn = bytes.clone();
            torn[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
            assert_eq!(binding.open_body(3, &header_of(&binding, &torn), &mut torn), Err(Body::Torn));
        }
        assert_eq!(header.kind, Kind::Data);
    }

    fn header_of(binding: &Binding, bytes: &[u8]) -> FrameHeader {
        match binding.head(3, bytes) {
            Head::Frame(header) => header,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn control_and_link_come_back_and_nothing_else_panics() {
        let link = Link {
            pred: Position::new(4, 77),
            cut: Some(Cut { since: 6, at: Lsn(11) }),
            control: Control {
                start: Lsn(12),
                generation: 7,
                holds: [
                    ("archiver".to_owned(), Hold { lsn: Lsn(3), limit: Limit::bytes(8192).or_age(Duration::from_secs(7)) }),
                    ("x".to_owned(), Hold { lsn: Lsn(9), limit: Limit::NONE }),
                    ("y".to_owned(), Hold { lsn: Lsn(12), limit: Limit::age(Duration::from_secs(1)) }),
                ]
                .into(),
                waivers: vec![Waiver {
                    from: Position::new(1, 2),
                    to: Position::new(1, 4),
                    first_lost: Lsn(2),
                    last_lost: Lsn(5),
                }],
            },
        };
        let bytes = link.encode();
        assert_eq!(Link::decode(&bytes), Some(link.clone()));
        let limits = 4 + 2 * LIMIT_BYTES;
        for cut in 0..bytes.len() - limits {
            assert_eq!(Link::decode(&bytes[..cut]), None);
        }
        // What is not known is passed over, and what is not whole is not there.
        let mut unlimited = link.clone();
        unlimited.control.holds.values_mut().for_each(|hold| hold.limit = Limit::NONE);
        for cut in bytes.len() - limits..bytes.len() {
            assert_eq!(Link::decode(&bytes[..cut]), Some(unlimited.clone()));
        }
        let strange = [&[0xff, 0xff, 3, 0, 1, 2, 3], &bytes[bytes.len() - limits..]].concat();
        assert_eq!(Link::decode(&[&bytes[..bytes.len() - limits], &strange].concat()), Some(link));
    }

    #[test]
    fn the_largest_control_part_fits_a_block() {
        let limit = Limit::bytes(u64::MAX).or_age(Duration::MAX);
        let holds = (0..HOLDS_MAX).map(|i| (format!("{i:0HOLD_NAME_MAX$}"), Hold { lsn: LSN_MAX, limit })).collect();
        let (from, to) = (Position::new(1, 1), Position::new(2, 2));
        let waivers = vec![Waiver { from, to, first_lost: LSN_MAX, last_lost: LSN_MAX }; WAIVERS_MAX];
        let link = Link { pred: from, cut: None, control: Control { holds, waivers, ..Control::default() } };
        assert!(link.encode().len() <= payload_max(1), "{} of {}", link.encode().len(), payload_max(1));
        let stored = Link::decode(&link.encode()).unwrap().control.holds.into_values().map(|hold| hold.limit);
        assert!(stored.eq([Limit::from_units(u32::MAX, u32::MAX); HOLDS_MAX]));
    }

    #[test]
    fn a_log_id_has_one_spelling() {
        let id = LogId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<LogId>(), Err(ParseLogIdError));
        assert_eq!("".parse::<LogId>(), Err(ParseLogIdError));
    }
}
