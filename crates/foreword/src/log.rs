//! The log, open for writing: what a user calls.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::ops::RangeBounds;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::format::{self, LogId};
use crate::limit::{Hold, Limit};
use crate::observe::stats::{RecoveryReport, Stats};
use crate::open;
use crate::read::chain::Source;
use crate::read::iter::Iter;
use crate::read::reader::Reader;
use crate::read::record::Record;
use crate::write::background::Background;
use crate::write::inner::LogInner;
use crate::write::payload::Payload;
use crate::write::room::{CHECKPOINT_BLOCKS, Urgency};
use crate::write::ticket::Commit;
use crate::{Error, Lsn, Options, Result};

/// Batches of so many records are appended without an allocation.
const BATCH_ON_STACK: usize = 32;

/// Takes each record's slice once, and under no lock: how it answers, and what the iterator does, is the caller's business.
fn with_slices<'a, R, T>(records: impl IntoIterator<Item = &'a R>, with: impl FnOnce(&[&[u8]]) -> T) -> T
where
    R: AsRef<[u8]> + ?Sized + 'a,
{
    let (mut few, mut count) = ([&[][..]; BATCH_ON_STACK], 0);
    let mut slices = records.into_iter().map(AsRef::as_ref);
    while let Some(slice) = slices.next() {
        if let Some(place) = few.get_mut(count) {
            (*place, count) = (slice, count + 1);
            continue;
        }
        let mut many = few.to_vec();
        many.push(slice);
        many.extend(slices);
        return with(&many);
    }
    with(&few[..count])
}

/// The parts of a record, as slices.
fn with_parts<T>(parts: &[IoSlice<'_>], with: impl FnOnce(Payload<'_>) -> T) -> T {
    with_slices(parts.iter().map(|part| &**part), |parts| with(Payload::parts(parts)))
}

/// How safe a record is to be before a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
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
/// All methods take `&self` and may be called from any number of threads: put it into an [`Arc`] to share it, and any of them may [`close`](Log::close) it.
/// Dropping a log syncs and closes it, too, but an error of that last sync only reaches [`Options::on_error`]; `close` returns it.
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
    inner: Arc<LogInner>,
    background: Option<Background>,
    report: RecoveryReport,
}

