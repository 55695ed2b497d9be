//! Directories on Unix: a descriptor, and names relative to it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::OsFile;
use crate::files::disk::{Access, DiskDir, DiskFile, FileId};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// No link is followed out of the directory, and no FIFO or device is waited for. (A plain file
/// does not care.)
const PLAIN: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o777);

pub(super) fn id_of(metadata: &Metadata) -> FileId {
    FileId::new(metadata.dev().into(), metadata.ino().into())
}

/// Gives a file the owner and the group of another, as far as this user may.
fn give(file: &File, model: &Stat) {
    let (user, group) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
    let own = rustix::fs::fstat(file).is_ok_and(|own| (own.st_uid, own.st_gid) == (model.st_uid, model.st_gid));
    if !own && rustix::fs::fchown(file, Some(user), Some(group)).is_err() {
        let _ = rustix::fs::fchown(file, None, Some(group));
    }
}

/// Sets a file's permissions, if they are others.
fn permit(file: &File, mode: Mode) -> io::Result<()> {
    let mode = mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
    let own = Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
    if own == mode { Ok(()) } else { Ok(rustix::fs::fchmod(file, mode)?) }
}

fn is_a_directory() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "it is a directory, where a log has a file: move it away")
}

#[derive(Debug)]
pub(super) struct OsDir {
    file: File,
    /// Its files are never written past the page cache.
    pub(super) buffered: bool,
}

impl OsDir {
    pub(super) fn open(path: &Path) -> io::Result<OsDir> {
        Ok(OsDir { file: rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?.into(), buffered: false })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let not_plain = "it is not a plain file, as all of a log are: move it away";
        let file = match rustix::fs::openat(&self.file, name, flags | PLAIN, NEW_FILE) {
            Err(Errno::LOOP) => return invalid("it is a symbolic link, which a log does not follow: put the file itself there"),
            // A socket or a FIFO that cannot be opened.
            Err(Errno::NXIO) => return invalid(not_plain),
            Err(Errno::ISDIR) => return Err(is_a_directory()),
            opened => File::from(opened?),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(is_a_directory());
        }
        if kind.is_file() { Ok(file) } else { invalid(not_plain) }
    }

    /// Gives a file the owner and the permissions of another, or the directory's
    /// owner.
    fn adopt(&self, file: &File, like: &str) -> io::Result<()> {
        match rustix::fs::statat(&self.file, like, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(model) if FileType::from_raw_mode(model.st_mode) == FileType::RegularFile => {
                give(file, &model);
                // Its owner, at least, must be able to use it.
                permit(file, Mode::from_raw_mode(model.st_mode) | Mode::RUSR | Mode::WUSR)
            }
            _ => {
                give(file, &rustix::fs::fstat(&self.file)?);
                Ok(())
            }
        }
    }

    fn has_directory(&self, name: &str) -> bool {
        let there = rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW);
        there.is_ok_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory)
    }

    /// Where the file system cannot rename without replacing: a second name, which cannot replace
    /// anything either, and the first one removed. A crash between leaves both.
    fn link_and_unlink(&self, from: &str, to: &str) -> io::Result<()> {
        match rustix::fs::linkat(&self.file, from, &self.file, to, AtFlags::empty()) {
            // No links either: then it is looked before, which others may come between.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => match self.id_of(to) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.replace(from, to),
                Err(e) => Err(e),
                Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            },
            Err(e) => Err(e.into()),
            Ok(()) => self.remove(from),
        }
    }
}

impl DiskDir for OsDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.file)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if !matches!(&*name, "." | "..") {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
            Access::Create => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
            Access::New => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        };
        Ok(Box::new(OsFile::new(self.open_file(name, flags)?, self.buffered)))
    }

    fn create_like(&self, name: &str, like: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        self.adopt(&file, like)?;
        Ok(Box::new(OsFile::new(file, self.buffered)))
    }

    fn make_like(&self, name: &str, like: &str) -> io::Result<()> {
        self.adopt(&self.open_file(name, OFlags::RDONLY)?, like)
    }

    fn may_open(&self, files: u64) -> io::Result<()> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if limit.is_some_and(|limit| files > limit) { Err(Errno::MFILE.into()) } else { Ok(()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        {
            let only_new = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.file, from, &self.file, to, only_new) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                renamed => return Ok(renamed?),
            }
        }
        self.link_and_unlink(from, to)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.file, from, &self.file, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        rustix::fs::unlinkat(&self.file, name, AtFlags::empty()).map_err(|error| match error {
            // (The second is what POSIX says, and Linux does not.)
            Errno::ISDIR => is_a_directory(),
            Errno::PERM if self.has_directory(name) => is_a_directory(),
            error => error.into(),
        })
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        let made = match rustix::fs::mkdirat(&self.file, name, NEW_DIRECTORY) {
            Err(Errno::EXIST) => false,
            made => made.map(|()| true)?,
        };
        let opened = rustix::fs::openat(&self.file, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        let dir = OsDir { file: opened.into(), buffered: self.buffered };
        if made {
            let model = rustix::fs::fstat(&self.file)?;
            give(&dir.file, &model);
            permit(&dir.file, Mode::from_raw_mode(model.st_mode))?;
            self.sync()?;
        }
        Ok(Arc::new(dir))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn sync_name(&self) -> io::Result<()> {
        match rustix::fs::openat(&self.file, "..", DIRECTORY, Mode::empty()) {
            Ok(parent) => File::from(parent).sync_all(),
            // Whoever may write the parent need not be allowed to read it; only then is it the
            // whole file system that is synced.
            #[cfg(target_os = "linux")]
            Err(Errno::ACCESS) => Ok(rustix::fs::syncfs(&self.file)?),
            #[cfg(not(target_os = "linux"))]
            Err(Errno::ACCESS) => {
                rustix::fs::sync();
                self.sync()
            }
            Err(e) => Err(e.into()),
        }
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        super::lock(self.open_file(name, OFlags::RDWR | OFlags::CREATE)?)
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        super::is_locked(self.open_file(name, OFlags::RDONLY))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(id_of(&self.file.metadata()?))
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        let stat = rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileId::new(stat.st_dev as u128, stat.st_ino as u128))
    }
}
