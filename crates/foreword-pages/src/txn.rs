//! Transactions: changes of pages that happen together or not at all.

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

/// A transaction: changes to any number of pages that happen together or not at all.
/// [`Store::begin`](crate::Store::begin) makes one.
///
/// Dropping a transaction without [committing](Txn::commit) it rolls it back. Its changes are in
/// the pages at once, and all threads see them. The caller makes sure that no two live transactions
/// change the same bytes, and decides what a reader may see.
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
    /// Pages to free when the transaction commits.
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

    /// The transaction's id. No two transactions that the log knows of have the same id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
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
        self.engine.alloc.check(page)?;
        self.change(page, Edit::Bytes { offset: offset as u32, bytes })
    }

    /// Allocates a page: all zeros, and not in use. If the transaction is rolled back, the page is
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

    /// Frees a page. The page is in use until the transaction commits.
    ///
    /// # Errors
    /// [`Error::NotAllocated`], also if a transaction frees the page already.
    pub fn free(&mut self, page: PageId) -> Result<()> {
        self.engine.alloc.leave(page)?;
        self.frees.push(page);
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
        let root = root.into();
        if let Some(page) = root {
            self.engine.alloc.check(page)?;
        } else if self.engine.root()?.is_none() {
            return Ok(()); // The first map may never have been written.
        }
        let (map, offset) = self.engine.alloc.root_place();
        let bytes = root.unwrap_or_default().0.to_le_bytes();
        self.change(map, Edit::Bytes { offset: offset as u32, bytes: &bytes })
    }

    /// Marks the point to which [`rollback_to`](Txn::rollback_to) can go back.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoint_ids += 1;
        self.savepoints.push((self.savepoint_ids, lock(&self.chain).next, self.frees.len()));
        Savepoint { txn: self.id, id: self.savepoint_ids }
    }

    /// Undoes what the transaction did since a savepoint. The savepoint stays; later savepoints are
    /// gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the savepoint is of another transaction, or is gone. Else as
    /// [`update`](Txn::update): a part may be undone then, and the caller can try again.
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

    /// Commits the transaction, and returns when it is durable. Returns the LSN of the commit
    /// record ([`Lsn::ZERO`] if the transaction changed nothing). Concurrent commits share one
    /// flush of the log.
    ///
    /// # Errors
    /// As [`update`](Txn::update). Where there was no space, the transaction is rolled back. After
    /// any other error of the log, only reopening tells whether the transaction is committed.
    pub fn commit(self) -> Result<Lsn> {
        self.commit_with(Durability::Synced)
    }

    /// Commits the transaction, and returns when it has the durability that is asked for.
    /// Transactions become durable in the order in which they commit.
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
        // Invariant: a transaction that takes one of these pages commits behind this one. So no
        // crash keeps that transaction and loses this one.
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
        let orphan = Orphan { id: self.id, chain: self.chain.clone(), frees: std::mem::take(&mut self.frees) };
        self.engine.roll_back(orphan, &mut self.scratch)
    }

    /// Begins a page anew, all zeros. The record belongs to no transaction, and is not undone.
    fn format(&mut self, page: PageId) -> Result<()> {
        let Txn { engine, scratch, .. } = self;
        let image = Image::empty(engine.pool.body());
        engine.pool.format(page, image, || engine.append(&Record::Format { page, image }, scratch))
    }

    /// Makes a change, logs it, and adds it to the transaction's undo chain.
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
