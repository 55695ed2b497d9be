//! Threads for background work: one log's, or shared by many.
//!
//! A log has a task in each [`Lane`]. A lane has threads of its own, so that a flush never waits
//! for a segment to be filled, whichever log's it is. A task is a step that looks at the log, does
//! one thing, and says when it is to be called again; it is called earlier when it is kicked. No
//! lock is held while a step runs.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::bug::bug;
use crate::error::Doing;
use crate::strangers;
use crate::sync::{
    self, ThreadId,
    thread::{self, JoinHandle},
    thread_local,
};
use crate::write::circle::{Thing, Wait, let_go};
use crate::{Error, Result};

thread_local! {
    /// For which lane of which threads this one works: the lane's address, or 0.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
}

/// What must not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Flushes: for futures, by policy, and the mark when a log falls idle.
    Sync,
    /// Segments: the next is prepared, those that were dropped are removed.
    Prepare,
    /// What other processes and recorders are told.
    Publish,
}

const LANES: [(Lane, &str); 3] =
    [(Lane::Sync, "foreword-sync"), (Lane::Prepare, "foreword-prepare"), (Lane::Publish, "foreword-stats")];

/// When a step is to be called again, unless it is kicked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// At once, behind the others that are waiting for the thread.
    Now,
    At(Instant),
    WhenKicked,
}

pub(crate) type Step = Box<dyn FnMut() -> Next + Send>;

/// Threads that many logs share for their background work
/// ([`Options::runtime`](crate::Options::runtime)).
///
/// A log that is opened without one has two threads of its own (three, if it
/// [publishes](crate::Options::publish)), and nothing that another log does is in its way. For a
/// store with hundreds of logs that is too many. Those that share a runtime have a number of
/// threads that is fixed, and that sleep while no log has anything to do. What it costs: a log's
/// background flush waits while all threads that sync flush for others, or run their
/// [hooks](crate::Options::on_durable). So a hook that waits for another log of the runtime is told
/// [`Error::Busy`](crate::Error::Busy), if that is without a time. A [`commit`](crate::Log::commit)
/// needs none of these threads, nor does an append: where its buffers are full, it flushes itself.
///
/// A runtime is a handle; clones are the same runtime. Its threads end when the last handle is
/// dropped; a log holds one as long as it is there.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// use foreword::{Options, Runtime};
/// let runtime = Runtime::new(4)?; // six threads
/// let shards = (0..10)
///     .map(|n| Options::new().segment_bytes(1 << 20).runtime(&runtime).open(dir.path().join(n.to_string())))
///     .collect::<Result<Vec<_>, _>>()?;
/// for log in &shards {
///     log.append("a record")?; // durable within 100 ms
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Runtime(Arc<Threads>);

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts so many threads that sync (1 to 64), and two more: one prepares segments and removes
    /// them, one writes what other processes may read of the logs.
    ///
    /// A thread that syncs is busy while the disk is, so about as many pay as the disk takes
    /// flushes at once: 4 are right for most.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are to be fewer or more; [`Error::Io`] if the operating system
    /// starts no thread.
    pub fn new(sync_threads: usize) -> Result<Runtime> {
        if !(1..=64).contains(&sync_threads) {
            let why = format!("1 to 64 threads that sync, not {sync_threads}");
            return Err(Error::Invalid { what: "a runtime", why });
        }
        Runtime::start(sync_threads, true).doing("start the threads of a runtime", Path::new(""))
    }

    /// With a thread that publishes only if it is needed.
    pub(crate) fn start(sync_threads: usize, publishes: bool) -> io::Result<Runtime> {
        let pool = Arc::new(Pool { process: std::process::id(), lanes: Default::default() });
        let threads = Threads { pool, handles: Mutex::default() };
        for (lane, name) in LANES {
            let count = match lane {
                Lane::Sync => sync_threads,
                Lane::Prepare => 1,
                Lane::Publish => usize::from(publishes),
            };
            for _ in 0..count {
                let pool = threads.pool.clone();
                // (If one cannot be started, those that were end.)
                let started = thread::Builder::new().name(name.to_owned()).spawn(move || pool.work(lane))?;
                sync::lock(&threads.handles).push(started);
            }
        }
        Ok(Runtime(Arc::new(threads)))
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.0.pool.is_forked()
    }

    /// Has a step called, soon and whenever it asks for it, until the task is ended.
    pub(crate) fn add(&self, lane: Lane, step: Step) -> Task {
        let kicked = Arc::new(AtomicBool::new(true));
        let mut queue = self.0.pool.lock(lane);
        let id = queue.next_id;
        queue.next_id += 1;
        let entry = Scheduled { kicked: kicked.clone(), step: Some(step), runs_on: None, ready: false, at: None, ended: false };
        queue.tasks.insert(id, entry);
        self.0.pool.wake(lane, queue, id);
        Task { pool: self.0.pool.clone(), lane, id, kicked }
    }
}

