//! docs/PERFORMANCE.md: its tables come from a run.

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
    #[arg(long, default_value = "docs/PERFORMANCE.md")]
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

/// Puts what a command made into a document, between its markers.
pub fn put(document: &Path, command: &str, made: &str) -> Result<()> {
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
    for warning in &results.run.warnings {
        out += &format!("\n**The machine was not idle: {warning}.**\n");
    }
    for section in results.sections() {
        out += &format!("\n## {}\n\n", section.title);
        for text in &section.text {
            out += &format!("{text}\n\n");
        }
        for item in &section.items {
            if let Item::Table(table) = item {
                out += &tables::markdown(table);
            }
        }
    }
    out
}
