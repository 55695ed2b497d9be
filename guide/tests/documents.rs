//! The repository's documents: their links lead somewhere, and the front page's commands do what it
//! says.
#![allow(clippy::unwrap_used)]

use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The documents of a directory.
fn documents(dir: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(repository().join(dir)).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect()
}

/// Where a text leads to: `](here)` and `[name]: here`, outside of blocks of code.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    let named =
        prose.lines().filter(|line| line.starts_with('[')).filter_map(|line| Some(line.split_once("]: ")?.1.trim().to_owned()));
    inline.chain(named).filter(|link| !link.contains("://")).collect()
}

/// The name by which GitHub links to a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_heading(document: &Path, name: &str) -> bool {
    prose(&read_to_string(document).unwrap()).lines().any(|line| line.starts_with('#') && anchor(line) == name)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut checked = 0;
    for path in [".", "docs", "docs/performance"].into_iter().flat_map(documents) {
        for link in links(&read_to_string(&path).unwrap()) {
            let (file, heading) = link.split_once('#').map_or((link.as_str(), None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: there is no {file}", path.display());
            if let Some(heading) = heading {
                assert!(has_heading(&target, heading), "{}: {link}: there is no such heading", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 40, "{checked}");
}

/// The command. `cargo test --workspace` has built it; a run of this test alone perhaps not.
fn command() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let command = target.join(format!("foreword{}", std::env::consts::EXE_SUFFIX));
    if !command.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(repository()).args(["build", "--package", "foreword-cli", "--bin", "foreword"]);
        assert!(build.arg("--target-dir").arg(target.parent().unwrap()).status().unwrap().success());
    }
    command
}

/// The front page's commands on `mylog` that end by themselves, one after the other, as a shell
/// runs them.
#[test]
#[cfg(unix)]
fn the_commands_on_the_front_page_do_what_it_says() {
    let text = read_to_string(repository().join("README.md")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" mylog") && !line.contains(" top ")).collect();
    assert!(lines.len() >= 4 && lines[0].starts_with("seq "), "{lines:?}");
    let dir = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", command().parent().unwrap().display());
    for line in lines {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", line]).current_dir(dir.path()).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        if line.contains(" cat ") {
            assert_eq!(said, "999998\n999999\n1000000\n");
        } else if line.contains(" append ") {
            assert_eq!(said, "", "{line}");
        } else {
            assert!(!said.is_empty(), "{line}");
        }
    }
}
