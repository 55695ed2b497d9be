//! Places in a log: of blocks, and between records.

use crate::Lsn;
use crate::format::BLOCK;

/// A place in the log: a block of a segment. Ordered as the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) block: u32,
}

impl Position {
    pub(crate) const fn new(epoch: u64, block: u32) -> Position {
        Position { epoch, block }
    }

    pub(crate) const fn byte(self) -> u64 {
        self.block as u64 * BLOCK as u64
    }
}

/// What was durable when a frame was made: every block before `position`, every record up to `lsn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) position: Position,
    pub(crate) lsn: Lsn,
}

/// A place between records, counted from the log's beginning: the LSN that comes next, and the
/// bytes of all records before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) lsn: Lsn,
    pub(crate) bytes: u64,
}

impl Count {
    #[cfg(test)]
    pub(crate) const START: Count = Count { lsn: Lsn::FIRST, bytes: 0 };

    /// Behind some more records.
    pub(crate) fn add(&mut self, records: usize, bytes: usize) {
        self.lsn.0 += records as u64;
        self.bytes += bytes as u64;
    }
}
