//! `foreword top`: what it shows is so, and the log that it shows does not notice.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::common;
use crate::common::{Dir, dir, foreword, lsns, on_terminal, run, run_with, start, unprivileged};
use foreword::{Log, Lsn, Options};
use serde_json::Value;

/// Tells a thread to stop, however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn options() -> Options {
    Options::new().publish(true).segment_bytes(64 << 10)
}

fn once(dir: &Dir) -> Value {
    run(&["top", dir.str(), "--once", "--json"]).status(0).json()
}

/// Waits until the log has said all that it did.
fn said(log: &Log) {
    let durable = || foreword::inspect::writer(log.dir()).unwrap().unwrap().published.map(|p| p.stats.durable_lsn);
    common::soon("what the log says", || durable() == Some(log.durable_lsn()));
}

#[test]
fn a_running_log_is_shown_as_it_is() {
    let dir = dir();
    let mut append = start(&["append", dir.str(), "--quiet", "--segment-size", "64K"]);
    let mut input = append.0.stdin.take().unwrap();
    let (stop, holder) = (AtomicBool::new(false), format!("process {}", append.0.id()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                input.write_all(lsns(1..=100).as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let _stop = Stop(&stop);
        common::soon("the log", || dir.path().join("LOG").exists());
        common::soon("what it does", || once(&dir)["now"]["flushes_per_second"].as_f64() > Some(0.0));
        let look = once(&dir);
        let number = |name: &str| look["now"][name].as_f64().unwrap_or_else(|| panic!("{name}: {look}"));
        assert_eq!(
            (&look["state"], &look["writer"], &look["verdict"]),
            (&"running".into(), &holder.clone().into(), &Value::Null)
        );
        assert!(
            number("records_per_second") > 100.0 && number("written_bytes_per_second") > number("bytes_per_second"),
            "{look}"
        );
        let groups = number("records_per_second") / number("flushes_per_second");
        assert!((groups / number("records_per_flush") - 1.0).abs() < 0.05, "{look}");
        assert!(number("flush_p50_seconds") > 0.0 && number("flush_p99_seconds") >= number("flush_p50_seconds"), "{look}");
        assert!((0.5..4.0).contains(&number("seconds")), "{look}");
        assert!(look["appended_lsn"].as_u64() >= look["durable_lsn"].as_u64() && look["segments"].as_u64() > Some(0), "{look}");
        let files = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().map_or(0, |m| m.len())).sum::<u64>();
        assert!((64 << 10..=files + (1 << 20)).contains(&look["disk_bytes"].as_u64().unwrap()), "{look}");
        let text = run(&["top", dir.str(), "--once"]).status(0);
        for part in [&holder, "state       running", "now  since opened", "flush p99", "flushes/s"] {
            assert!(text.text().contains(part), "{part}: {}", text.text());
        }
        assert!(!text.text().contains('\x1b'), "no terminal, no escapes");
    });
    drop(input);
    assert!(append.0.wait().unwrap().success());
    let look = once(&dir);
    assert_eq!((&look["state"], &look["verdict"], &look["writer"]), (&"closed".into(), &"clean".into(), &Value::Null));
    let text = run(&["top", dir.str(), "--once"]).status(0);
    assert!(text.text().contains("no process has the log open") && text.text().contains("clean (row 1)"), "{text:?}");
}

