//! What a transaction does to pages, each step logged and added to what would undo it; and how it
//! ends.

use foreword::Lsn;

use super::Engine;
use super::txns::{Active, Undo, UndoStep};
use crate::change::Change;
use crate::latch::Deadlock;
use crate::page::{Edit, Image, Page, PageId};
use crate::parts::Part;
use crate::pool::{BufferFrame, Load, PageMut, Written};
use crate::record::{Point, Record};
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

/// A nested top action that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nested {
    /// What was to be undone next when it began.
    pub(crate) start: Lsn,
    /// How many latches were kept then.
    pub(crate) kept: usize,
    /// How many pages the transaction had freed.
    frees: usize,
}

impl Engine {
    /// Changes one place of a page, which it latches for that.
    pub(crate) fn edit(&self, active: &mut Active, page: PageId, edit: Edit<'_>) -> Result<()> {
        if active.depth == 0 {
            let pin = self.pool.fetch(page, Load::Read)?;
            let changed = pin.latch.change(active.owner, |latched| self.edit_latched(active, page, (&pin, latched), edit));
            return changed.unwrap_or_else(|Deadlock| Err(pin.deadlock())).map(|_| ());
        }
        let mut latched = self.pool.exclude(page, active.owner, Load::Read)?;
        if self.edit_latched(active, page, latched.open(), edit)?.is_some() {
            self.keep_latch(active, &latched);
        }
        Ok(())
    }

    fn edit_latched(
        &self,
        active: &mut Active,
        page: PageId,
        latched: (&BufferFrame, &mut Page),
        edit: Edit<'_>,
    ) -> Result<Option<Lsn>> {
        let Active { id: txn, depth, chain, scratch, .. } = active;
        let is_nested = *depth > 0;
        self.pool.change(latched, edit, |undo, redo| {
            let mut chain = lock(chain);
            let prev = chain.next.lsn;
            let record = Record::Update { txn: *txn, prev, is_nested, page, undo: undo.as_edit(), redo };
            let lsn = self.append(&record, scratch)?;
            chain.push(UndoStep { lsn, prev, is_nested, undo: Undo::Edit(page, undo.clone()) });
            Ok(lsn)
        })
    }

    /// Makes a change of pages that are latched.
    pub(crate) fn apply(&self, active: &mut Active, change: &Change, pages: &mut [&mut PageMut]) -> Result<()> {
        let logical = change.logical();
        if let Some((record_type, _)) = logical.filter(|(number, _)| !self.types.has(*number)) {
            return Err(Error::UnknownType { record_type, lsn: Lsn::ZERO });
        }
        // No other owner sees the pages before a top action is closed. So bytes undo it.
        let logical = logical.filter(|_| active.depth == 0 && !sabotage::has(Bug::UndoByBytes));
        let mut written = self.distribute(active, change, pages)?;
        let Active { id: txn, depth, chain, scratch, before, .. } = active;
        let is_nested = *depth > 0;
        let changed = self.pool.apply(&mut written, logical.is_some(), before, |pages| {
            let mut chain = lock(chain);
            let prev = chain.next.lsn;
            let undo = match logical {
                Some((number, payload)) => Undo::Logical(number, payload.into()),
                None => Undo::Pages(pages.iter().map(|p| (p.page, p.undo.bytes().into())).collect()),
            };
            let lsn = self.append(&Record::Change { txn: *txn, prev, is_nested, logical, pages }, scratch)?;
            chain.push(UndoStep { lsn, prev, is_nested, undo });
            Ok(lsn)
        })?;
        for Written { latched, .. } in written.iter().filter(|written| Some(written.latched.lsn()) == changed) {
            self.keep_latch(active, latched);
        }
        Ok(())
    }

    /// The parts of a change, each with its page. Checks all that can be checked before anything is
    /// changed.
    fn distribute<'a>(&self, active: &Active, change: &'a Change, pages: &'a mut [&mut PageMut]) -> Result<Vec<Written<'a>>> {
        let invalid = |why: String| Error::Invalid { what: "apply", why };
        let body = self.pool.body();
        let mut written: Vec<Written<'a>> = pages.iter_mut().map(|latched| Written { latched, parts: Vec::new() }).collect();
        if let Some(other) = written.iter().find(|written| written.latched.owner() != active.owner) {
            return Err(invalid(format!("the guard of page {} is not this transaction's", other.latched.id())));
        }
        for (page, part) in change.parts() {
            match part {
                Part::Bytes { offset, bytes } if bytes.len() > body || offset > body - bytes.len() => {
                    return Err(Error::OutOfBounds { page, offset, len: bytes.len(), body });
                }
                Part::Typed { number: record_type, .. } if !self.pool.types.has(record_type) => {
                    return Err(Error::UnknownType { record_type, lsn: Lsn::ZERO });
                }
                _ => {}
            }
            self.alloc.check(page)?;
            match written.iter_mut().find(|written| written.latched.id() == page) {
                Some(written) => written.parts.push(part),
                None => return Err(invalid(format!("page {page} has no guard here"))),
            }
        }
        written.retain(|written| !written.parts.is_empty());
        Ok(written)
    }

