//! Recovery in the manner of ARIES: analysis finds where to begin and who lost, redo repeats history, undo takes the losers back.

mod analysis;
mod picture;
mod redo;
mod report;

use std::time::Instant;

use foreword::Lsn;

use crate::Result;
use crate::sabotage::{self, Bug};
use crate::store::Inner;

pub use report::{Phase, Recovery};

/// Brings the pages to where the log says they were, without the transactions that did not end.
pub(crate) fn run(store: &Inner, threads: usize, window_bytes: usize) -> Result<Recovery> {
    let mut report = Recovery::new(store.pool.log.recovery());

    let started = Instant::now();
    let (plan, transactions) = analysis::run(&store.pool.log, &store.pool.file, store.pool.body())?;
    store.pool.file.check_pages(plan.pages)?;
    store.pool.file.set_maps(&plan.maps);
    store.pool.raise_end(plan.pages);
    store.checkpoints.set_last(plan.checkpoint);
    store.pool.raise_image_floor(plan.checkpoint);
    // What undo logs is to be found by the same rule as what lies before it.
    store.pool.set_images(plan.images);
    report.checkpoint = plan.checkpoint;
    report.listed = plan.dirty.len() as u64;
    report.live = transactions.live.len() as u64;
    report.redo_from = plan.redo_from;
    report.last_lsn = plan.last;
    report.analysis.took = started.elapsed();

    let started = Instant::now();
    let (redone, transactions) = redo::run(&store.pool, &plan, transactions, threads, window_bytes)?;
    store.live.set_next_id(transactions.next_id);
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
    report.undo.records = store.undo_losers(losers)?;
    // So that what was undone is not undone again.
    let last = store.pool.log.last_lsn();
    if last > Lsn::ZERO {
        store.pool.log.sync_to(last)?;
    }
    report.undo.took = started.elapsed();
    Ok(report)
}
