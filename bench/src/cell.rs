//! One measurement: one contestant, one workload, once. It has a process of its own, so that no
//! contestant inherits another's memory, threads or open files, and one that hangs or aborts takes
//! nothing with it.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use foreword::{Lsn, SyncPolicy, View, inspect};
use foreword_measure::load;
use foreword_measure::sample::Latencies;

use crate::files::{chill, sync_file_system, warm};
use crate::floor;
use crate::gauge::{self, Gauge, Spent};
use crate::marked;
use crate::outcome::{Outcome, WARM_UP};
use crate::payload;
use crate::peers::{self, Feature, Log, Need, Peer, Writer};
use crate::window::Window;
use crate::workload::{BATCH, Workload};

/// What such a process is to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Job {
    #[arg(long)]
    pub peer: String,
    #[arg(long)]
    pub workload: Workload,
    #[arg(long)]
    pub step: Step,
    /// The contestant's directory; empty, or what an earlier step left.
    #[arg(long)]
    pub dir: PathBuf,
    #[arg(long)]
    pub seconds: f64,
    /// Where the result goes, as JSON. (Some peers print.)
    #[arg(long)]
    pub out: PathBuf,
}

/// The steps of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// Makes the log that the measurement is about, once for all repetitions.
    Build,
    /// Leaves it unclosed, as a process that is killed does; before each repetition.
    Kill,
    Measure,
    /// Commits that can be told apart in a trace.
    Honest,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Build => "build",
            Step::Kill => "kill",
            Step::Measure => "measure",
            Step::Honest => "honest",
        })
    }
}

/// Segments so short that many get full, and time enough for it: so many times that of other
/// measurements.
const ROTATE_AFTER: u64 = 1 << 20;
const ROTATE_FOR: f64 = 20.0;

impl Job {
    /// Does it, in this process.
    pub fn run(&self) -> Result<()> {
        let peer = peers::find(&self.peer)?;
        let outcome = match (self.step, self.workload) {
            (Step::Build, Workload::Recover { bytes, size, .. }) => self.build(peer, bytes, size).map(|()| None),
            (Step::Build, Workload::Open { bytes, .. }) => self.build(peer, bytes, 4 << 10).map(|()| None),
            (Step::Build, _) => Ok(None),
            (Step::Kill, _) => self.kill(peer).map(|()| None),
            (Step::Honest, Workload::Commit { threads, .. }) => self.honest(peer, threads).map(|()| None),
            (Step::Honest, _) => Err(anyhow!("commits only")),
            (Step::Measure, _) if peer.is_floor() => floor::measure(peer, self.workload, &self.dir, self.seconds).map(Some),
            (Step::Measure, Workload::Recover { bytes, cold, .. }) => self.recover(peer, bytes, cold).map(Some),
            (Step::Measure, Workload::Open { .. }) => self.open(peer).map(Some),
            (Step::Measure, Workload::Tail { threads, size, view }) => self.tail(threads, size, view).map(Some),
            (Step::Measure, Workload::Rotate { threads, size }) => self.rotate(threads, size).map(Some),
            (Step::Measure, _) => self.write(peer).map(Some),
        };
        let process_cpu_seconds = gauge::cpu_time().as_secs_f64();
        let outcome = outcome?.map(|outcome| Outcome { process_cpu_seconds, ..outcome });
        std::fs::write(&self.out, serde_json::to_vec(&outcome)?).with_context(|| format!("write {}", self.out.display()))
    }

    /// Everything that is about writing.
    fn write(&self, peer: &Peer) -> Result<Outcome> {
        let (memory_before, _) = gauge::memory();
        let log = (peer.open)(&self.dir, self.workload.need(self.seconds))?;
        // What it wrote to prepare is not to be flushed by its first commit.
        sync_file_system(&self.dir)?;
        let outcome = match self.workload {
            Workload::Commit { threads, size } => {
                self.threads(&*log, threads, 1, |writer, i| writer.commit(payload::record(size, i)))?
            }
            Workload::Batch { threads, size } => self.threads(&*log, threads, BATCH, |writer, i| {
                let batch: [&[u8]; BATCH] = std::array::from_fn(|k| payload::record(size, i * BATCH + k));
                writer.commit_batch(&batch)
            })?,
            Workload::Async { in_flight, size } => self.window(&*log, in_flight, size)?,
            Workload::Append { threads, size } => self.append(&*log, threads, size)?,
            _ => unreachable!("it does not write"),
        };
        let (_, memory_peak) = gauge::memory();
        // Closing is not measured; but it ends in order, or the figures are worth nothing.
        log.close()?;
        Ok(Outcome { memory_before, memory_peak, ..outcome })
    }

