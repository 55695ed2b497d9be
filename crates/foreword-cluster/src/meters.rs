//! What a node tells the facade `metrics`. Each metric carries the node's id, for several may run in
//! one process.

use std::sync::Weak;
use std::time::Duration;

use metrics::gauge;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use tokio::time::Instant;

use crate::node::Node;

/// Sets the gauges once a second, as long as the node is there.
pub(crate) async fn report(node: Weak<Node>) {
    // Since when this node has led without any answer of a majority.
    let mut since = Instant::now();
    while let Some(node) = node.upgrade() {
        let status = node.status();
        let leads = status.leader == Some(status.node);
        let acknowledged = node.raft().metrics().borrow_watched().last_quorum_acked;
        drop(node);
        let silent = if leads { acknowledged.map(|at| at.elapsed()) } else { Some(Duration::ZERO) };
        if silent.is_some() {
            since = Instant::now();
        }
        let id = status.node.to_string();
        let set = |name: &'static str, value: u64| gauge!(name, "node" => id.clone()).set(value as f64);
        set("foreword_raft_term", status.term);
        set("foreword_raft_leader", status.leader.unwrap_or(0));
        set("foreword_raft_leads", u64::from(leads));
        set("foreword_raft_committed_entry", status.committed_entry);
        set("foreword_raft_apply_lag_entries", status.committed_entry.saturating_sub(status.applied_entry));
        set("foreword_raft_last_record", status.last);
        gauge!("foreword_raft_quorum_silent_seconds", "node" => id.clone()).set(silent.unwrap_or(since.elapsed()));
        for member in &status.members {
            if let Some(matched) = member.matched_entry {
                let lag = status.last_entry.saturating_sub(matched);
                gauge!("foreword_raft_lag_entries", "node" => id.clone(), "member" => member.node.to_string()).set(lag as f64);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
