//! What the commit path shares: the log's state, and what is asked of it under its lock.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use crate::bug::{self, Bug};
use crate::files::reserve::Keeping;
use crate::files::segment::{Dir, Segment};
use crate::format::{Control, LogId, Position, Promise};
use crate::observe::stats::Counters;
use crate::read::chain::{Chain, End};
use crate::read::recent::{Places, Recent};
use crate::read::tails::Tails;
use crate::strangers::{self, AtWork};
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::sync::{Event, Mutex, MutexGuard, PoisonError, RwLock, ThreadId, TryLockError, WaitWord};
use crate::write::assemble::Assembler;
use crate::write::background::Tasks;
use crate::write::close::Ending;
use crate::write::hold::Clock;
use crate::write::pace::Pace;
use crate::write::remove::Dropped;
use crate::{Error, Lsn, Options, Result};

/// As many as [`Slots`] has bits.
pub(crate) const SLOTS: usize = u16::BITS as usize;

/// What the log, its background threads, its readers and its tickets share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Dir,
    pub(crate) log: LogId,
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    /// Signalled when a flight lands, a segment is ready, or the log ends.
    pub(crate) changed: Event,
    /// What the background does, once it does.
    pub(crate) tasks: OnceLock<Tasks>,
    /// Committers that no flight has taken yet; changed under the lock.
    pub(crate) arrived: AtomicU32,
    /// Flights with a sync that have left; changed under the lock.
    pub(crate) syncs: AtomicU64,
    /// How many threads wait for a segment.
    pub(crate) starved: AtomicU32,
    /// The last durable LSN, for those who ask without the lock.
    pub(crate) durable: AtomicU64,
    /// Waiters for flight `id` sleep on slot `id % SLOTS`.
    pub(crate) slots: [WaitWord; SLOTS],
    pub(crate) chain: RwLock<Arc<Chain>>,
    /// Rises with each change of the chain.
    pub(crate) version: AtomicU64,
    pub(crate) counters: Counters,
    /// Readers that follow the tail.
    pub(crate) tails: Tails,
    pub(crate) recent: Recent,
    pub(crate) places: Places,
    pub(crate) keeping: Keeping,
    pub(crate) clock: Clock,
}

/// One group on its way to the disk.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: u64,
    /// What is reached when it and all before it have landed.
    pub(crate) reach: Promise,
    pub(crate) sync: bool,
    pub(crate) landed: bool,
    /// It reopens a closed log.
    pub(crate) reopens: bool,
    pub(crate) started: Instant,
}

/// A record that somebody waits for. After a cut its LSN may stand for another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) lsn: Lsn,
    /// How often the log had been cut at the back.
    generation: u32,
}

/// A unit that was appended: its first LSN, and its last record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) first: Lsn,
    pub(crate) last: Goal,
}

