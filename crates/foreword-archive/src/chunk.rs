//! A chunk: records of consecutive LSNs, as one object. docs/ARCHIVE.md has its bytes.
//!
//! It is divided into blocks, each compressed and encrypted by itself, and a table behind them says
//! what each holds: a reader that wants a few records fetches the table and some blocks. The
//! manifest has the hash of the whole and of the table, the table that of each block: whatever is
//! read was written by the archiver that is named there.

use std::io::Read;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use foreword::Lsn;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::{KeyId, Keys, ObjectKey, as_hex, hex, random, sha256};
use crate::store::Store;

const MAGIC: &[u8; 8] = b"FWARCH1\n";
const END_MAGIC: &[u8; 8] = b"FWAREND\n";
pub(crate) const HEADER: usize = 64;
const ENTRY: usize = 48;
const FOOTER: usize = 16;
/// A block is closed when it has so many bytes, before compression.
const BLOCK: usize = 256 << 10;
/// Before each record: its time, and its length.
const RECORD_HEADER: usize = 12;
/// What a record takes in memory beside its bytes.
const RECORD_COST: u64 = 64;
/// Records, their headers included, that one block may have: what a table says beyond that is no
/// reason to ask for the memory.
const BLOCK_MAX: u32 = 2 << 30;

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

/// Where a block of a chunk is, and what it holds.
#[derive(Clone, Copy, Debug)]
struct Block {
    number: u32,
    at: u64,
    stored: u32,
    raw: u32,
    first: u64,
    records: u32,
    to: u64,
    sha256: [u8; 24],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Reads chunks.
#[derive(Clone)]
pub(crate) struct Decoder {
    chunk: Chunk,
    header: [u8; HEADER],
    key: Option<std::sync::Arc<ObjectKey>>,
}

impl Decoder {
    /// `header`: the first bytes of the object.
    fn new(chunk: &Chunk, place: Place, keys: &Keys, bytes: &[u8]) -> Result<Decoder> {
        let wrong = |why: &str| Error::damaged(&chunk.name, why);
        let mut header = [0; HEADER];
        header.copy_from_slice(bytes.get(..HEADER).ok_or_else(|| wrong("it is shorter than a header"))?);
        if &header[..8] != MAGIC {
            return Err(wrong("it does not begin as a chunk does"));
        }
        if header[8..24] != place.archive.0 || u32_at(&header, 24) != place.timeline || u64_at(&header, 32) != chunk.first {
            return Err(wrong("it is a chunk of another place, or of another archive"));
        }
        let mut id = KeyId([0; 8]);
        id.0.copy_from_slice(&header[56..64]);
        let key = match u32_at(&header, 28) {
            0 if chunk.key.is_none() => None,
            1 if chunk.key == Some(id.to_string()) => {
                let mut salt = [0; 16];
                salt.copy_from_slice(&header[40..56]);
                Some(std::sync::Arc::new(keys.get(id)?.of_object(&salt)?))
            }
            _ => return Err(wrong("its header and the manifest name different keys")),
        };
        Ok(Decoder { chunk: chunk.clone(), header, key })
    }

    fn table(&self, bytes: &[u8]) -> Result<Vec<Block>> {
        let wrong = |why: &str| Error::damaged(&self.chunk.name, why);
        if Hash::of(bytes) != self.chunk.table {
            return Err(wrong("its table is not the one that was written"));
        }
        let (mut at, mut first, mut table) = (HEADER as u64, self.chunk.first, Vec::new());
        for (number, entry) in bytes.chunks_exact(ENTRY).enumerate() {
            let mut sha256 = [0; 24];
            sha256.copy_from_slice(&entry[24..]);
            let (stored, raw, records) = (u32_at(entry, 0), u32_at(entry, 4), u32_at(entry, 8));
            let block = Block { number: number as u32, at, stored, raw, first, records, to: u64_at(entry, 16), sha256 };
            at += u64::from(block.stored);
            first += u64::from(block.records);
            table.push(block);
        }
        // (No overflow: the sums are of numbers of 32 bits.)
        let end = at + (table.len() * ENTRY + FOOTER) as u64;
        if table.len() != self.chunk.blocks as usize || end != self.chunk.bytes || first != self.chunk.last + 1 {
            return Err(wrong("its table and the manifest do not agree"));
        }
        Ok(table)
    }

