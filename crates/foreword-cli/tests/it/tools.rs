//! What looks at a log and mends it: each verdict has its exit status, and looking changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::common;
use crate::common::{Dir, dir, lsns, run, run_with};
use serde_json::Value;

/// A closed log of several segments: the numbers from 1 on.
fn log_of(n: u64) -> Dir {
    let dir = dir();
    // In parts, so that there are many frames.
    for part in 0..10 {
        let text: String =
            (n * part / 10 + 1..=n * (part + 1) / 10).map(|i| format!("record {i} {}\n", "x".repeat(200))).collect();
        run_with(&["append", dir.str(), "--quiet", "--segment-size", "64K"], text.as_bytes()).status(0);
    }
    dir
}

/// All files of a log, to the byte.
fn files(dir: &Dir) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn numbers(dir: &Dir) -> Vec<u64> {
    let said = run(&["cat", dir.str()]);
    said.text().lines().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn a_sound_log_verifies_and_looking_changes_nothing() {
    let dir = log_of(2000);
    let before = files(&dir);
    let report = run(&["verify", dir.str(), "--json"]).status(0).json();
    assert_eq!((&report["verdict"], &report["last_lsn"], &report["damage"]), (&"clean".into(), &2000.into(), &Value::Null));
    assert!(run(&["verify", dir.str()]).status(0).text().starts_with("verdict     clean (row 1)"));
    for args in [
        &["stat"][..],
        &["stat", "--json"],
        &["dump"],
        &["dump", "--json"],
        &["repair"],
        &["repair", "--salvage", "--json"],
        &["cat"],
    ] {
        run(&[&args[..1], &[dir.str()], &args[1..]].concat()).status(0);
    }
    assert_eq!(files(&dir), before);
}

#[test]
fn a_flipped_byte_is_status_3_until_it_is_repaired() {
    for (choice, kept) in [("--stop", false), ("--salvage", true)] {
        let dir = log_of(2000);
        dir.flip(3, 9 * 512 + 8192);
        let before = files(&dir);
        let report = run(&["verify", dir.str(), "--json"]).status(3).json();
        assert_eq!((&report["verdict"], &report["damage"]["row"]), (&"corruption".into(), &7.into()), "{report}");
        assert_eq!(report["damage"]["proven"], true);
        let first = report["damage"]["first_lsn"].as_u64().unwrap();
        let text = run(&["verify", dir.str()]).status(3);
        for part in ["row 7", "00000000000000000003.seg", "evidence", &format!("LSN {first} to 2000")] {
            assert!(text.text().contains(part), "{part}: {text:?}");
        }
        // What is readable is shown, then the error.
        let cat = run(&["cat", dir.str()]).status(3);
        assert_eq!(cat.text().lines().count() as u64, first - 1);
        assert!(cat.err.contains("corruption"), "{}", cat.err);

        // Without --apply, and without a choice, nothing happens.
        let plans = run(&["repair", dir.str(), "--json"]).status(3).json();
        assert_eq!(plans["plans"].as_array().unwrap().len(), 2);
        let plan = run(&["repair", dir.str(), choice, "--json"]).status(3).json();
        assert_eq!(plan["applied"], false);
        let said = run(&["repair", dir.str(), "--apply"]).status(1);
        assert!(said.err.contains("--stop or --salvage"), "{}", said.err);
        run(&["repair", dir.str(), "--stop", "--salvage"]).status(1);
        assert_eq!(files(&dir), before);

        let done = run(&["repair", dir.str(), choice, "--apply", "--json"]).status(0).json();
        assert_eq!(done["plans"], plan["plans"], "as planned");
        let given_up = |i: usize| plan["plans"][0]["given_up"][0][i].as_u64().unwrap();
        assert_eq!(given_up(0), first);
        let report = run(&["verify", dir.str(), "--json"]).status(0).json();
        assert_eq!(report["given_up"], if kept { plan["plans"][0]["given_up"].clone() } else { Value::Array(vec![]) });
        let expected: Vec<u64> = (1..=2000).filter(|&i| i < first || kept && i > given_up(1)).collect();
        assert_eq!(numbers(&dir), expected);
        let note = run(&["cat", dir.str()]).status(0).err;
        assert_eq!(note.contains("given up in a repair"), kept, "{note}");
        let aside = fs::read(dir.path().join("damaged/00000000000000000003.seg")).unwrap();
        assert_eq!(aside, before[&dir.segment(3)], "the damaged file is kept as it was");
        run(&["repair", dir.str()]).status(0);
        // It goes on.
        let next = run_with(&["append", dir.str()], b"record 0\n").status(0);
        assert_eq!(next.text(), format!("{}\n", expected.last().unwrap() + 1));
    }
}

#[test]
fn a_torn_tail_is_status_2_and_repair_or_opening_mends_it() {
    let dir = log_of(100);
    // As a crash in mid-write leaves it: not closed, and of the last frame some sectors were never
    // written.
    let dump = run(&["dump", dir.str(), "--json"]);
    let frames: Vec<Value> = dump.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = frames.iter().rfind(|f| f["kind"] == "DATA").unwrap();
    let (segment, offset) = (last["segment"].as_u64().unwrap(), last["offset"].as_u64().unwrap() as usize);
    let mut bytes = fs::read(dir.segment(segment)).unwrap();
    bytes[offset + 512..].fill(0);
    fs::write(dir.segment(segment), &bytes).unwrap();
    let report = run(&["verify", dir.str(), "--json"]).status(2).json();
    assert_eq!((&report["verdict"], &report["last_lsn"]), (&"torn-tail".into(), &90.into()));
    assert!(run(&["dump", dir.str()]).status(0).text().contains("TORN"));
    run(&["cat", dir.str()]).status(0);
    run(&["stat", dir.str()]).status(0);
    let repair = run(&["repair", dir.str()]).status(0);
    for part in ["torn tail", "nothing acknowledged is missing", "opening the log repairs it", "ends with LSN 90"] {
        assert!(repair.text().contains(part), "{part}: {repair:?}");
    }
    run(&["verify", dir.str()]).status(2);
    let repaired = run(&["repair", dir.str(), "--apply", "--json"]).status(0).json();
    assert_eq!((&repaired["plans"][0]["last_lsn"], &repaired["torn_tail"]), (&90.into(), &true.into()));
    run(&["verify", dir.str()]).status(0);
    assert!(!run(&["repair", dir.str()]).status(0).text().contains("torn"));
    // Of a sound log there is nothing to repair, and it is not said that anything was.
    let before = files(&dir);
    let repaired = run(&["repair", dir.str(), "--apply", "--json"]).status(0).json();
    assert_eq!((&repaired["applied"], &repaired["damage"]), (&false.into(), &Value::Null));
    assert!(run(&["repair", dir.str(), "--apply"]).status(0).text().contains("nothing to repair"));
    assert!(files(&dir) == before);
    assert_eq!(numbers(&dir), (1..=90).collect::<Vec<_>>());
}

#[test]
fn stat_accounts_for_every_record_and_byte() {
    let dir = log_of(2000);
    let stat = run(&["stat", dir.str(), "--json"]).status(0).json();
    let segments = stat["segments"].as_array().unwrap();
    assert!(segments.len() > 5);
    let of = |name: &str, s: &Value| s[name].as_u64().unwrap_or(0);
    let records: u64 =
        segments.iter().filter(|s| s["last_lsn"].is_u64()).map(|s| of("last_lsn", s) - of("first_lsn", s) + 1).sum();
    assert_eq!(records, 2000);
    let bytes: usize = files(&dir).iter().filter(|(path, _)| path.extension().is_some()).map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(stat["bytes"], bytes);
    assert_eq!(segments.iter().filter(|s| s["state"] == "current").count(), 1);
    assert_eq!((&stat["verdict"], &stat["writer"]), (&"clean".into(), &false.into()));
    // The same as a table.
    let text = run(&["stat", dir.str()]).status(0);
    let table: Vec<&str> = text.text().lines().skip_while(|line| !line.contains("first LSN")).skip(1).collect();
    assert_eq!(table.len(), segments.len());
    for (line, segment) in table.iter().zip(segments) {
        let state = segment["state"].as_str().unwrap();
        assert!(line.starts_with(&format!("{:>5}  ", segment["epoch"].as_u64().unwrap())) && line.ends_with(state), "{line}");
    }
    // A segment that cannot be used is named.
    dir.flip(2, 100);
    let stat = run(&["stat", dir.str(), "--json"]).status(3).json();
    assert_eq!(stat["segments"][1]["state"], "damaged");
}

#[test]
fn dump_tells_every_record_with_its_length() {
    let dir = log_of(300);
    let dump = run(&["dump", dir.str(), "--json"]).status(0);
    let frames: Vec<Value> = dump.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let records: Vec<(u64, u64)> = frames
        .iter()
        .filter(|f| f["kind"] == "DATA")
        .flat_map(|f| f["records"].as_array().unwrap())
        .map(|r| (r["lsn"].as_u64().unwrap(), r["bytes"].as_u64().unwrap()))
        .collect();
    let expected: Vec<(u64, u64)> = (1..=300).map(|i| (i, format!("record {i} ").len() as u64 + 200)).collect();
    assert_eq!(records, expected);
    for kind in ["HEADER", "LINK", "MARK", "SEAL", "unwritten"] {
        assert!(frames.iter().any(|f| f["kind"] == kind), "{kind}");
    }
    let text = run(&["dump", dir.str(), "1"]).status(0);
    assert!(text.text().starts_with("segment 1\n") && !text.text().contains("segment 2\n"), "{text:?}");
    assert!(run(&["dump", dir.str(), "99"]).status(1).err.contains("there is no segment 99"));
    // Damage is named where it is, and the dump continues.
    dir.flip(1, 8192 + 700);
    let text = run(&["dump", dir.str(), "1"]).status(3);
    let damaged: Vec<&str> = text.text().lines().filter(|line| line.contains("DAMAGED")).collect();
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].trim_start().starts_with("8192 "), "{damaged:?}");
    assert!(text.text().lines().any(|line| line.contains("DATA") && !line.trim_start().starts_with("8192 ")));
    run(&["dump", dir.str(), "2"]).status(0);
    run(&["dump", dir.str(), "--json"]).status(3);
    // Without any segment it says so.
    for (path, _) in files(&dir).into_iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "seg")) {
        fs::remove_file(path).unwrap();
    }
    let said = run(&["dump", dir.str()]).status(3);
    assert!(said.text().is_empty() && said.err.contains("there is no segment"), "{said:?}");
}

