//! The command `foreword-raft`: a replicated log from the shell.

mod append;
mod cat;
mod demo;
mod exit;
mod judge;
mod members;
mod serve;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use foreword_cluster::{Client, Tls};
use foreword_command::{arguments, output};

use crate::exit::{Failure, Status};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(
    name = "foreword-raft",
    version,
    about = "A log that survives the machine: replicated by Raft, on write-ahead logs",
    max_term_width = 100,
    after_help = "Exit status:
  0    success
  1    wrong usage, an I/O error, or a refusal: nothing was written
  2    the answer is lost: it may have been written
  3    demo: an acknowledged record was lost, is there twice, or nodes differ

Example:
  foreword-raft serve --id 1 --listen 127.0.0.1:7001 /var/lib/log1 &
  foreword-raft serve --id 2 --listen 127.0.0.1:7002 --join 127.0.0.1:7001 /var/lib/log2 &
  foreword-raft join 2 --at 127.0.0.1:7001
  seq 1000 | foreword-raft append --at 127.0.0.1:7001
  foreword-raft demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Append(append::Args),
    Cat(cat::Args),
    Status(status::Args),
    Join(members::JoinArgs),
    Remove(members::RemoveArgs),
    Transfer(members::TransferArgs),
    Demo(demo::Args),
}

/// Certificates
#[derive(clap::Args, Clone)]
struct TlsArgs {
    /// The certificate of the authority that signed those of all nodes and clients, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key"])]
    ca: Option<PathBuf>,
    /// This side's certificate, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca", "cert"])]
    key: Option<PathBuf>,
    /// The name in all nodes' certificates [default: the host in the address]
    #[arg(long, value_name = "NAME", requires = "ca")]
    tls_name: Option<String>,
}

impl TlsArgs {
    fn load(&self) -> Result<Option<Tls>, Failure> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else { return Ok(None) };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| Failure::Wrong(format!("cannot read {}: {error}", path.display())))
        };
        let tls = Tls::new(read(ca)?, read(cert)?, read(key)?);
        Ok(Some(match &self.tls_name {
            Some(name) => tls.name(name),
            None => tls,
        }))
    }
}

/// Where the cluster is
#[derive(clap::Args, Clone)]
struct At {
    /// Nodes of the cluster, as host:port; one that is up is enough
    #[arg(long = "at", value_name = "ADDRESS", value_delimiter = ',', default_value = "127.0.0.1:7001")]
    at: Vec<String>,
    /// How many seconds to wait for a leader, and for an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    #[command(flatten)]
    tls: TlsArgs,
}

impl At {
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.at, self.tls.load()?)?.patience(Duration::from_secs(self.patience)))
    }
}

fn main() -> ExitCode {
    let cli: Cli = match arguments::parse() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(Failure::Wrong(format!("cannot start threads: {error}")))),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Append(args) => append::run(args).await,
            Command::Cat(args) => cat::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Join(args) => members::join(args).await,
            Command::Remove(args) => members::remove(args).await,
            Command::Transfer(args) => members::transfer(args).await,
            Command::Demo(args) => demo::run(args).await,
        }
    });
    // Not to wait for a thread that reads standard input.
    runtime.shutdown_background();
    ended(done)
}

fn ended(done: Result<Status, Failure>) -> ExitCode {
    let status = done.unwrap_or_else(|failure| {
        if !matches!(failure, Failure::OutputClosed) {
            output::note("foreword-raft", &failure);
        }
        failure.status()
    });
    ExitCode::from(status as u8)
}
