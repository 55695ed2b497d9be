//! Storage for [raft] 0.7, the library of TiKV (feature `raft-rs`): the log of a group as
//! [`Storage`], and what makes a [`Ready`] durable without waiting for it.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let options = foreword_raft::Options::new().log(foreword::Options::new().segment_bytes(1 << 20));
//! use foreword_raft::adapter::raft_rs::LogStore;
//! use raft::{Config, RawNode, StorageError, eraftpb::ConfState};
//!
//! let logs = options.open(dir.path())?;
//! let store = LogStore::new(logs.group(7), |_, _| Err(StorageError::SnapshotTemporarilyUnavailable.into()));
//! store.save_conf_state(0, &ConfState::from((vec![1], vec![])))?; // once, when the group begins
//! let logger = slog::Logger::root(slog::Discard, slog::o!());
//! let mut node = RawNode::new(&Config::new(1), store, &logger)?;
//! node.campaign()?;
//! let (persisted, heard) = std::sync::mpsc::channel();
//! let mut leads = false;
//! while !leads {
//!     while node.has_ready() {
//!         let mut ready = node.ready();
//!         let send_at_once = ready.take_messages(); //              a leader's
//!         let apply = ready.take_committed_entries();
//!         let persisted = persisted.clone();
//!         node.store().persist(&mut ready, move |result| persisted.send(result).unwrap())?;
//!         node.advance_append_async(ready); //                      it goes on, and may be persisted with others
//!         # drop((send_at_once, apply));
//!     }
//!     let done = heard.recv()??; //                                 here, or in the loop of all groups
//!     node.on_persist_ready(done.number);
//!     let send_now = done.messages; //                              what had to wait for it
//!     # drop(send_now);
//!     leads = node.raft.state == raft::StateRole::Leader;
//! }
//! # drop(node);
//! logs.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is durable when
//!
//! | call | when it returns |
//! |---|---|
//! | [`LogStore::persist`], [`LogStore::write`] | readable; durable when the callback is called, in the order of the calls. All of it, or nothing, is there after a crash |
//! | [`LogStore::save_conf_state`] | durable, with all before. Blocks for a flush |
//! | [`LogStore::compact`] | in force; durable with whatever is written after it |
//!
//! # Traps
//!
//! - Messages that must wait come with the callback. What else is in a [`Ready`] is the caller's,
//!   as raft says: entries to apply, the data of a snapshot, which has to be durable *before* its
//!   `Ready` is persisted.
//! - Behind a `Ready` with a snapshot, [`advance_apply`](::raft::RawNode::advance_apply) panics
//!   until it is persisted: wait for the callback.
//! - Raft panics if [`Config::applied`](::raft::Config::applied) is beyond what it knows to be
//!   committed, which a power failure may make older. Give the same index to [`LogStore::applied`].
//! - Entries, and terms, that are not [in memory](crate::Options::cache_bytes) are read from the
//!   files where raft asks for them, and block it: none is fetched asynchronously.
//! - A `Ready` is one record batch, of up to
//!   [`record_bytes_max`](foreword::Options::record_bytes_max), 64 MiB by default: keep
//!   [`Config::max_uncommitted_size`](::raft::Config::max_uncommitted_size) below.
//! - The codec is raft's default, rust-protobuf. Its build brings the protobuf compiler for the
//!   usual systems along.

use std::fmt;

use ::raft::eraftpb::{ConfState, Entry, HardState, Message, Snapshot, SnapshotMetadata};
use ::raft::{Error, GetEntriesContext, RaftState, Ready, Result, Storage, StorageError};
use protobuf::Message as Protobuf;

use crate::batch::{Batch, Cut};
use crate::{Group, Noted};

/// Before what protobuf makes of a message.
const FORMAT: u8 = 2;
/// What a record of an entry has more than the entry: those of the log, and the format.
const OVERHEAD: u64 = 33;

/// A [`Ready`] that is durable: see [`LogStore::persist`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Persisted {
    /// For [`RawNode::on_persist_ready`](::raft::RawNode::on_persist_ready).
    pub number: u64,
    /// The messages that had to wait for it. They may be sent now.
    pub messages: Vec<Message>,
}

/// What [`LogStore::write`] writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Write<'a> {
    /// Takes the place of all entries. Of the snapshot only its index, its term and the members are
    /// kept: its data is the caller's to keep.
    pub snapshot: Option<&'a SnapshotMetadata>,
    /// Take the place of those from the first one's index on.
    pub entries: &'a [Entry],
    /// Term, vote and committed index.
    pub hard_state: Option<&'a HardState>,
}