#[test]
fn truncate_drops_the_front_and_cuts_the_back() {
    let dir = log_of(2000);
    let said = run(&["truncate", dir.str(), "--before", "501", "--json"]).status(0).json();
    assert_eq!((&said["start_lsn"], &said["last_lsn"]), (&501.into(), &2000.into()));
    assert!(run(&["truncate", dir.str(), "--from", "1501"]).status(0).text().contains("1000: LSN 501 to 1500"));
    assert_eq!(numbers(&dir), (501..=1500).collect::<Vec<_>>());
    assert!(run(&["cat", dir.str(), "--from", "500"]).status(1).err.contains("the log starts at 501"));
    assert_eq!(run_with(&["append", dir.str()], b"record 1501\n").status(0).text(), "1501\n");
    run(&["verify", dir.str()]).status(0);
    assert!(
        run(&["truncate", dir.str(), "--before", "9999"])
            .status(1)
            .err
            .contains("there is no record 9999, or not yet: the last is 1501")
    );
    assert!(run(&["truncate", dir.str(), "--from", "7"]).status(1).err.contains("dropped"));
    run(&["truncate", dir.str(), "--from", "700", "--before", "600"]).status(1);
    // All records may be dropped; the LSNs continue.
    run(&["truncate", dir.str(), "--before", "1502"]).status(0);
    assert_eq!(run(&["cat", dir.str()]).status(0).text(), "");
    assert_eq!(run_with(&["append", dir.str()], b"a\nb\n").status(0).text(), lsns(1502..=1503));
}

