//! Redo: history repeated, in one pass over the log and in parallel by page.
//!
//! The log is read in windows. Of a window each thread takes one stretch after the other. Images go into their pages at once: they need nothing of what
//! was before. Other changes are sorted into buckets, by page. When all is read, each thread takes one bucket after the other, and makes the
//! changes in it page by page, for each page in the order of the log; a page that an image put ahead skips what it has. So no thread waits for another's
//! work but at the end of a window, and a page is looked up once for all of its changes in a window.

use std::any::Any;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::Builder;

use foreword::{Lsn, Reader};

use super::analysis::{Plan, Said, Transactions};
use crate::ids::{PageMap, PageSet, mix};
use crate::page::{PageId, Redo};
use crate::pool::{Load, Pool};
use crate::record::{Head, Rest};
use crate::sync::lock;
use crate::{Error, Result};

/// Stretches of a window for each thread: enough that none has to wait long for another's last.
const STRETCHES: usize = 16;
/// So that offsets and LSNs in it have 32 bits.
const STRETCH_BYTES_MAX: usize = 1 << 30;
/// What the table of transactions takes for a record.
const RECORD_COST: usize = 8;
const BUCKETS: usize = 64;
/// Threads that read pages ahead, where redo has to read pages at all.
const AHEAD_THREADS: usize = 6;

#[derive(Debug, Default)]
pub(crate) struct Redone {
    /// How many threads took part.
    pub(crate) threads: u64,
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

/// What became of changes.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    applied: u64,
    skipped: u64,
    images: u64,
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
    done: Done,
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
    /// Its LSN, counted from the first of the stretch.
    lsn: u32,
    /// Where in the bytes its change begins. It ends where the next begins.
    at: u32,
}

impl Basket {
    /// How much memory the change takes.
    fn push(&mut self, page: PageId, lsn: u32, change: Redo<'_>) -> usize {
        let at = self.bytes.len();
        Rest::put(change, &mut self.bytes);
        self.entries.push(Entry { page, lsn, at: at as u32 });
        self.bytes.len() - at + size_of::<Entry>()
    }

