//! One error type; each variant prescribes what the caller does.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foreword::Lsn;

use crate::PageId;
use crate::types::HandlerError;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and so what to do about it. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An error of the log. [`foreword::Error::NoSpace`]: nothing was changed; free some space, or
    /// take a [checkpoint](crate::Store::checkpoint), which frees log, and try again. Other errors
    /// of the log are final: reopen the store.
    Log(foreword::Error),
    /// The operating system refused. A read may be tried again. A store that failed to write is
    /// [`Poisoned`](Error::Poisoned) from then on.
    #[non_exhaustive]
    Io {
        /// What was being done, as in "cannot *read a page*".
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The disk has no room for another page. Nothing was changed: free some space and go on; the
    /// store needs no reopening.
    #[non_exhaustive]
    NoSpace {
        /// The page file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The page file is no longer at its name: it was removed or moved, or another file is in its
    /// place. The log was not dropped. Put the file back, and take a checkpoint.
    #[non_exhaustive]
    Displaced {
        /// Where the page file was.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The transaction or session has a guard of the page, and would wait for itself; or it has
    /// waited ten seconds for another, which may wait for it. Nothing was changed: drop guards, and
    /// try again.
    #[non_exhaustive]
    Deadlock {
        /// The page that was asked for.
        page: PageId,
    },
    /// The handler of a record type failed, or panicked. Nothing was changed. In
    /// [`Txn::apply`](crate::Txn::apply) the caller can go on. A rollback is tried again by the
    /// next checkpoint, and when the store is opened; until that succeeds, opening fails.
    #[non_exhaustive]
    Handler {
        /// The number of the type.
        record_type: u16,
        /// Its name.
        name: Arc<str>,
        /// The record. Zero: it was not logged yet.
        lsn: Lsn,
        /// The page. `None`: the handler undoes the record, wherever that is.
        page: Option<PageId>,
        /// What the handler said, or how it panicked.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The log has a record of a type for which no handler is registered. Nothing was changed:
    /// [register](crate::Options::redo_type) it.
    #[non_exhaustive]
    UnknownType {
        /// The number of the type.
        record_type: u16,
        /// The record. Zero: it was not logged yet.
        lsn: Lsn,
    },
    /// A page on disk is not what was written there, and the log does not hold what rebuilds it.
    /// Restore a copy.
    #[non_exhaustive]
    Rotten {
        /// The page.
        page: PageId,
        /// The page file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The page is not allocated: it never was, or it was freed.
    #[non_exhaustive]
    NotAllocated {
        /// The page.
        page: PageId,
    },
    /// The bytes do not lie in the page.
    #[non_exhaustive]
    OutOfBounds {
        /// The page.
        page: PageId,
        /// Where they begin.
        offset: usize,
        /// Their number.
        len: usize,
        /// Bytes of a page that its user has.
        body: usize,
    },
    /// All pages of the buffer pool were in use for ten seconds. Hold fewer pages at once, or make
    /// the pool larger.
    #[non_exhaustive]
    PoolExhausted {
        /// How many pages it holds.
        pages: usize,
    },
    /// The directory holds something else than a page store, or its parts do not belong together.
    #[non_exhaustive]
    NotAStore {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The store has another format version than this library reads. If it is later, use a newer
    /// library. An earlier version was never released.
    #[non_exhaustive]
    UnsupportedVersion {
        /// The file that says so.
        path: PathBuf,
        /// The format version of the file.
        found: u32,
        /// The version that this library reads.
        supported: u32,
    },
    /// A record in the log is whole, but makes no sense here: something else wrote to this log.
    #[non_exhaustive]
    BadRecord {
        /// The record's LSN.
        lsn: Lsn,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An earlier write failed, so that nothing is known of what it covered. Reopening recovers
    /// from the log.
    Poisoned(Arc<Error>),
    /// An option or argument has a value that cannot be.
    #[non_exhaustive]
    Invalid {
        /// Which.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source: Arc::new(source) }
    }

    /// As [`io`](Error::io), for an operation that changes nothing until it succeeds: a lack of
    /// room is [`NoSpace`](Error::NoSpace).
    pub(crate) fn room(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path, source: Arc::new(source) },
            _ => Error::Io { doing, path, source: Arc::new(source) },
        }
    }

    /// A handler's error. An error of this crate, which the handler passed on, stays what it is.
    pub(crate) fn handler(record_type: u16, name: Arc<str>, lsn: Lsn, page: Option<PageId>, why: HandlerError) -> Error {
        match why.downcast::<Error>() {
            Ok(error) => *error,
            Err(why) => Error::Handler { record_type, name, lsn, page, source: why.into() },
        }
    }

    /// Whether there was no room. Nothing was changed then, and the store goes on.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace { .. } | Error::Log(foreword::Error::NoSpace { .. }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Log(error) => write!(f, "the log: {error}"),
            Error::Io { doing, path, source } => write!(f, "cannot {doing} ({}): {source}", path.display()),
            Error::NoSpace { path, source } => {
                write!(
                    f,
                    "no room for another page in {} ({source}): nothing was changed; free some space and go on",
                    path.display()
                )
            }
            Error::Displaced { path, why } => write!(
                f,
                "the page file is no longer at {}: {why}; the log was not dropped: put the file back and take a checkpoint",
                path.display()
            ),
            Error::Deadlock { page } => {
                write!(f, "the latch of page {page} is held by the owner that asks for it, or was not to be had in ten seconds")
            }
            Error::Handler { record_type, name, lsn, page, source } => {
                write!(f, "the handler of record type {record_type} ({name}) failed")?;
                if *lsn > Lsn::ZERO {
                    write!(f, " at record {lsn}")?;
                }
                if let Some(page) = page {
                    write!(f, " on page {page}")?;
                }
                write!(f, ": {source}")
            }
            Error::UnknownType { record_type, lsn } if *lsn == Lsn::ZERO => {
                write!(f, "no handler is registered for the record type {record_type}")
            }
            Error::UnknownType { record_type, lsn } => {
                write!(f, "record {lsn} is of type {record_type}, for which no handler is registered")
            }
            Error::Rotten { page, path, why } => write!(
                f,
                "page {page} of {} is damaged: {why}; the log does not reach back far enough to rebuild it: restore a copy",
                path.display()
            ),
            Error::NotAllocated { page } => write!(f, "page {page} is not allocated"),
            Error::OutOfBounds { page, offset, len, body } => {
                write!(f, "{len} bytes at {offset} do not lie in page {page}, which has {body}")
            }
            Error::PoolExhausted { pages } => {
                write!(f, "all {pages} pages of the buffer pool are in use: hold fewer at once, or make it larger")
            }
            Error::NotAStore { path, why } => write!(f, "{} is no page store: {why}", path.display()),
            Error::UnsupportedVersion { path, found, supported } => {
                let other = if found > supported { "use a newer program" } else { "no released version of the program wrote it" };
                write!(f, "{} has format version {found}; this program reads version {supported}: {other}", path.display())
            }
            Error::BadRecord { lsn, why } => write!(f, "record {lsn} of the log is none of this store's: {why}"),
            Error::Poisoned(error) => write!(f, "the store failed before ({error}): reopen it to recover"),
            Error::Invalid { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Log(error) => Some(error),
            Error::Io { source, .. } | Error::NoSpace { source, .. } => Some(source.as_ref()),
            Error::Poisoned(error) => Some(error.as_ref()),
            Error::Handler { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<foreword::Error> for Error {
    fn from(error: foreword::Error) -> Error {
        Error::Log(error)
    }
}
