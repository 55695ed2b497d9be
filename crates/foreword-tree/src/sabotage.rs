//! Deliberate bugs, for the test suite alone, which must catch each of them. Without the feature
//! `sabotage` there is no code here.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// A split is a part of its transaction: rolling that back takes it back, by bytes.
    NoTopAction = 1,
    /// An insertion is undone where it was made, and not where its key is by then.
    UndoByPlace,
    /// A page is let go before the one below it is latched.
    NoCoupling,
    /// Pages that were joined are not freed.
    JoinLeaks,
    /// The pages of a long value are not freed with it.
    LongLeaks,
    /// A scan does not lock the key behind its range.
    ScanForgetsNext,
    /// An insertion does not ask for the key behind it.
    InsertForgetsNext,
    /// A removal does not lock the key behind it.
    RemoveForgetsNext,
    /// Locks for reading are let go when the read is done.
    ReadLocksEnd,
    /// A transaction's locks are let go before it is rolled back.
    UnlockBeforeUndo,
    /// A lock that had to be waited for is not asked for again where the key has moved.
    NoSecondLook,
    /// A transaction that only read does not wait for what it read to be durable.
    ReadNotDurable,
    /// The pages of a long value are free before the transaction commits that removes it.
    LongFreedSoon,
    /// A scan lets a leaf go before it latches the next one.
    NoCouplingAside,
    /// A leaf that was passed on the way to the next key is let go before that is locked.
    PassedLetGo,
    /// A transaction's locks are let go before its commit record has its place in the log.
    UnlockBeforeCommit,
    /// A transaction that gets a lock is not woken.
    GrantUntold,
    /// A deadlock is not found.
    CircleUnseen,
}

impl Bug {
    /// Those that schedules of threads show (`scripts/shuttle.sh --self-check`).
    pub const OF_THREADS: &[Bug] = &[
        Bug::NoTopAction,
        Bug::UndoByPlace,
        Bug::NoCoupling,
        Bug::NoCouplingAside,
        Bug::PassedLetGo,
        Bug::ScanForgetsNext,
        Bug::InsertForgetsNext,
        Bug::RemoveForgetsNext,
        Bug::ReadLocksEnd,
        Bug::UnlockBeforeUndo,
        Bug::GrantUntold,
        Bug::CircleUnseen,
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
