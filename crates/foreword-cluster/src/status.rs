//! What a caller gets to see: records, and what a node knows of its cluster.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// So many sessions there may be.
pub(crate) const SESSIONS: u32 = 10_000;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its index, from 1 on.
    pub index: u64,
    /// The caller's bytes.
    pub data: Bytes,
}

/// What a node knows of itself and the cluster. An *entry* is what the protocol agrees on: several
/// records, a change of the members, or nothing but a new leader.
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
    /// The index of the last that is committed, as far as this node knows; one less than `first` if
    /// there is none.
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
