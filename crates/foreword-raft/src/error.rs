//! The error type: each variant prescribes what the caller does.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use foreword::Lsn;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and what to do about it. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An error of the log. [`NoSpace`](foreword::Error::NoSpace) and
    /// [`TooLarge`](foreword::Error::TooLarge): nothing was written; free space, or split the
    /// entries, and go on. [`Poisoned`](foreword::Error::Poisoned) and
    /// [`Closed`](foreword::Error::Closed) are final: open the logs anew.
    Log(foreword::Error),
    /// The index of an entry does not follow the previous one. Nothing was written. Begin at
    /// `expected`, after a truncation if necessary.
    #[non_exhaustive]
    NotNext {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// The index that follows the last. (A group without entries begins with 0 or 1.)
        expected: u64,
    },
    /// The entries up to `purged` are gone for good: read a snapshot instead. A truncation there
    /// would remove what the state machine has applied. Nothing was written.
    #[non_exhaustive]
    Purged {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// Up to which index the group was purged.
        purged: u64,
    },
    /// The group was removed after this handle was taken. To begin the group anew, take another
    /// handle.
    #[non_exhaustive]
    Removed {
        /// The group.
        group: u64,
    },
    /// A salvage gave up a part of the log, and records of groups with it, or entries are missing
    /// in groups. Restore a copy, or rebuild the groups from their other members: [open the logs
    /// nevertheless](crate::Options::open_damaged), [remove](crate::GroupLogs::remove) the named
    /// groups, and let this node join them anew.
    Damaged(Arc<Damage>),
    /// This group may have lost votes or entries, so its node must neither vote nor lead.
    /// [Remove](crate::GroupLogs::remove) the group, and let the node join it anew as another
    /// member.
    GroupDamaged(DamagedGroup),
    /// The record is of a later version of this library, or of another program. Use a newer
    /// version.
    #[non_exhaustive]
    UnknownRecord {
        /// Its LSN.
        lsn: Lsn,
        /// The record's version.
        version: u8,
        /// The record's kind.
        kind: u8,
    },
    /// A record is whole, but cannot stand here: another program wrote to this log. Restore a copy.
    #[non_exhaustive]
    BadRecord {
        /// Its LSN.
        lsn: Lsn,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A thread could not be started. Raise the limit of threads, or open without background
    /// threads ([`Options::background`](crate::Options::background)).
    Thread(Arc<io::Error>),
    /// An option or argument has a value that is not allowed. Nothing was written.
    #[non_exhaustive]
    Invalid {
        /// Which.
        what: &'static str,
        /// What is wrong with the value, and what is allowed.
        why: String,
    },
}

/// What a log has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The LSNs that were given up: the first and last of each range. A group that is not in the
    /// log at all may have had all its records there.
    pub lost: Vec<(Lsn, Lsn)>,
    /// The groups that lost records, or are not proven to be whole, by id. All other groups in the
    /// log are whole.
    pub groups: Vec<DamagedGroup>,
}

/// What is known of a group in a log that has lost records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedGroup {
    /// Its id.
    pub group: u64,
    /// The indices of entries that are known to be missing. Entries behind the last one that is
    /// there, votes, truncations and purges may be missing, too.
    pub missing: Vec<RangeInclusive<u64>>,
    /// Whether the group is known to have lost a record. If not, it may have lost one: the log has
    /// no later record of the group that would prove otherwise.
    pub proven: bool,
}

impl From<foreword::Error> for Error {
    fn from(error: foreword::Error) -> Error {
        Error::Log(error)
    }
}

impl fmt::Display for DamagedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} {} records", self.group, if self.proven { "has lost" } else { "may have lost" })?;
        let mut before = ", entries ";
        for hole in &self.missing {
            write!(f, "{before}{} to {}", hole.start(), hole.end())?;
            before = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Log(error) => error.fmt(f),
            Error::NotNext { group, index, expected } => {
                write!(f, "group {group}: entry {index} does not follow: {expected} is next; nothing was written")
            }
            Error::Purged { group, index, purged } => {
                write!(f, "group {group}: {index} lies in what was purged, up to {purged}: use a snapshot")
            }
            Error::Removed { group } => write!(f, "group {group} was removed: take another handle to begin it anew"),
            Error::Damaged(damage) => {
                f.write_str("the log has lost records")?;
                for (first, last) in &damage.lost {
                    write!(f, " {first} to {last},")?;
                }
                f.write_str(" and what they said of groups:")?;
                for group in damage.groups.iter().take(16) {
                    write!(f, " {group};")?;
                }
                if damage.groups.len() > 16 {
                    write!(f, " and {} more;", damage.groups.len() - 16)?;
                }
                f.write_str(" restore a copy, or open it with `open_damaged` and remove the groups")
            }
            Error::GroupDamaged(group) => write!(f, "{group}: it must not vote; remove it, and let it join anew"),
            Error::UnknownRecord { lsn, version, kind } => {
                write!(
                    f,
                    "record {lsn} is of version {version} and kind {kind}, which this program does not know: use a newer one"
                )
            }
            Error::BadRecord { lsn, why } => {
                write!(f, "record {lsn} is not one of a group's log: {why}; something else wrote here: restore a copy")
            }
            Error::Thread(source) => {
                write!(f, "cannot start a thread: {source}; raise the limit, or open without background work")
            }
            Error::Invalid { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Log(error) => Some(error),
            Error::Thread(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    /// For Raft libraries whose errors are `io::Error`. The [kind](io::Error::kind) fits, and the
    /// source is this error.
    fn from(error: Error) -> io::Error {
        use io::ErrorKind;
        let kind = match &error {
            Error::Log(error) => return error.clone().into(),
            Error::NotNext { .. } | Error::Invalid { .. } => ErrorKind::InvalidInput,
            Error::Purged { .. } | Error::Removed { .. } => ErrorKind::NotFound,
            Error::Damaged(_) | Error::GroupDamaged(_) | Error::BadRecord { .. } => ErrorKind::InvalidData,
            Error::UnknownRecord { .. } => ErrorKind::Unsupported,
            Error::Thread(_) => ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
