//! The physical limits, measured between the log's own measurements: what no log could do better
//! here.

use std::path::Path;
use std::time::{Duration, Instant};

use foreword::{Log, Options, SyncPolicy};
use foreword_measure::floor::{self, Bandwidth, Floor};
use foreword_measure::sample::{Latencies, Spread};
use serde::Serialize;

use super::strategy::Strategy;
use crate::exit::Failure;

const FLOOR_BYTES: u64 = 64 << 20;
const BANDWIDTH_BYTES: u64 = 128 << 20;
/// What an append costs is timed in stretches so short that nothing is written meanwhile.
const STRETCH_BYTES: usize = 256 << 10;

/// The files that all of this takes.
pub(super) const NEED_BYTES: u64 = 3 * FLOOR_BYTES + BANDWIDTH_BYTES;

/// What is measured for records of one size.
pub(super) struct Gauge {
    record: Vec<u8>,
    floor: Floor,
    /// In which an append's cost is timed.
    log: Log,
    /// Bytes on disk of a record, when frames are full.
    framed_bytes: f64,
    flush: Vec<f64>,
    flushes: Latencies,
    bandwidth: Vec<f64>,
    append: Vec<f64>,
}

/// What limits records of one size, all rounds together.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    pub(super) record_bytes: usize,
    /// F: the best single durable write of the blocks that a record takes, into a zero-filled file.
    pub(super) floor: FloorFound,
    /// W: bytes a second that large writes get through.
    pub(super) bandwidth: Spread,
    /// r: bytes on disk of a record, when frames are full.
    pub(super) framed_bytes: f64,
    /// c: what an append takes of the processor, one thread, in seconds.
    pub(super) append_seconds: Spread,
}

#[derive(Debug, Serialize)]
pub(super) struct FloorFound {
    pub(super) method: floor::Method,
    pub(super) block_bytes: usize,
    pub(super) latency: Latencies,
    pub(super) median_seconds: Spread,
}

/// The limits of one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) flush: f64,
    pub(super) bandwidth: f64,
    pub(super) framed_bytes: f64,
    pub(super) append: f64,
}

/// What it was that set the ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    Flush,
    Bandwidth,
    Processor,
}

impl Bound {
    pub(super) fn formula(self) -> &'static str {
        match self {
            Bound::Flush => "n/F",
            Bound::Bandwidth => "W/r",
            Bound::Processor => "1/c",
        }
    }
}

impl Now {
    /// The most records a second, and why: n / F (n records share a flush), W / r, 1 / c.
    pub(super) fn ceiling(&self, strategy: Strategy, threads: usize) -> (f64, Bound) {
        let flush = strategy.records_a_flush(threads).map_or(f64::INFINITY, |n| n as f64 / self.flush);
        let all = [
            (flush, Bound::Flush),
            (self.bandwidth / self.framed_bytes, Bound::Bandwidth),
            (1.0 / self.append, Bound::Processor),
        ];
        all.into_iter().fold((f64::INFINITY, Bound::Flush), |least, next| if next.0 < least.0 { next } else { least })
    }
}

impl Gauge {
    pub(super) fn new(dir: &Path, record: Vec<u8>, time: Duration) -> Result<Gauge, Failure> {
        let log = Options::new()
            .segment_bytes(16 << 20)
            .sync(SyncPolicy::manual())
            .open(dir.join(format!("gauge-{}", record.len())))?;
        // A record alone: the blocks of its frame.
        let before = log.stats().written_bytes;
        log.commit(&record)?;
        let alone = (log.stats().written_bytes - before) as usize;
        // Many: their share of full frames.
        let many = (4 * STRETCH_BYTES).div_ceil(record.len().max(1));
        let before = log.stats().written_bytes;
        for _ in 0..many {
            log.append(&record)?;
        }
        log.sync()?;
        let framed_bytes = (log.stats().written_bytes - before) as f64 / many as f64;
        let floor = Floor::find(dir, alone, FLOOR_BYTES, time)?;
        let (flush, bandwidth, append) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Gauge { record, floor, log, framed_bytes, flush, flushes: Latencies::new(), bandwidth, append })
    }

    /// Once a round.
    pub(super) fn measure_rates(&mut self, file: &Bandwidth) -> Result<(), Failure> {
        self.bandwidth.push(file.write()?);
        let count = (STRETCH_BYTES / self.record.len().max(64)).max(1);
        let mut stretches = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            for _ in 0..count {
                self.log.append(&self.record)?;
            }
            stretches.push(started.elapsed().as_secs_f64() / count as f64);
            self.log.sync()?;
        }
        self.log.truncate_front(self.log.last_lsn())?;
        self.append.extend(Spread::of(&stretches).map(|s| s.median));
        Ok(())
    }

    /// Before and after each measurement of the log: the median of a few durable writes, in
    /// seconds.
    pub(super) fn measure_flush(&mut self, time: Duration) -> Result<f64, Failure> {
        let burst = self.floor.burst(time)?;
        let flush = burst.latencies.quantile(0.5).as_secs_f64();
        self.flush.push(flush);
        self.flushes.merge(&burst.latencies);
        Ok(flush)
    }

    /// The limits of this round, with the flush time measured next to a measurement.
    pub(super) fn now(&self, flush: f64) -> Now {
        let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
        Now { flush, bandwidth: last(&self.bandwidth), framed_bytes: self.framed_bytes, append: last(&self.append) }
    }

    pub(super) fn limits(self) -> Result<Limits, Failure> {
        self.log.close()?;
        let spread = |values: &[f64]| Spread::of(values).ok_or_else(|| Failure::Wrong("nothing was measured".to_owned()));
        Ok(Limits {
            record_bytes: self.record.len(),
            bandwidth: spread(&self.bandwidth)?,
            framed_bytes: self.framed_bytes,
            append_seconds: spread(&self.append)?,
            floor: FloorFound {
                method: self.floor.strategy().method,
                block_bytes: self.floor.block_bytes(),
                median_seconds: spread(&self.flush)?,
                latency: self.flushes,
            },
        })
    }
}

/// A file for measuring bandwidth.
pub(super) fn bandwidth(dir: &Path) -> Result<Bandwidth, Failure> {
    Ok(Bandwidth::open(dir, BANDWIDTH_BYTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_is_the_least_of_the_three() {
        let now = Now { flush: 100e-6, bandwidth: 1e9, framed_bytes: 150.0, append: 250e-9 };
        let ceiling = |strategy, threads| {
            let (rate, bound) = now.ceiling(strategy, threads);
            (rate.round() as u64, bound)
        };
        assert_eq!(ceiling(Strategy::Each, 64), (10_000, Bound::Flush));
        assert_eq!(ceiling(Strategy::Group, 64), (640_000, Bound::Flush));
        assert_eq!(ceiling(Strategy::Group, 1000), (4_000_000, Bound::Processor));
        assert_eq!(ceiling(Strategy::Every(100), 1), (1_000_000, Bound::Flush));
        assert_eq!(ceiling(Strategy::Buffered, 1), (4_000_000, Bound::Processor));
        let large = Now { framed_bytes: 16_000.0, ..now };
        assert_eq!(large.ceiling(Strategy::Buffered, 1), (62_500.0, Bound::Bandwidth));
    }
}
