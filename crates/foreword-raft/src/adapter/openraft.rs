//! Storage for [openraft] 0.10 (feature `openraft`): the log of a group as [`RaftLogStorage`] and
//! [`RaftLogReader`].
//!
//! ```
//! # use std::sync::Arc;
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let options = foreword_raft::Options::new().log(foreword::Options::new().segment_bytes(1 << 20));
//! use foreword_raft::adapter::openraft::LogStore;
//! use openraft::storage::{RaftLogReader, RaftLogStorage};
//!
//! openraft::declare_raft_types!(pub Types: D = String, R = String);
//!
//! let logs = options.open(dir.path())?; //                            of all groups of this node
//! let mut store: LogStore<Types> = LogStore::new(logs.group(7)); //   for `Raft::new`
//! store.save_vote(&openraft::Vote::new(1, 1)).await?; //              durable
//! assert_eq!(store.read_vote().await?, Some(openraft::Vote::new(1, 1)));
//! # drop(store);
//! logs.close()?; //                                                   once all `Raft`s are shut down
//! # Ok(())
//! # }
//! ```
//!
//! The example `openraft` is a whole node with two groups.
//!
//! # What is durable when
//!
//! | call | when it is done |
//! |---|---|
//! | `append` | readable; durable when the [`IOFlushed`] is completed, in the order of the calls. openraft goes on meanwhile, so appends of all groups share flushes |
//! | `save_vote`, `truncate_after`, `purge` | durable, with all before |
//! | `save_committed` | in force; durable with whatever is written after it |
//!
//! A truncation has to be durable: openraft installs a snapshot behind it, in another storage, and
//! does not start on conflicting entries that came back. `save_committed` is a hint, and after a
//! power failure may be an older one. So a state machine in memory may be older for a moment, too:
//! let
//! [`wait_for_recovery`](::openraft::Raft::wait_for_recovery) wait before it is read.
//!
//! # What blocks
//!
//! No call holds a thread of the runtime for a flush, or for reading a file. Who waits for a flush
//! is woken by the thread that calls the callbacks of all groups. Entries are read where they are
//! asked for if they are [in memory](crate::Options::cache_bytes), and else with the runtime's
//! [`spawn_blocking`](::openraft::type_config::TypeConfigExt::spawn_blocking). Two things may
//! block: an `append` (or another write) for which the log has no room, because the disk is behind
//! by all its buffers or no segment is ready; and `purge` on a full disk. Without
//! [`background`](crate::Options::background) nobody completes an append, and the others flush
//! themselves.
//!
//! # Traps
//!
//! - openraft ends a Raft at its first error of the storage. A full disk is one: leave room, or
//!   watch
//!   [`NoSpace`](foreword::Error::NoSpace). After it, start the `Raft` anew.
//! - The types of the application go through serde in
//!   [postcard](https://postcard.jamesmunns.com/wire-format)'s format, behind a byte with the
//!   version of the whole. It is compact and specified, and has neither names nor types. So an enum
//!   may get variants at its end, and a struct no field; and what needs names or types to be read
//!   does not work, as `serde_json::Value`, `flatten`, `untagged` and `skip_serializing_if` do.
//!   Test once that entries of all kinds can be read back. What cannot is [`Undecodable`].
//! - The adapter to 0.9 writes the same bytes, as far as the types are the same: with
//!   [`leader_id_adv`](::openraft::impls::leader_id_adv), the default of both, a log goes on with
//!   0.10.
//! - The logs must be open as long as a `Raft` runs: dropped, they are closed.

use std::fmt;
use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::ops::RangeBounds;

use ::openraft::async_runtime::OneshotSender;
use ::openraft::entry::RaftEntry;
use ::openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use ::openraft::type_config::TypeConfigExt;
use ::openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use ::openraft::{OptionalSend, RaftTypeConfig};

use crate::Group;
use crate::adapter::codec::{self, undecodable};
use crate::adapter::{self, BYTES_AT_ONCE};
use crate::batch::{Batch, Cut};
use crate::group::bounds;

pub use crate::adapter::codec::Undecodable;

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
    async fn read(&self, range: (u64, u64), bytes_max: u64) -> io::Result<Vec<EntryOf<C>>> {
        let entries = match adapter::read_from_memory(&self.group, range, bytes_max)? {
            Some(entries) => entries,
            None => {
                let group = self.group.clone();
                C::spawn_blocking(move || adapter::read(&group, range, bytes_max)).await??
            }
        };
        entries.into_iter().map(|entry| self.entry(entry)).collect()
    }

    fn entry(&self, read: crate::Entry) -> io::Result<EntryOf<C>> {
        let entry: EntryOf<C> = codec::decode(self.group.id(), "entry", Some(read.index), &read.data)?;
        if entry.index() != read.index {
            let why = format!("it says that it is entry {}", entry.index());
            return Err(undecodable(self.group.id(), "entry", Some(read.index), why));
        }
        Ok(entry)
    }

    fn log_id(&self, what: &'static str, noted: Option<crate::Noted>) -> io::Result<Option<LogIdOf<C>>> {
        let noted = noted.filter(|noted| !noted.note.is_empty());
        noted.map(|noted| codec::decode(self.group.id(), what, Some(noted.index), &noted.note)).transpose()
    }
}

impl<C: RaftTypeConfig> RaftLogReader<C> for LogStore<C> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<EntryOf<C>>> {
        self.read(bounds(&range), u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<EntryOf<C>>> {
        self.read((start, end), BYTES_AT_ONCE as u64).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<C>>> {
        let vote = self.group.vote()?;
        vote.map(|vote| codec::decode(self.group.id(), "vote", None, &vote)).transpose()
    }
}

impl<C: RaftTypeConfig> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogStore<C>;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let last_purged_log_id = self.log_id("purged log id", self.group.purged()?)?;
        let last = match self.group.last()? {
            Some(last) => self.read((last, last + 1), 0).await?.pop(),
            None => None,
        };
        let last_log_id = last.map(|entry| entry.log_id()).or_else(|| last_purged_log_id.clone());
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore<C> {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<C>) -> io::Result<()> {
        let vote = codec::encode(vote)?;
        self.write_through(Batch { vote: Some(&vote), ..Batch::default() }).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<C>>) -> io::Result<()> {
        match committed {
            Some(log_id) => self.group.save_committed(log_id.index(), codec::encode(&log_id)?)?,
            None if self.group.committed()?.is_some() => self.group.save_committed(0, [])?,
            None => {}
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<C>>> {
        self.log_id("committed log id", self.group.committed()?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<C>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(|entry| Ok((entry.index(), codec::encode(&entry)?)));
        adapter::append(&self.group, entries, |result| callback.io_completed(result))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<C>>) -> io::Result<()> {
        let cut = Cut::After(last_log_id.map(|last| last.index()));
        self.write_through(Batch { cut, ..Batch::default() }).await
    }

    async fn purge(&mut self, log_id: LogIdOf<C>) -> io::Result<()> {
        // In a call of its own, which on a full disk finds room for what frees space.
        self.group.purge(log_id.index(), codec::encode(&log_id)?)?;
        self.write_through(Batch::default()).await
    }
}
