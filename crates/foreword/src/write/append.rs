//! Appending: how units get their place, and what an append waits for.

use crate::assemble::copying::Copier;
use crate::assemble::payload::Payload;
use crate::assemble::room::Urgency;
use crate::assemble::{NeedSegments, Placement};
use crate::bug::bug;
use crate::strangers::AtWork;
use crate::write::circle::Wait;
use crate::write::inner::LogInner;
use crate::write::runtime::Lane;
use crate::write::state::{Guard, LogState, Unit};
use crate::{Error, Lsn, Result};

/// Whole frames are written, unsynced, when so many bytes of them have gathered.
const WRITE_AT: usize = 1 << 20;
/// Threads that write so at once: the background one, and an appender that is faster than it.
const WRITERS: usize = 2;
/// So often an append that does not wait tries to take the lock: for some microseconds.
const LOCK_TRIES: usize = 100;

impl LogInner {
    /// Appends a unit, waiting for room if there is none. The lock is still held when it returns,
    /// so that a caller that goes on to wait for the unit misses no change.
    #[inline]
    pub(crate) fn append(&self, unit: Payload<'_>, urgency: Urgency) -> Result<(Guard<'_>, Unit)> {
        self.check_unit(unit)?;
        let mut state = self.open_state()?;
        loop {
            if state.change.cutting {
                state = self.wait_for_cut(state)?;
            }
            match self.place(&mut state, unit, urgency) {
                Ok(copier) => {
                    let appended = state.last_unit(unit.count());
                    return Ok((self.unlock_and_copy(state, unit, copier), appended));
                }
                Err(NeedSegments(need)) => state = self.unlock_and_obtain(state, need, urgency)?,
            }
        }
    }

    /// Waits until no cut is under way.
    #[cold]
    fn wait_for_cut<'a>(&'a self, mut state: Guard<'a>) -> Result<Guard<'a>> {
        while state.change.cutting {
            self.dir.check_process()?;
            self.may_wait()?;
            let wait = |by| Wait::on(by, self.change()).ok_or(Error::Busy);
            let _wait = state.change.by.map(wait).transpose()?;
            state = self.wait_changed(state);
            state.life.usable()?;
        }
        Ok(state)
    }

