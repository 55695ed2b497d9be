//! Every refusal is a typed error, with what one needs to act on it, and a message that says what
//! to do; and it changes nothing.

use std::path::Path;
use std::time::Duration;

use foreword::{DamageKind, Error, Lsn, OnDamage, Options, SyncPolicy, Verdict, View, repair_plan, verify};
use foreword_tests::*;

fn verify_error(dir: &Path) -> Error {
    verify(dir).unwrap_err()
}

/// The message has all of these.
fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

#[test]
fn a_missing_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    let errors = [
        small().create(false).open(&dir).unwrap_err(),
        View::open(&dir).unwrap_err(),
        verify_error(&dir),
        repair_plan(&dir, OnDamage::Salvage).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::NotFound { dir: said, .. } if *said == dir), "{error:?}");
        says(&error, &["check the path", &dir.display().to_string()]);
    }
    assert!(!root.path().join("a").exists());
    // With `create`, the default, it is made with its parents.
    small().open(&dir).unwrap().close().unwrap();
    small().create(false).open(&dir).unwrap();
}

#[test]
fn an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(small().create(false).open(dir.path()), Err(Error::NotFound { .. })));
    assert!(matches!(View::open(dir.path()), Err(Error::NotFound { .. })));
    assert!(matches!(verify_error(dir.path()), Error::NotFound { .. }));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    small().create_new().open(dir.path()).unwrap();
}

#[test]
fn a_log_where_a_new_one_is_wanted() {
    let files = Files::closed(|log| commit(log, 1..3));
    let dir = files.dir();
    let error = small().create_new().open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::AlreadyExists { dir: said, .. } if said == dir.path()), "{error:?}");
    says(&error, &["already"]);
    assert_eq!(Files::read(dir.path()), files);
}

#[test]
fn a_directory_that_is_not_a_log() {
    // (What a log calls its own is another's where no log is.)
    for name in ["letter.txt", "STATS", "HOLDS.tmp"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), "dear").unwrap();
        let before = contents(dir.path());
        let error = small().open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::NotALog { why, .. } if why.contains(name)), "{error:?}");
        says(&error, &["a directory of its own"]);
        assert_eq!(contents(dir.path()), before, "nothing was made");
        for error in [View::open(dir.path()).unwrap_err(), verify_error(dir.path())] {
            assert!(matches!(error, Error::NotFound { .. } | Error::NotALog { .. }), "{error:?}");
        }
    }
}

#[test]
fn a_file_where_the_directory_should_be() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for error in [
        small().open(&file).unwrap_err(),
        small().create(false).open(&file).unwrap_err(),
        View::open(&file).unwrap_err(),
        verify_error(&file),
    ] {
        assert!(matches!(&error, Error::NotALog { .. }), "{error:?}");
        says(&error, &["a file, not a directory"]);
    }
    // Nor can a directory be made below it.
    let error = small().open(file.join("below")).unwrap_err();
    assert!(matches!(&error, Error::Io { .. } | Error::NotALog { .. }), "{error:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}

/// What is in a directory: names, and what they are.
fn contents(dir: &Path) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let what = |path: &Path| match (path.read_link(), std::fs::read(path)) {
        (Ok(to), _) => format!("to {}", to.display()),
        (_, Ok(bytes)) => format!("{bytes:?}"),
        _ => "no file".to_owned(),
    };
    let mut all: Vec<_> = entries.map(|e| (e.file_name().into_string().unwrap(), what(&e.path()))).collect();
    all.sort();
    all
}

/// Every way to ask for the log in a directory.
fn asked(dir: &Path) -> Vec<Error> {
    vec![
        small().open(dir).unwrap_err(),
        small().create(false).open(dir).unwrap_err(),
        small().create_new().open(dir).unwrap_err(),
        small().on_damage(OnDamage::Salvage).open(dir).unwrap_err(),
        View::open(dir).unwrap_err(),
        verify_error(dir),
        repair_plan(dir, OnDamage::StopAtDamage).unwrap_err(),
        foreword::inspect::segments(dir).unwrap_err(),
        foreword::inspect::frames(dir, 1).unwrap_err(),
    ]
}

