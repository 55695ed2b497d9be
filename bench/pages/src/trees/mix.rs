//! What the workloads do, and to which keys.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rng::Rng;

/// Rows of the transfers.
pub(crate) const ACCOUNTS: u64 = 10_000;
/// How unequally keys are chosen: YCSB's constant.
const THETA: f64 = 0.99;
/// The most keys of a scan.
const SCAN_MAX: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An operation on keys, by their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Read(u64),
    Put(u64),
    ReadAndPut(u64),
    /// From a key on, so many.
    Scan(u64, usize),
    Transfer(u64, u64),
}

/// A key by its number.
pub(crate) fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    let (mut at, mut n) = (key.len(), n);
    while n > 0 && at > 4 {
        at -= 1;
        key[at] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    key
}

/// Which keys there are.
#[derive(Debug)]
pub(crate) struct Source {
    records: u64,
    /// What zipfian numbers need (Gray et al., SIGMOD 1994).
    zeta: f64,
    eta: f64,
    inserted: AtomicU64,
}

impl Source {
    pub(crate) fn new(records: u64) -> Source {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let all = zeta(records);
        let eta = (1.0 - (2.0 / records as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / all);
        Source { records, zeta: all, eta, inserted: AtomicU64::new(0) }
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
    source: &'s Source,
    workload: Workload,
    rng: Rng,
}

impl<'s> Mix<'s> {
    pub(crate) fn new(source: &'s Source, workload: Workload, seed: u64) -> Mix<'s> {
        Mix { source, workload, rng: Rng(seed << 32) }
    }

    pub(crate) fn next(&mut self) -> Op {
        let (percent, key) = (self.rng.next() % 100, self.source.choose(&mut self.rng));
        match self.workload {
            Workload::A if percent < 50 => Op::Put(key),
            Workload::B if percent < 5 => Op::Put(key),
            Workload::A | Workload::B | Workload::C => Op::Read(key),
            Workload::E if percent < 5 => Op::Put(self.source.records + self.source.inserted.fetch_add(1, Ordering::Relaxed)),
            Workload::E => Op::Scan(key, 1 + (self.rng.next() % SCAN_MAX) as usize),
            Workload::F if percent < 50 => Op::ReadAndPut(key),
            Workload::F => Op::Read(key),
            Workload::Transfers => Op::Transfer(self.rng.next() % ACCOUNTS, self.rng.next() % ACCOUNTS),
        }
    }

    pub(crate) fn value(&mut self, len: usize) -> Vec<u8> {
        self.rng.bytes(len)
    }
}
