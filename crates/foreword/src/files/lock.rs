//! The one writer of a log: the locks that it holds, and whether it still is the one.
//!
//! Two files are locked: `LOCK`, which nothing else is done with, so that a log can be locked
//! before it is one; and `LOG`, so that removing the first admits no other writer. A lock is on a
//! file, not on a name: if `LOCK` is removed or replaced, the writer has a lock that keeps no one
//! out. So each time before it says that something is durable, the writer looks whether the name
//! still leads to the file. A process that is forked has the same files open, and is not the
//! writer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::bug::bug;
use crate::error::Doing;
use crate::files::dir::Dir;
use crate::files::disk::{Access, DiskFile, FileId};
use crate::files::names::{IDENTITY, LOCK};
use crate::files::time::since_1970;
use crate::files::writer::Writer;
use crate::sync::Mutex;
use crate::{Error, Result};

/// Where the file cannot be read while it is locked (Windows).
pub(crate) const UNKNOWN_HOLDER: &str = "by an unknown process";
/// Only `LOG` is locked, and does not say by which process.
const NAMELESS_HOLDER: &str = "by a process whose file LOCK was removed";
/// A writer's lock lets no reader ask for its own.
const READER: &str = "by a reader that asked for the writer, and was stopped just then";

const LOOK: &str = "look at the writer's lock";
const FORKED: &str = "this process was forked from the one that opened the log";
const LOCK_GONE: &str = "its file LOCK was removed or replaced, so that another writer may be at work";

/// How often a writer tries, and how long it waits between: a reader that asks for a writer has the
/// lock for microseconds.
const TRIES: u32 = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// How a writer names itself in `LOCK`.
pub(crate) fn holder_text(process: u32) -> String {
    format!("process {process}")
}

/// What a writer writes into `LOCK`: its process, for people, and the time, so that no two openings
/// write the same. The length is always the same: the text overwrites the last writer's, and
/// truncating a file takes longer.
fn lock_text(process: u32) -> String {
    format!("{:20}\nsince {:020}\n", holder_text(process), since_1970().as_nanos())
}

impl Dir {
    /// Takes `LOCK`; whether it was not there before. From here on, this is a writer's handle.
    pub(crate) fn lock(&mut self) -> Result<bool> {
        let not_there = |found: io::Result<FileId>| found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        let anew = not_there(self.handle.id_of(LOCK));
        // One that was lost is made anew for the users that the log is for. (If another is faster,
        // it does that.)
        if anew && self.handle.id_of(IDENTITY).is_ok() {
            let _ = self.handle.create_like(LOCK, IDENTITY);
        }
        for _ in 0..TRIES {
            let file = self.take(LOCK)?.ok_or_else(|| self.locked_by_another())?;
            let id = file.id().doing(LOOK, &self.file(LOCK))?;
            if self.is_lock(id)? {
                self.own(file, Some(id));
                return Ok(anew);
            }
            // The file was removed before it was locked: another file has the name now.
        }
        let file = self.take(LOCK)?.ok_or_else(|| self.locked_by_another())?;
        self.own(file, None);
        Ok(anew)
    }

    /// Removes `LOCK`, which this writer made and has locked. (One that waits for it finds that the
    /// name is gone, and makes another.)
    pub(crate) fn remove_lock(&self) {
        if let Some(id) = self.writer.as_ref().and_then(|writer| writer.lock)
            && self.is_lock(id).is_ok_and(|mine| mine)
        {
            let _ = self.handle.remove(LOCK);
        }
    }

    /// Whether `LOCK`, where there is no log, may be what one left that was not made after all:
    /// what a writer writes, or nothing. (What cannot be read is another's, or locked.)
    pub(crate) fn lock_is_a_logs(&self) -> bool {
        match self.read_lock() {
            Ok(text) => {
                let same =
                    |(there, ours): (u8, u8)| there == ours || (ours.is_ascii_digit() && matches!(there, b'0'..=b'9' | b' '));
                let ours = lock_text(u32::MAX);
                let written = text.len() == ours.len() && text.bytes().zip(ours.bytes()).all(same);
                written || text.bytes().all(|byte| byte == 0)
            }
            Err(e) => !matches!(e.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput),
        }
    }

    fn own(&mut self, file: Box<dyn DiskFile>, lock: Option<FileId>) {
        self.writer = Some(Arc::new(Writer { process: std::process::id(), lock, files: Mutex::new(vec![file]) }));
    }

