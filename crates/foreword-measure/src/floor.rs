//! The raw durable write: no log on this disk can be faster.
//!
//! A [`Probe`] is a file in one [`FileState`] that is written block behind block, each made durable
//! by one [`Method`] before the next (or with a few in flight). It is measured in short
//! [bursts](Probe::burst), so that several can be interleaved. [`Floor`] is the best of them for a
//! log: one thread, a zero-filled file, the method that is fastest on this disk. [`Bandwidth`] is
//! the rate of large writes.

mod bandwidth;
mod files;
mod strategy;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::bandwidth::Bandwidth;
pub use self::files::DIRECT_ALIGN;
use self::files::{Buffer, FILL_BYTES, allocate, create, fill, open_direct, sync_range, write_all_at, write_dsync};
pub use self::strategy::{FileState, Method, Strategy};
use crate::error::{Doing, Error, Result};
use crate::load::{self, Outcome};
use crate::sample::Latencies;

/// Of what size writes are, and how many are under way at once (each from a thread of its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Shape {
    /// Bytes of a write.
    pub block_bytes: usize,
    /// Writes under way at once; each is durable before its thread begins another.
    pub in_flight: usize,
}

/// What a burst gave.
#[derive(Clone, Debug, Serialize)]
pub struct Burst {
    /// How long each durable write took; in a [group](Probe::group), each thread's wait for one.
    pub latencies: Latencies,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// How many bytes became durable.
    pub bytes: u64,
}

impl Burst {
    /// Durable writes a second; in a group, as many for each as it has members.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.seconds.max(1e-9)
    }

    /// Bytes a second.
    #[must_use]
    pub fn bandwidth(&self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }
}

/// A file that is written by one strategy. Removed when this is dropped.
#[derive(Debug)]
pub struct Probe {
    strategy: Strategy,
    path: PathBuf,
    file: File,
    direct: Option<File>,
    file_bytes: u64,
    /// Where the next block goes.
    at: u64,
}

impl Probe {
    /// Makes a file of `bytes` bytes (some 64 MiB; it is used again when it is full) in a
    /// directory, in the strategy's state. That takes as long as writing it.
    ///
    /// # Errors
    /// If it cannot be made; [`Error::is_unsupported`] if the strategy cannot be had here.
    pub fn open(dir: &Path, strategy: Strategy, file_bytes: u64) -> Result<Probe> {
        let (path, file) = create(dir)?;
        let mut probe = Probe { strategy, path, file, direct: None, file_bytes, at: 0 };
        if matches!(strategy.method, Method::DirectDsync | Method::DirectOnly) {
            probe.direct = Some(open_direct(&probe.path, false)?);
        }
        probe.prepare(true)?;
        // Whether the method is known here shows at the first write.
        probe.burst(Shape { block_bytes: DIRECT_ALIGN, in_flight: 1 }, Duration::ZERO)?;
        Ok(probe)
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Writes durably for a time (or to the end of the file, if that comes first), at least once
    /// from each thread. Bringing the file into its state again, if need be, is not measured.
    ///
    /// # Errors
    /// If a write or flush fails.
    pub fn burst(&mut self, shape: Shape, time: Duration) -> Result<Burst> {
        let next = self.ready(shape)?;
        let (probe, block_bytes) = (&*self, shape.block_bytes);
        let Outcome { latencies, seconds, .. } = load::together(vec![(); shape.in_flight.max(1)], |(), start, stop| {
            let mut block = Buffer::random(block_bytes);
            let mut latencies = Latencies::new();
            let started = start();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if !probe.write_next(&next, &mut block)? {
                    break;
                }
                latencies.record(begun.elapsed());
                if started.elapsed() >= time {
                    break;
                }
            }
            Ok(latencies)
        })?;
        let bytes = latencies.count() * block_bytes as u64;
        self.at += bytes;
        Ok(Burst { latencies, seconds, bytes })
    }

