//! Transactions: what they read, change and lock, and how they end.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foreword_pages::Commit;
use foreword_pages::foreword::{Durability, Lsn};

use crate::engine::{Engine, Tree};
use crate::error::{Error, Result};
use crate::locks::{Mode, Target};
use crate::node::{OwnedValue, Value};
use crate::sabotage::{self, Bug};
use crate::sync::thread;
use crate::tree::long::{self, VALUE_MAX};
use crate::tree::{BTree, Done};

/// A transaction on the trees of a store: serializable, atomic, and durable once it has
/// [committed](Txn::commit). [`Db::begin`](crate::Db::begin) makes one.
///
/// A transaction that is dropped is rolled back. It borrows nothing: it can be kept, and moved to
/// other threads.
///
/// **Locks.** What a transaction reads it locks for others that would change it; what it changes it
/// locks for all others; both until it ends. So its calls may wait for other transactions. A call
/// whose waiting would never end is [`Error::Deadlock`]: drop the transaction, and begin it again.
/// [`Db::run`](crate::Db::run) does that.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Txn {
    engine: Arc<Engine>,
    /// `None`: only while it ends.
    pages: Option<foreword_pages::Txn>,
    waits: bool,
    /// Why it can only be rolled back.
    failed: Option<Error>,
}

fn target(tree: BTree, key: Option<&[u8]>) -> Target<'_> {
    let tree = tree.root.0;
    key.map_or(Target::End { tree }, |key| Target::Key { tree, key })
}

impl Txn {
    pub(crate) fn begin(engine: &Arc<Engine>) -> Txn {
        Txn { engine: engine.clone(), pages: Some(engine.store.begin()), waits: true, failed: None }
    }

