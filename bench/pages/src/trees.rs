//! Transactions on keys: the workloads of YCSB, and transfers, on trees and on SQLite's.

mod mix;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use foreword_measure::sample::{Spread, ratio};
use foreword_measure::{Scratch, load};
use foreword_tree::{Db, Options, Tree};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::bank::connect;
use crate::text::told;
use mix::{ACCOUNTS, Mix, Op, Source, Workload, key};

/// Bytes of a value: ten fields of a hundred, as YCSB has them.
const VALUE: usize = 1000;
const CACHE: usize = 256 << 20;

/// YCSB's workloads, and transfers, on trees and on SQLite: operations a second, each of which is a
/// durable transaction.
///
/// A: half reads, half updates. B: 5% updates. C: reads. E: 95% scans of up to 100 keys, 5% inserts.
/// F: half reads, half reads that are followed by an update. Keys are chosen as YCSB does (zipfian).
/// Transfers change eight bytes in two of 10,000 rows. Reads are transactions, too: what they have
/// read is durable. Both have 256 MiB of cache. SQLite is in WAL mode with synchronous=FULL, has a
/// connection for each thread and a table WITHOUT ROWID, and its writers take turns at one lock,
/// which is faster than SQLite's own waiting.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk that is to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often each is made.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    threads: Vec<usize>,
    /// How many keys of 1,000 bytes each.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
}

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        let scratch = Scratch::new(&self.dir, "foreword-pages-bench")?;
        let trees = Trees::new(&scratch.path().join("trees"), self.records)?;
        let sqlite = Sqlite::new(&scratch.path().join("keys.sqlite"), self.records)?;
        let time = Duration::from_secs(self.seconds);
        for workload in Workload::ALL {
            for &threads in &self.threads {
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                for round in 0..self.rounds {
                    let seed = |thread: usize| (round * 1000 + thread) as u64;
                    ours.push(load::closed(threads, time, |thread| trees.worker(workload, seed(thread)))?.rate());
                    theirs.push(load::closed(threads, time, |thread| sqlite.worker(workload, seed(thread)))?.rate());
                }
                let times = told(ratio(&ours, &theirs), 1);
                let [ours, theirs] = [&ours, &theirs].map(|rates| told(Spread::of(rates), 0));
                println!("{workload}, {threads:2} threads: {ours} a second, SQLite {theirs}: {times} times");
            }
        }
        trees.db.verify(true).context("checking the trees")?;
        Ok(trees.db.close()?)
    }
}

struct Trees {
    db: Db,
    keys: Tree,
    accounts: Tree,
    source: Source,
}

impl Trees {
    fn new(dir: &Path, records: u64) -> Result<Trees> {
        let db = Db::open_with(Options::new().pool_bytes(CACHE), dir)?;
        let (keys, accounts, source) = (db.tree("keys")?, db.tree("accounts")?, Source::new(records));
        let mut next = 0;
        while next < records {
            let end = records.min(next + 1000);
            db.run(|txn| (next..end).try_for_each(|n| txn.put(keys, key(n), [7; VALUE])))?;
            next = end;
        }
        db.run(|txn| (0..ACCOUNTS).try_for_each(|n| txn.put(accounts, n.to_be_bytes(), 0u64.to_le_bytes())))?;
        Ok(Trees { db, keys, accounts, source })
    }

    fn worker(&self, workload: Workload, seed: u64) -> impl FnMut() -> Result<()> + Send {
        let mut mix = Mix::new(&self.source, workload, seed);
        move || Ok(self.carry_out(mix.next(), &mut mix)?)
    }

