//! The log, open for writing: appends, the order in which they are flushed, and who waits for what.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::assemble::{Assembler, CHECKPOINT_BLOCKS, NeedSegments, Placed, Rotation};
use crate::background::Background;
use crate::disk::DiskFile;
use crate::error::Damage;
use crate::fork::{self, Branch};
use crate::format::{self, CONTINUED, Control, HOLD_NAME_MAX, HOLDS_MAX, Kind, LogId, Position, Promise};
use crate::open::{self, Opened};
use crate::reader::{Chain, Iter, Reader, Source, frame_at};
use crate::recovery::Entry;
use crate::segment::{Dir, Segment};
use crate::stats::{Counters, RecoveryReport, Stats};
use crate::ticket::Commit;
use crate::{Error, Lsn, Options, Result};

/// Flushes under way at once. What a later one covers is acknowledged only after the earlier; the promises make holes harmless.
const FLIGHTS_MAX: usize = 2;
/// Whole frames are written, unsynced, when so many bytes of them have gathered.
const WRITE_AT: usize = 1 << 20;
/// Recycled segments kept ready; more are removed.
const SPARES_MAX: usize = 2;
const SLOTS: usize = 16;

/// How safe a record is to be before a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In this process's memory: it dies with the process. The log writes it soon: when a buffer is full, or by the
    /// [`SyncPolicy`](crate::SyncPolicy).
    Buffered,
    /// With the operating system: survives the process (a panic, `kill -9`), not the machine.
    Written,
    /// On the disk: survives the machine (power, kernel), as far as the disk keeps its word.
    Synced,
}

/// A write-ahead log, open for writing.
///
/// All methods take `&self` and may be called from any number of threads. Dropping a log syncs and closes it, but an error of that last sync
/// only reaches [`Options::on_error`]; [`close`](Log::close) returns it.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// use foreword::{Log, Lsn};
/// let log = Log::open(dir.path())?;
/// let lsn = log.commit(b"durable when this returns")?;
/// assert_eq!((lsn, log.durable_lsn()), (Lsn(1), Lsn(1)));
/// for record in log.iter(Lsn::FIRST) {
///     println!("{:?}", record?.data);
/// }
/// log.close()?;
/// # Ok(()) }
/// ```
pub struct Log {
    shared: Arc<Shared>,
    background: Option<Background>,
    /// Held for the log's life.
    lock: Option<Box<dyn DiskFile>>,
    report: RecoveryReport,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared.dir.path).field("id", &self.shared.log).finish_non_exhaustive()
    }
}

/// What the log, its background threads, its readers and its tickets share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Dir,
    pub(crate) log: LogId,
    pub(crate) options: Options,
    state: Mutex<State>,
    /// Signalled when a flight lands, a segment is ready, or the log ends.
    changed: Condvar,
    /// Wakes the background threads.
    pub(crate) kick: Condvar,
    /// The last durable LSN, for those who ask without the lock.
    durable: AtomicU64,
    /// Waiters for flight `id` sleep on slot `id % SLOTS`.
    slots: [AtomicU32; SLOTS],
    chain: RwLock<Arc<Chain>>,
    pub(crate) counters: Counters,
}

/// One group on its way to the disk.
#[derive(Debug)]
struct Flight {
    id: u64,
    /// What is reached when it and all before it have landed.
    reach: Promise,
    sync: bool,
    landed: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    assembler: Assembler,
    spares: VecDeque<Arc<Segment>>,
    /// Somebody is preparing a segment.
    preparing: bool,
    control: Control,
    flights: VecDeque<Flight>,
    next_flight: u64,
    /// What flights that are launched, and those with a sync, will reach.
    launched: Lsn,
    launched_synced: Lsn,
    written: Lsn,
    durable: Promise,
    /// The highest promise that is in the log.
    promised: Position,
    /// Behind the last MARK that was written because the log had fallen idle: it needs no promise itself.
    idle_end: Position,
    /// Segments with written bytes that no launched flight syncs.
    dirty: Vec<Arc<Segment>>,
    failed: Option<Error>,
    closed: bool,
    cuts: u64,
    wakers: BTreeMap<(Lsn, u64), Waker>,
    waker_ids: u64,
    tail_wakers: Vec<Waker>,
    records: u64,
    record_bytes: u64,
    /// Counts of the last sync that the policy asked for.
    policy_records: u64,
    policy_bytes: u64,
    /// The policy is due: the background thread syncs.
    pub(crate) sync_due: bool,
    /// The background thread sleeps until it is kicked.
    pub(crate) idle: bool,
    pub(crate) stop: bool,
}

pub(crate) type Guard<'a> = MutexGuard<'a, State>;

