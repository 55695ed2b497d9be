//! Crash states of every small workload: all, or many of each crash point. `scripts/campaign.sh`
//! takes ten times as many.

use foreword_sim::suite::{Bounds, exhaustive};

#[test]
fn every_crash_state_of_small_workloads() {
    let bounds = Bounds { states: 96, ..Bounds::default() };
    let tally = exhaustive(&bounds, &|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{bounds:?}\n{tally:?}");
    assert!(tally.states > 35_000, "{tally:?}");
}
