//! An archive: a chain of manifests, read and continued.
//!
//! All that is true of an archive is in its manifests, and each is created under the next number,
//! which a store lets only one do. So of two archivers one finds that its number is taken, by a
//! manifest with a higher epoch, and stops: [`Error::Fenced`]. Objects that no manifest names are
//! of no account.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::chunk::{ArchiveId, Hash};
use crate::error::{Error, Result};
use crate::keys::{KeyId, Keys, hex, random, unhex};
use crate::manifest::{self, CHUNKS_MAX, Change, ERA, FORMAT, Manifest, SUMMARY_EACH, State, Timeline};
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
    pub(crate) tip: Tip,
}

/// The newest manifest that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tip {
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

/// The last number of an object that is there, from one on that is: by doubling and halving, since
/// none is missing in between.
async fn newest(store: &Store, name: impl Fn(u64) -> String, from: u64) -> Result<u64> {
    let (mut low, mut step) = (from, 1);
    while store.exists(&name(low + step)).await? {
        (low, step) = (low + step, step * 2);
    }
    let mut high = low + step;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if store.exists(&name(middle)).await? { low = middle } else { high = middle }
    }
    Ok(low)
}

/// How many eras are closed: their manifests may be gone.
async fn closed_eras(store: &Store) -> Result<u64> {
    newest(store, |count| manifest::closed_name(count - 1), 0).await
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
        let mut closed = closed_eras(&store).await?;
        loop {
            let opened = Archive::open_behind(store.clone(), keys.clone(), closed).await;
            // Eras that are closed meanwhile take manifests with them.
            let before = closed;
            if matches!(opened, Err(Error::Damaged { .. } | Error::NoArchive { .. })) {
                closed = closed_eras(&store).await?;
            }
            if closed == before {
                return opened;
            }
        }
    }

    async fn open_behind(store: Store, keys: Keys, closed: u64) -> Result<Archive> {
        let mut number = newest(&store, manifest::name, closed * ERA).await?;
        // One that is missing in between would look like the end.
        while store.has_behind("manifest", &manifest::name(number)).await? {
            let again = newest(&store, manifest::name, number).await?;
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
        if self.is_closed(self.tip.number + 1).await? {
            self.open_again().await?;
        }
        Ok(self.tip.number > before)
    }

    /// Whether a manifest of this number is, or was, one of a closed era.
    async fn is_closed(&self, number: u64) -> Result<bool> {
        self.store.exists(&manifest::closed_name(number / ERA)).await
    }

    /// Reads it anew, where the manifests that it was at are gone.
    async fn open_again(&mut self) -> Result<()> {
        let Archive { id, state, tip, .. } = Archive::open(self.store.clone(), self.keys.clone()).await?;
        if id != self.id {
            return Err(Error::Foreign { why: format!("it is archive {id} now, and was {}", self.id) });
        }
        (self.state, self.tip) = (state, tip);
        Ok(())
    }

    /// Manifests that nothing needs any more: those of eras that lie before the newest summary.
    pub(crate) async fn old_manifests(&self) -> Result<Vec<String>> {
        let end = manifest::name(self.tip.summary / ERA * ERA);
        Ok(self.store.list("manifest").await?.into_iter().filter(|name| *name < end).collect())
    }

    /// Closes eras, and then removes their manifests.
    ///
    /// A process that has slept may then create one of them anew, which no other has. So whoever has
    /// created a manifest looks whether its era is closed, before it believes that it counts: what is
    /// free again was closed before.
    pub(crate) async fn remove_old_manifests(&self) -> Result<u64> {
        let old = self.old_manifests().await?;
        if !old.is_empty() {
            for era in closed_eras(&self.store).await?..self.tip.summary / ERA {
                // (It is as well if another has closed it.)
                self.store.put(&manifest::closed_name(era), &Bytes::from(self.writer.clone())).await?;
            }
        }
        let count = old.len() as u64;
        self.store.delete_all(old).await?;
        Ok(count)
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
        let committed = archive.try_commit(std::slice::from_ref(&begin), 1).await?;
        Ok(matches!(committed, Committed::Ours).then_some(archive))
    }

    /// Begins an epoch: who has an earlier one is fenced.
    pub(crate) async fn begin(&mut self, begin: Change) -> Result<()> {
        loop {
            let epoch = self.tip.epoch + 1;
            if self.commit_as(std::slice::from_ref(&begin), epoch).await? {
                self.epoch = epoch;
                return Ok(());
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
        let done = self.commit_as(changes, self.epoch).await?;
        if self.tip.epoch > self.epoch {
            return Err(Error::Fenced { epoch: self.epoch, by: self.tip.epoch });
        }
        Ok(done)
    }

    /// The same, beside an archiver that may run, and whose epoch it has.
    pub(crate) async fn commit_beside_once(&mut self, changes: &[Change]) -> Result<bool> {
        self.commit_as(changes, self.tip.epoch).await
    }

    /// Creates the next manifest; `false`: there was another, which is taken in.
    async fn commit_as(&mut self, changes: &[Change], epoch: u64) -> Result<bool> {
        // A manifest of an older epoch would follow none, and no archive could be read past it.
        if epoch < self.tip.epoch {
            return Err(Error::Fenced { epoch, by: self.tip.epoch });
        }
        match self.try_commit(changes, epoch).await? {
            Committed::Ours => return Ok(true),
            Committed::Other(manifest, hash) => self.adopt(&manifest, hash)?,
            Committed::Closed => self.open_again().await?,
        }
        Ok(false)
    }

    /// Creates the next manifest, or says which there is.
    async fn try_commit(&mut self, changes: &[Change], epoch: u64) -> Result<Committed> {
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
        let hash = match self.store.put(&manifest::name(number), &bytes).await? {
            Created::Ours => Hash::of(&bytes),
            Created::Other(there) => {
                let (other, hash) = (Manifest::decode(number, &there)?, Hash::of(&there));
                // An earlier try, whose answer was lost.
                if other.writer != self.writer || other.previous != self.tip.hash || other.changes != changes {
                    return Ok(Committed::Other(Box::new(other), hash));
                }
                manifest = other;
                hash
            }
        };
        // Where an old one was removed, its name is free, and what is created there is of no account.
        if self.is_closed(number).await? {
            let _ = self.store.delete(&manifest::name(number)).await;
            return Ok(Committed::Closed);
        }
        self.state = state;
        self.tip = self.tip.behind(&manifest, hash);
        Ok(Committed::Ours)
    }

    /// The change that moves a timeline's oldest chunks to an index, if there are many; its object
    /// is made.
    pub(crate) async fn index_some(&self, timeline: u32) -> Result<Option<Change>> {
        let Some(chunks) = self.state.timelines.get(&timeline).map(|timeline| &timeline.chunks) else { return Ok(None) };
        if chunks.len() <= CHUNKS_MAX {
            return Ok(None);
        }
        let index = self.create_list("index", timeline, &chunks[..CHUNKS_MAX / 2]).await?;
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
        match self.store.put(name, bytes).await? {
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

    /// The number of its newest manifest: how many it has had.
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
}

/// What came of a manifest.
enum Committed {
    Ours,
    /// There is another with its number.
    Other(Box<Manifest>, Hash),
    /// Its number was given long ago, and the manifest that had it is gone.
    Closed,
}

impl Tip {
    fn behind(self, manifest: &Manifest, hash: Hash) -> Tip {
        let Manifest { number, summary, epoch, time, .. } = *manifest;
        Tip { number, hash: Some(hash), summary, epoch, time }
    }
}

impl Archive {
    /// Checks the chain of manifests, from the oldest that is sure to be there: how many there are.
    pub(crate) async fn verify_chain(&self) -> Result<u64> {
        let mut closed = closed_eras(&self.store).await?;
        loop {
            let verified = self.verify_chain_from(closed * ERA).await;
            let before = closed;
            if verified.is_err() {
                closed = closed_eras(&self.store).await?;
            }
            if closed == before {
                return verified;
            }
        }
    }

    async fn verify_chain_from(&self, first: u64) -> Result<u64> {
        let first = first.max(1);
        let read = async |number| Ok::<_, Error>((number, read_manifest(&self.store, number).await?));
        let mut chain = stream::iter(first..=self.tip.number).map(read).buffered(READS);
        let mut previous = None;
        while let Some(next) = chain.next().await {
            let (number, manifest) = next?;
            let damaged = |why: &str| Error::damaged(&manifest::name(number), why);
            let (manifest, hash) = manifest.ok_or_else(|| damaged("it is not there"))?;
            let follows = manifest.previous == previous || number == first && first > 1;
            if !follows || manifest.archive != self.id {
                return Err(damaged("it does not follow the one before"));
            }
            previous = Some(hash);
        }
        if first <= self.tip.number && previous != self.tip.hash {
            return Err(Error::damaged(&manifest::name(self.tip.number), "it has changed"));
        }
        Ok((self.tip.number + 1).saturating_sub(first))
    }
}
