//! Recovery: many changes of many pages, redone from the log; and SQLite recovering a WAL with as
//! many bytes of change in as many pages.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use foreword::Durability;
use foreword_measure::Scratch;
use foreword_measure::sample::{Spread, ratio};
use foreword_pages::{Options, PageId, Recovery};
use rusqlite::{Connection, params};

use crate::bank::connect;
use crate::rng::Rng;
use crate::text::told;

/// Redo of 5 million changes of 100,000 pages, with one thread and with more, beside SQLite
/// recovering the equivalent WAL.
///
/// The pages have 8 KiB, all of them full of bytes that do not compress. Each change is of eight
/// bytes anywhere in any page, a hundred of them a transaction, all after the last checkpoint.
/// SQLite gets the same number of bytes in each page, in one change for each, for it logs whole
/// pages, a hundred a transaction. Its recovery only indexes the WAL, and reads the pages from
/// there from then on; so the time is given as well after which the pages are home (a checkpoint),
/// as it is for foreword-pages.
///
/// Each recovery is of a fresh copy of the same files, which is synced before the clock starts, and
/// in memory.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk that is to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many changes.
    #[arg(long, default_value_t = 5_000_000)]
    updates: u64,
    /// Of how many pages.
    #[arg(long, default_value_t = 100_000)]
    pages: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// With how many threads.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Leave SQLite out.
    #[arg(long)]
    alone: bool,
    /// Where the files to recover from are; made there if they are not, and kept.
    #[arg(long, value_name = "DIR")]
    prepared: Option<PathBuf>,
}

