//! A tree of pages: how it is descended. Each page is latched before the one above it, or to its
//! left, is let go.
//!
//! Invariant: latches are taken from the root to the leaves, and from the left to the right. So no
//! two operations wait for each other. No operation waits for a lock while it has a latch.

mod change;
mod check;
mod join;
pub(crate) mod long;
mod split;
pub(crate) mod undo;

use foreword_pages::{Change, PageId, PageMut, PageRef, Txn};

use crate::error::{Error, Result};
use crate::node::{Node, OwnedValue, Plan, Seek, entry_bytes};
use crate::records;
use crate::sabotage::{self, Bug};
use crate::sync::thread;

/// Keys in their order (of bytes), each with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BTree {
    /// The first page, which stays the first whatever becomes of the tree.
    pub(crate) root: PageId,
}

/// What an operation has come to.
#[derive(Debug)]
pub(crate) enum Done<T> {
    Yes(T),
    /// It needs the lock on this key (`None`: on the tree's end), which was not to be had at once.
    /// It has changed nothing, and has no latch.
    Blocked(Option<Vec<u8>>),
}

/// Asks for the lock on the key that follows (`None`: on the tree's end), and does not wait. It is
/// called with latches held. (A rollback has none: it has all locks that it needs.)
pub(crate) type Gate<'g> = &'g mut dyn FnMut(Option<&[u8]>) -> Result<bool>;

/// The page as one of a tree.
pub(crate) fn read(id: PageId, bytes: &[u8]) -> Result<Node<'_>> {
    Node::new(bytes).map_err(Error::damaged(id))
}

impl BTree {
    /// The child to which the way down leads, and the level on which the child must be. The page is
    /// above the leaves.
    fn below(page: PageId, node: &Node<'_>, seek: Seek<'_>) -> Result<(PageId, u8)> {
        let child = node.way(seek).and_then(|at| node.child(at)).map_err(Error::damaged(page))?;
        Ok((child, node.level() - 1))
    }

    /// Latches the leaf that a search leads to.
    pub(crate) fn leaf(self, txn: &Txn, seek: Seek<'_>) -> Result<PageRef> {
        let mut page = txn.fetch_shared(self.root)?;
        let mut node = read(self.root, &page)?;
        while node.level() > 0 {
            let (child, level) = BTree::below(page.id(), &node, seek)?;
            if sabotage::has(Bug::NoCoupling) {
                drop(page);
                thread::yield_now();
                page = txn.fetch_shared(child)?;
            } else {
                page = txn.fetch_shared(child)?;
            }
            node = read(child, &page)?;
            expect_level(child, &node, level)?;
        }
        expect_place(page.id(), &node, seek)?;
        Ok(page)
    }

    /// Latches the leaf where a key belongs, for changing it.
    pub(crate) fn leaf_to_change(self, txn: &Txn, key: &[u8]) -> Result<PageMut> {
        let seek = Seek::Key(key);
        let leaf = loop {
            let mut page = txn.fetch_shared(self.root)?;
            let mut node = read(self.root, &page)?;
            if node.level() == 0 {
                drop(page);
                let root = txn.fetch_exclusive(self.root)?;
                if read(self.root, &root)?.level() == 0 {
                    break root;
                }
                continue; // It has grown in between.
            }
            let child = loop {
                let (child, level) = BTree::below(page.id(), &node, seek)?;
                if level == 0 {
                    break child;
                }
                page = txn.fetch_shared(child)?;
                node = read(child, &page)?;
                expect_level(child, &node, level)?;
            };
            if sabotage::has(Bug::NoCoupling) {
                drop(page);
                thread::yield_now();
            }
            let leaf = txn.fetch_exclusive(child)?;
            expect_level(child, &read(child, &leaf)?, 0)?;
            break leaf;
        };
        expect_place(leaf.id(), &read(leaf.id(), &leaf)?, seek)?;
        Ok(leaf)
    }

