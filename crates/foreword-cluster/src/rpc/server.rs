//! Being called.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::{Snapshot, SnapshotMeta};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};

use super::network::hex;
use super::{
    Answer, CALL, Call, FOLLOW, From, HEADER_CLUSTER, HEADER_INSTANCE, HEADER_NODE, HEADER_PROTOCOL, MESSAGE_MAX, PROTOCOL,
    REPLICATE, Raw, Reply, decode, encode,
};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::raft::{Checkpoint, Types, unseal};

/// The service of a node.
#[derive(Clone)]
pub(crate) struct Server(pub(crate) Arc<Node>);

/// How a method is answered, and whether the caller names this node.
type Answered<T, U> = fn(Arc<Node>, T, bool) -> BoxFuture<Response<U>, Status>;

/// The service of one method. (A closure would do, if the compiler saw that what tonic makes of it
/// is `Send`.)
struct Method<T, U> {
    node: Arc<Node>,
    addressed: bool,
    answer: Answered<T, U>,
}

impl<T, U> Service<Request<T>> for Method<T, U> {
    type Response = Response<U>;
    type Error = Status;
    type Future = BoxFuture<Response<U>, Status>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<T>) -> Self::Future {
        (self.answer)(self.node.clone(), request.into_inner(), self.addressed)
    }
}

type Stretch = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;

impl Service<http::Request<Body>> for Server {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let node = self.0.clone();
        let headers = MetadataMap::from_headers(request.headers().clone());
        let addressed = match addressed(&node, &headers) {
            Ok(addressed) => addressed,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        match request.uri().path() {
            CALL => {
                let method = Method { node, addressed, answer: reply };
                Box::pin(async move { Ok(grpc().unary(method, request).await) })
            }
            REPLICATE if addressed => {
                let method = Method { node, addressed, answer: replicate };
                Box::pin(async move { Ok(grpc().streaming(method, request).await) })
            }
            FOLLOW => {
                let method = Method { node, addressed, answer: follow };
                Box::pin(async move { Ok(grpc().server_streaming(method, request).await) })
            }
            path => Box::pin(std::future::ready(Ok(Status::unimplemented(format!("there is no method {path}")).into_http()))),
        }
    }
}

fn grpc() -> Grpc<Raw> {
    Grpc::new(Raw).max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX)
}

/// Compares what the caller believes with what this node is: whether it names this node, as members
/// do.
pub(crate) fn addressed(node: &Node, headers: &MetadataMap) -> Result<bool, Status> {
    let header = |name| headers.get(name).and_then(|value: &MetadataValue<_>| value.to_str().ok());
    let theirs = header(HEADER_PROTOCOL).unwrap_or("none");
    if theirs != PROTOCOL {
        return Err(refusal(Error::Protocol { ours: PROTOCOL.to_owned(), theirs: theirs.to_owned() }));
    }
    let cluster = hex(node.cluster());
    if let Some(expected) = header(HEADER_CLUSTER).filter(|expected| *expected != cluster) {
        return Err(refusal(Error::WrongCluster { expected: expected.to_owned(), found: cluster }));
    }
    let Some(id) = header(HEADER_NODE) else { return Ok(false) };
    let ours = (node.id().to_string(), hex(node.instance()));
    if (id, header(HEADER_INSTANCE).unwrap_or_default()) != (&*ours.0, &*ours.1) {
        let why = format!("node {} runs where node {id} of another directory was expected", node.id());
        return Err(refusal(Error::NodeTaken { node: id.parse().unwrap_or(0), why }));
    }
    Ok(true)
}

fn refusal(error: Error) -> Status {
    let details = postcard::to_stdvec(&error).unwrap_or_default();
    let mut headers = MetadataMap::new();
    headers.insert(HEADER_PROTOCOL, MetadataValue::from_static(PROTOCOL));
    Status::with_details_and_metadata(Code::FailedPrecondition, error.to_string(), details.into(), headers)
}

