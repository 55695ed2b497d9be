//! A group's log: what a Raft node writes and reads.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use foreword::Lsn;

use crate::logs::Shared;
use crate::record::{Body, Previous, Record};
use crate::state::GroupState;
use crate::waiters::{Callback, lock};
use crate::{Error, Result};

/// How often a read begins again because compaction, or a purge, dropped what it was about to read. Each time means a whole step of compaction.
const READ_AGAIN: usize = 100;

/// A group as all handles to it share it.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) state: Mutex<GroupState>,
}

/// An entry that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// The caller's bytes.
    pub data: Vec<u8>,
}

/// An index with bytes of the caller's: the term that belongs to it, or a whole log id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Noted {
    /// The index.
    pub index: u64,
    /// The caller's bytes.
    pub note: Vec<u8>,
}

/// A handle to the log of one group. Clones are handles to the same; any thread may use any.
///
/// A call that writes holds the group's lock while it puts its records into memory, in the log's order. It waits for the disk only where the log's buffers are
/// full or no segment is ready, as [`foreword::Log::append`] does. If it returns an error, nothing was written: only after [`Poisoned`](foreword::Error::Poisoned)
/// it is not known. What calls write becomes durable in the order of the calls, over all groups: what is durable after a crash is a prefix of it.
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

    /// Saves the vote (with the term: whatever the caller's bytes say). Durable when it returns, and so is all that the group has written before. Blocks for a flush,
    /// which concurrent calls share.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`]; [`Error::Log`]. If the flush fails, it is not known whether the vote is there after the logs are opened anew.
    pub fn save_vote(&self, vote: impl AsRef<[u8]>) -> Result<()> {
        let vote = vote.as_ref();
        let lsn = self.change(|_| Ok(Some(Body::Vote(vote))))?;
        self.wait(lsn)
    }

    /// The newest vote, which may be one that is being saved. `None` if there is none. Does not wait for the disk.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn vote(&self) -> Result<Option<Vec<u8>>> {
        self.look(|state| state.vote.as_ref().map(|vote| vote.value.to_vec()))
    }

    /// Appends entries with their indices, one after the other from the one that follows the [last](Group::last) on; in a group without any, from 0 or 1 on. They can be
    /// read when it returns, and are not durable then: `done` is called when they are, or with the error by which they may not be.
    ///
    /// `done` is called exactly once if this returns `Ok`, and never if it returns an error. The callbacks of a group are called in the order of its appends, on one
    /// thread for all groups, under no lock; so be quick, or hand over. A callback may use the logs; one that panics harms nobody. Without
    /// [background](crate::Options::background), the calls that make records durable call them. Without entries it is called when all is durable that
    /// the group has written so far.
    ///
    /// All entries of a call are one batch: after a crash all are there or none.
    ///
    /// # Errors
    /// Nothing was written: [`Error::NotNext`]; [`Error::Invalid`] for the index `u64::MAX`; [`Error::Removed`], [`Error::GroupDamaged`]; [`Error::Log`], with
    /// [`TooLarge`](foreword::Error::TooLarge) if the entries are more than [`record_bytes_max`](foreword::Options::record_bytes_max), 64 MiB by default.
    pub fn append<D: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (u64, D)>,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        // What the iterator does, it does under no lock.
        let entries: Vec<(u64, Arc<[u8]>)> = entries.into_iter().map(|(index, data)| (index, data.as_ref().into())).collect();
        let mut state = lock(&self.slot.state);
        state.check(self.id)?;
        let mut expected = match (state.last(), entries.first()) {
            (Some(last), _) => last + 1,
            (None, Some((0, _))) => 0,
            (None, _) => 1,
        };
        let mut previous = Previous::after(state.last_record);
        let mut records = Vec::with_capacity(entries.len());
        for (index, data) in &entries {
            if *index == u64::MAX {
                return Err(too_large_an_index());
            }
            if *index != expected {
                return Err(Error::NotNext { group: self.id, index: *index, expected });
            }
            records.push(Record { group: self.id, previous, moved: false, body: Body::Append(*index, data) });
            (previous, expected) = (Previous::Adjacent, index + 1);
        }
        let bytes: Vec<Vec<u8>> = records.iter().map(Record::encode).collect();
        let mut last = state.last_record;
        if !records.is_empty() {
            let first = self.shared.log.append_batch(&bytes)?;
            let durable = self.shared.log.durable_lsn();
            for (n, (record, (_, data))) in (0..).zip(records.iter().zip(&entries)) {
                last = Lsn(first.0 + n);
                self.shared.apply(&mut state, last, bytes[n as usize].len(), record);
                self.shared.cache.put(last, data.clone(), durable);
            }
        }
        let done: Callback = Box::new(done);
        self.shared.waiters.add(last, done);
        drop(state);
        self.shared.after_write();
        Ok(())
    }

    /// Forgets the entries behind an index; with `None`, all. What is appended next follows it. Nothing is written if there are none.
    ///
    /// It holds for reads and appends when it returns, and is durable when anything that is written after it is: an append's callback, a vote,
    /// [`sync`](Group::sync). After a crash before that, the entries may be back, for nothing that relies on it was acknowledged.
    ///
    /// # Errors
    /// Nothing was written: [`Error::Purged`] if that would cut into what was purged; [`Error::Removed`], [`Error::GroupDamaged`], [`Error::Log`].
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

    /// Forgets the entries up to an index, which a snapshot stands for. It may lie beyond the last, as after the snapshot of a leader was installed: then there are
    /// none left, and the next entry follows the index. The note is for the caller: the term of the entry, or its whole id. Nothing is written if the
    /// group was purged up to there already.
    ///
    /// It holds when it returns, and is durable as [`truncate_after`](Group::truncate_after) is. Space comes back with [compaction](crate::GroupLogs::compact).
    ///
    /// # Errors
    /// Nothing was written: [`Error::Invalid`] for the index `u64::MAX`; [`Error::Removed`], [`Error::GroupDamaged`], [`Error::Log`].
    pub fn purge(&self, index: u64, note: impl AsRef<[u8]>) -> Result<()> {
        let note = note.as_ref();
        self.change(|state| match state.purged_to() {
            _ if index == u64::MAX => Err(too_large_an_index()),
            Some(purged) if index <= purged => Ok(None),
            _ => Ok(Some(Body::Purge(index, note))),
        })
        .map(drop)
    }

    /// Up to where the group was purged, and the note of that. `None` if it never was.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn purged(&self) -> Result<Option<Noted>> {
        self.look(|state| state.purged.as_ref().map(|purged| noted(&purged.value)))
    }

    /// Saves up to which index entries are committed, with a note. It is not compared with anything: it is a hint by which a restart applies entries sooner. Durable
    /// as [`truncate_after`](Group::truncate_after) is.
    ///
    /// # Errors
    /// Nothing was written: as [`purge`](Group::purge).
    pub fn save_committed(&self, index: u64, note: impl AsRef<[u8]>) -> Result<()> {
        let note = note.as_ref();
        let body = if index == u64::MAX { Err(too_large_an_index()) } else { Ok(Some(Body::Committed(index, note))) };
        self.change(|_| body).map(drop)
    }

    /// What was last saved as committed. `None` if nothing was.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn committed(&self) -> Result<Option<Noted>> {
        self.look(|state| state.committed.as_ref().map(|committed| noted(&committed.value)))
    }

    /// The index of the first entry that is there. `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn first(&self) -> Result<Option<u64>> {
        self.look(|state| state.entries.first())
    }

    /// The last index: of the last entry, or, without entries, that up to which the group was purged. `None` if it is new.
    ///
    /// # Errors
    /// [`Error::Removed`], [`Error::GroupDamaged`].
    pub fn last(&self) -> Result<Option<u64>> {
        self.look(GroupState::last)
    }

    /// The entry at an index; `None` if it lies behind the last. As [`entries`](Group::entries).
    ///
    /// # Errors
    /// As [`entries`](Group::entries).
    pub fn get(&self, index: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.entries(index..=index, 0)?.pop().map(|entry| entry.data))
    }

    /// The entries with indices in a range, as far as they are there: from its beginning on, until their records are more than `bytes_max` bytes, but at least one.
    /// (A record has up to 32 bytes more than the entry.) Entries that are not durable yet are read, too.
    ///
    /// The newest come from memory, others from the files. Blocks for reading them; no lock is held meanwhile. What is returned was in the log at one time:
    /// a truncation that comes meanwhile does not mix what was there before and after.
    ///
    /// # Errors
    /// [`Error::Purged`] if the range begins in what was purged; [`Error::Removed`], [`Error::GroupDamaged`]; [`Error::Log`] with
    /// [`Corruption`](foreword::Error::Corruption) or [`Io`](foreword::Error::Io) of what cannot be read.
    pub fn entries(&self, range: impl RangeBounds<u64>, bytes_max: u64) -> Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(&from) => Some(from),
            Bound::Excluded(&before) => Some(before.saturating_add(1)),
            Bound::Unbounded => None,
        };
        let behind = match range.end_bound() {
            Bound::Included(&to) => to.saturating_add(1),
            Bound::Excluded(&to) => to,
            Bound::Unbounded => u64::MAX,
        };
        let mut attempts = 0;
        loop {
            match self.read(&self.places(from, behind, bytes_max)?) {
                // Compaction moved it meanwhile, or it was purged.
                Err(Error::Log(foreword::Error::Dropped { .. })) if attempts < READ_AGAIN => attempts += 1,
                read => return read,
            }
        }
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

    /// Makes all durable that the group has written so far. Blocks for a flush, unless it is.
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

    /// Writes what a rule says, unless it says that there is nothing to do.
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

fn noted((index, note): &(u64, Box<[u8]>)) -> Noted {
    Noted { index: *index, note: note.to_vec() }
}

fn too_large_an_index() -> Error {
    Error::Invalid { what: "index", why: "u64::MAX is not one: no entry could follow it".to_owned() }
}
