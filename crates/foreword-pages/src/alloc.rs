//! Which pages are in use: the maps in the page file, and the same bits in memory.
//!
//! Pages come in groups, each as large as the bits in a map. The first page of a group is its map:
//! bit *i* is set if the group's *i*-th page is in use (bit 0, the map itself, counts as set). Maps
//! change as all pages do, by logged changes of single bits. The last bytes of a map's body are no
//! bits: in the first map they name the root.

use std::collections::HashSet;

use crate::latch::{Owner, Wait};
use crate::page::{PAGES_MAX, PageId};
use crate::pool::Pool;
use crate::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::{Error, Result};

/// Bytes at the end of each map's body that are no bits.
const ROOT_BYTES: usize = 8;

/// The pages that may be allocated now: those that the maps have as free, once the transaction that
/// freed them has committed.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// Pages in a group.
    group: u64,
    bitmap: RwLock<Bitmap>,
}

/// The bits of all maps.
#[derive(Debug, Default)]
struct Bitmap {
    /// Bit i is set: page i + 1 is in use.
    words: Vec<u64>,
    /// No word before this one has a free bit.
    hint: usize,
    used: u64,
    /// Pages that a live transaction has freed: they are still in use.
    leaving: HashSet<PageId>,
}

impl Allocator {
    pub(crate) fn new(body: usize) -> Allocator {
        Allocator { group: (body - ROOT_BYTES) as u64 * 8, bitmap: RwLock::default() }
    }

    /// Reads all maps.
    pub(crate) fn load(&self, pool: &Pool) -> Result<()> {
        let mut bitmap = self.write();
        while bitmap.words.len() as u64 * 64 + 1 < pool.end() {
            let map = PageId(bitmap.words.len() as u64 * 64 + 1);
            let page = pool.share(map, Owner::NONE, Wait::Bounded)?.ok_or(Error::Deadlock { page: map })?;
            let words = page[..self.group as usize / 8]
                .chunks_exact(8)
                .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
            let first = bitmap.words.len();
            bitmap.words.extend(words);
            bitmap.words[first] |= 1;
            bitmap.used += bitmap.words[first..].iter().map(|w| u64::from(w.count_ones())).sum::<u64>() - 1;
        }
        Ok(())
    }

    /// The map that has a page's bit, and the number of the bit.
    pub(crate) fn place(&self, page: PageId) -> (PageId, u32) {
        let index = page.0 - 1;
        (PageId(1 + index / self.group * self.group), (index % self.group) as u32)
    }

    /// The page that a bit of a map stands for.
    pub(crate) fn page(&self, map: PageId, bit: u32) -> PageId {
        PageId(map.0 + u64::from(bit))
    }

    /// The map that names the root, and the offset of the name in its body.
    pub(crate) fn root_place(&self) -> (PageId, usize) {
        (PageId(1), self.group as usize / 8)
    }

    /// Whether a page is a map.
    pub(crate) fn is_map(&self, page: PageId) -> bool {
        page.0 % self.group == 1
    }

    pub(crate) fn used(&self) -> u64 {
        self.read().used
    }

    pub(crate) fn check(&self, page: PageId) -> Result<()> {
        if self.is_used(&self.read(), page) { Ok(()) } else { Err(Error::NotAllocated { page }) }
    }

    /// Takes a free page. From here on it is in use.
    pub(crate) fn take(&self) -> Result<PageId> {
        let mut bitmap = self.write();
        let free = bitmap.words[bitmap.hint..].iter().position(|&word| word != u64::MAX);
        let at = bitmap.hint + free.unwrap_or(bitmap.words.len() - bitmap.hint);
        bitmap.hint = at;
        if at == bitmap.words.len() {
            let end = at as u64 * 64 + self.group;
            if end >= PAGES_MAX {
                return Err(Error::Invalid { what: "allocate", why: format!("the store has {PAGES_MAX} pages already") });
            }
            bitmap.words.resize(end as usize / 64, 0);
            bitmap.words[at] = 1;
        }
        let bit = bitmap.words[at].trailing_ones();
        bitmap.words[at] |= 1 << bit;
        bitmap.used += 1;
        Ok(PageId(at as u64 * 64 + u64::from(bit) + 1))
    }

    /// Makes a page free.
    pub(crate) fn give_back(&self, page: PageId) {
        let mut bitmap = self.write();
        bitmap.leaving.remove(&page);
        let at = (page.0 - 1) as usize / 64;
        let mask = 1 << ((page.0 - 1) % 64);
        // While recovery undoes top actions, no map is loaded yet.
        if let Some(word) = bitmap.words.get_mut(at).filter(|word| **word & mask != 0) {
            *word &= !mask;
            bitmap.used -= 1;
            bitmap.hint = bitmap.hint.min(at);
        }
    }

    /// Notes that a page is in use after all: what freed it was undone.
    pub(crate) fn take_back(&self, page: PageId) {
        let mut bitmap = self.write();
        let mask = 1 << ((page.0 - 1) % 64);
        // While recovery undoes top actions, no map is loaded yet.
        if let Some(word) = bitmap.words.get_mut((page.0 - 1) as usize / 64).filter(|word| **word & mask == 0) {
            *word |= mask;
            bitmap.used += 1;
        }
    }

    /// Notes that a transaction frees a page, which stays in use until the transaction commits.
    pub(crate) fn leave(&self, page: PageId) -> Result<()> {
        let mut bitmap = self.write();
        if self.is_used(&bitmap, page) && bitmap.leaving.insert(page) { Ok(()) } else { Err(Error::NotAllocated { page }) }
    }

    /// Notes that the transaction that would have freed a page was rolled back.
    pub(crate) fn stay(&self, page: PageId) {
        self.write().leaving.remove(&page);
    }

    fn is_used(&self, bitmap: &Bitmap, page: PageId) -> bool {
        let Some(index) = page.0.checked_sub(1) else { return false };
        let is_map = index % self.group == 0;
        !is_map && bitmap.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn read(&self) -> RwLockReadGuard<'_, Bitmap> {
        self.bitmap.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Bitmap> {
        self.bitmap.write().unwrap_or_else(PoisonError::into_inner)
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
