//! Transactions: changes that stay together.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use foreword::{Durability, Lsn, Reader};

use crate::checkpoint::WriteBack;
use crate::page::{Edit, Image, OwnedEdit, PageId};
use crate::record::Record;
use crate::sabotage::{self, Bug};
use crate::store::Inner;
use crate::{Error, Result, lock};

/// How many bytes a transaction keeps in memory to undo itself; what is older it reads from the log.
const STEPS_BYTES_MAX: usize = 1 << 20;

/// The transactions that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Live {
    table: Mutex<Table>,
    /// Those whose rollback failed: they are tried again at each checkpoint, or undone by recovery.
    orphans: Mutex<Vec<Orphan>>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    chains: BTreeMap<u64, Arc<Mutex<Chain>>>,
}

#[derive(Debug)]
struct Orphan {
    id: u64,
    chain: Arc<Mutex<Chain>>,
    frees: Vec<PageId>,
}

/// What a transaction has logged and would have to undo. Its lock is held while a record of it is appended, so that a checkpoint, which looks
/// at each chain after it has begun, sees every record that was logged before.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// Its first record; zero if there is none.
    first: Lsn,
    /// The record to be undone next; zero if there is none.
    next: Lsn,
    ended: bool,
    /// The latest of the records to be undone, oldest first.
    steps: VecDeque<Step>,
    bytes: usize,
}

/// A change that was logged, as far as it matters for undoing it.
#[derive(Clone, Debug)]
struct Step {
    lsn: Lsn,
    prev: Lsn,
    page: PageId,
    undo: OwnedEdit,
}

impl Chain {
    fn push(&mut self, step: Step) {
        if self.first == Lsn::ZERO {
            self.first = step.lsn;
        }
        self.next = step.lsn;
        self.bytes += step.undo.cost() + size_of::<Step>();
        self.steps.push_back(step);
        while self.bytes > STEPS_BYTES_MAX
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes -= oldest.undo.cost() + size_of::<Step>();
        }
    }

    /// The step was undone.
    fn pop(&mut self, step: &Step) {
        self.next = step.prev;
        if self.steps.back().is_some_and(|s| s.lsn == step.lsn) {
            self.bytes -= step.undo.cost() + size_of::<Step>();
            self.steps.pop_back();
        }
    }
}

impl Live {
    /// Ids from this one on are free.
    pub(crate) fn set_next_id(&self, id: u64) {
        self.table().next_id = id;
    }

    /// Takes up a transaction that recovery found alive. Its first record is not known.
    pub(crate) fn take_up(&self, id: u64, next: Lsn) -> Arc<Mutex<Chain>> {
        let chain = Arc::new(Mutex::new(Chain { first: next, next, ..Chain::default() }));
        self.table().chains.insert(id, chain.clone());
        chain
    }

    fn begin(&self) -> (u64, Arc<Mutex<Chain>>) {
        let mut table = self.table();
        let id = table.next_id;
        table.next_id += 1;
        let chain = Arc::<Mutex<Chain>>::default();
        table.chains.insert(id, chain.clone());
        (id, chain)
    }

    fn end(&self, id: u64) {
        self.table().chains.remove(&id);
    }

    pub(crate) fn count(&self) -> usize {
        self.table().chains.len()
    }

    pub(crate) fn orphans(&self) -> usize {
        lock(&self.orphans).len()
    }

