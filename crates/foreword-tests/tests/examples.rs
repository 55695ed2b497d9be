//! The examples run to their end: their assertions are part of the tests. The key-value store is
//! killed, too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

macro_rules! examples {
    ($($name:ident = $path:literal),* $(,)?) => {$(
        #[allow(unreachable_pub)]
        #[path = $path]
        mod $name;

        #[test]
        fn $name() {
            $name::main().unwrap();
        }
    )*};
}

examples! {
    costs = "../../foreword/examples/00_costs.rs",
    writer = "../../foreword/examples/01_writer.rs",
    background_sync = "../../foreword/examples/02_background_sync.rs",
    recovery = "../../foreword/examples/03_recovery.rs",
    group_commit = "../../foreword/examples/04_group_commit.rs",
    strategies = "../../foreword/examples/05_strategies.rs",
    redo = "../../foreword/examples/06_redo.rs",
    evidence = "../../foreword/examples/07_evidence.rs",
    many_logs = "../../foreword/examples/09_many_logs.rs",
    kv = "../../foreword/examples/kv.rs",
    queue = "../../foreword/examples/queue.rs",
    outbox = "../../foreword/examples/outbox.rs",
}

const STORE: &str = "FOREWORD_TEST_STORE";
const SETTERS: usize = 3;
/// A setter's keys. It sets them in turn, so that what was set before is there to be missed.
const KEYS: u64 = 64;

fn key(setter: usize, n: u64) -> String {
    format!("setter {setter}, key {}", n % KEYS)
}

/// The highest number that a setter has set. The others are as they must be behind it.
fn highest(store: &kv::Store, setter: usize) -> u64 {
    let value = |n| store.get(&key(setter, n)).map_or(0, |value| value.parse::<u64>().unwrap());
    let highest = (0..KEYS).map(value).max().unwrap();
    for n in (highest + 1).saturating_sub(KEYS).max(1)..=highest {
        assert_eq!(value(n), n, "setter {setter} has set {highest}");
    }
    highest
}

/// Sets ever higher numbers, says on its standard output which of them were set, and takes
/// snapshots, until it is killed.
fn set_until_killed(dir: &Path) {
    let store = &kv::Store::open(dir).unwrap();
    thread::scope(|scope| {
        for setter in 0..SETTERS {
            scope.spawn(move || {
                for n in highest(store, setter) + 1.. {
                    store.set(&key(setter, n), &n.to_string()).unwrap();
                    println!("set {setter} {n}");
                }
            });
        }
        loop {
            store.snapshot().unwrap();
            thread::sleep(Duration::from_millis(3));
        }
    });
}

#[test]
fn what_a_killed_store_said_was_set_is_set() {
    if let Some(dir) = std::env::var_os(STORE) {
        return set_until_killed(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0; SETTERS];
    for kill in 0..15u64 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "what_a_killed_store_said_was_set_is_set", "--nocapture"]).env(STORE, dir.path());
        let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let hearing = thread::spawn(move || said.lines().map_while(Result::ok).collect::<Vec<_>>());
        // While it is opening, too. (SIGKILL.)
        thread::sleep(Duration::from_millis(5 + kill * 7919 % 97));
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        for line in hearing.join().unwrap() {
            // (The harness has its lines, too.)
            if let ["set", setter, n] = line.split(' ').collect::<Vec<_>>()[..] {
                acknowledged[setter.parse::<usize>().unwrap()] = n.parse().unwrap();
            }
        }
        let store = kv::Store::open(dir.path()).unwrap();
        for (setter, said) in acknowledged.iter_mut().enumerate() {
            let found = highest(&store, setter);
            // One more may have been set and not said.
            assert!((*said..=*said + 1).contains(&found), "kill {kill}, setter {setter}: {found}, and {said} was acknowledged");
            *said = found;
        }
    }
    assert!(acknowledged.iter().sum::<u64>() > 100, "they were killed before they did anything: {acknowledged:?}");
}

#[test]
fn a_queue_whose_worker_fails_does_the_rest_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Does tasks until one is not to be done; which.
    let work = |stop: &'static str| {
        let dir = dir.path().to_owned();
        runtime.block_on(async move {
            let queue = queue::Queue::open(dir).await.unwrap();
            if stop == "20" {
                for n in 0..50 {
                    queue.push(&n.to_string()).await.unwrap();
                }
            } else {
                queue.push(stop).await.unwrap();
            }
            let mut done = Vec::new();
            let worked = queue.work(|_, what| {
                let ends = what == stop;
                done.extend((!ends).then(|| what.to_owned()));
                std::future::ready(if ends { Err("the worker failed".into()) } else { Ok(()) })
            });
            assert!(worked.await.unwrap_err().to_string().contains("the worker failed"));
            queue.close().await.unwrap();
            assert!(queue.push("too late").await.is_err());
            done
        })
    };
    let tasks = |from: u32, to: u32| (from..to).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(work("20"), tasks(0, 20));
    assert_eq!(work("that is all"), tasks(20, 50));
}

#[test]
fn a_snapshot_and_a_log_that_do_not_fit_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (log, snapshot) = (dir.path().join("log"), dir.path().join("snapshot"));
    let why = |dir: &Path| *kv::Store::open(dir).err().unwrap().downcast::<foreword::Error>().unwrap();
    let snap = |value: &str| {
        let store = kv::Store::open(dir.path()).unwrap();
        store.set("key", value).unwrap();
        store.snapshot().unwrap();
        store.close().unwrap();
        std::fs::read(&snapshot).unwrap()
    };
    let (older, newer) = (snap("1"), snap("2"));
    std::fs::write(&snapshot, older).unwrap();
    assert!(matches!(why(dir.path()), foreword::Error::Dropped { .. }), "record 2 is gone");
    std::fs::remove_file(&snapshot).unwrap();
    assert!(matches!(why(dir.path()), foreword::Error::Dropped { .. }));
    std::fs::write(&snapshot, newer).unwrap();
    assert_eq!(kv::Store::open(dir.path()).unwrap().get("key").as_deref(), Some("2"));
    std::fs::remove_dir_all(&log).unwrap();
    assert!(matches!(why(dir.path()), foreword::Error::RolledBack { .. }));
    assert!(matches!(why(dir.path()), foreword::Error::RolledBack { .. }), "nor was one made");
}
