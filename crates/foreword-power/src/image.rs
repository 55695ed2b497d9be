//! The bytes of a disk, in shared pages: a copy costs a pointer for each.

use std::ops::Range;
use std::sync::Arc;

const PAGE: usize = 4096;

/// A disk's contents.
#[derive(Clone)]
pub(crate) struct Image {
    /// `None` is zeros.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Image {
    /// Zeros; the size is rounded up to 4 KiB.
    pub(crate) fn new(bytes: u64) -> Image {
        Image { pages: vec![None; bytes.div_ceil(PAGE as u64) as usize] }
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.pages.len() * PAGE) as u64
    }

    /// As much as there is from the offset on.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len.min(self.bytes().saturating_sub(offset) as usize)];
        for (page, within, range) in pieces(offset, data.len()) {
            if let Some(page) = &self.pages[page] {
                data[range.clone()].copy_from_slice(&page[within..within + range.len()]);
            }
        }
        data
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, within, range) in pieces(offset, data.len()) {
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + range.len()].copy_from_slice(&data[range]);
        }
    }

    pub(crate) fn zero(&mut self, offset: u64, len: usize) {
        for (page, within, range) in pieces(offset, len) {
            match &mut self.pages[page] {
                whole if range.len() == PAGE => *whole = None,
                Some(page) => Arc::make_mut(page)[within..within + range.len()].fill(0),
                None => {}
            }
        }
    }
}

/// A stretch cut at the page boundaries: for each piece its page, where it begins there, and its
/// range within the stretch.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset as usize + done;
        let piece = (PAGE - at % PAGE).min(len - done);
        let range = done..done + piece;
        done += piece;
        (piece > 0).then_some((at / PAGE, at % PAGE, range))
    })
}
