//! The chapters: everything that they include, link to, name or show is there, and is what they
//! say.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::Command;

fn guide() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn repository() -> PathBuf {
    guide().parent().unwrap().to_owned()
}

/// Each chapter with its text.
fn chapters() -> Vec<(PathBuf, String)> {
    let dir = std::fs::read_dir(guide().join("chapters")).unwrap();
    let mut chapters: Vec<_> =
        dir.map(|file| file.unwrap().path()).map(|path| (path.clone(), read_to_string(path).unwrap())).collect();
    chapters.sort();
    assert!(chapters.len() >= 12 && chapters.iter().all(|(path, _)| path.extension().is_some_and(|e| e == "md")));
    chapters
}

/// What stands between a beginning and an end, each time.
fn between<'t>(text: &'t str, begin: &'t str, end: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(begin).skip(1).map(move |rest| rest.split_once(end).unwrap_or_else(|| panic!("{begin} without {end}: {rest}")).0)
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// What an include brings in, as mdBook would.
fn included(chapter: &Path, include: &str) -> Result<String, String> {
    let (file, anchor) = include.split_once(':').map_or((include, None), |(file, anchor)| (file, Some(anchor)));
    let text = read_to_string(chapter.parent().unwrap().join(file)).map_err(|e| format!("{file}: {e}"))?;
    let Some(anchor) = anchor else { return Ok(text) };
    let line_of = |mark: String| {
        let lines: Vec<usize> = text.lines().enumerate().filter(|(_, line)| line.trim() == mark).map(|(i, _)| i).collect();
        if let [line] = lines[..] { Ok(line) } else { Err(format!("{file} has {} lines `{mark}`", lines.len())) }
    };
    let (begin, end) = (line_of(format!("// ANCHOR: {anchor}"))?, line_of(format!("// ANCHOR_END: {anchor}"))?);
    if begin > end {
        return Err(format!("{file}: {anchor} ends before it begins"));
    }
    Ok(text
        .lines()
        .skip(begin + 1)
        .take(end - begin - 1)
        .filter(|line| !line.contains("// ANCHOR"))
        .collect::<Vec<_>>()
        .join("\n"))
}

#[test]
fn the_summary_names_every_chapter() {
    let chapters = chapters();
    let names: BTreeSet<&str> = chapters.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    let summary = &chapters.iter().find(|(path, _)| path.ends_with("SUMMARY.md")).unwrap().1;
    let mut named: BTreeSet<&str> = between(summary, "](", ")").collect();
    named.insert("SUMMARY.md");
    assert_eq!(named, names);
}

#[test]
fn every_include_brings_something_in() {
    let mut includes = 0;
    for (path, text) in chapters() {
        for include in between(&text, "{{#include ", "}}") {
            match included(&path, include) {
                Ok(text) => assert!(!text.trim().is_empty(), "{}: {include} is empty", path.display()),
                Err(why) => panic!("{}: {why}", path.display()),
            }
            includes += 1;
        }
        assert_eq!(text.matches("{{#").count(), text.matches("{{#include ").count(), "{}: only includes", path.display());
    }
    assert!(includes >= 20, "{includes}");
}

#[test]
fn every_anchor_is_shown_somewhere() {
    let shown: String = chapters().into_iter().map(|(_, text)| text).collect();
    let mut anchors = 0;
    for dir in ["foreword", "foreword-sim", "foreword-pages", "foreword-archive"] {
        for file in std::fs::read_dir(repository().join("crates").join(dir).join("examples")).unwrap() {
            let path = file.unwrap().path();
            let Some(name) = path.extension().filter(|e| *e == "rs").and(path.file_name()) else { continue };
            let text = read_to_string(&path).unwrap();
            for anchor in between(&text, "// ANCHOR: ", "\n") {
                let include = format!("crates/{dir}/examples/{}:{anchor}}}}}", name.to_str().unwrap());
                assert!(shown.contains(&include), "no chapter includes {include}");
                anchors += 1;
            }
        }
    }
    assert!(anchors >= 15, "{anchors}");
}

#[test]
fn every_link_leads_to_a_chapter() {
    for (path, text) in chapters() {
        for link in between(&prose(&text), "](", ")").filter(|link| !link.starts_with("https://")) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.parent() == path.parent(), "{}: {link} leads out of the book", path.display());
            let target = read_to_string(&target).unwrap_or_else(|e| panic!("{}: {link}: {e}", path.display()));
            if let Some(heading) = heading {
                let slug = |line: &str| {
                    line.trim_start_matches('#')
                        .trim()
                        .to_lowercase()
                        .replace(' ', "-")
                        .replace([',', '.', ':', '?', '`', '\''], "")
                };
                assert!(
                    target.lines().any(|line| line.starts_with('#') && slug(line) == heading),
                    "{}: no heading {heading}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_path_that_is_named_exists() {
    let roots = ["crates/", "docs/", "guide/", "scripts/"];
    let mut paths = 0;
    for (path, text) in chapters() {
        for named in prose(&text).split('`').skip(1).step_by(2).filter(|code| roots.iter().any(|root| code.starts_with(root))) {
            assert!(repository().join(named).exists(), "{}: there is no {named}", path.display());
            paths += 1;
        }
    }
    assert!(paths >= 5, "{paths}");
}

/// Programs whose output is the same each time, and the file of it that a chapter shows.
/// `FOREWORD_GUIDE_BLESS=1` writes them anew.
const SHOWN: [(&str, &str); 7] = [
    ("foreword", "06_redo"),
    ("foreword", "07_evidence"),
    ("foreword-sim", "transfer"),
    ("foreword-sim", "failed_flush"),
    ("foreword-sim", "store"),
    ("foreword-pages", "aries"),
    ("foreword-archive", "lost"),
];

/// An example's program. `cargo test --workspace` has built it; whoever asks for this test alone
/// has perhaps not.
fn program(package: &str, example: &str, anew: bool) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    if anew || !program.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(repository()).args(["build", "--package", package, "--example", example]);
        assert!(build.arg("--target-dir").arg(target.parent().unwrap()).status().unwrap().success());
    }
    program
}

#[test]
fn what_is_shown_is_what_the_examples_print() {
    let bless = std::env::var_os("FOREWORD_GUIDE_BLESS").is_some();
    for (package, example) in SHOWN {
        let output = Command::new(program(package, example, bless)).output().unwrap();
        assert!(output.status.success(), "{example}: {output:?}");
        let printed: String =
            String::from_utf8(output.stdout).unwrap().lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let file = guide().join("output").join(format!("{example}.txt"));
        if bless {
            std::fs::write(&file, &printed).unwrap();
        }
        let shown = read_to_string(&file).unwrap_or_default();
        assert_eq!(
            shown, printed,
            "{example}: if that is right, FOREWORD_GUIDE_BLESS=1 cargo test -p foreword-guide --test book"
        );
    }
}
