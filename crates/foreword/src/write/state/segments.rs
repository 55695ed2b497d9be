//! Segments before and after they are the log's: those prepared for it, and those it has dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::files::segment::Segment;
use crate::format::Entry;

/// After a segment could not be prepared or removed, or retention could not drop one, the
/// background tries again so much later, however often it is kicked. (An append that needs a
/// segment tries at once.)
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Prepared segments. Owned by the thread that has set `preparing`: it alone adds to `ready`. A
/// rotation takes from the front.
#[derive(Debug)]
pub(crate) struct Spares {
    /// With the epochs that follow the log's, in order.
    pub(crate) ready: VecDeque<Arc<Segment>>,
    /// A thread is preparing a segment, or has taken the spares to work on them.
    pub(in crate::write) preparing: bool,
    /// How many are needed by an append that does not wait for them.
    pub(in crate::write) wanted: usize,
    /// The log has filled a segment, and so will fill this one.
    pub(in crate::write) fills_segments: bool,
    /// The background could not prepare one: when it tries again.
    retry_at: Option<Instant>,
    /// The same, if there was no space for it.
    no_space: Option<Error>,
    /// Record bytes, and flushes with a sync, when a segment was prepared last.
    pub(in crate::write) at_last: (u64, u64),
}

impl Spares {
    pub(super) fn new(ready: VecDeque<Arc<Segment>>, fills_segments: bool) -> Spares {
        Spares { ready, preparing: false, wanted: 0, fills_segments, retry_at: None, no_space: None, at_last: (0, 0) }
    }

    /// Whether the background may prepare one: no thread does, and none has just failed to.
    pub(super) fn may_prepare(&self) -> bool {
        !self.preparing && self.retry_at.is_none()
    }

    /// The background could not prepare one.
    pub(in crate::write) fn failed(&mut self, error: &Error) {
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.no_space = error.is_no_space().then(|| error.clone());
    }

    /// There is space again, or may be.
    pub(in crate::write) fn found_space(&mut self) {
        (self.retry_at, self.no_space) = (None, None);
    }

    /// Why an append that does not wait for a segment gets none.
    pub(in crate::write) fn why_none(&self) -> Error {
        self.no_space.clone().unwrap_or(Error::Busy)
    }

    /// When the background tries again, if it is not yet to.
    pub(in crate::write) fn retry_at(&mut self, now: Instant) -> Option<Instant> {
        self.retry_at = self.retry_at.filter(|&at| at > now);
        self.retry_at
    }
}

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
    fn is_due(&self, by: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= by)
    }
}

impl From<&Entry> for Dropped {
    fn from(entry: &Entry) -> Dropped {
        Dropped { epoch: entry.epoch, recyclable: true, retry_at: None }
    }
}

/// Segments that the log has dropped, durably. A truncation adds; the rest is owned by the thread
/// that removes (`removing` is not 0) or prepares (it takes one to recycle).
#[derive(Debug, Default)]
pub(crate) struct Removals {
    queue: VecDeque<Dropped>,
    /// How many a thread is removing now.
    removing: usize,
    /// Rises each time that some were removed.
    freed: u64,
}

impl Removals {
    pub(in crate::write) fn add(&mut self, dropped: impl IntoIterator<Item = Dropped>) {
        self.queue.extend(dropped);
    }

    /// How many there are, with those that are being removed.
    pub(crate) fn len(&self) -> usize {
        self.queue.len() + self.removing
    }

    pub(in crate::write) fn is_removing(&self) -> bool {
        self.removing > 0
    }

    pub(in crate::write) fn freed(&self) -> u64 {
        self.freed
    }

    /// Whether any is to be removed or recycled by a time, and no thread is at it.
    pub(super) fn is_due(&self, by: Instant) -> bool {
        self.removing == 0 && self.queue.iter().any(|dropped| dropped.is_due(by))
    }

    pub(in crate::write) fn has_recyclable(&self) -> bool {
        self.queue.iter().any(|dropped| dropped.recyclable)
    }

    /// The oldest that may serve again, for the thread that prepares a segment.
    pub(in crate::write) fn take_recyclable(&mut self) -> Option<Dropped> {
        let at = self.queue.iter().position(|dropped| dropped.recyclable)?;
        self.queue.remove(at)
    }

    /// One that cannot serve again, and is only to be removed.
    pub(in crate::write) fn not_recyclable(&mut self, epoch: u64) {
        self.queue.push_front(Dropped { epoch, recyclable: false, retry_at: None });
    }

    /// Takes up to so many of those that are due by a time, to remove them.
    pub(in crate::write) fn begin(&mut self, by: Instant, most: usize) -> Vec<u64> {
        let mut batch = Vec::new();
        self.queue.retain(|dropped| {
            let taken = batch.len() < most && dropped.is_due(by);
            if taken {
                batch.push(dropped.epoch);
            }
            !taken
        });
        self.removing = batch.len();
        batch
    }

    /// They were removed, but for those that could not be. Whether any was.
    pub(in crate::write) fn end(&mut self, failed: Vec<u64>) -> usize {
        let removed = self.removing - failed.len();
        self.removing = 0;
        self.freed += u64::from(removed > 0);
        let retry_at = Some(Instant::now() + RETRY_AFTER);
        self.queue.extend(failed.into_iter().map(|epoch| Dropped { epoch, recyclable: false, retry_at }));
        removed
    }

    /// When a removal that failed is tried again.
    pub(in crate::write) fn retry_at(&self) -> Option<Instant> {
        self.queue.iter().filter_map(|dropped| dropped.retry_at).min()
    }
}

/// What retention needs to know of segments. A rotation adds a segment, a truncation of the front
/// drops some; the background owns the rest.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// When each segment that was begun since the log was opened was, by the log's clock.
    pub(in crate::write) begun: BTreeMap<u64, u64>,
    /// Retention could not drop what it should: when it tries again.
    pub(in crate::write) retry_at: Option<Instant>,
    /// The segment in use has no record yet: retention is to look again with the next flush.
    pub(in crate::write) awaits_record: bool,
}
