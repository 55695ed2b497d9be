//! How a view looks at the files, and who waits for what comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::files::disk::Disk;
use crate::files::names::IDENTITY;
use crate::files::time::Ticks;
use crate::format::Chain;
use crate::read::recent::Places;
use crate::read::source::{End, Source};
use crate::read::tails::Wakers;
use crate::read::watch::{Seen, Watch};
use crate::recovery::Verdict;
use crate::sync::ProcessLock;
use crate::{Error, Lsn, Result, strangers};

/// How often a reader that waits looks whether there is more: a commit is to show within 10 ms of
/// the log's saying that it is durable.
const POLL: Duration = Duration::from_millis(4);
/// The same when so many looks found nothing.
const POLL_IDLE: Duration = Duration::from_millis(8);
const IDLE_AFTER: u32 = 25;

/// The thread that looks for tasks ends after so many looks with no task waiting.
const LINGER: u32 = 20;

#[derive(Debug)]
pub(super) struct ViewInner {
    /// Where the path leads, should the directory be gone.
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: Dir,
    /// Whether what recovery would return is shown, proven or not.
    pub(super) unproven: bool,
    /// Held by the thread that looks at the files.
    watch: ProcessLock<Watch>,
    last: ProcessLock<LastLook>,
    /// What was seen when it was opened: for a forked process that cannot know more.
    first: Seen,
    /// Rises with each change of the chain.
    version: AtomicU64,
    /// When the next look is due, by the clock beside it. Then the next step of any reader takes
    /// one: so a reader hears of a cut although all that it reads is at hand.
    due: AtomicU64,
    ticks: Ticks,
    waiting: ProcessLock<Waiting>,
    places: Places,
}

#[derive(Debug)]
struct LastLook {
    seen: Seen,
    /// When the last look succeeded; none if a look has failed since.
    at: Option<Instant>,
}

/// Tasks that wait, and in which process the thread is that looks for them, if there is one.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Wakers<End>,
    served: Option<u32>,
}

fn pause(looks: u32) -> Duration {
    if looks < IDLE_AFTER { POLL } else { POLL_IDLE }
}

impl ViewInner {
    pub(super) fn begin(disk: Arc<dyn Disk>, dir: Dir, unproven: bool) -> Result<ViewInner> {
        let (watch, seen) = Watch::begin(&dir)?;
        let (first, last) = (seen.clone(), ProcessLock::new(LastLook { seen, at: Some(Instant::now()) }));
        let (watch, version) = (ProcessLock::new(watch), AtomicU64::new(0));
        let (waiting, places) = (ProcessLock::default(), Places::default());
        let ticks = Ticks::behind_at_most(POLL);
        let due = AtomicU64::new(ticks.now() + POLL.as_nanos() as u64);
        Ok(ViewInner { disk, dir, unproven, watch, last, first, version, due, ticks, waiting, places })
    }

    pub(super) fn seen<T>(&self, what: impl FnOnce(&Seen) -> T) -> T {
        match self.last.lock() {
            Some(last) => what(&last.seen),
            None => what(&self.first),
        }
    }

