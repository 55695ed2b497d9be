//! One error type; each variant prescribes what the caller does.

use std::fmt;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed, and so what to do about it. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// To wait for the lock would close a circle of transactions, each of which waits for the next.
    /// Nothing was changed: roll the transaction back, so that the others go on, and begin it again.
    #[non_exhaustive]
    Deadlock {
        /// The circle: the transaction that asked; the one that it would wait for; the one that
        /// this one waits for; and so on. The last waits for the first.
        owners: Vec<u64>,
    },
    /// The transaction has as many locks as one may have. Nothing was changed: commit it, or roll it
    /// back, and do the work in several transactions.
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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
        }
    }
}

impl std::error::Error for Error {}