fn replicate(node: Arc<Node>, requests: Streaming<Bytes>, _: bool) -> BoxFuture<Response<Stretch>, Status> {
    // A stream that breaks ends; its sender hears of it by itself.
    let requests = requests.map(|request| request.and_then(|request| decode::<AppendEntriesRequest<Types>>(&request)));
    let requests =
        requests.take_while(|request| std::future::ready(request.is_ok())).filter_map(|request| std::future::ready(request.ok()));
    let answers = node.raft().stream_append(requests);
    let answers: Stretch =
        Box::pin(answers.map(|answer: Result<StreamAppendResult<Types>, _>| encode(&answer.map_err(Error::from))));
    Box::pin(std::future::ready(Ok(Response::new(answers))))
}

fn follow(node: Arc<Node>, from: Bytes, _: bool) -> BoxFuture<Response<Stretch>, Status> {
    let pages = decode(&from).map(|From { from }| {
        let pages: Stretch = Box::pin(node.pages(from).map(|page| encode(&page)));
        Response::new(pages)
    });
    Box::pin(std::future::ready(pages))
}

fn reply(node: Arc<Node>, call: Bytes, addressed: bool) -> BoxFuture<Response<Vec<u8>>, Status> {
    Box::pin(async move {
        let call = decode(&call)?;
        Ok(Response::new(encode(&answer(node, call, addressed).await)?))
    })
}

pub(crate) async fn answer(node: Arc<Node>, call: Call, addressed: bool) -> Reply {
    let raft = node.raft().clone();
    if call.is_between_members() && !addressed {
        return Err(Error::invalid("call", "members alone say so to each other, and name each other"));
    }
    match call {
        Call::Append(request) => Ok(Answer::Append(raft.append_entries(request).await.map_err(fatal)?)),
        Call::Vote(request) => Ok(Answer::Vote(raft.vote(request).await.map_err(fatal)?)),
        Call::PreVote(request) => Ok(Answer::Vote(raft.pre_vote(request).await.map_err(fatal)?)),
        Call::Snapshot { vote, data } => {
            let snapshot = snapshot(data)?;
            Ok(Answer::Snapshot(raft.install_full_snapshot(vote, snapshot).await?.vote))
        }
        Call::TakeOver(request) => Ok(Answer::TakeOver(raft.handle_transfer_leader(request).await?)),
        Call::Propose(item) => Ok(Answer::Proposed(node.propose(item).await?)),
        Call::ReadIndex => Ok(Answer::ReadIndex(node.read_index_here().await?)),
        Call::Join { node: id, peer } => {
            node.add(id, peer).await?;
            Ok(Answer::Joined { cluster: node.cluster() })
        }
        Call::Promote { node: id } => node.promote(id).await.map(|()| Answer::Done),
        Call::Remove { node: id } => node.remove(id).await.map(|()| Answer::Done),
        Call::Transfer { to } => Ok(Answer::Transferred { to: node.transfer(to).await? }),
        Call::Read { from, records, bytes, linearizable } => {
            if linearizable {
                node.read_barrier().await?;
            }
            Ok(Answer::Page(node.page(from, u64::MAX, records as usize, bytes as usize).await?))
        }
        Call::Status => Ok(Answer::Status(Box::new(node.status()))),
    }
}

fn fatal(error: openraft::errors::RaftError<Types>) -> Error {
    error.unwrap_fatal().into()
}

/// A snapshot as it came, if it is whole.
fn snapshot(
    data: Bytes,
) -> Result<Snapshot<openraft::type_config::alias::CommittedLeaderIdOf<Types>, u64, crate::raft::Peer, Bytes>> {
    let checkpoint: Checkpoint = unseal(&data).map_err(|why| Error::invalid("snapshot", why))?;
    let meta = SnapshotMeta { last_log_id: checkpoint.applied, last_membership: checkpoint.membership };
    Ok(Snapshot { meta, snapshot: data })
}
