//! What those choices of Foreword's design are worth that its options can do without: as it is, beside itself without one of them.

use std::sync::Arc;

use anyhow::Result;
use foreword::Options;
use foreword::disk::OsDisk;

use crate::run;
use crate::workload::Workload;

/// Foreword with all of them. (The one that grows, for some are about that.)
pub const WHOLE: &str = "foreword-growing:whole";
/// Tells a cell's process which it does without.
pub const WITHOUT: &str = "FOREWORD_BENCH_WITHOUT";

type Choice = (&'static str, &'static str, fn(Options) -> Options);

const CHOICES: [Choice; 2] = [
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

/// Measures it without each of them in turn.
pub fn run(args: run::Args) -> Result<()> {
    let choices = CHOICES.iter().map(|(choice, instead, _)| {
        println!("{choice}: {instead}");
        format!("foreword-growing:{choice}")
    });
    let contestants: Vec<String> = std::iter::once(WHOLE.to_owned()).chain(choices).collect();
    let commits = || [1, 8, 64, 256].map(|threads| Workload::Commit { threads, size: 128 }).to_vec();
    let workloads = if args.workload.is_empty() { commits() } else { args.workload.clone() };
    args.measure(&workloads, &contestants)
}
