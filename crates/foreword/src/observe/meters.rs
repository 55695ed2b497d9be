//! The counters and histograms as the facade `metrics` wants them, if the feature of that name is
//! on; nothing at all if it is off.

#[cfg(feature = "metrics")]
mod on {
    use std::path::Path;
    use std::time::Duration;

    use metrics::{Counter, Gauge, Histogram, Unit};

    use crate::{Lsn, Stats, strangers};

    /// A quantity: its name, its unit, what it is, and its value.
    type Quantity<T> = (&'static str, Unit, &'static str, fn(&Stats) -> T);

    const COUNTERS: [Quantity<u64>; 8] = [
        ("foreword_records_total", Unit::Count, "Records appended", |s| s.records),
        ("foreword_record_bytes_total", Unit::Bytes, "Bytes of records appended, without framing", |s| s.record_bytes),
        ("foreword_written_bytes_total", Unit::Bytes, "Bytes written to segments, with framing and padding", |s| s.written_bytes),
        ("foreword_flushes_total", Unit::Count, "Flushes: each made everything before it durable", |s| s.flushes),
        ("foreword_rotations_total", Unit::Count, "Times that the log went on in another segment", |s| s.rotations),
        ("foreword_segments_created_total", Unit::Count, "Segments made", |s| s.segments_created),
        ("foreword_segments_recycled_total", Unit::Count, "Segments recycled from dropped ones", |s| s.segments_recycled),
        ("foreword_segments_removed_total", Unit::Count, "Segments removed", |s| s.segments_removed),
    ];

    const GAUGES: [Quantity<f64>; 15] = [
        ("foreword_segments", Unit::Count, "Segments of the log", |s| s.segments as f64),
        ("foreword_segments_prepared", Unit::Count, "Segments prepared for it", |s| s.segments_prepared as f64),
        ("foreword_segments_dropped", Unit::Count, "Segments dropped, and not used again or removed yet", |s| {
            s.segments_dropped as f64
        }),
        ("foreword_start_lsn", Unit::Count, "The first LSN", |s| s.start_lsn.0 as f64),
        ("foreword_appended_lsn", Unit::Count, "The last LSN appended", |s| s.appended_lsn.0 as f64),
        ("foreword_written_lsn", Unit::Count, "The last LSN that the operating system has", |s| s.written_lsn.0 as f64),
        ("foreword_durable_lsn", Unit::Count, "The last LSN that survives the machine", |s| s.durable_lsn.0 as f64),
        ("foreword_waiting_records", Unit::Count, "Records appended and not durable yet", |s| {
            behind(s.appended_lsn, s.durable_lsn)
        }),
        ("foreword_flushes_under_way", Unit::Count, "Groups on their way to the disk", |s| s.flushes_under_way as f64),
        ("foreword_oldest_flush_seconds", Unit::Seconds, "How long the oldest of them has been", |s| {
            s.oldest_flush_nanos as f64 / 1e9
        }),
        ("foreword_readers", Unit::Count, "Readers that follow the tail", |s| s.readers as f64),
        ("foreword_reader_lag_records", Unit::Count, "Records that the slowest of them has not read", |s| {
            if s.readers == 0 { 0.0 } else { behind(s.durable_lsn, s.slowest_reader_lsn) }
        }),
        ("foreword_holds", Unit::Count, "Holds", |s| s.holds as f64),
        ("foreword_held_records", Unit::Count, "Records from the first that a hold keeps to the last", |s| {
            if s.first_held_lsn == Lsn::ZERO { 0.0 } else { behind(s.durable_lsn.next(), s.first_held_lsn) }
        }),
        ("foreword_failed", Unit::Count, "1 if the log failed and accepts nothing more", |s| f64::from(u8::from(s.failed))),
    ];

    const FLUSH: &str = "foreword_flush_seconds";
    const GROUP: &str = "foreword_flush_records";
    const WAIT: &str = "foreword_rotation_wait_seconds";

    fn behind(ahead: Lsn, behind: Lsn) -> f64 {
        ahead.0.saturating_sub(behind.0) as f64
    }

    /// What the recorder that was installed when the log was opened gave for each.
    pub(crate) struct Meters {
        counters: [Counter; COUNTERS.len()],
        gauges: [Gauge; GAUGES.len()],
        flush: Histogram,
        group: Histogram,
        wait: Histogram,
    }

    impl std::fmt::Debug for Meters {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Meters")
        }
    }

    impl Meters {
        /// As the recorder gives them; of one that panics nothing is asked any more.
        pub(crate) fn new(dir: &Path) -> Meters {
            let mut meters = None;
            strangers::run(|| meters = Some(Meters::of_recorder(dir)));
            meters.unwrap_or_else(|| Meters {
                counters: COUNTERS.map(|_| Counter::noop()),
                gauges: GAUGES.map(|_| Gauge::noop()),
                flush: Histogram::noop(),
                group: Histogram::noop(),
                wait: Histogram::noop(),
            })
        }

        fn of_recorder(dir: &Path) -> Meters {
            for (name, unit, what, _) in COUNTERS {
                metrics::describe_counter!(name, unit, what);
            }
            for (name, unit, what, _) in GAUGES {
                metrics::describe_gauge!(name, unit, what);
            }
            metrics::describe_histogram!(
                FLUSH,
                Unit::Seconds,
                "How long a flush took, from its first write to the end of its sync"
            );
            metrics::describe_histogram!(GROUP, Unit::Count, "How many records a flush made durable");
            metrics::describe_histogram!(WAIT, Unit::Seconds, "How long an append waited because no segment was ready");
            let log = dir.display().to_string();
            Meters {
                counters: COUNTERS.map(|(name, ..)| metrics::counter!(name, "log" => log.clone())),
                gauges: GAUGES.map(|(name, ..)| metrics::gauge!(name, "log" => log.clone())),
                flush: metrics::histogram!(FLUSH, "log" => log.clone()),
                group: metrics::histogram!(GROUP, "log" => log.clone()),
                wait: metrics::histogram!(WAIT, "log" => log),
            }
        }

        pub(crate) fn flushed(&self, took: Duration, records: u64) {
            strangers::run(|| {
                self.flush.record(took);
                self.group.record(records as f64);
            });
        }

        pub(crate) fn waited_for_segment(&self, took: Duration) {
            strangers::run(|| self.wait.record(took));
        }

        /// What is counted on the way of each record is told once a second, so that no record pays
        /// for it.
        pub(crate) fn tell(&self, stats: &Stats) {
            strangers::run(|| {
                for (counter, (.., value)) in self.counters.iter().zip(COUNTERS) {
                    counter.absolute(value(stats));
                }
                for (gauge, (.., value)) in self.gauges.iter().zip(GAUGES) {
                    gauge.set(value(stats));
                }
            });
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use std::path::Path;
    use std::time::Duration;

    use crate::Stats;

    #[derive(Debug)]
    pub(crate) struct Meters;

    impl Meters {
        pub(crate) fn new(_dir: &Path) -> Meters {
            Meters
        }

        pub(crate) fn flushed(&self, _took: Duration, _records: u64) {}

        pub(crate) fn waited_for_segment(&self, _took: Duration) {}

        pub(crate) fn tell(&self, _stats: &Stats) {}
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::Meters;
#[cfg(feature = "metrics")]
pub(crate) use on::Meters;
