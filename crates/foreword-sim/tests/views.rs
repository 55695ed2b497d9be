//! Readers and views beside cuts, kills and power failures.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[test]
fn what_a_reader_shows_is_there_until_it_is_told_of_a_cut() {
    for seed in 0..400 {
        foreword_sim::suite::views(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}
