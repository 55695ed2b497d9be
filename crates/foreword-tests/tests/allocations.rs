//! In steady state nothing is allocated: neither by an append nor by a commit, of a record, of one
//! in parts, or of a batch from an iterator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;
use std::io::IoSlice;

use foreword::{Options, SyncPolicy};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn an_append_and_a_commit_allocate_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // No background threads: what they allocate now and then would be counted too.
    let log = Options::new().background(false).sync(SyncPolicy::manual()).open(dir.path()).unwrap();
    let work = || {
        for _ in 0..300 {
            log.commit(&[1; 128]).unwrap();
            log.commit_parts(&[IoSlice::new(&[1; 20]), IoSlice::new(&[2; 100])]).unwrap();
            log.append_batch([[3; 100]; 32].iter().filter(|record| record[0] == 3)).unwrap();
        }
        // Enough to be written out several times, and little enough to stay in one segment.
        for _ in 0..20_000 {
            log.append(&[2; 128]).unwrap();
        }
        log.sync().unwrap();
    };
    work();
    let region = Region::new(COUNTED);
    work();
    let change = region.change();
    assert_eq!(change.allocations + change.reallocations, 0, "{change:?}");
    assert_eq!(log.stats().rotations, 0);
}
