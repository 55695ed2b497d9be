//! Fuzzy checkpoints: what recovery will need, written down while changes go on; and the log before that dropped.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use foreword::Lsn;

use crate::latch::{self, Deadlock};
use crate::record::{Checkpoint, Record};
use crate::sabotage::{self, Bug};
use crate::store::{Checkpointed, Inner};
use crate::{Error, Result, lock};

/// Which pages a checkpoint writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteBack {
    /// Those that have not changed since the last checkpoint began. Others were logged whole since then, or are logged whole when they change
    /// next: so redo never begins before that.
    Old,
    /// All.
    All,
}

/// When checkpoints are due, and one at a time.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// The last that is complete. Locked while one is taken.
    last: Mutex<Last>,
    count: AtomicU64,
    /// Why the last one failed, if it did.
    failure: Mutex<Option<Error>>,
    each_bytes: u64,
    wish: Mutex<Wish>,
    wished: Condvar,
    has_changes: AtomicBool,
}

/// A checkpoint that is complete.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    begin: Lsn,
    /// Zero: not one of this process.
    end: Lsn,
    images: bool,
    redo_from: Lsn,
    /// What lies before this in the log is needed no more.
    keep: Lsn,
    pages_dirty: u64,
}

#[derive(Debug, Default)]
struct Wish {
    due: bool,
    stop: bool,
}

impl Checkpoints {
    pub(crate) fn new(each_bytes: u64) -> Checkpoints {
        Checkpoints {
            last: Mutex::default(),
            count: AtomicU64::new(0),
            failure: Mutex::default(),
            each_bytes,
            wish: Mutex::default(),
            wished: Condvar::new(),
            has_changes: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Recovery found this one.
    pub(crate) fn set_last(&self, begin: Lsn) {
        *lock(&self.last) = Last { begin, ..Last::default() };
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.failure).clone()
    }

    /// What became of one. If it failed, there is as much to be done as before.
    fn note(&self, failure: Option<Error>) {
        match failure {
            Some(_) => self.has_changes.store(true, Ordering::Relaxed),
            None => _ = self.count.fetch_add(1, Ordering::Relaxed),
        }
        *lock(&self.failure) = failure;
    }

    /// Bytes were logged, behind so many before them.
    pub(crate) fn logged(&self, before: u64, bytes: u64) {
        self.has_changes.store(true, Ordering::Relaxed);
        if before / self.each_bytes != (before + bytes) / self.each_bytes {
            self.lock_wish().due = true;
            self.wished.notify_one();
        }
    }

    fn lock_wish(&self) -> MutexGuard<'_, Wish> {
        lock(&self.wish)
    }
}

impl Inner {
    pub(crate) fn checkpoint(&self, write: WriteBack) -> Result<Checkpointed> {
        let mut last = latch::lock(&self.checkpoints.last).map_err(|Deadlock| Error::Deadlock { page: None })?;
        self.roll_back_orphans();
        self.checkpoints.has_changes.store(false, Ordering::Relaxed);
        let taken = self.take_checkpoint(write, &mut last);
        self.checkpoints.note(taken.as_ref().err().cloned());
        taken
    }

    /// Takes a checkpoint, if the last is not as good, and drops the log before it.
    fn take_checkpoint(&self, write: WriteBack, last: &mut Last) -> Result<Checkpointed> {
        let Inner { pool, .. } = self;
        let before = pool.counters.writes.load(Ordering::Relaxed);
        if !self.is_current(write, last) {
            *last = self.log_checkpoint(write, last.begin)?;
        }
        if !sabotage::has(Bug::DropUnseen) {
            pool.file.look(last.end)?;
        }
        let log_start = pool.log.truncate_front(last.keep)?;
        let pages_written = pool.counters.writes.load(Ordering::Relaxed) - before;
        let Last { begin, redo_from, pages_dirty, .. } = *last;
        Ok(Checkpointed { begin, redo_from, log_start, pages_written, pages_dirty })
    }

    /// Whether another would say the same as the last: nothing was logged since, and there is nothing to be written.
    fn is_current(&self, write: WriteBack, last: &Last) -> bool {
        let Inner { pool, .. } = self;
        last.end > Lsn::ZERO
            && last.end == pool.log.last_lsn()
            && last.images == pool.logs_images()
            && (write == WriteBack::Old || last.pages_dirty == 0)
    }

