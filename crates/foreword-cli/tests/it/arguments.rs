//! What each subcommand says of a directory in which there is no log, or that cannot be read: what
//! is the matter, and what to do. Nothing is touched.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Said, foreword, run, run_with};

/// Every subcommand that takes a log's directory.
const COMMANDS: &[&[&str]] = &[
    &["append", "DIR"],
    &["cat", "DIR"],
    &["cat", "DIR", "--follow"],
    &["verify", "DIR"],
    &["verify", "DIR", "--json"],
    &["repair", "DIR"],
    &["repair", "DIR", "--stop", "--apply"],
    &["repair", "DIR", "--salvage", "--apply"],
    &["stat", "DIR"],
    &["stat", "DIR", "--json"],
    &["top", "DIR", "--once", "--interval", "100ms"],
    &["truncate", "DIR", "--before", "1"],
    &["truncate", "DIR", "--from", "1"],
    &["hold", "DIR", "archiver"],
    &["hold", "DIR", "archiver", "--release"],
    &["dump", "DIR"],
    &["dump", "DIR", "1"],
    &["demo", "DIR", "--rounds", "1", "--for", "100ms"],
];

/// And those that take any directory on a disk.
const ON_DISKS: &[&[&str]] = &[
    &["chaos", "DIR", "--for", "1s"],
    &["doctor", "DIR", "--anyway", "--for", "100ms"],
    &["bench", "DIR", "--anyway", "--for", "1ms"],
];

/// What is in a directory, and below it. (Whoever opens a log for writing signs `LOCK`.)
fn contents(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let bytes = fs::read(&path).ok().filter(|_| kind.is_file() && !path.ends_with("LOCK"));
        all.push(format!("{} {kind:?} {:?} {bytes:?}", path.display(), fs::read_link(&path).ok()));
        if kind.is_dir() {
            all.extend(contents(&path));
        }
    }
    all.sort();
    all
}

/// A place for directories of all kinds.
struct Place(tempfile::TempDir);

impl Place {
    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Each of these commands, but some, fails for a directory, says these words and which
    /// directory it is, and changes nothing.
    fn all_say(&self, dir: &str, words: &[&str], commands: &[&[&str]], but: &[&str], command: &dyn Fn() -> Command) {
        let (before, dir) = (contents(self.0.path()), self.at(dir));
        for args in commands.iter().filter(|args| !but.contains(&args[0])) {
            let args: Vec<&str> = args.iter().map(|&arg| if arg == "DIR" { &*dir } else { arg }).collect();
            let said = Said::from(command().args(&args).output().unwrap());
            assert!(said.status == 1 && said.out.is_empty(), "{args:?}: {said:?}");
            for word in words.iter().chain([&&*dir]) {
                assert!(said.err.contains(word), "{args:?}: no {word:?} in {said:?}");
            }
            assert_eq!(contents(self.0.path()), before, "{args:?}: {said:?}");
        }
    }

    /// A log of one record.
    fn log(&self, dir: &str) -> String {
        let dir = self.at(dir);
        run_with(&["append", &dir, "--quiet", "--segment-size", "64K"], b"one\n").status(0);
        dir
    }
}

/// These make a log where there is none.
const MAKE: &[&str] = &["append", "demo"];

#[cfg(unix)]
#[test]
fn each_subcommand_says_what_is_the_matter_with_a_directory_and_what_to_do() {
    use std::os::unix::fs::symlink;
    let place = Place(tempfile::tempdir().unwrap());
    place.all_say("nothing", &["no log in", "check the path"], COMMANDS, MAKE, &foreword);

    let nowhere = ["a symbolic link to `nowhere`, which is not there", "correct the link"];
    symlink("nowhere", place.at("dangling")).unwrap();
    place.all_say("dangling", &nowhere, COMMANDS, &[], &foreword);
    place.all_say("dangling/below", &nowhere[..1], COMMANDS.get(..1).unwrap(), &[], &foreword);

    fs::write(place.at("file"), "x").unwrap();
    place.all_say("file", &["it is a file, not a directory"], COMMANDS, &[], &foreword);
    place.all_say("file/below", &["file` is a file, not a directory"], COMMANDS, &[], &foreword);

    fs::create_dir(place.at("strange")).unwrap();
    fs::write(place.at("strange/LOG"), "08:00 started\n").unwrap();
    place.all_say("strange", &["not a log's", "nothing was touched", "a directory of its own"], COMMANDS, &[], &foreword);

    fs::create_dir(place.at("other")).unwrap();
    fs::write(place.at("other/letter"), "dear").unwrap();
    place.all_say("other", &["no log in", "check the path"], COMMANDS, MAKE, &foreword);
    let makes: Vec<_> = COMMANDS.iter().copied().filter(|args| MAKE.contains(&args[0])).collect();
    place.all_say("other", &["other files (letter)", "a directory of its own"], &makes, &[], &foreword);

    for name in ["LOG", "LOCK", "00000000000000000001.seg"] {
        let log = place.log(&format!("links {name}"));
        let file = format!("{log}/{name}");
        fs::rename(&file, format!("{log}/elsewhere")).unwrap();
        symlink("elsewhere", &file).unwrap();
        // (`demo` wants a new log, and `dump` looks at what there is.)
        let links = ["a symbolic link", "put the file itself there", name];
        place.all_say(&format!("links {name}"), &links, COMMANDS, &["demo", "dump"], &foreword);
    }

    for dir in ["nothing", "dangling", "file"] {
        place.all_say(dir, &["cannot "], ON_DISKS, &[], &foreword);
    }
}

