//! Reading chunks: their tables, and block by block what is in them.
//!
//! The manifest has the hash of a chunk's table, the table that of each block; and what lies beside
//! them, header and footer, is checked against what it must be. So each byte is checked without the
//! hash of the whole, and a block before the rest of its chunk is there.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foreword::Lsn;
use futures_util::future::try_join;

use crate::chunk::{Chunk, END_MAGIC, ENTRY, FOOTER, HEADER, Hash, MAGIC, Place, RECORD_HEADER, Record};
use crate::error::{Error, Result};
use crate::keys::{KeyId, Keys, ObjectKey, sha256};
use crate::store::Store;

/// Records, their headers included, that one block may have: what a table says beyond that is no
/// reason to ask for the memory.
const BLOCK_MAX: u32 = 2 << 30;
/// A block that says that it has no more than this is believed: the memory for it is asked for at
/// once. That for a larger one grows with what is there.
const AT_ONCE: usize = 1 << 20;

/// Where a block of a chunk is, and what it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    number: u32,
    at: u64,
    pub(crate) stored: u32,
    pub(crate) raw: u32,
    pub(crate) first: u64,
    pub(crate) records: u32,
    to: u64,
    sha256: [u8; 24],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Reads a chunk.
pub(crate) struct Decoder {
    chunk: Chunk,
    header: [u8; HEADER],
    key: Option<ObjectKey>,
}

impl Decoder {
    /// `bytes`: the first of the object.
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
            0 if chunk.key.is_none() && header[40..] == [0; HEADER - 40] => None,
            1 if chunk.key == Some(id.to_string()) => {
                let mut salt = [0; 16];
                salt.copy_from_slice(&header[40..56]);
                Some(keys.get(id)?.of_object(&salt)?)
            }
            _ => return Err(wrong("its header and the manifest name different keys")),
        };
        Ok(Decoder { chunk: chunk.clone(), header, key })
    }

    /// `bytes`: the table, and the footer behind it.
    fn table(&self, bytes: &[u8]) -> Result<Vec<Block>> {
        let wrong = |why: &str| Error::damaged(&self.chunk.name, why);
        let short = || wrong("it has no room for its table");
        let (bytes, footer) = bytes.split_at_checked(table_len(&self.chunk)).ok_or_else(short)?;
        if footer.len() != FOOTER || u64_at(footer, 0) != u64::from(self.chunk.blocks) || footer[8..] != END_MAGIC[..] {
            return Err(wrong("it does not end as a chunk does"));
        }
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
        if end != self.chunk.bytes || first != self.chunk.last + 1 {
            return Err(wrong("its table and the manifest do not agree"));
        }
        Ok(table)
    }

    /// What is in a block, checked.
    fn open(&self, block: &Block, stored: &[u8]) -> Result<Opened> {
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
        let raw = decompress(plain.as_deref().unwrap_or(stored), block.raw as usize)
            .map_err(|error| wrong(&format!("it cannot be decompressed: {error}")))?;
        if raw.len() != block.raw as usize {
            return Err(wrong("it has another length than was written"));
        }
        let mut at = 0;
        for _ in 0..block.records {
            let len = u32_at(&raw, at + 8) as usize;
            at += RECORD_HEADER;
            if at > raw.len() || len > raw.len() - at {
                return Err(wrong("a record goes beyond its end"));
            }
            at += len;
        }
        if at != raw.len() {
            return Err(wrong("bytes are left behind its records"));
        }
        Ok(Opened { raw: raw.into(), first: block.first })
    }
}

fn decompress(stored: &[u8], len: usize) -> std::io::Result<Vec<u8>> {
    if len <= AT_ONCE {
        let mut raw = Vec::with_capacity(len);
        zstd::bulk::Decompressor::new()?.decompress_to_buffer(stored, &mut raw)?;
        return Ok(raw);
    }
    let mut raw = Vec::new();
    zstd::stream::read::Decoder::new(stored)?.take(len as u64 + 1).read_to_end(&mut raw)?;
    Ok(raw)
}

/// The records of a block, which was checked.
pub(crate) struct Opened {
    raw: Bytes,
    first: u64,
}

impl Opened {
    /// Each with its LSN, its time in microseconds since 1970, and where in the block it lies.
    fn places(&self) -> impl Iterator<Item = (u64, u64, Range<usize>)> {
        let (mut at, mut lsn) = (0, self.first);
        std::iter::from_fn(move || {
            if at >= self.raw.len() {
                return None;
            }
            let (micros, start) = (u64_at(&self.raw, at), at + RECORD_HEADER);
            at = start + u32_at(&self.raw, at + 8) as usize;
            lsn += 1;
            Some((lsn - 1, micros, start..at))
        })
    }

    /// Those of some LSNs: the time of each, in microseconds since 1970, and its bytes.
    pub(crate) fn within(&self, lsns: &Range<u64>) -> impl Iterator<Item = (u64, &[u8])> {
        let within = self.places().filter(move |(lsn, ..)| lsns.contains(lsn));
        within.map(|(_, micros, place)| (micros, self.raw.get(place).unwrap_or_default()))
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        self.places().map(|(lsn, micros, place)| Record { lsn: Lsn(lsn), micros, data: self.raw.slice(place) })
    }
}

