//! Transactions: changes of pages that happen together or not at all.

mod commit;
mod handler;
mod nested;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foreword::Lsn;

use crate::change::Change;
use crate::engine::Engine;
use crate::engine::txns::Active;
use crate::latch::Wait;
use crate::page::{Edit, PageId};
use crate::pool::{PageMut, PageRef};
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

pub use commit::Commit;
pub(crate) use handler::Handler;

/// A transaction: changes to any number of pages that happen together or not at all.
/// [`Store::begin`](crate::Store::begin) makes one.
///
/// Dropping a transaction without [committing](Txn::commit) it rolls it back. Its changes are in
/// the pages at once, and all threads see them. The caller makes sure that no two live transactions
/// change the same bytes, and decides what a reader may see. (A change that a [handler
/// undoes](Change::undo) allows more.)
///
/// A transaction borrows nothing: it can be kept and moved to other threads and tasks. While it
/// lives the store's files stay open, also without a [`Store`](crate::Store). Its calls may block:
/// for reading a page, for the log's room, and up to ten seconds for a latch.
///
/// ```
/// # fn main() -> Result<(), foreword_pages::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = foreword_pages::Store::open(dir.path())?;
/// let mut txn = store.begin();
/// let page = txn.allocate()?;
/// txn.update(page, 0, b"hello")?;
/// let savepoint = txn.savepoint();
/// txn.update(page, 0, b"HELLO")?;
/// txn.rollback_to(&savepoint)?;
/// txn.commit()?;
/// assert_eq!(&store.read(page)?[..5], b"hello");
/// # store.close() }
/// ```
#[derive(Debug)]
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Txn {
    engine: Arc<Engine>,
    active: Active,
    /// Each with its number, what was to be undone next, and the pages freed before.
    savepoints: Vec<(u64, Lsn, usize)>,
    savepoint_ids: u64,
    /// What was to be undone next when the top action began that is under way.
    nested_from: Lsn,
    /// An undo was cut short. Nothing may be done before it is completed.
    undo_to: Option<Cut>,
    done: bool,
}

/// An undo that was cut short.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// All that came after this is to be undone.
    to: Lsn,
    /// The latches that were kept since there were so many are let go then.
    kept: usize,
}

/// A point within a transaction to which it can be [rolled back](Txn::rollback_to).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savepoint {
    txn: u64,
    id: u64,
}

impl Txn {
    pub(crate) fn begin(engine: &Arc<Engine>) -> Txn {
        Txn::resume(engine.clone(), engine.txns.begin())
    }

    fn resume(engine: Arc<Engine>, active: Active) -> Txn {
        let (savepoints, savepoint_ids, undo_to) = (Vec::new(), 0, None);
        let nested_from = lock(&active.chain).next.lsn;
        let nested_from = if active.depth > 0 { nested_from } else { Lsn::ZERO };
        Txn { engine, active, savepoints, savepoint_ids, nested_from, undo_to, done: false }
    }

