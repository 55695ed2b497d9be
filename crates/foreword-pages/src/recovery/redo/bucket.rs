//! Buckets: the changes of a window, shared out by page.

use std::num::NonZeroUsize;

use foreword::Lsn;

use crate::ids::{PageMap, mix};
use crate::page::{PageId, Redo};
use crate::record::RawChange;

pub(super) const BUCKETS: usize = 64;

/// The bucket that a page belongs to.
pub(super) fn bucket_of(page: PageId) -> usize {
    (mix(page.0) >> 20) as usize % BUCKETS
}

/// The changes of one stretch in one bucket, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct BucketPart {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    page: PageId,
    /// The record's LSN, counted from the first of the stretch.
    lsn: u32,
    /// Where in the bytes the change begins. It ends where the next change begins.
    at: u32,
}

impl BucketPart {
    /// Adds a change. Returns the memory that it takes.
    pub(super) fn push(&mut self, page: PageId, lsn: u32, change: Redo<'_>) -> usize {
        let at = self.bytes.len();
        RawChange::put(change, &mut self.bytes);
        self.entries.push(Entry { page, lsn, at: at as u32 });
        self.bytes.len() - at + size_of::<Entry>()
    }

    /// The changes, of a stretch whose first record has this LSN.
    pub(super) fn changes(&self, first: Lsn) -> impl Iterator<Item = (PageId, Lsn, RawChange<'_>)> {
        let ends = self.entries.iter().skip(1).map(|next| next.at as usize).chain([self.bytes.len()]);
        self.entries.iter().zip(ends).filter_map(move |(entry, end)| {
            let change = RawChange::from_bytes(&self.bytes[entry.at as usize..end])?;
            Some((entry.page, Lsn(first.0 + u64::from(entry.lsn)), change))
        })
    }

    /// Removes all changes. Keeps at most twice the memory that they took.
    pub(super) fn clear(&mut self) {
        self.bytes.shrink_to(2 * self.bytes.len());
        self.entries.shrink_to(2 * self.entries.len());
        self.bytes.clear();
        self.entries.clear();
    }
}

/// All changes of a window in one bucket, page by page.
#[derive(Debug, Default)]
pub(super) struct Bucket<'a> {
    /// In the order of the log, each with the index of the same page's next change.
    changes: Vec<(Lsn, RawChange<'a>, Option<NonZeroUsize>)>,
    /// By id, each with the index of its first change.
    pages: Vec<(PageId, usize)>,
}

impl<'a> Bucket<'a> {
    /// Groups changes, which come in the order of the log, by page.
    pub(super) fn sort(changes: impl Iterator<Item = (PageId, Lsn, RawChange<'a>)>) -> Bucket<'a> {
        let mut bucket = Bucket::default();
        let mut lasts: PageMap<usize> = PageMap::default();
        for (at, (page, lsn, change)) in changes.enumerate() {
            bucket.changes.push((lsn, change, None));
            match lasts.insert(page, at) {
                Some(last) => bucket.changes[last].2 = NonZeroUsize::new(at),
                None => bucket.pages.push((page, at)),
            }
        }
        bucket.pages.sort_unstable();
        bucket
    }

    /// The pages, each with what [`of_page`](Bucket::of_page) takes.
    pub(super) fn pages(&self) -> impl Iterator<Item = (PageId, usize)> {
        self.pages.iter().copied()
    }

    /// The changes of the page whose first change has this index.
    pub(super) fn of_page(&self, first: usize) -> impl Iterator<Item = (Lsn, RawChange<'a>)> {
        let at = |at: usize| self.changes.get(at);
        std::iter::successors(at(first), move |change| at(change.2?.get())).map(|&(lsn, change, _)| (lsn, change))
    }
}
