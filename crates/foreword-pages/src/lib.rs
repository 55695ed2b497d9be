//! Pages that survive: what a database stands on, on the write-ahead log [foreword].
//!
//! A [`Store`] is a file of pages and the log that belongs to the file. [Transactions](Txn) change
//! bytes in any number of pages, together or not at all. Threads read pages through a buffer pool
//! of fixed size. Whatever happens to the process or the machine, opening the store finds every
//! transaction that was committed, and no other.
//!
//! ```
//! # fn main() -> Result<(), foreword_pages::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! use foreword_pages::Store;
//!
//! let store = Store::open(dir.path())?;
//! let mut txn = store.begin();
//! let (one, two) = (txn.allocate()?, txn.allocate()?);
//! txn.update(one, 0, b"both")?;
//! txn.update(two, 100, b"or neither")?;
//! txn.commit()?; // durable when it returns
//!
//! drop(store); // or the process is killed, or the power fails
//! let store = Store::open(dir.path())?;
//! assert_eq!(&store.read(two)?[100..110], b"or neither");
//! println!("{}", store.recovery());
//! store.close()
//! # }
//! ```
//!
//! # How it works
//!
//! In the manner of ARIES (Mohan et al., TODS 1992), with later results:
//!
//! - **Steal, no-force**: a page may be written before the transaction that changed it commits, and
//!   need not be written when that commits. One rule keeps this safe, in the one place where pages
//!   are written: the log is durable up to the page's LSN first.
//! - **Commits** are one record each. The log's group commit makes them durable: many threads share
//!   a flush.
//! - **Full page images**: the first change of a page after a checkpoint logs all of the page. So
//!   redo begins each page with an image, and does not depend on what a torn write left.
//!   ([`Options::full_page_images`] switches this off for disks that write whole pages.)
//! - **Fuzzy checkpoints** in the background bound what recovery reads, and drop the log before
//!   that. Changes go on meanwhile.
//! - **Recovery** begins at the last checkpoint, which the page file names. Redo is one pass
//!   forward: each thread has pages of its own, and the pass also finds which transactions ended.
//!   Undo then takes the losers back with compensation records. A crash may cut recovery short at
//!   any point, any number of times.
//! - **The pool** (S3-FIFO) soon drops a page that is used once: a scan does not drive out the
//!   pages that other threads work with.
//!
//! # An index on it
//!
//! - **Latches.** [`Txn::fetch_exclusive`], [`Txn::fetch_shared`] and [`Session::fetch_shared`]
//!   latch pages, several at a time. The guards borrow nothing.
//! - **Changes.** A [`Change`] has any number of places in any number of pages, in one record.
//! - **Record types.** A [`redo_type`](Options::redo_type) is logged as what it means in a page, an
//!   [`undo_type`](Options::undo_type) is undone by what it means in the index, wherever that is by
//!   then.
//! - **[Nested top actions](Txn::nested)** stay when their transaction is rolled back: splits.
//!
//! What lies in the files is [described](_docs::pages) byte by byte, with the rules that recovery
//! depends on.
//!
//! # What is promised, and what is not
//!
//! - *Atomic and durable*: after a crash a transaction is there as a whole if its commit had
//!   returned, and gone as a whole if commit was never called. A transaction whose commit was under
//!   way is either. Transactions become durable in the order in which they commit.
//! - *Isolation is the caller's.* Each call is atomic by itself, and a page that is
//!   [read](Store::read) does not change while the caller holds it. But changes are visible at
//!   once, and two live transactions must not change the same bytes: the rollback of one would take
//!   the other's change back. Transactions on different pages, or on different bytes of one page,
//!   need no care. Where they share an index, a [handler undoes](Change::undo) what others may
//!   move.
//! - *Damage* is found by checksum. A page torn by a crash is rebuilt; a page that rotted is
//!   [`Error::Rotten`], which names the page.
//! - *A failed write* of a page poisons the store; reopening recovers from the log.
//! - *A full disk* poisons nothing. A page's room is taken from the disk when the page is
//!   [allocated](Txn::allocate). Without room, an allocation and a change that the log has no room
//!   for are errors with [`Error::is_no_space`], and the store goes on.
//! - *A page file that is gone*, or has another in its place, is [`Error::Displaced`] at the next
//!   checkpoint, and the log is not dropped.
//!
//! A program that needs no transactions can [`replay()`] its own log on its own pages.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

/// Documents that belong to this version, as they are in the repository.
#[cfg(all(doc, not(doctest)))]
pub mod _docs {
    // The first definition of a link counts. So a link that leads to a file there leads to a page
    // here.
    #[doc = "[FORMAT.md]: https://docs.rs/foreword/latest/foreword/_docs/format/"]
    #[doc = "[OPERATIONS.md]: https://docs.rs/foreword/latest/foreword/_docs/operations/"]
    #[doc = "[recovery.svg]: https://docs.rs/crate/foreword-pages/latest/source/docs/recovery.svg\n"]
    #[doc = include_str!("../docs/PAGES.md")]
    pub mod pages {}
}

// Invariant: a module imports only modules of its own group and of the groups above, and never in a
// circle (the core's tests/it/layers.rs, which has these groups).

// Values and bytes: no I/O.
mod change;
mod error;
mod ids;
mod leb;
mod page;
mod parts;
mod record;
#[doc(hidden)]
pub mod sabotage;
mod sync;
mod types;

// Pages on disk and in memory.
mod alloc;
mod file;
mod latch;
mod policy;
mod pool;

// What all below share.
mod engine;

// What changes the pages, and what bounds recovery.
mod checkpoint;
mod rollback;
mod txn;

// What runs checkpoints, what copies the pages, and what opening does.
mod background;
mod backup;
mod recovery;

// What a user meets.
mod builder;
mod options;
mod replay;
mod session;
mod store;

/// The log, in the version whose LSNs and errors this crate's calls return.
pub use foreword;

pub use backup::Backup;
pub use change::Change;
pub use checkpoint::Checkpointed;
pub use error::{Error, Result};
#[doc(hidden)]
pub use ids::IdHasher;
pub use options::Options;
pub use page::PageId;
pub use pool::{PageMut, PageRef};
pub use recovery::{Phase, Recovery};
pub use replay::{Pages, Replayed, replay};
pub use session::Session;
pub use store::{Stats, Store};
pub use txn::{Commit, Savepoint, Txn};
pub use types::HandlerError;
