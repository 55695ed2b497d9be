//! When to fly: how many flushes at once, and for how many committers the next one waits. Numbers only: no I/O, no clock, no lock.
//!
//! Committers in a closed loop that are flushed greedily fall into cohorts that wait for each other's flush. So a flight waits a moment for those whom the
//! last one has woken, and flushes for all. That is best while waking them takes less than a flush. Where it takes longer, since there are many, they are
//! better dealt out to two flights that take turns: while one group wakes up and commits again, the other is in the air, and neither the disk nor the
//! processors idle. How long a flush takes, alone and beside another, and how soon one committer follows another, is measured.

use crate::ablation::{Choice, without};

/// Flushes in the air at once, at most. What a later one covers is acknowledged only after the earlier; the promises make holes harmless.
const LANES_MAX: usize = 2;
/// For the next committer no flight waits longer, however long a flush takes: 1 ms, in which who was woken has long come.
const PATIENCE_MAX: u64 = 1_000_000;
/// After so many flights, the other number of lanes is tried for so many: what was measured may have changed.
const TRY_AFTER: u32 = 512;
const TRY_FOR: u32 = 8;

/// All times are in nanoseconds, about the median; 0 is unknown.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many commit at once, as far as seen: those waiting and those in the air.
    committers: u32,
    /// Others were waited for in vain so many times in a row; so it is not tried for so many flights.
    misses: u32,
    skips: u32,
    /// What a flush takes when it is alone, and beside another.
    alone: u64,
    beside: u64,
    /// From one committer to the next, while a flight waits for them.
    between: u64,
    flights: u32,
}

impl Pace {
    /// How many flights there may be in the air now.
    pub(crate) fn lanes(&self) -> usize {
        if without(Choice::SecondFlight) {
            return 1;
        }
        let waking_half = u64::from(self.committers) * self.between / 2;
        let apart = self.beside < self.alone + waking_half;
        let trying = self.flights % TRY_AFTER >= TRY_AFTER - TRY_FOR;
        if apart != trying { LANES_MAX } else { 1 }
    }

    /// What a flush takes now.
    fn flush(&self) -> u64 {
        if self.lanes() > 1 && self.beside > 0 { self.beside } else { self.alone }
    }

    /// For how many committers the next flight waits, with so many in the air.
    pub(crate) fn share(&self, aloft: u32) -> u32 {
        if self.skips > 0 || without(Choice::Cohort) {
            return 0;
        }
        // More than come while a flush takes are not waited for: the next can leave with them just when this one lands.
        let meanwhile = self.flush().checked_div(self.between).map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX).max(1));
        let rest = self.committers.saturating_sub(aloft);
        self.committers.div_ceil(self.lanes() as u32).min(rest).min(meanwhile)
    }

    /// How long it waits for the next of them: half a flush. (For all of them: twice as long.)
    pub(crate) fn patience(&self) -> u64 {
        (self.flush() / 2).min(PATIENCE_MAX)
    }

    /// The wait has ended: so many came, in such a time, and so many wait now, with so many in the air. Where they rarely come, it is rarely tried.
    pub(crate) fn waited(&mut self, came: u32, nanos: u64, waiting: u32, aloft: u32) {
        let share = self.share(aloft);
        if waiting < share {
            self.committers = waiting + aloft;
        } else if came > 0 {
            follow(&mut self.between, nanos / u64::from(came));
        }
        self.misses = if 2 * waiting > share { 0 } else { (self.misses + 1).min(6) };
        self.skips = if self.misses == 0 { 0 } else { 1 << self.misses };
    }

    /// A flight leaves with so many committers, beside so many in the air.
    pub(crate) fn launched(&mut self, members: u32, aloft: u32) {
        self.see(members + aloft);
        self.skips = self.skips.saturating_sub(1);
        if self.committers > 1 {
            self.flights = self.flights.wrapping_add(1);
        }
    }

    /// A flush took so long; some of it beside another, or alone. So many committers are in the air, with those who have just landed, and so many wait. (Only
    /// here are all of them seen: the next flight leaves without those who are late.)
    pub(crate) fn landed(&mut self, nanos: u64, beside: bool, aloft: u32, waiting: u32) {
        self.see(aloft + waiting);
        follow(if beside { &mut self.beside } else { &mut self.alone }, nanos);
    }

    fn see(&mut self, committers: u32) {
        self.committers = self.committers.max(committers);
    }
}

