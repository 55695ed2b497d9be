//! What docs/OPERATIONS.md says one may do with a log's files.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::common;
use crate::common::{dir, run, run_with};
use foreword::{Lsn, Options};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10)
}

fn record(i: u64) -> String {
    format!("record {i} {}", "x".repeat(i as usize * 37 % 900))
}

/// As `cp -r` does: file by file, in the directory's order, each from its beginning to its end.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match fs::copy(entry.path(), to.join(entry.file_name())) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            copied => drop(copied.unwrap()),
        }
    }
}

/// Copies of a log beside its writer, which rotates and truncates. Other evidence than a crash
/// leaves may be in such a copy: later blocks without earlier ones. But what was acknowledged
/// before it began is in it, from the hold on. The hold moves on with each copy, so that the log
/// stays small.
#[test]
fn a_copy_of_a_live_log_has_all_that_was_acknowledged_before() {
    let (live, place) = (dir(), tempfile::tempdir().unwrap());
    let log = options().open(live.path()).unwrap();
    log.hold("backup", Lsn(1)).unwrap();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut verdicts = [0; 4];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 1.. {
                if stop.load(SeqCst) {
                    break;
                }
                assert_eq!(log.commit(record(i).as_bytes()).unwrap(), Lsn(i));
                acknowledged.store(i, SeqCst);
                if i % 16 == 0 {
                    // The hold keeps what the backup needs.
                    log.truncate_front(Lsn(i)).unwrap();
                }
            }
        });
        let rounds = || {
            for round in 0..30 {
                // However long the disk takes for these flushes, as long as it makes progress.
                while acknowledged.load(SeqCst) <= 200 * (round + 1) {
                    let before = acknowledged.load(SeqCst);
                    common::soon("another record", || acknowledged.load(SeqCst) > before);
                }
                let start = Lsn(acknowledged.load(SeqCst) - 150);
                log.hold("backup", start).unwrap();
                log.truncate_front(start).unwrap(); // So the writer truncates nothing while the files are copied.
                let before = acknowledged.load(SeqCst);
                let to = place.path().join(round.to_string());
                copy(live.path(), &to);
                let to = to.to_str().unwrap();
                let verify = run(&["verify", to]);
                assert!([0, 2, 3].contains(&verify.status), "round {round}: {verify:?}");
                verdicts[verify.status as usize] += 1;
                if verify.status == 3 {
                    run(&["repair", to, "--stop", "--apply"]).status(0);
                    run(&["verify", to]).status(0);
                }
                let said = run(&["cat", to]).status(0);
                let number = |line: &str| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
                let (first, last) = (said.text().lines().next().map_or(0, number), said.text().lines().last().map_or(0, number));
                assert!(said.text().lines().eq((first..=last).map(record)), "round {round}");
                assert!(Lsn(first) <= start && last >= before, "round {round}: {first} to {last} of {start} to {before}");
                fs::remove_dir_all(to).unwrap();
            }
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        stop.store(true, SeqCst);
        // What went wrong is said by what was said first.
        done.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    println!("fine, -, torn, corrupt: {verdicts:?}");
    log.close().unwrap();
}

#[test]
fn a_log_is_copied_record_by_record_while_it_is_written() {
    let (live, copy) = (dir(), dir());
    let log = options().open(live.path()).unwrap();
    for i in 1..=300 {
        log.append(record(i).as_bytes()).unwrap();
    }
    log.sync().unwrap();
    let last = || run(&["stat", live.str(), "--json"]).json()["last_lsn"].as_u64().unwrap();
    // Another process learns of it with the next flush, or 20 ms later.
    common::soon("what is durable", || last() == 300);
    let last = last().to_string();
    let records = run(&["cat", live.str(), "--to", &last, "--format", "length-prefixed"]).status(0);
    let summary = run_with(&["append", copy.str(), "--format", "length-prefixed", "--json"], &records.out).status(0).json();
    assert_eq!(summary["last_lsn"].to_string(), last);
    assert_eq!(run(&["cat", copy.str()]).out, run(&["cat", live.str(), "--to", &last]).out);
    log.close().unwrap();
}

/// The recipe of OPERATIONS.md, as it stands there, in a directory with `mylog`: whether it says
/// that the copy is complete.
#[cfg(unix)]
fn copy_by_recipe(place: &Path) -> bool {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATIONS.md")).unwrap();
    let recipe =
        text.split("```sh\n").map(|block| block.split("```").next().unwrap()).find(|block| block.contains("pipefail")).unwrap();
    // (For machines without it.)
    let jq = r#"jq() { grep -o '"last_lsn":[0-9]*' | head -1 | grep -o '[0-9]*$'; }"#;
    let script = format!("{jq}\nforeword() {{ \"{}\" \"$@\"; }}\n{recipe}", env!("CARGO_BIN_EXE_foreword"));
    let mut bash = std::process::Command::new("bash");
    let said = bash.arg("-c").arg(script).current_dir(place).output().unwrap();
    println!("{}", String::from_utf8_lossy(&said.stderr));
    said.status.success()
}