#[test]
fn a_log_that_is_in_use_is_not_repaired_and_says_so() {
    let dir = log_of(10);
    let log = foreword::Options::new().segment_bytes(64 << 10).open(dir.path()).unwrap();
    assert!(run(&["repair", dir.str()]).status(0).text().starts_with("in use: a writer has it open"));
    assert_eq!(run(&["repair", dir.str(), "--json"]).status(0).json()["in_use"], true);
    assert!(run(&["repair", dir.str(), "--stop", "--apply"]).status(1).err.contains("is open for writing elsewhere"));
    log.close().unwrap();
    assert!(run(&["repair", dir.str()]).status(0).text().contains("no corruption"));
    assert_eq!(run(&["repair", dir.str(), "--json"]).status(0).json()["in_use"], false);
}

#[test]
fn a_hold_is_placed_moved_limited_and_released_beside_a_writer() {
    let dir = log_of(100);
    let log = foreword::Options::new().segment_bytes(64 << 10).create(false).open(dir.path()).unwrap();
    let hold = |args: &[&str]| run(&[&["hold", dir.str()], args].concat());
    assert!(hold(&["all"]).status(0).text().contains("`all` keeps LSN 1 and later"));
    assert_eq!(hold(&["all", "--from", "30", "--json"]).status(0).json()["lsn"], 30);
    assert_eq!(log.truncate_front(foreword::Lsn(60)).unwrap(), foreword::Lsn(30));
    let limited = hold(&["replica", "--from", "40", "--max-bytes", "10M", "--max-age", "1h 30m"]).status(0);
    assert!(limited.text().contains("`replica` keeps LSN 40 and later, at most 10.0 MiB, for at most 5400 s"), "{limited:?}");
    let moved = hold(&["replica", "--from", "50", "--json"]).status(0).json();
    assert_eq!((&moved["lsn"], &moved["limit_seconds"]), (&50.into(), &5400.into()), "moved, it keeps its limit");
    let stat = run(&["stat", dir.str(), "--json"]).status(0).json();
    assert_eq!((&stat["holds"]["replica"], &stat["hold_limits"]["replica"]["bytes"]), (&50.into(), &(10 << 20).into()));
    assert!(hold(&["late", "--from", "29"]).status(1).err.contains("the log starts at 30"));
    assert!(hold(&["all", "--release"]).status(0).text().contains("released"));
    assert_eq!(log.truncate_front(foreword::Lsn(60)).unwrap(), foreword::Lsn(50));
    hold(&["", "--from", "60"]).status(1);
}

