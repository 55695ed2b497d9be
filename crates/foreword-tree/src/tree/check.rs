//! The check of a whole tree.

use foreword_pages::{PageId, PageRef, Txn};

use super::{Tree, long, read};
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

/// A check on its way from the left to the right.
struct Check<'t> {
    txn: &'t Txn,
    /// Checks the pages of long values, too. They need locks while others write.
    reads_long: bool,
    counted: Counted,
    /// For each level the page that is to come next.
    next: Vec<Option<Option<PageId>>>,
}

impl Tree {
    /// Reads all pages, and checks that each is as its neighbours and the page above say. Others may
    /// read and write meanwhile.
    pub(crate) fn check(self, txn: &Txn, reads_long: bool) -> Result<Counted> {
        let root = txn.fetch_shared(self.root)?;
        let levels = u64::from(read(self.root, &root)?.level()) + 1;
        let counted = Counted { levels, ..Counted::default() };
        let mut check = Check { txn, reads_long, counted, next: vec![None; levels as usize] };
        check.page(&root, b"", None)?;
        match check.next.iter().find_map(|next| next.flatten()) {
            Some(page) => Err(Error::Damaged { page, why: "no page above leads to it" }),
            None => Ok(check.counted),
        }
    }
}

impl Check<'_> {
    /// Checks a page that has to have these fences, and all below it. It is latched meanwhile.
    fn page(&mut self, page: &PageRef, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        let id = page.id();
        let wrong = |why| Err(Error::Damaged { page: id, why });
        let node = read(id, page)?;
        if node.low() != low || node.high() != high {
            return wrong("its fences are not those that the page above has");
        }
        let expected = self.next[usize::from(node.level())].replace(node.next());
        if expected.is_some_and(|expected| expected != Some(id)) {
            return wrong("the page to its left leads elsewhere");
        }
        self.counted.pages += 1;
        let mut last: Option<Vec<u8>> = None;
        for at in 0..node.count() {
            let key = node.key(at).map_err(Error::damaged(id))?;
            if !node.covers(&key) || last.as_ref().is_some_and(|last| *last >= key) {
                return wrong("a key is in the wrong place");
            }
            last = Some(key);
        }
        if node.level() == 0 {
            self.counted.keys += node.count() as u64;
            for at in 0..node.count() {
                let value = node.cell(at).map_err(Error::damaged(id))?.value;
                if value.is_long && self.reads_long {
                    self.counted.long_pages += long::count(self.txn, &value.to_owned())?;
                }
            }
            return Ok(());
        }
        if node.count() == 0 {
            return wrong("it has no page below");
        }
        for at in 0..node.count() {
            let low = node.key(at).map_err(Error::damaged(id))?;
            let above = if at + 1 < node.count() { Some(node.key(at + 1).map_err(Error::damaged(id))?) } else { None };
            let child = self.txn.fetch_shared(node.child(at).map_err(Error::damaged(id))?)?;
            super::expect_level(child.id(), &child, node.level() - 1)?;
            self.page(&child, &low, above.as_deref().or(high))?;
        }
        Ok(())
    }
}
