//! Redo: history repeated, in parallel by page.
//!
//! The log is read in windows. Of each window every thread reads a part of its own and sorts the records into baskets, one for each thread, by
//! page. When all have read, each thread applies what is in its baskets, page by page, and for each page in the order of the log. So nothing is
//! done by one thread alone, and a page is looked up once for all of its changes in a window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};

use foreword::Lsn;

use super::analysis::{Plan, Start};
use crate::ids::mix;
use crate::page::{PageId, Redo};
use crate::pool::{Load, Pool};
use crate::record::Record;
use crate::sabotage::{self, Bug};
use crate::{Error, Result};

/// How many bytes of records a thread should read of a window.
const PART_BYTES: u64 = 16 << 20;
const PART_RECORDS_MIN: u64 = 256;
const PART_RECORDS_MAX: u64 = 1 << 19;
/// Threads that read pages ahead, where redo has to read pages at all.
const AHEAD_THREADS: usize = 6;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Redone {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) applied: u64,
    pub(crate) skipped: u64,
    pub(crate) images: u64,
}

/// What one thread read for another.
#[derive(Debug, Default)]
struct Basket {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A record in a basket. They are sorted by page, then by LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    page: PageId,
    lsn: Lsn,
    /// Where its bytes lie: in whose basket, and where in it.
    reader: u32,
    at: (usize, usize),
    /// Where the redo of its page begins.
    start: Lsn,
}

struct Shared<'a> {
    pool: &'a Pool,
    plan: &'a Plan,
    threads: usize,
    barrier: Barrier,
    /// Of each window: its first LSN and how many records each thread reads. Zero: there is none any more.
    window: Mutex<(Lsn, u64)>,
    /// By reader, then by applier.
    baskets: Vec<Mutex<Basket>>,
    /// Pages to be read from the page file in this window.
    cold: Mutex<Vec<PageId>>,
    totals: Mutex<Redone>,
    window_bytes: AtomicU64,
    failed: Mutex<Option<Error>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn run(pool: &Pool, plan: &Plan, threads: usize) -> Result<Redone> {
    if plan.starts.is_empty() {
        return Ok(Redone::default());
    }
    let ahead = if plan.starts.values().all(|start| start.is_image) { 0 } else { AHEAD_THREADS };
    let shared = Shared {
        pool,
        plan,
        threads,
        barrier: Barrier::new(threads + ahead),
        window: Mutex::new((plan.redo_from, 4 * PART_RECORDS_MIN)),
        baskets: (0..threads * threads).map(|_| Mutex::default()).collect(),
        cold: Mutex::default(),
        totals: Mutex::default(),
        window_bytes: AtomicU64::new(0),
        failed: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let shared = &shared;
        for thread in 1..threads {
            scope.spawn(move || shared.work(thread));
        }
        for _ in 0..ahead {
            scope.spawn(|| shared.read_ahead());
        }
        shared.work(0);
    });
    let failed = lock(&shared.failed).take();
    let totals = *lock(&shared.totals);
    failed.map_or(Ok(totals), Err)
}

