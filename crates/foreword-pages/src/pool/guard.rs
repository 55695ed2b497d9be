//! Pages that are latched: for reading or for changing them.

use std::ops::Deref;

use foreword::Lsn;

use super::frame::{BufferFrame, Pin};
use super::{Load, Pool};
use crate::Result;
use crate::latch::{Deadlock, Owner, Wait};
use crate::page::{Page, PageId};

/// A page that is latched.
#[derive(Debug)]
struct Guard {
    pin: Pin,
    owner: Owner,
    /// Shared with the frame, or taken out of it. `None`: only while the guard is dropped or
    /// becomes another.
    page: Option<Page>,
    is_exclusive: bool,
}

impl Guard {
    fn page(&self) -> &Page {
        match &self.page {
            Some(page) => page,
            None => unreachable!("a guard has its page until it is dropped"),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A reference to shared bytes is gone before the latch is.
        let taken = self.page.take().filter(|_| self.is_exclusive);
        self.pin.latch.release(self.owner, taken);
    }
}

/// A page that is latched for reading: its bytes, without the store's header. Others may read the
/// page meanwhile, and none changes it.
///
/// The guard borrows nothing: it can be kept and moved to other threads. Owners that would change
/// the page wait for it, so keep it only for moments.
#[derive(Debug)]
pub struct PageRef(Guard);

/// A page that is latched for changing: its bytes, without the store's header. No other owner has
/// it meanwhile. The bytes change by [`Txn::apply`](crate::Txn::apply).
///
/// The guard borrows nothing: it can be kept and moved to other threads. Others wait for it, and
/// checkpoints, too, so keep it only for moments.
#[derive(Debug)]
pub struct PageMut(Guard);

impl PageRef {
    /// The page's number.
    #[must_use]
    pub fn id(&self) -> PageId {
        self.0.page().id()
    }

    /// The LSN of the last change of the page. It is higher after every change: who lets go of a
    /// page can see later whether the page has changed.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.0.page().lsn()
    }

    /// Makes the latch exclusive, if no other guard has the page. Does not wait.
    ///
    /// # Errors
    /// The guard as it was.
    pub fn try_upgrade(self) -> Result<PageMut, PageRef> {
        let PageRef(mut guard) = self;
        guard.page = None;
        match guard.pin.latch.upgrade() {
            Some(page) => {
                (guard.page, guard.is_exclusive) = (Some(page), true);
                Ok(PageMut(guard))
            }
            None => {
                guard.page = guard.pin.latch.page();
                Err(PageRef(guard))
            }
        }
    }
}

impl PageMut {
    /// The page's number.
    #[must_use]
    pub fn id(&self) -> PageId {
        self.0.page().id()
    }

    /// The LSN of the last change of the page.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.0.page().lsn()
    }

    /// Lets others read the page. No other owner comes in between.
    #[must_use]
    pub fn downgrade(self) -> PageRef {
        let PageMut(mut guard) = self;
        if let Some(page) = &guard.page {
            guard.pin.latch.downgrade(page.clone());
        }
        guard.is_exclusive = false;
        PageRef(guard)
    }

    pub(crate) fn owner(&self) -> Owner {
        self.0.owner
    }

    pub(crate) fn pin(&self) -> &Pin {
        &self.0.pin
    }

    /// The frame of the page, and the page.
    pub(crate) fn open(&mut self) -> (&BufferFrame, &mut Page) {
        match &mut self.0.page {
            Some(page) => (&self.0.pin, page),
            None => unreachable!("a guard has its page until it is dropped"),
        }
    }
}

impl Deref for PageRef {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.page().body()
    }
}

impl Deref for PageMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.page().body()
    }
}

impl Pool {
    /// Latches a page for reading. `None`: that would have to wait.
    pub(crate) fn share(&self, page: PageId, owner: Owner, wait: Wait) -> Result<Option<PageRef>> {
        let pin = self.fetch(page, Load::Read)?;
        let page = pin.latch.share(owner, wait).map_err(|Deadlock| pin.deadlock())?;
        Ok(page.map(|page| PageRef(Guard { pin, owner, page: Some(page), is_exclusive: false })))
    }

    /// Latches a page for changing. `None`: that would have to wait.
    pub(crate) fn try_exclude(&self, page: PageId, owner: Owner, load: Load, wait: Wait) -> Result<Option<PageMut>> {
        let pin = self.fetch(page, load)?;
        let page = pin.latch.exclude(owner, wait).map_err(|Deadlock| pin.deadlock())?;
        Ok(page.map(|page| PageMut(Guard { pin, owner, page: Some(page), is_exclusive: true })))
    }

    /// Latches a page for changing, and waits for that.
    pub(crate) fn exclude(&self, page: PageId, owner: Owner, load: Load) -> Result<PageMut> {
        let latched = self.try_exclude(page, owner, load, Wait::Bounded)?;
        latched.ok_or(crate::Error::Deadlock { page })
    }
}
