//! `foreword completions` and `foreword man`: completions for shells and manual pages, made from
//! the arguments.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::exit::{Failure, Status};
use crate::output::Output;

/// Print the completions for a shell
///
/// scripts/install.sh installs them together with the manual pages.
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
    /// The directory; it is created if it does not exist
    dir: PathBuf,
}

pub(crate) fn completions(args: &CompletionsArgs, command: Command) -> Result<Status, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut visible(command), "foreword", &mut text);
    let mut out = Output::new();
    out.bytes(&text)?;
    out.flush()?;
    Ok(Status::Fine)
}

pub(crate) fn man(args: &ManArgs, command: Command) -> Result<Status, Failure> {
    std::fs::create_dir_all(&args.dir).map_err(Failure::io("make the directory"))?;
    let mut command = visible(command).disable_help_subcommand(true);
    command.build();
    for command in std::iter::once(&command).chain(command.get_subcommands()) {
        let man = Man::new(command.clone().override_usage(usage(command)));
        let written = page(&man, command).and_then(|page| std::fs::write(args.dir.join(man.get_filename()), page));
        written.map_err(Failure::io("write the manual pages"))?;
    }
    Ok(Status::Fine)
}

/// A page as clap_mangen renders it, except for the text after the options: that becomes sections
/// with their own names, and examples that can be copied.
fn page(man: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let more = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for (title, text) in more.split("\n\n").filter_map(|section| section.split_once(':')) {
        writeln!(page, ".SH {}", roff(&title.to_uppercase()))?;
        let lines = text.trim_matches('\n').lines().map(|line| roff(line.strip_prefix("  ").unwrap_or(line)));
        let text = lines.collect::<Vec<_>>().join("\n");
        // Text below its title is copied as it stands: it is not filled or hyphenated.
        let (before, after) = if more.contains(&format!("{title}:\n")) { (".nf\n", ".fi\n") } else { ("", "") };
        write!(page, "{before}{}\n{after}", text.trim_start())?;
    }
    Ok(page)
}

/// All arguments with their values.
fn usage(command: &Command) -> String {
    let mut words = vec![command.get_bin_name().unwrap_or("foreword").to_owned()];
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let (last, options): (Vec<_>, Vec<_>) = shown.partition(|arg| arg.is_positional());
    for arg in options.into_iter().chain(last) {
        let names = [arg.get_short().map(|c| format!("-{c}")), arg.get_long().map(|name| format!("--{name}"))];
        let mut parts = vec![names.into_iter().flatten().collect::<Vec<_>>().join("|")];
        if arg.get_num_args().is_some_and(|n| n.takes_values()) {
            parts.extend(arg.get_value_names().into_iter().flatten().map(|name| format!("<{name}>")));
        }
        parts.retain(|part| !part.is_empty());
        let text = parts.join(" ");
        words.push(if arg.is_required_set() { text } else { format!("[{text}]") });
    }
    if command.has_subcommands() {
        words.push("<COMMAND>".to_owned());
    }
    words.join(" ")
}

/// A line of text, which stays as it is when it is copied from the page.
fn roff(line: &str) -> String {
    let mut text = String::new();
    if line.starts_with(['.', '\'']) {
        text.push_str("\\&");
    }
    for c in line.chars() {
        match c {
            '\\' => text.push_str("\\e"),
            '-' => text.push_str("\\-"),
            '\'' => text.push_str("\\(aq"),
            '`' => text.push_str("\\(ga"),
            '^' => text.push_str("\\(ha"),
            '~' => text.push_str("\\(ti"),
            c => text.push(c),
        }
    }
    text
}

/// The command without the hidden subcommands, which it runs for itself.
fn visible(all: Command) -> Command {
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
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    #[test]
    fn the_arguments_make_sense_and_every_subcommand_shows_an_example() {
        Cli::command().debug_assert();
        let command = visible(Cli::command());
        assert!(command.get_subcommands().count() >= 13);
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            let help = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{name} has no example"));
            assert!(example.contains(&format!("foreword {name}")), "{name}: {example}");
        }
    }

    #[test]
    fn what_is_copied_from_a_page_is_what_was_written() {
        assert_eq!(roff(r"jq '.a' ~/x-y | grep `^\n`"), r"jq \(aq.a\(aq \(ti/x\-y | grep \(ga\(ha\en\(ga");
        assert_eq!(roff(".sh"), r"\&.sh");
    }
}
