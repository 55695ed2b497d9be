//! What a recorder of metrics is told, and that the dashboard and the documentation speak of nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use foreword::{Lsn, Options};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// By name: unit, description, value; all of one log.
fn told(snapshotter: &Snapshotter, log: &std::path::Path) -> BTreeMap<String, DebugValue> {
    let mut told = BTreeMap::new();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key.key().labels().map(|l| (l.key().to_owned(), l.value().to_owned())).collect();
        assert_eq!(labels, [("log".to_owned(), log.display().to_string())]);
        assert!(unit.is_some() && description.is_some(), "{key:?} is not described");
        told.insert(key.key().name().to_owned(), value);
    }
    told
}

/// A log that has done something of everything, and what was told of it.
fn work() -> BTreeMap<String, DebugValue> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let dir = tempfile::tempdir().unwrap();
    metrics::with_local_recorder(&recorder, || {
        let log = Options::new().segment_bytes(64 << 10).background(false).open(dir.path()).unwrap();
        for _ in 0..50 {
            log.commit_batch(&[[7; 1000]; 10]).unwrap();
        }
        log.reader().wait_next(None).unwrap();
        log.close().unwrap();
    });
    told(&snapshotter, dir.path())
}

#[test]
fn a_recorder_is_told_what_the_stats_say() {
    let told = work();
    let counter = |name: &str| match &told[name] {
        DebugValue::Counter(value) => *value,
        other => panic!("{name}: {other:?}"),
    };
    let gauge = |name: &str| match &told[name] {
        DebugValue::Gauge(value) => value.0,
        other => panic!("{name}: {other:?}"),
    };
    let histogram = |name: &str| match &told[name] {
        DebugValue::Histogram(values) => values.iter().map(|v| v.0).collect::<Vec<f64>>(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!((counter("foreword_records_total"), counter("foreword_record_bytes_total")), (500, 500_000));
    assert!(counter("foreword_written_bytes_total") > 500_000 && counter("foreword_rotations_total") >= 7);
    assert_eq!((gauge("foreword_durable_lsn"), gauge("foreword_start_lsn"), gauge("foreword_failed")), (500.0, 1.0, 0.0));
    assert_eq!((gauge("foreword_waiting_records"), gauge("foreword_flushes_under_way")), (0.0, 0.0));
    let (flushes, groups) = (histogram("foreword_flush_seconds"), histogram("foreword_flush_records"));
    assert_eq!(flushes.len() as u64, counter("foreword_flushes_total"));
    assert!(flushes.iter().all(|&seconds| seconds > 0.0 && seconds < 60.0), "{flushes:?}");
    assert_eq!(groups.iter().sum::<f64>(), 500.0);
    assert_eq!(groups.iter().filter(|&&records| records == 10.0).count(), 50);
    assert!(!histogram("foreword_rotation_wait_seconds").is_empty(), "without a background, each rotation waits");
}

#[test]
fn the_background_tells_once_a_second() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let dir = tempfile::tempdir().unwrap();
    // Without the file, too.
    let log = metrics::with_local_recorder(&recorder, || Options::new().publish(false).open(dir.path()).unwrap());
    log.commit(b"one").unwrap();
    let started = std::time::Instant::now();
    while !matches!(&told(&snapshotter, dir.path())["foreword_durable_lsn"], DebugValue::Gauge(v) if v.0 == 1.0) {
        assert!(started.elapsed().as_secs() < 20);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(log.durable_lsn(), Lsn(1));
    log.close().unwrap();
}

/// What the stats have, the recorder is told, under its own name or one that is usual for metrics.
#[test]
fn all_that_the_stats_have_is_told() {
    const OTHER_NAMES: [(&str, &str); 6] = [
        ("flush_nanos", "flush_seconds"),
        ("group_records", "flush_records"),
        ("rotation_wait_nanos", "rotation_wait_seconds"),
        ("flights", "flushes_under_way"),
        ("flight_nanos", "oldest_flush_seconds"),
        ("slowest_reader_lsn", "reader_lag_records"),
    ];
    let there = work();
    let debug = format!("{:#?}", foreword::Stats::default());
    let fields: Vec<&str> =
        debug.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": ")).map(|(name, _)| name).collect();
    let fields: Vec<&str> = fields.into_iter().filter(|name| !name.starts_with(' ')).collect();
    assert!(fields.len() >= 23, "{fields:?}");
    for field in fields {
        let name = OTHER_NAMES.iter().find(|(of, _)| *of == field).map_or(field, |(_, other)| other);
        let told = [format!("foreword_{name}"), format!("foreword_{name}_total")];
        assert!(told.iter().any(|name| there.contains_key(name)), "{field} is in no metric");
    }
}

/// Words that are names of metrics, without what Prometheus makes of a histogram.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("foreword_"));
    let base = |word: &str| ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s)).unwrap_or(word).to_owned();
    words.map(base).collect()
}

#[test]
fn the_dashboard_and_the_documentation_name_what_there_is() {
    let there: BTreeSet<String> = work().into_keys().collect();
    let read = |path: &str| std::fs::read_to_string(format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = BTreeSet::new();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let names = names(expr);
            assert!(!names.is_empty() && expr.contains("log=~\"$log\""), "{expr}");
            shown.extend(names);
        }
    }
    assert!(panels.len() >= 8 && shown.is_subset(&there), "{:?} are not there", shown.difference(&there));
    let documented = names(&read("docs/OPERATIONS.md"));
    assert_eq!(documented, there);
}