/// A flight that waits for its share of the committers.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// How many flights with a sync had left before.
    pub(super) id: u64,
    pub(super) started: Instant,
    /// How many committers there were when it began.
    pub(super) waiting: u32,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) assembler: Assembler,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    /// The log has filled a segment, and so will fill this one.
    pub(crate) fills_segments: bool,
    /// Somebody is preparing a segment.
    pub(crate) preparing: bool,
    /// The background could not prepare one: when it tries again; and that there was no room, if it was that.
    pub(crate) prepare_again: Option<Instant>,
    /// When segments were begun since the log was opened, by its clock.
    pub(crate) begun: BTreeMap<u64, u64>,
    /// When what is to be kept no longer is dropped, after it could not be.
    pub(crate) retain_again: Option<Instant>,
    pub(crate) no_space: Option<Error>,
    /// So many are wanted by those who do not wait for them.
    pub(crate) wanted: usize,
    /// Segments that the log has dropped, durably, and how many of them are being removed; rises with each time that some were.
    pub(crate) dropped: VecDeque<Dropped>,
    pub(crate) removing: usize,
    pub(crate) freed: u64,
    pub(crate) control: Control,
    pub(crate) flights: VecDeque<Flight>,
    pub(crate) next_flight: u64,
    /// How many flights may be writing, whether they count still or not.
    pub(crate) aloft: usize,
    /// What flights that are launched, and those with a sync, will reach.
    pub(crate) launched: Lsn,
    pub(crate) launched_synced: Lsn,
    /// When the last of them left.
    pub(crate) synced_at: Instant,
    pub(crate) written: Lsn,
    pub(crate) durable: Promise,
    /// Where the highest promise in the log stands; no records lie between it and what is durable when the log is opened.
    pub(crate) promised: Position,
    /// Behind the last MARK that was written because the log had fallen idle: it needs no promise itself.
    pub(crate) idle_end: Position,
    /// Segments with written bytes that no launched flight syncs.
    pub(crate) dirty: Vec<Arc<Segment>>,
    pub(crate) failed: Option<Error>,
    /// Nothing more is appended: the log is being closed, or was.
    pub(crate) closed: bool,
    pub(crate) ending: Ending,
    /// The thread that changes the state that is not records.
    pub(crate) changing: Option<ThreadId>,
    /// A truncation at the back is under way: appends wait.
    pub(crate) cutting: bool,
    /// Somebody waits for others to join it.
    pub(crate) gathering: Option<Gathering>,
    pub(crate) pace: Pace,
    pub(crate) wakers: BTreeMap<(Lsn, u64), Waker>,
    pub(crate) waker_ids: u64,
    pub(crate) records: u64,
    pub(crate) record_bytes: u64,
    /// Counts of the last sync that the policy asked for.
    pub(crate) policy_records: u64,
    pub(crate) policy_bytes: u64,
    /// Record bytes and flights with a sync when a segment was prepared last.
    pub(crate) at_last_prepare: (u64, u64),
    /// So much has gathered that the background thread should write it.
    pub(crate) write_due: bool,
    /// The policy is due: the background thread syncs.
    pub(crate) sync_due: bool,
    /// The background thread sleeps until it is kicked; and that it sleeps at all.
    pub(crate) idle: bool,
    pub(crate) asleep: bool,
    /// What the hooks were told: up to which record; segments of which they are still to be told, and that a thread is telling them.
    pub(crate) told: Lsn,
    pub(crate) rotated: VecDeque<(u64, Lsn)>,
    pub(crate) telling: bool,
    /// Nothing has happened since the publisher looked: it sleeps until it is kicked.
    pub(crate) quiet: bool,
    pub(crate) stop: bool,
}

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

impl Shared {
    /// The state, whoever panicked with it: nothing in it is left half changed by code that can panic.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for calls that cannot fail: `None` in a forked process if a thread that is not there has its lock.
    pub(crate) fn peek(&self) -> Option<Guard<'_>> {
        self.open_lock().ok()
    }

    /// As [`lock`](Shared::lock), without waiting for a thread that is not in this process.
    fn open_lock(&self) -> Result<Guard<'_>> {
        match self.lock_if_free() {
            Some(state) => Ok(state),
            None => self.dir.check_process().map(|()| self.lock()),
        }
    }

    pub(super) fn lock_if_free(&self) -> Option<Guard<'_>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn open_state(&self) -> Result<Guard<'_>> {
        let state = self.open_lock()?;
        state.usable()?;
        Ok(state)
    }

    /// Something that asks the disk, and that others wait for.
    pub(crate) fn attempt<T>(&self, doing: &'static str, path: &std::path::Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _work = AtWork::on(self);
        strangers::attempt(doing, path, work)
    }

    /// [`Error::Busy`] if a call that waits may wait for itself: it comes from the disk, a subscriber or a recorder, which runs where this log is at work.
    #[inline]
    pub(crate) fn may_wait(&self) -> Result<()> {
        if AtWork::is_on(self) { Err(Error::Busy) } else { Ok(()) }
    }

    /// Tells of an error that nobody waits for; under no lock.
    pub(crate) fn report(&self, error: &Error) {
        crate::trace::error!(error = %error, dir = %self.dir.path.display(), "background error");
        match &self.options.on_error {
            Some(hook) => _ = strangers::run(|| hook(error)),
            // Standard error may be closed, or full.
            None => _ = writeln!(io::stderr(), "foreword: {}: {error}", self.dir.path.display()),
        }
    }
}

