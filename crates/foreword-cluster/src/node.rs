//! A node: its storage, the protocol, and what it can be asked.

mod gather;
mod members;
mod pages;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreword_raft::GroupLogs;
use foreword_raft::adapter::openraft::LogStore;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{ReadPolicy, ServerState};
use tokio::sync::{mpsc, oneshot, watch};

use self::gather::{ENTRY_ITEMS, Waiting, gather};
use self::refusal::not_leader;
use crate::client::Router;
use crate::error::{Error, Result};
use crate::raft::{Item, LogId, Outcome, Peer, Types};
use crate::rpc::network::{Addresses, hex};
use crate::rpc::{Answer, Call, MESSAGE_MAX, Reply};
use crate::status::{Member, Status};
use crate::store::{Identity, Machine, Raft};

/// What one caller may propose at once.
pub(crate) const ITEM_MAX: usize = MESSAGE_MAX / 4;
/// How long a node looks for a leader elsewhere before it looks whether it leads itself.
const SEARCH: Duration = Duration::from_millis(500);

pub(crate) struct Node {
    raft: Raft,
    machine: Machine,
    store: LogStore<Types>,
    logs: GroupLogs,
    pub(crate) identity: watch::Sender<Identity>,
    proposals: mpsc::Sender<Waiting>,
    /// Where the others are.
    addresses: Addresses,
    /// Asks others.
    router: Router,
    pub(crate) patience: Duration,
    /// Whether it is; the tasks of the node end with it.
    closed: watch::Sender<bool>,
}

impl Node {
    pub(crate) fn new(
        raft: Raft,
        machine: Machine,
        logs: GroupLogs,
        identity: watch::Sender<Identity>,
        addresses: Addresses,
        router: Router,
        patience: Duration,
    ) -> Node {
        let store = LogStore::new(logs.group(0));
        let (proposals, waiting) = mpsc::channel(4 * ENTRY_ITEMS);
        tokio::spawn(gather(raft.clone(), waiting));
        let closed = watch::Sender::new(false);
        tokio::spawn(renew_snapshot(raft.clone(), machine.clone(), closed.subscribe()));
        Node { raft, machine, store, logs, identity, proposals, addresses, router, patience, closed }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn id(&self) -> u64 {
        self.identity.borrow().node
    }

    pub(crate) fn instance(&self) -> u128 {
        self.identity.borrow().instance
    }

    pub(crate) fn cluster(&self) -> u128 {
        self.identity.borrow().cluster
    }

    /// Notes for good which cluster this node joins.
    pub(crate) fn set_cluster(&self, cluster: u128) -> Result<()> {
        let identity = Identity { cluster, ..*self.identity.borrow() };
        identity.save(&self.logs.group(1))?;
        self.identity.send_replace(identity);
        self.router.set_cluster(cluster);
        Ok(())
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    fn check_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(Error::Closed) } else { Ok(()) }
    }

    // What the leader does.

