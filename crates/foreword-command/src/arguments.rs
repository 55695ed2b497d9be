//! Arguments, and what is said of wrong ones.

use std::process::ExitCode;

use clap::Parser;

use crate::plain::plain;

/// The arguments of this process. Else help, the version, or what is wrong has been printed, and
/// this is the exit status: 0, or 1 for what is wrong.
///
/// # Errors
/// The exit status.
pub fn parse<A: Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|told| {
        let status = u8::from(told.use_stderr());
        // The same message, made from arguments that can be shown on a terminal: a shell puts file
        // names among them.
        let args = std::env::args_os().map(|arg| plain(arg.to_string_lossy()));
        let told = A::try_parse_from(args).err().unwrap_or(told);
        // Help and version are no errors. Whether the text could be written changes nothing.
        let _ = told.print();
        ExitCode::from(status)
    })
}
