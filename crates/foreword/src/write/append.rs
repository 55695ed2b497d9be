//! Appending: how records get their place in frames, and what an append waits for.

use crate::strangers::AtWork;
use crate::sync::thread;
use crate::write::assemble::{NeedSegments, Urgency};
use crate::write::commit::{Guard, Shared, State, Unit};
use crate::write::copying::Copier;
use crate::write::payload::Payload;
use crate::write::runtime::Lane;
use crate::{Error, Result};

/// Whole frames are written, unsynced, when so many bytes of them have gathered.
const WRITE_AT: usize = 1 << 20;
/// Threads that write so at once: the background one, and an appender that is faster than it.
const WRITERS: usize = 2;
/// So often the lock is tried by those who do not wait for it: some microseconds.
const LOCK_TRIES: usize = 100;

impl Shared {
    /// Appends a unit, waiting for room if there is none. The guard is held still, so that who wants to wait for it misses nothing.
    #[inline]
    pub(crate) fn append(&self, unit: Payload<'_>, urgency: Urgency) -> Result<(Guard<'_>, Unit)> {
        self.check_unit(unit)?;
        let mut state = self.open_state()?;
        loop {
            while state.cutting {
                self.dir.check_process()?;
                if AtWork::is_on(self) || state.changing == Some(thread::current().id()) {
                    return Err(Error::Busy);
                }
                state = self.wait_changed(state);
                state.usable()?;
            }
            match self.place(&mut state, unit, urgency) {
                Ok(copier) => {
                    let appended = state.last_unit(unit.count());
                    return Ok((self.copy(state, unit, copier), appended));
                }
                Err(NeedSegments(need)) => state = self.obtain(state, need, urgency)?,
            }
        }
    }

    /// Appends a unit, or says [`Error::Busy`] if that has to wait.
    pub(crate) fn try_append(&self, unit: Payload<'_>) -> Result<(Guard<'_>, Unit)> {
        self.check_unit(unit)?;
        let mut state = self.try_lock().ok_or(Error::Busy)?;
        state.usable()?;
        if state.cutting || state.assembler.placed_bytes() >= self.options.buffer_bytes {
            return Err(Error::Busy);
        }
        match self.place(&mut state, unit, Urgency::Ordinary) {
            Ok(copier) => {
                let appended = state.last_unit(unit.count());
                Ok((self.copy(state, unit, copier), appended))
            }
            Err(NeedSegments(need)) => {
                state.wanted = need;
                self.kick(Lane::Prepare);
                Err(state.no_space.clone().unwrap_or(Error::Busy))
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
    #[inline]
    fn place(&self, state: &mut State, unit: Payload<'_>, urgency: Urgency) -> Result<Option<Box<Copier>>, NeedSegments> {
        let State { assembler, spares, control, .. } = state;
        let epoch = assembler.segment().epoch();
        let copier = assembler.place_unit(unit, urgency, spares, control)?;
        if state.assembler.segment().epoch() != epoch {
            self.rotated(state);
            state.wanted = 0;
        }
        state.records += unit.count() as u64;
        state.record_bytes += unit.bytes();
        let policy = &self.options.sync;
        if policy.records.is_some_and(|n| state.records - state.policy_records >= n)
            || policy.bytes.is_some_and(|n| state.record_bytes - state.policy_bytes >= n)
        {
            state.sync_due = true;
            self.kick(Lane::Sync);
        }
        if state.idle && policy.interval.is_some() {
            state.idle = false;
            self.kick(Lane::Sync);
        }
        Ok(copier)
    }

    /// Copies what is large, without the lock.
    #[inline]
    fn copy<'a>(&'a self, state: Guard<'a>, unit: Payload<'_>, copier: Option<Box<Copier>>) -> Guard<'a> {
        let Some(copier) = copier else { return state };
        drop(state);
        copier.copy(unit);
        self.lock()
    }

    /// After an append that nobody waits for: sees to it that what has gathered is written, if it is much, and that the next segment is prepared. If `at_once`,
    /// the log's thread writes, and this one only waits where the buffers are full.
    pub(crate) fn settle<'a>(&'a self, mut state: Guard<'a>, at_once: bool) -> Result<()> {
        if state.wants_spare() {
            // (Where somebody waits, each flight that lands sees to it.)
            self.kick(Lane::Prepare);
        }
        while state.assembler.placed_bytes() >= WRITE_AT {
            self.dir.check_process()?;
            if let Some(error) = &state.failed {
                return Err(error.clone()); // (While a large record was copied.)
            }
            let flying = state.flying();
            let helps = !(at_once && self.options.background);
            if self.options.background && flying == 0 {
                // While the thread writes, this one goes on.
                if !std::mem::replace(&mut state.write_due, true) {
                    self.kick(Lane::Sync);
                }
            } else if helps && (flying == 0 || (flying < WRITERS && state.assembler.placed_bytes() >= 2 * WRITE_AT)) {
                // There is no thread, or it does not keep up: two are faster.
                drop(self.fly(state, false));
                break;
            }
            // (Who is at work for the log cannot wait for room: the flight that makes it may be its own.)
            if state.assembler.placed_bytes() < self.options.buffer_bytes || AtWork::is_on(self) {
                break;
            }
            state = self.wait_changed(state);
            state.usable()?;
        }
        Ok(())
    }

    /// After a [`try_append`](Shared::try_append): as `settle`, but waits for nothing.
    pub(crate) fn settle_later(&self, mut state: Guard<'_>) {
        let full = state.assembler.placed_bytes() >= WRITE_AT;
        if full && !std::mem::replace(&mut state.write_due, true) {
            self.kick(Lane::Sync);
        }
        if state.wants_spare() {
            self.kick(Lane::Prepare);
        }
    }
}
