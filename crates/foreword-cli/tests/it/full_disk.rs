//! A program that is killed on a full disk, again and again, leaves a log that truncation alone
//! brings back; and one that is killed as soon as it has started does not fill a disk. On real file
//! systems of their own: without root, those tests are passed over.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common;
use crate::common::{Said, run, run_with, start};

const SEGMENT: &str = "1M";
/// Room for a few segments, and soon filled.
const DISK_BYTES: u64 = 12 << 20;

/// A small file system, as long as it lives.
struct Mounted {
    at: PathBuf,
    _place: tempfile::TempDir,
}

impl Mounted {
    /// `None` if this is not for us to do.
    fn new(kind: &str) -> Option<Mounted> {
        let place = tempfile::tempdir().unwrap();
        let (at, image) = (place.path().join("disk"), place.path().join("image"));
        fs::create_dir(&at).unwrap();
        let (bytes, image_str, at_str) = (format!("size={DISK_BYTES}"), image.to_str().unwrap(), at.to_str().unwrap());
        let mounted = match kind {
            "tmpfs" => tool(&["mount", "-t", "tmpfs", "-o", &bytes, "tmpfs", at_str]),
            _ => {
                fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
                tool(&["mkfs.ext4", "-q", "-F", "-m", "0", image_str]) && tool(&["mount", "-o", "loop", image_str, at_str])
            }
        };
        if !mounted {
            println!("passed over: {kind} cannot be mounted here, which takes root");
        }
        mounted.then_some(Mounted { at, _place: place })
    }

    /// Another file that takes all space but this much.
    fn fill(&self, but: u64) {
        let mut file = fs::File::options().create(true).append(true).open(self.at.join("ballast")).unwrap();
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            while matches!(file.write(&zeros), Ok(n) if n > 0) {}
        }
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(but)).unwrap();
    }

    fn drain(&self) {
        let _ = fs::remove_file(self.at.join("ballast"));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let at = self.at.to_str().unwrap();
        // (The loop device goes with the mount.)
        assert!(tool(&["umount", at]) || std::thread::panicking(), "{at} is still mounted");
    }
}

fn tool(words: &[&str]) -> bool {
    Command::new(words[0]).args(&words[1..]).output().is_ok_and(|output| output.status.success())
}

/// The same numbers in each run, from a seed.
fn noise(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn record(i: u64) -> String {
    format!("record {i} {}\n", "x".repeat((i * 37 % 900) as usize))
}

/// Appends numbered records from one on until it is killed, after a time: the last LSN that it
/// acknowledged, and whether the disk was full before.
fn append_until_killed(log: &str, from: u64, after: Duration) -> (u64, bool) {
    let mut append = start(&["append", log, "--segment-size", SEGMENT]);
    let (mut input, output) = (append.0.stdin.take().unwrap(), append.0.stdout.take().unwrap());
    let writer = std::thread::spawn(move || (from..).find(|&i| input.write_all(record(i).as_bytes()).is_err()));
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        let full = append.0.try_wait().unwrap().is_some();
        append.0.kill().unwrap();
        append.0.wait().unwrap();
        full
    });
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    // What is not a whole number was cut short.
    let last = lines.filter_map(|line| line.parse().ok()).last().unwrap_or(0);
    writer.join().unwrap();
    (last, killer.join().unwrap())
}

fn last_lsn(log: &str) -> (u64, u64) {
    let stat = run(&["stat", log, "--json"]).status(0).json();
    let number = |name: &str| stat[name].as_u64().unwrap();
    (number("start_lsn"), number("recoverable_lsn"))
}

fn no_space(said: &Said) -> bool {
    said.status == 1 && said.err.contains("no space for a file of ")
}

/// That all is there from the start on that was acknowledged.
#[track_caller]
fn check(log: &str, acknowledged: u64) -> (u64, u64) {
    let verify = run(&["verify", log]);
    assert!([0, 2].contains(&verify.status), "{verify:?}");
    let (start, last) = last_lsn(log);
    assert!(last >= acknowledged, "{acknowledged} was acknowledged, and {last} is there");
    let said = run(&["cat", log]).status(0);
    let expected: String = (start..=last).map(record).collect();
    assert!(said.text() == expected, "other records than were appended");
    (start, last)
}