#[test]
fn a_file_called_log_that_is_not_a_logs_is_told_so_and_nothing_is_touched() {
    type Make = fn(&Path);
    let makes: &[(&str, Make)] = &[
        ("a text", |log| std::fs::write(log, "2026-11-29 08:00 started\n2026-11-29 08:01 stopped\n").unwrap()),
        ("nothing", |log| std::fs::write(log, "").unwrap()),
        ("bytes", |log| std::fs::write(log, [0xff; 5000]).unwrap()),
        ("a directory", |log| std::fs::create_dir(log).unwrap()),
        #[cfg(unix)]
        ("a link", |log| std::os::unix::fs::symlink("letter.txt", log).unwrap()),
        #[cfg(unix)]
        ("a link that leads nowhere", |log| std::os::unix::fs::symlink("nowhere", log).unwrap()),
    ];
    for (what, make) in makes {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        make(&dir.path().join("LOG"));
        let before = contents(dir.path());
        for error in asked(dir.path()) {
            assert!(matches!(&error, Error::NotALog { dir: said, .. } if said == dir.path()), "{what}: {error:?}");
            says(&error, &["not a log's", "nothing was touched", "a directory of its own"]);
        }
        assert!(matches!(foreword::inspect::writer(dir.path()), Ok(None) | Err(Error::NotALog { .. })), "{what}");
        assert_eq!(contents(dir.path()), before, "{what}");
    }
}

/// A directory that has anything of another program's in it, and no log, is not taken.
#[test]
fn no_log_is_made_beside_files_of_others() {
    type Make = fn(&Path);
    let makes: &[(&str, Make)] = &[
        ("a name", |dir| std::fs::write(dir.join(".gitkeep"), "").unwrap()),
        #[cfg(unix)]
        ("a name that is not UTF-8", |dir| {
            use std::os::unix::ffi::OsStrExt;
            std::fs::write(dir.join(std::ffi::OsStr::from_bytes(b"\xff.seg")), "mine").unwrap()
        }),
        ("a lock", |dir| std::fs::write(dir.join("LOCK"), "z important").unwrap()),
        ("a lock of the length of ours", |dir| std::fs::write(dir.join("LOCK"), [b'x'; 48]).unwrap()),
        ("a lock of bytes", |dir| std::fs::write(dir.join("LOCK"), [0xff; 5]).unwrap()),
        ("a directory for a lock", |dir| std::fs::create_dir(dir.join("LOCK")).unwrap()),
        ("holds", |dir| std::fs::write(dir.join("HOLDS"), "mine").unwrap()),
        ("a reserve", |dir| std::fs::write(dir.join("RESERVE-1"), "mine").unwrap()),
        ("damaged", |dir| std::fs::create_dir(dir.join("damaged")).unwrap()),
    ];
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for (what, make) in makes {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let (before, lock) = (names(dir.path()), std::fs::read(dir.path().join("LOCK")).ok());
        for options in [small(), small().create_new()] {
            let error = options.open(dir.path()).unwrap_err();
            assert!(matches!(&error, Error::NotALog { .. }), "{what}: {error:?}");
            says(&error, &["other files", "a directory of its own"]);
        }
        assert_eq!(names(dir.path()), before, "{what}");
        assert_eq!(std::fs::read(dir.path().join("LOCK")).ok(), lock, "{what}");
    }
    // What a program that was killed leaves of a log is not another's.
    for lock in ["".to_owned(), "\0".repeat(48), format!("{:20}\nsince {:020}\n", "process 17", 1_800_000_000_000_000_000u64)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("LOCK"), lock).unwrap();
        small().open(dir.path()).unwrap();
    }
}

