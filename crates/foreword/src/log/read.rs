//! Reading a log that is open here.

use std::ops::RangeBounds;
use std::time::SystemTime;

use super::Log;
use crate::read::iter::Iter;
use crate::read::reader::Reader;
use crate::read::record::Record;
#[cfg(doc)]
use crate::{Error, Options};
use crate::{Lsn, Result};

/// Reading.
impl Log {
    /// A reader that stands before the first record.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader_at(Lsn::ZERO)
    }

    /// A reader that stands before a record, which need not be there yet; if it was dropped, the
    /// first read says [`Error::Dropped`].
    /// [`Lsn::ZERO`]: before the first that is there.
    #[must_use]
    pub fn reader_at(&self, lsn: Lsn) -> Reader {
        Reader::new(self.inner.clone(), lsn)
    }

    /// Iterates over the durable records from an LSN on, or with [`Lsn::ZERO`] from the first. If
    /// the LSN was dropped, the first item is [`Error::Dropped`].
    #[must_use]
    pub fn iter(&self, from: Lsn) -> Iter {
        Iter::forward(self.reader_at(from))
    }

    /// Iterates over the durable records with LSNs in a range. One that begins with [`Lsn::ZERO`],
    /// or has no beginning, begins with the first that is there; else as [`iter`](Log::iter).
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use foreword::Lsn;
    /// log.commit_batch(&["one", "two", "three", "four"])?;
    /// let lsns = |records: foreword::Iter| records.map(|r| r.map(|r| r.lsn.0)).collect::<Result<Vec<_>, _>>();
    /// assert_eq!(lsns(log.range(Lsn(2)..Lsn(4)))?, [2, 3]);
    /// assert_eq!(lsns(log.range(..=Lsn(2)))?, [1, 2]);
    /// # log.close() }
    /// ```
    #[must_use]
    pub fn range(&self, lsns: impl RangeBounds<Lsn>) -> Iter {
        Iter::range(lsns, |from| self.reader_at(from))
    }

    /// Iterates backward over the durable records, from an LSN (or the last, if it is not there
    /// yet) to the first. If the LSN was dropped, the first item is [`Error::Dropped`].
    #[must_use]
    pub fn iter_back(&self, from: Lsn) -> Iter {
        Iter::backward(self.reader_at(from.next()))
    }

    /// One record, which must be durable. A [`Reader`] is better for many, and where the record's
    /// time is asked for ([`Reader::get`]). What was written last
    /// (32 frames, each of up to 64 KiB) is in memory until the log falls
    /// [idle](Options::idle_mark); what lies behind is read from the file, the first time from the
    /// device.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get(&self, lsn: Lsn) -> Result<Vec<u8>> {
        Ok(self.reader_at(lsn).get(lsn)?.data.to_vec())
    }

    /// The LSN of the first durable record that was written at a time or after it, or of the next
    /// to come; see [`Reader::seek_to_time`]. For "as of ten minutes ago", and for retention by
    /// age. Where the writer's clock was set back, the log passes a time more than once, and this is
    /// one of the places: what was written at that time may lie before it, too.
    ///
    /// # Errors
    /// As [`Reader::seek_to_time`].
    pub fn lsn_at(&self, time: SystemTime) -> Result<Lsn> {
        self.reader().seek_to_time(time)
    }

    /// How many bytes the durable records have from one LSN up to another; see
    /// [`Reader::bytes_between`].
    ///
    /// # Errors
    /// As [`Reader::bytes_between`].
    pub fn bytes_between(&self, from: Lsn, to: Lsn) -> Result<u64> {
        self.reader().bytes_between(from, to)
    }
}

impl IntoIterator for &Log {
    type Item = Result<Record>;
    type IntoIter = Iter;

    /// The durable records, from the first on: [`iter`](Log::iter) from [`Lsn::ZERO`].
    fn into_iter(self) -> Iter {
        self.iter(Lsn::ZERO)
    }
}
