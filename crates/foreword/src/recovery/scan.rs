//! The scan: along the chain to X, the first place where no valid frame is.

use super::evidence::{Last, Place};
use super::fast;
use super::files::Segments;
use crate::bug::bug;
use crate::files::segment::Found;
use crate::format::{
    self, CLOSED, CONTINUED, CONTINUES, Control, Entry, FrameHeader, Kind, LINK_BLOCK, Link, Position, Promise, Waiver, is_later,
    way_in,
};
use crate::read::walk::Walker;
use crate::{Lsn, Result};

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// From the last promise on; a clean close is trusted. What lies before is checked when it is
    /// read.
    Tail,
    /// Everything.
    All,
    /// The same, but for what a repair mends without a loss.
    AllBut(Mended),
}

/// What a survey does not judge: a repair mends it, and no record is lost for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    /// `LOG`, which is written anew.
    pub(crate) identity: bool,
    /// What is in a file behind its segment's last block.
    pub(crate) surplus: bool,
}

impl Depth {
    pub(super) fn leaves_out(self) -> Mended {
        match self {
            Depth::Tail | Depth::All => Mended::default(),
            Depth::AllBut(mended) => mended,
        }
    }
}

/// Told how far a survey is: bytes done, bytes in all. An error ends it.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// A scan along the chain.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where the next frame is looked for; in the end, X.
    pub(super) at: Position,
    /// What is there, in the end.
    pub(super) place: Place,
    /// The LSN that the next record to begin has.
    expect: Lsn,
    in_unit: bool,
    /// Bytes of the record begun last that are still to come.
    pending: u64,
    /// The record at hand began in a segment that was dropped: nothing says how long it is.
    headless: bool,
    /// Behind the last whole unit, and the LSN after its last.
    pub(super) end: Position,
    pub(super) next: Lsn,
    /// The highest promise of a frame.
    pub(super) promise: Promise,
    /// Where the chain begins.
    first: Position,
    /// The segment whose LINK makes the promise, or, without a promise, begins the chain.
    pub(super) promising_link: Option<u64>,
    /// The last frame is a CLOSED mark.
    closed: bool,
    /// It was found without a walk, and so was that nothing is behind it.
    pub(super) by_fast_path: bool,
    /// No frame was seen yet: a unit may have begun in a segment that was dropped.
    fresh: bool,
    /// Bytes of frames that were read and checked.
    pub(super) scanned: u64,
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
            place: Place::Unwritten,
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
            by_fast_path: false,
            fresh: true,
            scanned: 0,
        }
    }

    /// Begins at the promise of a segment's LINK: it lies between units.
    fn begin_at(&mut self, promise: Promise, link: u64) {
        self.promising_link = (promise.position.epoch >= link).then_some(link);
        self.fresh = false;
        self.begin(promise.position, promise.lsn.next(), promise);
    }

    /// Begins with the tip's LINK, which a frame behind it promises. It may lie within a unit,
    /// which then ends before that promise.
    fn begin_with(&mut self, tip: &Entry, promise: Promise) {
        self.promising_link = None;
        self.begin(Position::new(tip.epoch, LINK_BLOCK), tip.first_lsn, promise);
    }

    fn begin(&mut self, at: Position, expect: Lsn, promise: Promise) {
        (self.at, self.end) = (at, at);
        (self.expect, self.next) = (expect, expect);
        self.promise = promise;
    }

    /// Is at the end of a closed log, by the CLOSED mark before that: it proves all before it, the
    /// LINK of its segment included.
    fn end_closed(&mut self, at: Position, mark: &FrameHeader) {
        self.promising_link = None;
        (self.closed, self.by_fast_path) = (true, true);
        self.begin(at, mark.first_lsn(), mark.promise);
    }

    /// How the log's last frame leaves it.
    pub(super) fn last(&self) -> Last {
        match (self.closed, self.in_unit) {
            (true, _) => Last::Closed,
            (false, true) => Last::InUnit,
            (false, false) => Last::Whole,
        }
    }

    /// Takes a frame in; what is wrong with it, if anything is.
    fn take(&mut self, header: &FrameHeader, payload: &[u8], control: &mut Control) -> std::result::Result<(), &'static str> {
        let (is_link, epoch) = (header.kind == Kind::Link, self.at.epoch);
        if is_link != (self.at.block == LINK_BLOCK) {
            return Err("a LINK out of its place, or something else in it");
        }
        if header.first_lsn() != self.expect {
            return Err("a frame whose LSN does not follow the one before");
        }
        if !header.adds_up() {
            return Err("flags, or records, in a frame of a kind that has none");
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
        let mut between_units = !self.in_unit;
        bug!(AcceptPartialUnit, between_units = true);
        if between_units {
            self.end = self.at;
            self.next = self.expect;
        }
        // A promise beyond the frame itself is only made by a fork's LINK, for what was written
        // before it. One before the chain's first segment, which was dropped since, proves nothing
        // of what is left.
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
            let len = format::record_len(format::u32_at(len, 0)).ok_or(WRONG)?;
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

    /// Takes the fast path, as far as there is one: whether it ends the scan.
    fn shorten(&mut self, segments: &Segments<'_>, chain: &[Entry], tip: &Entry, control: &mut Control) -> Result<bool> {
        let segment = segments.open(tip.epoch)?;
        let written = fast::last_written(&segment)?;
        if let Some(written) = written
            && let Some(closed) = fast::closed_at(segments, &segment, written, control)?
        {
            adopt(control, closed.control);
            self.end_closed(closed.end, &closed.mark);
            return Ok(true);
        }
        let link = Position::new(tip.epoch, LINK_BLOCK);
        let promise = segments.active(tip.epoch).map_or(Promise::default(), |(_, header)| header.promise);
        let later = match written {
            Some(written) if promise.position < link => fast::promised_within(segments, tip, &segment, written, control)?,
            _ => None,
        };
        if let Some(later) = later {
            self.begin_with(tip, later);
        } else if chain.iter().any(|e| e.epoch == promise.position.epoch) && segments.has_place(promise.position) {
            self.begin_at(promise, tip.epoch);
        }
        Ok(false)
    }

    /// Walks on, to the first place without a valid frame: what is there.
    fn walk(&mut self, segments: &Segments<'_>, chain: &[Entry], control: &mut Control, progress: Progress<'_>) -> Result<Place> {
        let bytes_of = |e: &Entry| segments.found.get(&e.epoch).map_or(0, |found| Position::new(0, found.blocks).byte());
        let total: u64 = chain.iter().filter(|e| e.epoch >= self.at.epoch).map(bytes_of).sum();
        let mut walker: Option<Walker> = None;
        loop {
            while self.waive(control) {}
            let Some(index) = chain.iter().position(|e| e.epoch == self.at.epoch) else {
                return Ok(Place::Structure("a waiver that leads nowhere"));
            };
            let end = chain[index].end;
            let walker = match &mut walker {
                Some(walker) if walker.segment().epoch() == self.at.epoch => {
                    walker.seek(self.at.block);
                    walker
                }
                Some(walker) => {
                    walker.replace(segments.open(self.at.epoch)?, self.at.block, end.unwrap_or(u32::MAX));
                    walker
                }
                none => none.insert(Walker::new(segments.open(self.at.epoch)?, self.at.block, end.unwrap_or(u32::MAX))),
            };
            if walker.at_end() {
                match chain.get(index + 1) {
                    Some(next) => self.at = Position::new(next.epoch, LINK_BLOCK),
                    // The tip is full to its seal.
                    None => return Ok(Place::Unwritten),
                }
                continue;
            }
            match walker.step(None)? {
                Found::Frame(header) => {
                    let sound = match segments.has_place(header.promise.position) {
                        true => self.take(&header, walker.payload(&header), control),
                        false => Err("a frame that promises a place that its segment does not have"),
                    };
                    if let Err(why) = sound {
                        return Ok(Place::Structure(why));
                    }
                    self.scanned += header.frame_len() as u64;
                    progress(self.scanned, total)?;
                }
                Found::Unwritten => return Ok(Place::Unwritten),
                Found::Torn => return Ok(Place::Torn),
                Found::Damaged(why) => return Ok(Place::Damaged(why)),
            }
        }
    }
}

/// The control state of the next frame: the last one in the log counts. But a waiver once written
/// stays, and is known before the log is read along it. So does a generation: one that was used,
/// before a break or behind it, is not used for other records.
pub(super) fn adopt(control: &mut Control, mut new: Control) {
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

/// Reads along the chain to X. The control state of the frames on the way is adopted.
pub(super) fn scan(
    segments: &Segments<'_>,
    depth: Depth,
    chain: &[Entry],
    control: &mut Control,
    progress: Progress<'_>,
) -> Result<Scan> {
    let mut scan = Scan::new(chain, control);
    let Some(tip) = chain.last() else { return Ok(scan) };
    // (A walk from the beginning says where it is broken.)
    if depth == Depth::Tail && !segments.is_broken(chain, control) && scan.shorten(segments, chain, tip, control)? {
        return Ok(scan);
    }
    scan.place = scan.walk(segments, chain, control, progress)?;
    Ok(scan)
}
