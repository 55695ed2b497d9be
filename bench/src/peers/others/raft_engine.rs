//! raft-engine: TiKV's log of many Raft groups; a leader writes and syncs for a group of writers.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::super::peer::{Feature, Log, Need, Peer, Records, Writer};

pub const PEER: Peer = Peer {
    name: "raft-engine",
    package: "raft-engine",
    // Prefilled files are written zeros, as after recycling in a log that has run for a while.
    // Compression would only cost here, for the records are incompressible. A Raft group's entries
    // have consecutive indexes, so each thread has a group of its own; all groups share one log.
    setting: "files prefilled for recycling, no compression, a Raft group for each thread",
    lacks: &[(Feature::Async, "no asynchronous interface")],
    open: |dir, need| Ok(Box::new(Open(Arc::new(Engine::open(config(dir, need)?)?)))),
    read: |dir, mut each| {
        let engine = Engine::open(Config { prefill_for_recycle: false, ..config(dir, Need { bytes: 0 })? })?;
        let mut entries = Vec::new();
        for group in engine.raft_groups() {
            let (first, last) = (engine.first_index(group), engine.last_index(group));
            let (mut next, end) = (first.unwrap_or(1), last.map_or(1, |last| last + 1));
            while next < end {
                engine.fetch_entries_to::<Bytes>(group, next, end.min(next + 1024), None, &mut entries)?;
                for entry in entries.drain(..) {
                    each(&entry.value[8..]);
                    next += 1;
                }
            }
        }
        Ok(())
    },
};

fn config(dir: &Path, need: Need) -> Result<Config> {
    let file = 64 << 20;
    // (It prepares half as much again.)
    let prefill = need.bytes.clamp(file, 1 << 30);
    Ok(Config {
        dir: dir.to_str().context("a directory whose name is not UTF-8")?.to_owned(),
        target_file_size: ReadableSize(file),
        purge_threshold: ReadableSize::gb(64),
        batch_compression_threshold: ReadableSize(0),
        prefill_for_recycle: true,
        prefill_limit: Some(ReadableSize(prefill)),
        ..Config::default()
    })
}

/// An entry: its index, and the record.
struct Bytes;

impl MessageExt for Bytes {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

struct Open(Arc<Engine>);

impl Log for Open {
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        let group = thread as u64 + 1;
        let next = self.0.last_index(group).map_or(1, |last| last + 1);
        Ok(Box::new(One { engine: &self.0, group, next, batch: LogBatch::with_capacity(1), entry: BytesValue::new() }))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.sync()?)
    }
}

struct One<'a> {
    engine: &'a Engine,
    group: u64,
    next: u64,
    batch: LogBatch,
    entry: BytesValue,
}

impl One<'_> {
    fn add(&mut self, record: &[u8]) -> Result<()> {
        self.entry.value.clear();
        self.entry.value.extend_from_slice(&self.next.to_le_bytes());
        self.entry.value.extend_from_slice(record);
        self.next += 1;
        Ok(self.batch.add_entries::<Bytes>(self.group, std::slice::from_ref(&self.entry))?)
    }

    fn write(&mut self, sync: bool) -> Result<()> {
        self.engine.write(&mut self.batch, sync)?;
        Ok(())
    }
}

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.add(record)?;
        self.write(true)
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        records.iter().try_for_each(|record| self.add(record))?;
        self.write(true)
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        // (Its `sync` of an empty batch does nothing, so the last record's write syncs for all:
        // they are in one file, or in files that were synced when they were left.)
        let mut record = next();
        while let Some(this) = record {
            record = next();
            self.add(this)?;
            self.write(record.is_none())?;
        }
        Ok(())
    }
}