/// A directory in which no log is opened has no file more than before.
#[test]
fn what_is_refused_gets_no_lock_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("00000000000000000001.seg"), "a film, first part").unwrap();
    assert!(matches!(small().open(dir.path()), Err(Error::Corruption(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // A copy of a log without its lock.
    let files = Files::closed(|log| commit(log, 1..3));
    let dir = files.dir();
    let _ = std::fs::remove_file(dir.path().join("LOCK"));
    assert!(small().expect_lsn(Lsn(9)).open(dir.path()).is_err());
    assert!(!dir.path().join("LOCK").exists());
    assert_eq!(small().open(dir.path()).unwrap().last_lsn(), Lsn(2));
    assert!(dir.path().join("LOCK").exists());
}

#[test]
fn what_is_left_of_a_log_is_damage_though_its_file_log_is_damaged() {
    let whole = Files::closed(|log| commit(log, 1..10));
    let text = whole.0["LOG"].clone();
    let flipped = |at: usize| {
        let mut text = text.clone();
        text[at] ^= 1;
        text
    };
    let damaged = [text[..30].to_vec(), flipped(3), flipped(50), vec![0; text.len()], [&text[..], b"more"].concat()];
    for log in damaged {
        let mut files = whole.clone();
        files.0.insert("LOG".into(), log.clone());
        let mut alone = files.clone();
        alone.0.retain(|name, _| name == "LOG");
        for (files, kind) in [(files, DamageKind::Identity), (alone, DamageKind::LostAll)] {
            let dir = files.dir();
            let verdict = verify(dir.path()).unwrap().verdict;
            assert!(matches!(verdict, Some(Verdict::Corruption(damage)) if damage.kind == kind), "{log:?}, {kind:?}");
            assert!(matches!(small().open(dir.path()), Err(Error::Corruption(damage)) if damage.kind == kind), "{log:?}");
            assert_eq!(Files::read(dir.path()), files);
        }
    }
    // With a segment beside it, whatever it is.
    for log in [&b""[..], b"a text"] {
        let mut files = whole.clone();
        files.0.insert("LOG".into(), log.to_vec());
        let dir = files.dir();
        assert!(matches!(small().open(dir.path()), Err(Error::Corruption(damage)) if damage.kind == DamageKind::Identity));
    }
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_in_place_of_the_directory_or_above_it() {
    let root = tempfile::tempdir().unwrap();
    let link = root.path().join("link");
    std::os::unix::fs::symlink(root.path().join("gone"), &link).unwrap();
    for error in asked(&link) {
        assert!(matches!(&error, Error::NotALog { dir, .. } if *dir == link), "{error:?}");
        says(&error, &["symbolic link", "gone`, which is not there", "correct the link"]);
    }
    let error = small().open(link.join("below")).unwrap_err();
    says(&error, &["`", "/link` is a symbolic link", "which is not there"]);
    std::fs::write(root.path().join("file"), "x").unwrap();
    for error in asked(&root.path().join("file/below")) {
        says(&error, &["/file` is a file, not a directory"]);
    }
    assert!(!root.path().join("gone").exists());
    // One that leads to a directory is followed.
    std::fs::create_dir(root.path().join("gone")).unwrap();
    small().open(&link).unwrap().close().unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_in_place_of_a_logs_file() {
    for name in ["LOG", "LOCK", &segment_name(1)] {
        let files = Files::closed(|log| commit(log, 1..3));
        let dir = files.dir();
        let path = dir.path().join(name);
        let elsewhere = dir.path().join("elsewhere");
        let _ = std::fs::rename(&path, &elsewhere); // (`LOCK` is not there.)
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        for gone in [false, true] {
            if gone {
                let _ = std::fs::remove_file(&elsewhere);
            }
            for error in [small().open(dir.path()).unwrap_err(), View::open(dir.path()).unwrap_err(), verify_error(dir.path())] {
                assert!(matches!(&error, Error::Io { path: said, .. } if *said == path), "{error:?}");
                says(&error, &["a symbolic link", "put the file itself there"]);
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_may_not_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::crashed(|log| commit(log, 1..4));
    let dir = files.dir();
    let set = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o555);
    if std::fs::write(dir.path().join("probe"), "").is_ok() {
        std::fs::remove_file(dir.path().join("probe")).unwrap();
        set(0o755);
        eprintln!("SKIPPED: this user (root?) may write where nobody may");
        return;
    }
    let error = small().open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied), "{error:?}");
    says(&error, &["cannot ", &dir.path().display().to_string(), "as the user whose log it is"]);
    // Reading needs no right to write.
    assert_eq!(View::open(dir.path()).unwrap().last_lsn().unwrap(), Lsn(3));
    assert_eq!(check_dir(dir.path()).verdict, Some(Verdict::Unclosed));
    set(0o755);
    assert_eq!(Files::read(dir.path()), files);
}

#[test]
fn a_disk_that_may_not_be_written() {
    use foreword_sim::{Effect, Fault, OpKind, SimDisk};
    let disk = SimDisk::new(1);
    let options = |disk: &SimDisk| small().on_error(|_| ()).disk(disk.handle());
    let log = options(&disk).open("/log").unwrap();
    commit(&log, 1..3);
    let killed = disk.kill();
    for op in [OpKind::Write, OpKind::Create, OpKind::Rename, OpKind::SyncDir, OpKind::List, OpKind::Open, OpKind::Read] {
        let disk = killed.copy();
        disk.fault(Fault::new(op, Effect::Eio).forever());
        let error = options(&disk).open("/log").unwrap_err();
        let text = error.to_string();
        // What was being done, to which file, and what the system said.
        assert!(
            matches!(&error, Error::Io { doing, path, .. } if !doing.is_empty() && path.starts_with("/log")),
            "{op:?}: {error:?}"
        );
        assert!(text.starts_with("cannot ") && text.contains("/log"), "{text}");
        disk.heal();
        assert_eq!(options(&disk).open("/log").unwrap().last_lsn(), Lsn(2), "{op:?}");
    }
}

#[test]
fn another_format() {
    let with = |place: usize, value: u32| {
        let mut files = Files::closed(|log| commit(log, 1..10));
        files.forge(2, 0, |block| block[place..place + 4].copy_from_slice(&value.to_le_bytes()));
        files
    };
    let refused = |files: &Files, words: &[&str], is: &dyn Fn(&Error, &Path) -> bool| {
        let dir = files.dir();
        for error in [
            small().open(dir.path()).unwrap_err(),
            small().on_damage(OnDamage::Salvage).open(dir.path()).unwrap_err(),
            View::open(dir.path()).unwrap_err(),
            verify_error(dir.path()),
            repair_plan(dir.path(), OnDamage::StopAtDamage).unwrap_err(),
            foreword::inspect::frames(dir.path(), 2).unwrap_err(),
        ] {
            assert!(is(&error, &dir.path().join(segment_name(2))), "{error:?}");
            says(&error, words);
        }
        assert_eq!(Files::read(dir.path()), *files);
    };
    for (version, hint) in [(1, "no released version"), (3, "use a newer program")] {
        refused(
            &with(64, version),
            &[&format!("version {version};"), hint],
            &|error, segment| matches!(error, Error::UnsupportedVersion { path, found, supported: 2, .. } if (*found, &**path) == (version, segment)),
        );
    }
    refused(
        &with(64 + 40, 5),
        &["features", "0x5", "use a newer"],
        &|error, segment| matches!(error, Error::UnsupportedFeatures { path, features: 5, .. } if **path == *segment),
    );
    // What need not be known is passed over, and so is what later features may put behind a MARK's
    // fields.
    let mut files = with(64 + 44, 1);
    let closed = files.frames(2).into_iter().rfind(|frame| frame.kind == MARK).unwrap();
    files.forge(2, closed.block, |mark| {
        mark[16] += 8;
        let len = usize::from(mark[16]);
        mark[80 + len - 8..80 + len].copy_from_slice(&[9, 0, 4, 0, 1, 2, 3, 4]);
    });
    let dir = files.dir();
    assert_eq!(small().open(dir.path()).unwrap().last_lsn(), Lsn(9));
}

/// What the first version, which was never released, left: its header ends at byte 64, and `LOG`
/// says so.
#[test]
fn a_log_of_the_first_version() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("LOG"), "foreword log format 1\nuuid 11111111-1111-4111-8111-111111111111\n").unwrap();
    for error in [small().open(root.path()).unwrap_err(), View::open(root.path()).unwrap_err(), verify_error(root.path())] {
        assert!(matches!(error, Error::UnsupportedVersion { found: 1, supported: 2, .. }), "{error:?}");
    }
}

#[test]
fn absurd_options() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log");
    let policy = |policy| small().sync(policy);
    let cases: Vec<(&str, Options)> = vec![
        ("segment_bytes", small().segment_bytes(0)),
        ("segment_bytes", small().segment_bytes((64 << 10) - 4096)),
        ("segment_bytes", small().segment_bytes((4 << 30) + 1)),
        ("segment_bytes", small().segment_bytes(u64::MAX)),
        ("record_bytes_max", small().record_bytes_max(0)),
        ("record_bytes_max", small().record_bytes_max(u64::MAX)),
        ("buffer_bytes", small().buffer_bytes(0)),
        ("buffer_bytes", small().buffer_bytes(usize::MAX)),
        ("sync.records", policy(SyncPolicy::every_records(0))),
        ("sync.bytes", policy(SyncPolicy::every_bytes(0))),
        ("sync.interval", policy(SyncPolicy::interval(Duration::ZERO))),
        ("sync.interval", policy(SyncPolicy::interval(Duration::MAX))),
    ];
    for (option, options) in cases {
        let error = options.open(&dir).unwrap_err();
        assert!(matches!(&error, Error::Invalid { what, .. } if what.starts_with(option)), "{error:?}");
        says(&error, &["between"]);
        assert!(!dir.exists(), "{option}");
    }
    small().segment_bytes((64 << 10) + 1).record_bytes_max(1).buffer_bytes(512 << 10).open(&dir).unwrap();
    let error = repair_plan(&dir, OnDamage::Refuse).unwrap_err();
    assert!(matches!(&error, Error::Invalid { what: "action", .. }), "{error:?}");
}

#[test]
fn another_log_than_the_one_expected() {
    let files = Files::closed(|log| commit(log, 1..3));
    let dir = files.dir();
    let other = foreword::LogId([7; 16]);
    let error = small().expect_id(other).open(dir.path()).unwrap_err();
    let is =
        |error: &Error| matches!(error, Error::Replaced { expected, found, .. } if *expected == other && found.0 == files.uuid());
    assert!(is(&error), "{error:?}");
    says(&error, &[&other.to_string(), &foreword::LogId(files.uuid()).to_string()]);
    assert_eq!(Files::read(dir.path()), files);
    small().expect_id(foreword::LogId(files.uuid())).open(dir.path()).unwrap();
}

/// Where there is none, as where a disk is not mounted, none is made.
#[test]
fn no_log_where_one_is_expected() {
    let root = tempfile::tempdir().unwrap();
    let (expected, dir) = (foreword::LogId([7; 16]), root.path().join("log"));
    let refused = |what: &str| {
        for options in [small(), small().create_new(), small().on_damage(OnDamage::Salvage)] {
            let error = options.expect_id(expected).open(&dir).unwrap_err();
            assert!(matches!(&error, Error::NotALog { .. }), "{what}: {error:?}");
            says(&error, &[&expected.to_string(), "no log", "check the path", "mounted"]);
        }
        let error = small().create(false).expect_id(expected).open(&dir).unwrap_err();
        assert!(matches!(&error, Error::NotFound { .. }), "{what}: {error:?}");
    };
    refused("no directory");
    assert!(!dir.exists());
    std::fs::create_dir(&dir).unwrap();
    refused("an empty directory");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    std::fs::create_dir(dir.join("lost+found")).unwrap();
    refused("an empty file system");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    // A creation that was killed: a segment that was never used.
    let mut files = Files::crashed(|_| ());
    files.0.retain(|name, _| name.ends_with(".seg"));
    files.unwrite(1, 1..16);
    files.write(&dir);
    let refused = small().expect_id(expected).open(&dir);
    assert!(matches!(&refused, Err(Error::NotALog { .. })), "{refused:?}");
    assert_eq!(Files::read(&dir), files);
    assert_ne!(small().open(&dir).unwrap().id(), expected, "it goes on where none is expected");
}

#[test]
fn a_log_that_ends_before_what_was_known() {
    for files in [Files::closed(|log| commit(log, 1..3)), Files::crashed(|log| commit(log, 1..3)), Files::default()] {
        let dir = files.dir();
        let last = if files == Files::default() { Lsn(0) } else { Lsn(2) };
        let error = small().expect_lsn(Lsn(3)).open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::RolledBack { expected: Lsn(3), found, .. } if *found == last), "{error:?}");
        says(&error, if last > Lsn(0) { &["an older copy", "restore"] } else { &["no record", "LSN 3 was durable", "restore"] });
        assert_eq!(Files::read(dir.path()), files);
        if last > Lsn(0) {
            small().expect_lsn(last).open(dir.path()).unwrap();
        }
    }
    // Nor is anything of it where another's files are.
    for name in ["LOG", "letter.txt"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), "dear").unwrap();
        let error = small().expect_lsn(Lsn(3)).open(dir.path()).unwrap_err();
        assert!(matches!(&error, Error::RolledBack { expected: Lsn(3), found: Lsn::ZERO, .. }), "{name}: {error:?}");
    }
    // No directory is made where records should be.
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log");
    let error = small().expect_lsn(Lsn(3)).open(&dir).unwrap_err();
    assert!(matches!(&error, Error::RolledBack { expected: Lsn(3), found: Lsn::ZERO, .. }), "{error:?}");
    assert!(!dir.exists());
}

