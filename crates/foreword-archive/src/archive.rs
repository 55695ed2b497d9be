//! An archive: a chain of manifests, read and continued.
//!
//! All that is true of an archive is in its manifests, and each is created under the next number,
//! which a store lets only one do. So of two archivers one finds that its number is taken, by a
//! manifest with a higher epoch, and stops: [`Error::Fenced`]. Objects that no manifest names are
//! of no account.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use foreword::Lsn;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::chunk::{self, ArchiveId, Chunk, Fetched, Hash, Place, Record};
use crate::error::{Error, Result};
use crate::keys::{KeyId, Keys, hex, random, unhex};
use crate::manifest::{self, CHUNKS_MAX, Change, FORMAT, Index, Manifest, SUMMARY_EACH, State, Timeline};
use crate::store::{Created, Store};

/// So many small objects are read at once.
const READS: usize = 8;

/// An archive, as it was when it was looked at last.
#[derive(Clone, Debug)]
pub struct Archive {
    pub(crate) store: Store,
    pub(crate) keys: Keys,
    pub(crate) id: ArchiveId,
    pub(crate) state: State,
    /// Of the archiver that this is, or that writes to it.
    pub(crate) epoch: u64,
    writer: String,
    tip: Tip,
}

/// The newest manifest that was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Tip {
    number: u64,
    hash: Option<Hash>,
    summary: u64,
    epoch: u64,
    time: u64,
}

pub(crate) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

pub(crate) fn now_micros() -> u64 {
    micros(SystemTime::now())
}

/// A name that no other object ever has.
pub(crate) fn object_name(folder: &str, timeline: u32, first: u64, last: u64, epoch: u64) -> Result<String> {
    let random = hex(&random::<8>()?);
    Ok(format!("{folder}/{timeline:010}/{first:020}-{last:020}-{epoch:010}-{random}"))
}

/// The newest manifest, from one on that is there: by doubling and halving, since none is missing in
/// between.
async fn newest(store: &Store, from: u64) -> Result<u64> {
    let (mut low, mut step) = (from, 1);
    while store.exists(&manifest::name(low + step)).await? {
        (low, step) = (low + step, step * 2);
    }
    let mut high = low + step;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if store.exists(&manifest::name(middle)).await? { low = middle } else { high = middle }
    }
    Ok(low)
}

async fn read_manifest(store: &Store, number: u64) -> Result<Option<(Manifest, Hash)>> {
    let Some(bytes) = store.get(&manifest::name(number)).await? else { return Ok(None) };
    Ok(Some((Manifest::decode(number, &bytes)?, Hash::of(&bytes))))
}

impl Archive {
    /// Reads what is in an archive: its newest summary, and the manifests behind it. Writes nothing.
    /// The keys are needed only to read records.
    ///
    /// # Errors
    /// [`Error::NoArchive`], [`Error::Damaged`], [`Error::Unsupported`], [`Error::Store`].
    pub async fn open(store: Store, keys: Keys) -> Result<Archive> {
        let mut number = newest(&store, 0).await?;
        // One that is missing in between would look like the end.
        while store.has_behind("manifest", &manifest::name(number)).await? {
            let again = newest(&store, number).await?;
            if again == number {
                return Err(Error::damaged(&manifest::name(number + 1), "it is not there, and later ones are"));
            }
            number = again;
        }
        if number == 0 {
            return Err(Error::NoArchive { url: store.url().to_owned() });
        }
        let missing = |number: u64| Error::damaged(&manifest::name(number), "it is not there");
        let (last, last_hash) = read_manifest(&store, number).await?.ok_or_else(|| missing(number))?;
        let read = async |number| read_manifest(&store, number).await?.ok_or_else(|| missing(number));
        let mut chain: Vec<_> = stream::iter(last.summary..number).map(read).buffered(READS).try_collect().await?;
        chain.push((last, last_hash));
        let (first, hash) = chain.remove(0);
        let no_summary = || Error::damaged(&manifest::name(first.number), "it has no summary");
        let mut archive = Archive {
            id: first.archive,
            state: first.state.clone().ok_or_else(no_summary)?,
            epoch: first.epoch,
            writer: hex(&random::<8>()?),
            tip: Tip::default().behind(&first, hash),
            store,
            keys,
        };
        for (manifest, hash) in chain {
            archive.adopt(&manifest, hash)?;
        }
        Ok(archive)
    }

