//! What openraft is told about this log: the types of its messages, and what an entry says.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::sim::Runtime;
#[cfg(not(test))]
#[allow(deprecated)] // Its new name is in a crate of its own.
use openraft::impls::TokioRuntime as Runtime;

openraft::declare_raft_types!(
    /// The types of the group.
    pub(crate) Types:
        D = Proposal,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = Peer,
        AsyncRuntime = Runtime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<Types>;

/// A member, as the membership names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// `host:port`; empty for a node that does not listen.
    pub(crate) address: String,
    /// Which directory it is: another with the same id is another node, which has not promised what
    /// this one has.
    pub(crate) instance: u128,
}

/// What one entry of the group says: what several callers wanted at about the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) items: Vec<Item>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items, {} bytes", self.items.len(), self.bytes())
    }
}

impl Proposal {
    pub(crate) fn bytes(&self) -> usize {
        self.items.iter().map(Item::bytes).sum()
    }
}

/// What one caller wants. The variants' order is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Item {
    Append {
        records: Vec<Bytes>,
    },
    Once {
        client: u64,
        sequence: u64,
        records: Vec<Bytes>,
    },
    /// How many sessions there may be is the leader's to say, so that all nodes forget the same.
    OpenSession {
        most: u32,
    },
    CloseSession {
        client: u64,
    },
    TruncateFront {
        to: u64,
    },
}

impl Item {
    pub(crate) fn bytes(&self) -> usize {
        self.records().iter().map(|record| record.len() + 4).sum::<usize>() + 16
    }

    pub(crate) fn records(&self) -> &[Bytes] {
        match self {
            Item::Append { records } | Item::Once { records, .. } => records,
            _ => &[],
        }
    }
}

/// What became of an item. The same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The index of the first of its records.
    Appended(u64),
    /// It was appended before, at this index.
    Before(u64),
    /// The id of the session.
    Opened(u64),
    /// There is no such session (any more).
    Expired,
    /// The session's answers go back to this sequence only.
    Old(u64),
    Closed,
    /// The first index that is kept.
    Front(u64),
    /// There is no such index yet: this is the next.
    Ahead(u64),
}

/// What a snapshot holds, and a checkpoint on a node's disk: the state of the log behind an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: Membership,
    pub(crate) front: u64,
    pub(crate) next: u64,
    pub(crate) sessions: Vec<(u64, Session)>,
}

/// The version of the bytes of a checkpoint and an identity.
const VERSION: u8 = 1;

/// A value as bytes, with a version and a checksum.
pub(crate) fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(value, vec![VERSION])?;
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// The value that `seal` made bytes of.
pub(crate) fn unseal<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, String> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or("too short")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Err("its checksum is wrong".to_owned());
    }
    match body.split_first() {
        Some((&VERSION, value)) => postcard::from_bytes(value).map_err(|error| error.to_string()),
        Some((version, _)) => Err(format!("it has version {version}, which this program does not know: use a newer one")),
        None => Err("too short".to_owned()),
    }
}

/// A session: what a client's last appends became.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The entry that used it last.
    pub(crate) used: u64,
    /// The newest answers by sequence, ascending.
    pub(crate) answers: VecDeque<(u64, u64)>,
    /// All sequences up to here are too old to tell whether they were appended.
    pub(crate) forgotten: u64,
}
