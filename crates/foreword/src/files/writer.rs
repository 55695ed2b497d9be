//! What a writer has locked.

use crate::files::disk::{DiskFile, FileId};
use crate::sync::{Mutex, PoisonError};

/// What a writer has, and knows itself by.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) process: u32,
    /// The file that had the name `LOCK` when it was locked. It is open, so no other file can be
    /// this. `None` where a file is never told as the same twice.
    pub(super) lock: Option<FileId>,
    /// The locked files, `LOCK` first; none any more once the log is closed.
    pub(super) files: Mutex<Vec<Box<dyn DiskFile>>>,
}

impl Writer {
    pub(super) fn files(&self) -> crate::sync::MutexGuard<'_, Vec<Box<dyn DiskFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
