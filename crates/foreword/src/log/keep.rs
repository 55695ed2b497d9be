//! What is dropped of a log, and what is kept.

use std::collections::BTreeMap;

use super::Log;
use crate::limit::{Hold, Limit};
#[cfg(doc)]
use crate::{Error, Options, Stats};
use crate::{Lsn, Result};

/// What is dropped, and what is kept.
impl Log {
    /// Drops the records before an LSN, as far as no [hold](Log::hold) needs them: the LSN at which
    /// the log starts now. Durable when it returns. Segments with nothing else in them are recycled
    /// or removed behind the call, in the background; [`Stats::segments_dropped`] says how many are
    /// still to be, [`close`](Log::close) finishes them, and what cannot be removed is reported
    /// ([`Options::on_error`]) and tried again. Without [`background`](Options::background) the
    /// call does it before it returns: all that are dropped so far, once each. Works on a full
    /// disk, if it frees a segment.
    ///
    /// # Errors
    /// [`Error::NotAppended`] if the LSN is more than one beyond the last; [`Error::NoSpace`]:
    /// nothing was dropped; [`Error::HoldsDamaged`]; [`Error::Busy`] as for [`hold`](Log::hold);
    /// [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    pub fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        self.inner.truncate_front(before)
    }

    /// Cuts off the record with this LSN and all after it, as a Raft log does; their LSNs are given
    /// to what is appended next. Readers that have read any of them, or stand behind one, get
    /// [`Error::Cut`]: readers of the log itself with their next call, those of a
    /// [`View`](crate::View), here or in another process, within 10 ms. A
    /// [hold](Log::hold) behind the cut moves to it, so a consumer that was away finds its hold
    /// lower than it left it, and reads on from there. A cut behind the last record does nothing.
    ///
    /// Durable when it returns: everything before the cut is, too. Other calls wait meanwhile.
    /// Commits that were waiting for records that are cut succeed: they were durable. If the record
    /// is one that a salvage gave up, all that were given up with it are cut off.
    ///
    /// # Errors
    /// [`Error::Dropped`] if records before the cut are gone already; [`Error::NotAppended`] for
    /// [`Lsn::ZERO`], which no record has; [`Error::NoSpace`],
    /// [`Error::Corruption`] (of what has to be written again), [`Error::HoldsDamaged`],
    /// [`Error::Busy`] as for [`hold`](Log::hold), [`Error::Io`]: nothing was cut, and the log goes
    /// on. [`Error::Poisoned`]: it is not known whether it was cut. [`Error::Closed`].
    pub fn truncate_back(&self, from: Lsn) -> Result<()> {
        self.inner.truncate_back(from)
    }

    /// Keeps the record with this LSN and all after it, whatever
    /// [`truncate_front`](Log::truncate_front) is told: for an archiver, a replica, a checkpoint. A
    /// hold has a name, by which it is moved and released, and lasts beyond this process: after a
    /// restart [`holds`](Log::holds) says where its owner stood.
    ///
    /// [`Lsn::ZERO`] is where the log starts. The LSN behind the last keeps all that is to come;
    /// one further on, or one that was dropped, is an error. A truncation that a hold bounds drops
    /// less, and is no error. A hold that is moved keeps the [limit](Log::hold_up_to) that it had,
    /// if any.
    ///
    /// Durable when it returns: it blocks for a flush, unless the hold stands there already. So an
    /// owner that works through the log moves it once for many records. A log has at most 32 holds,
    /// those of other processes included.
    ///
    /// A hold that is [lost](Hold::lost) is not renewed by moving it: its owner misses records, and
    /// is to know. It places a hold of another name where the log starts, makes its copy anew, and
    /// releases the lost one; or releases it first, and takes [`Error::Dropped`] for "once more"
    /// where the front moves meanwhile.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use foreword::Lsn;
    /// log.commit_batch(&["one", "two", "three"])?;
    /// log.hold("replica", Lsn(2))?;
    /// assert_eq!(log.truncate_front(Lsn(4))?, Lsn(2)); // the replica has not got "two"
    /// log.hold("replica", Lsn(4))?;
    /// assert_eq!(log.truncate_front(Lsn(4))?, Lsn(4));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Dropped`] if the LSN is gone, [`Error::NotAppended`] if it is more than one beyond
    /// the last; [`Error::HoldLost`] if the hold of that name is [lost](Hold::lost): release it,
    /// and begin anew. [`Error::Busy`]: another process has had the file `HOLDS` for a tenth of a
    /// second; try again. [`Error::HoldsDamaged`]. [`Error::Invalid`] for a name that is empty or
    /// longer than 64 bytes, a 33rd hold, or a limit of 0; [`Error::Poisoned`], [`Error::Closed`],
    /// [`Error::NoSpace`].
    pub fn hold(&self, name: &str, lsn: Lsn) -> Result<()> {
        self.inner.hold(name, lsn, None)
    }

    /// The same, with a limit: [`truncate_front`](Log::truncate_front) and
    /// [`retention`](Options::retain) stop at the hold only until what it keeps is more than that,
    /// so a consumer that is gone does not fill the disk. What is beyond the limit is dropped with
    /// the next truncation, not by itself. Then the hold is [lost](Hold::lost): it keeps nothing
    /// any more, from the truncation after that one on, and to move it is [`Error::HoldLost`].
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Error, Limit, Lsn, Options};
    /// let log = Options::new().segment_bytes(64 << 10).open(dir.path())?;
    /// log.hold_up_to("an archiver", Lsn::FIRST, Limit::bytes(100_000))?;
    /// for _ in 0..20 {
    ///     log.commit([0; 10_000])?; //    the archiver is away
    /// }
    /// let start = log.truncate_front(log.last_lsn())?;
    /// assert!(log.bytes_between(start, log.last_lsn().next())? >= 100_000);
    /// assert!(log.holds()?["an archiver"].lost);
    /// assert!(matches!(log.hold("an archiver", Lsn(20)), Err(Error::HoldLost { .. })));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// As [`hold`](Log::hold).
    pub fn hold_up_to(&self, name: &str, lsn: Lsn, limit: Limit) -> Result<()> {
        self.inner.hold(name, lsn, Some(limit))
    }

    /// Releases a hold: whether there was one of that name. Durable when it returns.
    ///
    /// # Errors
    /// As [`hold`](Log::hold).
    pub fn release(&self, name: &str) -> Result<bool> {
        self.inner.release(name)
    }

    /// The holds, by name, with those that other processes have placed
    /// ([`View::hold`](crate::View::hold)): it reads the small file that those are in.
    ///
    /// # Errors
    /// [`Error::HoldsDamaged`], [`Error::Io`]: that file cannot be read; [`Error::Busy`] in code
    /// that the log's disk runs; [`Error::LockLost`] in a forked process.
    pub fn holds(&self) -> Result<BTreeMap<String, Hold>> {
        self.inner.holds()
    }
}
