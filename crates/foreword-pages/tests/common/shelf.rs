//! A small index, built on the public API as a tree would be: a chain of pages, sorted by key, that
//! many transactions change at a time. Entries move when others come and go, and pages are split
//! and unlinked while transactions have entries in them. So entries are undone by their keys, and
//! splits are not undone.

use std::collections::BTreeMap;

use foreword_pages::{Change, HandlerError, Options, PageId, PageMut, Result, Session, Txn};

/// The most entries of a page: so few that pages split all the time.
const ENTRIES_MAX: usize = 10;
const NEXT: usize = 0;
const COUNT: usize = 8;
/// The least key that belongs into the page.
const LOW: usize = 10;
const ENTRIES: usize = 16;

const INSERT: u16 = 1;
const REMOVE: u16 = 2;

/// An index of numbers by numbers. The page is the first of the chain, and stays it.
#[derive(Clone, Copy, Debug)]
pub struct Shelf(pub PageId);

/// What a split does between its two changes, when half of the entries are nowhere.
pub type Between<'b> = &'b mut dyn FnMut(&Txn, PageId) -> Result<()>;

fn number<const N: usize>(page: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&page[at..at + N]);
    u64::from_le_bytes(bytes)
}

fn count(page: &[u8]) -> usize {
    number::<2>(page, COUNT) as usize
}

fn next(page: &[u8]) -> Option<PageId> {
    Some(PageId(number::<8>(page, NEXT))).filter(|next| next.0 > 0)
}

fn entry(page: &[u8], at: usize) -> (u32, u32) {
    (number::<4>(page, ENTRIES + 8 * at) as u32, number::<4>(page, ENTRIES + 8 * at + 4) as u32)
}

/// Where a key is in a page, or would be.
fn search(page: &[u8], key: u32) -> std::result::Result<usize, usize> {
    let keys: Vec<u32> = (0..count(page)).map(|at| entry(page, at).0).collect();
    keys.binary_search(&key)
}

/// Redoes an insertion. The payload is the place and the entry.
fn redo_insert(page: &mut [u8], payload: &[u8]) -> std::result::Result<(), HandlerError> {
    let (at, count) = (usize::from(payload[0]), count(page));
    if at > count || count >= ENTRIES_MAX {
        return Err(format!("no place {at} among {count} entries").into());
    }
    page.copy_within(ENTRIES + 8 * at..ENTRIES + 8 * count, ENTRIES + 8 * (at + 1));
    page[ENTRIES + 8 * at..][..8].copy_from_slice(&payload[1..9]);
    page[COUNT..COUNT + 2].copy_from_slice(&(count as u16 + 1).to_le_bytes());
    Ok(())
}

/// Redoes a removal. The payload is the place.
fn redo_remove(page: &mut [u8], payload: &[u8]) -> std::result::Result<(), HandlerError> {
    let (at, count) = (usize::from(payload[0]), count(page));
    if at >= count {
        return Err(format!("no place {at} among {count} entries").into());
    }
    page.copy_within(ENTRIES + 8 * (at + 1)..ENTRIES + 8 * count, ENTRIES + 8 * at);
    page[COUNT..COUNT + 2].copy_from_slice(&(count as u16 - 1).to_le_bytes());
    Ok(())
}

fn nothing(_: &Txn, _: PageId) -> Result<()> {
    Ok(())
}

/// The options with the index's record types.
pub fn with_types(options: Options) -> Options {
    // The payload of an undo has the first page, and the entry.
    let parse = |payload: &[u8]| {
        (Shelf(PageId(number::<8>(payload, 0))), number::<4>(payload, 8) as u32, number::<4>(payload, 12) as u32)
    };
    options
        .redo_type(INSERT, "shelf insert", redo_insert)
        .redo_type(REMOVE, "shelf remove", redo_remove)
        .undo_type(INSERT, "shelf insert", move |txn, payload| {
            let (shelf, key, _) = parse(payload);
            match shelf.remove(txn, key)? {
                Some(_) => Ok(()),
                None => Err(format!("the key {key} is to be removed, and is not there").into()),
            }
        })
        .undo_type(REMOVE, "shelf remove", move |txn, payload| {
            let (shelf, key, value) = parse(payload);
            match shelf.insert(txn, key, value, &mut nothing)? {
                true => Ok(()),
                false => Err(format!("the key {key} is to be put back, and is there").into()),
            }
        })
}

impl Shelf {
    pub fn new(txn: &mut Txn) -> Result<Shelf> {
        txn.allocate().map(Shelf)
    }

    /// The page where a key belongs, latched for changing: from page to page, each is latched
    /// before the one before it is let go.
    fn page_of(self, txn: &Txn, key: u32) -> Result<PageMut> {
        let mut page = txn.fetch_exclusive(self.0)?;
        while let Some(next) = next(&page) {
            let next = txn.fetch_exclusive(next)?;
            if number::<4>(&next, LOW) as u32 > key {
                break;
            }
            page = next;
        }
        Ok(page)
    }

