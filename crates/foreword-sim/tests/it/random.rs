//! Random workloads: a fixed number of seeds; or, as a campaign, all processors for a given time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use foreword_sim::suite::{Case, SEEDS, Summary, full_disk, places};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|s| s.parse().ok())
}

#[test]
fn random_cases_for_a_while() {
    // Threads that wait for a follower half of the time.
    let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let first = number("FOREWORD_SIM_SEED").unwrap_or(1);
    let until = number("FOREWORD_SIM_SECONDS").map(|s| Instant::now() + Duration::from_secs_f64(s as f64 / threads as f64));
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Summary::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if until.map_or(seed >= first + SEEDS, |until| Instant::now() >= until) {
                        break;
                    }
                    *sum.lock().unwrap() += run(seed);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    println!("seeds {first} to {}: {sum:?}", next.into_inner() - 1 - threads as u64);
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
