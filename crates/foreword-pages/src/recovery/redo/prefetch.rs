//! Pages that redo is about to change are read ahead, where redo has to read pages at all.

use std::collections::VecDeque;

use crate::page::PageId;
use crate::pool::{Load, Pool};
use crate::sync::{Condvar, Mutex, PoisonError, lock};

/// Pages that redo is about to change, and that may not be in memory.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    pages: VecDeque<PageId>,
    is_over: bool,
}

impl Prefetch {
    /// Asks for pages.
    pub(super) fn want(&self, pages: impl Iterator<Item = PageId>) {
        lock(&self.wanted).pages.extend(pages);
        self.changed.notify_all();
    }

    /// Ends the threads that read ahead.
    pub(super) fn close(&self) {
        lock(&self.wanted).is_over = true;
        self.changed.notify_all();
    }

    /// The work of one thread: brings the wanted pages into the pool, until the end.
    pub(super) fn run(&self, pool: &Pool) {
        let mut wanted = lock(&self.wanted);
        while !wanted.is_over {
            match wanted.pages.pop_front() {
                Some(page) => {
                    drop(wanted);
                    // The redo of the page meets an error, too.
                    drop(pool.fetch(page, Load::Read));
                    wanted = lock(&self.wanted);
                }
                None => wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
