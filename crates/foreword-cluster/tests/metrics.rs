//! What a node reports of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::collections::BTreeMap;

use common::{Cluster, run, wait_for};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[test]
fn gauges_say_who_leads_and_how_far_the_members_are() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    run(async {
        let cluster = Cluster::of(2).await;
        cluster.node(1).append_batch(["a", "b"]).await.unwrap();
        let mut seen = BTreeMap::new();
        wait_for(|| {
            for (key, _, _, value) in snapshotter.snapshot().into_vec() {
                let DebugValue::Gauge(value) = value else { continue };
                let labels: Vec<_> = key.key().labels().map(|label| label.value().to_owned()).collect();
                seen.insert((key.key().name().to_owned(), labels), value.into_inner());
            }
            let is = |name: &str, labels: &[&str], value: f64| {
                let labels = labels.iter().map(|label| (*label).to_owned()).collect();
                seen.get(&(name.to_owned(), labels)) == Some(&value)
            };
            let all = is("foreword_raft_leads", &["1"], 1.0)
                && is("foreword_raft_leads", &["2"], 0.0)
                && is("foreword_raft_leader", &["2"], 1.0)
                && is("foreword_raft_term", &["1"], 1.0)
                && is("foreword_raft_last_record", &["2"], 2.0)
                && is("foreword_raft_apply_lag_entries", &["1"], 0.0)
                && is("foreword_raft_lag_entries", &["1", "2"], 0.0)
                && !seen.contains_key(&("foreword_raft_lag_entries".to_owned(), vec!["2".to_owned(), "1".to_owned()]));
            (all && seen.keys().any(|(name, _)| name == "foreword_raft_committed_entry")).then_some(())
        })
        .await;
        cluster.close().await;
    });
}
