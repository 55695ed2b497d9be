//! sharded-log: buffered files, each writer takes one that is free; a flush syncs those that were
//! written to.

use std::path::Path;

use anyhow::Result;
use sharded_log::{Config, ShardedLog};

use super::super::peer::{Feature, Log, Peer, Records, Writer};

pub const PEER: Peer = Peer {
    name: "sharded-log",
    package: "sharded-log",
    // A flush syncs each shard that anyone wrote to, so one shard makes the fewest flushes, and
    // lets callers share them.
    setting: "one shard (of several each is synced), its buffer of 512 KiB",
    lacks: &[(Feature::Async, "no asynchronous interface")],
    open: |dir, _| Ok(Box::new(Open(config(dir).create()?))),
    read: |dir, mut each| {
        for batch in config(dir).recover()? {
            batch.iter().for_each(|record| each(record));
        }
        Ok(())
    },
};

fn config(dir: &Path) -> Config {
    Config { path: dir.to_owned(), shards: 1, ..Config::default() }
}

struct Open(ShardedLog);

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        // (Not a clone for each: with more clones than shards it indexes out of bounds.)
        Ok(Box::new(One(&self.0)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.flush()?)
    }
}

struct One<'a>(&'a ShardedLog);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_batch(&[record])
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.0.write_batch(records)?;
        Ok(self.0.flush()?)
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        while let Some(record) = next() {
            self.0.write_batch(&[record])?;
        }
        Ok(self.0.flush()?)
    }
}
