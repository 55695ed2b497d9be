//! Measures foreword-pages beside SQLite on the same disk in the same run: `cargo run --release -p foreword-pages-bench`.
//!
//! **Throughput**: durable transactions a second from 1, 8 and 64 threads, each of two changes of eight bytes to two of 10,000 rows, and
//! nothing else. SQLite in WAL mode with `synchronous=FULL`, a connection for each thread, `BEGIN IMMEDIATE`. Interleaved rounds; the median counts.
//!
//! **Recovery**: redo of many updates over many pages of 8 KiB, all of them full of bytes that do not compress, after a last checkpoint; with one thread
//! and with two. Beside it SQLite recovering a WAL in which the same number of pages were changed in the same number of bytes: it logs whole
//! pages, so it gets them in one change for each page, a hundred a transaction. SQLite's recovery only indexes the WAL, and what it indexed is then read from there;
//! so the checkpoint that brings the pages home is given as well.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A benchmark that cannot go on has nothing to say.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreword::Durability;
use foreword_pages::{Options, PageId, Store};
use rusqlite::{Connection, TransactionBehavior, params};

const USAGE: &str = "usage: foreword-pages-bench throughput [SECONDS [ROUNDS]] | recovery [UPDATES [PAGES]]";
const ROWS: u64 = 10_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| args.get(at).map_or(default, |text| text.parse().expect(USAGE));
    let dir = tempfile::tempdir_in(".").unwrap();
    println!("load {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    match args.first().map(String::as_str) {
        Some("throughput") => throughput(dir.path(), number(1, 3), number(2, 3)),
        Some("recovery") => recovery(dir.path(), number(1, 5_000_000), number(2, 100_000)),
        _ => println!("{USAGE}"),
    }
}

/// Random enough.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

fn throughput(dir: &Path, seconds: u64, rounds: u64) {
    let bank = bank(&dir.join("pages"));
    let sqlite = dir.join("bank.sqlite");
    sqlite_bank(&sqlite);
    for threads in [1, 8, 64] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(rate(threads, seconds, || |rng: &mut Rng| bank.transfer(rng)));
            theirs.push(rate(threads, seconds, || {
                let mut db = connect(&sqlite);
                move |rng: &mut Rng| sqlite_transfer(&mut db, rng)
            }));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{threads:2} threads: {ours:8.0} transactions/s, SQLite {theirs:8.0}: {:.1} times", ours / theirs);
    }
    bank.store.close().unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Transactions a second. `worker` makes what one thread does again and again.
fn rate<W: FnMut(&mut Rng)>(threads: u64, seconds: u64, worker: impl Fn() -> W + Sync) -> f64 {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (stop, count, worker) = (&stop, &count, &worker);
            scope.spawn(move || {
                let (mut work, mut rng) = (worker(), Rng(thread));
                while !stop.load(Ordering::Relaxed) {
                    work(&mut rng);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
    });
    count.into_inner() as f64 / started.elapsed().as_secs_f64()
}

/// Rows of eight bytes in pages, with a lock each: isolation is the caller's.
struct Bank {
    store: Store,
    pages: Vec<PageId>,
    locks: Vec<Mutex<()>>,
}

const PER_PAGE: u64 = 100;

fn bank(dir: &Path) -> Bank {
    let store = Options::new().open(dir).unwrap();
    let mut txn = store.begin();
    let pages = (0..ROWS / PER_PAGE).map(|_| txn.allocate().unwrap()).collect();
    txn.commit().unwrap();
    Bank { store, pages, locks: (0..ROWS).map(|_| Mutex::new(())).collect() }
}

impl Bank {
    fn transfer(&self, rng: &mut Rng) {
        let (from, to) = (rng.next() % ROWS, rng.next() % ROWS);
        if from == to {
            return;
        }
        let _locks = [from.min(to), from.max(to)].map(|row| self.locks[row as usize].lock().unwrap());
        let mut txn = self.store.begin();
        for (row, change) in [(from, u64::MAX), (to, 1)] {
            let (page, offset) = (self.pages[(row / PER_PAGE) as usize], (row % PER_PAGE) as usize * 80);
            let before = u64::from_le_bytes(self.store.read(page).unwrap()[offset..offset + 8].try_into().unwrap());
            txn.update(page, offset, &before.wrapping_add(change).to_le_bytes()).unwrap();
        }
        // The locks may go once the commit is in the log: who comes after commits after.
        let lsn = txn.commit_with(Durability::Buffered).unwrap();
        drop(_locks);
        self.store.sync_to(lsn).unwrap();
    }
}

fn connect(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    db.execute_batch("PRAGMA page_size=8192; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;").unwrap();
    db
}

fn sqlite_bank(path: &Path) {
    let mut db = connect(path);
    db.execute_batch("CREATE TABLE bank (id INTEGER PRIMARY KEY, value INTEGER)").unwrap();
    let txn = db.transaction().unwrap();
    (0..ROWS).for_each(|id| _ = txn.execute("INSERT INTO bank VALUES (?, 0)", [id]).unwrap());
    txn.commit().unwrap();
}

fn sqlite_transfer(db: &mut Connection, rng: &mut Rng) {
    let txn = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    for change in [-1, 1] {
        let mut update = txn.prepare_cached("UPDATE bank SET value = value + ? WHERE id = ?").unwrap();
        update.execute(params![change, (rng.next() % ROWS) as i64]).unwrap();
    }
    txn.commit().unwrap();
}

fn recovery(dir: &Path, updates: u64, pages: u64) {
    let path = dir.join("pages");
    let options = Options::new().pool_bytes((pages as usize + 1000) * 8192).background(false);
    write_pages(&options, &path, updates, pages);
    for threads in [1, 2, 1, 2] {
        // Each time from the same state: recovery ends with a checkpoint.
        let kept = dir.join("crashed");
        copy(&path, &kept);
        let started = Instant::now();
        let store = options.clone().recovery_threads(threads).open(&kept).unwrap();
        let (took, done) = (started.elapsed(), store.recovery().clone());
        println!(
            "{threads} threads: {:.2} s in all; analysis {:.2} s, redo {:.2} s ({:.2} million changes/s)",
            took.as_secs_f64(),
            done.analysis.took.as_secs_f64(),
            done.redo.took.as_secs_f64(),
            done.applied as f64 / done.redo.took.as_secs_f64() / 1e6
        );
    }
    sqlite_recovery(dir, updates, pages);
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, copied) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&source, &copied),
            false => _ = std::fs::copy(source, copied).unwrap(),
        }
    }
}