/// Towards the median, so that a disk that stalls now and then counts for no more than that; and soon back from one that was seen first.
fn follow(value: &mut u64, new: u64) {
    let step = *value / 32;
    *value = match *value {
        0 => new,
        before if new > before => (before + step).min(new),
        before if new < before / 4 => before / 2,
        before => (before - step).max(new),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A closed loop on a disk and on processors that take the times given: how many committers went with each flight.
    fn closed_loop(pace: &mut Pace, committers: u32, [alone, beside, between]: [u64; 3], flights: usize) -> Vec<u32> {
        let mut aloft: Vec<(u32, bool)> = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..flights {
            while aloft.len() >= pace.lanes() {
                let in_air: u32 = aloft.iter().map(|f| f.0).sum();
                let (_, together) = aloft.remove(0);
                pace.landed(if together { beside } else { alone }, together, in_air, committers - in_air);
            }
            let in_air: u32 = aloft.iter().map(|f| f.0).sum();
            let share = pace.share(in_air);
            // Who is not waited for is not there yet.
            let members = (committers - in_air).min(share.max(1));
            if share > 1 {
                pace.waited(members - 1, u64::from(members - 1) * between, members, in_air);
            }
            pace.launched(members, in_air);
            aloft.iter_mut().for_each(|f| f.1 = true);
            aloft.push((members, in_air > 0));
            taken.push(members);
        }
        taken
    }

    fn seen(committers: u32) -> Pace {
        Pace { committers, ..Pace::default() }
    }

    #[test]
    fn while_waking_all_takes_less_than_a_flush_one_flight_is_for_all() {
        let mut pace = seen(8);
        let taken = closed_loop(&mut pace, 8, [100_000, 140_000, 3000], 2000);
        assert!(taken.iter().filter(|&&n| n == 8).count() > 1800, "{taken:?}");
        assert_eq!(pace.lanes(), 1);
    }

    #[test]
    fn where_it_takes_more_two_groups_take_turns() {
        let mut pace = seen(64);
        let taken = closed_loop(&mut pace, 64, [100_000, 140_000, 3000], 2000);
        assert!(taken.iter().filter(|&&n| n == 32).count() > 1800, "{taken:?}");
        assert_eq!(pace.lanes(), 2);
    }

    #[test]
    fn of_very_many_no_more_are_waited_for_than_come_during_a_flush() {
        let mut pace = seen(1000);
        closed_loop(&mut pace, 1000, [100_000, 150_000, 3000], 100);
        assert_eq!(pace.share(0), 50);
    }

    #[test]
    fn a_disk_that_changes_is_noticed() {
        let mut pace = seen(8);
        closed_loop(&mut pace, 8, [100_000, 200_000, 3000], 400);
        assert_eq!(pace.lanes(), 1);
        closed_loop(&mut pace, 8, [100_000, 100_000, 3000], 20 * TRY_AFTER as usize);
        assert_eq!(pace.lanes(), 2);
    }

    #[test]
    fn a_stall_counts_for_little() {
        let mut pace = Pace::default();
        pace.landed(1_000_000_000, false, 1, 0);
        (0..20).for_each(|_| pace.landed(100_000, false, 1, 0));
        assert!(pace.patience() < 100_000, "{pace:?}");
        (0..1000).for_each(|_| pace.landed(500_000_000, false, 1, 0));
        assert_eq!(pace.patience(), PATIENCE_MAX, "after much was appended and synced as one");
        (0..20).for_each(|_| pace.landed(100_000, false, 1, 0));
        (0..200).for_each(|i| pace.landed(if i % 4 == 0 { 10_000_000 } else { 100_000 }, false, 1, 0));
        assert!((50_000..55_000).contains(&pace.patience()), "{pace:?}");
    }

    #[test]
    fn who_is_late_once_is_waited_for_again() {
        let mut pace = seen(8);
        closed_loop(&mut pace, 8, [100_000, 140_000, 3000], 100);
        pace.waited(6, 60_000, 7, 0); // For the eighth in vain.
        pace.launched(7, 0);
        assert_eq!(pace.share(0), 7);
        pace.landed(100_000, false, 7, 1);
        assert_eq!(pace.share(0), 8);
    }

    #[test]
    fn who_waits_in_vain_waits_rarely() {
        let mut pace = Pace::default();
        pace.landed(100_000, false, 1, 0);
        let mut waits = 0;
        for _ in 0..1000 {
            // Now and then four meet by chance.
            pace.launched(4, 0);
            pace.landed(100_000, false, 4, 0);
            if pace.share(0) > 1 {
                waits += 1;
                pace.waited(0, 50_000, 1, 0);
            }
        }
        assert!(waits < 50, "{waits}");
    }
}
