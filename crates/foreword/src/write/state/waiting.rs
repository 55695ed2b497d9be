//! What is told when records become durable: futures, and the owner's hooks.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use crate::Lsn;
use crate::bug::bug;
use crate::format::{LINK_BLOCK, Position, Promise};
use crate::sync::ThreadId;

/// Wakers of futures that wait for a record, by its LSN and the future's id. A future adds and
/// removes its own; the leader of a flush takes those whose records have become durable. They are
/// woken, and dropped, without the lock.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    kept: BTreeMap<(Lsn, u64), Waker>,
    last_id: u64,
}

impl Wakers {
    /// Keeps a waker under its id, or a new one. What it replaces is to be dropped without the
    /// lock.
    pub(in crate::write) fn keep(&mut self, lsn: Lsn, id: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let id = *id.get_or_insert_with(|| {
            self.last_id += 1;
            self.last_id
        });
        self.kept.insert((lsn, id), waker)
    }

    pub(in crate::write) fn forget(&mut self, lsn: Lsn, id: u64) -> Option<Waker> {
        let forgotten = self.kept.remove(&(lsn, id));
        bug!(ForgetOthers, self.kept.retain(|(other, _), _| *other != lsn));
        forgotten
    }

    /// Takes those that wait for records up to this one.
    #[inline]
    pub(in crate::write) fn take_up_to(&mut self, lsn: Lsn) -> BTreeMap<(Lsn, u64), Waker> {
        let mut taken = self.take_all();
        if !taken.is_empty() {
            self.kept = taken.split_off(&(lsn.next(), 0));
        }
        taken
    }

    pub(in crate::write) fn take_all(&mut self) -> BTreeMap<(Lsn, u64), Waker> {
        std::mem::take(&mut self.kept)
    }

    pub(in crate::write) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether a future waits for a record behind this one.
    pub(super) fn any_beyond(&self, lsn: Lsn) -> bool {
        self.kept.last_key_value().is_some_and(|((last, _), _)| *last > lsn)
    }
}

/// What a hook is to be told.
pub(in crate::write) enum News {
    Durable(Lsn),
    Rotated(u64, Lsn),
}

/// What the owner's hooks were told. Owned by the thread that tells them (`telling`), one at a
/// time; a rotation adds its segment.
#[derive(Debug)]
pub(crate) struct Hooks {
    /// Up to this record.
    told: Lsn,
    /// Segments of which they are still to be told: epoch and first LSN.
    pub(in crate::write) rotated: VecDeque<(u64, Lsn)>,
    pub(in crate::write) telling: Option<ThreadId>,
}

impl Hooks {
    pub(super) fn new(told: Lsn) -> Hooks {
        Hooks { told, rotated: VecDeque::new(), telling: None }
    }

    /// The log was cut behind this record: those that come next are told anew.
    pub(in crate::write) fn cut_to(&mut self, lsn: Lsn) {
        self.told = self.told.min(lsn);
    }

    /// Whether the next segment that is to be told of has come to the disk: its LINK, and so the
    /// SEAL of the one before.
    pub(in crate::write) fn has_rotated(&self, durable: Promise) -> bool {
        self.rotated.front().is_some_and(|&(epoch, _)| Position::new(epoch, LINK_BLOCK) < durable.position)
    }

    pub(in crate::write) fn has_durable(&self, durable: Promise) -> bool {
        durable.lsn > self.told
    }

    /// A segment comes before the records in it.
    pub(in crate::write) fn take(&mut self, durable: Promise) -> News {
        if self.has_rotated(durable)
            && let Some((epoch, first)) = self.rotated.pop_front()
        {
            return News::Rotated(epoch, first);
        }
        self.told = durable.lsn;
        News::Durable(self.told)
    }
}
