//! `foreword archive`: the command `foreword-archive`, which has the libraries of the object stores.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::exit::{Failure, Status};

/// Archive a log in an object store, and restore it
///
/// Runs the command `foreword-archive` (cargo install foreword-archive), with these arguments; see
/// `foreword archive --help`. `cat`, `verify` and `doctor` do the same for an address in the place
/// of a directory: `foreword cat s3://bucket/mylog --from 100`.
#[derive(clap::Args)]
#[command(
    disable_help_flag = true,
    after_help = "Examples:
  foreword archive push mylog s3://bucket/mylog --create --follow
  foreword archive restore s3://bucket/mylog restored --to-time 10s"
)]
pub(crate) struct Args {
    /// The arguments of foreword-archive
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub(crate) args: Vec<OsString>,
}

/// The subcommands that also read an archive.
const READ: [&str; 3] = ["cat", "verify", "doctor"];

/// The arguments of foreword-archive, if the command was called for what that does.
pub(crate) fn asked_for() -> Option<Vec<OsString>> {
    let mut args = std::env::args_os().skip(1);
    let name = args.next()?;
    let rest: Vec<_> = args.collect();
    if name == "archive" {
        return Some(rest);
    }
    let address = rest.iter().any(|arg| arg.to_str().is_some_and(|arg| arg.contains("://")));
    (address && READ.iter().any(|read| name == *read)).then(|| [vec![name], rest].concat())
}

pub(crate) fn run(args: &[OsString]) -> Result<Status, Failure> {
    // The one that was installed together with this one, or what the shell would find.
    let name = format!("foreword-archive{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(&name)).filter(|path| path.is_file());
    let path = beside.unwrap_or_else(|| PathBuf::from(&name));
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::Wrong(format!("{name} is not installed: cargo install foreword-archive")),
        _ => Failure::Wrong(format!("cannot run {}: {error}", path.display())),
    };
    let mut command = Command::new(&path);
    command.args(args);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(missing(command.exec()))
    }
    #[cfg(not(unix))]
    {
        let status = command.status().map_err(missing)?;
        std::process::exit(status.code().unwrap_or(1))
    }
}
