//! Rollback: a transaction's changes are undone, the latest first, and a compensation record is
//! logged for each.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use foreword::{Lsn, Reader};

use crate::engine::Engine;
use crate::engine::txns::{Active, Undo, UndoStep};
use crate::page::{Edit, OwnedEdit, PageId};
use crate::parts::Parts;
use crate::pool::{Load, Written};
use crate::record::{Point, Record};
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

impl Engine {
    /// Undoes all of a transaction and ends it. If that fails, the transaction is kept as an
    /// orphan, with the latches of a top action that is undone in part.
    pub(crate) fn roll_back(self: &Arc<Self>, mut active: Active) -> Result<()> {
        let undone = catch_unwind(AssertUnwindSafe(|| self.undo_all(&mut active)));
        if let Ok(Ok(_)) = undone {
            active.frees.drain(..).for_each(|page| self.alloc.stay(page));
            active.let_go(0);
            self.txns.end(active.id);
        } else {
            self.txns.add_orphan(active);
        }
        undone.unwrap_or_else(|panic| resume_unwind(panic)).map(|_| ())
    }

    /// Tries each rollback again that has failed.
    pub(crate) fn roll_back_orphans(self: &Arc<Self>) {
        for orphan in self.txns.take_orphans() {
            let _ = self.roll_back(orphan);
        }
    }

    /// Undoes all of a transaction, and logs its abort. Returns the number of records undone.
    pub(crate) fn undo_all(self: &Arc<Self>, active: &mut Active) -> Result<u64> {
        active.depth = 0;
        let undone = self.undo(active, Lsn::ZERO)?;
        let Active { id: txn, chain, scratch, .. } = active;
        let mut chain = lock(chain);
        if chain.first > Lsn::ZERO {
            self.append(&Record::Abort { txn: *txn }, scratch)?;
        }
        chain.ended = true;
        Ok(undone)
    }

    /// Undoes what a transaction has logged after an LSN. Returns the number of records undone.
    pub(crate) fn undo(self: &Arc<Self>, active: &mut Active, after: Lsn) -> Result<u64> {
        self.undo_while(active, after, |_| true)
    }

    /// Undoes the top action that a crash has left open, if there is one.
    pub(crate) fn undo_open_nested(self: &Arc<Self>, active: &mut Active) -> Result<u64> {
        self.undo_while(active, Lsn::ZERO, |step| step.is_nested)
    }

    fn undo_while(self: &Arc<Self>, active: &mut Active, after: Lsn, goes_on: impl Fn(&UndoStep) -> bool) -> Result<u64> {
        self.pool.file.check()?;
        let mut undone = 0;
        // One reader for all steps: it finds most records in the log frame that it has in memory.
        let mut reader = self.pool.log.reader();
        loop {
            let (next, kept) = {
                let chain = lock(&active.chain);
                (chain.next, chain.kept())
            };
            if next.lsn <= after {
                return Ok(undone);
            }
            let step = kept.map_or_else(|| self.read_step(&mut reader, active.id, next.lsn), Ok)?;
            if !goes_on(&step) {
                return Ok(undone);
            }
            match &step.undo {
                Undo::Edit(page, edit) => self.undo_edit(active, &step, *page, edit)?,
                Undo::Pages(pages) => self.undo_page(active, &step, pages, next.left)?,
                Undo::Logical(number, payload) => self.undo_logically(active, &step, *number, payload)?,
            }
            undone += u64::from(lock(&active.chain).next.lsn < step.lsn);
        }
    }

    fn undo_edit(&self, active: &mut Active, step: &UndoStep, page: PageId, edit: &OwnedEdit) -> Result<()> {
        let mut latched = self.pool.exclude(page, active.owner, Load::Read)?;
        let Active { id: txn, chain, scratch, .. } = active;
        let next = Point::all_of(step.prev);
        let done = self.pool.change(latched.open(), edit.as_edit(), |_, redo| {
            let mut chain = lock(chain);
            let record = Record::Undo { txn: *txn, next, page, redo };
            let is_logged = !sabotage::has(Bug::NoCompensation);
            let lsn = if is_logged { self.append(&record, scratch)? } else { self.pool.log.last_lsn() };
            chain.go_back(next);
            Ok(lsn)
        })?;
        if done.is_none() {
            lock(chain).go_back(next);
        }
        match edit.as_edit() {
            Edit::Bit { bit, set: false } => self.alloc.give_back(self.alloc.page(page, bit)),
            Edit::Bit { bit, set: true } => self.alloc.take_back(self.alloc.page(page, bit)),
            Edit::Bytes { .. } => {}
        }
        Ok(())
    }

