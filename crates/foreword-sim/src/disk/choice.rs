//! What a power failure leaves of what was not synced.

use std::collections::BTreeMap;

use crate::rng::{Rng, mix};
use crate::state::{CrashUnit, Ino};

/// What a power failure leaves of what was not synced.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// A part that the seed decides, in one of several ways in which disks lose things.
    Seed(u64),
    /// Each write as a whole or not at all, as the seed decides: a disk that does not tear.
    Writes(u64),
    /// The units that are `true`, in the order of
    /// [`SimDisk::undecided`](crate::SimDisk::undecided). A unit that needs another is kept only
    /// with that one.
    These(Vec<bool>),
}

impl Choice {
    /// Which of the units are kept.
    pub(super) fn keep(&self, units: &[CrashUnit]) -> Vec<bool> {
        match self {
            Choice::None => vec![false; units.len()],
            Choice::All => vec![true; units.len()],
            Choice::Seed(seed) => draw(units, &mut Rng::new(*seed)),
            Choice::Writes(seed) => whole_writes(units, &mut Rng::new(*seed), 500),
            Choice::These(keep) => keep.clone(),
        }
    }
}

/// Which units are kept, by one of several ways in which disks lose things.
pub(super) fn draw(units: &[CrashUnit], rng: &mut Rng) -> Vec<bool> {
    let n = units.len() as u64;
    let likely = [100, 500, 900][rng.below(3) as usize];
    match rng.below(5) {
        // Each unit by itself.
        0 => units.iter().map(|_| rng.chance(likely)).collect(),
        // Whole writes, in any order.
        1 => whole_writes(units, rng, likely),
        // In order, up to a point: names up to one, and each file up to its own.
        2 => {
            let seed = rng.next();
            let in_file = |unit: &CrashUnit| units.iter().filter(|u| u.group().0 == unit.group().0).count() as u64;
            let mut before = BTreeMap::<Ino, u64>::new();
            let mut keep = |unit: &CrashUnit| {
                let file = unit.group().0;
                let index = before.entry(file).or_default();
                *index += 1;
                *index <= mix(&[seed, file]) % (in_file(unit) + 1)
            };
            units.iter().map(&mut keep).collect()
        }
        // One unit alone, or all but one.
        way => {
            let one = rng.below(n);
            (0..n).map(|i| (i == one) == (way == 3)).collect()
        }
    }
}

/// Keeps each write as a whole or not at all: this many of 1000.
fn whole_writes(units: &[CrashUnit], rng: &mut Rng, likely: u64) -> Vec<bool> {
    let seed = rng.next();
    let kept = |unit: &CrashUnit| mix(&[seed, unit.group().0, unit.group().1 as u64]) % 1000 < likely;
    units.iter().map(kept).collect()
}
