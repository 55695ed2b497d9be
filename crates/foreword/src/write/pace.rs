//! When to flush, and how many committers to wait for. Numbers only: no I/O, no clock, no lock.
//!
//! If each flush begins as soon as it can, threads that commit in a loop fall into cohorts that
//! wait for each other's flush. So a leader waits a moment for the threads that the last flush has
//! woken, and flushes for all. Where there are so many that waking them takes longer than a flush,
//! it begins with those that have come meanwhile. Then waiting committers do not sleep: each yields
//! its processor to the others until its record is durable, unless other work needs the processors.
//! How long a flush takes, and how soon one committer follows another, is measured.

/// A leader waits no longer than this for the next committer, however long a flush takes: 1 ms. A
/// thread that was woken takes far less to come.
const PATIENCE_MAX: u64 = 1_000_000;

/// The processor time that it takes to wake one committer: 8 µs, measured as what an empty group
/// commit takes for each of 64 threads (docs/PERFORMANCE.md).
const WAKING: u64 = 8_000;

/// A committer that yields its processor, and does not have it back after so long, has yielded it
/// to other work: 1 ms, or as long as all committers need for a turn each.
const ROUND_MIN: u64 = 1_000_000;

/// After a leader has waited for others in vain, leaders do not wait for at least and at most so
/// many flushes.
const COHORT_OFF: [u32; 2] = [2, 64];

/// After other work was seen to need the processors, committers sleep for at least and at most so
/// many flushes.
const TURNS_OFF: [u32; 2] = [16, 4096];

/// All times are in nanoseconds, about the median; 0 is unknown.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// How many threads commit at once, as far as seen: those that wait, and those whose flush is
    /// running.
    committers: u32,
    /// A leader has waited for others in vain.
    cohort_off: Pause,
    /// What a flush takes.
    flush: u64,
    /// From one committer to the next, while a leader waits for them.
    between: u64,
    /// What it takes to wake all threads that commit at once.
    waking: u64,
    /// Other work needed the processors: committers sleep, though they are many.
    turns_off: Pause,
}

/// Something did not pay, and is left alone for so many flushes more: twice as many as the last
/// time.
#[derive(Debug, Default)]
struct Pause {
    left: u32,
    last: u32,
}

impl Pause {
    fn is_over(&self) -> bool {
        self.left == 0
    }

    fn again(&mut self, [least, most]: [u32; 2]) {
        self.last = (2 * self.last).clamp(least, most);
        self.left = self.last;
    }
}

impl Pace {
    /// How many committers the next flush waits for.
    pub(crate) fn share(&self) -> u32 {
        if !self.cohort_off.is_over() {
            return 0;
        }
        // Not for more than come during a flush: the next flush can begin with them just when this
        // one ends.
        let meanwhile = self.flush.checked_div(self.between).map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX).max(1));
        self.committers.min(meanwhile)
    }

    /// How long it waits for the next of them: half a flush. (For all of them: twice as long.)
    pub(crate) fn patience(&self) -> u64 {
        (self.flush / 2).min(PATIENCE_MAX)
    }

    /// Whether committers take turns on the processors until they are durable, rather than sleep:
    /// where waking so many costs more than what all processors could idle for during a flush.
    pub(crate) fn takes_turns(&self, processors: impl FnOnce() -> usize) -> bool {
        let may = self.turns_off.is_over() && self.flush > 0;
        // (One processor first: to ask how many there are takes time, the first time.)
        may && self.waking >= self.flush && self.waking >= self.flush.saturating_mul(processors() as u64)
    }

    /// Within what time each of them has had its turn, and how long one goes on before it sleeps
    /// after all: then the disk stalls, or the leader waits for a processor, and gets one that
    /// sleepers leave. (The flush under way, its own, and gathering for both take less.)
    pub(crate) fn turns(&self) -> [u64; 2] {
        [self.waking.max(ROUND_MIN), self.flush.saturating_mul(10).max(2 * self.waking)]
    }

    /// A committer that took turns did not get its processor back soon, or has waited for too long:
    /// other work needs it. For a while committers sleep, and for longer each time.
    pub(crate) fn crowded_out(&mut self) {
        if self.turns_off.is_over() {
            self.turns_off.again(TURNS_OFF);
        }
    }

    /// A leader's wait has ended: so many committers came in such a time, and so many wait now.
    /// Where they rarely come, leaders rarely wait.
    pub(crate) fn waited(&mut self, came: u32, nanos: u64, waiting: u32) {
        let share = self.share();
        if waiting < share {
            self.committers = waiting;
        } else if came > 0 {
            follow(&mut self.between, nanos / u64::from(came));
        }
        if 2 * waiting > share {
            self.cohort_off = Pause::default();
        } else {
            self.cohort_off.again(COHORT_OFF);
        }
    }

    /// A flush begins.
    pub(crate) fn began(&mut self) {
        if self.turns_off.is_over() {
            // Turns go well: forget slowly how long they were left alone.
            self.turns_off.last -= self.turns_off.last.div_ceil(64);
        }
        for pause in [&mut self.cohort_off, &mut self.turns_off] {
            pause.left = pause.left.saturating_sub(1);
        }
    }

    /// A flush took so long. It was for so many committers, and so many wait for the next. (Only
    /// here are all of them seen: the next flush begins without those that are late.)
    pub(crate) fn ended(&mut self, nanos: u64, members: u32, waiting: u32) {
        self.committers = self.committers.max(members + waiting);
        follow(&mut self.flush, nanos);
        follow(&mut self.waking, u64::from(members + waiting) * WAKING);
    }
}

