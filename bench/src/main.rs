//! Foreword beside its peers and the raw disk, in one run. `foreword-bench help` says how.

/// As the standard one, which panics where nobody reads standard output any more (`| head`).
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($text)*);
    }};
}

/// Likewise.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod ablation;
mod calls;
mod cell;
mod damage;
mod doc;
mod fail;
mod files;
mod floor;
mod gauge;
mod groups;
mod honest;
mod marked;
mod outcome;
mod payload;
mod peers;
mod picture;
mod results;
mod run;
mod tables;
mod wait;
mod window;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures Foreword beside its peers and the raw disk.
///
/// `run` measures, and `honest` checks that each acknowledgement is covered by a flush. `doc`
/// writes the tables of a run into docs/performance/tables.md, and `pictures` draws what
/// docs/PERFORMANCE.md shows from them. `damage` and `fail` test failures: what comes back of a
/// damaged log, and what a failed flush does. `calls` measures how long each call takes at worst,
/// and `groups` the logs of many Raft groups beside other stores for them.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
enum Command {
    Run(run::Args),
    /// Measures Foreword with each design choice switched off in turn that an option can switch
    /// off.
    ///
    /// With `--out` and `--resume`, the results are added to those of a run. `--workload` names
    /// other workloads than commits of 128 B from 1, 8, 64 and 256 threads.
    Ablation(run::Args),
    Honest(honest::Args),
    Damage(damage::Args),
    Fail(fail::Args),
    Calls(calls::Args),
    Groups(groups::Args),
    Doc(doc::Args),
    Pictures(picture::Args),
    /// Prints tables of the results so far, and writes the page and the summary anew.
    Show {
        /// The results of a run.
        #[arg(default_value = "foreword-bench.jsonl")]
        run: PathBuf,
    },
    /// Lists the contestants, with versions and configurations.
    Peers,
    /// One measurement: what `run` starts a process for.
    #[command(hide = true)]
    Cell(cell::Job),
    /// One part of `damage`.
    #[command(hide = true)]
    DamagePart(damage::Part),
    /// One measurement of `groups`.
    #[command(hide = true)]
    GroupsPart(groups::Part),
    /// The process of `fail` whose flush fails.
    #[command(hide = true)]
    FailPart(fail::Part),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Run(args) => args.run(),
        Command::Ablation(args) => args.run_ablation(),
        Command::Honest(args) => args.run(),
        Command::Damage(args) => args.run(),
        Command::Fail(args) => args.run(),
        Command::Calls(args) => args.run(),
        Command::Groups(args) => args.run(),
        Command::Doc(args) => args.run(),
        Command::Pictures(args) => args.run(),
        Command::Show { run } => show(&run),
        Command::Peers => {
            peers();
            Ok(())
        }
        Command::Cell(job) => job.run(),
        Command::DamagePart(part) => part.run(),
        Command::GroupsPart(part) => part.run(),
        Command::FailPart(part) => part.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("foreword-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(run: &std::path::Path) -> anyhow::Result<()> {
    let results = results::Results::read(run)?;
    for workload in results.workloads() {
        println!("{}", tables::text(&results.brief(workload)));
    }
    tables::write(run)
}

fn peers() {
    for peer in peers::PEERS {
        println!("{:16} {:8} {}", peer.name, peer.version(), peer.setting);
        for (feature, why) in peer.lacks {
            println!("{:26}lacks {feature:?}: {why}", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        super::Command::command().debug_assert();
    }
}