#[cfg(unix)]
#[test]
fn each_subcommand_says_that_it_may_not_read_a_directory() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place(tempfile::tempdir().unwrap());
    let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let log = place.log("log");
    permit(Path::new(&log), 0o000);
    permit(place.0.path(), 0o755);
    let bin = tempfile::tempdir().unwrap();
    let command = || crate::common::unprivileged(bin.path());
    place.all_say(
        "log",
        &["Permission denied", "as the user whose log it is, or change the permissions"],
        COMMANDS,
        &[],
        &command,
    );
    place.all_say("log", &["Permission denied"], ON_DISKS, &[], &command);
    permit(Path::new(&log), 0o755);
    // It may be read, and no file may be made in it.
    for args in [&["append", &*log][..], &["truncate", &*log, "--before", "1"], &["hold", &*log, "archiver"]] {
        let said = Said::from(command().args(args).output().unwrap()).status(1);
        assert!(said.err.contains("Permission denied") && said.err.contains("as the user whose log it is"), "{said:?}");
    }
    Said::from(command().args(["stat", &log]).output().unwrap()).status(0);
}

/// A hold that was placed is not forgotten silently: neither is one whose file was cut, nor one
/// that reached its limit.
#[test]
fn holds_that_are_unknown_or_lost_are_told_of() {
    let place = Place(tempfile::tempdir().unwrap());
    let log = place.at("log");
    let records: String = (0..100).map(|i| format!("{i} {}\n", "x".repeat(5000))).collect();
    run_with(&["append", &log, "--quiet", "--segment-size", "64K"], records.as_bytes()).status(0);
    run(&["hold", &log, "archiver", "--max-bytes", "64K"]).status(0);
    run(&["truncate", &log, "--before", "100"]).status(0);
    let lost = run(&["hold", &log, "archiver", "--from", "100"]).status(1);
    assert!(lost.err.contains("`archiver` is lost") && lost.err.contains("release it"), "{lost:?}");
    run(&["hold", &log, "archiver", "--release"]).status(0);
    run(&["hold", &log, "archiver"]).status(0);

    fs::write(format!("{log}/HOLDS"), "").unwrap();
    for args in
        [&["hold", &*log, "archiver"][..], &["hold", &*log, "archiver", "--release"], &["truncate", &*log, "--before", "100"]]
    {
        let refused = run(args).status(1);
        assert!(refused.err.contains("HOLDS is damaged") && refused.err.contains("remove it"), "{refused:?}");
    }
    for look in ["stat", "verify"] {
        let told = run(&[look, &log]).status(0);
        let line = told.text().lines().find(|line| line.starts_with("holds")).unwrap_or_else(|| panic!("{told:?}"));
        assert!(line.contains("unknown") && line.contains("HOLDS is damaged") && line.contains("remove it"), "{line}");
        assert!(run(&[look, &log, "--json"]).status(0).json()["holds_unknown"].as_str().unwrap().contains("HOLDS"));
    }
    let top = run(&["top", &log, "--once", "--interval", "100ms"]).status(0);
    assert!(top.text().contains("HOLDS is damaged"), "{top:?}");
    fs::remove_file(format!("{log}/HOLDS")).unwrap();
    run(&["truncate", &log, "--before", "100"]).status(0);
    for look in ["stat", "verify"] {
        assert!(run(&[look, &log, "--json"]).status(0).json()["holds_unknown"].is_null());
    }
}
