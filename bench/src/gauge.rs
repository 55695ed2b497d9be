//! What this process and the disk did meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use foreword_measure::sample::Latencies;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// How long things took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

impl From<&Latencies> for Latency {
    fn from(all: &Latencies) -> Latency {
        let at = |q| all.quantile(q).as_nanos() as u64;
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// Counters at one time, of which the difference counts.
pub struct Gauge {
    disk: Disk,
    cpu: Duration,
    counters: Option<Counters>,
    own: Option<u64>,
    at: Instant,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spent {
    pub seconds: f64,
    /// Of all threads, in the kernel too.
    pub cpu_seconds: f64,
    /// Of the whole disk, for all processes: the machine must be idle. `None` where the kernel does
    /// not count them.
    pub disk_flushes: Option<u64>,
    pub disk_written_bytes: Option<u64>,
    /// What this process gave the kernel to write: whole pages, however large, of the page cache.
    pub own_written_bytes: Option<u64>,
}

impl Gauge {
    /// Reads the counters, also those of the disk that a directory is on.
    pub fn start(dir: &Path) -> Gauge {
        let disk = Disk::of(dir);
        let counters = disk.read();
        Gauge { disk, counters, own: own_written(), cpu: cpu_time(), at: Instant::now() }
    }

    /// What happened since.
    pub fn spent(&self) -> Spent {
        let seconds = self.at.elapsed().as_secs_f64();
        let cpu_seconds = cpu_time().saturating_sub(self.cpu).as_secs_f64();
        let disk = self.counters.zip(self.disk.read());
        Spent {
            seconds,
            cpu_seconds,
            disk_flushes: disk.map(|(a, b)| b.flushes.saturating_sub(a.flushes)),
            disk_written_bytes: disk.map(|(a, b)| b.written_bytes.saturating_sub(a.written_bytes)),
            own_written_bytes: self.own.zip(own_written()).map(|(a, b)| b.saturating_sub(a)),
        }
    }
}

/// A disk, as the kernel counts what it does.
pub struct Disk {
    stat: Option<PathBuf>,
}

/// What a disk did since the machine started.
#[derive(Clone, Copy)]
pub struct Counters {
    pub flushes: u64,
    pub written_bytes: u64,
}

impl Disk {
    /// The disk that a directory is on.
    pub fn of(dir: &Path) -> Disk {
        let stat = rustix::fs::stat(dir).ok().map(|stat| {
            let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))
        });
        Disk { stat }
    }

    /// `None` where the kernel does not count.
    pub fn read(&self) -> Option<Counters> {
        let text = std::fs::read_to_string(self.stat.as_ref()?).ok()?;
        // Reads, merged, sectors, ms; writes, merged, sectors, ms; in flight, ms, ms; discards (4);
        // flushes, ms.
        let fields: Vec<u64> = text.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        Some(Counters { flushes: *fields.get(15)?, written_bytes: fields.get(6)? * 512 })
    }

    /// Waits until no process writes to it, but at most 5 s.
    pub fn settle(&self) {
        for _ in 0..200 {
            let before = self.read();
            std::thread::sleep(Duration::from_millis(25));
            let written = before.zip(self.read()).map(|(before, now)| now.written_bytes - before.written_bytes);
            if written.is_none_or(|bytes| bytes < 256 << 10) {
                return;
            }
        }
    }
}

fn own_written() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
}

/// Of this process, all its threads, in the kernel too.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Memory that is in use now, and the most that ever was, in bytes.
pub fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}
