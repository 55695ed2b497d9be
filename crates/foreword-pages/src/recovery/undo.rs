//! Undo: the transactions that the log leaves without an end are rolled back.

use std::sync::{Arc, Mutex};

use foreword::Lsn;

use crate::Result;
use crate::checkpoint::WriteBack;
use crate::engine::Engine;
use crate::engine::txns::UndoChain;
use crate::sync::lock;

/// A loser's id, and what undoes it.
type Loser = (u64, Arc<Mutex<UndoChain>>);

/// Undoes the losers, each given with the LSN to be undone next. Returns the number of changes
/// undone.
///
/// Where the log has no room for the compensation records, a checkpoint first drops what only redo
/// needed.
pub(crate) fn run(engine: &Engine, losers: impl DoubleEndedIterator<Item = (u64, Lsn)>) -> Result<u64> {
    let losers: Vec<Loser> = losers.rev().map(|(txn, next)| (txn, engine.txns.take_up(txn, next))).collect();
    match undo_each(engine, &losers) {
        Err(e) if e.is_no_space() => {
            for (txn, chain) in &losers {
                find_first(engine, *txn, chain)?;
            }
            engine.checkpoint(WriteBack::All)?;
            undo_each(engine, &losers)
        }
        undone => undone,
    }
}

/// Undoes the losers that have not ended.
fn undo_each(engine: &Engine, losers: &[Loser]) -> Result<u64> {
    let mut undone = 0;
    for (txn, chain) in losers.iter().filter(|(_, chain)| !lock(chain).ended) {
        undone += engine.undo_all(*txn, chain, &mut Vec::new())?;
        engine.txns.end(*txn);
    }
    Ok(undone)
}

/// Finds the first record that undoing a transaction needs, so that the log keeps it.
fn find_first(engine: &Engine, txn: u64, chain: &Mutex<UndoChain>) -> Result<()> {
    let mut reader = engine.pool.log.reader();
    let mut chain = lock(chain);
    let mut next = chain.next;
    while next > Lsn::ZERO {
        chain.first = next;
        next = engine.read_step(&mut reader, txn, next)?.prev;
    }
    Ok(())
}
