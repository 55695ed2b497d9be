//! Group commit: 100 threads commit, and share the flushes. Beside it, the same from one thread.

use std::sync::Arc;
use std::time::Instant;

use foreword::Log;

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    const COMMITS: usize = 2000;
    let dir = tempfile::tempdir()?;
    let log = Arc::new(Log::options().segment_bytes(16 << 20).open(dir.path())?);
    for threads in [1, 100] {
        let (before, started) = (log.stats().flushes, Instant::now());
        // ANCHOR: commit
        let workers: Vec<_> = (0..threads)
            .map(|t| {
                let log = log.clone();
                std::thread::spawn(move || -> foreword::Result<()> {
                    for i in 0..COMMITS / threads {
                        let lsn = log.commit(format!("thread {t}, commit {i}").as_bytes())?;
                        assert!(log.durable_lsn() >= lsn, "durable when it returns");
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "a committer panicked")??;
        }
        // ANCHOR_END: commit
        let (flushes, took) = (log.stats().flushes - before, started.elapsed());
        println!(
            "{threads:>3} threads: {COMMITS} commits in {took:.0?}, {flushes} flushes, {:.1} commits a flush",
            COMMITS as f64 / flushes as f64
        );
    }
    let groups = log.stats().group_records;
    println!("largest group: at most {} records", groups.quantile(1.0));
    Ok(())
}