    /// For a checkpoint: the next id, and all that have logged anything, with their first LSN and the next to be undone.
    pub(crate) fn snapshot(&self) -> (u64, Vec<(u64, Lsn, Lsn)>) {
        let (next_id, chains) = {
            let table = self.table();
            (table.next_id, table.chains.iter().map(|(id, chain)| (*id, chain.clone())).collect::<Vec<_>>())
        };
        let live = chains.into_iter().filter_map(|(id, chain)| {
            let chain = lock(&chain);
            (!chain.ended && chain.first > Lsn::ZERO).then_some((id, chain.first, chain.next))
        });
        (next_id, live.collect())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// A transaction: changes to any number of pages that happen together or not at all. From [`Store::begin`](crate::Store::begin).
///
/// Dropping it without [committing](Txn::commit) rolls it back. Its changes are in the pages at once and everybody sees them:
/// that no two transactions that live at the same time change the same bytes, and what a reader may see, is up to the caller.
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
    store: &'s Inner,
    id: u64,
    chain: Arc<Mutex<Chain>>,
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
    pub(crate) fn begin(store: &'s Inner) -> Txn<'s> {
        let (id, chain) = store.live.begin();
        let (frees, savepoints, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Txn { store, id, chain, frees, savepoints, savepoint_ids: 0, done: false, scratch }
    }

    /// Its number. No two transactions that the log knows of have the same.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Writes bytes into a page. Only what differs from what is there is logged.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`], [`Error::NotAllocated`], [`Error::Rotten`], [`Error::Io`], [`Error::PoolExhausted`], and [`Error::Log`] where
    /// there was no space: the page is unchanged, and the transaction goes on. [`Error::Poisoned`] and other errors of the log are final.
    pub fn update(&mut self, page: PageId, offset: usize, bytes: &[u8]) -> Result<()> {
        let body = self.store.pool.body();
        if bytes.len() > body || offset > body - bytes.len() {
            return Err(Error::OutOfBounds { page, offset, len: bytes.len(), body });
        }
        self.store.alloc.check(page)?;
        self.change(page, Edit::Bytes { offset: offset as u32, bytes })
    }

    /// Takes a free page: all zeros, and nobody else's. If the transaction is rolled back it is free again.
    ///
    /// # Errors
    /// As [`update`](Txn::update).
    pub fn allocate(&mut self) -> Result<PageId> {
        let page = self.store.alloc.take()?;
        let (map, bit) = self.store.alloc.place(page);
        let taken = self.store.format(page, &mut self.scratch).and_then(|()| self.change(map, Edit::Bit { bit, set: true }));
        if let Err(error) = taken {
            self.store.alloc.give_back(page);
            return Err(error);
        }
        Ok(page)
    }

    /// Gives a page up. It is the transaction's until that commits.
    ///
    /// # Errors
    /// [`Error::NotAllocated`], also if it is being freed already.
    pub fn free(&mut self, page: PageId) -> Result<()> {
        self.store.alloc.leave(page)?;
        self.frees.push(page);
        if sabotage::has(Bug::FreeTooSoon) {
            self.store.alloc.give_back(page);
        }
        Ok(())
    }

    /// Names the page from which the others are found, or none: [`Store::root`](crate::Store::root) gives it, also after a restart. As all changes it
    /// is logged, visible at once, and undone if the transaction does not commit; two live transactions must not both make it.
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
    /// As [`update`](Txn::update); [`Error::NotAllocated`] is about the page that is to be the root.
    pub fn set_root(&mut self, root: impl Into<Option<PageId>>) -> Result<()> {
        let root = root.into();
        if let Some(page) = root {
            self.store.alloc.check(page)?;
        } else if self.store.root()?.is_none() {
            return Ok(()); // The map may never have been written.
        }
        let (map, offset) = self.store.alloc.root_place();
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
    /// [`Error::Invalid`] if the savepoint is not one of this transaction, or is gone; else as [`update`](Txn::update): a part may be undone
    /// then, and it can be tried again.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let known = self.savepoints.iter().position(|&(id, ..)| id == savepoint.id && savepoint.txn == self.id);
        let Some(at) = known else {
            return Err(Error::Invalid { what: "savepoint", why: "it is not one of this transaction, or is gone".into() });
        };
        let (_, next, frees) = self.savepoints[at];
        self.store.undo(self.id, &self.chain, next, &mut self.scratch)?;
        self.savepoints.truncate(at + 1);
        self.frees.drain(frees..).for_each(|page| self.store.alloc.stay(page));
        Ok(())
    }

    /// Ends the transaction and returns when it is durable: the LSN of its commit record ([`Lsn::ZERO`] if it changed nothing). Concurrent
    /// commits share one flush of the log.
    ///
    /// # Errors
    /// As [`update`](Txn::update). Where there was no space, the transaction is rolled back. After any other error
    /// of the log it is known only after reopening whether it is there.
    pub fn commit(self) -> Result<Lsn> {
        self.commit_with(Durability::Synced)
    }

    /// Ends the transaction and returns when it is as safe as asked. Transactions become durable in the order in which they commit.
    ///
    /// # Errors
    /// As [`commit`](Txn::commit).
    pub fn commit_with(mut self, durability: Durability) -> Result<Lsn> {
        for i in 0..self.frees.len() {
            let (map, bit) = self.store.alloc.place(self.frees[i]);
            self.change(map, Edit::Bit { bit, set: false })?;
        }
        let lsn = {
            let mut chain = lock(&self.chain);
            let lsn = if chain.first == Lsn::ZERO {
                Lsn::ZERO
            } else {
                self.store.append(&Record::Commit { txn: self.id }, &mut self.scratch)?
            };
            chain.ended = true;
            lsn
        };
        self.done = true;
        self.store.live.end(self.id);
        // Whoever takes them now commits later, so that no crash leaves that without this.
        self.frees.drain(..).for_each(|page| self.store.alloc.give_back(page));
        match durability {
            Durability::Synced if !sabotage::has(Bug::CommitNotDurable) => self.store.pool.log.sync_to(lsn)?,
            Durability::Written => {
                self.store.pool.log.write()?;
            }
            _ => {}
        }
        Ok(lsn)
    }

    /// Rolls the transaction back. (As dropping it does, which cannot tell of an error.)
    ///
    /// # Errors
    /// As [`update`](Txn::update). The rollback is tried again at the next checkpoint; recovery completes it, if nothing else does.
    pub fn abort(mut self) -> Result<()> {
        self.roll_back()
    }

    fn roll_back(&mut self) -> Result<()> {
        self.done = true;
        let orphan = Orphan { id: self.id, chain: self.chain.clone(), frees: std::mem::take(&mut self.frees) };
        self.store.roll_back(orphan, &mut self.scratch)
    }

    fn change(&mut self, page: PageId, edit: Edit<'_>) -> Result<()> {
        let Txn { store, id, chain, scratch, .. } = self;
        store.pool.change(page, edit, |undo, redo| {
            let mut chain = lock(chain);
            let prev = chain.next;
            let record = Record::Update { txn: *id, prev, page, undo: undo.as_edit(), redo };
            let lsn = store.append(&record, scratch)?;
            chain.push(Step { lsn, prev, page, undo: undo.clone() });
            Ok(lsn)
        })?;
        Ok(())
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        // (A forked child has a copy of it. What becomes of it is not the child's to say.)
        if !self.done && !self.store.pool.file.is_forked() {
            // An error is that of the store: whoever uses it next hears of it. A panic (of a disk) in the course of another
            // would end the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.roll_back()));
        }
    }
}

impl Inner {
    /// Begins a page anew.
    fn format(&self, page: PageId, scratch: &mut Vec<u8>) -> Result<()> {
        let image = Image::empty(self.pool.body());
        self.pool.format(page, image, || self.append(&Record::Format { page, image }, scratch))
    }

    /// Undoes all of a transaction and ends it. If that fails it is kept as an orphan.
    fn roll_back(&self, orphan: Orphan, scratch: &mut Vec<u8>) -> Result<()> {
        let undone = catch_unwind(AssertUnwindSafe(|| self.undo_all(orphan.id, &orphan.chain, scratch)));
        if let Ok(Ok(_)) = undone {
            orphan.frees.into_iter().for_each(|page| self.alloc.stay(page));
            self.live.end(orphan.id);
        } else {
            lock(&self.live.orphans).push(orphan);
        }
        undone.unwrap_or_else(|panic| resume_unwind(panic)).map(|_| ())
    }

    /// Tries again to roll back what could not be rolled back.
    pub(crate) fn roll_back_orphans(&self) {
        let orphans = std::mem::take(&mut *lock(&self.live.orphans));
        for orphan in orphans {
            let _ = self.roll_back(orphan, &mut Vec::new());
        }
    }

    /// Undoes transactions that recovery found alive, each with the change to be undone next: how many changes. Where the log
    /// has no room for that, a checkpoint first drops what only redo needed.
    pub(crate) fn undo_losers(&self, losers: impl DoubleEndedIterator<Item = (u64, Lsn)>) -> Result<u64> {
        let losers: Vec<_> = losers.rev().map(|(txn, next)| (txn, self.live.take_up(txn, next))).collect();
        match self.undo_each(&losers) {
            Err(e) if e.is_no_space() => {
                for (txn, chain) in &losers {
                    self.find_first(*txn, chain)?;
                }
                self.checkpoint(WriteBack::All)?;
                self.undo_each(&losers)
            }
            undone => undone,
        }
    }

    /// Undoes those that have not ended.
    fn undo_each(&self, losers: &[(u64, Arc<Mutex<Chain>>)]) -> Result<u64> {
        let mut undone = 0;
        for (txn, chain) in losers.iter().filter(|(_, chain)| !lock(chain).ended) {
            undone += self.undo_all(*txn, chain, &mut Vec::new())?;
            self.live.end(*txn);
        }
        Ok(undone)
    }

    /// Finds the first record that undoing a transaction needs: the log is to keep it.
    fn find_first(&self, txn: u64, chain: &Mutex<Chain>) -> Result<()> {
        let mut reader = self.pool.log.reader();
        let mut chain = lock(chain);
        let mut next = chain.next;
        while next > Lsn::ZERO {
            chain.first = next;
            next = self.read_step(&mut reader, txn, next)?.prev;
        }
        Ok(())
    }

    /// Undoes all of a transaction and says so in the log.
    fn undo_all(&self, txn: u64, chain: &Mutex<Chain>, scratch: &mut Vec<u8>) -> Result<u64> {
        let undone = self.undo(txn, chain, Lsn::ZERO, scratch)?;
        let mut chain = lock(chain);
        if chain.first > Lsn::ZERO {
            self.append(&Record::Abort { txn }, scratch)?;
        }
        chain.ended = true;
        Ok(undone)
    }

    /// Undoes what a transaction has logged after an LSN, the latest first, and logs that: how many changes.
    fn undo(&self, txn: u64, chain: &Mutex<Chain>, after: Lsn, scratch: &mut Vec<u8>) -> Result<u64> {
        self.pool.file.check()?;
        let mut undone = 0;
        // One for all that is read back: it finds most records in the frame that it has in memory.
        let mut reader = self.pool.log.reader();
        loop {
            let (next, kept) = {
                let chain = lock(chain);
                (chain.next, chain.steps.back().filter(|step| step.lsn == chain.next).cloned())
            };
            if next <= after {
                return Ok(undone);
            }
            let step = kept.map_or_else(|| self.read_step(&mut reader, txn, next), Ok)?;
            self.undo_step(txn, chain, &step, scratch)?;
            undone += 1;
        }
    }

    fn undo_step(&self, txn: u64, chain: &Mutex<Chain>, step: &Step, scratch: &mut Vec<u8>) -> Result<()> {
        let done = self.pool.change(step.page, step.undo.as_edit(), |_, redo| {
            let mut chain = lock(chain);
            let record = Record::Undo { txn, next: step.prev, page: step.page, redo };
            let is_logged = !sabotage::has(Bug::NoCompensation);
            let lsn = if is_logged { self.append(&record, scratch)? } else { self.pool.log.last_lsn() };
            chain.pop(step);
            Ok(lsn)
        })?;
        if done.is_none() {
            lock(chain).pop(step);
        }
        if let OwnedEdit::Bit { bit, set: false } = step.undo {
            self.alloc.give_back(self.alloc.page(step.page, bit));
        }
        Ok(())
    }

    /// Reads a change back from the log.
    fn read_step(&self, reader: &mut Reader, txn: u64, lsn: Lsn) -> Result<Step> {
        self.pool.log.sync_to(lsn)?;
        match Record::decode(reader.get(lsn)?.data, self.pool.body()) {
            Ok(Record::Update { txn: of, prev, page, undo, .. }) if of == txn && prev < lsn => {
                Ok(Step { lsn, prev, page, undo: undo.to_owned() })
            }
            Ok(_) => Err(Error::BadRecord { lsn, why: "a change of another transaction was expected" }),
            Err(why) => Err(Error::BadRecord { lsn, why }),
        }
    }
}