#[test]
fn what_lies_beyond_the_end_is_said_not_to_be_there() {
    for (records, last) in [(0, "the log has none"), (20, "the last is 20")] {
        let dir = log_of(records);
        let next = (records + 1).to_string();
        let hold = |args: &[&str]| run(&[&["hold", dir.str()], args].concat());
        assert_eq!(run(&["cat", dir.str(), "--from", &next]).status(0).text(), "");
        let beyond = run(&["cat", dir.str(), "--from", "9999"]).status(1);
        assert!(beyond.err.contains(&format!("there is no record 9999: {last}")), "{beyond:?}");
        hold(&["next", "--from", &next]).status(0);
        let refused = hold(&["far", "--from", "9999"]).status(1);
        assert!(refused.err.contains("there is no record 9999, or not yet") && refused.err.contains(last), "{refused:?}");
        // Beside a writer, nothing says how far it has come: taken, and said.
        let log = foreword::Options::new().segment_bytes(64 << 10).open(dir.path()).unwrap();
        assert!(hold(&["far", "--from", "9999"]).status(0).err.contains("LSN 9999 is not there yet"));
        assert_eq!(hold(&["next", "--from", &next]).status(0).err, "");
        log.close().unwrap();
    }
    let dir = log_of(20);
    let there = run(&["dump", dir.str(), "99"]).status(1);
    assert!(there.err.contains("there is no segment 99 in") && there.err.contains("there are: "), "{there:?}");
    // Where damage is what ends it, that is what is said.
    let dir = log_of(2000);
    dir.flip(3, 9 * 512 + 8192);
    let newest = foreword::inspect::segments(dir.path()).unwrap().last().unwrap().epoch;
    for epoch in [newest - 1, newest] {
        let file = fs::OpenOptions::new().write(true).open(dir.path().join(format!("{epoch:020}.seg"))).unwrap();
        file.set_len(4096).unwrap();
    }
    run(&["cat", dir.str(), "--from", "2001"]).status(3);
}

#[test]
fn a_hold_that_is_lost_says_so_and_is_not_blamed_for_what_another_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let log = foreword::Options::new().segment_bytes(64 << 10).open(dir.path()).unwrap();
    for _ in 0..60 {
        log.commit([7; 10_000]).unwrap();
    }
    let path = dir.path().to_str().unwrap();
    let hold = |args: &[&str]| run(&[&["hold", path], args].concat());
    hold(&["lost", "--max-bytes", "100K"]).status(0);
    hold(&["kept", "--from", "20"]).status(0);
    log.close().unwrap();
    let said = run(&["truncate", path, "--before", "60"]).status(0);
    assert!(said.text().contains("LSN 20 to 60") && said.err.contains("`kept` keeps LSN 20"), "{said:?}");
    assert!(run(&["stat", path]).text().contains("`lost` was to keep LSN 1"));
    assert!(hold(&["lost", "--from", "30"]).status(1).err.contains("is lost"));
    hold(&["lost", "--release"]).status(0);
    hold(&["lost", "--from", "30"]).status(0);
}

