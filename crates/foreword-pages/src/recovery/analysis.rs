//! Analysis: where recovery begins, by what the last complete checkpoint says; and which transactions the log leaves without an end.

use std::collections::BTreeMap;

use foreword::{Log, Lsn};

use crate::file::PageFile;
use crate::ids::{PageMap, TxnMap};
use crate::page::PageId;
use crate::record::{Checkpoint, Head, Record};
use crate::sabotage::{self, Bug};
use crate::{Error, Result};

/// Where redo begins, and what it may pass over.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The begin of the last complete checkpoint; zero if there is none.
    pub(crate) checkpoint: Lsn,
    /// The log from there on begins each page with an image.
    pub(crate) images: bool,
    /// Pages that were not on disk, and the LSN from which on the log rebuilds each.
    pub(crate) dirty: PageMap<Lsn>,
    pub(crate) redo_from: Lsn,
    /// The last LSN.
    pub(crate) last: Lsn,
    /// How many pages the page file had, with page 0.
    pub(crate) pages: u64,
    /// The maps that were on disk, with the page LSN of each.
    pub(crate) maps: Vec<(PageId, Lsn)>,
}

/// Transactions that have not ended, each with the change to be undone next, as far as the log was read.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    pub(crate) live: BTreeMap<u64, Lsn>,
    /// How many ended in what was read.
    pub(crate) ended: u64,
    pub(crate) next_id: u64,
}

/// What a stretch of the log says about transactions.
#[derive(Debug, Default)]
pub(crate) struct Said {
    live: TxnMap<Lsn>,
    ended: Vec<u64>,
    next_id: u64,
    /// Not in `live` yet: the one that the last record was of.
    current: Option<(u64, Lsn)>,
}

/// Finds the last complete checkpoint.
pub(crate) fn run(log: &Log, file: &PageFile, body: usize) -> Result<(Plan, Transactions)> {
    let last = log.last_lsn();
    let checkpoint = match file.checkpoint() {
        Some(end) => Some(named(log, file, end, body)?),
        None => search(log, body)?,
    };
    let Some(checkpoint) = checkpoint else {
        if log.start_lsn() > Lsn::FIRST {
            return Err(Error::BadRecord { lsn: log.start_lsn(), why: "the log begins here, and there is no checkpoint in it" });
        }
        let (dirty, maps) = (PageMap::default(), Vec::new());
        let plan = Plan { checkpoint: Lsn::ZERO, images: true, dirty, redo_from: Lsn::FIRST, last, pages: 0, maps };
        return Ok((plan, Transactions::default()));
    };
    let Checkpoint { begin, images, next_txn, live, dirty, pages, maps } = checkpoint;
    let redo_from = dirty.iter().map(|&(_, from)| from).fold(begin, Lsn::min);
    let live = live.into_iter().map(|(txn, _, next)| (txn, next)).collect();
    let plan = Plan { checkpoint: begin, images, dirty: dirty.into_iter().collect(), redo_from, last, pages, maps };
    Ok((plan, Transactions { live, ended: 0, next_id: next_txn }))
}

/// The checkpoint whose end the page file names.
fn named(log: &Log, file: &PageFile, end: Lsn, body: usize) -> Result<Checkpoint> {
    if end < log.start_lsn() || end > log.last_lsn() {
        let why = format!(
            "it names the checkpoint that ended at LSN {end}, and the log reaches from {} to {}: one of them is an older copy",
            log.start_lsn(),
            log.last_lsn()
        );
        return Err(Error::NotAStore { path: file.path().to_owned(), why });
    }
    match Record::decode(&log.get(end)?, body) {
        Ok(Record::CheckpointEnd(checkpoint)) => Ok(checkpoint),
        Ok(_) => Err(Error::BadRecord { lsn: end, why: "the end of a checkpoint was expected" }),
        Err(why) => Err(Error::BadRecord { lsn: end, why }),
    }
}