impl Shared<'_> {
    /// The work of one thread, window by window. An error is noted, and all stop before the next.
    fn work(&self, thread: usize) {
        let mut reader = self.pool.log.reader();
        let mut done = Redone::default();
        loop {
            let (first, each) = *lock(&self.window);
            if each == 0 {
                break;
            }
            let from = Lsn(first.0.saturating_add(each * thread as u64));
            let read = self.read(&mut reader, thread, from, each, &mut done);
            self.note(read);
            self.barrier.wait();
            let applied = self.apply(thread, &mut done);
            self.note(applied);
            if self.barrier.wait().is_leader() {
                self.next_window();
            }
            self.barrier.wait();
        }
        let mut totals = lock(&self.totals);
        totals.records += done.records;
        totals.bytes += done.bytes;
        totals.applied += done.applied;
        totals.skipped += done.skipped;
        totals.images += done.images;
    }

    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.failed).get_or_insert(error);
        }
    }

    fn next_window(&self) {
        let mut window = lock(&self.window);
        let (first, each) = *window;
        let next = Lsn(first.0.saturating_add(each * self.threads as u64));
        let bytes = self.window_bytes.swap(0, Ordering::Relaxed) / self.threads as u64;
        let fitting = each * PART_BYTES / bytes.max(1);
        let is_over = next > self.plan.last || lock(&self.failed).is_some();
        *window = (next, if is_over { 0 } else { fitting.clamp(PART_RECORDS_MIN, PART_RECORDS_MAX).min(4 * each) });
    }

    fn read(&self, reader: &mut foreword::Reader, thread: usize, from: Lsn, count: u64, done: &mut Redone) -> Result<()> {
        let last = Lsn(from.0.saturating_add(count - 1)).min(self.plan.last);
        if from > last {
            return Ok(());
        }
        let mut baskets: Vec<_> = (0..self.threads).map(|to| lock(&self.baskets[thread * self.threads + to])).collect();
        let mut cold = Vec::new();
        let mut bytes = 0;
        for lsn in (from.0..=last.0).map(Lsn) {
            // (By its LSN: behind a salvage some may be lost, and pages cannot do without.)
            let record = reader.get(lsn)?;
            bytes += record.data.len() as u64;
            done.records += 1;
            let record_of = Record::decode(record.data, self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?;
            let Some((page, redo)) = record_of.page_and_redo() else { continue };
            if sabotage::has(Bug::NoRedoOfUndo) && matches!(record_of, Record::Undo { .. }) {
                continue;
            }
            let Some(&Start { lsn: start, is_image }) = self.plan.starts.get(&page).filter(|start| lsn >= start.lsn) else {
                done.skipped += 1;
                continue;
            };
            if lsn == start && !is_image && matches!(redo, Redo::Edit(_)) {
                cold.push(page);
            }
            let basket = &mut baskets[(mix(page.0) >> 20) as usize % self.threads];
            let at = (basket.bytes.len(), basket.bytes.len() + record.data.len());
            basket.bytes.extend_from_slice(record.data);
            basket.entries.push(Entry { page, lsn, reader: thread as u32, at, start });
        }
        done.bytes += bytes;
        self.window_bytes.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.cold).append(&mut cold);
        Ok(())
    }

    fn apply(&self, thread: usize, done: &mut Redone) -> Result<()> {
        let mut baskets: Vec<_> = (0..self.threads).map(|from| lock(&self.baskets[from * self.threads + thread])).collect();
        let mut entries: Vec<Entry> = baskets.iter_mut().flat_map(|basket| basket.entries.drain(..)).collect();
        entries.sort_unstable();
        let mut changes = Vec::new();
        for of_page in entries.chunk_by(|a, b| a.page == b.page) {
            changes.clear();
            for entry in of_page {
                let bytes = &baskets[entry.reader as usize].bytes[entry.at.0..entry.at.1];
                let record = Record::decode(bytes, self.pool.body());
                let record = record.map_err(|why| Error::BadRecord { lsn: entry.lsn, why })?;
                changes.extend(record.page_and_redo().map(|(_, redo)| (entry.lsn, redo)));
            }
            let applied = self.pool.redo(of_page[0].page, of_page[0].start, &changes)?;
            done.applied += applied;
            done.skipped += changes.len() as u64 - applied;
            let is_image = matches!(changes.first(), Some((_, Redo::Image(_)))) && applied as usize == changes.len();
            done.images += u64::from(is_image);
        }
        drop(changes);
        baskets.iter_mut().for_each(|basket| basket.bytes.clear());
        Ok(())
    }

    /// While others apply, reads the pages that they will need.
    fn read_ahead(&self) {
        while lock(&self.window).1 > 0 {
            self.barrier.wait();
            loop {
                let next = lock(&self.cold).pop();
                let Some(page) = next else { break };
                // Whoever needs the page will meet the error.
                drop(self.pool.fetch(page, Load::Read));
            }
            if self.barrier.wait().is_leader() {
                self.next_window();
            }
            self.barrier.wait();
        }
    }
}
