//! Goes on in a fresh segment with what the survey found: what no promise covers is written again
//! there, and the fork is joined to the log.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::assemble::room::copy_room;
use crate::bug::bug;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::names::segment_name;
use crate::files::outside::Outside;
use crate::format::{BLOCK, Chain, Control, Cut, FRAME_MAX, LINK_BLOCK, LogId, Position};
use crate::observe::stats::RecoveryReport;
use crate::open::clear::remove_begun;
use crate::open::fork::{self, Branch, Branched, Place};
use crate::open::fresh::{Fresh, fresh_segment, fresh_segments};
use crate::open::opened::Opened;
use crate::open::repair::Repair;
use crate::read::snapshot::Snapshot;
use crate::recovery::{Survey, Verdict};
use crate::{Error, Lsn, Options, Result};

/// After anything else: it goes on in a fresh segment.
pub(super) fn branch(
    options: &Options,
    dir: &Dir,
    survey: &Survey,
    repair: &Repair,
    mut outside: Option<&mut Outside>,
    mut report: RecoveryReport,
) -> Result<Opened> {
    let branching = Branching::plan(options, dir, survey, repair, &report.verdict);
    if branching.damaged {
        outside.iter_mut().try_for_each(|outside| outside.cut(branching.end.next_lsn))?;
    }
    let fresh = fresh_segments(options, dir, survey, branching.epoch, branching.damaged)?;
    let (from, control, mut branched) = branching.make(fresh)?;
    if let Some(written_to) = survey.written_to.filter(|w| w.epoch == from.at.epoch && !branching.damaged) {
        give_back_rest(dir, survey.log, written_to)?;
    }
    if from.next_lsn <= survey.promise.lsn {
        branched.prove(&control)?;
    }
    report.rewritten_records = branched.copied;
    let mut entries = fork::up_to(&survey.chain, from.at);
    entries.extend(&branched.entries);
    let (assembler, spares, durable) = (branched.assembler, branched.spares, branched.durable);
    Ok(Opened { log: survey.log, assembler, spares, entries, control, durable, report })
}

/// How a log goes on in a fresh segment.
struct Branching<'a> {
    options: &'a Options,
    dir: &'a Dir,
    survey: &'a Survey,
    repair: &'a Repair,
    damaged: bool,
    /// From where on what was found may be only in the page cache, for no promise covers it.
    unproven: Option<Place>,
    /// Where it ends.
    end: Place,
    /// The fresh segment's.
    epoch: u64,
    control: Control,
}

/// Where a log went on, in which state.
type Made = (Place, Control, Branched);

