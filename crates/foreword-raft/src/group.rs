//! A handle to a group: what a Raft node writes and reads.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use foreword::Lsn;

use crate::batch::{Batch, too_large_an_index};
use crate::record::{Body, Previous, Record};
use crate::shared::{Shared, Slot};
use crate::state::GroupState;
use crate::sync::lock;
use crate::waiters::Callback;
use crate::{Error, Result};

/// How often a read begins again because compaction or a purge dropped what it was about to read.
/// Each attempt takes a whole step of compaction to fail.
const READ_AGAIN: usize = 100;

/// An entry, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The entry's index.
    pub index: u64,
    /// The caller's bytes.
    pub data: Vec<u8>,
}

/// An index with a note of the caller's: its term, or a whole log id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Noted {
    /// The index.
    pub index: u64,
    /// The caller's bytes.
    pub note: Vec<u8>,
}

/// A handle to the log of one group. Clones are handles to the same group. Any thread may use a
/// handle.
///
/// A call that writes holds the group's lock while it puts its records into the log's buffers. The
/// call waits for the disk only if the buffers are full or no segment is ready, as
/// [`foreword::Log::append`] does. If a call returns an error, nothing was written; only after
/// [`Poisoned`](foreword::Error::Poisoned) this is not known. Records become durable in the order
/// of the calls, over all groups: a crash leaves a prefix.
#[derive(Clone)]
pub struct Group {
    pub(crate) id: u64,
    pub(crate) slot: Arc<Slot>,
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Group {
    /// The group's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Saves the vote: any bytes of the caller's, such as a term and a node. The vote, and all that
    /// the group wrote before, are durable when the call returns. Blocks for a flush, which
    /// concurrent calls share.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`]; [`Error::Log`]. If the flush fails, the vote
    /// may or may not be there after the logs are opened anew.
    pub fn save_vote(&self, vote: impl AsRef<[u8]>) -> Result<()> {
        let vote = vote.as_ref();
        let lsn = self.change(|_| Ok(Some(Body::Vote(vote))))?;
        self.wait(lsn)
    }

    /// The newest vote, which may not be durable yet. `None` if there is none. Does not wait for
    /// the disk.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn vote(&self) -> Result<Option<Vec<u8>>> {
        self.look(|state| state.vote.as_ref().map(|vote| vote.value.to_vec()))
    }

