//! The command `foreword`: a write-ahead log from the shell.

mod cmd;
mod decode;
mod encode;
mod exit;
mod noise;
mod options;
mod output;
#[cfg(unix)]
mod signals;
mod verdict;
mod victim;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use foreword_command::arguments;

use crate::exit::Failure;

#[derive(Parser)]
#[command(
    name = "foreword",
    version,
    about = "A write-ahead log that recovers by evidence",
    max_term_width = 100,
    after_help = "Exit status:
  0    success
  1    wrong usage, or an I/O error
  2    torn tail (verify only): nothing acknowledged is missing
  3    corruption
  130  SIGINT (append only): all input that was read is in the log, and the log is closed
  143  SIGTERM (append only), likewise

Example:
  seq 1000 | foreword append mylog --quiet
  foreword cat mylog | tail -1
  foreword verify mylog"
)]
struct Cli {
    #[command(flatten)]
    color: colorchoice_clap::Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Append(cmd::append::Args),
    Cat(cmd::cat::Args),
    Verify(cmd::verify::Args),
    Repair(cmd::repair::Args),
    Stat(cmd::stat::Args),
    Top(cmd::top::Args),
    Truncate(cmd::truncate::Args),
    Hold(cmd::hold::Args),
    Dump(cmd::dump::Args),
    Doctor(cmd::doctor::Args),
    Bench(cmd::bench::Args),
    Archive(cmd::archive::Args),
    Demo(cmd::demo::Args),
    #[command(hide = true)]
    DemoWorker(victim::Args),
    Chaos(cmd::chaos::Args),
    #[command(hide = true)]
    ChaosWorker(victim::Args),
    Completions(cmd::manual::CompletionsArgs),
    Man(cmd::manual::ManArgs),
}

impl Cli {
    /// What has an archive in the place of a log's directory.
    fn archive(args: Vec<OsString>) -> Cli {
        Cli { color: colorchoice_clap::Color::default(), command: Command::Archive(cmd::archive::Args { args }) }
    }
}

fn main() -> ExitCode {
    let cli = match cmd::archive::asked_for().map_or_else(arguments::parse, |args| Ok(Cli::archive(args))) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    cli.color.write_global();
    let done = match cli.command {
        Command::Append(args) => cmd::append::run(&args),
        Command::Cat(args) => cmd::cat::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
        Command::Repair(args) => cmd::repair::run(&args),
        Command::Stat(args) => cmd::stat::run(&args),
        Command::Top(args) => cmd::top::run(&args),
        Command::Truncate(args) => cmd::truncate::run(&args),
        Command::Hold(args) => cmd::hold::run(&args),
        Command::Dump(args) => cmd::dump::run(&args),
        Command::Doctor(args) => cmd::doctor::run(&args),
        Command::Bench(args) => cmd::bench::run(&args),
        Command::Archive(args) => cmd::archive::run(&args.args),
        Command::Demo(args) => cmd::demo::run(&args),
        Command::DemoWorker(args) => cmd::demo::worker::run(&args),
        Command::Chaos(args) => cmd::chaos::run(&args),
        Command::ChaosWorker(args) => cmd::chaos::worker::run(&args),
        Command::Completions(args) => cmd::manual::completions(&args, Cli::command()),
        Command::Man(args) => cmd::manual::man(&args, Cli::command()),
    };
    let status = done.unwrap_or_else(|failure| {
        if !matches!(failure, Failure::OutputClosed) {
            output::error(&failure);
        }
        failure.status()
    });
    ExitCode::from(status as u8)
}
