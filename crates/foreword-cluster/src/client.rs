//! A client of a cluster: finds the leader, and goes on when it changes.

use std::fmt;
use std::ops::RangeBounds;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use foreword_raft::bounds;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::raft::{Item, Outcome};
use crate::rpc::network::Connection;
use crate::rpc::tls::Tls;
use crate::rpc::{Answer, Call, Page, decode, numbered};
use crate::status::{Record, SESSIONS, Status};

/// How long a node may think about a call that can be made elsewhere, too.
const ATTEMPT: Duration = Duration::from_secs(2);
/// So long a node that could not be reached is not tried as a leader: others pass calls on to it.
const SHUNNED: Duration = Duration::from_secs(5);

/// Nodes that can be asked, and which of them is to be asked first.
#[derive(Clone)]
pub(crate) struct Router {
    shared: Arc<Mutex<Known>>,
    tls: Option<Tls>,
}

#[derive(Default)]
struct Known {
    nodes: Vec<Host>,
    /// Which is asked first.
    first: usize,
    cluster: Option<u128>,
}

struct Host {
    connection: Connection,
    /// When it was tried last, and could not be reached.
    lost: Option<Instant>,
}

impl Known {
    fn find(&mut self, address: &str) -> Option<(usize, &mut Host)> {
        self.nodes.iter_mut().enumerate().find(|(_, node)| node.connection.address() == address)
    }

    fn first(&self) -> Result<&Connection> {
        let at = self.first.checked_rem(self.nodes.len());
        at.map(|at| &self.nodes[at].connection).ok_or(Error::NotLeader { leader: None })
    }
}

