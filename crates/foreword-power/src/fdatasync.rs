//! The operating system's files with the other durable write: a plain one, and `fdatasync`.

use std::io::{IoSlice, Result};
use std::path::Path;

use foreword::disk::{Access, Disk, DiskFile, OsDisk};

/// [`OsDisk`] on a system without `O_DIRECT` and `RWF_DSYNC`.
#[derive(Debug)]
pub(crate) struct Fdatasync;

#[derive(Debug)]
struct SyncedFile(Box<dyn DiskFile>);

impl Disk for Fdatasync {
    fn create_dir(&self, path: &Path) -> Result<()> {
        OsDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        OsDisk.list(path)
    }

    fn open(&self, path: &Path, access: Access) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(SyncedFile(OsDisk.open(path, access)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        OsDisk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        OsDisk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        OsDisk.lock(path)
    }

    fn is_locked(&self, path: &Path) -> Result<bool> {
        OsDisk.is_locked(path)
    }
}

impl DiskFile for SyncedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        self.0.write_at(bufs, offset)
    }

    fn write_durable_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        let wrote = self.0.write_at(bufs, offset)?;
        self.0.sync()?;
        Ok(wrote)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> Result<bool> {
        self.0.allocate(len)
    }
}
