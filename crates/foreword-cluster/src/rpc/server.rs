//! Being called.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::{Snapshot, SnapshotMeta};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};

use super::network::hex;
use super::{
    Answer, Answered, Asked, CALLS, Call, FOLLOW, From, HEADER_CLUSTER, HEADER_INSTANCE, HEADER_NODE, HEADER_PROTOCOL,
    MESSAGE_MAX, PROTOCOL, REPLICATE, Raw, Reply, WINDOW, decode, decode_next, encode, together,
};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::raft::{Checkpoint, Types, unseal};

/// The service of a node.
#[derive(Clone)]
pub(crate) struct Server(pub(crate) Arc<Node>);

/// How a method is answered, and whether the caller names this node.
type Handler<T, U> = fn(Arc<Node>, T, bool) -> BoxFuture<Response<U>, Status>;

/// The service of one method. (A closure would do, if the compiler saw that what tonic makes of it
/// is `Send`.)
struct Method<T, U> {
    node: Arc<Node>,
    addressed: bool,
    answer: Handler<T, U>,
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
            CALLS => {
                let method = Method { node, addressed, answer: calls };
                Box::pin(async move { Ok(grpc().streaming(method, request).await) })
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

fn calls(node: Arc<Node>, requests: Streaming<Bytes>, addressed: bool) -> BoxFuture<Response<Stretch>, Status> {
    let (answers, ready) = mpsc::unbounded_channel();
    tokio::spawn(take(node, requests, addressed, answers));
    // All that was read has its answer then.
    let end: Answered = (0, Err(Error::Closed));
    let end = futures_util::stream::once(std::future::ready(encode(&end)));
    let answers: Stretch = Box::pin(together(ready).map(Ok).chain(end));
    Box::pin(std::future::ready(Ok(Response::new(answers))))
}

/// An answer that is ready. Until it is on its way, the call takes room.
#[derive(Serialize)]
#[serde(transparent)]
struct Ready {
    answer: Answered,
    #[serde(skip)]
    _room: Option<OwnedSemaphorePermit>,
}

/// Answers one call, if only that the answer is lost.
struct Caller {
    number: u64,
    answers: mpsc::UnboundedSender<Ready>,
    room: Option<OwnedSemaphorePermit>,
}

impl Caller {
    fn answer(mut self, reply: Reply) {
        self.send(reply);
    }

    fn send(&mut self, reply: Reply) {
        if let Some(room) = self.room.take() {
            // If nobody receives it, the stream has ended.
            _ = self.answers.send(Ready { answer: (self.number, reply), _room: Some(room) });
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.send(Err(Error::unknown("the node has stopped")));
    }
}

/// Takes the calls of a stream until it ends, or this node is closed; and has them answered until
/// all are, or the caller is gone.
async fn take(node: Arc<Node>, mut requests: Streaming<Bytes>, addressed: bool, answers: mpsc::UnboundedSender<Ready>) {
    let window = Arc::new(Semaphore::new(WINDOW as usize));
    let mut taker = Taker { node: node.clone(), addressed, answers: answers.clone(), window, tasks: JoinSet::new() };
    let gone = answers.closed();
    tokio::pin!(gone);
    tokio::select! {
        biased;
        () = &mut gone => return,
        () = node.is_closed() => {},
        taken = taker.take(&mut requests) => if let Err(status) = taken {
            _ = answers.send(Ready { answer: (0, Err(Error::unknown(status.message()))), _room: None });
        },
    }
    tokio::select! {
        biased;
        () = gone => {},
        () = async { while taker.tasks.join_next().await.is_some() {} } => {},
    }
}

struct Taker {
    node: Arc<Node>,
    addressed: bool,
    answers: mpsc::UnboundedSender<Ready>,
    /// Room for calls under way: while there is none, no more is read.
    window: Arc<Semaphore>,
    /// What ends with the stream.
    tasks: JoinSet<()>,
}

impl Taker {
    async fn take(&mut self, requests: &mut Streaming<Bytes>) -> Result<(), Status> {
        while let Some(message) = requests.next().await {
            let message = message?;
            let mut rest = &message[..];
            while let Some(asked) = decode_next::<Asked>(&mut rest)? {
                let room = self.window.clone().acquire_many_owned(asked.call.cost()).await.ok();
                self.begin(asked, room);
            }
            while self.tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    fn begin(&mut self, asked: Asked, room: Option<OwnedSemaphorePermit>) {
        let Asked { number, pass_on, call } = asked;
        let caller = Caller { number, answers: self.answers.clone(), room };
        let (node, addressed) = (self.node.clone(), self.addressed);
        match call {
            // The usual, without a task for each.
            Call::Propose(item) if pass_on.is_none() => {
                let full = node.offer(item, move |outcome| caller.answer(outcome.map(Answer::Proposed)));
                full.map(|room| self.tasks.spawn(room));
            }
            call => _ = self.tasks.spawn(async move { caller.answer(answer(node, call, pass_on, addressed).await) }),
        }
    }
}

pub(crate) async fn answer(node: Arc<Node>, call: Call, pass_on: Option<Duration>, addressed: bool) -> Reply {
    let raft = node.raft().clone();
    if call.is_between_members() && !addressed {
        return Err(Error::invalid("call", "members alone say so to each other, and name each other"));
    }
    let call = match pass_on.filter(|_| call.is_for_the_leader()) {
        Some(patience) => match node.pass_on(call, patience).await {
            Ok(reply) => return reply,
            Err(call) => call,
        },
        None => call,
    };
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
