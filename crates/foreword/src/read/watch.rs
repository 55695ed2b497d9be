//! What a view knows of a log that others write, and how it keeps up with them: by reading on where
//! it has come to, in the newest segment. All of the log's segments are looked at only when that
//! cannot show what has changed.

use std::sync::Arc;

use crate::files::dir::{Dir, Writers};
use crate::files::disk::Access;
use crate::files::segment::{Found, Segment};
use crate::format::{self, Chain, Control, Entry, FRAME_BLOCKS_MAX, Head, Kind, LINK_BLOCK, Link, Position};
use crate::read::source::End;
use crate::recovery::{self, Depth, Outline, Survey, Verdict};
use crate::{Error, Lsn, Result};

/// What readers of a view go by.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) chain: Arc<Chain>,
    pub(crate) control: Control,
    /// The last LSN that is proven to be durable.
    pub(crate) proven: Lsn,
    /// The last LSN that recovery would return. (With a writer, what is proven.)
    pub(crate) recoverable: Lsn,
    /// `None`: a writer has it open.
    pub(crate) verdict: Option<Verdict>,
}

impl Seen {
    fn new(chain: Chain, control: Control, proven: Lsn) -> Seen {
        Seen { chain: Arc::new(chain), control, proven, recoverable: proven, verdict: None }
    }

    pub(crate) fn live(&self) -> bool {
        self.verdict.is_none()
    }

    pub(crate) fn limit(&self, unproven: bool) -> Lsn {
        if unproven { self.recoverable } else { self.proven }
    }

    /// Whether a reader that has come to an end is to read again; `Some(false)`: the log was
    /// closed.
    pub(crate) fn news(&self, end: End, unproven: bool) -> Option<bool> {
        let limit = self.limit(unproven);
        match &self.verdict {
            _ if limit > end.lsn || self.chain.generation != end.generation => Some(true),
            // What is readable was read: the next read says why there is no more.
            Some(Verdict::Corruption(_)) if limit == end.lsn => Some(true),
            Some(Verdict::Clean) => Some(false),
            _ => None,
        }
    }
}

/// The newest segment, and how far it was read.
#[derive(Debug)]
struct Tip {
    segment: Segment,
    next: u32,
}

/// At every so many looks it asks which process has the log open.
const ASKS_EACH: u32 = 8;

/// What is between looks.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The writer that had the log open when all of it was looked at last, or before.
    writers: Writers,
    /// Looks since it was asked whether it is still the same.
    looks: u32,
    tip: Option<Tip>,
}

impl Watch {
    /// Looks at the whole log.
    pub(crate) fn begin(dir: &Dir) -> Result<(Watch, Seen)> {
        let writers = dir.writers()?;
        let doubtful = |looked: &Result<(Option<Tip>, Seen)>, writer: bool| match looked {
            // (With a writer, what is readable is what it says is durable; without, what was read
            // is taken for the end of the log.)
            Ok(_) => Ok(!writer),
            Err(error) => Ok(matches!(error, Error::Io { .. } | Error::Corruption(_))),
        };
        let (tip, seen) = dir.look(doubtful, |writer| if writer { beside_writer(dir) } else { at_rest(dir) })?;
        Ok((Watch { writers, looks: 0, tip }, seen))
    }

    /// What has come since; `None` if nothing has. That the writer is another now, or gone, is
    /// noticed by and by, or at once if it must be: what the frames of the old one promise is true
    /// for all that.
    pub(crate) fn go_on(&mut self, dir: &Dir, seen: &Seen, must: bool) -> Result<Option<Seen>> {
        self.looks += 1;
        let asks = must || !seen.live() || self.looks >= ASKS_EACH;
        if !asks || dir.writers()? == self.writers {
            self.looks = if asks { 0 } else { self.looks };
            if !seen.live() {
                return Ok(None); // Each writer leaves word in `LOCK`: where no writer was, nothing has changed.
            }
            let mut now = seen.clone();
            // An error leaves it further on than what is seen: then all of the log is looked at the
            // next time.
            if let Some(mut tip) = self.tip.take()
                && tip.read_on(dir, &mut now)?
            {
                self.tip = Some(tip);
                let same = now.proven == seen.proven && now.control == seen.control && Arc::ptr_eq(&now.chain, &seen.chain);
                return Ok((!same).then_some(now));
            }
        }
        let (watch, mut now) = Watch::begin(dir)?;
        if now.chain.log != seen.chain.log {
            return Err(Error::Replaced { dir: dir.path.clone(), expected: seen.chain.log, found: now.chain.log });
        }
        if now.live() && now.chain.generation == seen.chain.generation {
            // The tip alone was read, and may not say yet what was known before.
            now.proven = now.proven.max(seen.proven);
            now.recoverable = now.proven;
        }
        if now.chain == seen.chain {
            now.chain = seen.chain.clone();
        }
        *self = watch;
        Ok(Some(now))
    }
}

fn at_rest(dir: &Dir) -> Result<(Option<Tip>, Seen)> {
    let survey = dir.there(recovery::survey(dir, dir.names()?, Depth::Tail, &[], &mut |_, _| Ok(()))?)?;
    let (proven, recoverable) = (survey.proven_lsn(), survey.last_lsn());
    let Survey { log, verdict, chain, control, cuts, .. } = survey;
    let chain = Chain { cuts, ..Chain::new(log, chain, &control) };
    Ok((None, Seen { recoverable, verdict: Some(verdict), ..Seen::new(chain, control, proven) }))
}

