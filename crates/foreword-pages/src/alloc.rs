//! Which pages are in use: maps in the page file, and the same in memory.
//!
//! Pages come in groups, each as large as the bits in a map. The first page of a group is its map:
//! bit *i* is set if the group's *i*-th page is in use (bit 0, the map itself, counts as set). Maps
//! change as all pages do, by logged changes of single bits. The last bytes of a map are no bits:
//! in the first they name the root.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::page::{PAGES_MAX, PageId};
use crate::pool::{Load, Pool};
use crate::{Error, Result};

/// At the end of each map's body: what is no bits.
const ROOT_BYTES: usize = 8;

/// What may be given out now: the maps, without what a transaction has freed and not committed.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// Pages in a group.
    group: u64,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bit i: page i + 1 is in use.
    words: Vec<u64>,
    /// No word before this one has a free bit.
    hint: usize,
    used: u64,
    /// Freed by a transaction that has not committed: still in use.
    leaving: HashSet<PageId>,
}

impl Allocator {
    pub(crate) fn new(body: usize) -> Allocator {
        Allocator { group: (body - ROOT_BYTES) as u64 * 8, state: RwLock::default() }
    }

    /// Reads the maps.
    pub(crate) fn load(&self, pool: &Pool) -> Result<()> {
        let mut state = self.write();
        while state.words.len() as u64 * 64 + 1 < pool.end() {
            let map = PageId(state.words.len() as u64 * 64 + 1);
            let pin = pool.fetch(map, Load::Read)?;
            let page = pin.read()?;
            let words = page.body()[..self.group as usize / 8]
                .chunks_exact(8)
                .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
            let first = state.words.len();
            state.words.extend(words);
            state.words[first] |= 1;
            state.used += state.words[first..].iter().map(|w| u64::from(w.count_ones())).sum::<u64>() - 1;
        }
        Ok(())
    }

    /// The map that has a page's bit, and which bit it is.
    pub(crate) fn place(&self, page: PageId) -> (PageId, u32) {
        let index = page.0 - 1;
        (PageId(1 + index / self.group * self.group), (index % self.group) as u32)
    }

    /// The page whose bit this is.
    pub(crate) fn page(&self, map: PageId, bit: u32) -> PageId {
        PageId(map.0 + u64::from(bit))
    }

    /// The map that names the root, and where in it.
    pub(crate) fn root_place(&self) -> (PageId, usize) {
        (PageId(1), self.group as usize / 8)
    }

    pub(crate) fn used(&self) -> u64 {
        self.read().used
    }

    pub(crate) fn check(&self, page: PageId) -> Result<()> {
        if self.is_used(&self.read(), page) { Ok(()) } else { Err(Error::NotAllocated { page }) }
    }

    /// Takes a free page.
    pub(crate) fn take(&self) -> Result<PageId> {
        let mut state = self.write();
        let free = state.words[state.hint..].iter().position(|&word| word != u64::MAX);
        let at = state.hint + free.unwrap_or(state.words.len() - state.hint);
        state.hint = at;
        if at == state.words.len() {
            let end = at as u64 * 64 + self.group;
            if end >= PAGES_MAX {
                return Err(Error::Invalid { what: "allocate", why: format!("the store has {PAGES_MAX} pages already") });
            }
            state.words.resize(end as usize / 64, 0);
            state.words[at] = 1;
        }
        let bit = state.words[at].trailing_ones();
        state.words[at] |= 1 << bit;
        state.used += 1;
        Ok(PageId(at as u64 * 64 + u64::from(bit) + 1))
    }

    /// The page is free again.
    pub(crate) fn give_back(&self, page: PageId) {
        let mut state = self.write();
        state.leaving.remove(&page);
        let at = (page.0 - 1) as usize / 64;
        let mask = 1 << ((page.0 - 1) % 64);
        // (While recovery undoes, nothing is loaded yet.)
        if let Some(word) = state.words.get_mut(at).filter(|word| **word & mask != 0) {
            *word &= !mask;
            state.used -= 1;
            state.hint = state.hint.min(at);
        }
    }

    /// A transaction frees the page: it is in use until that commits.
    pub(crate) fn leave(&self, page: PageId) -> Result<()> {
        let mut state = self.write();
        if self.is_used(&state, page) && state.leaving.insert(page) { Ok(()) } else { Err(Error::NotAllocated { page }) }
    }

    /// It did not commit.
    pub(crate) fn stay(&self, page: PageId) {
        self.write().leaving.remove(&page);
    }

    fn is_used(&self, state: &State, page: PageId) -> bool {
        let Some(index) = page.0.checked_sub(1) else { return false };
        let is_map = index % self.group == 0;
        !is_map && state.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_given_out_once_and_maps_never() {
        let body = 4096 - 32;
        let alloc = Allocator::new(body);
        let group = body as u64 * 8 - 64;
        assert_eq!(alloc.root_place(), (PageId(1), body - 8));
        let pages: Vec<u64> = (0..2 * group).map(|_| alloc.take().unwrap().0).collect();
        let expected: Vec<u64> = (1..).filter(|p| (p - 1) % group != 0).take(pages.len()).collect();
        assert_eq!(pages, expected);
        assert_eq!(alloc.used(), 2 * group);
        assert_eq!(alloc.place(PageId(group + 2)), (PageId(group + 1), 1));
        assert_eq!(alloc.page(PageId(group + 1), 1), PageId(group + 2));
        for no in [0, 1, group + 1, 3 * group, u64::MAX] {
            assert!(alloc.check(PageId(no)).is_err(), "{no}");
        }
        alloc.give_back(PageId(77));
        assert_eq!(alloc.take().unwrap(), PageId(77));
    }

    #[test]
    fn a_page_that_is_leaving_is_in_use_and_can_leave_once() {
        let alloc = Allocator::new(4064);
        let page = alloc.take().unwrap();
        alloc.leave(page).unwrap();
        assert!(alloc.leave(page).is_err());
        alloc.check(page).unwrap();
        assert_ne!(alloc.take().unwrap(), page);
        alloc.stay(page);
        alloc.leave(page).unwrap();
        alloc.give_back(page);
        assert!(alloc.check(page).is_err());
        assert_eq!(alloc.take().unwrap(), page);
    }
}