    /// Makes an empty tree, which only the transaction knows.
    pub(crate) fn create(txn: &mut Txn) -> Result<BTree> {
        let root = txn.allocate()?;
        let mut page = txn.fetch_exclusive(root)?;
        let plan = Plan { level: 0, next: None, low: b"", high: None, entries: Vec::new() };
        let mut change = Change::new();
        records::build(&mut change, root, page.len(), &plan).map_err(Error::damaged(root))?;
        txn.apply(&change, &mut [&mut page])?;
        Ok(BTree { root })
    }

    /// The value of a key.
    pub(crate) fn find(self, txn: &Txn, key: &[u8]) -> Result<Option<OwnedValue>> {
        let leaf = self.leaf(txn, Seek::Key(key))?;
        let node = read(leaf.id(), &leaf)?;
        let found = node.search(key).and_then(|found| found.ok().map(|at| node.cell(at)).transpose());
        Ok(found.map_err(Error::damaged(leaf.id()))?.map(|cell| cell.value.to_owned()))
    }
}

/// Leaves that were passed on the way to the next key.
///
/// Invariant: they stay latched until that key is locked. Otherwise a key could come into one of
/// them unseen: who brings it asks for the same lock, but only for an instant, which may be over by
/// then.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<PageRef>);

impl Passed {
    /// Goes on from a leaf to the one on its right.
    pub(crate) fn go_on(&mut self, leaf: &mut PageRef, right: PageRef) {
        self.0.push(std::mem::replace(leaf, right));
        if sabotage::has(Bug::PassedLetGo) {
            self.0.clear();
            thread::yield_now();
        }
    }

    /// The key is locked.
    pub(crate) fn let_go(&mut self) {
        self.0.clear();
    }
}

/// Calls `found` with the first key from a place of a leaf on, also if it lies in a leaf behind
/// (`None`: there is none). Leaves are latched from the left to the right, and stay so until `found`
/// has returned. The caller has the first one latched, which it gives as its bytes.
pub(crate) fn next_key<T>(
    txn: &Txn,
    leaf: (PageId, &[u8]),
    at: usize,
    found: impl FnOnce(Option<&[u8]>) -> Result<T>,
) -> Result<T> {
    let node = read(leaf.0, leaf.1)?;
    if at < node.count() {
        return found(Some(&node.key(at).map_err(Error::damaged(leaf.0))?));
    }
    let Some(mut page) = neighbour(txn, leaf.0, leaf.1)? else { return found(None) };
    let mut passed = Passed::default();
    loop {
        let node = read(page.id(), &page)?;
        if node.count() > 0 {
            return found(Some(&node.key(0).map_err(Error::damaged(page.id()))?));
        }
        let Some(next) = neighbour(txn, page.id(), &page)? else { return found(None) };
        passed.go_on(&mut page, next);
    }
}

/// Latches the leaf to the right of one that the caller has latched.
pub(crate) fn neighbour(txn: &Txn, page: PageId, bytes: &[u8]) -> Result<Option<PageRef>> {
    let node = read(page, bytes)?;
    let Some(next) = node.next() else { return Ok(None) };
    let right = txn.fetch_shared(next)?;
    let beside = read(next, &right)?;
    // Fences rise, so following the links ends.
    let rises = beside.high().is_none_or(|high| beside.low() < high);
    if beside.level() != node.level() || node.high() != Some(beside.low()) || !rises {
        return Err(Error::Damaged { page: next, why: "it does not begin where the page to its left ends" });
    }
    Ok(Some(right))
}

fn expect_level(page: PageId, node: &Node<'_>, level: u8) -> Result<()> {
    if node.level() == level {
        return Ok(());
    }
    Err(Error::Damaged { page, why: "it is on another level than the page above says" })
}

fn expect_place(page: PageId, node: &Node<'_>, seek: Seek<'_>) -> Result<()> {
    let is_right = match seek {
        Seek::Key(key) => node.covers(key),
        Seek::Before(key) => node.low() < key && node.high().is_none_or(|high| key <= high),
        Seek::Last => node.high().is_none(),
    };
    if is_right { Ok(()) } else { Err(Error::Damaged { page, why: "a search led to it for keys that lie elsewhere" }) }
}

/// Bytes of a leaf that a key takes beside its value.
fn entry_need(node: &Node<'_>, key: &[u8], value: usize) -> usize {
    entry_bytes(key.len().saturating_sub(node.prefix().len()), value)
}