/// The last complete checkpoint in the log, if the page file does not name any: there never was one, or that sector is damaged.
fn search(log: &Log, body: usize) -> Result<Option<Checkpoint>> {
    let mut reader = log.reader();
    reader.seek_to_end()?;
    while let Some(record) = reader.prev()? {
        let lsn = record.lsn;
        let bad = |why| Error::BadRecord { lsn, why };
        if Head::decode(record.data).map_err(bad)?.0 == Head::CheckpointEnd
            && let Record::CheckpointEnd(checkpoint) = Record::decode(record.data, body).map_err(bad)?
        {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

impl Plan {
    /// Whether a page may lack a change.
    pub(crate) fn may_lack(&self, page: PageId, lsn: Lsn) -> bool {
        lsn >= self.checkpoint || self.dirty.get(&page).is_some_and(|&from| lsn >= from)
    }
}

impl Said {
    pub(crate) fn clear(&mut self) {
        self.live.clear();
        self.ended.clear();
        (self.next_id, self.current) = (0, None);
    }

    /// Takes the next record: the page that it changes, if it changes any.
    pub(crate) fn take(&mut self, lsn: Lsn, head: Head) -> Option<PageId> {
        match head {
            Head::Update { txn, page, .. } => {
                self.changed(txn, lsn);
                Some(page)
            }
            Head::Undo { txn, next, page } => {
                self.changed(txn, next);
                Some(page).filter(|_| !sabotage::has(Bug::NoRedoOfUndo))
            }
            Head::Format { page } => Some(page),
            Head::Commit { txn } | Head::Abort { txn } => {
                self.ended(txn);
                None
            }
            Head::CheckpointBegin | Head::CheckpointEnd => None,
        }
    }

    /// A transaction logged something, after which `next` would be the change to undo.
    fn changed(&mut self, txn: u64, next: Lsn) {
        // Most records are of the same transaction as the one before.
        match &mut self.current {
            Some((current, its_next)) if *current == txn => *its_next = next,
            current => {
                if let Some((other, its_next)) = current.replace((txn, next)) {
                    self.live.insert(other, its_next);
                }
            }
        }
        self.next_id = self.next_id.max(txn.saturating_add(1));
    }

    fn ended(&mut self, txn: u64) {
        match self.current {
            Some((current, _)) if current == txn => self.current = None,
            _ => {}
        }
        self.live.remove(&txn);
        self.ended.push(txn);
        self.next_id = self.next_id.max(txn.saturating_add(1));
    }
}

impl Transactions {
    /// Adds what the next stretch says.
    pub(crate) fn add(&mut self, said: &Said) {
        for txn in &said.ended {
            self.live.remove(txn);
        }
        self.live.extend(&said.live);
        self.live.extend(said.current);
        self.ended += said.ended.len() as u64;
        self.next_id = self.next_id.max(said.next_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_that_end_are_gone_wherever_the_log_is_cut_into_stretches() {
        // (transaction, next to undo; none: it ended)
        let log = [
            (1, Some(1)),
            (2, Some(2)),
            (1, Some(3)),
            (1, None),
            (3, Some(5)),
            (2, Some(0)),
            (4, Some(7)),
            (3, None),
            (2, Some(9)),
            (5, Some(10)),
            (5, None),
        ];
        let told = |said: &mut Said, some: &[(u64, Option<u64>)]| {
            said.clear();
            some.iter().for_each(|&(txn, next)| match next {
                Some(next) => said.changed(txn, Lsn(next)),
                None => said.ended(txn),
            });
        };
        let mut said = Said::default();
        for first in 0..=log.len() {
            for second in first..=log.len() {
                let mut all = Transactions { live: BTreeMap::from([(9, Lsn(77))]), ..Transactions::default() };
                for stretch in [&log[..first], &log[first..second], &log[second..]] {
                    told(&mut said, stretch);
                    all.add(&said);
                }
                assert_eq!(all.live, BTreeMap::from([(2, Lsn(9)), (4, Lsn(7)), (9, Lsn(77))]), "cut at {first} and {second}");
                assert_eq!((all.ended, all.next_id), (3, 6));
            }
        }
    }
}
