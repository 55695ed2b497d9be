//! Where a log's directory, its lock and its process are not what they were: each test in a process
//! of its own, for there is one working directory to a process, and a fork copies all of it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]
// A fork of a process with threads can be had in no other way.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use foreword::disk::OsDisk;
use foreword::{Commit, Durability, Error, Log, Lsn, OnDamage, Options, Reader, SyncPolicy, Verdict, View};
use foreword_tests::hooked::*;
use foreword_tests::*;

const PATIENCE: Duration = Duration::from_secs(60);
const ALONE: &str = "FOREWORD_TEST_ALONE";

/// Runs a test's work in a process of its own; as the user `nobody`, if this is root and the test
/// asks for that.
fn alone_as(name: &str, nobody: bool, work: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some_and(|alone| alone == name) {
        return work();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads", "1"]).env(ALONE, name);
    if nobody && is_root() {
        command.uid(65534).gid(65534);
    }
    let mut child = match command.stdout(Stdio::null()).spawn() {
        Err(e) if nobody && e.kind() == std::io::ErrorKind::PermissionDenied => {
            return eprintln!("SKIPPED: nobody may not run {}", std::env::current_exe().unwrap().display());
        }
        spawned => spawned.unwrap(),
    };
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return assert!(status.success(), "{status}");
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{name} hangs");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn alone(name: &str, work: impl FnOnce()) {
    alone_as(name, false, work);
}

fn is_root() -> bool {
    // SAFETY: it only asks.
    unsafe { libc::geteuid() == 0 }
}

/// Small segments, so that the log rotates after a few records.
fn options() -> Options {
    Options::new().segment_bytes(64 << 10).on_error(|_| ())
}

fn record(n: u64) -> Vec<u8> {
    n.to_string().into_bytes().repeat(2000)
}

fn commit_more(log: &Log, n: u64) {
    for _ in 0..n {
        let lsn = log.last_lsn().next();
        assert_eq!(log.commit(&record(lsn.0)).unwrap(), lsn);
    }
}

/// The log is sound, and has these records.
fn holds(dir: &Path, lsns: std::ops::RangeInclusive<u64>) {
    let report = check_dir(dir);
    assert!(matches!(report.verdict, Some(Verdict::Clean | Verdict::Unclosed | Verdict::TornTail)), "{:?}", report.verdict);
    let (records, error) = collect(View::open(dir).unwrap().iter(Lsn::ZERO));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(records, lsns.map(|lsn| (lsn, record(lsn))).collect::<Vec<_>>());
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn is_lock_lost(error: &Error) -> bool {
    match error {
        Error::LockLost { .. } => true,
        Error::Poisoned(cause) => is_lock_lost(cause),
        _ => false,
    }
}

#[test]
fn another_working_directory_changes_nothing() {
    alone("another_working_directory_changes_nothing", || {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        for dir in [&a, &b] {
            fs::create_dir(dir).unwrap();
        }
        let stranger = options().open(b.join("wal")).unwrap();
        commit_more(&stranger, 30);
        stranger.close().unwrap();
        let before = files(&b.join("wal"));
        std::env::set_current_dir(&a).unwrap();
        let log = options().open("wal").unwrap();
        commit_more(&log, 10);
        std::env::set_current_dir(&b).unwrap();
        commit_more(&log, 30);
        assert_eq!(log.truncate_front(Lsn(5)).unwrap(), Lsn(5));
        commit_more(&log, 30);
        log.truncate_back(Lsn(61)).unwrap();
        assert_eq!(log.get(Lsn(30)).unwrap(), record(30));
        let reader = View::open(a.join("wal")).unwrap();
        assert_eq!(reader.last_lsn().unwrap(), Lsn(60));
        log.close().unwrap();
        assert_eq!(files(&b.join("wal")), before);
        holds(&a.join("wal"), 5..=60);
    });
}

#[test]
fn a_directory_that_is_moved_goes_on_being_the_log() {
    let root = tempfile::tempdir().unwrap();
    let (path, old) = (root.path().join("wal"), root.path().join("wal.old"));
    let first = options().open(&path).unwrap();
    commit_more(&first, 10);
    let view = View::open(&path).unwrap();
    fs::rename(&path, &old).unwrap();
    let second = options().open(&path).unwrap();
    assert_ne!(first.id(), second.id());
    for _ in 0..4 {
        commit_more(&first, 10);
        commit_more(&second, 10);
    }
    // Whoever follows the log follows it there.
    let started = Instant::now();
    while view.last_lsn().unwrap() < Lsn(50) && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((view.id(), view.last_lsn().unwrap()), (first.id(), Lsn(50)));
    assert_eq!(view.get(Lsn(50)).unwrap(), record(50));
    for log in [&first, &second] {
        log.truncate_front(Lsn(20)).unwrap();
    }
    commit_more(&first, 1);
    second.close().unwrap();
    first.close().unwrap();
    holds(&old, 20..=51);
    holds(&path, 20..=40);
    assert_eq!(options().open(&old).unwrap().recovery().verdict, Verdict::Clean);
}

#[test]
fn a_removed_lock_admits_nobody_and_stops_the_writer() {
    for replaced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("LOCK");
        let log = options().open(dir.path()).unwrap();
        commit_more(&log, 10);
        fs::remove_file(&lock).unwrap();
        if replaced {
            fs::write(&lock, "process 1\n").unwrap();
        }
        for _ in 0..3 {
            assert!(matches!(options().open(dir.path()), Err(Error::Locked { .. })));
        }
        assert!(View::open(dir.path()).unwrap().has_writer());
        let error = log.commit(&record(11)).unwrap_err();
        assert!(matches!(&error, Error::Poisoned(cause) if matches!(**cause, Error::LockLost { .. })), "{error:?}");
        assert!(is_lock_lost(&log.append(b"x").unwrap_err()));
        assert_eq!(log.durable_lsn(), Lsn(10));
        assert!(log.close().is_err());
        let log = options().open(dir.path()).unwrap();
        assert!(log.last_lsn() >= Lsn(10));
        assert_eq!(log.get(Lsn(10)).unwrap(), record(10));
    }
}

#[test]
fn with_both_locks_removed_only_one_acknowledges() {
    let dir = tempfile::tempdir().unwrap();
    let first = options().open(dir.path()).unwrap();
    commit_more(&first, 10);
    for name in ["LOCK", "LOG"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let second = options().on_damage(OnDamage::Salvage).open(dir.path()).unwrap();
    assert_eq!(second.last_lsn(), Lsn(10), "all that the first acknowledged");
    commit_more(&second, 30);
    for _ in 0..30 {
        assert!(is_lock_lost(&first.commit(b"of the first").unwrap_err()));
    }
    assert!(is_lock_lost(&first.truncate_front(Lsn(10)).unwrap_err()));
    assert!(is_lock_lost(&first.truncate_back(Lsn(2)).unwrap_err()));
    assert!(first.close().is_err());
    commit_more(&second, 30);
    second.close().unwrap();
    holds(dir.path(), 1..=70);
}

#[test]
fn a_cut_at_the_back_needs_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit_more(&log, 10);
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    assert!(is_lock_lost(&log.truncate_back(Lsn(5)).unwrap_err()));
    assert!(is_lock_lost(&log.commit(b"x").unwrap_err()));
}

fn told<T: std::fmt::Debug>(what: &str, result: Result<T, Error>) -> Result<(), String> {
    match result {
        Err(error) if is_lock_lost(&error) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    }
}

/// Polls a future as an executor does.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (mut future, waker) = (pin!(future), Waker::from(Arc::new(Unpark(thread::current()))));
    loop {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return ready;
        }
        thread::park();
    }
}

