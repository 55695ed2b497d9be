//! Records go in and come out: every format, byte for byte, with the right exit status.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};

use crate::common;
use crate::common::{dir, lsns, run, run_with, soon, start};

/// Lines of all lengths, with bytes that are no UTF-8, empty ones, and one longer than a frame.
fn lines(n: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for i in 0..n {
        text.extend((0..i * 37 % 300).map(|k| match (i * 31 + k * 7) as u8 {
            b'\n' => b' ',
            byte => byte,
        }));
        text.push(b'\n');
    }
    text.extend(vec![b'x'; 400_000]);
    text.push(b'\n');
    text
}

#[test]
fn lines_come_back_byte_for_byte() {
    let dir = dir();
    let text = lines(3000);
    let said = run_with(&["append", dir.str(), "--segment-size", "256K"], &text).status(0);
    assert_eq!(said.text(), lsns(1..=3001));
    assert_eq!(run(&["cat", dir.str()]).status(0).out, text);
    // More of it, into segments of the size that the log has.
    assert_eq!(run_with(&["append", dir.str()], b"a\n\nlast, without a newline").status(0).text(), lsns(3002..=3004));
    assert_eq!(run(&["cat", dir.str(), "--from", "3002"]).status(0).text(), "a\n\nlast, without a newline\n");
    assert_eq!(run(&["cat", dir.str(), "--from", "3002", "--to", "3003"]).status(0).text(), "a\n\n");
    assert_eq!(run(&["cat", dir.str(), "--from", "3005"]).status(0).text(), "");
    let size = |epoch| fs::metadata(dir.segment(epoch)).unwrap().len();
    assert_eq!((size(1), size(3)), (256 << 10, 256 << 10));
    run(&["verify", dir.str()]).status(0);
}

#[test]
fn every_format_of_cat_is_one_of_append() {
    let (first, text) = (dir(), lines(500));
    run_with(&["append", first.str(), "--quiet"], &text).status(0);
    for format in ["text", "json", "hex", "length-prefixed"] {
        let copy = dir();
        let out = run(&["cat", first.str(), "--format", format]).status(0).out;
        let format = if format == "text" { "lines" } else { format };
        let summary = run_with(&["append", copy.str(), "--format", format, "--json"], &out).status(0).json();
        assert_eq!(summary["records"], 501, "{format}");
        assert_eq!(summary["last_lsn"], 501);
        assert_eq!(run(&["cat", copy.str()]).out, text, "{format}");
    }
}

#[test]
fn formats_look_as_documented() {
    let dir = dir();
    run_with(&["append", dir.str(), "--format", "json"], b"\"a\\\"\\u00e9\"\n{\"hex\":\"00ff0a\"}\n{\"data\":\"\",\"more\":1}")
        .status(0);
    let json = run(&["cat", dir.str(), "--format", "json"]);
    let without_time: String = json
        .text()
        .lines()
        .map(|line| {
            let (before, rest) = line.split_once("\"time\":\"").unwrap();
            let (time, after) = rest.split_once("\",").unwrap();
            assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 27, "{time}");
            format!("{before}{after}\n")
        })
        .collect();
    let expected = "{\"lsn\":1,\"data\":\"a\\\"é\"}\n{\"lsn\":2,\"hex\":\"00ff0a\"}\n{\"lsn\":3,\"data\":\"\"}\n";
    assert_eq!(without_time, expected);
    assert_eq!(run(&["cat", dir.str(), "--format", "hex"]).text(), "6122c3a9\n00ff0a\n\n");
    assert_eq!(run(&["cat", dir.str(), "--format", "length-prefixed"]).out, b"\x04\0\0\0a\"\xc3\xa9\x03\0\0\0\0\xff\n\0\0\0\0");
}

#[test]
fn a_malformed_record_is_named_and_what_came_before_it_is_kept() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("hex", b"00\nff\nxy\n00\n", "line 3 of the input: `x` is no hex digit"),
        ("json", b"\"a\"\n\"b\"\nb\n\"c\"\n", "line 3 of the input: not JSON"),
        (
            "length-prefixed",
            b"\x01\0\0\0a\x01\0\0\0b\x05\0\0\0abc",
            "record 3 of the input: the input ends after 3 of its 5 bytes",
        ),
        ("length-prefixed", b"\x01\0\0\0a\x01\0\0\0b\xff\xff\xff\xff", "record 3 of the input: longer than 100 bytes"),
        ("lines", &[b"a\nb\n".to_vec(), vec![b'x'; 101]].concat(), "line 3 of the input: longer than 100 bytes"),
    ];
    for (format, input, error) in cases {
        let dir = dir();
        let said = run_with(&["append", dir.str(), "--format", format, "--max-record", "100"], input).status(1);
        assert_eq!(said.text(), lsns(1..=2));
        assert!(said.err.contains(error), "{}", said.err);
        run(&["verify", dir.str()]).status(0);
        assert_eq!(run(&["cat", dir.str(), "--format", "hex"]).text().lines().count(), 2);
    }
}

