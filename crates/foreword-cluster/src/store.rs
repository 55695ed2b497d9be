//! What a node keeps beside the group's log: who it is, and checkpoints of the state machine. And
//! the state machine as openraft drives it.
//!
//! A node has one directory of [`GroupLogs`](foreword_raft::GroupLogs). Its group 0 is the log of
//! the Raft group, and holds the records. Group 1 is the node's own: its "vote" is the node's
//! identity, its entries are checkpoints, and the one "committed" is the snapshot.
//!
//! The snapshot is the newest checkpoint that no kept record lies before. So whatever openraft
//! purges with it holds no such record, and a node that starts from it, or gets it from a leader,
//! finds all of them in the entries behind it. As all groups are in one log, a purge is never
//! durable without the snapshot that allows it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use foreword_raft::Group;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, Snapshot, SnapshotMeta};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::error::{Error, Result};
use crate::machine;
use crate::raft::{Checkpoint, LogId, Membership, Types, seal, unseal};

/// The protocol, with this state machine.
pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// Which node of which cluster a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// 0 until the node has joined one.
    pub(crate) cluster: u128,
    pub(crate) node: u64,
    /// Chosen at random when the directory was made.
    pub(crate) instance: u128,
    /// Whether it began its cluster, and did not join one.
    pub(crate) founder: bool,
}

impl Identity {
    pub(crate) fn load(group: &Group) -> Result<Option<Identity>> {
        let bad = |why: String| Error::Storage(format!("the identity of the node cannot be read: {why}"));
        group.vote()?.map(|bytes| unseal(&bytes).map_err(bad)).transpose()
    }

    /// Durable when it returns.
    pub(crate) fn save(&self, group: &Group) -> Result<()> {
        let bytes = seal(self).map_err(|error| Error::Storage(error.to_string()))?;
        Ok(group.save_vote(bytes)?)
    }
}

/// How far a node is. Ordered by what was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last entry that was applied; 0 if none was.
    pub(crate) applied: u64,
    pub(crate) first: u64,
    pub(crate) next: u64,
}

/// A checkpoint in group 1.
struct Saved {
    at: u64,
    applied: LogId,
    next: u64,
}

struct State {
    machine: machine::Machine,
    applied: Option<LogId>,
    membership: Membership,
    /// Those in group 1 from the snapshot on; if there is no snapshot, all.
    saved: VecDeque<Saved>,
    /// Whether the first of them is the snapshot.
    snapshot: bool,
    /// Bytes applied since the last checkpoint.
    since: u64,
    /// After how many the next is due: more if checkpoints are large.
    due: u64,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    own: Group,
    every: u64,
    pub(crate) progress: watch::Sender<Progress>,
    /// That there is a later checkpoint that can be the snapshot.
    pub(crate) outdated: Notify,
}

/// The state machine, for openraft and for those who read. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Machine(pub(crate) Arc<Shared>);

fn damaged(at: u64, why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("checkpoint {at} of this node cannot be read: {why}; let it join anew"))
}

