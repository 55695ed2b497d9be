//! A chunk: records of consecutive LSNs, as one object. docs/ARCHIVE.md has its bytes.
//!
//! It is divided into blocks, each compressed and encrypted by itself, and a table behind them says
//! what each holds: a reader that wants a few records fetches the table and some blocks. The
//! manifest has the hash of the whole and of the table, the table that of each block: whatever is
//! read was written by the archiver that is named there.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use foreword::Lsn;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::{KeyId, Keys, ObjectKey, as_hex, hex, random, sha256};

pub(crate) const MAGIC: &[u8; 8] = b"FWARCH1\n";
pub(crate) const END_MAGIC: &[u8; 8] = b"FWAREND\n";
pub(crate) const HEADER: usize = 64;
pub(crate) const ENTRY: usize = 48;
pub(crate) const FOOTER: usize = 16;
/// A block is closed when it has so many bytes, before compression.
const BLOCK: usize = 256 << 10;
/// Before each record: its time, and its length.
pub(crate) const RECORD_HEADER: usize = 12;
/// What a record takes in memory beside its bytes.
const RECORD_COST: u64 = 64;

/// Of an archive: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArchiveId(#[serde(with = "as_hex")] pub [u8; 16]);

impl std::fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash(#[serde(with = "as_hex")] pub [u8; 32]);

impl Hash {
    pub(crate) fn of(bytes: &[u8]) -> Hash {
        Hash(sha256(bytes))
    }
}

/// What the archive knows of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Chunk {
    /// The object.
    pub name: String,
    /// The LSN of its first record.
    pub first: u64,
    /// And of its last.
    pub last: u64,
    /// The earliest time of its records, in microseconds since 1970.
    pub from: u64,
    /// The latest.
    pub to: u64,
    /// The bytes of its records.
    pub record_bytes: u64,
    /// The bytes of the object.
    pub bytes: u64,
    /// How many blocks it has.
    pub blocks: u32,
    /// Of the object.
    pub sha256: Hash,
    /// Of its table.
    pub table: Hash,
    /// Which key encrypts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// All that was durable in the log when it was cut: no batch is divided at its end.
    pub whole: bool,
}

impl Chunk {
    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A record that was archived.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its LSN.
    pub lsn: Lsn,
    /// The time that the log had for it, in microseconds since 1970.
    pub micros: u64,
    /// Its bytes.
    pub data: Bytes,
}

impl Record {
    /// Whether a record of a log is a copy of this one, or the other way round: copies keep their
    /// times to the second.
    pub(crate) fn is_copy(&self, data: &[u8], time: SystemTime) -> bool {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        data == &self.data[..] && seconds == self.micros / 1_000_000
    }
}

/// Where a chunk belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) archive: ArchiveId,
    pub(crate) timeline: u32,
}

fn header(place: Place, first: u64, key: Option<(KeyId, [u8; 16])>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..24].copy_from_slice(&place.archive.0);
    header[24..28].copy_from_slice(&place.timeline.to_le_bytes());
    header[28..32].copy_from_slice(&u32::from(key.is_some()).to_le_bytes());
    header[32..40].copy_from_slice(&first.to_le_bytes());
    if let Some((id, salt)) = key {
        header[40..56].copy_from_slice(&salt);
        header[56..64].copy_from_slice(&id.0);
    }
    header
}

/// A chunk that is being made, in memory.
pub(crate) struct Builder {
    object: Vec<u8>,
    table: Vec<u8>,
    header: [u8; HEADER],
    key: Option<(KeyId, ObjectKey)>,
    level: i32,
    block: Vec<u8>,
    block_records: u32,
    block_to: u64,
    first: u64,
    next: u64,
    from: u64,
    to: u64,
    record_bytes: u64,
    blocks: u32,
}

