//! A page as bytes: its header, its checksum, and the changes that can be made to it. No I/O.

use std::fmt;
use std::sync::Arc;

use foreword::Lsn;

use crate::parts::{Failed, Parts};
use crate::types::RedoTypes;

/// Bytes at the start of each page that belong to the store.
pub(crate) const HEADER: usize = 32;
pub(crate) const PAGE_MIN: usize = 4 << 10;
pub(crate) const PAGE_MAX: usize = 64 << 10;
/// One more than the largest page id. File offsets are far from overflowing there.
pub(crate) const PAGES_MAX: u64 = 1 << 40;

const KIND: usize = 4;
const ID: usize = 8;
const LSN: usize = 16;
const IMAGE_LSN: usize = 24;

/// The number of a page: its place in the page file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u64);

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing was ever written: all bytes are zero.
    Blank = 0,
    Data = 1,
    /// A map: the bits that say which pages of its group are in use.
    Map = 2,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            0 => Some(Kind::Blank),
            1 => Some(Kind::Data),
            2 => Some(Kind::Map),
            _ => None,
        }
    }
}

/// A page in memory. Its length never changes. A clone is a reference to the same bytes, until one
/// of the two is changed.
#[derive(Clone, Debug)]
pub(crate) struct Page(Arc<[u8]>);

impl Page {
    pub(crate) fn blank(bytes: usize) -> Page {
        Page(vec![0; bytes].into())
    }

    /// A page of its own bytes.
    pub(crate) fn copy(&self) -> Page {
        Page(self.0[..].into())
    }

    pub(crate) fn clear_header(&mut self) {
        self.bytes_mut()[..HEADER].fill(0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.0)
    }

    /// The bytes that belong to the store's user.
    pub(crate) fn body(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    pub(crate) fn body_mut(&mut self) -> &mut [u8] {
        &mut self.bytes_mut()[HEADER..]
    }

    pub(crate) fn id(&self) -> PageId {
        PageId(self.u64_at(ID))
    }

    pub(crate) fn set_id(&mut self, id: PageId) {
        self.put_u64(ID, id.0);
    }

    /// The LSN of the last record whose change is in the page.
    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(self.u64_at(LSN))
    }

    pub(crate) fn set_lsn(&mut self, lsn: Lsn) {
        self.put_u64(LSN, lsn.0);
    }

    /// The LSN of the last record that holds all of the page: from there on the log can rebuild the
    /// page.
    pub(crate) fn image_lsn(&self) -> Lsn {
        Lsn(self.u64_at(IMAGE_LSN))
    }

    pub(crate) fn set_image_lsn(&mut self, lsn: Lsn) {
        self.put_u64(IMAGE_LSN, lsn.0);
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_byte(self.0[KIND])
    }

    pub(crate) fn set_kind(&mut self, kind: Kind) {
        self.bytes_mut()[KIND] = kind as u8;
    }

    /// Sets the checksum. Nothing changes the page after that until it is written.
    pub(crate) fn seal(&mut self) {
        let crc = crc32c::crc32c(&self.0[4..]);
        self.bytes_mut()[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Why the bytes that were read are not what was written as this page. `None`: they are, or the
    /// page was never written.
    pub(crate) fn fault(&self, id: PageId) -> Option<String> {
        let crc = u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]);
        if crc == 0 && self.0.iter().all(|&b| b == 0) {
            return None;
        }
        let right = crc32c::crc32c(&self.0[4..]);
        if crc != right {
            return Some(format!("its checksum is {crc:08x}, not {right:08x}"));
        }
        if self.id() != id {
            return Some(format!("it is page {}, written in the wrong place", self.id()));
        }
        match self.kind() {
            Some(Kind::Data | Kind::Map) => None,
            _ => Some(format!("it is of no known kind ({})", self.0[KIND])),
        }
    }

    fn u64_at(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.bytes_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// A change of a part of a page: what a record redoes or undoes. Invariant: the place lies in the
/// page. The code that makes an edit has checked that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit<'a> {
    /// Bytes of the body.
    Bytes { offset: u32, bytes: &'a [u8] },
    /// A bit of the body of a map.
    Bit { bit: u32, set: bool },
}

impl Edit<'_> {
    /// Whether the place lies in a body of so many bytes.
    #[cfg(test)]
    pub(crate) fn fits(&self, body: usize) -> bool {
        match *self {
            Edit::Bytes { offset, bytes } => offset as usize <= body && bytes.len() <= body - offset as usize,
            Edit::Bit { bit, .. } => (bit as usize) < body * 8,
        }
    }

    pub(crate) fn apply(&self, page: &mut Page) {
        let body = page.body_mut();
        match *self {
            Edit::Bytes { offset, bytes } => body[offset as usize..][..bytes.len()].copy_from_slice(bytes),
            Edit::Bit { bit, set } => {
                let mask = 1 << (bit % 8);
                let byte = &mut body[bit as usize / 8];
                *byte = if set { *byte | mask } else { *byte & !mask };
                page.set_kind(Kind::Map);
            }
        }
    }

    pub(crate) fn to_owned(self) -> OwnedEdit {
        match self {
            Edit::Bytes { offset, bytes } => OwnedEdit::Bytes { offset, bytes: bytes.into() },
            Edit::Bit { bit, set } => OwnedEdit::Bit { bit, set },
        }
    }
}

/// An [`Edit`] that owns its bytes. A clone has the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OwnedEdit {
    Bytes { offset: u32, bytes: Arc<[u8]> },
    Bit { bit: u32, set: bool },
}