/// What was made before the fork: a reader at the tail, a future, and a view.
struct Readers {
    tail: Reader,
    commit: Commit,
    view: View,
}

impl Readers {
    fn of(log: &Log, view: &View) -> Readers {
        let mut tail = log.reader_at(log.durable_lsn().next());
        let _ = tail.wait_next(Some(Duration::ZERO)).unwrap();
        tail.seek(Lsn(u64::MAX / 2));
        Readers { tail, commit: log.commit_async(b"of the parent").unwrap(), view: view.clone() }
    }
}

/// What was durable can be read; to wait for more is an error, however it is done.
fn read_in_child(log: &Log, readers: Readers) -> Result<(), String> {
    let Readers { mut tail, commit, view } = readers;
    let read = |what: &str, got: Result<Vec<u8>, Error>, lsn: u64| match got {
        Ok(data) if data == record(lsn) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    };
    let last = log.durable_lsn();
    log.get(last).map_err(|e| format!("get the last: {e}"))?;
    read("get", log.get(Lsn(3)), 3)?;
    read("iter", log.iter(Lsn(4)).next().unwrap().map(|record| record.data), 4)?;
    read("iter_back", log.iter_back(Lsn(5)).next().unwrap().map(|record| record.data), 5)?;
    log.bytes_between(Lsn(1), last).map_err(|e| format!("bytes_between: {e}"))?;
    log.lsn_at(SystemTime::now()).map_err(|e| format!("lsn_at: {e}"))?;
    let _ = (log.start_lsn(), log.failure(), log.id());
    told("wait_next", tail.wait_next(None).map(drop))?;
    told("next_async", block_on(tail.next_async()).map(drop))?;
    told("a new reader's next_async", block_on(log.reader_at(last.next()).next_async()).map(drop))?;
    {
        let mut stream = pin!(tail.into_stream());
        let next = std::future::poll_fn(|cx| futures_core::Stream::poll_next(stream.as_mut(), cx));
        told("a stream", block_on(next).unwrap())?;
    }
    // (It may have become durable before the fork.)
    let lsn = commit.lsn();
    if lsn > last {
        told("a commit's future", block_on(commit))?;
        told("another", log.durable(lsn).and_then(block_on))?;
    }
    // A view can go on, unless it was at it.
    let _ = (view.start_lsn(), view.id(), view.has_writer(), view.verdict(), view.given_up());
    let or_told = |what: &str, result: Result<Lsn, Error>| result.map_or_else(|error| told::<()>(what, Err(error)), |_| Ok(()));
    or_told("a view's last_lsn", view.last_lsn())?;
    or_told("a view's get", view.get(Lsn(3)).map(|_| Lsn(3)))?;
    or_told("a view's next_async", block_on(view.reader_at(Lsn(3)).next_async()).map(|_| Lsn(3)))?;
    or_told("a view's wait_next", view.reader_at(Lsn(1 << 40)).wait_next(Some(Duration::from_millis(20))).map(|_| Lsn(3)))?;
    // One that is new in the child works in any case.
    read("a new view", View::open(log.dir()).and_then(|view| view.get(Lsn(3))), 3)
}

