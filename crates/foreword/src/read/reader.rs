//! Reading: forward, backward, at an LSN, and along the tail as it grows. One reader for a log that
//! is open here, for one that another process writes, and for one that no process has open for
//! writing.

mod load;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::bug::bug;
use crate::error::DamageKind;
use crate::format::{Chain, FrameHeader, Head};
use crate::read::find::frame_between;
use crate::read::record::{RecordRef, micros};
use crate::read::source::{End, Source};
use crate::read::span::{Span, offsets, record_end};
use crate::read::tails::Tail;
use crate::read::walk::Walker;
use crate::sync::deadline;
use crate::{Error, Lsn, Result};

/// Reads a log, in both directions and along its growing tail.
///
/// A reader stands before a record: [`next`](Reader::next) reads that one and steps over it,
/// [`prev`](Reader::prev) reads the one before and steps back. It needs no lock that a writer
/// takes, sees no record that is not durable, and has one buffer of 256 KiB and the record it
/// returns. Every frame is checked when it is read. An LSN that was dropped by then is
/// [`Error::Dropped`], wherever it comes from: the one that the reader was made with, or one at
/// which a truncation of the front overtook it. Only [`Lsn::ZERO`] means "from the start", wherever
/// that is.
///
/// If records are cut off [at the back](crate::Log::truncate_back) that it has read, or that lie
/// before the one where it stands, it says so once, with the next call ([`Error::Cut`]); on a log
/// that another process writes, with a call that comes at least 10 ms after the cut. Then it stands
/// before the first that was cut. So it never goes on from records that are gone to others in their
/// place.
///
/// It may outlive its log, and then reads that as it was when it was closed, for as long as the
/// files are as they were; then it says [`Error::Closed`].
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
/// log.commit(b"one")?;
/// log.commit(b"two")?;
/// let mut reader = log.reader();
/// while let Some(record) = reader.next()? {
///     println!("{}: {} bytes", record.lsn, record.data.len());
/// }
/// assert_eq!(reader.prev()?.unwrap().data, b"two");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Reader {
    source: Arc<dyn Source>,
    chain: Arc<Chain>,
    version: u64,
    /// The LSN of the record before which the reader stands.
    next: Lsn,
    /// It is to begin with the first record that there is then.
    from_start: bool,
    /// The highest LSN that it has read since it was made or told of a cut.
    read: Lsn,
    limit: Lsn,
    walker: Option<Walker>,
    span: Span,
    /// The last LSN that was read, for the log to see; once the reader follows the tail.
    at: Option<Arc<AtomicU64>>,
}

impl Reader {
    pub(crate) fn new(source: Arc<dyn Source>, from: Lsn) -> Reader {
        let version = source.version();
        let chain = source.chain();
        let (read, limit, walker, span, at) = (Lsn::ZERO, Lsn::ZERO, None, Span::default(), None);
        let mut reader = Reader { source, chain, version, next: from, from_start: false, read, limit, walker, span, at };
        reader.seek(from);
        reader
    }

