//! Segments come and go: preparing the next, going on in it, and using dropped ones again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Result;
use crate::assemble::Rotation;
use crate::commit::{Guard, Shared, State};
use crate::fork;
use crate::reader::{Chain, Source};
use crate::recovery::Entry;
use crate::segment::{Fill, Stuff};
use crate::sync::PoisonError;
use crate::sync::atomic::Ordering;

/// How far into its segment a log is when the next begins to be prepared: not at once, for commits that have just gone on in this one flush two segments, and
/// are not to meet the first zeros, too.
const PREPARE_AT: f32 = 0.05;
/// The same for a log that has never filled a segment, and may never fill this one.
const PREPARE_FIRST_AT: f32 = 0.25;
/// ... and when the next should be filled.
const FILLED_AT: f32 = 0.75;
/// More bytes for each flush than this are bulk.
const BULK: u64 = 256 << 10;
const FILL_NAP: Duration = Duration::from_millis(1);
/// Recycled segments kept ready, unless the options ask for more; others are removed.
pub(crate) const SPARES_KEPT: usize = 2;

impl Shared {
    /// Makes sure that so many segments are prepared.
    pub(crate) fn obtain<'a>(&'a self, state: Guard<'a>, need: usize) -> Result<Guard<'a>> {
        self.dir.check_process()?;
        let started = Instant::now();
        // Whoever is filling one leaves it at that.
        self.starved.store(true, Ordering::Relaxed);
        let obtained = self.prepare_until(state, need);
        self.starved.store(false, Ordering::Relaxed);
        self.counters.waited_for_segment(started.elapsed());
        obtained
    }

    fn prepare_until<'a>(&'a self, mut state: Guard<'a>, need: usize) -> Result<Guard<'a>> {
        while state.spares.len() < need {
            state = self.prepare_one(state)?;
            state.usable()?;
        }
        Ok(state)
    }

    /// Prepares the next segment, or waits for who is doing that.
    pub(crate) fn prepare_one<'a>(&'a self, state: Guard<'a>) -> Result<Guard<'a>> {
        if state.preparing {
            return Ok(self.wait_changed(state));
        }
        let (state, prepared) = self.prepare_from(state, None);
        prepared?;
        Ok(state)
    }

    /// Prepares the next segment, anew or from an old one; nobody else is at it.
    pub(crate) fn prepare_from<'a>(&'a self, mut state: Guard<'a>, recycle: Option<u64>) -> (Guard<'a>, Result<()>) {
        state.preparing = true;
        // Rotations meanwhile take from the spares what they add to the epoch.
        let epoch = state.assembler.next_epoch(&state.spares);
        let syncs = self.syncs.load(Ordering::Relaxed);
        let (bytes_before, syncs_before) = state.at_last_prepare;
        state.at_last_prepare = (state.record_bytes, syncs);
        // Where flushes are few and large, what they save with zeros is less than the zeros cost.
        let bulk = (state.record_bytes - bytes_before) / (syncs - syncs_before + 1) > BULK;
        let from = state.assembler.fill();
        drop(state);
        let pace = |done| if bulk { Fill::Stop } else { self.fill_pace(from, done) };
        let stuff = recycle.map_or(Stuff::Nothing, Stuff::Segment);
        let prepared = self.dir.prepare(self.log, epoch, self.options.segment_blocks(), stuff, &pace);
        let mut state = self.lock();
        state.preparing = false;
        self.changed.notify_all();
        let counter = if recycle.is_some() { &self.counters.recycled } else { &self.counters.created };
        counter.fetch_add(u64::from(prepared.is_ok()), Ordering::Relaxed);
        let prepared = prepared.map(|spare| {
            state.spares.push_back(spare);
            state.prepare_again = None;
            // An idle log may wait for it to say what is durable.
            self.kick.notify_all();
        });
        (state, prepared)
    }

    /// Zero-filling keeps in step with the log, so that at no time it takes much of the disk from the commits: it is done when the log is at
    /// [`FILLED_AT`]. It goes on while nothing is appended, and stops when the segment is waited for.
    fn fill_pace(&self, from: f32, done: f32) -> Fill {
        let mut before = None;
        loop {
            if self.starved.load(Ordering::Relaxed) {
                return Fill::Stop;
            }
            let state = self.lock();
            let (now, stop, fill) = (state.assembler.next_lsn(), state.stop, state.assembler.fill());
            drop(state);
            let due = (fill - from) / (FILLED_AT - from).max(0.01);
            if due >= done || before == Some(now) || stop {
                return Fill::Step;
            }
            before = Some(now);
            std::thread::sleep(FILL_NAP);
        }
    }

    /// Brings the chain up to date with the assembler, which has gone on in other segments.
    pub(crate) fn rotated(&self, state: &mut State) {
        let mut chain = Chain::clone(&self.chain());
        for Rotation { from, to_epoch, first_lsn } in state.assembler.rotations() {
            if let Some(last) = chain.entries.last_mut().filter(|e| e.epoch == from.epoch) {
                last.end = Some(from.block);
            }
            chain.entries.push(Entry { epoch: to_epoch, first_lsn, end: None });
            self.counters.rotations.fetch_add(1, Ordering::Relaxed);
            crate::trace::debug!(epoch = to_epoch, first_lsn = first_lsn.0, "rotated");
        }
        self.set_chain(chain);
        state.fills_segments = true;
        self.kick.notify_all();
    }

    pub(crate) fn set_chain(&self, chain: Chain) {
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(chain);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn rotate<'a>(&'a self, mut state: Guard<'a>) -> Result<Guard<'a>> {
        if state.spares.is_empty() {
            state = self.obtain(state, 1)?;
        }
        let State { assembler, spares, control, .. } = &mut *state;
        if let Some(spare) = spares.pop_front() {
            assembler.rotate(spare, control);
        }
        self.rotated(&mut state);
        Ok(state)
    }

    /// Recycles segments that the log does not need any more, as far as it needs spares, and removes the others.
    pub(crate) fn discard(&self, dropped: &[Entry]) -> Result<()> {
        let blocks = self.options.segment_blocks();
        let mut removed = Vec::new();
        for entry in dropped {
            let mut state = self.lock();
            while state.preparing {
                state = self.wait_changed(state);
            }
            if state.spares.len() < SPARES_KEPT.max(self.options.spare_segments) && self.dir.has_blocks(entry.epoch, blocks) {
                let (after, recycled) = self.prepare_from(state, Some(entry.epoch));
                if recycled.is_ok() {
                    continue;
                }
                state = after;
            }
            drop(state);
            removed.push(crate::segment::segment_name(entry.epoch));
        }
        self.counters.removed.fetch_add(removed.len() as u64, Ordering::Relaxed);
        fork::remove(&self.dir, removed)
    }
}

impl State {
    /// Whether the background should prepare a segment now. Asked with every append.
    pub(crate) fn wants_spare(&self) -> bool {
        let at = if self.fills_segments { PREPARE_AT } else { PREPARE_FIRST_AT };
        self.spares.is_empty()
            && self.assembler.fill() > at
            && !self.preparing
            && self.prepare_again.is_none()
            && self.failed.is_none()
    }
}
