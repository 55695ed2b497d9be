//! Directories on Windows, which the standard library can only open by path: an absolute one.
//!
//! A directory in which a file is open cannot be moved or removed there, and the lock's file itself
//! cannot either, since it is opened without `FILE_SHARE_DELETE`. So the path leads to the same
//! directory for as long as a writer has the log open.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::OsFile;
use crate::files::disk::{Access, DiskDir, DiskFile, FileId};

/// Others may read and write, not remove or rename.
const FILE_SHARE_READ_WRITE: u32 = 1 | 2;

/// The standard library has no file index on Windows: when a file was made has to tell it from
/// others.
pub(super) fn id_of(metadata: &Metadata) -> FileId {
    FileId::new(0, metadata.creation_time().into())
}

#[derive(Debug)]
pub(super) struct OsDir {
    path: PathBuf,
    id: FileId,
    /// Its files are never written past the page cache.
    pub(super) buffered: bool,
}

impl OsDir {
    pub(super) fn open(path: &Path) -> io::Result<OsDir> {
        let path = std::path::absolute(path)?;
        let metadata = std::fs::metadata(&path)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(OsDir { path, id: id_of(&metadata), buffered: false })
    }

    /// The path of a name, if the directory is still the one that was opened.
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if id_of(&std::fs::metadata(&self.path)?) != self.id {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another directory has its name now"));
        }
        Ok(self.path.join(name))
    }
}

impl DiskDir for OsDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path("")?)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(access != Access::Read);
        match access {
            Access::Read | Access::Write => {}
            Access::Create => _ = options.create(true).truncate(true),
            Access::New => _ = options.create_new(true),
        }
        Ok(Box::new(OsFile::new(options.open(self.path(name)?)?, self.buffered)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.path(from)?, self.path(to)?)?;
        self.remove(from)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from)?, self.path(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name)?)
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        let path = self.path(name)?;
        match std::fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        Ok(Arc::new(OsDir::open(&path)?))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_name(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).share_mode(FILE_SHARE_READ_WRITE);
        super::lock(options.open(self.path(name)?)?)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        super::is_locked(self.path(name).and_then(File::open))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(self.id)
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        Ok(id_of(&std::fs::symlink_metadata(self.path(name)?)?))
    }
}
