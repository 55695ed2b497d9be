//! Calling a node; and how openraft does so.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::sync::watch;
use tonic::Streaming;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Endpoint;

use super::calls::Calls;
use super::target::{Target, error_chain};
use super::tls::Tls;
use super::{
    Answer, Call, FOLLOW, From, HEADER_CLUSTER, HEADER_INSTANCE, HEADER_NODE, HEADER_PROTOCOL, PROTOCOL, REPLICATE, Raw, Reply,
    WINDOW, decode, encode,
};
use crate::error::{Error, Result};
use crate::raft::{Peer, Types};

use bytes::Bytes;

/// A connection to an address, made when it is used, and made again when it breaks. Clones share it,
/// and the stream of calls on it.
#[derive(Clone)]
pub(crate) struct Connection {
    target: Arc<Target>,
    calls: Arc<Mutex<Option<Arc<Calls>>>>,
    #[cfg(test)]
    simulated: Option<crate::sim::Link>,
}

pub(crate) fn hex(id: u128) -> String {
    format!("{id:032x}")
}

impl Connection {
    pub(crate) fn new(address: &str, tls: Option<&Tls>) -> Result<Connection> {
        #[cfg(test)]
        let (simulated, tls) = match crate::sim::Link::between(tls, address) {
            Some(link) => (Some(link), None),
            None => (None, tls),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let bad = |error: tonic::transport::Error| Error::invalid("address", format!("{address}: {error}; give host:port"));
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(bad)?
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls.client()).map_err(|error| Error::invalid("certificates", error_chain(&error)))?;
        }
        let mut headers = MetadataMap::new();
        headers.insert(HEADER_PROTOCOL, AsciiMetadataValue::from_static(PROTOCOL));
        let target = Target { channel: endpoint.connect_lazy(), address: address.to_owned(), headers };
        Ok(Connection {
            target: Arc::new(target),
            calls: Arc::default(),
            #[cfg(test)]
            simulated,
        })
    }

    /// The same, with another header.
    fn header(&self, name: &'static str, value: &str) -> Connection {
        let Target { channel, address, headers } = &*self.target;
        let mut headers = headers.clone();
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
        let target = Target { channel: channel.clone(), address: address.clone(), headers };
        Connection {
            target: Arc::new(target),
            calls: Arc::default(),
            #[cfg(test)]
            simulated: self.simulated.clone(),
        }
    }

    /// To a node of this cluster only.
    pub(crate) fn only_cluster(&self, cluster: u128) -> Connection {
        self.header(HEADER_CLUSTER, &hex(cluster))
    }

    /// To this directory under this id only.
    pub(crate) fn only_node(&self, node: u64, instance: u128) -> Connection {
        self.header(HEADER_NODE, &node.to_string()).header(HEADER_INSTANCE, &hex(instance))
    }

    pub(crate) fn address(&self) -> &str {
        &self.target.address
    }

    #[cfg(test)]
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The stream that takes calls.
    pub(super) fn calls(&self) -> Arc<Calls> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        match &*calls {
            Some(calls) if calls.takes_more() => calls.clone(),
            _ => calls.insert(Calls::begin(self.target.clone())).clone(),
        }
    }

    /// Asks for something, and waits for the answer so long. A node that does not lead passes it on,
    /// if it is told to.
    ///
    /// # Errors
    /// [`Error::Unreachable`] and [`Error::Closed`] if the call was not made for certain, and
    /// [`Error::Unknown`] if it may have been; beside what the node answers.
    pub(crate) async fn call(&self, call: Call, pass_on: Option<Duration>, patience: Duration) -> Result<Reply> {
        let asked = async {
            #[cfg(test)]
            if let Some(link) = &self.simulated {
                return link.call(&self.target.headers, call, pass_on, |status| self.target.error(status)).await;
            }
            loop {
                // What is large gets a stream of its own, and nothing waits behind it.
                let calls = if call.is_large() { Calls::begin(self.target.clone()) } else { self.calls() };
                if let Some(place) = calls.place(call.cost()).await {
                    return place.call(call, pass_on).await;
                }
            }
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::unknown(format!("{} has not answered within {patience:?}", self.address()))),
        }
    }

    pub(crate) async fn follow(&self, from: u64) -> Result<Streaming<Bytes>> {
        let from = encode(&From { from }).map_err(Error::unknown)?;
        let target = &self.target;
        let answer = target.grpc().await?.server_streaming(target.request(from), PathAndQuery::from_static(FOLLOW), Raw).await;
        Ok(answer.map_err(|status| target.error(status))?.into_inner())
    }
}