#[test]
fn lsns_come_as_soon_as_they_are_durable_while_the_input_stays_open() {
    for sync in ["always", "interval=1ms", "interval", "none"] {
        let dir = dir();
        let mut append = start(&["append", dir.str(), "--sync", sync]);
        let mut input = append.0.stdin.take().unwrap();
        let mut printed = BufReader::new(append.0.stdout.take().unwrap()).lines();
        for i in 1..=20 {
            // A part of the next record is there already: nothing waits for its rest.
            input.write_all(format!(" of record {i}\nbegin").as_bytes()).unwrap();
            assert_eq!(printed.next().unwrap().unwrap(), i.to_string(), "{sync}");
        }
        if sync != "none" {
            // What was acknowledged is seen by a reader, while the writer has the log open. (It is
            // told a moment later what is durable.)
            soon("the record", || run(&["cat", dir.str()]).status(0).text().lines().count() == 20);
        }
        drop(input);
        assert_eq!(printed.next().unwrap().unwrap(), "21");
        assert!(append.0.wait().unwrap().success());
        assert_eq!(run(&["cat", dir.str(), "--from", "21"]).text(), "begin\n");
    }
}

#[test]
fn what_is_there_at_once_is_one_group() {
    let dir = dir();
    let summary = run_with(&["append", dir.str(), "--json"], lsns(1..=5000).as_bytes()).status(0).json();
    assert_eq!(summary["records"], 5000);
    assert_eq!(summary["bytes"], lsns(1..=5000).len() - 5000);
    assert_eq!((&summary["first_lsn"], &summary["last_lsn"]), (&1.into(), &5000.into()));
    let flushes = summary["flushes"].as_u64().unwrap();
    assert!((1..=20).contains(&flushes), "24 KB come in one or a few reads: {flushes}");
    let said = run_with(&["append", dir.str(), "--quiet"], b"one\n").status(0);
    assert!(said.out.is_empty() && said.err.contains("records 1: LSN 5001"), "{said:?}");
}

#[cfg(unix)]
#[test]
fn a_killed_append_keeps_what_it_acknowledged() {
    for round in 0..4 {
        let dir = dir();
        let mut append = start(&["append", dir.str(), "--segment-size", "1M"]);
        let mut input = append.0.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            let mut fed = 0;
            while input.write_all(format!("record {}\n", fed + 1).as_bytes()).is_ok() {
                fed += 1;
            }
        });
        let mut printed = BufReader::new(append.0.stdout.take().unwrap());
        let mut lines = String::new();
        for _ in 0..500 + 2000 * round {
            assert!(printed.read_line(&mut lines).unwrap() > 0);
        }
        append.0.kill().unwrap();
        append.0.wait().unwrap();
        feeder.join().unwrap();
        printed.read_to_string(&mut lines).unwrap();
        let acknowledged = lines.lines().count() - usize::from(!lines.ends_with('\n'));
        assert!(lsns(1..=acknowledged as u64 + 1).starts_with(&lines), "in order");
        let before = run(&["cat", dir.str()]).status(0);
        for (i, line) in before.text().lines().enumerate() {
            assert_eq!(line, format!("record {}", i + 1));
        }
        let kept = before.text().lines().count();
        assert!(kept >= acknowledged, "{kept} of {acknowledged}");
        // Reading has changed nothing; going on keeps all that reading showed.
        assert_eq!(run_with(&["append", dir.str()], b"more\n").status(0).text(), format!("{}\n", kept + 1));
        assert_eq!(run(&["cat", dir.str()]).text(), format!("{}more\n", before.text()));
        run(&["verify", dir.str()]).status(0);
    }
}