/// What a forked process makes of the log: each call returns, and none says that anything was done.
fn use_in_child(log: Log, calls: u64, readers: Readers) -> Result<(), String> {
    // It is in memory alone, and stays there.
    for _ in 0..calls {
        let _ = log.append(&record(7));
    }
    let _ = (log.stats(), log.holds().unwrap(), log.last_lsn(), log.written_lsn(), log.durable_lsn());
    read_in_child(&log, readers)?;
    told("commit", log.commit(&record(7)).map(drop))?;
    told("write", log.write().map(drop))?;
    told("sync", log.sync().map(drop))?;
    told("hold", log.hold("x", Lsn(1)))?;
    told("release", log.release("x").map(drop))?;
    told("truncate_front", log.truncate_front(Lsn(2)).map(drop))?;
    told("truncate_back", log.truncate_back(Lsn(2)))?;
    told("wait_durable", log.wait_durable(log.last_lsn(), None).map(drop))?;
    if calls.is_multiple_of(2) {
        told("close", log.close())?;
    }
    Ok(())
}

/// Forks; the child works and ends, and must do so in time.
fn in_a_fork(log: &mut Option<Log>, calls: u64, view: &View) {
    let readers = Readers::of(log.as_ref().unwrap(), view);
    // SAFETY: what the child goes on with is the allocator, which the C library makes usable in it,
    // and the log, which is what is tested.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => {
            let log = log.take().unwrap();
            let code = match use_in_child(log, calls, readers) {
                Ok(()) => 0,
                Err(why) => {
                    eprintln!("in the fork: {why}");
                    1
                }
            };
            // SAFETY: it does not return.
            unsafe { libc::_exit(code) }
        }
        child => {
            let (started, mut status) = (Instant::now(), 0);
            // SAFETY: `status` outlives the call.
            while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
                if started.elapsed() > Duration::from_secs(20) {
                    // SAFETY: the child is not waited for yet, so the number is its own.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                    panic!("the forked process hangs");
                }
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(status, 0, "the forked process");
        }
    }
}

