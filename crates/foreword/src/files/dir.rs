//! A log's directory: its names, its identity, and looks at it while a writer changes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::bug::bug;
use crate::error::Doing;
use crate::files::disk::{Access, Disk, DiskDir, DiskFile};
use crate::files::names::{
    DAMAGED, HOLDS, HOLDS_TMP, IDENTITY, LOCK, Names, RESERVES, STATS, TMP, is_made_by_rename, parse_segment_name, segment_name,
};
use crate::files::writer::Writer;
use crate::format::{self, LogId};
use crate::sync::atomic::AtomicBool;
use crate::{Error, Result};

/// How often a reader looks again at a log that a writer changes meanwhile, and how long it waits
/// before.
const LOOKS_AGAIN: u32 = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// A log's directory: the handle through which everything goes, and the path that it was opened by,
/// for messages.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) handle: Arc<dyn DiskDir>,
    pub(crate) path: PathBuf,
    /// For a writer, from when it has the lock.
    pub(crate) writer: Option<Arc<Writer>>,
    /// What a writer does ahead of need ([`Options::zero_fill`](crate::Options::zero_fill),
    /// [`Options::reserve`](crate::Options::reserve)).
    pub(crate) zero_fill: bool,
    pub(crate) reserve: bool,
    /// A part of the reserve was used, and there was no space yet to make it again. Clones share
    /// this.
    pub(super) short: Arc<AtomicBool>,
}

/// What `LOCK` says: no two openings write the same into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writers {
    text: Option<String>,
    here: bool,
}

impl Dir {
    pub(crate) fn new(handle: Arc<dyn DiskDir>, path: PathBuf) -> Dir {
        Dir { handle, path, writer: None, zero_fill: true, reserve: true, short: Arc::default() }
    }

    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Dir> {
        let path = path.to_owned();
        match disk.open_dir(&path) {
            Ok(handle) => Ok(Dir::new(handle, path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NotFound { dir: path }),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                // (A disk may know more than that.)
                let why = if e.get_ref().is_some() { e.to_string() } else { "it is a file, not a directory".into() };
                Err(Error::NotALog { dir: path, why })
            }
            Err(e) => Err(e).doing("open the directory", &path),
        }
    }

    /// What was found of the log here, if there is one.
    pub(crate) fn there<T>(&self, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| Error::NotFound { dir: self.path.clone() })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn segment(&self, epoch: u64) -> PathBuf {
        self.file(&segment_name(epoch))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.sync_names().doing("sync the directory", &self.path)
    }

    pub(super) fn sync_names(&self) -> io::Result<()> {
        bug!(SkipDirSync, return Ok(()));
        self.handle.sync()
    }

