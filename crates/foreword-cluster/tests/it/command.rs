//! The command, as a user runs it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_foreword-raft");

fn run(args: &[&str], input: &str) -> Output {
    let mut child =
        Command::new(PROGRAM).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What it wrote, if it ended with this status.
fn text(args: &[&str], input: &str, status: i32) -> String {
    let output = run(args, input);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(if status == 0 { output.stdout } else { output.stderr }).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&text(args, "", 0)).unwrap()
}

struct Node(Child, String);

impl Node {
    fn start(dir: &Path, args: &[&str]) -> Node {
        let dir = dir.to_str().unwrap();
        let args = [&["serve", "--json"], args, &[dir]].concat();
        let mut child = Command::new(PROGRAM).args(&args).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{args:?} said {line:?}"));
        Node(child, said["address"].as_str().unwrap().to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn a_cluster_from_the_shell() {
    let dir = tempfile::tempdir().unwrap();
    let any = ["--listen", "127.0.0.1:0"];
    let one = Node::start(&dir.path().join("1"), &any);
    let at = one.1.clone();
    let mut two = Node::start(&dir.path().join("2"), &[&any[..], &["--id", "2", "--join", &at]].concat());
    // A learner takes calls; the lines' indices come in order.
    let lines: String = (1..=200).map(|n| format!("line {n}\n")).collect();
    let said = text(&["append", "--at", &two.1], &lines, 0);
    assert_eq!(said.lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>(), (1..=200).collect::<Vec<_>>());
    assert_eq!(text(&["cat", "--at", &two.1], "", 0), lines);
    assert_eq!(text(&["cat", "--at", &at, "--from", "3", "--to", "4"], "", 0), "line 3\nline 4\n");
    assert_eq!(json(&["cat", "--at", &at, "--from", "200", "--json"])["data"], "line 200");
    let status = json(&["status", "--at", &two.1, "--json"]);
    assert_eq!((&status["leader"], &status["last"]), (&1.into(), &200.into()));
    assert_eq!((&status["members"][1]["voter"], &status["members"][0]["voter"]), (&false.into(), &true.into()));
    assert_eq!(json(&["join", "2", "--at", &at, "--json"])["voter"], true);
    assert_eq!(json(&["transfer", "--to", "2", "--at", &at, "--json"])["leader"], 2);
    let shown = text(&["status", "--at", &at], "", 0);
    assert!(shown.contains("leader   node 2") && shown.contains("records  1 to 200"), "{shown}");
    assert!(text(&["remove", "1", "--at", &at], "", 0).contains("node 1 is removed"));
    let last = json(&["append", "--at", &two.1, "--json"]);
    assert_eq!(last["records"], 0);
    #[cfg(unix)]
    {
        assert!(Command::new("kill").arg(two.0.id().to_string()).status().unwrap().success());
        assert_eq!(two.0.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let said = text(&["status", "--at", "127.0.0.1:1", "--patience", "1"], "", 1);
    assert!(said.starts_with("foreword-raft: ") && said.contains("no leader was found"), "{said}");
    let said = text(&["serve", "--listen", "0.0.0.0:0", &path("open")], "", 1);
    assert!(said.contains("--insecure") && said.contains("--cert"), "{said}");
    let strange = "127.0.0.1:x\u{202e}\u{1b}[2J";
    for args in [&["status", "--at", strange, "--patience", "1"][..], &["status", strange]] {
        let said = text(args, "", 1);
        assert!(said.contains(r"\u{1b}[2J") && !said.contains(['\u{202e}', '\u{1b}']), "{said:?}");
    }
    let said = text(&["cat", "--from", "2", "--to", "1"], "", 1);
    assert!(said.contains("the range is empty"), "{said}");
    let one = Node::start(Path::new(&path("1")), &["--listen", "127.0.0.1:0"]);
    let said = text(&["serve", "--listen", "127.0.0.1:0", "--id", "1", "--join", &one.1, &path("2")], "", 1);
    assert!(said.contains("there is another node 1"), "{said}");
    let said = text(&["join", "9", "--at", &one.1], "", 1);
    assert!(said.contains("there is no node 9: start it with --join first"), "{said}");
    let said = text(&["remove", "1", "--at", &one.1], "", 1);
    assert!(said.contains("only voter"), "{said}");
    for args in [&["serve"][..], &["append", "--nonsense"], &["serve", "--id", "0", "x"], &["serve", "--ca", "x", "y"]] {
        text(args, "", 1);
    }
    for command in ["serve", "append", "cat", "status", "join", "remove", "transfer", "demo"] {
        assert!(text(&[command, "--help"], "", 0).contains("Examples:"), "{command}");
    }
}

#[test]
fn the_demo_loses_nothing_when_leaders_are_killed() {
    let shown = json(&["demo", "--for", "3", "--clients", "4", "--json"]);
    assert_eq!((&shown["lost"], &shown["twice"]), (&0.into(), &0.into()), "{shown}");
    assert!(shown["acknowledged"].as_u64().unwrap() > 100 && shown["failovers"].as_u64().unwrap() >= 1, "{shown}");
    assert!(shown["nodes"].as_array().unwrap().iter().all(|node| node["same"] == true), "{shown}");
}

/// With other figures, it prints what the guide shows.
#[test]
fn the_demo_prints_what_the_guide_shows() {
    let shape = |text: &str| -> Vec<String> {
        let word = |word: &str| if word.parse::<u64>().is_ok() { "N".to_owned() } else { word.to_owned() };
        text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")).collect()
    };
    let shown = format!("{}/../../guide/output/measured/raft_demo.txt", env!("CARGO_MANIFEST_DIR"));
    let shown = std::fs::read_to_string(shown).unwrap();
    assert_eq!(shape(&text(&["demo", "--for", "3", "--clients", "4"], "", 0)), shape(&shown));
}
