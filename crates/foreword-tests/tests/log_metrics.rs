//! The metrics that a recorder gets, and that the dashboard and the documentation speak of
//! nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use foreword::{Lsn, Options};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
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

/// A log that has used every feature, and the metrics that it recorded.
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
    let log = metrics::with_local_recorder(&recorder, || Options::new().open(dir.path()).unwrap());
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
        ("oldest_flush_nanos", "oldest_flush_seconds"),
        ("slowest_reader_lsn", "reader_lag_records"),
        ("first_held_lsn", "held_records"),
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

/// Panics when it is asked for a metric, or when that is told something.
struct Panics {
    at_once: bool,
    told: Arc<AtomicUsize>,
}

impl Panics {
    fn hears(&self) {
        self.told.fetch_add(1, SeqCst);
        panic!("the recorder panics");
    }

    fn gives(&self) -> Arc<Panics> {
        if self.at_once {
            self.hears();
        }
        Arc::new(Panics { at_once: false, told: self.told.clone() })
    }
}

impl metrics::CounterFn for Panics {
    fn increment(&self, _: u64) {
        self.hears();
    }
    fn absolute(&self, _: u64) {
        self.hears();
    }
}

impl metrics::GaugeFn for Panics {
    fn increment(&self, _: f64) {
        self.hears();
    }
    fn decrement(&self, _: f64) {
        self.hears();
    }
    fn set(&self, _: f64) {
        self.hears();
    }
}

impl metrics::HistogramFn for Panics {
    fn record(&self, _: f64) {
        self.hears();
    }
}

impl metrics::Recorder for Panics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.gives())
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.gives())
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.gives())
    }
}

#[test]
fn a_recorder_that_panics_harms_nobody() {
    for at_once in [false, true] {
        for background in [false, true] {
            let told = Arc::new(AtomicUsize::new(0));
            let recorder = Panics { at_once, told: told.clone() };
            let dir = tempfile::tempdir().unwrap();
            let options = Options::new().segment_bytes(64 << 10).background(background);
            let log = metrics::with_local_recorder(&recorder, || options.open(dir.path()).unwrap());
            let (done, wait) = std::sync::mpsc::channel();
            // On a thread of its own: if a lock stays held, it hangs.
            let worker = std::thread::spawn(move || {
                for _ in 0..50 {
                    log.commit(&[7; 5000]).unwrap();
                }
                log.truncate_front(Lsn(20)).unwrap();
                log.truncate_back(Lsn(40)).unwrap();
                log.commit(b"more").unwrap();
                if background {
                    std::thread::sleep(std::time::Duration::from_millis(1200)); // What is told once a second.
                }
                log.close().unwrap();
                done.send(()).unwrap();
            });
            wait.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
            worker.join().unwrap();
            assert_eq!(told.load(SeqCst) > 50, !at_once, "{told:?}");
            let log = Options::new().open(dir.path()).unwrap();
            assert_eq!((log.recovery().verdict.name(), log.start_lsn(), log.last_lsn()), ("clean", Lsn(20), Lsn(40)));
        }
    }
}

/// Words that are names of a log's metrics, without what Prometheus makes of a histogram.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("foreword_"));
    // Not those of other crates.
    let words = words.filter(|word| !["foreword_archive_", "foreword_raft_"].iter().any(|other| word.starts_with(other)));
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
            if names.is_empty() && expr.contains("foreword_raft_") {
                continue; // Those of another crate.
            }
            assert!(!names.is_empty() && expr.contains("log=~\"$log\""), "{expr}");
            shown.extend(names);
        }
    }
    assert!(panels.len() >= 8 && shown.is_subset(&there), "{:?} are not there", shown.difference(&there));
    let alarms = names(&read("docs/alerts.yml"));
    assert!(alarms.len() >= 7 && alarms.is_subset(&there), "{:?} are not there", alarms.difference(&there));
    let documented = names(&read("docs/OPERATIONS.md"));
    assert_eq!(documented, there);
}
