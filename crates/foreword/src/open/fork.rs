//! Going on in a fresh segment: after a crash, after a salvage, and after a cut at the back. One
//! mechanism for all three.
//!
//! Nothing that lies in the log is changed. The fresh segment is filled from block 2 on, made
//! durable, and becomes part of the log by one write: its LINK. Until that is there, a reader sees
//! the log as it was, and a next attempt begins anew.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::assemble::payload::Payload;
use crate::assemble::placed::{self, Placed};
use crate::assemble::room::{Urgency, copied_end, copy_room, fresh_room};
use crate::assemble::{Assembler, NeedSegments, Placement};
use crate::bug::bug;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::fill::at_once;
use crate::files::names::segment_name;
use crate::files::prepare::Stuff;
use crate::files::reserve;
use crate::files::segment::{Found, Segment};
use crate::files::time::now_micros;
use crate::format::{
    self, CONTINUED, Control, Count, Cut, Entry, Head, Kind, LINK_BLOCK, Link, LogId, Position, Promise, SEGMENT_BLOCKS_MIN,
};
use crate::read::reader::Reader;
use crate::{Lsn, Result};

/// Copied records are written when so many bytes of them have gathered.
const WRITE_AT: usize = 1 << 20;

/// A segment with at most so many blocks of records is written again with what follows it, so that
/// crashes and cuts do not fill the directory with segments that hold little: 1 MiB, or a quarter
/// of a segment; where the reserve is a whole segment, all records that one has room for.
fn absorbed_max(segment_blocks: u32) -> u32 {
    let quarter = (segment_blocks / 4).min(256);
    if reserve::blocks(segment_blocks) < segment_blocks { quarter } else { quarter.max(fresh_room(segment_blocks)) }
}

/// A place between two units, and the LSN of the first record behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: Position,
    pub(crate) next_lsn: Lsn,
}

/// Where a fork is to begin that was to begin at `place`: where the chain enters a segment before
/// it, if what it has up to there is little enough to be written again, and all that is has room in
/// so many blocks. The segments behind are superseded by the fork. What lies before `place` is
/// durable. Beside it what was cut by the LINKs that are superseded so: the fork's is to tell of it.
pub(crate) fn absorb(
    dir: &Dir,
    log: LogId,
    chain: &[Entry],
    segment_blocks: u32,
    mut room: u64,
    mut place: Place,
) -> Result<(Place, Option<Cut>)> {
    let mut cut: Option<Cut> = None;
    bug!(NeverAbsorb, return Ok((place, cut)));
    let simple = place;
    let mut left = absorbed_max(segment_blocks);
    while let Some(index) = chain.iter().position(|e| e.epoch == place.at.epoch) {
        let Ok((segment, None)) = dir.open_segment(Some(log), place.at.epoch, Access::Read)? else { break };
        let blocks = place.at.block.min(copied_end(segment.blocks)).saturating_sub(LINK_BLOCK + 1);
        // One that was made of the reserve is given up for another, or the reserve would not be
        // there the next time. (Of those that are no smaller than the log's segments, only the tip:
        // the log may have many.)
        let is_tip = index + 1 == chain.len();
        let mut small = match segment.blocks {
            blocks if blocks < segment_blocks => copy_room(reserve::blocks(segment_blocks)),
            blocks if is_tip && reserve::can_be_reserve(blocks) => copy_room(blocks),
            _ => 0,
        };
        bug!(ForgetLarger, small = if segment.blocks > segment_blocks { 0 } else { small });
        bug!(ForgetUrgent, small = if segment.blocks == segment_blocks { 0 } else { small });
        if blocks > left.max(small) || begins_within_unit(&segment)? {
            break;
        }
        if u64::from(blocks) > room {
            bug!(AbsorbAllOrNone, return Ok((simple, None)));
            break;
        }
        let Some(link) = link_of(&segment)? else { break };
        place = Place { at: link.pred, next_lsn: chain[index].first_lsn };
        cut = link.cut.map(|earlier| earlier.and_later(cut)).or(cut);
        left = left.saturating_sub(blocks);
        room -= u64::from(blocks);
    }
    Ok((place, cut))
}

/// The room for what a fork writes again that has begun with such a segment: one as large as the
/// log's is followed by others, where there is space.
pub(crate) fn room_behind(fresh: &Segment, segment_blocks: u32) -> u64 {
    if fresh.blocks < segment_blocks { u64::from(copy_room(fresh.blocks)) } else { u64::MAX }
}

