//! What the handles and transactions of a store share: its pages, and its locks.

use foreword_pages::Store;
use foreword_pages::foreword::{LogId, Lsn};

use crate::error::{Error, Result};
use crate::locks::{Locks, Mode, Target};
use crate::node;
use crate::sabotage::{self, Bug};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, PoisonError};
use crate::tree::BTree;

/// A tree of a store: keys in their order (of bytes), each with a value. [`Db::tree`](crate::Db::tree)
/// finds one by its name.
///
/// A `Tree` is only a name: it borrows nothing, and outlives the store's handles. In a transaction of
/// another store it is [`Error::OtherStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tree {
    store: LogId,
    pub(crate) pages: BTree,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) locks: Locks,
    /// The trees by their names.
    pub(crate) names: Tree,
    /// Transactions that are not rolled back yet, and why. Their changes are there, without locks:
    /// nothing else is read or changed until a checkpoint has rolled them back.
    unended: Mutex<Vec<(u64, Error)>>,
    has_unended: AtomicBool,
}

impl Engine {
    pub(crate) fn new(store: Store, names: BTree) -> Engine {
        let names = Tree { store: store.id(), pages: names };
        Engine { store, locks: Locks::new(), names, unended: Mutex::default(), has_unended: AtomicBool::new(false) }
    }

    /// A tree of this store.
    pub(crate) fn tree(&self, pages: BTree) -> Tree {
        Tree { store: self.store.id(), pages }
    }

    /// The pages of a tree, which is to be of this store.
    pub(crate) fn pages_of(&self, tree: Tree) -> Result<BTree> {
        let store = self.store.id();
        if tree.store == store { Ok(tree.pages) } else { Err(Error::OtherStore { tree: tree.store, store }) }
    }

    pub(crate) fn key_max(&self) -> usize {
        node::key_max(self.store.page_len())
    }

    pub(crate) fn entry_max(&self) -> usize {
        node::entry_max(self.store.page_len())
    }

    /// Takes a lock, and waits for it if the owner `waits`.
    pub(crate) fn lock(&self, owner: u64, target: Target<'_>, mode: Mode, waits: bool) -> Result<()> {
        if waits {
            self.locks.lock(owner, target, mode)?;
        } else if !self.locks.try_lock(owner, target, mode)? {
            return Err(Error::Locked);
        }
        self.check()
    }

    pub(crate) fn try_lock(&self, owner: u64, target: Target<'_>, mode: Mode) -> Result<bool> {
        let is_granted = self.locks.try_lock(owner, target, mode)?;
        self.check()?;
        Ok(is_granted)
    }

    /// Whether a lock is to be had at once. It is not taken.
    pub(crate) fn admits(&self, owner: u64, target: Target<'_>, mode: Mode) -> Result<bool> {
        let is_free = self.locks.admits(owner, target, mode);
        self.check()?;
        Ok(is_free)
    }

    /// Checks that all that was not committed is rolled back, or locked. Asked after a lock was
    /// had: whoever has let it go without being rolled back has said so before.
    fn check(&self) -> Result<()> {
        if !self.has_unended.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut unended = self.unended.lock().unwrap_or_else(PoisonError::into_inner);
        unended.retain(|(id, _)| self.store.is_live(*id));
        match unended.first() {
            Some((_, error)) => Err(error.clone()),
            None => {
                self.has_unended.store(false, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    /// A transaction has its commit record in the log. From here on others may see its changes:
    /// they commit behind it. Returns up to where the log must be durable, so that the transaction
    /// is, and with it all that it has read. (What it read stands before its own record, if it has
    /// one.)
    pub(crate) fn has_committed(&self, id: u64, lsn: Lsn) -> Lsn {
        let has_read = if sabotage::has(Bug::ReadNotDurable) { 0 } else { self.locks.seen(id) };
        self.locks.release_marked(id, lsn.0);
        Lsn(lsn.0.max(has_read))
    }

    /// A transaction could not commit, or could not be rolled back.
    pub(crate) fn has_failed(&self, id: u64, error: &foreword_pages::Error) {
        if self.store.is_live(id) {
            self.unended.lock().unwrap_or_else(PoisonError::into_inner).push((id, error.clone().into()));
            self.has_unended.store(true, Ordering::SeqCst);
        }
        self.locks.release(id);
    }
}
