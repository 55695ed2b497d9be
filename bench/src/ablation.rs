//! What the choices of Foreword's design are worth: as it is, beside itself without one of them.

use anyhow::Result;

use crate::run;

/// Foreword with all of them. (The one that grows, for some are about that.)
pub const WHOLE: &str = "foreword-growing:whole";

/// Measures it without each of them in turn.
#[cfg(not(foreword_ablation))]
pub fn run(_: run::Args) -> Result<()> {
    anyhow::bail!("this build can do without nothing: RUSTFLAGS=\"--cfg foreword_ablation\" cargo run --release -- ablation")
}

/// Measures it without each of them in turn.
#[cfg(foreword_ablation)]
pub fn run(args: run::Args) -> Result<()> {
    use crate::workload::Workload;
    use foreword::ablation::Choice;

    let choices = Choice::ALL.iter().map(|(choice, instead)| {
        println!("{choice:?}: {instead}");
        format!("foreword-growing:{choice:?}")
    });
    let contestants: Vec<String> = std::iter::once(WHOLE.to_owned()).chain(choices).collect();
    let commits = || [1, 8, 64, 256].map(|threads| Workload::Commit { threads, size: 128 }).to_vec();
    let workloads = if args.workload.is_empty() { commits() } else { args.workload.clone() };
    args.measure(&workloads, &contestants)
}
