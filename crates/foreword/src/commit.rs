//! The commit path: how records get their place, and how groups of them get to the disk.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::assemble::{Assembler, NeedSegments, Placed, Urgency};
use crate::background::Tasks;
use crate::bug::{self, Bug};
use crate::close::Ending;
use crate::copying::Copier;
use crate::disk::Access;
use crate::error::Damage;
use crate::format::{self, Control, Kind, LogId, Position, Promise};
use crate::hold::Clock;
use crate::pace::Pace;
use crate::payload::Payload;
use crate::reader::{Chain, End, Source, Tails};
use crate::recent::{Places, Recent};
use crate::remove::Dropped;
use crate::reserve::Keeping;
use crate::runtime::Lane;
use crate::segment::{Dir, Segment, now_micros};
use crate::stats::Counters;
use crate::strangers::{self, AtWork};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Event, Mutex, MutexGuard, PoisonError, RwLock, ThreadId, TryLockError, WaitWord, deadline, thread, yield_now};
use crate::{Error, Lsn, Options, Result};

/// Whole frames are written, unsynced, when so many bytes of them have gathered.
const WRITE_AT: usize = 1 << 20;
/// Threads that write so at once: the background one, and an appender that is faster than it.
const WRITERS: usize = 2;
/// When more segments than this are written and not synced, the next flight syncs them, whatever the policy: each keeps a handle or two until then.
const DIRTY_MAX: usize = 16;
/// So many frames are written in one call.
const BUFS_MAX: usize = 64;
/// As many as [`Slots`] has bits.
pub(crate) const SLOTS: usize = u16::BITS as usize;
/// So often the lock is tried by those who do not wait for it: some microseconds.
const LOCK_TRIES: usize = 100;

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
    id: u64,
    started: Instant,
    /// How many committers there were when it began.
    waiting: u32,
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

/// On how many processors committers may take turns; asked once, when it first matters: that takes 0.1 ms. Where this thread may use fewer than the process
/// sees (a quota would be burnt by it, a pinned thread has no others to yield to), on more than there are.
fn processors() -> usize {
    static PROCESSORS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *PROCESSORS.get_or_init(|| match std::thread::available_parallelism() {
        Ok(usable) if seen_processors().is_none_or(|seen| seen == usable.get()) => usable.get(),
        _ => usize::MAX,
    })
}

/// Those that the process may run on, quota or not.
fn seen_processors() -> Option<usize> {
    #[cfg(target_os = "linux")]
    return Some(
        rustix::thread::sched_getaffinity(rustix::thread::Pid::from_raw(std::process::id() as i32)).ok()?.count() as usize
    );
    #[cfg(not(target_os = "linux"))]
    None
}

