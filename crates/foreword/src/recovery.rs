//! What the log in a directory is, by evidence: the chain, its end, and the verdict. Reads only; what follows from it is done in
//! `fork.rs`. The verdict table is in `docs/FORMAT.md`; the numbers of its rows are in the comments here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::bug::{self, Bug};
use crate::disk::Access;
use crate::error::{Damage, DamageKind};
use crate::format::{
    self, BLOCK, Binding, CLOSED, CONTINUED, CONTINUES, Control, FrameHeader, Head, Kind, LINK_BLOCK, Link, LogId, Position,
    Promise, SECTOR, Sector, Waiver, is_later,
};
use crate::reader::Cuts;
use crate::segment::{Dir, Found, Names, Segment, within_reach};
use crate::walk::Walker;
use crate::{Lsn, Result};

/// What the evidence says of a log: the rows of the verdict table in `docs/FORMAT.md`, coarsely.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// There was no log; it was made.
    Created,
    /// It was closed (row 1).
    Clean,
    /// It was not closed, and nothing is missing or torn (row 2).
    Unclosed,
    /// A crash tore the tail; what is cut was never acknowledged (rows 3, 4, 5, 18 and 19).
    TornTail,
    /// Data that was, or may have been, acknowledged is damaged.
    Corruption(Damage),
}

impl Verdict {
    /// One word, for scripts: `created`, `clean`, `unclosed`, `torn-tail` or `corruption`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Created => "created",
            Verdict::Clean => "clean",
            Verdict::Unclosed => "unclosed",
            Verdict::TornTail => "torn-tail",
            Verdict::Corruption(_) => "corruption",
        }
    }
}

/// A segment of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) epoch: u64,
    pub(crate) first_lsn: Lsn,
    /// Where the log leaves it, if it does.
    pub(crate) end: Option<u32>,
}

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// From the last promise on; a clean close is trusted. What lies before is checked when it is read.
    Tail,
    /// Everything.
    All,
}

/// The log in a directory.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) log: LogId,
    pub(crate) verdict: Verdict,
    /// From the oldest segment to the tip. Empty if nothing of the log is readable.
    pub(crate) chain: Vec<Entry>,
    pub(crate) control: Control,
    /// The cuts at the back of which the chain's LINKs tell.
    pub(crate) cuts: Cuts,
    /// The highest promise of a frame, in the chain or behind the break.
    pub(crate) promise: Promise,
    /// The segment whose LINK makes that promise, itself included: nothing else proves that the LINK is durable.
    pub(crate) unproven_link: Option<u64>,
    /// Behind the last whole unit.
    pub(crate) end: Position,
    /// The LSN after the last whole unit's.
    pub(crate) next_lsn: Lsn,
    /// Where no valid frame was.
    pub(crate) break_at: Position,
    /// The highest epoch of an active segment, and of any (but for names beyond what any log reaches).
    pub(crate) newest: u64,
    pub(crate) highest: u64,
    pub(crate) names: Names,
    /// Active segments from the fork on: their seals are absent, or may be only in the page cache.
    pub(crate) unsealed: Vec<u64>,
    /// The highest LSN of which any frame speaks, before the break or behind it.
    pub(crate) known: Lsn,
    /// Garbled sectors where nothing can have been acknowledged (row 18).
    pub(crate) garbled_behind: u64,
    /// Prepared segments of which every sector was read and is unwritten: they can be used as they are. None where the
    /// fast path found a closed log.
    pub(crate) unwritten: Vec<u64>,
    /// Behind the last block of the break's segment of which any sector is not unwritten.
    pub(crate) written_to: Option<Position>,
    /// Bytes of frames that were read and checked.
    pub(crate) scanned: u64,
}

/// A segment, by its first two blocks.
#[derive(Debug)]
struct Slot {
    blocks: u32,
    link: LinkState,
    /// The file has not the length that its header says.
    short: Option<Damage>,
}

