//! What memory a log keeps.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;
use std::time::{Duration, Instant};

use foreword::{Log, Options, SyncPolicy};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// In KiB.
fn in_use(since: &Region<'_, System>) -> i64 {
    let change = since.change();
    (change.bytes_allocated as i64 - change.bytes_deallocated as i64) >> 10
}

/// As much as gathers before a write, several times.
fn work(log: &Log) {
    for _ in 0..4 {
        for _ in 0..200 {
            log.append([7; 60_000]).unwrap();
        }
        log.sync().unwrap();
    }
}

/// Bug: what a log had once needed, some 10 MiB, it kept for good.
#[test]
fn an_idle_log_keeps_little_memory_and_a_busy_one_what_its_options_say() {
    let dir = tempfile::tempdir().unwrap();
    let region = Region::new(COUNTED);
    let log = Options::new().open(dir.path().join("idle")).unwrap();
    work(&log);
    let (started, least) = (Instant::now(), 150);
    while in_use(&region) > least {
        assert!(started.elapsed() < Duration::from_secs(20), "{} KiB", in_use(&region));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(log.get(log.last_lsn()).unwrap(), [7; 60_000], "it is in the file");
    log.close().unwrap();
    assert!(in_use(&region) < 100, "closed: {} KiB", in_use(&region));
    drop(log);

    let region = Region::new(COUNTED);
    let options = Options::new().buffer_bytes(512 << 10).background(false).sync(SyncPolicy::manual());
    let log = options.open(dir.path().join("busy")).unwrap();
    work(&log);
    // (With a little for each buffer, and for what else a log needs.)
    assert!(in_use(&region) < 2 * (512 + 8 * 4) + 100, "{} KiB", in_use(&region));
    log.close().unwrap();
}
