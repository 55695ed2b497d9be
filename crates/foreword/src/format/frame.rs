//! Frames as bytes: headers, sector tags, checksums.

use crate::Lsn;
use crate::bug::bug;
use crate::format::id::LogId;
use crate::format::position::{Count, Position, Promise};
use crate::format::{BLOCK, BLOCK_0_HEADER, BYTES_MAX, FRAME_BLOCKS_MAX, HEADER, LSN_MAX, SECTOR, u32_at, u64_at};

const MAGIC: [u8; 4] = *b"FWRD";
const TAG_AT: usize = SECTOR - 8;

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
    /// Block 0 has the same layout in every version, so that a reader can tell a newer log from a
    /// damaged one: without the time and the count of bytes that the other frames have.
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

    /// Whether it has only flags of its kind, and says nothing of records if it is of one that has
    /// none.
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
pub(super) const fn frame_len(content_len: usize) -> usize {
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
        let mut bound = epoch;
        bug!(IgnoreEpoch, bound = 0);
        let seed = crc32c::crc32c_append(crc32c::crc32c(&log.0), &bound.to_le_bytes());
        Binding { log, epoch, seed }
    }

    fn tag(&self, sector: u64, first: bool) -> [u8; 8] {
        let place = sector * 2 + u64::from(first);
        let check = crc32c::crc32c_append(self.seed, &place.to_le_bytes());
        let mut tag = [0; 8];
        tag[..4].copy_from_slice(&(self.epoch as u32).to_le_bytes());
        bug!(IgnoreEpoch, tag[..4].fill(0));
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

    /// Finishes a frame in place: behind the header's place lies the payload; table, tags, padding,
    /// header and checksums are added. Returns the frame's length on disk. Bytes beyond it are not
    /// touched.
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
        let mut right = u32_at(bytes, 4) == self.header_crc(block, &bytes[..kind.header_len()]);
        bug!(TrustHeader, right = true);
        let mut ours = u64_at(bytes, 56) == self.epoch;
        bug!(IgnoreEpoch, ours = true);
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
        // The checksum held, so these were written so: bounds against a writer that errs, not
        // against rot.
        let within = header.next_lsn().max(header.promise.lsn) <= LSN_MAX;
        (within && header.payload_len as usize <= payload_max(FRAME_BLOCKS_MAX) && header.first.bytes <= BYTES_MAX)
            .then_some(header)
    }

    /// Checks a whole frame whose header was read, and puts the replaced bytes back, so that the
    /// payload is contiguous.
    pub(crate) fn open_body(&self, block: u32, header: &FrameHeader, frame: &mut [u8]) -> Result<(), Body> {
        let mut right = crc32c::crc32c(&frame[header.kind.header_len()..]) == header.body_crc;
        bug!(TrustBody, right = true);
        if !right {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;
    use crate::format::{FRAME_BLOCKS_MAX, FRAME_MAX, LogId, SegmentHeader};

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
    fn a_zero_block_is_never_a_frame() {
        for epoch in [0, 1, 5, 1 << 32] {
            assert_eq!(Binding::new(LOG, epoch).head(3, &[0; SECTOR]), Head::Unwritten);
        }
        assert_eq!(SegmentHeader::decode(&mut [0; BLOCK]), None);
    }

    #[test]
    fn bytes_of_another_place_segment_or_log_do_not_validate() {
        let (binding, _, _, bytes) = frame(100);
        assert!(matches!(binding.head(3, &bytes), Head::Frame(_)));
        assert!(matches!(binding.head(4, &bytes), Head::Damaged(_)), "another block");
        assert_eq!(Binding::new(LOG, 6).head(3, &bytes), Head::Unwritten, "a recycled file");
        assert!(matches!(Binding::new(LOG, 4).head(3, &bytes), Head::Damaged(_)), "from the future");
        assert!(matches!(Binding::new(LogId([8; 16]), 5).head(3, &bytes), Head::Damaged(_)), "another log");
        // An image of a whole frame inside a payload is never a frame: its tags are not where ours
        // are.
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
    fn an_epoch_beyond_32_bits_is_told_from_its_low_half() {
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
}