#[test]
fn follow_shows_what_another_process_appends() {
    let dir = dir();
    run_with(&["append", dir.str(), "--segment-size", "64K"], b"1\n").status(0);
    let mut follower = start(&["cat", dir.str(), "--follow"]);
    let mut shown = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    assert_eq!(shown.next().unwrap().unwrap(), "1");
    let mut last = 1;
    for _ in 0..3 {
        // Each time another writer, over several segments.
        let mut append = start(&["append", dir.str(), "--quiet"]);
        let mut input = append.0.stdin.take().unwrap();
        for size in [1, 10, 3000] {
            let text: String = (last + 1..=last + size).map(|i| format!("{i}\n")).collect();
            input.write_all(text.as_bytes()).unwrap();
            for _ in 0..size {
                last += 1;
                assert_eq!(shown.next().unwrap().unwrap(), last.to_string());
            }
        }
        drop(input);
        assert!(append.0.wait().unwrap().success());
    }
    // A follower with an end ends there.
    let (from, to) = (last.to_string(), (last + 1).to_string());
    let follower = start(&["cat", dir.str(), "--follow", "--from", &from, "--to", &to]);
    run_with(&["append", dir.str()], b"last\nand more\n").status(0);
    let mut follower = follower;
    soon("the end", || follower.0.try_wait().unwrap().is_some());
    let mut text = String::new();
    follower.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{last}\nlast\n"));
}

