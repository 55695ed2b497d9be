//! What was appended, and what the background is asked to do about it.

use crate::assemble::payload::Payload;
use crate::options::SyncPolicy;

/// What was appended since the log was opened. Owned by the appending thread; the leader of a flush
/// with a sync notes how much it was then.
#[derive(Debug, Default)]
pub(crate) struct Appended {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    records_at_sync: u64,
    bytes_at_sync: u64,
}

impl Appended {
    #[inline]
    pub(in crate::write) fn add(&mut self, unit: Payload<'_>) {
        self.records += unit.count() as u64;
        self.bytes += unit.bytes();
    }

    /// A flush with a sync takes all of it.
    pub(in crate::write) fn synced(&mut self) {
        (self.records_at_sync, self.bytes_at_sync) = (self.records, self.bytes);
    }

    /// Whether so much has gathered that the policy asks for a sync.
    #[inline]
    pub(in crate::write) fn is_due(&self, policy: &SyncPolicy) -> bool {
        policy.records.is_some_and(|n| self.records - self.records_at_sync >= n)
            || policy.bytes.is_some_and(|n| self.bytes - self.bytes_at_sync >= n)
    }
}

/// What the background tasks are asked for, and whether they sleep. Any thread may ask, and then
/// kicks the task; a task alone says that it falls asleep, and the thread that kicks it takes that
/// back.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// So much has gathered that it should be written. The next flush does.
    pub(in crate::write) write_due: bool,
    /// The policy is due. The next flush with a sync takes it back.
    pub(in crate::write) sync_due: bool,
    /// The task that syncs sleeps, and no time wakes it soon enough for an append.
    pub(in crate::write) idle: bool,
    /// The task that syncs sleeps.
    pub(in crate::write) asleep: bool,
    /// The publisher has seen no change, and sleeps.
    pub(crate) quiet: bool,
}
