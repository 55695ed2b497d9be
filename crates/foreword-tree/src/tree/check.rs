//! The check of a whole tree.

use foreword_pages::{PageId, PageRef, Txn};

use super::{BTree, long, read};
use crate::error::{Error, Result};

/// What a check has found in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) keys: u64,
    /// Pages of the tree itself.
    pub(crate) pages: u64,
    /// Pages of values that are too long for a leaf.
    pub(crate) long_pages: u64,
    /// How many levels the tree has.
    pub(crate) levels: u64,
}

/// A check on its way.
struct Check<'t> {
    txn: &'t Txn,
    /// Checks the pages of long values, too. They need locks while others write.
    reads_long: bool,
    counted: Counted,
}

impl BTree {
    /// Reads all pages, and checks that each is as its neighbours and the page above say. Others may
    /// read and write meanwhile.
    ///
    /// It goes along each level, from the left to the right, and has latched at a time a page and one
    /// below or beside it. So others wait for no more than the pages below one.
    pub(crate) fn check(self, txn: &Txn, reads_long: bool) -> Result<Counted> {
        let root = txn.fetch_shared(self.root)?;
        let levels = read(self.root, &root)?.level();
        let counted = Counted { levels: u64::from(levels) + 1, ..Counted::default() };
        let mut check = Check { txn, reads_long, counted };
        check.page(&root, b"", None)?;
        drop(root);
        for level in (1..=levels).rev() {
            check.level(self.root, level)?;
        }
        Ok(check.counted)
    }
}

impl Check<'_> {
    /// Checks the pages right below those of a level.
    fn level(&mut self, root: PageId, level: u8) -> Result<()> {
        let mut page = self.txn.fetch_shared(root)?;
        loop {
            let node = read(page.id(), &page)?;
            match node.level() {
                at if at == level => break,
                at if at < level => return Ok(()), // The tree has got lower.
                at => {
                    let child = self.txn.fetch_shared(node.child(0).map_err(Error::damaged(page.id()))?)?;
                    super::expect_level(child.id(), &read(child.id(), &child)?, at - 1)?;
                    page = child;
                }
            }
        }
        let mut next = None;
        loop {
            self.children(&page, &mut next)?;
            let Some(right) = super::neighbour(self.txn, page.id(), &page)? else { break };
            page = right;
        }
        match next.flatten() {
            Some(page) => Err(Error::Damaged { page, why: "no page above leads to it" }),
            None => Ok(()),
        }
    }

    /// Checks the pages below one, which is latched: so they are neither split nor joined. `next`:
    /// where the page before them leads, if there is one.
    fn children(&mut self, page: &PageRef, next: &mut Option<Option<PageId>>) -> Result<()> {
        let id = page.id();
        let node = read(id, page)?;
        if node.count() == 0 {
            return Err(Error::Damaged { page: id, why: "it has no page below" });
        }
        for at in 0..node.count() {
            let low = node.key(at).map_err(Error::damaged(id))?;
            let above = if at + 1 < node.count() { Some(node.key(at + 1).map_err(Error::damaged(id))?) } else { None };
            let child = self.txn.fetch_shared(node.child(at).map_err(Error::damaged(id))?)?;
            super::expect_level(child.id(), &read(child.id(), &child)?, node.level() - 1)?;
            if next.is_some_and(|next| next != Some(child.id())) {
                return Err(Error::Damaged { page: child.id(), why: "the page to its left leads elsewhere" });
            }
            *next = Some(self.page(&child, &low, above.as_deref().or(node.high()))?);
        }
        Ok(())
    }

    /// Checks a page that has to have these fences. Returns where it leads.
    fn page(&mut self, page: &PageRef, low: &[u8], high: Option<&[u8]>) -> Result<Option<PageId>> {
        let id = page.id();
        let wrong = |why| Err(Error::Damaged { page: id, why });
        let node = read(id, page)?;
        if node.low() != low || node.high() != high {
            return wrong("its fences are not those that the page above has");
        }
        if node.next().is_none() != high.is_none() {
            return wrong("it leads nowhere, or is the last and leads on");
        }
        self.counted.pages += 1;
        let mut last: Option<Vec<u8>> = None;
        for at in 0..node.count() {
            let key = node.key(at).map_err(Error::damaged(id))?;
            if !node.covers(&key) || last.as_ref().is_some_and(|last| *last >= key) {
                return wrong("a key is in the wrong place");
            }
            last = Some(key);
            let value = node.cell(at).map_err(Error::damaged(id))?.value;
            if node.level() == 0 && value.is_long && self.reads_long {
                self.counted.long_pages += long::count(self.txn, &value.to_owned())?;
            }
        }
        if node.level() == 0 {
            self.counted.keys += node.count() as u64;
        }
        Ok(node.next())
    }
}