/// Pages that are on disk, and changes that are only in the log.
fn write_pages(options: &Options, path: &Path, updates: u64, pages: u64) {
    let store = options.open(path).unwrap();
    let mut rng = Rng(1);
    let mut ids = Vec::new();
    for _ in 0..pages.div_ceil(1000) {
        let mut txn = store.begin();
        for _ in 0..1000.min(pages as usize - ids.len()) {
            let page = txn.allocate().unwrap();
            txn.update(page, 0, &rng.bytes(store.page_len())).unwrap();
            ids.push(page);
        }
        txn.commit_with(Durability::Buffered).unwrap();
    }
    store.checkpoint_all().unwrap();
    let before = store.stats().log;
    let started = Instant::now();
    for _ in 0..updates / 100 {
        let mut txn = store.begin();
        for _ in 0..100 {
            let page = ids[(rng.next() % pages) as usize];
            let offset = (rng.next() % (store.page_len() as u64 / 8)) as usize * 8;
            txn.update(page, offset, &rng.next().to_le_bytes()).unwrap();
        }
        txn.commit_with(Durability::Buffered).unwrap();
    }
    let took = started.elapsed().as_secs_f64();
    let bytes = store.stats().log.record_bytes - before.record_bytes;
    println!("{updates} updates of {pages} pages in {took:.1} s, {} MiB of records", bytes >> 20);
}

fn sqlite_recovery(dir: &Path, updates: u64, pages: u64) {
    let path = dir.join("pages.sqlite");
    let mut rng = Rng(2);
    let change = (updates * 8 / pages).clamp(8, 8000) as usize;
    let mut db = connect(&path);
    db.execute_batch("PRAGMA wal_autocheckpoint=0; CREATE TABLE pages (id INTEGER PRIMARY KEY, body BLOB)").unwrap();
    let txn = db.transaction().unwrap();
    (0..pages).for_each(|id| _ = txn.execute("INSERT INTO pages VALUES (?, ?)", params![id, rng.bytes(8000)]).unwrap());
    txn.commit().unwrap();
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    for first in (0..pages).step_by(100) {
        let txn = db.transaction().unwrap();
        for id in first..(first + 100).min(pages) {
            let mut blob = txn.blob_open(rusqlite::MAIN_DB, "pages", "body", id as i64, false).unwrap();
            std::io::Write::write_all(&mut blob, &rng.bytes(change)).unwrap();
        }
        txn.commit().unwrap();
    }
    // As after a crash: the files without the connection's closing.
    let kept = dir.join("crashed.sqlite");
    let wal = |path: &Path| path.with_extension("sqlite-wal");
    let copy = || {
        std::fs::copy(&path, &kept).unwrap();
        std::fs::copy(wal(&path), wal(&kept)).unwrap();
        let _ = std::fs::remove_file(kept.with_extension("sqlite-shm"));
    };
    println!("SQLite: {change} bytes in each page, {} MiB of WAL", std::fs::metadata(wal(&path)).unwrap().len() >> 20);
    for _ in 0..3 {
        copy();
        let started = Instant::now();
        let db = Connection::open(&kept).unwrap();
        let _: i64 = db.query_row("SELECT id FROM pages LIMIT 1", [], |row| row.get(0)).unwrap();
        let recovered = started.elapsed().as_secs_f64();
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let home = started.elapsed().as_secs_f64();
        println!("SQLite: {recovered:.2} s, and {home:.2} s with the pages brought home");
    }
}
