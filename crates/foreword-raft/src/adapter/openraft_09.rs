//! Storage for [openraft](::openraft_09) 0.9 (feature `openraft-09`): the log of a group as
//! [`RaftLogStorage`] and
//! [`RaftLogReader`], with openraft's feature `storage-v2`.
//!
//! It is used as that for 0.10 is, writes the same bytes, and has the same traps. What differs:
//!
//! - This version waits for the callback of each append before it goes on. So a group has one
//!   append in a flush; those of other groups share it.
//! - `truncate` takes the first log id that goes. It and `save_vote` and `purge` are durable when
//!   they are done; `save_committed` is with what is written after it.
//! - Entries that are not in memory are read by a thread of their own, for this version's runtime
//!   has none for that.

use std::fmt;
use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use ::openraft_09 as openraft;

use openraft::async_runtime::AsyncOneshotSendExt;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig, StorageError, Vote};

use crate::Group;
use crate::adapter::codec::{self, undecodable};
use crate::adapter::{self, BYTES_AT_ONCE};
use crate::batch::{Batch, Cut};
use crate::group::bounds;

pub use crate::adapter::codec::Undecodable;

type Stored<T, C> = Result<T, StorageError<<C as RaftTypeConfig>::NodeId>>;

/// The log of a group as openraft's [`RaftLogStorage`] and [`RaftLogReader`]. Clones are handles to
/// the same.
pub struct LogStore<C> {
    group: Group,
    types: PhantomData<fn() -> C>,
}

impl<C> Clone for LogStore<C> {
    fn clone(&self) -> LogStore<C> {
        LogStore::new(self.group.clone())
    }
}

impl<C> fmt::Debug for LogStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogStore").field(&self.group).finish()
    }
}

impl<C> LogStore<C> {
    /// The storage of a group. Its [logs](crate::GroupLogs) must live as long.
    #[must_use]
    pub fn new(group: Group) -> LogStore<C> {
        LogStore { group, types: PhantomData }
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }
}

impl<C: RaftTypeConfig> LogStore<C> {
    /// Writes a batch at once, and waits until it is durable, without a thread that does.
    async fn write_through(&self, batch: Batch<'_>) -> io::Result<()> {
        let (done, durable) = C::oneshot();
        self.group.submit(&batch, |result| drop(done.send(result.map_err(io::Error::from))))?;
        drop(batch);
        if !self.group.has_callback_thread() {
            self.group.sync()?;
        }
        durable.await.map_err(|_| io::Error::other("the logs went away"))?
    }

    /// Entries from memory, or else by a thread that may wait for the disk.
    async fn read(&self, range: (u64, u64), bytes_max: u64) -> io::Result<Vec<C::Entry>> {
        let entries = match adapter::read_from_memory(&self.group, range, bytes_max)? {
            Some(entries) => entries,
            None => {
                let (group, (done, read)) = (self.group.clone(), C::oneshot());
                let work = move || drop(done.send(adapter::read(&group, range, bytes_max)));
                std::thread::Builder::new().name("foreword-read".to_owned()).spawn(work)?;
                read.await.map_err(|_| io::Error::other("the thread that reads ended"))??
            }
        };
        entries.into_iter().map(|entry| self.entry(entry)).collect()
    }

    fn entry(&self, read: crate::Entry) -> io::Result<C::Entry> {
        let entry: C::Entry = codec::decode(self.group.id(), "entry", Some(read.index), &read.data)?;
        let index = entry.get_log_id().index;
        if index != read.index {
            return Err(undecodable(self.group.id(), "entry", Some(read.index), format!("it says that it is entry {index}")));
        }
        Ok(entry)
    }

    fn log_id(&self, what: &'static str, noted: Option<crate::Noted>) -> io::Result<Option<LogId<C::NodeId>>> {
        let noted = noted.filter(|noted| !noted.note.is_empty());
        noted.map(|noted| codec::decode(self.group.id(), what, Some(noted.index), &noted.note)).transpose()
    }

