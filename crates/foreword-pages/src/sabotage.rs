//! Deliberate bugs, for the test suite alone, which must catch each of them. Without the feature
//! `sabotage` there is no code here.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A page is written before the log that describes it is durable.
    PageBeforeLog = 1,
    /// The first change of a page after a checkpoint logs no image of it.
    NoImage,
    /// Undoing a change is not logged.
    NoCompensation,
    /// Recovery leaves the changes of transactions that did not end.
    NoUndo,
    /// Redo leaves out what was undone.
    NoRedoOfUndo,
    /// A checkpoint does not sync the page file.
    NoPageSync,
    /// A checkpoint forgets the pages that are not on disk.
    NoDirtyPages,
    /// A checkpoint forgets the transactions that are alive.
    NoLiveTransactions,
    /// The log is truncated up to the checkpoint, also where recovery needs earlier records.
    TruncateTooFar,
    /// The log is truncated before the page file durably names the checkpoint.
    TruncateTooSoon,
    /// Full page images are switched on or off, and no checkpoint says so.
    SwitchSilently,
    /// A commit returns before it is durable.
    CommitNotDurable,
    /// A freed page is given out before its transaction has committed.
    FreeTooSoon,
    /// A page that changed while it was being written counts as written.
    CleanTooSoon,
    /// Recovery takes a page that it reads from the page file for durable.
    TrustPages,
    /// The room of a page is not taken when the page is allocated.
    RoomLater,
    /// A checkpoint forgets which maps are on disk.
    ForgetMaps,
    /// The log is dropped without a check that the page file is still there.
    DropUnseen,
    /// A checkpoint does not heed that the log has refused a record for lack of space.
    IgnoreRefusal,
    /// A top action ends without the record that closes it.
    NestedNotClosed,
    /// What a handler should undo is undone by bytes.
    UndoByBytes,
    /// A page that a top action has changed is let go before the record that closes it is logged.
    LatchNotKept,
    /// What a handler has undone is not closed by a record.
    UndoNotClosed,
    /// Recovery calls handlers before the top actions are undone that the crash has left open.
    NestedUndoneLate,
    /// A backup counts as consistent before all of its pages were read.
    BackupTooEarly,
    /// A latch that is let go wakes none of those that wait for it.
    LatchWakesNone,
    /// Threads that wait for a page to be loaded are not told that it is.
    LoadedUntold,
    /// A latch for reading keeps no writer away.
    ReaderUncounted,
    /// A latch is made exclusive while others read the page.
    UpgradeBeside,
    /// An owner waits for itself.
    WaitForItself,
    /// A frame is taken from a page that is in use.
    EvictPinned,
    /// The background thread is not woken to end.
    StopUntold,
}

impl Bug {
    /// Those that schedules of threads show (`scripts/shuttle.sh --self-check`).
    pub const OF_THREADS: &[Bug] = &[
        Bug::LatchWakesNone,
        Bug::LoadedUntold,
        Bug::ReaderUncounted,
        Bug::UpgradeBeside,
        Bug::WaitForItself,
        Bug::EvictPinned,
        Bug::StopUntold,
        Bug::LatchNotKept,
        Bug::CleanTooSoon,
    ];
}

#[cfg(feature = "sabotage")]
static ACTIVE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches a bug on, or all off, in this process.
#[cfg(feature = "sabotage")]
pub fn switch(bug: Option<Bug>) {
    ACTIVE.store(bug.map_or(0, |b| b as u8), std::sync::atomic::Ordering::SeqCst);
}

#[cfg(feature = "sabotage")]
pub(crate) fn has(bug: Bug) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

#[cfg(not(feature = "sabotage"))]
pub(crate) const fn has(_bug: Bug) -> bool {
    false
}
