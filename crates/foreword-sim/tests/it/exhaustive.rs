//! Every crash state of every small workload.

use foreword_sim::suite::{Bounds, exhaustive};

#[test]
fn every_crash_state_of_small_workloads() {
    let bounds = Bounds::default();
    let tally = exhaustive(&bounds, &|_| ()).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{bounds:?}\n{tally:?}");
    assert!(tally.states > 40_000, "{tally:?}");
}