#[derive(Debug)]
enum LinkState {
    Active {
        link: Link,
        header: FrameHeader,
    },
    /// Prepared and never used, as far as one can see.
    Unwritten,
    Damaged(&'static str),
}

/// Read at once behind a break.
const READ_BLOCKS: u32 = 64;

/// Read at once behind the end of a closed log: little, for memory that is new to the process takes longer than the reading.
const READ_BEHIND: u32 = 8;

/// So many threads at most look at a log's segments: one more for each so many, since for few it takes longer to start one.
const LOOKERS: usize = 4;
const LOOKS_MIN: usize = 32;

/// Told how far a survey is: bytes done, bytes in all.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Looks at a log, in a directory with these names. `Ok(None)`: there is none (no segment was ever active). `extra` waivers are honoured besides the log's own.
pub(crate) fn survey(dir: &Dir, names: Names, depth: Depth, extra: &[Waiver], progress: Progress<'_>) -> Result<Option<Survey>> {
    let mut surveyor = Surveyor { dir, slots: BTreeMap::new(), bad: BTreeMap::new(), depth, scanned: 0 };
    let mut identity_damage = None;
    let mut log = None;
    if names.identity {
        match dir.read_identity()? {
            Ok(id) => log = Some(id),
            Err(_) => identity_damage = Some("the file is not as it was written"),
        }
    }
    if log.is_none() {
        log = surveyor.newest_identity(&names)?;
    }
    let damage_at = |kind, path: PathBuf, offset, first_lsn, evidence: &str| Damage {
        kind,
        path,
        offset,
        first_lsn,
        last_lsn: None,
        proven: true,
        evidence: evidence.to_owned(),
    };
    surveyor.look_at_all(log, &names)?;
    if surveyor.slots.is_empty()
        && identity_damage.is_none()
        && let Some(other) = surveyor.newest_identity(&names)?.filter(|&other| Some(other) != log)
    {
        identity_damage = Some("its uuid is that of no segment");
        log = Some(other);
        surveyor.bad.clear();
        surveyor.look_at_all(log, &names)?;
    }
    let newest = surveyor.actives().next_back();
    let unused = surveyor.bad.is_empty() && surveyor.slots.values().all(|slot| matches!(slot.link, LinkState::Unwritten));
    if names.epochs.is_empty() || (unused && !names.identity) {
        if !names.identity {
            return Ok(None); // Creation that did not get as far as its first record.
        }
        // Row 13.
        let evidence = "the log's identity is here, but no segment";
        let damage = damage_at(DamageKind::LostAll, dir.file(crate::segment::IDENTITY), 0, Lsn::FIRST, evidence);
        return Ok(Some(Survey::nothing(log.unwrap_or(LogId([0; 16])), names, damage)));
    }
    let highest = names.epochs.iter().copied().map(within_reach).max().unwrap_or(0);
    let log = log.unwrap_or(LogId([0; 16]));

    // The newest control state known without reading the tail; its start bounds what must be there.
    let mut control = newest.map(|e| surveyor.control(e)).unwrap_or_default();
    control.waivers.extend(extra);

    // The tip: the newest segment from which the chain can be walked. `cut` is the oldest segment that cannot be part of it,
    // `lost` the damage, where it is that of a whole segment.
    let (mut cut, mut lost) = (None, None);
    let (chain, scan, found, beyond) = loop {
        let chain = surveyor.pick_chain(&mut cut, &control);
        let mut scan = Scan::new(&chain, &control);
        let found = surveyor.scan(&mut scan, &chain, &mut control, progress)?;
        // What lies behind the break: promises, and whether anything was written. The fast path has looked already.
        let beyond = if found == Break::Closed { Beyond::default() } else { surveyor.look_beyond(scan.at)? };
        if matches!(found, Break::Damaged(_) | Break::Structure(_)) || beyond.promise.position > scan.at {
            control.start = control.start.max(beyond.start);
        }
        // A chain whose front is gone is no damage if its records were dropped: which the last MARK may be the first to say.
        let Some(front) = chain.first().copied() else { break (chain, scan, found, beyond) };
        let pred = surveyor.pred_of(front.epoch, &control).unwrap_or_default();
        let begins = pred.epoch == 0 && way_in(front.epoch, &control).is_some();
        if begins || front.first_lsn <= control.start {
            break (chain, scan, found, beyond);
        }
        let mut damage = if pred.epoch == 0 {
            let offset = Position::new(front.epoch, LINK_BLOCK).byte();
            let evidence = "a LINK with which the log begins, but not at its first record"; // Row 22.
            damage_at(DamageKind::Structure, dir.segment(front.epoch), offset, control.start, evidence)
        } else {
            let evidence = "a segment of the log is not there, and its records were not dropped"; // Rows 10 and 11.
            damage_at(DamageKind::LostSegment, dir.segment(pred.epoch), 0, control.start, evidence)
        };
        damage.last_lsn = Some(front.first_lsn.prev());
        lost.get_or_insert(damage);
        cut = Some(front.epoch);
    };
    // A start beyond the end was said by a frame beyond it, for a truncation that did not come about.
    control.start = control.start.min(scan.next.max(Lsn::FIRST));
    // Of the segments that cannot even be opened, the first that the log needs; or any.
    let tip = chain.last().map_or(0, |e| e.epoch);
    let excused = |epoch| control.waivers.iter().any(|w| w.from.epoch < epoch && epoch < w.to.epoch);
    let bad = |above| surveyor.bad.iter().find(|&(&epoch, _)| epoch > above && !excused(epoch)).map(|(_, damage)| damage.clone());
    lost = bad(tip).or(lost).or_else(|| bad(0));
    if chain.is_empty() && lost.is_none() {
        // The first LINK was durable before anything else was: `LOG`, or what lies behind it.
        let epoch = names.epochs.first().copied().unwrap_or(0);
        let (kind, evidence) = match surveyor.slots.get(&epoch) {
            Some(Slot { link: LinkState::Damaged(why), .. }) => (DamageKind::Garbled, *why),
            _ => (DamageKind::Missing, "a LINK that is not there, though there is more of the log"),
        };
        let at = Position::new(epoch, LINK_BLOCK).byte();
        lost = Some(damage_at(kind, dir.segment(epoch), at, control.start, evidence));
    }
    if depth == Depth::Tail && lost.is_none() {
        // Rows 17 and 22, within the log: reading all would come upon them.
        let cut_within = |e: &Entry| {
            let short = surveyor.slots.get(&e.epoch)?.short.as_ref()?;
            let waived = control.waivers.iter().any(|w| w.from.epoch == e.epoch);
            (short.offset < Position::new(0, e.end?).byte() && !waived).then(|| short.clone())
        };
        let falls = |pair: &[Entry]| {
            let at = Position::new(pair[1].epoch, LINK_BLOCK);
            let evidence = "a LINK whose LSN is before that of the segment that it follows";
            let damage = || damage_at(DamageKind::Structure, dir.segment(at.epoch), at.byte(), control.start, evidence);
            (pair[1].first_lsn < pair[0].first_lsn).then(damage)
        };
        lost = chain.iter().find_map(cut_within).or_else(|| chain.windows(2).find_map(falls));
    }

    let mut survey = Survey {
        log,
        cuts: surveyor.cuts(&chain),
        verdict: Verdict::Unclosed,
        control,
        promise: scan.promise,
        unproven_link: scan.promising_link.filter(|&epoch| found != Break::Closed && epoch <= scan.end.epoch),
        end: scan.end,
        next_lsn: scan.next,
        break_at: scan.at,
        newest: newest.unwrap_or(0),
        highest: highest.max(within_reach(scan.promise.position.epoch)),
        unsealed: Vec::new(),
        known: scan.next.prev(),
        garbled_behind: 0,
        unwritten: beyond.unwritten,
        written_to: beyond.written_to,
        scanned: surveyor.scanned,
        chain,
        names,
    };

    let proven = beyond.promise.position > scan.at;
    let ends_closed = found == Break::Unwritten && scan.closed && tip == survey.newest && !beyond.written && !proven;
    let found = if ends_closed { Break::Closed } else { found };
    survey.highest = survey.highest.max(within_reach(beyond.promise.position.epoch));
    survey.garbled_behind = beyond.garbled;
    survey.known = survey.known.max(beyond.known);
    if beyond.promise.position > survey.promise.position {
        survey.promise = beyond.promise;
    }

    // Seals, from the break on: row 12 and row 20.
    let mut seal_damage = None;
    let mut sealed_here = false;
    let fork = survey.break_at.epoch.min(survey.promise.position.epoch);
    for epoch in surveyor.actives().filter(|&e| e >= fork) {
        survey.unsealed.push(epoch);
        if epoch < survey.break_at.epoch {
            continue;
        }
        match surveyor.seal(epoch)? {
            Seal::Absent => {}
            Seal::Damaged => seal_damage = Some(epoch),
            Seal::There(_) if epoch == survey.newest && !survey.names.epochs.contains(&(epoch + 1)) && lost.is_none() => {
                let evidence = "the newest segment is sealed: there was another after it, and it is gone";
                lost = Some(damage_at(DamageKind::LostNewest, dir.segment(epoch + 1), 0, survey.next_lsn, evidence));
            }
            Seal::There(end) => sealed_here |= epoch == survey.break_at.epoch && end <= survey.break_at.block,
        }
    }

    let at = survey.break_at;
    let damage = |kind, path, offset, proven, evidence: String| {
        let last_lsn = (beyond.promise.lsn >= survey.next_lsn).then_some(beyond.promise.lsn);
        Verdict::Corruption(Damage { kind, path, offset, first_lsn: survey.next_lsn, last_lsn, proven, evidence })
    };
    let broken_at = |why: &str, proof: Promise| {
        let position = proof.position;
        format!("{why}; a later frame says that all before block {} of segment {} was durable", position.block, position.epoch)
    };
    // Where the seal says that the log had left the tip, the next segment's LINK is what is broken, and that is the place to name.
    let next_link = match surveyor.slots.get(&(tip + 1)) {
        Some(Slot { link: LinkState::Damaged(why), .. }) if sealed_here => Some((*why, true)),
        Some(Slot { link: LinkState::Unwritten, .. }) if sealed_here && proven => Some(("a LINK that is not there", false)),
        _ => None,
    };
    let here = || dir.segment(at.epoch);
    survey.verdict = if let Some(found) = lost {
        let last_lsn = found.last_lsn.max((beyond.promise.lsn >= survey.next_lsn).then_some(beyond.promise.lsn));
        Verdict::Corruption(Damage { first_lsn: survey.next_lsn, last_lsn, ..found })
    } else if let Some(why) = identity_damage {
        damage(DamageKind::Identity, dir.file(crate::segment::IDENTITY), 0, true, why.to_owned())
    } else if let Some(short) = surveyor.slots.get(&at.epoch).and_then(|slot| slot.short.as_ref())
        && (at.epoch == tip || matches!(found, Break::Damaged(_)))
    {
        damage(DamageKind::Size, short.path.clone(), short.offset, true, short.evidence.clone())
    } else {
        match (found, next_link) {
            (Break::Structure(why), _) => damage(DamageKind::Structure, here(), at.byte(), true, why.to_owned()),
            (Break::Damaged(why), _) if proven => {
                damage(DamageKind::Garbled, here(), at.byte(), true, broken_at(why, beyond.promise))
            }
            (Break::Damaged(why), _) => {
                let evidence = format!("{why}; a crash cannot do this, and no later promise says whether it was acknowledged");
                damage(DamageKind::Garbled, here(), at.byte(), false, evidence)
            }
            (Break::Unwritten | Break::Torn, Some((why, garbled))) => {
                let kind = if garbled { DamageKind::Garbled } else { DamageKind::Missing };
                let offset = Position::new(0, LINK_BLOCK).byte();
                let evidence = if proven { broken_at(why, beyond.promise) } else { format!("{why}; a crash cannot do this") };
                damage(kind, dir.segment(tip + 1), offset, proven, evidence)
            }
            (Break::Unwritten, None) if proven => {
                damage(DamageKind::Missing, here(), at.byte(), true, broken_at("nothing is written here", beyond.promise))
            }
            (Break::Torn, None) if proven => {
                let why = "a frame of which some sectors were never written";
                damage(DamageKind::Missing, here(), at.byte(), true, broken_at(why, beyond.promise))
            }
            (Break::Closed | Break::Unwritten, None) if seal_damage.is_some() => {
                let epoch = seal_damage.unwrap_or(0);
                let (blocks, inner) = (surveyor.slots.get(&epoch).map_or(1, |s| s.blocks), epoch < survey.newest);
                let offset = Position::new(epoch, blocks - 1).byte();
                damage(DamageKind::Seal, dir.segment(epoch), offset, inner, "the segment's seal is damaged".to_owned())
            }
            (Break::Closed, _) => Verdict::Clean,
            (Break::Unwritten, None) if scan.in_unit || beyond.written || survey.newest > tip => Verdict::TornTail,
            (Break::Unwritten, None) => Verdict::Unclosed,
            (Break::Torn, None) => Verdict::TornTail,
        }
    };
    Ok(Some(survey))
}

/// Why a scan ended. `Closed`: at the end of a closed log, with nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Closed,
    Unwritten,
    Torn,
    Damaged(&'static str),
    Structure(&'static str),
}

/// A scan along the chain.
#[derive(Debug)]
struct Scan {
    /// Where the next frame is looked for.
    at: Position,
    /// The LSN that the next record to begin has.
    expect: Lsn,
    in_unit: bool,
    /// Bytes of the record begun last that are still to come.
    pending: u64,
    /// The record at hand began in a segment that was dropped: nothing says how long it is.
    headless: bool,
    /// Behind the last whole unit.
    end: Position,
    next: Lsn,
    promise: Promise,
    /// Where the chain begins.
    first: Position,
    /// The segment whose LINK makes the promise, or, without a promise, begins the chain.
    promising_link: Option<u64>,
    closed: bool,
    /// No frame was seen yet: a unit may have begun in a segment that was dropped.
    fresh: bool,
}

impl Scan {
    fn new(chain: &[Entry], control: &Control) -> Scan {
        let (at, expect) = match chain.first() {
            Some(first) => {
                (way_in(first.epoch, control).map_or(Position::new(first.epoch, LINK_BLOCK), |w| w.to), first.first_lsn)
            }
            None => (Position::default(), control.start),
        };
        Scan {
            at,
            expect,
            in_unit: false,
            pending: 0,
            headless: false,
            end: at,
            next: expect,
            promise: Promise::default(),
            first: at,
            promising_link: chain.first().map(|first| first.epoch),
            closed: false,
            fresh: true,
        }
    }

    /// Begins at the promise of a segment's LINK: it lies between units.
    fn begin_at(&mut self, promise: Promise, link: u64) {
        self.promising_link = (promise.position.epoch >= link).then_some(link);
        self.fresh = false;
        self.begin(promise.position, promise.lsn.next(), promise);
    }

    /// Begins with the tip's LINK, which a frame behind it promises. It may lie within a unit, which then ends before that promise.
    fn begin_with(&mut self, tip: &Entry, promise: Promise) {
        self.promising_link = None;
        self.begin(Position::new(tip.epoch, LINK_BLOCK), tip.first_lsn, promise);
    }

    fn begin(&mut self, at: Position, expect: Lsn, promise: Promise) {
        (self.at, self.end) = (at, at);
        (self.expect, self.next) = (expect, expect);
        self.promise = promise;
    }

    /// Takes a frame in; what is wrong with it, if anything is.
    fn take(&mut self, header: &FrameHeader, payload: &[u8], control: &mut Control) -> std::result::Result<(), &'static str> {
        let (is_link, epoch) = (header.kind == Kind::Link, self.at.epoch);
        if is_link != (self.at.block == LINK_BLOCK) {
            return Err("a LINK out of its place, or something else in it");
        }
        if header.first_lsn != self.expect {
            return Err("a frame whose LSN does not follow the one before");
        }
        if !header.adds_up() {
            return Err("records in a frame of a kind that has none");
        }
        if !is_link && header.promise.position > self.at {
            return Err("a frame that promises what was not there yet");
        }
        self.closed = false;
        match header.kind {
            Kind::Header | Kind::Seal => return Err("a HEADER or SEAL among the records"),
            Kind::Link => {
                let link = Link::decode(payload).ok_or("a LINK that does not add up")?;
                adopt(control, link.control);
            }
            Kind::Mark => {
                if self.in_unit {
                    return Err("a MARK inside a unit");
                }
                adopt(control, Control::decode(payload).ok_or("a MARK that does not add up")?);
                self.closed = header.has(CLOSED);
            }
            Kind::Data => {
                let continued = header.has(CONTINUED);
                if self.fresh && continued {
                    self.in_unit = true;
                    self.headless = true;
                }
                if continued != self.in_unit {
                    return Err("a unit that does not end, or does not begin");
                }
                self.fresh = false;
                self.count(header, payload)?;
                self.in_unit = header.has(CONTINUES);
                if !self.in_unit && self.pending > 0 {
                    return Err("a record that does not end");
                }
            }
        }
        self.expect = header.next_lsn();
        self.at.block += header.blocks();
        if !self.in_unit || bug::is(Bug::AcceptPartialUnit) {
            self.end = self.at;
            self.next = self.expect;
        }
        // A promise beyond the frame itself is only made by a fork's LINK, for what was written before it.
        // One before the chain's first segment, which was dropped since, proves nothing of what is left.
        if header.promise.position > self.promise.position.max(self.first) {
            self.promise = header.promise;
            let itself = is_link && header.promise.position.epoch >= epoch;
            self.promising_link = itself.then_some(epoch);
        } else if !is_link && self.promising_link == Some(epoch) && header.promise.position > Position::new(epoch, LINK_BLOCK) {
            self.promising_link = None; // A frame behind it says that it is durable.
        }
        Ok(())
    }

    /// Checks that the records in a payload add up.
    fn count(&mut self, header: &FrameHeader, payload: &[u8]) -> std::result::Result<(), &'static str> {
        const WRONG: &str = "records that do not add up";
        let head = header.head_len as usize;
        if self.headless {
            self.pending = head as u64;
            self.headless = head == payload.len() && header.has(CONTINUES);
        }
        if head as u64 > self.pending || head > payload.len() || (self.pending > head as u64 && payload.len() > head) {
            return Err(WRONG);
        }
        self.pending -= head as u64;
        let mut rest = &payload[head..];
        let mut records = 0;
        while !rest.is_empty() {
            let (len, tail) = rest.split_at_checked(4).ok_or(WRONG)?;
            let len = format::u32_at(len, 0) as usize;
            records += 1;
            if len > tail.len() {
                self.pending = (len - tail.len()) as u64;
                rest = &[];
            } else {
                rest = &tail[len..];
            }
        }
        if records != header.records || (self.pending > 0 && !header.has(CONTINUES)) {
            return Err(WRONG);
        }
        Ok(())
    }