    /// So many threads that commit one after the other; so many records at a time.
    fn threads(
        &self,
        log: &dyn Log,
        threads: usize,
        records: usize,
        commit: impl Fn(&mut dyn Writer, usize) -> Result<()> + Sync,
    ) -> Result<Outcome> {
        let run = |seconds: f64| {
            load::closed(threads, Duration::from_secs_f64(seconds), |thread| {
                let commit = &commit;
                let mut writer = log.writer(thread);
                let mut i = thread;
                move || {
                    i += threads;
                    commit(writer.as_mut().map_err(|e| anyhow!("{e:#}"))?.as_mut(), i)
                }
            })
        };
        run(self.seconds * WARM_UP)?;
        let (gauge, before) = (Gauge::start(&self.dir), log.flushes());
        let done = run(self.seconds)?;
        let (spent, flushes) = (gauge.spent(), since(log, before));
        Ok(Outcome {
            records: done.count * records as u64,
            spent,
            latency: Some((&done.latencies).into()),
            flushes,
            ..Outcome::default()
        })
    }

    /// One thread with commits in flight.
    fn window(&self, log: &dyn Log, in_flight: usize, size: usize) -> Result<Outcome> {
        let run = |seconds: f64| {
            let mut window = Window::new(in_flight, size, Duration::from_secs_f64(seconds));
            log.writer(0)?.commit_window(&mut window)?;
            anyhow::Ok(window.latencies)
        };
        run(self.seconds * WARM_UP)?;
        let (gauge, before) = (Gauge::start(&self.dir), log.flushes());
        let latencies = run(self.seconds)?;
        let (spent, flushes) = (gauge.spent(), since(log, before));
        Ok(Outcome { records: latencies.count(), spent, latency: Some((&latencies).into()), flushes, ..Outcome::default() })
    }

    /// Threads that append, for a time, and then sync.
    fn append(&self, log: &dyn Log, threads: usize, size: usize) -> Result<Outcome> {
        let (gauge, before) = (Gauge::start(&self.dir), log.flushes());
        let started = Instant::now();
        let appended: Vec<(usize, Duration)> = std::thread::scope(|scope| {
            let thread = |thread| scope.spawn(move || self.append_until_end(log.writer(thread)?, size, started));
            let running: Vec<_> = (0..threads).map(thread).collect();
            running.into_iter().map(joined).collect::<Result<_>>()
        })?;
        let (spent, flushes) = (gauge.spent(), since(log, before));
        let records = appended.iter().map(|(records, _)| *records as u64).sum();
        let append_seconds = appended.iter().map(|(_, took)| took.as_secs_f64()).reduce(f64::max);
        Ok(Outcome { records, spent, append_seconds, flushes, ..Outcome::default() })
    }

    /// One of them: how many records, and when the last append returned.
    fn append_until_end(
        &self,
        mut writer: Box<dyn Writer + Send + '_>,
        size: usize,
        started: Instant,
    ) -> Result<(usize, Duration)> {
        // The clock is looked at each 64 KiB: it is the log that is measured.
        let every = ((64 << 10) / size).max(1);
        let end = Duration::from_secs_f64(self.seconds);
        let mut appended = Duration::ZERO;
        let mut records = 0;
        writer.append_all(&mut || {
            if records % every == 0 {
                appended = started.elapsed();
            }
            if appended >= end {
                return None;
            }
            records += 1;
            Some(payload::record(size, records))
        })?;
        Ok((records, appended))
    }

