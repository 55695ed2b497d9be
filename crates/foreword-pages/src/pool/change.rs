//! Changes of pages: each under the page's exclusive latch, and logged before it counts.

use std::sync::atomic::Ordering;

use foreword::Lsn;

use super::{Load, Pool};
use crate::Result;
use crate::page::{Edit, Image, OwnedEdit, Page, PageId, Redo};
use crate::sabotage::{self, Bug};

/// A change that was made and is not logged yet. Dropping it takes the change back, unless the
/// change is [kept](Tentative::keep).
struct Tentative<'g> {
    page: &'g mut Page,
    undo: &'g OwnedEdit,
}

impl<'g> Tentative<'g> {
    fn make(page: &'g mut Page, edit: &Edit<'_>, undo: &'g OwnedEdit) -> Tentative<'g> {
        edit.apply(page);
        Tentative { page, undo }
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Tentative<'_> {
    fn drop(&mut self) {
        self.undo.as_edit().apply(self.page);
    }
}

impl Pool {
    /// Makes a change and logs it, under the page's latch: so the LSNs of a page rise with the log.
    /// `log` gets what undoes the change and what redoes it, and appends the record. `None`: the
    /// page is so already, and nothing was logged.
    pub(crate) fn change(
        &self,
        page: PageId,
        edit: Edit<'_>,
        log: impl FnOnce(&OwnedEdit, Redo<'_>) -> Result<Lsn>,
    ) -> Result<Option<Lsn>> {
        self.file.check()?;
        let pin = self.fetch(page, Load::Read)?;
        let mut latched = pin.write()?;
        if matches!(edit, Edit::Bytes { .. }) {
            self.check_written(page, &latched)?;
        }
        let Some((undo, edit)) = difference(&latched, edit) else { return Ok(None) };
        // A checkpoint raises the floor, and locks the dirty state of each frame after that. So
        // either this change sees the new floor, or the checkpoint sees this change.
        let mut dirty = pin.frame.dirty();
        let images = self.logs_images();
        let is_old = images && latched.image_lsn().0 < self.image_floor.load(Ordering::Acquire);
        let imaged = latched.image_lsn() == Lsn::ZERO || is_old && !sabotage::has(Bug::NoImage);
        let made = Tentative::make(&mut latched, &edit, &undo);
        let redo = if imaged { Redo::Image(Image::of(made.page)) } else { Redo::Edit(edit) };
        let lsn = log(&undo, redo)?;
        made.keep();
        latched.set_lsn(lsn);
        if imaged {
            latched.set_image_lsn(lsn);
            self.counters.images.fetch_add(1, Ordering::Relaxed);
        }
        dirty.changed(lsn, (images || imaged).then(|| latched.image_lsn()));
        Ok(Some(lsn))
    }

    /// Checks that a page is not blank. A page that is in use, or that a record changes in part,
    /// had an image first: if it is blank, what was written is lost. (The first change of a map is
    /// of a bit, and logs an image, too.)
    pub(crate) fn check_written(&self, page: PageId, latched: &Page) -> Result<()> {
        match latched.lsn() {
            Lsn::ZERO => Err(self.file.rotten(page, "nothing is there, and the page is in use".into())),
            _ => Ok(()),
        }
    }

    /// Begins a page anew, from an image. `log` appends the record.
    pub(crate) fn format(&self, page: PageId, image: Image<'_>, log: impl FnOnce() -> Result<Lsn>) -> Result<()> {
        self.file.check()?;
        let pin = self.fetch(page, Load::Blank)?;
        let mut latched = pin.write()?;
        let mut dirty = pin.frame.dirty();
        let lsn = log()?;
        Redo::Image(image).apply(&mut latched, lsn);
        dirty.changed(lsn, Some(lsn));
        Ok(())
    }

    /// Makes changes of one page that are in the log already, in their order. Passes over those
    /// that the page has. Returns the number of changes made.
    pub(crate) fn redo(&self, page: PageId, changes: &[(Lsn, Redo<'_>)], load: Load) -> Result<u64> {
        let Some((first, _)) = changes.first() else { return Ok(0) };
        let pin = self.fetch(page, load)?;
        let mut latched = pin.write()?;
        let mut applied = 0;
        for (lsn, redo) in changes {
            if matches!(redo, Redo::Edit(_)) {
                self.check_written(page, &latched)?;
            }
            if *lsn > latched.lsn() {
                redo.apply(&mut latched, *lsn);
                applied += 1;
            }
        }
        // What was read may never have been synced. So the page counts as dirty in any case.
        if applied > 0 || !sabotage::has(Bug::TrustPages) {
            let rebuilt = self.logs_images().then(|| latched.image_lsn());
            pin.frame.dirty().changed(*first, rebuilt);
        }
        Ok(applied)
    }
}

/// What undoes an edit, and the edit itself, both without the bytes at either end that stay the
/// same. `None`: the edit changes nothing.
fn difference<'e>(page: &Page, edit: Edit<'e>) -> Option<(OwnedEdit, Edit<'e>)> {
    match edit {
        Edit::Bytes { offset, bytes } => {
            let old = &page.body()[offset as usize..][..bytes.len()];
            let same = old.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            let (old, new) = (&old[same..], &bytes[same..]);
            let len = new.len() - old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
            let offset = offset + same as u32;
            let undo = OwnedEdit::Bytes { offset, bytes: old[..len].into() };
            (len > 0).then_some((undo, Edit::Bytes { offset, bytes: &new[..len] }))
        }
        Edit::Bit { bit, set } => {
            let is_set = page.body()[bit as usize / 8] >> (bit % 8) & 1 == 1;
            (is_set != set).then_some((OwnedEdit::Bit { bit, set: is_set }, edit))
        }
    }
}