    /// Follows a waiver that begins here.
    fn waive(&mut self, control: &Control) -> bool {
        let from_here = |w: &&Waiver| w.from == self.at && !self.in_unit;
        let Some(waiver) = control.waivers.iter().find(from_here) else { return false };
        self.at = waiver.to;
        self.end = waiver.to;
        self.expect = waiver.last_lost.next();
        self.next = self.expect;
        true
    }
}

/// The waiver that leads from elsewhere into a segment.
fn way_in(epoch: u64, control: &Control) -> Option<&Waiver> {
    control.waivers.iter().find(|w| w.to.epoch == epoch && w.from.epoch < epoch)
}

/// The control state of the next frame: the last one in the log counts. But a waiver once written stays, and is known before the log is read along it.
/// So does a generation: one that was used, before a break or behind it, is not used for other records.
fn adopt(control: &mut Control, mut new: Control) {
    if is_later(control.generation, new.generation) {
        new.generation = control.generation;
    }
    for waiver in control.waivers.drain(..) {
        if !new.waivers.contains(&waiver) {
            new.waivers.push(waiver);
        }
    }
    *control = new;
}

/// What was found behind the break.
#[derive(Debug, Default)]
struct Beyond {
    promise: Promise,
    /// The last LSN that a frame header names, promised or not.
    known: Lsn,
    /// The highest start that a LINK or MARK names.
    start: Lsn,
    written: bool,
    garbled: u64,
    /// See [`Survey`].
    unwritten: Vec<u64>,
    written_to: Option<Position>,
}