#[cfg(unix)]
#[test]
fn the_recipe_for_a_copy_copies_every_log_and_says_where_it_could_not() {
    type Write = fn(&Path);
    let logs: &[(&str, Write, bool)] = &[
        ("an empty log", |log| options().open(log).unwrap().close().unwrap(), true),
        (
            "a log whose records are all dropped",
            |log| {
                let log = options().open(log).unwrap();
                log.commit_batch(&["a", "b"]).unwrap();
                log.truncate_front(Lsn(3)).unwrap();
                log.close().unwrap();
            },
            true,
        ),
        (
            "records longer than the default of the command",
            |log| {
                let log = Options::new().record_bytes_max(65 << 20).open(log).unwrap();
                for len in [3, 20 << 20, 65 << 20, 0] {
                    log.commit(vec![7; len]).unwrap();
                }
                log.close().unwrap();
            },
            true,
        ),
        (
            "damage in the middle",
            |log| {
                {
                    let log = options().open(log).unwrap();
                    for i in 1..=100 {
                        log.commit(record(i)).unwrap();
                    }
                    log.close().unwrap();
                }
                let segment = log.join("00000000000000000001.seg");
                let mut bytes = fs::read(&segment).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                bytes[middle + 4096] ^= 1;
                fs::write(&segment, bytes).unwrap();
            },
            false,
        ),
    ];
    for (what, write, complete) in logs {
        let place = tempfile::tempdir().unwrap();
        let (log, backup) = (place.path().join("mylog"), place.path().join("backup"));
        write(&log);
        assert_eq!(copy_by_recipe(place.path()), *complete, "{what}");
        if *complete {
            let hashes = |dir: &Path| {
                let view = foreword::View::open(dir).unwrap();
                view.iter(Lsn::ZERO).map(|r| r.unwrap().data).collect::<Vec<_>>()
            };
            assert!(hashes(&log) == hashes(&backup), "{what}");
        }
    }
}

#[test]
fn a_copy_that_is_not_complete_says_what_is_there() {
    for format in ["length-prefixed", "hex", "json", "lines"] {
        let (log, copy) = (dir(), dir());
        let written = options().open(log.path()).unwrap();
        for len in [40, 99, 100, 101, 5] {
            written.commit(vec![b'\0'; len]).unwrap();
        }
        written.close().unwrap();
        let records = run(&["cat", log.str(), "--format", if format == "lines" { "text" } else { format }]).out;
        let append = |max| run_with(&["append", copy.str(), "--format", format, "--max-record", max], &records);
        let said = append("39").status(1);
        assert!(said.err.contains("not complete") && said.err.contains("nothing of it was appended"), "{}", said.err);
        let said = append("100").status(1);
        assert!(said.err.contains("longer than 100 bytes (see --max-record)"), "{}", said.err);
        assert!(said.err.contains("not complete in the log") && said.err.contains("records 3: LSN 1 to 3"), "{}", said.err);
    }
}

/// A closed log may be moved, renamed, restored under another name; nothing in it names its place.
#[test]
fn a_closed_log_is_its_directory() {
    let (here, place) = (dir(), tempfile::tempdir().unwrap());
    run_with(&["append", here.str()], b"one\ntwo\n").status(0);
    let there = place.path().join("there");
    copy(here.path(), &there);
    fs::remove_dir_all(here.path()).unwrap();
    let there = there.to_str().unwrap();
    run(&["verify", there]).status(0);
    assert_eq!(run_with(&["append", there], b"three\n").status(0).text(), "3\n");
    // A missing LOCK is made anew; a missing LOG is an identity that the segments still tell.
    fs::remove_file(Path::new(there).join("LOCK")).unwrap();
    fs::remove_file(Path::new(there).join("LOG")).unwrap();
    assert_eq!(run(&["cat", there]).status(0).text(), "one\ntwo\nthree\n");
    assert_eq!(run_with(&["append", there], b"four\n").status(0).text(), "4\n");
}

/// A restored backup that is older than what the owner knows of is refused by
/// `Options::expect_lsn`.
#[test]
fn an_older_copy_is_found_out_by_who_knows_more() {
    let (log, place) = (dir(), tempfile::tempdir().unwrap());
    run_with(&["append", log.str()], b"one\n").status(0);
    let old = place.path().join("old");
    copy(log.path(), &old);
    run_with(&["append", log.str()], b"two\n").status(0);
    let refused = Options::new().expect_lsn(Lsn(2)).open(&old).unwrap_err();
    assert!(matches!(refused, foreword::Error::RolledBack { found: Lsn(1), .. }), "{refused}");
    Options::new().expect_lsn(Lsn(2)).open(log.path()).unwrap().close().unwrap();
}