pub(crate) fn link_of(segment: &Segment) -> Result<Option<Link>> {
    let mut buf = Vec::new();
    Ok(match segment.frame(LINK_BLOCK, segment.data_end(), &mut buf)? {
        Found::Frame(header) if header.kind == Kind::Link => Link::decode(format::payload(&header, &buf)),
        _ => None,
    })
}

fn begins_within_unit(segment: &Segment) -> Result<bool> {
    Ok(matches!(segment.head(LINK_BLOCK + 1)?, Head::Frame(header) if header.has(CONTINUED)))
}

/// The part of a chain that lies before a place.
pub(crate) fn up_to(chain: &[Entry], at: Position) -> Vec<Entry> {
    let mut entries: Vec<Entry> = chain.iter().copied().filter(|e| e.epoch <= at.epoch).collect();
    if let Some(last) = entries.last_mut() {
        last.end = Some(at.block);
    }
    entries
}

/// Blocks of the chain from a place on, up to `end`, of which a fork writes again what they hold.
pub(crate) fn copied_blocks(dir: &Dir, chain: &[Entry], at: Position, end: Position) -> u64 {
    let blocks = |e: &Entry| {
        let from = if e.epoch == at.epoch { at.block } else { LINK_BLOCK + 1 };
        let to = if e.epoch == end.epoch { end.block } else { e.end.unwrap_or(end.block) };
        let has = dir.blocks_of(&segment_name(e.epoch)).max(SEGMENT_BLOCKS_MIN);
        u64::from(to.min(copied_end(has)).saturating_sub(from))
    };
    chain.iter().filter(|e| (at.epoch..=end.epoch).contains(&e.epoch)).map(blocks).sum()
}

/// Where, and as what, the log goes on.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) log: LogId,
    /// Where the log so far ends.
    pub(crate) from: Place,
    /// The bytes of all records before.
    pub(crate) bytes: u64,
    /// What was cut since the generation of what it follows.
    pub(crate) cut: Option<Cut>,
    pub(crate) segment_blocks: u32,
    /// The fresh segment, and what else is prepared behind it.
    pub(crate) fresh: Arc<Segment>,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    /// Segments that get a seal, or have theirs made durable, for the fresh one follows them.
    pub(crate) unsealed: Vec<u64>,
    pub(crate) control: Control,
}

/// The log's new tail, durable to its end.
#[derive(Debug)]
pub(crate) struct Branched {
    pub(crate) assembler: Assembler,
    pub(crate) spares: VecDeque<Arc<Segment>>,
    /// The fresh segments' part of the chain.
    pub(crate) entries: Vec<Entry>,
    pub(crate) durable: Promise,
    /// How many records were written again.
    pub(crate) copied: u64,
}

impl Branched {
    /// Says in a MARK that the LINK is durable. It promises itself, and so proves nothing alone of
    /// what was proven before and is written again here: readers of other processes would lose it
    /// for a while.
    pub(crate) fn prove(&mut self, control: &Control) -> Result<()> {
        if self.assembler.mark(false, Urgency::Mark, control) {
            self.assembler.take().iter_mut().try_for_each(|placed| placed.write(self.durable, true))?;
            self.durable = self.assembler.end();
        }
        Ok(())
    }
}

/// A branch that lies beside the log: only its LINK and the seals before it are not written.
#[derive(Debug)]
pub(crate) struct Fork {
    assembler: Assembler,
    spares: VecDeque<Arc<Segment>>,
    entries: Vec<Entry>,
    /// In the order in which they are written.
    seals: Vec<Placed>,
    link: VecDeque<Placed>,
    /// What the seals promise.
    before: Promise,
    copied: u64,
}

impl Fork {
    /// Makes it the log's new tail. After an error it is not known whether it is.
    pub(crate) fn join(mut self) -> Result<Branched> {
        self.seals.iter_mut().try_for_each(|seal| seal.write(self.before, true))?;
        let durable = self.assembler.end();
        self.link.iter_mut().try_for_each(|placed| placed.write(durable, true))?;
        let Fork { assembler, spares, entries, copied, .. } = self;
        Ok(Branched { assembler, spares, entries, durable, copied })
    }
}

