//! Throughput: durable transactions a second, each of two changes of eight bytes to two of 10,000
//! rows, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use foreword::Durability;
use foreword_measure::sample::{Spread, ratio};
use foreword_measure::{Scratch, load};
use foreword_pages::{Options, PageId, Store};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::rng::Rng;
use crate::text::told;

const ROWS: u64 = 10_000;
const PER_PAGE: u64 = 100;

/// Durable transactions a second from 1, 8 and 64 threads.
///
/// Each changes eight bytes in two of 10,000 rows. SQLite is in WAL mode with synchronous=FULL and
/// has a connection for each thread; the threads take turns at one lock, which is faster than
/// SQLite's own waiting.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk that is to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How long each measurement takes.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often each is made.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    threads: Vec<usize>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        let scratch = Scratch::new(&self.dir, "foreword-pages-bench")?;
        let bank = Bank::new(&scratch.path().join("pages"))?;
        let sqlite = SqliteBank::new(&scratch.path().join("bank.sqlite"))?;
        let time = Duration::from_secs(self.seconds);
        for &threads in &self.threads {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                ours.push(load::closed(threads, time, |thread| bank.worker(thread))?.rate());
                theirs.push(load::closed(threads, time, |thread| sqlite.worker(thread))?.rate());
            }
            let times = told(ratio(&ours, &theirs), 1);
            let [ours, theirs] = [&ours, &theirs].map(|rates| told(Spread::of(rates), 0));
            println!("{threads:2} threads: {ours} transactions/s, SQLite {theirs}: {times} times");
        }
        bank.store.close()?;
        Ok(())
    }
}

/// Rows of eight bytes in pages, with a lock each: isolation is the caller's.
struct Bank {
    store: Store,
    pages: Vec<PageId>,
    locks: Vec<Mutex<()>>,
}

impl Bank {
    fn new(dir: &Path) -> Result<Bank> {
        let store = Options::new().open(dir)?;
        let mut txn = store.begin();
        let pages = (0..ROWS / PER_PAGE).map(|_| txn.allocate()).collect::<Result<_, _>>()?;
        txn.commit()?;
        Ok(Bank { store, pages, locks: (0..ROWS).map(|_| Mutex::new(())).collect() })
    }

    fn worker(&self, thread: usize) -> impl FnMut() -> Result<()> + Send {
        let mut rng = Rng(thread as u64);
        move || self.transfer(rng.next() % ROWS, rng.next() % ROWS)
    }

    fn transfer(&self, from: u64, to: u64) -> Result<()> {
        let lock = |row: u64| self.locks[row as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let locks = (lock(from.min(to)), (from != to).then(|| lock(from.max(to))));
        let mut txn = self.store.begin();
        for (row, change) in [(from, u64::MAX), (to, 1)] {
            let (page, offset) = (self.pages[(row / PER_PAGE) as usize], (row % PER_PAGE) as usize * 80);
            let before = self.store.read(page)?[offset..].first_chunk().copied().context("a row of eight bytes")?;
            txn.update(page, offset, &u64::from_le_bytes(before).wrapping_add(change).to_le_bytes())?;
        }
        // The locks may go once the commit is in the log: who comes after commits after.
        let lsn = txn.commit_with(Durability::Buffered)?;
        drop(locks);
        Ok(self.store.sync_to(lsn)?)
    }
}

/// The same rows in a table.
struct SqliteBank {
    path: PathBuf,
    /// SQLite has one writer at a time. Who waits for this lock is woken; who waits for SQLite
    /// sleeps and asks again.
    turn: Mutex<()>,
}

impl SqliteBank {
    fn new(path: &Path) -> Result<SqliteBank> {
        let mut db = connect(path)?;
        db.execute_batch("CREATE TABLE bank (id INTEGER PRIMARY KEY, value INTEGER)")?;
        let txn = db.transaction()?;
        (0..ROWS as i64).try_for_each(|id| txn.execute("INSERT INTO bank VALUES (?, 0)", [id]).map(|_| ()))?;
        txn.commit()?;
        Ok(SqliteBank { path: path.to_owned(), turn: Mutex::new(()) })
    }

    fn worker(&self, thread: usize) -> impl FnMut() -> Result<()> + Send {
        let mut rng = Rng(thread as u64);
        let mut db = connect(&self.path);
        move || match &mut db {
            Ok(db) => self.transfer(db, rng.next() % ROWS, rng.next() % ROWS),
            Err(e) => anyhow::bail!("{e:#}"),
        }
    }

    fn transfer(&self, db: &mut Connection, from: u64, to: u64) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let txn = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (row, change) in [(from, -1), (to, 1)] {
            let mut update = txn.prepare_cached("UPDATE bank SET value = value + ? WHERE id = ?")?;
            update.execute(params![change, row as i64])?;
        }
        Ok(txn.commit()?)
    }
}

pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let db = Connection::open(path)?;
    db.busy_timeout(Duration::from_secs(60))?;
    db.execute_batch("PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
    Ok(db)
}
