//! Undo: the transactions that the log leaves without an end are rolled back.

use std::sync::Arc;

use foreword::Lsn;

use crate::Result;
use crate::checkpoint::WriteBack;
use crate::engine::Engine;
use crate::engine::txns::Active;
use crate::record::Point;
use crate::sabotage::{self, Bug};
use crate::sync::lock;

/// Undoes the losers, each given with what is to be undone next, and loads the maps. Returns the
/// number of records undone.
///
/// Where the log has no room for the compensation records, a checkpoint first drops what only redo
/// needed.
pub(crate) fn run(engine: &Arc<Engine>, losers: impl DoubleEndedIterator<Item = (u64, Point)>) -> Result<u64> {
    let mut losers: Vec<Active> = losers.rev().map(|(txn, next)| engine.txns.take_up(txn, next)).collect();
    match undo_each(engine, &mut losers) {
        Err(e) if e.is_no_space() => {
            for loser in &losers {
                find_first(engine, loser)?;
            }
            engine.checkpoint(WriteBack::All)?;
            undo_each(engine, &mut losers)
        }
        undone => undone,
    }
}

/// Undoes the losers that have not ended. First what handlers must not see: top actions that the
/// crash has left open, by bytes, and bits of maps that were cleared for a commit.
fn undo_each(engine: &Arc<Engine>, losers: &mut [Active]) -> Result<u64> {
    let mut undone = 0;
    let is_early = !sabotage::has(Bug::NestedUndoneLate);
    for loser in losers.iter_mut().filter(|loser| is_early && !lock(&loser.chain).ended) {
        undone += engine.undo_open_nested(loser)?;
    }
    engine.alloc.load(&engine.pool)?;
    for loser in losers.iter_mut().filter(|loser| !lock(&loser.chain).ended) {
        undone += engine.undo_all(loser)?;
        loser.let_go(0);
        engine.txns.end(loser.id);
    }
    Ok(undone)
}

/// Finds the first record that undoing a transaction needs, so that the log keeps it.
fn find_first(engine: &Engine, loser: &Active) -> Result<()> {
    let mut reader = engine.pool.log.reader();
    let mut chain = lock(&loser.chain);
    let mut next = chain.next.lsn;
    while next > Lsn::ZERO {
        chain.first = next;
        next = engine.read_step(&mut reader, loser.id, next)?.prev;
    }
    Ok(())
}