impl Log {
    /// Opens the log in a directory with the default [`Options`], making it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Log> {
        Options::new().open(dir)
    }

    /// How a log may be opened; the same as [`Options::new`].
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    pub(crate) fn open_with(options: Options, dir: &Path) -> Result<Log> {
        let dir = Dir { disk: options.disk.clone(), path: dir.to_owned() };
        let Opened { lock, log, assembler, spares, entries, control, durable, report } = open::open(&options, &dir)?;
        let (start, waivers) = (control.start, control.waivers.clone());
        let chain = Chain { log, entries, waivers, start, cuts: 0 };
        let state = State {
            assembler,
            spares,
            preparing: false,
            control,
            flights: VecDeque::new(),
            next_flight: 0,
            launched: durable.lsn,
            launched_synced: durable.lsn,
            written: durable.lsn,
            durable,
            promised: durable.position,
            idle_end: durable.position,
            dirty: Vec::new(),
            failed: None,
            closed: false,
            cuts: 0,
            wakers: BTreeMap::new(),
            waker_ids: 0,
            tail_wakers: Vec::new(),
            records: 0,
            record_bytes: 0,
            policy_records: 0,
            policy_bytes: 0,
            sync_due: false,
            idle: false,
            stop: false,
        };
        let shared = Arc::new(Shared {
            dir,
            log,
            options,
            state: Mutex::new(state),
            changed: Condvar::new(),
            kick: Condvar::new(),
            durable: AtomicU64::new(durable.lsn.0),
            slots: [const { AtomicU32::new(0) }; SLOTS],
            chain: RwLock::new(Arc::new(chain)),
            counters: Counters::default(),
        });
        let background = if shared.options.background { Some(Background::start(&shared)?) } else { None };
        Ok(Log { shared, background, lock: Some(lock), report })
    }

    /// The log's identity.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.shared.log
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir.path
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// Appends a record: it has its place and LSN, and is in memory ([`Durability::Buffered`]). Does not wait for the disk, unless the
    /// buffers are full ([`Options::buffer_bytes`]) or no segment is ready.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::NoSpace`]: nothing was appended, and the log goes on. [`Error::Poisoned`], [`Error::Closed`].
    pub fn append(&self, record: &[u8]) -> Result<Lsn> {
        let state = self.shared.append(&[record], false)?;
        let lsn = state.1;
        self.shared.settle(state.0)?;
        Ok(lsn)
    }

    /// Appends a record and returns when it is as safe as asked.
    ///
    /// # Errors
    /// As [`append`](Log::append). After any error but `TooLarge` and `NoSpace` the record may or may not be there after reopening.
    pub fn append_with(&self, record: &[u8], durability: Durability) -> Result<Lsn> {
        self.append_batch_with(&[record], durability)
    }

    /// Appends a record and returns when it is durable ([`Durability::Synced`]). Concurrent commits share one flush.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with).
    pub fn commit(&self, record: &[u8]) -> Result<Lsn> {
        self.append_batch_with(&[record], Durability::Synced)
    }

    /// Appends several records as one: after a crash all are there or none. The LSN of the first; the others follow. As
    /// [`append`](Log::append) otherwise.
    ///
    /// # Errors
    /// As [`append`](Log::append); [`Error::Invalid`] for an empty batch.
    pub fn append_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Lsn> {
        self.append_batch_with(records, Durability::Buffered)
    }

    /// Appends several records as one and returns when they are durable.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with); [`Error::Invalid`] for an empty batch.
    pub fn commit_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Lsn> {
        self.append_batch_with(records, Durability::Synced)
    }

    /// Appends several records as one and returns when they are as safe as asked.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with); [`Error::Invalid`] for an empty batch.
    pub fn append_batch_with<R: AsRef<[u8]>>(&self, records: &[R], durability: Durability) -> Result<Lsn> {
        let (state, first) = self.shared.append(records, false)?;
        let last = Lsn(first.0 + records.len() as u64 - 1);
        match durability {
            Durability::Buffered => self.shared.settle(state)?,
            Durability::Written => self.shared.reach(state, last, false)?,
            Durability::Synced => self.shared.reach(state, last, true)?,
        }
        Ok(first)
    }

    /// Appends a record and returns at once with a [`Commit`], a future that completes when the record is durable. Thousands may be in flight
    /// from one thread; dropping the future changes nothing for the record.
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn commit_async(&self, record: &[u8]) -> Result<Commit> {
        let (state, lsn) = self.shared.append(&[record], false)?;
        let cuts = state.cuts;
        self.shared.settle(state)?;
        Ok(Commit::new(self.shared.clone(), lsn, lsn, cuts))
    }

    /// As [`commit_async`](Log::commit_async), for a batch. It completes with the LSN of the first record.
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    pub fn commit_batch_async<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Commit> {
        let (state, first) = self.shared.append(records, false)?;
        let cuts = state.cuts;
        self.shared.settle(state)?;
        Ok(Commit::new(self.shared.clone(), first, Lsn(first.0 + records.len() as u64 - 1), cuts))
    }

    /// Commits a small record (up to some 7 KiB) for which room is kept in every segment, so that it succeeds on a full disk: a checkpoint, after which
    /// [`truncate_front`](Log::truncate_front) makes space.
    ///
    /// # Errors
    /// As [`commit`](Log::commit). [`Error::NoSpace`] only when the room was used up by earlier ones with no truncation between.
    pub fn commit_checkpoint(&self, record: &[u8]) -> Result<Lsn> {
        let max = format::payload_max(CHECKPOINT_BLOCKS) - 4;
        if record.len() > max {
            return Err(Error::TooLarge { bytes: record.len() as u64, max: max as u64 });
        }
        let (state, lsn) = self.shared.append(&[record], true)?;
        self.shared.reach(state, lsn, true)?;
        Ok(lsn)
    }

    /// Gives everything appended so far to the operating system ([`Durability::Written`]): the last LSN that this covers.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn write(&self) -> Result<Lsn> {
        let state = self.shared.open_state()?;
        let last = state.assembler.next_lsn().prev();
        self.shared.reach(state, last, false)?;
        Ok(last)
    }

    /// Makes everything appended so far durable: the last LSN that this covers.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn sync(&self) -> Result<Lsn> {
        let state = self.shared.open_state()?;
        let last = state.assembler.next_lsn().prev();
        self.shared.reach(state, last, true)?;
        Ok(last)
    }

    /// Makes everything up to a record durable; returns at once if it is.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`], [`Error::Closed`].
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        if self.durable_lsn() >= lsn {
            return Ok(());
        }
        let state = self.shared.open_state()?;
        let last = state.assembler.next_lsn().prev();
        if lsn > last {
            return Err(Error::NotAppended { lsn, last });
        }
        self.shared.reach(state, lsn, true)
    }

    /// Waits for a record to become durable by whatever makes it so (the [`SyncPolicy`](crate::SyncPolicy), or somebody's sync), without asking
    /// for a flush: for as long as it takes, or the time given. Whether it is durable: `false` when the time is over, or when the log was closed before it was.
    ///
    /// [`sync_to`](Log::sync_to) is for those who want it durable now.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`].
    pub fn wait_durable(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        let last = self.last_lsn();
        if lsn > last {
            return Err(Error::NotAppended { lsn, last });
        }
        self.shared.wait(lsn.prev(), timeout)
    }

    /// A future that completes when a record is durable.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`], [`Error::Closed`].
    pub fn durable(&self, lsn: Lsn) -> Result<Commit> {
        let state = self.shared.open_state()?;
        let last = state.assembler.next_lsn().prev();
        if lsn > last {
            return Err(Error::NotAppended { lsn, last });
        }
        Ok(Commit::new(self.shared.clone(), lsn, lsn, state.cuts))
    }

    /// The last LSN that is durable: it and all before it survive the machine. [`Lsn::ZERO`] if none is. Never waits.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// The last LSN that the operating system has: it and all before it survive the process.
    #[must_use]
    pub fn written_lsn(&self) -> Lsn {
        self.shared.lock().written
    }

    /// The last LSN that was given out. [`Lsn::ZERO`] if none was.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.shared.lock().assembler.next_lsn().prev()
    }

    /// The first LSN of the log: older records were dropped. It need not be there yet, in an empty log.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.shared.chain().start
    }

    /// A reader that stands before the first record.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader_at(Lsn::ZERO)
    }

    /// A reader that stands before a record, which need not be there yet. (Before the first, if that was dropped already.)
    #[must_use]
    pub fn reader_at(&self, lsn: Lsn) -> Reader {
        Reader::new(self.shared.clone(), lsn)
    }

    /// Iterates over the durable records from an LSN on.
    #[must_use]
    pub fn iter(&self, from: Lsn) -> Iter {
        Iter::forward(self.reader_at(from))
    }

    /// Iterates backward over the durable records, from an LSN (or the last, if it is not there yet) to the first.
    #[must_use]
    pub fn iter_back(&self, from: Lsn) -> Iter {
        Iter::backward(self.reader_at(from.next()))
    }

    /// One record, which must be durable. A [`Reader`] is better for many.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get(&self, lsn: Lsn) -> Result<Vec<u8>> {
        Ok(self.reader_at(lsn).get(lsn)?.data.to_vec())
    }

    /// Drops the records before an LSN, as far as no [hold](Log::hold) needs them: the LSN at which the log starts now. Durable when it
    /// returns. Segments with nothing else in them are recycled or removed. Works on a full disk.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if the LSN is more than one beyond the last; [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    pub fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        self.shared.truncate_front(before)
    }

    /// Cuts off the record with this LSN and all after it, as a Raft log does; their LSNs are given to what is appended next. Durable when it
    /// returns: everything before the cut is, too. Other calls wait meanwhile. Commits that were waiting for records that are cut succeed: they were durable.
    ///
    /// # Errors
    /// [`Error::Dropped`] if records before the cut are gone already; [`Error::NoSpace`]: nothing was cut; [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    pub fn truncate_back(&self, from: Lsn) -> Result<()> {
        self.shared.truncate_back(from)
    }

    /// Keeps records from an LSN on, whatever [`truncate_front`](Log::truncate_front) is told: for an archiver, a replica, a checkpoint. A hold has a
    /// name, by which it is moved and released, and lasts beyond this process. Durable when it returns. (It cannot bring back what was dropped.)
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is empty or longer than 64 bytes, or a 33rd hold; [`Error::Poisoned`], [`Error::Closed`], [`Error::NoSpace`].
    pub fn hold(&self, name: &str, lsn: Lsn) -> Result<()> {
        if name.is_empty() || name.len() > HOLD_NAME_MAX {
            return Err(Error::Invalid {
                what: "the hold's name",
                why: format!("1 to {HOLD_NAME_MAX} bytes, not {}", name.len()),
            });
        }
        let mut state = self.shared.open_state()?;
        if state.control.holds.len() >= HOLDS_MAX && !state.control.holds.contains_key(name) {
            return Err(Error::Invalid { what: "holds", why: format!("there are {HOLDS_MAX} already: release one") });
        }
        let before = state.control.holds.insert(name.to_owned(), lsn);
        if before == Some(lsn) {
            return Ok(());
        }
        self.shared.mark(state).inspect_err(|_| self.shared.restore_hold(name, before))
    }

    /// Releases a hold: whether there was one of that name. Durable when it returns.
    ///
    /// # Errors
    /// As [`hold`](Log::hold).
    pub fn release(&self, name: &str) -> Result<bool> {
        let mut state = self.shared.open_state()?;
        let Some(before) = state.control.holds.remove(name) else { return Ok(false) };
        self.shared.mark(state).inspect_err(|_| self.shared.restore_hold(name, Some(before)))?;
        Ok(true)
    }

    /// The holds and the LSNs they keep.
    #[must_use]
    pub fn holds(&self) -> BTreeMap<String, Lsn> {
        self.shared.lock().control.holds.clone()
    }

    /// Counters and histograms.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        Stats {
            records: state.records,
            record_bytes: state.record_bytes,
            segments: self.shared.chain().entries.len() as u64,
            segments_prepared: state.spares.len() as u64,
            start_lsn: state.control.start,
            appended_lsn: state.assembler.next_lsn().prev(),
            written_lsn: state.written,
            durable_lsn: state.durable.lsn,
            ..self.shared.counters.read()
        }
    }

    /// Stops the background work, syncs, marks the log as closed and gives the lock up: the error of that last sync is returned here. Readers go
    /// on reading; those that wait for more are told that there is none.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the log had failed, [`Error::Io`]. The log is closed all the same.
    pub fn close(mut self) -> Result<()> {
        self.shut()
    }

    fn shut(&mut self) -> Result<()> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        if let Some(background) = self.background.take() {
            background.stop(&self.shared);
        }
        let closed = self.shared.close();
        drop(lock);
        closed
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            self.shared.report(&error);
        }
    }
}

