//! okaywal: an entry of chunks under a lock; the first thread that needs a sync leads it for all.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use okaywal::{Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader, WriteAheadLog};

use super::super::peer::{Feature, Log, Need, Peer, Records, Sink, Writer};

pub const PEER: Peer = Peer {
    name: "okaywal",
    package: "okaywal",
    // Filled with zeros when they are made, and then never outgrown: no commit pays for a new
    // segment, as the checkpoints that would recycle them are not what is measured.
    setting: "one zero-filled segment of at least 64 MiB, a buffer of 256 KiB",
    lacks: &[
        (Feature::Async, "no asynchronous interface"),
        (Feature::Together, "an entry has the log to itself until it is synced"),
    ],
    open: |dir, need| Ok(Box::new(Open(configuration(dir, need).open(LogVoid)?))),
    read: |dir, each| {
        let log = configuration(dir, Need { bytes: 0 }).open(Recover(Mutex::new(each)))?;
        Ok(log.shutdown()?)
    },
};

fn configuration(dir: &Path, need: Need) -> Configuration {
    let bytes = need.bytes.saturating_mul(2).clamp(64 << 20, 3 << 30) as u32;
    Configuration::default_for(dir).preallocate_bytes(bytes).checkpoint_after_bytes(u64::from(bytes)).buffer_bytes(256 << 10)
}

struct Open(WriteAheadLog);

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(&self.0)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.shutdown()?)
    }
}

struct One<'a>(&'a WriteAheadLog);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_batch(&[record])
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }

    /// One entry, of which each record is a chunk.
    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        while let Some(record) = next() {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }
}

/// Takes what recovery reads.
struct Recover(Mutex<Sink>);

impl fmt::Debug for Recover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recover")
    }
}

impl LogManager for Recover {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let each = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut chunk = match entry.read_chunk()? {
                ReadChunkResult::Chunk(chunk) => chunk,
                ReadChunkResult::EndOfEntry | ReadChunkResult::AbortedEntry => return Ok(()),
            };
            let record = chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(io::ErrorKind::InvalidData.into());
            }
            each(&record);
        }
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}
