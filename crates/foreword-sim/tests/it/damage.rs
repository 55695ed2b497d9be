//! Damage of every kind, in every sector of several logs.

use foreword_sim::suite::damages;

#[test]
fn damage_is_reported_or_costs_nothing() {
    let tally = damages(1).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:?}");
    assert!(tally.reported > 500, "{tally:?}");
}
