//! Background sync with a graceful stop: a timer makes records durable that no caller waits for,
//! and nothing is left behind at the end.
//!
//! The application only appends, at memory speed, and accepts that a crash may cost it the last few
//! milliseconds. What it must not accept is to lose them in an orderly shutdown, or never to hear
//! that the disk has failed.

use std::time::{Duration, Instant};

use foreword::{Log, Lsn, SyncPolicy};

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    // ANCHOR: open
    let log = Log::options()
        .sync(SyncPolicy::interval(Duration::from_millis(20)))
        .on_error(|told| eprintln!("the disk has failed, and nobody was waiting: {}", told.error))
        .open(dir.path())?;
    // ANCHOR_END: open

    // ANCHOR: work
    let started = Instant::now();
    let mut appended = 0u64;
    while started.elapsed() < Duration::from_millis(200) {
        log.append(format!("event {appended}").as_bytes())?;
        appended += 1;
        std::thread::sleep(Duration::from_micros(200));
    }
    let behind = log.last_lsn().0 - log.durable_lsn().0;
    println!("{appended} appends, {} background flushes, {behind} records not durable yet", log.stats().flushes);
    // ANCHOR_END: work

    // ANCHOR: close
    // Close stops the background thread (waiting for the flush it may be in), syncs
    // the rest, and only then returns.
    log.close()?;

    let log = Log::open(dir.path())?;
    println!("after reopening: {} records, verdict {:?}", log.last_lsn(), log.recovery().verdict);
    assert_eq!(log.last_lsn(), Lsn(appended));
    // ANCHOR_END: close
    Ok(())
}
