//! The state that is not records: marks and holds, and truncation at both ends.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::Waker;

use crate::assemble::Assembler;
use crate::assemble::room::{Urgency, copy_room};
use crate::bug::bug;
use crate::files::disk::Access;
use crate::files::fill::Fill;
use crate::files::names::segment_name;
use crate::files::outside::Outside;
use crate::files::prepare::Stuff;
use crate::files::reserve;
use crate::files::segment::Segment;
use crate::format::{self, CONTINUED, Chain, Control, Cut, Entry, FrameHeader, Kind, Position};
use crate::open::clear::take_links_back;
use crate::open::fork::{self, Branch, Branched, Fork, Place};
use crate::read::find::frame_at;
use crate::read::snapshot::Snapshot;
use crate::read::source::Source;
use crate::sync::thread;
use crate::write::circle::{Wait, let_go};
use crate::write::committers::Slots;
use crate::write::hold::Asked;
use crate::write::inner::LogInner;
use crate::write::rotate::Starving;
use crate::write::runtime::Lane;
use crate::write::state::segments::Dropped;
use crate::write::state::{Guard, LogState};
use crate::{Error, Lsn, Result, strangers};

/// Where the log stands when it is cut, and what is prepared behind.
struct Tip {
    end: Position,
    spares: VecDeque<Arc<Segment>>,
    fork: Begun,
}

/// How far a fork is that has not joined the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    Not,
    /// A segment was being prepared for it.
    Preparing,
    /// It was writing, to any of the segments behind the tip: they are of no use but for it.
    Writing,
}

/// The right to change the state that is not records, while this lives. The state's lock is not
/// held where it ends.
pub(crate) struct Changing<'a>(Option<&'a LogInner>);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            let mut state = shared.lock();
            state.change.by = None;
            let_go(shared.change());
            drop(state);
            shared.changed.notify_all();
            shared.kick(Lane::Prepare); // Retention does not wait for it.
        }
    }
}

/// That a cut is under way: appends wait. It ends however the cut does.
struct Cutting<'a>(&'a LogInner);

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.change.cutting = false;
        let_go(self.0.change()); // (Those that wait for the right itself wake, and note it again.)
        drop(state);
        self.0.changed.notify_all();
    }
}

/// What a cut leaves to be done once appends go on.
#[derive(Default)]
struct CutBack {
    /// Of those that waited for records that were cut.
    wakers: BTreeMap<(Lsn, u64), Waker>,
    /// The holds of other processes, still locked, which the log has now.
    outside: Option<Outside>,
    /// What built frames of the segment that was cut.
    left: Option<Assembler>,
}

/// The frame in which a record begins, as [`frame_at`] finds it.
struct Framed {
    segment: Segment,
    /// Of the segment.
    first_lsn: Lsn,
    block: u32,
    header: Option<FrameHeader>,
    /// Of the stretch in which it was looked for.
    first: Lsn,
}

/// A log that commits now and then allocates nothing for it.
const IDLE_BUFFERS: usize = 1;

