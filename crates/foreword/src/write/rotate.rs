//! Segments come: preparing the next, and going on in it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::assemble::room::Urgency;
use crate::error::Doing;
use crate::files::fill::Fill;
use crate::files::prepare::Stuff;
use crate::format::Chain;
use crate::read::source::Source;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::write::inner::LogInner;
use crate::write::runtime::Lane;
use crate::write::state::{Guard, LogState};
use crate::{Error, Result};

/// How far into its segment a log is when the next should be filled with zeros.
const FILLED_AT: f32 = 0.75;
/// More bytes for each flush than this are bulk.
const BULK: u64 = 256 << 10;
const FILL_NAP: Duration = Duration::from_millis(1);
/// Whether so many can be open is asked before they are prepared.
const MANY_SEGMENTS: usize = 64;

/// While this lives, a thread waits for a segment: a thread that fills one with zeros stops, and
/// leaves it at that.
pub(crate) struct Starving<'a>(&'a AtomicU32);

impl<'a> Starving<'a> {
    pub(crate) fn new(starved: &'a AtomicU32) -> Starving<'a> {
        starved.fetch_add(1, Ordering::Relaxed);
        Starving(starved)
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LogInner {
    /// Returns when so many segments are prepared, the log has gone on in another, or the one in use
    /// has got the space that it lacked: then it is to be looked again what is needed. The lock is
    /// let go meanwhile.
    ///
    /// On a full disk, what is more urgent than records takes the reserve. Then it is found with
    /// the lock held, so no other call takes that segment.
    pub(crate) fn unlock_and_obtain<'a>(&'a self, state: Guard<'a>, need: usize, urgency: Urgency) -> Result<Guard<'a>> {
        self.dir.check_process()?;
        self.may_wait()?;
        let started = Instant::now();
        let obtained =
            self.unlock_and_check_open_files(state, need).and_then(|state| self.unlock_and_prepare_until(state, need)).map(drop);
        // The recorder is told without the lock.
        self.counters.waited_for_segment(started.elapsed());
        match obtained {
            Err(error) if error.is_no_space() && urgency != Urgency::Ordinary => self.take_reserve(error, urgency),
            obtained => obtained.and_then(|()| self.open_state()),
        }
    }

    /// What lies in many segments is refused before they are prepared, if so many cannot be open.
    fn unlock_and_check_open_files<'a>(&'a self, state: Guard<'a>, need: usize) -> Result<Guard<'a>> {
        if need < MANY_SEGMENTS {
            return Ok(state);
        }
        drop(state);
        self.attempt("have a record's segments open", &self.dir.path, || {
            self.dir.handle.may_open(need as u64).doing("have a record's segments open", &self.dir.path)
        })?;
        self.open_state()
    }

    fn take_reserve(&self, error: Error, urgency: Urgency) -> Result<Guard<'_>> {
        let _starving = Starving::new(&self.starved);
        let mut state = self.open_state()?;
        while state.spares.preparing {
            state = self.wait_changed(state);
            state.life.usable()?;
        }
        if state.assembler.lacks_space() {
            return Err(error);
        }
        if !state.spares.ready.is_empty() {
            return Ok(state);
        }
        state.spares.preparing = true;
        let epoch = state.assembler.next_epoch(&state.spares.ready);
        drop(state);
        let taken = self.attempt("prepare a segment", &self.dir.path, || {
            if urgency == Urgency::Checkpoint && !self.dir.has_reserve_to_spare() {
                return Err(error);
            }
            self.segment_of_reserve(epoch, 0, error)
        });
        if taken.is_err() {
            self.keep_reserve(Vec::new());
        }
        let mut state = self.lock();
        state.spares.preparing = false;
        self.changed.notify_all();
        self.kick(Lane::Prepare); // It tries again to make the reserve.
        state.spares.ready.push_back(taken?);
        state.life.usable()?;
        Ok(state)
    }

    fn unlock_and_prepare_until<'a>(&'a self, mut state: Guard<'a>, need: usize) -> Result<Guard<'a>> {
        let _starving = Starving::new(&self.starved);
        let (epoch, lacked_space) = (state.assembler.segment().epoch(), state.assembler.lacks_space());
        let needs = |state: &LogState| match lacked_space {
            true => state.assembler.lacks_space(),
            false => state.spares.ready.len() < need && state.assembler.segment().epoch() == epoch,
        };
        let mut closed_files = false;
        while needs(&state) {
            let freed = state.removals.freed();
            let (after, prepared) = self.unlock_and_prepare(state);
            state = after;
            state = match prepared {
                Err(error) if error.is_no_space() => self.unlock_and_make_room(state, freed).map_err(|state| (state, error)),
                Err(error) if error.is_too_many_files() && !std::mem::replace(&mut closed_files, true) => {
                    self.unlock_and_close_files(state, error)
                }
                Err(error) => Err((state, error)),
                Ok(()) => Ok(state),
            }
            .map_err(|(state, error)| self.give_back(state, error))?;
            state.life.usable()?;
        }
        Ok(state)
    }

    /// When there was no room: finishes a removal, or waits for one that is under way. `Err` if
    /// there was none since, and there is none.
    pub(crate) fn unlock_and_make_room<'a>(&'a self, state: Guard<'a>, freed: u64) -> Result<Guard<'a>, Guard<'a>> {
        let now = Instant::now();
        if state.removals.freed() != freed {
            return Ok(state);
        }
        if state.removals.is_removing() || state.wants_removal(now) { Ok(self.unlock_and_remove(state, now)) } else { Err(state) }
    }

    /// When too many files are open: what is not synced has its segments open, and so have the
    /// frames that were written last. The error again where that cannot be waited for.
    fn unlock_and_close_files<'a>(&'a self, state: Guard<'a>, error: Error) -> Result<Guard<'a>, (Guard<'a>, Error)> {
        if self.may_wait_for_sync(&state, None).is_err() {
            return Err((state, error));
        }
        let current = state.assembler.segment().epoch();
        let goal = state.goal(state.last_lsn());
        let synced = self.reach(state, goal, true);
        self.readable.recent.retain(|epoch| epoch == current);
        let state = self.lock();
        match synced {
            Ok(()) => Ok(state),
            Err(error) => Err((state, error)),
        }
    }

    /// When a unit is refused: what was prepared for it, and is more than is kept, is removed. The
    /// error again.
    fn give_back<'a>(&'a self, mut state: Guard<'a>, error: Error) -> Error {
        let kept = self.options.spares_kept();
        while state.spares.ready.len() > kept && state.spares.preparing {
            state = self.wait_changed(state);
        }
        if state.spares.ready.len() > kept {
            // No thread is to prepare one of these epochs meanwhile.
            state.spares.preparing = true;
            let surplus = state.spares.ready.split_off(kept);
            drop(state);
            let epochs: Vec<u64> = surplus.iter().map(|spare| spare.epoch()).collect();
            drop(surplus);
            // What stays is replaced by the next that is prepared under its name, or found by the
            // next opening.
            let removed = self.remove_files(&epochs);
            self.lock().spares.preparing = false;
            self.changed.notify_all();
            removed.error.iter().for_each(|error| self.report(error));
        }
        error
    }