    /// The records of a block.
    fn records(&self, block: &Block, stored: &[u8], to: &mut Vec<Record>) -> Result<()> {
        let wrong = |why: &str| Error::damaged(&self.chunk.name, format!("block {}: {why}", block.number));
        if sha256(stored)[..24] != block.sha256 {
            return Err(wrong("it is not what was written"));
        }
        let plain = match &self.key {
            Some(key) => {
                let opened = key.open(block.number, &self.header, stored.to_vec());
                Some(opened.ok_or_else(|| wrong("it cannot be decrypted with its key"))?)
            }
            None => None,
        };
        if block.raw > BLOCK_MAX {
            return Err(wrong("it says that it is too large"));
        }
        // It grows with what is there, and not with what is said.
        let mut raw = Vec::new();
        let decoder = zstd::stream::read::Decoder::new(plain.as_deref().unwrap_or(stored));
        let decompressed = decoder.and_then(|decoder| decoder.take(u64::from(block.raw) + 1).read_to_end(&mut raw));
        decompressed.map_err(|error| wrong(&format!("it cannot be decompressed: {error}")))?;
        if raw.len() != block.raw as usize {
            return Err(wrong("it has another length than was written"));
        }
        let raw = Bytes::from(raw);
        let (mut at, mut lsn) = (0, block.first);
        for _ in 0..block.records {
            let (micros, len) = (u64_at(&raw, at), u32_at(&raw, at + 8) as usize);
            at += RECORD_HEADER;
            if at > raw.len() || len > raw.len() - at {
                return Err(wrong("a record goes beyond its end"));
            }
            to.push(Record { lsn: Lsn(lsn), micros, data: raw.slice(at..at + len) });
            at += len;
            lsn += 1;
        }
        if at != raw.len() { Err(wrong("bytes are left behind its records")) } else { Ok(()) }
    }
}

/// Some records of a chunk, as they came from the store.
pub(crate) struct Fetched {
    decoder: Decoder,
    blocks: Vec<Block>,
    /// Of the first block.
    from: u64,
    bytes: Bytes,
}

impl Fetched {
    /// Decodes them: slow, if it is much.
    pub(crate) fn records(self, lsns: &Range<u64>) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for block in &self.blocks {
            let at = (block.at - self.from) as usize;
            let short = || Error::damaged(&self.decoder.chunk.name, "it is shorter than was written");
            let stored = self.bytes.get(at..at + block.stored as usize).ok_or_else(short)?;
            self.decoder.records(block, stored, &mut records)?;
        }
        records.retain(|record| lsns.contains(&record.lsn.0));
        Ok(records)
    }
}

fn gone(chunk: &Chunk) -> Error {
    Error::damaged(&chunk.name, "it is not there")
}

/// All of a chunk, checked against its hash.
pub(crate) async fn fetch(store: &Store, chunk: &Chunk, place: Place, keys: &Keys) -> Result<Fetched> {
    let bytes = store.get(&chunk.name).await?.ok_or_else(|| gone(chunk))?;
    if bytes.len() as u64 != chunk.bytes {
        let why = format!("it has {} bytes, and {} were written", bytes.len(), chunk.bytes);
        return Err(Error::damaged(&chunk.name, why));
    }
    if Hash::of(&bytes) != chunk.sha256 {
        return Err(Error::damaged(&chunk.name, "its bytes are not those that were written"));
    }
    let decoder = Decoder::new(chunk, place, keys, &bytes)?;
    let end = bytes.len() - FOOTER;
    if bytes[end + 8..] != END_MAGIC[..] {
        return Err(Error::damaged(&chunk.name, "it does not end as a chunk does"));
    }
    let table = end.checked_sub(chunk.blocks as usize * ENTRY).filter(|&at| at >= HEADER);
    let table = table.ok_or_else(|| Error::damaged(&chunk.name, "it has no room for its table"))?;
    let blocks = decoder.table(&bytes[table..end])?;
    Ok(Fetched { decoder, blocks, from: 0, bytes })
}

/// The blocks of a chunk that hold some of these records.
pub(crate) async fn fetch_some(store: &Store, chunk: &Chunk, place: Place, keys: &Keys, lsns: &Range<u64>) -> Result<Fetched> {
    let (decoder, blocks) = fetch_table(store, chunk, place, keys).await?;
    let wanted = |block: &Block| block.first < lsns.end && block.first + u64::from(block.records) > lsns.start;
    fetch_blocks(store, decoder, blocks.into_iter().filter(wanted).collect()).await
}

/// The blocks of a chunk that a search for a time has to look at: the first with a later record.
pub(crate) async fn fetch_later(store: &Store, chunk: &Chunk, place: Place, keys: &Keys, micros: u64) -> Result<Fetched> {
    let (decoder, blocks) = fetch_table(store, chunk, place, keys).await?;
    fetch_blocks(store, decoder, blocks.into_iter().find(|block| block.to > micros).into_iter().collect()).await
}

async fn fetch_table(store: &Store, chunk: &Chunk, place: Place, keys: &Keys) -> Result<(Decoder, Vec<Block>)> {
    let get = async |range: Range<u64>| store.get_range(&chunk.name, range).await?.ok_or_else(|| gone(chunk));
    let decoder = Decoder::new(chunk, place, keys, &get(0..HEADER as u64).await?)?;
    let end = chunk.bytes.saturating_sub(FOOTER as u64);
    let blocks = decoder.table(&get(end.saturating_sub(u64::from(chunk.blocks) * ENTRY as u64)..end).await?)?;
    Ok((decoder, blocks))
}

async fn fetch_blocks(store: &Store, decoder: Decoder, blocks: Vec<Block>) -> Result<Fetched> {
    let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
        return Ok(Fetched { decoder, blocks, from: 0, bytes: Bytes::new() });
    };
    let (from, to) = (first.at, last.at + u64::from(last.stored));
    let bytes = store.get_range(&decoder.chunk.name, from..to).await?.ok_or_else(|| gone(&decoder.chunk))?;
    Ok(Fetched { decoder, blocks, from, bytes })
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
