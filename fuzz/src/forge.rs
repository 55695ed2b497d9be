//! The checksums of the format, from `docs/FORMAT.md`: to seal what was changed, as a program that
//! errs would, and to tell what is sealed.

use std::collections::BTreeMap;
use std::ops::Range;

/// The unit of frames.
pub const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Of block 0: its payload begins earlier than that of other frames.
const HEADER: u8 = 1;
const DATA: u8 = 3;
const BLOCK_0_HEADER: usize = 64;
const TAG_AT: usize = SECTOR - 8;
const MAGIC: &[u8] = b"FWRD";
const FRAME_MAX: usize = 64 * BLOCK;

/// The files of a log's directory.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The name of a segment.
#[must_use]
pub fn segment_name(epoch: u64) -> String {
    format!("{epoch:020}.seg")
}

/// The epoch that a name stands for.
#[must_use]
pub fn epoch_of(name: &str) -> Option<u64> {
    name.strip_suffix(".seg")?.parse().ok()
}

/// The text of `LOG`.
#[must_use]
pub fn identity(uuid: [u8; 16]) -> Vec<u8> {
    format!("foreword log format 2\nuuid {}\n", foreword::LogId(uuid)).into_bytes()
}

/// What binds a frame to its place: log and segment.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The log's identity.
    pub uuid: [u8; 16],
    /// The segment's epoch.
    pub epoch: u64,
}

/// A frame whose tags and checksums hold.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Where it is in the segment.
    pub bytes: Range<usize>,
    /// The LSN of the first record that begins in it.
    pub first_lsn: u64,
    /// What continues a record, and the records.
    pub head: Vec<u8>,
    /// The records that begin in it: how long each says it is, and its bytes as far as they are
    /// here.
    pub records: Vec<(usize, Vec<u8>)>,
}

impl Binding {
    /// For a segment of this epoch, of the log that its header names.
    #[must_use]
    pub fn of(segment: &[u8], epoch: u64) -> Binding {
        let mut uuid = [0; 16];
        uuid.iter_mut().zip(segment.iter().skip(BLOCK_0_HEADER + 8)).for_each(|(to, from)| *to = *from);
        Binding { uuid, epoch }
    }

    fn crc(&self, of: &[&[u8]]) -> [u8; 4] {
        let start = crc32c::crc32c_append(crc32c::crc32c(&self.uuid), &self.epoch.to_le_bytes());
        of.iter().fold(start, |crc, bytes| crc32c::crc32c_append(crc, bytes)).to_le_bytes()
    }

    fn tag(&self, sector: usize, first: bool) -> [u8; 8] {
        let place = sector as u64 * 2 + u64::from(first);
        let mut tag = [0; 8];
        tag[..4].copy_from_slice(&(self.epoch as u32).to_le_bytes());
        tag[4..].copy_from_slice(&self.crc(&[&place.to_le_bytes()]));
        tag
    }

    /// Makes what stands at a block a frame whose tags and checksums hold, whatever its fields say:
    /// of the length that they ask for, as far as the file goes.
    pub fn seal(&self, segment: &mut [u8], block: usize) {
        let at = block * BLOCK;
        let Some(rest) = segment.get_mut(at..).filter(|rest| rest.len() >= BLOCK) else { return };
        let len = frame_len(rest).min(rest.len() / BLOCK * BLOCK);
        let frame = &mut rest[..len];
        let body_at = header_len(frame);
        frame[..4].copy_from_slice(MAGIC);
        frame[56..64].copy_from_slice(&self.epoch.to_le_bytes());
        for (i, sector) in frame.chunks_exact_mut(SECTOR).enumerate() {
            sector[TAG_AT..].copy_from_slice(&self.tag(at / SECTOR + i, i == 0));
        }
        let body = crc32c::crc32c(&frame[body_at..]).to_le_bytes();
        frame[8..12].copy_from_slice(&body);
        let head = self.crc(&[&(block as u64).to_le_bytes(), &frame[8..body_at]]);
        frame[4..8].copy_from_slice(&head);
    }

    /// Zeros what sealing brings back.
    pub fn unseal(frame: &mut [u8]) {
        frame[..12].fill(0);
        frame[56..64].fill(0);
        frame.chunks_exact_mut(SECTOR).for_each(|sector| sector[TAG_AT..].fill(0));
    }

    /// All that is sealed in a segment.
    #[must_use]
    pub fn frames(&self, segment: &[u8]) -> Vec<Frame> {
        (0..segment.len() / BLOCK).filter_map(|block| self.frame(segment, block)).collect()
    }

    fn frame(&self, segment: &[u8], block: usize) -> Option<Frame> {
        let at = block * BLOCK;
        if !segment[at..].starts_with(MAGIC) {
            return None;
        }
        let len = frame_len(&segment[at..]);
        let bytes = segment.get(at..at + len)?;
        // Sealed is what sealing does not change.
        let mut sealed = segment[..at + len].to_vec();
        self.seal(&mut sealed, block);
        if sealed[at..] != *bytes {
            return None;
        }
        let payload = opened(bytes)?;
        let (head, mut rest) = payload.split_at_checked(u32_at(bytes, 24) as usize).unwrap_or_default();
        let mut records = Vec::new();
        while let Some((len, tail)) = rest.split_at_checked(4).filter(|_| bytes[12] == DATA) {
            let len = u32_at(len, 0) as usize;
            let (data, next) = tail.split_at(len.min(tail.len()));
            records.push((len, data.to_vec()));
            rest = next;
        }
        Some(Frame { bytes: at..at + len, first_lsn: u64_at(bytes, 48), head: head.to_vec(), records })
    }
}

/// A frame's payload, with the bytes put back that the tags replaced.
fn opened(frame: &[u8]) -> Option<Vec<u8>> {
    let (begin, end) = (header_len(frame), content_len(frame));
    let table = end.next_multiple_of(8);
    let mut frame = frame.to_vec();
    for (i, slot) in slots(table).enumerate() {
        frame.get(slot..slot + 8)?;
        frame.copy_within(slot..slot + 8, i * SECTOR + TAG_AT);
    }
    frame.get(begin..end).map(<[u8]>::to_vec)
}

/// The length of a frame's header, by its kind.
fn header_len(frame: &[u8]) -> usize {
    if frame[12] == HEADER { BLOCK_0_HEADER } else { 80 }
}

/// The length of header and payload, as far as a frame may reach.
fn content_len(frame: &[u8]) -> usize {
    header_len(frame) + (u32_at(frame, 16) as usize).min(FRAME_MAX)
}

/// Where the entries of the table are that begins here.
fn slots(table: usize) -> impl Iterator<Item = usize> {
    (table..).step_by(8).filter(|at| at % SECTOR != TAG_AT).take(table / SECTOR)
}

/// The length that a frame's header asks for: at most the longest there may be.
fn frame_len(frame: &[u8]) -> usize {
    let table = content_len(frame).next_multiple_of(8);
    let end = slots(table).last().map_or(table, |slot| slot + 8);
    end.next_multiple_of(BLOCK).min(FRAME_MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u64_at(bytes, at) as u32
}

/// A number, as far as there are bytes.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.iter().skip(at).take(8).rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}