impl Router {
    pub(crate) fn new(tls: Option<Tls>) -> Router {
        Router { shared: Arc::default(), tls }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_cluster(&self, cluster: u128) {
        let mut known = self.known();
        known.cluster = Some(cluster);
        known.nodes.iter_mut().for_each(|node| node.connection = node.connection.only_cluster(cluster));
    }

    fn add(&self, address: &str) -> Result<()> {
        let connection = Connection::new(address, self.tls.as_ref())?;
        let mut known = self.known();
        if known.find(address).is_none() {
            let connection = known.cluster.map_or(connection.clone(), |cluster| connection.only_cluster(cluster));
            known.nodes.push(Host { connection, lost: None });
        }
        Ok(())
    }

    /// A node at an address; one that is known is kept.
    pub(crate) fn learn(&self, address: &str) {
        let known = self.known().find(address).is_some();
        if !known {
            _ = self.add(address);
        }
    }

    /// The node that is asked first from now on: the leader. False if it could not be reached just
    /// now; after a while one call tries again.
    pub(crate) fn prefer(&self, address: &str) -> bool {
        self.learn(address);
        let mut known = self.known();
        let Some((at, node)) = known.find(address) else { return false };
        if node.lost.is_some_and(|lost| lost.elapsed() < SHUNNED) {
            return false;
        }
        node.lost = node.lost.map(|_| Instant::now());
        known.first = at;
        true
    }

    fn next(&self, failed: &str) -> usize {
        let mut known = self.known();
        let count = known.nodes.len().max(1);
        // Unless another call has found a better one meanwhile.
        if known.first().is_ok_and(|first| first.address() == failed) {
            known.first = (known.first + 1) % count;
        }
        count
    }

    /// Notes whether a node could be reached.
    fn heard(&self, address: &str, reached: bool) {
        if let Some((_, node)) = self.known().find(address) {
            node.lost = (!reached).then(Instant::now);
        }
    }

    fn connection(&self) -> Result<Connection> {
        self.known().first().cloned()
    }

    /// The connection to a node.
    pub(crate) fn at(&self, address: &str) -> Result<Connection> {
        self.learn(address);
        let node = self.known().find(address).map(|(_, node)| node.connection.clone());
        node.ok_or_else(|| Error::invalid("address", address))
    }

    /// Makes a call until a node carries it out: for `search` at most as long as none does, and for
    /// `patience` once one may be at it. What is `harmless` is made again when its answer is lost.
    pub(crate) async fn call(
        &self,
        call: impl Fn() -> Call,
        harmless: bool,
        search: Duration,
        patience: Duration,
    ) -> Result<Answer> {
        let begun = Instant::now();
        let attempt = if harmless { ATTEMPT.min(patience) } else { patience };
        let (mut tried, mut lost) = (0, None);
        // Whether the leader is known and cannot be reached, so that others are to pass this on.
        let mut around = false;
        loop {
            let connection = self.connection()?;
            let address = connection.address();
            let called = connection.call(call(), around.then_some(attempt), attempt).await;
            self.heard(address, !matches!(called, Err(Error::Unreachable { .. } | Error::Unknown { .. })));
            let error = match called.and_then(|reply| reply) {
                Err(error) if error.is_refusal() || (harmless && matches!(error, Error::Unknown { .. })) => error,
                answered => return answered,
            };
            if matches!(error, Error::Unknown { .. }) {
                lost = Some(error.clone());
            }
            let nodes = match &error {
                Error::NotLeader { leader: Some((_, leader)) } if !leader.is_empty() && *leader != address => {
                    around = !self.prefer(leader);
                    2
                }
                _ => self.next(address),
            };
            if begun.elapsed() >= search {
                // Whatever came last: if one answer was lost, it may have been carried out.
                return Err(lost.unwrap_or(Error::NoLeader { waited: search, last: error.to_string() }));
            }
            tried += 1;
            if tried >= nodes {
                // All were asked, or each says that the other leads: soon one of them will know.
                tokio::time::sleep(Duration::from_millis(10 * (tried as u64).min(10))).await;
            }
        }
    }
}

/// A client of a cluster. Clones share their connections; any task may use any.
///
/// Each call goes to the node that leads, wherever it is: a node that does not says who does, and
/// passes the call on if the client cannot reach that one. Calls under way share a stream; up to 4
/// MiB are, and others wait. One address is enough, as long as its node is up when the client
/// begins; it learns the others.
#[derive(Clone)]
pub struct Client {
    router: Router,
    patience: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.router.known();
        let addresses: Vec<_> = known.nodes.iter().map(|node| node.connection.address()).collect();
        f.debug_struct("Client").field("addresses", &addresses).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the cluster of these nodes, given as `host:port`. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for something that is no address, or certificates that are none.
    pub fn new<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>, tls: Option<Tls>) -> Result<Client> {
        let router = Router::new(tls);
        for address in addresses {
            router.add(address.as_ref())?;
        }
        if router.known().nodes.is_empty() {
            return Err(Error::invalid("addresses", "there are none: give at least one node as host:port"));
        }
        Ok(Client { router, patience: Duration::from_secs(10) })
    }

