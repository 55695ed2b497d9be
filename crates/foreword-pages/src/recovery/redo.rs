//! Redo: history repeated, in one pass over the log and in parallel by page.
//!
//! The log is read in windows, and a window in stretches. Each thread reads one stretch after the
//! other. An image goes into its page at once: it needs nothing of what was there. Other changes go
//! into buckets, by page. When all stretches are read, each thread takes one bucket after the other
//! and makes its changes page by page, each page's in the order of the log. A page that an image
//! has put ahead skips the changes that it has.
//!
//! So threads wait for each other only at the end of a phase, and a page is looked up once for all
//! of its changes in a window.

mod bucket;
mod prefetch;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Barrier, OnceLock};
use std::thread::Builder;

use foreword::{Lsn, Reader};

use super::analysis::{Plan, Transactions, TxnEvents};
use crate::engine::{Engine, UndoTypes};
use crate::ids::PageSet;
use crate::page::{PageId, Redo};
use crate::pool::{Load, Pool};
use crate::record::{ChangedPage, Header, RawChange};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, lock};
use crate::{Error, Result};

use bucket::{BUCKETS, Bucket, BucketPart, bucket_of};
use prefetch::Prefetch;

/// Stretches of a window for each thread: enough that no thread waits long for another's last
/// stretch.
const STRETCHES: usize = 16;
/// The most that a stretch has: offsets and LSNs within a stretch have 32 bits.
const STRETCH_BYTES_MAX: usize = 1 << 30;
/// Bytes that the table of transactions takes for a record.
const RECORD_COST: usize = 8;
/// Threads that read pages ahead, where redo has to read pages at all.
const PREFETCH_THREADS: usize = 6;

/// What redo did.
#[derive(Debug, Default)]
pub(crate) struct Redone {
    /// Threads that took part.
    pub(crate) threads: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) applied: u64,
    pub(crate) skipped: u64,
    pub(crate) images: u64,
    /// Pages that redo looked at.
    pub(crate) pages: u64,
    /// Pages that redo did not look at, though the log has changes of them: those are on disk.
    pub(crate) pages_skipped: u64,
}

/// How many changes redo made, passed over, and found as images.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    applied: u64,
    skipped: u64,
    images: u64,
}

/// A part of the window, as one thread read it.
#[derive(Debug, Default)]
struct Stretch {
    first: Lsn,
    /// One more than the last LSN that was read.
    end: Lsn,
    /// Bytes of the window's memory that the stretch takes.
    used: usize,
    record_bytes: u64,
    counts: Counts,
    parts: Vec<BucketPart>,
    events: TxnEvents,
}

/// A part of the log that is in memory at a time.
#[derive(Clone, Copy, Debug)]
struct Window {
    first: Lsn,
    /// The most records of a stretch. Zero: there is no further window.
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

/// One pass over the log: what its threads share.
struct Pass<'a> {
    pool: &'a Pool,
    types: &'a UndoTypes,
    plan: &'a Plan,
    /// Bytes of the log that are in memory at a time, at most.
    window_bytes: usize,
    window: Mutex<Window>,
    /// For as many threads as could be started.
    barrier: OnceLock<Barrier>,
    /// The next stretch to be read, and the next bucket to be emptied.
    next_stretch: AtomicUsize,
    next_bucket: AtomicUsize,
    stretches: Vec<RwLock<Stretch>>,
    /// Pages whose redo has begun, by bucket. Invariant: the bucket's lock is held while redo
    /// changes one of its pages.
    begun: Vec<Mutex<PageSet>>,
    prefetch: Prefetch,
    totals: Mutex<Redone>,
    /// Pages whose changes were passed over.
    passed: Mutex<PageSet>,
    transactions: Mutex<Transactions>,
    failed: Mutex<Option<Failure>>,
}

