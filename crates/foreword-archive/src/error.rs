//! What can go wrong, and what to do about it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foreword::Lsn;
use jiff::Timestamp;

/// The result of most calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The store did not do what was asked, or did not answer. Whether it did, is not known; all
    /// that is written can be written again.
    #[non_exhaustive]
    Store {
        /// What was to be done.
        doing: &'static str,
        /// The object.
        object: String,
        /// What the store says.
        source: Arc<object_store::Error>,
    },
    /// The store refuses all requests, since its clock and this machine's differ. Set the one that
    /// is wrong; then the call can be made again.
    #[non_exhaustive]
    Clock {
        /// By how many seconds this machine's clock is ahead of the store's; below zero, behind.
        /// `None`: the store does not say.
        ahead: Option<i64>,
        /// What the store says.
        source: Arc<object_store::Error>,
    },
    /// The log.
    Log(foreword::Error),
    /// A file or a directory beside the log.
    #[non_exhaustive]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// The disk is full on which a log is restored. What is restored by then is kept; the same call
    /// goes on, once there is more space.
    #[non_exhaustive]
    NoSpace {
        /// Where it is restored.
        dir: PathBuf,
        /// What was to be done.
        source: Arc<Error>,
    },
    /// There is no archive at this address.
    #[non_exhaustive]
    NoArchive {
        /// The address.
        url: String,
    },
    /// Another archiver has taken over: this one must stop. Nothing that it was told to be archived
    /// is lost.
    #[non_exhaustive]
    Fenced {
        /// Its epoch.
        epoch: u64,
        /// The epoch of the other.
        by: u64,
    },
    /// The archive is that of another log.
    #[non_exhaustive]
    Foreign {
        /// What is known of the two.
        why: String,
    },
    /// The log does not go on where the archive ends: it is an older copy, or one that went on
    /// differently.
    #[non_exhaustive]
    Diverged {
        /// What differs.
        why: String,
    },
    /// Records that the archive does not have are not in the log any more.
    #[non_exhaustive]
    Missed {
        /// The first of them.
        first: Lsn,
        /// The last.
        last: Lsn,
    },
    /// An object is not what was written, or is not there.
    #[non_exhaustive]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key is missing, or is none.
    #[non_exhaustive]
    Key {
        /// What is wrong.
        why: String,
    },
    /// The store may let two archivers create one object.
    #[non_exhaustive]
    NotAtomic {
        /// What is known of it.
        why: String,
    },
    /// The archive does not have what was asked for.
    #[non_exhaustive]
    NotThere {
        /// What it has.
        why: String,
    },
    /// A value makes no sense, or a directory cannot be used.
    #[non_exhaustive]
    Invalid {
        /// Which.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A newer version of this program wrote it.
    #[non_exhaustive]
    Unsupported {
        /// The object.
        object: String,
        /// Its format.
        format: u32,
        /// The newest that this program reads.
        newest: u32,
    },
}

impl Error {
    /// Whether trying again may help: the store did not answer.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use object_store::Error as E;
        matches!(self, Error::Clock { .. })
            || matches!(self, Error::Store { source, .. } if !matches!(**source, E::NotFound { .. } | E::NotSupported { .. } | E::NotImplemented { .. } | E::InvalidPath { .. } | E::UnknownConfigurationKey { .. }))
    }

    pub(crate) fn store(doing: &'static str, object: &str, source: object_store::Error) -> Error {
        // (As Amazon S3 says it, and what speaks S3.)
        let said = source.to_string();
        if said.contains("<Code>RequestTimeTooSkewed</Code>") {
            let time = said.split("<ServerTime>").nth(1).and_then(|rest| rest.split('<').next()?.parse::<Timestamp>().ok());
            let ahead = time.map(|time| Timestamp::now().as_second() - time.as_second());
            return Error::Clock { ahead, source: Arc::new(source) };
        }
        Error::Store { doing, object: object.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::Io { doing, path: path.into(), source: Arc::new(source) }
    }

    /// The same, of a restore into a directory: what to do where its disk is full.
    pub(crate) fn of_restore(self, dir: &Path) -> Error {
        let is_full = match &self {
            Error::Log(foreword::Error::NoSpace { .. }) => true,
            Error::Io { source, .. } => matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
            _ => false,
        };
        if is_full { Error::NoSpace { dir: dir.to_owned(), source: Arc::new(self) } } else { self }
    }

    pub(crate) fn damaged(object: &str, why: impl Into<String>) -> Error {
        Error::Damaged { object: object.to_owned(), why: why.into() }
    }
}

impl From<foreword::Error> for Error {
    fn from(error: foreword::Error) -> Error {
        Error::Log(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Store { doing, object, source } => write!(f, "cannot {doing} {object}: {source}"),
            Error::Clock { ahead, source } => {
                let differ = match ahead {
                    Some(ahead) if *ahead < 0 => format!("this machine's is {} s behind", -ahead),
                    Some(ahead) => format!("this machine's is {ahead} s ahead"),
                    None => "the store does not say by how much".to_owned(),
                };
                write!(f, "the clock of this machine or of the store is wrong ({differ}): set it, and go on; {source}")
            }
            Error::Log(error) => error.fmt(f),
            Error::Io { doing, path, source } => write!(f, "cannot {doing} {}: {source}", path.display()),
            Error::NoSpace { dir, source } => {
                let full = std::error::Error::source(source).map(ToString::to_string).unwrap_or_default();
                write!(
                    f,
                    "no space to restore into {}: {full}; a log takes what its records do when they are not compressed, \
                     and two segments and a little more at least: make room, or take smaller segments \
                     (--segment-size), and do the same again: it goes on where it was",
                    dir.display()
                )
            }
            Error::NoArchive { url } => {
                write!(f, "there is no archive at {url}: check the address, or begin one (`foreword-archive push --create`)")
            }
            Error::Fenced { epoch, by } => write!(
                f,
                "another archiver has taken over (epoch {by}; this one has {epoch}): only one may run; \
                 what this one was told to be archived is"
            ),
            Error::Foreign { why } => {
                write!(f, "the archive is that of another log: {why}; give each log a prefix of its own")
            }
            Error::Diverged { why } => write!(
                f,
                "the log does not go on where the archive ends: {why}; if this is an older copy of the log, restore the \
                 archive instead; if it is to be archived as it is, give it a prefix of its own"
            ),
            Error::Missed { first, last } => write!(
                f,
                "records {first} to {last} were dropped from the log before they were archived; to go on without them: \
                 `foreword-archive push --skip-missed` (no restore then goes past them from before)"
            ),
            Error::Damaged { object, why } => write!(f, "{object} is damaged: {why}"),
            Error::Key { why } => write!(f, "{why} (see --key-file, --key-env, --key-command)"),
            Error::NotAtomic { why } => write!(
                f,
                "{why}: two archivers could go on at once; see `foreword-archive doctor`; to use it all the same: --trust-store"
            ),
            Error::NotThere { why } => f.write_str(why),
            Error::Invalid { what, why } => write!(f, "{what}: {why}"),
            Error::Unsupported { object, format, newest } => {
                write!(f, "{object} has format {format}, and this program reads up to {newest}: use a newer one")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Store { source, .. } | Error::Clock { source, .. } => Some(source),
            Error::Log(source) => Some(source),
            Error::Io { source, .. } => Some(source),
            Error::NoSpace { source, .. } => Some(source),
            _ => None,
        }
    }
}