/// With another seed in the variable FOREWORD_SEED.
fn killed_on_a_full(kind: &str) {
    let Some(disk) = Mounted::new(kind) else { return };
    let log = disk.at.join("log");
    let log = log.to_str().unwrap();
    let many: String = (1..=60_000).map(record).collect();
    let said = run_with(&["append", log, "--quiet", "--segment-size", SEGMENT], many.as_bytes());
    assert!(no_space(&said), "{said:?}");
    let mut seed = std::env::var("FOREWORD_SEED").map_or(16, |n| n.parse().unwrap());
    let (mut refused, mut full, mut stuck) = (0, 0, 0);
    let (_, mut last) = last_lsn(log);
    for round in 0..20 {
        // Others take what there is, or nearly all of it.
        if round % 2 == 1 {
            disk.fill(noise(&mut seed) % (256 << 10));
        }
        let (acknowledged, was_full) = append_until_killed(log, last + 1, Duration::from_millis(noise(&mut seed) % 250));
        full += usize::from(was_full);
        let start;
        (start, last) = check(log, acknowledged.max(last));
        // A few records, which makes no room, or all but a few. It is killed, too.
        let upto = if round % 3 == 0 { (start + 1).min(last) } else { last.saturating_sub(noise(&mut seed) % 20).max(start) };
        let mut truncate = start_truncate(log, upto);
        std::thread::sleep(Duration::from_millis(noise(&mut seed) % 15));
        truncate.0.kill().unwrap();
        truncate.0.wait().unwrap();
        run(&["stat", log]).status(0);
        let there = listing(log);
        let said = run(&["truncate", log, "--before", &upto.to_string()]);
        assert_eq!(said.status, 0, "round {round}: {said:?}\n{there}{}", run(&["stat", log]).text());
        assert_eq!(check(log, last), (upto, last), "round {round}");
        let said = run_with(&["append", log, "--segment-size", SEGMENT], record(last + 1).as_bytes());
        refused += usize::from(no_space(&said));
        if !no_space(&said) {
            assert_eq!(said.status(0).text(), format!("{}\n", last + 1), "round {round}");
        }
        // The back goes, too, while there is no room.
        if round % 4 == 1 {
            (_, last) = last_lsn(log);
            run(&["truncate", log, "--from", &last.to_string()]).status(0);
            assert_eq!(check(log, last - 1).1, last - 1, "round {round}");
        }
        // With all records gone there is room, whatever else is full: unless the log's only segment
        // is full, and others took all that it gave back.
        (_, last) = last_lsn(log);
        run(&["truncate", log, "--before", &(last + 1).to_string()]).status(0);
        last += 1;
        let mut said = run_with(&["append", log, "--segment-size", SEGMENT], record(last).as_bytes());
        if no_space(&said) {
            let stat = run(&["stat", log, "--json"]).status(0).json();
            let segments = stat["segments"].as_array().unwrap();
            assert!(round % 4 != 0 && segments.len() == 1, "round {round}: {said:?}\n{}{stat}", listing(log));
            stuck += 1;
            disk.drain();
            said = run_with(&["append", log, "--segment-size", SEGMENT], record(last).as_bytes());
        }
        assert_eq!(said.text(), format!("{last}\n"), "round {round}: {said:?}");
        if round % 4 == 3 {
            disk.drain();
        }
    }
    println!("{kind}: of 20 kills, {full} came when the disk was full; {refused} times there was no room for one record more");
    println!("{kind}: {stuck} times, not even with all records gone");
    disk.drain();
    run_with(&["append", log], record(last + 1).as_bytes()).status(0);
    check(log, last + 1);
}

fn listing(dir: &str) -> String {
    String::from_utf8(Command::new("ls").args(["-ls", dir]).output().unwrap().stdout).unwrap()
}

fn start_truncate(log: &str, before: u64) -> common::Running {
    start(&["truncate", log, "--before", &before.to_string()])
}

