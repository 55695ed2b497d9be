//! Deliberate bugs: the checks are checked by them. Only a build with `--cfg foreword_bug` has
//! them, and there the environment variable `FOREWORD_BUG` switches one on; `scripts/bugs.sh` shows
//! by which test each is caught (and `scripts/shuttle.sh --self-check` those that need several
//! threads). In every other build [`is`] is `false` at compile time.
#![cfg_attr(not(foreword_bug), allow(unreachable_pub, dead_code))]

macro_rules! bugs {
    ($($(#[doc = $what:literal])* $name:ident,)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])* $name,)*
        }

        impl Bug {
            /// All of them, each with what it does.
            pub const ALL: &[(Bug, &str)] = &[$((Bug::$name, concat!($($what),*)),)*];
        }
    };
}

bugs! {
    /// hooks are told by every thread that lands a flush, at once
    TellAtOnce,
    /// an append waits for room on the thread that syncs, whatever hook that runs
    WaitForHooks,
    /// closing does not wait for a hook that another thread runs
    CloseUntold,
    /// in a forked process, a lock is waited for that no thread will let go of
    WaitInFork,
    /// a log that is being closed goes on taking records
    AppendWhileClosing,
    /// a directory is never synced
    SkipDirSync,
    /// a segment gets its name before its header is synced
    SkipHeaderSync,
    /// a commit is acknowledged before its flush
    AckBeforeFlush,
    /// a flush forgets what was written before it without one
    ForgetDirty,
    /// a failed flush is tried again, and then believed
    RetryFlush,
    /// a failed flush is forgotten
    ForgetFailure,
    /// a frame promises itself
    PromiseEarly,
    /// tags and checksums do not know their segment's epoch
    IgnoreEpoch,
    /// a frame's header is believed without its checksum
    TrustHeader,
    /// a frame's body is believed without its checksum
    TrustBody,
    /// recovery does not write again what only the page cache may have
    TrustCache,
    /// recovery builds on a LINK that only the page cache may have
    TrustLink,
    /// opening builds on a CLOSED mark that only the page cache may have
    TrustClosed,
    /// recovery seals the newest segment only when its fork is written
    SealLate,
    /// another flush overtakes the one with which a closed log goes on
    OvertakeReopening,
    /// opening writes no mark behind a CLOSED one
    NoOpenMark,
    /// recovery goes on behind a torn tail, in place
    AppendAfterTear,
    /// recovery takes part of a batch
    AcceptPartialUnit,
    /// recovery does not look for promises behind the end
    IgnorePromises,
    /// recovery takes a torn LINK's promise for one
    TrustTornLink,
    /// that segments were dropped does not prove the MARK that says so
    ForgetDropped,
    /// a truncation that did not come about counts behind damage
    TrustStaleStart,
    /// a fork's LINK is written before its copies are synced
    LinkBeforeCopies,
    /// a fork over several segments that did not come to its end is taken for a log whose front was dropped
    TrustBegun,
    /// opening goes on in place behind a CLOSED mark, though the segment has a SEAL
    ResumeSealed,
    /// a repair moves evidence aside before the log has gone on without it
    MoveFirst,
    /// of what a fork has begun, only the LINKs that the page cache shows are taken back
    TrustZeros,
    /// a fork begins anew beside what it could not take back
    ForkBeside,
    /// an unfinished fork hides that the newest segment is lost
    HideLost,
    /// a repair takes for the log what a fork has begun, and what LINKs lead past
    FollowNoLinks,
    /// a repair clears away records that an unfinished fork alone has
    DropUnfinished,
    /// a repair clears away the file that a SEAL vouches for
    ClearVouched,
    /// a repair gives a segment an epoch that was promised, if its file is gone
    ForgetPromised,
    /// a file that a fork has superseded is taken for a lost one, if that fork's LINK is damaged
    NameSuperseded,
    /// a repair finds no room for the directory of what it puts aside, though there is the reserve
    NoRoomAside,
    /// of the reserve a repair keeps nothing that it can give up, though it fails for all that
    LeaveShrunk,
    /// a repair goes on behind any name, though no log reaches what follows
    GoOutOfReach,
    /// a repair copies again what an earlier one has copied
    CopyAgain,
    /// what of the reserve cannot be made a segment is removed
    LoseUnmade,
    /// a fork never writes a small segment again: crashes and cuts fill the directory
    NeverAbsorb,
    /// a fork that has not room for all that it is to write again writes nothing of it
    AbsorbAllOrNone,
    /// what an unfinished step had made of the reserve is removed
    LoseBegun,
    /// a segment of the reserve's size gives its space back when the log leaves it
    GiveReserveBack,
    /// what the reserve could use is removed while another thread makes it
    RemoveKept,
    /// a cut does not wait for room that is on its way
    CutAtOnce,
    /// a prepared segment is used after a crash, whatever was written to it
    TrustSpares,
    /// a full segment is not sealed
    SkipSeal,
    /// front truncation drops segments without saying so in the log
    SkipFrontMark,
    /// a recycled file is changed while it may still bear its old name
    RecycleInPlace,
    /// records take the room kept for marks and checkpoints
    NoReserve,
    /// who waits for a flush is not woken when it lands
    LostWakeup,
    /// a future that is dropped takes those with it that wait for the same record
    ForgetOthers,
    /// a writer does not look whether its lock is still there
    TrustLock,
    /// a process that was forked from the writer writes
    WriteInFork,
    /// a segment takes the place of any file of its name
    ReplaceAny,
    /// holds and truncations do not wait for one another
    ChangeAtOnce,
    /// a truncation at the back does not wait for the flushes that are under way
    CutInFlight,
    /// a flush does not wait for the bytes of a large record
    FlushUncopied,
    /// a cut at the back leaves the log's generation as it is
    ForgetCut,
    /// a reader is not told that what it has read was cut
    HideCut,
    /// a view shows what only the page cache may have
    ShowUnproven,
    /// two threads prepare a segment at once
    PrepareAtOnce,
    /// truncation and retention drop what holds keep
    ForgetHolds,
    /// a truncation does not look at the holds of other processes
    IgnoreOutside,
    /// a truncation gives the lock of other processes' holds up before it is durable
    UnlockOutside,
    /// a hold has no limit any more when the log is opened again
    ForgetLimit,
    /// hooks are told of records that are not durable
    TellEarly,
    /// records take space before the reserve is whole again
    ReserveLast,
    /// a segment of the reserve that is larger than the log's segments is not written again
    ForgetLarger,
    /// a fork does not write again what lies where marks and checkpoints go
    ForgetUrgent,
    /// opening makes a segment for records of a superseded one before the reserve is whole again
    RecycleFirst,
    /// a checkpoint takes the last of the reserve
    TakeLastReserve,
    /// a task is forgotten if it is called while another waits for the lane's threads
    ForgetTask,
}

impl Bug {
    /// Those that a test of their own shows, and no simulated workload: they need two processes,
    /// holds, hooks, many logs, a flush that is held up, or much room.
    pub const OF_TESTS: &[Bug] = &[
        Bug::WriteInFork,
        Bug::WaitInFork,
        Bug::NeverAbsorb,
        Bug::AbsorbAllOrNone,
        Bug::LoseBegun,
        Bug::CutAtOnce,
        Bug::GiveReserveBack,
        Bug::RemoveKept,
        Bug::SealLate,
        Bug::OvertakeReopening,
        Bug::ReserveLast,
        Bug::MoveFirst,
        Bug::ResumeSealed,
        Bug::TrustZeros,
        Bug::ForkBeside,
        Bug::HideLost,
        Bug::FollowNoLinks,
        Bug::DropUnfinished,
        Bug::ForgetDropped,
        Bug::TrustStaleStart,
        Bug::ClearVouched,
        Bug::ForgetPromised,
        Bug::NameSuperseded,
        Bug::NoRoomAside,
        Bug::LeaveShrunk,
        Bug::GoOutOfReach,
        Bug::CopyAgain,
        Bug::LoseUnmade,
        Bug::RecycleFirst,
        Bug::ForgetLarger,
        Bug::ForgetUrgent,
        Bug::TakeLastReserve,
        Bug::ForgetHolds,
        Bug::IgnoreOutside,
        Bug::UnlockOutside,
        Bug::ForgetLimit,
        Bug::TellEarly,
        Bug::WaitForHooks,
        Bug::CloseUntold,
        Bug::ForgetTask,
    ];
    /// Those that a single thread cannot show.
    pub const OF_THREADS: &[Bug] = &[
        Bug::TellAtOnce,
        Bug::AppendWhileClosing,
        Bug::LostWakeup,
        Bug::ForgetOthers,
        Bug::ChangeAtOnce,
        Bug::CutInFlight,
        Bug::FlushUncopied,
        Bug::PrepareAtOnce,
    ];
}

/// `bug!(Name, work)` does the work if that bug is switched on. Skip these lines when you read:
/// without `--cfg foreword_bug` they are not compiled.
macro_rules! bug {
    ($name:ident, $work:expr) => {
        if $crate::bug::is($crate::bug::Bug::$name) {
            $work;
        }
    };
}
pub(crate) use bug;

/// Whether a bug is switched on.
#[cfg(not(foreword_bug))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Whether a bug is switched on.
#[cfg(foreword_bug)]
pub(crate) fn is(bug: Bug) -> bool {
    static ON: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let find = || {
        let name = std::env::var("FOREWORD_BUG").ok()?;
        Bug::ALL.iter().map(|&(bug, _)| bug).find(|bug| format!("{bug:?}") == name)
    };
    *ON.get_or_init(find) == Some(bug)
}