const STORE: &str = "store";
const SQLITE: &str = "pages.sqlite";

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        let scratch = Scratch::new(&self.dir, "foreword-pages-bench")?;
        let prepared = self.prepared.clone().unwrap_or_else(|| scratch.path().join("prepared"));
        fs::create_dir_all(&prepared)?;
        if !prepared.join(STORE).exists() {
            self.prepare(&prepared.join(STORE))?;
        }
        if !self.alone && !prepared.join(SQLITE).exists() {
            self.prepare_sqlite(&prepared.join(SQLITE))?;
        }
        let mut ours: Vec<Vec<Figures>> = self.threads.iter().map(|_| Vec::new()).collect();
        let mut theirs: Vec<Figures> = Vec::new();
        for _ in 0..self.rounds {
            for (&threads, figures) in self.threads.iter().zip(&mut ours) {
                figures.push(self.recover(threads, &prepared.join(STORE), &scratch.path().join(STORE))?);
            }
            if !self.alone {
                theirs.push(recover_sqlite(&prepared, scratch.path())?);
            }
        }
        for (threads, figures) in self.threads.iter().zip(&ours) {
            println!("{threads} threads: {}", summary(figures));
        }
        if let [one, more @ ..] = &ours[..] {
            for (threads, figures) in self.threads[1..].iter().zip(more) {
                let speedup = ratio(&column(one, |f| f.redo), &column(figures, |f| f.redo));
                println!("redo with {threads} threads is {} times as fast as with {}", told(speedup, 2), self.threads[0]);
            }
        }
        if !self.alone {
            println!("SQLite: {}", summary(&theirs));
        }
        Ok(())
    }

    fn options(&self) -> Options {
        // Room for all pages.
        Options::new().pool_bytes((self.pages as usize + 1000) * 8192).background(false)
    }

    /// Pages that are on disk, and changes that are only in the log.
    fn prepare(&self, path: &Path) -> Result<()> {
        let store = self.options().open(path)?;
        let mut rng = Rng(1);
        let mut ids: Vec<PageId> = Vec::new();
        while (ids.len() as u64) < self.pages {
            let mut txn = store.begin();
            for _ in 0..1000.min(self.pages - ids.len() as u64) {
                let page = txn.allocate()?;
                txn.update(page, 0, &rng.bytes(store.page_len()))?;
                ids.push(page);
            }
            txn.commit_with(Durability::Buffered)?;
        }
        store.checkpoint_all()?;
        let before = store.stats().log;
        let started = Instant::now();
        for _ in 0..self.updates / 100 {
            let mut txn = store.begin();
            for _ in 0..100 {
                let page = ids[(rng.next() % self.pages) as usize];
                let offset = (rng.next() % (store.page_len() as u64 / 8)) as usize * 8;
                txn.update(page, offset, &rng.next().to_le_bytes())?;
            }
            txn.commit_with(Durability::Buffered)?;
        }
        let took = started.elapsed().as_secs_f64();
        let bytes = store.stats().log.record_bytes - before.record_bytes;
        println!("{} changes of {} pages in {took:.1} s, {} MiB of records", self.updates, self.pages, bytes >> 20);
        // Dropping it writes no page: it is as after a crash.
        Ok(())
    }

    fn recover(&self, threads: usize, from: &Path, to: &Path) -> Result<Figures> {
        let _ = fs::remove_dir_all(to);
        copy(from, to)?;
        let started = Instant::now();
        let store = self.options().recovery_threads(threads).open(to)?;
        let ready = started.elapsed().as_secs_f64();
        let Recovery { redo, applied, .. } = store.recovery().clone();
        anyhow::ensure!(
            applied + store.recovery().skipped == self.updates,
            "{applied} changes were made again, of {}",
            self.updates
        );
        store.checkpoint_all()?;
        Ok(Figures { ready, redo: redo.took.as_secs_f64(), home: started.elapsed().as_secs_f64() })
    }

    fn prepare_sqlite(&self, path: &Path) -> Result<()> {
        let mut rng = Rng(2);
        let change = (self.updates * 8 / self.pages).clamp(8, 8000) as usize;
        let mut db = connect(path)?;
        db.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE pages (id INTEGER PRIMARY KEY, body BLOB)")?;
        let txn = db.transaction()?;
        for id in 0..self.pages as i64 {
            txn.execute("INSERT INTO pages VALUES (?, ?)", params![id, rng.bytes(8000)])?;
        }
        txn.commit()?;
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        for first in (0..self.pages).step_by(100) {
            let txn = db.transaction()?;
            for id in first..(first + 100).min(self.pages) {
                let mut blob = txn.blob_open("main", "pages", "body", id as i64, false)?;
                blob.write_all(&rng.bytes(change))?;
            }
            txn.commit()?;
        }
        println!("SQLite: {change} bytes in each page, {} MiB of WAL", fs::metadata(wal(path))?.len() >> 20);
        // As after a crash: closing it would bring the pages home.
        std::mem::forget(db);
        Ok(())
    }
}

fn recover_sqlite(from: &Path, to: &Path) -> Result<Figures> {
    let (source, target) = (from.join(SQLITE), to.join(SQLITE));
    let _ = fs::remove_file(target.with_extension("sqlite-shm"));
    copy_file(&source, &target)?;
    copy_file(&wal(&source), &wal(&target))?;
    let started = Instant::now();
    let db = Connection::open(&target)?;
    let _: i64 = db.query_row("SELECT id FROM pages LIMIT 1", [], |row| row.get(0))?;
    let ready = started.elapsed().as_secs_f64();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(Figures { ready, redo: ready, home: started.elapsed().as_secs_f64() })
}

fn wal(path: &Path) -> PathBuf {
    path.with_extension("sqlite-wal")
}

/// What one recovery took, in seconds.
struct Figures {
    redo: f64,
    /// Until it could be used.
    ready: f64,
    /// Until its pages were in their file, too.
    home: f64,
}

fn column(figures: &[Figures], what: impl Fn(&Figures) -> f64) -> Vec<f64> {
    figures.iter().map(what).collect()
}

fn summary(figures: &[Figures]) -> String {
    let spread = |what: fn(&Figures) -> f64| told(Spread::of(&column(figures, what)), 2);
    format!("redo {} s; ready after {} s, pages home after {} s", spread(|f| f.redo), spread(|f| f.ready), spread(|f| f.home))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() { copy(&source, &target)? } else { copy_file(&source, &target)? }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(File::open(to)?.sync_all()?)
}