#[test]
fn rest_holds_and_readers_are_shown() {
    let dir = dir();
    let log = options().open(dir.path()).unwrap();
    for i in 0..100 {
        log.append(format!("record {i}").as_bytes()).unwrap();
    }
    log.sync().unwrap();
    log.hold("archiver", Lsn(40)).unwrap();
    let (mut slow, mut fast) = (log.reader(), log.reader_at(Lsn(101)));
    slow.wait_next(None).unwrap();
    assert!(fast.wait_next(Some(Duration::ZERO)).unwrap().is_none());
    log.commit(b"more").unwrap();
    said(&log);
    std::thread::sleep(Duration::from_millis(2600));
    let look = once(&dir);
    assert_eq!((&look["state"], &look["durable_lsn"], &look["start_lsn"]), (&"idle".into(), &101.into(), &1.into()), "{look}");
    assert_eq!((&look["holds"]["archiver"], &look["readers"], &look["flushes_under_way"]), (&40.into(), &2.into(), &0.into()));
    assert!((100..=101).contains(&look["reader_lag_records"].as_u64().unwrap()), "{look}");
    assert_eq!(look["now"]["records_per_second"], 0.0);
    assert!(look["since_opened"]["records_per_second"].as_f64() > Some(0.0), "{look}");
    let text = run(&["top", dir.str(), "--once"]).status(0);
    for part in ["`archiver` keeps LSN 40 and later: 62 records", "2 at the tail", "idle for", "101: LSN 1 to 101"] {
        assert!(text.text().contains(part), "{part}: {}", text.text());
    }
    log.close().unwrap();
}

#[test]
fn a_log_that_says_nothing_is_shown_by_its_files() {
    let dir = dir();
    let log = options().publish(false).open(dir.path()).unwrap();
    log.hold("archiver", Lsn(1)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                log.commit(b"one").unwrap();
            }
        });
        let _stop = Stop(&stop);
        let look = once(&dir);
        assert_eq!(look["state"], "running", "{look}");
        assert!(look["now"]["records_per_second"].as_f64() > Some(1.0), "{look}");
        assert_eq!(
            (&look["now"]["flush_p50_seconds"], &look["since_opened"]),
            (&Value::Null, &Value::Null),
            "not known, not made up"
        );
        assert_eq!(look["holds"]["archiver"], 1);
    });
    assert!(run(&["top", dir.str(), "--once"]).status(0).text().contains("from the files"));
    log.close().unwrap();
}

/// As a user who may not write, while writers come and go.
#[test]
fn a_writer_is_not_disturbed() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    options().open(&log).unwrap().close().unwrap();
    let mut top = unprivileged(place.path());
    top.args(["top", log.to_str().unwrap(), "--json", "--interval", "100ms"]);
    let mut top = common::Running(top.spawn().unwrap());
    let mut lines = BufReader::new(top.0.stdout.take().unwrap()).lines();
    let mut look = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(look()["state"], "closed");
    let names = |dir: &std::path::Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.retain(|name: &std::ffi::OsString| !name.to_string_lossy().ends_with(".seg"));
        names.sort();
        names
    };
    let before = names(&log);
    // Whoever opens the log gets it, at once, however often it is looked at.
    for round in 0..40 {
        let opened = options().open(&log).unwrap();
        opened.commit(format!("round {round}").as_bytes()).unwrap();
        opened.close().unwrap();
    }
    assert_eq!(names(&log), before, "and nothing was left there");
    let opened = options().open(&log).unwrap();
    common::soon("the writer", || look()["writer"] == format!("process {}", std::process::id()));
    common::soon("its word", || look()["process"] == std::process::id());
    opened.close().unwrap();
    common::soon("the end", || look()["state"] == "closed");
    drop(top);
}