impl Beyond {
    /// Takes a block in, whose first sector is not the only one that counts: a tear may have left any. Whether all of it is
    /// unwritten.
    fn take(&mut self, binding: &Binding, active: bool, block: u32, bytes: &[u8]) -> bool {
        if let Head::Frame(header) = binding.head(block, &bytes[..SECTOR]) {
            self.known = self.known.max(header.next_lsn().prev()).max(header.promise.lsn);
            // A fork's LINK promises itself: while it is torn, nothing was acknowledged on its word.
            let itself = header.promise.position > Position::new(binding.epoch, block);
            let counts = (active || !itself || bug::is(Bug::TrustTornLink)) && !bug::is(Bug::IgnorePromises);
            if counts && header.promise.position > self.promise.position {
                self.promise = header.promise;
            }
            self.start = self.start.max(start_of(binding, block, &header, bytes).unwrap_or(Lsn::ZERO));
        }
        let first = u64::from(block) * (BLOCK / SECTOR) as u64;
        let mut unwritten = true;
        for (sector, index) in bytes.chunks_exact(SECTOR).zip(first..) {
            match binding.classify(index, sector) {
                Sector::Unwritten => continue,
                Sector::Written { .. } => self.written = true,
                Sector::Garbled => self.garbled += 1,
            }
            unwritten = false;
        }
        unwritten
    }
}

