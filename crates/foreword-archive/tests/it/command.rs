//! The command, as a user runs it.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use foreword::Lsn;

use crate::support::*;

fn command(place: &Place, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foreword-archive"));
    command.args(line.split_whitespace()).current_dir(place.tmp.path());
    command
}

fn output(place: &Place, line: &str) -> Output {
    command(place, line).output().unwrap()
}

/// Its standard output; its exit status is as expected.
pub fn said(place: &Place, line: &str, status: i32) -> String {
    let output = output(place, line);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{line}\n{out}\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    if status == 0 { out.into_owned() } else { err.into_owned() + &out }
}

struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn spawn(place: &Place, line: &str) -> Kept {
    Kept(command(place, line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[test]
fn pushed_looked_at_and_restored() {
    let place = Place::new();
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 1..100, 1_000);
    log.close().unwrap();
    let missing = said(&place, "push log bucket", 1);
    assert!(missing.contains("--create") && !place.path("bucket").exists(), "{missing}");
    // A mistyped directory is not made.
    assert!(said(&place, "doctor bucket", 1).contains("no such directory") && !place.path("bucket").exists());
    let pushed = said(&place, "push log bucket --create --chunk 64K", 0);
    assert!(pushed.contains("archived up to 99 (99 new records), timeline 1"), "{pushed}");
    assert!(said(&place, "push log bucket", 0).contains("(0 new records)"));
    let status = said(&place, "status bucket log", 0);
    assert!(status.contains("1 to 99") && status.contains("0 records behind"), "{status}");
    let json: serde_json::Value = serde_json::from_str(&said(&place, "status bucket log --json", 0)).unwrap();
    assert_eq!((json["timelines"][0]["last"].as_u64(), json["log"]["behind_records"].as_u64()), (Some(99), Some(0)));
    assert!(said(&place, "cat bucket --from 98", 0).starts_with("record 98 "));
    assert!(said(&place, "verify bucket --plan", 0).contains("all sound"));
    assert!(said(&place, "check bucket", 0).contains("came back"));
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(said(&place, line, 0).lines().last().unwrap()).unwrap();
    assert_eq!(json("check bucket --json")["came_back"], true);
    let plan = said(&place, "restore bucket restored --to-lsn 50 --plan", 0);
    assert!(plan.contains("records 1 to 50") && !place.path("restored").exists(), "{plan}");
    said(&place, "restore bucket restored --to-lsn 50 --segment-size 64K", 0);
    assert_eq!(records(&place.path("restored")).len(), 50);
    assert!(said(&place, "restore bucket restored", 1).contains("not empty"));
    assert!(said(&place, "restore bucket other --to-lsn 500", 3).contains("records 1 to 99"));
    assert!(said(&place, "restore nothing other", 1).contains("no such directory"));
    // It goes on in a timeline of its own.
    small().open(place.path("restored")).unwrap().commit(b"gone on").unwrap();
    assert!(said(&place, "push restored bucket", 0).contains("timeline 2"));
    let other = small().open(place.path("another")).unwrap();
    other.commit(b"another log").unwrap();
    other.close().unwrap();
    assert!(said(&place, "push another bucket", 2).contains("another log"));
    assert!(said(&place, "expire bucket", 1).contains("--window"));
    assert!(said(&place, "expire bucket --from 40", 0).contains("would remove"));
    let expirable = json("expire bucket --chunks 1 --json");
    assert!(expirable["applied"] == false && expirable["manifests"] == 0 && expirable["leftovers"] == 0, "{expirable}");
    let followed = json("follow bucket standby --once --json --segment-size 64K");
    assert!(followed["event"] == "done" && followed["lsn"] == 51, "{followed}");
    let promoted = json("promote bucket standby --json");
    assert!(promoted["event"] == "promoted" && promoted["lsn"] == 51, "{promoted}");
    assert!(said(&place, "doctor bucket --races 3 --racers 4", 0).contains("on the list"));
}

#[test]
fn a_damaged_archive_is_said_and_its_keys_are_asked_for() {
    let place = Place::new();
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 1..20, 100);
    log.close().unwrap();
    let key = said(&place, "keygen", 0);
    std::fs::write(place.path("key"), &key).unwrap();
    said(&place, "push log bucket --create --key-file key", 0);
    assert!(said(&place, "cat bucket", 1).contains("--key-file"));
    said(&place, "cat bucket --key-file key", 0);
    let by_command = command(&place, "cat bucket --key-command").arg("cat key").output().unwrap();
    assert!(by_command.status.success());
    let by_env = command(&place, "cat bucket --key-env THE_KEY").env("THE_KEY", &key).output().unwrap();
    assert!(by_env.status.success());
    let chunk = std::fs::read_dir(place.path("bucket/chunk/0000000001")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&chunk).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&chunk, bytes).unwrap();
    let name = chunk.file_name().unwrap().to_str().unwrap();
    for line in ["verify bucket --key-file key", "restore bucket restored --key-file key", "cat bucket --key-file key"] {
        let said = said(&place, line, 3);
        assert!(said.contains(name), "{line}: {said}");
    }
    assert!(!place.path("restored").exists());
}

