//! fjall: an LSM tree with a journal that is written and synced under one lock.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::super::peer::{Feature, Log, Peer, Records, Writer};
use super::keys::Keys;

pub const PEER: Peer = Peer {
    name: "fjall",
    package: "fjall",
    // Nothing is flushed from memory while it is measured.
    setting: "a memtable of 512 MiB; each commit a batch with `SyncData`",
    lacks: &[(Feature::Async, "no asynchronous interface")],
    open: |dir, _| {
        let (db, keyspace) = open(dir)?;
        Ok(Box::new(Open { db, keyspace, keys: Keys::default() }))
    },
    read: |dir, mut each| {
        let (_db, keyspace) = open(dir)?;
        for guard in keyspace.iter() {
            each(&guard.value()?);
        }
        Ok(())
    },
};

fn open(dir: &Path) -> Result<(Database, Keyspace)> {
    let db = Database::builder(dir).manual_journal_persist(true).max_journaling_size(4 << 30).open()?;
    let keyspace = db.keyspace("log", || KeyspaceCreateOptions::default().max_memtable_size(512 << 20))?;
    Ok((db, keyspace))
}

struct Open {
    db: Database,
    keyspace: Keyspace,
    keys: Keys,
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_batch(&[record])
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut batch = self.0.db.batch().durability(Some(PersistMode::SyncData));
        for &record in records {
            batch.insert(&self.0.keyspace, self.0.keys.next(), record);
        }
        Ok(batch.commit()?)
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        while let Some(record) = next() {
            self.0.keyspace.insert(self.0.keys.next(), record)?;
        }
        Ok(self.0.db.persist(PersistMode::SyncData)?)
    }
}
