//! Appending, and waiting until records are durable.

use std::io::IoSlice;
use std::time::{Duration, SystemTime};

use super::{Durability, Log};
#[cfg(doc)]
use crate::Options;
use crate::assemble::payload::Payload;
use crate::assemble::room::{CHECKPOINT_BLOCKS, Urgency};
use crate::format;
use crate::read::record::micros;
use crate::write::ticket::Commit;
use crate::{Error, Lsn, Result};

/// Batches of so many records are appended without an allocation.
const BATCH_ON_STACK: usize = 32;

/// Takes each record's slice once, and under no lock: how it answers, and what the iterator does,
/// is the caller's business.
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

/// The same of each record of a batch.
fn with_batch_parts<'a, const N: usize, T>(
    records: impl IntoIterator<Item = [IoSlice<'a>; N]>,
    with: impl FnOnce(Payload<'_>) -> T,
) -> T {
    const { assert!(N > 0, "a record without parts is an empty one: give it an empty part") };
    let records: Vec<_> = records.into_iter().collect();
    let parts = records.as_flattened().iter().map(|part| &**part);
    with_slices(parts, |parts| with(Payload::batch_parts(parts, records.len())))
}

/// Appending, and waiting until records are durable.
impl Log {
    /// Appends a record: it has its place and LSN, and is in memory ([`Durability::Buffered`]).
    /// Does not wait for the disk, unless the buffers are full ([`Options::buffer_bytes`]) or no
    /// segment is ready. Appends that outrun the background thread give what has gathered, 2 MiB or
    /// more, to the operating system themselves; so does one that finds the buffers full and no
    /// flush under way.
    ///
    /// # Errors
    /// [`Error::TooLarge`] and [`Error::NoSpace`]: nothing was appended, and the log goes on.
    /// [`Error::Busy`], too, which is said only to a waker, a hook or other code that a call runs:
    /// a [cut](Log::truncate_back) of the log is under way, and waits for that code.
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn append(&self, record: impl AsRef<[u8]>) -> Result<Lsn> {
        self.append_one(record.as_ref())
    }

    // (This and `commit_one` stand apart from the others that append: the most frequent calls
    // decide nothing.)
    fn append_one(&self, record: &[u8]) -> Result<Lsn> {
        let (state, unit) = self.inner.append(Payload::records(&[record]), Urgency::Ordinary)?;
        self.inner.settle(state, false)?;
        Ok(unit.first)
    }

    /// Appends a record that lies in parts, a header and a payload say, as [`append`](Log::append)
    /// does: the caller need not join them, for they are copied from where they are. Without any
    /// part the record is empty.
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

    /// As [`commit_async`](Log::commit_async), for a record that lies in
    /// [parts](Log::append_parts).
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

    /// Appends copies of records of another log, from their first LSN on: to restore an archive, or
    /// to keep a standby. They keep their LSNs, and their times to the second (but one in the first
    /// second of 1970, or before that, counts as none: it becomes that of the copy). Each is a
    /// record by itself, as of [`append`](Log::append), and in memory when this returns; after an
    /// error some may have been appended ([`last_lsn`](Log::last_lsn) says how far).
    ///
    /// A log that is to begin with another LSN than 1 is made with [`Options::first_lsn`].
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::{Duration, SystemTime};
    /// use foreword::{Lsn, Options};
    ///
    /// let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    /// let log = Options::new().segment_bytes(1 << 20).first_lsn(Lsn(100)).create_new().open(dir.path())?;
    /// log.append_copies(Lsn(100), [(time, "a record"), (time, "the next")])?;
    /// log.sync()?;
    /// let record = log.iter(Lsn::ZERO).next().unwrap()?;
    /// assert_eq!((record.lsn, record.time, &record.data[..]), (Lsn(100), time, &b"a record"[..]));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if the next LSN of this log is not that of the next copy: another thread
    /// has appended, say; else as [`append`](Log::append).
    pub fn append_copies<R: AsRef<[u8]>>(&self, first: Lsn, copies: impl IntoIterator<Item = (SystemTime, R)>) -> Result<()> {
        let copies: Vec<_> = copies.into_iter().map(|(time, record)| (micros(time), record)).collect();
        let copies: Vec<_> = copies.iter().map(|(time, record)| (*time, record.as_ref())).collect();
        let state = self.inner.append_copies(first, &copies)?;
        self.inner.settle(state, false)
    }

    /// Appends a record as [`append`](Log::append) does, but never waits: not for the lock, a cut,
    /// a segment or the buffers. It returns within a millisecond, whatever other calls do, if it
    /// gets a processor (copying a record of many megabytes takes as long as that takes).
    ///
    /// The background thread is asked for what was missing, so that a later try finds it. Without
    /// [`background`](Options::background) nothing does that: then other calls must write, and
    /// rotate.
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
    /// [`Error::Busy`]: it would have to wait, and nothing was appended. Else as
    /// [`append`](Log::append).
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

    /// As [`try_append_batch`](Log::try_append_batch), for records that lie in
    /// [parts](Log::append_batch_parts).
    ///
    /// # Errors
    /// As [`try_append_batch`](Log::try_append_batch).
    pub fn try_append_batch_parts<'a, const N: usize>(&self, records: impl IntoIterator<Item = [IoSlice<'a>; N]>) -> Result<Lsn> {
        with_batch_parts(records, |unit| self.try_append_unit(unit))
    }

    fn try_append_unit(&self, unit: Payload<'_>) -> Result<Lsn> {
        let (state, unit) = self.inner.try_append(unit)?;
        self.inner.settle_later(state);
        Ok(unit.first)
    }

    /// Appends a record and returns when it is as safe as asked.
    ///
    /// # Errors
    /// As [`append`](Log::append). After any error but `TooLarge` and `NoSpace` the record may or
    /// may not be there after reopening.
    pub fn append_with(&self, record: impl AsRef<[u8]>, durability: Durability) -> Result<Lsn> {
        self.append_unit(Payload::records(&[record.as_ref()]), durability)
    }

    /// Appends a record and returns when it is durable ([`Durability::Synced`]). Concurrent commits
    /// share one flush.
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

    /// Appends several records as one: after a crash all are there or none. The LSN of the first;
    /// the others follow without a gap: of `n` records the last has `first + (n - 1)`, which is
    /// what [`sync_to`](Log::sync_to) and [`wait_durable`](Log::wait_durable) are to be given for
    /// the whole batch. As [`append`](Log::append) otherwise.
    ///
    /// They come from a slice, a `Vec`, or an iterator that lends them. Of up to 32, no list is
    /// allocated.
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

    /// As [`append_batch`](Log::append_batch), for records that lie in [parts](Log::append_parts):
    /// each in as many as the others, of which any may be empty; `[IoSlice; 0]` does not compile. A
    /// list of them is allocated; the bytes are copied once, from where they are.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use std::io::IoSlice;
    /// let changes = [("x", "1"), ("y", "2")];
    /// let first = log.append_batch_parts(changes.iter().map(|(key, value)| {
    ///     [key, " = ", value].map(|part| IoSlice::new(part.as_bytes()))
    /// }))?;
    /// log.sync()?;
    /// assert_eq!(log.get(first.next())?, b"y = 2");
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    pub fn append_batch_parts<'a, const N: usize>(&self, records: impl IntoIterator<Item = [IoSlice<'a>; N]>) -> Result<Lsn> {
        self.append_batch_parts_with(records, Durability::Buffered)
    }

    /// As [`append_batch_parts`](Log::append_batch_parts), and returns when the records are
    /// durable.
    ///
    /// # Errors
    /// As [`commit_batch`](Log::commit_batch).
    pub fn commit_batch_parts<'a, const N: usize>(&self, records: impl IntoIterator<Item = [IoSlice<'a>; N]>) -> Result<Lsn> {
        self.append_batch_parts_with(records, Durability::Synced)
    }

    /// As [`append_batch_parts`](Log::append_batch_parts), and returns when the records are as safe
    /// as asked.
    ///
    /// # Errors
    /// As [`append_batch_with`](Log::append_batch_with).
    pub fn append_batch_parts_with<'a, const N: usize>(
        &self,
        records: impl IntoIterator<Item = [IoSlice<'a>; N]>,
        durability: Durability,
    ) -> Result<Lsn> {
        with_batch_parts(records, |unit| self.append_unit(unit, durability))
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

    /// Appends a record and returns at once with a [`Commit`], a future that completes when the
    /// record is durable. Thousands may be in flight from one thread; dropping the future changes
    /// nothing for the record. As [`append`](Log::append) it waits where the buffers are full or no
    /// segment is ready, but writes nothing itself, unless the buffers are full and no flush is
    /// under way (while the thread that flushes runs a [hook](Options::on_durable), say).
    ///
    /// # Errors
    /// As [`append`](Log::append).
    pub fn commit_async(&self, record: impl AsRef<[u8]>) -> Result<Commit> {
        self.commit_unit_async(Payload::records(&[record.as_ref()]))
    }

    /// As [`commit_async`](Log::commit_async), for a batch. It completes with the LSN of the first
    /// record.
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    pub fn commit_batch_async<'a, R: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        records: impl IntoIterator<Item = &'a R>,
    ) -> Result<Commit> {
        with_slices(records, |records| self.commit_unit_async(Payload::records(records)))
    }

    /// As [`commit_batch_async`](Log::commit_batch_async), for records that lie in
    /// [parts](Log::append_batch_parts).
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    pub fn commit_batch_parts_async<'a, const N: usize>(
        &self,
        records: impl IntoIterator<Item = [IoSlice<'a>; N]>,
    ) -> Result<Commit> {
        with_batch_parts(records, |unit| self.commit_unit_async(unit))
    }

    fn commit_unit_async(&self, unit: Payload<'_>) -> Result<Commit> {
        let (state, unit) = self.inner.append(unit, Urgency::Ordinary)?;
        self.inner.settle(state, true)?;
        Ok(Commit::new(self.inner.clone(), unit.first, unit.last))
    }

    /// Commits a small record (up to some 7 KiB) for which room is kept in every segment, so that
    /// it succeeds on a full disk: a checkpoint, after which
    /// [`truncate_front`](Log::truncate_front) makes space.
    ///
    /// # Errors
    /// As [`commit`](Log::commit). [`Error::NoSpace`] only when the room was used up by earlier
    /// ones, and no truncation between freed a segment. A segment has room for one of any size, or
    /// for two that fit into a block. Then one of the two segments in reserve is used; the other is
    /// for opening the log.
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

    /// Gives everything appended so far to the operating system ([`Durability::Written`]): the last
    /// LSN that this covers.
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
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`],
    /// [`Error::Closed`].
    pub fn sync_to(&self, lsn: Lsn) -> Result<()> {
        if self.durable_lsn() >= lsn {
            return Ok(());
        }
        self.inner.may_wait()?;
        let state = self.inner.open_state()?;
        let goal = state.goal_if_appended(lsn)?;
        self.inner.reach(state, goal, true)
    }

    /// Waits for a record to become durable by whatever makes it so (the
    /// [`SyncPolicy`](crate::SyncPolicy), or another call's sync), without asking for a flush: for
    /// as long as it takes, or the time given. Whether it is durable: `false` when the time is
    /// over, or when the log was closed before it was. If the record is [cut
    /// off](Log::truncate_back) meanwhile, it was durable before: `true`.
    ///
    /// [`sync_to`](Log::sync_to) makes it durable now.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`]. [`Error::Busy`]
    /// without a time, in a [hook](Options::on_durable) or waker on which the flush may have to
    /// wait.
    pub fn wait_durable(&self, lsn: Lsn, timeout: Option<Duration>) -> Result<bool> {
        self.inner.wait_durable(lsn, timeout)
    }

    /// A future that completes when a record is durable. Like every [`Commit`], it asks for a flush
    /// in the background, whatever the [`SyncPolicy`](crate::SyncPolicy);
    /// [`wait_durable`](Log::wait_durable) does not.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if there is no such record yet; [`Error::Poisoned`],
    /// [`Error::Closed`].
    pub fn durable(&self, lsn: Lsn) -> Result<Commit> {
        let state = self.inner.open_state()?;
        let goal = state.goal_if_appended(lsn)?;
        Ok(Commit::new(self.inner.clone(), lsn, goal))
    }
}
