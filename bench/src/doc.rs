//! Tables in documents, between markers: those of a run go into docs/performance/tables.md.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use foreword_measure::report::Item;

use crate::results::Results;
use crate::tables;

/// Puts the tables of a run into a document, between its markers.
#[derive(clap::Args)]
pub struct Args {
    /// The results of a run.
    run: PathBuf,
    /// The document.
    #[arg(long, default_value = "docs/performance/tables.md")]
    into: PathBuf,
    /// Only print the tables.
    #[arg(long)]
    print: bool,
}

const END: &str = "<!-- end -->";

impl Args {
    pub fn run(self) -> Result<()> {
        let tables = document(&Results::read(&self.run)?);
        if self.print {
            print!("{tables}");
            return Ok(());
        }
        put(&self.into, "doc", &tables)
    }
}

/// The arguments of commands that examine the contestants one by one, and whose tables go into a
/// document.
#[derive(clap::Args)]
pub struct Survey {
    /// The directory to write in.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Only these contestants, by parts of their names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A document whose tables are replaced, between its markers.
    #[arg(long)]
    into: Option<PathBuf>,
}

impl Survey {
    /// Whether a contestant is asked.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// Puts the tables into the document, or prints them.
    pub fn put(&self, command: &str, tables: &str) -> Result<()> {
        match &self.into {
            Some(document) => put(document, command, tables),
            None => {
                print!("{tables}");
                Ok(())
            }
        }
    }
}

/// Puts what a command made into a document, between its markers.
fn put(document: &Path, command: &str, made: &str) -> Result<()> {
    let name = document.display();
    let begin = format!("<!-- begin: made by `foreword-bench {command}` -->\n");
    let text = std::fs::read_to_string(document).with_context(|| format!("read {name}"))?;
    let between = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = between else { bail!("{name} has no lines {begin:?} and {END:?}") };
    std::fs::write(document, format!("{before}{begin}{made}{END}{after}")).with_context(|| format!("write {name}"))
}

fn document(results: &Results) -> String {
    let mut out = String::from("\n## The machine\n\n|  |  |\n|---|---|\n");
    for (name, value) in &results.run.facts {
        out += &format!("| {name} | {value} |\n");
    }
    match results.seconds {
        Some((least, most)) if least < most => {
            out += &format!("\nMeasured in parts. Each measurement lasts {least} to {most} s, after a warm-up.\n");
        }
        _ => out += &format!("\nEach measurement lasts {} s, after a warm-up.\n", results.run.seconds),
    }
    if !results.run.warnings.is_empty() {
        out += &format!("\n**The machine was not idle when it was begun or resumed: {}.**\n", results.run.warnings.join("; "));
    }
    for section in results.sections() {
        out += &format!("\n## {}\n\n", section.title);
        for text in &section.text {
            out += &format!("{}\n\n", wrapped(text));
        }
        for item in &section.items {
            if let Item::Table(table) = item {
                out += &tables::markdown(table);
            }
        }
    }
    out
}

/// A paragraph in lines of at most 100 columns.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        let fits = column + 1 + width <= 100;
        out += if column == 0 {
            ""
        } else if fits {
            " "
        } else {
            "\n"
        };
        column = if column > 0 && fits { column + 1 + width } else { width };
        out += word;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped_at_100_columns() {
        let word = "x".repeat(49);
        assert_eq!(wrapped(&format!("{word} {word}x {word}")), format!("{word} {word}x\n{word}"));
        assert_eq!(wrapped("µ  a\nb"), "µ a b");
    }
}