    /// Appends entries with consecutive indices, beginning behind the [last](Group::last) index; in
    /// a new group, with 0 or 1. When the call returns, the entries can be read, but are not
    /// durable. `done` is called when they are durable, or with the error because of which they may
    /// not be.
    ///
    /// `done` is called exactly once if this call returns `Ok`, and never if it returns an error.
    /// One thread calls the callbacks of all groups, without a lock, and those of a group in the
    /// order of its appends. So a callback should be quick, or hand its work over. A callback may
    /// use the logs, and a panic in one affects no other. Without [background
    /// threads](crate::Options::background), the calls that make records durable call the
    /// callbacks. If there are no entries, `done` is called when everything that the group has
    /// written so far is durable.
    ///
    /// The entries of a call are one batch: after a crash, all are there or none is.
    ///
    /// # Errors
    /// Nothing was written: [`Error::NotNext`]; [`Error::Invalid`] for the index `u64::MAX`;
    /// [`Error::Removed`], [`Error::GroupDamaged`]; [`Error::Log`], with
    /// [`TooLarge`](foreword::Error::TooLarge) if the entries have more bytes than
    /// [`record_bytes_max`](foreword::Options::record_bytes_max), 64 MiB by default.
    pub fn append<D: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (u64, D)>,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        self.submit(&Batch { entries: owned(entries), ..Batch::default() }, done)
    }

    /// Appends entries as [`append`](Group::append) does, and returns when they are durable, and so
    /// is all that the group has written before. Blocks for a flush, which concurrent calls share:
    /// for a thread that has nothing else to do meanwhile, cheaper than a callback by two switches
    /// of threads.
    ///
    /// # Errors
    /// Those of [`append`](Group::append), after which nothing was written. If the flush fails
    /// ([`Error::Log`]), it is not known whether the entries are there after the logs are opened
    /// anew.
    pub fn commit<D: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = (u64, D)>) -> Result<()> {
        self.begin_commit(entries)?.wait()
    }

    /// The first half of a [`commit`](Group::commit): appends the entries, which can be read when it
    /// returns. [`Commit::wait`] is the other. For threads that append to one group: what gives each
    /// its index can be a lock, which they let go before they wait, and so they share flushes.
    /// Blocks as [`append`](Group::append) does.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword_raft::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let logs = foreword_raft::Options::new().open(dir.path())?;
    /// let next = std::sync::Mutex::new(1);
    /// let append = |data: &str| {
    ///     let mut next = next.lock().unwrap();
    ///     let commit = logs.group(7).begin_commit([(*next, data)])?;
    ///     *next += 1;
    ///     drop(next);
    ///     commit.wait()
    /// };
    /// append("one")?;
    /// append("two")?;
    /// assert_eq!(logs.group(7).last()?, Some(2));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`append`](Group::append), after which nothing was written.
    pub fn begin_commit<D: AsRef<[u8]>>(&self, entries: impl IntoIterator<Item = (u64, D)>) -> Result<Commit> {
        let batch = Batch { entries: owned(entries), ..Batch::default() };
        let last = self.place(&mut lock(&self.slot.state), &batch)?;
        self.shared.after_write();
        Ok(Commit { group: self.clone(), last })
    }

    /// Writes a batch, which is in force when this returns. `done` is called as
    /// [`append`](Group::append) says, also if there is nothing to write.
    pub(crate) fn submit(&self, batch: &Batch<'_>, done: impl FnOnce(Result<()>) + Send + 'static) -> Result<()> {
        let done: Callback = Box::new(done);
        let mut state = lock(&self.slot.state);
        let last = self.place(&mut state, batch)?;
        self.shared.waiters.add(last, done);
        drop(state);
        self.shared.after_write();
        Ok(())
    }

    /// Writes a batch. Returns the LSN of the group's newest record.
    pub(crate) fn place(&self, state: &mut GroupState, batch: &Batch<'_>) -> Result<Lsn> {
        state.check(self.id)?;
        let mut previous = Previous::after(state.last_record);
        let mut records = Vec::with_capacity(batch.entries.len() + 3);
        for body in batch.bodies(self.id, state)? {
            records.push(Record { group: self.id, previous, moved: false, body });
            previous = Previous::Adjacent;
        }
        if !records.is_empty() {
            let bytes: Vec<Vec<u8>> = records.iter().map(Record::encode).collect();
            let first = self.shared.log.append_batch(&bytes)?;
            let durable = self.shared.log.durable_lsn();
            let mut entries = batch.entries.iter();
            for (n, record) in (0..).zip(&records) {
                let lsn = Lsn(first.0 + n);
                self.shared.apply(state, lsn, bytes[n as usize].len(), record);
                if matches!(record.body, Body::Append(..))
                    && let Some((_, data)) = entries.next()
                {
                    self.shared.cache.put(lsn, data.clone(), durable);
                }
            }
        }
        Ok(state.last_record)
    }

    /// Removes the entries behind an index; with `None`, all entries. The next entry follows that
    /// index. Nothing is written if there are no such entries.
    ///
    /// Reads and appends see the truncation when the call returns. The truncation is durable when
    /// anything written after it is: an append's callback was called, a vote was saved, or
    /// [`sync`](Group::sync) returned. After a crash before that, the entries may be back, since
    /// nothing that relies on the truncation was acknowledged.
    ///
    /// # Errors
    /// Nothing was written: [`Error::Purged`] if the index lies in what was purged;
    /// [`Error::Removed`], [`Error::GroupDamaged`], [`Error::Log`].
    pub fn truncate_after(&self, index: impl Into<Option<u64>>) -> Result<()> {
        let index = index.into();
        self.change(|state| {
            if let Some(purged) = state.purged_to()
                && index.is_none_or(|index| index < purged)
            {
                return Err(Error::Purged { group: self.id, index: index.unwrap_or(0), purged });
            }
            let cuts = state.entries.last().is_some_and(|last| index.is_none_or(|index| index < last));
            Ok(cuts.then_some(Body::TruncateAfter(index)))
        })
        .map(drop)
    }

    /// Removes the entries up to an index, because a snapshot has them. The index may lie beyond
    /// the last entry, as after a leader's snapshot was installed; then no entries are left, and
    /// the next entry follows the index. The note is for the caller: the entry's term, or its whole
    /// log id. Nothing is written if the group was purged up to there already (but a note
    /// is, if that was without one).
    ///
    /// The purge is in force when the call returns, and becomes durable as
    /// [`truncate_after`](Group::truncate_after) does. [Compaction](crate::GroupLogs::compact)
    /// frees the space.
    ///
    /// # Errors
    /// Nothing was written: [`Error::Invalid`] for the index `u64::MAX`; [`Error::Removed`],
    /// [`Error::GroupDamaged`], [`Error::Log`].
    pub fn purge(&self, index: u64, note: impl AsRef<[u8]>) -> Result<()> {
        let note = note.as_ref();
        self.change(|state| match state.purged_to() {
            _ if index == u64::MAX => Err(too_large_an_index()),
            Some(purged) if index < purged || index == purged && (note.is_empty() || state.has_purge_note()) => Ok(None),
            _ => Ok(Some(Body::Purge(index, note))),
        })
        .map(drop)
    }

    /// The index up to which the group was purged, and its note. `None` if the group never was.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn purged(&self) -> Result<Option<Noted>> {
        self.look(|state| state.purged.as_ref().map(|purged| noted(&purged.value)))
    }

    /// Saves the index up to which entries are committed, with a note. The index is not checked: it
    /// is a hint, with which a restarted node applies entries sooner. Becomes durable as
    /// [`truncate_after`](Group::truncate_after) does.
    ///
    /// # Errors
    /// Nothing was written: as [`purge`](Group::purge).
    pub fn save_committed(&self, index: u64, note: impl AsRef<[u8]>) -> Result<()> {
        let note = note.as_ref();
        let body = if index == u64::MAX { Err(too_large_an_index()) } else { Ok(Some(Body::Committed(index, note))) };
        self.change(|_| body).map(drop)
    }

    /// The committed index that was saved last, with its note. `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn committed(&self) -> Result<Option<Noted>> {
        self.look(|state| state.committed.as_ref().map(|committed| noted(&committed.value)))
    }

    /// The index of the first entry. `None` if there are no entries.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn first(&self) -> Result<Option<u64>> {
        self.look(|state| state.entries.first())
    }

    /// The last index: that of the last entry, or without entries, that up to which the group was
    /// purged. `None` if the group is new.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn last(&self) -> Result<Option<u64>> {
        self.look(GroupState::last)
    }

    /// The entry at an index; `None` behind the last. Otherwise as [`entries`](Group::entries).
    ///
    /// # Errors
    /// As [`entries`](Group::entries).
    pub fn get(&self, index: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.entries(index..=index, 0)?.pop().map(|entry| entry.data))
    }

    /// The entries with indices in a range, as far as they exist. Returns as many, from the
    /// beginning of the range on, as have records of at most `bytes_max` bytes in all, but at least
    /// one. (A record has up to 32 bytes more than its entry.) Entries that are not durable yet are
    /// read, too.
    ///
    /// The newest entries come from memory, others from the files, for which the call blocks. No
    /// lock is held meanwhile. All returned entries were in the log at the same time: a concurrent
    /// truncation does not mix old and new ones.
    ///
    /// # Errors
    /// [`Error::Purged`] if the range begins in what was purged; [`Error::Removed`],
    /// [`Error::GroupDamaged`]; [`Error::Log`] with [`Corruption`](foreword::Error::Corruption) or
    /// [`Io`](foreword::Error::Io) if an entry cannot be read.
    pub fn entries(&self, range: impl RangeBounds<u64>, bytes_max: u64) -> Result<Vec<Entry>> {
        let (from, behind) = bounds(&range);
        let from = (range.start_bound() != Bound::Unbounded).then_some(from);
        let mut attempts = 0;
        loop {
            match self.read(&self.places(from, behind, bytes_max)?) {
                // Compaction moved the entry meanwhile, or it was purged.
                Err(Error::Log(foreword::Error::Dropped { .. })) if attempts < READ_AGAIN => attempts += 1,
                read => return read,
            }
        }
    }

    /// The same, if none of them has to be read from the files. Does not wait for the disk.
    #[cfg(any(feature = "openraft", feature = "openraft-09"))]
    pub(crate) fn entries_from_memory(&self, from: u64, behind: u64, bytes_max: u64) -> Result<Option<Vec<Entry>>> {
        let places = self.places(Some(from), behind, bytes_max)?;
        let entry = |&(index, lsn)| self.shared.cache.get(lsn).map(|data| Entry { index, data: data.to_vec() });
        Ok(places.iter().map(entry).collect())
    }

    /// Whether a thread calls the callbacks. If none does, they are called by who makes records
    /// durable.
    #[cfg(any(feature = "openraft", feature = "openraft-09"))]
    pub(crate) fn has_callback_thread(&self) -> bool {
        !self.shared.ended.load(std::sync::atomic::Ordering::Acquire)
    }

    fn places(&self, from: Option<u64>, behind: u64, bytes_max: u64) -> Result<Vec<(u64, Lsn)>> {
        let state = lock(&self.slot.state);
        state.check(self.id)?;
        if let (Some(from), Some(purged)) = (from, state.purged_to())
            && from <= purged
            && from < behind
        {
            return Err(Error::Purged { group: self.id, index: from, purged });
        }
        let (mut places, mut bytes) = (Vec::new(), 0);
        let mut index = from.or(state.entries.first()).unwrap_or(0);
        if from == Some(0) && state.entries.first() == Some(1) {
            index = 1; // There is no entry 0 in this group.
        }
        while index < behind
            && let Some(place) = state.entries.get(index)
        {
            bytes += u64::from(place.bytes);
            if bytes > bytes_max && !places.is_empty() {
                break;
            }
            places.push((index, place.lsn));
            index += 1;
        }
        Ok(places)
    }

    fn read(&self, places: &[(u64, Lsn)]) -> Result<Vec<Entry>> {
        let mut reader = None;
        let mut entries = Vec::with_capacity(places.len());
        for &(index, lsn) in places {
            let data = match self.shared.cache.get(lsn) {
                Some(data) => data.to_vec(),
                None => {
                    let record = reader.get_or_insert_with(|| self.shared.log.reader_at(lsn)).get(lsn)?;
                    match Record::decode(lsn, record.data)? {
                        Record { group, body: Body::Append(at, data), .. } if group == self.id && at == index => data.to_vec(),
                        _ => return Err(Error::BadRecord { lsn, why: "another was written there" }),
                    }
                }
            };
            entries.push(Entry { index, data });
        }
        Ok(entries)
    }

    /// Makes everything durable that the group has written so far. Blocks for a flush, unless all
    /// is durable already.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`], [`Error::Log`].
    pub fn sync(&self) -> Result<()> {
        let lsn = self.look(|state| state.last_record)?;
        self.wait((lsn > Lsn::ZERO).then_some(lsn))
    }

    fn wait(&self, lsn: Option<Lsn>) -> Result<()> {
        let synced = lsn.map_or(Ok(()), |lsn| self.shared.log.sync_to(lsn));
        self.shared.after_sync();
        Ok(synced?)
    }

    fn look<T>(&self, look: impl FnOnce(&GroupState) -> T) -> Result<T> {
        let state = lock(&self.slot.state);
        state.check(self.id)?;
        Ok(look(&state))
    }

    /// Writes the record that a rule returns, if any.
    fn change<'a>(&self, rule: impl FnOnce(&GroupState) -> Result<Option<Body<'a>>>) -> Result<Option<Lsn>> {
        let mut state = lock(&self.slot.state);
        state.check(self.id)?;
        let Some(body) = rule(&state)? else { return Ok(None) };
        let lsn = self.shared.write(&mut state, self.id, false, body)?.lsn;
        drop(state);
        self.shared.after_write();
        Ok(Some(lsn))
    }
}