    /// Prepares the next segment, or waits for the thread that does. Where the one in use lacks
    /// its space, it gets that first.
    pub(crate) fn unlock_and_prepare<'a>(&'a self, state: Guard<'a>) -> (Guard<'a>, Result<()>) {
        match state.spares.preparing {
            true => (self.wait_changed(state), Ok(())),
            false if state.assembler.lacks_space() => self.unlock_and_reserve_space(state),
            false => self.unlock_and_prepare_next(state),
        }
    }

    fn unlock_and_reserve_space<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, Result<()>) {
        let segment = state.assembler.segment().clone();
        state.spares.preparing = true;
        drop(state);
        let reserved = self.attempt("reserve the segment's space", &segment.path, || segment.reserve_space());
        let mut state = self.lock();
        state.spares.preparing = false;
        self.changed.notify_all();
        self.kick_all();
        if reserved.is_ok() {
            state.assembler.has_space_now();
        }
        let bytes = segment.at(segment.blocks).byte();
        (state, reserved.map_err(|error| error.or_no_space(&self.dir.path, Some(bytes))))
    }

    /// Prepares the next segment, from a dropped one if there is any, or anew. No other thread
    /// does. There may be none after all, and no error: if a dropped one was of no use, or the log
    /// is being closed.
    pub(crate) fn unlock_and_prepare_next<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, Result<()>) {
        state.spares.preparing = true;
        // Rotations meanwhile take from the spares what they add to the epoch.
        let epoch = state.assembler.next_epoch(&state.spares.ready);
        let syncs = self.committers.flushes();
        let (bytes_before, syncs_before) = state.spares.at_last;
        state.spares.at_last = (state.appended.bytes, syncs);
        // Where flushes are few and large, what they save with zeros is less than the zeros cost.
        let bulk = (state.appended.bytes - bytes_before) / (syncs - syncs_before + 1) > BULK;
        let from = state.assembler.fill();
        if self.dir.reserve_is_short() {
            drop(state);
            let first = self.reserve_first();
            state = self.lock();
            if let Err(error) = first {
                state.spares.preparing = false;
                self.changed.notify_all();
                self.kick_all();
                return (state, Err(error));
            }
        }
        let old = state.removals.take_recyclable();
        drop(state);
        let abandoned = Cell::new(false);
        let pace = |done| {
            let fill = if bulk { Fill::Stop } else { self.fill_pace(from, done) };
            abandoned.set(fill == Fill::Abandon);
            fill
        };
        let blocks = self.options.segment_blocks();
        let stuff = old.map_or(Stuff::Nothing, |old| Stuff::Segment(old.epoch));
        let prepared = self.attempt("prepare a segment", &self.dir.path, || match old {
            Some(old) if !self.dir.has_blocks(old.epoch, blocks) => Ok(None),
            _ => self.dir.prepare(self.id, epoch, blocks, stuff, &pace).map(Some),
        });
        let mut state = self.lock();
        state.spares.preparing = false;
        self.changed.notify_all();
        self.kick_all();
        match (prepared, old) {
            (Ok(Some(spare)), _) => {
                let counter = if old.is_some() { &self.counters.recycled } else { &self.counters.created };
                counter.fetch_add(1, Ordering::Relaxed);
                state.spares.ready.push_back(spare);
                self.keeping.found_room();
                state.spares.found_space();
            }
            (_, Some(old)) => state.removals.not_recyclable(old.epoch),
            (Err(error), None) if !abandoned.get() => return (state, Err(error)),
            _ => {}
        }
        (state, Ok(()))
    }

    /// Zero-filling keeps in step with the log, so that at no time it takes much of the disk from
    /// the commits: it is done when the log is at [`FILLED_AT`]. It goes on while nothing is
    /// appended, and stops when the segment is waited for. It is given up when the log is closed,
    /// and when a dropped segment may serve instead, without zeros.
    fn fill_pace(&self, from: f32, done: f32) -> Fill {
        let mut before = None;
        loop {
            if self.starved.load(Ordering::Relaxed) > 0 {
                return Fill::Stop;
            }
            let state = self.lock();
            let (now, fill) = (state.assembler.next_lsn(), state.assembler.fill());
            let unwanted = state.life.stop || state.removals.has_recyclable();
            let wanted = state.spares.wanted > state.spares.ready.len();
            drop(state);
            if unwanted || wanted {
                return if unwanted { Fill::Abandon } else { Fill::Stop };
            }
            if self.tasks.get().is_some_and(|tasks| tasks.is_in_the_way(Lane::Prepare)) {
                return Fill::Step; // Another log waits for this thread.
            }
            let due = (fill - from) / (FILLED_AT - from).max(0.01);
            if due >= done || before == Some(now) {
                return Fill::Step;
            }
            before = Some(now);
            std::thread::sleep(FILL_NAP);
        }
    }

    /// Brings the chain up to date with the assembler, which has gone on in other segments.
    pub(crate) fn rotated(&self, state: &mut LogState) {
        if self.dir.check_process().is_err() {
            return; // An append that stays in memory.
        }
        let mut chain = Chain::clone(&self.chain());
        for rotation in state.assembler.rotations() {
            rotation.extend(&mut chain.entries);
            self.note_rotation(state, rotation.to_epoch, rotation.first.lsn);
            self.counters.rotations.fetch_add(1, Ordering::Relaxed);
        }
        self.readable.set_chain(chain);
        state.spares.fills_segments = true;
        self.kick(Lane::Prepare);
    }
}