/// Makes the branch, and writes all that `copies` reads into it, durably. Nothing of the log
/// changes: after an error the segments that were begun are of no use, and all else is as it was.
pub(crate) fn fork(dir: &Dir, branch: Branch, copies: Option<Reader>) -> Result<Fork> {
    let Branch { log, from, bytes, cut, segment_blocks, fresh: first, mut spares, unsealed, control } = branch;
    let Place { at, next_lsn } = from;
    let prepare = |epoch| dir.prepare(log, epoch, segment_blocks, Stuff::Nothing, &at_once);
    let next = Count { lsn: next_lsn, bytes };
    let mut assembler = Assembler::link(first.clone(), segment_blocks, next, &Link { pred: at, cut, control: control.clone() });
    // Into a small one as much goes as was in another that is as small.
    let mut small = first.blocks < segment_blocks || reserve::can_be_reserve(first.blocks);
    bug!(ForgetUrgent, small = first.blocks < segment_blocks);
    let urgency = if small { Urgency::Copy } else { Urgency::Ordinary };
    let mut link = assembler.take();
    let mut written = first;

    let before = Promise { position: at, lsn: next_lsn.prev() };
    let mut write = |assembler: &mut Assembler| -> Result<()> {
        let mut frames = assembler.take();
        for placed in &mut frames {
            // Each is made durable when the next is begun, so that few files are open at once.
            if !Arc::ptr_eq(&written, &placed.segment) {
                sync_copies(&written)?;
                written = placed.segment.clone();
            }
            placed.write(before, false)?;
        }
        assembler.reclaim(&mut frames, usize::MAX);
        frames.clear();
        assembler.reclaim_list(frames);
        Ok(())
    };
    let mut copied = 0;
    if let Some(mut copies) = copies {
        while let Some(record) = copies.next()? {
            // Records keep the time when they were first written. (The LINK has that of the first,
            // so that times rise along the log.)
            assembler.written_at(record.micros);
            link.iter_mut().filter(|link| link.header.time == 0).for_each(|link| link.header.time = record.micros);
            let unit = [record.data];
            let unit = Payload::records(&unit);
            while let Err(NeedSegments(need)) =
                assembler.put(Placement { unit: &unit, urgency, spares: &mut spares, control: &control })
            {
                while spares.len() < need {
                    spares.push_back(prepare(assembler.next_epoch(&spares))?);
                }
            }
            copied += 1;
            if assembler.placed_bytes() > WRITE_AT {
                write(&mut assembler)?;
            }
        }
    }
    write(&mut assembler)?;
    assembler.written_at(0);
    sync_copies(&written)?;
    drop(written);
    let seals = unsealed.into_iter().map(|epoch| seal_of(dir, log, epoch, from, bytes));
    let seals = seals.filter_map(Result::transpose).collect::<Result<_>>()?;
    link.iter_mut().filter(|link| link.header.time == 0).for_each(|link| link.header.time = now_micros());
    let mut entries: Vec<_> = link.iter().map(|link| Entry::new(link.segment.epoch(), &link.header)).collect();
    assembler.rotations().iter().for_each(|rotation| rotation.extend(&mut entries));
    Ok(Fork { assembler, spares, entries, seals, link, before, copied })
}

fn sync_copies(segment: &Segment) -> Result<()> {
    bug!(LinkBeforeCopies, return Ok(()));
    segment.sync()
}

/// Seals a segment behind which the log goes on elsewhere, from a place in it or before it. Durable
/// when it returns.
pub(crate) fn seal_off(dir: &Dir, log: LogId, epoch: u64, place: Place, bytes: u64) -> Result<()> {
    let before = Promise { position: place.at, lsn: place.next_lsn.prev() };
    seal_of(dir, log, epoch, place, bytes)?.map_or(Ok(()), |mut seal| seal.write(before, true))
}

/// The seal of a segment behind which the log goes on elsewhere; `None` where none can be.
fn seal_of(dir: &Dir, log: LogId, epoch: u64, Place { at, next_lsn }: Place, bytes: u64) -> Result<Option<Placed>> {
    let Ok((segment, None)) = dir.open_segment(Some(log), epoch, Access::Write)? else { return Ok(None) };
    // What follows the fork is superseded: nothing of it counts.
    let end = if epoch == at.epoch { at.block } else { 0 };
    let mut seal = placed::seal(&Arc::new(segment), end, Count { lsn: next_lsn, bytes });
    let mut buf = Vec::new();
    Ok(match seal.segment.frame(seal.block, seal.segment.blocks, &mut buf)? {
        // It may be only in the page cache: the same bytes once more.
        Found::Frame(header) if header.kind == Kind::Seal => {
            seal.segment.read(seal.block, &mut seal.buf)?; // As it lies on the disk, tags and all.
            Some(Placed { header, again: true, ..seal })
        }
        Found::Damaged(_) => None,
        _ => Some(seal),
    })
}
