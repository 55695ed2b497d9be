//! The chain: from the newest segment back through the predecessors that the LINKs name, and what
//! is wrong with it as a whole.

use super::evidence::{Front, LinkFound, Unusable};
use super::files::{LinkState, Segments};
use crate::bug::bug;
use crate::format::{Control, Cut, Cuts, Entry, FrameHeader, Head, LINK_BLOCK, Position, is_later, way_in};
use crate::{Lsn, Result};

impl Segments<'_> {
    /// The cuts of which a chain's LINKs tell.
    pub(super) fn cuts(&self, chain: &[Entry]) -> Cuts {
        let (mut cuts, mut before) = (Cuts::default(), 0);
        for (i, entry) in chain.iter().enumerate() {
            let Some((link, _)) = self.active(entry.epoch) else { continue };
            if is_later(link.control.generation, before) {
                let known = link.cut.unwrap_or(Cut { since: link.control.generation, at: entry.first_lsn });
                // What was cut before the oldest segment was begun may have been anywhere.
                if i == 0 && is_later(known.since, before) {
                    cuts.note(known.since, Lsn::FIRST);
                }
                before = link.control.generation;
                if is_later(before, known.since) {
                    cuts.note(before, known.at);
                }
            }
        }
        cuts
    }

    /// What a segment follows: by its LINK, or by the waiver that leads to it.
    fn pred_of(&self, epoch: u64, control: &Control) -> Option<Position> {
        way_in(epoch, control).map(|w| w.from).or_else(|| self.active(epoch).map(|(link, _)| link.pred))
    }

    /// The first LSN of a segment that can be on a chain: by the waiver that leads past its LINK,
    /// which may be damaged, or by that.
    fn first_lsn(&self, epoch: u64, control: &Control) -> Option<Lsn> {
        let waived = way_in(epoch, control).filter(|_| self.found.contains_key(&epoch)).map(|w| w.last_lost.next());
        waived.or_else(|| self.active(epoch).map(|(_, header)| header.first_lsn()))
    }

    /// The frame with which such a segment begins, if it is whole.
    fn first_frame(&self, epoch: u64, control: &Control) -> Result<Option<FrameHeader>> {
        match way_in(epoch, control).filter(|w| w.to.block > LINK_BLOCK) {
            Some(waiver) => Ok(match self.open(epoch)?.head(waiver.to.block)? {
                Head::Frame(header) => Some(header),
                _ => None,
            }),
            None => Ok(self.active(epoch).map(|(_, header)| *header)),
        }
    }

    /// The chain to the newest tip below the cut from which it can be walked; the cut is lowered
    /// past those from which it cannot.
    pub(super) fn pick_chain(&self, cut: &mut Option<u64>, control: &Control) -> Result<Vec<Entry>> {
        loop {
            let below = cut.unwrap_or(u64::MAX);
            let on_chain = |e: &u64| *e < below && self.first_lsn(*e, control).is_some();
            let Some(tip) = self.found.keys().rev().copied().find(on_chain) else { return Ok(Vec::new()) };
            match self.walk_down(tip, control)? {
                Ok(chain) => return Ok(chain),
                Err(epoch) => *cut = Some(epoch),
            }
        }
    }

    /// The chain from the oldest segment that is there to a tip, or the segment whose LINK cannot
    /// be read.
    fn walk_down(&self, tip: u64, control: &Control) -> Result<std::result::Result<Vec<Entry>, u64>> {
        let mut chain = Vec::new();
        let (mut epoch, mut end) = (tip, None);
        while let Some(first_lsn) = self.first_lsn(epoch, control) {
            let first = self.first_frame(epoch, control)?;
            let (bytes, time) = (first.map(|first| first.first.bytes), first.map(|first| first.time));
            chain.push(Entry { epoch, first_lsn, bytes, time, end });
            let pred = self.pred_of(epoch, control).unwrap_or_default();
            // What is not there was dropped, or is lost: judged after the scan.
            let mut dropped = first_lsn <= control.start && self.first_lsn(pred.epoch, control).is_none();
            let there = self.found.contains_key(&pred.epoch) || self.unusable.contains_key(&pred.epoch);
            let mut joined = !there || self.proves_link(epoch, pred.epoch, control);
            bug!(TrustBegun, joined = true);
            dropped &= joined;
            if pred.epoch == 0 || dropped || !there {
                chain.reverse();
                return Ok(Ok(chain));
            }
            (epoch, end) = (pred.epoch, Some(pred.block));
        }
        Ok(Err(epoch))
    }

    /// Whether what leads to a segment says that its predecessor was part of the log, though that
    /// has no LINK that can be read: the promise of its LINK lies behind that one, or a waiver leads
    /// there. Else the predecessor may be the first segment of a fork that did not come to its end,
    /// which gets its LINK last; all others of the fork promise what lies before it.
    fn proves_link(&self, epoch: u64, pred: u64, control: &Control) -> bool {
        let promised = |(_, header): (_, &FrameHeader)| header.promise.position > Position::new(pred, LINK_BLOCK);
        way_in(epoch, control).is_some() || self.active(epoch).is_some_and(promised)
    }

    /// Whether the chain goes back to the start LSN. A front that is gone is no damage if its
    /// records were dropped.
    pub(super) fn front(&self, chain: &[Entry], control: &Control) -> Front {
        let Some(first) = chain.first() else { return Front::Sound };
        let pred = self.pred_of(first.epoch, control).unwrap_or_default();
        let begins = pred.epoch == 0 && way_in(first.epoch, control).is_some();
        let last = first.first_lsn.prev();
        match pred.epoch {
            _ if begins || first.first_lsn <= control.start => Front::Sound,
            0 => Front::Late { epoch: first.epoch, last },
            epoch => Front::Lost { epoch, last },
        }
    }

    /// Of the files of which not even the header can be used, the first that the log needs; or any.
    /// What a waiver gives up is not judged.
    pub(super) fn unusable(&self, tip: u64, control: &Control) -> Option<Unusable> {
        let given_up = |epoch| control.waivers.iter().any(|w| w.from.epoch < epoch && epoch < w.to.epoch);
        let mut judged = self.unusable.iter().filter(|&(&epoch, _)| epoch > 0 && !given_up(epoch));
        let first = judged.next()?;
        let behind = [first].into_iter().chain(judged).find(|&(&epoch, _)| epoch > tip);
        Some(Unusable { damage: behind.unwrap_or(first).1.clone(), behind_tip: behind.is_some() })
    }

    /// The log's first LINK, where there is no chain: it was durable before anything else was.
    pub(super) fn first_link(&self, epoch: u64) -> LinkFound {
        match self.found.get(&epoch).map(|found| &found.link) {
            Some(LinkState::Damaged(why)) => LinkFound::Broken(why),
            _ => LinkFound::Absent,
        }
    }

    /// Whether a walk along the chain would come upon damage, as its files and LINKs show: a segment
    /// is cut before the end that its successor names, or a LINK says a lower LSN than the one
    /// before.
    pub(super) fn is_broken(&self, chain: &[Entry], control: &Control) -> bool {
        let waived = |epoch| control.waivers.iter().any(|w| w.from.epoch == epoch);
        let is_cut = |entry: &Entry| {
            let short = self.found.get(&entry.epoch).and_then(|found| found.short.as_ref());
            let needed = Position::new(0, entry.end.unwrap_or(0)).byte();
            short.is_some_and(|damage| damage.offset < needed) && !waived(entry.epoch)
        };
        chain.iter().any(is_cut) || chain.windows(2).any(|pair| pair[1].first_lsn < pair[0].first_lsn)
    }
}
