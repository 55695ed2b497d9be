//! A node: its storage, the protocol, and what it can be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreword_raft::GroupLogs;
use foreword_raft::adapter::openraft::LogStore;
use futures_util::{Stream, stream};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::storage::RaftLogReader;
use openraft::{ChangeMembers, EntryPayload, ReadPolicy, ServerState};
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::Router;
use crate::error::{Error, Result};
use crate::raft::{Item, LogId, Outcome, Peer, Proposal, Types};
use crate::rpc::network::{Addresses, hex};
use crate::rpc::{Answer, Call, MESSAGE_MAX, PAGE_BYTES, Page, Reply};
use crate::status::{Member, Status};
use crate::store::{Identity, Machine, Raft};

/// What one caller may propose at once.
pub(crate) const ITEM_MAX: usize = MESSAGE_MAX / 4;
/// What is gathered into one entry, at most, beside the last that fits no more.
const ENTRY_BYTES: usize = 1 << 20;
const ENTRY_ITEMS: usize = 1024;
/// How many entries are on their way at once: while they are, what else comes gathers.
const ENTRIES_AT_ONCE: usize = 8;
/// How long a node looks for a leader elsewhere before it looks whether it leads itself.
const SEARCH: Duration = Duration::from_millis(500);
/// What is read at once, of [`PAGE_BYTES`] at most.
const PAGE_RECORDS: usize = 16 << 10;

