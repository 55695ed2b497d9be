//! A log that survives the machine: several nodes agree on its records, by Raft ([openraft]), and each keeps them in a write-ahead log ([foreword], [foreword_raft]).
//!
//! ```
//! use foreword_cluster::{Options, ReplicatedLog};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), foreword_cluster::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = |name| dir.path().join(name);
//! // A cluster of one: the same calls, without a network if nothing listens.
//! let first = Options::new().listen("127.0.0.1:0").open(path("one")).await?;
//! assert_eq!(first.append("hello").await?, 1);
//!
//! // Others join as learners, and vote when they are told to; usually in other processes.
//! let join = |id| Options::new().node(id).listen("127.0.0.1:0").join([first.address()]);
//! let second = join(2).open(path("two")).await?;
//! let third = join(3).open(path("three")).await?;
//! first.promote(2).await?;
//! first.promote(3).await?;
//!
//! // Any node takes any call. This returns when two of the three have it durable.
//! assert_eq!(third.append("world").await?, 2);
//! assert_eq!(second.read(1..).await?.len(), 2);
//!
//! // A call that may be repeated, here or elsewhere, and counts once.
//! let session = second.open_session().await?;
//! assert_eq!(second.append_once(session, 1, ["once"]).await?, 3);
//! first.close().await?; // hands over the lead
//! assert_eq!(third.append_once(session, 1, ["once"]).await?, 3);
//! # second.halt().await?;
//! # third.halt().await
//! # }
//! ```
//!
//! A [`ReplicatedLog`] is a node; a [`Client`] speaks to the nodes from elsewhere, with the same calls. The command `foreword-raft` has both.
//!
//! What is promised, what each error means, and what to do when nodes are lost: [replication](_docs::replication).
//!
//! # What a node keeps
//!
//! The log of the Raft group is the log: a record is stored once on each node, in the entry by which it was agreed on. In memory there is where to find it (16 bytes for each 32 entries or 64 KiB), the
//! sessions, and the cache of `foreword_raft`. A checkpoint (the front, the next index, the sessions, the members) is written every 16 MiB of records; the newest of them that no kept record lies before is the snapshot,
//! which a node that was away for long gets first, and the entries behind it after that.
//!
//! # Blocking
//!
//! All calls are asynchronous and need a runtime of tokio, with its clock and its network. What waits for the disk runs on its threads for blocking work; but a node whose last handle is dropped, and was not
//! [closed](ReplicatedLog::close), makes its last flush where that happens.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// What the package's page shows, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Documents that belong to this version, as they are in the repository.
#[cfg(all(doc, not(doctest)))]
pub mod _docs {
    // Of two definitions of a link the first counts.
    #[doc = "[GUARANTEES.md]: https://docs.rs/foreword/latest/foreword/_docs/guarantees"]
    #[doc = "[TESTING.md]: https://docs.rs/crate/foreword-cluster/latest/source/README.md\n"]
    #[doc = include_str!("../docs/REPLICATION.md")]
    pub mod replication {}
}

/// `bug!(Name, work)` does the work if a simulation has switched that deliberate bug on. Skip these lines when you read: only tests have them.
macro_rules! bug {
    ($name:ident, $work:expr) => {
        #[cfg(test)]
        if $crate::sim::has($crate::sim::Bug::$name) {
            $work;
        }
    };
}

mod client;
mod error;
mod log;
mod machine;
#[cfg(feature = "metrics")]
mod meters;
mod node;
mod raft;
mod rpc;
#[cfg(test)]
mod sim;
mod store;

use std::ops::{Bound, RangeBounds};

pub use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use client::{Client, Follow};
pub use error::{Error, Result};
pub(crate) use log::SESSIONS;
pub use log::{Options, ReplicatedLog};
pub use rpc::tls::Tls;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its index, from 1 on.
    pub index: u64,
    /// The caller's bytes.
    pub data: Bytes,
}

/// What a node knows of itself and the cluster. An *entry* is what the protocol agrees on: several records, a change of the members, or nothing but a new leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// The id of the node that says this.
    pub node: u64,
    /// The id of the node that leads, if this one knows of one.
    pub leader: Option<u64>,
    /// The term: how often there was an election.
    pub term: u64,
    /// The index of the first record that this node can read.
    pub first: u64,
    /// The index of the last that is committed, as far as this node knows; one less than `first` if there is none.
    pub last: u64,
    /// The last entry in this node's log, committed or not.
    pub last_entry: u64,
    /// The last that is committed, as far as this node knows.
    pub committed_entry: u64,
    /// The last that is applied on this node.
    pub applied_entry: u64,
    /// The last that this node's snapshot stands for; 0 without one.
    pub snapshot_entry: u64,
    /// The last that is gone from this node's log.
    pub purged_entry: u64,
    /// Why the node has stopped, if it has.
    pub failure: Option<String>,
    /// The members.
    pub members: Vec<Member>,
}

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// Its id.
    pub node: u64,
    /// Where it is, as `host:port`; empty if it does not listen.
    pub address: String,
    /// Whether it votes, and counts for a majority. A learner gets the log only.
    pub voter: bool,
    /// Up to which entry it has the leader's log, if the node that says this leads.
    pub matched_entry: Option<u64>,
}

/// Does what waits for the disk where that keeps no task from running.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    #[cfg(test)]
    let work = match sim::at_once(work) {
        Ok(done) => return Ok(done),
        Err(work) => work,
    };
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)
}

/// The first index of a range, and the one behind its last.
pub(crate) fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
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
