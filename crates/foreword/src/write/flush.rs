//! Flushing: what has gathered is encoded, written and synced by a leader, and then counts.
//!
//! A flush has three steps. [`begin_flush`](LogInner::begin_flush), under the lock, takes all that
//! is placed as a [`Group`]. [`write_group`](LogInner::write_group) writes it without the lock.
//! [`unlock_and_end_flush`](LogInner::unlock_and_end_flush) takes the lock again, counts all
//! flushes that are done in order, and wakes the threads and futures that waited for them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::assemble::placed::Placed;
use crate::bug::bug;
use crate::files::segment::Segment;
use crate::files::time::now_micros;
use crate::format::{self, Kind, Promise};
use crate::strangers::{self, AtWork};
use crate::sync::WaitWord;
use crate::sync::atomic::Ordering;
use crate::write::committers::Slots;
use crate::write::inner::LogInner;
use crate::write::runtime::Lane;
use crate::write::state::flushes::Gathering;
use crate::write::state::{Guard, LogState};
use crate::{Lsn, Result};

/// When more segments than this are written and not synced, the next flush syncs them, whatever the
/// policy: each keeps a handle until then.
const DIRTY_MAX: usize = 16;
/// So many frames are written in one call.
const BUFS_MAX: usize = 64;

/// What a leader has taken to write.
struct Group {
    /// Of its flush.
    id: u64,
    sync: bool,
    frames: VecDeque<Placed>,
    /// What its frames promise, and their time.
    promise: Promise,
    time: u64,
    /// Segments that were written before without a sync: this flush syncs them, too.
    dirty: Vec<Arc<Segment>>,
    /// A flush before it reopens the closed log.
    reopening: bool,
    /// How many records it makes durable, for how many committers.
    records: u64,
    committers: u32,
    started: Instant,
}

impl LogInner {
    /// Flushes what has gathered; durably, if asked.
    pub(crate) fn unlock_and_flush<'a>(&'a self, mut state: Guard<'a>, sync: bool) -> Guard<'a> {
        if state.life.has_failed() {
            return state; // It writes nothing more: if it was closed, the files may be another's.
        }
        let mut group = self.begin_flush(&mut state, sync);
        drop(state);
        let work = AtWork::on(self);
        // A leader that fails, even by a panic, poisons the log: so the committers in its group get
        // an error, and do not wait for ever.
        let written = strangers::attempt("flush", &self.dir.path, || self.write_group(&mut group));
        // The last handle of a segment closes its file: not under the lock.
        group.dirty.clear();
        let took = group.started.elapsed();
        if group.sync && written.is_ok() {
            self.counters.flushed(took, group.records);
            if took > Duration::from_secs(1) {
                crate::trace::warn!(millis = took.as_millis() as u64, records = group.records, "slow flush");
            }
        }
        if written.is_ok() {
            self.readable.recent.keep(&mut group.frames, self.options.buffers());
        }
        drop(work);
        let mut state = self.lock();
        if group.sync {
            state.flushes.pace.ended(took.as_nanos() as u64, group.committers, self.committers.arrived());
        }
        if state.flushes.dirty.capacity() == 0 {
            state.flushes.dirty = std::mem::take(&mut group.dirty); // Its memory serves again.
        }
        self.unlock_and_end_flush(state, group, written)
    }

    /// Takes all that is placed, and what was written before without a sync.
    fn begin_flush(&self, state: &mut LogState, sync: bool) -> Group {
        // A file may be closed only when it is synced: an inode that is evicted forgets that a
        // write failed.
        let sync = sync || state.flushes.dirty.len() > DIRTY_MAX;
        let frames = state.assembler.take();
        state.requests.write_due = false;
        // Flushes begin one after the other, and so their times rise along the log.
        let time = now_micros();
        let reach = state.assembler.end();
        let mut promise = state.flushes.durable();
        bug!(PromiseEarly, promise = reach);
        let records = reach.lsn.0.saturating_sub(state.flushes.begun_synced().0);
        let committers = if sync { self.committers.begin_flush() } else { 0 };
        if sync {
            if let Some(Gathering { started, committers: before, .. }) = state.flushes.gathering.take() {
                state.flushes.pace.waited(committers.saturating_sub(before), started.elapsed().as_nanos() as u64, committers);
            }
            state.flushes.pace.began();
        }
        let started = Instant::now();
        let reopening = state.flushes.is_reopening(state.flushes.next_id());
        let id = state.flushes.begin(&frames, promise, reach, sync, started);
        let mut dirty = Vec::new();
        if sync {
            dirty = std::mem::take(&mut state.flushes.dirty);
            bug!(ForgetDirty, dirty.clear());
            state.requests.sync_due = false;
            state.appended.synced();
        } else {
            for frame in &frames {
                note_dirty(&mut state.flushes.dirty, &frame.segment);
            }
        }
        Group { id, sync, frames, promise, time, dirty, reopening, records, committers, started }
    }

    /// Makes the group's frames written, and durable if it syncs.
    ///
    /// That this process still is the log's writer is checked before, so that nothing is written to
    /// what another writer has taken over. It is checked after, too: a writer that has taken the
    /// lock since has seen what was written, or is seen here.
    fn write_group(&self, group: &mut Group) -> Result<()> {
        bug!(OvertakeReopening, group.reopening = false);
        if group.reopening {
            self.await_reopening(group.id)?;
        }
        self.dir.check_writer()?;
        self.write_frames(group)?;
        if group.sync { self.dir.check_writer() } else { Ok(()) }
    }