impl<'a> Branching<'a> {
    fn plan(options: &'a Options, dir: &'a Dir, survey: &'a Survey, repair: &'a Repair, verdict: &Verdict) -> Branching<'a> {
        let damaged = matches!(verdict, Verdict::Corruption(_));
        let end = Place { at: survey.end, next_lsn: repair.next_lsn.unwrap_or(survey.next_lsn) };
        let epoch = if damaged { survey.highest() + 1 } else { survey.newest + 1 };
        let mut control = survey.control.clone();
        for waiver in &repair.waivers {
            if !control.waivers.contains(waiver) {
                control.waivers.push(*waiver);
            }
        }
        if damaged {
            // LSNs that were acknowledged may be given to other records, even where nothing says
            // which.
            control.cut(end.next_lsn);
        }
        for waiver in &mut control.waivers {
            if waiver.to.epoch == u64::MAX {
                waiver.to = Position::new(epoch, LINK_BLOCK);
            }
        }
        Branching { options, dir, survey, repair, damaged, unproven: unproven_from(survey), end, epoch, control }
    }

    /// Where the fork begins, for which there is room for so many blocks of copies, and what is cut
    /// by the LINKs that it supersedes so. What no promise covers is written again there; or at
    /// once, in place, where copies cannot be or have no room. Then it is proven.
    fn begin(&self, room: u64, unproven: &mut Option<Place>) -> Result<(Place, Option<Cut>)> {
        let mut behind = unproven.map_or(0, |unproven| self.copied(unproven));
        if let Some(place) = unproven.take_if(|_| behind > room || !self.repair.waivers.is_empty()) {
            write_again(self.dir, self.survey, place.at)?;
            behind = 0;
        }
        let from = unproven.unwrap_or(self.end);
        // Copies would close the gaps that a salvage leaves in the LSNs.
        if !self.control.waivers.is_empty() || self.damaged {
            return Ok((from, None));
        }
        fork::absorb(self.dir, self.survey.log, &self.survey.chain, self.options.segment_blocks(), room - behind, from)
    }

    /// How many blocks of copies a fork from there has.
    fn copied(&self, from: Place) -> u64 {
        fork::copied_blocks(self.dir, &self.survey.chain, from.at, self.survey.end)
    }

    /// Seals the newest segment, before the fork writes anything: what shows that the log went on
    /// behind a clean close may be only in the page cache, and without it the log would be closed,
    /// whatever the fork has begun to write. The fresh segment is there, as a SEAL says, and what
    /// lies before the place is proven. What is left to be sealed.
    fn seal_off(&self, from: Place) -> Result<Vec<u64>> {
        let stays = |epoch: &u64| !self.repair.moved.contains(&segment_name(*epoch));
        let mut unsealed: Vec<u64> = self.survey.unsealed.iter().copied().filter(stays).collect();
        let mut seals = !self.damaged;
        bug!(SealLate, seals = false);
        if seals {
            let newest = self.survey.newest;
            fork::seal_off(self.dir, self.survey.log, newest, from, self.bytes_before(from.next_lsn))?;
            unsealed.retain(|&epoch| epoch != newest);
        }
        Ok(unsealed)
    }

    /// Makes the fork, and joins it to the log. Where there is no space for the copies after all, it
    /// has fewer; but it supersedes what it can, or each opening on a full disk would leave a part
    /// of the reserve behind.
    fn make(&self, mut fresh: Fresh) -> Result<Made> {
        let (options, dir, mut unproven) = (self.options, self.dir, self.unproven);
        let mut room = fork::room_behind(&fresh.segment, options.segment_blocks());
        loop {
            let (from, absorbed) = self.begin(room, &mut unproven)?;
            let unsealed = self.seal_off(from)?;
            let copied = self.copied(from);
            match self.go_on(from, absorbed, &unsealed, fresh) {
                Err(error) if error.is_no_space() && copied > 0 => {
                    let mut removed = remove_begun(dir, self.survey.log, self.epoch);
                    bug!(ForkBeside, removed = true);
                    if !removed {
                        return Err(error); // A LINK of it would be the newest.
                    }
                    let segment = fresh_segment(options, dir, self.survey, self.epoch, self.damaged)?;
                    room = (copied - 1).min(u64::from(copy_room(segment.blocks)));
                    fresh = Fresh { segment, spares: VecDeque::new() };
                }
                gone_on => return gone_on,
            }
        }
    }

    fn go_on(&self, from: Place, absorbed: Option<Cut>, unsealed: &[u64], Fresh { segment, spares }: Fresh) -> Result<Made> {
        let (survey, mut control) = (self.survey, self.control.clone());
        let front = survey.chain.iter().find(|e| e.epoch <= from.at.epoch).map_or(u64::MAX, |e| e.epoch);
        control.waivers.retain(|w| w.to.epoch >= front || self.damaged);
        let own = self.damaged.then_some(Cut { since: survey.control.generation, at: from.next_lsn });
        let branch = Branch {
            log: survey.log,
            from,
            bytes: self.bytes_before(from.next_lsn),
            cut: own.or(absorbed.filter(|_| from != self.end)),
            segment_blocks: self.options.segment_blocks(),
            fresh: segment,
            spares,
            unsealed: unsealed.to_vec(),
            control: control.clone(),
        };
        let chain = Chain { start: Lsn::FIRST, ..Chain::new(survey.log, survey.chain.clone(), &control) };
        let copies = (from != self.end).then(|| Snapshot::reader(self.dir, &chain, from.next_lsn, survey.last_lsn()));
        fork::fork(self.dir, branch, copies)?.join().map(|branched| (from, control, branched))
    }

    /// The bytes of all records before one.
    fn bytes_before(&self, lsn: Lsn) -> u64 {
        let survey = self.survey;
        let chain = Chain::new(survey.log, survey.chain.clone(), &survey.control);
        Snapshot::reader(self.dir, &chain, Lsn::FIRST, survey.last_lsn()).bytes_before(lsn)
    }
}

/// Where the log holds what no promise covers; `None` if there is nothing. (A promise beyond the
/// end proves all before it.)
fn unproven_from(survey: &Survey) -> Option<Place> {
    let proven = survey.promise.position.min(survey.end);
    bug!(TrustCache, return None);
    if proven == survey.end {
        return None;
    }
    if survey.chain.iter().any(|e| e.epoch == survey.promise.position.epoch) {
        return Some(Place { at: proven, next_lsn: survey.promise.lsn.next() });
    }
    // Nothing was promised yet, or only what is dropped by now. The first segment that is left, at
    // least, was begun durably: before the log had its identity, or before what preceded it was
    // dropped.
    let first = survey.chain.first();
    Some(Place {
        at: first.map_or(Position::default(), |e| Position::new(e.epoch, LINK_BLOCK + 1)),
        next_lsn: first.map_or(survey.next_lsn, |e| e.first_lsn),
    })
}

/// Gives back the space behind what was ever written to the segment in which the log left its
/// branch.
fn give_back_rest(dir: &Dir, log: LogId, written_to: Position) -> Result<()> {
    if let Ok((segment, None)) = dir.open_segment(Some(log), written_to.epoch, Access::Write)? {
        dir.give_back(&segment, written_to.block);
    }
    Ok(())
}

/// Writes what lies between a position and the end of the log once more, byte by byte the same,
/// durably.
fn write_again(dir: &Dir, survey: &Survey, from: Position) -> Result<()> {
    let mut buf = vec![0; FRAME_MAX];
    for entry in survey.chain.iter().filter(|e| e.epoch >= from.epoch) {
        let segment = match dir.open_segment(Some(survey.log), entry.epoch, Access::Write)? {
            Ok((segment, _)) => segment,
            Err(damage) => return Err(Error::Corruption(Arc::new(damage))),
        };
        let end = entry.end.unwrap_or(survey.end.block);
        let mut block = if entry.epoch == from.epoch { from.block } else { LINK_BLOCK };
        while block < end {
            let want = buf.len().min((end - block) as usize * BLOCK);
            let read = segment.read(block, &mut buf[..want])?;
            segment.write(block, &mut [io::IoSlice::new(&buf[..read])], true)?;
            if read < want {
                break;
            }
            block += (want / BLOCK) as u32;
        }
    }
    Ok(())
}