/// Repeats history from the plan's `redo_from` to the end of the log, and brings the table of
/// transactions up to there.
pub(crate) fn run(
    engine: &Engine,
    plan: &Plan,
    transactions: Transactions,
    threads: usize,
    window_bytes: usize,
) -> Result<(Redone, Transactions)> {
    let pool = &engine.pool;
    let pass = Pass {
        pool,
        types: &engine.types,
        plan,
        window_bytes,
        window: Mutex::new(Window { first: plan.redo_from, each: 1024 }),
        barrier: OnceLock::new(),
        next_stretch: AtomicUsize::new(0),
        next_bucket: AtomicUsize::new(0),
        stretches: (0..STRETCHES * threads).map(|_| RwLock::default()).collect(),
        begun: (0..BUCKETS).map(|_| Mutex::default()).collect(),
        prefetch: Prefetch::default(),
        totals: Mutex::default(),
        passed: Mutex::default(),
        transactions: Mutex::new(transactions),
        failed: Mutex::default(),
    };
    std::thread::scope(|scope| {
        // A thread that cannot be started is done without.
        for _ in 0..if plan.images { 0 } else { PREFETCH_THREADS } {
            let _ = Builder::new().spawn_scoped(scope, || pass.prefetch.run(pool));
        }
        let helpers = (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, || pass.work()).ok()).count();
        lock(&pass.totals).threads = 1 + helpers as u64;
        pass.barrier.get_or_init(|| Barrier::new(1 + helpers));
        pass.work();
        pass.prefetch.close();
    });
    pass.finish()
}

