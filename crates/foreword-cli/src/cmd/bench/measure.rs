//! The measurement: every combination in turns, round by round, on one log whose front is dropped
//! as it grows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foreword::{Histogram, Log, Options};
use foreword_measure::load::{self, Outcome};
use foreword_measure::machine::Device;
use foreword_measure::sample::{self, Latencies, Spread};
use serde::Serialize;

use super::limits::{self, Bound, Gauge, Limits};
use super::strategy::Strategy;
use crate::cmd::ground::Ground;
use crate::exit::Failure;

/// The log is kept below this many segments: their files are used again, as in a database that
/// drops what a checkpoint made unneeded.
pub(super) const SEGMENTS_MAX: u64 = 4;

/// What is to be measured.
pub(super) struct Plan {
    pub(super) strategies: Vec<Strategy>,
    pub(super) threads: Vec<usize>,
    pub(super) records: Vec<usize>,
    pub(super) time: Duration,
    pub(super) rounds: usize,
    pub(super) segment_bytes: u64,
    pub(super) open_loop: Option<Loads>,
}

/// Rates of an open loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Loads {
    /// Parts of the closed loop's throughput.
    Auto,
    Rates(Vec<f64>),
}

const AUTO_LOADS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 0.9];

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    pub(super) limits: Vec<Limits>,
    pub(super) closed: Vec<Cell>,
    pub(super) open_loop: Vec<OpenCell>,
}

/// A strategy, with a number of threads and a size of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Key {
    pub(super) strategy: Strategy,
    pub(super) threads: usize,
    pub(super) record_bytes: usize,
}

/// Each thread begins the next as soon as the last is done.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    #[serde(flatten)]
    pub(super) key: Key,
    /// Whether a record is durable when the call returns.
    pub(super) waits: bool,
    /// Records a second, durable at the end.
    pub(super) rate: Spread,
    /// The most that it could be, by the limits of the same round, and what part of it was reached.
    pub(super) ceiling: Spread,
    pub(super) ceiling_by: Bound,
    pub(super) eta: Spread,
    /// From the call to its return.
    pub(super) latency: Latencies,
    pub(super) flushes: u64,
    pub(super) records_per_flush: f64,
    pub(super) groups: Vec<GroupSize>,
    /// What the log counts as written, to what was given to it.
    pub(super) log_bytes_per_byte: f64,
    /// What the device counts (the file system's metadata, segments filled with zeros and other
    /// programs included).
    pub(super) device_bytes_per_byte: Option<f64>,
}

/// The number of flushes that made a number of records durable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct GroupSize {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) flushes: u64,
}

/// Records come at a given rate.
#[derive(Debug, Serialize)]
pub(super) struct OpenCell {
    #[serde(flatten)]
    pub(super) key: Key,
    /// Records a second that came, and that were done.
    pub(super) offered: f64,
    pub(super) rate: f64,
    /// From the moment that a record should have been begun.
    pub(super) latency: Latencies,
}

/// How records come.
enum Pace {
    Closed,
    /// The given rates per second.
    Open(f64),
}

/// One run of the log.
struct Run {
    outcome: Outcome,
    seconds: f64,
    groups: Histogram,
    flushes: u64,
    record_bytes: u64,
    written_bytes: u64,
    device_bytes: Option<u64>,
}

pub(super) fn measure(ground: &Ground, plan: &Plan) -> Result<Results, Failure> {
    let cells = plan.threads.len() * plan.strategies.len();
    let waiting = plan.strategies.iter().filter(|s| s.waits()).count();
    let loads = plan.open_loop.as_ref().map_or(0, |loads| match loads {
        Loads::Auto => AUTO_LOADS.len(),
        Loads::Rates(rates) => rates.len(),
    });
    ground.expect(plan.rounds * plan.records.len() * (1 + cells + loads * waiting));
    ground.doing("preparing files");
    let bench = Bench { ground, plan, dir: ground.dir().join("log"), device: ground.place().device.clone() };
    let record = |&bytes: &usize| (0..bytes).map(|i| (i * 31 % 251) as u8 + 1).collect::<Vec<u8>>();
    let gauge = |record: Vec<u8>| Gauge::new(ground.dir(), record, (plan.time / 4).min(Duration::from_secs(1)));
    let mut gauges = plan.records.iter().map(record).map(gauge).collect::<Result<Vec<_>, _>>()?;
    let closed = bench.closed(&mut gauges)?;
    let open_loop = bench.open_loop(&closed)?;
    let limits = gauges.into_iter().map(Gauge::limits).collect::<Result<_, _>>()?;
    Ok(Results { limits, closed, open_loop })
}

