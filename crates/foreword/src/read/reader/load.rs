//! How a reader finds the frame in which a record begins, and follows the chain from frame to
//! frame.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Reader;
use crate::error::{Damage, DamageKind};
use crate::files::disk::Access;
use crate::files::segment::{Found, Segment};
use crate::format::{self, CONTINUED, FrameHeader, LINK_BLOCK, Position};
use crate::read::find::frame_between;
use crate::read::recent::Place;
use crate::read::span::{Span, missing_bytes};
use crate::read::walk::Walker;
use crate::{Error, Lsn, Result};

/// More than any record: a bound on what a chain of frames may make a reader gather.
const RECORD_LIMIT: usize = 1 << 30;

impl Reader {
    /// Makes the span that in which a record begins, or, behind a gap, the first after it.
    pub(super) fn load(&mut self, lsn: Lsn) -> Result<()> {
        if self.span.has(lsn) {
            return Ok(());
        }
        if let Some(at) = &self.at {
            at.store(lsn.prev().0, Ordering::Relaxed);
        }
        let in_chain = |w: &Walker| self.chain.entries.iter().any(|e| e.epoch == w.segment().epoch());
        let goes_on = self.span.header.is_some()
            && self.walker.as_ref().is_some_and(in_chain)
            && lsn.0 == self.span.first.0 + u64::from(self.span.records);
        let mut attempt = 0;
        let mut loaded = if goes_on { self.load_forward(lsn) } else { self.load_anew(lsn) };
        // What fails may have been overtaken: by a rotation, a cut, or a file that was dropped and
        // used again.
        while loaded.is_err() && attempt < 8 {
            self.limit = self.source.limit(Lsn::MAX)?;
            if !self.follow_changes()? {
                break;
            }
            attempt += 1;
            if lsn < self.chain.start {
                return Err(Error::Dropped { lsn, start: self.chain.start });
            }
            loaded = self.load_anew(lsn);
        }
        loaded.map_err(|error| {
            self.span = Span::default();
            self.walker = None;
            self.source.judge(error)
        })
    }

    fn load_anew(&mut self, lsn: Lsn) -> Result<()> {
        self.locate(lsn)?;
        self.load_forward(lsn)?;
        if let (Some(places), Some(header)) = (self.source.places(), &self.span.header) {
            places.note(self.span.at, header);
        }
        Ok(())
    }

    fn load_forward(&mut self, lsn: Lsn) -> Result<()> {
        loop {
            let header = self.step()?;
            if header.records == 0 || header.next_lsn() <= lsn {
                continue;
            }
            if header.first_lsn() > lsn {
                return Err(self.broken(DamageKind::Structure, "a frame whose LSN does not follow the one before"));
            }
            let Some(walker) = &self.walker else { continue };
            let head = header.head_len as usize;
            let payload = walker.payload(&header);
            let span = &mut self.span;
            span.at = walker.segment().at(walker.block() - header.blocks());
            span.place = walker.place(&header);
            span.micros = header.time;
            span.first = header.first_lsn();
            span.records = header.records;
            span.lsn = span.first;
            span.offset = head;
            span.index.clear();
            span.is_joined = false;
            span.header = Some(header);
            let missing = missing_bytes(payload.get(head..).unwrap_or(&[]));
            if missing == Some(0) {
                return Ok(());
            }
            span.joined.clear();
            span.joined.extend_from_slice(&payload[head.min(payload.len())..]);
            span.is_joined = true;
            span.offset = 0;
            return match missing {
                Some(missing) => self.join(missing),
                None => Err(self.does_not_add_up()),
            };
        }
    }

    /// Gathers the rest of the last record from the frames that follow.
    fn join(&mut self, mut missing: usize) -> Result<()> {
        if missing > RECORD_LIMIT {
            return Err(self.broken(DamageKind::Structure, "a record longer than any may be"));
        }
        while missing > 0 {
            let header = self.step()?;
            let Some(walker) = &mut self.walker else { continue };
            let head = header.head_len as usize;
            if header.kind == format::Kind::Link {
                continue;
            }
            if head == 0 || head > missing || !header.has(CONTINUED) || head > header.payload_len as usize {
                return Err(self.broken(DamageKind::Structure, "a record that does not go on where it should"));
            }
            self.span.joined.extend_from_slice(&walker.payload(&header)[..head]);
            missing -= head;
            if header.records > 0 {
                // Others begin in this frame: it is read again for them.
                walker.seek(walker.block() - header.blocks());
            }
        }
        Ok(())
    }