/// Whether committers that wait take turns. Shuttle, which knows no time, explores both.
fn turns_pay(state: &State) -> bool {
    let pay = state.pace.takes_turns(processors);
    #[cfg(shuttle)]
    let pay = pay || shuttle::rand::Rng::r#gen(&mut shuttle::rand::thread_rng());
    pay
}

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

    fn lock_if_free(&self) -> Option<Guard<'_>> {
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

    /// Appends a unit, waiting for room if there is none. The guard is held still, so that who wants to wait for it misses nothing.
    #[inline]
    pub(crate) fn append(&self, unit: Payload<'_>, urgency: Urgency) -> Result<(Guard<'_>, Unit)> {
        self.check_unit(unit)?;
        let mut state = self.open_state()?;
        loop {
            while state.cutting {
                self.dir.check_process()?;
                if AtWork::is_on(self) || state.changing == Some(thread::current().id()) {
                    return Err(Error::Busy);
                }
                state = self.wait_changed(state);
                state.usable()?;
            }
            match self.place(&mut state, unit, urgency) {
                Ok(copier) => {
                    let appended = state.last_unit(unit.count());
                    return Ok((self.copy(state, unit, copier), appended));
                }
                Err(NeedSegments(need)) => state = self.obtain(state, need, urgency)?,
            }
        }
    }

    /// Appends a unit, or says [`Error::Busy`] if that has to wait.
    pub(crate) fn try_append(&self, unit: Payload<'_>) -> Result<(Guard<'_>, Unit)> {
        self.check_unit(unit)?;
        let mut state = self.try_lock().ok_or(Error::Busy)?;
        state.usable()?;
        if state.cutting || state.assembler.placed_bytes() >= self.options.buffer_bytes {
            return Err(Error::Busy);
        }
        match self.place(&mut state, unit, Urgency::Ordinary) {
            Ok(copier) => {
                let appended = state.last_unit(unit.count());
                Ok((self.copy(state, unit, copier), appended))
            }
            Err(NeedSegments(need)) => {
                state.wanted = need;
                self.kick(Lane::Prepare);
                Err(state.no_space.clone().unwrap_or(Error::Busy))
            }
        }
    }

    /// The lock, if it is free at once, or almost: it is held for microseconds.
    fn try_lock(&self) -> Option<Guard<'_>> {
        (0..LOCK_TRIES).find_map(|_| {
            let state = self.lock_if_free();
            if state.is_none() {
                std::hint::spin_loop();
            }
            state
        })
    }

    /// Whether a unit may be appended.
    #[inline]
    fn check_unit(&self, unit: Payload<'_>) -> Result<()> {
        let framed = if unit.count() > 1 { unit.framed() } else { unit.bytes() };
        if framed > self.options.record_bytes_max {
            return Err(Error::TooLarge { bytes: framed, max: self.options.record_bytes_max });
        }
        if unit.count() == 0 {
            return Err(Error::Invalid { what: "batch", why: "it has no records".into() });
        }
        Ok(())
    }

    /// Gives a unit its place and LSNs, and counts it.
    #[inline]
    fn place(&self, state: &mut State, unit: Payload<'_>, urgency: Urgency) -> Result<Option<Box<Copier>>, NeedSegments> {
        let State { assembler, spares, control, .. } = state;
        let epoch = assembler.segment().epoch();
        let copier = assembler.place_unit(unit, urgency, spares, control)?;
        if state.assembler.segment().epoch() != epoch {
            self.rotated(state);
            state.wanted = 0;
        }
        state.records += unit.count() as u64;
        state.record_bytes += unit.bytes();
        let policy = &self.options.sync;
        if policy.records.is_some_and(|n| state.records - state.policy_records >= n)
            || policy.bytes.is_some_and(|n| state.record_bytes - state.policy_bytes >= n)
        {
            state.sync_due = true;
            self.kick(Lane::Sync);
        }
        if state.idle && policy.interval.is_some() {
            state.idle = false;
            self.kick(Lane::Sync);
        }
        Ok(copier)
    }

    /// Copies what is large, without the lock.
    #[inline]
    fn copy<'a>(&'a self, state: Guard<'a>, unit: Payload<'_>, copier: Option<Box<Copier>>) -> Guard<'a> {
        let Some(copier) = copier else { return state };
        drop(state);
        copier.copy(unit);
        self.lock()
    }

    /// After an append that nobody waits for: sees to it that what has gathered is written, if it is much, and that the next segment is prepared. If `at_once`,
    /// the log's thread writes, and this one only waits where the buffers are full.
    pub(crate) fn settle<'a>(&'a self, mut state: Guard<'a>, at_once: bool) -> Result<()> {
        if state.wants_spare() {
            // (Where somebody waits, each flight that lands sees to it.)
            self.kick(Lane::Prepare);
        }
        while state.assembler.placed_bytes() >= WRITE_AT {
            self.dir.check_process()?;
            if let Some(error) = &state.failed {
                return Err(error.clone()); // (While a large record was copied.)
            }
            let flying = state.flying();
            let helps = !(at_once && self.options.background);
            if self.options.background && flying == 0 {
                // While the thread writes, this one goes on.
                if !std::mem::replace(&mut state.write_due, true) {
                    self.kick(Lane::Sync);
                }
            } else if helps && (flying == 0 || (flying < WRITERS && state.assembler.placed_bytes() >= 2 * WRITE_AT)) {
                // There is no thread, or it does not keep up: two are faster.
                drop(self.fly(state, false));
                break;
            }
            // (Who is at work for the log cannot wait for room: the flight that makes it may be its own.)
            if state.assembler.placed_bytes() < self.options.buffer_bytes || AtWork::is_on(self) {
                break;
            }
            state = self.wait_changed(state);
            state.usable()?;
        }
        Ok(())
    }

    /// After a [`try_append`](Shared::try_append): as `settle`, but waits for nothing.
    pub(crate) fn settle_later(&self, mut state: Guard<'_>) {
        let full = state.assembler.placed_bytes() >= WRITE_AT;
        if full && !std::mem::replace(&mut state.write_due, true) {
            self.kick(Lane::Sync);
        }
        if state.wants_spare() {
            self.kick(Lane::Prepare);
        }
    }

    /// Returns when everything up to a record is written, or durable.
    pub(crate) fn reach<'a>(&'a self, mut state: Guard<'a>, goal: Goal, sync: bool) -> Result<()> {
        self.dir.check_process()?;
        let lsn = goal.lsn;
        let (mut joined, mut awake) = (false, sync);
        loop {
            if state.is_cut(goal) || lsn <= if sync { state.durable.lsn } else { state.written } {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if sync && !std::mem::replace(&mut joined, true) {
                self.arrived.fetch_add(1, Ordering::Relaxed);
            }
            let launched = if sync { state.launched_synced } else { state.launched };
            if launched < lsn && !state.is_aloft() {
                let complete = !sync || self.arrived.load(Ordering::Relaxed) >= state.pace.share();
                if complete || state.gathering.is_none() {
                    // Who completes the group leads it: it has the processor, and the one that began to gather may have to wait for it.
                    state = if complete { self.fly(state, sync) } else { self.gather(state) };
                    continue;
                }
            }
            // Asleep on the flight that covers the record, or on the next, which will; or awake, if it is to be.
            let covering = state.flights.iter().find(|f| f.reach.lsn >= lsn && (f.sync || !sync));
            let slot = &self.slots[covering.map_or(state.next_flight, |f| f.id) as usize % SLOTS];
            if awake && turns_pay(&state) {
                awake = self.take_turns(state, slot);
            } else {
                let enlisted = slot.enlist();
                drop(state);
                slot.wait(enlisted);
            }
            if sync && self.durable.load(Ordering::Acquire) >= lsn.0 {
                return Ok(());
            }
            state = self.lock();
        }
    }

    /// Yields the processor to other committers, again and again, until the slot's word changes. Whether it makes sense to go on so: if not, it is time to sleep.
    fn take_turns(&self, state: Guard<'_>, slot: &WaitWord) -> bool {
        let turn = slot.turn();
        let [round, limit] = state.pace.turns().map(Duration::from_nanos);
        drop(state);
        let (started, mut last) = (Instant::now(), Duration::ZERO);
        while slot.turn() == turn {
            yield_now();
            let now = started.elapsed();
            if now > last + round || now > limit {
                self.lock().pace.crowded_out();
                return false;
            }
            last = now;
        }
        true
    }

    /// Waits a moment for those who are about to commit, and flushes for all, unless one of them does.
    fn gather<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let id = self.syncs.load(Ordering::Relaxed);
        let waiting = self.arrived.load(Ordering::Relaxed);
        let patience = Duration::from_nanos(state.pace.patience());
        let started = Instant::now();
        state.gathering = Some(Gathering { id, started, waiting });
        drop(state);
        let (mut waiting, mut waited, mut last) = (waiting, Duration::ZERO, Duration::ZERO);
        while self.syncs.load(Ordering::Relaxed) == id && waited < last + patience && waited < 2 * patience {
            // They need the processor more than this thread does.
            yield_now();
            waited = started.elapsed();
            let now = self.arrived.load(Ordering::Relaxed);
            if now > waiting {
                (waiting, last) = (now, waited);
            }
        }
        let mut state = self.lock();
        if state.gathering.as_ref().is_none_or(|g| g.id != id) {
            return state;
        }
        // It leads, even if something else made its own record durable meanwhile: those who came since sleep until somebody does.
        if state.has_unsynced() && !state.is_aloft() {
            return self.fly(state, true);
        }
        // A flight is under way: when it lands it wakes the next to lead.
        state.gathering = None;
        state
    }

    /// Flushes what has gathered: encodes, writes, and syncs if asked. The lock is let go meanwhile.
    pub(crate) fn fly<'a>(&'a self, mut state: Guard<'a>, sync: bool) -> Guard<'a> {
        if state.failed.is_some() {
            return state; // It writes nothing more: if it was closed, the files may be another's.
        }
        // A file may be closed only when it is synced: an inode that is evicted forgets that a write failed.
        let sync = sync || state.dirty.len() > DIRTY_MAX;
        let mut frames = state.assembler.take();
        state.write_due = false;
        // Flights leave one after the other, and so their times rise along the log.
        let now = now_micros();
        let reach = state.assembler.end();
        let promise = if bug::is(Bug::PromiseEarly) { reach } else { state.durable };
        let id = state.next_flight;
        state.next_flight += 1;
        state.aloft += 1;
        let records = reach.lsn.0.saturating_sub(state.launched_synced.0);
        let members = if sync { self.arrived.swap(0, Ordering::Relaxed) } else { 0 };
        if sync {
            if let Some(Gathering { started, waiting, .. }) = state.gathering.take() {
                state.pace.waited(members.saturating_sub(waiting), started.elapsed().as_nanos() as u64, members);
            }
            state.pace.launched();
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        let started = Instant::now();
        if sync {
            state.synced_at = started;
        }
        let reopens = frames.front().is_some_and(|f| f.again);
        let behind = state.flights.iter().any(|f| f.reopens && !f.landed) && !bug::is(Bug::OvertakeReopening);
        state.flights.push_back(Flight { id, reach, sync, landed: false, reopens, started });
        state.launched = reach.lsn;
        state.promised = state.promised.max(if frames.is_empty() { Position::default() } else { promise.position });
        // Whoever syncs takes over what was written before without a sync.
        let mut dirty = if sync { std::mem::take(&mut state.dirty) } else { Vec::new() };
        if bug::is(Bug::ForgetDirty) {
            dirty.clear();
        }
        if sync {
            state.launched_synced = reach.lsn;
            state.sync_due = false;
            (state.policy_records, state.policy_bytes) = (state.records, state.record_bytes);
        } else {
            for frame in &frames {
                if !state.dirty.iter().any(|s| Arc::ptr_eq(s, &frame.segment)) {
                    state.dirty.push(frame.segment.clone());
                }
            }
        }
        drop(state);
        let work = AtWork::on(self);
        for link in frames.iter().filter(|frame| frame.header.kind == Kind::Link) {
            crate::trace::debug!(epoch = link.segment.epoch(), first_lsn = link.header.first_lsn().0, "rotated");
        }
        // A flight that fails, even by a panic, poisons the log (hazard 26): its followers get an error, and do not hang.
        let write_out = || {
            // Before, so that what another writer has taken over is not written to; and after: whoever has taken the lock since has seen what was
            // written, or is seen here.
            if behind {
                self.await_reopening(id)?;
            }
            self.dir.check_writer()?;
            self.write_out(frames.make_contiguous(), (promise, now), sync, &mut dirty, id)?;
            if sync { self.dir.check_writer() } else { Ok(()) }
        };
        let flown = strangers::attempt("flush", &self.dir.path, write_out);
        // The last handle of a segment closes its file: not under the lock.
        dirty.clear();
        let took = started.elapsed();
        if sync && flown.is_ok() {
            self.counters.flushed(took, records);
            if took > Duration::from_secs(1) {
                crate::trace::warn!(millis = took.as_millis() as u64, records, "slow flush");
            }
        }
        if flown.is_ok() {
            self.recent.keep(&mut frames);
        }
        drop(work);
        let mut state = self.lock();
        if sync {
            state.pace.landed(took.as_nanos() as u64, members, self.arrived.load(Ordering::Relaxed));
        }
        if state.dirty.capacity() == 0 {
            state.dirty = dirty; // Its memory serves again.
        }
        self.land(state, id, flown, frames)
    }

    /// What lies behind CLOSED again and its MARK is not written before they are durable, by whatever flight.
    fn await_reopening(&self, id: u64) -> Result<()> {
        let mut state = self.lock();
        while state.flights.iter().any(|f| f.id < id && f.reopens && !f.landed) {
            state = self.wait_changed(state);
        }
        state.failed.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn write_out(
        &self,
        frames: &mut [Placed],
        (promise, now): (Promise, u64),
        sync: bool,
        dirty: &mut Vec<Arc<Segment>>,
        id: u64,
    ) -> Result<()> {
        for frame in frames.iter_mut() {
            frame.await_bytes()?;
            frame.finish(promise, now);
        }
        let sync = sync && !bug::is(Bug::AckBeforeFlush);
        // A sync of these bytes alone is enough if nothing else waits for one.
        let durable = sync && dirty.is_empty();
        let (mut rest, mut written) = (&frames[..], 0);
        if let Some(reopening) = reopening(rest) {
            // CLOSED again and the MARK behind it are durable before what follows.
            written += write_neighbours(&rest[..reopening], true)?.1;
            rest = &rest[reopening..];
        }
        while let Some(first) = rest.first() {
            let (run, bytes) = write_neighbours(rest, durable)?;
            written += bytes;
            if sync && !durable && !dirty.iter().any(|s| Arc::ptr_eq(s, &first.segment)) {
                dirty.push(first.segment.clone());
            }
            rest = &rest[run..];
        }
        self.counters.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        if sync && !durable {
            // Their writes must be done before they are synced.
            let mut state = self.lock();
            while state.flights.iter().any(|f| f.id < id && !f.sync && !f.landed) && state.failed.is_none() {
                state = self.wait_changed(state);
            }
            drop(state);
            for segment in dirty.drain(..) {
                segment.sync()?;
            }
        }
        Ok(())
    }

    /// A flight has landed: all that have, in order, count; who waited for them is woken.
    fn land<'a>(&'a self, mut state: Guard<'a>, id: u64, flown: Result<()>, mut frames: VecDeque<Placed>) -> Guard<'a> {
        state.aloft -= 1;
        state.assembler.reclaim(&mut frames);
        let failed = flown.err().filter(|error| state.fail(error));
        if let Some(flight) = state.flights.iter_mut().find(|f| f.id == id) {
            flight.landed = true;
        }
        let mut woken = Slots::default();
        while state.failed.is_none() && state.flights.front().is_some_and(|f| f.landed) {
            let Some(flight) = state.flights.pop_front() else { break };
            state.written = state.written.max(flight.reach.lsn);
            if flight.sync {
                state.durable = flight.reach;
                self.durable.store(flight.reach.lsn.0, Ordering::Release);
            }
            woken.insert(flight.id as usize % SLOTS);
        }
        if state.failed.is_some() {
            (0..SLOTS).for_each(|slot| woken.insert(slot));
        }
        let mut wakers = std::mem::take(&mut state.wakers);
        if state.failed.is_none() && !wakers.is_empty() {
            state.wakers = wakers.split_off(&(state.durable.lsn.next(), 0));
        }
        let mut released = Slots::default();
        woken.filter(|&slot| self.slots[slot].release()).for_each(|slot| released.insert(slot));
        let next = self.next_leader(&state);
        self.changed.notify_all();
        let news = state.asleep && self.has_news(&state);
        if news || state.idle || state.write_due || !state.wakers.is_empty() {
            state.idle = false;
            self.kick(Lane::Sync);
        }
        if state.wants_spare() {
            self.kick(Lane::Prepare);
        }
        if std::mem::take(&mut state.quiet) {
            self.kick(Lane::Publish);
        }
        drop(state);
        if !bug::is(Bug::LostWakeup) {
            if let Some(slot) = next {
                slot.wake_one();
            }
            released.for_each(|slot| self.slots[slot].wake_all());
            if !wakers.is_empty() {
                strangers::wake(wakers.into_values());
            }
            self.tails.wake();
        }
        if let Some(error) = failed {
            self.tell_poisoned(&error);
        }
        frames.clear();
        let mut state = self.lock();
        state.assembler.reclaim_list(frames);
        if !self.options.background && self.has_news(&state) { self.tell(state) } else { state }
    }

    /// If somebody waits for a flight that nobody leads: where they sleep. One of them is to be woken. (All who take turns there are told; the first of them to get the lock leads.)
    fn next_leader(&self, state: &State) -> Option<&WaitWord> {
        let waiting = !state.assembler.is_empty() || state.launched_synced < state.assembler.next_lsn().prev();
        let slot = (waiting && state.gathering.is_none()).then(|| &self.slots[state.next_flight as usize % SLOTS])?;
        slot.call_one().then_some(slot)
    }

    /// Wakes all that sleep on a flight; the lock is held.
    pub(crate) fn wake_sleepers(&self) {
        self.slots.iter().filter(|slot| slot.release()).for_each(WaitWord::wake_all);
    }

    /// Fails the log outside of a flight, and tells everyone.
    pub(crate) fn poison(&self, mut state: Guard<'_>, error: Error) {
        let failed = state.fail(&error);
        self.kick_all();
        self.wake_everyone(state);
        if failed {
            self.tell_poisoned(&error);
        }
    }

    /// All that wait for anything look again.
    pub(crate) fn wake_everyone(&self, mut state: Guard<'_>) {
        let wakers = std::mem::take(&mut state.wakers);
        self.wake_sleepers();
        self.changed.notify_all();
        drop(state);
        strangers::wake(wakers.into_values());
        self.tails.wake();
    }

    fn tell_poisoned(&self, error: &Error) {
        crate::trace::error!(error = %error, dir = %self.dir.path.display(), "the log is poisoned");
    }

    pub(crate) fn wait_changed<'a>(&'a self, state: Guard<'a>) -> Guard<'a> {
        self.changed.wait(state)
    }

    /// The same until a time, if there is one; `None` when it is over.
    fn wait_changed_until<'a>(&'a self, state: Guard<'a>, deadline: Option<Instant>) -> Option<Guard<'a>> {
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => None,
            Some(left) => Some(self.changed.wait_timeout(state, left)),
            None => Some(self.wait_changed(state)),
        }
    }

    /// Waits until a record that is there is durable, or was when it was cut (`true`), the time is over, or the log is closed.
    pub(crate) fn wait_durable(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        self.dir.check_process()?;
        self.may_wait()?;
        let deadline = deadline(timeout);
        let mut state = self.lock();
        let goal = state.goal(state.appended(lsn)?);
        while !state.has_reached(goal) {
            match &state.failed {
                Some(Error::Closed) => return Ok(false),
                Some(error) => return Err(error.clone()),
                None => {}
            }
            match self.wait_changed_until(state, deadline) {
                Some(changed) => state = changed,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// For a [`Commit`]: whether its record is durable; if not, the waker is kept, under an id by which it is found again.
    pub(crate) fn poll_durable(&self, goal: Goal, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<()>> {
        let lsn = goal.lsn;
        if self.durable.load(Ordering::Acquire) >= lsn.0 {
            return Poll::Ready(Ok(()));
        }
        self.dir.check_process()?;
        // To clone it runs its code. (What is declared before the guard is dropped after it.)
        let waker = waker.clone();
        let before;
        let mut state = self.lock();
        if state.has_reached(goal) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let id = *id.get_or_insert_with(|| {
            state.waker_ids += 1;
            state.waker_ids
        });
        before = state.wakers.insert((lsn, id), waker);
        // Somebody must lead its flight: the background thread, unless a committer comes first.
        if state.launched_synced < lsn {
            state.idle = false;
            self.kick(Lane::Sync);
        }
        drop(state);
        strangers::discard(before);
        Poll::Pending
    }

    /// A [`Commit`] that is not waited for any more.
    pub(crate) fn forget(&self, lsn: Lsn, id: u64) {
        let Some(mut state) = self.peek() else { return };
        let forgotten = state.wakers.remove(&(lsn, id));
        if bug::is(Bug::ForgetOthers) {
            state.wakers.retain(|(other, _), _| *other != lsn);
        }
        drop(state);
        strangers::discard(forgotten);
    }
}

/// Some of the slots, a bit each.
#[derive(Default)]
struct Slots(u16);

impl Slots {
    fn insert(&mut self, slot: usize) {
        self.0 |= 1 << slot;
    }
}

impl Iterator for Slots {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (slot < SLOTS).then_some(slot)
    }
}

/// How many frames at the beginning are what a log goes on with that was closed: CLOSED again, and the MARK behind it.
fn reopening(frames: &[Placed]) -> Option<usize> {
    let again = frames.first()?.again;
    let marks = |frame: &Placed| frame.header.kind == format::Kind::Mark && Arc::ptr_eq(&frame.segment, &frames[0].segment);
    again.then(|| frames.iter().take(2).take_while(|frame| marks(frame)).count())
}

/// Writes the first frame and those that follow right behind it, in one call: how many frames, and how many bytes.
fn write_neighbours(frames: &[Placed], durable: bool) -> Result<(usize, usize)> {
    let Some(first) = frames.first() else { return Ok((0, 0)) };
    let mut bufs = [io::IoSlice::new(&[]); BUFS_MAX];
    let (mut run, mut end) = (0, first.block);
    for (buf, frame) in bufs.iter_mut().zip(frames) {
        if frame.block != end || !Arc::ptr_eq(&frame.segment, &first.segment) {
            break;
        }
        *buf = io::IoSlice::new(frame.bytes());
        end += frame.header.blocks();
        run += 1;
    }
    first.segment.write(first.block, &mut bufs[..run], durable)?;
    Ok((run, (end - first.block) as usize * format::BLOCK))
}

impl State {
    /// A record that is there now.
    pub(crate) fn goal(&self, lsn: Lsn) -> Goal {
        Goal { lsn, generation: self.control.generation }
    }

    /// The unit that was just placed.
    fn last_unit(&self, records: usize) -> Unit {
        let next = self.assembler.next_lsn();
        Unit { first: Lsn(next.0 - records as u64), last: self.goal(next.prev()) }
    }

    /// An LSN that was given out.
    pub(crate) fn appended(&self, lsn: Lsn) -> Result<Lsn> {
        let last = self.assembler.next_lsn().prev();
        if lsn > last { Err(Error::NotAppended { lsn, last }) } else { Ok(lsn) }
    }

    /// Whether records were cut off at the back since. What was cut was durable before: a cut waits for that, and for all that was appended.
    fn is_cut(&self, goal: Goal) -> bool {
        self.control.generation != goal.generation
    }

    /// Whether a record is durable, or was when it was cut.
    fn has_reached(&self, goal: Goal) -> bool {
        self.durable.lsn >= goal.lsn || self.is_cut(goal)
    }

    /// Fails the log; whether it had not failed yet.
    fn fail(&mut self, error: &Error) -> bool {
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
    fn flying(&self) -> usize {
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
    fn news(&self, end: End) -> Result<Option<bool>> {
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

impl Source for Shared {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.chain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(Lsn(self.durable.load(Ordering::Acquire)))
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn attend(&self, at: &Arc<std::sync::atomic::AtomicU64>) {
        self.tails.attend(at);
        self.kick(Lane::Publish);
    }

    fn wait(&self, end: End, deadline: Option<Instant>) -> Result<bool> {
        self.dir.check_process()?;
        self.may_wait()?;
        let mut state = self.lock();
        loop {
            if let Some(news) = state.news(end)? {
                return Ok(news);
            }
            match self.wait_changed_until(state, deadline) {
                Some(changed) => state = changed,
                None => return Ok(false),
            }
        }
    }

    fn poll(self: Arc<Self>, end: End, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<bool>> {
        // Kept before it is looked whether it is needed: what changes after that wakes it.
        let waker = waker.clone();
        let before = self.tails.wakers().keep(id, (), waker);
        strangers::discard(before);
        let news = self.lock().news(end);
        news.transpose().map_or(Poll::Pending, Poll::Ready)
    }

    fn forget(&self, id: u64) {
        let forgotten = self.tails.wakers().forget(id);
        strangers::discard(forgotten);
    }

    fn recent(&self) -> Option<&Recent> {
        Some(&self.recent)
    }

    fn places(&self) -> Option<&Places> {
        Some(&self.places)
    }

    /// When the log is closed, another opening may have dropped or recycled the file since: only what still bears the log's evidence is damage.
    fn judge(&self, error: Error) -> Error {
        if !self.lock().closed {
            return error;
        }
        let path = match &error {
            Error::Corruption(damage) => &damage.path,
            Error::Io { path, .. } => path,
            _ => return error,
        };
        let epoch = self.chain().entries.iter().map(|e| e.epoch).find(|&epoch| self.dir.segment(epoch) == *path);
        let there = |epoch| matches!(self.dir.open_segment(Some(self.log), epoch, Access::Read), Ok(Ok(_)));
        if epoch.is_some_and(there) { error } else { Error::Closed }
    }
}
