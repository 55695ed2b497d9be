//! The records that the store writes to its log, as `docs/PAGES.md` has them. No I/O.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use foreword::Lsn;

use crate::page::{Edit, Image, PageId, Redo};

/// The version of the page file's and of the records' format.
pub(crate) const VERSION: u32 = 2;

const UPDATE: u8 = 1;
const UNDO: u8 = 2;
const FORMAT: u8 = 3;
const COMMIT: u8 = 4;
const ABORT: u8 = 5;
const CHECKPOINT_BEGIN: u8 = 6;
const CHECKPOINT_END: u8 = 7;

const KIND: u8 = 0x0f;
/// The redo part is an image of the page. In a checkpoint: pages that change are logged whole.
const WITH_IMAGE: u8 = 0x10;
/// The change is of a bit.
const BIT: u8 = 0x20;
/// The redo of the change sets the bit.
const SET: u8 = 0x40;

/// A record, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record<'a> {
    /// A change by a transaction. `prev` is the change to be undone after this one.
    Update {
        txn: u64,
        prev: Lsn,
        page: PageId,
        undo: Edit<'a>,
        redo: Redo<'a>,
    },
    /// A compensation: what undid a change. `next` is the change to be undone next.
    Undo {
        txn: u64,
        next: Lsn,
        page: PageId,
        redo: Redo<'a>,
    },
    /// A page begins anew. The record belongs to no transaction, and is not undone.
    Format {
        page: PageId,
        image: Image<'a>,
    },
    Commit {
        txn: u64,
    },
    /// All of the transaction is undone.
    Abort {
        txn: u64,
    },
    CheckpointBegin,
    CheckpointEnd(Checkpoint),
}

/// What a checkpoint found: where recovery begins, and what the log from there on does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) begin: Lsn,
    /// From the begin on, the first change of a page that was on disk logs an image.
    pub(crate) images: bool,
    /// No transaction had this id or a higher one.
    pub(crate) next_txn: u64,
    /// Transactions that were alive: id, first LSN, the LSN to be undone next.
    pub(crate) live: Vec<(u64, Lsn, Lsn)>,
    /// Dirty pages by id, each with the LSN from which on the log rebuilds it.
    pub(crate) dirty: Vec<(PageId, Lsn)>,
    /// One more than the highest page id that was ever used. The page file has as many pages, with
    /// page 0.
    pub(crate) pages: u64,
    /// The maps on disk by id. Each has this page LSN there, or a later one.
    pub(crate) maps: Vec<(PageId, Lsn)>,
}

/// The header of a record: all but the change that it describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Update { txn: u64, prev: Lsn, page: PageId },
    Undo { txn: u64, next: Lsn, page: PageId },
    Format { page: PageId },
    Commit { txn: u64 },
    Abort { txn: u64 },
    CheckpointBegin,
    CheckpointEnd,
}

/// What follows a header, not decoded yet: in most records, a change of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawChange<'a> {
    /// The record's first byte.
    first: u8,
    bytes: &'a [u8],
}
