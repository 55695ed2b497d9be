//! One error type; each variant prescribes what the caller does.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Lsn;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and so what to do about it. Cheap to clone: one failed flush answers
/// many waiters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Reading may be tried again; a writer that failed is
    /// [`Poisoned`](Error::Poisoned) from then on. If too many files are open, raise the limit, or
    /// use larger segments: a record has all segments open that it lies in until it is durable. (An
    /// append that finds no file handle makes durable what has them, and tries again.)
    #[non_exhaustive]
    Io {
        /// What was being done, as in "cannot *open the segment*".
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// There is no room for another segment, for the rest of one of which a copy was made without
    /// its space, for the copy of one that a repair puts aside, or for the first hold of another
    /// process. Nothing was appended. Free some space, in a log that is open with
    /// [`Log::truncate_front`](crate::Log::truncate_front), else with `foreword truncate`, and go
    /// on: a log that is open needs no reopening.
    /// A log that is opened may also be given smaller segments
    /// ([`Options::segment_bytes`](crate::Options::segment_bytes)).
    #[non_exhaustive]
    NoSpace {
        /// The directory of the log.
        dir: PathBuf,
        /// The bytes of the file that has no room: a segment, or that of holds. `None`: there was
        /// none for less than that (a name, a small file).
        bytes: Option<u64>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// Another writer has the log open. Wait for it, or read with a [`View`](crate::View).
    #[non_exhaustive]
    Locked {
        /// The directory of the log.
        dir: PathBuf,
        /// What the holder wrote of itself (its process id), as far as it could be read.
        holder: String,
    },
    /// This process is not, or no longer, the log's writer: it was forked from the one that opened
    /// the log, or the log's file `LOCK` was removed or replaced under it. Nothing was written in a
    /// forked process: let only the one that opened the log use it, or open it after the fork. (A
    /// [`View`](crate::View), too, that another thread was looking with at the fork.)
    /// Where `LOCK` was removed, the log is [`Poisoned`](Error::Poisoned) by this error: whether
    /// the records that were waiting are there is known only after reopening, and what removes the
    /// file must be stopped.
    #[non_exhaustive]
    LockLost {
        /// The directory that the log was opened by.
        dir: PathBuf,
        /// Which of these it is.
        why: &'static str,
    },
    /// There is no log here. Check the path, or create one with
    /// [`Options::create`](crate::Options::create).
    #[non_exhaustive]
    NotFound {
        /// The directory that was given.
        dir: PathBuf,
    },
    /// A log is here already, and the options asked for a new one.
    #[non_exhaustive]
    AlreadyExists {
        /// The directory of the log.
        dir: PathBuf,
    },
    /// The directory holds something else, or is another log than the one expected.
    #[non_exhaustive]
    NotALog {
        /// The directory that was given.
        dir: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The log has another format version than this library reads. A later one: use a newer
    /// library. An earlier one was never released.
    #[non_exhaustive]
    UnsupportedVersion {
        /// The file that says so.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The one that this library reads.
        supported: u32,
    },
    /// The log uses features of the format that this library does not know. Use a newer library.
    #[non_exhaustive]
    UnsupportedFeatures {
        /// The segment that says so.
        path: PathBuf,
        /// The features that are not known: a bit each.
        features: u32,
    },
    /// The evidence in the log says that data is damaged that was, or may have been, acknowledged.
    /// Restore a copy; or go on with less, by [`Options::on_damage`](crate::Options::on_damage) or
    /// `foreword repair`.
    Corruption(Arc<Damage>),
    /// The log holds fewer records than the caller knows of
    /// ([`Options::expect_lsn`](crate::Options::expect_lsn)): an older copy stands in its place.
    #[non_exhaustive]
    RolledBack {
        /// The directory of the log.
        dir: PathBuf,
        /// The LSN that the caller knows to have been durable.
        expected: Lsn,
        /// The last LSN that is there; [`Lsn::ZERO`]: there is no record, or no log.
        found: Lsn,
    },
    /// Another log, or another copy of the same (with one identity, then), stands where a
    /// [`View`](crate::View) had opened one; or another log where
    /// [`Options::expect_id`](crate::Options::expect_id) expects one: open that one, or find where
    /// the expected one has gone.
    #[non_exhaustive]
    Replaced {
        /// The directory.
        dir: PathBuf,
        /// The identity of the log that was opened, or that is expected.
        expected: crate::LogId,
        /// That of the log that is there now.
        found: crate::LogId,
    },
    /// The record, or the batch with its lengths, is larger than the options allow. Nothing was
    /// appended.
    #[non_exhaustive]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// How many are allowed.
        max: u64,
    },
    /// The call would have had to wait, and was told not to
    /// ([`Log::try_append`](crate::Log::try_append)), or might have waited for itself: it comes
    /// from a waker, a hook, a subscriber of events, a recorder of metrics or a
    /// [`Disk`](crate::files::disk::Disk) that a call of this log runs, and which that waits for,
    /// at once or through the hooks of other logs.
    /// Nothing was appended or changed. Try again later, or from another thread.
    Busy,
    /// An earlier write or flush failed, so that nothing is known of what it covered; the log
    /// accepts nothing more. Whether the records that were waiting are there is known only after
    /// reopening.
    Poisoned(Arc<Error>),
    /// The log was closed. To a reader that outlives its log: the file that it needs has been
    /// dropped or changed by a later opening since.
    Closed,
    /// The record was dropped by front truncation.
    #[non_exhaustive]
    Dropped {
        /// The LSN asked for.
        lsn: Lsn,
        /// The first that is there.
        start: Lsn,
    },
    /// The hold had reached its [limit](crate::Limit), and what it was to keep was dropped. Its
    /// owner begins anew, from a copy of what the log's records made: release the hold, and place
    /// it again.
    #[non_exhaustive]
    HoldLost {
        /// The hold's name.
        name: String,
        /// The first LSN that it was to keep.
        lsn: Lsn,
        /// The first that is there.
        start: Lsn,
    },
    /// The file `HOLDS` is damaged: nobody knows what other processes ask to be kept. The log goes
    /// on, but nothing of it is dropped or cut off. Remove the file, and have the holds placed
    /// again.
    #[non_exhaustive]
    HoldsDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Records were cut off at the back that the reader had read, or behind which it stood. Said
    /// once: it stands before `at` now, and reads on from there. What it read from `at` on counts
    /// for nothing any more; to go on elsewhere, [`seek`](crate::Reader::seek).
    #[non_exhaustive]
    Cut {
        /// The first LSN that may stand for another record since: that of the first record that was
        /// cut; of several cuts, of the lowest. On a log that another process writes it may be
        /// lower, down to that of an earlier cut: where a cut follows another so soon that it
        /// rewrites the same segment, one LSN stands for both.
        at: Lsn,
        /// The LSN up to which the reader had come.
        reached: Lsn,
    },
    /// The record was given up when a damaged log was salvaged.
    #[non_exhaustive]
    GivenUp {
        /// The LSN asked for.
        lsn: Lsn,
    },
    /// The LSN lies beyond what was appended, so that it can never become durable by waiting here.
    #[non_exhaustive]
    NotAppended {
        /// The LSN asked for.
        lsn: Lsn,
        /// The last that is there; for a reader, the last that is durable; for a hold of another
        /// process, the last that recovery would return.
        last: Lsn,
    },
    /// The caller's own hook ended the call before it was done
    /// ([`Verify::progress`](crate::Verify::progress)).
    Canceled,
    /// An option or argument has a value that cannot be.
    #[non_exhaustive]
    Invalid {
        /// Which.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

/// What kind of damage was found: rows of the [verdict table](crate::_docs::format).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// Data that was durable is not there: zeros or old bytes in its place (row 6, and 16).
    Missing,
    /// A flipped bit or its like (rows 7 and 8).
    Garbled,
    /// A segment's header is not whole (row 9).
    Header,
    /// A segment inside the log, or its first, is gone (rows 10 and 11).
    LostSegment,
    /// The newest segment is gone (row 12).
    LostNewest,
    /// All segments are gone (row 13).
    LostAll,
    /// A segment of another log (row 14).
    Foreign,
    /// A copy of another segment of this log (row 15).
    Misplaced,
    /// A file that is shorter or longer than its segment (row 17).
    Size,
    /// A seal that is not whole (row 20).
    Seal,
    /// The identity file `LOG` is not whole, or not of this log (row 21).
    Identity,
    /// Checksums hold, but the structure does not (row 22).
    Structure,
}

impl DamageKind {
    fn row(self, proven: bool) -> u8 {
        match self {
            DamageKind::Missing => 6,
            DamageKind::Garbled if proven => 7,
            DamageKind::Garbled => 8,
            DamageKind::Header => 9,
            DamageKind::LostSegment => 10,
            DamageKind::LostNewest => 12,
            DamageKind::LostAll => 13,
            DamageKind::Foreign => 14,
            DamageKind::Misplaced => 15,
            DamageKind::Size => 17,
            DamageKind::Seal => 20,
            DamageKind::Identity => 21,
            DamageKind::Structure => 22,
        }
    }
}

/// Damage, where it is, and what the evidence says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// What kind.
    pub kind: DamageKind,
    /// The file.
    pub path: PathBuf,
    /// The byte in the file at which the damaged frame begins.
    pub offset: u64,
    /// The first LSN that cannot be read until the log is repaired. What a repair would then give
    /// up, [`repair_plan`](crate::repair_plan) says.
    pub first_lsn: Lsn,
    /// The last such LSN known to have been durable, if any lies beyond the damage. Most of those
    /// between may be sound.
    pub last_lsn: Option<Lsn>,
    /// Whether the evidence proves that acknowledged data is damaged. If not, it may be: a crash
    /// cannot have done this, and nothing says that it was never acknowledged.
    pub proven: bool,
    /// The evidence, in words.
    pub evidence: String,
}

impl Damage {
    /// The row of the [verdict table](crate::_docs::format) that it is.
    #[must_use]
    pub fn row(&self) -> u8 {
        self.kind.row(self.proven)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}: {}", self.path.display(), self.offset, self.evidence)?;
        match self.last_lsn {
            Some(last) if last == self.first_lsn => {
                write!(f, "; record {last} was durable, and cannot be read until it is repaired")
            }
            Some(last) if last > self.first_lsn => {
                let first = self.first_lsn;
                write!(f, "; records {first} to {last} were durable, and not all of them can be read until it is repaired")
            }
            // What a repair makes anew hides no record.
            _ if self.kind == DamageKind::Identity => {
                f.write_str("; no record is unreadable because of this: a repair writes the file anew")
            }
            _ => write!(f, "; what there may be from record {} on cannot be read until it is repaired", self.first_lsn),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { doing, path, source } if path.as_os_str().is_empty() => {
                write!(f, "cannot {doing}: {source}{}", remedy(source))
            }
            Error::Io { doing, path, source } => write!(f, "cannot {doing} ({}): {source}{}", path.display(), remedy(source)),
            Error::NoSpace { dir, bytes, source } => {
                let what = bytes.map(|bytes| format!(" for a file of {bytes} bytes")).unwrap_or_default();
                write!(
                    f,
                    "no space{what} in {}: {source}; nothing was changed: free space, which truncating the front may do of a log that has \
                     records (with `foreword truncate`, if no process has it open), or open it with smaller segments, and go on",
                    dir.display()
                )
            }
            Error::Locked { dir, holder } => {
                write!(f, "{} is open for writing elsewhere ({holder}): wait for it, or open it for reading", dir.display())
            }
            Error::LockLost { dir, why } => {
                write!(f, "{} is not this process's to use: {why}", dir.display())
            }
            Error::NotFound { dir } => write!(f, "there is no log in {}: check the path, or create one", dir.display()),
            Error::AlreadyExists { dir } => write!(f, "there is a log in {} already", dir.display()),
            Error::NotALog { dir, why } => write!(f, "{} cannot serve as the log: {why}", dir.display()),
            Error::UnsupportedVersion { path, found, supported } => {
                let other = if found > supported { "use a newer program" } else { "no released version of the program wrote it" };
                write!(f, "{} has format version {found}; this program reads version {supported}: {other}", path.display())
            }
            Error::UnsupportedFeatures { path, features } => write!(
                f,
                "{} uses features of the format that this program does not know ({features:#x}): use a newer one",
                path.display()
            ),
            Error::Corruption(damage) => write!(
                f,
                "{}: {damage}; restore a copy, or see `foreword verify` and `foreword repair`",
                if damage.proven { "corruption" } else { "corruption, perhaps of acknowledged data" }
            ),
            Error::RolledBack { dir, expected, found: Lsn::ZERO } => write!(
                f,
                "there is no record in {}, but LSN {expected} was durable: check the path, or restore the log that was there",
                dir.display()
            ),
            Error::RolledBack { dir, expected, found } => write!(
                f,
                "{} ends at LSN {found}, but {expected} was durable: an older copy stands in its place; restore the newer one",
                dir.display()
            ),
            Error::Replaced { dir, expected, found } if expected == found => {
                write!(f, "the directory {} was replaced since it was opened: open it anew", dir.display())
            }
            Error::Replaced { dir, expected, found } => {
                write!(f, "another log is in {}: it is {found}, not {expected}; open that one, or find the other", dir.display())
            }
            Error::TooLarge { bytes, max } => write!(f, "{bytes} bytes are more than the {max} allowed; nothing was appended"),
            Error::Busy => f.write_str("the log is busy, and the call was not to wait; nothing was appended: try again"),
            Error::Poisoned(cause) => {
                write!(f, "the log stopped at an earlier failure ({cause}); reopen it to see what survived")
            }
            Error::Closed => f.write_str("the log is closed"),
            Error::Dropped { lsn: Lsn::ZERO, start } => {
                write!(f, "there is no record 0: LSNs begin with 1, and the log starts at {start}")
            }
            Error::Dropped { lsn, start } => write!(f, "record {lsn} was dropped: the log starts at {start}"),
            Error::HoldLost { name, lsn, start } => write!(
                f,
                "the hold `{name}` is lost: it was to keep LSN {lsn} and later, reached its limit, and the log starts at {start} now; \
                 release it, and let its owner start over"
            ),
            Error::HoldsDamaged { path, why } => write!(
                f,
                "{} is damaged ({why}): nothing is dropped until you remove it; then have the holds of other processes placed again",
                path.display()
            ),
            Error::Cut { at, reached } => write!(
                f,
                "the log was cut off at LSN {at}, and this reader had come to {reached}: what it read from {at} on may be gone; it \
                 reads on from there, or seek elsewhere"
            ),
            Error::GivenUp { lsn } => write!(f, "record {lsn} was given up when the log was salvaged"),
            Error::NotAppended { lsn: Lsn::ZERO, .. } => f.write_str("there is no record 0: LSNs begin with 1"),
            Error::NotAppended { lsn, last: Lsn::ZERO } => write!(f, "there is no record {lsn}, or not yet: the log has none"),
            Error::NotAppended { lsn, last } => write!(f, "there is no record {lsn}, or not yet: the last is {last}"),
            Error::Canceled => f.write_str("it was ended before it was done, as the caller asked"),
            Error::Invalid { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

/// Whether there was no space, on the disk or in a quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether too many files are open: in this process, or on the whole machine.
fn is_too_many_files(error: &io::Error) -> bool {
    let too_many: &[i32] = if cfg!(windows) { &[4] } else { &[24, 23] };
    error.raw_os_error().is_some_and(|code| too_many.contains(&code))
}

/// What to do about what the operating system said, where that is not in its words.
fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(_) if is_too_many_files(source) => {
            "; raise the limit of open files (ulimit -n), or open the log with larger segments"
        }
        _ if source.kind() == io::ErrorKind::PermissionDenied => {
            "; do this as the user whose log it is, or change the permissions"
        }
        _ if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            "; mount it for writing, or only read the log (`View`, `foreword cat`)"
        }
        _ => "",
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } | Error::NoSpace { source, .. } => Some(source.as_ref()),
            Error::Poisoned(cause) => Some(cause.as_ref()),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    /// For callers whose errors are these: of a [kind](io::Error::kind) that fits, with the error
    /// itself as its source, to which it can be cast back.
    ///
    /// An I/O error has the kind that the operating system gave. No room is `StorageFull`;
    /// [`Busy`](Error::Busy) is `WouldBlock`, [`Locked`](Error::Locked) `ResourceBusy`;
    /// [`Closed`](Error::Closed) is `BrokenPipe`; what is not there is `NotFound`; damage, another
    /// log or an older copy is `InvalidData`; an argument that cannot be is `InvalidInput`; what a
    /// later version wrote is `Unsupported`. The others are `Other`, among them
    /// [`Poisoned`](Error::Poisoned): whatever the cause, the log does not go on.
    ///
    /// ```
    /// fn save(log: &foreword::Log) -> std::io::Result<()> {
    ///     log.commit("saved")?;
    ///     Ok(())
    /// }
    /// let error = std::io::Error::from(foreword::Error::Closed);
    /// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    /// assert!(matches!(error.downcast::<foreword::Error>(), Ok(foreword::Error::Closed)));
    /// ```
    fn from(error: Error) -> io::Error {
        use io::ErrorKind;
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::NoSpace { .. } => ErrorKind::StorageFull,
            Error::Locked { .. } => ErrorKind::ResourceBusy,
            Error::Busy => ErrorKind::WouldBlock,
            Error::Closed => ErrorKind::BrokenPipe,
            Error::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Error::NotFound { .. }
            | Error::Dropped { .. }
            | Error::HoldLost { .. }
            | Error::GivenUp { .. }
            | Error::NotAppended { .. } => ErrorKind::NotFound,
            Error::NotALog { .. }
            | Error::Corruption(_)
            | Error::RolledBack { .. }
            | Error::Replaced { .. }
            | Error::HoldsDamaged { .. } => ErrorKind::InvalidData,
            Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. } => ErrorKind::Unsupported,
            Error::TooLarge { .. } | Error::Invalid { .. } => ErrorKind::InvalidInput,
            Error::LockLost { .. } | Error::Poisoned(_) | Error::Cut { .. } | Error::Canceled => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl Error {
    /// Whether the same call may succeed later, with nothing reopened or repaired: nothing was
    /// appended or changed by it, and the log goes on.
    ///
    /// | error | | for |
    /// |---|---|---|
    /// | [`Busy`](Error::Busy) | yes | there is nothing wrong |
    /// | [`NoSpace`](Error::NoSpace) | yes | room may be made |
    /// | [`Locked`](Error::Locked) | yes | the other writer may end |
    /// | [`Io`](Error::Io) | yes | where it was not known what came of a write, the log would be poisoned. But bound the attempts: a broken disk, or a missing permission, says so each time |
    /// | [`Poisoned`](Error::Poisoned), [`Closed`](Error::Closed), [`LockLost`](Error::LockLost) | no | the log must be opened anew |
    /// | [`Cut`](Error::Cut) | no | the reader goes on, but elsewhere: what it had read is void |
    /// | [`NotAppended`](Error::NotAppended) | no | to wait for a record there is [`wait_next`](crate::Reader::wait_next) |
    /// | all others | no | another call is needed, or a repair |
    ///
    /// ```
    /// assert!(foreword::Error::Busy.is_retryable() && !foreword::Error::Closed.is_retryable());
    /// ```
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Busy | Error::NoSpace { .. } | Error::Locked { .. } | Error::Io { .. })
    }

    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace { .. })
    }

    pub(crate) fn is_too_many_files(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_too_many_files(source))
    }

    /// As the error of what changes nothing until it succeeds: that there was no room, for so many
    /// bytes, is all that there is to say.
    pub(crate) fn or_no_space(self, dir: &Path, bytes: Option<u64>) -> Error {
        match self {
            Error::Io { source, .. } if is_full(&source) => Error::NoSpace { dir: dir.to_owned(), bytes, source },
            error => error,
        }
    }

    /// As the error of everything that comes after it.
    pub(crate) fn poison(self) -> Error {
        match self {
            poisoned @ (Error::Poisoned(_) | Error::Closed) => poisoned,
            cause => Error::Poisoned(Arc::new(cause)),
        }
    }
}

/// Names what was being done when the operating system refused.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { doing, path: path.to_owned(), source: Arc::new(source) })
    }
}
