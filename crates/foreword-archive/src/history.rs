//! What an archive has: the history of a timeline, and the chunks in which it lies.

use std::collections::VecDeque;
use std::ops::Range;

use foreword::Lsn;

use crate::archive::Archive;
use crate::chunk::{Chunk, Hash, Place, Record};
use crate::decode::{Fetched, fetch, fetch_table};
use crate::error::{Error, Result};
use crate::manifest::Index;

impl Archive {
    /// Which records a timeline has, with those of the timelines that it comes from, without a
    /// gap: from the first LSN to the last.
    ///
    /// # Errors
    /// As [`timeline`](Archive::timeline).
    pub fn range(&self, timeline: Option<u32>) -> Result<(Lsn, Lsn)> {
        let timeline = self.timeline(timeline)?;
        let (id, last) = (timeline.id, timeline.last);
        Ok((self.first_before(id, last), Lsn(last)))
    }

    /// All stretches of records without a gap that a timeline's history has, the newest last.
    #[must_use]
    pub fn stretches(&self, timeline: u32) -> Vec<(Lsn, Lsn)> {
        let mut stretches = Vec::new();
        let mut last = self.state.timelines.get(&timeline).map_or(0, |timeline| timeline.last);
        while last > 0 {
            let first = self.first_before(timeline, last).0;
            if first <= last {
                stretches.push((Lsn(first), Lsn(last)));
            }
            // Behind the gap before it, if there is one.
            let before = |(id, from, to): (u32, u64, u64)| {
                let timeline = self.state.timelines.get(&id)?;
                let ends = timeline.gaps.iter().map(|gap| gap.first - 1).chain([to]);
                ends.filter(|&end| end < first && end >= from && (end < last || first <= last)).max()
            };
            last = self.state.history(timeline, last).into_iter().filter_map(before).max().filter(|&end| end < last).unwrap_or(0);
        }
        stretches.reverse();
        stretches
    }

    /// The first LSN from which on a timeline's history has everything up to an LSN.
    pub(crate) fn first_before(&self, timeline: u32, last: u64) -> Lsn {
        let mut first = last + 1;
        for (id, from, to) in self.state.history(timeline, last).into_iter().rev() {
            let Some(timeline) = self.state.timelines.get(&id) else { break };
            let there = timeline.indexes.first().map(|index| index.first);
            let there = there.into_iter().chain(timeline.chunks.first().map(|chunk| chunk.first)).min().unwrap_or(to + 1);
            let there = there.max(from).max(timeline.after_gaps(to).unwrap_or(0));
            if to + 1 < first || there > to {
                break;
            }
            first = there;
            if there > from {
                break;
            }
        }
        Lsn(first)
    }

    /// The chunks with some LSNs of a timeline's history, in order.
    pub(crate) fn chunks(&self, timeline: u32, lsns: Range<u64>) -> Chunks {
        let mut parts = VecDeque::new();
        for (id, from, to) in self.state.history(timeline, lsns.end - 1) {
            let Some(timeline) = self.state.timelines.get(&id) else { continue };
            let (from, to) = (from.max(lsns.start), to);
            if from > to {
                continue;
            }
            let within = |first: u64, last: u64| first <= to && last >= from;
            for index in timeline.indexes.iter().filter(|index| within(index.first, index.last)) {
                parts.push_back((id, from..to + 1, Part::Index(index.clone())));
            }
            for chunk in timeline.chunks.iter().filter(|chunk| within(chunk.first, chunk.last)) {
                parts.push_back((id, from..to + 1, Part::Chunk(chunk.clone())));
            }
        }
        Chunks { parts, next: lsns.start, end: lsns.end }
    }

    pub(crate) fn place(&self, timeline: u32) -> Place {
        Place { archive: self.id, timeline }
    }

    /// All of a chunk's records, or those that are wanted.
    pub(crate) async fn fetch(&self, wanted: &Wanted) -> Result<Fetched> {
        let (chunk, place) = (&wanted.chunk, self.place(wanted.timeline));
        let all = wanted.lsns.start <= chunk.first && wanted.lsns.end > chunk.last;
        if all {
            fetch(&self.store, chunk, place, &self.keys).await
        } else {
            fetch_table(&self.store, chunk, place, &self.keys).await?.with(&wanted.lsns).fetch(&self.store).await
        }
    }

    /// A record.
    ///
    /// # Errors
    /// [`Error::NotThere`], and those of reading.
    pub async fn record(&self, timeline: Option<u32>, lsn: Lsn) -> Result<Record> {
        let timeline = self.timeline(timeline)?.id;
        let missing = || Error::NotThere { why: format!("the archive does not have record {lsn}") };
        let mut chunks = self.chunks(timeline, lsn.0..lsn.0 + 1);
        let wanted = chunks.next(self).await?.ok_or_else(missing)?;
        let records = self.fetch(&wanted).await?.records(&wanted.lsns)?;
        records.into_iter().next().ok_or_else(missing)
    }