    /// Whether the name `LOCK` leads to this file.
    fn is_lock(&self, id: FileId) -> Result<bool> {
        match self.handle.id_of(LOCK) {
            // (Asked with each flush, which allocates nothing.)
            Ok(now) => Ok(now == id),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e).doing(LOOK, &self.file(LOCK)),
        }
    }

    /// Takes the lock on `LOG`, which is there, too.
    pub(crate) fn lock_identity(&self) -> Result<()> {
        let holder = || Error::Locked { dir: self.path.clone(), holder: NAMELESS_HOLDER.into() };
        let file = self.take(IDENTITY)?.ok_or_else(holder)?;
        self.keep(file);
        Ok(())
    }

    /// Keeps a locked file as the writer's own.
    pub(crate) fn keep(&self, file: Box<dyn DiskFile>) {
        if let Some(writer) = &self.writer {
            writer.files().push(file);
        }
    }

    /// A file's lock, unless another has it for longer than a moment.
    pub(crate) fn take(&self, name: &str) -> Result<Option<Box<dyn DiskFile>>> {
        for patience in (0..TRIES).rev() {
            match self.handle.lock(name) {
                Ok(lock) => return Ok(Some(lock)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && patience > 0 => std::thread::sleep(TRY_AGAIN_AFTER),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e).doing("take the lock", &self.file(name)),
            }
        }
        Ok(None)
    }

    fn locked_by_another(&self) -> Error {
        let by_writer = self.handle.is_locked(LOCK).unwrap_or(true);
        let holder = if by_writer { self.holder() } else { READER.into() };
        Error::Locked { dir: self.path.clone(), holder }
    }

    /// Says in `LOCK` which process has it. (That there is no room for it is no reason to refuse.)
    pub(crate) fn sign_lock(&self) {
        if let Some(writer) = &self.writer
            && let Some(lock) = writer.files().first()
        {
            let _ = lock.write_at(&[io::IoSlice::new(lock_text(writer.process).as_bytes())], 0);
        }
    }

    /// Gives the locks up: the log is closed.
    pub(crate) fn unlock(&self) {
        if let Some(writer) = &self.writer {
            let files = std::mem::take(&mut *writer.files());
            drop(files);
        }
    }

    /// Whether this process is the one that opened the log for writing; cheap. In a process that
    /// was forked from it nothing is written, and nothing is waited for: the threads that would end
    /// the waiting are not there.
    pub(crate) fn check_process(&self) -> Result<()> {
        bug!(WriteInFork, return Ok(()));
        match &self.writer {
            Some(writer) if writer.process != std::process::id() => Err(self.lost(FORKED)),
            _ => Ok(()),
        }
    }

    /// Whether this process still is the log's one writer. Asked when all that is to be
    /// acknowledged is durable: a writer that has taken the lock since then has seen it.
    pub(crate) fn check_writer(&self) -> Result<()> {
        self.check_process()?;
        bug!(TrustLock, return Ok(()));
        match self.writer.as_ref().and_then(|writer| writer.lock) {
            Some(id) if !self.is_lock(id)? => Err(self.lost(LOCK_GONE)),
            _ => Ok(()),
        }
    }

    /// The error of what cannot be known or done in a forked process.
    pub(crate) fn forked(&self) -> Error {
        self.lost(FORKED)
    }

    fn lost(&self, why: &'static str) -> Error {
        Error::LockLost { dir: self.path.clone(), why }
    }

    /// What the lock's holder, or the last that was, wrote into it.
    pub(crate) fn read_lock(&self) -> io::Result<String> {
        let file = self.handle.open(LOCK, Access::Read)?;
        let mut text = [0; 100];
        let n = file.read_full_at(&mut text, 0)?;
        Ok(String::from_utf8_lossy(&text[..n]).into_owned())
    }

    /// What the lock's holder wrote of itself.
    pub(crate) fn holder(&self) -> String {
        let text = self.read_lock().unwrap_or_default();
        let holder = text.lines().next().unwrap_or_default().trim();
        if holder.is_empty() { UNKNOWN_HOLDER.into() } else { holder.to_owned() }
    }

    /// Whether a writer has the log open: one that lost `LOCK` still has `LOG`.
    pub(crate) fn has_writer(&self) -> Result<bool> {
        let locked = |name| self.handle.is_locked(name).doing("ask for the writer's lock", &self.file(name));
        let asked = locked(LOCK).and_then(|here| Ok(here || locked(IDENTITY)?));
        // What cannot be asked may be no log's.
        asked.or_else(|error| self.names().and(Err(error)))
    }
}
