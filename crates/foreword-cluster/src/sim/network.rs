//! The network: it delays, loses, repeats and overtakes messages, cuts nodes off, also in one
//! direction, and breaks streams. A call that is the caller's to repeat comes once at most, as over
//! HTTP; those between members may come twice, and late.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{Sim, current, lock};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::raft::Types;
use crate::rpc::tls::Tls;
use crate::rpc::{Answer, Asked, Call, Reply, decode, encode, server};

#[derive(Default)]
pub(super) struct State {
    /// The nodes that are up, and how often each was started.
    pub(super) up: BTreeMap<u64, (Arc<Node>, u64)>,
    /// From whom to whom nothing comes.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Of 1000 messages so many are lost, come twice, are late.
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) late: u64,
    /// Whether members replicate by calls, which may overtake each other, and not by streams.
    pub(super) by_calls: bool,
    /// Which nodes' next vote is waited for; it says for which node it was.
    pub(super) voted: BTreeMap<u64, oneshot::Sender<u64>>,
}

/// How long a connection is believed in that nothing comes from.
const KEPT_ALIVE: Duration = Duration::from_secs(1);

/// One host's connection to another.
#[derive(Clone)]
pub(crate) struct Link {
    sim: Arc<Sim>,
    from: u64,
    to: u64,
}

/// What a node says to a stream of entries.
fn answers(
    node: &Node,
    requests: BoxStream<'static, AppendEntriesRequest<Types>>,
) -> BoxStream<'static, Result<StreamAppendResult<Types>>> {
    Box::pin(node.raft().stream_append(requests).map(|answer| answer.map_err(Error::from)))
}

/// Where a simulated host is.
pub(super) fn address(host: u64) -> String {
    format!("sim:{host}")
}

fn host(address: &str) -> Option<u64> {
    address.strip_prefix("sim:")?.parse().ok()
}

impl Link {
    /// To an address of a simulated host. Who calls is what its certificate says.
    pub(crate) fn between(tls: Option<&Tls>, address: &str) -> Option<Link> {
        let to = host(address)?;
        Some(Link { sim: current()?, from: tls.and_then(Tls::simulated).unwrap_or(0), to })
    }

    pub(super) fn certificate(host: u64) -> Tls {
        Tls::new("", "", address(host))
    }

    fn node(&self) -> Option<(Arc<Node>, u64)> {
        lock(&self.sim.net).up.get(&self.to).cloned()
    }

    /// How long a message takes; `None` if it is lost.
    fn fate(&self, from: u64, to: u64, bytes: &[u8]) -> Option<Duration> {
        let net = lock(&self.sim.net);
        let (lost, late) = (net.cut.contains(&(from, to)), net.late);
        // What is lost on the way is sent again; or the connection breaks.
        let dropped = self.sim.draw(|random| random.chance(net.lost));
        let lost = lost || dropped && self.sim.draw(|random| random.chance(300));
        let late = dropped || self.sim.draw(|random| random.chance(late));
        let micros = self.sim.draw(|random| if late { random.between(5_000, 300_000) } else { random.between(100, 3_000) });
        drop(net);
        self.sim.note(&[from, to, bytes.len() as u64, u64::from(crc32c::crc32c(bytes)), u64::from(lost)]);
        self.sim.count(if lost { "messages lost" } else { "messages" });
        (!lost).then(|| Duration::from_micros(micros))
    }

    async fn travel(&self, from: u64, to: u64, bytes: &[u8]) -> Result<()> {
        match self.fate(from, to, bytes) {
            Some(time) => sleep(time).await,
            None => {
                sleep(KEPT_ALIVE).await;
                return Err(Error::unknown("the connection broke"));
            }
        }
        Ok(())
    }

    fn unreachable(&self) -> Error {
        Error::Unreachable { address: address(self.to), why: "nobody listens".to_owned() }
    }