    /// The next frame along the chain.
    fn step(&mut self) -> Result<FrameHeader> {
        loop {
            let Some(walker) = &mut self.walker else { return Err(self.broken(DamageKind::Structure, "no position")) };
            let at = walker.segment().at(walker.block());
            let index = self.chain.entries.iter().position(|e| e.epoch == at.epoch);
            if let Some(entry) = index.map(|i| self.chain.entries[i]) {
                // It may have been the tip when the walker came, and be sealed now.
                walker.set_end(entry.end.unwrap_or(u32::MAX));
            }
            let to = match self.chain.waivers.iter().find(|w| w.from == at) {
                Some(waiver) => waiver.to,
                None if walker.at_end() => match index.and_then(|i| self.chain.entries.get(i + 1)) {
                    Some(next) => Position::new(next.epoch, LINK_BLOCK),
                    None => return Err(self.broken(DamageKind::Missing, "the log ends before a record that was durable")),
                },
                None => match walker.step(self.source.recent())? {
                    Found::Frame(header) if header.adds_up() => return Ok(header),
                    Found::Frame(_) => {
                        return Err(self.broken(DamageKind::Structure, "flags, or records, in a frame of a kind that has none"));
                    }
                    Found::Unwritten => {
                        return Err(self.broken(DamageKind::Missing, "nothing is written where a record was durable"));
                    }
                    Found::Torn => {
                        return Err(self.broken(DamageKind::Missing, "a frame of which some sectors were never written"));
                    }
                    Found::Damaged(why) => return Err(self.broken(DamageKind::Garbled, why)),
                },
            };
            self.go(to)?;
        }
    }

    /// Puts the walker at a position.
    fn go(&mut self, to: Position) -> Result<()> {
        let Some(entry) = self.chain.entries.iter().find(|e| e.epoch == to.epoch).copied() else {
            return Err(self.broken(DamageKind::LostSegment, "a segment that is not there"));
        };
        let end = entry.end.unwrap_or(u32::MAX);
        let segment = match &self.walker {
            Some(walker) if walker.segment().epoch() == to.epoch => walker.segment().clone(),
            _ => self.open(to.epoch)?,
        };
        match &mut self.walker {
            Some(walker) => walker.replace(segment, to.block, end),
            None => self.walker = Some(Walker::new(segment, to.block, end)),
        }
        Ok(())
    }

    pub(super) fn open(&self, epoch: u64) -> Result<Arc<Segment>> {
        let (recent, places) = (self.source.recent(), self.source.places());
        let known = recent.and_then(|recent| recent.segment(epoch)).or_else(|| places?.segment(epoch));
        if let Some(segment) = known {
            return Ok(segment);
        }
        match self.source.dir().open_segment(Some(self.chain.log), epoch, Access::Read)? {
            Ok((segment, _)) => {
                let segment = Arc::new(segment);
                if let Some(places) = places {
                    places.opened(&segment);
                }
                Ok(segment)
            }
            Err(damage) => Err(Error::Corruption(Arc::new(Damage { first_lsn: self.next, ..damage }))),
        }
    }

    /// Puts the walker at or before the frame in which a record begins: where that is known, or by
    /// bisection.
    fn locate(&mut self, lsn: Lsn) -> Result<()> {
        self.span.header = None;
        let Some(entry) = self.chain.entry_of(lsn).map(|i| self.chain.entries[i]) else {
            let start = self.chain.entries.first().map_or(self.chain.start, |e| e.first_lsn);
            return Err(Error::Dropped { lsn, start });
        };
        self.go(Position::new(entry.epoch, LINK_BLOCK))?;
        let Some(walker) = &mut self.walker else { return Ok(()) };
        let segment = walker.segment().clone();
        let stretch = self.chain.stretch(&entry, lsn).0;
        let bounds = (stretch.start, stretch.end.min(segment.data_end()));
        let places = self.source.places();
        let recent = self.source.recent().and_then(|recent| recent.find(entry.epoch, lsn)).map(Place::At);
        let place = recent.or_else(|| Some(places?.find(entry.epoch, lsn, bounds))).unwrap_or(Place::Between(bounds.0, bounds.1));
        let block = match place {
            Place::At(block) => block,
            Place::Between(low, high) => {
                let begins_before = |header: &FrameHeader| header.first_lsn() <= lsn;
                frame_between(&segment, low..high, &begins_before, &mut |block, header| {
                    if let Some(places) = places {
                        places.note(segment.at(block), header);
                    }
                })?
                .0
            }
        };
        walker.seek(block);
        Ok(())
    }

    #[cold]
    pub(super) fn broken(&self, kind: DamageKind, why: &str) -> Error {
        let at = self.walker.as_ref().map_or(Position::default(), |w| w.segment().at(w.block()));
        Error::Corruption(Arc::new(Damage {
            kind,
            path: self.source.dir().segment(at.epoch),
            offset: at.byte(),
            first_lsn: self.next,
            last_lsn: Some(self.limit).filter(|&limit| limit >= self.next),
            proven: true,
            evidence: format!("{why}; records up to {} were durable", self.limit),
        }))
    }
}