    fn carry_out(&self, op: Op, mix: &mut Mix<'_>) -> foreword_tree::Result<()> {
        let keys = self.keys;
        match op {
            Op::Read(n) => self.db.run(|txn| txn.get(keys, key(n)).map(drop)),
            Op::Put(n) => {
                let value = mix.value(VALUE);
                self.db.run(|txn| txn.put(keys, key(n), &value))
            }
            Op::ReadAndPut(n) => self.db.run(|txn| {
                let mut value = txn.get_for_update(keys, key(n))?.unwrap_or_default();
                value.iter_mut().take(100).for_each(|byte| *byte = byte.wrapping_add(1));
                txn.put(keys, key(n), value)
            }),
            Op::Scan(n, most) => {
                self.db.run(|txn| txn.scan(keys, &key(n)[..]..).take(most).try_for_each(|entry| entry.map(drop)))
            }
            Op::Transfer(from, to) => self.db.run(|txn| {
                for (row, change) in [(from, u64::MAX), (to, 1)] {
                    let old = txn.get_for_update(self.accounts, row.to_be_bytes())?.unwrap_or_default();
                    let old = old.first_chunk().copied().map_or(0, u64::from_le_bytes);
                    txn.put(self.accounts, row.to_be_bytes(), old.wrapping_add(change).to_le_bytes())?;
                }
                Ok(())
            }),
        }
    }
}

struct Sqlite {
    path: PathBuf,
    /// SQLite has one writer at a time. Who waits for this lock is woken; who waits for SQLite
    /// sleeps and asks again.
    turn: Mutex<()>,
    source: Source,
}

impl Sqlite {
    fn new(path: &Path, records: u64) -> Result<Sqlite> {
        let mut db = connect(path)?;
        db.execute_batch("CREATE TABLE keys (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")?;
        db.execute_batch("CREATE TABLE accounts (id INTEGER PRIMARY KEY, value INTEGER)")?;
        let txn = db.transaction()?;
        (0..records).try_for_each(|n| {
            txn.prepare_cached("INSERT INTO keys VALUES (?, ?)")?.execute(params![key(n), [7u8; VALUE]]).map(drop)
        })?;
        (0..ACCOUNTS).try_for_each(|n| txn.execute("INSERT INTO accounts VALUES (?, 0)", [n as i64]).map(drop))?;
        txn.commit()?;
        Ok(Sqlite { path: path.to_owned(), turn: Mutex::new(()), source: Source::new(records) })
    }

    fn worker(&self, workload: Workload, seed: u64) -> impl FnMut() -> Result<()> + Send {
        let mut mix = Mix::new(&self.source, workload, seed);
        let mut db = connect(&self.path).and_then(|db| {
            db.execute_batch(&format!("PRAGMA cache_size=-{}", CACHE >> 10))?;
            Ok(db)
        });
        move || match &mut db {
            Ok(db) => self.carry_out(db, mix.next(), &mut mix),
            Err(e) => anyhow::bail!("{e:#}"),
        }
    }

    fn carry_out(&self, db: &mut Connection, op: Op, mix: &mut Mix<'_>) -> Result<()> {
        const GET: &str = "SELECT value FROM keys WHERE key = ?";
        const PUT: &str = "INSERT INTO keys VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        let get = |db: &Connection, n| -> Result<Vec<u8>> {
            let found = db.prepare_cached(GET)?.query_row([key(n)], |row| row.get(0)).optional()?;
            Ok(found.unwrap_or_default())
        };
        match op {
            Op::Read(n) => get(db, n).map(drop),
            Op::Scan(n, most) => {
                let mut scan = db.prepare_cached("SELECT key, value FROM keys WHERE key >= ? ORDER BY key LIMIT ?")?;
                let rows = scan
                    .query_map(params![key(n), most as i64], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
                for row in rows {
                    row?;
                }
                Ok(())
            }
            Op::Put(n) => {
                let value = mix.value(VALUE);
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                db.prepare_cached(PUT)?.execute(params![key(n), value])?;
                Ok(())
            }
            Op::ReadAndPut(n) => {
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                let txn = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut value = get(&txn, n)?;
                value.iter_mut().take(100).for_each(|byte| *byte = byte.wrapping_add(1));
                txn.prepare_cached(PUT)?.execute(params![key(n), value])?;
                Ok(txn.commit()?)
            }
            Op::Transfer(from, to) => {
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                let txn = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
                for (row, change) in [(from, -1), (to, 1)] {
                    let mut update = txn.prepare_cached("UPDATE accounts SET value = value + ? WHERE id = ?")?;
                    update.execute(params![change, row as i64])?;
                }
                Ok(txn.commit()?)
            }
        }
    }
}
