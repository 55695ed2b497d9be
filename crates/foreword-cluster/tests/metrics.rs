//! What a node reports of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use common::{Cluster, options, run};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

#[test]
fn metrics_say_who_leads_how_far_the_members_are_and_how_long_a_majority_takes() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    run(async {
        let mut cluster = Cluster::with(2, |id| {
            options(id).timing(Duration::from_millis(100), (Duration::from_secs(3), Duration::from_secs(6)))
        })
        .await;
        let begun = Instant::now();
        cluster.node(1).append_batch(["a", "b"]).await.unwrap();
        let took = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        cluster.node(2).append("c").await.unwrap(); // The leader proposes this, too.
        let took = took.max(begun.elapsed().as_secs_f64());
        let (seen, quorum) = look(&snapshotter).await;
        for (name, value) in [
            ("leads node=1", 1.0),
            ("leads node=2", 0.0),
            ("leader node=2", 1.0),
            ("term node=1", 1.0),
            ("last_record node=1", 3.0),
            ("last_record node=2", 3.0),
            ("apply_lag_entries node=2", 0.0),
            ("lag_entries node=1 member=1", 0.0),
            ("lag_entries node=1 member=2", 0.0),
        ] {
            assert_eq!(seen.get(name), Some(&value), "{name} of {seen:?}");
        }
        assert!(seen["committed_entry node=1"] >= 3.0 && !seen.contains_key("lag_entries node=2 member=1"), "{seen:?}");
        // An entry of each call, on the leader alone; none took longer than its call.
        let by = |node| quorum.get(&format!("quorum_seconds node={node}")).cloned().unwrap_or_default();
        assert!(by(1).len() == 2 && by(1).iter().all(|seconds| (1e-6..took).contains(seconds)), "{quorum:?} of {took}");
        assert!(by(2).is_empty(), "{quorum:?}");

        assert!(seen["quorum_silent_seconds node=1"] < 1.0, "{seen:?}");
        cluster.stop(2).await;
        let (alone, _) = look(&snapshotter).await;
        assert!((1.0..60.0).contains(&alone["quorum_silent_seconds node=1"]), "{alone:?}");
        cluster.close().await;

        let keys = seen.keys().chain(quorum.keys());
        let there: BTreeSet<String> = keys.map(|key| key.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(named("docs/OPERATIONS.md"), there);
        let shown = named("docs/grafana.json");
        assert!(shown.len() >= 6 && shown.is_subset(&there), "{shown:?}");
        let alarms = named("docs/alerts.yml");
        assert!(alarms.len() >= 4 && alarms.is_subset(&there), "{alarms:?}");
    });
}

/// The gauges, after they were set, and the values of the histograms since the last look.
async fn look(snapshotter: &Snapshotter) -> (BTreeMap<String, f64>, BTreeMap<String, Vec<f64>>) {
    // They are set once a second, and a snapshot sets them back.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (mut gauges, mut histograms) = (BTreeMap::new(), BTreeMap::new());
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        // (Those of the log may be there, too.)
        let Some(name) = key.key().name().strip_prefix("foreword_raft_") else { continue };
        let name = format!("{name} {}", labels.join(" "));
        match value {
            DebugValue::Gauge(value) => _ = gauges.insert(name, value.into_inner()),
            DebugValue::Histogram(values) => _ = histograms.insert(name, values.into_iter().map(f64::from).collect()),
            DebugValue::Counter(_) => panic!("{name} is a counter"),
        }
    }
    (gauges, histograms)
}

/// The metrics that a document names, without what Prometheus makes of a histogram.
fn named(document: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{}/../../{document}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter_map(|word| word.strip_prefix("foreword_raft_").filter(|name| !name.is_empty()));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}