/// What `status` says of a directory is what `push` would do with it, and changes nothing.
#[test]
fn status_tells_a_log_that_is_not_archived_here() {
    let place = Place::new();
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 1..20, 100);
    log.close().unwrap();
    said(&place, "push log bucket --create", 0);
    copy(&place.log(), &place.path("copy"));
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 20..30, 100);
    log.close().unwrap();
    let of = |dir: &str, status: i32| {
        let said = said(&place, &format!("status bucket {dir} --json"), status);
        serde_json::from_str::<serde_json::Value>(said.lines().last().unwrap()).unwrap()["log"].clone()
    };
    let behind = of("log", 0);
    assert!(behind["archived"] == 19 && behind["behind_records"] == 10 && behind["refused"].is_null(), "{behind}");
    said(&place, "push log bucket", 0);
    assert_eq!(of("log", 0)["behind_records"], 0);
    // An older copy, one that went on differently, a restored log before and behind what it has of
    // its own, and another log.
    assert!(of("copy", 2)["refused"].as_str().unwrap().contains("up to 29"));
    let log = small().open(place.path("copy")).unwrap();
    commit_each(&log, 500..515, 100);
    log.close().unwrap();
    let differs = of("copy", 2);
    assert!(differs["refused"].as_str().unwrap().contains("differ") && differs["archived"].is_null(), "{differs}");
    said(&place, "restore bucket restored --to-lsn 9 --segment-size 64K", 0);
    assert!(of("restored", 0)["behind_records"] == 0 && of("restored", 0)["archived"] == 9);
    small().open(place.path("restored")).unwrap().commit(b"gone on").unwrap();
    assert_eq!(of("restored", 0)["behind_records"], 1);
    small().open(place.path("another")).unwrap().commit(b"another log").unwrap();
    assert!(of("another", 2)["refused"].as_str().unwrap().contains("of log"));
    let another = said(&place, "status bucket another", 2);
    assert!(another.contains("of log") && another.contains("1 to 29"), "{another}");
    // What was dropped from the log beyond what is archived is not behind.
    assert!(foreword::View::open(place.log()).unwrap().release("archive").unwrap());
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 30..40, 100);
    log.truncate_front(log.last_lsn().next()).unwrap();
    log.close().unwrap();
    assert_eq!(of("log", 0)["behind_records"], 0);
    assert_eq!(said(&place, "status bucket", 0).matches("created").count(), 1, "nothing was begun");
}

#[test]
fn a_standby_keeps_the_size_of_its_segments() {
    let place = Place::new();
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 1..20, 100);
    said(&place, "push log bucket --create", 0);
    assert_eq!(said(&place, "follow bucket standby --once --segment-size 64K", 0), "standby has all up to 19\n");
    commit_each(&log, 20..200, 2_000);
    log.close().unwrap();
    said(&place, "push log bucket", 0);
    said(&place, "follow bucket standby --once", 0);
    said(&place, "promote bucket standby", 0);
    let largest = std::fs::read_dir(place.path("standby")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).max();
    assert_eq!(largest, Some(64 << 10));
    assert_eq!(records(&place.path("standby")).len(), 199);
}