/// The chain by its LINKs, and what the frames of its last segment promise.
fn beside_writer(dir: &Dir) -> Result<(Option<Tip>, Seen)> {
    let Outline { log, chain, control, cuts } = dir.there(recovery::outline(dir)?)?;
    let epoch = chain.last().map_or(0, |e| e.epoch);
    let mut seen = Seen::new(Chain { cuts, ..Chain::new(log, chain, &control) }, control, Lsn::ZERO);
    let Ok((segment, _)) = dir.open_segment(Some(log), epoch, Access::Read)? else { return Ok((None, seen)) };
    let mut tip = Tip { segment, next: LINK_BLOCK };
    tip.read_frames(&mut seen)?;
    Ok((Some(tip), seen))
}

impl Tip {
    /// Takes in what was written since, here and in the segments that follow. `false`: something
    /// else has changed.
    fn read_on(&mut self, dir: &Dir, seen: &mut Seen) -> Result<bool> {
        // A writer that goes on elsewhere seals the segment first, be it full or cut. The LINK of the
        // next says all that the frames would that are left here, however many they are: where they
        // end, the log's state, and what is durable.
        while self.segment.head(self.segment.data_end())? != Head::Unwritten {
            match self.successor(dir, seen)? {
                Some(Next::Segment { end, segment, entry }) => self.rotate(end, segment, entry, seen),
                Some(Next::NotYet) => break,
                None => return Ok(false),
            }
        }
        self.read_frames(seen)
    }

    fn rotate(&mut self, end: u32, segment: Segment, entry: Entry, seen: &mut Seen) {
        let mut chain = Chain::clone(&seen.chain);
        if let Some(last) = chain.entries.last_mut() {
            last.end = Some(end);
        }
        chain.entries.push(entry);
        seen.chain = Arc::new(chain);
        *self = Tip { segment, next: LINK_BLOCK };
    }

    /// The segment in which the log goes on behind all that was read; `None` if it goes on in
    /// another way.
    fn successor(&self, dir: &Dir, seen: &Seen) -> Result<Option<Next>> {
        let epoch = self.segment.epoch() + 1;
        let segment = match dir.open_segment(Some(seen.chain.log), epoch, Access::Read) {
            Ok(Ok((segment, None))) => segment,
            Err(error @ (Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. })) => return Err(error),
            _ => return Ok(None),
        };
        let mut buf = Vec::new();
        let Found::Frame(header) = segment.frame(LINK_BLOCK, segment.data_end(), &mut buf)? else {
            return Ok(Some(Next::NotYet));
        };
        let Some(link) = Link::decode(format::payload(&header, &buf)).filter(|_| header.kind == Kind::Link) else {
            return Ok(None);
        };
        let end = link.pred.block;
        let follows = link.control.generation == seen.chain.generation
            && link.pred.epoch == self.segment.epoch()
            && (self.next..=self.segment.data_end()).contains(&end);
        Ok(follows.then(|| Next::Segment { end, entry: Entry::new(epoch, &header), segment }))
    }

    /// Reads the heads of the frames that have come. `false` if they say of a state that does not
    /// follow from the one before.
    fn read_frames(&mut self, seen: &mut Seen) -> Result<bool> {
        let (segment, mut buf) = (&self.segment, Vec::new());
        while self.next < segment.data_end() {
            let Head::Frame(header) = segment.head(self.next)? else { break };
            if header.blocks() > FRAME_BLOCKS_MAX {
                break;
            }
            if matches!(header.kind, Kind::Mark | Kind::Link) {
                // Not all of it is there yet: another time.
                let Found::Frame(whole) = segment.frame(self.next, segment.data_end(), &mut buf)? else { break };
                let payload = format::payload(&whole, &buf);
                let new = match whole.kind {
                    Kind::Link => Link::decode(payload).map(|link| link.control),
                    _ => Control::decode(payload),
                };
                if let Some(new) = new
                    && !seen.adopt(new)
                {
                    return Ok(false);
                }
            }
            // Of a fork's LINK, which promises itself, nothing says yet that it is durable. What it
            // follows is.
            let itself = header.promise.position > Position::new(segment.epoch(), self.next);
            let durable = if itself { header.first_lsn().prev() } else { header.promise.lsn };
            seen.proven = seen.proven.max(durable);
            seen.recoverable = seen.proven;
            self.next += header.blocks();
        }
        Ok(true)
    }
}

enum Next {
    /// Where this one ends, and that.
    Segment { end: u32, segment: Segment, entry: Entry },
    /// It has no LINK yet.
    NotYet,
}

impl Seen {
    /// Takes in the state that a frame names; `false` if LSNs were cut off between.
    fn adopt(&mut self, new: Control) -> bool {
        if new.generation != self.chain.generation {
            return false;
        }
        if new.start != self.chain.start || new.waivers != self.chain.waivers {
            let mut chain = Chain::clone(&self.chain);
            (chain.start, chain.waivers) = (new.start, new.waivers.clone());
            let dropped = chain.entries.windows(2).take_while(|pair| pair[1].first_lsn <= new.start).count();
            chain.entries.drain(..dropped);
            self.chain = Arc::new(chain);
        }
        self.control = new;
        true
    }
}