/// Poisons the log if a flight does not land (hazard 26): its followers get an error, and do not hang.
struct Landing<'a> {
    shared: &'a Shared,
    id: u64,
    done: bool,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if !self.done {
            let source = Arc::new(io::Error::other("a thread panicked while it was flushing"));
            let error = Error::Io { doing: "flush", path: self.shared.dir.path.clone(), source };
            let state = self.shared.lock();
            drop(self.shared.land(state, self.id, Err(error)));
        }
    }
}

impl Shared {
    /// The state, whoever panicked with it: nothing in it is left half changed by code that can panic.
    pub(crate) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_state(&self) -> Result<Guard<'_>> {
        let state = self.lock();
        state.usable()?;
        Ok(state)
    }

    /// Tells of an error that nobody waits for.
    pub(crate) fn report(&self, error: &Error) {
        crate::trace::error!(error = %error, dir = %self.dir.path.display(), "background error");
        match &self.options.on_error {
            Some(hook) => hook(error),
            None => eprintln!("foreword: {}: {error}", self.dir.path.display()),
        }
    }

    /// Places a unit. The guard is held still, so that who wants to wait for it misses nothing.
    fn append<R: AsRef<[u8]>>(&self, records: &[R], urgent: bool) -> Result<(Guard<'_>, Lsn)> {
        let bytes: u64 = records.iter().map(|r| r.as_ref().len() as u64).sum();
        let framed = if records.len() > 1 { bytes + 4 * records.len() as u64 } else { bytes };
        if framed > self.options.record_bytes_max {
            return Err(Error::TooLarge { bytes: framed, max: self.options.record_bytes_max });
        }
        if records.is_empty() {
            return Err(Error::Invalid { what: "batch", why: "it has no records".into() });
        }
        let mut state = self.open_state()?;
        let epoch = state.assembler.segment().epoch();
        let first = loop {
            let State { assembler, spares, control, .. } = &mut *state;
            match assembler.put(records, urgent, spares, control) {
                Ok(first) => break first,
                Err(NeedSegments(need)) => state = self.obtain(state, need)?,
            }
        };
        if state.assembler.segment().epoch() != epoch {
            self.rotated(&mut state);
        }
        state.records += records.len() as u64;
        state.record_bytes += bytes;
        let policy = &self.options.sync;
        if policy.records.is_some_and(|n| state.records - state.policy_records >= n)
            || policy.bytes.is_some_and(|n| state.record_bytes - state.policy_bytes >= n)
        {
            state.sync_due = true;
            self.kick.notify_all();
        }
        if state.idle && policy.interval.is_some() {
            state.idle = false;
            self.kick.notify_all();
        }
        Ok((state, first))
    }

    /// After an append that nobody waits for: writes what has gathered, if it is much.
    fn settle<'a>(&'a self, mut state: Guard<'a>) -> Result<()> {
        // One writer at a time is enough to keep the disk busy; who comes while it writes goes on, up to the limit.
        while state.assembler.placed_bytes() >= WRITE_AT {
            if state.flights.iter().all(|f| f.landed) {
                drop(self.fly(state, false));
                break;
            }
            if state.assembler.placed_bytes() < self.options.buffer_bytes {
                break;
            }
            state = self.wait_changed(state);
            state.usable()?;
        }
        Ok(())
    }

    /// Returns when everything up to an LSN is written, or durable.
    fn reach<'a>(&'a self, mut state: Guard<'a>, lsn: Lsn, sync: bool) -> Result<()> {
        let cuts = state.cuts;
        loop {
            // What was cut off since was durable before.
            if state.cuts != cuts || lsn <= if sync { state.durable.lsn } else { state.written } {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            let launched = if sync { state.launched_synced } else { state.launched };
            if launched < lsn && state.in_flight() < FLIGHTS_MAX {
                state = self.fly(state, sync);
                continue;
            }
            // Asleep on the flight that covers the record, or on the next, which will.
            let covering = state.flights.iter().find(|f| f.reach.lsn >= lsn && (f.sync || !sync));
            let slot = &self.slots[covering.map_or(state.next_flight, |f| f.id) as usize % SLOTS];
            let seen = slot.load(Ordering::Relaxed);
            drop(state);
            atomic_wait::wait(slot, seen);
            state = self.lock();
        }
    }

    /// Flushes what has gathered: encodes, writes, and syncs if asked. The lock is let go meanwhile.
    pub(crate) fn fly<'a>(&'a self, mut state: Guard<'a>, sync: bool) -> Guard<'a> {
        let frames = state.assembler.take();
        let promise = state.durable;
        let reach = state.assembler.end();
        let id = state.next_flight;
        state.next_flight += 1;
        let records = reach.lsn.0.saturating_sub(state.launched.0.max(if sync { state.launched_synced.0 } else { 0 }));
        state.flights.push_back(Flight { id, reach, sync, landed: false });
        state.launched = reach.lsn;
        state.promised = state.promised.max(if frames.is_empty() { Position::default() } else { promise.position });
        // Whoever syncs takes over what was written before without a sync.
        let dirty = if sync { std::mem::take(&mut state.dirty) } else { Vec::new() };
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
        let mut landing = Landing { shared: self, id, done: false };
        let started = Instant::now();
        let mut frames: Vec<Placed> = frames.into();
        let flown = self.write_out(&mut frames, promise, sync, dirty, id);
        let took = started.elapsed();
        if sync && flown.is_ok() {
            self.counters.flushed(took, records);
            if took > Duration::from_secs(1) {
                crate::trace::warn!(millis = took.as_millis() as u64, records, "slow flush");
            }
        }
        let mut state = self.lock();
        for frame in frames {
            state.assembler.recycle(frame.buf);
        }
        landing.done = true;
        self.land(state, id, flown)
    }

    fn write_out(
        &self,
        frames: &mut [Placed],
        promise: Promise,
        sync: bool,
        mut dirty: Vec<Arc<Segment>>,
        id: u64,
    ) -> Result<()> {
        let parts: Vec<_> = frames
            .iter_mut()
            .map(|frame| {
                let (segment, block) = (frame.segment.clone(), frame.block);
                (segment, block, frame.finish(promise))
            })
            .collect();
        // A sync of these bytes alone is enough if nothing else waits for one.
        let durable = sync && dirty.is_empty();
        let mut rest = &parts[..];
        let mut written = 0;
        while let Some((segment, block, bytes)) = rest.first() {
            let mut bufs = vec![io::IoSlice::new(bytes)];
            let mut end = block + (bytes.len() / format::BLOCK) as u32;
            rest = &rest[1..];
            while let Some((next, at, bytes)) = rest.first()
                && *at == end
                && Arc::ptr_eq(next, segment)
            {
                bufs.push(io::IoSlice::new(bytes));
                end += (bytes.len() / format::BLOCK) as u32;
                rest = &rest[1..];
            }
            written += (end - block) as usize * format::BLOCK;
            segment.write(*block, &mut bufs, durable)?;
            if sync && !durable && !dirty.iter().any(|s| Arc::ptr_eq(s, segment)) {
                dirty.push(segment.clone());
            }
        }
        self.counters.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        if sync && !durable {
            // Their writes must be done before they are synced.
            let mut state = self.lock();
            while state.flights.iter().any(|f| f.id < id && !f.sync && !f.landed) && state.failed.is_none() {
                state = self.wait_changed(state);
            }
            drop(state);
            for segment in dirty {
                segment.sync()?;
            }
        }
        Ok(())
    }

    /// A flight has landed: all that have, in order, count; who waited for them is woken.
    fn land<'a>(&'a self, mut state: Guard<'a>, id: u64, flown: Result<()>) -> Guard<'a> {
        if let Err(error) = flown {
            self.fail(&mut state, error);
        }
        if let Some(flight) = state.flights.iter_mut().find(|f| f.id == id) {
            flight.landed = true;
        }
        let mut woken = [false; SLOTS];
        while state.failed.is_none() && state.flights.front().is_some_and(|f| f.landed) {
            let Some(flight) = state.flights.pop_front() else { break };
            state.written = state.written.max(flight.reach.lsn);
            if flight.sync {
                state.durable = flight.reach;
                self.durable.store(flight.reach.lsn.0, Ordering::Release);
            }
            woken[flight.id as usize % SLOTS] = true;
        }
        if state.failed.is_some() {
            woken = [true; SLOTS];
        }
        let reached = state.durable.lsn;
        let later = state.wakers.split_off(&(reached.next(), 0));
        let wakers = if state.failed.is_some() {
            let mut all = std::mem::take(&mut state.wakers);
            all.extend(later);
            all
        } else {
            std::mem::replace(&mut state.wakers, later)
        };
        let tail = std::mem::take(&mut state.tail_wakers);
        for (slot, _) in self.slots.iter().zip(woken).filter(|(_, woken)| *woken) {
            slot.fetch_add(1, Ordering::Relaxed);
            atomic_wait::wake_all(slot);
        }
        // One of those who wait for the next flight leads it.
        if !state.assembler.is_empty() || state.launched_synced < state.assembler.next_lsn().prev() {
            let slot = &self.slots[state.next_flight as usize % SLOTS];
            slot.fetch_add(1, Ordering::Relaxed);
            atomic_wait::wake_one(slot);
        }
        self.changed.notify_all();
        if state.idle || !state.wakers.is_empty() || self.wants_spare(&state) {
            state.idle = false;
            self.kick.notify_all();
        }
        drop(state);
        // Strangers' code runs without the lock.
        wakers.into_values().chain(tail).for_each(Waker::wake);
        self.lock()
    }

    fn fail(&self, state: &mut State, error: Error) {
        if state.failed.is_none() {
            crate::trace::error!(error = %error, dir = %self.dir.path.display(), "the log is poisoned");
            state.failed = Some(error.poison());
        }
        state.flights.clear();
    }

    fn wait_changed<'a>(&'a self, state: Guard<'a>) -> Guard<'a> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that so many segments are prepared.
    fn obtain<'a>(&'a self, mut state: Guard<'a>, need: usize) -> Result<Guard<'a>> {
        let started = Instant::now();
        while state.spares.len() < need {
            state = self.prepare_one(state)?;
            state.usable()?;
        }
        self.counters.waited_for_segment(started.elapsed());
        Ok(state)
    }

    /// Prepares the next segment, or waits for who is doing that.
    pub(crate) fn prepare_one<'a>(&'a self, state: Guard<'a>) -> Result<Guard<'a>> {
        if state.preparing {
            return Ok(self.wait_changed(state));
        }
        let (state, prepared) = self.prepare_from(state, None);
        prepared?;
        Ok(state)
    }

    /// Prepares the next segment, anew or from an old one; nobody else is at it.
    fn prepare_from<'a>(&'a self, mut state: Guard<'a>, recycle: Option<u64>) -> (Guard<'a>, Result<()>) {
        state.preparing = true;
        // Rotations meanwhile take from the spares what they add to the epoch.
        let epoch = state.assembler.segment().epoch() + state.spares.len() as u64 + 1;
        drop(state);
        let prepared = self.dir.prepare(self.log, epoch, self.options.segment_blocks(), recycle);
        let mut state = self.lock();
        state.preparing = false;
        self.changed.notify_all();
        let counter = if recycle.is_some() { &self.counters.recycled } else { &self.counters.created };
        counter.fetch_add(u64::from(prepared.is_ok()), Ordering::Relaxed);
        let prepared = prepared.map(|spare| state.spares.push_back(spare));
        (state, prepared)
    }

    /// Whether the background should prepare a segment now.
    pub(crate) fn wants_spare(&self, state: &State) -> bool {
        // A log that has never filled a segment may never fill this one.
        !state.preparing
            && state.spares.is_empty()
            && state.failed.is_none()
            && (state.assembler.fill() > 0.25 || self.chain().entries.len() > 1)
    }

    /// Brings the chain up to date with the assembler, which has gone on in other segments.
    fn rotated(&self, state: &mut State) {
        let mut chain = Chain::clone(&self.chain());
        for Rotation { from, to_epoch, first_lsn } in state.assembler.rotations() {
            if let Some(last) = chain.entries.last_mut().filter(|e| e.epoch == from.epoch) {
                last.end = Some(from.block);
            }
            chain.entries.push(Entry { epoch: to_epoch, first_lsn, end: None });
            self.counters.rotations.fetch_add(1, Ordering::Relaxed);
            crate::trace::debug!(epoch = to_epoch, first_lsn = first_lsn.0, "rotated");
        }
        self.set_chain(chain);
        self.kick.notify_all();
    }

    fn set_chain(&self, chain: Chain) {
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(chain);
    }

    /// Puts the control state into the log, durably.
    fn mark<'a>(&'a self, mut state: Guard<'a>) -> Result<()> {
        let State { assembler, control, .. } = &mut *state;
        if !assembler.mark(false, true, control) {
            state = self.rotate(state)?;
        }
        // A MARK has no LSN of its own: the flight that takes it, and those before it, must land.
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.in_flight() >= FLIGHTS_MAX {
                state = self.wait_changed(state);
                continue;
            }
            let target = state.assembler.end().position;
            state = self.fly(state, true);
            while state.durable.position < target && state.failed.is_none() {
                state = self.wait_changed(state);
            }
            return match &state.failed {
                Some(error) => Err(error.clone()),
                None => Ok(()),
            };
        }
    }

    /// As it was before a MARK for which there was no room.
    fn restore_hold(&self, name: &str, before: Option<Lsn>) {
        let holds = &mut self.lock().control.holds;
        match before {
            Some(lsn) => holds.insert(name.to_owned(), lsn),
            None => holds.remove(name),
        };
    }

    fn rotate<'a>(&'a self, mut state: Guard<'a>) -> Result<Guard<'a>> {
        if state.spares.is_empty() {
            state = self.obtain(state, 1)?;
        }
        let State { assembler, spares, control, .. } = &mut *state;
        if let Some(spare) = spares.pop_front() {
            assembler.rotate(spare, control);
        }
        self.rotated(&mut state);
        Ok(state)
    }

    /// When the log has fallen idle: says in the log what is durable. `true` if there was something to say.
    pub(crate) fn mark_idle<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, bool) {
        let due = state.needs_promise() && state.assembler.is_empty() && state.flights.is_empty() && state.failed.is_none();
        let State { assembler, control, .. } = &mut *state;
        if due && assembler.mark(false, false, control) {
            state.idle_end = state.assembler.end().position;
            return (self.fly(state, true), true);
        }
        // Without room for it, there is nothing to wait for either.
        state.idle_end = state.durable.position;
        (state, false)
    }

    fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        let mut state = self.open_state()?;
        let last = state.assembler.next_lsn().prev();
        if before > last.next() {
            return Err(Error::NotAppended { lsn: before, last });
        }
        let start = state.control.holds.values().copied().fold(before, Lsn::min).max(state.control.start);
        if start > state.control.start {
            let before = std::mem::replace(&mut state.control.start, start);
            self.mark(state).inspect_err(|_| self.lock().control.start = before)?;
            state = self.open_state()?;
        }
        // Readers that ask for less are told so from here on; what they hold open stays readable to them.
        let mut chain = Chain::clone(&self.chain());
        chain.start = chain.start.max(start);
        let dropped = chain.entries.windows(2).take_while(|pair| pair[1].first_lsn <= start).count();
        let dropped: Vec<Entry> = chain.entries.drain(..dropped).collect();
        let front = chain.entries.first().map_or(0, |e| e.epoch);
        chain.waivers.retain(|w| w.to.epoch >= front);
        state.control.waivers.retain(|w| w.to.epoch >= front);
        self.set_chain(chain);
        drop(state);
        self.discard(&dropped)?;
        Ok(start)
    }

    /// Recycles segments that the log does not need any more, as far as it needs spares, and removes the others.
    fn discard(&self, dropped: &[Entry]) -> Result<()> {
        let blocks = self.options.segment_blocks();
        let mut removed = Vec::new();
        for entry in dropped {
            let mut state = self.lock();
            while state.preparing {
                state = self.wait_changed(state);
            }
            if state.spares.len() < SPARES_MAX && self.dir.has_blocks(entry.epoch, blocks) {
                let (after, recycled) = self.prepare_from(state, Some(entry.epoch));
                if recycled.is_ok() {
                    continue;
                }
                state = after;
            }
            drop(state);
            removed.push(crate::segment::segment_name(entry.epoch));
        }
        self.counters.removed.fetch_add(removed.len() as u64, Ordering::Relaxed);
        fork::remove(&self.dir, removed)
    }

    fn truncate_back(&self, from: Lsn) -> Result<()> {
        let mut state = self.open_state()?;
        // Everything lands first; then the lock is kept to the end (hazard 23).
        while !(state.assembler.is_empty() && state.flights.is_empty() && state.dirty.is_empty()) || state.preparing {
            state = if state.flights.is_empty() && !state.preparing { self.fly(state, true) } else { self.wait_changed(state) };
            state.usable()?;
        }
        let next_lsn = state.assembler.next_lsn();
        if from >= next_lsn {
            return Ok(());
        }
        let chain = self.chain();
        if from < chain.start {
            return Err(Error::Dropped { lsn: from, start: chain.start });
        }
        let (at, first) = self.unit_boundary(&chain, from)?;
        let mut entries: Vec<Entry> = chain.entries.iter().copied().filter(|e| e.epoch <= at.epoch).collect();
        if let Some(last) = entries.last_mut() {
            last.end = Some(at.block);
        }
        let tip = state.assembler.segment().epoch();
        let mut control = state.control.clone();
        control.waivers.retain(|w| w.from < at);
        let branch = Branch {
            log: self.log,
            at,
            next_lsn: first,
            segment_blocks: self.options.segment_blocks(),
            epoch: tip + 1,
            spares: std::mem::take(&mut state.spares),
            unsealed: vec![tip],
            control,
        };
        // The copies are of durable records: readers may read them with the lock held.
        let mut copies = Snapshot::reader(&self.dir, &chain, first, from.prev());
        let forked = fork::fork(&self.dir, branch, &mut |put| {
            while let Some(record) = copies.next()? {
                put(record.data)?;
            }
            Ok(())
        });
        let branched = match forked {
            Ok(branched) => branched,
            Err(error) if error.is_no_space() => return Err(error),
            Err(error) => {
                // It is not known whether the LINK is there.
                self.fail(&mut state, error.clone());
                return Err(error);
            }
        };
        state.cuts += 1;
        state.control.waivers.retain(|w| w.from < at);
        let kept = entries.last().map_or(0, |e| e.epoch);
        entries.extend(&branched.entries);
        let superseded = chain.entries.iter().filter(|e| e.epoch > kept).map(|e| crate::segment::segment_name(e.epoch));
        state.spares = branched.spares;
        state.assembler = branched.assembler;
        state.durable = branched.durable;
        state.written = branched.durable.lsn;
        state.launched = branched.durable.lsn;
        state.launched_synced = branched.durable.lsn;
        self.durable.store(branched.durable.lsn.0, Ordering::Release);
        self.set_chain(Chain { entries, cuts: state.cuts, waivers: state.control.waivers.clone(), ..Chain::clone(&chain) });
        // Everyone who waited has what they waited for: it was durable, before it was cut.
        let wakers = std::mem::take(&mut state.wakers);
        for slot in &self.slots {
            slot.fetch_add(1, Ordering::Relaxed);
            atomic_wait::wake_all(slot);
        }
        drop(state);
        wakers.into_values().for_each(Waker::wake);
        fork::remove(&self.dir, superseded)
    }

    /// Where the unit begins that holds a record, and the LSN of its frame's first record.
    fn unit_boundary(&self, chain: &Chain, mut lsn: Lsn) -> Result<(Position, Lsn)> {
        loop {
            let Some(entry) = chain.entries.iter().rev().find(|e| e.first_lsn <= lsn) else {
                return Err(Error::Dropped { lsn, start: chain.start });
            };
            let segment = match self.dir.open_segment(Some(self.log), entry.epoch, crate::disk::Access::Read)? {
                Ok((segment, _)) => segment,
                Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
            };
            let (block, header) = frame_at(&segment, lsn, entry.end.unwrap_or(u32::MAX))?;
            match header {
                Some(header) if header.kind == Kind::Data && header.has(CONTINUED) => {
                    let floor = chain.entries.first().map_or(Lsn::FIRST, |e| e.first_lsn);
                    if header.first_lsn <= floor {
                        // The unit began in a segment that was dropped.
                        return Ok((segment.at(format::LINK_BLOCK + 1), entry.first_lsn));
                    }
                    lsn = header.first_lsn.prev();
                }
                Some(header) => return Ok((segment.at(block), header.first_lsn)),
                None => return Ok((segment.at(format::LINK_BLOCK + 1), entry.first_lsn)),
            }
        }
    }

    fn close(&self) -> Result<()> {
        let mut state = self.lock();
        state.closed = true; // No appends from here on; what is placed is flushed.
        while !state.flights.is_empty() && state.failed.is_none() {
            state = self.wait_changed(state);
        }
        while state.failed.is_none() && !(state.assembler.is_empty() && state.dirty.is_empty()) {
            state = self.fly(state, true);
        }
        let State { assembler, control, failed, .. } = &mut *state;
        // If there is no room, the next opening finds the log unclosed, which costs it a scan.
        if failed.is_none() && assembler.mark(true, true, control) {
            state = self.fly(state, true);
        }
        let closed = state.failed.clone().map_or(Ok(()), Err);
        if state.failed.is_none() {
            state.failed = Some(Error::Closed);
        }
        for slot in &self.slots {
            slot.fetch_add(1, Ordering::Relaxed);
            atomic_wait::wake_all(slot);
        }
        self.changed.notify_all();
        let wakers: Vec<Waker> = std::mem::take(&mut state.wakers).into_values().collect();
        let tail = std::mem::take(&mut state.tail_wakers);
        drop(state);
        wakers.into_iter().chain(tail).for_each(Waker::wake);
        closed
    }

    /// For a [`Commit`]: whether its record is durable; if not, the waker is kept, under an id by which it is found again.
    pub(crate) fn poll_durable(&self, lsn: Lsn, cuts: u64, id: &mut Option<u64>, waker: &Waker) -> Poll<Result<()>> {
        // (Had it been cut since, it would have been durable before.)
        if self.durable.load(Ordering::Acquire) >= lsn.0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.lock();
        if state.durable.lsn >= lsn || state.cuts != cuts {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let id = *id.get_or_insert_with(|| {
            state.waker_ids += 1;
            state.waker_ids
        });
        state.wakers.insert((lsn, id), waker.clone());
        // Somebody must lead its flight: the background thread, unless a committer comes first.
        if state.launched_synced < lsn {
            state.idle = false;
            self.kick.notify_all();
        }
        Poll::Pending
    }

    /// A [`Commit`] that is not waited for any more.
    pub(crate) fn forget(&self, lsn: Lsn, id: u64) {
        self.lock().wakers.remove(&(lsn, id));
    }
}