#[test]
fn a_forked_process_neither_writes_nor_hangs() {
    alone("a_forked_process_neither_writes_nor_hangs", || {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Some(options().open(dir.path()).unwrap());
        commit_more(log.as_ref().unwrap(), 10);
        let view = View::open(dir.path()).unwrap();
        // Without a sync, and with so many appends that the log would write.
        for calls in [0, 1, 200, 201] {
            in_a_fork(&mut log, calls, &view);
        }
        commit_more(log.as_ref().unwrap(), 10);
        // The others' flushes are in the air, and their locks taken.
        let log = log.take().unwrap();
        let (stop, committed) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            for durability in [Durability::Synced, Durability::Synced, Durability::Written] {
                let (log, stop, committed) = (&log, &stop, &committed);
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        log.append_with(b"of the parent", durability).unwrap();
                        committed.fetch_add(1, SeqCst);
                    }
                });
            }
            // And those who read, here and there.
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        let mut reader = log.reader_at(log.durable_lsn().prev());
                        while reader.wait_next(Some(Duration::ZERO)).unwrap().is_some() {}
                        view.get(view.last_lsn().unwrap()).unwrap();
                    }
                });
            }
            for calls in 0..60 {
                // SAFETY: the copy is only used in the child, which is left by `_exit` or by
                // `forget`ting it here.
                let mut copy = Some(unsafe { std::ptr::read(&raw const log) });
                in_a_fork(&mut copy, calls % 5, &view);
                std::mem::forget(copy);
            }
            stop.store(true, SeqCst);
        });
        let last = log.last_lsn();
        // (With one before each fork.)
        assert_eq!(last.0, 20 + 4 + 60 + committed.load(SeqCst), "nothing of the children's");
        log.close().unwrap();
        let (records, error) = collect(View::open(dir.path()).unwrap().iter(Lsn::ZERO));
        assert!(error.is_none());
        assert!(records.iter().skip(20 + 4).all(|(_, data)| data == b"of the parent"));
        assert_eq!(records.len() as u64, last.0);
    });
}

