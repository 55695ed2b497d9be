//! What nodes and clients say to each other, over gRPC: messages are postcard's bytes of the types
//! here.
//!
//! | method | request | answer |
//! |---|---|---|
//! | `/foreword.raft/Call` | one [`Call`] | one [`Reply`] |
//! | `/foreword.raft/Replicate` | a stream of entries | a stream of what became of them, in order |
//! | `/foreword.raft/Follow` | one [`From`] | a stream of [`Page`]s |
//!
//! Each request says in its headers which version of this it speaks, and to which cluster, and to
//! which directory under which id, it believes to speak. The node that is called compares them
//! before it reads anything else.

pub(crate) mod network;
pub(crate) mod server;
pub(crate) mod tls;

use bytes::{Buf, BufMut, Bytes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::error::Error;
use crate::raft::{Item, Outcome, Peer, Types, Vote};

/// The version of the protocol. Another is refused.
pub(crate) const PROTOCOL: &str = "1";
/// A message is at most so large: a proposal is at most a quarter.
pub(crate) const MESSAGE_MAX: usize = 64 << 20;
/// Bytes that may be under way on a connection, and on one stream, before the other side has taken
/// them.
pub(crate) const WINDOW: u32 = 4 << 20;

pub(crate) const HEADER_PROTOCOL: &str = "foreword-protocol";
pub(crate) const HEADER_CLUSTER: &str = "foreword-cluster";
pub(crate) const HEADER_NODE: &str = "foreword-node";
pub(crate) const HEADER_INSTANCE: &str = "foreword-instance";

pub(crate) const CALL: &str = "/foreword.raft/Call";
pub(crate) const REPLICATE: &str = "/foreword.raft/Replicate";
pub(crate) const FOLLOW: &str = "/foreword.raft/Follow";

/// What can be asked of a node. The variants' order is part of the protocol.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    // Between the members.
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot { vote: Vote, data: Bytes },
    TakeOver(TransferLeaderRequest<Types>),
    // Of the leader.
    Propose(Item),
    ReadIndex,
    Join { node: u64, peer: Peer },
    Promote { node: u64 },
    Remove { node: u64 },
    Transfer { to: Option<u64> },
    // Of any node.
    Read { from: u64, records: u64, bytes: u64, linearizable: bool },
    Status,
}

impl Call {
    /// Whether members alone say so, to each other.
    pub(crate) fn is_between_members(&self) -> bool {
        matches!(self, Call::Append(_) | Call::Vote(_) | Call::PreVote(_) | Call::Snapshot { .. } | Call::TakeOver(_))
    }
}

/// What it answers, if it does not answer with an error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Snapshot(Vote),
    TakeOver(TransferLeaderResponse<Types>),
    Proposed(Outcome),
    ReadIndex(u64),
    Joined { cluster: u128 },
    Transferred { to: u64 },
    Done,
    Page(Page),
    Status(Box<crate::Status>),
}

pub(crate) type Reply = Result<Answer, Error>;

/// Where to begin following.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct From {
    pub(crate) from: u64,
}

/// Records that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) from: u64,
    pub(crate) records: Vec<Bytes>,
}

/// A message's bytes.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Status> {
    postcard::to_stdvec(message).map_err(|error| Status::internal(error.to_string()))
}

/// The message that bytes are, if they are one and nothing else.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, more)) => Err(Status::invalid_argument(format!("{} bytes follow a message", more.len()))),
        Err(error) => Err(Status::invalid_argument(format!("not a message: {error}"))),
    }
}

/// gRPC's encoding: bytes as they are. (With types here, the compiler does not see that what tonic
/// makes of them is `Send`.)
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Records that were read.
pub(crate) fn numbered(page: Page) -> impl Iterator<Item = (u64, Bytes)> {
    (page.from..).zip(page.records)
}
