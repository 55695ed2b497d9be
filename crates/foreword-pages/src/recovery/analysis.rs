//! Analysis: one pass over the log, from its end back to the begin of the last complete checkpoint.
//!
//! Backward, the first record that is met of a transaction says how it ended, and the first image of a page is where its redo begins: what lies
//! before that image need not be looked at.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use foreword::{Log, Lsn};

use crate::ids::{IdMap, IdSet};
use crate::page::{PageId, Redo};
use crate::record::{Checkpoint, Record};
use crate::{Error, Result};

/// What redo and undo are to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The begin of the last complete checkpoint; zero if there is none.
    pub(crate) checkpoint: Lsn,
    /// The last LSN.
    pub(crate) last: Lsn,
    /// Pages that may not be on disk as they should be.
    pub(crate) starts: IdMap<Start>,
    pub(crate) redo_from: Lsn,
    /// Transactions that did not end, and the next change of each to be undone.
    pub(crate) losers: BTreeMap<u64, Lsn>,
    /// How many committed or were rolled back.
    pub(crate) winners: u64,
    pub(crate) next_txn: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// From where on the log makes a page what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) lsn: Lsn,
    /// The record there holds all of the page: what is on disk does not matter.
    pub(crate) is_image: bool,
}

pub(crate) fn run(log: &Log, body: usize) -> Result<Plan> {
    let mut plan = Plan { last: log.last_lsn(), ..Plan::default() };
    let mut ended = IdSet::default();
    let mut checkpoint: Option<Checkpoint> = None;
    let mut reader = log.reader();
    reader.seek_to_end()?;
    let mut after = plan.last.next();
    while let Some(record) = reader.prev()? {
        let lsn = record.lsn;
        if lsn.next() != after {
            // The log was salvaged, and pages cannot do without what was lost.
            return Err(foreword::Error::Lost { lsn: lsn.next() }.into());
        }
        after = lsn;
        plan.records += 1;
        plan.bytes += record.data.len() as u64;
        match Record::decode(record.data, body).map_err(|why| Error::BadRecord { lsn, why })? {
            Record::Update { txn, page, redo, .. } => {
                plan.saw(txn, lsn, &ended);
                plan.touches(page, lsn, &redo);
            }
            Record::Undo { txn, next, page, redo } => {
                plan.saw(txn, next, &ended);
                plan.touches(page, lsn, &redo);
            }
            Record::Format { page, image } => plan.touches(page, lsn, &Redo::Image(image)),
            Record::Commit { txn } | Record::Abort { txn } => {
                plan.next_txn = plan.next_txn.max(txn + 1);
                ended.insert(txn);
            }
            Record::CheckpointEnd(end) => {
                checkpoint.get_or_insert(end);
            }
            Record::CheckpointBegin if checkpoint.as_ref().is_some_and(|c| c.begin == lsn) => break,
            Record::CheckpointBegin => {}
        }
    }
    match checkpoint {
        Some(checkpoint) => plan.complete(checkpoint, &ended),
        None if log.start_lsn() > Lsn::FIRST => {
            return Err(Error::BadRecord { lsn: log.start_lsn(), why: "the log begins here, and there is no checkpoint in it" });
        }
        None => {}
    }
    plan.winners = ended.len() as u64;
    plan.redo_from = plan.starts.values().map(|start| start.lsn).fold(plan.last.next(), Lsn::min);
    Ok(plan)
}

impl Plan {
    /// A change by a transaction, after which `next` would be the one to undo.
    fn saw(&mut self, txn: u64, next: Lsn, ended: &IdSet) {
        self.next_txn = self.next_txn.max(txn.saturating_add(1));
        if !ended.contains(&txn) {
            self.losers.entry(txn).or_insert(next);
        }
    }

    fn touches(&mut self, page: PageId, lsn: Lsn, redo: &Redo<'_>) {
        let start = Start { lsn, is_image: matches!(redo, Redo::Image(_)) };
        match self.starts.entry(page) {
            Entry::Occupied(later) if later.get().is_image => {}
            Entry::Occupied(mut later) => {
                later.insert(start);
            }
            Entry::Vacant(none) => {
                none.insert(start);
            }
        }
    }

    /// Adds what the checkpoint knew of the time before it.
    fn complete(&mut self, checkpoint: Checkpoint, ended: &IdSet) {
        self.checkpoint = checkpoint.begin;
        self.next_txn = self.next_txn.max(checkpoint.next_txn);
        for (txn, _, next) in checkpoint.live {
            self.saw(txn, next, ended);
        }
        for (page, from) in checkpoint.dirty {
            let start = self.starts.entry(page).or_insert(Start { lsn: from, is_image: false });
            if !start.is_image && from < start.lsn {
                *start = Start { lsn: from, is_image: false };
            }
        }
    }
}