impl Machine {
    /// The state at the snapshot; openraft applies what follows.
    pub(crate) fn open(own: Group, every: u64) -> io::Result<Machine> {
        let snapshot = own.committed()?.map(|noted| noted.index);
        let mut saved = VecDeque::new();
        let mut state = Checkpoint::default();
        let first = own.first()?.unwrap_or(1);
        for at in first..=own.last()?.unwrap_or(0) {
            if snapshot.is_some_and(|snapshot| at < snapshot) {
                continue; // It was purged, and that is not durable yet.
            }
            let bytes = own.get(at)?.ok_or_else(|| damaged(at, "it is gone".to_owned()))?;
            let checkpoint: Checkpoint = unseal(&bytes).map_err(|why| damaged(at, why))?;
            let Some(applied) = checkpoint.applied else { return Err(damaged(at, "it is of nothing".to_owned())) };
            saved.push_back(Saved { at, applied, next: checkpoint.next });
            if snapshot == Some(at) {
                state = checkpoint;
            }
        }
        if let Some(at) = snapshot.filter(|at| saved.front().is_none_or(|first| first.at != *at)) {
            return Err(damaged(at, "it is gone".to_owned()));
        }
        let machine = machine::Machine::of(&state);
        let progress = progress(&machine, state.applied.as_ref());
        let state = State {
            machine,
            applied: state.applied,
            membership: state.membership,
            saved,
            snapshot: snapshot.is_some(),
            since: 0,
            due: every,
        };
        let shared =
            Shared { state: Mutex::new(state), own, every, progress: watch::Sender::new(progress), outdated: Notify::new() };
        Ok(Machine(Arc::new(shared)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to begin looking for a record: an entry, not one that the snapshot stands for, and its
    /// first record. `None` if this node has no entry with it.
    pub(crate) fn find(&self, record: u64) -> Option<(u64, u64)> {
        let state = self.state();
        let behind_snapshot = state.saved.front().filter(|saved| state.snapshot && saved.next <= record);
        let behind_snapshot = behind_snapshot.map(|saved| (saved.applied.index() + 1, saved.next));
        state.machine.places.find(record).max(behind_snapshot)
    }

    /// Which items of an entry did not append what they hold, by their places in it.
    pub(crate) fn counts(&self, entry: u64, item: u32) -> bool {
        self.state().machine.places.counts(entry, item)
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.0.progress.borrow()
    }

    fn publish(&self, state: &State) {
        self.0.progress.send_replace(progress(&state.machine, state.applied.as_ref()));
    }
}

fn progress(machine: &machine::Machine, applied: Option<&LogId>) -> Progress {
    Progress { applied: applied.map_or(0, LogId::index), first: machine.first(), next: machine.next }
}

impl State {
    fn checkpoint(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint { applied: self.applied, membership: self.membership.clone(), ..Checkpoint::default() };
        self.machine.save(&mut checkpoint);
        checkpoint
    }

    /// Writes a checkpoint if one is due. While entries are applied again after a start, those that
    /// are there are not written again.
    fn save_if_due(&mut self, shared: &Shared) -> io::Result<()> {
        let Some(applied) = self.applied.filter(|_| self.since >= self.due) else { return Ok(()) };
        if self.saved.back().is_none_or(|last| last.applied < applied) {
            let bytes = seal(&self.checkpoint()).map_err(io::Error::other)?;
            let at = shared.own.last()?.unwrap_or(0) + 1;
            self.due = shared.every.max(8 * bytes.len() as u64);
            shared.own.append([(at, bytes)], drop)?;
            self.saved.push_back(Saved { at, applied, next: self.machine.next });
        }
        self.since = 0;
        Ok(())
    }

    /// The newest checkpoint that could be the snapshot, by its place among those saved, if it is
    /// not.
    fn candidate(&self) -> Option<usize> {
        // One that is not applied yet, after a start, is not there yet.
        let there = |saved: &Saved| {
            bug!(SnapshotAhead, return Some(saved.applied) <= self.applied);
            saved.next <= self.machine.front && Some(saved.applied) <= self.applied
        };
        let behind = self.saved.partition_point(there);
        behind.checked_sub(1).filter(|at| !self.snapshot || *at > 0)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let state = self.state();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let id = entry.log_id();
            let outcomes = {
                let mut state = self.state();
                let front = state.machine.front;
                let outcomes = state.machine.apply(id.index(), &entry);
                if let EntryPayload::Normal(proposal) = &entry.payload {
                    state.since += proposal.bytes() as u64 + 32;
                }
                if let EntryPayload::Membership(membership) = &entry.payload {
                    state.membership = Membership::new(Some(id), membership.clone());
                }
                state.applied = Some(id);
                if state.machine.front > front && state.candidate().is_some() {
                    self.0.outdated.notify_one();
                }
                state.save_if_due(&self.0)?;
                self.publish(&state);
                outcomes
            };
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let state = self.state();
        (force || state.candidate().is_some()).then(|| Builder(self.clone()))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf, snapshot: Bytes) -> io::Result<()> {
        let checkpoint: Checkpoint = unseal(&snapshot).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        if checkpoint.applied != meta.last_log_id {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is not the one it is said to be"));
        }
        let Some(applied) = checkpoint.applied else { return Ok(()) };
        {
            let mut state = self.state();
            let at = self.0.own.last()?.unwrap_or(0) + 1;
            self.0.own.append([(at, &snapshot)], drop)?;
            self.0.own.save_committed(at, [])?;
            self.0.own.purge(at - 1, [])?;
            state.machine = machine::Machine::of(&checkpoint);
            state.applied = Some(applied);
            state.membership = checkpoint.membership;
            state.saved = [Saved { at, applied, next: checkpoint.next }].into();
            state.snapshot = true;
            state.since = 0;
            self.publish(&state);
        }
        let own = self.0.own.clone();
        Ok(crate::blocking(move || own.sync()).await??)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf>> {
        let at = {
            let state = self.state();
            state.saved.front().filter(|_| state.snapshot).map(|saved| saved.at)
        };
        match at {
            Some(at) => load(&self.0.own, at).await.map(Some),
            None => Ok(None),
        }
    }
}

type SnapshotOf = openraft::type_config::alias::SnapshotOf<Types, Bytes>;
type SnapshotMetaOf = openraft::type_config::alias::SnapshotMetaOf<Types>;

async fn load(own: &Group, at: u64) -> io::Result<SnapshotOf> {
    let own = own.clone();
    let read = crate::blocking(move || own.get(at)).await?;
    let bytes = read?.ok_or_else(|| damaged(at, "it is gone".to_owned()))?;
    let checkpoint: Checkpoint = unseal(&bytes).map_err(|why| damaged(at, why))?;
    let meta = SnapshotMeta { last_log_id: checkpoint.applied, last_membership: checkpoint.membership };
    Ok(Snapshot { meta, snapshot: bytes.into() })
}

/// Makes the newest checkpoint that can be the snapshot the snapshot.
pub(crate) struct Builder(Machine);

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf> {
        let own = &self.0.0.own;
        let at = {
            let mut state = self.0.state();
            if let Some(candidate) = state.candidate() {
                let at = state.saved[candidate].at;
                // In this order, which is that in the log: what is purged is never gone without the
                // snapshot.
                own.save_committed(at, [])?;
                own.purge(at - 1, [])?;
                state.saved.drain(..candidate);
                state.snapshot = true;
                let first = state.machine.first();
                state.machine.places.forget_before(first);
            }
            state.saved.front().filter(|_| state.snapshot).map(|saved| saved.at)
        };
        match at {
            Some(at) => load(own, at).await,
            None => Err(io::Error::other("no checkpoint lies before all records that are kept")),
        }
    }
}