/// The members, by id.
type Members = HashMap<u64, (Peer, Result<Connection>)>;

/// Where the members are, and the connections to them. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct Addresses {
    known: Arc<Mutex<Members>>,
    /// Which it is, a node knows before it knows of members.
    cluster: watch::Receiver<u128>,
    tls: Option<Tls>,
}

impl Addresses {
    pub(crate) fn new(cluster: watch::Receiver<u128>, tls: Option<Tls>) -> Addresses {
        Addresses { known: Arc::default(), cluster, tls }
    }

    fn known(&self) -> MutexGuard<'_, Members> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a member is now. A connection to it that is right is kept.
    pub(crate) fn set(&self, node: u64, peer: &Peer) {
        if self.known().get(&node).is_none_or(|(known, _)| known != peer) {
            let connection = Connection::new(&peer.address, self.tls.as_ref());
            let cluster = *self.cluster.borrow();
            let connection = connection.map(|connection| connection.only_cluster(cluster).only_node(node, peer.instance));
            self.known().insert(node, (peer.clone(), connection));
        }
    }

    fn connection(&self, node: u64) -> Result<Connection> {
        let known = self.known().get(&node).map(|(_, connection)| connection.clone());
        known.unwrap_or_else(|| Err(Error::unknown("no address")))
    }
}

/// openraft's connections to the members.
pub(crate) struct Network(pub(crate) Addresses);

impl RaftNetworkFactory<Types> for Network {
    type Network = Member;

    async fn new_client(&mut self, node: u64, peer: &Peer) -> Member {
        self.0.set(node, peer);
        Member { node, addresses: self.0.clone() }
    }
}

/// openraft's connection to a member.
pub(crate) struct Member {
    node: u64,
    addresses: Addresses,
}

impl Member {
    fn connection(&self) -> Result<Connection, RPCError<Types>> {
        self.addresses.connection(self.node).map_err(|error| unreachable(&error))
    }

    async fn ask(&self, call: Call, option: &RPCOption) -> Result<Answer, RPCError<Types>> {
        let asked = self.connection()?.call(call, None, option.soft_ttl()).await;
        asked.and_then(|reply| reply).map_err(|error| match error {
            Error::Unknown { .. } => RPCError::Network(NetworkError::new(&error)),
            _ => unreachable(&error),
        })
    }
}

fn unreachable(error: &Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn unexpected() -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string("the node answered something else"))
}

