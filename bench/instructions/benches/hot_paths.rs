//! The instructions of the hot paths, each held below a limit: a regression fails however noisy the machine is. `scripts/instructions.sh` runs it.
//!
//! The limits are some 4 to 8 % above what was counted with Rust 1.95 on x86-64: a change of the compiler may ask for others.
//!
//! What counts is all that happens in the calling thread, the kernel left out: placing, copying, checksums, encoding, the lock. There is no other thread.
#![allow(clippy::unwrap_used, missing_docs)]

use foreword::{Log, Lsn, Options, SyncPolicy};
use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig};
use tempfile::TempDir;

const RECORDS: u64 = 20_000;
const COMMITS: u64 = 1_000;

/// A log in steady state, and its directory.
struct Steady(Log, TempDir);

fn options() -> Options {
    Options::new().background(false).sync(SyncPolicy::manual())
}

fn append_all(log: &Log, size: usize) {
    let record = vec![7; size];
    for _ in 0..RECORDS {
        log.append(&record).unwrap();
    }
}

fn steady(size: usize) -> (Steady, usize) {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    // What is allocated once is allocated now. Behind the records that are read lie more frames than are kept in memory: a copy out of those is counted, and
    // one by the kernel is not.
    append_all(&log, size);
    (0..40).for_each(|_| _ = log.commit(b"behind").unwrap());
    append_all(&log, size);
    log.sync().unwrap();
    (Steady(log, dir), size)
}

fn at_most(limit: u64, times: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, limit * times)]));
    config
}

#[library_benchmark(setup = steady)]
#[bench::of_16_bytes(args = (16), config = at_most(380, RECORDS))]
#[bench::of_128_bytes(args = (128), config = at_most(475, RECORDS))]
#[bench::of_4_kib(args = (4096), config = at_most(4450, RECORDS))]
fn append((steady, size): (Steady, usize)) -> Steady {
    append_all(&steady.0, size);
    steady
}

#[library_benchmark(setup = steady)]
#[bench::of_128_bytes(args = (128), config = at_most(10_800, COMMITS))]
fn commit((steady, size): (Steady, usize)) -> Steady {
    let record = vec![7; size];
    for _ in 0..COMMITS {
        steady.0.commit(&record).unwrap();
    }
    steady
}

#[library_benchmark(setup = steady)]
#[bench::of_16_bytes(args = (16), config = at_most(130, RECORDS))]
#[bench::of_128_bytes(args = (128), config = at_most(190, RECORDS))]
#[bench::of_4_kib(args = (4096), config = at_most(2400, RECORDS))]
fn read((steady, _): (Steady, usize)) -> Steady {
    let mut reader = steady.0.reader_at(Lsn::FIRST);
    for _ in 0..RECORDS {
        assert!(reader.next().unwrap().is_some());
    }
    steady
}

library_benchmark_group!(name = hot_paths, benchmarks = [append, commit, read]);
main!(library_benchmark_groups = hot_paths);