#[test]
fn appends_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().record_bytes_max(1000).open(dir.path()).unwrap();
    let error = log.append_batch::<&[u8]>(&[]).unwrap_err();
    assert!(matches!(&error, Error::Invalid { what: "batch", .. }), "{error:?}");
    for error in [log.commit(&[0; 1001]).unwrap_err(), log.append_batch(&[[0; 497], [0; 497]]).unwrap_err()] {
        assert!(matches!(&error, Error::TooLarge { max: 1000, bytes, .. } if *bytes > 1000), "{error:?}");
        says(&error, &["1000", "nothing was appended"]);
    }
    let error = log.commit_checkpoint(&[0; 100_000]).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_eq!(log.last_lsn(), Lsn::ZERO);
    // At the limits.
    assert_eq!(log.commit(&[0; 1000]).unwrap(), Lsn(1));
    assert_eq!(log.commit_batch(&[[0; 496], [0; 496]]).unwrap(), Lsn(2));
}

#[test]
fn lsns_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..20);
    log.truncate_front(Lsn(10)).unwrap();
    for lsn in [Lsn(0), Lsn(20), Lsn::MAX] {
        let views = foreword::View::open(dir.path()).unwrap();
        for got in [log.get(lsn), log.reader().get(lsn).map(|r| r.data.to_vec()), views.get(lsn)] {
            assert!(matches!(got, Err(Error::NotAppended { lsn: said, last: Lsn(19), .. }) if said == lsn), "{got:?}");
        }
    }
    let error = log.truncate_back(Lsn::ZERO).unwrap_err();
    assert!(matches!(&error, Error::NotAppended { lsn: Lsn::ZERO, last: Lsn(19), .. }), "{error:?}");
    says(&error, &["LSNs begin with 1"]);
    for lsn in [Lsn(20), Lsn::MAX] {
        assert!(matches!(log.sync_to(lsn), Err(Error::NotAppended { last: Lsn(19), .. })));
        assert!(matches!(log.durable(lsn), Err(Error::NotAppended { .. })));
    }
    assert!(matches!(log.get(Lsn(9)), Err(Error::Dropped { lsn: Lsn(9), start: Lsn(10), .. })));
    assert!(matches!(log.truncate_front(Lsn(21)), Err(Error::NotAppended { .. })));
    assert!(matches!(log.truncate_front(Lsn::MAX), Err(Error::NotAppended { .. })));
    assert!(matches!(log.truncate_back(Lsn(9)), Err(Error::Dropped { .. })));
    log.truncate_back(Lsn::MAX).unwrap();
    assert_eq!(log.last_lsn(), Lsn(19));
}

