//! Changes of the members, by the node that leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};

use super::refusal::refused;
use super::{Node, matched_by};
use crate::error::{Error, Result};
use crate::raft::{LogId, Peer, Types};

impl Node {
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
