//! Rollback: a transaction's changes are undone, the latest first, and a compensation record is
//! logged for each.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use foreword::{Lsn, Reader};

use crate::engine::Engine;
use crate::engine::txns::{Orphan, UndoChain, UndoStep};
use crate::page::OwnedEdit;
use crate::record::Record;
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

impl Engine {
    /// Undoes all of a transaction and ends it. If that fails, the transaction is kept as an
    /// orphan.
    pub(crate) fn roll_back(&self, orphan: Orphan, scratch: &mut Vec<u8>) -> Result<()> {
        let undone = catch_unwind(AssertUnwindSafe(|| self.undo_all(orphan.id, &orphan.chain, scratch)));
        if let Ok(Ok(_)) = undone {
            orphan.frees.into_iter().for_each(|page| self.alloc.stay(page));
            self.txns.end(orphan.id);
        } else {
            self.txns.add_orphan(orphan);
        }
        undone.unwrap_or_else(|panic| resume_unwind(panic)).map(|_| ())
    }

    /// Tries each rollback again that has failed.
    pub(crate) fn roll_back_orphans(&self) {
        for orphan in self.txns.take_orphans() {
            let _ = self.roll_back(orphan, &mut Vec::new());
        }
    }

    /// Undoes all of a transaction, and logs its abort. Returns the number of changes undone.
    pub(crate) fn undo_all(&self, txn: u64, chain: &Mutex<UndoChain>, scratch: &mut Vec<u8>) -> Result<u64> {
        let undone = self.undo(txn, chain, Lsn::ZERO, scratch)?;
        let mut chain = lock(chain);
        if chain.first > Lsn::ZERO {
            self.append(&Record::Abort { txn }, scratch)?;
        }
        chain.ended = true;
        Ok(undone)
    }

    /// Undoes the changes that a transaction has logged after an LSN. Returns their number.
    pub(crate) fn undo(&self, txn: u64, chain: &Mutex<UndoChain>, after: Lsn, scratch: &mut Vec<u8>) -> Result<u64> {
        self.pool.file.check()?;
        let mut undone = 0;
        // One reader for all steps: it finds most records in the log frame that it has in memory.
        let mut reader = self.pool.log.reader();
        loop {
            let (next, kept) = {
                let chain = lock(chain);
                (chain.next, chain.kept())
            };
            if next <= after {
                return Ok(undone);
            }
            let step = kept.map_or_else(|| self.read_step(&mut reader, txn, next), Ok)?;
            self.undo_step(txn, chain, &step, scratch)?;
            undone += 1;
        }
    }

    fn undo_step(&self, txn: u64, chain: &Mutex<UndoChain>, step: &UndoStep, scratch: &mut Vec<u8>) -> Result<()> {
        let done = self.pool.change(step.page, step.undo.as_edit(), |_, redo| {
            let mut chain = lock(chain);
            let record = Record::Undo { txn, next: step.prev, page: step.page, redo };
            let is_logged = !sabotage::has(Bug::NoCompensation);
            let lsn = if is_logged { self.append(&record, scratch)? } else { self.pool.log.last_lsn() };
            chain.pop(step);
            Ok(lsn)
        })?;
        if done.is_none() {
            lock(chain).pop(step);
        }
        if let OwnedEdit::Bit { bit, set: false } = step.undo {
            self.alloc.give_back(self.alloc.page(step.page, bit));
        }
        Ok(())
    }

    /// Reads a step back from the log.
    pub(crate) fn read_step(&self, reader: &mut Reader, txn: u64, lsn: Lsn) -> Result<UndoStep> {
        self.pool.log.sync_to(lsn)?;
        match Record::decode(reader.get(lsn)?.data, self.pool.body()) {
            Ok(Record::Update { txn: of, prev, page, undo, .. }) if of == txn && prev < lsn => {
                Ok(UndoStep { lsn, prev, page, undo: undo.to_owned() })
            }
            Ok(_) => Err(Error::BadRecord { lsn, why: "a change of another transaction was expected" }),
            Err(why) => Err(Error::BadRecord { lsn, why }),
        }
    }
}