    /// What lies behind the rewritten CLOSED and its MARK is not written before they are durable,
    /// by whichever flush.
    fn await_reopening(&self, id: u64) -> Result<()> {
        let mut state = self.lock();
        while state.flushes.is_reopening(id) {
            state = self.wait_changed(state);
        }
        state.life.not_failed()
    }

    fn write_frames(&self, group: &mut Group) -> Result<()> {
        let Group { id, frames, promise, time, dirty, .. } = group;
        let frames = frames.make_contiguous();
        for link in frames.iter().filter(|frame| frame.header.kind == Kind::Link) {
            crate::trace::debug!(epoch = link.segment.epoch(), first_lsn = link.header.first_lsn().0, "rotated");
        }
        for frame in frames.iter_mut() {
            frame.await_bytes()?;
            frame.finish(*promise, *time);
        }
        let mut sync = group.sync;
        bug!(AckBeforeFlush, sync = false);
        // A sync of these bytes alone is enough if no others wait for one.
        let durable = sync && dirty.is_empty();
        let (mut rest, mut written) = (&frames[..], 0);
        if let Some(reopening) = reopening(rest) {
            written += write_neighbours(&rest[..reopening], true)?.1;
            rest = &rest[reopening..];
        }
        while let Some(first) = rest.first() {
            let (run, bytes) = write_neighbours(rest, durable)?;
            written += bytes;
            if sync && !durable {
                note_dirty(dirty, &first.segment);
            }
            rest = &rest[run..];
        }
        self.counters.written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        if sync && !durable {
            self.await_unsynced(*id);
            for segment in dirty.drain(..) {
                segment.sync()?;
            }
        }
        Ok(())
    }

    /// What earlier flushes write without a sync must be written before this one syncs it.
    fn await_unsynced(&self, id: u64) {
        let mut state = self.lock();
        while state.flushes.is_writing_unsynced(id) {
            state = self.wait_changed(state);
        }
    }

    /// A leader has come back. All flushes that are done count, in order, and what waited for them
    /// is woken.
    fn unlock_and_end_flush<'a>(&'a self, mut state: Guard<'a>, group: Group, written: Result<()>) -> Guard<'a> {
        let mut frames = group.frames;
        state.assembler.reclaim(&mut frames, self.options.buffers());
        let failed = written.err().filter(|error| state.fail(error));
        state.flushes.end(group.id);
        let mut counted = Slots::default();
        if state.life.has_failed() {
            counted = Slots::ALL;
        } else {
            while let Some(id) = state.flushes.count() {
                counted.insert(id);
            }
            self.readable.set_durable(state.flushes.durable().lsn);
        }
        let durable = state.flushes.durable().lsn;
        let wakers = if state.life.has_failed() { state.wakers.take_all() } else { state.wakers.take_up_to(durable) };
        let asleep = self.committers.release(counted);
        let leader = self.next_leader(&state);
        self.changed.notify_all();
        self.kick_after_flush(&mut state);
        drop(state);
        self.wake_after_flush(leader, asleep, wakers);
        if let Some(error) = failed {
            self.tell_poisoned(&error);
        }
        frames.clear();
        let mut state = self.lock();
        state.assembler.reclaim_list(frames);
        if !self.options.background && self.has_news(&state) { self.unlock_and_tell(state) } else { state }
    }

    /// Kicks the tasks that have something to do now.
    fn kick_after_flush(&self, state: &mut LogState) {
        let news = state.requests.asleep && self.has_news(state);
        if news || state.requests.idle || state.requests.write_due || !state.wakers.is_empty() {
            state.requests.idle = false;
            self.kick(Lane::Sync);
        }
        if state.wants_spare() || std::mem::take(&mut state.ages.awaits_record) {
            self.kick(Lane::Prepare);
        }
        if std::mem::take(&mut state.requests.quiet) {
            self.kick(Lane::Publish);
        }
    }

    /// Wakes a committer to lead the next flush, and all threads and futures whose records have
    /// become durable.
    fn wake_after_flush(&self, leader: Option<&WaitWord>, asleep: Slots, wakers: BTreeMap<(Lsn, u64), Waker>) {
        bug!(LostWakeup, return);
        if let Some(slot) = leader {
            slot.wake_one();
        }
        self.committers.wake(asleep);
        if !wakers.is_empty() {
            strangers::wake(wakers.into_values());
        }
        self.readable.tails.wake();
    }

    /// If threads wait for a flush that no thread leads: where they sleep. One of them is to be
    /// woken. (All that take turns there see it; the first of them to get the lock leads.)
    fn next_leader(&self, state: &LogState) -> Option<&WaitWord> {
        let waiting = !state.assembler.is_empty() || state.flushes.begun_synced() < state.last_lsn();
        let slot = (waiting && state.flushes.gathering.is_none()).then(|| self.committers.slot(state.flushes.next_id()))?;
        slot.call_one().then_some(slot)
    }
}

fn note_dirty(dirty: &mut Vec<Arc<Segment>>, segment: &Arc<Segment>) {
    if !dirty.iter().any(|known| Arc::ptr_eq(known, segment)) {
        dirty.push(segment.clone());
    }
}

/// How many frames at the beginning reopen a closed log: CLOSED again, and the MARK behind it. They
/// are made durable before what follows.
fn reopening(frames: &[Placed]) -> Option<usize> {
    let again = frames.first()?.again;
    let marks = |frame: &Placed| frame.header.kind == Kind::Mark && Arc::ptr_eq(&frame.segment, &frames[0].segment);
    again.then(|| frames.iter().take(2).take_while(|frame| marks(frame)).count())
}

/// Writes the first frame and those that follow right behind it, in one call: how many frames, and
/// how many bytes.
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