/// What a panic interrupts leaves nothing half changed: the hooks and the disk, of which the compiler cannot know, run where a panic ends with them.
impl UnwindSafe for Log {}
impl RefUnwindSafe for Log {}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.inner.dir.path).field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in a directory with the default [`Options`], making it if there is none, with the directory and those above it. Blocks.
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
        let report = opened.report.clone();
        let inner = Arc::new(LogInner::new(dir, options, opened));
        let background = if inner.options.background { Some(Background::start(&inner)?) } else { None };
        Ok(Log { inner, background, report })
    }

    /// The log's identity.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.inner.id
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir.path
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
    pub fn append(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        self.append_one(record.as_ref())
    }

    // (This and `commit_one` stand apart from the others that append: the most frequent calls decide nothing.)
    fn append_one(&self, record: &[u8]) -> Result<Lsn> {
        let (state, unit) = self.inner.append(Payload::records(&[record]), Urgency::Ordinary)?;
        self.inner.settle(state, false)?;
        Ok(unit.first)
    }

    /// Appends a record that lies in parts, a header and a payload say, as [`append`](Log::append) does: nobody has to join them, for they are copied from where
    /// they are. Without any part the record is empty.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use std::io::IoSlice;
    /// let (header, payload) = (7u32.to_le_bytes(), "payload");
    /// let lsn = log.append_parts(&[IoSlice::new(&header), IoSlice::new(payload.as_bytes())])?;
    /// log.sync()?;
    /// assert_eq!(log.get(lsn)?, b"\x07\0\0\0payload");
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn append_parts(&self, parts: &[IoSlice<'_>]) -> Result<Lsn> {
        self.append_parts_with(parts, Durability::Buffered)
    }

    /// As [`append_parts`](Log::append_parts), and returns when the record is as safe as asked.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with).
    pub fn append_parts_with(&self, parts: &[IoSlice<'_>], durability: Durability) -> Result<Lsn> {
        with_parts(parts, |unit| self.append_unit(unit, durability))
    }

    /// As [`append_parts`](Log::append_parts), and returns when the record is durable.
    ///
    /// # Errors
    /// As [`commit`](Log::commit).
    pub fn commit_parts(&self, parts: &[IoSlice<'_>]) -> Result<Lsn> {
        self.append_parts_with(parts, Durability::Synced)
    }

    /// As [`commit_async`](Log::commit_async), for a record that lies in [parts](Log::append_parts).
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn commit_parts_async(&self, parts: &[IoSlice<'_>]) -> Result<Commit> {
        with_parts(parts, |unit| self.commit_unit_async(unit))
    }

    /// As [`try_append`](Log::try_append), for a record that lies in [parts](Log::append_parts).
    ///
    /// # Errors
    /// As [`try_append`](Log::try_append).
    pub fn try_append_parts(&self, parts: &[IoSlice<'_>]) -> Result<Lsn> {
        with_parts(parts, |unit| self.try_append_unit(unit))
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
    pub fn try_append(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        self.try_append_unit(Payload::records(&[record.as_ref()]))
    }

    /// As [`try_append`](Log::try_append), for a batch. The LSN of the first record.
    ///
    /// # Errors
    /// As [`try_append`](Log::try_append); [`Error::Invalid`] for an empty batch.
    pub fn try_append_batch<'a, R: AsRef<[u8]> + ?Sized + 'a>(&self, records: impl IntoIterator<Item = &'a R>) -> Result<Lsn> {
        with_slices(records, |records| self.try_append_unit(Payload::records(records)))
    }

    fn try_append_unit(&self, unit: Payload<'_>) -> Result<Lsn> {
        let (state, unit) = self.inner.try_append(unit)?;
        self.inner.settle_later(state);
        Ok(unit.first)
    }

    /// Appends a record and returns when it is as safe as asked.
    ///
    /// # Errors
    /// As [`append`](Log::append). After any error but `TooLarge` and `NoSpace` the record may or may not be there after reopening.
    pub fn append_with(&self, record: impl AsRef<[u8]>, durability: Durability) -> Result<Lsn> {
        self.append_unit(Payload::records(&[record.as_ref()]), durability)
    }

    /// Appends a record and returns when it is durable ([`Durability::Synced`]). Concurrent commits share one flush.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with).
    pub fn commit(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        self.commit_one(record.as_ref())
    }

    fn commit_one(&self, record: &[u8]) -> Result<Lsn> {
        self.inner.may_wait()?;
        let (state, unit) = self.inner.append(Payload::records(&[record]), Urgency::Ordinary)?;
        self.inner.reach(state, unit.last, true)?;
        Ok(unit.first)
    }

    /// Appends several records as one: after a crash all are there or none. The LSN of the first; the others follow. As
    /// [`append`](Log::append) otherwise.
    ///
    /// They come from a slice, a `Vec`, or an iterator that lends them. Of up to 32, no list is allocated.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// let changes = [("x", "set x = 1"), ("y", "set y = 2")];
    /// log.append_batch(changes.iter().map(|(_, record)| record))?;
    /// log.append_batch(&["a", "b"])?;
    /// assert_eq!(log.last_lsn(), foreword::Lsn(4));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// As [`append`](Log::append); [`Error::Invalid`] for an empty batch.
    pub fn append_batch<'a, R: AsRef<[u8]> + ?Sized + 'a>(&self, records: impl IntoIterator<Item = &'a R>) -> Result<Lsn> {
        self.append_batch_with(records, Durability::Buffered)
    }

    /// Appends several records as one and returns when they are durable.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with); [`Error::Invalid`] for an empty batch.
    pub fn commit_batch<'a, R: AsRef<[u8]> + ?Sized + 'a>(&self, records: impl IntoIterator<Item = &'a R>) -> Result<Lsn> {
        self.append_batch_with(records, Durability::Synced)
    }

    /// Appends several records as one and returns when they are as safe as asked.
    ///
    /// # Errors
    /// As [`append_with`](Log::append_with); [`Error::Invalid`] for an empty batch.
    pub fn append_batch_with<'a, R: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        records: impl IntoIterator<Item = &'a R>,
        durability: Durability,
    ) -> Result<Lsn> {
        with_slices(records, |records| self.append_unit(Payload::records(records), durability))
    }

    fn append_unit(&self, unit: Payload<'_>, durability: Durability) -> Result<Lsn> {
        if durability != Durability::Buffered {
            self.inner.may_wait()?;
        }
        let (state, unit) = self.inner.append(unit, Urgency::Ordinary)?;
        match durability {
            Durability::Buffered => self.inner.settle(state, false)?,
            Durability::Written => self.inner.reach(state, unit.last, false)?,
            Durability::Synced => self.inner.reach(state, unit.last, true)?,
        }
        Ok(unit.first)
    }

    /// Appends a record and returns at once with a [`Commit`], a future that completes when the record is durable. Thousands may be in flight
    /// from one thread; dropping the future changes nothing for the record. As [`append`](Log::append) it waits where the buffers are full or no segment is
    /// ready, but writes nothing itself.
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn commit_async(&self, record: impl AsRef<[u8]>) -> Result<Commit> {
        self.commit_unit_async(Payload::records(&[record.as_ref()]))
    }

    /// As [`commit_async`](Log::commit_async), for a batch. It completes with the LSN of the first record.
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    pub fn commit_batch_async<'a, R: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        records: impl IntoIterator<Item = &'a R>,
    ) -> Result<Commit> {
        with_slices(records, |records| self.commit_unit_async(Payload::records(records)))
    }

    fn commit_unit_async(&self, unit: Payload<'_>) -> Result<Commit> {
        let (state, unit) = self.inner.append(unit, Urgency::Ordinary)?;
        self.inner.settle(state, true)?;
        Ok(Commit::new(self.inner.clone(), unit.first, unit.last))
    }

    /// Commits a small record (up to some 7 KiB) for which room is kept in every segment, so that it succeeds on a full disk: a checkpoint, after which
    /// [`truncate_front`](Log::truncate_front) makes space.
    ///
    /// # Errors
    /// As [`commit`](Log::commit). [`Error::NoSpace`] only when the room was used up by earlier ones, and no truncation between freed a segment. A
    /// segment has room for one of any size, or for two that fit into a block.
    pub fn commit_checkpoint(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        let record = record.as_ref();
        let max = format::payload_max(CHECKPOINT_BLOCKS) - 4;
        if record.len() > max {
            return Err(Error::TooLarge { bytes: record.len() as u64, max: max as u64 });
        }
        self.inner.may_wait()?;
        let (state, unit) = self.inner.append(Payload::records(&[record]), Urgency::Checkpoint)?;
        self.inner.reach(state, unit.last, true)?;
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
        self.inner.may_wait()?;
        let state = self.inner.open_state()?;
        let last = state.assembler.next_lsn().prev();
        let goal = state.goal(last);
        self.inner.reach(state, goal, sync)?;
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
        self.inner.may_wait()?;
        let state = self.inner.open_state()?;
        let goal = state.goal_if_appended(lsn)?;
        self.inner.reach(state, goal, true)
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
        self.inner.wait_durable(lsn, timeout)
    }

    /// A future that completes when a record is durable.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`], [`Error::Closed`].
    pub fn durable(&self, lsn: Lsn) -> Result<Commit> {
        let state = self.inner.open_state()?;
        let goal = state.goal_if_appended(lsn)?;
        Ok(Commit::new(self.inner.clone(), lsn, goal))
    }

    /// The last LSN that is durable: it and all before it survive the machine. [`Lsn::ZERO`] if none is. Never waits.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.readable.durable()
    }

    /// The last LSN that the operating system has: it and all before it survive the process.
    #[must_use]
    pub fn written_lsn(&self) -> Lsn {
        self.inner.peek().map_or(self.durable_lsn(), |state| state.flushes.written())
    }

    /// The last LSN that was given out. [`Lsn::ZERO`] if none was.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.inner.peek().map_or(self.durable_lsn(), |state| state.last_lsn())
    }

    /// The first LSN of the log: older records were dropped. It need not be there yet, in an empty log.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.inner.chain().start
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
        Reader::new(self.inner.clone(), lsn)
    }

    /// Iterates over the durable records from an LSN on, or with [`Lsn::ZERO`] from the first. If the LSN was dropped, the first item is
    /// [`Error::Dropped`].
    #[must_use]
    pub fn iter(&self, from: Lsn) -> Iter {
        Iter::forward(self.reader_at(from))
    }

    /// Iterates over the durable records with LSNs in a range. One that begins with [`Lsn::ZERO`], or has no beginning, begins with the first that is there;
    /// else as [`iter`](Log::iter).
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use foreword::Lsn;
    /// log.commit_batch(&["one", "two", "three", "four"])?;
    /// let lsns = |records: foreword::Iter| records.map(|r| r.map(|r| r.lsn.0)).collect::<Result<Vec<_>, _>>();
    /// assert_eq!(lsns(log.range(Lsn(2)..Lsn(4)))?, [2, 3]);
    /// assert_eq!(lsns(log.range(..=Lsn(2)))?, [1, 2]);
    /// # log.close() }
    /// ```
    #[must_use]
    pub fn range(&self, lsns: impl RangeBounds<Lsn>) -> Iter {
        Iter::range(lsns, |from| self.reader_at(from))
    }

    /// Iterates backward over the durable records, from an LSN (or the last, if it is not there yet) to the first. If the LSN was dropped, the
    /// first item is [`Error::Dropped`].
    #[must_use]
    pub fn iter_back(&self, from: Lsn) -> Iter {
        Iter::backward(self.reader_at(from.next()))
    }

    /// One record, which must be durable. A [`Reader`] is better for many. What was written last (32 frames, each of up to 64 KiB) is in memory; what lies
    /// behind is read from the file, the first time from the device.
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
    /// [`Error::NotAppended`] if the LSN is more than one beyond the last; [`Error::NoSpace`]: nothing was dropped; [`Error::Busy`] as for [`hold`](Log::hold); [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    pub fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        self.inner.truncate_front(before)
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
        self.inner.truncate_back(from)
    }

    /// Keeps the record with this LSN and all after it, whatever [`truncate_front`](Log::truncate_front) is told: for an archiver, a replica, a checkpoint. A
    /// hold has a name, by which it is moved and released, and lasts beyond this process: after a restart [`holds`](Log::holds) says where its owner stood.
    ///
    /// [`Lsn::ZERO`] is where the log starts. An LSN that is not appended yet keeps nothing until it is; one that was dropped is an error. A truncation
    /// that a hold bounds drops less, and is no error. A hold that is moved keeps the [limit](Log::hold_up_to) that it had, if any.
    ///
    /// Durable when it returns: it blocks for a flush, unless the hold stands there already. So an owner that works through the log moves it once for many records.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use foreword::Lsn;
    /// log.commit_batch(&["one", "two", "three"])?;
    /// log.hold("replica", Lsn(2))?;
    /// assert_eq!(log.truncate_front(Lsn(4))?, Lsn(2)); // the replica has not got "two"
    /// log.hold("replica", Lsn(4))?;
    /// assert_eq!(log.truncate_front(Lsn(4))?, Lsn(4));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Dropped`] if the LSN is gone, or the hold of that name is [lost](Hold::is_lost): release it, and begin anew. [`Error::Busy`]: another process has had the file `HOLDS` for a tenth of a second; try again. [`Error::Invalid`] for a name that is empty or longer than 64 bytes, or a 33rd hold; [`Error::Poisoned`], [`Error::Closed`], [`Error::NoSpace`].
    pub fn hold(&self, name: &str, lsn: Lsn) -> Result<()> {
        self.inner.hold(name, lsn, None)
    }

    /// The same, with a limit: [`truncate_front`](Log::truncate_front) and [`retention`](Options::retain) stop at the hold only until what it keeps
    /// is more than that, so a consumer that is gone does not fill the disk. What is beyond the limit is dropped with the next truncation, not by itself. Then the hold is
    /// [lost](Hold::is_lost), and to move it is [`Error::Dropped`].
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Error, Limit, Lsn, Options};
    /// let log = Options::new().segment_bytes(64 << 10).open(dir.path())?;
    /// log.hold_up_to("an archiver", Lsn::FIRST, Limit::bytes(100_000))?;
    /// for _ in 0..20 {
    ///     log.commit([0; 10_000])?; //    nobody archives them
    /// }
    /// let start = log.truncate_front(log.last_lsn())?;
    /// assert!(log.bytes_between(start, log.last_lsn().next())? >= 100_000);
    /// assert!(log.holds()["an archiver"].is_lost(start));
    /// assert!(matches!(log.hold("an archiver", Lsn(2)), Err(Error::Dropped { .. })));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// As [`hold`](Log::hold).
    pub fn hold_up_to(&self, name: &str, lsn: Lsn, limit: Limit) -> Result<()> {
        self.inner.hold(name, lsn, Some(limit))
    }

    /// Releases a hold: whether there was one of that name. Durable when it returns.
    ///
    /// # Errors
    /// As [`hold`](Log::hold).
    pub fn release(&self, name: &str) -> Result<bool> {
        self.inner.release(name)
    }

    /// The holds, by name, with those that other processes have placed ([`View::hold`](crate::View::hold)): it reads the small file that those are in.
    #[must_use]
    pub fn holds(&self) -> BTreeMap<String, Hold> {
        self.inner.holds()
    }

    /// Counters and histograms.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The error by which the log accepts nothing more: what poisoned it, or that it was closed. `None` while it is well. Waits for no disk.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// assert!(log.failure().is_none());
    /// log.close()?;
    /// assert!(matches!(log.failure(), Some(foreword::Error::Closed)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let usable = self.inner.dir.check_process().and_then(|()| self.inner.open_state().map(drop));
        usable.err()
    }

    /// Closes the log: ends the background work (a segment that is being filled is given up), makes everything durable that was appended, removes what was
    /// dropped, marks the log as closed and gives the lock up. The error of that last sync is returned here. Blocks for that, and for what other threads are
    /// changing in the log ([`truncate_front`](Log::truncate_front), [`truncate_back`](Log::truncate_back), [`hold`](Log::hold)).
    ///
    /// Any thread may close a log that others use. Their calls give [`Error::Closed`] from then on, appends that wait for room among them, and commits
    /// that were waiting are acknowledged. Readers go on reading; those that wait for more are told that there is none. To close a log again
    /// waits for whoever closes it, and gives what that gave.
    ///
    /// A waker or hook may close the log, too. Where another thread is closing it already, and may be waiting for this very code, that is [`Error::Busy`].
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::sync::Arc;
    /// let log = Arc::new(foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?);
    /// let other = log.clone();
    /// let writer = std::thread::spawn(move || while other.append("a record").is_ok() {});
    /// log.close()?; //    all that was appended is durable
    /// log.close()?; //    nothing more to do
    /// writer.join().unwrap();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the log had failed, or does now; [`Error::LockLost`] in a forked process. The log is closed all the same. [`Error::Busy`]: another
    /// closes it.
    pub fn close(&self) -> Result<()> {
        self.inner.end(self.background.as_ref())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.inner.dir.check_process().is_err() {
            // The threads are not in this process, and what is of them must not be touched.
            std::mem::forget(self.background.take());
            return;
        }
        if self.inner.lock().life.has_ended() {
            return; // Who closed it was told.
        }
        if let Err(error) = self.close() {
            self.inner.report(&error);
        }
    }
}

impl IntoIterator for &Log {
    type Item = Result<Record>;
    type IntoIter = Iter;

    /// The durable records, from the first on: [`iter`](Log::iter) from [`Lsn::ZERO`].
    fn into_iter(self) -> Iter {
        self.iter(Lsn::ZERO)
    }
}