/// What it would wait for is a thread that is not there.
#[test]
fn a_view_that_another_thread_looks_with_during_a_fork_is_lost_in_the_child() {
    alone("a_view_that_another_thread_looks_with_during_a_fork_is_lost_in_the_child", || {
        let (dir, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
        let log = options().open(dir.path()).unwrap();
        commit_more(&log, 3);
        let keeper = gate.clone();
        let pass = move |_, _: &str| {
            keeper.pass();
            Ok(())
        };
        let view = View::open_on(hooked(OsDisk::new(), pass), dir.path()).unwrap();
        until("all is known to be durable", || view.last_lsn().unwrap() == Lsn(3));
        let mut tail = view.reader_at(Lsn(4));
        gate.hold(1);
        let looking = view.clone();
        let looks = thread::spawn(move || looking.last_lsn());
        gate.wait_held();
        // SAFETY: what the child goes on with is the allocator, which the C library makes usable in
        // it, and the view, which is what is tested.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: it ends this process, if that hangs.
            unsafe { libc::alarm(20) };
            let used = told("last_lsn", view.last_lsn())
                .and_then(|()| told("wait_next", tail.wait_next(None).map(drop)))
                .and_then(|()| told("next_async", block_on(tail.next_async()).map(drop)))
                .and_then(|()| view.get(Lsn(3)).map(drop).or_else(|error| told("get", Err::<(), _>(error))));
            let known = (view.id(), view.start_lsn()) == (log.id(), Lsn(1));
            if let Err(why) = &used {
                eprintln!("in the fork: {why}");
            }
            // SAFETY: it does not return.
            unsafe { libc::_exit(i32::from(used.is_err() || !known)) };
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        gate.open();
        assert_eq!(looks.join().unwrap().unwrap(), Lsn(3));
        assert_eq!(status, 0, "the forked process");
    });
}

#[test]
fn a_forked_process_does_not_keep_the_log_locked() {
    alone("a_forked_process_does_not_keep_the_log_locked", || {
        let dir = tempfile::tempdir().unwrap();
        let log = options().open(dir.path()).unwrap();
        commit_more(&log, 1);
        // SAFETY: the child only sleeps.
        let child = unsafe { libc::fork() };
        if child == 0 {
            thread::sleep(Duration::from_secs(30));
            // SAFETY: it does not return.
            unsafe { libc::_exit(0) };
        }
        log.close().unwrap();
        options().open(dir.path()).unwrap();
        let mut status = 0;
        // SAFETY: the child is not waited for yet, so the number is its own; `status` outlives the
        // call.
        unsafe { (libc::kill(child, libc::SIGKILL), libc::waitpid(child, &raw mut status, 0)) };
    });
}

#[test]
fn a_strange_file_under_the_next_segments_name_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().background(false).open(dir.path()).unwrap();
    commit_more(&log, 2);
    let strange = dir.path().join(segment_name(2));
    fs::write(&strange, "precious").unwrap();
    let error = (3..30).find_map(|n| log.commit(&record(n)).err()).unwrap();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists), "{error:?}");
    assert_eq!(fs::read(&strange).unwrap(), b"precious");
    // Out of the way, it is no hindrance.
    fs::rename(&strange, dir.path().parent().unwrap().join("foreword-strange")).unwrap();
    fs::remove_file(dir.path().parent().unwrap().join("foreword-strange")).unwrap();
    let last = log.last_lsn();
    commit_more(&log, 5);
    log.close().unwrap();
    holds(dir.path(), 1..=last.0 + 5);
}

#[test]
fn what_is_not_a_plain_file_is_refused_at_once() {
    alone("what_is_not_a_plain_file_is_refused_at_once", odd_files);
}

fn odd_files() {
    for name in ["LOCK", "LOG", &segment_name(1), &segment_name(2), "damaged"] {
        for kind in ["fifo", "directory", "socket", "link", "dangling"] {
            let dir = tempfile::tempdir().unwrap();
            let log = options().open(dir.path()).unwrap();
            commit_more(&log, 8);
            log.close().unwrap();
            let path = dir.path().join(name);
            let away = tempfile::tempdir().unwrap();
            let kept = away.path().join("kept");
            if name != "damaged" {
                fs::rename(&path, &kept).unwrap();
            }
            match kind {
                "fifo" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                "directory" => fs::create_dir(&path).unwrap(),
                "socket" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
                "link" => symlink(&kept, &path).unwrap(),
                _ => symlink(away.path().join("nothing"), &path).unwrap(),
            }
            let typed = |error: &Error| matches!(error, Error::Io { .. } | Error::Corruption(_) | Error::NotALog { .. });
            let (path, said) = (dir.path(), format!("{kind} {name}"));
            let opened = options().open(path).map(drop);
            assert_eq!(opened.is_ok(), name == "damaged", "{said}: {opened:?}");
            for looked in [
                opened,
                View::open(path).and_then(|view| view.iter(Lsn::ZERO).try_for_each(|r| r.map(drop))),
                foreword::verify(path).map(drop),
                foreword::inspect::segments(path).map(drop),
                foreword::inspect::writer(path).map(drop),
            ] {
                assert!(looked.as_ref().err().is_none_or(typed), "{said}: {looked:?}");
            }
        }
    }
}

