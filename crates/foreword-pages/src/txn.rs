//! Transactions: changes that stay together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use foreword::{Durability, Lsn};

use crate::engine::Engine;
use crate::engine::txns::{Orphan, UndoChain, UndoStep};
use crate::page::{Edit, Image, PageId};
use crate::record::Record;
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

/// A transaction: changes to any number of pages that happen together or not at all. From
/// [`Store::begin`](crate::Store::begin).
///
/// Dropping it without [committing](Txn::commit) rolls it back. Its changes are in the pages at
/// once and everybody sees them: that no two transactions that live at the same time change the
/// same bytes, and what a reader may see, is up to the caller.
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
pub struct Txn<'s> {
    engine: &'s Engine,
    id: u64,
    chain: Arc<Mutex<UndoChain>>,
    /// Freed when it commits.
    frees: Vec<PageId>,
    savepoints: Vec<(u64, Lsn, usize)>,
    savepoint_ids: u64,
    done: bool,
    scratch: Vec<u8>,
}

/// A point within a transaction to which it can be [rolled back](Txn::rollback_to).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savepoint {
    txn: u64,
    id: u64,
}

impl<'s> Txn<'s> {
    pub(crate) fn begin(engine: &'s Engine) -> Txn<'s> {
        let (id, chain) = engine.txns.begin();
        let (frees, savepoints, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Txn { engine, id, chain, frees, savepoints, savepoint_ids: 0, done: false, scratch }
    }

    /// Its number. No two transactions that the log knows of have the same.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Writes bytes into a page. Only what differs from what is there is logged.
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
        self.engine.alloc.check(page)?;
        self.change(page, Edit::Bytes { offset: offset as u32, bytes })
    }

    /// Takes a free page: all zeros, and nobody else's. If the transaction is rolled back it is
    /// free again.
    ///
    /// # Errors
    /// As [`update`](Txn::update).
    pub fn allocate(&mut self) -> Result<PageId> {
        let page = self.engine.alloc.take()?;
        let (map, bit) = self.engine.alloc.place(page);
        let taken = self.format(page).and_then(|()| self.change(map, Edit::Bit { bit, set: true }));
        if let Err(error) = taken {
            self.engine.alloc.give_back(page);
            return Err(error);
        }
        Ok(page)
    }

    /// Gives a page up. It is the transaction's until that commits.
    ///
    /// # Errors
    /// [`Error::NotAllocated`], also if it is being freed already.
    pub fn free(&mut self, page: PageId) -> Result<()> {
        self.engine.alloc.leave(page)?;
        self.frees.push(page);
        if sabotage::has(Bug::FreeTooSoon) {
            self.engine.alloc.give_back(page);
        }
        Ok(())
    }

    /// Names the page from which the others are found, or none: [`Store::root`](crate::Store::root)
    /// gives it, also after a restart. As all changes it is logged, visible at once, and undone if
    /// the transaction does not commit; two live transactions must not both make it.
    ///
    /// The store does nothing else with it. A root that is freed stays named, until another is.
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
        let root = root.into();
        if let Some(page) = root {
            self.engine.alloc.check(page)?;
        } else if self.engine.root()?.is_none() {
            return Ok(()); // The map may never have been written.
        }
        let (map, offset) = self.engine.alloc.root_place();
        let bytes = root.unwrap_or_default().0.to_le_bytes();
        self.change(map, Edit::Bytes { offset: offset as u32, bytes: &bytes })
    }

