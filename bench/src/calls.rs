//! How long each call of `Log`, `View` and `Store` takes at worst, under load: the tail that a mean
//! does not show.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use foreword::{Error, Log, Lsn, Options, SyncPolicy, View};
use foreword_pages::Store;

use crate::gauge;

/// Measures each call of `Log` and `View` beside busy appenders, and of `Store` beside busy
/// transactions: p50, p99, p99.9 and the worst; how late a view shows what is durable, and what an
/// idle one costs.
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

/// So many records stay behind the end when the front is truncated, and so many are cut off at the
/// back.
const KEPT: u64 = 5_000;
const CUT: u64 = 10;
/// The log is truncated only so often, in calls of each other kind: in the middle of segments, too,
/// while the next is prepared.
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

/// How long each call took.
type Taken = Vec<(&'static str, Vec<Duration>)>;

/// How many segments an idle view looks at.
const IDLE_SEGMENTS: u64 = 4_000;

fn note(taken: &mut Taken, name: &'static str, time: Duration) {
    match taken.iter_mut().find(|(other, _)| *other == name) {
        Some((_, times)) => times.push(time),
        None => taken.push((name, vec![time])),
    }
}

fn timed<T, E: Into<anyhow::Error>>(taken: &mut Taken, name: &'static str, call: impl FnOnce() -> Result<T, E>) -> Result<T> {
    let started = Instant::now();
    let result = call();
    note(taken, name, started.elapsed());
    result.map_err(Into::into).context(name)
}

/// The part of a processor that a view takes which waits for a log that is open and idle, of many
/// segments.
fn idle_view(dir: &std::path::Path) -> Result<f64> {
    let log = Options::new().segment_bytes(64 << 10).sync(SyncPolicy::manual()).open(dir)?;
    while log.stats().segments < IDLE_SEGMENTS {
        log.append(&[7; 16 << 10])?;
    }
    log.sync()?;
    let view = View::open(dir)?;
    let mut reader = view.reader_at(log.last_lsn().next());
    reader.wait_next(Some(Duration::from_secs(2)))?;
    let (cpu, started) = (gauge::cpu_time(), Instant::now());
    reader.wait_next(Some(Duration::from_secs(5)))?;
    Ok((gauge::cpu_time() - cpu).as_secs_f64() / started.elapsed().as_secs_f64())
}

impl Args {
    pub fn run(&self) -> Result<()> {
        let mut taken: Taken = CALLS.iter().map(|(name, _)| (*name, Vec::new())).collect();
        taken.push(("close", Vec::new()));
        for round in 0..self.rounds {
            let dir = self.dir.join(format!("foreword-calls-{}-{round}", std::process::id()));
            let measured = self.round(&dir, &mut taken);
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            measured?;
        }
        let dir = self.dir.join(format!("foreword-calls-{}", std::process::id()));
        let measured = self.views(&dir.join("view"), &mut taken).and_then(|()| self.store(&dir.join("store"), &mut taken));
        let idle = measured.and_then(|()| idle_view(&dir.join("idle")));
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        let idle = idle?;
        println!("| call | times | p50 | p99 | p99.9 | worst |\n|---|---:|---:|---:|---:|---:|");
        for (name, times) in &mut taken {
            println!("{}", row(name, times));
        }
        println!("A view that waits at the end of {IDLE_SEGMENTS} segments takes {:.2} % of a processor.", 100.0 * idle);
        Ok(())
    }

    /// The calls of a view of a log that appenders write, and how late it shows what is durable:
    /// where one commit follows another, and where none does.
    fn views(&self, dir: &std::path::Path, taken: &mut Taken) -> Result<()> {
        let log = Options::new().open(dir)?;
        log.commit(b"so that there is something to get")?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let record = vec![7; self.size];
                while !stop.load(Ordering::Relaxed) && (0..self.rate.div_ceil(1000)).all(|_| log.append(&record).is_ok()) {
                    let _ = log.sync();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let viewed = self.view_calls(dir, taken);
            stop.store(true, Ordering::Relaxed);
            viewed
        })?;
        for (what, pause) in [("a view shows it, one commit a millisecond", 1), ("a view shows it, one commit in 100 ms", 100)] {
            let mut reader = View::open(dir)?.reader_at(log.last_lsn().next());
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(self.seconds) {
                std::thread::scope(|scope| {
                    // When the view had it, and when the log said so.
                    let shown = scope.spawn(|| reader.wait_next(Some(Duration::from_secs(5))).map(|_| Instant::now()));
                    std::thread::sleep(Duration::from_millis(pause));
                    log.commit(b"durable")?;
                    let durable = Instant::now();
                    if pause == 1 {
                        std::thread::sleep(Duration::from_millis(pause));
                        log.commit(b"the next")?;
                    }
                    let shown = shown.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
                    note(taken, what, shown.saturating_duration_since(durable));
                    anyhow::Ok(())
                })?;
                if pause == 1 {
                    reader.seek(log.last_lsn().next());
                }
            }
        }
        Ok(log.close()?)
    }

    fn view_calls(&self, dir: &std::path::Path, taken: &mut Taken) -> Result<()> {
        let began = Instant::now();
        let view = View::open(dir)?;
        let mut reader = view.reader_at(view.last_lsn()?);
        while began.elapsed() < Duration::from_secs(self.seconds * u64::from(self.rounds)) {
            timed(taken, "View: open", || View::open(dir))?;
            let last = timed(taken, "View: last_lsn", || view.last_lsn())?;
            timed(taken, "View: get", || view.get(last))?;
            timed(taken, "View: start_lsn", || anyhow::Ok(view.start_lsn()))?;
            timed(taken, "View: has_writer", || anyhow::Ok(view.has_writer()))?;
            timed(taken, "View: holds", || anyhow::Ok(view.holds()?))?;
            for _ in 0..20 {
                timed(taken, "View: next", || reader.next().map(drop))?;
            }
            reader.seek(last);
            timed(taken, "View: wait_next", || reader.wait_next(Some(Duration::from_secs(1))).map(drop))?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The calls of a page store, beside transactions of two other threads.
    fn store(&self, dir: &std::path::Path, taken: &mut Taken) -> Result<()> {
        const PAGES: usize = 512;
        let store = Store::open(dir)?;
        let mut txn = store.begin();
        let pages = (0..PAGES).map(|_| txn.allocate()).collect::<Result<Vec<_>, _>>()?;
        txn.commit()?;
        let stop = AtomicBool::new(false);
        let change = |thread: usize| -> foreword_pages::Result<()> {
            for turn in 0usize.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut txn = store.begin();
                for i in 0..4 {
                    txn.update(pages[(turn * 31 + i * 7) % PAGES], 64 * thread, &turn.to_le_bytes())?;
                }
                txn.commit()?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others = [1, 2].map(|thread| scope.spawn(move || change(thread)));
            let called = self.store_calls(&store, &pages, taken);
            stop.store(true, Ordering::Relaxed);
            for other in others {
                other.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            called
        })?;
        timed(taken, "Store: close", || store.close())
    }

    fn store_calls(&self, store: &Store, pages: &[foreword_pages::PageId], taken: &mut Taken) -> Result<()> {
        let began = Instant::now();
        for turn in 0usize.. {
            if began.elapsed() > Duration::from_secs(self.seconds * u64::from(self.rounds)) {
                break;
            }
            let page = |i: usize| pages[(turn * 13 + i) % pages.len()];
            let mut txn = timed(taken, "Store: begin", || anyhow::Ok(store.begin()))?;
            timed(taken, "Store: update", || txn.update(page(0), 0, &turn.to_le_bytes()))?;
            timed(taken, "Store: allocate", || txn.allocate())?;
            timed(taken, "Store: abort", || txn.abort())?;
            let mut txn = store.begin();
            txn.update(page(1), 0, &turn.to_le_bytes())?;
            timed(taken, "Store: commit", || txn.commit())?;
            timed(taken, "Store: read", || store.read(page(2)).map(drop))?;
            timed(taken, "Store: stats", || anyhow::Ok(store.stats()))?;
            if turn % 100 == 99 {
                timed(taken, "Store: checkpoint", || store.checkpoint())?;
            }
            if turn % 1000 == 999 {
                timed(taken, "Store: checkpoint_all", || store.checkpoint_all())?;
            }
        }
        Ok(())
    }

    fn round(&self, dir: &std::path::Path, taken: &mut [(&'static str, Vec<Duration>)]) -> Result<()> {
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

    fn call_all(&self, log: &Log, taken: &mut [(&'static str, Vec<Duration>)]) -> Result<()> {
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