struct Bench<'a> {
    ground: &'a Ground,
    plan: &'a Plan,
    /// The log's.
    dir: PathBuf,
    device: Option<Device>,
}

impl Bench<'_> {
    fn keys(&self, record_bytes: usize) -> impl Iterator<Item = Key> {
        let threads = self.plan.threads.iter();
        threads
            .flat_map(move |&threads| self.plan.strategies.iter().map(move |&strategy| Key { strategy, threads, record_bytes }))
    }

    fn closed(&self, gauges: &mut [Gauge]) -> Result<Vec<Cell>, Failure> {
        let keys: Vec<Key> = self.plan.records.iter().flat_map(|&bytes| self.keys(bytes)).collect();
        let mut rounds: Vec<Rounds> = keys.iter().map(|_| Rounds::default()).collect();
        let file = limits::bandwidth(self.ground.dir())?;
        let each = self.plan.time / self.plan.rounds as u32;
        for _ in 0..self.plan.rounds {
            for (gauge, &record_bytes) in gauges.iter_mut().zip(&self.plan.records) {
                self.ground.doing("bandwidth, and what an append costs");
                gauge.measure_rates(&file)?;
                self.ground.step()?;
                let burst = (each / 5).min(Duration::from_millis(200));
                let mut before = gauge.measure_flush(burst)?;
                for (key, rounds) in keys.iter().zip(&mut rounds).filter(|(key, _)| key.record_bytes == record_bytes) {
                    self.say(key, "");
                    let run = self.run(key, Pace::Closed, each)?;
                    let after = gauge.measure_flush(burst)?;
                    let (ceiling, bound) = gauge.now(before.min(after)).ceiling(key.strategy, key.threads);
                    rounds.add(run, ceiling, bound);
                    before = after;
                    self.ground.step()?;
                }
            }
        }
        keys.into_iter().zip(rounds).map(|(key, rounds)| rounds.cell(key)).collect()
    }

    /// The strategies that wait for the disk, with the most threads, at each load.
    fn open_loop(&self, closed: &[Cell]) -> Result<Vec<OpenCell>, Failure> {
        let (Some(loads), Some(&threads)) = (&self.plan.open_loop, self.plan.threads.iter().max()) else { return Ok(Vec::new()) };
        let mut cells = Vec::new();
        for &record_bytes in &self.plan.records {
            let waiting = || self.keys(record_bytes).filter(|key| key.strategy.waits() && key.threads == threads);
            let fastest = closed
                .iter()
                .filter(|cell| waiting().any(|key| key == cell.key))
                .map(|cell| cell.rate.median)
                .fold(0.0, f64::max);
            let rates = match loads {
                Loads::Auto => AUTO_LOADS.map(|part| part * fastest).to_vec(),
                Loads::Rates(rates) => rates.clone(),
            };
            let all: Vec<(Key, f64)> = rates.iter().flat_map(|&rate| waiting().map(move |key| (key, rate))).collect();
            cells.extend(self.at_loads(&all)?);
        }
        Ok(cells)
    }

    fn at_loads(&self, all: &[(Key, f64)]) -> Result<Vec<OpenCell>, Failure> {
        let each = self.plan.time / self.plan.rounds as u32;
        let mut outcomes: Vec<Vec<Outcome>> = all.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.plan.rounds {
            for ((key, rate), outcomes) in all.iter().zip(&mut outcomes) {
                self.say(key, &format!(", {rate:.0} a second"));
                outcomes.push(self.run(key, Pace::Open(*rate), each)?.outcome);
                self.ground.step()?;
            }
        }
        let cell = |(&(key, offered), outcomes): (&(Key, f64), Vec<Outcome>)| {
            let mut latency = Latencies::new();
            outcomes.iter().for_each(|outcome| latency.merge(&outcome.latencies));
            let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
            OpenCell { key, offered, rate: latency.count() as f64 / seconds.max(1e-9), latency }
        };
        Ok(all.iter().zip(outcomes).map(cell).collect())
    }

    fn say(&self, key: &Key, more: &str) {
        self.ground.doing(format!("{}, {} threads, {} B{more}", key.strategy, key.threads, key.record_bytes));
    }

    /// Opens the log, loads it, makes all of it durable, closes it.
    fn run(&self, key: &Key, pace: Pace, time: Duration) -> Result<Run, Failure> {
        let log = open(&self.dir, self.plan.segment_bytes, key.strategy)?;
        let device_bytes = || self.device.as_ref().and_then(Device::written_bytes);
        let before = device_bytes();
        let (turn, record) = (Mutex::new(()), vec![0xa5; key.record_bytes]);
        let worker = |_thread| {
            let mut count = 0;
            let (log, record, turn) = (&log, &record, &turn);
            move || {
                self.ground.check()?;
                count += 1;
                Ok(put(log, key.strategy, record, count, turn)?)
            }
        };
        let outcome = keeping_short(&log, || match pace {
            Pace::Closed => load::closed(key.threads, time, worker),
            Pace::Open(rate) => load::open(key.threads, rate, time, worker),
        })?;
        let started = Instant::now();
        log.sync()?;
        let seconds = outcome.seconds + started.elapsed().as_secs_f64();
        let device_bytes = device_bytes().zip(before).map(|(now, before)| now - before);
        let stats = log.stats();
        log.truncate_front(log.last_lsn())?;
        log.close()?;
        Ok(Run {
            outcome,
            seconds,
            groups: stats.group_records,
            flushes: stats.flushes,
            record_bytes: stats.record_bytes,
            written_bytes: stats.written_bytes,
            device_bytes,
        })
    }
}