    /// The LSN of the record that [`next`](Reader::next) will read, as far as it is known.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.next
    }

    /// Stands before the record with this LSN, which need not be there yet: the next read says if
    /// it was dropped. [`Lsn::ZERO`] stands for the first record that is there when it is read.
    pub fn seek(&mut self, lsn: Lsn) {
        self.from_start = lsn == Lsn::ZERO;
        self.next = if self.from_start { self.chain.start } else { lsn };
    }

    /// Stands before the first record that was [written](RecordRef::time) at a time or after it, or
    /// behind the last if there is none: its LSN. Looks by bisection, at some twenty frames, and
    /// reads no records.
    ///
    /// Times come from the clock of the writer's machine. Where it was set back, the log passes a
    /// time more than once; this is one of the places. So records of that time or later may lie
    /// before it, and earlier ones behind it.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// use std::time::{Duration, SystemTime};
    /// log.commit(b"now")?;
    /// let ten_minutes_ago = SystemTime::now() - Duration::from_secs(600);
    /// let mut reader = log.reader();
    /// reader.seek_to_time(ten_minutes_ago)?;
    /// assert_eq!(reader.next()?.unwrap().data, b"now");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Cut`], [`Error::Corruption`] of a segment's header, [`Error::Io`].
    pub fn seek_to_time(&mut self, time: SystemTime) -> Result<Lsn> {
        self.limit = self.source.limit(Lsn::MAX)?;
        self.follow_changes()?;
        let mut lsn = self.last_before(micros(time))?.map_or(Lsn::FIRST, |frame| frame.next_lsn()).max(self.chain.start);
        while let Some(gap) = self.chain.gap(lsn) {
            lsn = gap.last_lost.next();
        }
        self.seek(lsn.min(self.limit.next()));
        Ok(self.next)
    }

    /// The last frame that was written before a time. Within each stretch between two that were
    /// given up, the frames are in order; what lies in those says nothing.
    fn last_before(&self, micros: u64) -> Result<Option<FrameHeader>> {
        let is_before = |header: &FrameHeader| header.time < micros;
        for entry in self.chain.entries.iter().rev().filter(|e| e.time.is_none_or(|time| time < micros)) {
            let segment = self.open(entry.epoch)?;
            let mut lsn = Lsn::MAX;
            loop {
                let (blocks, first_lsn) = self.chain.stretch(entry, lsn);
                let first = match segment.head(blocks.start)? {
                    Head::Frame(header) => Some(header),
                    _ => None,
                };
                if first.as_ref().is_none_or(is_before) {
                    let (_, last) = frame_between(&segment, blocks, &is_before, &mut |_, _| ())?;
                    if let Some(last) = last.or(first) {
                        return Ok(Some(last));
                    }
                }
                if first_lsn <= entry.first_lsn {
                    break;
                }
                lsn = first_lsn.prev();
            }
        }
        Ok(None)
    }

    /// How many bytes the records have from one LSN (or with [`Lsn::ZERO`] from the first that is
    /// there) up to another, which may be the one behind the last: for telling a lag, or what
    /// retention would keep. Each frame counts the bytes before it, so that two frames are read,
    /// however far they lie apart. Records that a salvage gave up count as nothing, unless what lies
    /// behind them says what they had. Where the second LSN is not behind the first there are none,
    /// and so 0 bytes.
    ///
    /// # Errors
    /// [`Error::Dropped`] if the first is before the start, [`Error::NotAppended`] if the second is
    /// more than one beyond the last; else as [`next`](Reader::next).
    pub fn bytes_between(&mut self, from: Lsn, to: Lsn) -> Result<u64> {
        self.readable(from)?;
        self.readable(to)?;
        if to > self.limit.next() {
            return Err(Error::NotAppended { lsn: to, last: self.limit });
        }
        Ok(self.try_bytes_before(to)?.saturating_sub(self.try_bytes_before(from)?))
    }

    /// Stands behind the last record that is readable now.
    ///
    /// # Errors
    /// [`Error::Io`], where the log is another process's.
    pub fn seek_to_end(&mut self) -> Result<()> {
        self.seek(self.source.limit(Lsn::MAX)?.next());
        Ok(())
    }

    /// The next record; `None` at the end of what is durable (more may come). Blocks only for
    /// reading files.
    ///
    /// After a salvage, LSNs that were given up are stepped over.
    ///
    /// # Errors
    /// [`Error::Dropped`] if the record was truncated away, [`Error::Corruption`] if it cannot be
    /// read, [`Error::Io`]. The reader stays where it is.
    #[allow(clippy::should_implement_trait)] // It lends; `Iterator` cannot.
    #[inline]
    pub fn next(&mut self) -> Result<Option<RecordRef<'_>>> {
        match self.at_hand() {
            Some(place) => {
                let lsn = self.next;
                self.next = lsn.next();
                self.read = self.read.max(lsn);
                (self.span.lsn, self.span.offset) = (self.next, place.end);
                Ok(Some(RecordRef { lsn, data: &self.stream()[place], micros: self.span.micros }))
            }
            None => self.look_for_next(),
        }
    }

    /// Where in the stream the next record lies, if it is known to be readable still: so it is for
    /// all but the first of a frame.
    #[inline]
    fn at_hand(&self) -> Option<Range<usize>> {
        let Span { lsn, offset, .. } = self.span;
        let known = lsn == self.next && self.span.has(lsn) && lsn <= self.limit && self.source.version() == self.version;
        let end = if known { record_end(self.stream(), offset) } else { None };
        end.map(|end| offset + 4..end)
    }

    fn look_for_next(&mut self) -> Result<Option<RecordRef<'_>>> {
        while self.next_is_readable()? {
            let lsn = self.next;
            match self.load(lsn) {
                Ok(()) => {
                    self.seek(lsn.next());
                    return self.record(lsn).map(Some);
                }
                Err(error) => self.overtaken(error)?,
            }
        }
        Ok(None)
    }

    /// Whether there is a next record to be read; what was given up is stepped over.
    pub(super) fn next_is_readable(&mut self) -> Result<bool> {
        loop {
            let readable = match self.readable(self.next) {
                Err(error) => self.overtaken(error).and_then(|()| self.readable(self.next)),
                readable => readable,
            };
            let gap = self.chain.gap(self.next).map(|waiver| waiver.last_lost);
            match (readable?, gap) {
                (true, Some(last_lost)) => self.next = last_lost.next(),
                (readable, _) => return Ok(readable),
            }
        }
    }

    /// A reader from the start reads from where that is now.
    fn overtaken(&mut self, error: Error) -> Result<()> {
        match error {
            Error::Dropped { start, .. } if self.from_start => self.next = start,
            error => return Err(error),
        }
        Ok(())
    }

    /// The record before; `None` where the reader stands before the first of the log.
    ///
    /// # Errors
    /// As [`next`](Reader::next). So a reader that is overtaken by a truncation of the front says
    /// [`Error::Dropped`], and not that it has come to the beginning.
    pub fn prev(&mut self) -> Result<Option<RecordRef<'_>>> {
        let before = self.next.prev();
        match self.readable(before) {
            Err(Error::Dropped { start, .. }) if self.next == start || self.from_start => return Ok(None),
            readable => readable?,
        };
        let lsn = before.min(self.limit);
        if lsn < self.chain.start {
            return Ok(None);
        }
        if let Some(first_lost) = self.chain.gap(lsn).map(|w| w.first_lost) {
            self.next = first_lost;
            return self.prev();
        }
        self.load(lsn)?;
        self.seek(lsn);
        self.record(lsn).map(Some)
    }

    /// The record with this LSN. The reader then stands behind it.
    ///
    /// # Errors
    /// As [`next`](Reader::next), and [`Error::NotAppended`] if it is not there (or not durable)
    /// yet, [`Error::GivenUp`] if it was given up.
    pub fn get(&mut self, lsn: Lsn) -> Result<RecordRef<'_>> {
        if lsn == Lsn::ZERO {
            return Err(Error::NotAppended { lsn, last: self.source.limit(Lsn::MAX)? });
        }
        if !self.readable(lsn)? {
            return Err(Error::NotAppended { lsn, last: self.limit });
        }
        if self.chain.gap(lsn).is_some() {
            return Err(Error::GivenUp { lsn });
        }
        self.load(lsn)?;
        self.seek(lsn.next());
        self.record(lsn)
    }

    /// The next record, waiting for it to become durable: for as long as it takes, or the time
    /// given. `None` when the time is over, or when the log was closed and all of it is read: at once
    /// then, and each time. A log that another process closed may be opened again by another; how to
    /// follow it through that, see [`View`](crate::View).
    ///
    /// # Errors
    /// As [`next`](Reader::next); [`Error::Busy`] as [`wait_durable`](crate::Log::wait_durable).
    pub fn wait_next(&mut self, timeout: Option<Duration>) -> Result<Option<RecordRef<'_>>> {
        self.attend();
        let deadline = deadline(timeout);
        while !self.next_is_readable()? {
            if !self.source.wait(self.end(), deadline)? {
                return Ok(None);
            }
        }
        self.next()
    }

    /// As [`wait_next`](Reader::wait_next), for async code on any executor. Cancel-safe: a record
    /// is consumed only by a completed await, and nothing is left of one that is given up.
    ///
    /// On a log that another process writes, one thread for each [`View`](crate::View) looks for
    /// all tasks that wait; it ends when none does. `None` means there what it does for `wait_next`.
    ///
    /// # Errors
    /// As [`next`](Reader::next).
    pub async fn next_async(&mut self) -> Result<Option<RecordRef<'_>>> {
        self.attend();
        while !self.next_is_readable()? {
            if !self.tail().await? {
                return Ok(None);
            }
        }
        self.next()
    }

    pub(super) fn tail(&self) -> Tail {
        Tail { source: self.source.clone(), end: self.end(), id: None }
    }

    fn end(&self) -> End {
        End { lsn: self.next.prev(), generation: self.chain.generation }
    }

    /// Lets the log see how far this reader has come, now that it follows the tail.
    pub(super) fn attend(&mut self) {
        let read = self.next.prev().0;
        match &self.at {
            Some(at) => at.store(read, Ordering::Relaxed),
            None => self.source.attend(self.at.insert(Arc::new(AtomicU64::new(read)))),
        }
    }

    /// Whether a record may be read; looks at what has changed.
    fn readable(&mut self, lsn: Lsn) -> Result<bool> {
        if lsn > self.limit {
            self.limit = self.source.limit(lsn.prev())?;
        }
        if self.follow_changes()? && lsn > self.limit {
            self.limit = self.source.limit(lsn.prev())?;
        }
        if lsn > self.limit {
            return match self.source.damage() {
                // What is readable was read; now say why it ends.
                Some(damage) => Err(Error::Corruption(Arc::new(damage))),
                _ => Ok(false),
            };
        }
        if lsn < self.chain.start && lsn > Lsn::ZERO {
            return Err(Error::Dropped { lsn, start: self.chain.start });
        }
        Ok(true)
    }

    /// Takes a changed chain: whether anything changed. Of records that were cut off, nothing stays
    /// buffered. A reader that has read any, or stands behind one, gets the error.
    fn follow_changes(&mut self) -> Result<bool> {
        let version = self.source.version();
        if version == self.version {
            return Ok(false);
        }
        self.version = version;
        let before = std::mem::replace(&mut self.chain, self.source.chain());
        if self.chain.generation == before.generation {
            return Ok(true);
        }
        self.walker = None;
        self.span = Span::default();
        self.limit = self.limit.min(self.source.limit(Lsn::ZERO)?);
        let stands = if self.from_start { Lsn::ZERO } else { self.next.prev() };
        let reached = self.read.max(stands);
        bug!(HideCut, return Ok(true));
        match self.chain.cuts.since(before.generation) {
            Some(at) if reached >= at => {
                (self.read, self.next, self.from_start) = (Lsn::ZERO, at, false);
                Err(Error::Cut { at, reached })
            }
            _ => Ok(true),
        }
    }

    /// The record from the span.
    #[inline]
    fn record(&mut self, lsn: Lsn) -> Result<RecordRef<'_>> {
        let at = if self.span.lsn == lsn { self.span.offset } else { self.indexed(lsn) };
        let Some(after) = record_end(self.stream(), at) else { return Err(self.does_not_add_up()) };
        self.span.offset = after;
        self.span.lsn = lsn.next();
        self.read = self.read.max(lsn);
        Ok(RecordRef { lsn, data: &self.stream()[at + 4..after], micros: self.span.micros })
    }

    #[cold]
    fn does_not_add_up(&mut self) -> Error {
        self.span.header = None;
        self.broken(DamageKind::Structure, "records that do not add up")
    }

    /// The records of the span, as bytes.
    #[inline]
    fn stream(&self) -> &[u8] {
        match &self.walker {
            _ if self.span.is_joined => &self.span.joined,
            Some(walker) => walker.buffered(self.span.place.clone()),
            None => &[],
        }
    }

    /// Where a record of the span begins, for a reader that does not go forward.
    fn indexed(&mut self, lsn: Lsn) -> usize {
        if self.span.index.is_empty() {
            let head = self.span.header.filter(|_| !self.span.is_joined).map_or(0, |h| h.head_len as usize);
            self.span.index = offsets(self.stream(), head);
        }
        self.span.index.get((lsn.0 - self.span.first.0) as usize).map_or(usize::MAX, |&at| at as usize)
    }

    /// The bytes of all records of the log before one, which may be the next to come; see
    /// [`bytes_between`](Reader::bytes_between).
    pub(crate) fn try_bytes_before(&mut self, lsn: Lsn) -> Result<u64> {
        let mut lsn = lsn.max(self.chain.start);
        if !self.readable(lsn)? || self.chain.gap(lsn).is_some() {
            // Nothing at hand says it but the record before. Of what was given up, only what lies
            // behind can.
            lsn = lsn.min(self.limit.next());
            while let Some(gap) = self.chain.gap(lsn.prev()) {
                lsn = gap.first_lost;
            }
            match self.chain.entries.first() {
                Some(front) if lsn > front.first_lsn => self.load(lsn.prev())?,
                // (Where what begins the log cannot be read, neither can its first record.)
                front => return Ok(front.and_then(|front| front.bytes).unwrap_or(0)),
            }
        } else {
            self.load(lsn)?;
        }
        let first = self.span.first;
        let (begin, at) = (self.indexed(first), self.indexed(lsn).min(self.stream().len()));
        let before = self.span.header.map_or(0, |header| header.first.bytes);
        Ok(before + (at.saturating_sub(begin) as u64).saturating_sub(4 * (lsn.0 - first.0)))
    }

    /// The same for a fork, which goes on whatever can be read: then with what the beginning of the
    /// segment says, or of the last before of which it is known.
    pub(crate) fn bytes_before(&mut self, lsn: Lsn) -> u64 {
        let known = |chain: &Chain| chain.entries.iter().rev().filter(|e| e.first_lsn <= lsn).find_map(|e| e.bytes);
        self.try_bytes_before(lsn).unwrap_or_else(|_| known(&self.chain).unwrap_or(0))
    }
}
