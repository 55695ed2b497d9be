//! What the log in a directory is, by evidence: the chain, its end, and the verdict. Reads only;
//! what follows from it is done in `fork.rs`.
//!
//! The evidence is gathered in steps, each in a module of its own, and decided on in [`verdict`],
//! which is the table of `docs/FORMAT.md`. The first place without a valid frame is called X here,
//! as there.

use crate::bug::bug;
use crate::files::dir::Dir;
use crate::files::names::{Names, with_room_behind};
use crate::format::{Control, Cuts, Entry, LogId, Position, Promise, Waiver};
use crate::{Lsn, Result};

mod behind;
mod chain;
mod evidence;
mod fast;
mod files;
mod identity;
mod scan;
mod seals;
mod verdict;

pub(crate) use scan::{Depth, Mended, Progress};
pub use verdict::Verdict;

use behind::Behind;
use evidence::{Evidence, Front, Place};
use files::Segments;
use scan::Scan;

/// The log in a directory.
#[derive(Clone, Debug)]
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
    /// The segment whose LINK makes that promise, itself included: nothing else proves that the
    /// LINK is durable.
    pub(crate) unproven_link: Option<u64>,
    /// Behind the last whole unit.
    pub(crate) end: Position,
    /// The LSN after the last whole unit's.
    pub(crate) next_lsn: Lsn,
    /// Where no valid frame was.
    pub(crate) break_at: Position,
    /// The highest epoch of an active segment.
    pub(crate) newest: u64,
    /// The highest epoch of which others tell: a promise, or the SEAL of the tip. The segment may
    /// be gone.
    pub(crate) told: u64,
    pub(crate) names: Names,
    /// Active segments from the fork on: their seals are absent, or may be only in the page cache.
    pub(crate) unsealed: Vec<u64>,
    /// The segment of the end has a SEAL, which says that the log had left it.
    pub(crate) left: bool,
    /// The highest LSN of which any frame speaks, before the break or behind it.
    pub(crate) known: Lsn,
    /// Garbled sectors where nothing can have been acknowledged (row 18).
    pub(crate) garbled_behind: u64,
    /// Prepared segments of which every sector was read and is unwritten: they can be used as they
    /// are. None where the fast path found a closed log.
    pub(crate) unwritten: Vec<u64>,
    /// Behind the last block of the break's segment of which any sector is not unwritten.
    pub(crate) written_to: Option<Position>,
    /// Bytes of frames that were read and checked.
    pub(crate) scanned: u64,
}

/// Looks at a log, in a directory with these names. `Ok(None)`: there is none (no segment was ever
/// active). `extra` waivers are honoured besides the log's own.
///
/// Damage is named by the first LSN that cannot be read, and more may be damaged than what the tail
/// shows: where that shows any, all is read, and opening and `verify` give one verdict.
pub(crate) fn survey(dir: &Dir, names: Names, depth: Depth, extra: &[Waiver], progress: Progress<'_>) -> Result<Option<Survey>> {
    match survey_to(dir, names, depth, extra, progress)? {
        Some(Survey { verdict: Verdict::Corruption(_), names, .. }) if depth == Depth::Tail => {
            survey_to(dir, names, Depth::All, extra, progress)
        }
        found => Ok(found),
    }
}

fn survey_to(dir: &Dir, names: Names, depth: Depth, extra: &[Waiver], progress: Progress<'_>) -> Result<Option<Survey>> {
    let mut segments = Segments { without_surplus: depth.leaves_out().surplus, ..Segments::new(dir) };
    let identity = identity::identify(&mut segments, &names)?;
    let log = identity.log.unwrap_or(LogId([0; 16]));
    let no_segment = names.epochs.is_empty();
    if !names.identity && (no_segment || segments.are_unused()) {
        return Ok(None); // Creation that did not get as far as its first record.
    }
    let nothing_wrong = Evidence::of_nothing_wrong(dir.path.clone());
    let judged = identity.damage.filter(|_| !depth.leaves_out().identity);
    let mut evidence = Evidence { no_segment, identity: judged, ..nothing_wrong };
    if no_segment {
        return Ok(Some(Survey::nothing(log, names, evidence.verdict())));
    }

    let newest = segments.newest();
    // The newest control state known without reading the tail; its start bounds what must be there.
    let mut control = segments.control(newest);
    control.waivers.extend(extra);
    let traced = trace(&segments, depth, &mut control, progress)?;
    evidence.take(&traced, &segments, &control, &names);
    let Traced { chain, scan, behind, scanned, .. } = traced;
    // The one behind X counts if it is higher.
    let promise = if behind.promise.position > scan.promise.position { behind.promise } else { scan.promise };
    let seals = seals::look_at_seals(&segments, &names, evidence.tip, scan.at, promise)?;
    evidence.gone = seals.gone;
    evidence.seal = seals.damaged;
    evidence.next_link = seals.next_link;

    let mut promised = with_room_behind(promise.position.epoch);
    bug!(ForgetPromised, promised = 0);
    let told = promised.max(seals.gone.unwrap_or(0));
    Ok(Some(Survey {
        log,
        verdict: evidence.verdict(),
        cuts: segments.cuts(&chain),
        control,
        promise,
        unproven_link: scan.promising_link.filter(|&epoch| epoch <= scan.end.epoch),
        end: scan.end,
        next_lsn: scan.next,
        break_at: scan.at,
        newest,
        told,
        unsealed: seals.unsealed,
        left: seals.left,
        known: scan.next.prev().max(behind.known),
        garbled_behind: behind.garbled,
        unwritten: behind.unwritten,
        written_to: behind.written_to,
        scanned,
        chain,
        names,
    }))
}

