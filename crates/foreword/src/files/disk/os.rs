//! The operating system's files, and all that differs between systems.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskDir, DiskFile, FileId};

#[cfg(unix)]
#[path = "unix.rs"]
mod dir;
#[cfg(not(unix))]
#[path = "windows.rs"]
mod dir;
use dir::OsDir;
#[cfg(target_os = "linux")]
#[path = "direct.rs"]
mod direct;

/// The operating system's file system.
///
/// | | Linux | macOS | Windows |
/// |---|---|---|---|
/// | a directory | a descriptor: `openat`, `renameat`, `unlinkat` | the same | its absolute path; while it is locked, it cannot be moved |
/// | rename, never replacing | `renameat2(RENAME_NOREPLACE)`, else `linkat` | `renameatx_np(RENAME_EXCL)`, else `linkat` | a link, and the old name removed |
/// | sync | `fdatasync` | `fcntl(F_FULLFSYNC)` | `FlushFileBuffers` |
/// | durable write | `pwritev2(RWF_DSYNC)`, past the page cache (`O_DIRECT`) where the file system can | write + sync | write + sync |
/// | sync of a directory | `fsync` | `fcntl(F_FULLFSYNC)` | not needed: NTFS journals names, and there is no such call |
/// | lock | `flock` | `flock` | `LockFileEx` |
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk {
    buffered: bool,
}

impl OsDisk {
    /// With all that the system has for a log.
    #[must_use]
    pub const fn new() -> OsDisk {
        OsDisk { buffered: false }
    }

    /// Through the page cache, always: no file is written past it. For a file system whose direct
    /// I/O is slow or not to be trusted, or where other processes read at once what is written
    /// here.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Options, disk::OsDisk};
    /// use std::sync::Arc;
    /// let log = Options::new().segment_bytes(1 << 20).disk(Arc::new(OsDisk::buffered())).open(dir.path())?;
    /// log.commit("a record")?;
    /// # log.close() }
    /// ```
    #[must_use]
    pub const fn buffered() -> OsDisk {
        OsDisk { buffered: true }
    }
}

impl Disk for OsDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let mut dir = OsDir::open(path).map_err(|error| in_the_way(path, error))?;
        dir.buffered = self.buffered;
        Ok(Arc::new(dir))
    }

    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let named = path.ancestors().filter(|dir| !dir.as_os_str().is_empty());
        let missing: Vec<&Path> = named.take_while(|dir| !dir.is_dir()).collect();
        for dir in missing.iter().rev() {
            match std::fs::create_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
                made => made.map_err(|error| in_the_way(dir, error))?,
            }
            OsDir::open(dir)?.sync_name()?;
        }
        self.open_dir(path)
    }
}

/// Says what stands in a directory's place, or above it: a file, or a link that leads nowhere. If
/// nothing does, it is the error as it was.
fn in_the_way(path: &Path, error: io::Error) -> io::Error {
    if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) {
        return error;
    }
    // The nearest that is there, itself or above it.
    let there = path.ancestors().find(|part| !part.as_os_str().is_empty() && part.symlink_metadata().is_ok());
    let Some(part) = there else { return error };
    let name = if part == path { "it".to_owned() } else { format!("`{}`", part.display()) };
    let why = match (part.metadata(), part.read_link()) {
        (Ok(there), _) if !there.is_dir() => format!("{name} is a file, not a directory"),
        (Err(_), Ok(to)) => {
            let to = to.display();
            format!("{name} is a symbolic link to `{to}`, which is not there: make that directory, or correct the link")
        }
        _ => return error,
    };
    io::Error::new(io::ErrorKind::NotADirectory, why)
}

