//! What becomes of segments that the log dropped: they are used again or removed, behind the call
//! that dropped them.

use std::sync::Arc;
use std::time::Instant;

use crate::bug::bug;
use crate::error::Doing;
use crate::files::names::segment_name;
use crate::files::segment::Segment;
use crate::read::source::Source;
use crate::sync::atomic::Ordering;
use crate::write::inner::LogInner;
use crate::write::runtime::Lane;
use crate::write::state::Guard;
use crate::write::state::segments::RETRY_AFTER;
use crate::{Error, Result, strangers};

/// So many segments are removed before others may see the result.
const BATCH: usize = 16;

/// What became of files that were to be removed.
pub(crate) struct Removed {
    /// Those that are still there.
    failed: Vec<u64>,
    /// The first error, of a file or of the directory: to be reported, under no lock.
    pub(crate) error: Option<Error>,
}

impl LogInner {
    /// Does with all dropped segments what is to be done, and waits for the thread that does so;
    /// those that could not be removed are tried once more.
    pub(crate) fn remove_all(&self) {
        // Those that fail now are due later than this.
        let by = Instant::now() + RETRY_AFTER;
        let mut state = self.lock();
        while state.removals.is_removing() || state.wants_removal(by) {
            state = self.unlock_and_remove(state, by);
        }
    }

    /// Uses a dropped segment again, or removes some that are due by a time; or waits for the
    /// thread that does so.
    pub(crate) fn unlock_and_remove<'a>(&'a self, mut state: Guard<'a>, by: Instant) -> Guard<'a> {
        if state.removals.is_removing() {
            return self.wait_changed(state);
        }
        let mut prepares = !state.spares.preparing;
        bug!(PrepareAtOnce, prepares = true);
        prepares &= !self.dir.reserve_is_short(); // Their space is first of all the reserve's.
        if state.spares.ready.len() < self.options.spares_kept() && prepares && state.removals.has_recyclable() {
            return self.unlock_and_prepare_next(state).0;
        }
        // One may be enough for the reserve; then the next is used again.
        let most = if self.dir.reserve_is_short() { 1 } else { BATCH };
        let epochs = state.removals.begin(by, most);
        drop(state);
        let Removed { failed, error } = self.remove_files(&epochs);
        let mut state = self.lock();
        let removed = state.removals.end(failed);
        self.counters.removed.fetch_add(removed as u64, Ordering::Relaxed);
        if removed > 0 {
            state.spares.found_space();
        }
        self.changed.notify_all();
        self.kick(Lane::Prepare);
        let Some(error) = error else { return state };
        // The hook may close the log, which waits for the thread that removes.
        drop(state);
        self.report(&error);
        self.lock()
    }

    /// Removes files, or makes them the reserve. If another thread is making that, and they can be
    /// of use, it waits for that thread.
    pub(crate) fn remove_files(&self, epochs: &[u64]) -> Removed {
        let remove = |epoch: u64| -> Option<(u64, Error)> {
            let (name, path) = (segment_name(epoch), self.dir.segment(epoch));
            let removed =
                self.attempt("remove the file", &path, || self.dir.remove_if_there(&name).doing("remove the file", &path));
            removed.err().map(|error| (epoch, error))
        };
        // A file that is held open would keep its space.
        strangers::run(|| {
            let chain = self.chain();
            self.readable.places.keep_to(&chain);
            self.readable.recent.retain(|epoch| chain.has(epoch));
        });
        let sorted = self.attempt("look at the files", &self.dir.path, || Ok(self.dir.fit_for_reserve(epochs.iter().copied())));
        let (small, others) = sorted.unwrap_or((Vec::new(), epochs.to_vec()));
        let mut failed: Vec<_> = others.into_iter().filter_map(remove).collect();
        // Now there is room for what of the reserve was used.
        let (mut left, mut kept) = self.keep_reserve(small);
        while !kept && !left.is_empty() && self.lacks_reserve() {
            bug!(RemoveKept, break);
            // Their space would be there for others, and not for the reserve.
            self.await_reserve();
            (left, kept) = self.keep_reserve(left);
        }
        failed.extend(left.into_iter().filter_map(remove));
        // That frees their space. If it fails, they are found and removed again by the next
        // opening.
        let synced: Result<()> = self.attempt("sync the directory", &self.dir.path, || self.dir.sync());
        let (failed, errors): (Vec<u64>, Vec<Error>) = failed.into_iter().unzip();
        Removed { failed, error: errors.into_iter().next().or(synced.err()) }
    }

    fn lacks_reserve(&self) -> bool {
        let lacks = || Ok(self.dir.lacks_reserve(self.options.segment_blocks()));
        self.attempt("look at the files", &self.dir.path, lacks).unwrap_or(true)
    }

    /// Waits for the thread that makes the reserve, which waits for none.
    fn await_reserve(&self) {
        let mut state = self.lock();
        while self.keeping.is_under_way() {
            state = self.wait_changed(state);
        }
    }

    /// Makes the reserve whole again before a segment takes space that the reserve is waiting for.
    pub(crate) fn reserve_first(&self) -> Result<()> {
        if self.dir.reserve_is_short() {
            self.keep_reserve(Vec::new());
        }
        if self.dir.reserve_is_short() {
            return Err(self.dir.no_space_but_for_the_reserve(self.options.segment_blocks()));
        }
        Ok(())
    }

    /// A segment made of the reserve, when there was no space for a new one, as `error` says.
    /// See [`Dir::take_reserve`] for what it supersedes.
    pub(crate) fn segment_of_reserve(&self, epoch: u64, superseded: u32, error: Error) -> Result<Arc<Segment>> {
        self.keeping.taken();
        self.dir.take_reserve(self.id, epoch, self.options.segment_blocks(), superseded, error)
    }

    /// Makes what is missing of the reserve, of superseded segments or anew: those that are left. If
    /// another thread is at it, this one leaves it to that: `false`.
    pub(crate) fn keep_reserve(&self, superseded: Vec<u64>) -> (Vec<u64>, bool) {
        let mut left = superseded;
        let kept = self.keeping.keep(|| {
            let epochs = std::mem::take(&mut left);
            let kept = self.attempt("keep room", &self.dir.path, || {
                self.dir.check_writer()?; // Else it may be another's.
                Ok(self.dir.keep_reserve(self.options.segment_blocks(), epochs.clone()))
            });
            let (rest, done) = kept.unwrap_or((epochs, false));
            left = rest;
            done
        });
        if kept {
            drop(self.lock()); // A thread that waits for this has seen that it was under way, or sees the end.
            self.changed.notify_all();
        }
        (left, kept)
    }
}