    async fn log_state(&self) -> io::Result<LogState<C>> {
        let last_purged_log_id = self.log_id("purged log id", self.group.purged()?)?;
        let last = match self.group.last()? {
            Some(last) => self.read((last, last + 1), 0).await?.pop(),
            None => None,
        };
        let last_log_id = last.map(|entry| entry.get_log_id().clone()).or_else(|| last_purged_log_id.clone());
        Ok(LogState { last_purged_log_id, last_log_id })
    }
}

/// Says of what the error is.
#[allow(clippy::result_large_err)] // It is the library's.
fn to<T, C: RaftTypeConfig>(subject: ErrorSubject<C::NodeId>, verb: ErrorVerb, result: io::Result<T>) -> Stored<T, C> {
    result.map_err(|error| StorageError::from_io_error(subject, verb, error))
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogStore<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Stored<Vec<C::Entry>, C> {
        to::<_, C>(ErrorSubject::Logs, ErrorVerb::Read, self.read(bounds(&range), u64::MAX).await)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<Vec<C::Entry>, C> {
        to::<_, C>(ErrorSubject::Logs, ErrorVerb::Read, self.read((start, end), BYTES_AT_ONCE as u64).await)
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogStore<C>;

    async fn get_log_state(&mut self) -> Stored<LogState<C>, C> {
        to::<_, C>(ErrorSubject::Logs, ErrorVerb::Read, self.log_state().await)
    }

    async fn get_log_reader(&mut self) -> LogStore<C> {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Stored<(), C> {
        let save = async {
            let vote = codec::encode(vote)?;
            self.write_through(Batch { vote: Some(&vote), ..Batch::default() }).await
        };
        to::<_, C>(ErrorSubject::Vote, ErrorVerb::Write, save.await)
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<C::NodeId>>, C> {
        let vote = self.group.vote().map_err(io::Error::from);
        let decode = |vote: Vec<u8>| codec::decode(self.group.id(), "vote", None, &vote);
        to::<_, C>(ErrorSubject::Vote, ErrorVerb::Read, vote.and_then(|vote| vote.map(decode).transpose()))
    }

    async fn save_committed(&mut self, committed: Option<LogId<C::NodeId>>) -> Stored<(), C> {
        let save = || match committed {
            Some(log_id) => Ok(self.group.save_committed(log_id.index, codec::encode(&log_id)?)?),
            None if self.group.committed()?.is_some() => Ok(self.group.save_committed(0, [])?),
            None => Ok(()),
        };
        to::<_, C>(ErrorSubject::Store, ErrorVerb::Write, save())
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<C::NodeId>>, C> {
        let committed = self.group.committed().map_err(io::Error::from);
        let log_id = committed.and_then(|committed| self.log_id("committed log id", committed));
        to::<_, C>(ErrorSubject::Store, ErrorVerb::Read, log_id)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<C>) -> Stored<(), C>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| Ok((entry.get_log_id().index, codec::encode(&entry)?)));
        let appended = adapter::append(&self.group, entries, |result| callback.log_io_completed(result));
        to::<_, C>(ErrorSubject::Logs, ErrorVerb::Write, appended)
    }

    async fn truncate(&mut self, log_id: LogId<C::NodeId>) -> Stored<(), C> {
        let cut = Cut::After(log_id.index.checked_sub(1));
        let cut = self.write_through(Batch { cut, ..Batch::default() }).await;
        to::<_, C>(ErrorSubject::Log(log_id), ErrorVerb::Delete, cut)
    }

    async fn purge(&mut self, log_id: LogId<C::NodeId>) -> Stored<(), C> {
        let purge = async {
            // In a call of its own, which on a full disk finds room for what frees space.
            self.group.purge(log_id.index, codec::encode(&log_id)?)?;
            self.write_through(Batch::default()).await
        };
        to::<_, C>(ErrorSubject::Log(log_id.clone()), ErrorVerb::Delete, purge.await)
    }
}
