//! What design choices are worth that an option switches off: Foreword as it is, beside Foreword
//! without one of them.

use std::sync::Arc;

use foreword::Options;
use foreword::disk::OsDisk;

/// Foreword with all of them. (The log that grows, because some choices are about that.)
pub const WHOLE: &str = "foreword-growing:whole";
/// The environment variable that tells a cell's process which choice it does without.
pub const WITHOUT: &str = "FOREWORD_BENCH_WITHOUT";

type Choice = (&'static str, &'static str, fn(Options) -> Options);

/// Their names, what happens without each, and how an option does without it.
pub const CHOICES: [Choice; 2] = [
    ("ZeroFill", "segments are allocated, but not filled with zeros: each first write of a block changes metadata", |options| {
        options.zero_fill(false)
    }),
    ("DirectWrites", "durable writes go through the page cache (RWF_DSYNC), not past it (O_DIRECT)", |options| {
        options.disk(Arc::new(OsDisk::buffered()))
    }),
];

/// The options of a cell's process.
pub fn without_choice(options: Options) -> Options {
    let name = std::env::var(WITHOUT).unwrap_or_default();
    CHOICES.iter().find(|(choice, ..)| *choice == name).map_or(options.clone(), |(_, _, without)| without(options))
}