/// The log of a group as raft's [`Storage`], and what writes to it. Clones are handles to the same.
///
/// `F` gives the newest snapshot of the state machine, which is no matter of the log: see
/// [`Storage::snapshot`].
#[derive(Clone)]
pub struct LogStore<F> {
    group: Group,
    snapshot: F,
    applied: u64,
}

impl<F> fmt::Debug for LogStore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogStore").field(&self.group).finish()
    }
}

impl<F: Fn(u64, u64) -> Result<Snapshot>> LogStore<F> {
    /// The storage of a group. Its [logs](crate::GroupLogs) must live as long.
    #[must_use]
    pub fn new(group: Group, snapshot: F) -> LogStore<F> {
        LogStore { group, snapshot, applied: 0 }
    }

    /// Says up to which index the state machine has applied entries, as
    /// [`Config::applied`](::raft::Config::applied) does: so they were committed, also if the hard
    /// state that says so was lost with the power. (Raft panics if it is behind.)
    #[must_use]
    pub fn applied(mut self, index: u64) -> LogStore<F> {
        self.applied = index;
        self
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Writes what a [`Ready`] wants to be kept: its snapshot's metadata, its entries and its hard
    /// state. They can be read when this returns, so that
    /// [`advance_append_async`](::raft::RawNode::advance_append_async) may follow. When they are
    /// durable, `done` gets the number of the `Ready`, and the messages that it says must not be
    /// sent before (which are taken out of it). It is called as that of [`Group::append`].
    ///
    /// All of it is one batch: after a crash it is there or not. The data of a snapshot must be
    /// durable before.
    ///
    /// # Errors
    /// As [`write`](LogStore::write).
    pub fn persist(&self, ready: &mut Ready, done: impl FnOnce(crate::Result<Persisted>) + Send + 'static) -> Result<()> {
        let persisted = Persisted { number: ready.number(), messages: ready.take_persisted_messages() };
        let snapshot = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty()).map(Snapshot::get_metadata);
        let write = Write { snapshot, entries: ready.entries(), hard_state: ready.hs() };
        self.write(write, |result| done(result.map(|()| persisted)))
    }

    /// Writes all that is given as one batch. `done` is called when it is durable, as that of
    /// [`Group::append`]. Does not wait for that.
    ///
    /// # Errors
    /// Nothing was written. [`SnapshotOutOfDate`](StorageError::SnapshotOutOfDate),
    /// [`Compacted`](StorageError::Compacted): it would take back what was purged.
    /// [`Other`](StorageError::Other) with an [`Error`](crate::Error): as [`Group::append`].
    pub fn write(&self, write: Write<'_>, done: impl FnOnce(crate::Result<()>) + Send + 'static) -> Result<()> {
        let purged = write.snapshot.map(|meta| encode(&position(meta.index, meta.term))).transpose()?;
        let members = write.snapshot.map(|meta| encode(meta.get_conf_state())).transpose()?;
        let vote = write.hard_state.map(encode).transpose()?;
        let entry = |entry: &Entry| Ok((entry.index, encode(entry)?.into()));
        let entries = write.entries.iter().map(entry).collect::<Result<_>>()?;
        let cut = match (write.snapshot, write.entries.first()) {
            (Some(meta), _) => Cut::Snapshot(meta.index, purged.as_deref().unwrap_or_default()),
            (None, Some(first)) => Cut::After(Some(first.index.saturating_sub(1))),
            (None, None) => Cut::None,
        };
        let committed = write.snapshot.map(|meta| meta.index).zip(members.as_deref());
        let batch = Batch { cut, entries, committed, vote: vote.as_deref() };
        self.group.submit(&batch, done).map_err(|error| match error {
            crate::Error::Purged { .. } if write.snapshot.is_some() => StorageError::SnapshotOutOfDate.into(),
            error => failed(error),
        })
    }

    /// Saves the members of the group as they are once the entry at an index is applied: what
    /// [`RawNode::apply_conf_change`](::raft::RawNode::apply_conf_change) returns, or with index 0
    /// those that the group begins with. Durable when it returns; call it before it is durable that
    /// the entry was applied. Blocks for a flush.
    ///
    /// # Errors
    /// [`Other`](StorageError::Other) with an [`Error`](crate::Error): as
    /// [`Group::save_committed`].
    pub fn save_conf_state(&self, index: u64, members: &ConfState) -> Result<()> {
        self.group.save_committed(index, encode(members)?).map_err(failed)?;
        self.group.sync().map_err(failed)
    }