    fn undo(self, change: &mut Change, record_type: u16, key: u32, value: u32) {
        let payload = [&self.0.0.to_le_bytes()[..], &key.to_le_bytes(), &value.to_le_bytes()].concat();
        change.undo(record_type, &payload);
    }

    /// Inserts an entry. `false`: the key is there already.
    pub fn insert(self, txn: &mut Txn, key: u32, value: u32, between: Between<'_>) -> Result<bool> {
        loop {
            let mut page = self.page_of(txn, key)?;
            let Err(at) = search(&page, key) else { return Ok(false) };
            if count(&page) == ENTRIES_MAX {
                split(txn, page, between)?;
                continue;
            }
            let payload = [&[at as u8][..], &key.to_le_bytes(), &value.to_le_bytes()].concat();
            let mut change = Change::new();
            change.redo(page.id(), INSERT, &payload);
            self.undo(&mut change, INSERT, key, value);
            txn.apply(&change, &mut [&mut page])?;
            return Ok(true);
        }
    }

    /// Removes an entry. Returns its value.
    pub fn remove(self, txn: &mut Txn, key: u32) -> Result<Option<u32>> {
        let mut page = self.page_of(txn, key)?;
        let Ok(at) = search(&page, key) else { return Ok(None) };
        let (_, value) = entry(&page, at);
        let mut change = Change::new();
        change.redo(page.id(), REMOVE, &[at as u8]);
        self.undo(&mut change, REMOVE, key, value);
        txn.apply(&change, &mut [&mut page])?;
        Ok(Some(value))
    }

    /// Unlinks the first page that is empty, and frees it.
    pub fn shrink(self, txn: &mut Txn) -> Result<()> {
        let mut page = txn.fetch_exclusive(self.0)?;
        while let Some(id) = next(&page) {
            let after = txn.fetch_exclusive(id)?;
            if count(&after) > 0 {
                page = after;
                continue;
            }
            return txn.nested(|txn| {
                let (mut page, after) = (page, after);
                let mut change = Change::new();
                change.write(page.id(), NEXT, &after[NEXT..NEXT + 8]);
                txn.apply(&change, &mut [&mut page])?;
                txn.free(after.id())
            });
        }
        Ok(())
    }

    /// All entries, and the number of pages. Checks that the chain is as it should be.
    pub fn read(self, session: &Session) -> std::result::Result<(BTreeMap<u32, u32>, u64), String> {
        let (mut all, mut pages) = (BTreeMap::new(), 1);
        let mut page = session.fetch_shared(self.0).map_err(|e| e.to_string())?;
        loop {
            let (low, after) = (number::<4>(&page, LOW) as u32, next(&page));
            if count(&page) > ENTRIES_MAX {
                return Err(format!("page {} has {} entries", page.id(), count(&page)));
            }
            for at in 0..count(&page) {
                let (key, value) = entry(&page, at);
                if key < low || all.last_key_value().is_some_and(|(last, _)| *last >= key) {
                    return Err(format!("page {}: the key {key} is in the wrong place", page.id()));
                }
                all.insert(key, value);
            }
            let Some(after) = after else { return Ok((all, pages)) };
            let after = session.fetch_shared(after).map_err(|e| format!("page {after}: {e}"))?;
            if after.is_empty() || number::<4>(&after, LOW) as u32 <= all.last_key_value().map_or(0, |(last, _)| *last) {
                return Err(format!("page {} begins too early", after.id()));
            }
            (page, pages) = (after, pages + 1);
        }
    }
}

/// Splits a full page. First its upper half is gone; then it is in a new page.
fn split(txn: &mut Txn, page: PageMut, between: Between<'_>) -> Result<()> {
    const HALF: usize = ENTRIES_MAX / 2;
    txn.nested(|txn| {
        let mut page = page;
        let (id, new) = (page.id(), txn.allocate()?);
        let upper = page[ENTRIES + 8 * HALF..ENTRIES + 8 * ENTRIES_MAX].to_vec();
        let after = page[NEXT..NEXT + 8].to_vec();
        let mut new_page = txn.fetch_exclusive(new)?;
        let shorten = |change: &mut Change| {
            change.write(id, NEXT, &new.0.to_le_bytes()).write(id, COUNT, &(HALF as u16).to_le_bytes());
        };
        let fill = |change: &mut Change| {
            change.write(new, NEXT, &after).write(new, LOW, &upper[..4]);
            change.write(new, COUNT, &(HALF as u16).to_le_bytes()).write(new, ENTRIES, &upper);
        };
        let mut change = Change::new();
        shorten(&mut change);
        if new.0.is_multiple_of(2) {
            // In one record.
            fill(&mut change);
            return txn.apply(&change, &mut [&mut page, &mut new_page]);
        }
        txn.apply(&change, &mut [&mut page])?;
        // No one else gets the page, though its guard is gone.
        drop((page, new_page));
        between(txn, id)?;
        change.clear();
        fill(&mut change);
        let mut new_page = txn.fetch_exclusive(new)?;
        txn.apply(&change, &mut [&mut new_page])
    })
}
