//! Analysis: where recovery begins, by the last complete checkpoint; and which transactions the log
//! leaves without an end.

use std::collections::BTreeMap;

use foreword::{Log, Lsn};

use crate::file::PageFile;
use crate::ids::{PageMap, TxnMap};
use crate::page::PageId;
use crate::record::{Checkpoint, Header, Point, Record};
use crate::sabotage::{self, Bug};
use crate::{Error, Result};

/// Where redo begins, and which changes it may pass over.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The begin of the last complete checkpoint; zero if there is none.
    pub(crate) checkpoint: Lsn,
    /// From the checkpoint on, the first change of each page in the log is an image.
    pub(crate) images: bool,
    /// Dirty pages, each with the LSN from which on the log rebuilds it.
    pub(crate) dirty: PageMap<Lsn>,
    pub(crate) redo_from: Lsn,
    /// The last LSN of the log.
    pub(crate) last: Lsn,
    /// Pages that the page file had, with page 0.
    pub(crate) pages: u64,
    /// The maps that were on disk, with the page LSN of each.
    pub(crate) maps: Vec<(PageId, Lsn)>,
}

/// Transactions that have not ended in what was read of the log, each with what is to be undone
/// next.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    pub(crate) live: BTreeMap<u64, Point>,
    /// Transactions that ended in what was read.
    pub(crate) ended: u64,
    pub(crate) next_id: u64,
}

/// What a stretch of the log says about transactions.
#[derive(Debug, Default)]
pub(crate) struct TxnEvents {
    live: TxnMap<Point>,
    ended: Vec<u64>,
    next_id: u64,
    /// The transaction of the last record, which is not in `live` yet.
    current: Option<(u64, Point)>,
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

/// The last complete checkpoint in the log, where the page file names none: there never was one, or
/// the sector with its name is damaged.
fn search(log: &Log, body: usize) -> Result<Option<Checkpoint>> {
    let mut reader = log.reader();
    reader.seek_to_end()?;
    while let Some(record) = reader.prev()? {
        let lsn = record.lsn;
        let bad = |why| Error::BadRecord { lsn, why };
        if Header::decode(record.data).map_err(bad)?.0 == Header::CheckpointEnd
            && let Record::CheckpointEnd(checkpoint) = Record::decode(record.data, body).map_err(bad)?
        {
            return Ok(Some(checkpoint));
        }
    }
    Ok(None)
}

impl Plan {
    /// Whether a page on disk may lack the change of a record.
    pub(crate) fn may_lack(&self, page: PageId, lsn: Lsn) -> bool {
        lsn >= self.checkpoint || self.dirty.get(&page).is_some_and(|&from| lsn >= from)
    }
}

impl TxnEvents {
    pub(crate) fn clear(&mut self) {
        self.live.clear();
        self.ended.clear();
        (self.next_id, self.current) = (0, None);
    }

    /// Notes the next record. Returns the page that it changes, if it changes one. (The pages of a
    /// change are in what follows the header.)
    pub(crate) fn take(&mut self, lsn: Lsn, header: Header) -> Option<PageId> {
        match header {
            Header::Update { txn, page, .. } => {
                self.changed(txn, Point::all_of(lsn));
                Some(page)
            }
            Header::Change { txn, .. } => {
                self.changed(txn, Point::all_of(lsn));
                None
            }
            Header::Close { txn, next } => {
                self.changed(txn, Point::all_of(next));
                None
            }
            Header::Undo { txn, next, page } => {
                self.changed(txn, next);
                Some(page).filter(|_| !sabotage::has(Bug::NoRedoOfUndo))
            }
            Header::Format { page } => Some(page),
            Header::Commit { txn } | Header::Abort { txn } => {
                self.ended(txn);
                None
            }
            Header::CheckpointBegin | Header::CheckpointEnd => None,
        }
    }

    /// Notes a record of a transaction, after which `next` is to be undone next.
    fn changed(&mut self, txn: u64, next: Point) {
        // Most records belong to the same transaction as the record before.
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

    /// Notes that a transaction has ended.
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
    /// Adds the next stretch of the log.
    pub(crate) fn add(&mut self, events: &TxnEvents) {
        for txn in &events.ended {
            self.live.remove(txn);
        }
        self.live.extend(&events.live);
        self.live.extend(events.current);
        self.ended += events.ended.len() as u64;
        self.next_id = self.next_id.max(events.next_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_that_end_are_gone_wherever_the_log_is_cut_into_stretches() {
        // The transaction, and the LSN to be undone next; none: the transaction ended.
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
        let point = |lsn| Point::all_of(Lsn(lsn));
        let told = |events: &mut TxnEvents, some: &[(u64, Option<u64>)]| {
            events.clear();
            some.iter().for_each(|&(txn, next)| match next {
                Some(next) => events.changed(txn, point(next)),
                None => events.ended(txn),
            });
        };
        let mut events = TxnEvents::default();
        for first in 0..=log.len() {
            for second in first..=log.len() {
                let mut all = Transactions { live: BTreeMap::from([(9, point(77))]), ..Transactions::default() };
                for stretch in [&log[..first], &log[first..second], &log[second..]] {
                    told(&mut events, stretch);
                    all.add(&events);
                }
                assert_eq!(
                    all.live,
                    BTreeMap::from([(2, point(9)), (4, point(7)), (9, point(77))]),
                    "cut at {first} and {second}"
                );
                assert_eq!((all.ended, all.next_id), (3, 6));
            }
        }
    }
}