impl State {
    fn usable(&self) -> Result<()> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    fn in_flight(&self) -> usize {
        self.flights.iter().filter(|f| !f.landed).count()
    }

    /// Whether the background thread should sync now, for futures that wait or because the policy says so.
    pub(crate) fn wants_sync(&self) -> bool {
        let futures = self.wakers.last_key_value().is_some_and(|((lsn, _), _)| *lsn > self.launched_synced);
        self.failed.is_none() && (futures || self.sync_due) && self.in_flight() < FLIGHTS_MAX
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

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(Lsn(self.durable.load(Ordering::Acquire)))
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn wait(&self, beyond: Lsn, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let mut state = self.lock();
        loop {
            if state.durable.lsn > beyond {
                return Ok(true);
            }
            match &state.failed {
                Some(Error::Closed) => return Ok(false),
                Some(error) => return Err(error.clone()),
                None => {}
            }
            state = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(false),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wait_changed(state),
            };
        }
    }

    fn poll(&self, beyond: Lsn, waker: &Waker) -> Poll<Result<bool>> {
        let mut state = self.lock();
        if state.durable.lsn > beyond {
            return Poll::Ready(Ok(true));
        }
        match &state.failed {
            Some(Error::Closed) => return Poll::Ready(Ok(false)),
            Some(error) => return Poll::Ready(Err(error.clone())),
            None => {}
        }
        if !state.tail_wakers.iter().any(|w| w.will_wake(waker)) {
            state.tail_wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

/// A log that stands still: what a fork copies from.
#[derive(Debug)]
pub(crate) struct Snapshot {
    dir: Dir,
    chain: Arc<Chain>,
    last: Lsn,
}

impl Snapshot {
    /// A reader over the records from one LSN to another, even if they were dropped by a truncation that left them in their segment.
    pub(crate) fn reader(dir: &Dir, chain: &Chain, from: Lsn, last: Lsn) -> Reader {
        let chain = Arc::new(Chain { start: from, ..chain.clone() });
        Reader::new(Arc::new(Snapshot { dir: dir.clone(), chain, last }), from)
    }
}

impl Source for Snapshot {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.chain.clone()
    }

    fn limit(&self, _seen: Lsn) -> Result<Lsn> {
        Ok(self.last)
    }

    fn damage(&self) -> Option<Damage> {
        None
    }

    fn wait(&self, _beyond: Lsn, _timeout: Option<Duration>) -> Result<bool> {
        Ok(false)
    }

    fn poll(&self, _beyond: Lsn, _waker: &Waker) -> Poll<Result<bool>> {
        Poll::Ready(Ok(false))
    }
}
