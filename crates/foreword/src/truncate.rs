//! State that is not records: marks and holds, and truncation at both ends.

use std::sync::Arc;
use std::task::Waker;

use crate::assemble::Urgency;
use crate::bug::{self, Bug};
use crate::commit::{Guard, Shared, State};
use crate::fork::{self, Branch};
use crate::format::{self, CONTINUED, Kind, Position};
use crate::reader::{Chain, Snapshot, Source, frame_at};
use crate::recovery::Entry;
use crate::segment::segment_name;
use crate::sync::atomic::Ordering;
use crate::sync::{MutexGuard, PoisonError};
use crate::{Error, Lsn, Result};

impl Shared {
    /// Puts the control state into the log, durably.
    pub(crate) fn mark<'a>(&'a self, mut state: Guard<'a>, urgency: Urgency) -> Result<()> {
        let State { assembler, control, .. } = &mut *state;
        if !assembler.mark(false, urgency, control) {
            state = self.rotate(state)?;
        }
        // A MARK has no LSN of its own: the flight that takes it, and those before it, must land.
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.is_aloft() {
                state = self.wait_changed(state);
                continue;
            }
            let target = state.assembler.end().position;
            state = self.fly(state, true);
            while state.durable.position < target && state.failed.is_none() {
                state = self.wait_changed(state);
            }
            return match &state.failed {
                Some(error) => Err(error.clone()),
                None => Ok(()),
            };
        }
    }

    /// As it was before a MARK for which there was no room.
    pub(crate) fn restore_hold(&self, name: &str, before: Option<Lsn>) {
        let holds = &mut self.lock().control.holds;
        match before {
            Some(lsn) => holds.insert(name.to_owned(), lsn),
            None => holds.remove(name),
        };
    }

    /// When the log has fallen idle: says in the log what is durable. `true` if there was something to say.
    pub(crate) fn mark_idle<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, bool) {
        let due = state.needs_promise() && state.assembler.is_empty() && state.flights.is_empty() && state.failed.is_none();
        let State { assembler, spares, control, .. } = &mut *state;
        if !due {
            return (state, false);
        }
        if !assembler.mark(false, Urgency::Ordinary, control) {
            // No room for it: the next segment's LINK says the same. If there is none yet, whoever prepares it kicks.
            let Some(spare) = spares.pop_front() else { return (state, false) };
            assembler.rotate(spare, control);
            self.rotated(&mut state);
        }
        state.idle_end = state.assembler.end().position;
        (self.fly(state, true), true)
    }

    /// One change of the state that is not records at a time: each is durable before the next builds on it. (`None` only as a deliberate bug.)
    pub(crate) fn one_at_a_time(&self) -> Result<Option<MutexGuard<'_, ()>>> {
        self.dir.check_process()?;
        Ok((!bug::is(Bug::ChangeAtOnce)).then(|| self.changing.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        let _changing = self.one_at_a_time()?;
        let mut state = self.open_state()?;
        let last = state.assembler.next_lsn().prev();
        if before > last.next() {
            return Err(Error::NotAppended { lsn: before, last });
        }
        let start = state.control.holds.values().copied().fold(before, Lsn::min).max(state.control.start);
        if start > state.control.start {
            let before = std::mem::replace(&mut state.control.start, start);
            if bug::is(Bug::SkipFrontMark) {
                drop(state);
            } else {
                // Whoever may free a segment finds room, whatever others have marked before.
                let frees = self.chain().entries.get(1).is_some_and(|next| next.first_lsn <= start);
                let urgency = if frees { Urgency::Last } else { Urgency::Mark };
                self.mark(state, urgency).inspect_err(|_| self.lock().control.start = before)?;
            }
            state = self.open_state()?;
        }
        // Readers that ask for less are told so from here on.
        let mut chain = Chain::clone(&self.chain());
        chain.start = chain.start.max(start);
        // What begins behind a dropped segment must be durable: its LINK may still wait for a flush.
        let durable = state.durable.position;
        let goes_on = |next: &Entry| next.first_lsn <= start && Position::new(next.epoch, format::LINK_BLOCK) < durable;
        let dropped = chain.entries.windows(2).take_while(|pair| goes_on(&pair[1])).count();
        let dropped: Vec<Entry> = chain.entries.drain(..dropped).collect();
        let front = chain.entries.first().map_or(0, |e| e.epoch);
        chain.waivers.retain(|w| w.to.epoch >= front);
        state.control.waivers.retain(|w| w.to.epoch >= front);
        self.set_chain(chain);
        drop(state);
        self.discard(&dropped)?;
        Ok(start)
    }

    pub(crate) fn truncate_back(&self, from: Lsn) -> Result<()> {
        let _changing = self.one_at_a_time()?;
        // New appends wait, or it might never be quiet.
        self.lock().cutting = true;
        let cut = self.cut_back(from);
        self.lock().cutting = false;
        self.changed.notify_all();
        cut
    }

    fn cut_back(&self, from: Lsn) -> Result<()> {
        let mut state = self.open_state()?;
        // Everything lands first; then the lock is kept to the end (hazard 23).
        let quiet = |s: &State| s.assembler.is_empty() && s.flights.is_empty() && s.dirty.is_empty() && !s.preparing;
        while !quiet(&state) && !bug::is(Bug::CutInFlight) {
            state = if state.flights.is_empty() && !state.preparing { self.fly(state, true) } else { self.wait_changed(state) };
            state.usable()?;
        }
        let next_lsn = state.assembler.next_lsn();
        if from >= next_lsn {
            return Ok(());
        }
        let chain = self.chain();
        if from < chain.start {
            return Err(Error::Dropped { lsn: from, start: chain.start });
        }
        let (at, first) = self.unit_boundary(&chain, from)?;
        let mut entries: Vec<Entry> = chain.entries.iter().copied().filter(|e| e.epoch <= at.epoch).collect();
        if let Some(last) = entries.last_mut() {
            last.end = Some(at.block);
        }
        let tip = state.assembler.segment().epoch();
        let mut control = state.control.clone();
        control.waivers.retain(|w| w.from < at);
        let branch = Branch {
            log: self.log,
            at,
            next_lsn: first,
            segment_blocks: self.options.segment_blocks(),
            epoch: tip + 1,
            spares: std::mem::take(&mut state.spares),
            unsealed: vec![tip],
            control,
        };
        // The copies are of durable records: readers may read them with the lock held.
        let copies = Snapshot::reader(&self.dir, &chain, first, from.prev());
        let forked = fork::fork(&self.dir, branch, Some(copies));
        let forked = forked.and_then(|branched| self.dir.check_writer().map(|()| branched));
        let branched = match forked {
            Ok(branched) => branched,
            Err(error) => {
                // With no space for a further segment, nothing has changed yet, but for what was begun in the fresh ones. After anything else it is not
                // known whether the LINK is there.
                let undone = error.is_no_space().then(|| self.remove_unused(tip));
                if !matches!(undone, Some(Ok(()))) {
                    self.poison(state, error.clone());
                }
                return Err(error);
            }
        };
        state.cuts += 1;
        state.control.waivers.retain(|w| w.from < at);
        let kept = entries.last().map_or(0, |e| e.epoch);
        entries.extend(&branched.entries);
        let superseded = chain.entries.iter().filter(|e| e.epoch > kept).map(|e| segment_name(e.epoch));
        state.spares = branched.spares;
        state.assembler = branched.assembler;
        state.durable = branched.durable;
        state.written = branched.durable.lsn;
        state.launched = branched.durable.lsn;
        state.launched_synced = branched.durable.lsn;
        self.durable.store(branched.durable.lsn.0, Ordering::Release);
        self.set_chain(Chain { entries, cuts: state.cuts, waivers: state.control.waivers.clone(), ..Chain::clone(&chain) });
        // Everyone who waited has what they waited for: it was durable, before it was cut.
        let wakers = std::mem::take(&mut state.wakers);
        self.wake_sleepers();
        drop(state);
        wakers.into_values().for_each(Waker::wake);
        fork::remove(&self.dir, superseded)
    }

    /// Removes all segments beyond the tip.
    fn remove_unused(&self, tip: u64) -> Result<()> {
        let epochs = self.dir.names()?.epochs;
        fork::remove(&self.dir, epochs.into_iter().filter(|&e| e > tip).map(segment_name))
    }

    /// Where the unit begins that holds a record, and the LSN of its frame's first record.
    pub(crate) fn unit_boundary(&self, chain: &Chain, mut lsn: Lsn) -> Result<(Position, Lsn)> {
        loop {
            let Some(entry) = chain.entries.iter().rev().find(|e| e.first_lsn <= lsn) else {
                return Err(Error::Dropped { lsn, start: chain.start });
            };
            let segment = match self.dir.open_segment(Some(self.log), entry.epoch, crate::disk::Access::Read)? {
                Ok((segment, _)) => segment,
                Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
            };
            let (stretch, first) = chain.stretch(entry, lsn);
            let (block, header) = frame_at(&segment, lsn, stretch)?;
            match header {
                Some(header) if header.kind == Kind::Data && header.has(CONTINUED) => {
                    let floor = chain.entries.first().map_or(Lsn::FIRST, |e| e.first_lsn);
                    if header.first_lsn <= floor {
                        // The unit began in a segment that was dropped.
                        return Ok((segment.at(format::LINK_BLOCK + 1), entry.first_lsn));
                    }
                    lsn = header.first_lsn.prev();
                }
                Some(header) => return Ok((segment.at(block), header.first_lsn)),
                None => return Ok((segment.at(block.max(format::LINK_BLOCK + 1)), first)),
            }
        }
    }
}