/// The start LSN that a LINK or MARK names, if it is whole. (These have one block.)
fn start_of(binding: &Binding, block: u32, header: &FrameHeader, bytes: &[u8]) -> Option<Lsn> {
    if !matches!(header.kind, Kind::Link | Kind::Mark) || header.frame_len() != bytes.len() {
        return None;
    }
    let mut frame = bytes.to_vec();
    binding.open_body(block, header, &mut frame).ok()?;
    let payload = format::payload(header, &frame);
    let control = if header.kind == Kind::Link { Link::decode(payload)?.control } else { Control::decode(payload)? };
    Some(control.start)
}

/// By bisection, a written block with an unwritten one behind it: the last that is written, unless there are holes. `None` where it comes upon damage.
fn last_written(segment: &Segment) -> Result<Option<u32>> {
    let (mut written, mut unwritten) = (LINK_BLOCK, segment.data_end());
    while unwritten - written > 1 {
        let middle = written + (unwritten - written) / 2;
        match segment.head(middle)? {
            Head::Frame(_) | Head::Middle => written = middle,
            Head::Unwritten => unwritten = middle,
            Head::Damaged(_) => return Ok(None),
        }
    }
    Ok(Some(written))
}

enum Seal {
    /// With the end that it names.
    There(u32),
    Absent,
    Damaged,
}

/// By epoch, what a segment looks like; or why not even its header can be used.
type Looked = Vec<(u64, std::result::Result<Slot, Damage>)>;

fn look_at(dir: &Dir, log: Option<LogId>, epochs: impl Iterator<Item = u64>) -> Result<Looked> {
    let (mut beginning, mut buf) = ([0; (LINK_BLOCK as usize + 1) * BLOCK], Vec::new());
    let look = |epoch| {
        let (segment, short) = match dir.open_segment_reading(log, epoch, Access::Read, &mut beginning)? {
            Ok(found) => found,
            Err(damage) => return Ok((epoch, Err(damage))),
        };
        buf.clear();
        buf.extend_from_slice(&beginning[LINK_BLOCK as usize * BLOCK..]);
        let link = match segment.rest_of_frame(LINK_BLOCK, segment.data_end(), &mut buf)? {
            Found::Frame(header) if header.kind == Kind::Link => match Link::decode(format::payload(&header, &buf)) {
                Some(link) if link.follows(within_reach(epoch)) && header.first_lsn >= Lsn::FIRST => {
                    LinkState::Active { link, header }
                }
                _ => LinkState::Damaged("a LINK that does not add up"),
            },
            Found::Frame(_) => LinkState::Damaged("another frame in the LINK's place"),
            Found::Unwritten | Found::Torn => LinkState::Unwritten,
            Found::Damaged(why) => LinkState::Damaged(why),
        };
        let looked = match short {
            Some(damage) if !matches!(link, LinkState::Active { .. }) => Err(damage),
            short => Ok(Slot { blocks: segment.blocks, link, short }),
        };
        Ok((epoch, looked))
    };
    epochs.map(look).collect()
}

