//! Redo: history repeated, in one pass over the log and in parallel by page.
//!
//! The log is read in windows. Of a window each thread takes one stretch after the other, and sorts its records into buckets, by page. When all is
//! read, each thread takes one bucket after the other, and makes the changes in it page by page, for each page in the order of the log. So
//! no thread waits for another's work but at the end of a window, and a page is looked up once for all of its changes in a window.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use foreword::{Lsn, Reader};

use super::analysis::{Plan, Said, Transactions};
use crate::ids::{PageMap, PageSet, mix};
use crate::page::{PageId, Redo};
use crate::pool::{Load, Pool};
use crate::record::{Head, Rest};
use crate::{Error, Result};

/// How much of the log is in memory at a time.
const WINDOW_BYTES: usize = 64 << 20;
/// Stretches of a window for each thread: enough that none has to wait long for another's last.
const STRETCHES: usize = 4;
const BUCKETS: usize = 64;
/// Threads that read pages ahead, where redo has to read pages at all.
const AHEAD_THREADS: usize = 6;

#[derive(Debug, Default)]
pub(crate) struct Redone {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) applied: u64,
    pub(crate) skipped: u64,
    pub(crate) images: u64,
    /// How many pages were looked at.
    pub(crate) pages: u64,
    /// How many were not: all of their changes are on disk.
    pub(crate) pages_skipped: u64,
}

/// A part of the window, as one thread read it.
#[derive(Debug, Default)]
struct Stretch {
    first: Lsn,
    /// Behind the last record that was read.
    end: Lsn,
    /// How much of the window's memory it takes.
    used: usize,
    record_bytes: u64,
    skipped: u64,
    baskets: Vec<Basket>,
    said: Said,
}

/// The changes of a stretch that belong to one bucket, in the order of the log.
#[derive(Debug, Default)]
struct Basket {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    page: PageId,
    lsn: Lsn,
    /// Where in the bytes its change begins, and how long it is.
    at: u32,
    len: u32,
}

impl Basket {
    fn push(&mut self, page: PageId, lsn: Lsn, change: Rest<'_>) {
        let at = self.bytes.len();
        change.put(&mut self.bytes);
        self.entries.push(Entry { page, lsn, at: at as u32, len: (self.bytes.len() - at) as u32 });
    }

    fn changes(&self) -> impl Iterator<Item = (Entry, Rest<'_>)> {
        let change = |entry: &Entry| Rest::from_bytes(&self.bytes[entry.at as usize..][..entry.len as usize]);
        self.entries.iter().filter_map(move |entry| Some((*entry, change(entry)?)))
    }

    /// Empties it, and keeps no more memory than it needed now.
    fn clear(&mut self) {
        self.bytes.shrink_to(2 * self.bytes.len());
        self.entries.shrink_to(2 * self.entries.len());
        self.bytes.clear();
        self.entries.clear();
    }
}

/// The changes of a bucket, page by page.
#[derive(Debug, Default)]
struct Bucket<'a> {
    /// In the order of the log; with the next of the same page, if there is one.
    changes: Vec<(Lsn, Rest<'a>, Option<NonZeroUsize>)>,
    /// In the order of their ids, each with its first change.
    pages: Vec<(PageId, usize)>,
}