    /// Makes a log of so many bytes.
    fn build(&self, peer: &Peer, bytes: u64, size: usize) -> Result<()> {
        if peer.is_floor() {
            return Ok(());
        }
        let log = (peer.open)(&self.dir, Need { bytes })?;
        let mut left = (0..bytes as usize / size).map(|i| payload::record(size, i));
        let mut writer = log.writer(0)?;
        if peer.lacks(Feature::Append).is_none() {
            writer.append_all(&mut || left.next())?;
        } else {
            loop {
                let batch: Vec<&[u8]> = left.by_ref().take(1000).collect();
                if batch.is_empty() {
                    break;
                }
                writer.commit_batch(&batch)?;
            }
        }
        drop(writer);
        log.close()
    }

    /// Commits a little more, and ends without closing.
    fn kill(&self, peer: &Peer) -> Result<()> {
        let log = (peer.open)(&self.dir, Need { bytes: 0 })?;
        let mut writer = log.writer(0)?;
        (0..100).try_for_each(|i| writer.commit(payload::record(1 << 10, i)))?;
        drop(writer);
        std::mem::forget(log);
        Ok(())
    }

    fn honest(&self, peer: &Peer, threads: usize) -> Result<()> {
        let log = (peer.open)(&self.dir, Need { bytes: 1 << 20 })?;
        marked::commit_all(&*log, threads)?;
        log.close()
    }

    fn recover(&self, peer: &Peer, bytes: u64, cold: bool) -> Result<Outcome> {
        if cold {
            chill(&self.dir)?
        } else {
            warm(&self.dir)?
        }
        let (memory_before, _) = gauge::memory();
        let read = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let take = {
            let read = read.clone();
            // (One thread adds, so it need not be done in one step.)
            let add = |to: &AtomicU64, n| to.store(to.load(Ordering::Relaxed) + n, Ordering::Relaxed);
            move |record: &[u8]| {
                add(&read.0, 1);
                add(&read.1, std::hint::black_box(record).len() as u64);
            }
        };
        let gauge = Gauge::start(&self.dir);
        (peer.read)(&self.dir, Box::new(take))?;
        let spent = gauge.spent();
        let (_, memory_peak) = gauge::memory();
        let (records, read) = (read.0.load(Ordering::Relaxed), read.1.load(Ordering::Relaxed));
        ensure!(read == bytes, "{bytes} bytes were written, and {read} read");
        Ok(Outcome { records, spent, memory_before, memory_peak, ..Outcome::default() })
    }

    fn open(&self, peer: &Peer) -> Result<Outcome> {
        let (memory_before, _) = gauge::memory();
        let gauge = Gauge::start(&self.dir);
        let log = (peer.open)(&self.dir, Need { bytes: 0 })?;
        let spent = gauge.spent();
        let (_, memory_peak) = gauge::memory();
        log.close()?;
        Ok(Outcome { records: 1, spent, memory_before, memory_peak, ..Outcome::default() })
    }