impl OwnedEdit {
    pub(crate) fn as_edit(&self) -> Edit<'_> {
        match *self {
            OwnedEdit::Bytes { offset, ref bytes } => Edit::Bytes { offset, bytes },
            OwnedEdit::Bit { bit, set } => Edit::Bit { bit, set },
        }
    }

    /// Bytes of memory that the edit takes on the heap.
    pub(crate) fn cost(&self) -> usize {
        match self {
            OwnedEdit::Bytes { bytes, .. } => bytes.len(),
            OwnedEdit::Bit { .. } => 0,
        }
    }
}

/// All of a page but its LSNs, without the longest stretch of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image<'a> {
    pub(crate) kind: Kind,
    /// The body before the zeros.
    pub(crate) head: &'a [u8],
    pub(crate) zeros: usize,
    /// The body behind them.
    pub(crate) tail: &'a [u8],
}

impl<'a> Image<'a> {
    /// The image of an empty page.
    pub(crate) fn empty(body: usize) -> Image<'static> {
        Image { kind: Kind::Data, head: &[], zeros: body, tail: &[] }
    }

    pub(crate) fn of(page: &'a Page) -> Image<'a> {
        let body = page.body();
        let (start, end) = longest_zeros(body);
        let kind = page.kind().unwrap_or(Kind::Data);
        Image { kind, head: &body[..start], zeros: end - start, tail: &body[end..] }
    }

    pub(crate) fn apply(&self, page: &mut Page) {
        page.set_kind(self.kind);
        let body = page.body_mut();
        let (head, rest) = body.split_at_mut(self.head.len());
        let (zeros, tail) = rest.split_at_mut(self.zeros);
        head.copy_from_slice(self.head);
        zeros.fill(0);
        tail.copy_from_slice(self.tail);
    }
}

/// The longest stretch of zeros: where it begins and ends. The search looks at every 16th byte
/// first, so it may miss a stretch of less than 32.
fn longest_zeros(body: &[u8]) -> (usize, usize) {
    const STEP: usize = 16;
    let mut best = (0, 0);
    let mut at = 0;
    while at < body.len() {
        if body[at] != 0 {
            at += STEP;
            continue;
        }
        let start = at - body[..at].iter().rev().take_while(|&&b| b == 0).count();
        let end = at + body[at..].iter().take_while(|&&b| b == 0).count();
        if end - start > best.1 - best.0 {
            best = (start, end);
        }
        at = end + STEP;
    }
    best
}

/// What a record does to a page: a change of one part or of several, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redo<'a> {
    Edit(Edit<'a>),
    Parts(Parts<'a>),
    Image(Image<'a>),
}

impl Redo<'_> {
    /// Makes the change that the record with this LSN describes. If that fails, the page is as it
    /// was.
    pub(crate) fn apply(&self, page: &mut Page, lsn: Lsn, types: &RedoTypes) -> Result<(), Failed> {
        match self {
            Redo::Edit(edit) => edit.apply(page),
            Redo::Parts(parts) => parts.apply(page.body_mut(), types)?,
            Redo::Image(image) => {
                image.apply(page);
                page.set_image_lsn(lsn);
            }
        }
        page.set_lsn(lsn);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(body: &[u8]) -> Page {
        let mut page = Page::blank(PAGE_MIN);
        page.set_kind(Kind::Data);
        page.body_mut()[..body.len()].copy_from_slice(body);
        page
    }

    #[test]
    fn a_page_that_was_never_written_has_no_fault_and_any_other_change_is_one() {
        let mut blank = Page::blank(PAGE_MIN);
        assert_eq!(blank.fault(PageId(7)), None);
        blank.bytes_mut()[PAGE_MIN - 1] = 1;
        assert!(blank.fault(PageId(7)).is_some());

        let mut whole = page(b"hello");
        whole.set_id(PageId(7));
        whole.set_lsn(Lsn(9));
        whole.seal();
        assert_eq!(whole.fault(PageId(7)), None);
        assert!(whole.fault(PageId(8)).is_some(), "a misdirected write");
        for at in (0..PAGE_MIN).step_by(101) {
            let mut flipped = whole.clone();
            flipped.bytes_mut()[at] ^= 4;
            assert!(flipped.fault(PageId(7)).is_some(), "byte {at}");
        }
    }

    #[test]
    fn zeros_are_left_out_of_images() {
        let empty = page(b"");
        assert_eq!(Image::of(&empty), Image::empty(PAGE_MIN - HEADER));
        let some = page(b"abc");
        let image = Image::of(&some);
        assert_eq!((image.head, image.tail), (&b"abc"[..], &b""[..]));
    }

    proptest! {
        #[test]
        fn an_image_restores_any_page(parts in prop::collection::vec((0usize..4000, 1usize..300, any::<u8>()), 0..12)) {
            let mut original = page(b"");
            for (at, len, byte) in parts {
                let end = (at + len).min(PAGE_MIN - HEADER);
                original.body_mut()[at..end].fill(byte);
            }
            let mut other = page(&[0xff; 2000]);
            Image::of(&original).apply(&mut other);
            prop_assert_eq!(other.body(), original.body());
        }
    }
}
