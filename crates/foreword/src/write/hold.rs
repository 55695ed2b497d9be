//! What is kept: holds, each with its limit, and retention.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::files::outside::Outside;
use crate::files::segment::now_micros;
use crate::format::{HOLD_NAME_MAX, HOLDS_MAX};
use crate::limit::{Hold, Holds, Limit};
use crate::read::chain::Source;
use crate::recovery::Entry;
use crate::write::assemble::Urgency;
use crate::write::commit::{Shared, State};
use crate::{Error, Lsn, Result};

/// The time that ages are counted from: does not jump while the log is open.
#[derive(Debug)]
pub(crate) struct Clock {
    opened: Instant,
    /// When that was, in microseconds since 1970.
    micros: u64,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { opened: Instant::now(), micros: now_micros() }
    }

    pub(crate) fn now(&self) -> u64 {
        self.micros.saturating_add(self.opened.elapsed().as_micros() as u64)
    }
}

/// The end of a log, as limits see it.
struct Horizon<'a> {
    /// Its segments, in order, the last of which is in use.
    chain: &'a [Entry],
    /// The bytes of all its records, and the time.
    bytes: u64,
    now: u64,
    /// When segments were begun that were since the log was opened, by the same clock.
    begun: &'a BTreeMap<u64, u64>,
}

impl Horizon<'_> {
    /// When a segment was begun: what its LINK says by the wall clock may have jumped since.
    fn begun(&self, entry: &Entry) -> u64 {
        self.begun.get(&entry.epoch).copied().unwrap_or(entry.time)
    }

    /// Where what is kept begins: at the last segment that has enough in it and behind it, or that was begun long enough ago.
    fn keeps_from(&self, limit: &Limit) -> Lsn {
        let mut begun = self.now;
        let last = self.chain.iter().rev().find(|entry| {
            // (What was written while the clock stood ahead is as old as what came next.)
            begun = begun.min(self.begun(entry));
            limit.bytes.is_some_and(|bytes| self.bytes.saturating_sub(entry.bytes) >= bytes)
                || limit.age.is_some_and(|age| u128::from(self.now - begun) > age.as_micros())
        });
        last.or(self.chain.first()).map_or(Lsn::FIRST, |entry| entry.first_lsn)
    }

    /// When the first segment will be too old.
    fn due_in(&self, limit: &Limit) -> Option<Duration> {
        let begun = self.chain.iter().skip(1).map(|entry| self.begun(entry)).min()?;
        let left = limit.age?.saturating_sub(Duration::from_micros(self.now.saturating_sub(begun)));
        Some(left.saturating_add(Duration::from_millis(1)))
    }

    /// Where a log starts whose owner drops what comes before an LSN, as far as the holds let it.
    fn start(&self, before: Lsn, holds: &Holds) -> Lsn {
        let keeps = |hold: &Hold| if hold.limit.is_none() { hold.lsn } else { hold.lsn.max(self.keeps_from(&hold.limit)) };
        holds.values().map(keeps).fold(before, Lsn::min)
    }
}

/// What is to be done about retention.
pub(crate) enum Retention {
    /// What comes before is to be dropped, as far as holds let it.
    Drop(Lsn),
    /// Nothing before that.
    At(Option<Instant>),
}

