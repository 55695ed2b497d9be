//! Recovery in the manner of ARIES: analysis finds where to begin, redo repeats history, and undo
//! takes back the losers: the transactions that did not end.

mod analysis;
mod picture;
mod redo;
mod report;
mod undo;

use std::sync::Arc;
use std::time::Instant;

use foreword::Lsn;

use crate::Result;
use crate::engine::Engine;
use crate::sabotage::{self, Bug};

pub use report::{Phase, Recovery};

/// Brings the pages to the state of the log's end, without the changes of transactions that did not
/// end.
pub(crate) fn run(engine: &Arc<Engine>, threads: usize, window_bytes: usize) -> Result<Recovery> {
    let mut report = Recovery::new(engine.pool.log.recovery());

    let started = Instant::now();
    let (plan, transactions) = analysis::run(&engine.pool.log, &engine.pool.file, engine.pool.body())?;
    engine.pool.file.check_pages(plan.pages)?;
    engine.pool.file.set_maps(&plan.maps);
    engine.pool.raise_end(plan.pages);
    engine.checkpoints.set_last(plan.checkpoint);
    engine.pool.raise_image_floor(plan.checkpoint);
    // Recovery after a crash from here must find what undo logs by the same rule as what lies
    // before it.
    engine.pool.set_images(plan.images);
    report.checkpoint = plan.checkpoint;
    report.listed = plan.dirty.len() as u64;
    report.live = transactions.live.len() as u64;
    report.redo_from = plan.redo_from;
    report.last_lsn = plan.last;
    report.analysis.took = started.elapsed();

    let started = Instant::now();
    let (redone, transactions) = redo::run(engine, &plan, transactions, threads, window_bytes)?;
    engine.txns.set_next_id(transactions.next_id);
    report.threads = redone.threads;
    report.applied = redone.applied;
    report.skipped = redone.skipped;
    report.images = redone.images;
    report.pages = redone.pages;
    report.pages_skipped = redone.pages_skipped;
    report.winners = transactions.ended;
    report.losers = transactions.live.len() as u64;
    report.redo = Phase { records: redone.records, bytes: redone.bytes, took: started.elapsed() };

    let started = Instant::now();
    let losers = transactions.live.into_iter().filter(|_| !sabotage::has(Bug::NoUndo));
    report.undo.records = undo::run(engine, losers)?;
    // Undo is durable before it counts as done.
    let last = engine.pool.log.last_lsn();
    if last > Lsn::ZERO {
        engine.pool.log.sync_to(last)?;
    }
    report.undo.took = started.elapsed();
    Ok(report)
}
