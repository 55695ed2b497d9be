//! The log's state: all that its lock guards, one struct for each owner. **No I/O, no waiting.**
//!
//! Every field is read and changed under the lock; a field's *owner* is the only thread that may
//! change it. Each struct names its owner. Questions that concern several owners are methods here.

pub(crate) mod flushes;
pub(crate) mod life;
pub(crate) mod requests;
pub(crate) mod segments;
pub(crate) mod waiting;

use crate::assemble::Assembler;
use crate::bug::bug;
use crate::format::Position;
use crate::open::opened::Opened;
use crate::read::source::End;
use crate::sync::MutexGuard;
use crate::write::state::flushes::Flushes;
use crate::write::state::life::{Change, Life};
use crate::write::state::requests::{Appended, Requests};
use crate::write::state::segments::{Ages, Removals, Spares};
use crate::write::state::waiting::{Hooks, Wakers};
use crate::{Error, Lsn, Result};

/// How far into its segment a log is when the next begins to be prepared. Not at once: commits that
/// have just entered this segment flush two, and zeros would slow them further.
const PREPARE_AT: f32 = 0.05;
/// The same for a log that has never filled a segment, and may never fill this one.
const PREPARE_FIRST_AT: f32 = 0.25;

/// A record that a thread or future waits for. After a cut its LSN may stand for another record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) lsn: Lsn,
    /// How often the log had been cut at the back.
    generation: u32,
}

/// A unit that was appended: its first LSN, and its last record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) first: Lsn,
    pub(crate) last: Goal,
}

#[derive(Debug)]
pub(crate) struct LogState {
    /// Changed by an append when it places its unit, and by the leader of a flush, which takes what
    /// is placed. A cut replaces it.
    pub(crate) assembler: Assembler,
    pub(crate) appended: Appended,
    pub(crate) flushes: Flushes,
    pub(crate) spares: Spares,
    pub(crate) removals: Removals,
    pub(crate) ages: Ages,
    pub(crate) change: Change,
    pub(crate) wakers: Wakers,
    pub(crate) hooks: Hooks,
    pub(crate) requests: Requests,
    pub(crate) life: Life,
}

pub(crate) type Guard<'a> = MutexGuard<'a, LogState>;

impl LogState {
    /// The state of a log that was just opened.
    pub(super) fn new(opened: Opened) -> LogState {
        let Opened { assembler, spares, entries, control, durable, report, .. } = opened;
        // A fork's LINK alone promises what recovery copied: a later frame must promise it, too.
        let promised = if report.rewritten_records > 0 { Position::default() } else { durable.position };
        LogState {
            assembler,
            appended: Appended::default(),
            flushes: Flushes::new(durable, promised),
            spares: Spares::new(spares, entries.len() > 1),
            removals: Removals::default(),
            ages: Ages::default(),
            change: Change::new(control),
            wakers: Wakers::default(),
            hooks: Hooks::new(durable.lsn),
            requests: Requests::default(),
            life: Life::default(),
        }
    }

    /// A record that is in the log now.
    pub(crate) fn goal(&self, lsn: Lsn) -> Goal {
        Goal { lsn, generation: self.change.control.generation }
    }

    /// The unit that was just placed.
    pub(super) fn last_unit(&self, records: usize) -> Unit {
        let next = self.assembler.next_lsn();
        Unit { first: Lsn(next.0 - records as u64), last: self.goal(next.prev()) }
    }

    /// The last LSN that was given out.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.assembler.next_lsn().prev()
    }

    /// The goal of a record that was appended.
    pub(crate) fn goal_if_appended(&self, lsn: Lsn) -> Result<Goal> {
        let last = self.last_lsn();
        if lsn > last { Err(Error::NotAppended { lsn, last }) } else { Ok(self.goal(lsn)) }
    }

    /// Whether records were cut off at the back since. What was cut was durable before: a cut first
    /// makes all durable that was appended.
    pub(super) fn is_cut(&self, goal: Goal) -> bool {
        self.change.control.generation != goal.generation
    }

    /// Whether a record is durable, or was when it was cut.
    pub(super) fn has_reached(&self, goal: Goal) -> bool {
        self.flushes.durable().lsn >= goal.lsn || self.is_cut(goal)
    }

    /// Fails the log; whether it had not failed yet. A failed log begins no flush, and those under
    /// way never count.
    pub(super) fn fail(&mut self, error: &Error) -> bool {
        bug!(ForgetFailure, return false);
        self.flushes.abandon();
        self.life.fail(error)
    }

    /// Whether records were appended that no flush with a sync covers.
    pub(crate) fn has_unsynced(&self) -> bool {
        !self.life.has_failed() && self.flushes.begun_synced() < self.last_lsn()
    }

    /// Whether the background should sync now: for a future, or by the sync policy.
    pub(crate) fn wants_sync(&self) -> bool {
        let futures = self.wakers.any_beyond(self.flushes.begun_synced());
        !self.life.has_failed() && (futures || self.requests.sync_due) && !self.flushes.is_running()
    }

    /// Whether the background should write what has gathered.
    pub(crate) fn wants_write(&self) -> bool {
        !self.life.has_failed() && self.requests.write_due && !self.flushes.is_running()
    }

    /// Whether more is durable than the log says.
    pub(crate) fn needs_promise(&self) -> bool {
        self.flushes.needs_promise() && !self.life.has_failed()
    }

    /// Whether nothing is to be flushed, nor being flushed.
    pub(super) fn is_flushed(&self) -> bool {
        self.assembler.is_empty() && !self.flushes.has_uncounted() && self.flushes.dirty.is_empty()
    }

    /// Whether the background should prepare a segment now: not before anything is appended. Asked
    /// with every append.
    pub(crate) fn wants_spare(&self) -> bool {
        let at = if self.spares.fills_segments { PREPARE_AT } else { PREPARE_FIRST_AT };
        let fills = self.spares.ready.is_empty() && self.assembler.fill() > at && !self.assembler.is_closed();
        let short = fills || self.spares.ready.len() < self.spares.wanted;
        short && self.spares.may_prepare() && !self.life.has_failed()
    }

    /// Whether segments that were dropped are to be removed or recycled by a time.
    pub(crate) fn wants_removal(&self, by: std::time::Instant) -> bool {
        self.removals.is_due(by) && !self.life.has_ended()
    }

    /// Whether a reader that has come to an end is to read again; `Some(false)`: the log is closed.
    pub(super) fn news(&self, end: End) -> Result<Option<bool>> {
        if self.flushes.durable().lsn > end.lsn || self.change.control.generation != end.generation {
            return Ok(Some(true));
        }
        match self.life.failure() {
            Some(Error::Closed) => Ok(Some(false)),
            Some(error) => Err(error.clone()),
            None => Ok(None),
        }
    }
}