    /// With the LSN of the stretch's first record.
    fn changes(&self, first: Lsn) -> impl Iterator<Item = (PageId, Lsn, Rest<'_>)> {
        let ends = self.entries.iter().skip(1).map(|next| next.at as usize).chain([self.bytes.len()]);
        self.entries.iter().zip(ends).filter_map(move |(entry, end)| {
            let change = Rest::from_bytes(&self.bytes[entry.at as usize..end])?;
            Some((entry.page, Lsn(first.0 + u64::from(entry.lsn)), change))
        })
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
    fn sort(changes: impl Iterator<Item = (PageId, Lsn, Rest<'a>)>) -> Bucket<'a> {
        let mut bucket = Bucket::default();
        let mut lasts: PageMap<usize> = PageMap::default();
        for (at, (page, lsn, change)) in changes.enumerate() {
            bucket.changes.push((lsn, change, None));
            match lasts.insert(page, at) {
                Some(last) => bucket.changes[last].2 = NonZeroUsize::new(at),
                None => bucket.pages.push((page, at)),
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

impl Window {
    const NONE: Window = Window { first: Lsn::ZERO, each: 0 };
}

/// Why redo stopped.
enum Failure {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

struct Pass<'a> {
    pool: &'a Pool,
    plan: &'a Plan,
    /// How much of the log is in memory at a time.
    window_bytes: usize,
    window: Mutex<Window>,
    /// For as many threads as could be started.
    barrier: OnceLock<Barrier>,
    /// The next stretch to be read, and the next bucket to be emptied.
    next_stretch: AtomicUsize,
    next_bucket: AtomicUsize,
    stretches: Vec<RwLock<Stretch>>,
    /// Pages whose redo has begun, by bucket. The lock is held while such a page is changed.
    begun: Vec<Mutex<PageSet>>,
    ahead: Ahead,
    totals: Mutex<Redone>,
    /// Pages of which changes were passed over.
    passed: Mutex<PageSet>,
    transactions: Mutex<Transactions>,
    failed: Mutex<Option<Failure>>,
}

fn bucket_of(page: PageId) -> usize {
    (mix(page.0) >> 20) as usize % BUCKETS
}

/// Repeats history, and tells the transactions' table of all that it reads.
pub(crate) fn run(
    pool: &Pool,
    plan: &Plan,
    transactions: Transactions,
    threads: usize,
    window_bytes: usize,
) -> Result<(Redone, Transactions)> {
    let pass = Pass {
        pool,
        plan,
        window_bytes,
        window: Mutex::new(Window { first: plan.redo_from, each: 1024 }),
        barrier: OnceLock::new(),
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
        // Who cannot be started is done without.
        for _ in 0..if plan.images { 0 } else { AHEAD_THREADS } {
            let _ = Builder::new().spawn_scoped(scope, || pass.ahead.read(pool));
        }
        let helpers = (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, || pass.work()).ok()).count();
        lock(&pass.totals).threads = 1 + helpers as u64;
        pass.barrier.get_or_init(|| Barrier::new(1 + helpers));
        pass.work();
        pass.ahead.close();
    });
    pass.finish()
}

impl Pass<'_> {
    /// The work of one thread, window by window. What goes wrong is noted, and all stop before the next.
    fn work(&self) {
        let barrier = self.barrier.wait();
        let mut reader = self.pool.log.reader();
        let mut done = Done::default();
        let mut passed = PageSet::default();
        loop {
            let window = *lock(&self.window);
            if window.each == 0 {
                break;
            }
            self.attempt(|| self.read_window(window, &mut reader, &mut passed));
            barrier.wait();
            self.attempt(|| self.empty_buckets(window, &mut done, &mut passed));
            if barrier.wait().is_leader() {
                let next = self.attempt(|| Ok(self.turn(window)));
                *lock(&self.window) = next.unwrap_or(Window::NONE);
            }
            barrier.wait();
        }
        lock(&self.totals).add(done);
        lock(&self.passed).extend(passed);
    }

    /// Does a part of the work. A panic is noted as an error is: the others wait for this thread at the barrier.
    fn attempt<T>(&self, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let failure = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => Failure::Error(error),
            Err(panic) => Failure::Panic(panic),
        };
        lock(&self.failed).get_or_insert(failure);
        None
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
        let room = self.window_bytes.div_ceil(self.stretches.len()).min(STRETCH_BYTES_MAX);
        reader.seek(stretch.first);
        while stretch.end < behind && stretch.used < room {
            let lsn = stretch.end;
            // (Behind a salvage some may be lost, and pages cannot do without.)
            let gone = Error::BadRecord { lsn, why: "it is not there: a salvage gave it up" };
            let record = reader.next()?.filter(|record| record.lsn == lsn).ok_or(gone)?.data;
            let (head, rest) = Head::decode(record).map_err(|why| Error::BadRecord { lsn, why })?;
            if let Some(page) = stretch.said.take(lsn, head) {
                if self.plan.may_lack(page, lsn) {
                    let redo = rest.redo(self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?;
                    self.take(stretch, page, lsn, redo)?;
                } else {
                    passed.insert(page);
                    stretch.done.skipped += 1;
                }
            }
            stretch.used += RECORD_COST;
            stretch.record_bytes += record.len() as u64;
            stretch.end = lsn.next();
        }
        Ok(())
    }

    /// Makes a change of a page, if it is an image; else puts it aside.
    fn take(&self, stretch: &mut Stretch, page: PageId, lsn: Lsn, redo: Redo<'_>) -> Result<()> {
        let bucket = bucket_of(page);
        match redo {
            Redo::Image(_) => self.redo(page, &mut lock(&self.begun[bucket]), &[(lsn, redo)], &mut stretch.done),
            Redo::Edit(_) => {
                stretch.used += stretch.baskets[bucket].push(page, (lsn.0 - stretch.first.0) as u32, redo);
                Ok(())
            }
        }
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

    fn empty_buckets(&self, window: Window, done: &mut Done, passed: &mut PageSet) -> Result<()> {
        let stretches = self.whole(window);
        loop {
            let bucket = self.next_bucket.fetch_add(1, Ordering::Relaxed);
            let Some(begun) = self.begun.get(bucket) else { return Ok(()) };
            let mut begun = lock(begun);
            let bucket = Bucket::sort(stretches.iter().flat_map(|stretch| stretch.baskets[bucket].changes(stretch.first)));
            if !self.plan.images {
                self.ahead.want(bucket.pages().map(|(page, _)| page).filter(|page| !begun.contains(page)));
            }
            let mut changes = Vec::new();
            for (page, first) in bucket.pages() {
                // Where pages are logged whole, what comes before a page's first image was on disk when the checkpoint looked.
                if self.plan.images && !begun.contains(&page) {
                    done.skipped += bucket.of_page(first).count() as u64;
                    passed.insert(page);
                    continue;
                }
                changes.clear();
                for (lsn, change) in bucket.of_page(first) {
                    changes.push((lsn, change.redo(self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?));
                }
                self.redo(page, &mut begun, &changes, done)?;
            }
        }
    }

    /// Makes changes of a page: an image, or others.
    fn redo(&self, page: PageId, begun: &mut PageSet, changes: &[(Lsn, Redo<'_>)], done: &mut Done) -> Result<()> {
        let is_first = begun.insert(page);
        let from_image = is_first && matches!(changes, [(_, Redo::Image(_)), ..]);
        let applied = self.pool.redo(page, changes, if from_image { Load::Blank } else { Load::Read })?;
        done.images += u64::from(from_image);
        done.applied += applied;
        done.skipped += changes.len() as u64 - applied;
        Ok(())
    }

    /// Between two windows, by one thread while the others wait: what the next is.
    fn turn(&self, window: Window) -> Window {
        let (mut totals, mut transactions) = (lock(&self.totals), lock(&self.transactions));
        let (mut end, mut used) = (window.first, 0);
        for stretch in self.whole(window) {
            transactions.add(&stretch.said);
            totals.records += stretch.end.0 - stretch.first.0;
            totals.bytes += stretch.record_bytes;
            totals.add(stretch.done);
            used += stretch.used as u64;
            end = stretch.end;
        }
        self.next_stretch.store(0, Ordering::Relaxed);
        self.next_bucket.store(0, Ordering::Relaxed);
        if end > self.plan.last || lock(&self.failed).is_some() {
            return Window::NONE;
        }
        let records = end.0 - window.first.0;
        // A quarter less than would fit, so that few stretches end early.
        let fitting = records.saturating_mul((self.window_bytes / 4 * 3) as u64) / used.max(1) / self.stretches.len() as u64;
        Window { first: end, each: fitting.clamp(1, 4 * window.each).min(STRETCH_BYTES_MAX as u64) }
    }

    fn finish(self) -> Result<(Redone, Transactions)> {
        match lock(&self.failed).take() {
            Some(Failure::Error(error)) => return Err(error),
            Some(Failure::Panic(panic)) => resume_unwind(panic),
            None => {}
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

impl Redone {
    fn add(&mut self, done: Done) {
        self.applied += done.applied;
        self.skipped += done.skipped;
        self.images += done.images;
    }
}

impl Stretch {
    fn begin(&mut self, first: Lsn) {
        self.baskets.resize_with(BUCKETS, Basket::default);
        self.baskets.iter_mut().for_each(Basket::clear);
        self.said.clear();
        (self.first, self.end) = (first, first);
        (self.used, self.record_bytes, self.done) = (0, 0, Done::default());
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
