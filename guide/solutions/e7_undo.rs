//! Exercise 7: undo with compensation records (chapter 9).
//!
//! Cells, changed by transactions. Each change is an update record: what was there before and what
//! is there after, and which update of the same transaction came before it. Cells may be written at
//! any time (steal), so after a crash there may be changes of transactions that never committed: of
//! losers. Recovery
//!
//! 1. **repeats history**: applies all changes that the cells do not have, those of losers and of
//!    compensations as well, and finds the transactions that neither committed nor ended;
//! 2. **undoes the losers**, the latest change of all first. Each change undone is logged as a
//!    compensation, which says which update is to be undone next, and is applied like any other
//!    change. A loser of which nothing is left gets an end record;
//! 3. makes the log durable.
//!
//! A crash in the middle loses nothing: the next recovery repeats the compensations that are in the
//! log, and goes on where they end.

use std::collections::BTreeMap;

use foreword::{Log, Lsn, Result};

/// A cell: a very small page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The last record that was applied.
    pub lsn: Lsn,
    /// What is in it.
    pub value: i64,
}

/// Cells by number. One that is not there is as by default.
pub type Cells = BTreeMap<u32, Cell>;

/// What stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A transaction changed a cell.
    Update {
        /// Which transaction.
        txn: u32,
        /// Its update before this one; [`Lsn::ZERO`] if this is its first.
        prev: Lsn,
        /// Which cell.
        cell: u32,
        /// What was in it.
        before: i64,
        /// What is in it.
        after: i64,
    },
    /// A change was undone: a compensation.
    Undo {
        /// Whose.
        txn: u32,
        /// The update to be undone next; [`Lsn::ZERO`] if there is none.
        next: Lsn,
        /// Which cell.
        cell: u32,
        /// What is in it again.
        value: i64,
    },
    /// A transaction committed.
    Commit {
        /// Which.
        txn: u32,
    },
    /// A transaction is undone, all of it.
    End {
        /// Which.
        txn: u32,
    },
}

impl Record {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, txn, lsn, cell, values) = match *self {
            Record::Update { txn, prev, cell, before, after } => (1, txn, prev, cell, [before, after]),
            Record::Undo { txn, next, cell, value } => (2, txn, next, cell, [value, 0]),
            Record::Commit { txn } => (3, txn, Lsn::ZERO, 0, [0; 2]),
            Record::End { txn } => (4, txn, Lsn::ZERO, 0, [0; 2]),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&txn.to_le_bytes());
        bytes.extend_from_slice(&lsn.0.to_le_bytes());
        bytes.extend_from_slice(&cell.to_le_bytes());
        values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        bytes
    }

    /// From bytes; `None` if they are no record.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let (&kind, rest) = bytes.split_first()?;
        let (txn, rest) = rest.split_first_chunk()?;
        let (lsn, rest) = rest.split_first_chunk()?;
        let (cell, rest) = rest.split_first_chunk()?;
        let (first, rest) = rest.split_first_chunk()?;
        let (txn, lsn, cell) = (u32::from_le_bytes(*txn), Lsn(u64::from_le_bytes(*lsn)), u32::from_le_bytes(*cell));
        let (first, second) = (i64::from_le_bytes(*first), i64::from_le_bytes(rest.try_into().ok()?));
        match kind {
            1 => Some(Record::Update { txn, prev: lsn, cell, before: first, after: second }),
            2 => Some(Record::Undo { txn, next: lsn, cell, value: first }),
            3 => Some(Record::Commit { txn }),
            4 => Some(Record::End { txn }),
            _ => None,
        }
    }
}

/// Brings the cells to where the log says they were, without the transactions that did not commit:
/// how many changes were undone.
///
/// # Errors
/// Those of the log. Then recovery is to be begun anew, on the cells as they are or as they were.
pub fn recover(log: &Log, cells: &mut Cells) -> Result<u64> {
    let mut losers = redo(log, cells)?;
    let mut undone = 0;
    // The latest of all first: the greatest LSN that any loser has to undo next.
    while let Some((txn, next)) = losers.iter().max_by_key(|(_, next)| **next).map(|(txn, next)| (*txn, *next)) {
        if next == Lsn::ZERO {
            log.append(&Record::End { txn }.encode())?;
            losers.remove(&txn);
            continue;
        }
        // What is there was found by redo, or by the same way here.
        let Some(Record::Update { prev, cell, before, .. }) = Record::decode(&log.get(next)?) else { continue };
        let lsn = log.append(&Record::Undo { txn, next: prev, cell, value: before }.encode())?;
        cells.insert(cell, Cell { lsn, value: before });
        losers.insert(txn, prev);
        undone += 1;
    }
    log.sync()?;
    Ok(undone)
}

/// Repeats history: the transactions that neither committed nor ended, and which update of each is
/// to be undone next.
fn redo(log: &Log, cells: &mut Cells) -> Result<BTreeMap<u32, Lsn>> {
    let mut live = BTreeMap::new();
    for record in log.iter(Lsn::ZERO) {
        let record = record?;
        let lsn = record.lsn;
        match Record::decode(&record.data) {
            Some(Record::Update { txn, cell, after, .. }) => {
                live.insert(txn, lsn);
                apply(cells, cell, lsn, after);
            }
            Some(Record::Undo { txn, next, cell, value }) => {
                live.insert(txn, next);
                apply(cells, cell, lsn, value);
            }
            Some(Record::Commit { txn } | Record::End { txn }) => drop(live.remove(&txn)),
            None => {}
        }
    }
    Ok(live)
}

fn apply(cells: &mut Cells, cell: u32, lsn: Lsn, value: i64) {
    let cell = cells.entry(cell).or_default();
    if lsn > cell.lsn {
        *cell = Cell { lsn, value };
    }
}
