//! How pages that are nearly empty are joined with a neighbour, and how a tree gets lower. Both are
//! top actions, as splits are.

use foreword_pages::{Change, PageMut, Txn};

use super::split::top_action;
use super::{BTree, expect_level, read};
use crate::error::{Error, Result};
use crate::node::{Node, Plan, Seek, Source};
use crate::records;
use crate::sabotage::{self, Bug};

/// A page that results from a join is at most so full, in quarters, unless one of the two is empty.
const FULL_QUARTERS: usize = 3;

impl BTree {
    /// Joins the pages on the way to a key that are nearly empty once so many bytes of the leaf are
    /// gone. Without space for that, they stay as they are.
    pub(super) fn join_around(self, txn: &mut Txn, key: &[u8], goes: usize) -> Result<()> {
        loop {
            match self.join_one(txn, key, goes) {
                Ok(true) => {}
                Err(error) if !error.is_no_space() => return Err(error),
                Ok(false) | Err(_) => return Ok(()),
            }
        }
    }

    /// Joins the first such page on the way down. `false`: there is none.
    fn join_one(self, txn: &mut Txn, key: &[u8], goes: usize) -> Result<bool> {
        let mut above = txn.fetch_exclusive(self.root)?;
        loop {
            let id = above.id();
            let node = read(id, &above)?;
            if node.level() == 0 {
                return Ok(false);
            }
            let level = node.level() - 1;
            let at = node.way(Seek::Key(key)).map_err(Error::damaged(id))?;
            let latch = |txn: &Txn, at: usize| -> Result<PageMut> {
                let child = txn.fetch_exclusive(node.child(at).map_err(Error::damaged(id))?)?;
                expect_level(child.id(), &read(child.id(), &child)?, level)?;
                Ok(child)
            };
            let mut child = latch(txn, at)?;
            if id == self.root && node.count() == 1 {
                return top_action(txn, |txn| self.lower(txn, above, child)).map(|()| true);
            }
            let goes = if level == 0 { goes } else { 0 };
            if read(child.id(), &child)?.is_sparse_without(goes) {
                if at + 1 < node.count() {
                    let right = latch(txn, at + 1)?;
                    if fits(&child, &right, goes)? {
                        return top_action(txn, |txn| join(txn, above, at, child, right)).map(|()| true);
                    }
                }
                if at > 0 {
                    // From the left to the right. (The page above is latched, so both stay there.)
                    drop(child);
                    let left = latch(txn, at - 1)?;
                    child = latch(txn, at)?;
                    if fits(&left, &child, goes)? {
                        return top_action(txn, |txn| join(txn, above, at - 1, left, child)).map(|()| true);
                    }
                }
            }
            above = child;
        }
    }

    /// Puts the only page below the root in its place.
    fn lower(self, txn: &mut Txn, mut root: PageMut, child: PageMut) -> Result<()> {
        let node = read(child.id(), &child)?;
        let all = Source { node, from: 0, to: node.count() };
        let plan = Plan::of(&[all], node.level(), None, b"", None).map_err(Error::damaged(child.id()))?;
        let mut change = Change::new();
        records::build(&mut change, self.root, root.len(), &plan).map_err(Error::damaged(child.id()))?;
        txn.apply(&change, &mut [&mut root])?;
        Ok(txn.free(child.id())?)
    }
}

fn joined<'a>(left: &Node<'a>, right: &Node<'a>) -> Result<Plan<'a>, &'static str> {
    if left.high() != Some(right.low()) {
        return Err("it does not end where the page to its right begins");
    }
    let all = [left, right].map(|node| Source { node: *node, from: 0, to: node.count() });
    Plan::of(&all, left.level(), right.next(), left.low(), right.high())
}

/// Whether two pages have room in one, of which so many bytes go then.
fn fits(left: &PageMut, right: &PageMut, goes: usize) -> Result<bool> {
    let (a, b) = (read(left.id(), left)?, read(right.id(), right)?);
    let bytes = joined(&a, &b).and_then(|plan| plan.bytes()).map_err(Error::damaged(left.id()))?;
    let gone = usize::from(goes > 0);
    let is_full = (bytes - goes.min(bytes)) * 4 > left.len() * FULL_QUARTERS;
    Ok(bytes <= left.len() && (!is_full || a.count() <= gone || b.count() <= gone))
}

/// Takes the right one of two pages into the left one. `at`: the left one's place in the page above.
fn join(txn: &mut Txn, mut above: PageMut, at: usize, mut left: PageMut, right: PageMut) -> Result<()> {
    let (a, b) = (read(left.id(), &left)?, read(right.id(), &right)?);
    let plan = joined(&a, &b).map_err(Error::damaged(left.id()))?;
    let mut change = Change::new();
    records::build(&mut change, left.id(), left.len(), &plan).map_err(Error::damaged(left.id()))?;
    records::remove(&mut change, above.id(), at + 1);
    txn.apply(&change, &mut [&mut above, &mut left])?;
    if sabotage::has(Bug::JoinLeaks) {
        return Ok(());
    }
    Ok(txn.free(right.id())?)
}