    /// Within a top action, the latch of a page that it has changed is kept until it closes.
    /// Otherwise another owner could change the page in between, and undoing the top action by
    /// bytes would take that change back. (Bits of maps are undone one by one. Maps are not kept.)
    fn keep_latch(&self, active: &mut Active, latched: &PageMut) {
        let is_due = active.depth > 0 && !self.alloc.is_map(latched.id()) && !sabotage::has(Bug::LatchNotKept);
        if is_due && latched.pin().latch.keep() {
            active.kept.push(latched.pin().clone());
        }
    }

    pub(crate) fn allocate(&self, active: &mut Active) -> Result<PageId> {
        let page = self.alloc.take()?;
        let (map, bit) = self.alloc.place(page);
        let taken = self.format(active, page).and_then(|()| self.edit(active, map, Edit::Bit { bit, set: true }));
        taken.map(|()| page).inspect_err(|_| self.alloc.give_back(page))
    }

    /// Begins a page anew, all zeros. The record belongs to no transaction, and is not undone.
    fn format(&self, active: &mut Active, page: PageId) -> Result<()> {
        let image = Image::empty(self.pool.body());
        let mut latched = self.pool.exclude(page, active.owner, Load::Blank)?;
        self.pool.format(&mut latched, image, || self.append(&Record::Format { page, image }, &mut active.scratch))
    }

    /// Logs that pages are free which the transaction freed since there were so many. In memory
    /// they become free later. A crash in between sets the bits again before any page is allocated:
    /// the records count as those of a top action.
    fn clear_bits(&self, active: &mut Active, from: usize) -> Result<()> {
        active.depth += 1;
        let cleared = (from..active.frees.len()).try_for_each(|i| {
            let (map, bit) = self.alloc.place(active.frees[i]);
            self.edit(active, map, Edit::Bit { bit, set: false })
        });
        active.depth -= 1;
        cleared
    }

    pub(crate) fn begin_nested(&self, active: &mut Active) -> Nested {
        active.depth += 1;
        Nested { start: lock(&active.chain).next.lsn, kept: active.kept.len(), frees: active.frees.len() }
    }

    /// Closes a top action: from here on it is not undone. `undone`: it has undone a record, and
    /// this is to be undone after that record.
    pub(crate) fn close_nested(&self, active: &mut Active, nested: Nested, undone: Option<Lsn>) -> Result<()> {
        self.clear_bits(active, nested.frees)?;
        let Active { id: txn, chain, scratch, .. } = active;
        let mut chain = lock(chain);
        // Without a change there is nothing to close.
        if undone.is_some() || chain.next.lsn != nested.start {
            let next = undone.unwrap_or(nested.start);
            let forgets = if undone.is_some() { Bug::UndoNotClosed } else { Bug::NestedNotClosed };
            if !sabotage::has(forgets) {
                self.append(&Record::Close { txn: *txn, next }, scratch)?;
            }
            if undone.is_some() || !sabotage::has(forgets) {
                chain.go_back(Point::all_of(next));
            }
        }
        drop(chain);
        // Invariant: who takes one of these pages logs that behind the record that closes this. So
        // no crash keeps the one and loses the other.
        active.frees.drain(nested.frees..).for_each(|page| self.alloc.give_back(page));
        self.end_nested(active, nested);
        Ok(())
    }

    /// A top action is undone.
    pub(crate) fn drop_nested(&self, active: &mut Active, nested: Nested) {
        active.frees.drain(nested.frees.min(active.frees.len())..).for_each(|page| self.alloc.stay(page));
        self.end_nested(active, nested);
    }

    fn end_nested(&self, active: &mut Active, nested: Nested) {
        active.let_go(nested.kept);
        active.depth -= 1;
    }

    /// Logs the commit. Returns the record's LSN; zero if the transaction has changed nothing.
    pub(crate) fn commit(&self, active: &mut Active) -> Result<Lsn> {
        self.clear_bits(active, 0)?;
        let Active { id: txn, chain, scratch, .. } = active;
        let mut chain = lock(chain);
        let lsn = match chain.first {
            Lsn::ZERO => Lsn::ZERO,
            _ => self.append(&Record::Commit { txn: *txn }, scratch)?,
        };
        chain.ended = true;
        drop(chain);
        self.txns.end(active.id);
        // Invariant: a transaction that takes one of these pages commits behind this one. So no
        // crash keeps that transaction and loses this one.
        active.frees.drain(..).for_each(|page| self.alloc.give_back(page));
        Ok(lsn)
    }
}
