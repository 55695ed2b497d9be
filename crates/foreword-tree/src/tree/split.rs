//! How a page that is full is split in two. A split is a top action: it stays when its transaction
//! is rolled back, because others use both pages by then.

use foreword_pages::{Change, PageMut, Txn};

use super::{BTree, expect_level, read};
use crate::error::{Error, Result};
use crate::node::{CHILD, Key, Node, Plan, Seek, Source, Value, common, entry_bytes, key_max};
use crate::records;
use crate::sabotage::{self, Bug};

impl BTree {
    /// Splits the leaf where a key belongs, unless it has room for so many bytes.
    ///
    /// The pages on the way down are latched exclusively. Those above a page that has room for a
    /// key of any length are let go: nothing that happens below reaches them.
    pub(super) fn make_room(self, txn: &mut Txn, key: &[u8], need: usize) -> Result<()> {
        let mut path = vec![txn.fetch_exclusive(self.root)?];
        while let Some(page) = path.last() {
            let node = read(page.id(), page)?;
            if node.level() == 0 {
                if node.room() >= need {
                    return Ok(());
                }
                break;
            }
            let (child, level) = BTree::below(page.id(), &node, Seek::Key(key))?;
            let longest = entry_bytes(key_max(page.len()), CHILD);
            let child = txn.fetch_exclusive(child)?;
            let below = read(child.id(), &child)?;
            expect_level(child.id(), &below, level)?;
            let has_room = below.room() >= if level == 0 { need } else { longest };
            if has_room {
                path.clear();
            }
            path.push(child);
        }
        top_action(txn, |txn| self.split(txn, path, key).map(drop))
    }

    /// Splits the last page of a path. Returns the half where a key belongs. The first page of the
    /// path is the root, or has room for what the split adds to it.
    fn split(self, txn: &mut Txn, mut path: Vec<PageMut>, key: &[u8]) -> Result<PageMut> {
        let missing = || Error::Damaged { page: self.root, why: "no page above another has room" };
        let mut page = path.pop().ok_or_else(missing)?;
        if page.id() == self.root {
            let below = self.grow(txn, &mut page)?;
            path.push(std::mem::replace(&mut page, below));
        }
        let (id, len) = (page.id(), page.len());
        let node = read(id, &page)?;
        let (keep, separator) = place(&node, key).map_err(Error::damaged(id))?;

        let mut above = path.pop().ok_or_else(missing)?;
        let rest = separator.len().saturating_sub(read(above.id(), &above)?.prefix().len());
        if read(above.id(), &above)?.room() < entry_bytes(rest, CHILD) {
            path.push(above);
            above = self.split(txn, path, &separator)?;
        }

        let new = txn.allocate()?;
        let mut right = txn.fetch_exclusive(new)?;
        let goes = Source { node, from: keep, to: node.count() };
        let plan = Plan::of(&[goes], node.level(), node.next(), &separator, node.high()).map_err(Error::damaged(id))?;
        let mut change = Change::new();
        records::build(&mut change, new, len, &plan).map_err(Error::damaged(new))?;
        records::cut(&mut change, id, keep, new, &separator);
        let parent = read(above.id(), &above)?;
        let at = parent.search(&separator).map_err(Error::damaged(above.id()))?;
        let Err(at) = at else { return Err(Error::Damaged { page: above.id(), why: "it has a page that is to be new" }) };
        let rest = &separator[parent.prefix().len()..];
        let child = Value { bytes: &new.0.to_le_bytes(), is_long: false };
        records::insert(&mut change, above.id(), at, rest, child);
        txn.apply(&change, &mut [&mut right, &mut page, &mut above])?;
        Ok(if key < &separator[..] { page } else { right })
    }

    /// Puts a page between the root and what was in it. Returns that page.
    fn grow(self, txn: &mut Txn, root: &mut PageMut) -> Result<PageMut> {
        let node = read(self.root, root)?;
        let (len, level) = (root.len(), node.level());
        let Some(above) = level.checked_add(1) else {
            return Err(Error::Damaged { page: self.root, why: "it is higher than a tree can be" });
        };
        let new = txn.allocate()?;
        let mut below = txn.fetch_exclusive(new)?;
        let all = Source { node, from: 0, to: node.count() };
        let plan = Plan::of(&[all], level, None, b"", None).map_err(Error::damaged(self.root))?;
        let mut change = Change::new();
        records::build(&mut change, new, len, &plan).map_err(Error::damaged(new))?;
        let child = new.0.to_le_bytes();
        let entries = vec![(Key::default(), Value { bytes: &child, is_long: false })];
        let plan = Plan { level: above, next: None, low: b"", high: None, entries };
        records::build(&mut change, self.root, len, &plan).map_err(Error::damaged(self.root))?;
        txn.apply(&change, &mut [&mut below, root])?;
        Ok(below)
    }
}

/// Does work that stays when its transaction is rolled back.
pub(super) fn top_action<T>(txn: &mut Txn, act: impl FnOnce(&mut Txn) -> Result<T>) -> Result<T> {
    if sabotage::has(Bug::NoTopAction) { act(txn) } else { txn.nested(act) }
}

/// Where to split a page: how many entries stay, and the key from which on the others go.
fn place(node: &Node<'_>, key: &[u8]) -> Result<(usize, Vec<u8>), &'static str> {
    let count = node.count();
    if count < 2 {
        return Err("it is full, and has nothing to split");
    }
    let is_leaf = node.level() == 0;
    // Keys that come in their order fill each page: what is behind the last one goes alone.
    let is_appended = node.high().is_none() && node.search(key)? == Err(count);
    let mut keep = match (is_appended, is_leaf) {
        (true, true) => count,
        (true, false) => count - 1,
        (false, _) => half(node)?,
    };
    loop {
        let separator = match is_leaf {
            true if keep == count => shortest(&node.key(count - 1)?, key),
            true => shortest(&node.key(keep - 1)?, &node.key(keep)?),
            false => node.key(keep)?,
        };
        // A last page had no upper fence, and gets one now.
        let kept = Source { node: *node, from: 0, to: keep };
        let plan = Plan::of(&[kept], node.level(), None, node.low(), Some(&separator))?;
        if keep == 1 || plan.bytes()? <= node.len() {
            return Ok((keep, separator));
        }
        keep -= 1;
    }
}

/// How many entries have half of the bytes: neither none nor all.
fn half(node: &Node<'_>) -> Result<usize, &'static str> {
    let mut sizes = Vec::with_capacity(node.count());
    for at in 0..node.count() {
        let cell = node.cell(at)?;
        sizes.push(entry_bytes(cell.rest.len(), cell.value.bytes.len()));
    }
    let all: usize = sizes.iter().sum();
    let mut before = 0;
    let keep = sizes.iter().take_while(|size| {
        let goes_on = 2 * before < all;
        before += **size;
        goes_on
    });
    Ok(keep.count().clamp(1, node.count() - 1))
}

/// The shortest key that is higher than `low` and not higher than `high`.
fn shortest(low: &[u8], high: &[u8]) -> Vec<u8> {
    high[..high.len().min(common(low, high) + 1)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_short_and_lie_between() {
        for (low, high, separator) in [
            ("abc", "abd", "abd"),
            ("a", "b", "b"),
            ("abc", "b", "b"),
            ("ab", "abcdef", "abc"),
            ("", "x", "x"),
            ("axx", "ba", "b"),
        ] {
            let found = shortest(low.as_bytes(), high.as_bytes());
            assert_eq!(found, separator.as_bytes());
            assert!(low.as_bytes() < &found[..] && &found[..] <= high.as_bytes());
        }
    }
}