/// The threads themselves, for as long as there is a handle.
struct Threads {
    pool: Arc<Pool>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        let handles = std::mem::take(&mut *sync::lock(&self.handles));
        if self.pool.is_forked() {
            return std::mem::forget(handles);
        }
        for (lane, _) in LANES {
            self.pool.lock(lane).stop = true;
            self.pool.lane(lane).work.notify_all();
        }
        for thread in handles {
            // A waker or a hook may have dropped the last handle on one of them, or one of them may
            // wait for this one: that one ends by itself.
            if let Some(_wait) = Wait::on(thread.thread().id(), Thing::of(self)) {
                let _ = thread.join();
            }
        }
    }
}

struct Pool {
    process: u32,
    lanes: [Waiting; LANES.len()],
}

#[derive(Default)]
struct Waiting {
    queue: Mutex<Queue>,
    /// Something is ready, a sleeper is to keep the time, or the threads are to end.
    work: Condvar,
    /// A task has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: BTreeMap<u64, Scheduled>,
    next_id: u64,
    ready: VecDeque<u64>,
    timers: BTreeSet<(Instant, u64)>,
    /// Threads that sleep, and until when one of them does.
    sleeping: usize,
    kept: Option<Instant>,
    stop: bool,
}

struct Scheduled {
    /// Something has changed that the step may not have seen. Set without a lock.
    kicked: Arc<AtomicBool>,
    /// None while it runs.
    step: Option<Step>,
    runs_on: Option<ThreadId>,
    /// It is in the queue.
    ready: bool,
    at: Option<Instant>,
    /// It is not called again.
    ended: bool,
}

impl Pool {
    /// In a forked process there are no threads, and a lock that one held is held for ever.
    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn lane(&self, lane: Lane) -> &Waiting {
        &self.lanes[lane as usize]
    }

    fn lock(&self, lane: Lane) -> MutexGuard<'_, Queue> {
        sync::lock(&self.lane(lane).queue)
    }

    fn wake(&self, lane: Lane, mut queue: MutexGuard<'_, Queue>, id: u64) {
        let wakes = queue.wake(id) && queue.sleeping > 0;
        drop(queue);
        if wakes {
            self.lane(lane).work.notify_one();
        }
    }

    /// What each thread of a lane does.
    fn work(&self, lane: Lane) {
        WORKS_FOR.with(|lane_of| lane_of.set(std::ptr::from_ref(self.lane(lane)).addr()));
        let mut queue = self.lock(lane);
        while !queue.stop {
            queue.wake_due();
            let Some((id, mut step)) = queue.take() else {
                queue = self.sleep(lane, queue);
                continue;
            };
            // Another thread is to do what else is ready, and to keep the time.
            if queue.sleeping > 0 && !(queue.ready.is_empty() && (queue.kept.is_some() || queue.timers.is_empty())) {
                self.lane(lane).work.notify_one();
            }
            drop(queue);
            let mut next = Next::WhenKicked;
            strangers::run(|| next = step()); // (If it panics, the others are called all the same.)
            queue = self.lock(lane);
            let Some(ended) = queue.put_back(id, step, next) else { continue };
            drop(queue);
            self.lane(lane).ended.notify_all();
            drop(ended); // With what it owns: not under the lock.
            queue = self.lock(lane);
        }
    }

    fn sleep<'a>(&'a self, lane: Lane, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let work = &self.lane(lane).work;
        let first = queue.timers.first().map(|&(at, _)| at);
        queue.sleeping += 1;
        // One thread is woken by the clock, not all of them.
        let mut queue = match first.filter(|&at| queue.kept.is_none_or(|kept| at < kept)) {
            Some(at) => {
                queue.kept = Some(at);
                let time = at.saturating_duration_since(Instant::now());
                let (mut queue, _) = work.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner);
                queue.kept = queue.kept.filter(|&kept| kept != at);
                queue
            }
            None => work.wait(queue).unwrap_or_else(PoisonError::into_inner),
        };
        queue.sleeping -= 1;
        queue
    }
}