    /// Has the group agree, if this node leads.
    pub(crate) async fn propose(&self, item: Item) -> Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        if let Some(room) = self.offer(item, |outcome| _ = answer.send(outcome)) {
            room.await;
        }
        answered.await.unwrap_or(Err(Error::unknown("the node has stopped")))
    }

    /// As [`propose`](Node::propose), without waiting: `answer` hears what becomes of it, unless the
    /// node stops. If much waits already, this is to be waited for first.
    pub(crate) fn offer(
        &self,
        item: Item,
        answer: impl FnOnce(Result<Outcome>) + Send + 'static,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let bytes = item.bytes();
        let large = || Error::invalid("records", format!("they have {bytes} bytes, and at most {ITEM_MAX} go at once"));
        if let Err(error) = self.check_open().and(if bytes > ITEM_MAX { Err(large()) } else { Ok(()) }) {
            answer(Err(error));
            return None;
        }
        match self.proposals.try_send(Waiting { item, answer: Box::new(answer) }) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Closed(waiting)) => {
                (waiting.answer)(Err(Error::Closed));
                None
            }
            Err(mpsc::error::TrySendError::Full(waiting)) => {
                let proposals = self.proposals.clone();
                Some(async move {
                    if let Err(mpsc::error::SendError(waiting)) = proposals.send(waiting).await {
                        (waiting.answer)(Err(Error::Closed));
                    }
                })
            }
        }
    }

    /// The entry up to which a read has to be applied that sees all that was acknowledged before;
    /// confirmed by a majority that this node leads.
    pub(crate) async fn read_index_here(&self) -> Result<u64> {
        self.check_open()?;
        bug!(ReadStale, return Ok(self.machine.progress().applied));
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(not_leader(&forward)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(Error::NotLeader { leader: None }),
            Err(RaftError::Fatal(fatal)) => Err(fatal.into()),
        }
    }

    // What any node does.

    fn peer(&self, id: u64) -> Option<Peer> {
        self.raft.metrics().borrow_watched().membership_config.membership().get_node(&id).cloned()
    }

    pub(crate) fn not_leader(&self) -> Error {
        let leader = self.raft.metrics().borrow_watched().current_leader.filter(|leader| *leader != self.id());
        Error::NotLeader { leader: leader.and_then(|id| Some((id, self.peer(id)?.address))) }
    }

    /// Does it here if this node leads, and else has the leader do it.
    pub(crate) async fn propose_anywhere(&self, item: Item) -> Result<Outcome> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let harmless = !matches!(item, Item::Append { .. });
        let mut lost = None;
        loop {
            // A leader that is cut off waits for a majority for as long as it takes.
            let proposed = tokio::time::timeout_at(deadline, self.propose(item.clone())).await;
            let error = match proposed
                .unwrap_or_else(|_| Err(Error::unknown(format!("the group has not agreed within {:?}", self.patience))))
            {
                Err(Error::NotLeader { leader: Some((_, address)) }) if !address.is_empty() => {
                    self.learn();
                    self.router.prefer(&address);
                    match self.router.call(|| Call::Propose(item.clone()), harmless, SEARCH, self.patience).await {
                        Ok(Answer::Proposed(outcome)) => return Ok(outcome),
                        Ok(_) => return Err(Error::unknown("the node answered something else")),
                        // Perhaps this node leads now.
                        Err(error) => error,
                    }
                }
                Err(error) => error,
                answered => return answered,
            };
            match error {
                Error::NotLeader { .. } | Error::NoLeader { .. } => {}
                Error::Unknown { .. } if harmless => lost = Some(error.clone()),
                error => return Err(error),
            }
            if let Err(error) = self.wait_for_leader(deadline, &error).await {
                // Whatever came last: if one answer was lost, it may have been carried out.
                return Err(lost.unwrap_or(error));
            }
        }
    }

    async fn wait_for_leader(&self, deadline: tokio::time::Instant, error: &Error) -> Result<()> {
        if tokio::time::Instant::now() > deadline {
            return Err(Error::NoLeader { waited: self.patience, last: error.to_string() });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(())
    }

    /// Tells the router of all members.
    pub(crate) fn learn(&self) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        for (id, peer) in metrics.membership_config.membership().nodes() {
            if *id != self.id() && !peer.address.is_empty() {
                self.router.learn(&peer.address);
            }
        }
    }

    /// Has the leader do something else.
    pub(crate) async fn at_leader(&self, call: impl Fn() -> Call, harmless: bool) -> Result<Answer> {
        self.learn();
        if let Error::NotLeader { leader: Some((_, address)) } = self.not_leader() {
            self.router.prefer(&address);
        }
        self.router.call(call, harmless, self.patience, self.patience).await
    }

    /// Has the leader do what a client asks that cannot reach it, within this time. It does not pass
    /// it on. `Err` gives the call back, if this node knows of no other that leads.
    pub(crate) async fn pass_on(&self, call: Call, patience: Duration) -> Result<Reply, Call> {
        match self.not_leader() {
            Error::NotLeader { leader: Some((_, address)) } if !address.is_empty() => Ok(match self.router.at(&address) {
                Ok(leader) => leader.call(call, None, patience).await.and_then(|reply| reply),
                Err(error) => Err(error),
            }),
            _ => Err(call),
        }
    }

    /// Returns when this node is closed.
    pub(crate) async fn is_closed(&self) {
        _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(crate) fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().state == ServerState::Leader
    }

    /// Returns when this node has applied all that was acknowledged before the call.
    pub(crate) async fn read_barrier(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let index = loop {
            match self.read_index_here().await {
                Err(Error::NotLeader { leader: Some((_, address)) }) if !address.is_empty() => {
                    self.learn();
                    self.router.prefer(&address);
                    match self.router.call(|| Call::ReadIndex, true, SEARCH, self.patience).await {
                        Ok(Answer::ReadIndex(index)) => break index,
                        Ok(_) => return Err(Error::unknown("the node answered something else")),
                        Err(error @ Error::NoLeader { .. }) => self.wait_for_leader(deadline, &error).await?,
                        Err(error) => return Err(error),
                    }
                }
                Err(error @ Error::NotLeader { .. }) => self.wait_for_leader(deadline, &error).await?,
                answered => break answered?,
            }
        };
        bug!(ReadEarly, return Ok(()));
        let mut progress = self.machine.0.progress.subscribe();
        let applied = progress.wait_for(|progress| progress.applied >= index);
        match tokio::time::timeout_at(deadline, applied).await {
            Ok(Ok(_)) => self.check_open(),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::NoLeader { waited: self.patience, last: format!("entry {index} has not come to this node") }),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let progress = self.machine.progress();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let index = |id: Option<&crate::raft::LogId>| id.map_or(0, |id| id.index());
        let matched = |id: &u64| match &metrics.replication {
            Some(_) if *id == metrics.id => metrics.last_log_index,
            Some(replication) => Some(matched_by(replication, *id)),
            None => None,
        };
        Status {
            cluster: hex(self.cluster()),
            node: metrics.id,
            leader: metrics.current_leader,
            term: metrics.current_term,
            first: progress.first,
            last: progress.next - 1,
            last_entry: metrics.last_log_index.unwrap_or(0),
            committed_entry: index(metrics.local_committed.as_ref()),
            applied_entry: progress.applied,
            snapshot_entry: index(metrics.snapshot.as_ref()),
            purged_entry: index(metrics.purged.as_ref()),
            failure: metrics.running_state.as_ref().err().map(ToString::to_string),
            members: membership
                .nodes()
                .map(|(id, peer)| Member {
                    node: *id,
                    address: peer.address.clone(),
                    voter: voters.contains(id),
                    matched_entry: matched(id),
                })
                .collect(),
        }
    }

    /// Ends the protocol, and then the storage. What is under way fails.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<()> {
        if self.closed.send_replace(true) {
            return Ok(());
        }
        _ = self.raft.shutdown().await;
        // Closing waits for the disk.
        let node = self.clone();
        Ok(crate::blocking(move || node.logs.close()).await??)
    }

    /// Whether the entries in this node's log are without a hole, of terms that never go back. What
    /// cannot be read is not judged.
    #[cfg(test)]
    pub(crate) async fn entries_in_order(&self) -> Result<(), String> {
        use openraft::storage::RaftLogReader;
        let entries = self.store.clone().try_get_log_entries(..).await.unwrap_or_default();
        let follows = |a: &LogId, b: &LogId| a.index() + 1 == b.index() && a.committed_leader_id() <= b.committed_leader_id();
        match entries.windows(2).find(|pair| !follows(&pair[0].log_id, &pair[1].log_id)) {
            Some(pair) => Err(format!("entry {} behind {}", pair[1].log_id, pair[0].log_id)),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(crate) fn logs(&self) -> &GroupLogs {
        &self.logs
    }

    /// Ends the protocol and nothing else: the process is gone.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        self.closed.send_replace(true);
        _ = self.raft.shutdown().await;
    }
}

/// Up to which entry a node has the leader's log.
fn matched_by(replication: &BTreeMap<u64, Option<LogId>>, node: u64) -> u64 {
    replication.get(&node).and_then(|matched| matched.as_ref()).map_or(0, LogId::index)
}

/// Has openraft take a newer snapshot, and purge up to it, when the front has passed one.
async fn renew_snapshot(raft: Raft, machine: Machine, mut closed: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = machine.0.outdated.notified() => {},
            _ = closed.changed() => return, // Or its node is gone.
        }
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