struct Surveyor<'a> {
    dir: &'a Dir,
    slots: BTreeMap<u64, Slot>,
    /// Segments of which not even the header can be used.
    bad: BTreeMap<u64, Damage>,
    depth: Depth,
    scanned: u64,
}

impl Surveyor<'_> {
    /// Without `LOG`, the newest segment with a sound header says which log this is.
    fn newest_identity(&self, names: &Names) -> Result<Option<LogId>> {
        for &epoch in names.epochs.iter().rev() {
            if let Ok((segment, _)) = self.dir.open_segment(None, epoch, Access::Read)? {
                return Ok(Some(segment.log()));
            }
        }
        Ok(None)
    }

    /// Opens every segment, and reads its header and its LINK. Where there are many, several threads do, since the disk and the processors can do more than
    /// one at once. Each takes the next that nobody has: it may be a millisecond until a new thread has a processor, and nothing waits for it to begin.
    fn look_at_all(&mut self, log: Option<LogId>, names: &Names) -> Result<()> {
        let (dir, taken) = (self.dir, AtomicUsize::new(0));
        let untaken = || names.epochs.get(taken.fetch_add(1, Ordering::Relaxed)).copied();
        let look = || look_at(dir, log, std::iter::from_fn(untaken));
        let others = (names.epochs.len() / LOOKS_MIN).min(LOOKERS - 1);
        let looked: Vec<_> = thread::scope(|scope| {
            let others: Vec<_> = (0..others).map_while(|_| thread::Builder::new().spawn_scoped(scope, look).ok()).collect();
            let finish =
                |other: thread::ScopedJoinHandle<'_, _>| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            std::iter::once(look()).chain(others.into_iter().map(finish)).collect::<Result<_>>()
        })?;
        for (epoch, looked) in looked.into_iter().flatten() {
            match looked {
                Ok(slot) => drop(self.slots.insert(epoch, slot)),
                Err(damage) => drop(self.bad.insert(epoch, damage)),
            }
        }
        Ok(())
    }

    fn actives(&self) -> impl DoubleEndedIterator<Item = u64> {
        let active = |slot: &Slot| matches!(slot.link, LinkState::Active { .. });
        self.slots.iter().filter(move |(_, slot)| active(slot)).map(|(&epoch, _)| epoch)
    }

    fn active(&self, epoch: u64) -> Option<(&Link, &FrameHeader)> {
        match self.slots.get(&epoch)? {
            Slot { link: LinkState::Active { link, header }, .. } => Some((link, header)),
            _ => None,
        }
    }

    fn control(&self, epoch: u64) -> Control {
        self.active(epoch).map(|(link, _)| link.control.clone()).unwrap_or_default()
    }

    /// The cuts of which a chain's LINKs tell: each stands at the beginning of the first with its generation. Where that is the oldest segment, it
    /// may have been anywhere before.
    fn cuts(&self, chain: &[Entry]) -> Cuts {
        let (mut cuts, mut before) = (Cuts::default(), 0);
        for (i, entry) in chain.iter().enumerate() {
            let Some((link, _)) = self.active(entry.epoch) else { continue };
            if is_later(link.control.generation, before) {
                before = link.control.generation;
                cuts.note(before, if i == 0 { Lsn::FIRST } else { entry.first_lsn });
            }
        }
        cuts
    }

    /// What a segment follows: by its LINK, or by the waiver that leads to it.
    fn pred_of(&self, epoch: u64, control: &Control) -> Option<Position> {
        way_in(epoch, control).map(|w| w.from).or_else(|| self.active(epoch).map(|(link, _)| link.pred))
    }

    /// The first LSN of a segment that can be on a chain: by the waiver that leads past its LINK, which may be damaged, or by that.
    fn first_lsn(&self, epoch: u64, control: &Control) -> Option<Lsn> {
        let waived = way_in(epoch, control).filter(|_| self.slots.contains_key(&epoch)).map(|w| w.last_lost.next());
        waived.or_else(|| self.active(epoch).map(|(_, header)| header.first_lsn))
    }

    /// The chain to the newest tip below the cut from which it can be walked; the cut is lowered past those from which it cannot.
    fn pick_chain(&self, cut: &mut Option<u64>, control: &Control) -> Vec<Entry> {
        loop {
            let below = cut.unwrap_or(u64::MAX);
            let on_chain = |e: &u64| *e < below && self.first_lsn(*e, control).is_some();
            let Some(tip) = self.slots.keys().rev().copied().find(on_chain) else { return Vec::new() };
            match self.walk_down(tip, control) {
                Ok(chain) => return chain,
                Err(epoch) => *cut = Some(epoch),
            }
        }
    }

    /// The chain from the oldest segment that is there to a tip, or the segment whose LINK cannot be read.
    fn walk_down(&self, tip: u64, control: &Control) -> std::result::Result<Vec<Entry>, u64> {
        let mut chain = Vec::new();
        let (mut epoch, mut end) = (tip, None);
        while let Some(first_lsn) = self.first_lsn(epoch, control) {
            chain.push(Entry { epoch, first_lsn, end });
            let pred = self.pred_of(epoch, control).unwrap_or_default();
            // What is not there was dropped, or is lost: judged after the scan.
            let dropped = first_lsn <= control.start && self.first_lsn(pred.epoch, control).is_none();
            if pred.epoch == 0 || dropped || !(self.slots.contains_key(&pred.epoch) || self.bad.contains_key(&pred.epoch)) {
                chain.reverse();
                return Ok(chain);
            }
            (epoch, end) = (pred.epoch, Some(pred.block));
        }
        Err(epoch)
    }

    /// Whether a log can have got to a position, as far as that segment is there: not beyond its seal.
    fn has_place(&self, position: Position) -> bool {
        self.slots.get(&position.epoch).is_none_or(|slot| position.block < slot.blocks)
    }

    fn open(&self, epoch: u64) -> Result<Arc<Segment>> {
        match self.dir.open_segment(None, epoch, Access::Read)? {
            Ok((segment, _)) => Ok(Arc::new(segment)),
            Err(damage) => Err(crate::Error::Corruption(Arc::new(damage))),
        }
    }

    /// Reads along the chain to the first place without a valid frame.
    fn scan(&mut self, scan: &mut Scan, chain: &[Entry], control: &mut Control, progress: Progress<'_>) -> Result<Break> {
        let Some(tip) = chain.last() else { return Ok(Break::Unwritten) };
        if self.depth == Depth::Tail {
            let segment = self.open(tip.epoch)?;
            let written = last_written(&segment)?;
            if let Some(written) = written
                && let Some(closed) = self.closed(tip, &segment, written, scan, control)?
            {
                return Ok(closed);
            }
            let link = Position::new(tip.epoch, LINK_BLOCK);
            let promise = self.active(tip.epoch).map_or(Promise::default(), |(_, header)| header.promise);
            let later = match written {
                Some(written) if promise.position < link => self.promised_within(tip, &segment, written, control)?,
                _ => None,
            };
            if let Some(later) = later {
                scan.begin_with(tip, later);
            } else if chain.iter().any(|e| e.epoch == promise.position.epoch) && self.has_place(promise.position) {
                scan.begin_at(promise, tip.epoch);
            }
        }
        let bytes_of = |e: &Entry| self.slots.get(&e.epoch).map_or(0, |slot| Position::new(0, slot.blocks).byte());
        let total: u64 = chain.iter().filter(|e| e.epoch >= scan.at.epoch).map(bytes_of).sum();
        let before = self.scanned;
        let mut walker: Option<Walker> = None;
        loop {
            while scan.waive(control) {}
            let Some(index) = chain.iter().position(|e| e.epoch == scan.at.epoch) else {
                return Ok(Break::Structure("a waiver that leads nowhere"));
            };
            let end = chain[index].end;
            let walker = match &mut walker {
                Some(walker) if walker.segment().epoch() == scan.at.epoch => {
                    walker.seek(scan.at.block);
                    walker
                }
                Some(walker) => {
                    walker.replace(self.open(scan.at.epoch)?, scan.at.block, end.unwrap_or(u32::MAX));
                    walker
                }
                none => none.insert(Walker::new(self.open(scan.at.epoch)?, scan.at.block, end.unwrap_or(u32::MAX))),
            };
            if walker.at_end() {
                match chain.get(index + 1) {
                    Some(next) => scan.at = Position::new(next.epoch, LINK_BLOCK),
                    // The tip is full to its seal.
                    None => return Ok(Break::Unwritten),
                }
                continue;
            }
            match walker.step(None)? {
                Found::Frame(header) => {
                    let sound = match self.has_place(header.promise.position) {
                        true => scan.take(&header, walker.payload(&header), control),
                        false => Err("a frame that promises a place that its segment does not have"),
                    };
                    if let Err(why) = sound {
                        return Ok(Break::Structure(why));
                    }
                    self.scanned += header.frame_len() as u64;
                    progress(self.scanned - before, total);
                }
                Found::Unwritten => return Ok(Break::Unwritten),
                Found::Torn => return Ok(Break::Torn),
                Found::Damaged(why) => return Ok(Break::Damaged(why)),
            }
        }
    }

    /// Row 1 without a scan: the last written block of the tip is that of a CLOSED mark, which promises all before it.
    fn closed(
        &self,
        tip: &Entry,
        segment: &Segment,
        written: u32,
        scan: &mut Scan,
        control: &mut Control,
    ) -> Result<Option<Break>> {
        let Some(slot) = self.slots.get(&tip.epoch).filter(|slot| slot.short.is_none()) else { return Ok(None) };
        // Sealed, there is more behind it, or should be.
        if segment.head(slot.blocks - 1)? != Head::Unwritten {
            return Ok(None);
        }
        let mut buf = Vec::new();
        let Found::Frame(header) = segment.frame(written, segment.data_end(), &mut buf)? else { return Ok(None) };
        let at = Position::new(tip.epoch, written);
        if header.kind != Kind::Mark || !header.has(CLOSED) || header.promise.position != at || header.blocks() != 1 {
            return Ok(None);
        }
        let Some(new) = Control::decode(format::payload(&header, &buf)) else { return Ok(None) };
        if header.first_lsn < control.start.max(new.start) || !header.adds_up() {
            return Ok(None);
        }
        // Bisection sees few blocks, and of them only the first sectors: nothing may stand right behind what it found.
        let end = (slot.blocks - 1).min(written + 1 + format::FRAME_BLOCKS_MAX);
        let mut buf = vec![0; READ_BEHIND.min(end.saturating_sub(written + 1)) as usize * BLOCK];
        for block in (written + 1..end).step_by(READ_BEHIND as usize) {
            buf.truncate((end - block) as usize * BLOCK);
            let read = segment.read(block, &mut buf)?;
            let mut sectors = buf.chunks_exact(SECTOR).zip(u64::from(block) * (BLOCK / SECTOR) as u64..);
            if read < buf.len() || sectors.any(|(s, i)| segment.binding.classify(i, s) != Sector::Unwritten) {
                return Ok(None);
            }
        }
        adopt(control, new);
        scan.at = Position::new(tip.epoch, written + 1);
        scan.end = scan.at;
        scan.next = header.first_lsn;
        scan.expect = header.first_lsn;
        scan.promise = header.promise;
        Ok(Some(Break::Closed))
    }

    /// A promise that covers the tip's LINK, made by a frame about where the tip's last written block is: then all before the tip was durable. The LINK's
    /// own may be far older, if much was appended before anything was synced.
    fn promised_within(&self, tip: &Entry, segment: &Segment, written: u32, control: &Control) -> Result<Option<Promise>> {
        if self.active(tip.epoch).is_none() || way_in(tip.epoch, control).is_some() {
            return Ok(None);
        }
        for block in (written.saturating_sub(format::FRAME_BLOCKS_MAX)..=written).rev().take_while(|&b| b > LINK_BLOCK) {
            if let Head::Frame(header) = segment.head(block)? {
                let promise = header.promise;
                return Ok((promise.position > segment.at(LINK_BLOCK)).then_some(promise));
            }
        }
        Ok(None)
    }

    /// Reads all that lies behind the break: the rest of that segment (if the log does not leave it before), and every file with a higher epoch.
    fn look_beyond(&self, at: Position) -> Result<Beyond> {
        let mut beyond = Beyond::default();
        let behind = || self.slots.range(at.epoch..);
        let blocks_max = behind().map(|(_, slot)| slot.blocks.min(READ_BLOCKS)).max().unwrap_or(0);
        let mut buf = vec![0; blocks_max as usize * BLOCK];
        for (&epoch, slot) in behind() {
            let from = if epoch == at.epoch { at.block } else { LINK_BLOCK };
            let (segment, active) = (self.open(epoch)?, self.active(epoch).is_some());
            let (mut block, mut end) = (from, from);
            while block < slot.blocks {
                let want = READ_BLOCKS.min(slot.blocks - block) as usize * BLOCK;
                let read = segment.read(block, &mut buf[..want])?;
                for (bytes, block) in buf[..read].chunks_exact(BLOCK).zip(block..) {
                    // A seal is written when all before it is, or by a recovery: it says nothing of a hole.
                    let own_seal = block == slot.blocks - 1 && epoch == at.epoch;
                    let written = beyond.written;
                    if !beyond.take(&segment.binding, active, block, bytes) && !own_seal {
                        end = block + 1;
                    }
                    beyond.written &= written || !own_seal;
                }
                if read < want {
                    break;
                }
                block += (want / BLOCK) as u32;
            }
            if epoch == at.epoch {
                beyond.written_to = Some(Position::new(epoch, end));
            } else if end == from && block >= slot.blocks && matches!(slot.link, LinkState::Unwritten) {
                beyond.unwritten.push(epoch);
            }
        }
        Ok(beyond)
    }

    fn seal(&self, epoch: u64) -> Result<Seal> {
        let Some(slot) = self.slots.get(&epoch).filter(|slot| slot.short.is_none()) else { return Ok(Seal::Absent) };
        let segment = self.open(epoch)?;
        let mut buf = Vec::new();
        Ok(match segment.frame(slot.blocks - 1, slot.blocks, &mut buf)? {
            Found::Frame(header) if header.kind == Kind::Seal && header.payload_len >= 4 => {
                Seal::There(format::u32_at(format::payload(&header, &buf), 0))
            }
            Found::Unwritten | Found::Torn => Seal::Absent,
            Found::Frame(_) | Found::Damaged(_) => Seal::Damaged,
        })
    }
}