impl Queue {
    fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(&(at, id)) = self.timers.first()
            && at <= now
        {
            self.wake(id);
        }
    }

    /// Whether it was asleep: then it is ready now.
    fn wake(&mut self, id: u64) -> bool {
        let Some(entry) = self.tasks.get_mut(&id).filter(|entry| entry.step.is_some() && !entry.ready) else { return false };
        bug!(
            ForgetTask,
            if !self.ready.is_empty() {
                return false;
            }
        );
        entry.ready = true;
        if let Some(at) = entry.at.take() {
            self.timers.remove(&(at, id));
        }
        self.ready.push_back(id);
        true
    }

    /// The next that is ready, for this thread to run.
    fn take(&mut self) -> Option<(u64, Step)> {
        while let Some(id) = self.ready.pop_front() {
            // (Else it was ended.)
            if let Some(entry) = self.tasks.get_mut(&id) {
                entry.ready = false;
                entry.runs_on = Some(thread::current().id());
                entry.kicked.store(false, Ordering::SeqCst); // Before the step looks.
                return Some((id, entry.step.take()?));
            }
        }
        None
    }

    /// After it ran. The step again if it was ended meanwhile.
    fn put_back(&mut self, id: u64, step: Step, next: Next) -> Option<Step> {
        let Some(entry) = self.tasks.get_mut(&id).filter(|entry| !entry.ended) else {
            self.tasks.remove(&id).iter().for_each(|entry| let_go(Thing::of(&*entry.kicked)));
            return Some(step);
        };
        entry.step = Some(step);
        entry.runs_on = None;
        if entry.kicked.load(Ordering::SeqCst) || next == Next::Now {
            self.wake(id);
        } else if let Next::At(at) = next {
            entry.at = Some(at);
            self.timers.insert((at, id));
        }
        None
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("lane", &self.lane).field("id", &self.id).finish_non_exhaustive()
    }
}

/// A log's place in a lane.
pub(crate) struct Task {
    pool: Arc<Pool>,
    lane: Lane,
    id: u64,
    kicked: Arc<AtomicBool>,
}

impl Task {
    /// Has the step called, which sees what was changed before. The first kick since it ran last
    /// takes the lane's lock, under which no other lock is taken.
    pub(crate) fn kick(&self) {
        if !self.kicked.swap(true, Ordering::SeqCst) && !self.pool.is_forked() {
            self.pool.wake(self.lane, self.pool.lock(self.lane), self.id);
        }
    }

    /// Whether this thread runs it, further up.
    pub(crate) fn is_on_this_thread(&self) -> bool {
        let this = Some(thread::current().id());
        self.pool.lock(self.lane).tasks.get(&self.id).is_some_and(|entry| entry.runs_on == this)
    }

    /// Whether this thread is one of those that run it: then another task may keep it waiting,
    /// further up.
    fn has_this_thread(&self) -> bool {
        WORKS_FOR.with(Cell::get) == std::ptr::from_ref(self.pool.lane(self.lane)).addr()
    }

    /// Whether its thread has something else to do.
    pub(crate) fn is_in_the_way(&self) -> bool {
        !self.pool.lock(self.lane).ready.is_empty()
    }

    /// It is not called again. Waits until it has run to its end, unless this thread runs it, or
    /// one that waits for this thread.
    pub(crate) fn end(&self) {
        let mut queue = self.pool.lock(self.lane);
        while let Some(entry) = queue.tasks.get_mut(&self.id) {
            entry.ended = true;
            let Some(other) = entry.runs_on else {
                let entry = queue.tasks.remove(&self.id);
                if let Some(at) = entry.as_ref().and_then(|entry| entry.at) {
                    queue.timers.remove(&(at, self.id));
                }
                drop(queue);
                return drop(entry); // With what it owns: not under the lock.
            };
            let Some(_wait) = Wait::on(other, Thing::of(&*self.kicked)) else { return };
            queue = self.pool.lane(self.lane).ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A log's tasks, by lane. It has none that publishes, unless it publishes.
#[derive(Debug)]
pub(crate) struct Tasks([Option<Task>; LANES.len()]);

impl Tasks {
    pub(crate) fn new(sync: Task, prepare: Task, publish: Option<Task>) -> Tasks {
        Tasks([Some(sync), Some(prepare), publish])
    }

    #[inline]
    pub(crate) fn kick(&self, lane: Lane) {
        self.0[lane as usize].iter().for_each(Task::kick);
    }

    /// Whether this thread runs one of them, further up.
    pub(crate) fn are_on_this_thread(&self) -> bool {
        self.0.iter().flatten().any(Task::is_on_this_thread)
    }

    /// Whether this thread is one of those that run the task of a lane, this log's or others'.
    pub(crate) fn have_this_thread(&self, lane: Lane) -> bool {
        self.0[lane as usize].as_ref().is_some_and(Task::has_this_thread)
    }

    /// Whether other logs wait for the thread that one of them runs on.
    pub(crate) fn is_in_the_way(&self, lane: Lane) -> bool {
        self.0[lane as usize].as_ref().is_some_and(Task::is_in_the_way)
    }

    /// They are not called again. Waits until each has run to its end, unless this thread runs it,
    /// or one that waits for this thread.
    pub(crate) fn end(&self) {
        self.0.iter().flatten().for_each(Task::end);
    }
}