    /// Undoes a change in the last of its pages where it is not undone yet. One page at a time: so
    /// rollback waits for no latch while it has another.
    fn undo_page(&self, active: &mut Active, step: &UndoStep, pages: &[(PageId, Box<[u8]>)], left: u32) -> Result<()> {
        let left = if left == 0 { pages.len() } else { left as usize };
        let Some(at) = left.checked_sub(1) else {
            lock(&active.chain).go_back(Point::all_of(step.prev));
            return Ok(());
        };
        let Some((page, parts)) = pages.get(at) else {
            return Err(Error::BadRecord { lsn: step.lsn, why: "it has fewer pages than were to be undone" });
        };
        let next = if at > 0 { Point { lsn: step.lsn, left: at as u32 } } else { Point::all_of(step.prev) };
        let mut latched = self.pool.exclude(*page, active.owner, Load::Read)?;
        let mut written = [Written { latched: &mut latched, parts: Parts::new(parts).iter().collect() }];
        let Active { id: txn, chain, scratch, before, .. } = active;
        let done = self.pool.apply(&mut written, false, before, |changed| {
            let mut chain = lock(chain);
            let redo = changed.first().map(|changed| changed.redo);
            let redo = redo.ok_or(Error::BadRecord { lsn: step.lsn, why: "it changes nothing" })?;
            let lsn = self.append(&Record::Undo { txn: *txn, next, page: *page, redo }, scratch)?;
            chain.go_back(next);
            Ok(lsn)
        })?;
        if done.is_none() {
            lock(chain).go_back(next);
        }
        Ok(())
    }

    /// Has a handler undo a record. What the handler does is a top action: it closes behind the
    /// record, or is undone by bytes, and the record is undone anew.
    fn undo_logically(self: &Arc<Self>, active: &mut Active, step: &UndoStep, number: u16, payload: &[u8]) -> Result<()> {
        if !self.types.has(number) {
            return Err(Error::UnknownType { record_type: number, lsn: step.lsn });
        }
        let nested = self.begin_nested(active);
        let done = self.types.call(number, |undo| undo.undo(self, active, payload));
        let done = done.map_err(|why| Error::handler(number, self.types.name(number), step.lsn, None, why));
        let done = done.and_then(|()| self.close_nested(active, nested, Some(step.prev)));
        if done.is_err() {
            if let Err(error) = self.undo(active, nested.start) {
                // The latches are kept until that has succeeded.
                active.depth -= 1;
                return Err(error);
            }
            self.drop_nested(active, nested);
        }
        done
    }

    /// Reads a step back from the log.
    pub(crate) fn read_step(&self, reader: &mut Reader, txn: u64, lsn: Lsn) -> Result<UndoStep> {
        self.pool.log.sync_to(lsn)?;
        let (of, prev, is_nested, undo) = match Record::decode(reader.get(lsn)?.data, self.pool.body()) {
            Ok(Record::Update { txn, prev, is_nested, page, undo, .. }) => {
                (txn, prev, is_nested, Undo::Edit(page, undo.to_owned()))
            }
            Ok(Record::Change { txn, prev, is_nested, logical: Some((number, payload)), .. }) => {
                (txn, prev, is_nested, Undo::Logical(number, payload.into()))
            }
            Ok(Record::Change { txn, prev, is_nested, logical: None, pages }) => {
                let pages = pages.iter().map(|changed| (changed.page, changed.undo.bytes().into()));
                (txn, prev, is_nested, Undo::Pages(pages.collect()))
            }
            Ok(_) => return Err(Error::BadRecord { lsn, why: "a change was expected" }),
            Err(why) => return Err(Error::BadRecord { lsn, why }),
        };
        if of != txn || prev >= lsn {
            return Err(Error::BadRecord { lsn, why: "a change of another transaction was expected" });
        }
        Ok(UndoStep { lsn, prev, is_nested, undo })
    }
}
