//! The narrow seam to files: nothing else in the crate calls the operating system for them.
//!
//! [`OsDisk`] is the real one. Tests put another in its place (the crate `foreword-sim` has one that crashes and fails on
//! command) through [`Options::disk`](crate::Options::disk). What differs between operating systems lives here and in
//! `disk/os.rs` alone.

use std::fmt;
use std::io;
use std::path::Path;

mod os;
pub use os::OsDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; made anew and empty (an existing one is emptied).
    Create,
}

/// A file system, as a log needs it.
///
/// Paths are those that the log builds from the directory it was opened with. What a crash may do to what was not
/// synced is described in `docs/GUARANTEES.md`; an implementation may do no worse.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Makes the directory and its parents, durably (each new entry's parent is synced). Fine if it exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the plain files and directories in a directory, in any order. Names that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file, replacing what has the new name. Durable once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable once the directory is synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on a file, which is made if need be; held until the guard is dropped or the process ends.
    /// [`io::ErrorKind::WouldBlock`] if somebody else has it. Does not wait.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Whether somebody holds the lock on a file (no file: nobody). Must not create or change it.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at an offset: how many bytes were read, fewer than asked only at the end of the file or as reads may be short.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the buffers, one behind the other, at an offset: how many bytes were written.
    /// Not durable: see [`sync`](DiskFile::sync).
    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// As [`write_at`](DiskFile::write_at), and what was written is durable when it returns.
    /// The file's length must already cover it. Says nothing of other writes.
    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// As [`write_at`](DiskFile::write_at), for much that nobody reads soon: it is on its way to the disk when this returns, past the page cache
    /// where that can be, so that the next sync of anything does not have to wait for all of it. Not durable until this file's own.
    fn write_through_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write_at(bufs, offset)
    }
    /// Makes durable all that was written to the file and its length. After a failure nothing may be
    /// assumed of what was written since the last success.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Sets the length, filling with zeros. Durable after [`sync`](DiskFile::sync).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Sets the length, with zeros, and reserves space on the disk for all of it, so that writing it later cannot fail for want of
    /// space: whether that can be had. The default sets only the length.
    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.set_len(len).map(|()| false)
    }
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills the buffer from an offset, whatever short reads and interruptions come: how much of it there was, before the file ended.
    fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buf.len() {
            match self.read_at(&mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }
    /// Writes all of it at an offset, whatever short writes and interruptions come. Not durable.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        write_all(&mut [io::IoSlice::new(bytes)], offset, |bufs, at| self.write_at(bufs, at))
    }
}

/// Writes all of the buffers, one behind the other, in one of a file's ways, whatever short writes and interruptions come (hazard 18).
pub(crate) fn write_all(
    bufs: &mut [io::IoSlice<'_>],
    offset: u64,
    write: impl Fn(&[io::IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut bufs, mut offset) = (bufs, offset);
    // Never offer more buffers than any system takes at once.
    while bufs.iter().any(|b| !b.is_empty()) {
        let some = &bufs[..bufs.len().min(512)];
        match write(some, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                io::IoSlice::advance_slices(&mut bufs, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