#[test]
fn a_hold_keeps_what_truncate_would_drop() {
    let dir = log_of(100);
    let log = foreword::Options::new().segment_bytes(64 << 10).open(dir.path()).unwrap();
    log.hold("archiver", foreword::Lsn(40)).unwrap();
    log.close().unwrap();
    let said = run(&["truncate", dir.str(), "--before", "60"]).status(0);
    assert!(said.text().contains("LSN 40 to 100") && said.err.contains("`archiver` keeps LSN 40"), "{said:?}");
    assert!(run(&["stat", dir.str()]).text().contains("`archiver` keeps LSN 40"));
    assert_eq!(run(&["stat", dir.str(), "--json"]).json()["holds"]["archiver"], 40);
    // Its owner is gone for good.
    assert!(run(&["hold", dir.str(), "nobody", "--release"]).status(1).err.contains("no hold `nobody`"));
    run(&["hold", dir.str(), "archiver", "--release", "--from", "60"]).status(1);
    run(&["hold", dir.str(), "archiver", "--release"]).status(0);
    assert_eq!(run(&["stat", dir.str(), "--json"]).json()["holds"], serde_json::json!({}));
    assert!(run(&["truncate", dir.str(), "--before", "60"]).status(0).text().contains("LSN 60 to 100"));
}

#[test]
fn a_directory_that_is_no_log_and_a_lost_log_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("letter.txt"), "dear").unwrap();
    let at = place.path().to_str().unwrap();
    assert!(run(&["append", at]).status(1).err.contains("letter.txt"));
    run(&["cat", at]).status(1);
    let file = place.path().join("letter.txt");
    run(&["cat", file.to_str().unwrap()]).status(1);
    let dir = log_of(100);
    for (path, _) in files(&dir).iter().filter(|(path, _)| path.extension().is_some()) {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(run(&["verify", dir.str(), "--json"]).status(3).json()["damage"]["row"], 13);
    run(&["cat", dir.str()]).status(3);
    run_with(&["append", dir.str()], b"no\n").status(3);
}

