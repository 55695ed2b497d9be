//! What an archiver reports of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code, unreachable_pub)]

#[path = "it/support.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foreword_archive::{Archiver, Error};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::support::*;

#[test]
fn a_recorder_is_told_what_is_archived_and_what_is_not() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    run(async {
        let (place, (faulty, store)) = (Place::new(), Faulty::new());
        let log = small().open(place.log()).unwrap();
        commit_each(&log, 1..100, 2_000);
        let mut options = options();
        (options.patience, options.chunk_age) = (None, Duration::from_millis(20));
        let mut archiver = Archiver::begin(log.dir(), store.clone(), keys(), options).await.unwrap();
        push_on(&mut archiver, &log).await.unwrap();
        // (A snapshot takes all of them back to nothing: what is set seldom is looked at seldom.)
        let mut seen: BTreeMap<String, f64> = BTreeMap::new();
        let mut look = || {
            for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
                let Some(name) = key.key().name().strip_prefix("foreword_archive_") else { continue };
                let labels: Vec<_> = key.key().labels().map(|label| (label.key(), label.value())).collect();
                assert_eq!(labels, [("log", log.dir().to_str().unwrap())]);
                assert!(unit.is_some() && description.is_some(), "{name} is not described");
                let value = match value {
                    DebugValue::Counter(more) => seen.get(name).copied().unwrap_or(0.0) + more as f64,
                    DebugValue::Gauge(value) => value.0,
                    DebugValue::Histogram(values) => seen.get(name).copied().unwrap_or(0.0) + values.len() as f64,
                };
                seen.insert(name.to_owned(), value);
            }
            seen.clone()
        };
        let now = look();
        let objects = faulty.objects().await;
        let chunks: Vec<_> =
            objects.iter().filter(|(name, _)| name.starts_with("chunk/")).map(|(_, bytes)| bytes.len()).collect();
        assert_eq!((now["records_total"], now["archived_lsn"], now["stopped"]), (99.0, 99.0, 0.0));
        assert_eq!((now["chunks_total"], now["upload_seconds"]), (chunks.len() as f64, chunks.len() as f64));
        assert_eq!(now["chunk_bytes_total"], chunks.iter().sum::<usize>() as f64);
        assert!(now["confirm_seconds"] >= 1.0 && now["confirmed_timestamp_seconds"] > 1.7e9);
        // The store is away while records come.
        faulty.set(Fault::DeadBefore(0));
        commit(&log, 100..150);
        let running = tokio::spawn(async move { archiver.run(std::future::pending()).await });
        let begun = std::time::Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let now = look();
            if now["behind_records"] == 50.0 && now["failing_seconds"] > 1.0 && now["retries_total"] > 1.0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}");
        }
        faulty.set(Fault::None);
        let now = loop {
            let now = look();
            if now["archived_lsn"] == 149.0 {
                break now;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{now:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert_eq!(now["failing_seconds"], 0.0);
        // Another takes over.
        let mut options = support::options();
        options.hold = None;
        Archiver::begin(log.dir(), store, keys(), options).await.unwrap();
        commit(&log, 150..160);
        assert!(matches!(running.await.unwrap(), Err(Error::Fenced { .. })));
        let now = look();
        assert_eq!(now["stopped"], 1.0);

        let there: BTreeSet<String> = now.into_keys().collect();
        assert_eq!(named("docs/OPERATIONS.md"), there);
        let alarms = named("docs/alerts.yml");
        assert!(alarms.len() >= 4 && alarms.is_subset(&there), "{alarms:?}");
    });
}

/// The metrics that a document names.
fn named(document: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("{}/../../{document}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| word.strip_prefix("foreword_archive_").filter(|name| !name.is_empty())).map(str::to_owned).collect()
}