impl RaftNetworkV2<Types> for Member {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        match self.ask(Call::Append(rpc), &option).await? {
            Answer::Append(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    /// Many under way at once, on a stream that keeps their order.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        #[cfg(not(test))]
        let _ = option; // The stream has no deadline: it lasts as long as the leader.
        Box::pin(async move {
            let connection = self.connection()?;
            let target = connection.target;
            #[cfg(test)]
            if let Some(link) = connection.simulated {
                if !link.streams() {
                    return openraft::network::stream_append_sequential(self, input, option).await;
                }
                let refusal = |status| target.error(status);
                let answers = link.replicate(&target.headers, refusal, input).await.map_err(|error| unreachable(&error))?;
                let answers = answers.map(|answer| match answer {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(error)) => Err(unreachable(&error)),
                    Err(error) => Err(RPCError::Network(NetworkError::new(&error))),
                });
                return Ok(Box::pin(answers) as BoxStream<'s, _>);
            }
            let mut grpc = target.grpc().await.map_err(|error| unreachable(&error))?;
            let path = PathAndQuery::from_static(REPLICATE);
            // What cannot be encoded ends the stream: there is nothing of that kind.
            let input = input
                .map(|request| encode(&request))
                .take_while(|request| std::future::ready(request.is_ok()))
                .filter_map(|request| std::future::ready(request.ok()));
            let answers = grpc.streaming(target.request(input), path, Raw).await;
            let answers = answers.map_err(|status| unreachable(&target.error(status)))?.into_inner();
            let answers =
                answers.map(move |answer| match answer.and_then(|answer| decode::<Result<StreamAppendResult<Types>>>(&answer)) {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(error)) => Err(unreachable(&error)),
                    Err(status) => Err(RPCError::Network(NetworkError::new(&target.error(status)))),
                });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Call::Vote(rpc), &option).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Call::PreVote(rpc), &option).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let asked = self.ask(Call::Snapshot { vote, data: snapshot.snapshot }, &option);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = asked => match answer? {
                Answer::Snapshot(vote) => Ok(SnapshotResponse::new(vote)),
                _ => Err(unexpected().into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(Call::TakeOver(rpc), &option).await? {
            Answer::TakeOver(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Vote;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_speaks_otherwise_or_to_another_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = crate::Options::new().listen("127.0.0.1:0").open(dir.path()).await.unwrap();
        let call = |connection: Connection, call: Call| async move {
            connection.call(call, None, Duration::from_secs(5)).await.and_then(|reply| reply)
        };
        let new = || Connection::new(log.address(), None).unwrap();
        assert!(matches!(call(new(), Call::Status).await, Ok(Answer::Status(_))));
        for other in ["1", "3"] {
            let refused = call(new().header(HEADER_PROTOCOL, other), Call::Status).await.unwrap_err();
            assert_eq!(refused, Error::Protocol { ours: "2".to_owned(), theirs: other.to_owned() });
        }
        let cluster = call(new().only_cluster(7), Call::Status).await.unwrap_err();
        assert!(matches!(&cluster, Error::WrongCluster { expected, .. } if expected.ends_with("07")), "{cluster}");
        for (node, instance) in [(1, 7), (2, 7)] {
            let double = call(new().only_node(node, instance), Call::Status).await.unwrap_err();
            assert!(matches!(double, Error::NodeTaken { .. }), "{double}");
        }
        // Whoever names nobody is no member.
        let vote = Vote::new(9, 9);
        let stranger = call(new(), Call::Vote(VoteRequest::new(vote, None))).await.unwrap_err();
        assert!(matches!(stranger, Error::Invalid { .. }), "{stranger}");
        let mut grpc = new().target.grpc().await.unwrap();
        let nothing = new().target.request(futures_util::stream::empty());
        let replicated = grpc.streaming(nothing, PathAndQuery::from_static(REPLICATE), Raw);
        assert_eq!(replicated.await.unwrap_err().code(), tonic::Code::Unimplemented);
        assert_eq!(log.append("still there").await.unwrap(), 1);
        log.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_shows_no_certificate_gets_no_answer() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["node.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        let tls = Tls::new(certificate.clone(), certificate.clone(), key.serialize_pem()).name("node.test");
        let dir = tempfile::tempdir().unwrap();
        let log = crate::Options::new().listen("127.0.0.1:0").tls(tls.clone()).open(dir.path()).await.unwrap();
        let with = Connection::new(log.address(), Some(&tls)).unwrap();
        assert!(matches!(with.call(Call::Status, None, Duration::from_secs(5)).await, Ok(Ok(Answer::Status(_)))));
        let config = tonic::transport::ClientTlsConfig::new().domain_name("node.test");
        let config = config.ca_certificate(tonic::transport::Certificate::from_pem(certificate));
        let endpoint = Endpoint::from_shared(format!("https://{}", log.address())).unwrap().tls_config(config).unwrap();
        let Target { address, headers, .. } = &*with.target;
        let target = Target { channel: endpoint.connect_lazy(), address: address.clone(), headers: headers.clone() };
        let without = Connection { target: Arc::new(target), calls: Arc::default(), simulated: None };
        assert!(without.call(Call::Status, None, Duration::from_secs(5)).await.is_err());
        log.halt().await.unwrap();
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&[][..], &[255], &[12, 0], &[5, 0, 1, 255, 255, 255, 255, 15]] {
            assert!(decode::<Call>(bytes).is_err(), "{bytes:?}");
        }
    }
}
