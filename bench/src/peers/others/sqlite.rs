//! SQLite, through rusqlite: a write-ahead log of pages before a B-tree.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use rusqlite::Connection;

use super::super::peer::{Feature, Log, Peer, Records, Writer};

pub const PEER: Peer = Peer {
    name: "sqlite",
    package: "rusqlite",
    // Without exclusive locking the index of its log is a mapped file; with it, memory. Its log is
    // used again after each checkpoint, so that it grows only at first. Threads share a connection:
    // with one for each they would poll for the lock.
    setting: "WAL, `synchronous=FULL`, exclusive locking, one connection",
    lacks: &[(Feature::Async, "no asynchronous interface"), (Feature::Together, "one writer at a time")],
    open: |dir, _| Ok(Box::new(Open(Mutex::new(open(dir)?)))),
    read: |dir, mut each| {
        let db = open(dir)?;
        let mut select = db.prepare("SELECT record FROM log ORDER BY id")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            each(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    },
};

const INSERT: &str = "INSERT INTO log (record) VALUES (?1)";

fn open(dir: &Path) -> Result<Connection> {
    let db = Connection::open(dir.join("sqlite"))?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.execute("CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, record BLOB)", [])?;
    Ok(db)
}

struct Open(Mutex<Connection>);

impl Log for Open {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + Send + '_>> {
        Ok(Box::new(One(self)))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).close().map_err(|(_, e)| e.into())
    }
}

struct One<'a>(&'a Open);

impl One<'_> {
    fn db(&self) -> MutexGuard<'_, Connection> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer for One<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.db().prepare_cached(INSERT)?.execute([record])?;
        Ok(())
    }

    fn commit_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut records = records.iter();
        self.transaction(&mut || records.next().copied())
    }

    fn append_all(&mut self, next: Records<'_>) -> Result<()> {
        self.transaction(&mut || next())
    }
}

impl One<'_> {
    fn transaction<'r>(&self, next: &mut dyn FnMut() -> Option<&'r [u8]>) -> Result<()> {
        let mut db = self.db();
        let transaction = db.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            while let Some(record) = next() {
                insert.execute([record])?;
            }
        }
        Ok(transaction.commit()?)
    }
}
