//! Changes of one place: each under the page's exclusive latch, and logged before it counts.

use foreword::Lsn;

use super::frame::{BufferFrame, DirtyState};
use super::guard::PageMut;
use super::{Load, Pool};
use crate::latch::Owner;
use crate::page::{Edit, Image, OwnedEdit, Page, PageId, Redo};
use crate::parts::{self, Failed};
use crate::sabotage::{self, Bug};
use crate::sync::atomic::Ordering;
use crate::{Error, Result};

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
    /// Makes a change and logs it, while the page's latch is held: so the LSNs of a page rise with
    /// the log. `log` gets what undoes the change and what redoes it, and appends the record.
    /// `None`: the page is so already, and nothing was logged.
    pub(crate) fn change(
        &self,
        (frame, page): (&BufferFrame, &mut Page),
        edit: Edit<'_>,
        log: impl FnOnce(&OwnedEdit, Redo<'_>) -> Result<Lsn>,
    ) -> Result<Option<Lsn>> {
        self.file.check()?;
        if matches!(edit, Edit::Bytes { .. }) {
            self.check_written(page.id(), page.lsn())?;
        }
        let Some((undo, edit)) = difference(page, edit) else { return Ok(None) };
        // A checkpoint raises the floor, and locks the dirty state of each frame after that. So
        // either this change sees the new floor, or the checkpoint sees this change.
        let mut dirty = frame.dirty();
        let imaged = self.needs_image(page, self.image_floor.load(Ordering::Acquire));
        let made = Tentative::make(page, &edit, &undo);
        let redo = if imaged { Redo::Image(Image::of(made.page)) } else { Redo::Edit(edit) };
        let lsn = log(&undo, redo)?;
        made.keep();
        self.changed(page, &mut dirty, lsn, imaged);
        Ok(Some(lsn))
    }

    /// Whether a change of a page is logged as an image.
    pub(super) fn needs_image(&self, page: &Page, floor: u64) -> bool {
        let is_old = self.logs_images() && page.image_lsn().0 < floor;
        page.image_lsn() == Lsn::ZERO || is_old && !sabotage::has(Bug::NoImage)
    }

    /// Notes that a change of a page was logged.
    pub(super) fn changed(&self, page: &mut Page, dirty: &mut DirtyState, lsn: Lsn, imaged: bool) {
        page.set_lsn(lsn);
        if imaged {
            page.set_image_lsn(lsn);
            self.counters.images.fetch_add(1, Ordering::Relaxed);
        }
        dirty.changed(lsn, (self.logs_images() || imaged).then(|| page.image_lsn()));
    }

    /// Checks that a page is not blank. A page that is in use, or that a record changes in part,
    /// had an image first: if it is blank, what was written is lost. (The first change of a map is
    /// of a bit, and logs an image, too.)
    pub(crate) fn check_written(&self, id: PageId, lsn: Lsn) -> Result<()> {
        match lsn {
            Lsn::ZERO => Err(self.file.rotten(id, "nothing is there, and the page is in use".into())),
            _ => Ok(()),
        }
    }

    /// Begins a page anew, from an image. `log` appends the record.
    pub(crate) fn format(&self, latched: &mut PageMut, image: Image<'_>, log: impl FnOnce() -> Result<Lsn>) -> Result<()> {
        self.file.check()?;
        let (frame, page) = latched.open();
        let mut dirty = frame.dirty();
        let lsn = log()?;
        image.apply(page);
        page.set_image_lsn(lsn);
        page.set_lsn(lsn);
        dirty.changed(lsn, Some(lsn));
        Ok(())
    }

    /// Makes changes of one page that are in the log already, in their order. Passes over those
    /// that the page has. Returns the number of changes made.
    pub(crate) fn redo(&self, id: PageId, changes: &[(Lsn, Redo<'_>)], load: Load) -> Result<u64> {
        let Some((first, _)) = changes.first() else { return Ok(0) };
        let mut latched = self.exclude(id, Owner::NONE, load)?;
        let (frame, page) = latched.open();
        let mut applied = 0;
        let mut redo = |lsn: Lsn, redo: &Redo<'_>| {
            if !matches!(redo, Redo::Image(_)) {
                self.check_written(id, page.lsn())?;
            }
            if lsn > page.lsn() {
                redo.apply(page, lsn, &self.types)
                    .map_err(|Failed { number, why }| Error::handler(number, self.types.name(number), lsn, Some(id), why))?;
                applied += 1;
            }
            Ok(())
        };
        let redone = changes.iter().try_for_each(|(lsn, change)| redo(*lsn, change));
        // What was read may never have been synced. So the page counts as dirty in any case.
        if applied > 0 || !sabotage::has(Bug::TrustPages) {
            let rebuilt = self.logs_images().then(|| page.image_lsn());
            frame.dirty().changed(*first, rebuilt);
        }
        redone.map(|()| applied)
    }
}

/// What undoes an edit, and the edit itself, both without the bytes at either end that stay the
/// same. `None`: the edit changes nothing.
fn difference<'e>(page: &Page, edit: Edit<'e>) -> Option<(OwnedEdit, Edit<'e>)> {
    match edit {
        Edit::Bytes { offset, bytes } => {
            let old = &page.body()[offset as usize..][..bytes.len()];
            let at = parts::difference(old, bytes)?;
            let offset = offset + at.start as u32;
            let undo = OwnedEdit::Bytes { offset, bytes: old[at.clone()].into() };
            Some((undo, Edit::Bytes { offset, bytes: &bytes[at] }))
        }
        Edit::Bit { bit, set } => {
            let is_set = page.body()[bit as usize / 8] >> (bit % 8) & 1 == 1;
            (is_set != set).then_some((OwnedEdit::Bit { bit, set: is_set }, edit))
        }
    }
}