/// Takes the lock on an open file.
fn lock(file: File) -> io::Result<Box<dyn DiskFile>> {
    match file.try_lock() {
        Ok(()) => {
            let mut file = OsFile::new(file, true);
            file.locked_by = Some(std::process::id());
            Ok(Box::new(file))
        }
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Whether the lock on a file is taken, if the file could be opened.
fn is_locked(file: io::Result<File>) -> io::Result<bool> {
    let file = match file {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    // There is no way to ask without taking. The lock is shared, so readers do not see one another,
    // and is let go at once; a writer that meets it tries again (see `segment::lock`).
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    /// The process that locked it.
    locked_by: Option<u32>,
    #[cfg(target_os = "linux")]
    way: direct::Way,
}

impl OsFile {
    /// `buffered`: it is never written past the page cache.
    fn new(file: File, buffered: bool) -> OsFile {
        #[cfg(not(target_os = "linux"))]
        let _ = buffered;
        OsFile {
            file,
            locked_by: None,
            #[cfg(target_os = "linux")]
            way: direct::Way::new(buffered),
        }
    }

    /// Does something through the page cache.
    #[cfg(unix)]
    fn cached<T>(&self, io: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        #[cfg(target_os = "linux")]
        return self.way.cached(&self.file, io);
        #[cfg(not(target_os = "linux"))]
        return { io }();
    }
}

impl Drop for OsFile {
    /// A lock is the open file's: one that only this process closes lasts in those that were forked
    /// from it.
    fn drop(&mut self) {
        if self.locked_by == Some(std::process::id()) {
            let _ = self.file.unlock();
        }
    }
}

/// Whether all of a file was written. (Its number of blocks counts those of the file system's own,
/// too.)
#[cfg(target_os = "linux")]
fn has_no_hole(file: &File, len: u64) -> bool {
    rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(0)).is_ok_and(|hole| hole >= len)
}

/// On Btrfs: what is written to a file that is empty now is written where it lies. Else each write
/// of a block that was filled with zeros takes a new one, and a full disk fails it. (The file has
/// its own checksums.)
#[cfg(target_os = "linux")]
fn write_in_place(file: &File) {
    use rustix::fs::{IFlags, fstatfs, ioctl_getflags, ioctl_setflags};
    const BTRFS: u64 = 0x9123_683e;
    if fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == BTRFS)
        && let Ok(flags) = ioctl_getflags(file)
    {
        let _ = ioctl_setflags(file, flags | IFlags::NOCOW);
    }
}

#[cfg(unix)]
impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.cached(|| std::os::unix::fs::FileExt::read_at(&self.file, buf, offset))
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        #[cfg(not(target_os = "macos"))]
        return self.cached(|| Ok(rustix::io::pwritev(&self.file, bufs, offset)?));
        #[cfg(target_os = "macos")]
        return std::os::unix::fs::FileExt::write_at(&self.file, first(bufs), offset);
    }

    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        {
            use rustix::io::{Errno, ReadWriteFlags, pwritev2};
            let write = || Ok(pwritev2(&self.file, bufs, offset, ReadWriteFlags::DSYNC)?);
            let direct = self.way.go_direct(&self.file, bufs, offset);
            let wrote = if direct { write() } else { self.cached(write) };
            match wrote.as_ref().map_err(Errno::from_io_error) {
                // An old kernel, or a file system without the flag or with its own idea of
                // alignment: the same in two calls. Nothing was written.
                Err(Some(Errno::OPNOTSUPP | Errno::NOSYS)) => {}
                Err(Some(Errno::INVAL)) => self.way.give_up(&self.file)?,
                _ => return wrote,
            }
        }
        let wrote = self.write_at(bufs, offset)?;
        self.sync()?;
        Ok(wrote)
    }

    fn write_through_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        if self.way.go_direct(&self.file, bufs, offset) {
            match rustix::io::pwritev(&self.file, bufs, offset) {
                Err(rustix::io::Errno::INVAL) => self.way.give_up(&self.file)?,
                wrote => return Ok(wrote?),
            }
        }
        self.write_durable_at(bufs, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(dir::id_of(&self.file.metadata()?))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, len: u64) -> io::Result<bool> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        use std::os::unix::fs::MetadataExt;
        let there = self.file.metadata()?;
        if there.len() >= len && there.blocks() >= len.div_ceil(512) && has_no_hole(&self.file, len) {
            return Ok(true); // To be told so again would cost a change of metadata.
        }
        if there.len() == 0 {
            write_in_place(&self.file);
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(len).map(|()| false),
            allocated => Ok(allocated.map(|()| true)?),
        }
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            punched => Ok(punched.map(|()| true)?),
        }
    }
}

#[cfg(windows)]
impl DiskFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(&self.file, first(bufs), offset)
    }

    fn write_durable_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let wrote = self.write_at(bufs, offset)?;
        self.sync()?;
        Ok(wrote)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(dir::id_of(&self.file.metadata()?))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// The first buffer with anything in it, where the system has no call for several.
#[cfg(any(windows, target_os = "macos"))]
fn first<'a>(bufs: &'a [io::IoSlice<'_>]) -> &'a [u8] {
    bufs.iter().find(|b| !b.is_empty()).map_or(&[], |b| b)
}
