//! redb: a copy-on-write B-tree; a commit writes pages and then the root.

use std::path::Path;

use anyhow::Result;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::super::peer::{Feature, Log, Peer, Records, Writer};
use super::keys::Keys;

pub const PEER: Peer = Peer {
    name: "redb",
    package: "redb",
    setting: "defaults (`Durability::Immediate`)",
    lacks: &[(Feature::Async, "no asynchronous interface"), (Feature::Together, "one writer at a time")],
    open: |dir, _| Ok(Box::new(Open { db: open(dir)?, keys: Keys::default() })),
    read: |dir, mut each| {
        let db = open(dir)?;
        let read = db.begin_read()?;
        for entry in read.open_table(TABLE)?.iter()? {
            each(entry?.1.value());
        }
        Ok(())
    },
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

fn open(dir: &Path) -> Result<Database> {
    Ok(Database::create(dir.join("redb"))?)
}

struct Open {
    db: Database,
    keys: Keys,
}

impl Open {
    /// One transaction.
    fn insert(&self, next: Records<'_>) -> Result<()> {
        let write = self.db.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            while let Some(record) = next() {
                table.insert(u64::from_be_bytes(self.keys.next()), record)?;
            }
        }
        Ok(write.commit()?)
    }
}

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct One<'a>(&'a Open);

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_batch(&[record])
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let write = self.0.db.begin_write()?;
        {
            let mut table = write.open_table(TABLE)?;
            for &record in records {
                table.insert(u64::from_be_bytes(self.0.keys.next()), record)?;
            }
        }
        Ok(write.commit()?)
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        self.0.insert(next)
    }
}
