//! Directories of the simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foreword::disk::{Access, Disk, DiskDir, DiskFile, FileId};

use super::file::SimFile;
use super::{Outcome, SimDisk, arc, eio, no_power, not_found};
use crate::faults::{Effect, OpKind};

impl Disk for SimDisk {
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let (state, done) = self.simple(OpKind::Open, &arc(path))?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let id = *state.dirs.get(path).ok_or_else(not_found)?;
        done.map(|()| Arc::new(SimDir { disk: self.clone(), id }) as Arc<dyn DiskDir>)
    }

    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        let (mut state, done) = self.simple(OpKind::CreateDir, &arc(path))?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.has_room_for_dirs(path) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = state.create_dir(path);
        done.map(|()| Arc::new(SimDir { disk: self.clone(), id }) as Arc<dyn DiskDir>)
    }
}

/// A directory. It stays the same when it is moved to another path.
#[derive(Debug)]
struct SimDir {
    disk: SimDisk,
    id: u64,
}

impl SimDir {
    /// The directory's path.
    fn path(&self) -> io::Result<Arc<Path>> {
        let state = self.disk.lock();
        let found = state.dirs.iter().find(|(_, id)| **id == self.id);
        found.map(|(path, _)| arc(path)).ok_or_else(not_found)
    }

    fn sync_path(&self, path: &Path) -> io::Result<()> {
        let (mut state, outcome) = self.disk.begin(OpKind::SyncDir, &arc(path), 0, 0)?;
        match outcome {
            Outcome::Dying => return Err(no_power()),
            Outcome::Struck(_, Effect::Eio) => return Err(eio()),
            Outcome::Struck(_, Effect::Lie) => return Ok(()),
            Outcome::Done | Outcome::Struck(..) => {}
        }
        if !state.dirs.contains_key(path) {
            return Err(not_found());
        }
        state.sync_dir(path);
        Ok(())
    }

    fn file(&self, name: &str) -> io::Result<Arc<Path>> {
        Ok(arc(&self.path()?.join(name)))
    }

    /// Renames a file. `replace`: a file that has the new name goes; else that is an error.
    fn rename_over(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (mut state, done) = self.disk.simple(OpKind::Rename, &from)?;
        let ino = *state.names.get(&from).ok_or_else(not_found)?;
        if !to.parent().is_some_and(|dir| state.dirs.contains_key(dir)) {
            return Err(not_found());
        }
        if state.dirs.contains_key(&*to) {
            return Err(if replace { io::ErrorKind::IsADirectory.into() } else { io::ErrorKind::AlreadyExists.into() });
        }
        if !replace && state.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if from != to {
            state.rename(&from, &to, ino);
        }
        done
    }
}

impl DiskDir for SimDir {
    fn list(&self) -> io::Result<Vec<String>> {
        let path = self.path()?;
        let (state, done) = self.disk.simple(OpKind::List, &path)?;
        let all = state.names.keys().map(|name| &**name).chain(state.dirs.keys().map(PathBuf::as_path));
        let within = all.filter(|entry| entry.parent() == Some(&path));
        let names = within.filter_map(|entry| Some(entry.file_name()?.to_string_lossy().into_owned())).collect();
        done.map(|()| names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let path = self.file(name)?;
        let create = matches!(access, Access::Create | Access::New);
        let (mut state, done) = self.disk.simple(if create { OpKind::Create } else { OpKind::Open }, &path)?;
        if state.dirs.contains_key(&*path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let ino = match (state.names.get(&path).copied(), path.parent()) {
            (Some(_), _) if access == Access::New => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(ino), _) => ino,
            (None, Some(dir)) if create && state.dirs.contains_key(dir) => state.link(&path),
            _ => return Err(not_found()),
        };
        if create && let Some(inode) = state.inodes.get_mut(&ino) {
            inode.set_len(0);
        }
        done.map(|()| SimFile::open(&self.disk, &mut state, ino, path, false))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_over(from, to, false)
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_over(from, to, true)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.file(name)?;
        if !self.disk.lock().names.contains_key(&path) && !self.disk.is_off() {
            return Err(not_found()); // No fault strikes the removal of a file that is not there.
        }
        let (mut state, done) = self.disk.simple(OpKind::Remove, &path)?;
        let ino = *state.names.get(&path).ok_or_else(not_found)?;
        state.unlink(&path, ino);
        done
    }

    fn create_dir(&self, name: &str) -> io::Result<Arc<dyn DiskDir>> {
        Disk::create_dir(&self.disk, &self.file(name)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_path(&self.path()?)
    }

    fn sync_name(&self) -> io::Result<()> {
        let path = self.path()?;
        self.sync_path(path.parent().unwrap_or(&path))
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.file(name)?;
        let (mut state, done) = self.disk.simple(OpKind::Lock, &path)?;
        let ino = match (state.names.get(&path).copied(), path.parent()) {
            (Some(ino), _) => ino,
            (None, Some(dir)) if state.dirs.contains_key(dir) => state.link(&path),
            _ => return Err(not_found()),
        };
        done?;
        if !state.locked.insert(ino) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(SimFile::open(&self.disk, &mut state, ino, path, true))
    }

    fn is_locked(&self, name: &str) -> io::Result<bool> {
        let path = self.file(name)?;
        let (state, done) = self.disk.simple(OpKind::Lock, &path)?;
        done.map(|()| state.names.get(&path).is_some_and(|ino| state.locked.contains(ino)))
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(FileId::new(1, self.id.into()))
    }

    fn id_of(&self, name: &str) -> io::Result<FileId> {
        let path = self.file(name)?;
        let state = self.disk.lock();
        if state.off {
            return Err(no_power());
        }
        let file = state.names.get(&path).map(|&ino| FileId::new(0, ino.into()));
        file.or_else(|| state.dirs.get(&*path).map(|&id| FileId::new(1, id.into()))).ok_or_else(not_found)
    }
}