    fn log_checkpoint(&self, write: WriteBack, last: Lsn) -> Result<Last> {
        let Inner { pool, .. } = self;
        let begin = self.log_small(&Record::CheckpointBegin)?;
        // From here on, a page that changes is logged whole, unless it was since `begin`; so whatever the looks below miss has its image behind it.
        pool.raise_image_floor(begin);
        let images = pool.logs_images();
        let old = if write == WriteBack::All { Lsn::MAX } else { last };
        let (lists, end) = match self.write_and_list(begin, images, old) {
            // With nothing left to be written its record is small enough for the room that the log keeps free.
            Err(error) if error.is_no_space() && write == WriteBack::Old => self.write_and_list(begin, images, Lsn::MAX)?,
            logged => logged?,
        };
        let Checkpoint { live, dirty, .. } = lists;
        let redo_from = dirty.iter().map(|&(_, from)| from).fold(begin, Lsn::min);
        let keep = live.iter().map(|&(_, first, _)| first).fold(redo_from, Lsn::min);
        if sabotage::has(Bug::TruncateTooSoon) {
            pool.log.truncate_front(keep)?;
        }
        pool.file.set_checkpoint(end)?;
        let keep = if sabotage::has(Bug::TruncateTooFar) { begin } else { keep };
        Ok(Last { begin, end, images, redo_from, keep, pages_dirty: dirty.len() as u64 })
    }

    /// Writes the pages that are dirty now, and older than this, once each; then logs what recovery needs to know. What the
    /// record says, and its LSN.
    fn write_and_list(&self, begin: Lsn, images: bool, old: Lsn) -> Result<(Checkpoint, Lsn)> {
        let Inner { pool, live, .. } = self;
        for (page, _) in pool.dirty_pages().into_iter().filter(|&(_, from)| from < old) {
            pool.write_page(page)?;
        }
        let dirty = pool.dirty_pages();
        let (next_txn, live) = live.snapshot();
        let (pages, maps) = (pool.end(), pool.file.maps());
        // What was clean above was written before this.
        pool.file.sync()?;
        let lists = Checkpoint { begin, images, next_txn, live, dirty, pages, maps };
        let mut said = lists.clone();
        if sabotage::has(Bug::NoDirtyPages) {
            said.dirty.clear();
        }
        if sabotage::has(Bug::NoLiveTransactions) {
            said.live.clear();
        }
        if sabotage::has(Bug::ForgetMaps) {
            said.maps.clear();
        }
        let end = self.log_small(&Record::CheckpointEnd(said))?;
        Ok((lists, end))
    }

    /// Logs a record of a checkpoint durably; if it is small, even on a full disk.
    fn log_small(&self, record: &Record<'_>) -> Result<Lsn> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        match self.pool.log.commit_checkpoint(&bytes) {
            Err(foreword::Error::TooLarge { .. }) => Ok(self.pool.log.commit(&bytes)?),
            logged => Ok(logged?),
        }
    }
}

/// The thread that takes checkpoints.
#[derive(Debug)]
pub(crate) struct Background {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(crate) fn start(inner: &Arc<Inner>, interval: Option<Duration>) -> Result<Background> {
        let its = inner.clone();
        let thread = std::thread::Builder::new().name("foreword-pages".into()).spawn(move || run(&its, interval));
        let thread = thread.map_err(Error::io("start a thread", inner.pool.file.path()))?;
        Ok(Background { inner: inner.clone(), thread: Some(thread) })
    }

    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.inner.checkpoints.lock_wish().stop = true;
        self.inner.checkpoints.wished.notify_one();
        if let Some(thread) = self.thread.take() {
            // In a forked child there is no such thread to be waited for.
            match self.inner.pool.file.is_forked() {
                true => std::mem::forget(thread),
                false => _ = thread.join(),
            }
        }
    }
}

fn run(inner: &Inner, interval: Option<Duration>) {
    let checkpoints = &inner.checkpoints;
    loop {
        let mut wish = checkpoints.lock_wish();
        let mut timed_out = false;
        while !wish.due && !wish.stop && !timed_out {
            wish = match interval {
                Some(interval) => {
                    let (wish, wait) = checkpoints.wished.wait_timeout(wish, interval).unwrap_or_else(PoisonError::into_inner);
                    timed_out = wait.timed_out();
                    wish
                }
                None => checkpoints.wished.wait(wish).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if wish.stop {
            return;
        }
        let is_due = std::mem::take(&mut wish.due) || checkpoints.has_changes.load(Ordering::Relaxed);
        drop(wish);
        // An error is in the stats, and may be gone the next time. A panic (of a disk) has said what it has to say.
        if is_due && catch_unwind(AssertUnwindSafe(|| inner.checkpoint(WriteBack::Old))).is_err() {
            let panicked = io::Error::other("it panicked");
            checkpoints.note(Some(Error::io("take a checkpoint", inner.pool.file.path())(panicked)));
        }
    }
}
