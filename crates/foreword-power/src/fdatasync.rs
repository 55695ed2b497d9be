//! The operating system's files with the other durable write: a plain one, and `fdatasync`.

use std::io::{IoSlice, Result};
use std::path::Path;
use std::sync::Arc;

use foreword::disk::{Access, Disk, DiskDir, DiskFile, FileId, OsDisk};

/// [`OsDisk`] on a system without `O_DIRECT` and `RWF_DSYNC`.
#[derive(Debug)]
pub(crate) struct Fdatasync;

#[derive(Debug)]
struct SyncedDir(Arc<dyn DiskDir>);

#[derive(Debug)]
struct SyncedFile(Box<dyn DiskFile>);

impl Disk for Fdatasync {
    fn open_dir(&self, path: &Path) -> Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(SyncedDir(OsDisk::new().open_dir(path)?)))
    }

    fn create_dir(&self, path: &Path) -> Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(SyncedDir(OsDisk::new().create_dir(path)?)))
    }
}

impl DiskDir for SyncedDir {
    fn list(&self) -> Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(SyncedFile(self.0.open(name, access)?)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to)
    }

    fn replace(&self, from: &str, to: &str) -> Result<()> {
        self.0.replace(from, to)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.0.remove(name)
    }

    fn create_dir(&self, name: &str) -> Result<Arc<dyn DiskDir>> {
        Ok(Arc::new(SyncedDir(self.0.create_dir(name)?)))
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn sync_name(&self) -> Result<()> {
        self.0.sync_name()
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskFile>> {
        self.0.lock(name)
    }

    fn is_locked(&self, name: &str) -> Result<bool> {
        self.0.is_locked(name)
    }

    fn id(&self) -> Result<FileId> {
        self.0.id()
    }

    fn id_of(&self, name: &str) -> Result<FileId> {
        self.0.id_of(name)
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

    fn id(&self) -> Result<FileId> {
        self.0.id()
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
