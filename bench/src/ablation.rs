//! What the choices of Foreword's design are worth: as it is, beside itself without one of them.

use anyhow::Result;

use crate::run;

/// Foreword with all of them.
pub const WHOLE: &str = "foreword:whole";

/// Measures Foreword without each choice of its design in turn.
///
/// This takes a build that can do without: `RUSTFLAGS="--cfg foreword_ablation" cargo run --release -- ablation`. With `--out` and `--resume`, the results
/// are added to those of a run. `--workload` names other workloads than commits of 128 B from 1, 8, 64 and 256 threads.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    run: run::Args,
}

impl Args {
    #[cfg(not(foreword_ablation))]
    pub fn run(self) -> Result<()> {
        let _ = self.run;
        anyhow::bail!("this build can do without nothing: RUSTFLAGS=\"--cfg foreword_ablation\" cargo run --release -- ablation")
    }

    #[cfg(foreword_ablation)]
    pub fn run(self) -> Result<()> {
        use crate::workload::Workload;
        use foreword::ablation::Choice;

        let choices = Choice::ALL.iter().map(|(choice, instead)| {
            println!("{choice:?}: {instead}");
            format!("foreword:{choice:?}")
        });
        let contestants: Vec<String> = std::iter::once(WHOLE.to_owned()).chain(choices).collect();
        let commits = || [1, 8, 64, 256].map(|threads| Workload::Commit { threads, size: 128 }).to_vec();
        let workloads = if self.run.workload.is_empty() { commits() } else { self.run.workload.clone() };
        self.run.measure(&workloads, &contestants)
    }
}