    /// Threads commit, and the log goes on in another segment each time that it has got one full.
    fn rotate(&self, threads: usize, size: usize) -> Result<Outcome> {
        let (memory_before, _) = gauge::memory();
        let log = foreword::Options::new().segment_bytes(ROTATE_AFTER).sync(SyncPolicy::manual()).open(&self.dir)?;
        sync_file_system(&self.dir)?;
        // The LSNs and times of all; which of them met a rotation is known when the segments are.
        let commits = Mutex::new(Vec::new());
        let gauge = Gauge::start(&self.dir);
        let done = load::closed(threads, Duration::from_secs_f64(self.seconds * ROTATE_FOR), |thread| {
            let (log, commits) = (&log, &commits);
            let mut i = thread;
            move || {
                i += threads;
                let started = Instant::now();
                let lsn = log.commit(payload::record(size, i))?;
                commits.lock().unwrap_or_else(PoisonError::into_inner).push((lsn, started.elapsed()));
                anyhow::Ok(())
            }
        })?;
        let (spent, (_, memory_peak)) = (gauge.spent(), gauge::memory());
        let flushes = log.stats().flushes;
        log.close()?;
        // The first record of a segment, and those that were committed together with it.
        let begins: Vec<Lsn> = inspect::segments(&self.dir)?.iter().filter_map(|s| Some(s.lsns?.0)).skip(1).collect();
        let (mut at_rotation, mut elsewhere) = (Latencies::new(), Latencies::new());
        for (lsn, took) in commits.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let last = begins.partition_point(|&begin| begin <= lsn).checked_sub(1).map(|i| begins[i]);
            let met = last.is_some_and(|begin| lsn.0 - begin.0 < threads as u64);
            if met { &mut at_rotation } else { &mut elsewhere }.record(took);
        }
        Ok(Outcome {
            records: done.count,
            spent,
            latency: Some((&elsewhere).into()),
            at_rotation: Some((&at_rotation).into()),
            flushes: Some(flushes),
            memory_before,
            memory_peak,
            ..Outcome::default()
        })
    }

    /// Threads commit, and a reader follows.
    fn tail(&self, threads: usize, size: usize, view: bool) -> Result<Outcome> {
        // When a record was acknowledged, and when it was read, by LSN; so many there may be.
        let most = (self.seconds * 400e3) as usize;
        let times = |n| (0..n).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        let (acknowledged, delivered) = (times(most), times(most));
        let (before, _) = gauge::memory();
        let log = foreword::Options::new().open(&self.dir)?;
        sync_file_system(&self.dir)?;
        let started = Instant::now();
        let nanos = || started.elapsed().as_nanos() as u64 + 1;
        let end = started + Duration::from_secs_f64(self.seconds);
        let gauge = Gauge::start(&self.dir);
        let last = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        let spent = std::thread::scope(|scope| -> Result<Spent> {
            let reader = scope.spawn(|| -> Result<()> {
                let mut reader = if view { View::open(&self.dir)?.reader_at(Lsn::FIRST) } else { log.reader() };
                let (mut seen, mut over_since) = (0, None);
                loop {
                    let lsn = reader.wait_next(Some(Duration::from_millis(50)))?.map_or(0, |record| record.lsn.0);
                    if let Some(place) = delivered.get(lsn as usize).filter(|_| lsn > 0) {
                        place.store(nanos(), Ordering::Relaxed);
                    }
                    seen = lsn.max(seen);
                    // Through the files the last record is seen when the idle log has said that it
                    // is durable.
                    if over.load(Ordering::Acquire)
                        && (seen >= last.load(Ordering::Relaxed)
                            || over_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(5))
                    {
                        return Ok(());
                    }
                }
            });
            let writers: Vec<_> = (0..threads)
                .map(|thread| {
                    let (log, acknowledged, last) = (&log, &acknowledged, &last);
                    scope.spawn(move || -> Result<()> {
                        let mut i = thread;
                        while Instant::now() < end {
                            let lsn = log.commit(payload::record(size, i))?.0;
                            if let Some(place) = acknowledged.get(lsn as usize) {
                                place.store(nanos(), Ordering::Relaxed);
                            }
                            last.fetch_max(lsn, Ordering::Relaxed);
                            i += threads;
                        }
                        Ok(())
                    })
                })
                .collect();
            for writer in writers {
                joined(writer)?;
            }
            let spent = gauge.spent();
            over.store(true, Ordering::Release);
            joined(reader)?;
            Ok(spent)
        })?;
        let last = last.into_inner();
        ensure!((last as usize) < most, "more records than there is room for");
        let mut lag = Latencies::new();
        for lsn in 1..=last as usize {
            let read = delivered[lsn].load(Ordering::Relaxed);
            ensure!(read > 0, "the reader never saw record {lsn} of {last}");
            // (A reader may be told before the committer is.)
            let nanos = read.saturating_sub(acknowledged[lsn].load(Ordering::Relaxed));
            lag.record(Duration::from_nanos(nanos));
        }
        let (_, peak) = gauge::memory();
        Ok(Outcome {
            records: last,
            spent,
            latency: Some((&lag).into()),
            memory_before: before,
            memory_peak: peak,
            ..Outcome::default()
        })
    }
}

/// Flushes since then, if it counts them.
fn since(log: &dyn Log, before: Option<u64>) -> Option<u64> {
    log.flushes().zip(before).map(|(now, before)| now - before)
}

/// What a thread returned.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
