//! The narrow seam to files: nothing else in the crate calls the operating system for them.
//!
//! [`OsDisk`] is the real one. Tests put another in its place (the crate `foreword-sim` has one
//! that crashes and fails on command) through [`Options::disk`](crate::Options::disk). What differs
//! between operating systems lives here and in `disk/os.rs` alone.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

mod os;
pub use os::OsDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; made anew and empty (an existing one is emptied).
    Create,
    /// For reading and writing; made anew. [`io::ErrorKind::AlreadyExists`] if anything has the
    /// name.
    New,
}

/// What tells a file or directory from every other, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    volume: u128,
    file: u128,
}

impl FileId {
    /// A file by the volume that it is on, and its number there: on Unix, device and inode.
    #[must_use]
    pub const fn new(volume: u128, file: u128) -> FileId {
        FileId { volume, file }
    }
}

/// A file system, as a log needs it: where it finds its directory. The rest is the directory's
/// business.
///
/// It is asked under no lock, and may ask the log that asks it. But others wait for what it does:
/// so a call that waits for that log (a commit, a hold, [`close`](crate::Log::close)) is
/// [`Error::Busy`](crate::Error::Busy) from there.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a directory. [`io::ErrorKind::NotFound`] or [`io::ErrorKind::NotADirectory`] if there
    /// is none.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>>;
    /// The same, and makes the directory and its parents if they are not there. The name of each
    /// that it makes is durable when it returns.
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>>;
}

/// An open directory, and the files in it.
///
/// The handle stands for the directory, not for the path that it was opened by: another working
/// directory, another name for the directory, and another directory under its old name make no
/// difference to it. Where a system has no such handles, see [`OsDisk`].
///
/// A *name* is relative to the directory: that of a file in it, or `directory/file` for one in a
/// directory in it. Names never lead out of it. What a crash may do to what was not synced is
/// described in [the guarantees](crate::_docs::guarantees); an implementation may do no worse.
pub trait DiskDir: Send + Sync + fmt::Debug {
    /// The names of what is in the directory, in any order. None is left out: of one that is not UTF-8, what is not
    /// is `\u{fffd}`.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file. What is not a plain file is refused, and is not waited for.
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;
    /// As [`open`](DiskDir::open) with [`Access::New`]; with the owner and the permissions of
    /// another file, as far as they may be given, or with the owner of the directory if there is no
    /// such file: what one user makes, the one who made the log can open. The default knows of no
    /// owners.
    fn create_like(&self, name: &str, _like: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open(name, Access::New)
    }
    /// Gives a file that is there the owner and the permissions that
    /// [`create_like`](DiskDir::create_like) gives to a new one, as far as they may be given. The
    /// default knows of no owners.
    fn make_like(&self, _name: &str, _like: &str) -> io::Result<()> {
        Ok(())
    }
    /// Fails if so many files can surely not be open at once, as to open them would. The default
    /// knows of no limit.
    fn may_open(&self, _files: u64) -> io::Result<()> {
        Ok(())
    }
    /// Gives a file a new name. [`io::ErrorKind::AlreadyExists`] if anything has it.
    /// Durable once the directory is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// As [`rename`](DiskDir::rename), in place of the file that has the new name, if one has.
    fn replace(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable once the directory is synced.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Opens a directory in this one; makes it, durably, if it is not there.
    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes the directory's own name durable: its entry in its parent.
    fn sync_name(&self) -> io::Result<()>;
    /// Takes the exclusive lock on a file, which is made if need be; held until what is returned is
    /// dropped by the process that took it, or that ends. Another name for the file makes no
    /// difference. [`io::ErrorKind::WouldBlock`] if it is taken. Does not wait.
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Whether the lock on a file is taken (no file: it is not). Must not create or change it.
    fn is_locked(&self, name: &str) -> io::Result<bool>;
    /// Which directory this is.
    fn id(&self) -> io::Result<FileId>;
    /// Which file has a name now. [`io::ErrorKind::NotFound`] if none has.
    fn id_of(&self, name: &str) -> io::Result<FileId>;
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads at an offset: how many bytes were read, fewer than asked only at the end of the file
    /// or as reads may be short.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes the buffers, one behind the other, at an offset: how many bytes were written.
    /// Not durable: see [`sync`](DiskFile::sync).
    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// As [`write_at`](DiskFile::write_at), and what was written is durable when it returns.
    /// The file's length must already cover it. Says nothing of other writes.
    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// As [`write_at`](DiskFile::write_at), for many bytes that are not read soon: they are on
    /// their way to the disk when this returns, past the page cache where that can be, so that the
    /// next sync of anything does not have to wait for all of it. Not durable until this file's
    /// own.
    fn write_through_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write_at(bufs, offset)
    }
    /// Makes durable all that was written to the file and its length. After a failure nothing may
    /// be assumed of what was written since the last success.
    fn sync(&self) -> io::Result<()>;
    /// Which file this is.
    fn id(&self) -> io::Result<FileId>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Sets the length, filling with zeros. Durable after [`sync`](DiskFile::sync).
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Sets the length, with zeros, and reserves space on the disk for all of it, so that writing
    /// it later cannot fail for want of space: whether that can be had. What is there stays, and a
    /// file that has it all already is left as it is. The default sets only the length.
    fn allocate(&self, len: u64) -> io::Result<bool> {
        self.set_len(len).map(|()| false)
    }
    /// Gives the space of a stretch back to the file system, which then reads as zeros; the length
    /// stays. Offset and length are multiples of 4 KiB. Whether that can be had: the default does
    /// nothing. Need not be durable: a crash may bring back what was there.
    fn punch(&self, _offset: u64, _len: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills the buffer from an offset, whatever short reads and interruptions come: how much of it
    /// there was, before the file ended.
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

/// Writes all of the buffers, one behind the other, in one of a file's ways, whatever short writes
/// and interruptions come.
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