    /// Takes a manifest in that follows.
    fn adopt(&mut self, manifest: &Manifest, hash: Hash) -> Result<()> {
        let damaged = |why: String| Error::damaged(&manifest::name(manifest.number), why);
        if manifest.archive != self.id {
            return Err(damaged(format!("it is of archive {}, not {}", manifest.archive, self.id)));
        }
        if manifest.previous != self.tip.hash || manifest.epoch < self.tip.epoch {
            return Err(damaged("it does not follow the one before".into()));
        }
        for change in &manifest.changes {
            self.state.apply(change).map_err(damaged)?;
        }
        self.tip = self.tip.behind(manifest, hash);
        Ok(())
    }

    /// Reads the manifests that have come since; whether any has.
    ///
    /// # Errors
    /// As [`open`](Archive::open).
    pub async fn refresh(&mut self) -> Result<bool> {
        let before = self.tip.number;
        while let Some((manifest, hash)) = read_manifest(&self.store, self.tip.number + 1).await? {
            self.adopt(&manifest, hash)?;
        }
        Ok(self.tip.number > before)
    }

    /// Begins an archive, with its first manifest; `None` if another was faster.
    pub(crate) async fn create(store: Store, keys: Keys, begin: Change) -> Result<Option<Archive>> {
        let mut archive = Archive {
            id: ArchiveId(random()?),
            state: State::default(),
            epoch: 1,
            writer: hex(&random::<8>()?),
            tip: Tip::default(),
            store,
            keys,
        };
        Ok(archive.try_commit(std::slice::from_ref(&begin), 1).await?.is_none().then_some(archive))
    }

    /// Begins an epoch: who has an earlier one is fenced.
    pub(crate) async fn begin(&mut self, begin: Change) -> Result<()> {
        loop {
            let epoch = self.tip.epoch + 1;
            match self.try_commit(std::slice::from_ref(&begin), epoch).await? {
                None => {
                    self.epoch = epoch;
                    return Ok(());
                }
                Some((manifest, hash)) => self.adopt(&manifest, hash)?,
            }
        }
    }

    /// Makes changes true: durable, and seen by all, when it returns.
    pub(crate) async fn commit(&mut self, changes: &[Change]) -> Result<()> {
        while !self.commit_once(changes).await? {}
        Ok(())
    }

    /// The same; `false`: another process has changed something first (it has expired chunks), and
    /// what was to be changed is to be looked at again.
    pub(crate) async fn commit_once(&mut self, changes: &[Change]) -> Result<bool> {
        let Some((manifest, hash)) = self.try_commit(changes, self.epoch).await? else { return Ok(true) };
        if manifest.epoch > self.epoch {
            return Err(Error::Fenced { epoch: self.epoch, by: manifest.epoch });
        }
        self.adopt(&manifest, hash)?;
        Ok(false)
    }

    /// The same, beside an archiver that may run, and whose epoch it has.
    pub(crate) async fn commit_beside_once(&mut self, changes: &[Change]) -> Result<bool> {
        let Some((manifest, hash)) = self.try_commit(changes, self.tip.epoch).await? else { return Ok(true) };
        self.adopt(&manifest, hash)?;
        Ok(false)
    }

    /// Creates the next manifest, or says which there is.
    async fn try_commit(&mut self, changes: &[Change], epoch: u64) -> Result<Option<(Manifest, Hash)>> {
        let number = self.tip.number + 1;
        let mut state = self.state.clone();
        for change in changes {
            state.apply(change).map_err(|why| Error::Invalid { what: "change of the archive", why })?;
        }
        let mut manifest = Manifest {
            format: FORMAT,
            archive: self.id,
            number,
            previous: self.tip.hash,
            summary: self.tip.summary,
            epoch,
            writer: self.writer.clone(),
            time: now_micros(),
            changes: changes.to_vec(),
            state: None,
        };
        if number == 1 || number - self.tip.summary >= SUMMARY_EACH {
            manifest.summary = number;
            manifest.state = Some(state.clone());
        }
        let bytes = manifest.encode()?;
        match self.store.create(&manifest::name(number), &bytes).await? {
            Created::Ours => {
                self.state = state;
                self.tip = self.tip.behind(&manifest, Hash::of(&bytes));
                Ok(None)
            }
            Created::Other(there) => {
                let (other, hash) = (Manifest::decode(number, &there)?, Hash::of(&there));
                // An earlier try, whose answer was lost.
                if other.writer == self.writer && other.previous == self.tip.hash && other.changes == changes {
                    self.state = state;
                    self.tip = self.tip.behind(&other, hash);
                    return Ok(None);
                }
                Ok(Some((other, hash)))
            }
        }
    }

