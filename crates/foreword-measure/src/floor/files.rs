//! Files and buffers, as the operating system wants them for this.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use crate::error::{Doing, Result};

/// What direct I/O wants of memory, offsets and lengths, on any disk of today.
pub const DIRECT_ALIGN: usize = 4096;
/// How files are filled.
pub(super) const FILL_BYTES: usize = 1 << 20;

/// Memory as direct I/O wants it.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn zeroed(len: usize) -> Buffer {
        let bytes = vec![0; len + DIRECT_ALIGN];
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        Buffer { bytes, start, len }
    }

    /// Bytes that do not compress.
    pub(super) fn random(len: usize) -> Buffer {
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
pub(super) fn create(dir: &Path) -> Result<(PathBuf, File)> {
    let mut number = 0;
    loop {
        let path = dir.join(format!("probe.{}.{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            file => return file.doing("create the file", &path).map(|file| (path.clone(), file)),
        }
    }
}

pub(super) fn fill(file: &File, with: &[u8], bytes: u64) -> io::Result<()> {
    for at in (0..bytes).step_by(with.len()) {
        write_all_at(file, &with[..with.len().min((bytes - at) as usize)], at)?;
    }
    Ok(())
}

pub(super) fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let wrote = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
        (bytes, at) = (&bytes[wrote..], at + wrote as u64);
    }
    Ok(())
}

#[cfg(unix)]
pub(super) fn read_all_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
pub(super) fn read_all_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let read = std::os::windows::fs::FileExt::seek_read(file, bytes, at)?;
    if read == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(target_os = "linux")]
pub(super) fn open_direct(path: &Path, read: bool) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    let opened = File::options().read(read).write(!read).custom_flags(flags).open(path);
    let refused = |e: io::Error| if e.kind() == io::ErrorKind::InvalidInput { unsupported("no O_DIRECT here") } else { e };
    opened.map_err(refused).doing("open the file with O_DIRECT", path)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_direct(path: &Path, _read: bool) -> Result<File> {
    Err(unsupported("no O_DIRECT here")).doing("open the file with O_DIRECT", path)
}

#[cfg(target_os = "linux")]
pub(super) fn write_dsync(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
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
pub(super) fn write_dsync(_file: &File, _bytes: &[u8], _at: u64) -> io::Result<()> {
    Err(unsupported("no RWF_DSYNC here"))
}

#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allocate(_file: &File, _bytes: u64) -> io::Result<()> {
    Err(unsupported("no fallocate here"))
}

#[cfg(target_os = "linux")]
pub(super) fn sync_range(file: &File, at: u64, len: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call takes numbers and
    // touches no memory of ours.
    #[allow(unsafe_code)]
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), at as i64, len as i64, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn sync_range(_file: &File, _at: u64, _len: usize) -> io::Result<()> {
    Err(unsupported("no sync_file_range here"))
}
