//! The memory that an entry and an idle group take.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;

use foreword_raft::Options;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocated() -> usize {
    let stats = COUNTED.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// One test, because nothing else may allocate meanwhile.
#[test]
fn entries_take_13_bytes_and_idle_groups_less_than_a_kilobyte() {
    let dir = tempfile::tempdir().unwrap();
    let log = foreword::Options::new().segment_bytes(4 << 20).background(false);
    let logs = Options::new().log(log).background(false).cache_bytes(0).compact_slack(u64::MAX).open(dir.path()).unwrap();
    // The log keeps its newest frames and a buffer in memory: fill both.
    for n in 0..20 {
        logs.group(0).append((1 + n * 20..=20 + n * 20).map(|index| (index, [0; 10_000])), |_| ()).unwrap();
    }
    logs.group(0).purge(400, "").unwrap();
    logs.sync().unwrap();

    const GROUPS: usize = 1000;
    let before = allocated();
    for id in 1..=GROUPS as u64 {
        let group = logs.group(id);
        group.append((1..=3).map(|index| (index, "entry")), |_| ()).unwrap();
        group.purge(1, [1; 16]).unwrap();
        group.save_committed(2, [2; 16]).unwrap();
        if id == GROUPS as u64 {
            group.save_vote([3; 16]).unwrap();
        }
    }
    logs.sync().unwrap();
    let each = (allocated() - before) / GROUPS;
    println!("an idle group: {each} bytes");
    assert!(each < 1024, "{each}");

    // Two groups, so that LSNs do not follow each other.
    const ENTRIES: u64 = 1_000_000;
    let before = allocated();
    let groups = [logs.group(5000), logs.group(5001)];
    for index in (1..=ENTRIES / 2).step_by(50) {
        for group in &groups {
            group.append((index..index + 50).map(|index| (index, "entry")), |_| ()).unwrap();
        }
        if index % 50_000 == 1 {
            logs.sync().unwrap();
        }
    }
    logs.sync().unwrap();
    let each = (allocated().saturating_sub(before)) as f64 / ENTRIES as f64;
    println!("an entry: {each:.2} bytes");
    assert!((12.0..13.5).contains(&each), "{each}");
    assert_eq!(groups[1].get(ENTRIES / 2).unwrap().unwrap(), b"entry");
    assert_eq!(logs.stats().cached_bytes, 0);
}
