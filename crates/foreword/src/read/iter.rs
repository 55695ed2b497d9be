//! Iterators over records.

use std::iter::FusedIterator;
use std::ops::{Bound, RangeBounds};

use crate::read::reader::Reader;
use crate::read::record::Record;
use crate::{Lsn, Result};

/// Iterates over records; see [`Log::iter`](crate::Log::iter) and
/// [`Log::range`](crate::Log::range). Ends at the end of what is durable, or after an error.
#[derive(Debug)]
pub struct Iter {
    reader: Reader,
    forward: bool,
    /// Beyond this one it does not go.
    last: Lsn,
    done: bool,
}

impl Iter {
    pub(crate) fn forward(reader: Reader) -> Iter {
        Iter { reader, forward: true, last: Lsn::MAX, done: false }
    }

    pub(crate) fn backward(reader: Reader) -> Iter {
        Iter { forward: false, ..Iter::forward(reader) }
    }

    pub(crate) fn range(lsns: impl RangeBounds<Lsn>, reader_at: impl FnOnce(Lsn) -> Reader) -> Iter {
        let from = match lsns.start_bound() {
            Bound::Included(&lsn) => lsn,
            Bound::Excluded(&lsn) => lsn.next(),
            Bound::Unbounded => Lsn::ZERO,
        };
        let last = match lsns.end_bound() {
            Bound::Included(&lsn) => lsn,
            Bound::Excluded(&lsn) => lsn.prev(),
            Bound::Unbounded => Lsn::MAX,
        };
        Iter { last, done: from > last, ..Iter::forward(reader_at(from)) }
    }
}

impl Iterator for Iter {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        if self.done || (self.forward && self.reader.position() > self.last) {
            self.done = true;
            return None;
        }
        let read = if self.forward { self.reader.next() } else { self.reader.prev() };
        // (Over LSNs that were given up, it may have stepped beyond.)
        let last = self.last;
        let item = read.map(|record| record.filter(|record| record.lsn <= last).map(Record::from)).transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

impl FusedIterator for Iter {}

/// The records from here on, up to the end of what is durable, each copied out of the reader.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
/// log.append("one")?;
/// log.commit("two")?;
/// let mut reader = log.reader();
/// reader.next()?;
/// let rest = reader.into_iter().collect::<foreword::Result<Vec<_>>>()?;
/// assert!(rest.len() == 1 && rest[0].data == b"two");
/// # Ok(()) }
/// ```
impl IntoIterator for Reader {
    type Item = Result<Record>;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        Iter::forward(self)
    }
}
