//! `foreword chaos`: it kills, finds nothing lost, says how it went, and leaves nothing behind.
//! (That it would find a loss, the tests of its check show.)

use std::path::Path;

use crate::common;
use crate::common::{Said, foreword, run, soon};
use serde_json::Value;

/// A directory with a file that is not the log's.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("letter.txt"), "dear").unwrap();
    place
}

fn is_as_it_was(place: &Path) {
    let names: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["letter.txt"]);
    assert_eq!(std::fs::read(place.join("letter.txt")).unwrap(), b"dear");
}

fn chaos(place: &Path, args: &[&str]) -> Said {
    run(&[&["chaos", place.to_str().unwrap()], args].concat())
}

fn rows(said: &Said) -> Vec<Value> {
    said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn many_kills_lose_nothing_and_leave_nothing_behind() {
    let place = place();
    let said = chaos(place.path(), &["--kills", "8", "--for", "200ms", "--threads", "3", "--seed", "7", "--json"]).status(0);
    let rows = rows(&said);
    assert_eq!(rows.len(), 9, "{said:?}");
    let (kills, whole) = rows.split_at(8);
    for (i, kill) in kills.iter().enumerate() {
        assert_eq!((&kill["kill"], &kill["seed"], &kill["lost"]), (&(i + 1).into(), &7.into(), &0.into()), "{kill}");
        assert!(["none", "unclosed", "torn-tail", "clean"].contains(&kill["verdict"].as_str().unwrap()), "{kill}");
        let held = kill["last_lsn"].as_u64().unwrap() + 1 - kill["start_lsn"].as_u64().unwrap();
        assert_eq!(kill["read_records"], held, "{kill}");
    }
    let sum = |name: &str| kills.iter().map(|kill| kill[name].as_u64().unwrap()).sum::<u64>();
    assert!(sum("acknowledged") > 10, "{said:?}");
    for name in ["acknowledged", "read_records", "read_bytes", "lost"] {
        assert_eq!(whole[0][name], sum(name), "{name}");
    }
    // What happens in ordinary life happened, too.
    let times = |row: &Value, name: &str| row["meanwhile"][name].as_u64().unwrap_or_else(|| panic!("{name}: {row}"));
    let mut deeds = vec!["cut_front", "cut_back", "left_directory", "second_writer"];
    if cfg!(unix) {
        deeds.extend(["renamed", "replaced", "lock_removed"]);
    }
    for name in deeds {
        assert!(times(&whole[0], name) > 0, "{name}: {said:?}");
        assert_eq!(times(&whole[0], name), kills.iter().map(|kill| times(kill, name)).sum::<u64>(), "{name}");
    }
    assert_eq!((&whole[0]["wrong"], &whole[0]["kept"]), (&Value::Array(vec![]), &Value::Null));
    assert!(kills[7]["recovery_seconds"].is_f64(), "the last is always opened again");
    is_as_it_was(place.path());
}

#[test]
fn it_goes_on_for_so_long_and_sums_up() {
    let place = place();
    let said = chaos(place.path(), &["--seconds", "1", "--for", "50ms"]).status(0);
    for part in [
        "killed for 1 s",
        "--seed ",
        "kills       ",
        "acked       ",
        "cuts        ",
        "meanwhile   ",
        " times LOCK removed",
        "verdicts    ",
        "lost        0 records",
    ] {
        assert!(said.text().contains(part), "{part}: {said:?}");
    }
    is_as_it_was(place.path());
    assert!(chaos(place.path(), &["--seconds", "1", "--kills", "3"]).status(1).err.contains("--kills"));
    assert!(chaos(&place.path().join("nowhere"), &[]).status(1).err.contains("nowhere"));
}

#[test]
fn a_full_disk_loses_nothing_or_it_is_said_what_is_needed() {
    let place = place();
    let run = |kills| chaos(place.path(), &["--full-disk", "--kills", kills, "--for", "300ms", "--json"]);
    let said = run("8");
    if said.status == 1 && said.err.contains("--full-disk") {
        assert!(said.err.contains("it needs Linux, root, mkfs.ext4"), "{said:?}");
        eprintln!("SKIPPED: no file system can be mounted here, so the full disk was NOT tried: {}", said.err);
    } else {
        let sum_up = |said: Said| rows(&said.status(0)).pop().unwrap();
        let mut whole = sum_up(said);
        // On a slow machine it takes more lives to fill the disk.
        for kills in ["40", "200"] {
            if whole["refused_full"].as_u64() == Some(0) {
                whole = sum_up(run(kills));
            }
        }
        assert!(whole["refused_full"].as_u64() > Some(0), "{whole}");
        assert!(whole["acknowledged"].as_u64() > Some(0), "{whole}");
    }
    is_as_it_was(place.path());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    assert!(!mounts.contains(place.path().to_str().unwrap()), "{mounts}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_and_leaves_nothing_behind() {
    for signal in ["-INT", "-TERM"] {
        let place = place();
        let mut chaos = common::Running(foreword().args(["chaos", "--kills", "100000"]).arg(place.path()).spawn().unwrap());
        soon("the log", || std::fs::read_dir(place.path()).unwrap().count() > 1);
        assert!(std::process::Command::new("kill").args([signal, &chaos.0.id().to_string()]).status().unwrap().success());
        assert_eq!(chaos.0.wait().unwrap().code(), Some(1));
        is_as_it_was(place.path());
    }
}