    fn last(&self) -> Result<MutexGuard<'_, LastLook>> {
        self.last.lock().ok_or_else(|| self.dir.forked())
    }

    /// Looks at the files, unless a thread just has: one look serves the many readers of a view. If
    /// another thread is looking, this one waits for it only if it must.
    pub(super) fn look(&self, must: bool) -> Result<()> {
        if !must && self.last()?.at.is_some_and(|at| at.elapsed() < POLL / 2) {
            return Ok(());
        }
        let mut watch = match self.watch.try_lock() {
            None if !must && !self.watch.is_forked() => return Ok(()),
            None => self.watch.lock().ok_or_else(|| self.dir.forked())?,
            Some(watch) => watch,
        };
        let before = self.seen(Seen::clone);
        let begun = Instant::now();
        let looked = watch.go_on(&self.dir, &before, must);
        // Not all the time, where a look takes long; and one that fails is not repeated at each
        // step, either.
        let pause = POLL.max(begun.elapsed());
        self.due.store(self.ticks.now() + pause.as_nanos() as u64, Ordering::Relaxed);
        let news = looked.map_err(|error| {
            if let Ok(mut last) = self.last() {
                last.at = None;
            }
            self.judge(error)
        })?;
        let mut last = self.last()?;
        if let Some(news) = news {
            if !Arc::ptr_eq(&news.chain, &before.chain) {
                self.version.fetch_add(1, Ordering::Release);
                self.places.keep_to(&news.chain);
            }
            last.seen = news;
        }
        last.at = Some(Instant::now());
        Ok(())
    }

    /// For a reader that has come to an end; `None`: it is to wait.
    fn news(&self, end: End) -> Result<Option<bool>> {
        let known = |seen: &Seen| seen.news(end, self.unproven);
        match self.seen(known) {
            Some(true) => Ok(Some(true)),
            _ => self.look(false).map(|()| self.seen(known)),
        }
    }

    /// Keeps the waker of a task that waits, and sees to it that a thread looks for it.
    fn keep(self: &Arc<Self>, end: End, id: &mut Option<u64>, waker: Waker) -> Result<()> {
        let mut waiting = self.waiting.lock().ok_or_else(|| self.dir.forked())?;
        let this = Some(std::process::id());
        let served = std::mem::replace(&mut waiting.served, this);
        // (In a forked process, the thread is not there, and tasks that it would wake are not,
        // either.)
        let strange = if served.is_none() || served == this { Vec::new() } else { waiting.wakers.take(|_| true) };
        let before = waiting.wakers.keep(id, end, waker);
        drop(waiting);
        std::mem::forget(strange);
        strangers::discard(before);
        if served != this {
            let mine = self.clone();
            let spawned = std::thread::Builder::new().name("foreword-wait".into()).spawn(move || mine.serve());
            if let Err(source) = spawned {
                if let Some(mut waiting) = self.waiting.lock() {
                    waiting.served = None;
                }
                return Err(Error::Io { doing: "start a thread", path: self.dir.path.clone(), source: Arc::new(source) });
            }
        }
        Ok(())
    }

    /// Looks at the files for the tasks that wait, until none has waited for a while.
    fn serve(&self) {
        let (mut idle, mut looks) = (0, 0);
        while idle < LINGER {
            std::thread::sleep(pause(looks));
            // (A caller that asks again gets the error.)
            let failed = self.look(false).is_err();
            let seen = self.seen(Seen::clone);
            let Some(mut waiting) = self.waiting.lock() else { return };
            let wakers = waiting.wakers.take(|&end| failed || seen.news(end, self.unproven).is_some());
            idle = if waiting.wakers.is_empty() { idle + 1 } else { 0 };
            waiting.served = waiting.served.filter(|_| idle < LINGER);
            drop(waiting);
            looks = if wakers.is_empty() { looks.saturating_add(1) } else { 0 };
            strangers::wake(wakers);
        }
    }
}

impl Source for ViewInner {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.seen(|seen| seen.chain.clone())
    }

    fn version(&self) -> u64 {
        if self.ticks.now() >= self.due.load(Ordering::Relaxed) {
            let _ = self.look(false); // A reader that needs more than is known gets the error.
        }
        self.version.load(Ordering::Acquire)
    }

    fn limit(&self, seen: Lsn) -> Result<Lsn> {
        if self.seen(|now| seen >= now.limit(self.unproven) || now.live()) {
            self.look(seen == Lsn::MAX)?;
        }
        Ok(self.seen(|seen| seen.limit(self.unproven)))
    }

    fn damage(&self) -> Option<Damage> {
        self.seen(|seen| match &seen.verdict {
            Some(Verdict::Corruption(damage)) => Some(damage.clone()),
            _ => None,
        })
    }

    fn wait(&self, end: End, deadline: Option<Instant>) -> Result<bool> {
        for looks in 0.. {
            if let Some(news) = self.news(end)? {
                return Ok(news);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            std::thread::sleep(left.unwrap_or(Duration::MAX).min(pause(looks)));
        }
        Ok(false)
    }

    fn poll(self: Arc<Self>, end: End, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<bool>> {
        // Kept before it is looked whether it is needed: what changes after that wakes it.
        if let Err(error) = self.keep(end, id, waker.clone()) {
            return Poll::Ready(Err(error));
        }
        self.news(end).transpose().map_or(Poll::Pending, Poll::Ready)
    }

    fn places(&self) -> Option<&Places> {
        Some(&self.places)
    }

    /// Where the directory is gone, another log may be under its name, or another copy of this one.
    fn judge(&self, error: Error) -> Error {
        let gone = matches!(&error, Error::NotFound { .. } | Error::Io { .. });
        let Some(now) = Dir::open(&*self.disk, &self.dir.path).ok().filter(|_| gone) else { return error };
        let expected = self.chain().log;
        let file = |dir: &Dir| dir.handle.id_of(IDENTITY).ok();
        match now.read_identity() {
            Ok(Ok(found)) if found != expected || file(&now) != file(&self.dir) => {
                Error::Replaced { dir: self.dir.path.clone(), expected, found }
            }
            _ => error,
        }
    }

    fn forget(&self, id: u64) {
        let forgotten = self.waiting.lock().and_then(|mut waiting| waiting.wakers.forget(id));
        strangers::discard(forgotten);
    }
}