    /// The last LSN of a timeline before the first record that was written after a time: what there
    /// was then. (Where a clock was set back, that is the first place of several.)
    ///
    /// # Errors
    /// [`Error::NotThere`] if all that the archive has is later; those of reading.
    pub async fn lsn_at(&self, timeline: Option<u32>, micros: u64) -> Result<Lsn> {
        let (timeline, last) = self.timeline(timeline).map(|timeline| (timeline.id, Lsn(timeline.last)))?;
        let mut chunks = self.chunks(timeline, 0..last.0 + 1);
        let first = chunks.parts.front().map_or(last.next(), |(_, lsns, part)| Lsn(part.first().max(lsns.start)));
        chunks.parts.retain(|(_, _, part)| part.latest() > micros);
        let earlier = |lsn: u64| match lsn > first.0 {
            true => Ok(Lsn(lsn - 1)),
            false => {
                Err(Error::NotThere { why: format!("all that the archive has was written later: it begins with record {first}") })
            }
        };
        while let Some(wanted) = chunks.next(self).await? {
            if wanted.chunk.to <= micros {
                continue;
            }
            let place = self.place(wanted.timeline);
            let table = fetch_table(&self.store, &wanted.chunk, place, &self.keys).await?;
            let fetched = table.later(micros).fetch(&self.store).await?;
            let later = fetched.records(&wanted.lsns)?.into_iter().find(|record| record.micros > micros);
            if let Some(later) = later {
                return earlier(later.lsn.0);
            }
        }
        Ok(last)
    }
}

#[derive(Clone, Debug)]
enum Part {
    Index(Index),
    Chunk(Chunk),
}

impl Part {
    fn first(&self) -> u64 {
        match self {
            Part::Index(index) => index.first,
            Part::Chunk(chunk) => chunk.first,
        }
    }

    fn latest(&self) -> u64 {
        match self {
            Part::Index(index) => index.to,
            Part::Chunk(chunk) => chunk.to,
        }
    }
}

/// A chunk, and which of its records.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) timeline: u32,
    pub(crate) chunk: Chunk,
    pub(crate) lsns: Range<u64>,
}

/// Chunks in order, without all of them in memory.
pub(crate) struct Chunks {
    parts: VecDeque<(u32, Range<u64>, Part)>,
    /// The LSN that is to come next; 0: whatever there is.
    next: u64,
    end: u64,
}

impl Chunks {
    /// The next; it is an error if what it begins with does not follow the one before.
    pub(crate) async fn next(&mut self, archive: &Archive) -> Result<Option<Wanted>> {
        loop {
            let Some((timeline, lsns, part)) = self.parts.pop_front() else {
                if self.next != 0 && self.next < self.end {
                    return Err(self.missing(self.end - 1));
                }
                return Ok(None);
            };
            match part {
                Part::Index(index) => {
                    for chunk in archive.read_index(&index).await?.into_iter().rev() {
                        if chunk.first < lsns.end && chunk.last >= lsns.start {
                            self.parts.push_front((timeline, lsns.clone(), Part::Chunk(chunk)));
                        }
                    }
                }
                Part::Chunk(chunk) => {
                    let lsns = chunk.first.max(lsns.start)..(chunk.last + 1).min(lsns.end);
                    if self.next != 0 && lsns.start != self.next {
                        return Err(self.missing(lsns.start - 1));
                    }
                    if self.next != 0 {
                        self.next = lsns.end;
                    }
                    return Ok(Some(Wanted { timeline, chunk, lsns }));
                }
            }
        }
    }

    fn missing(&self, last: u64) -> Error {
        Error::NotThere { why: format!("the archive does not have records {} to {last}", self.next) }
    }

    /// Bytes of the objects, and how many there are; an index that is only in part is read.
    pub(crate) async fn size(&self, archive: &Archive) -> Result<(u64, u64)> {
        let (mut bytes, mut count) = (0, 0);
        for (_, lsns, part) in &self.parts {
            match part {
                Part::Chunk(chunk) => (bytes, count) = (bytes + chunk.bytes, count + 1),
                Part::Index(index) if index.first >= lsns.start && index.last < lsns.end => {
                    (bytes, count) = (bytes + index.bytes, count + index.chunks);
                }
                Part::Index(index) => {
                    for chunk in archive.read_index(index).await? {
                        if chunk.first < lsns.end && chunk.last >= lsns.start {
                            (bytes, count) = (bytes + chunk.bytes, count + 1);
                        }
                    }
                }
            }
        }
        Ok((bytes, count))
    }
}

impl Archive {
    pub(crate) async fn read_index(&self, index: &Index) -> Result<Vec<Chunk>> {
        let damaged = |why: &str| Error::damaged(&index.name, why);
        let bytes = self.store.get(&index.name).await?.ok_or_else(|| damaged("it is not there"))?;
        if Hash::of(&bytes) != index.sha256 {
            return Err(damaged("its bytes are not those that were written"));
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::damaged(&index.name, format!("it is no index: {error}")))
    }
}