    /// Appends copies of another log's records, each a unit: with their times, in microseconds, and
    /// from this LSN on, which must be the next.
    pub(crate) fn append_copies(&self, mut next: Lsn, mut copies: &[(u64, &[u8])]) -> Result<Guard<'_>> {
        copies.iter().try_for_each(|(_, record)| self.check_unit(Payload::records(&[*record])))?;
        let mut state = self.open_state()?;
        while !copies.is_empty() {
            state = self.wait_for_cut(state)?;
            let there = state.assembler.next_lsn();
            if there != next {
                let why = format!("record {next} is to be copied, and the next of this log is {there}");
                return Err(Error::Invalid { what: "copies", why });
            }
            // What other threads append between them has a time of its own: it is set only while the
            // lock is held.
            let stopped = loop {
                let Some(&(time, record)) = copies.first() else { break None };
                state.assembler.written_at(time);
                let unit = [record];
                let unit = Payload::records(&unit);
                match self.place(&mut state, unit, Urgency::Ordinary) {
                    Ok(copier) => {
                        (next, copies) = (next.next(), &copies[1..]);
                        if copier.is_some() {
                            break Some(Ok((record, copier)));
                        }
                    }
                    Err(need) => break Some(Err(need)),
                }
            };
            state.assembler.written_at(0);
            state = match stopped {
                None => break,
                Some(Ok((record, copier))) => self.unlock_and_copy(state, Payload::records(&[record]), copier),
                Some(Err(NeedSegments(need))) => self.unlock_and_obtain(state, need, Urgency::Ordinary)?,
            };
        }
        Ok(state)
    }

    /// Appends a unit, or says [`Error::Busy`] if that has to wait.
    pub(crate) fn try_append(&self, unit: Payload<'_>) -> Result<(Guard<'_>, Unit)> {
        self.check_unit(unit)?;
        let mut state = self.try_lock().ok_or(Error::Busy)?;
        state.life.usable()?;
        if state.change.cutting || state.assembler.placed_bytes() >= self.options.buffer_bytes {
            return Err(Error::Busy);
        }
        match self.place(&mut state, unit, Urgency::Ordinary) {
            Ok(copier) => {
                let appended = state.last_unit(unit.count());
                Ok((self.unlock_and_copy(state, unit, copier), appended))
            }
            Err(NeedSegments(need)) => {
                state.spares.wanted = need;
                self.kick(Lane::Prepare);
                Err(state.spares.why_none())
            }
        }
    }

    /// The lock, if it is free at once, or almost: it is held for microseconds.
    fn try_lock(&self) -> Option<Guard<'_>> {
        (0..LOCK_TRIES).find_map(|_| {
            let state = self.lock_if_free();
            if state.is_none() {
                std::hint::spin_loop();
            }
            state
        })
    }

    /// Whether a unit may be appended.
    #[inline]
    fn check_unit(&self, unit: Payload<'_>) -> Result<()> {
        let framed = if unit.count() > 1 { unit.framed() } else { unit.bytes() };
        if framed > self.options.record_bytes_max {
            return Err(Error::TooLarge { bytes: framed, max: self.options.record_bytes_max });
        }
        if unit.count() == 0 {
            return Err(Error::Invalid { what: "batch", why: "it has no records".into() });
        }
        Ok(())
    }

    /// Gives a unit its place and LSNs, and counts it.
    #[inline(always)]
    fn place(&self, state: &mut LogState, unit: Payload<'_>, urgency: Urgency) -> Result<Option<Box<Copier>>, NeedSegments> {
        let LogState { assembler, spares, change, .. } = state;
        let epoch = assembler.segment().epoch();
        let copier =
            assembler.place_unit(Placement { unit: &unit, urgency, spares: &mut spares.ready, control: &change.control })?;
        if state.assembler.segment().epoch() != epoch {
            self.rotated(state);
            state.spares.wanted = 0;
        }
        state.appended.add(unit);
        let policy = &self.options.sync;
        if state.appended.is_due(policy) {
            state.requests.sync_due = true;
            self.kick(Lane::Sync);
        }
        if state.requests.idle && policy.interval.is_some() {
            state.requests.idle = false;
            self.kick(Lane::Sync);
        }
        Ok(copier)
    }

    /// Copies what is large.
    #[inline]
    fn unlock_and_copy<'a>(&'a self, state: Guard<'a>, unit: Payload<'_>, copier: Option<Box<Copier>>) -> Guard<'a> {
        let Some(copier) = copier else { return state };
        drop(state);
        copier.copy(unit);
        self.lock()
    }

    /// After an append that does not wait for its record: sees to it that what has gathered is
    /// written, if it is much, and that the next segment is prepared. If `at_once`, the background
    /// writes, and this thread only waits where the buffers are full.
    ///
    /// Where no flush is under way, it does not wait for one: the thread that syncs may be in a hook
    /// or a waker, of this log or another, or be this thread. It flushes itself.
    pub(crate) fn settle<'a>(&'a self, mut state: Guard<'a>, at_once: bool) -> Result<()> {
        if state.wants_spare() {
            // (Each flush that ends sees to it, too.)
            self.kick(Lane::Prepare);
        }
        while state.assembler.placed_bytes() >= WRITE_AT {
            state.life.not_failed()?; // (While a large record was copied.)
            let (placed, running) = (state.assembler.placed_bytes(), state.flushes.running().count());
            let mut full = placed >= self.options.buffer_bytes;
            bug!(WaitForHooks, full &= running > 0);
            // A thread that works for the log neither waits for room nor makes it: the flush that
            // it would wait for may be its own.
            let works = AtWork::is_on(self);
            let alone = running == 0 && (full || !self.options.background);
            // The background does not keep up, or has not begun: two are faster.
            let helps = !(at_once && self.options.background)
                && placed >= 2 * WRITE_AT
                && running < WRITERS
                && (running > 0 || state.requests.write_due);
            if (alone || helps) && !works {
                self.dir.check_process()?;
                let sync = at_once && state.wants_sync();
                drop(self.unlock_and_flush(state, sync));
                break;
            }
            // While the background writes, this thread goes on.
            if running == 0 && !std::mem::replace(&mut state.requests.write_due, true) {
                self.kick(Lane::Sync);
            }
            if works || placed < self.options.buffer_bytes {
                break;
            }
            self.dir.check_process()?;
            state = self.wait_changed(state);
            state.life.usable()?;
        }
        Ok(())
    }

    /// After a [`try_append`](LogInner::try_append): as `settle`, but waits for nothing.
    pub(crate) fn settle_later(&self, mut state: Guard<'_>) {
        let full = state.assembler.placed_bytes() >= WRITE_AT;
        if full && !std::mem::replace(&mut state.requests.write_due, true) {
            self.kick(Lane::Sync);
        }
        if state.wants_spare() {
            self.kick(Lane::Prepare);
        }
    }
}
