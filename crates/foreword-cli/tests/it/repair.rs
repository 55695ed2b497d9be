//! `foreword repair`: every cut of a segment's file can be repaired, and the log continues in
//! segments of its size.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{dir, run, run_with};

/// Not the least that there is, and more than each of the cuts.
const SEGMENT: u64 = 128 << 10;
const CUTS: [u64; 7] = [0, 1, 4095, 4096, 8192, 20_000, 65_535];

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn segments(log: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    segments
}

/// The size of the segment that the log is in.
fn current_bytes(log: &str) -> u64 {
    let stat = run(&["stat", log, "--json"]).status(0).json();
    let segments = stat["segments"].as_array().unwrap();
    segments.iter().find(|s| s["state"] == "current").unwrap()["file_bytes"].as_u64().unwrap()
}

#[test]
fn segments_cut_to_any_length_are_repaired_and_keep_their_size() {
    let (dir, place) = (dir(), tempfile::tempdir().unwrap());
    let text: String = (1..=2000).map(|i| format!("record {i} {}\n", "x".repeat(200))).collect();
    run_with(&["append", dir.str(), "--quiet", "--segment-size", "128K"], text.as_bytes()).status(0);
    let used = run(&["stat", dir.str(), "--json"]).json()["segments"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["state"] != "prepared")
        .count();
    assert!(used > 3, "{used}");
    for cut in CUTS {
        for (which, victims) in [("first", 0..1), ("last", used - 1..used), ("all", 0..usize::MAX)] {
            for choice in ["--stop", "--salvage"] {
                let copied = place.path().join(format!("{cut}{which}{choice}"));
                copy(dir.path(), &copied);
                let names = segments(&copied);
                for name in &names[victims.start..victims.end.min(names.len())] {
                    fs::OpenOptions::new().write(true).open(name).unwrap().set_len(cut).unwrap();
                }
                let log = copied.to_str().unwrap();
                let what = format!("{which} cut to {cut}, {choice}");
                run(&["verify", log]).status(3);
                let done = run(&["repair", log, choice, "--apply"]);
                assert_eq!(done.status, 0, "{what}: {done:?}");
                let verify = run(&["verify", log]);
                assert_eq!(verify.status, 0, "{what}: {verify:?}");
                assert_eq!(run_with(&["append", log, "--quiet"], b"more\n").status, 0, "{what}");
                // Where no header is left, nothing tells the size.
                if which != "all" || cut >= 4096 {
                    assert_eq!(current_bytes(log), SEGMENT, "{what}");
                }
                fs::remove_dir_all(copied).unwrap();
            }
        }
    }
}

#[test]
fn what_nothing_is_left_of_is_not_said_to_be_nothing() {
    let (dir, place) = (dir(), tempfile::tempdir().unwrap());
    let text: String = (1..=2000).map(|i| format!("record {i} {}\n", "x".repeat(200))).collect();
    run_with(&["append", dir.str(), "--quiet", "--segment-size", "128K"], text.as_bytes()).status(0);
    let stat = run(&["stat", dir.str(), "--json"]).json();
    let current = stat["segments"].as_array().unwrap().iter().find(|s| s["state"] == "current").unwrap().clone();
    let first = current["first_lsn"].as_u64().unwrap();
    fs::remove_file(current["file"].as_str().unwrap()).unwrap();

    let verify = run(&["verify", dir.str()]).status(3);
    let unknown = format!("what there was from LSN {first} on");
    for choice in ["--stop", "--salvage"] {
        let line = verify.text().lines().find(|line| line.starts_with(choice)).unwrap_or_else(|| panic!("{verify:?}"));
        assert!(line.contains(&unknown), "{line}");
    }
    assert!(!verify.text().contains("opening it for writing keeps"), "{verify:?}");
    let verify = run(&["verify", dir.str(), "--json"]).status(3).json();
    assert_eq!(verify["repair_would_lose_from"], serde_json::json!({ "stop": first, "salvage": first }));
    let plans = run(&["repair", dir.str(), "--json"]).status(3).json();
    assert!(plans["plans"].as_array().unwrap().iter().all(|plan| plan["unknown_from"] == first), "{plans}");
    let copied = place.path().join("salvaged");
    copy(dir.path(), &copied);
    let done = run(&["repair", copied.to_str().unwrap(), "--salvage", "--apply"]).status(0);
    assert!(done.text().contains(&unknown), "{done:?}");

    // Where something can be read behind the damage, it says how many there were; and what was
    // given up is not counted.
    let whole = place.path().join("whole");
    let whole = whole.to_str().unwrap();
    run_with(&["append", whole, "--quiet", "--segment-size", "128K"], text.as_bytes()).status(0);
    let second = &segments(Path::new(whole))[1];
    let mut bytes = fs::read(second).unwrap();
    bytes[40_000] ^= 1;
    fs::write(second, bytes).unwrap();
    let plan = &run(&["repair", whole, "--salvage", "--json"]).status(3).json()["plans"][0];
    assert_eq!(plan["unknown_from"], serde_json::Value::Null);
    let lost = plan["given_up"][0][1].as_u64().unwrap() - plan["given_up"][0][0].as_u64().unwrap() + 1;
    run(&["repair", whole, "--salvage", "--apply"]).status(0);
    for look in ["stat", "verify"] {
        assert_eq!(run(&[look, whole, "--json"]).status(0).json()["records"], 2000 - lost, "{look}");
    }
    assert!(run(&["stat", whole]).text().contains(&format!("{}: LSN 1 to 2000", 2000 - lost)));
}
