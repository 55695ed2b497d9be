//! Which operations the workloads have, and on which keys.

use std::fmt;

use crate::rng::Rng;

use super::ledger::Ledger;
use super::op::{ACCOUNTS, Op, value};

/// How unequally keys are chosen: YCSB's constant.
const THETA: f64 = 0.99;
/// The most keys of a scan.
const SCAN_MAX: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    A,
    B,
    C,
    E,
    F,
    Transfers,
}

impl Workload {
    pub(crate) const ALL: [Workload; 6] = [Workload::A, Workload::B, Workload::C, Workload::E, Workload::F, Workload::Transfers];
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Transfers => write!(f, "transfers"),
            ycsb => write!(f, "YCSB {ycsb:?}"),
        }
    }
}

/// The numbers of keys, unequally chosen.
#[derive(Debug)]
pub(crate) struct Zipfian {
    records: u64,
    /// What zipfian numbers need (Gray et al., SIGMOD 1994).
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    pub(crate) fn new(records: u64) -> Zipfian {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let all = zeta(records);
        let eta = (1.0 - (2.0 / records as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / all);
        Zipfian { records, zeta: all, eta }
    }

    /// The number of a key. Those that are chosen most lie anywhere.
    fn choose(&self, rng: &mut Rng) -> u64 {
        let u = (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = match u * self.zeta {
            place if place < 1.0 => 0,
            place if place < 1.0 + 0.5f64.powf(THETA) => 1,
            _ => (self.records as f64 * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA))) as u64,
        };
        Rng(rank).next() % self.records
    }
}

/// The operations of a thread.
#[derive(Debug)]
pub(crate) struct Mix<'s> {
    keys: &'s Zipfian,
    ledger: &'s Ledger,
    workload: Workload,
    rng: Rng,
}

impl<'s> Mix<'s> {
    pub(crate) fn new(keys: &'s Zipfian, ledger: &'s Ledger, workload: Workload, seed: u64) -> Mix<'s> {
        Mix { keys, ledger, workload, rng: Rng(seed << 32) }
    }

    pub(crate) fn next(&mut self) -> Op {
        let (percent, n) = (self.rng.next() % 100, self.keys.choose(&mut self.rng));
        match self.workload {
            Workload::A if percent < 50 => self.put(n),
            Workload::B if percent < 5 => self.put(n),
            Workload::A | Workload::B | Workload::C => Op::Read(n),
            Workload::E if percent < 5 => self.put(self.ledger.insert()),
            Workload::E => Op::Scan(n, 1 + (self.rng.next() % SCAN_MAX) as usize),
            Workload::F if percent < 50 => Op::ReadAndPut(n),
            Workload::F => Op::Read(n),
            Workload::Transfers => Op::Transfer(self.rng.next() % ACCOUNTS, self.rng.next() % ACCOUNTS),
        }
    }

    fn put(&self, n: u64) -> Op {
        let write = self.ledger.begin();
        Op::Put { n, write, value: value(n, write) }
    }
}
