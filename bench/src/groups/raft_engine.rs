//! raft-engine: a leader writes and syncs for a group of writers.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::stores::{Contestant, Pending, SLACK, Store};
use crate::payload;

pub const STORE: Contestant = Contestant {
    name: "raft-engine",
    // Compression would only cost here, for the entries are incompressible.
    setting: "files of 64 MiB, prefilled for recycling; no compression; purging in the batch of the next append, and \
              `purge_expired_files` four times a second",
    groups_max: u64::MAX,
    open,
};

fn open(dir: &Path, filled: bool) -> Result<Box<dyn Store>> {
    let config = Config {
        dir: dir.to_str().context("a directory whose name is not UTF-8")?.to_owned(),
        target_file_size: ReadableSize(64 << 20),
        purge_threshold: ReadableSize(SLACK),
        batch_compression_threshold: ReadableSize(0),
        prefill_for_recycle: filled,
        prefill_limit: Some(ReadableSize(2 * SLACK)),
        ..Config::default()
    };
    Ok(Box::new(Open(Engine::open(config)?)))
}

struct Bytes;

impl MessageExt for Bytes {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

fn entry(index: u64, bytes: &[u8]) -> BytesValue {
    let mut entry = BytesValue::new();
    entry.value.reserve(8 + bytes.len());
    entry.value.extend_from_slice(&index.to_le_bytes());
    entry.value.extend_from_slice(bytes);
    entry
}

struct Open(Engine);

impl Store for Open {
    fn append(&self, group: u64, first: u64, entries: &[&[u8]], purge: Option<u64>) -> Result<Pending> {
        let mut batch = LogBatch::with_capacity(2);
        let entries: Vec<BytesValue> = (first..).zip(entries).map(|(index, bytes)| entry(index, bytes)).collect();
        batch.add_entries::<Bytes>(group + 1, &entries)?;
        if let Some(index) = purge {
            batch.add_command(group + 1, Command::Compact { index: index + 1 });
        }
        self.0.write(&mut batch, true)?;
        Ok(Pending::Done)
    }

    fn fill(&self, groups: Range<u64>, entries: u64) -> Result<()> {
        let mut batch = LogBatch::default();
        for index in 1..=entries {
            for group in groups.clone() {
                batch.add_entries::<Bytes>(group + 1, &[entry(index, payload::record(1 << 10, index as usize))])?;
                let last = (index, group + 1) == (entries, groups.end);
                if last || batch.approximate_size() > 1 << 20 {
                    self.0.write(&mut batch, last)?;
                }
            }
        }
        Ok(())
    }

    fn tidy(&self) -> Result<()> {
        // It names groups that hold old files, for their owners to purge: here they purge all the
        // time.
        self.0.purge_expired_files()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.sync()?)
    }
}
