//! Three sync strategies compared on this disk: a flush for each record, one for each hundred, and
//! one at the end.
//!
//! What each may lose in a power failure: nothing; up to 99 records; everything since the start.
//! The figures depend on the disk: run it on yours, in release mode. (`foreword bench` does this
//! properly: interleaved, with latencies.)

use std::time::Instant;

use foreword::{Log, SyncPolicy};

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    const RECORDS: u32 = 1000;
    let record = [7; 128];
    let dir = tempfile::tempdir()?;
    let options = Log::options().segment_bytes(16 << 20).sync(SyncPolicy::manual());
    let mut rates = Vec::new();
    for (name, every) in [("a flush for each record", 1), ("a flush for each hundred", 100), ("one flush at the end", RECORDS)] {
        let log = options.open(dir.path().join(every.to_string()))?;
        let started = Instant::now();
        // ANCHOR: loop
        for i in 1..=RECORDS {
            log.append(&record)?;
            if i % every == 0 {
                log.sync()?;
            }
        }
        // ANCHOR_END: loop
        let rate = f64::from(RECORDS) / started.elapsed().as_secs_f64();
        println!("{name:<26} {rate:>12.0} records/s, {} flushes", log.stats().flushes);
        rates.push(rate);
        log.close()?;
    }
    println!("a flush for each hundred is {:.0} times as fast as one for each record", rates[1] / rates[0]);
    Ok(())
}
