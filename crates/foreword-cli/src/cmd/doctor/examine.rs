//! The examination: which probes are made, and how they take turns.

use std::time::Duration;

use foreword_measure::floor::{Bandwidth, FileState, Method, Probe, Shape, Strategy};
use foreword_measure::sample::{self, Latencies, Spread};
use serde::Serialize;

use crate::cmd::ground::Ground;
use crate::exit::Failure;

/// Of each strategy's file, while all of them take turns; and of the two that are looked at closer.
const PROBE_BYTES: u64 = 16 << 20;
const CLOSER_BYTES: u64 = 64 << 20;
const BANDWIDTH_BYTES: u64 = 128 << 20;
/// At most so much is there at once (20 probes), with something to spare.
pub(super) const NEED_BYTES: u64 = 400 << 20;

pub(super) const ROUNDS: usize = 5;
pub(super) const BLOCK: usize = 4096;
const SIZES: [usize; 5] = [BLOCK, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const IN_FLIGHT: [usize; 3] = [2, 4, 8];
/// To it the others are compared: what works everywhere.
const BASE: Strategy = Strategy { state: FileState::Zeroed, method: Method::Fdatasync };

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    /// A durable write of 4 KiB, one at a time.
    pub(super) strategies: Vec<Measured>,
    pub(super) unavailable: Vec<Unavailable>,
    /// The same without a flush: not durable.
    pub(super) unflushed: Vec<Measured>,
    /// The best method for a zero-filled file, and fdatasync: by size, and by how many are in
    /// flight.
    pub(super) shapes: Vec<Measured>,
    /// Bytes a second.
    pub(super) write_bandwidth: Spread,
    pub(super) read_bandwidth: Option<Spread>,
}

/// Writes of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) state: FileState,
    pub(super) method: Method,
    pub(super) block_bytes: usize,
    pub(super) in_flight: usize,
    pub(super) latency: Latencies,
    /// The medians of the rounds, in seconds.
    pub(super) median_seconds: Spread,
    pub(super) writes_per_second: Spread,
    /// The medians, to those of a zero-filled file with fdatasync in the same round.
    pub(super) to_base: Option<Spread>,
}

impl Measured {
    pub(super) fn strategy(&self) -> Strategy {
        Strategy { state: self.state, method: self.method }
    }
}

/// A method that was not measured in files of some states.
#[derive(Debug, Serialize)]
pub(super) struct Unavailable {
    pub(super) method: Method,
    pub(super) states: Vec<FileState>,
    pub(super) why: String,
}

impl Unavailable {
    pub(super) fn name(&self) -> String {
        let states: Vec<&str> = self.states.iter().map(|state| state.name()).collect();
        format!("{}, {}", self.method.name(), states.join(" or "))
    }

    /// Equal reasons are printed once.
    fn add(all: &mut Vec<Unavailable>, Strategy { state, method }: Strategy, why: &str) {
        match all.iter_mut().find(|u| u.method == method && u.why == why) {
            Some(same) => same.states.push(state),
            None => all.push(Unavailable { method, states: vec![state], why: why.to_owned() }),
        }
    }
}

impl Findings {
    pub(super) fn strategy(&self, state: FileState, method: Method) -> Option<&Measured> {
        self.strategies.iter().find(|m| m.strategy() == Strategy { state, method })
    }

    pub(super) fn sizes(&self) -> impl Iterator<Item = &Measured> + Clone {
        self.shapes.iter().filter(|m| m.in_flight == 1)
    }

    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Measured> + Clone {
        self.shapes.iter().filter(|m| m.block_bytes == BLOCK)
    }

    /// The method that is fastest into a zero-filled file.
    pub(super) fn best(&self) -> Option<&Measured> {
        best(&self.strategies)
    }
}

fn best(strategies: &[Measured]) -> Option<&Measured> {
    let zeroed = strategies.iter().filter(|m| m.state == FileState::Zeroed);
    zeroed.min_by(|a, b| a.median_seconds.median.total_cmp(&b.median_seconds.median))
}