    /// The rate of an empty group commit: a number of threads, of which the last
    /// to come writes one block durably for all and wakes them (by one call). A latency is one
    /// thread's: its wait for the others, the write, and its waking. For a time, or to the end of
    /// the file, at least once.
    ///
    /// # Errors
    /// If a write or flush fails.
    pub fn group(&mut self, members: usize, block_bytes: usize, time: Duration) -> Result<Burst> {
        let next = self.ready(Shape { block_bytes, in_flight: 1 })?;
        let (probe, block) = (&*self, Mutex::new(Buffer::random(block_bytes)));
        let (arrived, round, over) = (AtomicUsize::new(0), AtomicU32::new(0), AtomicBool::new(false));
        // The leader alone ends the burst: the others would wait for a thread that left earlier.
        let lead = |started: Instant| {
            let mut block = block.lock().unwrap_or_else(PoisonError::into_inner);
            let written = probe.write_next(&next, &mut block);
            let room = next.load(Ordering::Relaxed) + block_bytes as u64 <= probe.file_bytes;
            over.store(written.is_err() || started.elapsed() >= time || !room, Ordering::Relaxed);
            written
        };
        let Outcome { latencies, seconds, .. } = load::together(vec![(); members.max(1)], |(), start, _| {
            let mut latencies = Latencies::new();
            let started = start();
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let mine = round.load(Ordering::Acquire);
                if arrived.fetch_add(1, Ordering::AcqRel) + 1 == members.max(1) {
                    arrived.store(0, Ordering::Relaxed);
                    let written = lead(started);
                    round.store(mine.wrapping_add(1), Ordering::Release);
                    atomic_wait::wake_all(&round);
                    written?;
                }
                while round.load(Ordering::Acquire) == mine {
                    atomic_wait::wait(&round, mine);
                }
                latencies.record(begun.elapsed());
            }
            Ok(latencies)
        })?;
        let bytes = next.into_inner() - self.at;
        self.at += bytes;
        Ok(Burst { latencies, seconds, bytes })
    }

    /// Sees to it that there is room, and says where the first block goes.
    fn ready(&mut self, shape: Shape) -> Result<AtomicU64> {
        let Shape { block_bytes, in_flight } = shape;
        if self.direct.is_some() && !block_bytes.is_multiple_of(DIRECT_ALIGN) {
            let e = io::Error::new(io::ErrorKind::Unsupported, format!("direct writes are multiples of {DIRECT_ALIGN} bytes"));
            return Err(e).doing("write the file", &self.path);
        }
        if block_bytes == 0 || (block_bytes * in_flight.max(1)) as u64 > self.file_bytes {
            let e = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{in_flight} blocks of {block_bytes} bytes in a file of {}", self.file_bytes),
            );
            return Err(e).doing("write the file", &self.path);
        }
        // A burst that begins in the first half has room for half a file.
        if self.at + (block_bytes * in_flight) as u64 > self.file_bytes / 2 {
            self.prepare(false)?;
        }
        Ok(AtomicU64::new(self.at))
    }

    /// Writes the next block durably, if there is room for it.
    fn write_next(&self, next: &AtomicU64, block: &mut Buffer) -> Result<bool> {
        let at = next.fetch_add(block.len() as u64, Ordering::Relaxed);
        if at + block.len() as u64 > self.file_bytes {
            return Ok(false);
        }
        // No two blocks are alike, so that no layer below can skip the work.
        let head = block.len().min(8);
        block[..head].copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[..head]);
        self.write_durable(block, at).doing("write durably", &self.path)?;
        Ok(true)
    }

    fn write_durable(&self, block: &[u8], at: u64) -> io::Result<()> {
        match self.strategy.method {
            Method::Fdatasync => {
                write_all_at(&self.file, block, at)?;
                self.file.sync_data()
            }
            Method::Fsync => {
                write_all_at(&self.file, block, at)?;
                self.file.sync_all()
            }
            Method::Dsync => write_dsync(&self.file, block, at),
            Method::DirectDsync => write_dsync(self.direct.as_ref().unwrap_or(&self.file), block, at),
            Method::Cached => write_all_at(&self.file, block, at),
            Method::DirectOnly => write_all_at(self.direct.as_ref().unwrap_or(&self.file), block, at),
            Method::RangeSync => {
                write_all_at(&self.file, block, at)?;
                sync_range(&self.file, at, block.len())
            }
        }
    }

    /// Brings the file into its state, from its beginning on.
    fn prepare(&mut self, first: bool) -> Result<()> {
        self.at = 0;
        let file = &self.file;
        match self.strategy.state {
            FileState::Growing => file.set_len(0),
            FileState::Allocated => file.set_len(0).and_then(|()| allocate(file, self.file_bytes)),
            FileState::Zeroed => fill(file, &Buffer::zeroed(FILL_BYTES), self.file_bytes),
            FileState::Recycled if first => fill(file, &Buffer::random(FILL_BYTES), self.file_bytes),
            FileState::Recycled => return Ok(()),
        }
        .and_then(|()| file.sync_all())
        .doing("prepare a file for measurements", &self.path)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The best single-threaded durable write into a zero-filled file: what a log's latency and
/// throughput are compared with. Measure it in bursts between those of the log, on the same file
/// system, in the same run.
#[derive(Debug)]
pub struct Floor {
    probe: Probe,
    shape: Shape,
}

impl Floor {
    /// Tries each method in turns, for so long in all, on files of so many bytes, and keeps the
    /// fastest (by the median of its medians). A block is `bytes`, rounded up to 4 KiB: less is not
    /// written by any disk.
    ///
    /// # Errors
    /// If not even `fdatasync` works, or the disk is full.
    pub fn find(dir: &Path, bytes: usize, file_bytes: u64, time: Duration) -> Result<Floor> {
        const METHODS: [Method; 3] = [Method::DirectDsync, Method::Dsync, Method::Fdatasync];
        const ROUNDS: u32 = 5;
        let shape = Shape { block_bytes: bytes.max(1).next_multiple_of(DIRECT_ALIGN), in_flight: 1 };
        let mut probes = Vec::new();
        for method in METHODS {
            match Probe::open(dir, Strategy { state: FileState::Zeroed, method }, file_bytes) {
                Err(e) if e.is_unsupported() => {}
                probe => probes.push((probe?, Vec::new())),
            }
        }
        let each = time / (ROUNDS * probes.len().max(1) as u32);
        for _ in 0..ROUNDS {
            for (probe, medians) in &mut probes {
                medians.push(probe.burst(shape, each)?.latencies.quantile(0.5));
            }
        }
        let median = |medians: &mut Vec<Duration>| {
            medians.sort_unstable();
            medians[medians.len() / 2]
        };
        let best = probes.into_iter().min_by_key(|(_, medians)| median(&mut medians.clone()));
        let none = || Error { doing: "write durably", path: dir.to_owned(), source: io::ErrorKind::Unsupported.into() };
        best.map(|(probe, _)| Floor { probe, shape }).ok_or_else(none)
    }

    /// The method that won.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.probe.strategy
    }

    /// Bytes of each write.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.shape.block_bytes
    }

    /// Measures for a time.
    ///
    /// # Errors
    /// If a write or flush fails.
    pub fn burst(&mut self, time: Duration) -> Result<Burst> {
        self.probe.burst(self.shape, time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Place;

    const SMALL: u64 = 1 << 20;
    const ONE: Shape = Shape { block_bytes: 4096, in_flight: 1 };

    #[test]
    fn every_strategy_writes_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut worked = 0;
        let unflushed = [Method::Cached, Method::DirectOnly].map(|method| Strategy { state: FileState::Zeroed, method });
        for strategy in Strategy::all().into_iter().chain(unflushed) {
            let mut probe = match Probe::open(dir.path(), strategy, SMALL) {
                Err(e) if e.is_unsupported() => continue,
                probe => probe.unwrap(),
            };
            worked += 1;
            for shape in [ONE, Shape { block_bytes: 16 << 10, in_flight: 3 }] {
                let burst = probe.burst(shape, Duration::from_millis(2)).unwrap();
                assert!(burst.latencies.count() >= shape.in_flight as u64, "{strategy}: {burst:?}");
                assert_eq!(burst.bytes, burst.latencies.count() * shape.block_bytes as u64);
                assert!(burst.rate() > 0.0 && burst.bandwidth() > 0.0);
            }
        }
        assert!(worked >= 7, "only {worked} strategies work here");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_group_ends_together_and_each_block_counts_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let strategy = Strategy { state: FileState::Zeroed, method: Method::Fdatasync };
        let mut probe = Probe::open(dir.path(), strategy, SMALL).unwrap();
        // The last would go beyond the end of the file.
        for (members, time) in [(1, 0), (3, 2), (8, 10_000)] {
            let burst = probe.group(members, 4096, Duration::from_millis(time)).unwrap();
            assert_eq!(burst.latencies.count() % members as u64, 0);
            assert!(burst.latencies.count() >= members as u64 && burst.seconds < 5.0, "{burst:?}");
            assert!(burst.bytes > 0 && burst.bytes <= SMALL);
        }
        assert!(probe.group(2, 2 << 20, Duration::ZERO).is_err(), "a block that is larger than the file");
    }

    #[test]
    fn a_file_is_in_its_state_again_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        for (state, len) in [(FileState::Growing, 4096), (FileState::Zeroed, SMALL), (FileState::Recycled, SMALL)] {
            let mut probe = Probe::open(dir.path(), Strategy { state, method: Method::Fdatasync }, SMALL).unwrap();
            let half = Shape { block_bytes: SMALL as usize / 2, in_flight: 1 };
            probe.burst(half, Duration::ZERO).unwrap();
            let one = probe.burst(ONE, Duration::ZERO).unwrap();
            assert_eq!((one.latencies.count(), probe.at), (1, 4096), "{state:?} began anew");
            let bytes = std::fs::read(&probe.path).unwrap();
            assert_eq!(bytes.len() as u64, len);
            match state {
                FileState::Zeroed => assert!(bytes[4096..].iter().all(|&b| b == 0)),
                FileState::Recycled => assert!(bytes[4096..].iter().any(|&b| b != 0)),
                _ => {}
            }
        }
    }

    #[test]
    fn a_range_sync_is_honest_only_where_nothing_but_the_data_is_to_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Place::of(dir.path()).unwrap();
        place.file_system = Some("ext4".to_owned());
        place.mount_options = vec!["rw".to_owned()];
        let device = |volatile_cache| Some(crate::machine::Device { volatile_cache, ..Default::default() });
        let range = |state, place: &Place| Strategy { state, method: Method::RangeSync }.dishonest(place);
        place.device = device(Some(false));
        assert_eq!(range(FileState::Zeroed, &place), None);
        assert!(range(FileState::Growing, &place).unwrap().contains("metadata"));
        place.device = device(Some(true));
        assert!(range(FileState::Zeroed, &place).unwrap().contains("cache"));
        assert_eq!(Strategy { state: FileState::Growing, method: Method::Fsync }.dishonest(&place), None);
        place.device = device(Some(false));
        place.mount_options.push("data=journal".to_owned());
        assert!(range(FileState::Zeroed, &place).is_some());
        place.file_system = Some("btrfs".to_owned());
        assert!(range(FileState::Recycled, &place).unwrap().contains("elsewhere"));
    }

    #[test]
    fn the_floor_is_found_and_measured() {
        let dir = tempfile::tempdir().unwrap();
        let mut floor = Floor::find(dir.path(), 5000, SMALL, Duration::from_millis(20)).unwrap();
        assert_eq!((floor.strategy().state, floor.block_bytes()), (FileState::Zeroed, 8192));
        assert!(floor.burst(Duration::from_millis(5)).unwrap().latencies.quantile(0.5) > Duration::ZERO);
        let bandwidth = Bandwidth::open(dir.path(), 3 << 20).unwrap();
        assert!(bandwidth.write().unwrap() > 0.0 && bandwidth.read().unwrap().is_none_or(|rate| rate > 0.0));
        let gone = Probe::open(&dir.path().join("no"), floor.strategy(), SMALL).unwrap_err();
        assert!(!gone.is_unsupported(), "{gone}");
    }
}
