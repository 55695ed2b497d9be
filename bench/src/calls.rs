//! How long each call of `Log` takes at worst, beside busy appenders: the tail that a mean does not show.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use foreword::{Error, Log, Lsn, Options};

/// Measures each call of `Log` beside busy appenders: p50, p99, p99.9 and the worst.
#[derive(clap::Args)]
pub struct Args {
    /// Where the log is made, on the disk to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many seconds each of the rounds takes (a round ends with a close).
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Threads that append all the time.
    #[arg(long, default_value_t = 4)]
    appenders: usize,
    /// How many records they append a second, together, in small bursts.
    #[arg(long, default_value_t = 20_000)]
    rate: usize,
    /// The bytes of their records.
    #[arg(long, default_value_t = 50)]
    size: usize,
}

/// So many records stay behind the end when the front is truncated, and so many are cut off at the back.
const KEPT: u64 = 5_000;
const CUT: u64 = 10;
/// The log is truncated only so often, in calls of each other kind: in the middle of segments, too, while the next is prepared.
const TRUNCATE_EVERY: usize = 500;

type Call = fn(&Log, Lsn) -> foreword::Result<()>;

/// Each is given the last LSN.
const CALLS: [(&str, Call); 14] = [
    ("append", |log, _| log.append(&[7; 128]).map(drop)),
    ("try_append", |log, _| log.try_append(&[7; 128]).map(drop)),
    ("commit", |log, _| log.commit(&[7; 128]).map(drop)),
    ("commit_async", |log, _| log.commit_async(&[7; 128]).map(drop)),
    ("write", |log, _| log.write().map(drop)),
    ("sync", |log, _| log.sync().map(drop)),
    ("sync_to", |log, last| log.sync_to(last)),
    ("wait_durable", |log, _| log.wait_durable(log.durable_lsn(), None).map(drop)),
    ("hold", |log, last| log.hold("bench", last)),
    ("release", |log, _| log.release("bench").map(drop)),
    ("truncate_front", |log, last| log.truncate_front(Lsn(last.0.saturating_sub(KEPT))).map(drop)),
    ("truncate_back", |log, last| log.truncate_back(Lsn(last.0.saturating_sub(CUT)))),
    ("get", |log, _| log.get(log.durable_lsn()).map(drop)),
    ("stats", |log, _| {
        let _ = log.stats();
        Ok(())
    }),
];

impl Args {
    pub fn run(&self) -> Result<()> {
        let mut taken: Vec<(&str, Vec<Duration>)> = CALLS.iter().map(|(name, _)| (*name, Vec::new())).collect();
        taken.push(("close", Vec::new()));
        for round in 0..self.rounds {
            let dir = self.dir.join(format!("foreword-calls-{}-{round}", std::process::id()));
            let measured = self.round(&dir, &mut taken);
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            measured?;
        }
        println!("| call | times | p50 | p99 | p99.9 | worst |\n|---|---:|---:|---:|---:|---:|");
        for (name, times) in &mut taken {
            println!("{}", row(name, times));
        }
        Ok(())
    }

    fn round(&self, dir: &std::path::Path, taken: &mut [(&str, Vec<Duration>)]) -> Result<()> {
        let log = Options::new().open(dir)?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..self.appenders {
                scope.spawn(|| {
                    let record = vec![7; self.size];
                    let burst = self.rate.div_ceil(self.appenders * 1000);
                    while !stop.load(Ordering::Relaxed) && (0..burst).all(|_| log.append(&record).is_ok()) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            let called = self.call_all(&log, taken);
            stop.store(true, Ordering::Relaxed);
            called
        })?;
        log.sync()?; // Nothing is left to be flushed by the close.
        let started = Instant::now();
        log.close()?;
        if let Some((_, times)) = taken.last_mut() {
            times.push(started.elapsed());
        }
        Ok(())
    }

    fn call_all(&self, log: &Log, taken: &mut [(&str, Vec<Duration>)]) -> Result<()> {
        let began = Instant::now();
        log.commit(b"so that there is something to get")?;
        for turn in 1.. {
            if began.elapsed() > Duration::from_secs(self.seconds) {
                break;
            }
            for ((name, call), (_, times)) in CALLS.iter().zip(taken.iter_mut()) {
                if name.starts_with("truncate") && turn % TRUNCATE_EVERY != 0 {
                    continue;
                }
                let last = log.last_lsn();
                let started = Instant::now();
                let result = call(log, last);
                times.push(started.elapsed());
                match result {
                    // That it is busy is an answer; and what was the last may be cut by then.
                    Ok(()) | Err(Error::Busy | Error::NotAppended { .. }) => {}
                    Err(error) => return Err(error).context(*name),
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn row(name: &str, times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |q: f64| {
        let index = ((times.len() as f64 * q).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).map_or("-".to_owned(), |time| span(*time))
    };
    format!("| `{name}` | {} | {} | {} | {} | {} |", times.len(), at(0.5), at(0.99), at(0.999), at(1.0))
}

fn span(time: Duration) -> String {
    match time.as_nanos() as f64 / 1e3 {
        us if us < 10.0 => format!("{us:.1} µs"),
        us if us < 1000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.0} ms", us / 1e3),
    }
}