#[test]
fn a_full_ext4_and_kills_need_nothing_but_truncation() {
    killed_on_a_full("ext4");
}

#[test]
fn a_full_tmpfs_and_kills_need_nothing_but_truncation() {
    killed_on_a_full("tmpfs");
}

/// The size of the segment that the log is in.
fn current_bytes(log: &str) -> u64 {
    let stat = run(&["stat", log, "--json"]).status(0).json();
    let segments = stat["segments"].as_array().unwrap();
    segments.iter().find(|s| s["state"] == "current").unwrap()["file_bytes"].as_u64().unwrap()
}

/// The size of a segment made of the reserve is not the size that was asked for.
#[test]
fn a_log_that_went_on_in_its_reserve_returns_to_its_own_segments() {
    let Some(disk) = Mounted::new("tmpfs") else { return };
    let log = disk.at.join("log");
    let log = log.to_str().unwrap();
    let many = |from| (from..from + 60_000).map(record).collect::<String>();
    assert!(no_space(&run_with(&["append", log, "--quiet", "--segment-size", SEGMENT], many(1).as_bytes())));
    disk.fill(0);
    let (_, last) = last_lsn(log);
    run(&["truncate", log, "--from", &last.to_string()]).status(0);
    assert!(current_bytes(log) < 1 << 20, "the reserve");
    run(&["truncate", log, "--before", &(last - 9).to_string()]).status(0);
    assert!(no_space(&run_with(&["append", log, "--quiet"], many(last).as_bytes())));
    assert_eq!(current_bytes(log), 1 << 20);
}

/// As a kill leaves it that comes while an opening makes a segment of the reserve, when the other
/// half of it is in the log already.
#[test]
fn a_reserve_that_a_kill_left_unfinished_is_still_one() {
    let Some(disk) = Mounted::new("tmpfs") else { return };
    let (at, many) = (disk.at.join("log"), (1..=60_000).map(record).collect::<String>());
    let log = at.to_str().unwrap();
    assert!(no_space(&run_with(&["append", log, "--quiet", "--segment-size", SEGMENT], many.as_bytes())));
    disk.fill(0);
    let (_, last) = last_lsn(log);
    run(&["truncate", log, "--from", &(last - 20).to_string()]).status(0);
    disk.fill(0);
    // Nothing proves the record, so the next opening continues in another segment.
    start_and_kill(log, 1, last - 20, Duration::ZERO);
    let names: Vec<PathBuf> = fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()).collect();
    let newest = names.iter().filter_map(|path| path.file_stem()?.to_str()?.parse::<u64>().ok()).max().unwrap();
    for reserve in names.iter().filter(|path| path.to_str().unwrap().contains("RESERVE")) {
        fs::rename(reserve, at.join(format!("{:020}.seg.tmp", newest + 1))).unwrap();
    }
    disk.fill(0);
    for _ in 0..2 {
        let there = listing(log);
        let said = run(&["truncate", log, "--before", &(last - 30).to_string()]);
        assert_eq!(said.status, 0, "{said:?}\n{there}");
    }
}

/// What a directory takes of its disk, and its number of files.
fn taken(dir: &Path) -> (u64, usize) {
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap()).collect();
    (files.iter().map(|file| file.blocks() * 512).sum(), files.len())
}

/// Starts the command, waits until this many records are acknowledged, and kills it a moment later.
fn start_and_kill(log: &str, records: u64, first: u64, moment: Duration) {
    let mut append = start(&["append", log, "--segment-size", SEGMENT]);
    let (mut input, output) = (append.0.stdin.take().unwrap(), append.0.stdout.take().unwrap());
    let text: String = (first..first + records).map(record).collect();
    input.write_all(text.as_bytes()).unwrap();
    assert_eq!(BufReader::new(output).lines().take(records as usize).count() as u64, records);
    common::soon("the log", || foreword::inspect::writer(log).unwrap().is_some());
    std::thread::sleep(moment);
    append.0.kill().unwrap();
    append.0.wait().unwrap();
}