impl<'a> Bucket<'a> {
    fn sort(changes: impl Iterator<Item = (Entry, Rest<'a>)>) -> Bucket<'a> {
        let mut bucket = Bucket::default();
        let mut lasts: PageMap<usize> = PageMap::default();
        for (at, (entry, change)) in changes.enumerate() {
            bucket.changes.push((entry.lsn, change, None));
            match lasts.insert(entry.page, at) {
                Some(last) => bucket.changes[last].2 = NonZeroUsize::new(at),
                None => bucket.pages.push((entry.page, at)),
            }
        }
        bucket.pages.sort_unstable();
        bucket
    }

    fn pages(&self) -> impl Iterator<Item = (PageId, usize)> {
        self.pages.iter().copied()
    }

    fn of_page(&self, first: usize) -> impl Iterator<Item = (Lsn, Rest<'a>)> {
        let at = |at: usize| self.changes.get(at);
        std::iter::successors(at(first), move |change| at(change.2?.get())).map(|&(lsn, change, _)| (lsn, change))
    }
}

/// What the next window is.
#[derive(Clone, Copy, Debug)]
struct Window {
    first: Lsn,
    /// How many records there are in a stretch, at most. Zero: there is no further window.
    each: u64,
}

struct Pass<'a> {
    pool: &'a Pool,
    plan: &'a Plan,
    window: Mutex<Window>,
    barrier: Barrier,
    /// The next stretch to be read, and the next bucket to be emptied.
    next_stretch: AtomicUsize,
    next_bucket: AtomicUsize,
    stretches: Vec<RwLock<Stretch>>,
    /// Pages whose redo has begun, by bucket.
    begun: Vec<Mutex<PageSet>>,
    ahead: Ahead,
    totals: Mutex<Redone>,
    /// Pages of which changes were passed over.
    passed: Mutex<PageSet>,
    transactions: Mutex<Transactions>,
    failed: Mutex<Option<Error>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bucket_of(page: PageId) -> usize {
    (mix(page.0) >> 20) as usize % BUCKETS
}

/// Repeats history, and tells the transactions' table of all that it reads.
pub(crate) fn run(pool: &Pool, plan: &Plan, transactions: Transactions, threads: usize) -> Result<(Redone, Transactions)> {
    let pass = Pass {
        pool,
        plan,
        window: Mutex::new(Window { first: plan.redo_from, each: 1024 }),
        barrier: Barrier::new(threads),
        next_stretch: AtomicUsize::new(0),
        next_bucket: AtomicUsize::new(0),
        stretches: (0..STRETCHES * threads).map(|_| RwLock::default()).collect(),
        begun: (0..BUCKETS).map(|_| Mutex::default()).collect(),
        ahead: Ahead::default(),
        totals: Mutex::default(),
        passed: Mutex::default(),
        transactions: Mutex::new(transactions),
        failed: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..if plan.images { 0 } else { AHEAD_THREADS } {
            scope.spawn(|| pass.ahead.read(pool));
        }
        for _ in 1..threads {
            scope.spawn(|| pass.work());
        }
        pass.work();
        pass.ahead.close();
    });
    pass.finish()
}

impl Pass<'_> {
    /// The work of one thread, window by window. An error is noted, and all stop before the next.
    fn work(&self) {
        let mut reader = self.pool.log.reader();
        let mut done = Redone::default();
        let mut passed = PageSet::default();
        loop {
            let window = *lock(&self.window);
            if window.each == 0 {
                break;
            }
            self.note(self.read_window(window, &mut reader, &mut passed));
            self.barrier.wait();
            self.note(self.empty_buckets(window, &mut done, &mut passed));
            if self.barrier.wait().is_leader() {
                self.turn(window);
            }
            self.barrier.wait();
        }
        let mut totals = lock(&self.totals);
        totals.applied += done.applied;
        totals.skipped += done.skipped;
        totals.images += done.images;
        lock(&self.passed).extend(passed);
    }

    fn note(&self, result: Result<()>) {
        if let Err(error) = result {
            lock(&self.failed).get_or_insert(error);
        }
    }

    fn read_window(&self, window: Window, reader: &mut Reader, passed: &mut PageSet) -> Result<()> {
        loop {
            let at = self.next_stretch.fetch_add(1, Ordering::Relaxed);
            let Some(stretch) = self.stretches.get(at) else { return Ok(()) };
            let mut stretch = stretch.write().unwrap_or_else(PoisonError::into_inner);
            stretch.begin(Lsn(window.first.0.saturating_add(at as u64 * window.each)));
            let behind = Lsn(stretch.first.0.saturating_add(window.each)).min(self.plan.last.next());
            self.read(&mut stretch, behind, reader, passed)?;
        }
    }

    /// Reads a stretch as far as its memory reaches.
    fn read(&self, stretch: &mut Stretch, behind: Lsn, reader: &mut Reader, passed: &mut PageSet) -> Result<()> {
        let room = WINDOW_BYTES / self.stretches.len();
        reader.seek(stretch.first);
        while stretch.end < behind && stretch.used < room {
            let lsn = stretch.end;
            // (Behind a salvage some may be lost, and pages cannot do without.)
            let record = reader.next()?.filter(|record| record.lsn == lsn).ok_or(foreword::Error::Lost { lsn })?.data;
            let (head, rest) = Head::decode(record).map_err(|why| Error::BadRecord { lsn, why })?;
            if let Some(page) = stretch.said.take(lsn, head) {
                if self.plan.may_lack(page, lsn) {
                    stretch.baskets[bucket_of(page)].push(page, lsn, rest);
                    stretch.used += record.len();
                } else {
                    passed.insert(page);
                    stretch.skipped += 1;
                }
            }
            stretch.used += size_of::<Entry>();
            stretch.record_bytes += record.len() as u64;
            stretch.end = lsn.next();
        }
        Ok(())
    }

