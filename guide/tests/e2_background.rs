//! Exercise 2: `guide/exercises/e2_background.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use foreword_guide::e2_background::Syncer;

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(5);
/// So long a test waits for what should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

fn counter() -> (Arc<AtomicU32>, impl FnMut() -> io::Result<()> + Send + 'static) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    (calls, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    })
}

fn wait_for(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < PATIENCE, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 2: a sync in the background")]
fn it_syncs_again_and_again_and_not_after_it_stopped() {
    let (calls, sync) = counter();
    let syncer = Syncer::start(MOMENT, sync);
    wait_for(|| calls.load(Ordering::SeqCst) >= 3);
    syncer.stop().unwrap();
    let stopped_at = calls.load(Ordering::SeqCst);
    std::thread::sleep(10 * MOMENT);
    assert_eq!(calls.load(Ordering::SeqCst), stopped_at);
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 2: a sync in the background")]
fn stopping_does_not_wait_for_the_interval_and_syncs_a_last_time() {
    let (calls, sync) = counter();
    let syncer = Syncer::start(HOUR, sync);
    let started = Instant::now();
    syncer.stop().unwrap();
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "the last sync, and no other");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 2: a sync in the background")]
fn stopping_waits_for_the_sync_under_way_and_never_runs_beside_it() {
    let (inside, overlap, calls) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let sync = {
        let (inside, overlap, calls) = (inside.clone(), overlap.clone(), calls.clone());
        move || {
            overlap.fetch_or(inside.swap(true, Ordering::SeqCst), Ordering::SeqCst);
            std::thread::sleep(20 * MOMENT);
            inside.store(false, Ordering::SeqCst);
            calls.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    };
    let syncer = Syncer::start(MOMENT, sync);
    wait_for(|| inside.load(Ordering::SeqCst));
    syncer.stop().unwrap();
    assert!(!inside.load(Ordering::SeqCst) && !overlap.load(Ordering::SeqCst));
    assert!(calls.load(Ordering::SeqCst) >= 2, "the one under way, and the last");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 2: a sync in the background")]
fn the_first_error_ends_it_and_is_what_stop_returns() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let syncer = Syncer::start(MOMENT, move || match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(()),
        n => Err(io::Error::other(format!("failure {n}"))),
    });
    wait_for(|| calls.load(Ordering::SeqCst) >= 2);
    std::thread::sleep(10 * MOMENT);
    assert_eq!(syncer.stop().unwrap_err().to_string(), "failure 1");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "nothing is synced after a failure");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 2: a sync in the background")]
fn the_error_of_the_last_sync_is_not_lost() {
    let syncer = Syncer::start(HOUR, || Err(io::Error::other("the disk is gone")));
    assert_eq!(syncer.stop().unwrap_err().to_string(), "the disk is gone");
}

#[test]
#[cfg_attr(not(feature = "solutions"), ignore = "exercise 2: a sync in the background")]
fn dropping_stops_it_too() {
    let (calls, sync) = counter();
    {
        let _dropped = Syncer::start(HOUR, sync);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
