//! Threads that wait for a flush: how many have come, and where they sleep.

use crate::sync::WaitWord;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// As many as [`Slots`] has bits.
const SLOTS: usize = u16::BITS as usize;

/// Changed under the log's lock only, so that no thread that falls asleep misses its flush. The
/// thread that gathers, and those that take turns, read it without.
#[derive(Debug, Default)]
pub(crate) struct Committers {
    /// Those that no flush has taken yet.
    arrived: AtomicU32,
    /// Flushes with a sync that have begun.
    flushes: AtomicU64,
    /// Those that wait for flush `id` sleep on slot `id % SLOTS`.
    slots: [WaitWord; SLOTS],
}

impl Committers {
    pub(super) fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn arrived(&self) -> u32 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(super) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// A flush with a sync begins, and takes all that have come: how many.
    pub(super) fn begin_flush(&self) -> u32 {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.arrived.swap(0, Ordering::Relaxed)
    }

    pub(super) fn slot(&self, flush: u64) -> &WaitWord {
        &self.slots[flush as usize % SLOTS]
    }

    /// Releases those that wait for these flushes, under the lock: the slots in which any sleep,
    /// for [`wake`](Committers::wake).
    #[must_use]
    pub(super) fn release(&self, flushes: Slots) -> Slots {
        let mut asleep = Slots::default();
        flushes.filter(|&slot| self.slots[slot].release()).for_each(|slot| asleep.insert(slot as u64));
        asleep
    }

    /// Wakes them, with the lock or without.
    pub(super) fn wake(&self, asleep: Slots) {
        asleep.for_each(|slot| self.slots[slot].wake_all());
    }
}

/// Some of the slots, a bit each.
#[derive(Default)]
pub(super) struct Slots(u16);

impl Slots {
    pub(super) const ALL: Slots = Slots(u16::MAX);

    /// That of a flush.
    pub(super) fn insert(&mut self, flush: u64) {
        self.0 |= 1 << (flush as usize % SLOTS);
    }
}

impl Iterator for Slots {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (slot < SLOTS).then_some(slot)
    }
}