impl Survey {
    fn nothing(log: LogId, names: Names, damage: Damage) -> Survey {
        let highest = names.epochs.last().copied().unwrap_or(0);
        Survey {
            log,
            verdict: Verdict::Corruption(damage),
            chain: Vec::new(),
            control: Control::default(),
            cuts: Cuts::default(),
            promise: Promise::default(),
            unproven_link: None,
            end: Position::default(),
            next_lsn: Lsn::FIRST,
            break_at: Position::default(),
            newest: 0,
            highest,
            names,
            unsealed: Vec::new(),
            known: Lsn::ZERO,
            garbled_behind: 0,
            unwritten: Vec::new(),
            written_to: None,
            scanned: 0,
        }
    }

    /// The last record's LSN.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.next_lsn.prev()
    }

    /// The last record's LSN that is proven to be durable: behind it there may be what only the page cache holds.
    pub(crate) fn proven_lsn(&self) -> Lsn {
        if self.verdict == Verdict::Clean || bug::is(Bug::ShowUnproven) {
            return self.last_lsn();
        }
        // A LINK that promises itself may be there for now only: then the log ends where it follows on.
        let unproven = self.unproven_link.and_then(|epoch| self.chain.iter().find(|e| e.epoch == epoch));
        let promised = unproven.map_or(self.promise.lsn, |link| self.promise.lsn.min(link.first_lsn.prev()));
        promised.max(self.control.start.prev()).min(self.last_lsn())
    }
}

/// The chain by its LINKs alone, and the state in the newest: for a reader beside a writer.
pub(crate) struct Outline {
    pub(crate) log: LogId,
    pub(crate) chain: Vec<Entry>,
    pub(crate) control: Control,
    pub(crate) cuts: Cuts,
}

pub(crate) fn outline(dir: &Dir) -> Result<Option<Outline>> {
    let names = dir.names()?;
    let mut surveyor = Surveyor { dir, slots: BTreeMap::new(), bad: BTreeMap::new(), depth: Depth::Tail, scanned: 0 };
    let log = match names.identity {
        true => dir.read_identity()?.ok(),
        false => None,
    };
    let log = match log {
        Some(log) => Some(log),
        None => surveyor.newest_identity(&names)?,
    };
    surveyor.look_at_all(log, &names)?;
    let (Some(log), Some(newest)) = (log, surveyor.actives().next_back()) else { return Ok(None) };
    let control = surveyor.control(newest);
    let chain = surveyor.pick_chain(&mut None, &control);
    Ok(Some(Outline { log, cuts: surveyor.cuts(&chain), chain, control }))
}
