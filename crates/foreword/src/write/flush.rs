//! Flushing: what has gathered is encoded, written and synced; how a flight lands, and who is told.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bug::{self, Bug};
use crate::files::segment::{Segment, now_micros};
use crate::format::{self, Kind, Position, Promise};
use crate::strangers::{self, AtWork};
use crate::sync::atomic::Ordering;
use crate::sync::{WaitWord, yield_now};
use crate::write::assemble::Placed;
use crate::write::commit::{Flight, Gathering, Guard, SLOTS, Shared, State};
use crate::write::runtime::Lane;
use crate::{Error, Result};

/// When more segments than this are written and not synced, the next flight syncs them, whatever the policy: each keeps a handle or two until then.
const DIRTY_MAX: usize = 16;
/// So many frames are written in one call.
const BUFS_MAX: usize = 64;

impl Shared {
    /// Waits a moment for those who are about to commit, and flushes for all, unless one of them does.
    pub(super) fn gather<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let id = self.syncs.load(Ordering::Relaxed);
        let waiting = self.arrived.load(Ordering::Relaxed);
        let patience = Duration::from_nanos(state.pace.patience());
        let started = Instant::now();
        state.gathering = Some(Gathering { id, started, waiting });
        drop(state);
        let (mut waiting, mut waited, mut last) = (waiting, Duration::ZERO, Duration::ZERO);
        while self.syncs.load(Ordering::Relaxed) == id && waited < last + patience && waited < 2 * patience {
            // They need the processor more than this thread does.
            yield_now();
            waited = started.elapsed();
            let now = self.arrived.load(Ordering::Relaxed);
            if now > waiting {
                (waiting, last) = (now, waited);
            }
        }
        let mut state = self.lock();
        if state.gathering.as_ref().is_none_or(|g| g.id != id) {
            return state;
        }
        // It leads, even if something else made its own record durable meanwhile: those who came since sleep until somebody does.
        if state.has_unsynced() && !state.is_aloft() {
            return self.fly(state, true);
        }
        // A flight is under way: when it lands it wakes the next to lead.
        state.gathering = None;
        state
    }

    /// Flushes what has gathered: encodes, writes, and syncs if asked. The lock is let go meanwhile.
    pub(crate) fn fly<'a>(&'a self, mut state: Guard<'a>, sync: bool) -> Guard<'a> {
        if state.failed.is_some() {
            return state; // It writes nothing more: if it was closed, the files may be another's.
        }
        // A file may be closed only when it is synced: an inode that is evicted forgets that a write failed.
        let sync = sync || state.dirty.len() > DIRTY_MAX;
        let mut frames = state.assembler.take();
        state.write_due = false;
        // Flights leave one after the other, and so their times rise along the log.
        let now = now_micros();
        let reach = state.assembler.end();
        let promise = if bug::is(Bug::PromiseEarly) { reach } else { state.durable };
        let id = state.next_flight;
        state.next_flight += 1;
        state.aloft += 1;
        let records = reach.lsn.0.saturating_sub(state.launched_synced.0);
        let members = if sync { self.arrived.swap(0, Ordering::Relaxed) } else { 0 };
        if sync {
            if let Some(Gathering { started, waiting, .. }) = state.gathering.take() {
                state.pace.waited(members.saturating_sub(waiting), started.elapsed().as_nanos() as u64, members);
            }
            state.pace.launched();
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        let started = Instant::now();
        if sync {
            state.synced_at = started;
        }
        let reopens = frames.front().is_some_and(|f| f.again);
        let behind = state.flights.iter().any(|f| f.reopens && !f.landed) && !bug::is(Bug::OvertakeReopening);
        state.flights.push_back(Flight { id, reach, sync, landed: false, reopens, started });
        state.launched = reach.lsn;
        state.promised = state.promised.max(if frames.is_empty() { Position::default() } else { promise.position });
        // Whoever syncs takes over what was written before without a sync.
        let mut dirty = if sync { std::mem::take(&mut state.dirty) } else { Vec::new() };
        if bug::is(Bug::ForgetDirty) {
            dirty.clear();
        }
        if sync {
            state.launched_synced = reach.lsn;
            state.sync_due = false;
            (state.policy_records, state.policy_bytes) = (state.records, state.record_bytes);
        } else {
            for frame in &frames {
                if !state.dirty.iter().any(|s| Arc::ptr_eq(s, &frame.segment)) {
                    state.dirty.push(frame.segment.clone());
                }
            }
        }
        drop(state);
        let work = AtWork::on(self);
        for link in frames.iter().filter(|frame| frame.header.kind == Kind::Link) {
            crate::trace::debug!(epoch = link.segment.epoch(), first_lsn = link.header.first_lsn().0, "rotated");
        }
        // A flight that fails, even by a panic, poisons the log (hazard 26): its followers get an error, and do not hang.
        let write_out = || {
            // Before, so that what another writer has taken over is not written to; and after: whoever has taken the lock since has seen what was
            // written, or is seen here.
            if behind {
                self.await_reopening(id)?;
            }
            self.dir.check_writer()?;
            self.write_out(frames.make_contiguous(), (promise, now), sync, &mut dirty, id)?;
            if sync { self.dir.check_writer() } else { Ok(()) }
        };
        let flown = strangers::attempt("flush", &self.dir.path, write_out);
        // The last handle of a segment closes its file: not under the lock.
        dirty.clear();
        let took = started.elapsed();
        if sync && flown.is_ok() {
            self.counters.flushed(took, records);
            if took > Duration::from_secs(1) {
                crate::trace::warn!(millis = took.as_millis() as u64, records, "slow flush");
            }
        }
        if flown.is_ok() {
            self.recent.keep(&mut frames);
        }
        drop(work);
        let mut state = self.lock();
        if sync {
            state.pace.landed(took.as_nanos() as u64, members, self.arrived.load(Ordering::Relaxed));
        }
        if state.dirty.capacity() == 0 {
            state.dirty = dirty; // Its memory serves again.
        }
        self.land(state, id, flown, frames)
    }

    /// What lies behind CLOSED again and its MARK is not written before they are durable, by whatever flight.
    fn await_reopening(&self, id: u64) -> Result<()> {
        let mut state = self.lock();
        while state.flights.iter().any(|f| f.id < id && f.reopens && !f.landed) {
            state = self.wait_changed(state);
        }
        state.failed.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn write_out(
        &self,
        frames: &mut [Placed],
        (promise, now): (Promise, u64),
        sync: bool,
        dirty: &mut Vec<Arc<Segment>>,
        id: u64,
    ) -> Result<()> {
        for frame in frames.iter_mut() {
            frame.await_bytes()?;
            frame.finish(promise, now);
        }
        let sync = sync && !bug::is(Bug::AckBeforeFlush);
        // A sync of these bytes alone is enough if nothing else waits for one.
        let durable = sync && dirty.is_empty();
        let (mut rest, mut written) = (&frames[..], 0);
        if let Some(reopening) = reopening(rest) {
            // CLOSED again and the MARK behind it are durable before what follows.
            written += write_neighbours(&rest[..reopening], true)?.1;
            rest = &rest[reopening..];
        }
        while let Some(first) = rest.first() {
            let (run, bytes) = write_neighbours(rest, durable)?;
            written += bytes;
            if sync && !durable && !dirty.iter().any(|s| Arc::ptr_eq(s, &first.segment)) {
                dirty.push(first.segment.clone());
            }
            rest = &rest[run..];
        }
        self.counters.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        if sync && !durable {
            // Their writes must be done before they are synced.
            let mut state = self.lock();
            while state.flights.iter().any(|f| f.id < id && !f.sync && !f.landed) && state.failed.is_none() {
                state = self.wait_changed(state);
            }
            drop(state);
            for segment in dirty.drain(..) {
                segment.sync()?;
            }
        }
        Ok(())
    }

    /// A flight has landed: all that have, in order, count; who waited for them is woken.
    fn land<'a>(&'a self, mut state: Guard<'a>, id: u64, flown: Result<()>, mut frames: VecDeque<Placed>) -> Guard<'a> {
        state.aloft -= 1;
        state.assembler.reclaim(&mut frames);
        let failed = flown.err().filter(|error| state.fail(error));
        if let Some(flight) = state.flights.iter_mut().find(|f| f.id == id) {
            flight.landed = true;
        }
        let mut woken = Slots::default();
        while state.failed.is_none() && state.flights.front().is_some_and(|f| f.landed) {
            let Some(flight) = state.flights.pop_front() else { break };
            state.written = state.written.max(flight.reach.lsn);
            if flight.sync {
                state.durable = flight.reach;
                self.durable.store(flight.reach.lsn.0, Ordering::Release);
            }
            woken.insert(flight.id as usize % SLOTS);
        }
        if state.failed.is_some() {
            (0..SLOTS).for_each(|slot| woken.insert(slot));
        }
        let mut wakers = std::mem::take(&mut state.wakers);
        if state.failed.is_none() && !wakers.is_empty() {
            state.wakers = wakers.split_off(&(state.durable.lsn.next(), 0));
        }
        let mut released = Slots::default();
        woken.filter(|&slot| self.slots[slot].release()).for_each(|slot| released.insert(slot));
        let next = self.next_leader(&state);
        self.changed.notify_all();
        let news = state.asleep && self.has_news(&state);
        if news || state.idle || state.write_due || !state.wakers.is_empty() {
            state.idle = false;
            self.kick(Lane::Sync);
        }
        if state.wants_spare() {
            self.kick(Lane::Prepare);
        }
        if std::mem::take(&mut state.quiet) {
            self.kick(Lane::Publish);
        }
        drop(state);
        if !bug::is(Bug::LostWakeup) {
            if let Some(slot) = next {
                slot.wake_one();
            }
            released.for_each(|slot| self.slots[slot].wake_all());
            if !wakers.is_empty() {
                strangers::wake(wakers.into_values());
            }
            self.tails.wake();
        }
        if let Some(error) = failed {
            self.tell_poisoned(&error);
        }
        frames.clear();
        let mut state = self.lock();
        state.assembler.reclaim_list(frames);
        if !self.options.background && self.has_news(&state) { self.tell(state) } else { state }
    }

    /// If somebody waits for a flight that nobody leads: where they sleep. One of them is to be woken. (All who take turns there are told; the first of them to get the lock leads.)
    fn next_leader(&self, state: &State) -> Option<&WaitWord> {
        let waiting = !state.assembler.is_empty() || state.launched_synced < state.assembler.next_lsn().prev();
        let slot = (waiting && state.gathering.is_none()).then(|| &self.slots[state.next_flight as usize % SLOTS])?;
        slot.call_one().then_some(slot)
    }

    /// Wakes all that sleep on a flight; the lock is held.
    pub(crate) fn wake_sleepers(&self) {
        self.slots.iter().filter(|slot| slot.release()).for_each(WaitWord::wake_all);
    }

    /// Fails the log outside of a flight, and tells everyone.
    pub(crate) fn poison(&self, mut state: Guard<'_>, error: Error) {
        let failed = state.fail(&error);
        self.kick_all();
        self.wake_everyone(state);
        if failed {
            self.tell_poisoned(&error);
        }
    }

    /// All that wait for anything look again.
    pub(crate) fn wake_everyone(&self, mut state: Guard<'_>) {
        let wakers = std::mem::take(&mut state.wakers);
        self.wake_sleepers();
        self.changed.notify_all();
        drop(state);
        strangers::wake(wakers.into_values());
        self.tails.wake();
    }

    fn tell_poisoned(&self, error: &Error) {
        crate::trace::error!(error = %error, dir = %self.dir.path.display(), "the log is poisoned");
    }
}

/// Some of the slots, a bit each.
#[derive(Default)]
struct Slots(u16);

impl Slots {
    fn insert(&mut self, slot: usize) {
        self.0 |= 1 << slot;
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

/// How many frames at the beginning are what a log goes on with that was closed: CLOSED again, and the MARK behind it.
fn reopening(frames: &[Placed]) -> Option<usize> {
    let again = frames.first()?.again;
    let marks = |frame: &Placed| frame.header.kind == format::Kind::Mark && Arc::ptr_eq(&frame.segment, &frames[0].segment);
    again.then(|| frames.iter().take(2).take_while(|frame| marks(frame)).count())
}

/// Writes the first frame and those that follow right behind it, in one call: how many frames, and how many bytes.
fn write_neighbours(frames: &[Placed], durable: bool) -> Result<(usize, usize)> {
    let Some(first) = frames.first() else { return Ok((0, 0)) };
    let mut bufs = [io::IoSlice::new(&[]); BUFS_MAX];
    let (mut run, mut end) = (0, first.block);
    for (buf, frame) in bufs.iter_mut().zip(frames) {
        if frame.block != end || !Arc::ptr_eq(&frame.segment, &first.segment) {
            break;
        }
        *buf = io::IoSlice::new(frame.bytes());
        end += frame.header.blocks();
        run += 1;
    }
    first.segment.write(first.block, &mut bufs[..run], durable)?;
    Ok((run, (end - first.block) as usize * format::BLOCK))
}