#[test]
fn holds_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    for name in ["", &"x".repeat(65)] {
        assert!(matches!(log.hold(name, Lsn(1)), Err(Error::Invalid { what: "the hold's name", .. })));
    }
    commit(&log, 1..41);
    for i in 0..32 {
        log.hold(&format!("{i:064}"), Lsn(i)).unwrap();
    }
    let error = log.hold("one more", Lsn(1)).unwrap_err();
    assert!(matches!(&error, Error::Invalid { what: "holds", .. }), "{error:?}");
    says(&error, &["release one"]);
    log.hold(&format!("{:064}", 3), Lsn(41)).unwrap();
    assert!(!log.release("nobody").unwrap());
    // The fullest MARK there can be comes back.
    let crashed = Files::read(dir.path());
    assert_eq!(MemDisk::new(&crashed).open(OnDamage::Refuse).unwrap().holds().unwrap().len(), 32);
}

#[test]
fn a_log_that_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    commit(&log, 1..3);
    let mut reader = log.reader();
    log.close().unwrap();
    // Readers continue to the end, and are told that there is no more.
    assert_eq!(reader.next().unwrap().unwrap().lsn, Lsn(1));
    assert_eq!(reader.wait_next(None).unwrap().unwrap().lsn, Lsn(2));
    assert_eq!(reader.wait_next(None).unwrap(), None);
}