impl Pass<'_> {
    /// The work of one thread, window by window. A failure is noted, and all threads stop before
    /// the next window.
    fn work(&self) {
        let barrier = self.barrier.wait();
        let mut reader = self.pool.log.reader();
        let mut counts = Counts::default();
        let mut passed = PageSet::default();
        loop {
            let window = *lock(&self.window);
            if window.each == 0 {
                break;
            }
            self.attempt(|| self.read_window(window, &mut reader, &mut passed));
            barrier.wait();
            self.attempt(|| self.empty_buckets(window, &mut counts, &mut passed));
            if barrier.wait().is_leader() {
                let next = self.attempt(|| Ok(self.next_window(window)));
                *lock(&self.window) = next.unwrap_or(Window::NONE);
            }
            barrier.wait();
        }
        lock(&self.totals).add(counts);
        lock(&self.passed).extend(passed);
    }

    /// Does a part of the work. A panic is noted like an error, so that this thread reaches the
    /// barrier: the other threads wait for it there.
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
            // A salvage may have given a record up. Pages cannot be rebuilt without it.
            let gone = Error::BadRecord { lsn, why: "it is not there: a salvage gave it up" };
            let record = reader.next()?.filter(|record| record.lsn == lsn).ok_or(gone)?.data;
            let (header, raw) = Header::decode(record).map_err(|why| Error::BadRecord { lsn, why })?;
            if let Some(page) = stretch.events.take(lsn, header) {
                match self.plan.may_lack(page, lsn) {
                    true => {
                        let redo = raw.redo(self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?;
                        self.take(stretch, page, lsn, redo)?;
                    }
                    false => stretch.pass(page, passed),
                }
            } else if matches!(header, Header::Change { .. }) {
                self.take_pages(stretch, lsn, raw, passed)?;
            }
            stretch.used += RECORD_COST;
            stretch.record_bytes += record.len() as u64;
            stretch.end = lsn.next();
        }
        Ok(())
    }

    /// Takes the pages of a change, each for itself.
    fn take_pages(&self, stretch: &mut Stretch, lsn: Lsn, raw: RawChange<'_>, passed: &mut PageSet) -> Result<()> {
        let (logical, pages) = raw.pages(self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?;
        if let Some((record_type, _)) = logical.filter(|(number, _)| !self.types.has(*number)) {
            return Err(Error::UnknownType { record_type, lsn });
        }
        for ChangedPage { page, redo, .. } in pages {
            if let Redo::Parts(parts) = redo
                && let Some(record_type) = parts.types().find(|number| !self.pool.types.has(*number))
            {
                return Err(Error::UnknownType { record_type, lsn });
            }
            match self.plan.may_lack(page, lsn) {
                true => self.take(stretch, page, lsn, redo)?,
                false => stretch.pass(page, passed),
            }
        }
        Ok(())
    }

    /// Makes a change of a page at once, if it is an image; else puts it into its bucket.
    fn take(&self, stretch: &mut Stretch, page: PageId, lsn: Lsn, redo: Redo<'_>) -> Result<()> {
        let bucket = bucket_of(page);
        match redo {
            Redo::Image(_) => self.redo(page, &mut lock(&self.begun[bucket]), &[(lsn, redo)], &mut stretch.counts),
            Redo::Edit(_) | Redo::Parts(_) => {
                stretch.used += stretch.parts[bucket].push(page, (lsn.0 - stretch.first.0) as u32, redo);
                Ok(())
            }
        }
    }

    /// The stretches before the first gap: a stretch that had no memory left ends early. The
    /// stretches behind the gap are read again, with the next window.
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

    fn empty_buckets(&self, window: Window, counts: &mut Counts, passed: &mut PageSet) -> Result<()> {
        let stretches = self.whole(window);
        loop {
            let bucket = self.next_bucket.fetch_add(1, Ordering::Relaxed);
            let Some(begun) = self.begun.get(bucket) else { return Ok(()) };
            let mut begun = lock(begun);
            let bucket = Bucket::sort(stretches.iter().flat_map(|stretch| stretch.parts[bucket].changes(stretch.first)));
            if !self.plan.images {
                self.prefetch.want(bucket.pages().map(|(page, _)| page).filter(|page| !begun.contains(page)));
            }
            let mut changes = Vec::new();
            for (page, first) in bucket.pages() {
                // Where pages are logged whole, a change before the page's first image was on disk
                // when the checkpoint listed the dirty pages.
                if self.plan.images && !begun.contains(&page) {
                    counts.skipped += bucket.of_page(first).count() as u64;
                    passed.insert(page);
                    continue;
                }
                changes.clear();
                for (lsn, change) in bucket.of_page(first) {
                    changes.push((lsn, change.redo(self.pool.body()).map_err(|why| Error::BadRecord { lsn, why })?));
                }
                self.redo(page, &mut begun, &changes, counts)?;
            }
        }
    }

    /// Makes changes of one page: a single image, or other changes.
    fn redo(&self, page: PageId, begun: &mut PageSet, changes: &[(Lsn, Redo<'_>)], counts: &mut Counts) -> Result<()> {
        let is_first = begun.insert(page);
        let from_image = is_first && matches!(changes, [(_, Redo::Image(_)), ..]);
        let applied = self.pool.redo(page, changes, if from_image { Load::Blank } else { Load::Read })?;
        counts.images += u64::from(from_image);
        counts.applied += applied;
        counts.skipped += changes.len() as u64 - applied;
        Ok(())
    }

    /// Counts what the window had, and says what the next one is. One thread calls this while the
    /// others wait.
    fn next_window(&self, window: Window) -> Window {
        let (mut totals, mut transactions) = (lock(&self.totals), lock(&self.transactions));
        let (mut end, mut used) = (window.first, 0);
        for stretch in self.whole(window) {
            transactions.add(&stretch.events);
            totals.records += stretch.end.0 - stretch.first.0;
            totals.bytes += stretch.record_bytes;
            totals.add(stretch.counts);
            used += stretch.used as u64;
            end = stretch.end;
        }
        self.next_stretch.store(0, Ordering::Relaxed);
        self.next_bucket.store(0, Ordering::Relaxed);
        if end > self.plan.last || lock(&self.failed).is_some() {
            return Window::NONE;
        }
        let records = end.0 - window.first.0;
        // Three quarters of what would fit, so that few stretches end early.
        let fitting = records.saturating_mul((self.window_bytes / 4 * 3) as u64) / used.max(1) / self.stretches.len() as u64;
        Window { first: end, each: fitting.clamp(1, 4 * window.each).min(STRETCH_BYTES_MAX as u64) }
    }

    fn finish(self) -> Result<(Redone, Transactions)> {
        match lock(&self.failed).take() {
            Some(Failure::Error(error)) => return Err(error),
            Some(Failure::Panic(panic)) => resume_unwind(panic),
            None => {}
        }
        let mut redone = std::mem::take(&mut *lock(&self.totals));
        let has_begun = |page: &&PageId| lock(&self.begun[bucket_of(**page)]).contains(*page);
        let passed = lock(&self.passed);
        redone.pages = self.begun.iter().map(|begun| lock(begun).len() as u64).sum();
        redone.pages_skipped = passed.len() as u64 - passed.iter().filter(has_begun).count() as u64;
        let transactions = std::mem::take(&mut *lock(&self.transactions));
        Ok((redone, transactions))
    }
}

impl Redone {
    fn add(&mut self, counts: Counts) {
        self.applied += counts.applied;
        self.skipped += counts.skipped;
        self.images += counts.images;
    }
}

impl Stretch {
    /// Passes over a change of a page.
    fn pass(&mut self, page: PageId, passed: &mut PageSet) {
        passed.insert(page);
        self.counts.skipped += 1;
    }

    fn begin(&mut self, first: Lsn) {
        self.parts.resize_with(BUCKETS, BucketPart::default);
        self.parts.iter_mut().for_each(BucketPart::clear);
        self.events.clear();
        (self.first, self.end) = (first, first);
        (self.used, self.record_bytes, self.counts) = (0, 0, Counts::default());
    }
}