/// What is not there, and arguments that mean nothing.
#[test]
fn an_archive_without_records_and_arguments_without_sense() {
    let place = Place::new();
    drop(small().open(place.log()).unwrap());
    said(&place, "push log bucket --create", 0);
    assert_eq!(said(&place, "cat bucket", 0), "");
    assert!(said(&place, "cat bucket --from 1", 1).contains("the range is empty"));
    for line in ["doctor bucket --racers 1", "doctor bucket --races 0", "verify bucket --sample 0", "verify bucket --sample NaN"]
    {
        said(&place, line, 1);
    }
    assert!(said(&place, "push nothing new --create", 1).contains("nothing"));
    assert!(!place.path("new").exists());
    let log = small().open(place.log()).unwrap();
    commit_each(&log, 1..20, 100);
    log.close().unwrap();
    said(&place, "push log bucket", 0);
    assert!(said(&place, "restore bucket restored --plan --to-time 0s", 0).contains("the newest that is archived is of"));
}

/// It takes what it is asked, and says nothing.
#[cfg(feature = "cloud")]
#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let place = Place::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let began = Instant::now();
    let set = [("AWS_ENDPOINT", &*endpoint), ("AWS_ALLOW_HTTP", "true"), ("AWS_TIMEOUT", "100ms"), ("AWS_REGION", "here")];
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let said = command(&place, "status s3://bucket/log").envs(set).envs(keys).output().unwrap();
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(1) && error.contains("/bucket/log/"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}

#[test]
fn a_name_does_nothing_to_the_terminal() {
    let place = Place::new();
    for line in ["status bucket\u{202e}gpj.\u{1b}[2J", "cat bucket\u{202e}\u{1b}[2J --nonsense\u{1b}[2J"] {
        let said = said(&place, line, 1);
        assert!(said.contains(r"\u{1b}[2J") && !said.contains(['\u{202e}', '\u{1b}']), "{said:?}");
    }
}

/// Killed again and again while a program writes; then the disk is lost.
#[test]
fn killed_at_any_moment_it_goes_on_and_restores_all() {
    let place = Place::new();
    let log = small().open(place.log()).unwrap();
    log.commit(record(1, 0)).unwrap();
    said(&place, "push log bucket --create", 0);
    let mut lsn = 2;
    for pause in [5, 40, 80, 120, 160, 220, 300] {
        let archiver = spawn(&place, "push log bucket --follow --chunk 64K --every 30ms");
        let until = Instant::now() + Duration::from_millis(pause);
        while Instant::now() < until {
            log.commit(record(lsn, 700)).unwrap();
            lsn += 1;
        }
        drop(archiver);
    }
    let follower = spawn(&place, "follow bucket standby --every 20ms --segment-size 64K");
    let archiver = spawn(&place, "push log bucket --follow --rpo 10ms --every 1s");
    let begun = Instant::now();
    while foreword::View::open(place.path("standby")).and_then(|view| view.last_lsn()).unwrap_or(Lsn::ZERO) < log.last_lsn() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the standby does not catch up");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop((follower, archiver));
    log.close().unwrap();
    let expected = records(&place.log());
    std::fs::remove_dir_all(place.log()).unwrap();
    said(&place, "restore bucket log --segment-size 64K", 0);
    assert!(records(&place.log()) == expected);
    assert!(said(&place, "verify bucket", 0).contains("all sound"));
    assert!(said(&place, "promote bucket standby", 0).contains("is the log"));
}

/// However much there is.
#[test]
#[cfg(target_os = "linux")]
fn a_restore_takes_64_mib_of_memory() {
    let place = Place::new();
    let log = foreword::Options::new().open(place.log()).unwrap();
    for lsn in 1..=600 {
        log.append(dense_record(lsn, 200_000)).unwrap();
    }
    log.close().unwrap();
    said(&place, "push log bucket --create", 0);
    let mut restore = spawn(&place, "restore bucket restored");
    let (status, mut most) = (format!("/proc/{}/status", restore.0.id()), 0);
    while restore.0.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(most);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!((8 << 10..64 << 10).contains(&most), "{most} KiB");
    assert!(records(&place.path("restored")) == records(&place.log()));
}

#[test]
fn each_subcommand_helps() {
    let place = Place::new();
    for name in ["push", "restore", "follow", "promote", "status", "cat", "verify", "expire", "check", "doctor", "keygen"] {
        let help = said(&place, &format!("{name} --help"), 0);
        assert!(help.contains("Example"), "{name}: {help}");
    }
}
