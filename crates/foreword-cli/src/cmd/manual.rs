//! `foreword completions` and `foreword man`: what a shell and `man` know of the command, made from its arguments.

use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::Cli;
use crate::exit::{Failure, Status};
use crate::output::Output;

/// Print the completions for a shell
///
/// scripts/install.sh puts them, and the manual pages, where they belong.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  source <(foreword completions bash)
  foreword completions zsh > ~/.zfunc/_foreword
  foreword completions fish > ~/.config/fish/completions/foreword.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages into a directory
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword man ~/.local/share/man/man1
  foreword man /tmp && man -l /tmp/foreword-append.1")]
pub(crate) struct ManArgs {
    /// Where to; it is made if it is not there
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(), "foreword", &mut text);
    let mut out = Output::new();
    out.bytes(&text)?;
    out.flush()?;
    Ok(Status::Fine)
}

pub(crate) fn man(args: &ManArgs) -> Result<Status, Failure> {
    std::fs::create_dir_all(&args.dir).map_err(Failure::io("make the directory"))?;
    clap_mangen::generate_to(visible(), &args.dir).map_err(Failure::io("write the manual pages"))?;
    Ok(Status::Fine)
}

/// The command as people are to see it: processes that it starts for itself are none of their business.
fn visible() -> Command {
    let all = Cli::command();
    let shown: Vec<Command> = all.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    let mut command = Command::new("foreword").version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = all.get_about() {
        command = command.about(about.clone());
    }
    if let Some(text) = all.get_after_help() {
        command = command.after_help(text.clone());
    }
    command.args(all.get_arguments().cloned()).subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_make_sense_and_every_subcommand_shows_an_example() {
        Cli::command().debug_assert();
        let command = visible();
        assert!(command.get_subcommands().count() >= 13);
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let help = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{name} has no example"));
            assert!(example.contains(&format!("foreword {name}")), "{name}: {example}");
        }
    }
}
