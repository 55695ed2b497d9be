//! The raw durable write: no log on this disk can be faster.
//!
//! A [`Probe`] is a file in one [`FileState`] that is written block behind block, each made durable
//! by one [`Method`] before the next (or with a few in flight). It is measured in short
//! [bursts](Probe::burst), so that several can be interleaved. [`Floor`] is the best of them for a
//! log: one thread, a zero-filled file, the method that is fastest on this disk. [`Bandwidth`] is
//! the rate of large writes.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Doing, Error, Result};
use crate::load::{self, Outcome};
use crate::machine::Place;
use crate::sample::Latencies;

/// What direct I/O wants of memory, offsets and lengths, on any disk of today.
pub const DIRECT_ALIGN: usize = 4096;

/// How files are filled.
const FILL_BYTES: usize = 1 << 20;

/// What a file is like where the next block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The file ends there: each write makes it longer, which is a change of metadata, too.
    Growing,
    /// Space is reserved (`fallocate`), but was never written: the first write to it is a change of
    /// metadata, too.
    Allocated,
    /// The file contains zeros that were written.
    Zeroed,
    /// The file contains old data, as a recycled segment does.
    Recycled,
}

impl FileState {
    /// All of them.
    pub const ALL: [FileState; 4] = [FileState::Growing, FileState::Allocated, FileState::Zeroed, FileState::Recycled];

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileState::Growing => "growing",
            FileState::Allocated => "fallocated",
            FileState::Zeroed => "zero-filled",
            FileState::Recycled => "recycled",
        }
    }
}

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A write, and `fdatasync` (its equal elsewhere).
    Fdatasync,
    /// A write, and `fsync`.
    Fsync,
    /// One call, `pwritev2` with `RWF_DSYNC`. Linux.
    Dsync,
    /// The same past the page cache (`O_DIRECT`). Linux.
    DirectDsync,
    /// A write, and `sync_file_range` that waits. Linux. Seldom honest: see
    /// [`Strategy::dishonest`].
    RangeSync,
    /// No flush at all: the page cache has it. Not durable; to compare with.
    Cached,
    /// `O_DIRECT` without a flush: the device has it, perhaps in a cache that loses it. Not
    /// durable; to compare with. Linux.
    DirectOnly,
}

impl Method {
    /// All that make a write durable.
    pub const ALL: [Method; 5] = [Method::Fdatasync, Method::Fsync, Method::Dsync, Method::DirectDsync, Method::RangeSync];

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Fdatasync => "fdatasync",
            Method::Fsync => "fsync",
            Method::Dsync => "RWF_DSYNC",
            Method::DirectDsync => "O_DIRECT + RWF_DSYNC",
            Method::RangeSync => "sync_file_range",
            Method::Cached => "no flush, page cache",
            Method::DirectOnly => "no flush, O_DIRECT",
        }
    }
}

/// A way to write durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Strategy {
    /// What the file is like.
    pub state: FileState,
    /// How a write is flushed.
    pub method: Method,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.state.name(), self.method.name())
    }
}

impl Strategy {
    /// All that make a write durable, state by state.
    #[must_use]
    pub fn all() -> Vec<Strategy> {
        FileState::ALL.iter().flat_map(|&state| Method::ALL.map(|method| Strategy { state, method })).collect()
    }

    /// Why a completed write would not be durable by this method in this place, if so.
    /// `sync_file_range` neither writes metadata nor empties the device's cache: it is honest only
    /// where blocks that were written before are written again in place, on a device without a
    /// volatile cache. What cannot be known counts as dishonest.
    #[must_use]
    pub fn dishonest(self, place: &Place) -> Option<&'static str> {
        if self.method != Method::RangeSync {
            return None;
        }
        if !matches!(self.state, FileState::Zeroed | FileState::Recycled) {
            return Some("it does not write the metadata that a block written for the first time needs");
        }
        if !place.file_system.as_deref().is_some_and(|kind| matches!(kind, "ext4" | "ext3" | "ext2" | "xfs")) {
            return Some("this file system may put a block elsewhere when it is written again");
        }
        if place.mount_options.iter().any(|option| option == "data=journal") {
            return Some("this file system puts data into its journal first");
        }
        match place.device.as_ref().and_then(|device| device.volatile_cache) {
            Some(false) => None,
            Some(true) => Some("the device has a volatile write cache, which it does not flush"),
            None => Some("nothing says whether the device has a volatile write cache, which it does not flush"),
        }
    }
}

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

/// What large writes and reads get through: a file written in order, in pieces of a megabyte, past
/// the page cache where that can be had.
#[derive(Debug)]
pub struct Bandwidth {
    path: PathBuf,
    file: File,
    /// For writing and for reading; `None` where the file system has no direct I/O.
    direct: Option<(File, File)>,
    bytes: u64,
}