/// A proposal on its way to the group.
struct Waiting {
    item: Item,
    answer: Box<dyn FnOnce(Result<Outcome>) + Send>,
}

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

    /// Adds a node as a learner, or says where it is now.
    pub(crate) async fn add(&self, id: u64, peer: Peer) -> Result<()> {
        self.check_open()?;
        if !self.leads() {
            return Err(self.not_leader()); // What it knows of the members may be old.
        }
        match self.peer(id) {
            Some(known) if known == peer => Ok(()),
            Some(known) if known.instance != peer.instance => {
                Err(Error::NodeTaken { node: id, why: format!("it is a member, at {}, with another directory", known.address) })
            }
            Some(_) => {
                // openraft goes on calling it where it was.
                self.addresses.set(id, &peer);
                self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, peer)])), true).await
            }
            None => self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, peer)])), true).await,
        }
    }

    /// Makes a learner a voter, once it has caught up.
    pub(crate) async fn promote(&self, id: u64) -> Result<()> {
        let now = self.write_now().await?;
        let membership = self.raft.metrics().borrow_watched().membership_config.membership().clone();
        if membership.voter_ids().any(|voter| voter == id) {
            return Ok(());
        }
        if membership.get_node(&id).is_none() {
            return Err(Error::Membership { why: format!("there is no node {id}: start it with --join first") });
        }
        // A voter that is far behind, or not there, counts for a majority, and cannot help to one.
        if let Err(behind) = self.have_caught_up(now, &BTreeSet::from([id]), 1).await? {
            let behind = behind.first().map_or(0, |(_, entries)| *entries);
            let why = format!("node {id} is not there, or {behind} entries behind: try again when it has caught up");
            return Err(Error::Membership { why });
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await
    }

    /// Removes a node, of whatever kind.
    pub(crate) async fn remove(&self, id: u64) -> Result<()> {
        let now = self.write_now().await?;
        let membership = self.raft.metrics().borrow_watched().membership_config.membership().clone();
        if membership.get_node(&id).is_none() {
            return Ok(());
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        if !voters.contains(&id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await;
        }
        if voters.len() == 1 {
            return Err(Error::Membership { why: format!("node {id} is the only voter: promote another first") });
        }
        // Those that are left must be able to agree without it, or the group stands still for good:
        // also to agree that it is removed.
        let left: BTreeSet<u64> = voters.into_iter().filter(|voter| *voter != id).collect();
        let majority = left.len() / 2 + 1;
        if let Err(behind) = self.have_caught_up(now, &left, majority).await? {
            let behind: Vec<String> = behind.iter().map(|(id, entries)| format!("node {id} by {entries} entries")).collect();
            let why = format!(
                "of the voters that would be left, {majority} must have caught up, and these are behind: {}; remove a voter \
                 that is lost first",
                behind.join(", ")
            );
            return Err(Error::Membership { why });
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await
    }

    /// Writes an entry, if this node leads. Once it is committed, so are all changes of the members
    /// before it: a node that does not lead, or not any more, may know none of them.
    async fn write_now(&self) -> Result<u64> {
        self.check_open()?;
        match tokio::time::timeout(self.patience, self.raft.write_blank()).await {
            Ok(Ok(written)) => Ok(written.log_id.index()),
            Ok(Err(RaftError::APIError(error))) => Err(refused(&error)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(fatal.into()),
            Err(_) => Err(Error::NoLeader { waited: self.patience, last: "a majority has not answered this node".to_owned() }),
        }
    }

    /// Waits until so many of these members have an entry; else those that have not, and by how
    /// many entries they are behind.
    async fn have_caught_up(&self, entry: u64, members: &BTreeSet<u64>, enough: usize) -> Result<Result<(), Vec<(u64, u64)>>> {
        let behind = |replication: &BTreeMap<u64, Option<LogId>>| -> Vec<(u64, u64)> {
            let by = |id: &u64| if *id == self.id() { 0 } else { entry.saturating_sub(matched_by(replication, *id)) };
            members.iter().map(|id| (*id, by(id))).filter(|(_, entries)| *entries > 0).collect()
        };
        let enough = |behind: &[_]| members.len() - behind.len() >= enough;
        let caught_up = |metrics: &openraft::RaftMetrics<Types>| match &metrics.replication {
            Some(replication) => enough(&behind(replication)),
            None => true, // It does not lead any more: the change is refused.
        };
        if self.raft.wait(Some(self.patience)).metrics(caught_up, "members have caught up").await.is_ok() {
            return Ok(Ok(()));
        }
        match &self.raft.metrics().borrow_watched().replication {
            Some(replication) => Ok(Err(behind(replication))),
            None => Err(self.not_leader()),
        }
    }

    /// Changes the members, once the change before is through.
    async fn change(&self, members: ChangeMembers<u64, Peer>, retain: bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            match self.raft.change_membership(members.clone(), retain).await {
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ))) if tokio::time::Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
                result => return changed(result),
            }
        }
    }

    /// Hands the lead to another voter, by default to the one that has the most: returns who has
    /// it.
    pub(crate) async fn transfer(&self, to: Option<u64>) -> Result<u64> {
        self.check_open()?;
        let metrics = self.raft.metrics().borrow_watched().clone();
        let Some(replication) = &metrics.replication else { return Err(self.not_leader()) };
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        let others = voters.iter().filter(|voter| **voter != self.id());
        let to = match to {
            Some(to) if to == self.id() => return Ok(to),
            Some(to) if !voters.contains(&to) => {
                return Err(Error::Membership { why: format!("node {to} is no voter: promote it first") });
            }
            Some(to) => to,
            None => *others
                .max_by_key(|voter| matched_by(replication, **voter))
                .ok_or_else(|| Error::Membership { why: "there is no other voter".to_owned() })?,
        };
        self.raft.trigger().transfer_leader(to).await?;
        let led = |metrics: &openraft::RaftMetrics<Types>| metrics.current_leader.is_some_and(|leader| leader != metrics.id);
        match self.raft.wait(Some(self.patience)).metrics(led, "another leads").await {
            Ok(metrics) => Ok(metrics.current_leader.unwrap_or(to)),
            Err(error) => Err(Error::Membership { why: format!("node {to} has not taken the lead: {error}") }),
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

    /// Committed records from an index on, as far as this node has applied them.
    pub(crate) async fn page(&self, from: u64, behind: u64, records: usize, bytes: usize) -> Result<Page> {
        // There is no record 0: that is the first.
        let from = if from == 0 { self.machine.progress().first } else { from };
        let mut cursor = Cursor { from, ..Cursor::default() };
        self.read(&mut cursor, behind, records.min(PAGE_RECORDS), bytes.min(PAGE_BYTES)).await
    }

    async fn read(&self, cursor: &mut Cursor, behind: u64, records: usize, bytes: usize) -> Result<Page> {
        self.check_open()?;
        let progress = self.machine.progress();
        let mut page = Page { from: cursor.from, records: Vec::new() };
        let dropped = |first| Error::Dropped { index: page.from, first };
        if cursor.from < progress.first {
            return Err(dropped(progress.first));
        }
        let behind = behind.min(progress.next);
        if cursor.from >= behind || records == 0 {
            return Ok(page);
        }
        if cursor.entry == 0 {
            let Some((entry, first)) = self.machine.find(cursor.from) else { return Err(dropped(progress.first)) };
            (cursor.entry, cursor.first) = (entry, first);
        }
        let mut room = bytes;
        let mut store = self.store.clone();
        while cursor.from < behind && cursor.entry <= progress.applied {
            let entries = match store.limited_get_log_entries(cursor.entry, progress.applied + 1).await {
                Ok(entries) if entries.first().is_some_and(|entry| entry.log_id.index() == cursor.entry) => entries,
                Ok(_) => {
                    // It was purged meanwhile; or this node was closed. What is kept may begin
                    // behind entries without a record.
                    self.check_open()?;
                    let again = self.machine.find(cursor.from).filter(|(entry, _)| *entry > cursor.entry);
                    if let Some((entry, first)) = again.filter(|_| cursor.from >= self.machine.progress().first) {
                        (cursor.entry, cursor.first) = (entry, first);
                        continue;
                    }
                    return if page.records.is_empty() { Err(dropped(self.machine.progress().first)) } else { Ok(page) };
                }
                Err(error) => {
                    self.check_open()?;
                    return Err(error.into());
                }
            };
            for entry in entries {
                let index = entry.log_id.index();
                let EntryPayload::Normal(proposal) = entry.payload else {
                    cursor.entry = index + 1;
                    continue;
                };
                let mut number = cursor.first;
                for (n, item) in (0..).zip(&proposal.items) {
                    if item.records().is_empty() || !self.machine.counts(index, n) {
                        continue;
                    }
                    for record in item.records() {
                        if number == cursor.from && number < behind {
                            let full = page.records.len() == records || (record.len() > room && !page.records.is_empty());
                            if full {
                                return Ok(page);
                            }
                            room = room.saturating_sub(record.len());
                            page.records.push(record.clone());
                            cursor.from += 1;
                        }
                        number += 1;
                    }
                }
                if cursor.from < number {
                    return Ok(page); // The end of the range lies in this entry.
                }
                (cursor.entry, cursor.first) = (index + 1, number);
            }
        }
        Ok(page)
    }

    /// The records from an index on, those to come among them. Ends with an error.
    pub(crate) fn pages(self: Arc<Self>, from: u64) -> impl Stream<Item = Result<Page>> + Send {
        let (progress, closed) = (self.machine.0.progress.subscribe(), self.closed.subscribe());
        let cursor = Cursor { from, ..Cursor::default() };
        stream::unfold(Some((self, progress, closed, cursor)), async |state| {
            let (node, mut progress, mut closed, mut cursor) = state?;
            if let Some(next) = Some(node.machine.progress().next).filter(|next| cursor.from > *next) {
                return Some((Err(Error::Ahead { index: cursor.from, next }), None));
            }
            loop {
                match node.read(&mut cursor, u64::MAX, PAGE_RECORDS, PAGE_BYTES).await {
                    Ok(page) if page.records.is_empty() => {}
                    Ok(page) => return Some((Ok(page), Some((node, progress, closed, cursor)))),
                    Err(error) => return Some((Err(error), None)),
                }
                let more = progress.wait_for(|progress| progress.next > cursor.from || progress.first > cursor.from);
                tokio::select! {
                    biased;
                    _ = more => {},
                    _ = closed.wait_for(|closed| *closed) => return Some((Err(Error::Closed), None)),
                }
            }
        })
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

/// Where a reader is.
#[derive(Default)]
struct Cursor {
    /// The record that is next.
    from: u64,
    /// An entry not behind it, and its first record; 0 if that is not known.
    entry: u64,
    first: u64,
}

/// Up to which entry a node has the leader's log.
fn matched_by(replication: &BTreeMap<u64, Option<LogId>>, node: u64) -> u64 {
    replication.get(&node).and_then(|matched| matched.as_ref()).map_or(0, LogId::index)
}

fn not_leader(forward: &ForwardToLeader<Types>) -> Error {
    let leader = forward.leader_id.zip(forward.leader_node.as_ref().map(|peer| peer.address.clone()));
    Error::NotLeader { leader }
}

fn changed<T>(result: Result<T, RaftError<Types, ClientWriteError<Types>>>) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
            Err(Error::Membership { why: error.to_string() })
        }
        Err(RaftError::APIError(error)) => Err(refused(&error)),
        Err(RaftError::Fatal(fatal)) => Err(Error::from(fatal)),
    }
}

