//! The arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{campaign, drive, life};

#[derive(Parser)]
#[command(name = "foreword-power", about = "Power failures at the block level")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(campaign::Args),
    /// Serves a disk in a directory
    #[command(hide = true)]
    Serve {
        dir: PathBuf,
        bytes: u64,
    },
    #[command(hide = true)]
    Live(life::Life),
}

pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => campaign::run(&args),
        Command::Serve { dir, bytes } => drive::serve(&dir, bytes).map(|()| true),
        Command::Live(life) => life.live().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("foreword-power: {error:#}");
            ExitCode::from(2)
        }
    }
}