    /// Asks the node that is there. `refusal` is what the caller makes of one before the message
    /// was read. (Boxed, for the node that answers may call others.)
    pub(crate) fn call<'a>(
        &'a self,
        headers: &'a MetadataMap,
        call: Call,
        pass_on: Option<Duration>,
        refusal: impl Fn(Status) -> Error + Send + 'a,
    ) -> BoxFuture<'a, Result<Reply>> {
        Box::pin(self.ask(headers, Asked { number: 1, pass_on, call }, refusal))
    }

    async fn ask(&self, headers: &MetadataMap, asked: Asked, refusal: impl Fn(Status) -> Error) -> Result<Reply> {
        let asked = encode(&asked).map_err(Error::unknown)?;
        self.travel(self.from, self.to, &asked).await?;
        let Some((node, life)) = self.node() else { return Err(self.unreachable()) };
        let addressed = server::addressed(&node, headers).map_err(refusal)?;
        let read = || decode::<Asked>(&asked).map_err(Error::unknown);
        let Asked { pass_on, call: parsed, .. } = read()?;
        let repeats =
            addressed && parsed.is_between_members() && self.sim.draw(|random| random.chance(lock(&self.sim.net).twice));
        if repeats {
            self.sim.count("messages twice");
            let (node, again, later) = (node.clone(), read()?.call, self.sim.draw(|random| random.between(0, 400)));
            tokio::spawn(async move {
                sleep(Duration::from_millis(later)).await;
                _ = server::answer(node, again, None, addressed).await;
            });
        }
        if matches!(parsed, Call::Snapshot { .. }) {
            self.sim.count("snapshots installed");
        }
        let asks_for_a_vote = matches!(parsed, Call::Vote(_));
        // It goes on there, also if nobody waits for the answer.
        let answered = tokio::spawn(server::answer(node, parsed, pass_on, addressed));
        let answer = answered.await.map_err(|_| Error::unknown("the connection broke"))?;
        let bytes = encode(&answer).map_err(Error::unknown)?;
        if self.node().is_none_or(|(_, now)| now != life) {
            return Err(Error::unknown("the connection broke"));
        }
        if let Ok(Answer::Vote(vote)) = &answer
            && asks_for_a_vote
            && vote.vote_granted
            && let Some(waits) = lock(&self.sim.net).voted.remove(&self.to)
        {
            _ = waits.send(self.from); // If nobody waits any more, it is a vote as any.
        }
        self.travel(self.to, self.from, &bytes).await?;
        decode::<Reply>(&bytes).map_err(Error::unknown)
    }

    /// Whether the caller is to use a stream.
    pub(crate) fn streams(&self) -> bool {
        !lock(&self.sim.net).by_calls
    }

    /// Replicates by a stream, which keeps the order, until it breaks.
    pub(crate) async fn replicate<S>(
        self,
        headers: &MetadataMap,
        refusal: impl Fn(Status) -> Error,
        mut requests: S,
    ) -> Result<impl Stream<Item = Result<Result<StreamAppendResult<Types>>>> + Send + 'static>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        self.travel(self.from, self.to, &[]).await?;
        let Some((node, life)) = self.node() else { return Err(self.unreachable()) };
        server::addressed(&node, headers).map_err(refusal)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let link = self.clone();
        tokio::spawn(async move {
            let mut arrives = Instant::now();
            while let Some(request) = requests.next().await {
                let Ok(bytes) = encode(&request) else { return };
                let time = link.fate(link.from, link.to, &bytes);
                let lost = time.is_none();
                // What is lost ends it; what was sent before arrives.
                arrives = arrives.max(Instant::now() + time.unwrap_or(KEPT_ALIVE));
                if sender.send((arrives, bytes, lost)).is_err() || lost {
                    return;
                }
            }
        });
        let arriving = futures_util::stream::unfold(receiver, async |mut receiver| {
            let (at, bytes, lost): (Instant, Vec<u8>, bool) = receiver.recv().await?;
            sleep_until(at).await;
            if lost { None } else { Some((decode::<AppendEntriesRequest<Types>>(&bytes).ok()?, receiver)) }
        });
        let arriving: BoxStream<'static, AppendEntriesRequest<Types>> = Box::pin(arriving);
        let answers = answers(&node, arriving);
        let link = self;
        Ok(futures_util::stream::unfold(Some((answers, link)), move |state| async move {
            let (mut answers, link) = state?;
            let answer: Result<StreamAppendResult<Types>> = match answers.next().await {
                Some(answer) => answer,
                None => return Some((Err(Error::unknown("the connection broke")), None)),
            };
            let bytes = encode(&answer).unwrap_or_default();
            let broken = link.node().is_none_or(|(_, now)| now != life);
            if broken || link.travel(link.to, link.from, &bytes).await.is_err() {
                return Some((Err(Error::unknown("the connection broke")), None));
            }
            let answer = decode::<Result<StreamAppendResult<Types>>>(&bytes).map_err(Error::unknown);
            Some((answer, Some((answers, link))))
        }))
    }
}
