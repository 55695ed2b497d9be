//! Locks on keys: strict two-phase, with deadlocks detected.
//!
//! An owner (a transaction) takes [locks](Locks) on [targets](Target) as it works, and [lets all
//! go](Locks::release) when it has ended. A target is any key of a tree, present or not, or the
//! tree's end: with these, a tree can lock what a transaction did *not* find by locking the next
//! key (ARIES/KVL, Mohan, VLDB 1990).
//!
//! - **Modes.** Any number of owners have a lock [shared](Mode::Shared), or one has it
//!   [exclusively](Mode::Exclusive). An owner that has it shared and asks for it exclusively
//!   upgrades it.
//! - **Counts.** Each lock is counted, by owner, target and mode. [`unlock`](Locks::unlock) takes
//!   one back, and the owner keeps the target in the strongest mode of which it has one left. So a
//!   lock of instant duration neither ends nor weakens one that is to last, in whatever order they
//!   were taken.
//! - **Order.** First come, first served, for [`try_lock`](Locks::try_lock) too: no request passes
//!   one that waits. But an upgrade comes before those that wait for a new lock: they wait for what
//!   it has anyway.
//! - **Deadlocks** are found when they arise: a request that would close a circle of owners that
//!   wait for each other fails at once, and names them. There is no other cause for that error, and
//!   no circle that is not found.
//!
//! - **Marks.** Whoever lets locks go can leave a [mark](Locks::release_marked), and those that come
//!   after it learn of [it](Locks::seen).
//!
//! One mutex guards all locks. Nothing is done with it but to look up some names, and the graph of
//! who waits for whom stands still while it is searched. With a mutex for each part of the targets,
//! a request that waits would have to take them all for that.

mod circle;
mod lock;
mod marks;
mod name;
mod table;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

pub use self::target::{Mode, Target};

use self::lock::Turn;
use self::table::{Placed, Table};
use crate::error::{Error, Result};
use crate::sabotage::{self, Bug};
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// How many locks are let go at a time: others wait for no more than that.
const BATCH: usize = 256;

/// The locks of some trees. See the [module](self).
///
/// An owner is any number that stands for one transaction until that
/// [lets its locks go](Locks::release). It is used by one thread at a time; the calls say what
/// becomes of one that is not.
#[derive(Debug)]
pub struct Locks {
    table: Mutex<Table>,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks::new()
    }
}

impl Locks {
    /// No locks yet, and no limit.
    #[must_use]
    pub fn new() -> Locks {
        Locks::with_limit(usize::MAX)
    }

    /// An owner may have locks on so many targets, waited for ones included. A lock takes about 150
    /// bytes and the key's length.
    #[must_use]
    pub fn with_limit(limit: usize) -> Locks {
        Locks { table: Mutex::new(Table::new(limit)) }
    }

    /// Takes a lock if that is possible without waiting. `false`: it is not, and nothing was
    /// changed.
    ///
    /// # Errors
    /// [`Error::TooManyLocks`].
    pub fn try_lock(&self, owner: u64, target: Target<'_>, mode: Mode) -> Result<bool> {
        let placed = self.table().place(owner, target, mode, false)?;
        Ok(matches!(placed, Placed::Granted))
    }

    /// Takes a lock, and waits for it if others have it. So hold no latch.
    ///
    /// # Errors
    /// - [`Error::Deadlock`]: the owner would wait for itself, by way of others. It has not waited,
    ///   and has the locks that it had: release them, after what they protect was undone.
    /// - [`Error::TooManyLocks`].
    /// - [`Error::InUse`]: another thread waits with the same owner; or one has
    ///   [released](Locks::release) it while this one waited. This one then has no lock.
    pub fn lock(&self, owner: u64, target: Target<'_>, mode: Mode) -> Result<()> {
        self.wait(owner, target, mode, None).map(|_| ())
    }

    /// As [`lock`](Locks::lock), but waits no longer than until then. `false`: the lock was not to
    /// be had by then, and nothing was changed.
    ///
    /// # Errors
    /// As for [`lock`](Locks::lock).
    pub fn lock_until(&self, owner: u64, target: Target<'_>, mode: Mode, deadline: Instant) -> Result<bool> {
        self.wait(owner, target, mode, Some(deadline))
    }

    /// Whether a lock is to be had without waiting: it is as if it was taken for an instant. What
    /// others may take after that is the caller's to know.
    pub(crate) fn admits(&self, owner: u64, target: Target<'_>, mode: Mode) -> bool {
        self.table().admits(owner, target, mode)
    }

    /// Takes one lock back that was taken in this mode, before the end of the transaction: one of
    /// instant duration. `false`: the owner has none in this mode on this target, and nothing was
    /// changed.
    pub fn unlock(&self, owner: u64, target: Target<'_>, mode: Mode) -> bool {
        let mut ended = Vec::new();
        let was_there = self.table().unlock(owner, target, mode, &mut ended);
        tell(&ended);
        was_there
    }

    /// Takes all locks of an owner back. If another thread waits with this owner, it gets an error.
    pub fn release(&self, owner: u64) {
        self.release_marked(owner, 0);
    }

    /// As [`release`](Locks::release), and leaves a mark on what the owner had exclusively: where
    /// its commit is in the log, say. [`seen`](Locks::seen) tells it to those that lock it next.
    pub fn release_marked(&self, owner: u64, mark: u64) {
        loop {
            let mut ended = Vec::new();
            let is_more = self.table().release(owner, mark, BATCH, &mut ended);
            tell(&ended);
            if !is_more {
                return;
            }
        }
    }

    /// The highest mark that was on anything when the owner got its locks, or a higher one: targets
    /// share marks. 0: there was none, or it has no locks.
    #[must_use]
    pub fn seen(&self, owner: u64) -> u64 {
        self.table().seen(owner)
    }

    fn wait(&self, owner: u64, target: Target<'_>, mode: Mode, deadline: Option<Instant>) -> Result<bool> {
        let mut table = self.table();
        let Some(turn) = begin(&mut table, owner, target, mode)? else { return Ok(true) };
        loop {
            if let Some(&is_granted) = turn.is_granted.get() {
                return if is_granted { Ok(true) } else { Err(Error::InUse { owner }) };
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            table = match left {
                None => turn.came.wait(table).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => {
                    let mut ended = Vec::new();
                    table.withdraw(owner, &mut ended);
                    drop(table);
                    tell(&ended);
                    return Ok(false);
                }
                Some(left) => turn.came.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// No call panics with the table half changed, so a panic elsewhere leaves it as it should be.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks for a lock. `None`: it is there. Otherwise the owner waits.
fn begin(table: &mut Table, owner: u64, target: Target<'_>, mode: Mode) -> Result<Option<Arc<Turn>>> {
    let Placed::Queued(turn) = table.place(owner, target, mode, true)? else { return Ok(None) };
    match circle::through(table, owner).filter(|_| !sabotage::has(Bug::CircleUnseen)) {
        None => Ok(Some(turn)),
        Some(owners) => {
            let mut ended = Vec::new();
            table.withdraw(owner, &mut ended);
            debug_assert!(ended.is_empty(), "others stand as they stood before");
            Err(Error::Deadlock { owners })
        }
    }
}

/// Wakes threads whose wait has ended. Without the mutex, which they take next.
fn tell(ended: &[Arc<Turn>]) {
    if !sabotage::has(Bug::GrantUntold) {
        ended.iter().for_each(|turn| turn.came.notify_one());
    }
}
