//! RocksDB, through rust-rocksdb: a log before an LSM tree; a leader writes and syncs for a group.

use std::path::Path;

use anyhow::Result;
use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};

use super::super::peer::{Feature, Log, Peer, Records, Writer};
use super::keys::Keys;

pub const PEER: Peer = Peer {
    name: "rocksdb",
    package: "rocksdb",
    // Nothing is flushed from memory while it is measured.
    setting: "recycled logs, a memtable of 512 MiB, no compression; each commit with `sync`",
    lacks: &[(Feature::Async, "no asynchronous interface")],
    open: |dir, _| {
        let mut synced = WriteOptions::new();
        synced.set_sync(true);
        Ok(Box::new(Open { db: open(dir)?, synced, keys: Keys::default() }))
    },
    read: |dir, mut each| {
        for entry in open(dir)?.iterator(IteratorMode::Start) {
            each(&entry?.1);
        }
        Ok(())
    },
};

fn open(dir: &Path) -> Result<DB> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_recycle_log_file_num(4);
    options.set_write_buffer_size(512 << 20);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    Ok(DB::open(&options, dir)?)
}

struct Open {
    db: DB,
    synced: WriteOptions,
    keys: Keys,
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        Ok(self.0.db.put_opt(self.0.keys.next(), record, &self.0.synced)?)
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for record in records {
            batch.put(self.0.keys.next(), record);
        }
        Ok(self.0.db.write_opt(batch, &self.0.synced)?)
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        while let Some(record) = next() {
            self.0.db.put(self.0.keys.next(), record)?;
        }
        Ok(self.0.db.flush_wal(true)?)
    }
}