/// A block, as it came from the store.
pub(crate) struct Stored {
    decoder: Arc<Decoder>,
    pub(crate) block: Block,
    bytes: Bytes,
}

impl Stored {
    /// Decodes it: slow.
    pub(crate) fn open(&self) -> Result<Opened> {
        self.decoder.open(&self.block, &self.bytes)
    }
}

/// Some blocks of a chunk, one behind the other, as they came from the store.
pub(crate) struct Fetched {
    decoder: Arc<Decoder>,
    blocks: Vec<Block>,
    /// Where in the object the bytes begin.
    from: u64,
    bytes: Bytes,
}

impl Fetched {
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Result<Stored>> {
        self.blocks.iter().map(|&block| {
            let at = (block.at - self.from) as usize;
            let end = at + block.stored as usize;
            if end > self.bytes.len() {
                return Err(Error::damaged(&self.decoder.chunk.name, "it is shorter than was written"));
            }
            Ok(Stored { decoder: self.decoder.clone(), block, bytes: self.bytes.slice(at..end) })
        })
    }

    /// Decodes their records: slow, if it is much.
    pub(crate) fn records(&self, lsns: &Range<u64>) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for stored in self.blocks() {
            records.extend(stored?.open()?.records());
        }
        records.retain(|record| lsns.contains(&record.lsn.0));
        Ok(records)
    }

    /// Of a whole chunk, that it has the hash that the manifest names.
    pub(crate) fn check_whole(&self) -> Result<()> {
        if Hash::of(&self.bytes) != self.decoder.chunk.sha256 {
            return Err(Error::damaged(&self.decoder.chunk.name, "its bytes are not those that were written"));
        }
        Ok(())
    }
}

fn gone(chunk: &Chunk) -> Error {
    Error::damaged(&chunk.name, "it is not there")
}

fn table_len(chunk: &Chunk) -> usize {
    chunk.blocks as usize * ENTRY
}

/// All of a chunk.
pub(crate) async fn fetch(store: &Store, chunk: &Chunk, place: Place, keys: &Keys) -> Result<Fetched> {
    let bytes = store.get(&chunk.name).await?.ok_or_else(|| gone(chunk))?;
    if bytes.len() as u64 != chunk.bytes {
        let why = format!("it has {} bytes, and {} were written", bytes.len(), chunk.bytes);
        return Err(Error::damaged(&chunk.name, why));
    }
    let decoder = Decoder::new(chunk, place, keys, &bytes)?;
    let blocks = decoder.table(&bytes[bytes.len().saturating_sub(table_len(chunk) + FOOTER)..])?;
    Ok(Fetched { decoder: decoder.into(), blocks, from: 0, bytes })
}

/// A chunk's blocks, of which nothing was fetched yet but where they are.
pub(crate) struct Table {
    decoder: Arc<Decoder>,
    pub(crate) blocks: Vec<Block>,
}

pub(crate) async fn fetch_table(store: &Store, chunk: &Chunk, place: Place, keys: &Keys) -> Result<Table> {
    let get = async |range: Range<u64>| store.get_range(&chunk.name, range).await?.ok_or_else(|| gone(chunk));
    let from = chunk.bytes.saturating_sub((table_len(chunk) + FOOTER) as u64);
    let (header, table) = try_join(get(0..HEADER as u64), get(from..chunk.bytes)).await?;
    let decoder = Decoder::new(chunk, place, keys, &header)?;
    let blocks = decoder.table(&table)?;
    Ok(Table { decoder: decoder.into(), blocks })
}

impl Table {
    /// Only the blocks that hold some of these records.
    pub(crate) fn with(mut self, lsns: &Range<u64>) -> Table {
        self.blocks.retain(|block| block.first < lsns.end && block.first + u64::from(block.records) > lsns.start);
        self
    }

    /// Only the first with a record that is later than this.
    pub(crate) fn later(mut self, micros: u64) -> Table {
        self.blocks = self.blocks.into_iter().find(|block| block.to > micros).into_iter().collect();
        self
    }

    /// Some of it, of so many stored bytes, or one block.
    pub(crate) fn split(self, bytes: u64) -> Vec<Table> {
        let mut parts: Vec<Table> = Vec::new();
        let mut sum = 0;
        for block in self.blocks {
            sum += u64::from(block.stored);
            match parts.last_mut() {
                Some(last) if sum <= bytes => last.blocks.push(block),
                _ => {
                    sum = u64::from(block.stored);
                    parts.push(Table { decoder: self.decoder.clone(), blocks: vec![block] });
                }
            }
        }
        parts
    }

    /// The bytes of its blocks as they are stored.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.stored)).sum()
    }

    pub(crate) async fn fetch(self, store: &Store) -> Result<Fetched> {
        let Table { decoder, blocks } = self;
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Ok(Fetched { decoder, blocks, from: 0, bytes: Bytes::new() });
        };
        let (from, to) = (first.at, last.at + u64::from(last.stored));
        let bytes = store.get_range(&decoder.chunk.name, from..to).await?.ok_or_else(|| gone(&decoder.chunk))?;
        Ok(Fetched { decoder, blocks, from, bytes })
    }
}