pub(super) fn examine(ground: &Ground, time: Duration) -> Result<Findings, Failure> {
    let (mut probes, unavailable) = open_all(ground)?;
    let plan: Vec<_> = (0..probes.len()).map(|probe| (probe, Shape { block_bytes: BLOCK, in_flight: 1 })).collect();
    let closer = 2 * (SIZES.len() + IN_FLIGHT.len());
    ground.expect(ROUNDS * (plan.len() + closer + 2));
    let mut strategies = take_turns(ground, &mut probes, &plan, time.mul_f64(0.5))?;
    drop(probes);
    let unflushed = strategies.extract_if(.., |m| matches!(m.method, Method::Cached | Method::DirectOnly)).collect();

    ground.doing("preparing files");
    let mut methods = vec![BASE.method];
    methods.extend(best(&strategies).map(|best| best.method).filter(|&method| method != BASE.method));
    let open = |&method: &Method| Probe::open(ground.dir(), Strategy { state: FileState::Zeroed, method }, CLOSER_BYTES);
    let mut probes = methods.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let sizes = SIZES.map(|block_bytes| Shape { block_bytes, in_flight: 1 });
    let shapes = || sizes.into_iter().chain(IN_FLIGHT.map(|in_flight| Shape { block_bytes: BLOCK, in_flight }));
    let plan: Vec<_> = (0..probes.len()).flat_map(|probe| shapes().map(move |shape| (probe, shape))).collect();
    let shapes = take_turns(ground, &mut probes, &plan, time.mul_f64(0.5))?;
    drop(probes);
    let (write_bandwidth, read_bandwidth) = bandwidth(ground)?;
    Ok(Findings { strategies, unavailable, unflushed, shapes, write_bandwidth, read_bandwidth })
}

/// A file for each strategy that is honest here and can be had, and for two without a flush.
fn open_all(ground: &Ground) -> Result<(Vec<Probe>, Vec<Unavailable>), Failure> {
    let (mut probes, mut unavailable) = (Vec::new(), Vec::new());
    let unflushed = [Method::Cached, Method::DirectOnly].map(|method| Strategy { state: FileState::Zeroed, method });
    for strategy in Strategy::all().into_iter().chain(unflushed) {
        ground.doing(format!("preparing: {strategy}"));
        ground.check()?;
        if let Some(why) = strategy.dishonest(ground.place()) {
            Unavailable::add(&mut unavailable, strategy, why);
            continue;
        }
        match Probe::open(ground.dir(), strategy, PROBE_BYTES) {
            Err(e) if e.is_unsupported() => Unavailable::add(&mut unavailable, strategy, &e.source.to_string()),
            probe => probes.push(probe?),
        }
    }
    Ok((probes, unavailable))
}

/// Measures all of a plan (which probe, and how) in interleaved rounds.
fn take_turns(ground: &Ground, probes: &mut [Probe], plan: &[(usize, Shape)], time: Duration) -> Result<Vec<Measured>, Failure> {
    #[derive(Default)]
    struct Rounds {
        latency: Latencies,
        medians: Vec<f64>,
        rates: Vec<f64>,
    }
    let each = time / (ROUNDS * plan.len().max(1)) as u32;
    let mut all: Vec<Rounds> = plan.iter().map(|_| Rounds::default()).collect();
    for _ in 0..ROUNDS {
        for (&(probe, shape), rounds) in plan.iter().zip(&mut all) {
            let probe = &mut probes[probe];
            ground.doing(format!("{}, {} KiB, {} in flight", probe.strategy(), shape.block_bytes >> 10, shape.in_flight));
            let burst = probe.burst(shape, each)?;
            rounds.medians.push(burst.latencies.quantile(0.5).as_secs_f64());
            rounds.rates.push(burst.rate());
            rounds.latency.merge(&burst.latencies);
            ground.step()?;
        }
    }
    let base = plan
        .iter()
        .position(|&(probe, shape)| probes[probe].strategy() == BASE && shape.block_bytes == BLOCK && shape.in_flight == 1);
    let base = base.map(|at| all[at].medians.clone());
    let measured = plan.iter().zip(all).filter_map(|(&(probe, shape), rounds)| {
        let Strategy { state, method } = probes[probe].strategy();
        Some(Measured {
            state,
            method,
            block_bytes: shape.block_bytes,
            in_flight: shape.in_flight,
            median_seconds: Spread::of(&rounds.medians)?,
            writes_per_second: Spread::of(&rounds.rates)?,
            to_base: base.as_ref().and_then(|base| sample::ratio(&rounds.medians, base)),
            latency: rounds.latency,
        })
    });
    Ok(measured.collect())
}

fn bandwidth(ground: &Ground) -> Result<(Spread, Option<Spread>), Failure> {
    ground.doing("bandwidth");
    let file = Bandwidth::open(ground.dir(), BANDWIDTH_BYTES)?;
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        writes.push(file.write()?);
        ground.step()?;
        reads.extend(file.read()?);
        ground.step()?;
    }
    let written = Spread::of(&writes).ok_or_else(|| Failure::Wrong("no bandwidth was measured".to_owned()))?;
    Ok((written, Spread::of(&reads)))
}
