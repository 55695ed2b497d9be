//! Changes of several places in several pages, which one record holds: all of them are made, or
//! none.

use std::sync::atomic::Ordering;

use foreword::Lsn;

use super::Pool;
use super::frame::BufferFrame;
use super::guard::PageMut;
use crate::page::{Image, Page, PageId, Redo};
use crate::parts::{Failed, Part, Parts, difference};
use crate::record::ChangedPage;
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
    /// What each of them overwrote: where, and the bytes.
    old: Vec<(usize, Box<[u8]>)>,
    is_kept: bool,
}

impl Made<'_> {
    fn make(&mut self, part: &Part<'_>, types: &RedoTypes) -> Result<(), Failed> {
        match *part {
            Part::Bytes { offset, bytes } => {
                let body = &mut self.page.body_mut()[offset..][..bytes.len()];
                let Some(at) = difference(body, bytes) else { return Ok(()) };
                let (offset, old, bytes) = (offset + at.start, &mut body[at.clone()], &bytes[at]);
                self.old.push((offset, (&*old).into()));
                old.copy_from_slice(bytes);
                Part::Bytes { offset, bytes }.put(&mut self.redo);
            }
            Part::Typed { .. } => {
                // Until the handler is done, all of the page is what it overwrites.
                self.old.push((0, self.page.body().into()));
                part.apply(self.page.body_mut(), types)?;
                let before = self.old.pop().map(|(_, before)| before).unwrap_or_default();
                if let Some(at) = difference(&before, self.page.body()) {
                    self.old.push((at.start, before[at].into()));
                    part.put(&mut self.redo);
                }
            }
        }
        Ok(())
    }

    /// What takes the changes back, encoded.
    fn undo(&self) -> Vec<u8> {
        let mut undo = Vec::new();
        for (offset, bytes) in self.old.iter().rev() {
            Part::Bytes { offset: *offset, bytes }.put(&mut undo);
        }
        undo
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            for (offset, bytes) in self.old.drain(..).rev() {
                self.page.body_mut()[offset..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
    }
}

impl Pool {
    /// Makes changes of latched pages, and logs them in one record, while their latches are held:
    /// so the LSNs of each page rise with the log. `log` gets the pages that change, and appends
    /// the record. If anything fails, nothing has changed. `None`: the pages are so already, and
    /// nothing was logged (unless the record `counts` without pages).
    pub(crate) fn apply(
        &self,
        written: &mut [Written<'_>],
        counts: bool,
        log: impl FnOnce(Vec<ChangedPage<'_>>) -> Result<Lsn>,
    ) -> Result<Option<Lsn>> {
        self.file.check()?;
        let mut all = Vec::with_capacity(written.len());
        for Written { latched, parts } in written {
            let id = latched.id();
            let (frame, page) = latched.open();
            self.check_written(id, page.lsn())?;
            let mut made = Made { frame, page, id, redo: Vec::new(), old: Vec::new(), is_kept: false };
            let failed = parts.iter().find_map(|part| made.make(part, &self.types).err());
            if let Some(failed) = failed {
                return Err(Error::handler(failed.number, self.types.name(failed.number), Lsn::ZERO, Some(id), failed.why));
            }
            all.push(made);
        }
        all.retain(|made| !made.redo.is_empty());
        if all.is_empty() && !counts {
            return Ok(None);
        }
        let undo: Vec<Vec<u8>> = all.iter().map(Made::undo).collect();
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
            made.keep();
        }
        Ok(Some(lsn))
    }
}
