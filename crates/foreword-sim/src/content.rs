//! The bytes of a file, in shared pages: a copy of a disk costs little.

use std::sync::Arc;

pub(crate) const PAGE: usize = 4096;

type Page = [u8; PAGE];

thread_local! {
    static ZEROS: Arc<Page> = Arc::new([0; PAGE]);
}

fn zeros() -> Arc<Page> {
    ZEROS.with(Arc::clone)
}

/// A page with these bytes. A log writes zeros ahead, and all pages of zeros share their memory.
fn shared(page: &Page) -> Arc<Page> {
    if *page == [0; PAGE] { zeros() } else { Arc::new(*page) }
}

#[derive(Clone, Default)]
pub(crate) struct Content {
    /// `None` is a hole.
    pages: Vec<Option<Arc<Page>>>,
    len: u64,
}

impl Content {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.pages.resize(len.div_ceil(PAGE as u64) as usize, None);
        if len < self.len
            && let Some(Some(last)) = self.pages.last_mut()
            && !len.is_multiple_of(PAGE as u64)
        {
            Arc::make_mut(last)[len as usize % PAGE..].fill(0);
        }
        self.len = len;
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let len = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (at, range) in pieces(offset, len, PAGE) {
            let part = &mut buf[range];
            match &self.pages[at as usize / PAGE] {
                Some(page) => part.copy_from_slice(&page[at as usize % PAGE..][..part.len()]),
                None => part.fill(0),
            }
        }
        len
    }

    /// Writes, and lengthens the file if need be.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        for (at, range) in pieces(offset, data.len(), PAGE) {
            let page = &mut self.pages[at as usize / PAGE];
            let part = &data[range];
            match <&Page>::try_from(part) {
                Ok(whole) => *page = Some(shared(whole)),
                Err(_) => {
                    let page = Arc::make_mut(page.get_or_insert_with(zeros));
                    page[at as usize % PAGE..][..part.len()].copy_from_slice(part);
                }
            }
        }
    }

    /// Writes the part that lies within the file.
    pub(crate) fn write_within(&mut self, offset: u64, data: &[u8]) {
        let len = self.len.saturating_sub(offset).min(data.len() as u64) as usize;
        self.write(offset.min(self.len), &data[..len]);
    }

    pub(crate) fn equals(&self, offset: u64, data: &[u8]) -> bool {
        let mut there = [0; PAGE];
        pieces(offset, data.len(), PAGE).all(|(at, range)| {
            let there = &mut there[..range.len()];
            there.fill(0); // Bytes behind the end of the file count as zeros.
            self.read(at, there);
            *there == data[range]
        })
    }

    /// Fills the holes with zeros.
    pub(crate) fn allocate(&mut self) {
        for page in &mut self.pages {
            page.get_or_insert_with(zeros);
        }
    }

    /// Makes holes of the whole pages in a stretch.
    pub(crate) fn punch(&mut self, offset: u64, len: u64) {
        let (from, to) = (offset.div_ceil(PAGE as u64) as usize, ((offset + len) / PAGE as u64) as usize);
        let to = to.min(self.pages.len());
        self.pages[from.min(to)..to].fill(None);
    }

    pub(crate) fn has_page(&self, index: u64) -> bool {
        self.pages.get(index as usize).is_some_and(Option::is_some)
    }

    /// Bytes of pages that are not holes.
    pub(crate) fn allocated(&self) -> u64 {
        (self.pages.iter().flatten().count() * PAGE) as u64
    }
}

/// A stretch of a file cut at the multiples of `unit`: the offset of each piece, and its range
/// within the stretch.
pub(crate) fn pieces(offset: u64, len: usize, unit: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let piece = (unit - at as usize % unit).min(len - done);
        let range = done..done + piece;
        done += piece;
        (piece > 0).then_some((at, range))
    })
}
