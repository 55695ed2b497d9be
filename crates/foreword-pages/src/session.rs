//! Sessions: owners of latches that change nothing.

use std::sync::Arc;

use crate::engine::Engine;
use crate::latch::{Owner, Wait};
use crate::page::PageId;
use crate::pool::PageRef;
use crate::{Error, Result};

/// A reader that latches several pages at a time. [`Store::session`](crate::Store::session) makes
/// one. The store knows its latches as those of one owner, whatever threads its guards are on, and
/// tells it when it would wait for itself.
///
/// Making one costs next to nothing. While it lives the store's files stay open.
#[derive(Debug)]
pub struct Session {
    engine: Arc<Engine>,
    owner: Owner,
}

impl Session {
    pub(crate) fn new(engine: &Arc<Engine>) -> Session {
        Session { engine: engine.clone(), owner: engine.new_session() }
    }

    /// Latches a page for reading, as [`Txn::fetch_shared`](crate::Txn::fetch_shared) does.
    ///
    /// # Errors
    /// As [`Txn::fetch_shared`](crate::Txn::fetch_shared).
    pub fn fetch_shared(&self, page: PageId) -> Result<PageRef> {
        self.engine.share(page, self.owner, Wait::Bounded)?.ok_or(Error::Deadlock { page })
    }

    /// As [`fetch_shared`](Session::fetch_shared), and waits for no latch: `None` if it had to.
    ///
    /// # Errors
    /// As [`fetch_shared`](Session::fetch_shared).
    pub fn try_fetch_shared(&self, page: PageId) -> Result<Option<PageRef>> {
        self.engine.share(page, self.owner, Wait::No)
    }
}
