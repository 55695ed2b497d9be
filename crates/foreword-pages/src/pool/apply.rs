//! Changes of several places in several pages, which one record holds: all of them are made, or
//! none.

use std::ops::Range;

use foreword::Lsn;

use super::Pool;
use super::frame::BufferFrame;
use super::guard::PageMut;
use crate::page::{Image, Page, PageId, Redo};
use crate::parts::{Failed, Part, Parts, difference};
use crate::record::ChangedPage;
use crate::sync::atomic::Ordering;
use crate::types::RedoTypes;
use crate::{Error, Result};

/// A page that is latched, and what is to be done to it.
pub(crate) struct Written<'a> {
    pub(crate) latched: &'a mut PageMut,
    pub(crate) parts: Vec<Part<'a>>,
}

/// Changes of a page that were made, and are not logged yet. Dropping them takes them back, unless
/// they are [kept](Made::keep).
struct Made<'a> {
    frame: &'a BufferFrame,
    page: &'a mut Page,
    id: PageId,
    /// The parts that had an effect, encoded.
    redo: Vec<u8>,
    /// The places that they overwrote, one after the other.
    places: Vec<Range<usize>>,
    /// What was in those places, one behind the other.
    before: Vec<u8>,
    is_kept: bool,
}

impl Made<'_> {
    /// Makes a part. If a handler undoes the change, what was there before is only to be taken back
    /// here, and is not trimmed to what differs.
    fn make(&mut self, part: &Part<'_>, by_handler: bool, types: &RedoTypes) -> Result<(), Failed> {
        match *part {
            Part::Bytes { offset, bytes } => {
                let body = &mut self.page.body_mut()[offset..][..bytes.len()];
                let Some(at) = difference(body, bytes) else { return Ok(()) };
                let (offset, old, bytes) = (offset + at.start, &mut body[at.clone()], &bytes[at]);
                self.places.push(offset..offset + bytes.len());
                self.before.extend_from_slice(old);
                old.copy_from_slice(bytes);
                Part::Bytes { offset, bytes }.put(&mut self.redo);
            }
            Part::Typed { .. } => {
                // Until the handler is done, all of the page is what it overwrites.
                let (all, start) = (0..self.page.body().len(), self.before.len());
                self.places.push(all.clone());
                self.before.extend_from_slice(self.page.body());
                part.apply(self.page.body_mut(), types)?;
                let (old, new) = (&self.before[start..], self.page.body());
                let changed = if by_handler { (old != new).then_some(all) } else { difference(old, new) };
                if changed.is_some() {
                    part.put(&mut self.redo);
                }
                let changed = changed.unwrap_or_default();
                self.before.copy_within(start + changed.start..start + changed.end, start);
                self.before.truncate(start + changed.len());
                if let Some(place) = self.places.last_mut() {
                    *place = changed;
                }
            }
        }
        Ok(())
    }

    /// The places from the last to the first, each with what was there.
    fn overwritten(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let mut before = &self.before[..];
        self.places.iter().rev().map(move |place| {
            let (rest, bytes) = before.split_at(before.len() - place.len());
            before = rest;
            (place.clone(), bytes)
        })
    }

    /// What takes the changes back, encoded.
    fn undo(&self) -> Vec<u8> {
        let mut undo = Vec::new();
        for (place, bytes) in self.overwritten().filter(|(place, _)| !place.is_empty()) {
            Part::Bytes { offset: place.start, bytes }.put(&mut undo);
        }
        undo
    }

    /// The changes stay. Returns the memory for the bytes before.
    fn keep(mut self) -> Vec<u8> {
        self.is_kept = true;
        std::mem::take(&mut self.before)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let mut end = self.before.len();
            for place in self.places.drain(..).rev() {
                let start = end - place.len();
                self.page.body_mut()[place].copy_from_slice(&self.before[start..end]);
                end = start;
            }
        }
    }
}

impl Pool {
    /// Makes changes of latched pages, and logs them in one record, while their latches are held:
    /// so the LSNs of each page rise with the log. `log` gets the pages that change, and appends
    /// the record. If anything fails, nothing has changed. `None`: the pages are so already, and
    /// nothing was logged.
    ///
    /// If a handler undoes the change, the pages come without what undoes them, and the record is
    /// logged also without pages. `memory` is for the pages as they were.
    pub(crate) fn apply(
        &self,
        written: &mut [Written<'_>],
        by_handler: bool,
        memory: &mut Vec<u8>,
        log: impl FnOnce(Vec<ChangedPage<'_>>) -> Result<Lsn>,
    ) -> Result<Option<Lsn>> {
        self.file.check()?;
        memory.clear();
        let mut all = Vec::with_capacity(written.len());
        for Written { latched, parts } in written {
            let id = latched.id();
            let (frame, page) = latched.open();
            self.check_written(id, page.lsn())?;
            let before = std::mem::take(memory);
            let mut made = Made { frame, page, id, redo: Vec::new(), places: Vec::new(), before, is_kept: false };
            let failed = parts.iter().find_map(|part| made.make(part, by_handler, &self.types).err());
            if let Some(failed) = failed {
                return Err(Error::handler(failed.number, self.types.name(failed.number), Lsn::ZERO, Some(id), failed.why));
            }
            all.push(made);
        }
        all.retain(|made| !made.redo.is_empty());
        if all.is_empty() && !by_handler {
            return Ok(None);
        }
        let undo: Vec<Vec<u8>> = all.iter().map(|made| if by_handler { Vec::new() } else { made.undo() }).collect();
        // As for a change of one place: either the change sees the floor that a checkpoint raises,
        // or the checkpoint sees the change. No two changes have the same page latched, so the
        // order of these locks does not matter.
        let mut dirty: Vec<_> = all.iter().map(|made| made.frame.dirty()).collect();
        let floor = self.image_floor.load(Ordering::Acquire);
        let imaged: Vec<bool> = all.iter().map(|made| self.needs_image(made.page, floor)).collect();
        let changed = all.iter().zip(&undo).zip(&imaged).map(|((made, undo), imaged)| {
            let redo = if *imaged { Redo::Image(Image::of(made.page)) } else { Redo::Parts(Parts::new(&made.redo)) };
            ChangedPage { page: made.id, redo, undo: Parts::new(undo) }
        });
        let lsn = log(changed.collect())?;
        for ((made, imaged), dirty) in all.into_iter().zip(imaged).zip(&mut dirty) {
            self.changed(made.page, dirty, lsn, imaged);
            *memory = made.keep();
        }
        Ok(Some(lsn))
    }
}
