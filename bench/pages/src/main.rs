//! Measures foreword-pages beside SQLite, and foreword-tree beside other stores, on the same disk
//! in the same run. `foreword-pages-bench help` says what and how.

/// As the standard one, which panics where nobody reads standard output any more (`| head`).
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod bank;
mod recovery;
mod rng;
mod text;
mod trees;

use std::process::ExitCode;

use clap::Parser;
use foreword_measure::idle::Idle;
use foreword_measure::machine::Machine;

/// Measures foreword-pages beside SQLite, and foreword-tree beside SQLite, redb, fjall and RocksDB,
/// on the same disk, in turn, round by round.
///
/// Medians count; the smallest and the largest stand in brackets. Ratios are of the same round.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
enum Command {
    Throughput(bank::Args),
    Recovery(recovery::Args),
    Trees(trees::Args),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let machine = Machine::here();
    println!("{} x {}, {}", machine.cpus, machine.cpu, machine.system);
    let objections = Idle::look(std::time::Duration::from_millis(500)).objections();
    objections.iter().for_each(|why| println!("not idle: {why}"));
    let done = match command {
        Command::Throughput(args) => args.run(),
        Command::Recovery(args) => args.run(),
        Command::Trees(args) => args.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("foreword-pages-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}
