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