#[test]
fn a_segment_file_that_is_empty_or_no_file() {
    for newest in [false, true] {
        let mut files = Files::crashed(|log| commit(log, 1..10));
        let epoch = if newest { 2 } else { 1 };
        files.segment(epoch).clear();
        let dir = files.dir();
        match small().open(dir.path()) {
            Err(Error::Corruption(damage)) => {
                assert_eq!((damage.kind, damage.offset, damage.proven), (DamageKind::Size, 0, true));
                assert_eq!(damage.path, dir.path().join(segment_name(epoch)));
                says(&Error::Corruption(damage), &["0 bytes", "foreword repair", "restore a copy"]);
            }
            other => panic!("{other:?}"),
        }
        // A directory under a segment's name.
        let name = dir.path().join(segment_name(epoch));
        std::fs::remove_file(&name).unwrap();
        std::fs::create_dir(&name).unwrap();
        for error in [small().open(dir.path()).unwrap_err(), View::open(dir.path()).unwrap_err(), verify_error(dir.path())] {
            assert!(matches!(&error, Error::Io { path, .. } if *path == name), "{error:?}");
        }
    }
}

#[test]
fn a_damaged_identity() {
    let mut files = Files::crashed(|log| commit(log, 1..10));
    files.0.insert("LOG".into(), b"foreword log format 1\nuuid what?\n".to_vec());
    let dir = files.dir();
    let error = small().open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Corruption(damage) if damage.kind == DamageKind::Identity), "{error:?}");
    says(&error, &["LOG", "corruption", "foreword repair"]);
    assert_eq!(Files::read(dir.path()), files);
}

