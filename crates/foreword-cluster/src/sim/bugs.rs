//! Deliberate bugs: the checks are checked by them. Those of the storage are here, in what wraps
//! it; the others are one line each where they would be made, by `bug!`.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use foreword_raft::adapter::openraft::LogStore;
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::{current, has, lock};
use crate::raft::{Entry, LogId, Types, Vote};

macro_rules! bugs {
    ($($(#[doc = $what:literal])* $name:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[doc = $what])* $name,)*
        }

        impl Bug {
            pub(super) const ALL: &[Bug] = &[$(Bug::$name,)*];
        }
    };
}

bugs! {
    /// entries are said to be durable when they are in memory, so that the leader counts a quorum
    /// that has lost them
    AcknowledgeEarly,
    /// a vote is given before it is saved; it is saved with the next append
    VoteEarly,
    /// a vote is saved, and takes the place of one that came after it
    VoteAgain,
    /// an append overtakes the vote before it: it is durable, and the vote is not
    OvertakeVote,
    /// a follower's truncation is lost: behind what it appends then, what it cut off is back after
    /// a restart
    LoseTruncation,
    /// an append gets the index of the record before it
    ReuseIndex,
    /// a checkpoint is without the sessions
    ForgetSessions,
    /// a retry is not recognized
    RepeatOnce,
    /// a read does not ask a majority whether the node still leads
    ReadStale,
    /// a node answers a read before it has applied what the leader says
    ReadEarly,
    /// the snapshot is the newest checkpoint, also if it lies behind the front
    SnapshotAhead,
}

/// A node's storage, with the bugs.
#[derive(Clone)]
pub(crate) struct Store {
    inner: LogStore<Types>,
    node: u64,
    /// A flush is under way.
    flushing: Arc<AtomicBool>,
    /// A vote that is given and not saved.
    vote: Arc<Mutex<Option<Vote>>>,
    /// What was cut off, and comes back.
    stale: Arc<Mutex<Vec<Entry>>>,
    /// Nothing was appended yet behind what was cut off.
    truncated: Arc<AtomicBool>,
}

impl Store {
    pub(crate) fn new(node: u64, inner: LogStore<Types>) -> Store {
        Store { inner, node, flushing: Arc::default(), vote: Arc::default(), stale: Arc::default(), truncated: Arc::default() }
    }

    /// Makes durable what was appended, after a while: what a thread does elsewhere.
    fn flush_later(&self) {
        let Some(sim) = current().filter(|_| !self.flushing.swap(true, Ordering::Relaxed)) else { return };
        let (group, flushing, node) = (self.inner.group().clone(), self.flushing.clone(), self.node);
        tokio::spawn(async move {
            sim.flush(node).await;
            flushing.store(false, Ordering::Relaxed);
            _ = group.sync(); // If it fails, the callbacks hear of it.
        });
    }

    /// Says so when what was appended behind a truncation is durable.
    fn tell_when_durable(&self) {
        let Some(sim) = current().filter(|_| self.truncated.swap(false, Ordering::Relaxed)) else { return };
        let (group, node) = (self.inner.group().clone(), self.node);
        tokio::spawn(async move {
            sim.flush(node).await;
            if group.sync().is_ok()
                && let Some(waits) = lock(&sim.truncated).take()
            {
                _ = waits.send(node); // If nobody waits any more, it is a truncation as any.
            }
        });
    }

    async fn save_late_vote(&mut self) -> io::Result<()> {
        let vote = lock(&self.vote).take();
        match vote {
            Some(vote) => self.inner.save_vote(&vote).await,
            None => Ok(()),
        }
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        self.inner.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.inner.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.inner.read_vote().await
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = LogStore<Types>;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.inner.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogStore<Types> {
        self.inner.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if has(Bug::VoteEarly) || has(Bug::OvertakeVote) {
            *lock(&self.vote) = Some(*vote);
            return Ok(());
        }
        if has(Bug::VoteAgain) {
            let before = lock(&self.vote).replace(*vote);
            self.inner.save_vote(vote).await?;
            return match before {
                Some(before) => self.inner.save_vote(&before).await,
                None => Ok(()),
            };
        }
        self.inner.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.inner.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.inner.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.flush_later();
        let entries: Vec<Entry> = entries.into_iter().collect();
        if has(Bug::VoteEarly) {
            self.save_late_vote().await?;
        }
        if has(Bug::AcknowledgeEarly) {
            self.inner.append(entries, IOFlushed::noop()).await?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        if has(Bug::LoseTruncation) {
            self.append_and_bring_back(entries, callback).await?;
        } else {
            self.inner.append(entries, callback).await?;
        }
        self.tell_when_durable();
        if has(Bug::OvertakeVote) {
            self.inner.group().sync()?;
            self.save_late_vote().await?;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        if has(Bug::LoseTruncation) {
            let behind = last.map_or(0, |last| last.index() + 1);
            let cut = self.inner.try_get_log_entries(behind..).await?;
            *lock(&self.stale) = cut;
        }
        if let Some(sim) = current() {
            sim.count("truncations by followers");
        }
        self.truncated.store(true, Ordering::Relaxed);
        self.inner.truncate_after(last).await
    }

    async fn purge(&mut self, to: LogId) -> io::Result<()> {
        self.inner.purge(to).await
    }
}

impl Store {
    /// The disk is as if the entries had been written over the first of those that were cut off.
    /// What openraft appends next takes the others' place.
    async fn append_and_bring_back(&mut self, entries: Vec<Entry>, callback: IOFlushed<Types>) -> io::Result<()> {
        let Some(first) = entries.first().map(|entry| entry.log_id().index()) else {
            return self.inner.append(entries, callback).await;
        };
        if self.inner.group().last()?.is_some_and(|last| last >= first) {
            self.inner.group().truncate_after(first.checked_sub(1))?;
        }
        let last = entries.last().map_or(first, |entry| entry.log_id().index());
        let stale: Vec<Entry> = lock(&self.stale).iter().filter(|entry| entry.log_id().index() > last).cloned().collect();
        self.inner.append(entries, callback).await?;
        if stale.first().is_some_and(|entry| entry.log_id().index() == last + 1) {
            self.inner.append(stale, IOFlushed::noop()).await?;
        }
        Ok(())
    }
}