#[test]
fn what_is_made_later_can_be_opened_by_the_same_users() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit_more(&log, 2);
    log.close().unwrap();
    let owner = if is_root() { (4321, 4322) } else { owner(dir.path()) };
    if is_root() {
        // As a service's directory, where root comes along.
        for entry in fs::read_dir(dir.path()).unwrap() {
            std::os::unix::fs::chown(entry.unwrap().path(), Some(owner.0), Some(owner.1)).unwrap();
        }
        std::os::unix::fs::chown(dir.path(), Some(owner.0), Some(owner.1)).unwrap();
    }
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    let log = options().publish(true).open(dir.path()).unwrap();
    commit_more(&log, 30);
    log.hold("a hold", Lsn(1)).unwrap(); // Makes `HOLDS`.
    let stats = dir.path().join("STATS");
    let started = Instant::now();
    while !stats.exists() && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(stats.exists() && dir.path().join("HOLDS").exists());
    let check = |dir: &Path| {
        for entry in fs::read_dir(dir).unwrap() {
            let (path, metadata) = { (entry.as_ref().unwrap().path(), entry.unwrap().metadata().unwrap()) };
            assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
            if metadata.is_file() {
                assert_eq!(metadata.mode() & 0o777, 0o640, "{}", path.display());
            }
        }
    };
    check(dir.path());
    log.close().unwrap();
    // A repair: the identity is written again, and what is damaged is copied.
    let log = dir.path().join("LOG");
    fs::write(&log, "garbled").unwrap();
    let newest = *foreword::inspect::segments(dir.path()).unwrap().iter().map(|s| &s.epoch).max().unwrap();
    let segment = dir.path().join(segment_name(newest - 1));
    let mut bytes = fs::read(&segment).unwrap();
    bytes[9000] ^= 1;
    fs::write(&segment, bytes).unwrap();
    options().on_damage(OnDamage::Salvage).open(dir.path()).unwrap().close().unwrap();
    check(dir.path());
    check(&dir.path().join("damaged"));
    assert!(fs::read_dir(dir.path().join("damaged")).unwrap().count() > 0);
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn a_parent_that_may_be_written_and_not_read() {
    alone_as("a_parent_that_may_be_written_and_not_read", true, || {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("parent");
        fs::create_dir(&parent).unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o333)).unwrap();
        let log = options().open(parent.join("deep/wal")).unwrap();
        commit_more(&log, 1);
        log.close().unwrap();
        fs::create_dir(parent.join("wal")).unwrap();
        commit_more(&options().open(parent.join("wal")).unwrap(), 1);
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
        holds(&parent.join("deep/wal"), 1..=1);
    });
}

#[test]
fn a_reader_that_is_stopped_while_it_asks_is_not_taken_for_the_last_writer() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    commit_more(&log, 1);
    let Err(Error::Locked { holder, .. }) = options().open(dir.path()) else { panic!("two writers") };
    assert_eq!(holder, format!("process {}", std::process::id()));
    log.close().unwrap();
    let reader = fs::File::open(dir.path().join("LOCK")).unwrap();
    reader.lock_shared().unwrap();
    let Err(Error::Locked { holder, .. }) = options().open(dir.path()) else { panic!("it is locked") };
    assert!(holder.contains("reader"), "{holder}");
    drop(reader);
    options().open(dir.path()).unwrap();
}

#[test]
fn where_files_cannot_be_told_from_others_a_log_works_as_well() {
    let disk = MemDisk::new(&Files::default());
    disk.make_unstable();
    let log = disk.open(OnDamage::Refuse).unwrap();
    commit(&log, 1..20);
    assert!(matches!(disk.open(OnDamage::Refuse), Err(Error::Locked { .. })));
    log.close().unwrap();
    assert_eq!(disk.open(OnDamage::Refuse).unwrap().last_lsn(), Lsn(19));
}

#[test]
fn a_runtime_is_of_no_use_in_a_forked_process() {
    alone("a_runtime_is_of_no_use_in_a_forked_process", || {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), foreword::Runtime::new(1).unwrap());
        let open = || options().runtime(&runtime).open(dir.path());
        // SAFETY: what the child goes on with is the allocator, which the C library makes usable in
        // it, and the log, which is what is tested.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = matches!(open(), Err(Error::Invalid { what: "runtime", .. }));
            // SAFETY: it does not return.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "the forked process");
        open().unwrap().close().unwrap();
    });
}

