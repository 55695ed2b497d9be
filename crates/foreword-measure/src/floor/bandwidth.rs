//! How fast a file is written and read.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::files::{Buffer, FILL_BYTES, create, fill, open_direct, read_all_at, write_all_at};
use crate::error::{Doing, Result};

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