    /// The change that moves a timeline's oldest chunks to an index, if there are many; its object
    /// is made.
    pub(crate) async fn index_some(&self, timeline: u32) -> Result<Option<Change>> {
        let Some(chunks) = self.state.timelines.get(&timeline).map(|timeline| &timeline.chunks) else { return Ok(None) };
        if chunks.len() <= CHUNKS_MAX {
            return Ok(None);
        }
        let chunks = &chunks[..CHUNKS_MAX / 2];
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Ok(None) };
        let invalid = |error: serde_json::Error| Error::Invalid { what: "index", why: error.to_string() };
        let bytes = Bytes::from(serde_json::to_vec(chunks).map_err(invalid)?);
        let index = Index {
            name: object_name("index", timeline, first.first, last.last, self.epoch)?,
            sha256: Hash::of(&bytes),
            first: first.first,
            last: last.last,
            to: chunks.iter().map(|chunk| chunk.to).max().unwrap_or(0),
            chunks: chunks.len() as u64,
            bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
        };
        self.create_own(&index.name, &bytes).await?;
        Ok(Some(Change::Index { timeline, index }))
    }

    /// The key of the newest chunk is there: what is encrypted stays so.
    pub(crate) fn check_keys(&self) -> Result<()> {
        let newest = self.state.timelines.values().rev().find_map(|timeline| timeline.chunks.last());
        let Some(key) = newest.and_then(|chunk| chunk.key.as_deref()).and_then(unhex) else { return Ok(()) };
        self.keys.get(KeyId(key)).map(drop)
    }

    /// Creates an object under a name that no other has.
    pub(crate) async fn create_own(&self, name: &str, bytes: &Bytes) -> Result<()> {
        match self.store.create(name, bytes).await? {
            Created::Ours => Ok(()),
            Created::Other(_) => Err(Error::damaged(name, "another object has its name")),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ArchiveId {
        self.id
    }

    /// Where it is.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The epoch of the newest archiver.
    #[must_use]
    pub fn newest_epoch(&self) -> u64 {
        self.tip.epoch
    }

    /// How many manifests it has.
    #[must_use]
    pub fn manifests(&self) -> u64 {
        self.tip.number
    }

    /// When the newest manifest was made, in microseconds since 1970, by the clock of its writer.
    #[must_use]
    pub fn changed_micros(&self) -> u64 {
        self.tip.time
    }

    /// Its timelines, the newest last.
    pub fn timelines(&self) -> impl Iterator<Item = &Timeline> {
        self.state.timelines.values()
    }

    /// A timeline, or the newest.
    ///
    /// # Errors
    /// [`Error::NotThere`].
    pub fn timeline(&self, id: Option<u32>) -> Result<&Timeline> {
        let found = match id {
            Some(id) => self.state.timelines.get(&id),
            None => self.state.timelines.values().next_back(),
        };
        found.ok_or_else(|| match id {
            Some(id) => Error::NotThere { why: format!("the archive has no timeline {id}; see `foreword-archive status`") },
            None => Error::NotThere { why: "the archive has no records yet".into() },
        })
    }

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
            chunk::fetch(&self.store, chunk, place, &self.keys).await
        } else {
            chunk::fetch_some(&self.store, chunk, place, &self.keys, &wanted.lsns).await
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
            let records = chunk::fetch_later(&self.store, &wanted.chunk, place, &self.keys, micros).await?;
            let later = records.records(&wanted.lsns)?.into_iter().find(|record| record.micros > micros);
            if let Some(later) = later {
                return earlier(later.lsn.0);
            }
        }
        Ok(last)
    }
}

impl Tip {
    fn behind(self, manifest: &Manifest, hash: Hash) -> Tip {
        let Manifest { number, summary, epoch, time, .. } = *manifest;
        Tip { number, hash: Some(hash), summary, epoch, time }
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

    /// Checks the whole chain of manifests, from the first.
    pub(crate) async fn verify_chain(&self) -> Result<()> {
        let read = async |number| Ok::<_, Error>((number, read_manifest(&self.store, number).await?));
        let mut chain = stream::iter(1..=self.tip.number).map(read).buffered(READS);
        let mut previous = None;
        while let Some(next) = chain.next().await {
            let (number, manifest) = next?;
            let damaged = |why: &str| Error::damaged(&manifest::name(number), why);
            let (manifest, hash) = manifest.ok_or_else(|| damaged("it is not there"))?;
            if manifest.previous != previous || manifest.archive != self.id {
                return Err(damaged("it does not follow the one before"));
            }
            previous = Some(hash);
        }
        if previous == self.tip.hash { Ok(()) } else { Err(Error::damaged(&manifest::name(self.tip.number), "it has changed")) }
    }
}
