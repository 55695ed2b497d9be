//! The thread that reads the log, and makes chunks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foreword::{Lsn, View};
use tokio::sync::mpsc;

use crate::archive::{micros, object_name};
use crate::archiver::options::PushOptions;
use crate::chunk::{Builder, Chunk, Place};
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::manifest::Gap;

/// How long the thread that reads waits at most, before it looks whether it is to stop.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// How much the thread that reads and compresses stands back behind others.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;
/// An archiver that is to stop archives what is durable by then, but reads no longer than this.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// Why the thread that reads has come to an end.
pub(super) enum End {
    /// It was to.
    Done,
    Cut,
    Missed(Gap),
    GivenUp(Gap),
    Failed(Error),
}

pub(super) enum Piece {
    Chunk(Chunk, Bytes),
    End(End),
}

pub(super) fn missed(first: u64, start: u64) -> Gap {
    Gap { first, last: start - 1, reason: "dropped from the log before they were archived".into() }
}

pub(super) fn given_up(first: Lsn, next: Lsn) -> Gap {
    Gap { first: first.0, last: next.0 - 1, reason: "given up when the log was salvaged".into() }
}

/// Makes chunks.
pub(super) struct Cutter {
    pub(super) place: Place,
    pub(super) keys: Keys,
    pub(super) epoch: u64,
    pub(super) options: PushOptions,
}

impl Cutter {
    fn begin(&self, first: Lsn) -> Result<Builder> {
        Builder::new(self.place, first, &self.keys, self.options.level)
    }

    fn finish(&self, builder: Builder, first: Lsn, whole: bool) -> Result<Piece> {
        let name = object_name("chunk", self.place.timeline, first.0, builder.next().prev().0, self.epoch)?;
        let (chunk, bytes) = builder.finish(name, whole)?;
        Ok(Piece::Chunk(chunk, bytes))
    }
}

/// The thread that reads the log.
pub(super) struct Reading {
    pub(super) cutter: Cutter,
    pub(super) view: View,
    pub(super) from: Lsn,
    /// How often the timeline's log was cut: the archive has what that left.
    pub(super) generation: u32,
    pub(super) end: Option<Lsn>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) out: mpsc::Sender<Piece>,
}

/// A chunk that gathers, and since when.
struct Gathering {
    first: Lsn,
    builder: Builder,
    since: Instant,
}

impl Reading {
    pub(super) fn run(self) {
        // What it compresses is not waited for; what the log's committers do is. (Of this thread
        // alone, on Linux; best effort.)
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(NICE);
        let end = self.read().unwrap_or_else(End::Failed);
        let _ = self.out.blocking_send(Piece::End(end));
    }

    /// `false`: no one takes it any more.
    fn send(&self, gathered: Gathering, whole: bool) -> Result<bool> {
        let piece = self.cutter.finish(gathered.builder, gathered.first, whole)?;
        Ok(self.out.blocking_send(piece).is_ok())
    }

    fn read(&self) -> Result<End> {
        let options = &self.cutter.options;
        // A cut behind this the reader tells of; one before it would go unseen.
        let mut reader = self.view.reader_at(self.from);
        if self.view.generation() != self.generation {
            return Ok(End::Cut);
        }
        let (mut next, mut end, mut stop_by) = (self.from, self.end, None);
        let (mut chunk, mut part): (Option<Gathering>, Option<Gathering>) = (None, None);
        let gathering =
            |first: Lsn| Ok::<_, Error>(Gathering { first, builder: self.cutter.begin(first)?, since: Instant::now() });
        loop {
            if self.out.is_closed() {
                return Ok(End::Done);
            }
            if stop_by.is_none() && self.stopping.load(Ordering::Relaxed) {
                stop_by = Some(Instant::now() + STOPS_WITHIN);
                end = self.view.last_lsn().ok().or(end);
            }
            let stopping = stop_by.is_some_and(|by| Instant::now() > by);
            let done = end.is_some_and(|end| next > end);
            let read = if done || stopping { Ok(None) } else { reader.next() };
            let (record, problem) = match read {
                // (Readers pass over what was given up.)
                Ok(Some(record)) if record.lsn > next => (None, Some(Ok(given_up(next, record.lsn)))),
                Ok(record) => (record.map(|record| (record.lsn, micros(record.time()), record.data)), None),
                Err(error) => (None, Some(Err(error))),
            };
            let at_end = record.is_none();
            if let Some((lsn, time, data)) = record {
                if chunk.is_none() {
                    chunk = Some(gathering(lsn)?);
                }
                if options.rpo.is_some() && part.is_none() {
                    part = Some(gathering(lsn)?);
                }
                for gathering in [&mut chunk, &mut part].into_iter().flatten() {
                    gathering.builder.push(time, data)?;
                }
                next = lsn.next();
            }
            // (A log that fails, or was cut, is looked at again from where the archive ends.)
            let is_due = |gathering: &Gathering, age: Duration| gathering.since.elapsed() >= age;
            let full = chunk.take_if(|chunk| {
                chunk.builder.size() >= options.chunk_bytes
                    || is_due(chunk, options.chunk_age)
                    || at_end && (done || stopping || problem.is_some())
            });
            if let Some(full) = full {
                part = None;
                // What is durable at once is whole batches.
                let last = next.prev();
                let whole = problem.is_none()
                    && (at_end && !stopping || end == Some(last) || self.view.last_lsn().is_ok_and(|durable| durable == last));
                if !self.send(full, whole)? {
                    return Ok(End::Done);
                }
            }
            if let Some(partial) = part.take_if(|part| options.rpo.is_some_and(|rpo| is_due(part, rpo)))
                && !self.send(partial, at_end)?
            {
                return Ok(End::Done);
            }
            if done || stopping {
                return Ok(End::Done);
            }
            match problem {
                None => {}
                Some(Ok(gap)) => return Ok(End::GivenUp(gap)),
                Some(Err(foreword::Error::Cut { .. })) => return Ok(End::Cut),
                Some(Err(foreword::Error::Dropped { start, .. })) => return Ok(End::Missed(missed(next.0, start.0))),
                Some(Err(error)) => return Ok(End::Failed(error.into())),
            }
            // (What was given up at the log's end.)
            let lost = |&(first, last): &(Lsn, Lsn)| (first..=last).contains(&next);
            if at_end && let Some((_, last)) = self.view.given_up().into_iter().find(lost) {
                return Ok(End::GivenUp(given_up(next, last.next())));
            }
            if at_end {
                let due = |gathering: &Option<Gathering>, age: Option<Duration>| {
                    gathering.as_ref().zip(age).map(|(gathering, age)| age.saturating_sub(gathering.since.elapsed()))
                };
                let wait = [due(&chunk, Some(options.chunk_age)), due(&part, options.rpo)]
                    .into_iter()
                    .flatten()
                    .fold(LOOK, Duration::min);
                // Only waits: the loop reads it.
                match reader.wait_next(Some(wait.max(Duration::from_millis(1)))).map(|record| record.is_some()) {
                    Ok(false) => {}
                    // (Said once: the next read would go on behind it.)
                    Err(foreword::Error::Cut { .. }) => return Ok(End::Cut),
                    _ => reader.seek(next),
                }
            }
        }
    }
}