/// The chain that was found to be the log's, and what there is along it and behind.
#[derive(Debug)]
struct Traced {
    chain: Vec<Entry>,
    /// Why a chain with a higher tip was given up, if one was: the first such.
    front: Front,
    scan: Scan,
    behind: Behind,
    scanned: u64,
}

/// Finds the newest segment from which the chain can be walked back to the log's front, and reads
/// along that chain. The control state becomes that at its end.
fn trace(segments: &Segments<'_>, depth: Depth, control: &mut Control, progress: Progress<'_>) -> Result<Traced> {
    // The oldest segment that cannot be part of it.
    let mut cut = None;
    let (mut front, mut scanned) = (Front::Sound, 0);
    loop {
        let chain = segments.pick_chain(&mut cut, control)?;
        let scan = scan::scan(segments, depth, &chain, control, progress)?;
        scanned += scan.scanned;
        // The fast path has looked already.
        let mut behind = if scan.by_fast_path { Behind::default() } else { behind::look_behind(segments, &chain, scan.at)? };
        if matches!(scan.place, Place::Damaged(_) | Place::Structure(_)) || behind.promise.position > scan.at {
            control.start = control.start.max(behind.start.lsn);
        }
        // What lies before a start goes only when the frame that names it is durable, and all before.
        let mut was_dropped = segments.front(&chain, control) != Front::Sound
            && segments.front(&chain, &Control { start: control.start.max(behind.start.lsn), ..control.clone() }) == Front::Sound;
        bug!(ForgetDropped, was_dropped = false);
        if was_dropped {
            control.start = behind.start.lsn;
            behind.promise_too(behind.start.promise);
        }
        // Judged now, for the last MARK may be the first to say that records were dropped.
        match (segments.front(&chain, control), chain.first()) {
            (found, Some(first)) if found != Front::Sound => {
                cut = Some(first.epoch);
                if front == Front::Sound {
                    front = found;
                }
            }
            _ => {
                // A start beyond the end was said by a frame beyond it, for a truncation that did
                // not come about.
                control.start = control.start.min(scan.next.max(Lsn::FIRST));
                return Ok(Traced { chain, front, scan, behind, scanned });
            }
        }
    }
}

impl Evidence {
    /// Takes in what was found along a chain and behind it.
    fn take(&mut self, traced: &Traced, segments: &Segments<'_>, control: &Control, names: &Names) {
        let Traced { chain, front, scan, behind, .. } = traced;
        self.tip = chain.last().map_or(0, |e| e.epoch);
        self.front = *front;
        self.unusable = segments.unusable(self.tip, control);
        if chain.is_empty() {
            let epoch = names.epochs.first().copied().unwrap_or(0);
            self.first_link = (epoch, segments.first_link(epoch));
        }
        self.at = scan.at;
        self.place = scan.place;
        self.last = scan.last();
        self.link_given_up = !scan.by_fast_path && self.tip > segments.newest();
        self.next_lsn = scan.next;
        self.length = segments.found.get(&scan.at.epoch).and_then(|found| found.short.clone());
        self.promise = behind.promise;
        self.written = behind.written;
    }
}

impl Survey {
    fn nothing(log: LogId, names: Names, verdict: Verdict) -> Survey {
        Survey {
            log,
            verdict,
            chain: Vec::new(),
            control: Control::default(),
            cuts: Cuts::default(),
            promise: Promise::default(),
            unproven_link: None,
            end: Position::default(),
            next_lsn: Lsn::FIRST,
            break_at: Position::default(),
            newest: 0,
            told: 0,
            names,
            unsealed: Vec::new(),
            left: false,
            known: Lsn::ZERO,
            garbled_behind: 0,
            unwritten: Vec::new(),
            written_to: None,
            scanned: 0,
        }
    }

    /// The highest epoch that was given to any segment, as far as anything says so (but for what is
    /// so high that no log comes near it). A fork behind damage takes none up to it: a promise that is
    /// left in the log would speak of another segment.
    pub(crate) fn highest(&self) -> u64 {
        self.names.epochs.iter().copied().map(with_room_behind).chain([self.told, self.newest]).max().unwrap_or(0)
    }

    /// The last record's LSN.
    pub(crate) fn last_lsn(&self) -> Lsn {
        self.next_lsn.prev()
    }

    /// The last record's LSN that is proven to be durable: behind it there may be what only the
    /// page cache holds.
    pub(crate) fn proven_lsn(&self) -> Lsn {
        bug!(ShowUnproven, return self.last_lsn());
        if self.verdict == Verdict::Clean {
            return self.last_lsn();
        }
        // A LINK that promises itself may be there for now only: then the log ends where it follows
        // on.
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
    let mut segments = Segments::new(dir);
    let log = identity::stated_or_newest(&segments, &names)?;
    segments.look_at_all(log, &names)?;
    let (Some(log), Some(newest)) = (log, segments.actives().next_back()) else { return Ok(None) };
    let control = segments.control(newest);
    let chain = segments.pick_chain(&mut None, &control)?;
    Ok(Some(Outline { log, cuts: segments.cuts(&chain), chain, control }))
}