    /// Drops the entries before an index, which the state machine's newest snapshot stands for. It
    /// holds when it returns; [durable](Group::purge) with what is written next.
    ///
    /// # Errors
    /// [`Unavailable`](StorageError::Unavailable) if there is no entry before the index;
    /// [`Other`](StorageError::Other) with an [`Error`](crate::Error): as [`Group::purge`].
    pub fn compact(&self, index: u64) -> Result<()> {
        if index <= self.first_index()? {
            return Ok(());
        }
        let last = index - 1;
        let note = encode(&position(last, self.term(last)?))?;
        self.group.purge(last, note).map_err(failed)
    }

    /// Up to which index the log was purged, with the term.
    fn purged(&self) -> Result<(u64, u64)> {
        match self.group.purged().map_err(failed)? {
            Some(Noted { index, note }) => Ok((index, decode::<SnapshotMetadata>(&note)?.term)),
            None => Ok((0, 0)),
        }
    }
}

impl<F: Fn(u64, u64) -> Result<Snapshot>> Storage for LogStore<F> {
    /// The committed index is at least that up to which entries were [applied](LogStore::applied)
    /// or purged.
    fn initial_state(&self) -> Result<RaftState> {
        let vote = self.group.vote().map_err(failed)?;
        let mut hard_state: HardState = vote.map(|vote| decode(&vote)).transpose()?.unwrap_or_default();
        let (purged, term) = self.purged()?;
        hard_state.commit = hard_state.commit.max(purged).max(self.applied.min(self.last_index()?));
        hard_state.term = hard_state.term.max(term);
        let members = self.group.committed().map_err(failed)?;
        let conf_state = members.map(|members| decode(&members.note)).transpose()?.unwrap_or_default();
        Ok(RaftState { hard_state, conf_state })
    }

    /// Blocks for reading what is not in memory. Beyond the last entry it is
    /// [`Unavailable`](StorageError::Unavailable), and no panic.
    fn entries(&self, low: u64, high: u64, max_size: impl Into<Option<u64>>, _: GetEntriesContext) -> Result<Vec<Entry>> {
        let max_size = max_size.into();
        if low < self.first_index()? {
            return Err(StorageError::Compacted.into());
        }
        if low > high || high > self.last_index()? + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let bytes_max = max_size.map_or(u64::MAX, |max| max.saturating_add((high - low).saturating_mul(OVERHEAD)));
        let entries = self.group.entries(low..high, bytes_max).map_err(failed)?;
        let mut entries = entries.iter().map(|entry| decode(&entry.data)).collect::<Result<Vec<Entry>>>()?;
        ::raft::util::limit_size(&mut entries, max_size);
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        let (purged, term) = self.purged()?;
        match index {
            _ if index == purged => Ok(term),
            _ if index < purged => Err(StorageError::Compacted.into()),
            _ => match self.group.get(index).map_err(failed)? {
                Some(entry) => Ok(decode::<Entry>(&entry)?.term),
                None => Err(StorageError::Unavailable.into()),
            },
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.group.purged().map_err(failed)?.map_or(0, |purged| purged.index) + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.group.last().map_err(failed)?.unwrap_or(0))
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        (self.snapshot)(request_index, to)
    }
}

fn position(index: u64, term: u64) -> SnapshotMetadata {
    SnapshotMetadata { index, term, ..SnapshotMetadata::default() }
}

fn encode(message: &impl Protobuf) -> Result<Vec<u8>> {
    let mut bytes = vec![FORMAT];
    message.write_to_vec(&mut bytes)?;
    Ok(bytes)
}

fn decode<M: Protobuf>(bytes: &[u8]) -> Result<M> {
    match bytes {
        [FORMAT, message @ ..] => Ok(M::parse_from_bytes(message)?),
        _ => {
            Err(other(format!("its format is not {FORMAT}: another version of this program wrote it, or another adapter").into()))
        }
    }
}

fn failed(error: crate::Error) -> Error {
    match error {
        crate::Error::Purged { .. } => StorageError::Compacted.into(),
        error => other(Box::new(error)),
    }
}

fn other(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    StorageError::Other(error).into()
}
