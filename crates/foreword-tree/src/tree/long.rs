//! Values that are too long for a leaf: a chain of pages of their own.
//!
//! The pages belong to the transaction that writes or removes the value, and not to a top action:
//! its rollback frees those that it has written, and keeps those that it has freed. Locks on keys
//! keep others away.

use foreword_pages::{Change, PageId, Txn};

use crate::error::{Error, Result};
use crate::node::{LONG, OwnedValue, u64_of};
use crate::records::UNDO_NOTHING;
use crate::sabotage::{self, Bug};

/// The most bytes of a value.
pub(crate) const VALUE_MAX: usize = 1 << 30;

const LEN: usize = 4;
const NEXT: usize = 8;
const HEADER: usize = 16;
/// What is not asked for before the pages have shown that they hold it.
const RESERVE_MAX: usize = 1 << 20;

/// Writes a value. Returns what the leaf has of it: its length, and its first page.
pub(crate) fn write(txn: &mut Txn, value: &[u8], page_len: usize) -> Result<OwnedValue> {
    let mut pages = Vec::new();
    for _ in value.chunks(page_len - HEADER) {
        pages.push(txn.allocate()?);
    }
    for (at, chunk) in value.chunks(page_len - HEADER).enumerate() {
        let next = pages.get(at + 1).map_or(0, |next: &PageId| next.0);
        let mut bytes = vec![LONG, 0, 0, 0];
        bytes.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        bytes.extend_from_slice(chunk);
        let mut page = txn.fetch_exclusive(pages[at])?;
        let mut change = Change::new();
        // What was there before is of no use to anyone, so it is not logged.
        change.write(page.id(), 0, &bytes).undo(UNDO_NOTHING, b"");
        txn.apply(&change, &mut [&mut page])?;
    }
    let first = pages.first().map_or(0, |first| first.0);
    Ok(OwnedValue { bytes: [(value.len() as u64).to_le_bytes(), first.to_le_bytes()].concat(), is_long: true })
}

/// Goes through the pages of a value. Returns its length.
fn walk(txn: &Txn, value: &OwnedValue, mut found: impl FnMut(PageId, &[u8])) -> Result<usize> {
    let place = u64_of(&value.bytes).zip(value.bytes.get(8..).and_then(u64_of));
    let Some((len, first)) = place.filter(|(len, _)| *len <= VALUE_MAX as u64) else {
        return Err(Error::Damaged { page: PageId(0), why: "a leaf says that a value lies nowhere" });
    };
    let (mut id, mut left) = (PageId(first), len as usize);
    while left > 0 {
        let page = txn.fetch_shared(id)?;
        let bytes = u64_of(&page[LEN..]).map_or(0, |len| len as u32 as usize);
        let data = page.get(HEADER..HEADER + bytes).filter(|data| page[0] == LONG && (1..=left).contains(&data.len()));
        let data = data.ok_or(Error::Damaged { page: id, why: "it does not hold the part of a long value that it should" })?;
        found(id, data);
        left -= data.len();
        id = PageId(u64_of(&page[NEXT..]).unwrap_or_default());
    }
    Ok(len as usize)
}

/// Reads a value.
pub(crate) fn read(txn: &Txn, value: &OwnedValue) -> Result<Vec<u8>> {
    let len = u64_of(&value.bytes).unwrap_or_default() as usize;
    let mut bytes = Vec::with_capacity(len.min(RESERVE_MAX));
    walk(txn, value, |_, data| bytes.extend_from_slice(data))?;
    Ok(bytes)
}

/// The number of pages of a value.
pub(crate) fn count(txn: &Txn, value: &OwnedValue) -> Result<u64> {
    let mut pages = 0;
    walk(txn, value, |_, _| pages += 1)?;
    Ok(pages)
}

/// Frees the pages of a value, when the transaction commits.
pub(crate) fn free(txn: &mut Txn, value: &OwnedValue) -> Result<()> {
    let mut pages = Vec::new();
    walk(txn, value, |id, _| pages.push(id))?;
    if sabotage::has(Bug::LongLeaks) {
        return Ok(());
    }
    let free = |txn: &mut Txn| pages.into_iter().try_for_each(|page| Ok(txn.free(page)?));
    if sabotage::has(Bug::LongFreedSoon) { txn.nested(free) } else { free(txn) }
}
