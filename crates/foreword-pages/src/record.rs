//! The records that the store writes to its log, as `docs/PAGES.md` has them. No I/O.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use foreword::Lsn;

use crate::page::{Edit, Image, PageId, Redo};
use crate::parts::Parts;

/// The version of the page file's and of the records' format.
pub(crate) const VERSION: u32 = 3;

const UPDATE: u8 = 1;
const UNDO: u8 = 2;
const FORMAT: u8 = 3;
const COMMIT: u8 = 4;
const ABORT: u8 = 5;
const CHECKPOINT_BEGIN: u8 = 6;
const CHECKPOINT_END: u8 = 7;
const CHANGE: u8 = 8;
const CLOSE: u8 = 9;

const KIND: u8 = 0x0f;
/// The redo part is an image of the page. In a checkpoint: pages that change are logged whole.
const WITH_IMAGE: u8 = 0x10;
/// The change is of a bit.
const BIT: u8 = 0x20;
/// The redo of the change sets the bit.
const SET: u8 = 0x40;
/// In a change: it is undone by a handler.
const LOGICAL: u8 = 0x20;
/// In an update or a change: it belongs to a top action.
const NESTED: u8 = 0x80;
/// In a compensation: it undoes a page of a change.
const OF_CHANGE: u8 = 0x80;

/// What of a transaction is to be undone next: a record (zero: nothing), and how many of its pages
/// (zero: all). Pages are undone from the last to the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) lsn: Lsn,
    pub(crate) left: u32,
}

impl Point {
    pub(crate) fn all_of(lsn: Lsn) -> Point {
        Point { lsn, left: 0 }
    }
}

/// A record, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record<'a> {
    /// A change of one place by a transaction. `prev` is the record to be undone after this one.
    Update {
        txn: u64,
        prev: Lsn,
        is_nested: bool,
        page: PageId,
        undo: Edit<'a>,
        redo: Redo<'a>,
    },
    /// A change of several places, in any number of pages.
    Change {
        txn: u64,
        prev: Lsn,
        is_nested: bool,
        /// What undoes the change, if it is not undone by bytes: a type and a payload.
        logical: Option<(u16, &'a [u8])>,
        pages: Vec<ChangedPage<'a>>,
    },
    /// A compensation: what undid a change, or one page of it.
    Undo {
        txn: u64,
        next: Point,
        page: PageId,
        redo: Redo<'a>,
    },
    /// A compensation that changes nothing: a top action is closed, and is not undone any more.
    Close {
        txn: u64,
        next: Lsn,
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

/// A page in the record of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ChangedPage<'a> {
    pub(crate) page: PageId,
    /// Parts or an image.
    pub(crate) redo: Redo<'a>,
    /// What undoes the change of this page, in the order of undoing. Not logged if a handler undoes
    /// the change.
    pub(crate) undo: Parts<'a>,
}

/// What a checkpoint found: where recovery begins, and what the log from there on does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) begin: Lsn,
    /// From the begin on, the first change of a page that was on disk logs an image.
    pub(crate) images: bool,
    /// No transaction had this id or a higher one.
    pub(crate) next_txn: u64,
    /// Transactions that were alive: id, first LSN, what is to be undone next.
    pub(crate) live: Vec<(u64, Lsn, Point)>,
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
    Change { txn: u64, prev: Lsn },
    Undo { txn: u64, next: Point, page: PageId },
    Close { txn: u64, next: Lsn },
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
