//! One error type; each variant says whether anything was written, and prescribes what the caller
//! does.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and so what to do about it. Cheap to clone; goes from node to client as
/// it is.
///
/// Only after [`Unknown`](Error::Unknown) it is open whether anything was written; after every
/// other error nothing was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Error {
    /// This node does not lead. The call can be made at the leader. [`Client`](crate::Client) and
    /// [`ReplicatedLog`](crate::ReplicatedLog) do so by themselves.
    #[non_exhaustive]
    NotLeader {
        /// The id and the address of the leader, if there is one.
        leader: Option<(u64, String)>,
    },
    /// No leader was found in this time: a majority of the voters is not there, or not connected,
    /// or all of them are starting. Try again.
    #[non_exhaustive]
    NoLeader {
        /// How long it was tried.
        waited: Duration,
        /// What came last from a node.
        last: String,
    },
    /// The call may have been carried out, or may still be: the answer is lost. Use
    /// [`append_once`](crate::ReplicatedLog::append_once), by which a retry is harmless; or read
    /// what was appended.
    #[non_exhaustive]
    Unknown {
        /// What happened.
        why: String,
    },
    /// There is no such session: it was closed, or it [expired](crate::Options::sessions) since
    /// others were used more recently. What was called in it last may have been appended: read,
    /// then open another.
    #[non_exhaustive]
    SessionExpired {
        /// Its id.
        client: u64,
    },
    /// The session is newer than this call by more than it keeps answers: the call may have been
    /// appended long ago. A session keeps 64; have no more calls under way at once.
    #[non_exhaustive]
    SequenceForgotten {
        /// The session.
        client: u64,
        /// The sequence of the call.
        sequence: u64,
        /// The first that it can tell.
        first: u64,
    },
    /// The index lies before the front: the group has dropped it, or this node never had it. Read
    /// from `first` on.
    #[non_exhaustive]
    Dropped {
        /// The index asked for.
        index: u64,
        /// The first that is there.
        first: u64,
    },
    /// The index lies behind the end.
    #[non_exhaustive]
    Ahead {
        /// The index asked for.
        index: u64,
        /// The index that the next record will get.
        next: u64,
    },
    /// The node belongs to another cluster. Correct the address, or the directory.
    #[non_exhaustive]
    WrongCluster {
        /// The cluster of the caller.
        expected: String,
        /// The one of the node that was called.
        found: String,
    },
    /// Another node answers, or asks, under this id: a second process with the same id, or a
    /// directory that was made anew. Such a node has not promised what the first has, and must not
    /// vote for it: give it an id of its own, and remove the old one.
    #[non_exhaustive]
    NodeTaken {
        /// The id.
        node: u64,
        /// What is known.
        why: String,
    },
    /// The other side speaks another version of the protocol. Use the same version of the program
    /// on all nodes, or one that knows both.
    #[non_exhaustive]
    Protocol {
        /// The version of the node that was called.
        ours: String,
        /// The version that came.
        theirs: String,
    },
    /// The address is not a loopback address, and there are no certificates: everyone who can reach
    /// it could read and write. Give certificates ([`Options::tls`](crate::Options::tls)), or say
    /// that the network is trusted ([`Options::insecure`](crate::Options::insecure)).
    #[non_exhaustive]
    Insecure {
        /// The address.
        address: String,
    },
    /// The membership does not allow this change now.
    #[non_exhaustive]
    Membership {
        /// What is in the way, and what to do.
        why: String,
    },
    /// An argument cannot be.
    #[non_exhaustive]
    Invalid {
        /// Which.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The node's log failed; the node has stopped. What to do depends on what it says.
    Storage(String),
    /// The node cannot be reached, or the connection broke before the call was made.
    #[non_exhaustive]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened.
        why: String,
    },
    /// The log was closed, or its node has stopped.
    Closed,
}

impl Error {
    pub(crate) fn invalid(what: &str, why: impl fmt::Display) -> Error {
        Error::Invalid { what: what.to_owned(), why: why.to_string() }
    }

    pub(crate) fn unknown(why: impl fmt::Display) -> Error {
        Error::Unknown { why: why.to_string() }
    }

    /// Whether the same call, made again or elsewhere, may succeed without being carried out twice.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Error::NotLeader { .. } | Error::NoLeader { .. } | Error::Unreachable { .. } | Error::Closed)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLeader { leader: Some((id, address)) } => {
                write!(f, "this node does not lead: node {id} at {address} does; nothing was written")
            }
            Error::NotLeader { leader: None } => {
                f.write_str("this node does not lead, and knows of no leader; nothing was written; try again")
            }
            Error::NoLeader { waited, last } => {
                write!(
                    f,
                    "no leader was found in {waited:?}: are a majority of the voters up, and connected? Nothing was written; try again ({last})"
                )
            }
            Error::Unknown { why } => {
                write!(
                    f,
                    "the answer is lost, and it is not known whether this was carried out: {why}; with `append_once` a retry is harmless"
                )
            }
            Error::SessionExpired { client } => {
                write!(f, "there is no session {client} (any more); read what it has appended, and open another")
            }
            Error::SequenceForgotten { client, sequence, first } => write!(
                f,
                "session {client} no longer knows of sequence {sequence}, only of {first} and later: have no more than 64 calls under way at once"
            ),
            Error::Dropped { index, first } => {
                write!(f, "record {index} is gone, or was never on this node: the first is {first}")
            }
            Error::Ahead { index, next } => write!(f, "there is no record {index} yet: the next one is {next}"),
            Error::WrongCluster { expected, found } => write!(
                f,
                "the node that was called belongs to cluster {found}, and the caller to {expected}: correct the address, or the directory"
            ),
            Error::NodeTaken { node, why } => {
                write!(f, "there is another node {node}: {why}; give each node an id of its own, and a new directory a new id")
            }
            Error::Protocol { ours, theirs } => write!(
                f,
                "the node that was called speaks version {ours} of the protocol, and the caller {theirs}: use the same version of the program on all nodes"
            ),
            Error::Insecure { address } => write!(
                f,
                "{address} is no loopback address, and there are no certificates: give some (--ca, --cert, --key), or say that the network is trusted (--insecure)"
            ),
            Error::Membership { why } => write!(f, "the membership cannot be changed so: {why}"),
            Error::Invalid { what, why } => write!(f, "{what}: {why}"),
            Error::Storage(why) => write!(f, "the log of this node failed: {why}"),
            Error::Unreachable { address, why } => write!(f, "cannot reach {address}: {why}"),
            Error::Closed => f.write_str("the log is closed"),
        }
    }
}

impl std::error::Error for Error {}

impl From<foreword_raft::Error> for Error {
    fn from(error: foreword_raft::Error) -> Error {
        Error::Storage(error.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Storage(error.to_string())
    }
}

impl From<openraft::errors::Fatal<crate::raft::Types>> for Error {
    fn from(error: openraft::errors::Fatal<crate::raft::Types>) -> Error {
        match error {
            openraft::errors::Fatal::Stopped => Error::Closed,
            other => Error::Storage(other.to_string()),
        }
    }
}