#[test]
fn errors_have_their_causes_and_can_be_shared() {
    fn is_error<T: std::error::Error + Send + Sync + Clone + 'static>(_: &T) {}
    let error = small().open("/dev/null/log").unwrap_err();
    is_error(&error);
    assert!(std::error::Error::source(&error).is_some() || matches!(error, Error::NotALog { .. }), "{error:?}");
}

#[test]
fn an_error_says_whether_to_try_again_and_becomes_one_of_io() {
    use std::io::{self, ErrorKind};
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    log.commit("one").unwrap();
    log.truncate_front(Lsn(2)).unwrap();
    let missing = dir.path().join("missing");
    let errors = [
        (small().open(dir.path()).unwrap_err(), true, ErrorKind::ResourceBusy),
        (View::open(&missing).unwrap_err(), false, ErrorKind::NotFound),
        (small().create_new().open(dir.path()).unwrap_err(), false, ErrorKind::AlreadyExists),
        (log.get(Lsn(1)).unwrap_err(), false, ErrorKind::NotFound),
        (log.sync_to(Lsn(9)).unwrap_err(), false, ErrorKind::NotFound),
        (log.append(vec![0; 65 << 20]).unwrap_err(), false, ErrorKind::InvalidInput),
        (log.hold("", Lsn(1)).unwrap_err(), false, ErrorKind::InvalidInput),
        (Error::Busy, true, ErrorKind::WouldBlock),
        (Error::Poisoned(std::sync::Arc::new(Error::Closed)), false, ErrorKind::Other),
        (log.close().and_then(|()| log.append("x")).unwrap_err(), false, ErrorKind::BrokenPipe),
    ];
    for (error, retryable, kind) in errors {
        assert_eq!(error.is_retryable(), retryable, "{error:?}");
        let text = error.to_string();
        let io = io::Error::from(error);
        assert_eq!((io.kind(), io.to_string()), (kind, text));
        assert!(io.get_ref().is_some_and(|source| source.is::<Error>()));
    }
}

/// Where something has the name of the next segment, or that which it is made under: the log says
/// so, and goes on when it has gone.
#[test]
fn what_is_in_the_way_of_a_running_log_is_to_be_moved_away() {
    for name in ["00000000000000000002.seg", "00000000000000000002.seg.tmp"] {
        for is_dir in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let log = small().open(dir.path()).unwrap();
            let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
            match is_dir {
                true => std::fs::create_dir(&path).unwrap(),
                // (What is left of a file that was begun is the log's to replace.)
                false if name.ends_with(".tmp") => continue,
                false => std::fs::write(&path, "precious").unwrap(),
            }
            let next = fill_segment(&log, 1);
            for error in [log.commit(record(next)).unwrap_err(), log.truncate_back(Lsn(3)).unwrap_err()] {
                assert!(matches!(error, Error::Io { .. }) && error.is_retryable(), "{name}: {error:?}");
                says(&error, &[name, "move it away"]);
            }
            std::fs::rename(&path, &aside).unwrap();
            commit(&log, next..next + 2);
            log.truncate_back(Lsn(3)).unwrap();
            assert!(is_dir || std::fs::read(&aside).unwrap() == b"precious");
        }
    }
}
