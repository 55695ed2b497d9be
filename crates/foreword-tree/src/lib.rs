//! An embedded key-value store: concurrent B+trees with serializable transactions, on the pages of
//! [`foreword_pages`].
//!
//! A [`Db`] has trees by name. A [`Txn`] reads, changes and scans keys of any of them, beside any
//! number of others. Whatever happens to the process or the machine, opening the store finds every
//! transaction that was committed, and no other.
//!
//! ```
//! # fn main() -> foreword_tree::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! use foreword_tree::Db;
//!
//! let db = Db::open(dir.path())?;
//! let accounts = db.tree("accounts")?;
//! let balance = |old: Option<Vec<u8>>| old.map_or(0, |old| i64::from_le_bytes(old.try_into().unwrap_or_default()));
//! // Both or neither; and run again, if it meets another that transfers.
//! db.run(|txn| {
//!     let (anna, ben) = (txn.get_for_update(accounts, "anna")?, txn.get_for_update(accounts, "ben")?);
//!     txn.put(accounts, "anna", (balance(anna) - 10).to_le_bytes())?;
//!     txn.put(accounts, "ben", (balance(ben) + 10).to_le_bytes())
//! })?; // durable when it returns
//!
//! drop(db); // or the process is killed, or the power fails
//! let db = Db::open(dir.path())?;
//! let accounts = db.tree("accounts")?;
//! let txn = db.begin();
//! assert_eq!(balance(txn.get(accounts, "ben")?), 10);
//! let sum: i64 = txn.scan(accounts, ..).map(|entry| Ok(balance(Some(entry?.1)))).sum::<foreword_tree::Result<_>>()?;
//! assert_eq!(sum, 0);
//! # Ok(()) }
//! ```
//!
//! # How it works
//!
//! - **Latches** couple pages from the root to the leaves and from the left to the right. They last
//!   for the moment in which a page is looked at or changed.
//! - **Splits and joins** are [nested top actions](foreword_pages::Txn::nested): they stay when the
//!   transaction is rolled back that made them. **Undo** looks each key up anew.
//! - **Locks** are on keys, and on the key behind ([`locks`]); strict two-phase, with deadlocks found
//!   when they arise. None is waited for while a page is latched.
//! - **Pages** leave out what all their keys begin with. Values that are too long for a leaf have
//!   pages of their own.
//! - **Commits** share flushes of the log. Locks are let go before the flush, when a transaction's
//!   place in the log is certain.
//!
//! What lies in the pages is [described](_docs::tree) byte by byte, with the rules.
//!
//! # What is promised, and what is not
//!
//! - *Serializable*: what transactions read that have committed is what they would have read one
//!   after the other, in an order in which one that had ended comes before one that began then. Scans
//!   included: there are no phantoms.
//! - *Atomic and durable*, as [pages](foreword_pages) are: a commit that has returned survives, as a
//!   whole.
//! - *Certain when committed*: what a transaction has read may be taken back by a crash until its own
//!   commit has returned. A transaction that only reads commits, too, if that matters.
//! - *A deadlock* is told to one of those that wait ([`Error::Deadlock`]). Its caller rolls it back
//!   and begins it again, as [`Db::run`] does.
//! - *No snapshots*: a scan keeps writers from what it has read, until its transaction ends.
//! - *A full disk* poisons nothing ([`Error::is_no_space`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

/// Documents that belong to this version, as they are in the repository.
#[cfg(all(doc, not(doctest)))]
pub mod _docs {
    // The first definition of a link counts. So a link that leads to a file there leads to a page
    // here.
    #[doc = "[PAGES.md]: https://docs.rs/foreword-pages/latest/foreword_pages/_docs/pages/\n"]
    #[doc = include_str!("../docs/TREE.md")]
    pub mod tree {}
}

// Invariant: a module imports only modules of its own group and of the groups above, and never in a
// circle (the core's tests/it/layers.rs, which has these groups).

// Values and bytes: no I/O.
mod error;
mod node;
mod records;
#[doc(hidden)]
pub mod sabotage;
mod sync;

// Locks on keys, which know no pages.
pub mod locks;

// Trees of pages.
mod tree;

// Transactions on them.
mod engine;
mod scan;
mod txn;

// What a user meets.
mod db;

/// The pages below, in the version whose options and errors this crate has.
pub use foreword_pages;
pub use foreword_pages::{Commit, Options};

pub use db::{Db, Verified};
pub use engine::Tree;
pub use error::{Error, Result};
pub use scan::Scan;
pub use txn::Txn;
