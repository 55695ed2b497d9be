//! Crash states of every small workload, and of a sixth of those of three steps: all, or many of
//! each crash point. `scripts/campaign.sh` takes all of them, and twenty times as many states.

use foreword_sim::suite::{Bounds, STATES, exhaustive};

#[test]
fn every_crash_state_of_small_workloads() {
    let bounds = Bounds { states: STATES, one_of: 6, ..Bounds::default() };
    let tally = exhaustive(&bounds, &|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{bounds:?}\n{tally:?}");
    assert!(tally.states > 20_000, "{tally:?}");
}