impl Bandwidth {
    /// Makes a zero-filled file.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(dir: &Path, bytes: u64) -> Result<Bandwidth> {
        let (path, file) = create(dir)?;
        let mut bandwidth = Bandwidth { path, file, direct: None, bytes: bytes.next_multiple_of(FILL_BYTES as u64) };
        bandwidth.direct = open_direct(&bandwidth.path, false).ok().zip(open_direct(&bandwidth.path, true).ok());
        let file = &bandwidth.file;
        fill(file, &Buffer::zeroed(FILL_BYTES), bandwidth.bytes)
            .and_then(|()| file.sync_all())
            .doing("prepare a file for measurements", &bandwidth.path)?;
        Ok(bandwidth)
    }

    /// Bytes a second of writing all of it, two pieces at a time, with one flush at the end.
    ///
    /// # Errors
    /// If a write or the flush fails.
    pub fn write(&self) -> Result<f64> {
        let file = self.direct.as_ref().map_or(&self.file, |(write, _)| write);
        let started = Instant::now();
        self.in_pieces(|piece, at| {
            piece[..8].copy_from_slice(&at.to_le_bytes());
            write_all_at(file, piece, at)
        })
        .doing("write the file", &self.path)?;
        self.file.sync_data().doing("sync the file", &self.path)?;
        Ok(self.bytes as f64 / started.elapsed().as_secs_f64())
    }

    /// Bytes a second of reading all of it, two pieces at a time; `None` where that would only read
    /// the page cache.
    ///
    /// # Errors
    /// If a read fails.
    pub fn read(&self) -> Result<Option<f64>> {
        let Some((_, file)) = &self.direct else { return Ok(None) };
        let started = Instant::now();
        self.in_pieces(|piece, at| read_all_at(file, piece, at)).doing("read the file", &self.path)?;
        Ok(Some(self.bytes as f64 / started.elapsed().as_secs_f64()))
    }

    fn in_pieces(&self, work: impl Fn(&mut [u8], u64) -> io::Result<()> + Sync) -> io::Result<()> {
        let next = AtomicU64::new(0);
        let run = || {
            let mut piece = Buffer::random(FILL_BYTES);
            loop {
                let at = next.fetch_add(FILL_BYTES as u64, Ordering::Relaxed);
                if at >= self.bytes {
                    return Ok(());
                }
                work(&mut piece, at)?;
            }
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(run);
            let mine = run();
            mine.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }
}

impl Drop for Bandwidth {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Memory as direct I/O wants it.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn zeroed(len: usize) -> Buffer {
        let bytes = vec![0; len + DIRECT_ALIGN];
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        Buffer { bytes, start, len }
    }

    /// Bytes that do not compress.
    fn random(len: usize) -> Buffer {
        let mut buffer = Buffer::zeroed(len);
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for bytes in buffer.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.copy_from_slice(&state.to_le_bytes()[..bytes.len()]);
        }
        buffer
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

/// A file that was not there before.
fn create(dir: &Path) -> Result<(PathBuf, File)> {
    let mut number = 0;
    loop {
        let path = dir.join(format!("probe.{}.{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            file => return file.doing("create the file", &path).map(|file| (path.clone(), file)),
        }
    }
}

fn fill(file: &File, with: &[u8], bytes: u64) -> io::Result<()> {
    for at in (0..bytes).step_by(with.len()) {
        write_all_at(file, &with[..with.len().min((bytes - at) as usize)], at)?;
    }
    Ok(())
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let wrote = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        (bytes, at) = (&bytes[wrote..], at + wrote as u64);
    }
    Ok(())
}

#[cfg(unix)]
fn read_all_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
fn read_all_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let read = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
    if read == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path, read: bool) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    let opened = File::options().read(read).write(!read).custom_flags(flags).open(path);
    let refused = |e: io::Error| if e.kind() == io::ErrorKind::InvalidInput { unsupported("no O_DIRECT here") } else { e };
    opened.map_err(refused).doing("open the file with O_DIRECT", path)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(path: &Path, _read: bool) -> Result<File> {
    Err(unsupported("no O_DIRECT here")).doing("open the file with O_DIRECT", path)
}

#[cfg(target_os = "linux")]
fn write_dsync(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};
    while !bytes.is_empty() {
        match pwritev2(file, &[io::IoSlice::new(bytes)], at, ReadWriteFlags::DSYNC) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Err(unsupported("no RWF_DSYNC here")),
            wrote => {
                let wrote = wrote?;
                (bytes, at) = (&bytes[wrote..], at + wrote as u64);
            }
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_dsync(_file: &File, _bytes: &[u8], _at: u64) -> io::Result<()> {
    Err(unsupported("no RWF_DSYNC here"))
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _bytes: u64) -> io::Result<()> {
    Err(unsupported("no fallocate here"))
}

#[cfg(target_os = "linux")]
fn sync_range(file: &File, at: u64, len: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call takes numbers and
    // touches no memory of ours.
    #[allow(unsafe_code)]
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), at as i64, len as i64, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn sync_range(_file: &File, _at: u64, _len: usize) -> io::Result<()> {
    Err(unsupported("no sync_file_range here"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