/// Towards the median, so that a disk that stalls now and then counts for no more than that; and
/// soon back from one that was seen first.
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

    /// Threads that commit in a loop, on a disk and on processors that take the times given: how
    /// many committers each flush was for.
    fn closed_loop(pace: &mut Pace, committers: u32, [flush, between]: [u64; 2], flushes: usize) -> Vec<u32> {
        let mut taken = Vec::new();
        for _ in 0..flushes {
            let share = pace.share();
            // Committers that the leader does not wait for are not there yet.
            let members = committers.min(share.max(1));
            if share > 1 {
                pace.waited(members - 1, u64::from(members - 1) * between, members);
            }
            pace.began();
            pace.ended(flush, members, committers - members);
            taken.push(members);
        }
        taken
    }

    fn seen(committers: u32) -> Pace {
        Pace { committers, ..Pace::default() }
    }

    #[test]
    fn one_flush_is_for_all() {
        let taken = closed_loop(&mut seen(8), 8, [100_000, 3000], 2000);
        assert!(taken.iter().filter(|&&n| n == 8).count() > 1900, "{taken:?}");
    }

    #[test]
    fn of_very_many_no_more_are_waited_for_than_come_during_a_flush() {
        let mut pace = seen(1000);
        closed_loop(&mut pace, 1000, [150_000, 3000], 100);
        assert_eq!(pace.share(), 50);
    }

    #[test]
    fn a_stall_counts_for_little() {
        let mut pace = Pace::default();
        pace.ended(1_000_000_000, 1, 0);
        (0..20).for_each(|_| pace.ended(100_000, 1, 0));
        assert!(pace.patience() < 100_000, "{pace:?}");
        (0..1000).for_each(|_| pace.ended(500_000_000, 1, 0));
        assert_eq!(pace.patience(), PATIENCE_MAX, "after much was appended and synced as one");
        (0..20).for_each(|_| pace.ended(100_000, 1, 0));
        (0..200).for_each(|i| pace.ended(if i % 4 == 0 { 10_000_000 } else { 100_000 }, 1, 0));
        assert!((50_000..55_000).contains(&pace.patience()), "{pace:?}");
    }

    #[test]
    fn who_is_late_once_is_waited_for_again() {
        let mut pace = seen(8);
        closed_loop(&mut pace, 8, [100_000, 3000], 100);
        pace.waited(6, 60_000, 7); // For the eighth in vain.
        pace.began();
        assert_eq!(pace.share(), 7);
        pace.ended(100_000, 7, 1);
        assert_eq!(pace.share(), 8);
    }

    #[test]
    fn very_many_take_turns_and_few_sleep() {
        let turns = |committers: u64, flush, processors| {
            Pace { flush, waking: committers * WAKING, ..Pace::default() }.takes_turns(|| processors)
        };
        assert!(turns(64, 120_000, 2) && turns(256, 120_000, 2) && turns(2, 1000, 2));
        assert!(!turns(8, 120_000, 2) && !turns(64, 120_000, 8) && !turns(64, 5_000_000, 2));
        assert!(!turns(64, 0, 2), "before anything is known of the disk");
        assert!(!turns(1000, 1000, usize::MAX));
    }

    #[test]
    fn few_sleep_again_after_there_were_many() {
        let mut pace = Pace::default();
        (0..300).for_each(|_| pace.ended(120_000, 64, 0));
        assert!(pace.takes_turns(|| 2), "{pace:?}");
        (0..20).for_each(|_| pace.ended(120_000, 2, 0));
        assert!(!pace.takes_turns(|| 2), "{pace:?}");
    }

    #[test]
    fn who_is_crowded_out_sleeps_for_longer_each_time() {
        let mut pace = Pace { flush: 100_000, waking: 64 * WAKING, ..Pace::default() };
        // (Of many that see it at once only the first counts.)
        let asleep = |pace: &mut Pace| {
            (0..30).for_each(|_| pace.crowded_out());
            let mut flushes = 0;
            while !pace.takes_turns(|| 2) {
                pace.began();
                flushes += 1;
            }
            flushes
        };
        assert_eq!([asleep(&mut pace), asleep(&mut pace), asleep(&mut pace)], [16, 32, 64]);
        (0..10).for_each(|_| _ = asleep(&mut pace));
        assert_eq!(asleep(&mut pace), 4096);
        (0..1000).for_each(|_| pace.began());
        assert_eq!(asleep(&mut pace), 16, "it went well for long");
    }

    #[test]
    fn who_waits_in_vain_waits_rarely() {
        let mut pace = Pace::default();
        pace.ended(100_000, 1, 0);
        let mut waits = 0;
        for _ in 0..1000 {
            // Now and then four meet by chance.
            pace.began();
            pace.ended(100_000, 4, 0);
            if pace.share() > 1 {
                waits += 1;
                pace.waited(0, 50_000, 1);
            }
        }
        assert!(waits < 50, "{waits}");
    }
}
