//! A record that was read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Lsn;

/// A record that was read, borrowed from the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordRef<'a> {
    /// Its LSN.
    pub lsn: Lsn,
    /// Its bytes.
    pub data: &'a [u8],
    pub(crate) micros: u64,
}

impl RecordRef<'_> {
    /// When it was written: as the clock of the writer's machine said then, at the first write of
    /// the frame that it begins in. Records that are written together have one time. When a
    /// recovery or a cut writes the record again, it stays, to the second. Where the clock was set
    /// back, so are the times.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        time_of(self.micros)
    }
}

impl Record {
    /// One that was not read, for a test say.
    #[must_use]
    pub fn new(lsn: Lsn, data: Vec<u8>, time: SystemTime) -> Record {
        Record { lsn, data, time }
    }
}

impl From<RecordRef<'_>> for Record {
    fn from(record: RecordRef<'_>) -> Record {
        Record { lsn: record.lsn, data: record.data.to_vec(), time: record.time() }
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its LSN.
    pub lsn: Lsn,
    /// Its bytes.
    pub data: Vec<u8>,
    /// When it was written; see [`RecordRef::time`].
    pub time: SystemTime,
}

/// A time as frames bear it: in microseconds since 1970, or 0 before that.
pub(crate) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros().min(u128::from(u64::MAX)) as u64)
}

/// The time that a frame bears.
pub(crate) fn time_of(micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(micros)).unwrap_or(UNIX_EPOCH)
}