fn open(dir: &Path, segment_bytes: u64, strategy: Strategy) -> Result<Log, foreword::Error> {
    Options::new().segment_bytes(segment_bytes).record_bytes_max((1 << 30) - 1).sync(strategy.policy()).open(dir)
}

/// What a thread does for its record of this number.
fn put(log: &Log, strategy: Strategy, record: &[u8], number: u64, turn: &Mutex<()>) -> Result<(), foreword::Error> {
    match strategy {
        Strategy::Each => {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            log.commit(record)?;
        }
        Strategy::Group => {
            log.commit(record)?;
        }
        Strategy::Every(n) => {
            log.append(record)?;
            if number.is_multiple_of(n) {
                log.sync()?;
            }
        }
        Strategy::Interval(_) | Strategy::Buffered => {
            log.append(record)?;
        }
    }
    Ok(())
}

/// Drops the log's front meanwhile, so that it does not fill the disk.
fn keeping_short<T>(log: &Log, load: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let keeper = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if log.stats().segments >= SEGMENTS_MAX {
                    log.truncate_front(log.last_lsn())?;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok::<(), foreword::Error>(())
        });
        let loaded = load();
        over.store(true, Ordering::Relaxed);
        let kept = keeper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let loaded = loaded?;
        kept?;
        Ok(loaded)
    })
}

/// What the rounds of one combination gave.
#[derive(Default)]
struct Rounds {
    rates: Vec<f64>,
    ceilings: Vec<f64>,
    bound: Option<Bound>,
    latency: Latencies,
    groups: Histogram,
    flushes: u64,
    records: u64,
    record_bytes: u64,
    written_bytes: u64,
    device_bytes: Option<u64>,
}

impl Rounds {
    fn add(&mut self, run: Run, ceiling: f64, bound: Bound) {
        self.rates.push(run.outcome.count as f64 / run.seconds);
        self.ceilings.push(ceiling);
        self.bound = Some(bound);
        self.latency.merge(&run.outcome.latencies);
        self.groups.merge(&run.groups);
        self.flushes += run.flushes;
        self.records += run.outcome.count;
        self.record_bytes += run.record_bytes;
        self.written_bytes += run.written_bytes;
        self.device_bytes = run.device_bytes.map(|bytes| bytes + self.device_bytes.unwrap_or(0));
    }

    fn cell(self, key: Key) -> Result<Cell, Failure> {
        let nothing = || {
            Failure::Wrong(format!(
                "{}, {} threads: nothing was done in that time: give it more with --for",
                key.strategy, key.threads
            ))
        };
        let (Some(rate), Some(ceiling), Some(eta), Some(ceiling_by)) =
            (Spread::of(&self.rates), Spread::of(&self.ceilings), sample::ratio(&self.rates, &self.ceilings), self.bound)
        else {
            return Err(nothing());
        };
        let to_payload = |bytes: u64| bytes as f64 / self.record_bytes.max(1) as f64;
        let group = |(i, &flushes): (usize, &u64)| GroupSize { from: 1 << i, to: u64::MAX >> (63 - i), flushes };
        Ok(Cell {
            key,
            waits: key.strategy.waits(),
            rate,
            ceiling,
            ceiling_by,
            eta,
            records_per_flush: self.records as f64 / self.flushes.max(1) as f64,
            groups: self.groups.buckets().iter().enumerate().filter(|(_, flushes)| **flushes > 0).map(group).collect(),
            latency: self.latency,
            flushes: self.flushes,
            log_bytes_per_byte: to_payload(self.written_bytes),
            device_bytes_per_byte: self.device_bytes.map(to_payload),
        })
    }
}
