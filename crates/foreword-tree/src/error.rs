//! One error type; each variant prescribes what the caller does.

use std::fmt;
use std::sync::Arc;

use foreword_pages::PageId;
use foreword_pages::foreword::LogId;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and so what to do about it. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// An error of the pages below. With [`is_no_space`](Error::is_no_space): nothing was changed,
    /// and the transaction goes on; free some space and try again. The others are as
    /// [`foreword_pages::Error`] says.
    Pages(foreword_pages::Error),
    /// To wait for the lock would close a circle of transactions, each of which waits for the next.
    /// Nothing was changed: roll the transaction back, so that the others go on, and begin it
    /// again.
    #[non_exhaustive]
    Deadlock {
        /// The circle: the transaction that asked; the one that it would wait for; the one that
        /// this one waits for; and so on. The last waits for the first.
        owners: Vec<u64>,
    },
    /// The transaction has as many locks as one may have. Nothing was changed: commit it, or roll
    /// it back, and do the work in several transactions.
    #[non_exhaustive]
    TooManyLocks {
        /// How many it may have.
        limit: usize,
    },
    /// The transaction is used by two threads: it waits for a lock in another one, or ended there
    /// while it waited for this lock. The lock was not taken: use a transaction from one thread.
    #[non_exhaustive]
    InUse {
        /// The transaction.
        owner: u64,
    },
    /// Another transaction has locked what this one asks for, and it is not to
    /// [wait](crate::Txn::waits). Nothing was changed: try again, or roll the transaction back.
    Locked,
    /// The key is longer than a key may be. Nothing was changed.
    #[non_exhaustive]
    KeyTooLong {
        /// Its bytes.
        len: usize,
        /// The most that a key may have in a store with pages of this size.
        max: usize,
    },
    /// The value is longer than a value may be. Nothing was changed.
    #[non_exhaustive]
    ValueTooLong {
        /// Its bytes.
        len: usize,
        /// The most that a value may have.
        max: usize,
    },
    /// The tree is of another store. Nothing was read or changed.
    #[non_exhaustive]
    OtherStore {
        /// The store whose tree it is, by its log.
        tree: LogId,
        /// The transaction's.
        store: LogId,
    },
    /// A page is whole, but is not what the tree needs there: something else wrote to it, or the
    /// program has a fault. Restore a copy.
    #[non_exhaustive]
    Damaged {
        /// The page.
        page: PageId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An error of the caller's own, from the work of a transaction: [`Db::run`](crate::Db::run) has
    /// rolled it back, and passes the error on. [`Error::other`] makes one.
    Other(Arc<dyn std::error::Error + Send + Sync>),
    /// The store's pages are another program's: its root is not one of trees. Nothing was changed.
    #[non_exhaustive]
    NotTrees {
        /// What was found.
        why: String,
    },
}

impl Error {
    /// An error of the caller's own, for the work of a transaction; of a type of its own, or text.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Other(error.into().into())
    }

    /// Whether there was no room on the disk. Nothing was changed then, and the transaction goes
    /// on.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Pages(error) if error.is_no_space())
    }

    /// Whether the transaction met another one, and has a chance when it is begun again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Deadlock { .. } | Error::Locked)
    }

    /// What is wrong with a page.
    pub(crate) fn damaged(page: PageId) -> impl FnOnce(&'static str) -> Error {
        move |why| Error::Damaged { page, why }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Pages(error) => write!(f, "{error}"),
            Error::Other(error) => write!(f, "{error}"),
            Error::Deadlock { owners } => {
                for (i, owner) in owners.iter().chain(owners.first()).enumerate() {
                    let before = ["deadlock: transaction ", " would wait for ", ", which waits for "][i.min(2)];
                    write!(f, "{before}{owner}")?;
                }
                write!(f, ": roll back and begin again")
            }
            Error::TooManyLocks { limit } => write!(f, "the transaction has all {limit} locks that one may have"),
            Error::InUse { owner } => {
                write!(f, "transaction {owner} is used by two threads: it waits for a lock, or ended while it waited")
            }
            Error::Locked => write!(f, "another transaction has locked it: try again, or roll the transaction back"),
            Error::KeyTooLong { len, max } => write!(f, "a key of {len} bytes: the store's pages allow {max}"),
            Error::ValueTooLong { len, max } => write!(f, "a value of {len} bytes: {max} are allowed"),
            Error::OtherStore { tree, store } => write!(f, "a tree of store {tree} was used in a transaction of store {store}"),
            Error::Damaged { page, why } => write!(f, "page {page} of a tree is damaged: {why}; restore a copy"),
            Error::NotTrees { why } => write!(f, "the store has no trees, but other pages: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Pages(error) => Some(error),
            Error::Other(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<foreword_pages::Error> for Error {
    fn from(error: foreword_pages::Error) -> Error {
        Error::Pages(error)
    }
}