    /// How long a call waits for a leader, and for an answer: 10 s by default.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Client {
        self.patience = patience;
        self
    }

    async fn call(&self, call: impl Fn() -> Call, harmless: bool) -> Result<Answer> {
        self.router.call(call, harmless, self.patience, self.patience).await
    }

    async fn propose(&self, item: Item) -> Result<Outcome> {
        let harmless = !matches!(item, Item::Append { .. });
        match self.call(|| Call::Propose(item.clone()), harmless).await? {
            Answer::Proposed(outcome) => Ok(outcome),
            _ => Err(unexpected()),
        }
    }

    /// As [`ReplicatedLog::append`](crate::ReplicatedLog::append).
    ///
    /// # Errors
    /// The same.
    pub async fn append(&self, record: impl Into<Bytes>) -> Result<u64> {
        self.append_batch([record]).await
    }

    /// As [`ReplicatedLog::append_batch`](crate::ReplicatedLog::append_batch).
    ///
    /// # Errors
    /// The same.
    pub async fn append_batch<R: Into<Bytes>>(&self, records: impl IntoIterator<Item = R>) -> Result<u64> {
        appended(self.propose(Item::Append { records: checked(records)? }).await?, None)
    }

    /// As [`ReplicatedLog::append_once`](crate::ReplicatedLog::append_once).
    ///
    /// # Errors
    /// The same.
    pub async fn append_once<R: Into<Bytes>>(
        &self,
        client: u64,
        sequence: u64,
        records: impl IntoIterator<Item = R>,
    ) -> Result<u64> {
        let item = once(client, sequence, records)?;
        appended(self.propose(item).await?, Some((client, sequence)))
    }

    /// As [`ReplicatedLog::open_session`](crate::ReplicatedLog::open_session), with room for 10,000
    /// sessions.
    ///
    /// # Errors
    /// The same.
    pub async fn open_session(&self) -> Result<u64> {
        opened(self.propose(Item::OpenSession { most: SESSIONS }).await?)
    }

    /// As [`ReplicatedLog::close_session`](crate::ReplicatedLog::close_session).
    ///
    /// # Errors
    /// The same.
    pub async fn close_session(&self, client: u64) -> Result<()> {
        self.propose(Item::CloseSession { client }).await.map(drop)
    }

    /// As [`ReplicatedLog::truncate_front`](crate::ReplicatedLog::truncate_front).
    ///
    /// # Errors
    /// The same.
    pub async fn truncate_front(&self, index: u64) -> Result<u64> {
        truncated(self.propose(Item::TruncateFront { to: index }).await?, index)
    }

    /// As [`ReplicatedLog::read`](crate::ReplicatedLog::read), from the first node that answers.
    ///
    /// # Errors
    /// The same.
    pub async fn read(&self, range: impl RangeBounds<u64>) -> Result<Vec<Record>> {
        self.read_page(range, true).await
    }

    /// As [`ReplicatedLog::read_local`](crate::ReplicatedLog::read_local), from the first node that
    /// answers, whichever that is: also where a majority is lost.
    ///
    /// # Errors
    /// The same, and [`Error::NoLeader`] if none answers.
    pub async fn read_local(&self, range: impl RangeBounds<u64>) -> Result<Vec<Record>> {
        self.read_page(range, false).await
    }

    async fn read_page(&self, range: impl RangeBounds<u64>, linearizable: bool) -> Result<Vec<Record>> {
        let (from, behind) = bounds(&range);
        let records = behind.saturating_sub(from);
        let page = self.call(|| Call::Read { from, records, bytes: u64::MAX, linearizable }, true).await?;
        match page {
            Answer::Page(page) => Ok(records_of(page)),
            _ => Err(unexpected()),
        }
    }

    /// As [`ReplicatedLog::follow`](crate::ReplicatedLog::follow). When its node goes away, the
    /// stream goes on with another; it ends with an error that no other node can help with, or when
    /// none has answered for as long as this client is [patient](Client::patience).
    pub fn follow(&self, from: u64) -> Follow {
        let client = self.clone();
        struct Following {
            client: Client,
            next: u64,
            pages: Option<(Connection, tonic::Streaming<Bytes>)>,
            failing: Option<Instant>,
        }
        let begin = Following { client, next: from, pages: None, failing: None };
        let pages = stream::unfold(Some(begin), async |state| {
            let mut state = state?;
            loop {
                let error = match &mut state.pages {
                    None => match state.client.router.connection() {
                        Err(error) => return Some((Err(error), None)),
                        Ok(connection) => match connection.follow(state.next).await {
                            Ok(pages) => {
                                state.pages = Some((connection, pages));
                                continue;
                            }
                            Err(error) => (connection, error),
                        },
                    },
                    Some((connection, pages)) => {
                        match pages.next().await.map(|page| page.and_then(|page| decode::<Result<Page>>(&page))) {
                            Some(Ok(Ok(page))) => {
                                state.failing = None;
                                state.next = page.from + page.records.len() as u64;
                                return Some((Ok(page), Some(state)));
                            }
                            Some(Ok(Err(error))) => (connection.clone(), error),
                            Some(Err(status)) => (connection.clone(), Error::unknown(status.message())),
                            None => (connection.clone(), Error::Closed),
                        }
                    }
                };
                state.pages = None;
                let (connection, error) = error;
                let since = *state.failing.get_or_insert_with(Instant::now);
                // (A node that is behind another catches up.)
                let elsewhere = error.is_refusal() || matches!(error, Error::Unknown { .. } | Error::Ahead { .. });
                if !elsewhere || since.elapsed() > state.client.patience {
                    return Some((Err(error), None));
                }
                state.client.router.next(connection.address());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Follow::of(pages)
    }

    /// What a node says of itself and the cluster: the one that this client asks first.
    ///
    /// # Errors
    /// [`Error::NoLeader`] if none answers.
    pub async fn status(&self) -> Result<Status> {
        match self.call(|| Call::Status, true).await? {
            Answer::Status(status) => {
                for member in &status.members {
                    self.router.learn(&member.address);
                }
                Ok(*status)
            }
            _ => Err(unexpected()),
        }
    }

    /// As [`ReplicatedLog::promote`](crate::ReplicatedLog::promote).
    ///
    /// # Errors
    /// The same.
    pub async fn promote(&self, node: u64) -> Result<()> {
        self.call(|| Call::Promote { node }, true).await.map(drop)
    }

    /// As [`ReplicatedLog::remove`](crate::ReplicatedLog::remove).
    ///
    /// # Errors
    /// The same.
    pub async fn remove(&self, node: u64) -> Result<()> {
        self.call(|| Call::Remove { node }, true).await.map(drop)
    }

    /// As [`ReplicatedLog::transfer`](crate::ReplicatedLog::transfer).
    ///
    /// # Errors
    /// The same.
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64> {
        match self.call(|| Call::Transfer { to }, false).await? {
            Answer::Transferred { to } => Ok(to),
            _ => Err(unexpected()),
        }
    }
}

pub(crate) fn unexpected() -> Error {
    Error::unknown("the node answered something else")
}

pub(crate) fn checked<R: Into<Bytes>>(records: impl IntoIterator<Item = R>) -> Result<Vec<Bytes>> {
    let records: Vec<Bytes> = records.into_iter().map(Into::into).collect();
    if records.is_empty() {
        return Err(Error::invalid("records", "there are none to append"));
    }
    Ok(records)
}

pub(crate) fn once<R: Into<Bytes>>(client: u64, sequence: u64, records: impl IntoIterator<Item = R>) -> Result<Item> {
    if sequence == 0 {
        return Err(Error::invalid("sequence", "sequences begin with 1"));
    }
    Ok(Item::Once { client, sequence, records: checked(records)? })
}

/// The index, or why there is none.
pub(crate) fn appended(outcome: Outcome, session: Option<(u64, u64)>) -> Result<u64> {
    let (client, sequence) = session.unwrap_or_default();
    match outcome {
        Outcome::Appended(index) | Outcome::Before(index) => Ok(index),
        Outcome::Expired => Err(Error::SessionExpired { client }),
        Outcome::Old(first) => Err(Error::SequenceForgotten { client, sequence, first }),
        _ => Err(unexpected()),
    }
}

pub(crate) fn opened(outcome: Outcome) -> Result<u64> {
    match outcome {
        Outcome::Opened(client) => Ok(client),
        _ => Err(unexpected()),
    }
}

pub(crate) fn truncated(outcome: Outcome, index: u64) -> Result<u64> {
    match outcome {
        Outcome::Front(front) => Ok(front),
        Outcome::Ahead(next) => Err(Error::Ahead { index, next }),
        _ => Err(unexpected()),
    }
}

pub(crate) fn records_of(page: Page) -> Vec<Record> {
    numbered(page).map(|(index, data)| Record { index, data }).collect()
}

/// Records as they come: a stream, as [`ReplicatedLog::follow`](crate::ReplicatedLog::follow) and
/// [`Client::follow`] give it. Ends after an error.
pub struct Follow(BoxStream<'static, Result<Record>>);

impl Follow {
    /// Records one by one.
    pub(crate) fn of(pages: impl Stream<Item = Result<Page>> + Send + 'static) -> Follow {
        let records = pages.flat_map(|page| match page {
            Ok(page) => stream::iter(records_of(page).into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        Follow(records.boxed())
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

impl Stream for Follow {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}