    /// The transaction's number. No two transactions of a store have the same one, as far as its log
    /// reaches back. [`Error::Deadlock`] names transactions by it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.pages().id()
    }

    /// Whether the transaction waits for what others have locked (as it does at first), or is told
    /// [`Error::Locked`].
    pub fn waits(&mut self, waits: bool) -> &mut Txn {
        self.waits = waits;
        self
    }

    pub(crate) fn pages(&self) -> &foreword_pages::Txn {
        match &self.pages {
            Some(pages) => pages,
            None => unreachable!("a transaction has its pages until it ends"),
        }
    }

    /// The value of a key. Locks the key for reading, whether it is there or not.
    ///
    /// A transaction that is going to change the key should [read it for
    /// that](Txn::get_for_update).
    ///
    /// # Errors
    /// [`Error::OtherStore`], [`Error::KeyTooLong`], [`Error::Deadlock`], [`Error::Locked`],
    /// [`Error::TooManyLocks`], [`Error::Damaged`], [`Error::Pages`]. The transaction goes on, but after a deadlock it should
    /// be rolled back, because others wait for it.
    pub fn get(&self, tree: Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.read(tree, key.as_ref(), Mode::Shared)
    }

    /// As [`get`](Txn::get), and locks the key as if it was changed. Two transactions that read a
    /// key and then change it would otherwise wait for each other.
    ///
    /// # Errors
    /// As [`get`](Txn::get).
    pub fn get_for_update(&self, tree: Tree, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.read(tree, key.as_ref(), Mode::Exclusive)
    }

    fn read(&self, tree: Tree, key: &[u8], mode: Mode) -> Result<Option<Vec<u8>>> {
        let tree = self.engine.pages_of(tree)?;
        self.check_key(key)?;
        self.lock(tree, Some(key), mode)?;
        let found = tree.find(self.pages(), key)?;
        let found = found.map(|value| self.value(value)).transpose();
        self.end_read(tree, Some(key), mode);
        found
    }

    pub(crate) fn value(&self, value: OwnedValue) -> Result<Vec<u8>> {
        if value.is_long { long::read(self.pages(), &value) } else { Ok(value.bytes) }
    }

    /// The deliberate bug: what was read is not locked until the end.
    pub(crate) fn end_read(&self, tree: BTree, key: Option<&[u8]>, mode: Mode) {
        if sabotage::has(Bug::ReadLocksEnd) && mode == Mode::Shared {
            self.engine.locks.unlock(self.id(), target(tree, key), mode);
        }
    }

    /// Gives a key a value, whether it had one or not.
    ///
    /// # Errors
    /// As [`get`](Txn::get), and [`Error::ValueTooLong`]: the key is as it was. With
    /// [`Error::Damaged`] and errors of reading pages, the value before may be lost from sight: the
    /// transaction can only be rolled back then.
    pub fn put(&mut self, tree: Tree, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_any(tree, key.as_ref(), value.as_ref(), true).map(|_| ())
    }

    /// Gives a key a value, if it has none. Whether it had none. Either way the key is locked as if
    /// it was changed. Costs what [`put`](Txn::put) does: the key is looked for once.
    ///
    /// ```
    /// # fn main() -> foreword_tree::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = foreword_tree::Db::open(dir.path())?;
    /// let users = db.tree("users")?;
    /// let mut txn = db.begin();
    /// assert!(txn.insert(users, "anna", "the first")?);
    /// assert!(!txn.insert(users, "anna", "the second")?);
    /// assert_eq!(txn.get(users, "anna")?, Some(b"the first".to_vec()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Txn::put).
    pub fn insert(&mut self, tree: Tree, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        self.put_any(tree, key.as_ref(), value.as_ref(), false)
    }

    /// Gives a key a value; one that has a value only if it `replaces` that. Whether it had none.
    fn put_any(&mut self, tree: Tree, key: &[u8], value: &[u8], replaces: bool) -> Result<bool> {
        let tree = self.engine.pages_of(tree)?;
        self.check_key(key)?;
        if value.len() > VALUE_MAX {
            return Err(Error::ValueTooLong { len: value.len(), max: VALUE_MAX });
        }
        self.lock(tree, Some(key), Mode::Exclusive)?;
        if key.len() + value.len() <= self.engine.entry_max() {
            return self.put_stored(tree, key, Value { bytes: value, is_long: false }, replaces);
        }
        // (The pages of a long value are written before the key is looked for.)
        if !replaces && tree.find(self.pages(), key)?.is_some() {
            return Ok(false);
        }
        let savepoint = self.pages_mut().savepoint();
        let page_len = self.engine.store.page_len();
        let done =
            long::write(self.pages_mut(), value, page_len).and_then(|value| self.put_stored(tree, key, value.borrow(), replaces));
        if let Err(error) = &done
            && self.pages_mut().rollback_to(&savepoint).is_err()
        {
            self.failed = Some(error.clone());
        }
        done
    }

    fn put_stored(&mut self, tree: BTree, key: &[u8], value: Value<'_>, replaces: bool) -> Result<bool> {
        // The lock on the key behind is only for the instant in which the new key comes before it. So
        // it is enough that it could be had then: whoever locks that key to find out what lies before
        // it has to latch the leaf where the new key comes, which is latched here until it is there.
        let (engine, id) = (self.engine.clone(), self.id());
        let mut waited: Option<Option<Vec<u8>>> = None;
        loop {
            let mut gate = |next: Option<&[u8]>| {
                if sabotage::has(Bug::InsertForgetsNext) || sabotage::has(Bug::NoSecondLook) && waited.is_some() {
                    return Ok(true);
                }
                engine.admits(id, target(tree, next), Mode::Exclusive)
            };
            let done = tree.put(self.pages_mut(), key, value, replaces, Some(&mut gate));
            if let Some(next) = waited.take() {
                engine.locks.unlock(id, target(tree, next.as_deref()), Mode::Exclusive);
            }
            match done? {
                Done::Yes(None) => return Ok(true),
                Done::Yes(Some(_)) if !replaces => return Ok(false),
                Done::Yes(Some(old)) => return self.free(&old, value).map(|()| false),
                Done::Blocked(next) => {
                    self.lock(tree, next.as_deref(), Mode::Exclusive)?;
                    waited = Some(next);
                }
            }
        }
    }

    /// Frees the pages of a value that a key had.
    fn free(&mut self, old: &OwnedValue, new: Value<'_>) -> Result<()> {
        if !old.is_long || old.borrow() == new {
            return Ok(());
        }
        let freed = long::free(self.pages_mut(), old);
        freed.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// Removes a key. Whether it was there.
    ///
    /// # Errors
    /// As [`put`](Txn::put).
    pub fn delete(&mut self, tree: Tree, key: impl AsRef<[u8]>) -> Result<bool> {
        let (tree, key) = (self.engine.pages_of(tree)?, key.as_ref());
        self.check_key(key)?;
        self.lock(tree, Some(key), Mode::Exclusive)?;
        let (engine, id) = (self.engine.clone(), self.id());
        loop {
            let mut gate = |next: Option<&[u8]>| {
                if sabotage::has(Bug::RemoveForgetsNext) {
                    return Ok(true);
                }
                engine.try_lock(id, target(tree, next), Mode::Exclusive)
            };
            match tree.remove(self.pages_mut(), key, Some(&mut gate))? {
                Done::Yes(None) => return Ok(false),
                Done::Yes(Some(old)) => return self.free(&old, Value { bytes: b"", is_long: false }).map(|()| true),
                Done::Blocked(next) => self.lock(tree, next.as_deref(), Mode::Exclusive)?,
            }
        }
    }

    /// Commits the transaction, and returns when it is durable, and with it all that it has read.
    /// Concurrent commits share one flush. Returns the LSN of its commit record ([`Lsn::ZERO`] if it
    /// has changed nothing). Its locks are let go as soon as its place in the log is certain.
    ///
    /// # Errors
    /// [`Error::Pages`]. Without space for the commit record the transaction is rolled back; after
    /// other errors only reopening tells whether it is committed. Also the error of a call that left
    /// only rollback: it is rolled back then.
    pub fn commit(self) -> Result<Lsn> {
        self.commit_with(Durability::Synced)
    }

    /// Commits the transaction, and returns when it has the durability that is asked for.
    /// Transactions become durable in the order in which they commit.
    ///
    /// # Errors
    /// As [`commit`](Txn::commit).
    pub fn commit_with(mut self, durability: Durability) -> Result<Lsn> {
        let is_synced = matches!(durability, Durability::Synced);
        let now = if is_synced { Durability::Buffered } else { durability };
        let (lsn, all) = self.end(|pages| pages.commit_with(now))?;
        if is_synced {
            self.engine.store.sync_to(all)?;
        }
        Ok(lsn)
    }

    /// Commits the transaction, and returns a future that completes when it is durable, and with it
    /// all that it has read. The future works on any executor, and gives the LSN up to which that
    /// needs the log. Dropping it gives up only the waiting.
    ///
    /// # Errors
    /// As [`commit`](Txn::commit); the future's, too.
    pub fn commit_async(mut self) -> Result<Commit> {
        let (_, all) = self.end(|pages| pages.commit_with(Durability::Buffered))?;
        Ok(self.engine.store.durable(all)?)
    }

    /// Ends the pages' transaction, and lets the locks go. Returns the LSN of its commit record, and
    /// up to where the log has to be durable.
    fn end(&mut self, commit: impl FnOnce(foreword_pages::Txn) -> foreword_pages::Result<Lsn>) -> Result<(Lsn, Lsn)> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(pages) = self.pages.take() else { unreachable!("a transaction has its pages until it ends") };
        let id = pages.id();
        if sabotage::has(Bug::UnlockBeforeCommit) {
            self.engine.locks.release(id);
            thread::yield_now();
        }
        match commit(pages) {
            Ok(lsn) => Ok((lsn, self.engine.has_committed(id, lsn))),
            Err(error) => {
                self.engine.has_failed(id, &error);
                Err(error.into())
            }
        }
    }

    /// Rolls the transaction back. Dropping it does the same, but cannot return an error.
    ///
    /// # Errors
    /// [`Error::Pages`], also for lack of space. The next checkpoint tries again to roll the
    /// transaction back; until one has, [`Db`](crate::Db) refuses other work.
    pub fn abort(mut self) -> Result<()> {
        self.roll_back()
    }

    fn roll_back(&mut self) -> Result<()> {
        let Some(pages) = self.pages.take() else { return Ok(()) };
        let id = pages.id();
        if sabotage::has(Bug::UnlockBeforeUndo) {
            self.engine.locks.release(id);
            thread::yield_now();
        }
        let undone = pages.abort();
        match &undone {
            Ok(()) => self.engine.locks.release(id),
            Err(error) => self.engine.has_failed(id, error),
        }
        Ok(undone?)
    }

    /// Makes an empty tree, which no other transaction knows yet.
    pub(crate) fn create_tree(&mut self) -> Result<Tree> {
        let pages = BTree::create(self.pages_mut())?;
        Ok(self.engine.tree(pages))
    }

    fn pages_mut(&mut self) -> &mut foreword_pages::Txn {
        match &mut self.pages {
            Some(pages) => pages,
            None => unreachable!("a transaction has its pages until it ends"),
        }
    }

    fn check_key(&self, key: &[u8]) -> Result<()> {
        let max = self.engine.key_max();
        if key.len() > max { Err(Error::KeyTooLong { len: key.len(), max }) } else { Ok(()) }
    }

    pub(crate) fn pages_of(&self, tree: Tree) -> Result<BTree> {
        self.engine.pages_of(tree)
    }

    /// Takes a lock, and waits for it, without a latch. `None`: that of the tree's end.
    pub(crate) fn lock(&self, tree: BTree, key: Option<&[u8]>, mode: Mode) -> Result<()> {
        self.engine.lock(self.id(), target(tree, key), mode, self.waits)
    }

    /// Takes a lock if it is to be had at once.
    pub(crate) fn try_lock(&self, tree: BTree, key: Option<&[u8]>, mode: Mode) -> Result<bool> {
        self.engine.try_lock(self.id(), target(tree, key), mode)
    }
}

impl Drop for Txn {
    fn drop(&mut self) {
        // A panic of the disk while another panic unwinds would end the process.
        let _ = catch_unwind(AssertUnwindSafe(|| self.roll_back()));
    }
}

impl fmt::Debug for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Txn").field("id", &self.pages.as_ref().map(foreword_pages::Txn::id)).finish_non_exhaustive()
    }
}
