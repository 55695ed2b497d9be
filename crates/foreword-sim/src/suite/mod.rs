//! The log's own test: workloads on a simulated disk, checked against a model of what their callers
//! know.
//!
//! Of each state that a crash leaves, the suite checks:
//!
//! - no acknowledged record is lost; no record is returned that was not appended, at that LSN, with
//!   those bytes; batches are whole; LSNs are dense;
//! - a view shows what recovery then returns, and `verify` returns the same verdict;
//! - recovery is idempotent, also when another crash cuts it short; when opening returns,
//!   everything is durable; the log can continue.
//!
//! Of a log that is open: nothing is acknowledged after a failed flush, and a poisoned log stays
//! poisoned. Of damage: it is reported, or harmless.

mod check;
mod damage;
mod exhaustive;
mod followers;
mod log;
mod matrix;
mod model;
mod places;
mod random;
mod runner;

pub use damage::{DamageTally, damages};
pub use exhaustive::{Bounds, Failure, Tally, exhaustive};
pub use log::Shape;
pub use matrix::matrix;
pub use model::Violation;
pub use places::places;
pub use random::{Case, Event, Summary, full_disk};
pub use runner::Step;

/// A part of the suite, run from a seed. An error says what went wrong.
pub type Part = fn(u64) -> Result<(), String>;

/// States of a crash point that the suite visits in CI, if there are more. The deliberate bugs are
/// to be caught by no more than CI runs.
pub const STATES: usize = 48;
/// Random workloads that the suite runs in CI: a number and not a time, since the load of the machine
/// must not decide what is tried.
pub const SEEDS: u64 = 400;

/// A small run of each part of the suite, by name. Together they find each of the library's
/// deliberate bugs (`scripts/bugs.sh`).
pub const PARTS: &[(&str, Part)] = &[
    ("crash states", small_exhaustive),
    ("random cases", some_cases),
    ("full disk", some_full_disks),
    ("places", some_places),
    ("damage", some_damage),
];

fn small_exhaustive(seed: u64) -> Result<(), String> {
    let bounds = Bounds { steps: 2, steps_aged: 1, states: STATES, seed, ..Bounds::default() };
    exhaustive(&bounds, &|_| ()).map(drop).map_err(|failure| failure.to_string())
}

fn some_cases(seed: u64) -> Result<(), String> {
    (seed..seed + SEEDS).try_for_each(|seed| Case::new(seed).run().map(drop).map_err(|v| format!("{v} (seed {seed})")))
}

fn some_full_disks(seed: u64) -> Result<(), String> {
    (seed..seed + 20).try_for_each(|seed| full_disk(seed).map_err(|v| format!("{v} (seed {seed})")))
}

fn some_places(seed: u64) -> Result<(), String> {
    (seed..seed + 20).try_for_each(|seed| places(seed).map_err(|v| format!("{v} (seed {seed})")))
}

fn some_damage(seed: u64) -> Result<(), String> {
    damages(seed).map(drop).map_err(|failure| failure.to_string())
}
