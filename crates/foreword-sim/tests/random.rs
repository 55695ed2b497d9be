//! Long random workloads, for a fixed time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use foreword_sim::suite::{Case, Summary, full_disk, places};

#[test]
fn random_cases_for_a_while() {
    let seconds = std::env::var("FOREWORD_SIM_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    let first = std::env::var("FOREWORD_SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut sum = Summary::default();
    let mut seed = first;
    while Instant::now() < until {
        let case = Case::new(seed);
        match case.run() {
            Ok(summary) => sum += summary,
            Err(violation) => {
                let shrunken = case.shrink();
                panic!("seed {seed}: {violation}\nshrunken: {}\n{shrunken:#?}", shrunken.run().unwrap_err());
            }
        }
        seed += 1;
    }
    println!("seeds {first} to {}: {sum:?}", seed - 1);
    assert!(sum.recoveries > 100, "{sum:?}");
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
