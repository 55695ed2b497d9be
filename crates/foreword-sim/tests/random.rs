//! Random workloads, for a fixed time on all processors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use foreword_sim::suite::{Case, Summary, full_disk, places};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

#[test]
fn random_cases_for_a_while() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let first = number("FOREWORD_SIM_SEED", 1);
    // 20 processor seconds.
    let until = Instant::now() + Duration::from_secs_f64(number("FOREWORD_SIM_SECONDS", 20) as f64 / threads as f64);
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Summary::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while Instant::now() < until {
                    let seed = next.fetch_add(1, Relaxed);
                    *sum.lock().unwrap() += run(seed);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    println!("seeds {first} to {}: {sum:?}", next.into_inner() - 1);
    assert!(sum.recoveries > 100, "{sum:?}");
}

fn run(seed: u64) -> Summary {
    let case = Case::new(seed);
    case.run().unwrap_or_else(|violation| {
        let shrunken = case.shrink();
        panic!("seed {seed}: {violation}\nshrunken: {}\n{shrunken:#?}", shrunken.run().unwrap_err());
    })
}

#[test]
fn a_full_disk() {
    for seed in 0..50 {
        full_disk(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

#[test]
fn moved_directories_and_removed_locks() {
    for seed in 1..=40 {
        places(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}