impl LogInner {
    /// Puts the control state into the log, durably. If it says that nothing of a full segment is
    /// needed any more, the log goes on in another, as far as there is one, so that this one can be
    /// dropped.
    pub(crate) fn mark<'a>(&'a self, mut state: Guard<'a>, urgency: Urgency) -> Result<()> {
        let mut leaves = state.assembler.is_full() && state.change.control.start == state.assembler.next_lsn();
        loop {
            let LogState { assembler, spares, change, .. } = &mut *state;
            if !leaves && assembler.mark(false, urgency, &change.control) {
                break;
            }
            // The next segment's LINK says the same.
            if !assembler.lacks_space()
                && let Some(spare) = spares.ready.pop_front()
            {
                assembler.rotate(spare, &change.control);
                self.rotated(&mut state);
                break;
            }
            state = match self.unlock_and_obtain(state, 1, urgency) {
                Err(error) if leaves && error.is_no_space() => {
                    leaves = false;
                    self.open_state()?
                }
                obtained => obtained?,
            };
        }
        // A mark has no LSN: its flush must count, and so must all before it. It begins at once,
        // whether or not others are under way.
        let target = state.assembler.end().position;
        state = self.unlock_and_flush(state, true);
        while state.flushes.durable().position < target {
            state.life.not_failed()?;
            state = self.wait_changed(state);
        }
        Ok(())
    }

    /// When the log has fallen idle: says in the log what is durable. `true` if there was something
    /// to say.
    pub(crate) fn unlock_and_mark_idle<'a>(&'a self, mut state: Guard<'a>) -> (Guard<'a>, bool) {
        let due = state.needs_promise() && state.assembler.is_empty() && !state.flushes.has_uncounted() && !state.change.cutting;
        let LogState { assembler, spares, change, .. } = &mut *state;
        if !due {
            return (state, false);
        }
        if !assembler.mark(false, Urgency::Ordinary, &change.control) {
            // No room for it: the next segment's LINK says the same. If none is prepared yet, the
            // thread that prepares it kicks.
            let Some(spare) = spares.ready.pop_front() else { return (state, false) };
            assembler.rotate(spare, &change.control);
            self.rotated(&mut state);
        }
        let end = state.assembler.end().position;
        state.flushes.idle_at(end);
        drop(self.unlock_and_flush(state, true));
        self.shed_memory(IDLE_BUFFERS);
        (self.lock(), true)
    }

    /// Gives back the memory that a log does not need while nothing is appended. Under no lock: it
    /// closes files.
    pub(crate) fn shed_memory(&self, kept: usize) {
        strangers::run(|| {
            let mut recent = self.readable.recent.take();
            let mut state = self.lock();
            state.assembler.reclaim(&mut recent, kept);
            let spare = state.assembler.give_back(kept);
            drop(state);
            drop((recent, spare));
        });
    }

    /// Waits for the right to change the state that is not records. One thread has it at a time, so
    /// each change is durable before the next builds on it. No lock is held meanwhile, for a change
    /// runs wakers: a change that a waker asks for, or whom that waits for, is [`Error::Busy`].
    pub(crate) fn one_at_a_time(&self) -> Result<Changing<'_>> {
        self.dir.check_process()?;
        self.may_wait()?;
        bug!(ChangeAtOnce, return Ok(Changing(None)));
        let mut state = self.lock();
        while let Some(by) = state.change.by {
            let _wait = Wait::on(by, self.change()).ok_or(Error::Busy)?;
            state = self.wait_changed(state);
        }
        Ok(self.begin_change(&mut state))
    }

    /// Takes that right, which no thread has.
    pub(crate) fn begin_change(&self, state: &mut LogState) -> Changing<'_> {
        state.change.by = Some(thread::current().id());
        Changing(Some(self))
    }

    pub(crate) fn truncate_front(&self, before: Lsn) -> Result<Lsn> {
        let start = self.drop_front(before, self.one_at_a_time()?)?;
        if !self.options.background {
            self.remove_all();
        }
        Ok(start)
    }

    /// Moves the start, durably; what is not needed any more is left to be removed.
    pub(crate) fn drop_front(&self, before: Lsn, _changing: Changing<'_>) -> Result<Lsn> {
        let mut outside = self.outside()?;
        bug!(IgnoreOutside, outside = None);
        let mut state = self.open_state()?;
        let last = state.last_lsn();
        if before > last.next() {
            return Err(Error::NotAppended { lsn: before, last });
        }
        let before_it = (state.change.control.start, state.change.control.holds.clone());
        outside.iter().for_each(|outside| outside.apply(&mut state.change.control.holds));
        bug!(UnlockOutside, outside = None);
        let start = self.start_for(&state, before);
        let mut asked = Asked::Stays;
        if start > state.change.control.start || state.change.control.holds != before_it.1 {
            state.change.control.start = start;
            // A truncation that may free a segment finds room, whatever others have marked before.
            let frees = self.chain().entries.get(1).is_some_and(|next| next.first_lsn <= start);
            let mark = |state| {
                bug!(SkipFrontMark, return Ok(()));
                self.mark(state, if frees { Urgency::Last } else { Urgency::Mark })
            };
            mark(state).inspect_err(|_| {
                let control = &mut self.lock().change.control;
                (control.start, control.holds) = before_it;
            })?;
            asked = Asked::IsInTheLog;
            state = self.open_state()?;
        }
        // Readers that ask for less are told so from here on.
        let mut chain = Chain::clone(&self.chain());
        chain.start = chain.start.max(start);
        // What begins behind a dropped segment must be durable: its LINK may still wait for a
        // flush.
        let durable = state.flushes.durable().position;
        let goes_on = |next: &Entry| next.first_lsn <= start && Position::new(next.epoch, format::LINK_BLOCK) < durable;
        let dropped = chain.entries.windows(2).take_while(|pair| goes_on(&pair[1])).count();
        state.removals.add(chain.entries.drain(..dropped).map(|entry| Dropped::from(&entry)));
        let front = chain.entries.first().map_or(0, |e| e.epoch);
        chain.waivers.retain(|w| w.to.epoch >= front);
        state.ages.begun = state.ages.begun.split_off(&front);
        state.change.control.waivers.retain(|w| w.to.epoch >= front);
        self.readable.set_chain(chain);
        self.kick(Lane::Prepare);
        drop(state);
        // (The start has moved for all that.)
        self.let_go(outside, asked).map(|()| start)
    }

    pub(crate) fn truncate_back(&self, from: Lsn) -> Result<()> {
        let _changing = self.one_at_a_time()?;
        let mut state = self.open_state()?;
        if from == Lsn::ZERO {
            return Err(Error::NotAppended { lsn: from, last: state.last_lsn() });
        }
        // New appends wait, or the log might never be quiet. Nothing else changes what the fork
        // builds on. The lock is not held meanwhile.
        state.change.cutting = true;
        let cutting = Cutting(self);
        let cut = self.cut_back(state, from);
        drop(cutting);
        self.kick_all();
        self.readable.tails.wake(); // Readers that waited behind the cut are told.
        self.clean_up(cut?);
        Ok(())
    }

    /// Makes all durable that was appended, then goes on in a fork. The segments that it supersedes
    /// are left to be removed.
    fn cut_back<'a>(&'a self, state: Guard<'a>, from: Lsn) -> Result<CutBack> {
        let mut state = self.come_to_rest(state, from)?;
        if from >= state.assembler.next_lsn() {
            return Ok(CutBack::default());
        }
        let mut tip =
            Tip { end: state.assembler.end().position, spares: std::mem::take(&mut state.spares.ready), fork: Begun::Not };
        let mut control = state.change.control.clone();
        state.spares.preparing = true;
        drop(state);
        let (chain, mut outside) = (self.chain(), None);
        let made = self.outside().and_then(|taken| {
            outside = taken;
            self.attempt("cut the log", &self.dir.path, || self.make_cut(&chain, from, &mut tip, &mut control, outside.as_mut()))
        });
        // Until the fork joins the log, nothing of it has changed. When it has begun to, an error
        // leaves open whether its LINK is there.
        let joined = match made {
            Ok((place, fork)) => self
                .attempt("cut the log", &self.dir.path, || self.join(fork, place, from, tip.end, &control))
                .map(|branched| (place, branched))
                .map_err(|error| (error, true)),
            Err(error) => {
                let undone = self.attempt("undo a cut", &self.dir.path, || self.undo_fork(&mut tip));
                Err((error, undone.is_err()))
            }
        };
        let mut state = self.lock();
        state.spares.preparing = false;
        match joined {
            Ok((place, branched)) => Ok(CutBack { outside, ..self.go_on_in(state, &chain, from, place, branched, control) }),
            Err((error, poisons)) => {
                state.spares.ready = tip.spares;
                let error = if poisons {
                    self.poison(state, error)
                } else {
                    drop(state);
                    error
                };
                let _ = self.let_go(outside, Asked::Stays);
                Err(error)
            }
        }
    }

    /// Waits until all that was appended is durable, and no segment is being prepared.
    fn come_to_rest<'a>(&'a self, mut state: Guard<'a>, from: Lsn) -> Result<Guard<'a>> {
        if state.assembler.is_closed() && from < state.assembler.next_lsn() {
            // First of all the log says that it goes on: else what the fork writes would lie behind
            // a log that is closed.
            while state.assembler.lacks_space() {
                let (after, reserved) = self.unlock_and_prepare(state);
                state = after;
                reserved?;
                state.life.usable()?;
            }
            let LogState { assembler, change, .. } = &mut *state;
            assembler.mark(false, Urgency::Last, &change.control);
        }
        let _starving = Starving::new(&self.starved); // A segment that is being filled is left at that.
        while !state.is_flushed() || state.spares.preparing {
            bug!(CutInFlight, break);
            state = if !state.flushes.has_uncounted() && !state.spares.preparing {
                self.unlock_and_flush(state, true)
            } else {
                self.wait_changed(state)
            };
            state.life.usable()?;
        }
        Ok(state)
    }

    /// Makes the fork, with the holds that other processes have asked for; those that stand behind
    /// the cut are moved, durably, before it counts.
    fn make_cut(
        &self,
        chain: &Chain,
        from: Lsn,
        tip: &mut Tip,
        control: &mut Control,
        mut outside: Option<&mut Outside>,
    ) -> Result<(Place, Fork)> {
        outside.iter().for_each(|outside| outside.apply(&mut control.holds));
        control.cut(from);
        let forked = self.fork_back(chain, from, tip, control)?;
        outside.iter_mut().try_for_each(|outside| outside.cut(from))?;
        Ok(forked)
    }

    /// The log goes on in what has joined it. All that waited for records have what they waited
    /// for: the records were durable before they were cut.
    fn go_on_in(
        &self,
        mut state: Guard<'_>,
        chain: &Chain,
        from: Lsn,
        place: Place,
        branched: Branched,
        control: Control,
    ) -> CutBack {
        let generation = control.generation;
        let superseded = chain.entries.iter().filter(|e| e.epoch > place.at.epoch).map(Dropped::from);
        state.change.control = control;
        let mut entries = fork::up_to(&chain.entries, place.at);
        entries.extend(&branched.entries);
        state.spares.ready = branched.spares;
        let left = std::mem::replace(&mut state.assembler, branched.assembler);
        state.flushes.cut_to(branched.durable);
        state.hooks.cut_to(branched.durable.lsn);
        for entry in &branched.entries {
            self.note_rotation(&mut state, entry.epoch, entry.first_lsn);
        }
        state.removals.add(superseded);
        self.readable.set_durable(branched.durable.lsn);
        let mut cuts = chain.cuts.clone();
        cuts.note(generation, from);
        let waivers = state.change.control.waivers.clone();
        self.readable.set_chain(Chain { entries, generation, cuts, waivers, ..chain.clone() });
        let wakers = state.wakers.take_all();
        self.committers.wake(self.committers.release(Slots::ALL));
        CutBack { wakers, outside: None, left: Some(left) }
    }

    /// What a cut leaves to be done when it was made. It is made for all that: what fails here is
    /// reported.
    fn clean_up(&self, CutBack { wakers, outside, left }: CutBack) {
        // (It may close a file.)
        let closed = self.attempt("close the segment that was cut", &self.dir.path, move || {
            drop(left);
            Ok(())
        });
        // The log has these holds now. If they stay there as well, they are what the log has.
        let cleared = self.let_go(outside, Asked::IsInTheLog);
        closed.and(cleared).unwrap_or_else(|error| self.report(&error));
        strangers::wake(wakers.into_values());
        if !self.options.background {
            self.remove_all();
        }
    }

    /// Makes the fork of a cut at a record, beside the log. Nothing else uses the log's tip or
    /// prepares a segment.
    fn fork_back(&self, chain: &Chain, from: Lsn, tip: &mut Tip, control: &mut Control) -> Result<(Place, Fork)> {
        let simple = self.place_of_cut(chain, from)?.ok_or(Error::Dropped { lsn: from, start: chain.start })?;
        control.waivers.retain(|w| w.from < simple.at);
        let (blocks, entries) = (self.options.segment_blocks(), &chain.entries);
        let own = self.blocks_of_cut(chain, simple, from)?;
        let may_absorb = control.waivers.is_empty() && chain.waivers.is_empty();
        // Blocks that are written again only for their room.
        let mut most = may_absorb.then_some(u64::MAX);
        loop {
            let fresh = self.fresh_for_cut(tip, own)?;
            let room = fork::room_behind(&fresh, blocks).saturating_sub(own);
            let (place, absorbed) = match most {
                Some(most) => fork::absorb(&self.dir, self.id, entries, blocks, most.min(room), simple)?,
                None => (simple, None),
            };
            match self.fork_at(chain, from, (place, absorbed), fresh, tip, control) {
                // They stay where they are, if they cannot be read, or have no room after all.
                Err(Error::Corruption(_)) if place != simple => most = None,
                Err(error) if error.is_no_space() && place != simple => {
                    most = fork::copied_blocks(&self.dir, entries, place.at, simple.at).checked_sub(1);
                }
                forked => return forked.map(|fork| (place, fork)),
            }
            self.undo_fork(tip)?;
            tip.fork = Begun::Not;
        }
    }

    /// The same from a place on, in a fresh segment, with what was cut by the LINKs that it
    /// supersedes so.
    fn fork_at(
        &self,
        chain: &Chain,
        from: Lsn,
        (place, absorbed): (Place, Option<Cut>),
        fresh: Arc<Segment>,
        tip: &mut Tip,
        control: &Control,
    ) -> Result<Fork> {
        let cut = Cut { since: chain.generation, at: from };
        let branch = Branch {
            log: self.id,
            from: place,
            bytes: Snapshot::reader(&self.dir, chain, Lsn::FIRST, from.prev()).bytes_before(place.next_lsn),
            cut: Some(absorbed.map_or(cut, |absorbed| absorbed.and_later(Some(cut)))),
            segment_blocks: self.options.segment_blocks(),
            fresh,
            spares: std::mem::take(&mut tip.spares),
            unsealed: vec![tip.end.epoch],
            control: control.clone(),
        };
        let copies = Snapshot::reader(&self.dir, chain, place.next_lsn, from.prev());
        fork::fork(&self.dir, branch, Some(copies))
    }

    /// Makes the fork the log's tail.
    fn join(&self, fork: Fork, place: Place, from: Lsn, end: Position, control: &Control) -> Result<Branched> {
        let mut branched = fork.join()?;
        self.dir.check_writer()?;
        if place.next_lsn < from {
            branched.prove(control)?;
        }
        if place.at.epoch == end.epoch
            && let Ok(Ok((segment, None))) = self.dir.open_segment(Some(self.id), end.epoch, Access::Write)
        {
            self.dir.give_back(&segment, end.block);
        }
        Ok(branched)
    }

    /// After a fork that did not come to its end: what it has begun is removed, durably, and what
    /// it took of the reserve is put back. An error if something is left that would be in the way.
    fn undo_fork(&self, tip: &mut Tip) -> Result<()> {
        if tip.fork == Begun::Not {
            return Ok(());
        }
        tip.spares.clear();
        let removed = self.remove_behind(tip.end.epoch);
        // (One that was only prepared is replaced by the next.)
        if tip.fork == Begun::Preparing { Ok(()) } else { removed }
    }

    fn remove_behind(&self, tip: u64) -> Result<()> {
        self.dir.check_writer()?; // Else they may be another's.
        let ours = |epoch| match self.dir.open_segment(Some(self.id), epoch, Access::Read) {
            Ok(found) => found.is_ok(), // (It has its name only with a whole header.)
            Err(Error::Io { source, .. }) => !matches!(source.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput),
            Err(_) => true,
        };
        let behind: Vec<u64> = self.dir.names()?.epochs.into_iter().filter(|&epoch| epoch > tip && ours(epoch)).collect();
        take_links_back(&self.dir, self.id, &behind)?;
        self.remove_files(&behind).error.map_or_else(|| self.dir.sync(), Err)
    }

    fn place_of_cut(&self, chain: &Chain, from: Lsn) -> Result<Option<Place>> {
        if from < chain.start {
            return Ok(None);
        }
        let (at, next_lsn) = self.unit_boundary(chain, from)?;
        Ok(Some(Place { at, next_lsn }))
    }

    /// A segment for a cut: one that is prepared, or a new one. That is not filled with zeros, for
    /// the log waits; and on a full disk it is made of the reserve, if the blocks that the cut has
    /// to write again have room there.
    fn fresh_for_cut(&self, tip: &mut Tip, own: u64) -> Result<Arc<Segment>> {
        if let Some(spare) = tip.spares.pop_front() {
            tip.fork = Begun::Writing;
            return Ok(spare);
        }
        tip.fork = Begun::Preparing;
        let fresh = self.segment_for_cut(tip.end.epoch + 1, own)?;
        tip.fork = Begun::Writing;
        Ok(fresh)
    }

    fn segment_for_cut(&self, epoch: u64, own: u64) -> Result<Arc<Segment>> {
        let blocks = self.options.segment_blocks();
        loop {
            let freed = self.lock().removals.freed();
            let first = self.reserve_first();
            let made = first.and_then(|()| self.dir.prepare(self.id, epoch, blocks, Stuff::Nothing, &|_| Fill::Stop));
            let error = match made {
                Err(error) if error.is_no_space() => error,
                made => return made,
            };
            // What the log has dropped is room, or the reserve, as soon as it is removed.
            let superseded = self.dir.blocks_of(&segment_name(epoch - 1));
            bug!(CutAtOnce, return self.segment_of_reserve(epoch, superseded, error));
            match self.unlock_and_make_room(self.lock(), freed) {
                Ok(state) => state.life.usable()?,
                Err(_)
                    if own
                        > u64::from(copy_room(self.dir.reserve_behind(superseded).map_or(reserve::blocks(blocks), |r| r.0))) =>
                {
                    return Err(error);
                }
                Err(state) => {
                    drop(state);
                    return self.segment_of_reserve(epoch, superseded, error);
                }
            }
        }
    }

    /// The blocks of what a cut within a unit leaves of that, and has to write again.
    fn blocks_of_cut(&self, chain: &Chain, simple: Place, from: Lsn) -> Result<u64> {
        if from == simple.next_lsn {
            return Ok(0);
        }
        let Framed { segment, block, header, .. } = self.frame_of(chain, from)?;
        // It ends with the frame in which the cut lies, or just before it.
        let more = header.filter(|header| header.first_lsn() < from || header.head_len > 0).map_or(0, |header| header.blocks());
        Ok(fork::copied_blocks(&self.dir, &chain.entries, simple.at, segment.at(block + more)))
    }

    /// Where the unit begins that holds a record, and the LSN of its frame's first record.
    pub(crate) fn unit_boundary(&self, chain: &Chain, mut lsn: Lsn) -> Result<(Position, Lsn)> {
        loop {
            let Framed { segment, first_lsn, block, header, first } = self.frame_of(chain, lsn)?;
            match header {
                Some(header) if header.kind == Kind::Data && header.has(CONTINUED) => {
                    let floor = chain.entries.first().map_or(Lsn::FIRST, |e| e.first_lsn);
                    if header.first_lsn() <= floor {
                        // The unit began in a segment that was dropped.
                        return Ok((segment.at(format::LINK_BLOCK + 1), first_lsn));
                    }
                    lsn = header.first_lsn().prev();
                }
                Some(header) => return Ok((segment.at(block), header.first_lsn())),
                None => return Ok((segment.at(block.max(format::LINK_BLOCK + 1)), first)),
            }
        }
    }

    fn frame_of(&self, chain: &Chain, lsn: Lsn) -> Result<Framed> {
        let Some(entry) = chain.entry_of(lsn).map(|index| &chain.entries[index]) else {
            return Err(Error::Dropped { lsn, start: chain.start });
        };
        let segment = match self.dir.open_segment(Some(self.id), entry.epoch, Access::Read)? {
            Ok((segment, _)) => segment,
            Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
        };
        let (stretch, first) = chain.stretch(entry, lsn);
        let (block, header) = frame_at(&segment, lsn, stretch)?;
        Ok(Framed { segment, first_lsn: entry.first_lsn, block, header, first })
    }
}
