//! What an operator reads: statistics, and what opening found.

use std::time::Duration;

use crate::{Lsn, Verdict};

/// A histogram with a bucket for each power of two.
///
/// ```
/// let mut h = foreword::Histogram::default();
/// [1024, 1500, 2047].map(|value| h.add(value));
/// h.add(2048);
/// assert_eq!(h.buckets()[10..12], [3, 1]);
/// assert_eq!((h.count(), h.quantile(0.5)), (4, 2047));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// See [`buckets`](Histogram::buckets).
    pub(crate) buckets: [u64; 64],
    pub(crate) sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [0; 64], sum: 0 }
    }
}

impl Histogram {
    /// What was counted since an earlier look at the same histogram.
    ///
    /// ```
    /// let mut now = foreword::Histogram::default();
    /// now.add(8);
    /// let before = now.clone();
    /// now.add(15);
    /// assert_eq!((now.since(&before).count(), now.since(&before).sum()), (1, 15));
    /// ```
    #[must_use]
    pub fn since(&self, before: &Histogram) -> Histogram {
        // (A sum may have been read a moment before the buckets.)
        let buckets = std::array::from_fn(|i| self.buckets[i].saturating_sub(before.buckets[i]));
        Histogram { buckets, sum: self.sum.saturating_sub(before.sum) }
    }

    /// Counts one value more.
    pub fn add(&mut self, value: u64) {
        self.buckets[value.max(1).ilog2() as usize] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(all, some)| *all += some);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many values there were in each power of two: bucket `i` counts those from 2^i to 2^(i+1)
    /// - 1; bucket 0 also counts zeros.
    #[must_use]
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// An upper bound of the value below which a fraction `q` (0 to 1) of the values lie: the end
    /// of its bucket. 0 if there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = (self.count() as f64 * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, &n) in self.buckets.iter().enumerate() {
            seen += n;
            if n > 0 && seen >= rank {
                return u64::MAX >> (63 - i);
            }
        }
        0
    }

    /// The mean of the values; 0 if there are none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count().max(1) as f64
    }
}

/// What a log did since it was opened, and where it stands. Units are in the names; see
/// [`Log::stats`](crate::Log::stats).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Records appended.
    pub records: u64,
    /// Their bytes, without framing.
    pub record_bytes: u64,
    /// Bytes written to segments, with framing and padding.
    pub written_bytes: u64,
    /// Flushes: each made everything before it durable.
    pub flushes: u64,
    /// How long each took, in nanoseconds: from the first write to the end of the sync.
    pub flush_nanos: Histogram,
    /// How many records each made durable.
    pub group_records: Histogram,
    /// Times that the log went on in another segment.
    pub rotations: u64,
    /// How long an append waited because no segment was ready, in nanoseconds; one value for each
    /// wait.
    pub rotation_wait_nanos: Histogram,
    /// Segments made and zero-filled.
    pub segments_created: u64,
    /// Segments recycled from dropped ones.
    pub segments_recycled: u64,
    /// Segments removed.
    pub segments_removed: u64,
    /// Segments of the log now.
    pub segments: u64,
    /// Segments prepared for it now.
    pub segments_prepared: u64,
    /// Segments that were dropped, and are not used again or removed yet.
    pub segments_dropped: u64,
    /// The first LSN.
    pub start_lsn: Lsn,
    /// The last LSN appended.
    pub appended_lsn: Lsn,
    /// The last LSN that the operating system has.
    pub written_lsn: Lsn,
    /// The last LSN that survives the machine.
    pub durable_lsn: Lsn,
    /// Groups on their way to the disk now.
    pub flushes_under_way: u64,
    /// How long the oldest of them has been on its way, in nanoseconds; 0 if there is none. That of
    /// a disk that stalls grows.
    pub oldest_flush_nanos: u64,
    /// Readers of this process that follow the tail: that have waited for a record at least once.
    pub readers: u64,
    /// The last LSN that the slowest of them has read; the durable LSN minus this is its lag.
    pub slowest_reader_lsn: Lsn,
    /// Holds, of which those that other processes have placed since the last truncation are not
    /// counted.
    pub holds: u64,
    /// The first LSN that they keep; the next LSN minus this is what they keep of the log. Zero if
    /// there are none, or all are [lost](crate::Hold::lost).
    pub first_held_lsn: Lsn,
    /// The log failed, and accepts nothing more ([`Error::Poisoned`](crate::Error::Poisoned)).
    pub failed: bool,
}

/// What opening found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// What the evidence said.
    pub verdict: Verdict,
    /// The first LSN of the log.
    pub start_lsn: Lsn,
    /// The last.
    pub last_lsn: Lsn,
    /// Bytes of frames that were read and checked.
    pub scanned_bytes: u64,
    /// Records that were written again, into the segment in which the log goes on. Those behind the
    /// last promise, for only the page cache may have held them; and with them durable ones before,
    /// where their segment held little (up to 1 MiB, or a quarter of it): so openings do not fill
    /// the directory with such segments. (What had no room there, and was written again where it
    /// lies, is not counted.)
    pub rewritten_records: u64,
    /// LSNs that were given up, by [`Options::on_damage`](crate::Options::on_damage): first and
    /// last of each stretch.
    pub given_up: Vec<(Lsn, Lsn)>,
    /// Records from this LSN on may be lost besides: nothing could be read behind the damage, so
    /// nothing says how many there were. These LSNs are given to new records.
    pub unknown_from: Option<Lsn>,
    /// Names of the files put aside in `damaged/`.
    pub put_aside: Vec<String>,
    /// Garbled sectors behind the end of the log, where nothing was acknowledged: no loss, but the
    /// disk did that.
    pub garbled_sectors: u64,
    /// How long it took.
    pub took: Duration,
}
