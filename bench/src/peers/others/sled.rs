//! sled: a lock-free B-tree on a log; on Linux its flush is a `sync_file_range`, which flushes no
//! disk cache.

use std::path::Path;

use anyhow::Result;
use sled::{Batch, Config, Db, Mode};

use super::super::peer::{Feature, Log, Peer, Records, Writer};
use super::keys::Keys;

pub const PEER: Peer = Peer {
    name: "sled",
    package: "sled",
    setting: "no timer, `HighThroughput`; each commit a `flush`",
    lacks: &[(Feature::Async, "its `flush_async` is a thread that blocks for each")],
    open: |dir, _| Ok(Box::new(Open { db: open(dir)?, keys: Keys::default() })),
    read: |dir, mut each| {
        for entry in open(dir)?.iter() {
            each(&entry?.1);
        }
        Ok(())
    },
};

fn open(dir: &Path) -> Result<Db> {
    Ok(Config::new().path(dir).mode(Mode::HighThroughput).flush_every_ms(None).open()?)
}

struct Open {
    db: Db,
    keys: Keys,
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.0.db.insert(self.0.keys.next(), record)?;
        self.0.db.flush()?;
        Ok(())
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut batch = Batch::default();
        for &record in records {
            batch.insert(&self.0.keys.next(), record);
        }
        self.0.db.apply_batch(batch)?;
        self.0.db.flush()?;
        Ok(())
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        while let Some(record) = next() {
            self.0.db.insert(self.0.keys.next(), record)?;
        }
        self.0.db.flush()?;
        Ok(())
    }
}
