//! The replicated log: opening a node, and what its owner asks of it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foreword_raft::adapter::openraft::LogStore;
use foreword_raft::bounds;
use openraft::async_runtime::WatchReceiver;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use crate::client::{Follow, Router, appended, checked, once, opened, records_of, truncated, unexpected};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::raft::{Item, Peer};
use crate::rpc::network::{Addresses, Network};
use crate::rpc::server::Server;
use crate::rpc::tls::Tls;
use crate::rpc::{Answer, Call, WINDOW};
use crate::status::{Record, SESSIONS, Status};
use crate::store::{Identity, Machine, Raft};

/// How a node is opened. The defaults make a cluster of one, without a network.
#[derive(Clone, Debug)]
pub struct Options {
    node: Option<u64>,
    listen: Option<String>,
    advertise: Option<String>,
    /// `None`: a new directory begins a cluster.
    join: Option<Vec<String>>,
    tls: Option<Tls>,
    insecure: bool,
    storage: foreword_raft::Options,
    heartbeat: Duration,
    election: (Duration, Duration),
    checkpoint_bytes: u64,
    sessions: u32,
    patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Options {
        Options {
            node: None,
            listen: None,
            advertise: None,
            join: None,
            tls: None,
            insecure: false,
            storage: foreword_raft::Options::new(),
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(700)),
            checkpoint_bytes: 16 << 20,
            sessions: SESSIONS,
            patience: Duration::from_secs(10),
        }
    }

    /// The id of the node: any number but 0, and never that of another node of the cluster, not
    /// even of one that is gone. By default what the directory says; 1 for a new one.
    #[must_use]
    pub fn node(mut self, id: u64) -> Options {
        self.node = Some(id);
        self
    }

    /// Listens for other nodes and clients at this `host:port`; port 0 is any that is free. By
    /// default the node does not listen, and is alone.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Options {
        self.listen = Some(address.into());
        self
    }

    /// At which `host:port` others reach this node, if it is not where it listens. A node that is
    /// opened with another address than before tells the others.
    #[must_use]
    pub fn advertise(mut self, address: impl Into<String>) -> Options {
        self.advertise = Some(address.into());
        self
    }

    /// Joins the cluster of these nodes as a learner, if the directory is new. By default a new
    /// directory is a new cluster. With a directory that has joined before, this does nothing.
    /// Where there is a cluster to join and no address is given, [`open`](Options::open) fails:
    /// else it would begin a second cluster beside the first.
    #[must_use]
    pub fn join<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Options {
        self.join = Some(addresses.into_iter().map(Into::into).collect());
        self
    }

    /// Speaks TLS only, and only with those who have a certificate of the same authority.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Options {
        self.tls = Some(tls);
        self
    }

    /// Listens without certificates also where others than this machine's processes can connect:
    /// everyone who can reach the address can read and write.
    #[must_use]
    pub fn insecure(mut self, insecure: bool) -> Options {
        self.insecure = insecure;
        self
    }

    /// How the logs on this node's disk are opened.
    #[must_use]
    pub fn storage(mut self, options: foreword_raft::Options) -> Options {
        self.storage = options;
        self
    }

    /// How often a leader says that it is there (100 ms by default), and two times (300 ms and 700
    /// ms). A node that has not heard it for the second of these, which is the leader's lease, and
    /// then for a random time between the two, wants to lead itself: so a leader that was lost is
    /// replaced after 1 to 1.4 s. The same on all nodes; on a network that delays, more.
    #[must_use]
    pub fn timing(mut self, heartbeat: Duration, election: (Duration, Duration)) -> Options {
        (self.heartbeat, self.election) = (heartbeat, election);
        self
    }

    /// After how many bytes of records a node notes what a late node would have to be sent: 16 MiB
    /// by default. The disk space behind the front comes back in steps of this.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Options {
        self.checkpoint_bytes = bytes;
        self
    }

    /// How many sessions there may be, 10,000 by default: whoever opens another makes the one that
    /// was used least recently expire. That of the node at which a session is opened counts.
    #[must_use]
    pub fn sessions(mut self, most: u32) -> Options {
        self.sessions = most;
        self
    }

    /// How long a call waits for a leader, and for an answer: 10 s by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Options {
        self.patience = patience;
        self
    }

    /// Opens a node whose data are in a directory, making them if there are none. It takes part
    /// when this returns; a node that is alone leads. In a runtime of tokio.
    ///
    /// # Errors
    /// [`Error::Insecure`], [`Error::Invalid`]; [`Error::Storage`] if the logs cannot be opened,
    /// [`Error::Unreachable`] if the address cannot be listened at. When it joins:
    /// [`Error::NodeTaken`], [`Error::NoLeader`], and what the cluster says.
    pub async fn open(&self, dir: impl AsRef<Path>) -> Result<ReplicatedLog> {
        if self.node == Some(0) {
            return Err(Error::invalid("node", "0 is no id"));
        }
        let listener = match &self.listen {
            Some(address) => Some(listen(address, self.tls.is_some() || self.insecure).await?),
            None => None,
        };
        let address = match (&self.advertise, &listener) {
            (Some(address), _) => address.clone(),
            (None, Some(listener)) => listener.local_addr()?.to_string(),
            (None, None) if self.join.is_none() => String::new(),
            (None, None) => {
                return Err(Error::invalid("listen", "who joins a cluster must be reachable: give an address to listen at"));
            }
        };
        let config = openraft::Config {
            cluster_name: "foreword".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election.0),
            election_timeout_max: millis(self.election.1),
            install_snapshot_timeout: 10_000,
            // Snapshots are taken when the front has passed a checkpoint, and nothing behind them
            // is purged.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            enable_pre_vote: Some(true),
            // A leader that comes back may have applied less than it has acknowledged.
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|error| Error::invalid("timing", error))?;

        let (storage, dir) = (self.storage.clone(), dir.as_ref().to_owned());
        let logs = crate::blocking(move || storage.open(dir)).await??;
        let (group, own) = (logs.group(0), logs.group(1));
        let found = Identity::load(&own)?;
        let new = Identity {
            cluster: if self.join.is_none() { random()? } else { 0 },
            node: self.node.unwrap_or(1),
            instance: random()?,
            founder: self.join.is_none(),
        };
        if found.is_none() && self.join.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid("join", "there is no address of a node whose cluster is to be joined"));
        }
        let identity = found.unwrap_or(new);
        if let Some(node) = self.node.filter(|node| *node != identity.node) {
            return Err(Error::invalid("node", format!("this directory is node {}'s, not node {node}'s", identity.node)));
        }
        if found.is_none() {
            identity.save(&own)?;
        }
        let peer = Peer { address, instance: identity.instance };
        let (identity, known) = watch::channel(identity);
        let machine = Machine::open(own, self.checkpoint_bytes)?;
        let store = LogStore::new(group);
        let cluster = watch::Sender::new(identity.borrow().cluster);
        let addresses = Addresses::new(cluster.subscribe(), self.tls.clone());
        let network = Network(addresses.clone());
        let id = known.borrow().node;
        #[cfg(test)]
        let store = crate::sim::Store::new(id, store);
        let raft = Raft::new(id, Arc::new(config), network, store, machine.clone()).await?;
        let router = Router::new(self.tls.clone());
        router.set_cluster(known.borrow().cluster);
        let node = Arc::new(Node::new(raft, machine, logs, identity, addresses, router, self.patience));
        let (stop, stopped) = watch::channel(());
        let server = match listener {
            Some(listener) => Some(serve(node.clone(), listener, self.tls.as_ref(), stopped)?),
            None => None,
        };
        let inner = Inner {
            node,
            server: Mutex::new(server.map(|server| (stop, server))),
            sessions: self.sessions,
            address: peer.address.clone(),
        };
        let log = ReplicatedLog { inner: Arc::new(inner) };
        if let Err(error) = self.take_part(&log.inner.node, &cluster, &peer).await {
            _ = log.halt().await;
            return Err(error);
        }
        #[cfg(feature = "metrics")]
        tokio::spawn(crate::meters::report(Arc::downgrade(&log.inner.node)));
        Ok(log)
    }

    /// Begins a cluster, joins one, or goes on in the one of before.
    async fn take_part(&self, node: &Arc<Node>, cluster: &watch::Sender<u128>, peer: &Peer) -> Result<()> {
        let raft = node.raft();
        let identity = *node.identity.borrow();
        if raft.is_initialized().await? {
            // It is a member, and may have moved.
            if !peer.address.is_empty() {
                tokio::spawn(tell_address(Arc::downgrade(node), peer.clone()));
            }
        } else if identity.founder {
            // (It may have ended after it was named, and before this.)
            let members = std::collections::BTreeMap::from([(identity.node, peer.clone())]);
            if let Err(openraft::errors::RaftError::Fatal(fatal)) = raft.initialize(members).await {
                return Err(fatal.into());
            }
        } else if self.join.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid(
                "join",
                "this node was to join a cluster, and has not yet: give the address of one of its nodes",
            ));
        } else {
            self.ask_in(node, cluster, peer).await?;
        }
        // Alone, it leads at once.
        let alone = |membership: &openraft::RaftMetrics<crate::raft::Types>| {
            let mut voters = membership.membership_config.membership().voter_ids();
            voters.next() == Some(identity.node) && voters.next().is_none()
        };
        if alone(&raft.metrics().borrow_watched().clone()) {
            // There is nobody to wait for.
            raft.trigger().elect(false).await?;
            let applied = |metrics: &openraft::RaftMetrics<crate::raft::Types>| {
                metrics.current_leader == Some(identity.node)
                    && metrics.last_applied.map(|id| id.index()) == metrics.last_log_index
            };
            if let Err(error) = raft.wait(Some(self.patience)).metrics(applied, "a node that is alone leads").await {
                return Err(Error::NoLeader { waited: self.patience, last: error.to_string() });
            }
        }
        Ok(())
    }

    async fn ask_in(&self, node: &Arc<Node>, cluster: &watch::Sender<u128>, peer: &Peer) -> Result<()> {
        let router = Router::new(self.tls.clone());
        self.join.iter().flatten().for_each(|address| router.learn(address));
        let identity = *node.identity.borrow();
        if identity.cluster == 0 {
            // Which cluster it is, is kept before that counts on this node.
            let Answer::Status(status) = router.call(|| Call::Status, true, self.patience, self.patience).await? else {
                return Err(unexpected());
            };
            let found = u128::from_str_radix(&status.cluster, 16).map_err(|_| unexpected())?;
            node.set_cluster(found)?;
            cluster.send_replace(found);
        }
        router.set_cluster(node.cluster());
        let join = || Call::Join { node: identity.node, peer: peer.clone() };
        router.call(join, true, self.patience, self.patience).await.map(drop)
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

fn random() -> Result<u128> {
    #[cfg(test)]
    if let Some(drawn) = crate::sim::identity() {
        return Ok(drawn);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Storage(format!("no random bits for an identity: {error}")))?;
    Ok(u128::from_le_bytes(bytes).max(1))
}

async fn listen(address: &str, anywhere: bool) -> Result<TcpListener> {
    let failed =
        |error: std::io::Error| Error::Unreachable { address: address.to_owned(), why: format!("cannot listen there: {error}") };
    let found: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(failed)?.collect();
    if !anywhere && found.iter().any(|address| !address.ip().is_loopback()) {
        return Err(Error::Insecure { address: address.to_owned() });
    }
    TcpListener::bind(&*found).await.map_err(failed)
}

/// Serves until it is told to stop, or the sender is gone; then until no connection is left.
fn serve(node: Arc<Node>, listener: TcpListener, tls: Option<&Tls>, mut stopped: watch::Receiver<()>) -> Result<JoinHandle<()>> {
    let mut server = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(4)));
    if let Some(tls) = tls {
        server = server.tls_config(tls.server()).map_err(|error| Error::invalid("certificates", error))?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(tokio::spawn(async move {
        let stopped = async move { _ = stopped.changed().await };
        _ = server.serve_with_incoming_shutdown(Server(node), incoming, stopped).await;
    }))
}

