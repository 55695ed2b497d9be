//! The log, open for writing: what a user calls.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::assemble::{CHECKPOINT_BLOCKS, Urgency};
use crate::background::Background;
use crate::commit::{Shared, State};
use crate::format::{self, HOLD_NAME_MAX, HOLDS_MAX, LogId, Position};
use crate::open::{self, Opened};
use crate::pace::Pace;
use crate::reader::{Chain, Iter, Reader, Source, Tails};
use crate::recent::Places;
use crate::reserve::Keeping;
use crate::stats::{Counters, RecoveryReport, Stats};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Event, Mutex, RwLock, WaitWord};
use crate::ticket::Commit;
use crate::{Error, Lsn, Options, Result};

/// Batches of so many records are appended without an allocation.
const BATCH_ON_STACK: usize = 32;

/// Takes each record's slice once, and under no lock: how it answers is the caller's business.
fn with_slices<R: AsRef<[u8]>, T>(records: &[R], with: impl FnOnce(&[&[u8]]) -> T) -> T {
    if records.len() > BATCH_ON_STACK {
        let slices: Vec<&[u8]> = records.iter().map(AsRef::as_ref).collect();
        return with(&slices);
    }
    let mut slices: [&[u8]; BATCH_ON_STACK] = [&[]; BATCH_ON_STACK];
    for (slice, record) in slices.iter_mut().zip(records) {
        *slice = record.as_ref();
    }
    with(&slices[..records.len()])
}

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
/// The log belongs to the process that opened it. In one that is forked from that, calls that would
/// write or wait give [`Error::LockLost`] at once, and dropping it does nothing.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// use foreword::{Log, Lsn};
/// let log = Log::open(dir.path())?;
/// let lsn = log.commit(b"durable when this returns")?;
/// assert_eq!((lsn, log.durable_lsn()), (Lsn(1), Lsn(1)));
/// for record in log.iter(Lsn::ZERO) {
///     println!("{:?}", record?.data);
/// }
/// log.close()?;
/// # Ok(()) }
/// ```
pub struct Log {
    shared: Arc<Shared>,
    background: Option<Background>,
    /// It was closed, or is being dropped.
    shut: bool,
    report: RecoveryReport,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared.dir.path).field("id", &self.shared.log).finish_non_exhaustive()
    }
}

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
        let (dir, opened) = open::open(&options, dir)?;
        let Opened { log, assembler, spares, entries, control, durable, report } = opened;
        let fills_segments = entries.len() > 1;
        let chain = Chain::new(log, entries, &control);
        // What recovery wrote again is promised by its own LINK alone: a later frame is to say it, too.
        let promised = if report.rewritten_records > 0 { Position::default() } else { durable.position };
        let state = State {
            assembler,
            spares,
            fills_segments,
            preparing: false,
            prepare_again: None,
            no_space: None,
            wanted: 0,
            dropped: VecDeque::new(),
            removing: 0,
            freed: 0,
            control,
            flights: VecDeque::new(),
            next_flight: 0,
            launched: durable.lsn,
            launched_synced: durable.lsn,
            synced_at: Instant::now(),
            written: durable.lsn,
            durable,
            promised,
            idle_end: promised,
            dirty: Vec::new(),
            failed: None,
            closed: false,
            gathering: None,
            cutting: false,
            pace: Pace::default(),
            wakers: BTreeMap::new(),
            waker_ids: 0,
            records: 0,
            record_bytes: 0,
            policy_records: 0,
            policy_bytes: 0,
            at_last_prepare: (0, 0),
            write_due: false,
            sync_due: false,
            idle: false,
            stop: false,
        };
        let counters = Counters::new(&dir.path);
        let shared = Arc::new(Shared {
            dir,
            log,
            options,
            state: Mutex::new(state),
            changing: Mutex::new(()),
            changed: Event::default(),
            kick: Event::default(),
            arrived: AtomicU32::new(0),
            syncs: AtomicU64::new(0),
            starved: AtomicU32::new(0),
            durable: AtomicU64::new(durable.lsn.0),
            slots: std::array::from_fn(|_| WaitWord::default()),
            chain: RwLock::new(Arc::new(chain)),
            version: AtomicU64::new(0),
            counters,
            tails: Tails::default(),
            places: Places::default(),
            keeping: Keeping::default(),
        });
        let background = if shared.options.background { Some(Background::start(&shared)?) } else { None };
        Ok(Log { shared, background, shut: false, report })
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
    /// buffers are full ([`Options::buffer_bytes`]) or no segment is ready. Appends
    /// that outrun the background thread give what has gathered, 2 MiB or more, to the operating system themselves.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::NoSpace`]: nothing was appended, and the log goes on. [`Error::Poisoned`], [`Error::Closed`].
    pub fn append(&self, record: &[u8]) -> Result<Lsn> {
        let (state, unit) = self.shared.append(&[record], Urgency::Ordinary)?;
        self.shared.settle(state, false)?;
        Ok(unit.first)
    }

    /// Appends a record as [`append`](Log::append) does, but never waits: not for the lock, a cut, a segment or the buffers. It returns within a
    /// millisecond, whatever other calls do, if it gets a processor (copying a record of many megabytes takes as long as that takes).
    ///
    /// The background thread is asked for what was missing, so that a later try finds it. Without
    /// [`background`](Options::background) nobody does that: then other calls must write, and rotate.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use foreword::Error;
    /// let lsn = match log.try_append(b"from an event loop") {
    ///     Err(Error::Busy) => log.append(b"from an event loop")?, // or later, when there is time
    ///     appended => appended?,
    /// };
    /// # assert_eq!(lsn, foreword::Lsn(1));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`]: it would have to wait, and nothing was appended. Else as [`append`](Log::append).
    pub fn try_append(&self, record: &[u8]) -> Result<Lsn> {
        self.try_append_slices(&[record])
    }

    /// As [`try_append`](Log::try_append), for a batch. The LSN of the first record.
    ///
    /// # Errors
    /// As [`try_append`](Log::try_append); [`Error::Invalid`] for an empty batch.
    pub fn try_append_batch<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Lsn> {
        with_slices(records, |records| self.try_append_slices(records))
    }

    fn try_append_slices(&self, records: &[&[u8]]) -> Result<Lsn> {
        let (state, unit) = self.shared.try_append(records)?;
        self.shared.settle_later(state);
        Ok(unit.first)
    }

    /// Appends a record and returns when it is as safe as asked.
    ///
    /// # Errors
    /// As [`append`](Log::append). After any error but `TooLarge` and `NoSpace` the record may or may not be there after reopening.
    pub fn append_with(&self, record: &[u8], durability: Durability) -> Result<Lsn> {
        self.append_slices(&[record], durability)
    }

    /// Appends a record and returns when it is durable ([`Durability::Synced`]). Concurrent commits share one flush.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with).
    pub fn commit(&self, record: &[u8]) -> Result<Lsn> {
        self.append_slices(&[record], Durability::Synced)
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
        with_slices(records, |records| self.append_slices(records, durability))
    }

    fn append_slices(&self, records: &[&[u8]], durability: Durability) -> Result<Lsn> {
        let (state, unit) = self.shared.append(records, Urgency::Ordinary)?;
        match durability {
            Durability::Buffered => self.shared.settle(state, false)?,
            Durability::Written => self.shared.reach(state, unit.last, false)?,
            Durability::Synced => self.shared.reach(state, unit.last, true)?,
        }
        Ok(unit.first)
    }

    /// Appends a record and returns at once with a [`Commit`], a future that completes when the record is durable. Thousands may be in flight
    /// from one thread; dropping the future changes nothing for the record. As [`append`](Log::append) it waits where the buffers are full or no segment is
    /// ready, but writes nothing itself.
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn commit_async(&self, record: &[u8]) -> Result<Commit> {
        self.commit_slices_async(&[record])
    }

    /// As [`commit_async`](Log::commit_async), for a batch. It completes with the LSN of the first record.
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    pub fn commit_batch_async<R: AsRef<[u8]>>(&self, records: &[R]) -> Result<Commit> {
        with_slices(records, |records| self.commit_slices_async(records))
    }

    fn commit_slices_async(&self, records: &[&[u8]]) -> Result<Commit> {
        let (state, unit) = self.shared.append(records, Urgency::Ordinary)?;
        self.shared.settle(state, true)?;
        Ok(Commit::new(self.shared.clone(), unit.first, unit.last))
    }

    /// Commits a small record (up to some 7 KiB) for which room is kept in every segment, so that it succeeds on a full disk: a checkpoint, after which
    /// [`truncate_front`](Log::truncate_front) makes space.
    ///
    /// # Errors
    /// As [`commit`](Log::commit). [`Error::NoSpace`] only when the room was used up by earlier ones, and no truncation between freed a segment. A
    /// segment has room for one of any size, or for two that fit into a block.
    pub fn commit_checkpoint(&self, record: &[u8]) -> Result<Lsn> {
        let max = format::payload_max(CHECKPOINT_BLOCKS) - 4;
        if record.len() > max {
            return Err(Error::TooLarge { bytes: record.len() as u64, max: max as u64 });
        }
        let (state, unit) = self.shared.append(&[record], Urgency::Checkpoint)?;
        self.shared.reach(state, unit.last, true)?;
        Ok(unit.first)
    }

    /// Gives everything appended so far to the operating system ([`Durability::Written`]): the last LSN that this covers.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn write(&self) -> Result<Lsn> {
        self.reach_last(false)
    }

    /// Makes everything appended so far durable: the last LSN that this covers.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn sync(&self) -> Result<Lsn> {
        self.reach_last(true)
    }

    fn reach_last(&self, sync: bool) -> Result<Lsn> {
        let state = self.shared.open_state()?;
        let last = state.assembler.next_lsn().prev();
        let goal = state.goal(last);
        self.shared.reach(state, goal, sync)?;
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
        let goal = state.goal(state.appended(lsn)?);
        self.shared.reach(state, goal, true)
    }

    /// Waits for a record to become durable by whatever makes it so (the [`SyncPolicy`](crate::SyncPolicy), or somebody's sync), without asking
    /// for a flush: for as long as it takes, or the time given. Whether it is durable: `false` when the time is over, or when the log was closed before it was.
    /// If the record is [cut off](Log::truncate_back) meanwhile, it was durable before: `true`.
    ///
    /// [`sync_to`](Log::sync_to) is for those who want it durable now.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`].
    pub fn wait_durable(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        self.shared.wait_durable(lsn, timeout)
    }

    /// A future that completes when a record is durable.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`], [`Error::Closed`].
    pub fn durable(&self, lsn: Lsn) -> Result<Commit> {
        let state = self.shared.open_state()?;
        let goal = state.goal(state.appended(lsn)?);
        Ok(Commit::new(self.shared.clone(), lsn, goal))
    }

    /// The last LSN that is durable: it and all before it survive the machine. [`Lsn::ZERO`] if none is. Never waits.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        Lsn(self.shared.durable.load(Ordering::Acquire))
    }

    /// The last LSN that the operating system has: it and all before it survive the process.
    #[must_use]
    pub fn written_lsn(&self) -> Lsn {
        self.shared.peek().map_or(self.durable_lsn(), |state| state.written)
    }

    /// The last LSN that was given out. [`Lsn::ZERO`] if none was.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.shared.peek().map_or(self.durable_lsn(), |state| state.assembler.next_lsn().prev())
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

    /// A reader that stands before a record, which need not be there yet; if it was dropped, the first read says [`Error::Dropped`].
    /// [`Lsn::ZERO`]: before the first that is there.
    #[must_use]
    pub fn reader_at(&self, lsn: Lsn) -> Reader {
        Reader::new(self.shared.clone(), lsn)
    }

    /// Iterates over the durable records from an LSN on, or with [`Lsn::ZERO`] from the first. If the LSN was dropped, the first item is
    /// [`Error::Dropped`].
    #[must_use]
    pub fn iter(&self, from: Lsn) -> Iter {
        Iter::forward(self.reader_at(from))
    }

    /// Iterates backward over the durable records, from an LSN (or the last, if it is not there yet) to the first. If the LSN was dropped, the
    /// first item is [`Error::Dropped`].
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

    /// The LSN of the first durable record that was written at a time or after it, or of the next to come; see
    /// [`Reader::seek_to_time`]. For "as of ten minutes ago", and for retention by age.
    ///
    /// # Errors
    /// As [`Reader::seek_to_time`].
    pub fn lsn_at(&self, time: SystemTime) -> Result<Lsn> {
        self.reader().seek_to_time(time)
    }

    /// How many bytes the durable records have from one LSN up to another; see [`Reader::bytes_between`].
    ///
    /// # Errors
    /// As [`Reader::bytes_between`].
    pub fn bytes_between(&self, from: Lsn, to: Lsn) -> Result<u64> {
        self.reader().bytes_between(from, to)
    }

    /// Drops the records before an LSN, as far as no [hold](Log::hold) needs them: the LSN at which the log starts now. Durable when it
    /// returns. Segments with nothing else in them are recycled or removed behind the call, in the background; [`Stats::segments_dropped`] says how many are
    /// still to be, [`close`](Log::close) finishes them, and what cannot be removed is reported ([`Options::on_error`]) and tried again. Without
    /// [`background`](Options::background) the call does it before it returns: all that are dropped so far, once each. Works on a full disk, if it frees a
    /// segment.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if the LSN is more than one beyond the last; [`Error::NoSpace`]: nothing was dropped; [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    pub fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        self.shared.truncate_front(before)
    }

    /// Cuts off the record with this LSN and all after it, as a Raft log does; their LSNs are given to what is appended next. Readers that have read any of
    /// them, or stand behind one, here or in other processes, are told with their next call: [`Error::Cut`]. Durable when it
    /// returns: everything before the cut is, too. Other calls wait meanwhile. Commits that were waiting for records that are cut succeed: they were durable.
    /// If the record is one that a salvage gave up, all that were given up with it are cut off.
    ///
    /// # Errors
    /// [`Error::Dropped`] if records before the cut are gone already; [`Error::NoSpace`], [`Error::Corruption`] (of what is written again): nothing was cut,
    /// and the log goes on. [`Error::Io`]: the same, unless calls after it say [`Error::Poisoned`]: then it is not known whether it was. [`Error::Closed`].
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
        let _changing = self.shared.one_at_a_time()?;
        let mut state = self.shared.open_state()?;
        if state.control.holds.len() >= HOLDS_MAX && !state.control.holds.contains_key(name) {
            return Err(Error::Invalid { what: "holds", why: format!("there are {HOLDS_MAX} already: release one") });
        }
        let before = state.control.holds.insert(name.to_owned(), lsn);
        if before == Some(lsn) {
            return Ok(());
        }
        self.shared.mark(state, Urgency::Mark).inspect_err(|_| self.shared.restore_hold(name, before))
    }

    /// Releases a hold: whether there was one of that name. Durable when it returns.
    ///
    /// # Errors
    /// As [`hold`](Log::hold).
    pub fn release(&self, name: &str) -> Result<bool> {
        let _changing = self.shared.one_at_a_time()?;
        let mut state = self.shared.open_state()?;
        let Some(before) = state.control.holds.remove(name) else { return Ok(false) };
        self.shared.mark(state, Urgency::Mark).inspect_err(|_| self.shared.restore_hold(name, Some(before)))?;
        Ok(true)
    }

    /// The holds and the LSNs they keep.
    #[must_use]
    pub fn holds(&self) -> BTreeMap<String, Lsn> {
        self.shared.peek().map(|state| state.control.holds.clone()).unwrap_or_default()
    }

    /// Counters and histograms.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Stops the background work (a segment that is being filled is given up), syncs, removes what was dropped, marks the log as closed and gives the lock up: the error of that last sync is returned here. Readers go
    /// on reading; those that wait for more are told that there is none.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the log had failed, [`Error::Io`]. The log is closed all the same.
    pub fn close(mut self) -> Result<()> {
        self.shut()
    }

    fn shut(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.shut, true) {
            return Ok(());
        }
        if let Err(forked) = self.shared.dir.check_process() {
            // The threads are not in this process, and what is of them must not be touched.
            std::mem::forget(self.background.take());
            return Err(forked);
        }
        if let Some(background) = self.background.take() {
            background.stop(&self.shared);
        }
        let closed = self.shared.close();
        self.shared.dir.unlock();
        closed
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.shut()
            && self.shared.dir.check_process().is_ok()
        {
            self.shared.report(&error);
        }
    }
}