#[test]
fn the_demo_kills_recovers_and_finds_every_acknowledged_record() {
    let dir = dir();
    let said = run(&["demo", dir.str(), "--rounds", "3", "--for", "400ms", "--seed", "7", "--json"]).status(0);
    let rows: Vec<Value> = said.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    for row in &rows[..3] {
        assert!(row["acknowledged"].as_u64().unwrap() > 0, "{row}");
        assert!(row["recovered"].as_u64() >= row["acknowledged"].as_u64(), "{row}");
        assert_eq!(row["lost"], 0);
        assert!(row["verdict"] == "unclosed" || row["verdict"] == "torn-tail", "killed, not closed: {row}");
    }
    assert_eq!((&rows[3]["lost"], &rows[3]["wrong"]), (&0.into(), &Value::Array(vec![])));
    run(&["verify", dir.str()]).status(0);
    assert!(run(&["demo", dir.str()]).status(1).err.contains("already"), "a log is there");
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let output = common::foreword()
        .args(["demo", "--rounds", "1", "--for", "100ms", "--threads", "2"])
        .env("TMPDIR", place.path())
        .output();
    let said = common::Said::from(output.unwrap()).status(0);
    assert!(said.text().contains("all are there, byte for byte"), "{said:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn what_is_said_of_damage_is_what_a_repair_then_does() {
    let dir = log_of(2000);
    dir.flip(3, 9 * 512 + 8192);
    // A look at the end does not see it, and does not claim to.
    let stat = run(&["stat", dir.str()]).status(0);
    assert!(stat.text().contains("judged by the tail alone: `foreword verify` reads everything"), "{stat:?}");
    assert_eq!(run(&["stat", dir.str(), "--json"]).json()["looked_at"], "tail");
    let report = run(&["verify", dir.str(), "--json"]).status(3).json();
    for (name, choice) in [("stop", "--stop"), ("salvage", "--salvage")] {
        let plan = run(&["repair", dir.str(), choice, "--json"]).status(3).json();
        assert_eq!(report["repair_would_lose"][name], plan["plans"][0]["given_up"], "{name}");
    }
    assert_ne!(report["repair_would_lose"]["stop"], report["repair_would_lose"]["salvage"]);
    let said = run(&["verify", dir.str()]).status(3);
    for part in ["unreadable", "until the log is repaired", "--stop", "--salvage", "foreword repair"] {
        assert!(said.text().contains(part), "{part}: {said:?}");
    }
    run(&["repair", dir.str(), "--salvage", "--apply"]).status(0);
    let report = run(&["verify", dir.str(), "--json"]).status(0).json();
    assert_eq!(report["records"].as_u64().unwrap(), numbers(&dir).len() as u64, "what was given up is not readable");
    assert!(report["records"].as_u64().unwrap() < report["last_lsn"].as_u64().unwrap());
}

#[test]
fn after_a_kill_it_is_said_from_where_on_nothing_is_proven() {
    let (open, killed) = (dir(), dir());
    let options = foreword::Options::new().segment_bytes(64 << 10).background(false).sync(foreword::SyncPolicy::manual());
    let log = options.open(open.path()).unwrap();
    for record in ["one", "two", "three"] {
        log.commit(record.as_bytes()).unwrap();
    }
    log.append_with(b"four", foreword::Durability::Written).unwrap();
    fs::create_dir_all(killed.path()).unwrap();
    for file in fs::read_dir(open.path()).unwrap().map(|file| file.unwrap()) {
        fs::copy(file.path(), killed.path().join(file.file_name())).unwrap();
    }
    let cat = run(&["cat", killed.str()]).status(0);
    assert_eq!(cat.text(), "one\ntwo\nthree\nfour\n");
    for part in [
        "unproven from LSN 4 on",
        "does not show whether these records were acknowledged",
        "opening it for writing keeps them all",
    ] {
        assert!(cat.err.contains(part) && !cat.err.contains("power"), "{part}: {}", cat.err);
    }
    let json = run(&["cat", killed.str(), "--format", "json"]).status(0);
    assert_eq!(
        json.text().lines().map(|line| line.contains("\"unproven\":true")).collect::<Vec<_>>(),
        [false, false, false, true]
    );
    let report = run(&["verify", killed.str(), "--json"]).json();
    assert_eq!((&report["proven_lsn"], &report["last_lsn"]), (&3.into(), &4.into()));
    let stat = run(&["stat", killed.str(), "--json"]).json();
    assert_eq!((&stat["last_lsn"], &stat["recoverable_lsn"]), (&3.into(), &4.into()));
    // Of a log that is open, or was closed, nothing is.
    assert_eq!(run(&["cat", open.str()]).status(0).err, "");
    log.close().unwrap();
    let cat = run(&["cat", open.str()]).status(0);
    assert_eq!((cat.text(), cat.err.as_str()), ("one\ntwo\nthree\nfour\n", ""));
}

#[test]
fn a_dump_leaves_out_the_most_of_a_long_list_and_says_how_much() {
    let dir = dir();
    let records: String = (0..5000).map(|i| format!("{}\n", "x".repeat(100 + i % 900))).collect();
    run_with(&["append", dir.str(), "--quiet"], records.as_bytes()).status(0);
    let longest = |said: &common::Said| said.text().lines().map(str::len).max().unwrap();
    let (short, full) = (run(&["dump", dir.str()]).status(0), run(&["dump", dir.str(), "--full"]).status(0));
    assert!(longest(&short) < 250 && longest(&full) > 600, "{} {}", longest(&short), longest(&full));
    assert_eq!(short.text().lines().count(), full.text().lines().count());
    let mut left_out = 0;
    for (short, full) in short.text().lines().zip(full.text().lines()) {
        let lens = |line: &str| -> Vec<u64> {
            let lens = line.split_once("bytes ").map_or("", |(_, lens)| lens);
            lens.split([' ', ';', ',']).map_while(|len| len.parse().ok()).collect()
        };
        let Some((_, said)) = short.split_once(" and ") else {
            assert_eq!(short, full);
            continue;
        };
        let rest = lens(full).split_off(lens(short).len());
        let expected = format!("{} records of {} bytes (--full)", rest.len(), rest.iter().sum::<u64>());
        assert!(said.starts_with(&expected), "{expected}: {short}");
        left_out += 1;
    }
    assert!(left_out > 2, "{short:?}");
}

#[test]
fn a_dump_shows_where_the_log_was_cut() {
    let dir = log_of(90);
    assert!(!run(&["dump", dir.str()]).status(0).text().contains("cut at"));
    run(&["truncate", dir.str(), "--from", "41"]).status(0);
    let text = run(&["dump", dir.str()]).status(0);
    assert_eq!(text.text().matches(", cut at LSN 41 since generation 0, ").count(), 1, "{}", text.text());
    let json = run(&["dump", dir.str(), "--json"]).status(0);
    let cuts: Vec<_> = json.text().lines().filter(|line| line.contains("\"cut\":{")).collect();
    assert!(cuts.len() == 1 && cuts[0].contains(r#""cut":{"lsn":41,"since_generation":0}"#), "{cuts:?}");
}
