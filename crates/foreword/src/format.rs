//! The bytes: frames, sector tags, promises. No I/O here.
//!
//! `docs/FORMAT.md` is the specification; this module is its only implementation in the library. The ideas:
//! everything in a segment is a *frame* of whole blocks, written once; each 512-byte sector of a frame ends in a *tag* that
//! no other place, segment or log can bear, so that what a crash left unwritten is told from what has rotted; and
//! each frame carries a *promise*: what was durable when it was made.

mod buffer;
mod control;
mod frame;
mod header;
mod id;
mod position;

pub(crate) use buffer::FrameBuf;
pub(crate) use control::{Control, Cut, HOLD_NAME_MAX, HOLDS_MAX, Link, WAIVERS_MAX, Waiver, is_later};
pub(crate) use frame::{Binding, Body, CLOSED, CONTINUED, CONTINUES, FrameHeader, Head, Kind, Sector, payload, payload_max};
pub(crate) use header::SegmentHeader;
pub use id::{LogId, ParseLogIdError};
pub(crate) use position::{Count, Position, Promise};

use crate::Lsn;

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

/// The length of the record whose length field this is; `None` if it says more than a length, as no feature of this version does.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::control::*;
    use super::frame::*;
    use super::*;
    use crate::limit::{Hold, Limit};

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