impl State {
    /// A record that is there now.
    pub(crate) fn goal(&self, lsn: Lsn) -> Goal {
        Goal { lsn, generation: self.control.generation }
    }

    /// The unit that was just placed.
    pub(super) fn last_unit(&self, records: usize) -> Unit {
        let next = self.assembler.next_lsn();
        Unit { first: Lsn(next.0 - records as u64), last: self.goal(next.prev()) }
    }

    /// An LSN that was given out.
    pub(crate) fn appended(&self, lsn: Lsn) -> Result<Lsn> {
        let last = self.assembler.next_lsn().prev();
        if lsn > last { Err(Error::NotAppended { lsn, last }) } else { Ok(lsn) }
    }

    /// Whether records were cut off at the back since. What was cut was durable before: a cut waits for that, and for all that was appended.
    pub(super) fn is_cut(&self, goal: Goal) -> bool {
        self.control.generation != goal.generation
    }

    /// Whether a record is durable, or was when it was cut.
    pub(super) fn has_reached(&self, goal: Goal) -> bool {
        self.durable.lsn >= goal.lsn || self.is_cut(goal)
    }

    /// Fails the log; whether it had not failed yet.
    pub(super) fn fail(&mut self, error: &Error) -> bool {
        if bug::is(Bug::ForgetFailure) {
            return false;
        }
        self.flights.clear();
        let first = self.failed.is_none();
        if first {
            self.failed = Some(error.clone().poison());
        }
        first
    }

    pub(crate) fn usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Whether a flight is in the air: then no committer leads another. (Two groups at once were slower for few, and about as fast for many, where it was measured.)
    pub(crate) fn is_aloft(&self) -> bool {
        self.flying() > 0
    }

    /// Whether there are flights that do not count yet.
    pub(crate) fn is_flying(&self) -> bool {
        !self.flights.is_empty()
    }

    /// How many flights have not landed.
    pub(super) fn flying(&self) -> usize {
        self.flights.iter().filter(|f| !f.landed).count()
    }

    /// Whether the background thread should sync now, for futures that wait or because the policy says so.
    pub(crate) fn wants_sync(&self) -> bool {
        let futures = self.wakers.last_key_value().is_some_and(|((lsn, _), _)| *lsn > self.launched_synced);
        self.failed.is_none() && (futures || self.sync_due) && !self.is_aloft()
    }

    /// Whether the background thread should write what has gathered.
    pub(crate) fn wants_write(&self) -> bool {
        self.failed.is_none() && self.write_due && !self.is_aloft()
    }

    /// Whether anything appended is not durable, nor on its way.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.failed.is_none() && self.launched_synced < self.assembler.next_lsn().prev()
    }

    /// Whether more is durable than the log says.
    pub(crate) fn needs_promise(&self) -> bool {
        self.durable.position > self.promised && self.durable.position != self.idle_end && self.failed.is_none()
    }

    /// A number that changes with each flush.
    pub(crate) fn activity(&self) -> u64 {
        self.next_flight
    }

    /// Whether a reader that has come to an end is to read again; `Some(false)`: the log is closed.
    pub(super) fn news(&self, end: End) -> Result<Option<bool>> {
        if self.durable.lsn > end.lsn || self.control.generation != end.generation {
            return Ok(Some(true));
        }
        match &self.failed {
            Some(Error::Closed) => Ok(Some(false)),
            Some(error) => Err(error.clone()),
            None => Ok(None),
        }
    }

    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }
}
