//! One measurement of a store, in a process of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use foreword_measure::load;
use serde::{Deserialize, Serialize};

use super::contestants;
use super::stores::Store;
use crate::files::sync_file_system;
use crate::gauge::{self, Gauge};
use crate::outcome::WARM_UP;
use crate::payload;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Threads that append an entry, wait until it is durable, and append the next.
    Append {
        threads: usize,
        groups: u64,
        size: usize,
        /// So many groups more, which have entries and do nothing.
        laggards: u64,
    },
    /// Opening so many groups with so many entries of 1 KiB each, whose files are in the page cache,
    /// or on the disk alone.
    Open { groups: u64, entries: u64, cached: bool },
}

impl Task {
    pub fn groups(&self) -> u64 {
        match *self {
            Task::Append { groups, laggards, .. } => groups + laggards,
            Task::Open { groups, .. } => groups,
        }
    }
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Entries appended, or opened.
    pub entries: u64,
    pub seconds: f64,
    /// Of an append.
    pub p50: f64,
    pub p99: f64,
    /// What was written to the disk meanwhile, if it has a counter. (What the kernel counts for a
    /// process is the size of what it changed in the page cache: a page of 2 MiB for a byte.)
    pub written: Option<u64>,
    /// What the directory takes on the disk at the end.
    pub space: u64,
    /// What the process had in memory when it was open, beyond what it had before.
    pub memory: u64,
}

/// The process's arguments.
#[derive(clap::Args)]
pub struct Part {
    #[arg(long)]
    store: String,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_parser = |task: &str| serde_json::from_str::<Task>(task))]
    task: Task,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    build: bool,
    #[arg(long)]
    out: PathBuf,
}

/// A group's last entries that are kept; so often it is purged.
const KEPT: u64 = 32;

/// The entries of a laggard.
const LAGGING: u64 = 1_000;

impl Part {
    pub fn run(&self) -> Result<()> {
        let store = contestants::find(&self.store)?;
        let (before, _) = gauge::memory();
        let started = Instant::now();
        let open = (store.open)(&self.dir, matches!(self.task, Task::Append { .. }))?;
        let seconds = started.elapsed().as_secs_f64();
        let measured = match self.task {
            Task::Open { groups, entries, .. } if self.build => {
                open.fill(0..groups, entries)?;
                Measured::default()
            }
            Task::Open { groups, entries, .. } => {
                let memory = gauge::memory().0.saturating_sub(before);
                Measured { entries: groups * entries, seconds, memory, ..Measured::default() }
            }
            Task::Append { threads, groups, size, laggards } => self.append(&*open, threads, groups, size, laggards)?,
        };
        let measured = Measured { space: space(&self.dir)?, ..measured };
        open.close()?;
        std::fs::write(&self.out, serde_json::to_vec(&measured)?).with_context(|| format!("write {}", self.out.display()))
    }

    fn append(&self, store: &dyn Store, threads: usize, groups: u64, size: usize, laggards: u64) -> Result<Measured> {
        // All groups are there, and have an entry, before anything is measured.
        store.fill(0..groups, 1)?;
        store.fill(groups..groups + laggards, LAGGING)?;
        let lanes: Vec<Lane> = (0..groups).map(Lane::new).collect();
        sync_file_system(&self.dir)?;
        let over = AtomicBool::new(false);
        let run = |seconds: f64| {
            load::closed(threads, Duration::from_secs_f64(seconds), |thread| {
                let lanes = &lanes;
                let mut i = 0;
                move || {
                    let of_thread = lanes.len().div_ceil(threads).max(1);
                    let at = (thread + threads * (i % of_thread)) % lanes.len();
                    i += 1;
                    lanes[at].append(store, payload::record(size, i))
                }
            })
        };
        let seconds = if laggards > 0 { 5.0 * self.seconds } else { self.seconds };
        std::thread::scope(|scope| {
            let tidy = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    store.tidy()?;
                    std::thread::sleep(Duration::from_millis(250));
                }
                anyhow::Ok(())
            });
            let measured = run(seconds * WARM_UP).and_then(|_| {
                let gauge = Gauge::start(&self.dir);
                let done = run(seconds)?;
                let (spent, at) = (gauge.spent(), |q| done.latencies.quantile(q).as_secs_f64());
                Ok(Measured {
                    entries: done.count,
                    seconds: spent.seconds,
                    p50: at(0.5),
                    p99: at(0.99),
                    written: spent.disk_written_bytes,
                    ..Measured::default()
                })
            });
            over.store(true, Ordering::Relaxed);
            tidy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            measured
        })
    }
}

/// A group, as its threads share it.
struct Lane {
    group: u64,
    /// Entries of threads that wait for the append under way, and how many ever came.
    waiting: Mutex<(Vec<&'static [u8]>, u64)>,
    /// The next index, and how many of those that came are durable.
    written: Mutex<(u64, u64)>,
}

impl Lane {
    fn new(group: u64) -> Lane {
        Lane { group, waiting: Mutex::default(), written: Mutex::new((2, 0)) }
    }

    fn append(&self, store: &dyn Store, entry: &'static [u8]) -> Result<()> {
        if store.pipelines() {
            let mut written = lock(&self.written);
            let pending = store.append(self.group, written.0, &[entry], purged(written.0, 1))?;
            written.0 += 1;
            drop(written);
            return pending.wait();
        }
        let number = {
            let mut waiting = lock(&self.waiting);
            waiting.0.push(entry);
            waiting.1 += 1;
            waiting.1
        };
        let mut written = lock(&self.written);
        if written.1 >= number {
            return Ok(()); // Another thread took it along.
        }
        let (batch, last) = {
            let mut waiting = lock(&self.waiting);
            (std::mem::take(&mut waiting.0), waiting.1)
        };
        let count = batch.len() as u64;
        store.append(self.group, written.0, &batch, purged(written.0, count))?.wait()?;
        *written = (written.0 + count, last);
        Ok(())
    }
}

/// Up to where a group is purged by an append of so many entries from an index on.
fn purged(first: u64, count: u64) -> Option<u64> {
    let last = first + count - 1;
    (first.div_ceil(KEPT) != (last + 1).div_ceil(KEPT))
        .then(|| last.saturating_sub(KEPT).min(first - 1))
        .filter(|&index| index > 0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a directory takes on the disk.
fn space(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            space(&entry.path())?
        } else {
            rustix::fs::stat(entry.path())?.st_blocks as u64 * 512
        };
    }
    Ok(bytes)
}
