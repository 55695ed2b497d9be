//! The counters and histograms behind the statistics.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::observe::meters::Meters;
use crate::observe::stats::{Histogram, Stats};

#[derive(Debug)]
struct AtomicHistogram {
    buckets: [AtomicU64; 64],
    sum: AtomicU64,
}

impl Default for AtomicHistogram {
    fn default() -> Self {
        AtomicHistogram { buckets: [const { AtomicU64::new(0) }; 64], sum: AtomicU64::new(0) }
    }
}

impl AtomicHistogram {
    fn record(&self, value: u64) {
        self.buckets[value.max(1).ilog2() as usize].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    fn read(&self) -> Histogram {
        let buckets = std::array::from_fn(|i| self.buckets[i].load(Relaxed));
        Histogram { buckets, sum: self.sum.load(Relaxed) }
    }
}

#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) written_bytes: AtomicU64,
    flushes: AtomicU64,
    flush_nanos: AtomicHistogram,
    group_records: AtomicHistogram,
    pub(crate) rotations: AtomicU64,
    rotation_wait_nanos: AtomicHistogram,
    pub(crate) created: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) removed: AtomicU64,
    pub(crate) meters: Meters,
}

impl Counters {
    pub(crate) fn new(dir: &Path) -> Counters {
        Counters {
            written_bytes: AtomicU64::default(),
            flushes: AtomicU64::default(),
            flush_nanos: AtomicHistogram::default(),
            group_records: AtomicHistogram::default(),
            rotations: AtomicU64::default(),
            rotation_wait_nanos: AtomicHistogram::default(),
            created: AtomicU64::default(),
            recycled: AtomicU64::default(),
            removed: AtomicU64::default(),
            meters: Meters::new(dir),
        }
    }

    pub(crate) fn flushed(&self, took: Duration, records: u64) {
        self.flushes.fetch_add(1, Relaxed);
        self.flush_nanos.record(took.as_nanos() as u64);
        self.group_records.record(records);
        self.meters.flushed(took, records);
    }

    pub(crate) fn waited_for_segment(&self, took: Duration) {
        self.rotation_wait_nanos.record(took.as_nanos() as u64);
        self.meters.waited_for_segment(took);
    }

    /// The part of the stats that is counted.
    pub(crate) fn read(&self) -> Stats {
        Stats {
            written_bytes: self.written_bytes.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
            flush_nanos: self.flush_nanos.read(),
            group_records: self.group_records.read(),
            rotations: self.rotations.load(Relaxed),
            rotation_wait_nanos: self.rotation_wait_nanos.read(),
            segments_created: self.created.load(Relaxed),
            segments_recycled: self.recycled.load(Relaxed),
            segments_removed: self.removed.load(Relaxed),
            ..Stats::default()
        }
    }
}
