//! SQLite: a B+tree in a file, with a log beside it; one writer at a time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::op::{Op, change, key};
use super::stores::{CACHE, Contestant, Entry, See, Store, Table, Worker};
use crate::bank::connect;

pub(crate) const STORE: Contestant = Contestant {
    name: "SQLite",
    package: "rusqlite",
    setting: "WAL mode, synchronous=FULL, pages of 8 KiB; a connection with its cache for each thread; keys in a table \
              WITHOUT ROWID; writers take turns at one lock, which is faster than SQLite's own waiting",
    open: |dir| {
        let path = dir.join("keys.sqlite");
        let db = open(&path)?;
        db.execute_batch("CREATE TABLE IF NOT EXISTS keys (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")?;
        db.execute_batch("CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, value INTEGER)")?;
        Ok(Box::new(Open { path, turn: Mutex::new(()) }))
    },
};

const GET: &str = "SELECT value FROM keys WHERE key = ?";
const PUT: &str = "INSERT INTO keys VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
const SCAN: &str = "SELECT key, value FROM keys WHERE key >= ? ORDER BY key LIMIT ?";
const ADD: &str = "UPDATE accounts SET value = value + ? WHERE id = ?";

fn open(path: &Path) -> Result<Connection> {
    let db = connect(path)?;
    db.execute_batch(&format!("PRAGMA cache_size=-{}", CACHE >> 10))?;
    Ok(db)
}

struct Open {
    path: PathBuf,
    /// SQLite has one writer at a time. A thread that waits for this lock is woken; one that waits
    /// for SQLite sleeps and asks again.
    turn: Mutex<()>,
}

impl Open {
    fn carry_out(&self, db: &mut Connection, op: &Op) -> Result<usize> {
        let get = |db: &Connection, n| -> Result<Vec<u8>> {
            let found = db.prepare_cached(GET)?.query_row([key(n)], |row| row.get(0)).optional()?;
            Ok(found.unwrap_or_default())
        };
        let turn = || self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match *op {
            Op::Read(n) => Ok(get(db, n)?.len()),
            Op::Scan(n, most) => {
                let mut scan = db.prepare_cached(SCAN)?;
                let entry = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?));
                scan.query_map(params![key(n), most as i64], entry)?.try_fold(0, |sum, entry| Ok(sum + entry?.1.len()))
            }
            Op::Put { n, ref value, .. } => {
                let _turn = turn();
                db.prepare_cached(PUT)?.execute(params![key(n), value])?;
                Ok(0)
            }
            Op::ReadAndPut(n) => {
                let _turn = turn();
                let txn = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut value = get(&txn, n)?;
                change(&mut value, 1);
                txn.prepare_cached(PUT)?.execute(params![key(n), value])?;
                txn.commit()?;
                Ok(value.len())
            }
            Op::Transfer(from, to) => {
                let _turn = turn();
                let txn = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut rows = 0;
                for (account, added) in [(from, -1), (to, 1)] {
                    rows += txn.prepare_cached(ADD)?.execute(params![added, account as i64])?;
                }
                txn.commit()?;
                Ok(rows * 8)
            }
        }
    }
}

impl Store for Open {
    fn load(&self, table: Table, entries: &mut dyn Iterator<Item = Entry>) -> Result<()> {
        let mut db = open(&self.path)?;
        let txn = db.transaction()?;
        for (key, value) in entries {
            match table {
                Table::Keys => txn.prepare_cached(PUT)?.execute(params![key, value])?,
                Table::Accounts => {
                    let [id, value] = [u64::from_be_bytes(eight(&key)?), u64::from_le_bytes(eight(&value)?)];
                    txn.prepare_cached("INSERT INTO accounts VALUES (?, ?)")?.execute([id as i64, value as i64])?
                }
            };
        }
        Ok(txn.commit()?)
    }

    fn worker(&self) -> Worker<'_> {
        let mut db = open(&self.path);
        Box::new(move |op| match &mut db {
            Ok(db) => self.carry_out(db, op),
            Err(e) => anyhow::bail!("{e:#}"),
        })
    }

    fn each(&self, table: Table, see: &mut See<'_>) -> Result<()> {
        let db = open(&self.path)?;
        match table {
            Table::Keys => {
                let mut all = db.prepare("SELECT key, value FROM keys ORDER BY key")?;
                let mut rows = all.query([])?;
                while let Some(row) = rows.next()? {
                    see(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?)?;
                }
            }
            Table::Accounts => {
                let mut all = db.prepare("SELECT id, value FROM accounts ORDER BY id")?;
                let mut rows = all.query([])?;
                while let Some(row) = rows.next()? {
                    let [id, value]: [i64; 2] = [row.get(0)?, row.get(1)?];
                    see(&(id as u64).to_be_bytes(), &(value as u64).to_le_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let checked: String = open(&self.path)?.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        anyhow::ensure!(checked == "ok", "{checked}");
        Ok(())
    }
}

fn eight(bytes: &[u8]) -> Result<[u8; 8]> {
    Ok(bytes.try_into()?)
}
