//! Retention, and where the log may start: what limits and holds keep.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::bug::bug;
use crate::format::{Count, Entry};
use crate::limit::{Hold, Holds, Limit};
use crate::read::source::Source;
use crate::write::inner::LogInner;
use crate::write::state::segments::RETRY_AFTER;
use crate::write::state::{Guard, LogState};
use crate::{Error, Lsn};

/// The end of a log, as limits see it.
struct Horizon<'a> {
    /// Its segments, in order, the last of which is in use.
    chain: &'a [Entry],
    /// What comes next: its LSN, and the bytes of all records before. And the time.
    next: Count,
    now: u64,
    /// When segments were begun that were since the log was opened, by the same clock.
    begun: &'a BTreeMap<u64, u64>,
}

impl Horizon<'_> {
    /// When a segment was begun, if that is known: what its LINK says by the wall clock may have
    /// jumped since.
    fn begun(&self, entry: &Entry) -> Option<u64> {
        self.begun.get(&entry.epoch).copied().or(entry.time)
    }

    /// The segments that have records. The newest of them is kept, though the log may have gone on
    /// behind it with nothing but marks.
    fn with_records(&self) -> &[Entry] {
        &self.chain[..self.chain.partition_point(|entry| entry.first_lsn < self.next.lsn)]
    }

    /// Where what is kept begins: at the last segment that has enough in it and behind it, or that
    /// was begun long enough ago.
    fn keeps_from(&self, limit: &Limit) -> Lsn {
        let mut begun = self.now;
        let last = self.with_records().iter().rev().find(|entry| {
            // (What was written while the clock stood ahead is as old as what came next. Where it is
            // not known, that is the least it can be: what may have to be kept is.)
            begun = begun.min(self.begun(entry).unwrap_or(begun));
            limit.bytes.is_some_and(|bytes| entry.bytes.is_some_and(|before| self.next.bytes.saturating_sub(before) >= bytes))
                || limit.age.is_some_and(|age| u128::from(self.now - begun) > age.as_micros())
        });
        last.or(self.chain.first()).map_or(Lsn::FIRST, |entry| entry.first_lsn)
    }

    /// When the first segment will be too old.
    fn due_in(&self, limit: &Limit) -> Option<Duration> {
        let begun = self.with_records().iter().skip(1).filter_map(|entry| self.begun(entry)).min()?;
        let left = limit.age?.saturating_sub(Duration::from_micros(self.now.saturating_sub(begun)));
        Some(left.saturating_add(Duration::from_millis(1)))
    }

    /// Where a log that starts at `start` is to, when what comes before an LSN is dropped, as far as
    /// the holds let it.
    fn start(&self, start: Lsn, before: Lsn, holds: &Holds) -> Lsn {
        bug!(ForgetHolds, return before);
        let keeps = |hold: &Hold| {
            let lsn = hold.keeps(start)?;
            Some(if hold.limit.is_none() { lsn } else { lsn.max(self.keeps_from(&hold.limit)) })
        };
        holds.values().filter_map(keeps).fold(before, Lsn::min)
    }
}

/// What is to be done about retention.
pub(crate) enum Retention {
    /// What comes before is to be dropped now, as far as holds let it.
    Drop(Lsn),
    /// Nothing before that.
    At(Option<Instant>),
}

impl LogInner {
    fn horizon<T>(&self, state: &LogState, look: impl FnOnce(&Horizon<'_>) -> T) -> T {
        let chain = self.chain();
        let (next, now) = (state.assembler.next(), self.clock.now());
        look(&Horizon { chain: &chain.entries, next, now, begun: &state.ages.begun })
    }

    /// Where the log is to start when what comes before an LSN is dropped.
    pub(crate) fn start_for(&self, state: &LogState, before: Lsn) -> Lsn {
        let control = &state.change.control;
        self.horizon(state, |end| end.start(control.start, before, &control.holds)).max(control.start)
    }

    pub(crate) fn retention(&self, state: &mut LogState, now: Instant) -> Retention {
        let limit = &self.options.retain;
        if limit.is_none() || state.life.has_failed() {
            return Retention::At(None);
        }
        let (before, due_in, awaits_record) =
            self.horizon(state, |end| (end.keeps_from(limit), end.due_in(limit), end.with_records().len() < end.chain.len()));
        // With its first record the segment before may go, by and by: no rotation says so.
        state.ages.awaits_record = awaits_record;
        if before <= state.change.control.start {
            return Retention::At(due_in.and_then(|time| now.checked_add(time)));
        }
        // (Whether holds let it, the file `HOLDS` says, too.)
        match state.ages.retry_at {
            // A change that is under way may take its time, and other logs wait for this thread. It
            // kicks when it ends.
            _ if state.change.by.is_some() => Retention::At(None),
            Some(at) if at > now => Retention::At(Some(at)),
            _ => Retention::Drop(before),
        }
    }

    /// Drops what comes before an LSN. No other thread changes the log.
    pub(crate) fn retain(&self, mut state: Guard<'_>, before: Lsn) {
        let start = state.change.control.start;
        let changing = self.begin_change(&mut state);
        drop(state);
        let dropped = self.drop_front(before, changing);
        if !dropped.as_ref().is_ok_and(|&now| now > start) {
            // It failed, or a hold is in the way: of another process, maybe, which cannot kick when
            // it moves it.
            self.lock().ages.retry_at = Some(Instant::now() + RETRY_AFTER);
        }
        match dropped {
            // That the log was closed is no error, and the task that syncs reports how it failed.
            Ok(_) | Err(Error::Closed | Error::Poisoned(_)) => {}
            Err(error) => self.report(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_before_what_was_written_and_an_age_without_end_are_no_panic() {
        let entry = |epoch, time| Entry { epoch, first_lsn: Lsn(epoch), bytes: Some(epoch * 100), time: Some(time), end: None };
        let chain = [entry(1, 50), entry(2, 90), entry(3, 95)];
        for now in [0, 90, u64::MAX] {
            let horizon = Horizon { chain: &chain, next: Count { lsn: Lsn(4), bytes: 400 }, now, begun: &BTreeMap::new() };
            assert_eq!(horizon.keeps_from(&Limit::age(Duration::MAX)), Lsn(1));
            assert!(horizon.due_in(&Limit::age(Duration::MAX)).is_some());
        }
    }

    /// The clock stood at 1,000 s, and was set back to 100 s when the second segment was full, or
    /// ahead to 9,000 s.
    #[test]
    fn what_is_written_after_the_clock_was_set_is_as_old_as_it_is() {
        let second = 1_000_000;
        for wall in [100, 9_000] {
            let entry =
                |epoch, time| Entry { epoch, first_lsn: Lsn(epoch), bytes: Some(0), time: Some(time * second), end: None };
            let chain = [entry(1, 900), entry(2, 1_000), entry(3, wall), entry(4, wall + 10)];
            let begun = BTreeMap::from([(3, 1_010 * second), (4, 1_020 * second)]);
            let at =
                |now: u64| Horizon { chain: &chain, next: Count { lsn: Lsn(5), bytes: 0 }, now: now * second, begun: &begun };
            let limit = Limit::age(Duration::from_secs(60));
            assert_eq!([at(1_030), at(1_061), at(1_071), at(1_081)].map(|end| end.keeps_from(&limit)), [1, 2, 3, 4].map(Lsn));
            assert_eq!(at(1_030).due_in(&limit), Some(Duration::from_millis(30_001)));
        }
    }
}