    /// The stretches that were read without a gap between them. What lies behind a gap is read again, with the next window.
    fn whole(&self, window: Window) -> Vec<RwLockReadGuard<'_, Stretch>> {
        let mut end = window.first;
        let stretches = self.stretches.iter().map(|stretch| stretch.read().unwrap_or_else(PoisonError::into_inner));
        let goes_on = |stretch: &RwLockReadGuard<'_, Stretch>| {
            let follows = stretch.first == end;
            end = stretch.end;
            follows
        };
        stretches.take_while(goes_on).collect()
    }

    fn empty_buckets(&self, window: Window, done: &mut Redone, passed: &mut PageSet) -> Result<()> {
        let stretches = self.whole(window);
        loop {
            let bucket = self.next_bucket.fetch_add(1, Ordering::Relaxed);
            let Some(begun) = self.begun.get(bucket) else { return Ok(()) };
            let mut begun = lock(begun);
            let changes = stretches.iter().flat_map(|stretch| stretch.baskets[bucket].changes());
            let bucket = Bucket::sort(changes);
            if !self.plan.images {
                let cold = bucket.pages().filter(|(_, first)| !bucket.changes[*first].1.is_image());
                self.ahead.want(cold.map(|(page, _)| page).filter(|page| !begun.contains(page)));
            }
            let mut of_page = Vec::new();
            for (page, first) in bucket.pages() {
                of_page.clear();
                for (lsn, change) in bucket.of_page(first) {
                    of_page.push((lsn, change.redo(self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?));
                }
                self.redo(page, &mut begun, &of_page, done, passed)?;
            }
        }
    }

    fn redo(
        &self,
        page: PageId,
        begun: &mut PageSet,
        changes: &[(Lsn, Redo<'_>)],
        done: &mut Redone,
        passed: &mut PageSet,
    ) -> Result<()> {
        let is_image = |(_, redo): &(Lsn, Redo<'_>)| matches!(redo, Redo::Image(_));
        // Where pages are logged whole, what comes before a page's first image was on disk when the checkpoint looked.
        let first = if self.plan.images && !begun.contains(&page) { changes.iter().position(is_image) } else { Some(0) };
        let needed = &changes[first.unwrap_or(changes.len())..];
        done.skipped += (changes.len() - needed.len()) as u64;
        if needed.is_empty() {
            passed.insert(page);
            return Ok(());
        }
        if begun.insert(page) && is_image(&needed[0]) {
            done.images += 1;
        }
        let applied = self.pool.redo(page, needed)?;
        done.applied += applied;
        done.skipped += needed.len() as u64 - applied;
        Ok(())
    }

    /// Between two windows, by one thread while the others wait.
    fn turn(&self, window: Window) {
        let (mut totals, mut transactions) = (lock(&self.totals), lock(&self.transactions));
        let (mut end, mut used) = (window.first, 0);
        for stretch in self.whole(window) {
            transactions.add(&stretch.said);
            totals.records += stretch.end.0 - stretch.first.0;
            totals.bytes += stretch.record_bytes;
            totals.skipped += stretch.skipped;
            used += stretch.used as u64;
            end = stretch.end;
        }
        self.next_stretch.store(0, Ordering::Relaxed);
        self.next_bucket.store(0, Ordering::Relaxed);
        let is_over = end > self.plan.last || lock(&self.failed).is_some();
        let records = end.0 - window.first.0;
        // A quarter less than would fit, so that few stretches end early.
        let fitting = records * (WINDOW_BYTES / 4 * 3) as u64 / used.max(1) / self.stretches.len() as u64;
        let each = if is_over { 0 } else { fitting.clamp(1, 4 * window.each) };
        *lock(&self.window) = Window { first: end, each };
    }

    fn finish(self) -> Result<(Redone, Transactions)> {
        if let Some(error) = lock(&self.failed).take() {
            return Err(error);
        }
        let mut done = std::mem::take(&mut *lock(&self.totals));
        let has_begun = |page: &&PageId| lock(&self.begun[bucket_of(**page)]).contains(*page);
        let passed = lock(&self.passed);
        done.pages = self.begun.iter().map(|begun| lock(begun).len() as u64).sum();
        done.pages_skipped = passed.len() as u64 - passed.iter().filter(has_begun).count() as u64;
        let transactions = std::mem::take(&mut *lock(&self.transactions));
        Ok((done, transactions))
    }
}

impl Stretch {
    fn begin(&mut self, first: Lsn) {
        self.baskets.resize_with(BUCKETS, Basket::default);
        self.baskets.iter_mut().for_each(Basket::clear);
        self.said.clear();
        (self.first, self.end) = (first, first);
        (self.used, self.record_bytes, self.skipped) = (0, 0, 0);
    }
}

/// Pages that somebody is about to look at, and that are not in memory.
#[derive(Debug, Default)]
struct Ahead {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    pages: VecDeque<PageId>,
    is_over: bool,
}

impl Ahead {
    fn want(&self, pages: impl Iterator<Item = PageId>) {
        lock(&self.wanted).pages.extend(pages);
        self.changed.notify_all();
    }

    fn close(&self) {
        lock(&self.wanted).is_over = true;
        self.changed.notify_all();
    }

    /// The work of a thread: brings them into the pool.
    fn read(&self, pool: &Pool) {
        let mut wanted = lock(&self.wanted);
        while !wanted.is_over {
            match wanted.pages.pop_front() {
                Some(page) => {
                    drop(wanted);
                    // Whoever needs the page meets the error.
                    drop(pool.fetch(page, Load::Read));
                    wanted = lock(&self.wanted);
                }
                None => wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
