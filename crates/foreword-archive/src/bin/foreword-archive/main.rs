//! The command `foreword-archive`: a log's archive from the shell.

mod exit;
mod keep;
mod look;
mod push;
mod restore;
mod units;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use foreword_archive::{Archive, Key, Keys, Store};
use foreword_command::{arguments, output};

use crate::exit::{Failure, Status};

/// Threads that read and write files, decode, and append: a restore needs four downloads, two decoders,
/// and one that appends.
const BLOCKING: usize = 7;

#[derive(Parser)]
#[command(
    name = "foreword-archive",
    version,
    about = "Every record of a write-ahead log in an object store, and back to any LSN or second",
    max_term_width = 100,
    after_help = "An archive is at s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///directory, or
a path. Credentials, region and endpoint come from the environment: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME, ...

Exit status:
  0    success
  1    wrong usage, an I/O error, a store that does not answer, or a refusal
  2    push: another archiver has taken over; push, status: the log is not the archive's
  3    something is damaged or missing in the archive

Example:
  foreword-archive push mylog /backup/mylog --create --follow &
  foreword-archive status /backup/mylog mylog
  foreword-archive restore /backup/mylog restored --to-time 10s"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Push(push::Args),
    Restore(restore::Args),
    Follow(restore::FollowArgs),
    Promote(restore::PromoteArgs),
    Status(look::StatusArgs),
    Cat(look::CatArgs),
    Verify(look::VerifyArgs),
    Expire(keep::ExpireArgs),
    Check(keep::CheckArgs),
    Doctor(keep::DoctorArgs),
    Keygen(keep::KeygenArgs),
}

/// Encryption: without a key nothing is encrypted. The first key encrypts, all decrypt
#[derive(clap::Args, Clone)]
struct KeyArgs {
    /// A file with a key, as `keygen` writes it. May be given several times: to rotate keys, the new
    /// one first
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
    /// An environment variable with a key
    #[arg(long, value_name = "NAME")]
    key_env: Vec<String>,
    /// A command that prints a key, run by the shell
    #[arg(long, value_name = "COMMAND")]
    key_command: Vec<String>,
}

impl KeyArgs {
    fn load(&self) -> Result<Keys, Failure> {
        let mut keys = Vec::new();
        for path in &self.key_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Wrong(format!("cannot read the key in {}: {error}", path.display())))?;
            keys.push(Key::parse(&text)?);
        }
        for name in &self.key_env {
            let text = std::env::var(name).map_err(|error| Failure::Wrong(format!("the key in ${name}: {error}")))?;
            keys.push(Key::parse(&text)?);
        }
        for command in &self.key_command {
            let done = std::process::Command::new("sh").args(["-c", command]).stderr(std::process::Stdio::inherit()).output();
            let done = done.map_err(|error| Failure::Wrong(format!("cannot run the command for a key: {error}")))?;
            if !done.status.success() {
                return Err(Failure::Wrong(format!("the command for a key failed: {}", done.status)));
            }
            keys.push(Key::parse(&String::from_utf8_lossy(&done.stdout))?);
        }
        Ok(Keys(keys))
    }
}

/// The archive
#[derive(clap::Args, Clone)]
struct At {
    /// Where the archive is
    #[arg(value_name = "ARCHIVE")]
    url: String,
    #[command(flatten)]
    keys: KeyArgs,
}

impl At {
    async fn open(&self) -> Result<Archive, Failure> {
        Ok(Archive::open(Store::open(&self.url)?, self.keys.load()?).await?)
    }
}

/// Waits for SIGINT or SIGTERM.
#[cfg(unix)]
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn stopped() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

fn main() -> ExitCode {
    let cli: Cli = match arguments::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    // (Each thread that blocks keeps some memory of what it read.)
    let runtime = match tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::Wrong(format!("cannot start threads: {error}")))),
    };
    ended(runtime.block_on(async {
        match cli.command {
            Command::Push(args) => push::run(args).await,
            Command::Restore(args) => restore::run(args).await,
            Command::Follow(args) => restore::follow(args).await,
            Command::Promote(args) => restore::promote(args).await,
            Command::Status(args) => look::status(args).await,
            Command::Cat(args) => look::cat(args).await,
            Command::Verify(args) => look::verify(args).await,
            Command::Expire(args) => keep::expire(args).await,
            Command::Check(args) => keep::check(args).await,
            Command::Doctor(args) => keep::doctor(args).await,
            Command::Keygen(args) => keep::keygen(args),
        }
    }))
}

/// Says something beside the output.
fn note(text: impl std::fmt::Display) {
    output::note("foreword-archive", text);
}

fn ended(done: Result<Status, Failure>) -> ExitCode {
    let status = done.unwrap_or_else(|failure| {
        if !matches!(failure, Failure::OutputClosed) {
            note(&failure);
        }
        failure.status()
    });
    ExitCode::from(status as u8)
}
