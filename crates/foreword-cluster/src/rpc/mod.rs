//! What nodes and clients say to each other, over gRPC: messages are postcard's bytes of the types
//! here.
//!
//! | method | request | answer |
//! |---|---|---|
//! | `/foreword.raft/Calls` | a stream of [`Asked`], several in a message | a stream of [`Answered`], likewise, in any order |
//! | `/foreword.raft/Replicate` | a stream of entries | a stream of what became of them, in order |
//! | `/foreword.raft/Follow` | one [`From`] | a stream of [`Page`]s |
//!
//! Each request says in its headers which version of this it speaks, and to which cluster, and to
//! which directory under which id, it believes to speak. The node that is called compares them
//! before it reads anything else.

pub(crate) mod calls;
pub(crate) mod network;
pub(crate) mod server;
mod target;
pub(crate) mod tls;

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::Stream;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::error::Error;
use crate::raft::{Item, Outcome, Peer, Types, Vote};

/// The version of the protocol. Another is refused.
pub(crate) const PROTOCOL: &str = "2";
/// What is read at once.
pub(crate) const PAGE_BYTES: usize = 1 << 20;
/// A message is at most so large: a proposal is at most a quarter.
pub(crate) const MESSAGE_MAX: usize = 64 << 20;
/// Bytes that may be under way on a connection, and on one stream, before the other side has taken
/// them. And so much the calls of a stream [cost](Call::cost) at most that are not answered yet.
pub(crate) const WINDOW: u32 = 4 << 20;
/// What is ready goes together, in messages of about so many bytes.
const TOGETHER: usize = 32 << 10;

pub(crate) const HEADER_PROTOCOL: &str = "foreword-protocol";
pub(crate) const HEADER_CLUSTER: &str = "foreword-cluster";
pub(crate) const HEADER_NODE: &str = "foreword-node";
pub(crate) const HEADER_INSTANCE: &str = "foreword-instance";

pub(crate) const CALLS: &str = "/foreword.raft/Calls";
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

    /// Whether the leader alone does it.
    pub(crate) fn is_for_the_leader(&self) -> bool {
        !self.is_between_members() && !matches!(self, Call::Read { .. } | Call::Status)
    }

    /// What it takes of the window of a stream while it is under way.
    pub(crate) fn cost(&self) -> u32 {
        let bytes = match self {
            Call::Propose(item) => item.bytes(),
            Call::Append(request) => request.entries.iter().map(entry_bytes).sum(),
            Call::Snapshot { data, .. } => data.len(),
            Call::Read { bytes, .. } => PAGE_BYTES.min(*bytes as usize), // Of its answer.
            _ => 0,
        };
        u32::try_from(bytes + 256).unwrap_or(u32::MAX).min(WINDOW)
    }

    /// Whether others would wait for it on a stream, or for its answer, since it is large.
    pub(crate) fn is_large(&self) -> bool {
        self.cost() > 64 << 10
    }
}

fn entry_bytes(entry: &crate::raft::Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(proposal) => proposal.bytes(),
        _ => 0,
    }
}

/// A call on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// From 1 on, another for each call of a stream.
    pub(crate) number: u64,
    /// The caller cannot reach the leader, and waits so long: a node that does not lead is to pass
    /// this on to the one that does. That one does not.
    pub(crate) pass_on: Option<Duration>,
    pub(crate) call: Call,
}

/// What became of the call with this number. With number 0, of all that have no other answer: they
/// were not read, and no more will be.
pub(crate) type Answered = (u64, Reply);

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
    encode_behind(Vec::new(), message)
}

fn encode_behind<T: Serialize>(bytes: Vec<u8>, message: &T) -> Result<Vec<u8>, Status> {
    postcard::to_extend(message, bytes).map_err(|error| Status::internal(error.to_string()))
}

/// The message that bytes are, if they are one and nothing else.
pub(crate) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, Status> {
    match (decode_next(&mut bytes)?, bytes) {
        (Some(message), []) => Ok(message),
        (Some(_), more) => Err(Status::invalid_argument(format!("{} bytes follow a message", more.len()))),
        (None, _) => Err(Status::invalid_argument("nothing is no message")),
    }
}

/// The first of what was put together, if something is left.
pub(crate) fn decode_next<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<Option<T>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (message, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| Status::invalid_argument(format!("not a message: {error}")))?;
    *bytes = rest;
    Ok(Some(message))
}

/// Messages as they come; those that are ready go together. What cannot be encoded ends it: there is
/// nothing of that kind.
pub(crate) fn together<T: Serialize + Send + 'static>(
    messages: mpsc::UnboundedReceiver<T>,
) -> impl Stream<Item = Vec<u8>> + Send + 'static {
    futures_util::stream::unfold(messages, async |mut messages| {
        let mut bytes = encode(&messages.recv().await?).ok()?;
        while bytes.len() < TOGETHER
            && let Ok(next) = messages.try_recv()
        {
            bytes = encode_behind(bytes, &next).ok()?;
        }
        Some((bytes, messages))
    })
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