impl Shared {
    fn horizon<T>(&self, state: &State, look: impl FnOnce(&Horizon<'_>) -> T) -> T {
        let chain = self.chain();
        look(&Horizon { chain: &chain.entries, bytes: state.assembler.next().bytes, now: self.clock.now(), begun: &state.begun })
    }

    /// Where the log is to start when what comes before an LSN is dropped.
    pub(crate) fn start_for(&self, state: &State, before: Lsn) -> Lsn {
        self.horizon(state, |end| end.start(before, &state.control.holds)).max(state.control.start)
    }

    pub(crate) fn retention(&self, state: &State) -> Retention {
        let limit = &self.options.retain;
        if limit.is_none() || state.failed.is_some() {
            return Retention::At(None);
        }
        self.horizon(state, |end| {
            let before = end.keeps_from(limit);
            // (Whether holds let it, `HOLDS` says, too.)
            if before > state.control.start {
                return Retention::Drop(before);
            }
            Retention::At(end.due_in(limit).and_then(|time| Instant::now().checked_add(time)))
        })
    }

    pub(crate) fn hold(&self, name: &str, lsn: Lsn, limit: Option<Limit>) -> Result<()> {
        check_name(name)?;
        self.change_holds(|start, holds| {
            let hold = place(name, lsn, limit, start, holds)?;
            holds.insert(name.to_owned(), hold);
            Ok(())
        })
    }

    pub(crate) fn release(&self, name: &str) -> Result<bool> {
        self.change_holds(|_, holds| Ok(holds.remove(name).is_some()))
    }

    /// Changes the holds, of which those are that other processes have placed: durably, if that makes a difference. What the change says.
    fn change_holds<T>(&self, change: impl FnOnce(Lsn, &mut Holds) -> Result<T>) -> Result<T> {
        let _changing = self.one_at_a_time()?;
        let mut outside = self.outside()?;
        let mut state = self.open_state()?;
        let start = state.control.start;
        let before = state.control.holds.clone();
        outside.iter().for_each(|outside| outside.apply(&mut state.control.holds));
        let changed = change(start, &mut state.control.holds);
        if changed.is_err() {
            state.control.holds = before;
            return changed;
        }
        // (Where the log says so already, others may have asked for something else.)
        if state.control.holds == before {
            drop(state);
        } else {
            self.mark(state, Urgency::Mark).inspect_err(|_| self.lock().control.holds = before)?;
        }
        outside.iter_mut().try_for_each(Outside::clear)?;
        changed
    }

    /// What other processes ask for. None, if there is no file, and none can be made (on a full disk): then they can ask for nothing, either.
    pub(crate) fn outside(&self) -> Result<Option<Outside>> {
        drop(self.open_state()?); // A log that has failed asks the disk for nothing.
        self.attempt("look at the holds of other processes", &self.dir.path, || match self.dir.outside(self.log) {
            Err(Error::Io { .. } | Error::NoSpace { .. }) if self.dir.has_no_outside() => Ok(None),
            outside => outside.map(Some),
        })
    }

    /// The holds, with those that others have placed; without those where the disk asks.
    pub(crate) fn holds(&self) -> Holds {
        let holds = self.peek().map(|state| state.control.holds.clone()).unwrap_or_default();
        if self.may_wait().is_err() {
            return holds;
        }
        let look = || Ok(self.dir.with_outside(self.log, holds.clone()));
        self.attempt("look at the holds of other processes", &self.dir.path, look).unwrap_or(holds)
    }
}

/// The hold that is to have a name, where a log starts and these are there.
pub(crate) fn place(name: &str, lsn: Lsn, limit: Option<Limit>, start: Lsn, holds: &Holds) -> Result<Hold> {
    let lsn = if lsn == Lsn::ZERO { start } else { lsn };
    let before = holds.get(name);
    let gone = before.filter(|hold| hold.is_lost(start)).map(|hold| hold.lsn).or((lsn < start).then_some(lsn));
    if let Some(lsn) = gone {
        return Err(Error::Dropped { lsn, start });
    }
    if before.is_none() && holds.len() >= HOLDS_MAX {
        return Err(Error::Invalid { what: "holds", why: format!("there are {HOLDS_MAX} already: release one") });
    }
    let limit = limit.or(before.map(|hold| hold.limit)).unwrap_or_default();
    Ok(Hold { lsn, limit: limit.as_stored() })
}

pub(crate) fn check_name(name: &str) -> Result<()> {
    if (1..=HOLD_NAME_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(Error::Invalid { what: "the hold's name", why: format!("1 to {HOLD_NAME_MAX} bytes, not {}", name.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_before_what_was_written_and_an_age_without_end_are_no_panic() {
        let entry = |epoch, time| Entry { epoch, first_lsn: Lsn(epoch), bytes: epoch * 100, time, end: None };
        let chain = [entry(1, 50), entry(2, 90), entry(3, 95)];
        for now in [0, 90, u64::MAX] {
            let horizon = Horizon { chain: &chain, bytes: 400, now, begun: &BTreeMap::new() };
            assert_eq!(horizon.keeps_from(&Limit::age(Duration::MAX)), Lsn(1));
            assert!(horizon.due_in(&Limit::age(Duration::MAX)).is_some());
        }
    }

    /// The clock stood at 1,000 s, and was set back to 100 s when the second segment was full, or ahead to 9,000 s.
    #[test]
    fn what_is_written_after_the_clock_was_set_is_as_old_as_it_is() {
        let second = 1_000_000;
        for wall in [100, 9_000] {
            let entry = |epoch, time| Entry { epoch, first_lsn: Lsn(epoch), bytes: 0, time: time * second, end: None };
            let chain = [entry(1, 900), entry(2, 1_000), entry(3, wall), entry(4, wall + 10)];
            let begun = BTreeMap::from([(3, 1_010 * second), (4, 1_020 * second)]);
            let at = |now: u64| Horizon { chain: &chain, bytes: 0, now: now * second, begun: &begun };
            let limit = Limit::age(Duration::from_secs(60));
            assert_eq!([at(1_030), at(1_061), at(1_071), at(1_081)].map(|end| end.keeps_from(&limit)), [1, 2, 3, 4].map(Lsn));
            assert_eq!(at(1_030).due_in(&limit), Some(Duration::from_millis(30_001)));
        }
    }
}