    /// The names in the directory. [`Error::NotALog`] if it has a file `LOG` that is another's:
    /// then nothing else of it is looked at.
    pub(crate) fn names(&self) -> Result<Names> {
        let mut names = Names::default();
        let listed = match self.handle.list() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NotFound { dir: self.path.clone() }),
            listed => listed.doing("list the directory", &self.path)?,
        };
        for name in listed {
            match parse_segment_name(&name) {
                Some(epoch) => names.epochs.push(epoch),
                None if name == IDENTITY => names.identity = true,
                // Stats that are there when a log is opened are of a process that was killed.
                None if name == STATS || name.strip_suffix(TMP).is_some_and(is_made_by_rename) => names.temporary.push(name),
                None if name == HOLDS_TMP => names.holds_begun = true,
                None if name == LOCK => names.lock = true,
                None if name == DAMAGED => {
                    names.damaged = true;
                    names.later.push(name);
                }
                None if name == HOLDS || RESERVES.contains(&&*name) => names.later.push(name),
                None => names.others.push(name),
            }
        }
        names.epochs.sort_unstable();
        if names.identity && names.epochs.is_empty() && !self.identity_is_a_logs()? {
            let why = format!(
                "its `{IDENTITY}` is not a log's, and no segment is beside it; nothing was touched: check the path, or give the log \
                 a directory of its own"
            );
            return Err(Error::NotALog { dir: self.path.clone(), why });
        }
        Ok(names)
    }

    /// Whether `LOG` is a log's, perhaps damaged, where no segment says that there is a log: it has
    /// the right length, or one of its lines is right.
    fn identity_is_a_logs(&self) -> Result<bool> {
        match self.identity_bytes() {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let is_right = |line: &str| line.starts_with(IDENTITY_BEGINS) || parse_uuid(line).is_some();
                Ok(bytes.len() == identity_text(LogId([0; 16])).len() || text.lines().any(is_right))
            }
            // A directory, a link, or the like.
            Err(e) if matches!(e.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true), // It has gone since: what follows says so.
            Err(e) => Err(e).doing("read the file", &self.file(IDENTITY)),
        }
    }

    fn identity_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 128];
        let n = self.handle.open(IDENTITY, Access::Read)?.read_full_at(&mut bytes, 0)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// Which writer has the log open, or had it last. The text is read first: a writer that takes
    /// the lock after that writes another before it changes anything else.
    pub(crate) fn writers(&self) -> Result<Writers> {
        let text = self.read_lock().ok();
        Ok(Writers { text, here: self.has_writer()? })
    }

    /// Looks at a log in which a writer may be at work, or come and go meanwhile: files appear and
    /// vanish, and what is read of them at different times need not fit together. So what cannot be
    /// relied on then, as `doubtful` tells, only counts if no writer was there, or after many
    /// looks. Both are told whether a writer was there when the look began.
    pub(crate) fn look<T>(
        &self,
        doubtful: impl Fn(&Result<T>, bool) -> Result<bool>,
        mut look: impl FnMut(bool) -> Result<T>,
    ) -> Result<T> {
        let mut left = LOOKS_AGAIN;
        loop {
            let before = self.writers()?;
            let looked = look(before.here);
            if left == 0 || !doubtful(&looked, before.here)? || (!before.here && self.writers()? == before) {
                return looked;
            }
            left -= 1;
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// Writes the identity, in place of a damaged one if there is one. It is locked before it has
    /// its name, so that at no time there is one that is not.
    pub(crate) fn write_identity(&self, log: LogId, damaged: bool) -> Result<()> {
        let tmp = format!("{IDENTITY}{TMP}");
        let path = self.file(&tmp);
        let file = self.create_anew(&tmp).doing("create the file", &path)?;
        file.write_all_at(identity_text(log).as_bytes(), 0).doing("write the file", &path)?;
        file.sync().doing("sync the file", &path)?;
        self.keep(self.handle.lock(&tmp).doing("lock the file", &path)?);
        let named = if damaged { self.handle.replace(&tmp, IDENTITY) } else { self.handle.rename(&tmp, IDENTITY) };
        named.doing("rename the file", &path)?;
        self.sync()
    }

    /// Makes a file that is this process's alone, for the users that the log is for. What has its
    /// name is removed.
    pub(crate) fn create_anew(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.remove_if_there(name)?;
        self.handle.create_like(name, IDENTITY)
    }

    /// Removes a file, if there is one of that name.
    pub(crate) fn remove_if_there(&self, name: &str) -> io::Result<()> {
        match self.handle.remove(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The identity, if the file is there; `Err(text)` inside if it is not as it was written.
    pub(crate) fn read_identity(&self) -> Result<std::result::Result<LogId, String>> {
        let bytes = self.identity_bytes().doing("read the file", &self.file(IDENTITY))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let id = text.lines().nth(1).and_then(parse_uuid);
        Ok(id.filter(|&id| identity_text(id) == text).ok_or(text))
    }
}

const IDENTITY_BEGINS: &str = "foreword log format ";

fn identity_text(log: LogId) -> String {
    format!("{IDENTITY_BEGINS}{}\nuuid {log}\n", format::VERSION)
}

fn parse_uuid(line: &str) -> Option<LogId> {
    line.strip_prefix("uuid ")?.parse().ok()
}

/// The version of the format that the text of `LOG` names.
pub(crate) fn stated_version(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix(IDENTITY_BEGINS)?.parse().ok()
}