/// More rounds than these with the variable FOREWORD_STARTS.
fn killed_starts(records: u64) {
    let rounds = std::env::var("FOREWORD_STARTS").map_or(60, |n| n.parse().unwrap());
    let dir = common::dir();
    let (mut most, mut most_files, mut seed) = (0, 0, records);
    for round in 0..rounds {
        start_and_kill(dir.str(), records, round * records + 1, Duration::from_millis(noise(&mut seed) % 40));
        let (bytes, files) = taken(dir.path());
        (most, most_files) = (most.max(bytes), most_files.max(files));
        // The segment that the log is in, four segments' worth besides, and the records, none of
        // which takes more than a kilobyte.
        let fits = bytes <= (5 << 20) + (round + 1) * records * 1024 && files <= 10 + (rounds * records / 1024) as usize;
        assert!(fits, "round {round}: {bytes} bytes, {files} files\n{}", listing(dir.str()));
    }
    run(&["append", dir.str()]).status(0);
    check(dir.str(), rounds * records);
    println!("{rounds} starts with {records} records each: at most {} KiB in {most_files} files", most >> 10);
}

#[test]
fn killed_starts_without_records_do_not_fill_the_disk() {
    killed_starts(0);
}

#[test]
fn killed_starts_with_a_few_records_do_not_fill_the_disk() {
    killed_starts(2);
}

#[test]
fn a_new_log_without_room_says_how_much_it_takes_and_what_to_do() {
    let Some(disk) = Mounted::new("tmpfs") else { return };
    let log = disk.at.join("log");
    let log = log.to_str().unwrap();
    let said = run_with(&["append", log], b"one\n");
    assert!(no_space(&said), "{said:?}");
    for part in ["67108864 bytes", "free space", "--segment-size sets a smaller size"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(run_with(&["append", log, "--segment-size", "1M"], b"one\n").status(0).text(), "1\n");
}

/// On a full disk, a repair that only puts files aside works, though a directory takes a block; what
/// it is to copy has no room, and it says how much that takes, and leaves the log as it was.
#[test]
fn a_repair_on_a_full_disk() {
    let Some(disk) = Mounted::new("ext4") else { return };
    let log = disk.at.join("log");
    let path = log.to_str().unwrap();
    let many: String = (1..=8_000).map(record).collect();
    run_with(&["append", path, "--quiet", "--segment-size", SEGMENT], many.as_bytes()).status(0);
    let segment = |epoch: u64| log.join(format!("{epoch:020}.seg"));
    let newest = (1..).take_while(|&epoch| segment(epoch).exists()).last().unwrap();
    // (The newest is prepared, perhaps.)
    let kept = |epoch: u64| fs::read(segment(epoch)).unwrap();
    let reserve = || ["RESERVE-1", "RESERVE-2"].map(|name| fs::metadata(log.join(name)).unwrap().len());
    let flip = |epoch: u64, at: u64| {
        let file = fs::File::options().read(true).write(true).open(segment(epoch)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    // A record: the segment stays, and a copy is to be kept of it.
    disk.fill(0);
    flip(2, 8192 + 700);
    let before: Vec<_> = (1..newest).map(kept).collect();
    // (What was prepared is room, if it goes, but not for long.)
    for _ in 0..2 {
        let said = run(&["repair", path, "--stop", "--apply"]);
        assert!(no_space(&said) && said.err.contains("1048576 bytes"), "{said:?}");
        disk.fill(0);
    }
    assert!((1..newest).map(kept).collect::<Vec<_>>() == before && reserve() == [96 * 4096; 2]);
    flip(2, 8192 + 700);
    // A header: the segment is moved.
    flip(newest - 1, 20);
    let _ = fs::remove_dir(log.join("damaged"));
    disk.fill(0);
    run(&["repair", path, "--stop", "--apply"]).status(0);
    assert_eq!(fs::metadata(log.join(format!("damaged/{:020}.seg", newest - 1))).unwrap().len(), 1 << 20);
    let verified = run(&["verify", path]);
    assert_eq!(verified.status, 0, "{verified:?}");
}