/// Sets how many files may be open in this process.
#[cfg(target_os = "linux")]
fn limit_open_files(files: u64) {
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: it reads the limit that it is given.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Bug: an opening had a handle of each segment that it wrote again, and of each that it was to
/// seal, at once: a service that was killed could not be started again as it had been.
#[cfg(target_os = "linux")]
#[test]
fn a_log_is_opened_with_as_few_open_files_as_it_was_written_with() {
    alone("a_log_is_opened_with_as_few_open_files_as_it_was_written_with", || {
        limit_open_files(64);
        let dir = tempfile::tempdir().unwrap();
        let options = || Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
        let log = options().open(dir.path()).unwrap();
        let record = vec![7; 1 << 20]; // Some 40 segments.
        log.append_with(&record, Durability::Written).unwrap();
        let copy = tempfile::tempdir().unwrap();
        Files::read(dir.path()).write(copy.path());
        log.close().unwrap();
        let log = options().open(copy.path()).unwrap();
        assert!(log.get(Lsn(1)).unwrap() == record);
        log.close().unwrap();
    });
}

/// Bug: a program that only appends got an error each time, once what was not synced had all the
/// handles.
#[cfg(target_os = "linux")]
#[test]
fn an_append_that_finds_no_file_handle_syncs_what_has_them() {
    alone("an_append_that_finds_no_file_handle_syncs_what_has_them", || {
        limit_open_files(32);
        for (background, tries) in [(true, false), (false, false), (true, true)] {
            let dir = tempfile::tempdir().unwrap();
            let options = Options::new().segment_bytes(64 << 10).background(background).sync(SyncPolicy::manual());
            let log = options.open(dir.path()).unwrap();
            let (record, patience) = (vec![7; 20_000], std::time::Instant::now());
            for lsn in 1..=150 {
                let appended = loop {
                    match if tries { log.try_append(&record) } else { log.append(&record) } {
                        Err(error) if tries => {
                            assert!(patience.elapsed().as_secs() < 60, "LSN {lsn}: {error}");
                            std::thread::sleep(std::time::Duration::from_millis(1));
                        }
                        appended => break appended.unwrap(),
                    }
                };
                assert_eq!(appended, Lsn(lsn));
            }
            // With what few the log has itself, when others of the process have the rest.
            let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            (0..100).for_each(|_| _ = log.append(&record).unwrap());
            // What no sync helps is an error still.
            let error = log.append(vec![7; 3 << 20]).unwrap_err();
            assert!(error.to_string().contains("raise the limit of open files"), "{error}");
            drop(held);
            log.append(&record).unwrap();
            log.close().unwrap();
        }
    });
}

/// Each segment of a record that is not written has a handle. Bug: after seconds of preparing
/// segments, an error that did not say what to do.
#[cfg(target_os = "linux")]
#[test]
fn a_record_with_more_segments_than_files_may_be_open_is_refused_and_leaves_nothing() {
    alone("a_record_with_more_segments_than_files_may_be_open_is_refused_and_leaves_nothing", || {
        limit_open_files(128);
        for background in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let files = || std::fs::read_dir(dir.path()).unwrap().count();
            let options = || Options::new().segment_bytes(64 << 10).background(background);
            let log = options().open(dir.path()).unwrap();
            log.commit(b"one").unwrap();
            let before = files();
            let refused = |bytes: usize| {
                let error = log.append(vec![7; bytes]).unwrap_err();
                assert!(matches!(error, Error::Io { .. }), "{error:?}");
                let text = error.to_string();
                assert!(text.contains("raise the limit of open files") && text.contains("larger segments"), "{text}");
                // (Two that are prepared are kept, and a third may be on its way.)
                assert!(files() <= before + 3, "{} files, after {before}", files());
            };
            // More than any process may open here: known before anything is prepared.
            refused(60 << 20);
            assert!(log.stats().segments_created <= 1, "{:?}", log.stats());
            // More than this one may, with what it has open already: known when that is so.
            let held: Vec<_> = (0..60).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
            refused(5 << 20);
            drop(held);
            let lsn = log.commit(vec![8; 2 << 20]).unwrap();
            assert_eq!(log.get(lsn).unwrap(), vec![8; 2 << 20]);
            log.truncate_front(lsn).unwrap();
            log.truncate_front(log.commit(b"more").unwrap()).unwrap();
            log.close().unwrap();
            let log = options().open(dir.path()).unwrap();
            assert_eq!(log.last_lsn(), Lsn(3));
            log.close().unwrap();
            assert!(files() <= before + 3, "{} files, after {before}", files());
        }
    });
}
