//! Stores of many Raft groups' logs behind one small interface, each in its best honest
//! configuration. Honest: an append is durable when [`Pending::wait`] returns.

use std::ops::Range;
use std::path::Path;

#[cfg(feature = "groups")]
use anyhow::Context;
use anyhow::Result;

/// A store of many Raft groups' logs, shared by the threads of a measurement.
pub trait Store: Send + Sync {
    /// Appends entries to a group from an index on, and forgets those up to another, which is less.
    /// Calls for one group come one after the other, in the order of their indices.
    fn append(&self, group: u64, first: u64, entries: &[&[u8]], purge: Option<u64>) -> Result<Pending>;

    /// Whether several appends of one group can be on their way at the same time. Otherwise the
    /// entries of threads that wait for a group gather in one append.
    fn pipelines(&self) -> bool {
        false
    }

    /// Writes many entries of 1 KiB to each of these groups, without waiting for each.
    fn fill(&self, groups: Range<u64>, entries: u64) -> Result<()>;

    /// Gives space back, if the store does not do so by itself. Called four times a second.
    fn tidy(&self) -> Result<()> {
        Ok(())
    }

    /// Closes it in order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What an append left to be waited for.
pub enum Pending {
    /// Nothing: it is durable.
    #[cfg(feature = "groups")]
    Done,
    /// Threads that wait make it so.
    Commit(foreword_raft::Commit),
    /// The store's own thread answers when it is.
    #[cfg(feature = "groups")]
    Answer(std::sync::mpsc::Receiver<std::io::Result<()>>),
}

impl Pending {
    /// Returns when what was appended is durable.
    pub fn wait(self) -> Result<()> {
        match self {
            #[cfg(feature = "groups")]
            Pending::Done => Ok(()),
            Pending::Commit(commit) => Ok(commit.wait()?),
            #[cfg(feature = "groups")]
            Pending::Answer(answer) => Ok(answer.recv().context("it gave no answer")??),
        }
    }
}

/// One contestant.
pub struct Contestant {
    pub name: &'static str,
    /// How it is configured, and why.
    pub setting: &'static str,
    /// With more groups than this it takes no part.
    pub groups_max: u64,
    /// Opens it, or makes it. With files that are filled before, if it can have them: what is measured
    /// then is a store that has run for a while.
    pub open: fn(&Path, filled: bool) -> Result<Box<dyn Store>>,
}

/// So much is written before space is given back, by all of them.
pub const SLACK: u64 = 128 << 20;