/// Entries that were appended, and may not be durable yet; see [`Group::begin_commit`]. Without a
/// call of [`wait`](Commit::wait) they become durable with what is made so later.
#[derive(Debug)]
#[must_use = "what was appended is not durable yet"]
pub struct Commit {
    group: Group,
    last: Lsn,
}

impl Commit {
    /// Returns when the entries are durable, and so is all that the group wrote before. Blocks for a
    /// flush, which concurrent calls share.
    ///
    /// # Errors
    /// [`Error::Log`], if the flush fails: it is not known whether the entries are there after the
    /// logs are opened anew.
    pub fn wait(self) -> Result<()> {
        self.group.wait((self.last > Lsn::ZERO).then_some(self.last))
    }
}

/// The indices of a range: the first, and the one behind the last. (Public for `foreword-cluster`.)
#[doc(hidden)]
pub fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&from) => from,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let behind = match range.end_bound() {
        Bound::Included(&to) => to.saturating_add(1),
        Bound::Excluded(&to) => to,
        Bound::Unbounded => u64::MAX,
    };
    (from, behind)
}

fn noted((index, note): &(u64, Box<[u8]>)) -> Noted {
    Noted { index: *index, note: note.to_vec() }
}

/// The entries with their bytes. The caller's iterator runs under no lock.
fn owned<D: AsRef<[u8]>>(entries: impl IntoIterator<Item = (u64, D)>) -> Vec<(u64, Arc<[u8]>)> {
    entries.into_iter().map(|(index, data)| (index, data.as_ref().into())).collect()
}