/// Tells the group where this node is now, if that has changed.
async fn tell_address(node: std::sync::Weak<Node>, peer: Peer) {
    loop {
        let Some(node) = node.upgrade() else { return };
        let metrics = node.raft().metrics().borrow_watched().clone();
        let told = metrics.membership_config.membership().get_node(&metrics.id).is_none_or(|known| *known == peer);
        if told || metrics.running_state.is_err() {
            return;
        }
        let join = || Call::Join { node: metrics.id, peer: peer.clone() };
        let asked =
            if node.leads() { node.add(metrics.id, peer.clone()).await } else { node.at_leader(join, true).await.map(drop) };
        drop(node);
        if asked.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A log of records that a group of nodes agrees on: one node's part of it. Clones are handles to
/// the same.
///
/// Records have indices from 1 on, without holes, the same on all nodes. Any node takes any call:
/// what only the leader can do, it has the leader do.
#[derive(Clone)]
pub struct ReplicatedLog {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    /// Who drops the first stops the second.
    server: Mutex<Option<(watch::Sender<()>, JoinHandle<()>)>>,
    sessions: u32,
    address: String,
}

impl fmt::Debug for ReplicatedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedLog").field("node", &self.node()).field("address", &self.address()).finish_non_exhaustive()
    }
}

impl ReplicatedLog {
    /// Opens a node with the default [`Options`]: alone, without a network.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(dir: impl AsRef<Path>) -> Result<ReplicatedLog> {
        Options::new().open(dir).await
    }

    /// How a node may be opened; the same as [`Options::new`].
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    pub(crate) fn inner(&self) -> &Arc<Node> {
        &self.inner.node
    }

    /// The id of this node.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.inner().id()
    }

    /// At which `host:port` others reach this node; empty if they do not.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Appends a record, and waits until a majority of the voters has it durable, and it is applied
    /// here or at the leader: its index. Many calls at once share entries and flushes.
    ///
    /// # Errors
    /// [`Error::Unknown`] if it may have been appended; after all others nothing was:
    /// [`Error::NoLeader`], [`Error::Invalid`] for more than 16 MiB, [`Error::Storage`],
    /// [`Error::Closed`].
    pub async fn append(&self, record: impl Into<Bytes>) -> Result<u64> {
        self.append_batch([record]).await
    }

    /// Appends records that follow each other: the index of the first. All are there or none.
    ///
    /// # Errors
    /// As [`append`](ReplicatedLog::append); together they have at most 16 MiB, with 4 bytes for
    /// each.
    pub async fn append_batch<R: Into<Bytes>>(&self, records: impl IntoIterator<Item = R>) -> Result<u64> {
        appended(self.inner().propose_anywhere(Item::Append { records: checked(records)? }).await?, None)
    }

    /// Opens a session for [`append_once`](ReplicatedLog::append_once): its id, which no other
    /// session ever has. A session is a part of the log: it survives nodes and restarts.
    ///
    /// # Errors
    /// As [`append`](ReplicatedLog::append). It is tried again where an answer is lost, and a
    /// session that nobody knows of expires some day.
    pub async fn open_session(&self) -> Result<u64> {
        opened(self.inner().propose_anywhere(Item::OpenSession { most: self.inner.sessions }).await?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// As [`open_session`](ReplicatedLog::open_session). One that is not there is no error.
    pub async fn close_session(&self, client: u64) -> Result<()> {
        self.inner().propose_anywhere(Item::CloseSession { client }).await.map(drop)
    }

    /// As [`append_batch`](ReplicatedLog::append_batch), in a session, so that it counts once
    /// however often it is called: with a sequence that was used before in the session, it gives
    /// the index of that call, and appends nothing. So it tries again by itself where an answer is
    /// lost, and so can the caller, also at another node, or after a restart.
    ///
    /// Sequences are the caller's: one for each thing to append, ascending from 1 on. The newest 64
    /// of a session are remembered; a session may have so many calls under way at once, and they
    /// may overtake each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the sequence 0. [`Error::SessionExpired`],
    /// [`Error::SequenceForgotten`]: whether it was appended is not known any more. Otherwise as
    /// [`append`](ReplicatedLog::append); after [`Error::NoLeader`] and [`Error::Unknown`] call it
    /// again.
    pub async fn append_once<R: Into<Bytes>>(
        &self,
        client: u64,
        sequence: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Result<u64> {
        let item = once(client, sequence, records)?;
        appended(self.inner().propose_anywhere(item).await?, Some((client, sequence)))
    }

    /// Drops the records before an index, on all nodes: the first index that is kept, which is
    /// later if more was dropped before. Agreed by the group, as an append is. Disk space comes
    /// back in steps of
    /// [`checkpoint_bytes`](Options::checkpoint_bytes).
    ///
    /// # Errors
    /// [`Error::Ahead`] for an index behind the next; as
    /// [`open_session`](ReplicatedLog::open_session).
    pub async fn truncate_front(&self, index: u64) -> Result<u64> {
        truncated(self.inner().propose_anywhere(Item::TruncateFront { to: index }).await?, index)
    }

    /// The records of a range that are there, from its beginning on, up to 1 MiB or 16,384 of them,
    /// and at least one. Linearizable: they include all that was acknowledged to anyone before the
    /// call. Asks the leader, who asks a majority; the records are read here.
    ///
    /// # Errors
    /// [`Error::Dropped`] if the range begins before the first that is kept; [`Error::NoLeader`],
    /// [`Error::Storage`], [`Error::Closed`].
    pub async fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Record>> {
        self.inner().read_barrier().await?;
        self.read_local(range).await
    }

    /// As [`read`](ReplicatedLog::read), from what this node knows to be committed. Does not ask
    /// others: it may lag behind, and what is there stays there.
    ///
    /// # Errors
    /// The same, but [`Error::NoLeader`].
    pub async fn read_local(&self, range: impl RangeBounds<u64>) -> Result<Vec<Record>> {
        let (from, behind) = bounds(&range);
        Ok(records_of(self.inner().page(from, behind, usize::MAX, usize::MAX).await?))
    }

    /// The index of the last record, 0 if there never was one. Linearizable, as
    /// [`read`](ReplicatedLog::read).
    ///
    /// # Errors
    /// As [`read`](ReplicatedLog::read).
    pub async fn last(&self) -> Result<u64> {
        self.inner().read_barrier().await?;
        Ok(self.inner().machine().progress().next - 1)
    }

    /// The index of the first record that this node can read, which is that of the next if there is
    /// none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.inner().machine().progress().first
    }

    /// The committed records from an index on, in order, and those to come as this node learns that
    /// they are committed. Also on learners.
    ///
    /// It ends with an error: [`Error::Dropped`] when the front has passed it, [`Error::Ahead`] if
    /// it begins behind the next record, [`Error::Storage`], [`Error::Closed`].
    pub fn follow(&self, from: u64) -> Follow {
        Follow::of(self.inner().clone().pages(from))
    }

    /// What this node knows of itself and the cluster. Does not wait.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner().status()
    }

    /// Makes a learner a voter, once it has caught up, for which this waits.
    ///
    /// # Errors
    /// [`Error::Membership`] if it is not there, is too far behind, or another change does not end;
    /// [`Error::NoLeader`].
    pub async fn promote(&self, node: u64) -> Result<()> {
        match self.inner().promote(node).await {
            Err(Error::NotLeader { .. }) => self.inner().at_leader(|| Call::Promote { node }, true).await.map(drop),
            done => done,
        }
    }

    /// Removes a node, learner or voter. A leader that removes itself hands over first. What was
    /// removed must never come back under its id.
    ///
    /// # Errors
    /// [`Error::Membership`] for the last voter, or if another change does not end;
    /// [`Error::NoLeader`].
    pub async fn remove(&self, node: u64) -> Result<()> {
        match self.inner().remove(node).await {
            Err(Error::NotLeader { .. }) => self.inner().at_leader(|| Call::Remove { node }, true).await.map(drop),
            done => done,
        }
    }

    /// Hands the lead to another voter, by default the one that has most of the log, so that no
    /// time is lost when this node is stopped: the one that leads now.
    ///
    /// # Errors
    /// [`Error::Membership`] if it is no voter, or has not taken over; [`Error::NoLeader`].
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64> {
        match self.inner().transfer(to).await {
            Err(Error::NotLeader { .. }) => match self.inner().at_leader(|| Call::Transfer { to }, false).await? {
                Answer::Transferred { to } => Ok(to),
                _ => Err(unexpected()),
            },
            done => done,
        }
    }

    /// Closes this node's part: hands over the lead if it has it and another can take it, ends the
    /// protocol, and closes the storage. What is under way fails. Dropping the last handle does not
    /// wait for any of this.
    ///
    /// # Errors
    /// [`Error::Storage`] if what was written could not be made durable; what was acknowledged is.
    pub async fn close(&self) -> Result<()> {
        if self.inner().leads() {
            _ = tokio::time::timeout(Duration::from_secs(2), self.inner().transfer(None)).await;
        }
        self.halt().await
    }

    /// As [`close`](ReplicatedLog::close), without handing over the lead: to the others it is as if
    /// the process had ended.
    ///
    /// # Errors
    /// The same.
    pub async fn halt(&self) -> Result<()> {
        let closed = self.inner().close().await;
        let server = self.inner.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, server)) = server {
            drop(stop);
            // Connections end when what is under way on them has failed.
            let abort = server.abort_handle();
            if tokio::time::timeout(Duration::from_secs(1), server).await.is_err() {
                abort.abort();
            }
        }
        closed
    }
}