    /// The transaction's id. No two transactions that the log knows of have the same id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.active.id
    }

    /// Latches a page for reading. Several pages can be latched at a time, and a guard outlives its
    /// transaction. Waits for those that have the page exclusively, or wait to.
    ///
    /// To latch pages in one order in all transactions (from the root to the leaves, from the left
    /// to the right) is the caller's care. Where that is not possible, use
    /// [`try_fetch_shared`](Txn::try_fetch_shared).
    ///
    /// # Errors
    /// [`Error::Deadlock`]: at once if the transaction itself has the page exclusively, or shared
    /// while another waits to change it; else after ten seconds. [`Error::NotAllocated`],
    /// [`Error::Rotten`], [`Error::Io`], [`Error::PoolExhausted`]; [`Error::Poisoned`] and
    /// [`Error::Log`] where another page had to be written to make room.
    pub fn fetch_shared(&self, page: PageId) -> Result<PageRef> {
        let latched = self.engine.share(page, self.active.owner, Wait::Bounded)?;
        latched.ok_or(Error::Deadlock { page })
    }

    /// As [`fetch_shared`](Txn::fetch_shared), and waits for no latch: `None` if it had to. (It
    /// waits for the disk if the page is not in memory.)
    ///
    /// # Errors
    /// As [`fetch_shared`](Txn::fetch_shared).
    pub fn try_fetch_shared(&self, page: PageId) -> Result<Option<PageRef>> {
        self.engine.share(page, self.active.owner, Wait::No)
    }

    /// Latches a page for changing. Waits until no other guard has it.
    ///
    /// # Errors
    /// As [`fetch_shared`](Txn::fetch_shared); [`Error::Deadlock`] at once if the transaction
    /// itself has the page in any way.
    pub fn fetch_exclusive(&self, page: PageId) -> Result<PageMut> {
        let latched = self.engine.exclude(page, self.active.owner, Wait::Bounded)?;
        latched.ok_or(Error::Deadlock { page })
    }

    /// As [`fetch_exclusive`](Txn::fetch_exclusive), and waits for no latch: `None` if it had to.
    ///
    /// # Errors
    /// As [`fetch_exclusive`](Txn::fetch_exclusive).
    pub fn try_fetch_exclusive(&self, page: PageId) -> Result<Option<PageMut>> {
        self.engine.exclude(page, self.active.owner, Wait::No)
    }

    /// Makes a change of several places, all at once, and logs it in one record. `pages` are the
    /// guards of the pages that it changes; others are left alone. Each page gets the record's LSN,
    /// unless it was so already.
    ///
    /// # Errors
    /// Nothing was changed, in no page, and the transaction goes on: [`Error::OutOfBounds`],
    /// [`Error::NotAllocated`], [`Error::UnknownType`], [`Error::Handler`], [`Error::Log`] where
    /// there was no space or the record is too large, [`Error::Invalid`] if a page has no guard
    /// here or the guard is not this transaction's. [`Error::Poisoned`] and other errors of the log
    /// are final.
    pub fn apply(&mut self, change: &Change, pages: &mut [&mut PageMut]) -> Result<()> {
        self.check()?;
        self.engine.apply(&mut self.active, change, pages)
    }

    /// Writes bytes into a page. Only the bytes that differ from the page's are logged.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::NotAllocated`], [`Error::Rotten`], [`Error::Io`],
    /// [`Error::PoolExhausted`], and [`Error::Log`] where there was no space: the page is
    /// unchanged, and the transaction goes on. [`Error::Poisoned`] and other errors of the log are
    /// final.
    pub fn update(&mut self, page: PageId, offset: usize, bytes: &[u8]) -> Result<()> {
        let body = self.engine.pool.body();
        if bytes.len() > body || offset > body - bytes.len() {
            return Err(Error::OutOfBounds { page, offset, len: bytes.len(), body });
        }
        self.check()?;
        self.engine.alloc.check(page)?;
        self.engine.edit(&mut self.active, page, Edit::Bytes { offset: offset as u32, bytes })
    }

    /// Allocates a page: all zeros, and not in use. If the transaction is rolled back, the page is
    /// free again.
    ///
    /// # Errors
    /// As [`update`](Txn::update).
    pub fn allocate(&mut self) -> Result<PageId> {
        self.check()?;
        self.engine.allocate(&mut self.active)
    }

    /// Frees a page. The page is in use until the transaction commits.
    ///
    /// # Errors
    /// [`Error::NotAllocated`], also if a transaction frees the page already.
    pub fn free(&mut self, page: PageId) -> Result<()> {
        self.check()?;
        self.engine.alloc.leave(page)?;
        self.active.frees.push(page);
        if sabotage::has(Bug::FreeTooSoon) {
            self.engine.alloc.give_back(page);
        }
        Ok(())
    }

    /// Names the page from which the others are found, or none. [`Store::root`](crate::Store::root)
    /// returns it, also after a restart. Like all changes, naming a root is logged, visible at
    /// once, and undone if the transaction does not commit. Two live transactions must not both
    /// name one.
    ///
    /// The store makes no other use of the root. A root that is freed stays named until another is
    /// named.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword_pages::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword_pages::Store;
    /// let store = Store::open(dir.path())?;
    /// let root = match store.root()? {
    ///     Some(root) => root,
    ///     None => {
    ///         let mut txn = store.begin();
    ///         let root = txn.allocate()?;
    ///         txn.update(root, 0, b"an empty tree")?;
    ///         txn.set_root(root)?;
    ///         txn.commit()?; // all of it, or nothing
    ///         root
    ///     }
    /// };
    /// assert_eq!(&store.read(root)?[3..8], b"empty");
    /// # store.close() }
    /// ```
    ///
    /// # Errors
    /// As [`update`](Txn::update); [`Error::NotAllocated`] is about the page that is to be the
    /// root.
    pub fn set_root(&mut self, root: impl Into<Option<PageId>>) -> Result<()> {
        self.check()?;
        let root = root.into();
        if let Some(page) = root {
            self.engine.alloc.check(page)?;
        } else if self.engine.root()?.is_none() {
            return Ok(()); // The first map may never have been written.
        }
        let (map, offset) = self.engine.alloc.root_place();
        let bytes = root.unwrap_or_default().0.to_le_bytes();
        self.engine.edit(&mut self.active, map, Edit::Bytes { offset: offset as u32, bytes: &bytes })
    }

    /// Marks the point to which [`rollback_to`](Txn::rollback_to) can go back.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoint_ids += 1;
        let next = lock(&self.active.chain).next.lsn;
        self.savepoints.push((self.savepoint_ids, next, self.active.frees.len()));
        Savepoint { txn: self.active.id, id: self.savepoint_ids }
    }

    /// Undoes what the transaction did since a savepoint. The savepoint stays; later savepoints are
    /// gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the savepoint is of another transaction, or is gone, or was set before
    /// the [top action](Txn::nested) that is under way. Else as [`update`](Txn::update), and
    /// [`Error::Deadlock`] if the transaction has a guard of a page that is to be changed. A part
    /// may be undone then: the caller can try again, or abort, and nothing else.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let gone = |why: &str| Err(Error::Invalid { what: "savepoint", why: why.into() });
        let is_it = |&(id, ..): &(u64, Lsn, usize)| id == savepoint.id && savepoint.txn == self.active.id;
        let Some(at) = self.savepoints.iter().position(is_it) else {
            return gone("it is not one of this transaction, or is gone");
        };
        let (_, next, frees) = self.savepoints[at];
        if next < self.nested_from {
            return gone("it was set before the top action that is under way");
        }
        self.undo_back_to(next)?;
        self.savepoints.truncate(at + 1);
        self.active.frees.drain(frees..).for_each(|page| self.engine.alloc.stay(page));
        Ok(())
    }

    /// Undoes what came after an LSN. If that is cut short, nothing else may be done before it is
    /// completed.
    fn undo_back_to(&mut self, next: Lsn) -> Result<()> {
        let cut = self.undo_to.unwrap_or(Cut { to: Lsn::MAX, kept: self.active.kept.len() });
        if let Err(error) = self.engine.undo(&mut self.active, next) {
            self.undo_to = Some(Cut { to: cut.to.min(next), ..cut });
            return Err(error);
        }
        if cut.to >= next {
            self.active.let_go(cut.kept);
            self.undo_to = None;
        }
        Ok(())
    }

    /// Checks that no undo was cut short.
    fn check(&self) -> Result<()> {
        match self.undo_to {
            None => Ok(()),
            Some(_) => Err(Error::Invalid {
                what: "transaction",
                why: "undoing a part of it was cut short: complete that, or abort it".into(),
            }),
        }
    }

    /// Rolls the transaction back. Dropping the transaction does the same, but cannot return an
    /// error.
    ///
    /// # Errors
    /// As [`update`](Txn::update). The next checkpoint tries the rollback again, and recovery
    /// completes it if no checkpoint does.
    pub fn abort(mut self) -> Result<()> {
        self.roll_back()
    }

    fn roll_back(&mut self) -> Result<()> {
        self.done = true;
        self.engine.roll_back(self.active.lend())
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        // A forked child has a copy of the transaction, and must not end it.
        if !self.done && !self.engine.pool.file.is_forked() {
            // The store keeps an error for its next caller. A panic of the disk while another panic
            // unwinds would end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.roll_back()));
        }
    }
}