impl Builder {
    pub(crate) fn new(place: Place, first: Lsn, keys: &Keys, level: i32) -> Result<Builder> {
        let key = match keys.newest() {
            None => None,
            Some(key) => {
                let salt = random()?;
                Some((key.id(), salt, key.of_object(&salt)?))
            }
        };
        let header = header(place, first.0, key.as_ref().map(|(id, salt, _)| (*id, *salt)));
        Ok(Builder {
            object: header.to_vec(),
            table: Vec::new(),
            header,
            key: key.map(|(id, _, key)| (id, key)),
            level,
            block: Vec::new(),
            block_records: 0,
            block_to: 0,
            first: first.0,
            next: first.0,
            from: u64::MAX,
            to: 0,
            record_bytes: 0,
            blocks: 0,
        })
    }

    pub(crate) fn next(&self) -> Lsn {
        Lsn(self.next)
    }

    /// The memory that its records take when they are read.
    pub(crate) fn size(&self) -> u64 {
        self.record_bytes + (self.next - self.first) * RECORD_COST
    }

    pub(crate) fn push(&mut self, micros: u64, record: &[u8]) -> Result<()> {
        self.block.extend_from_slice(&micros.to_le_bytes());
        self.block.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.block.extend_from_slice(record);
        self.block_records += 1;
        self.block_to = self.block_to.max(micros);
        self.next += 1;
        self.from = self.from.min(micros);
        self.to = self.to.max(micros);
        self.record_bytes += record.len() as u64;
        if self.block.len() >= BLOCK { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<()> {
        if self.block_records == 0 {
            return Ok(());
        }
        let raw = self.block.len() as u32;
        let compress = zstd::bulk::compress(&self.block, self.level);
        let mut stored = compress.map_err(|error| Error::io("compress", "a block", error))?;
        if let Some((_, key)) = &self.key {
            key.seal(self.blocks, &self.header, &mut stored)?;
        }
        self.table.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        self.table.extend_from_slice(&raw.to_le_bytes());
        self.table.extend_from_slice(&self.block_records.to_le_bytes());
        self.table.extend_from_slice(&[0; 4]);
        self.table.extend_from_slice(&self.block_to.to_le_bytes());
        self.table.extend_from_slice(&sha256(&stored)[..24]);
        self.object.extend_from_slice(&stored);
        self.block.clear();
        (self.block_records, self.block_to) = (0, 0);
        self.blocks += 1;
        Ok(())
    }

    /// The object, and what the archive is to know of it. `name` becomes its name.
    pub(crate) fn finish(mut self, name: String, whole: bool) -> Result<(Chunk, Bytes)> {
        self.close_block()?;
        self.object.extend_from_slice(&self.table);
        self.object.extend_from_slice(&self.blocks.to_le_bytes());
        self.object.extend_from_slice(&[0; 4]);
        self.object.extend_from_slice(END_MAGIC);
        let chunk = Chunk {
            name,
            first: self.first,
            last: self.next - 1,
            from: self.from,
            to: self.to,
            record_bytes: self.record_bytes,
            bytes: self.object.len() as u64,
            blocks: self.blocks,
            sha256: Hash::of(&self.object),
            table: Hash::of(&self.table),
            key: self.key.map(|(id, _)| id.to_string()),
            whole,
        };
        Ok((chunk, self.object.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::keys::Key;

    #[test]
    fn a_table_has_room_for_what_stands_in_it() {
        assert_eq!(ENTRY, 4 + 4 + 4 + 4 + 8 + 24);
    }

    #[test]
    fn objects_with_one_key_share_no_key() {
        let place = Place { archive: ArchiveId([7; 16]), timeline: 1 };
        let keys = Keys(vec![Key::new([1; 32])]);
        let object = || {
            let mut builder = Builder::new(place, Lsn(1), &keys, 3).unwrap();
            builder.push(0, &[0; 1000]).unwrap();
            builder.finish("chunk".into(), true).unwrap().1
        };
        let (one, two) = (object(), object());
        assert_eq!(one.len(), two.len());
        assert_ne!(one[HEADER..], two[HEADER..]);
    }
}
