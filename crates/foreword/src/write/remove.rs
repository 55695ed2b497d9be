//! What becomes of segments that the log dropped: they are used again or removed, behind the call that dropped them.

use std::time::{Duration, Instant};

use crate::bug::{self, Bug};
use crate::error::Doing;
use crate::files::segment::segment_name;
use crate::read::chain::Source;
use crate::recovery::Entry;
use crate::sync::atomic::Ordering;
use crate::write::close::Ending;
use crate::write::commit::{Guard, Shared, State};
use crate::write::rotate::SPARES_KEPT;
use crate::write::runtime::Lane;
use crate::{Error, Result, strangers};

/// After a segment could not be removed, or prepared, so long until it is tried again, however often somebody kicks (an append that needs one tries at once).
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);
/// So many segments are removed before others may see the result.
const BATCH: usize = 16;

/// A segment that the log does not need any more. That it does not is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped {
    pub(crate) epoch: u64,
    /// It may serve again: that has not failed yet.
    pub(crate) recyclable: bool,
    /// It could not be removed: when it is tried again.
    retry_at: Option<Instant>,
}

impl Dropped {
    /// A segment that is only to be removed.
    pub(crate) fn useless(epoch: u64) -> Dropped {
        Dropped { epoch, recyclable: false, retry_at: None }
    }

    fn is_due(&self, by: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= by)
    }
}

/// What became of files that were to be removed.
pub(crate) struct Removed {
    /// Those that are still there.
    failed: Vec<u64>,
    /// The first error, of a file or of the directory: to be reported, under no lock.
    pub(crate) error: Option<Error>,
}

impl From<&Entry> for Dropped {
    fn from(entry: &Entry) -> Dropped {
        Dropped { epoch: entry.epoch, recyclable: true, retry_at: None }
    }
}

impl Shared {
    /// Does with all dropped segments what is to be done, and waits for whoever is at it; those that could not be removed are tried once more.
    pub(crate) fn remove_all(&self) {
        // Those that fail now are due later than this.
        let by = Instant::now() + RETRY_AFTER;
        let mut state = self.lock();
        while state.removing > 0 || state.wants_removal(by) {
            state = self.remove_some(state, by);
        }
    }

    /// Uses a dropped segment again, or removes some; or waits for whoever is at it.
    pub(crate) fn remove_some<'a>(&'a self, mut state: Guard<'a>, by: Instant) -> Guard<'a> {
        if state.removing > 0 {
            return self.wait_changed(state);
        }
        let prepares = !state.preparing || bug::is(Bug::PrepareAtOnce);
        if state.spares.len() < self.spares_kept() && prepares && state.dropped.iter().any(|d| d.recyclable) {
            return self.prepare_next(state).0;
        }
        let (due, later): (Vec<_>, _) = state.dropped.drain(..).partition(|d| d.is_due(by));
        let (batch, rest) = due.split_at(due.len().min(BATCH));
        state.dropped = rest.iter().copied().chain(later).collect();
        state.removing = batch.len();
        drop(state);
        let epochs: Vec<u64> = batch.iter().map(|dropped| dropped.epoch).collect();
        let Removed { failed, error } = self.remove_files(&epochs);
        let mut state = self.lock();
        let removed = batch.len() - failed.len();
        self.counters.removed.fetch_add(removed as u64, Ordering::Relaxed);
        state.removing = 0;
        let retry_at = Some(Instant::now() + RETRY_AFTER);
        state.dropped.extend(failed.into_iter().map(|epoch| Dropped { retry_at, ..Dropped::useless(epoch) }));
        if removed > 0 {
            state.freed += 1;
            (state.prepare_again, state.no_space) = (None, None);
        }
        self.changed.notify_all();
        self.kick(Lane::Prepare);
        let Some(error) = error else { return state };
        // The hook may close the log, which waits for who is removing.
        drop(state);
        self.report(&error);
        self.lock()
    }

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
            self.places.keep_to(&chain);
            self.recent.retain(|epoch| chain.has(epoch));
        });
        let blocks = self.options.segment_blocks();
        let sorted =
            self.attempt("look at the files", &self.dir.path, || Ok(self.dir.fit_for_reserve(blocks, epochs.iter().copied())));
        let (small, others) = sorted.unwrap_or((Vec::new(), epochs.to_vec()));
        let mut failed: Vec<_> = others.into_iter().filter_map(remove).collect();
        // Now there is room for what of the reserve was used.
        failed.extend(self.keep_reserve(small).into_iter().filter_map(remove));
        // That frees their space. If it fails, they are found and removed again by the next opening.
        let synced: Result<()> = self.attempt("sync the directory", &self.dir.path, || self.dir.sync());
        let (failed, errors): (Vec<u64>, Vec<Error>) = failed.into_iter().unzip();
        Removed { failed, error: errors.into_iter().next().or(synced.err()) }
    }

    /// Makes what is missing of the reserve, of superseded segments or anew: those that are left. Who finds somebody at it leaves it to them.
    pub(crate) fn keep_reserve(&self, superseded: Vec<u64>) -> Vec<u64> {
        let mut left = superseded;
        self.keeping.keep(|| {
            let epochs = std::mem::take(&mut left);
            let kept = self.attempt("keep room", &self.dir.path, || {
                Ok(self.dir.keep_reserve(self.options.segment_blocks(), epochs.clone()))
            });
            let (rest, done) = kept.unwrap_or((epochs, false));
            left = rest;
            done
        });
        left
    }

    /// How many prepared segments are kept of those that come back.
    pub(crate) fn spares_kept(&self) -> usize {
        SPARES_KEPT.max(self.options.spare_segments)
    }
}

impl State {
    /// Whether something is to be done about dropped segments by a time: at least one that is to be removed is due, or may serve again.
    pub(crate) fn wants_removal(&self, by: Instant) -> bool {
        self.removing == 0 && self.ending != Ending::Ended && self.dropped.iter().any(|d| d.is_due(by))
    }

    /// When a removal that failed is tried again.
    pub(crate) fn remove_again(&self) -> Option<Instant> {
        self.dropped.iter().filter_map(|d| d.retry_at).min()
    }
}