#[test]
fn a_closed_output_ends_cat_quietly_and_does_not_stop_append() {
    let dir = dir();
    let text = lsns(1..=100_000);
    let mut append = start(&["append", dir.str()]);
    let mut input = append.0.stdin.take().unwrap();
    drop(append.0.stdout.take());
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let mut err = String::new();
    append.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((append.0.wait().unwrap().code(), err.as_str()), (Some(0), ""));
    for format in ["text", "json", "hex", "length-prefixed"] {
        let mut cat = start(&["cat", dir.str(), "--format", format]);
        let mut some = [0; 100];
        cat.0.stdout.take().unwrap().read_exact(&mut some).unwrap();
        let mut err = String::new();
        cat.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((cat.0.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{format}");
    }
    let mut dump = start(&["dump", dir.str()]);
    drop(dump.0.stdout.take());
    assert_eq!(dump.0.wait().unwrap().code(), Some(0));
    assert_eq!(run(&["cat", dir.str()]).text(), text);
}

#[test]
fn a_second_writer_is_told_who_holds_the_log() {
    let dir = dir();
    let mut first = start(&["append", dir.str()]);
    let mut input = first.0.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    let mut line = String::new();
    BufReader::new(first.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said = run_with(&["append", dir.str()], b"two\n").status(1);
    assert!(said.err.contains(&format!("process {}", first.0.id())), "{}", said.err);
    run(&["truncate", dir.str(), "--before", "1"]).status(1);
    run(&["verify", dir.str()]).status(0);
    let stat = run(&["stat", dir.str(), "--json"]).status(0).json();
    assert_eq!((&stat["writer"], &stat["verdict"]), (&true.into(), &"in-use".into()));
}

#[test]
fn usage_and_missing_directories_are_status_1() {
    let dir = dir();
    for args in [
        &["cat"][..],
        &["frobnicate"],
        &["append", "x", "--format", "xml"],
        &["truncate", dir.str()],
        &["cat", dir.str(), "--from", "0"],
    ] {
        let said = run(args).status(1);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{args:?}");
    }
    for args in [["cat"], ["verify"], ["repair"], ["stat"], ["dump"]] {
        let said = run(&[args[0], dir.str()]).status(1);
        assert!(said.err.contains("there is no log"), "{}", said.err);
    }
    run(&["truncate", dir.str(), "--before", "1"]).status(1);
    assert!(!dir.path().exists(), "and nothing was made");
    let said = run_with(&["append", dir.str(), "--segment-size", "1"], b"").status(1);
    assert!(said.err.contains("segment_bytes"), "{}", said.err);
    for wrong in [["--sync", "never"], ["--sync", "interval=1"], ["--segment-size", "1X"]] {
        run(&["append", dir.str(), wrong[0], wrong[1]]).status(1);
    }
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    run(&["--help"]).status(0);
    run(&["--version"]).status(0);
    for name in ["append", "cat", "verify", "repair", "stat", "truncate", "dump", "demo"] {
        let help = run(&[name, "--help"]).status(0);
        let example = help.text().split("Example").nth(1).unwrap_or_else(|| panic!("{name}: {help:?}"));
        assert!(
            example.contains(&format!("foreword {name} ")) || name == "demo" && example.contains("foreword demo"),
            "{example}"
        );
    }
}

/// The background comes upon it first, then the call that waits.
#[test]
fn an_error_is_said_once() {
    for _ in 0..3 {
        let dir = dir();
        let mut append = start(&["append", dir.str(), "--sync", "interval=10ms"]);
        let mut input = append.0.stdin.take().unwrap();
        input.write_all(b"one\n").unwrap();
        let mut acknowledged = [0; 2];
        append.0.stdout.as_mut().unwrap().read_exact(&mut acknowledged).unwrap();
        fs::remove_file(dir.path().join("LOCK")).unwrap();
        input.write_all(b"two\n").unwrap();
        let mut said = String::new();
        append.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((said.lines().count(), append.0.wait().unwrap().code()), (1, Some(1)), "{said}");
        assert!(said.contains("is not this process's to use"), "{said}");
    }
}

#[test]
fn a_summary_shows_the_rate_of_a_small_input() {
    let dir = dir();
    let said = run_with(&["append", dir.str(), "--quiet"], b"one\ntwo\n").status(0);
    assert!(said.out.is_empty() && said.err.contains("appended 6 B (records 2: LSN 1 to 2)"), "{said:?}");
    assert!(said.err.contains("B/s, ") && !said.err.contains(": 0"), "{said:?}");
}

#[test]
fn a_day_is_a_moment() {
    let dir = dir();
    run_with(&["append", dir.str()], b"one\n").status(0);
    assert_eq!(run(&["cat", dir.str(), "--since", "2026-01-01"]).status(0).text(), "one\n");
    assert_eq!(run(&["cat", dir.str(), "--until", "2026-01-01"]).status(0).text(), "");
}

/// Runs without the right to write, even where the tests run as root.
#[cfg(unix)]
#[test]
fn a_read_only_directory_can_be_read_and_refuses_a_writer() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let log_str = log.to_str().unwrap();
    run_with(&["append", log_str], b"one\n").status(0);
    fs::set_permissions(&log, fs::Permissions::from_mode(0o555)).unwrap();
    for entry in fs::read_dir(&log).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o444)).unwrap();
    }
    let run = |args: &[&str]| common::Said::from(common::unprivileged(place.path()).args(args).output().unwrap());
    assert_eq!(run(&["cat", log_str]).status(0).text(), "one\n");
    for reads in [["verify"], ["stat"], ["dump"]] {
        run(&[reads[0], log_str]).status(0);
    }
    let said = run(&["append", log_str]).status(1);
    assert!(said.err.contains("LOCK"), "{}", said.err);
    let said = run(&["append", log.join("sub").to_str().unwrap()]).status(1);
    assert!(said.err.contains("create the directory"), "{}", said.err);
    fs::set_permissions(&log, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Peak memory does not grow with the input, nor with the length of what is no record.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded_whatever_the_input() {
    let dir = dir();
    let mut append = start(&["append", dir.str(), "--quiet", "--max-record", "16M"]);
    let mut input = append.0.stdin.take().unwrap();
    let status = format!("/proc/{}/status", append.0.id());
    let peak = || -> u64 {
        let text = fs::read_to_string(&status).unwrap();
        let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..4 {
        (0..16).for_each(|_| input.write_all(&piece[1..]).unwrap());
        input.write_all(b"\n").unwrap();
    }
    (0..4).for_each(|_| input.write_all(lsns(1..=100_000).as_bytes()).unwrap());
    let before = peak();
    assert!(before < 64 << 10, "{before} KiB with records of 16 MiB");
    // A line without end is refused when it is too long, and not gathered.
    let refused = (0..64).try_for_each(|_| input.write_all(&piece));
    assert!(refused.is_err(), "the command ended before it read 64 MiB of a line");
    drop(input);
    assert_eq!(append.0.wait().unwrap().code(), Some(1));
    assert_eq!(run(&["stat", dir.str(), "--json"]).json()["last_lsn"], 400_004);
}

/// Waiting at the end of a log without a writer costs next to nothing, closed or killed.
#[cfg(target_os = "linux")]
#[test]
fn following_a_quiet_log_does_not_spin() {
    use std::time::{Duration, Instant};
    let dir = dir();
    let mut append = start(&["append", dir.str()]);
    let mut input = append.0.stdin.take().unwrap();
    // The second proves the first, which is all that is shown once its writer is dead.
    let mut lines = BufReader::new(append.0.stdout.take().unwrap()).lines();
    for record in ["one\n", "two\n"] {
        input.write_all(record.as_bytes()).unwrap();
        lines.next().unwrap().unwrap();
    }
    append.0.kill().unwrap();
    append.0.wait().unwrap();
    let mut follower = common::foreword().args(["cat", dir.str(), "--follow"]).spawn().map(common::Running).unwrap();
    let mut shown = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    assert_eq!(shown.next().unwrap().unwrap(), "one");
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", follower.0.id())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let (before, started) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let share = (ticks() - before) as f64 / 100.0 / started.elapsed().as_secs_f64();
    assert!(share < 0.15, "{:.0} % of a processor", share * 100.0);
}

#[test]
fn a_range_that_ends_before_it_begins_is_an_error() {
    let dir = dir();
    run_with(&["append", dir.str()], lsns(1..=9).as_bytes()).status(0);
    let said = run(&["cat", dir.str(), "--from", "5", "--to", "3"]).status(1);
    assert!(said.err.contains("--from 5 is behind --to 3"), "{}", said.err);
    assert_eq!(run(&["cat", dir.str(), "--from", "5", "--to", "5"]).status(0).text(), "5\n");
}

/// A signal is the end of the input; the rest is as ever.
#[cfg(unix)]
#[test]
fn a_signal_ends_the_input_and_closes_the_log() {
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        for how in [&["--sync", "always"][..], &["--sync", "interval=60s"], &["--sync", "none"], &["--quiet"], &["--json"]] {
            let what = format!("{signal} {how:?}");
            let dir = dir();
            let mut append = start(&[&["append", dir.str()], how].concat());
            let mut input = append.0.stdin.take().unwrap();
            // (It listens before it opens the log.)
            soon("the log", || dir.path().join("LOG").exists());
            input.write_all(b"one\ntwo\nnot the whole li").unwrap();
            // Printed or not, it has read it.
            soon("that it is read", || unread(&input) == 0);
            assert!(std::process::Command::new("kill").args([signal, &append.0.id().to_string()]).status().unwrap().success());
            soon("its end", || append.0.try_wait().unwrap().is_some());
            assert_eq!(append.0.wait().unwrap().code(), Some(status), "{what}");
            let (mut out, mut err) = (String::new(), String::new());
            append.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            append.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            match how[0] {
                "--quiet" => assert!(err.contains("records 2: LSN 1 to 2"), "{what}: {err}"),
                "--json" => assert!(out.contains("\"last_lsn\":2"), "{what}: {out}"),
                _ => assert_eq!(out, "1\n2\n", "{what}"),
            }
            assert_eq!(run(&["verify", dir.str(), "--json"]).status(0).json()["verdict"], "clean", "{what}");
            assert_eq!(run(&["cat", dir.str()]).status(0).text(), "one\ntwo\n", "{what}");
        }
    }
}

/// What is in a pipe.
#[cfg(unix)]
fn unread(pipe: &std::process::ChildStdin) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap()
}

#[test]
fn records_are_found_by_when_they_were_written() {
    let dir = dir();
    run_with(&["append", dir.str()], b"one\ntwo\n").status(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    run_with(&["append", dir.str()], b"three\n").status(0);
    let cat = |args: &[&str]| run(&[&["cat", dir.str()], args].concat());
    assert_eq!(cat(&["--since", "10m"]).status(0).text(), "one\ntwo\nthree\n");
    assert_eq!(cat(&["--since", "1970-01-01T00:00:00Z"]).status(0).text(), "one\ntwo\nthree\n");
    assert_eq!(cat(&["--since", "0s"]).status(0).text(), "");
    assert_eq!(cat(&["--until", "10m"]).status(0).text(), "");
    let json = cat(&["--format", "json", "--from", "3"]).status(0).text().to_owned();
    let third: serde_json::Value = serde_json::from_str(&json).unwrap();
    let time = third["time"].as_str().unwrap();
    assert_eq!(cat(&["--since", time]).status(0).text(), "three\n");
    assert_eq!(cat(&["--until", time]).status(0).text(), "one\ntwo\n");
    cat(&["--since", "yesterday"]).status(1);
    cat(&["--since", "10m", "--from", "1"]).status(1);
}