#[test]
fn it_ends_as_one_expects() {
    let dir = dir();
    let said = run(&["top", dir.str()]).status(1);
    assert!(said.err.contains("there is no log"), "{}", said.err);
    run(&["top", dir.str(), "--interval", "1ms"]).status(1);
    run_with(&["append", dir.str()], b"one\n").status(0);
    for signal in ["-INT", "-TERM"] {
        let mut top = start(&["top", dir.str(), "--interval", "100ms"]);
        let mut lines = BufReader::new(top.0.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("log"));
        let killed = std::process::Command::new("kill").args([signal, &top.0.id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert!(lines.all(|line| !line.unwrap().contains('\x1b')));
        assert_eq!(top.0.wait().unwrap().code(), Some(0), "{signal}");
    }
    // The reader of the output closes it.
    let mut top = start(&["top", dir.str(), "--interval", "100ms"]);
    let mut first = String::new();
    BufReader::new(top.0.stdout.take().unwrap()).read_line(&mut first).unwrap();
    common::soon("the end", || top.0.try_wait().unwrap().is_some());
    assert_eq!(top.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_is_drawn_anew() {
    let dir = dir();
    run_with(&["append", dir.str()], b"one\n").status(0);
    let mut command = foreword();
    command.args(["top", dir.str(), "--interval", "100ms"]);
    let shown = on_terminal(command, |shown| shown.matches("\x1b[H\x1b[J").count() >= 3);
    let frames: Vec<&str> = shown.split("\x1b[H\x1b[J").filter(|frame| frame.contains("no process has the log open")).collect();
    assert!(frames.len() >= 2, "{shown:?}");
}

#[test]
fn words_are_whole_on_a_narrow_terminal() {
    let dir = dir();
    run_with(&["append", dir.str()], b"one\n").status(0);
    let shown = |columns| {
        let mut command = foreword();
        command.args(["top", dir.str(), "--once", "--color", "never"]);
        common::on_terminal_of(columns, command, |_| false).replace("\r\n", "\n")
    };
    let (wide, narrow) = (shown(0), shown(50));
    // The path alone is a word that may be longer.
    let long = |line: &&str| line.chars().count() > 50 && !line.contains(dir.str());
    assert!(wide.lines().any(|line| long(&line)), "{wide}");
    assert_eq!(narrow.lines().find(long), None, "{narrow}");
    assert!(wide.split_whitespace().eq(narrow.split_whitespace()), "{wide}\n{narrow}");
}

/// Damage is a verdict here, and with `--once` the exit status.
#[test]
fn a_damaged_log_is_shown() {
    let dir = dir();
    run_with(&["append", dir.str(), "--segment-size", "64K"], lsns(1..=20_000).as_bytes()).status(0);
    dir.flip(1, 100);
    let look = run(&["top", dir.str(), "--once", "--json"]).status(3).json();
    assert_eq!((&look["state"], &look["verdict"]), (&"closed".into(), &"corruption".into()));
}

/// As docs/FORMAT.md describes it.
fn crc(text: &str) -> u32 {
    !text.bytes().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ ((crc & 1) * 0x82f6_3b78)))
}

/// Says how the log is doing, as its writer would.
fn say(dir: &Dir, open_nanos: u64, unix_millis: u128, more: &str) {
    let (process, file) = (std::process::id(), dir.path().join("STATS"));
    let text = format!("foreword stats 1\nprocess {process}\nopen_nanos {open_nanos}\nunix_millis {unix_millis}\n{more}");
    fs::write(file, format!("{text}crc {:08x}\n", crc(&text))).unwrap();
}

fn now_millis() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

/// What a writer says when all is not well.
#[test]
fn a_log_in_trouble_says_so() {
    assert_eq!(crc("123456789"), 0xe306_9283);
    let dir = dir();
    let log = options().publish(false).open(dir.path()).unwrap();
    let now = now_millis();
    let write = |open_nanos, unix_millis, more: &str| say(&dir, open_nanos, unix_millis, more);
    let seen = || (once(&dir), run(&["top", dir.str(), "--once"]).status(0).text().to_owned());
    let says = |unix_millis, more| {
        write(9, unix_millis, more);
        seen()
    };
    // It says so again and again.
    let stop = AtomicBool::new(false);
    let (look, text) = std::thread::scope(|scope| {
        scope.spawn(|| {
            for second in 1.. {
                write(
                    second * 1_000_000_000,
                    now,
                    "flushes_under_way 2\noldest_flush_nanos 1500000000\nappended_lsn 9\ndurable_lsn 4\n",
                );
                if stop.load(SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let _stop = Stop(&stop);
        common::soon("its word", || dir.path().join("STATS").exists());
        seen()
    });
    assert_eq!((&look["state"], &look["oldest_flush_seconds"]), (&"stalled".into(), &1.5.into()), "{look}");
    for part in ["STALLED: the disk does not answer", "5 records are not durable yet; 2 flushes under way, the oldest for 1.5 s"]
    {
        assert!(text.contains(part), "{text}");
    }
    let (look, text) = says(now - 60_000, "flushes_under_way 1\noldest_flush_nanos 1000\n");
    assert_eq!(look["state"], "silent");
    assert!(text.contains("SILENT: no figures for 1 min") && text.contains("by its clock"), "{text}");
    assert!(!text.contains("differ"), "{text}");
    let (look, text) = says(now, "segments 2\nsegments_prepared 1\nsegments_dropped 3\n");
    assert_eq!(look["segments_dropped"], 3);
    assert!(text.contains("2 and 1 prepared, 3 dropped and still there"), "{text}");
    let (look, text) = says(now - 60_000, "failure cannot write the segment\\n(no disk)\n");
    assert_eq!((&look["state"], &look["failure"]), (&"failed".into(), &"cannot write the segment\n(no disk)".into()));
    assert!(text.contains("FAILED: cannot write the segment"), "{text}");
    log.close().unwrap();
}

/// As where the clock of this machine is set ahead, or back, while the log is open.
#[test]
fn clocks_that_disagree_are_told_of_and_decide_nothing() {
    const YEARS: u128 = 1095 * 86_400_000;
    let dir = dir();
    let log = options().publish(false).open(dir.path()).unwrap();
    let looks = || (once(&dir), run(&["top", dir.str(), "--once"]).status(0).text().to_owned());
    let apart = |look: &Value| look["clocks_apart_seconds"].as_f64().unwrap_or_else(|| panic!("{look}"));
    // At rest: nothing tells for how long, but it was not before the machine was started.
    say(&dir, 9, now_millis() - YEARS, "flushes_under_way 0\n");
    let (look, text) = looks();
    assert_eq!(look["state"], "idle", "{look}");
    assert!(look["age_seconds"].as_f64().unwrap() < 60.0 && apart(&look) > 8e7, "{look}");
    assert!(!text.contains("idle for 109") && text.contains("differ by 109") && text.contains("idle for 2."), "{text}");
    say(&dir, 9, now_millis() + YEARS, "flushes_under_way 0\n");
    let (look, text) = looks();
    assert_eq!(look["state"], "idle", "{look}");
    assert!(apart(&look) > 9e7 && text.contains("differ by 1094 days 23 h"), "{text}");
    // At work: what comes between two looks is not an hour old, whatever it says.
    for wrong in [-3_600_000, 3_600_000] {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for tick in 1.. {
                    let millis = (now_millis() as i128 + wrong) as u128;
                    say(
                        &dir,
                        tick * 300_000_000,
                        millis,
                        &format!("records {tick}\nflushes_under_way 1\noldest_flush_nanos 1000\n"),
                    );
                    if stop.load(SeqCst) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(300));
                }
            });
            let _stop = Stop(&stop);
            std::thread::sleep(Duration::from_millis(400));
            let (look, text) = looks();
            assert_eq!(look["state"], "running", "{look}");
            assert!((3500.0..3700.0).contains(&apart(&look)), "{look}");
            assert!(text.contains("differ by 59 min") || text.contains("differ by 1 h"), "{text}");
        });
    }
    log.close().unwrap();
}

#[test]
fn a_hold_is_named_to_its_last_character() {
    let dir = dir();
    let log = options().open(dir.path()).unwrap();
    log.hold("archiver\r", Lsn(1)).unwrap();
    log.commit(b"one").unwrap();
    said(&log);
    let names = || once(&dir)["holds"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    common::soon("the hold", || !names().is_empty());
    assert_eq!(names(), ["archiver\r"]);
    log.close().unwrap();
}

#[test]
fn a_hold_that_is_lost_keeps_nothing() {
    let dir = dir();
    let log = options().open(dir.path()).unwrap();
    log.commit(b"one").unwrap();
    log.hold_up_to("slow", Lsn(1), foreword::Limit::bytes(1 << 10)).unwrap();
    for _ in 0..200 {
        log.commit(&[7; 4 << 10]).unwrap();
    }
    log.truncate_front(log.last_lsn()).unwrap();
    assert!(log.start_lsn() > Lsn(1));
    log.close().unwrap();
    let look = once(&dir);
    assert_eq!((&look["holds"]["slow"], &look["lost_holds"]), (&1.into(), &serde_json::json!(["slow"])));
    let shown = String::from_utf8(run(&["top", dir.str(), "--once"]).status(0).out.clone()).unwrap();
    assert!(shown.contains("`slow` was to keep LSN 1 and later: lost"), "{shown}");
}

/// A terminal of its own, for what is typed and what is shown.
fn terminal() -> (fs::File, fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    (fs::File::from(master), fs::File::from(rustix::fs::open(name, slave, rustix::fs::Mode::empty()).unwrap()))
}

#[test]
fn keys_end_it_and_the_terminal_is_as_before() {
    use std::io::Read;
    let dir = dir();
    run_with(&["append", dir.str()], b"one\n").status(0);
    for (key, ends) in [("q", true), ("\x1b", true), ("\x03", true), ("\x1c", true), ("\x1b[A", false), ("x", false)] {
        let (mut master, slave) = terminal();
        let modes = || rustix::termios::tcgetattr(&slave).unwrap().local_modes;
        let before = modes();
        // In a session of its own, whose terminal this is: only so Ctrl-C is a signal.
        let mut command = std::process::Command::new("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_foreword"), "top", dir.str(), "--interval", "60m"]);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(std::process::Stdio::null());
        let mut top = common::Running(command.spawn().unwrap());
        drop(command);
        let (mut shown, mut some) = (String::new(), [0; 4096]);
        while !shown.contains("records") {
            let n = master.read(&mut some).unwrap();
            shown.push_str(&String::from_utf8_lossy(&some[..n]));
        }
        // A key counts at once, not with the line that it is in.
        common::soon("the keys", || !modes().contains(rustix::termios::LocalModes::ICANON));
        master.write_all(key.as_bytes()).unwrap();
        if ends {
            common::soon("the end", || top.0.try_wait().unwrap().is_some());
            assert_eq!(top.0.wait().unwrap().code(), Some(0), "{key:?}");
            assert_eq!(modes(), before, "{key:?}");
        } else {
            std::thread::sleep(Duration::from_millis(300));
            assert!(top.0.try_wait().unwrap().is_none(), "{key:?}");
        }
    }
}

/// The writer does not know it yet, but whoever looks may; and then it stops, and says why.
#[test]
fn a_writer_whose_lock_is_gone_is_shown() {
    let dir = dir();
    let log = options().open(dir.path()).unwrap();
    log.commit(b"one").unwrap();
    said(&log);
    let shows = |gone: bool| {
        let look = once(&dir);
        assert_eq!(look["lock_gone"], gone, "{look}");
        look
    };
    shows(false);
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    assert_ne!(shows(true)["state"], "failed");
    let text = run(&["top", dir.str(), "--once"]).status(0);
    assert!(text.text().contains("LOCK        was removed or replaced under the writer"), "{text:?}");
    // A process that tries to be the second writer makes another LOCK.
    assert!(matches!(options().open(dir.path()), Err(foreword::Error::Locked { .. })));
    shows(true);
    assert!(log.commit(b"two").is_err());
    common::soon("that it failed", || once(&dir)["state"] == "failed");
    let look = shows(true);
    assert!(look["failure"].as_str().unwrap().contains("LOCK was removed or replaced"), "{look}");
    drop(log);
    shows(false);
}
