//! What a node reports of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{Cluster, options, run};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[test]
fn gauges_say_who_leads_and_how_far_the_members_are() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    run(async {
        let cluster = Cluster::with(2, |id| {
            options(id).timing(Duration::from_millis(100), (Duration::from_secs(3), Duration::from_secs(6)))
        })
        .await;
        cluster.node(1).append_batch(["a", "b"]).await.unwrap();
        // They are set once a second, and a snapshot sets them back.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let seen: BTreeMap<String, f64> = snapshotter
            .snapshot()
            .into_vec()
            .into_iter()
            .filter_map(|(key, _, _, value)| {
                let DebugValue::Gauge(value) = value else { return None };
                let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
                // (Those of the log may be there, too.)
                let name = key.key().name().strip_prefix("foreword_raft_")?;
                Some((format!("{name} {}", labels.join(" ")), value.into_inner()))
            })
            .collect();
        for (name, value) in [
            ("leads node=1", 1.0),
            ("leads node=2", 0.0),
            ("leader node=2", 1.0),
            ("term node=1", 1.0),
            ("last_record node=1", 2.0),
            ("last_record node=2", 2.0),
            ("apply_lag_entries node=2", 0.0),
            ("lag_entries node=1 member=1", 0.0),
            ("lag_entries node=1 member=2", 0.0),
        ] {
            assert_eq!(seen.get(name), Some(&value), "{name} of {seen:?}");
        }
        assert!(seen["committed_entry node=1"] >= 3.0 && !seen.contains_key("lag_entries node=2 member=1"), "{seen:?}");
        cluster.close().await;

        let there: BTreeSet<String> = seen.keys().map(|key| key.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(named("docs/REPLICATION.md"), there);
        let shown = named("docs/grafana.json");
        assert!(shown.len() >= 5 && shown.is_subset(&there), "{shown:?}");
    });
}

/// The gauges that a document names.
fn named(document: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{}/../../{document}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| word.strip_prefix("foreword_raft_").filter(|name| !name.is_empty())).map(str::to_owned).collect()
}