    /// Marks where the transaction stands.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoint_ids += 1;
        self.savepoints.push((self.savepoint_ids, lock(&self.chain).next, self.frees.len()));
        Savepoint { txn: self.id, id: self.savepoint_ids }
    }

    /// Undoes what was done since a savepoint. The savepoint stays; those after it are gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the savepoint is not one of this transaction, or is gone; else as
    /// [`update`](Txn::update): a part may be undone then, and it can be tried again.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let known = self.savepoints.iter().position(|&(id, ..)| id == savepoint.id && savepoint.txn == self.id);
        let Some(at) = known else {
            return Err(Error::Invalid { what: "savepoint", why: "it is not one of this transaction, or is gone".into() });
        };
        let (_, next, frees) = self.savepoints[at];
        self.engine.undo(self.id, &self.chain, next, &mut self.scratch)?;
        self.savepoints.truncate(at + 1);
        self.frees.drain(frees..).for_each(|page| self.engine.alloc.stay(page));
        Ok(())
    }

    /// Ends the transaction and returns when it is durable: the LSN of its commit record
    /// ([`Lsn::ZERO`] if it changed nothing). Concurrent commits share one flush of the log.
    ///
    /// # Errors
    /// As [`update`](Txn::update). Where there was no space, the transaction is rolled back. After
    /// any other error of the log it is known only after reopening whether it is there.
    pub fn commit(self) -> Result<Lsn> {
        self.commit_with(Durability::Synced)
    }

    /// Ends the transaction and returns when it is as safe as asked. Transactions become durable in
    /// the order in which they commit.
    ///
    /// # Errors
    /// As [`commit`](Txn::commit).
    pub fn commit_with(mut self, durability: Durability) -> Result<Lsn> {
        for i in 0..self.frees.len() {
            let (map, bit) = self.engine.alloc.place(self.frees[i]);
            self.change(map, Edit::Bit { bit, set: false })?;
        }
        let lsn = {
            let mut chain = lock(&self.chain);
            let lsn = if chain.first == Lsn::ZERO {
                Lsn::ZERO
            } else {
                self.engine.append(&Record::Commit { txn: self.id }, &mut self.scratch)?
            };
            chain.ended = true;
            lsn
        };
        self.done = true;
        self.engine.txns.end(self.id);
        // Whoever takes them now commits later, so that no crash leaves that without this.
        self.frees.drain(..).for_each(|page| self.engine.alloc.give_back(page));
        match durability {
            Durability::Synced if !sabotage::has(Bug::CommitNotDurable) => self.engine.pool.log.sync_to(lsn)?,
            Durability::Written => {
                self.engine.pool.log.write()?;
            }
            _ => {}
        }
        Ok(lsn)
    }

    /// Rolls the transaction back. (As dropping it does, which cannot tell of an error.)
    ///
    /// # Errors
    /// As [`update`](Txn::update). The rollback is tried again at the next checkpoint; recovery
    /// completes it, if nothing else does.
    pub fn abort(mut self) -> Result<()> {
        self.roll_back()
    }

    fn roll_back(&mut self) -> Result<()> {
        self.done = true;
        let orphan = Orphan { id: self.id, chain: self.chain.clone(), frees: std::mem::take(&mut self.frees) };
        self.engine.roll_back(orphan, &mut self.scratch)
    }

    /// Begins a page anew, all zeros. That is not the transaction's: it is not undone.
    fn format(&mut self, page: PageId) -> Result<()> {
        let Txn { engine, scratch, .. } = self;
        let image = Image::empty(engine.pool.body());
        engine.pool.format(page, image, || engine.append(&Record::Format { page, image }, scratch))
    }

    /// Makes a change, logs it, and adds it to what undoes the transaction.
    fn change(&mut self, page: PageId, edit: Edit<'_>) -> Result<()> {
        let Txn { engine, id, chain, scratch, .. } = self;
        engine.pool.change(page, edit, |undo, redo| {
            let mut chain = lock(chain);
            let prev = chain.next;
            let record = Record::Update { txn: *id, prev, page, undo: undo.as_edit(), redo };
            let lsn = engine.append(&record, scratch)?;
            chain.push(UndoStep { lsn, prev, page, undo: undo.clone() });
            Ok(lsn)
        })?;
        Ok(())
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        // A forked child has a copy of the transaction, and must not end it.
        if !self.done && !self.engine.pool.file.is_forked() {
            // The store keeps an error for its next caller. A panic of the disk while another panic
            // unwinds would end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.roll_back()));
        }
    }
}
