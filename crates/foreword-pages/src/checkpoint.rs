//! Fuzzy checkpoints: what recovery will need, written down while changes go on; and the log before that dropped.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use foreword::Lsn;

use crate::record::{Checkpoint, Record};
use crate::sabotage::{self, Bug};
use crate::store::{Checkpointed, Inner};
use crate::{Error, Result};

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
    /// The begin of the last that is complete.
    last: Mutex<Lsn>,
    count: AtomicU64,
    each_bytes: u64,
    wish: Mutex<Wish>,
    wished: Condvar,
    has_changes: AtomicBool,
}

#[derive(Debug, Default)]
struct Wish {
    due: bool,
    stop: bool,
}

impl Checkpoints {
    pub(crate) fn new(each_bytes: u64) -> Checkpoints {
        Checkpoints {
            last: Mutex::new(Lsn::ZERO),
            count: AtomicU64::new(0),
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
        *self.lock_last() = begin;
    }

    /// Bytes were logged, behind so many before them.
    pub(crate) fn logged(&self, before: u64, bytes: u64) {
        self.has_changes.store(true, Ordering::Relaxed);
        if before / self.each_bytes != (before + bytes) / self.each_bytes {
            self.lock_wish().due = true;
            self.wished.notify_one();
        }
    }

    fn lock_last(&self) -> MutexGuard<'_, Lsn> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    pub(crate) fn checkpoint(&self, write: WriteBack) -> Result<Checkpointed> {
        let mut last = self.checkpoints.lock_last();
        self.roll_back_orphans();
        self.checkpoints.has_changes.store(false, Ordering::Relaxed);
        let done = match self.try_checkpoint(write, *last) {
            // With nothing left to be written its record is small enough for the room that the log keeps free.
            Err(error) if error.is_no_space() => self.try_checkpoint(WriteBack::All, *last)?,
            done => done?,
        };
        *last = done.begin;
        self.checkpoints.count.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    fn try_checkpoint(&self, write: WriteBack, last: Lsn) -> Result<Checkpointed> {
        let Inner { pool, live, .. } = self;
        let begin = self.log_checkpoint(&Record::CheckpointBegin)?;
        // From here on, a page that changes is logged whole, unless it was since `begin`; so whatever the looks below miss has its image behind it.
        pool.raise_image_floor(begin);
        let before = pool.counters.writes.load(Ordering::Relaxed);
        let old = if write == WriteBack::All { Lsn::MAX } else { last };
        for (page, _) in pool.dirty_pages().into_iter().filter(|&(_, from)| from < old) {
            pool.write_page(page)?;
        }
        let mut dirty = pool.dirty_pages();
        let (next_txn, mut alive) = live.snapshot();
        // What was clean above was written before this.
        pool.file.sync()?;
        let redo_from = dirty.iter().map(|&(_, from)| from).fold(begin, Lsn::min);
        let keep = alive.iter().map(|&(_, first, _)| first).fold(redo_from, Lsn::min);
        let pages_dirty = dirty.len() as u64;
        if sabotage::has(Bug::NoDirtyPages) {
            dirty.clear();
        }
        if sabotage::has(Bug::NoLiveTransactions) {
            alive.clear();
        }
        let images = pool.logs_images();
        let end = self.log_checkpoint(&Record::CheckpointEnd(Checkpoint { begin, images, next_txn, live: alive, dirty }))?;
        if sabotage::has(Bug::TruncateTooSoon) {
            pool.log.truncate_front(keep)?;
        }
        pool.file.set_checkpoint(end)?;
        let keep = if sabotage::has(Bug::TruncateTooFar) { begin } else { keep };
        let log_start = pool.log.truncate_front(keep)?;
        let pages_written = pool.counters.writes.load(Ordering::Relaxed) - before;
        Ok(Checkpointed { begin, redo_from, log_start, pages_written, pages_dirty })
    }

    /// Logs a record of a checkpoint durably; if it is small, even on a full disk.
    fn log_checkpoint(&self, record: &Record<'_>) -> Result<Lsn> {
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
            // If it panicked, it said so.
            let _ = thread.join();
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
        if is_due {
            // An error that is final is met by the next call, too; one that is not (no space) may be gone the next time.
            let _ = inner.checkpoint(WriteBack::Old);
        }
    }
}