fn refused(error: &ClientWriteError<Types>) -> Error {
    match error {
        // Before anything was appended.
        ClientWriteError::ForwardToLeader(forward) => not_leader(forward),
        error => Error::unknown(error),
    }
}

/// Gathers what callers propose into entries, and hands out what became of them.
async fn gather(raft: Raft, mut waiting: mpsc::Receiver<Waiting>) {
    let room = Arc::new(tokio::sync::Semaphore::new(ENTRIES_AT_ONCE));
    // How long each entry took, from here until a majority had it durable, and it was applied here.
    #[cfg(feature = "metrics")]
    let quorum = metrics::histogram!("foreword_raft_quorum_seconds", "node" => raft.node_id().to_string());
    let mut left = None;
    loop {
        let Some(first) = (match left.take() {
            Some(left) => Some(left),
            None => waiting.recv().await,
        }) else {
            return;
        };
        // While there is no room for another entry, more comes for this one.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let mut bytes = first.item.bytes();
        let (mut items, mut answers) = (vec![first.item], vec![first.answer]);
        while items.len() < ENTRY_ITEMS
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.item.bytes();
            if bytes > ENTRY_BYTES {
                left = Some(next);
                break;
            }
            items.push(next.item);
            answers.push(next.answer);
        }
        let (responder, answered) = ProgressResponder::complete_only();
        #[cfg(feature = "metrics")]
        let (quorum, proposed) = (quorum.clone(), tokio::time::Instant::now());
        let sent = raft.client_write_ff(Proposal { items }, Some(responder)).await;
        tokio::spawn(async move {
            let outcome = match sent {
                Err(fatal) => Err(Error::from(fatal)),
                Ok(()) => match answered.await {
                    Ok(Ok(written)) => {
                        #[cfg(feature = "metrics")]
                        quorum.record(proposed.elapsed());
                        Ok(written.data)
                    }
                    Ok(Err(error)) => Err(refused(&error)),
                    Err(_) => Err(Error::unknown("the node has stopped")),
                },
            };
            drop(permit);
            match outcome {
                Ok(outcomes) if outcomes.len() == answers.len() => {
                    answers.into_iter().zip(outcomes).for_each(|(answer, outcome)| answer(Ok(outcome)));
                }
                Ok(_) => answers.into_iter().for_each(|answer| answer(Err(Error::unknown("an entry without its outcome")))),
                Err(error) => answers.into_iter().for_each(|answer| answer(Err(error.clone()))),
            }
        });
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_appended_is_a_refusal() {
        let forward = ForwardToLeader {
            leader_id: Some(2),
            leader_node: Some(Peer { address: "b:1".to_owned(), instance: 2 }),
            reason: Default::default(),
        };
        let refusal = refused(&ClientWriteError::ForwardToLeader(forward.clone()));
        assert_eq!(refusal, Error::NotLeader { leader: Some((2, "b:1".to_owned())) });
        // Another leader may have committed it.
        let discarded = refused(&ClientWriteError::LogEntryDiscarded(forward));
        assert!(matches!(discarded, Error::Unknown { .. }) && !discarded.is_refusal(), "{discarded}");
    }
}
