//! What keeps an archive sound: verify, expire, check.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use foreword::Lsn;
use futures_util::{StreamExt, stream};

use crate::archive::Archive;
use crate::backup::NONE;
use crate::chunk::{Builder, Chunk};
use crate::decode::fetch;
use crate::error::{Error, Result};
use crate::history::Wanted;
use crate::keys::{hex, random};
use crate::manifest::{Backup, Change, Gap, Index, Timeline};
use crate::tasks::blocking;

/// Chunks that are verified at once.
const READS: usize = 4;
/// A file of a write that was interrupted is left alone for so long: it may be under way.
const LEFT_FOR: Duration = Duration::from_secs(3_600);

/// Where objects lie that manifests name.
const FOLDERS: [&str; 4] = ["chunk", "index", "copy", "backup"];

/// What goes, or stays, as a whole: an index with its chunks, or a chunk.
struct Part {
    last: u64,
    to: u64,
    chunks: u64,
    bytes: u64,
}

/// In the order of their LSNs.
fn parts(timeline: &Timeline) -> impl Iterator<Item = Part> {
    let of_index = |index: &Index| Part { last: index.last, to: index.to, chunks: index.chunks, bytes: index.bytes };
    let of_chunk = |chunk: &Chunk| Part { last: chunk.last, to: chunk.to, chunks: 1, bytes: chunk.bytes };
    timeline.indexes.iter().map(of_index).chain(timeline.chunks.iter().map(of_chunk))
}

/// What is wrong with an archive.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fault {
    /// The object.
    pub object: String,
    /// The records that cannot be read because of it.
    pub lsns: Option<(Lsn, Lsn)>,
    /// What is wrong.
    pub error: Error,
}

/// What [`Archive::verify`] has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Of an archive in a directory, files of interrupted writes, an hour old at least: they are no
    /// objects, and mean nothing.
    pub leftovers: Vec<PathBuf>,
    /// Records that the archive does not have, by timeline.
    pub gaps: Vec<(u32, Lsn, Lsn, String)>,
}

/// What is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keep {
    /// All records that were written after this time, in microseconds since 1970, and the points
    /// up to them.
    pub since: Option<u64>,
    /// All records from this LSN on.
    pub from: Option<Lsn>,
    /// The newest so many bytes of objects, at least.
    pub bytes: Option<u64>,
    /// The newest so many chunks.
    pub chunks: Option<u64>,
    /// The newest so many backups, and all points to which they can be restored.
    pub backups: Option<u64>,
}

/// What [`Archive::expire`] removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expired {
    /// By timeline, the LSN before which chunks go.
    pub before: Vec<(u32, Lsn)>,
    /// Timelines that go.
    pub timelines: Vec<u32>,
    /// How many chunks.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Backups, by timeline and the name of the list.
    pub backups: Vec<(u32, String)>,
    /// Objects that no manifest names: what was uploaded and not confirmed, or replaced.
    pub unnamed: u64,
    /// Manifests that a summary has taken the place of.
    pub manifests: u64,
    /// Of an archive in a directory, files of interrupted writes, an hour old at least.
    pub leftovers: u64,
}

impl Archive {
    /// Reads and checks everything: the chain of manifests, each chunk's hash, its decryption, its
    /// records' count; or, with `sample`, about so much of the chunks (from 0 to 1). `each` is
    /// called with the bytes that were read so far.
    ///
    /// # Errors
    /// Those of the store. What is damaged is no error, but in what is returned.
    pub async fn verify(&self, sample: f64, each: &mut dyn FnMut(u64)) -> Result<Verified> {
        let mut verified = Verified::default();
        match self.verify_chain().await {
            Err(Error::Damaged { object, why }) => {
                verified.faults.push(Fault { object: object.clone(), lsns: None, error: Error::Damaged { object, why } });
            }
            chain => verified.objects += chain?,
        }
        verified.leftovers = self.leftovers().await?;
        for timeline in self.timelines() {
            for gap in &timeline.gaps {
                verified.gaps.push((timeline.id, Lsn(gap.first), Lsn(gap.last), gap.reason.clone()));
            }
            let mut parts = Vec::new();
            for index in &timeline.indexes {
                verified.objects += 1;
                match self.read_index(index).await {
                    Err(error @ Error::Damaged { .. }) => {
                        let lsns = Some((Lsn(index.first), Lsn(index.last)));
                        verified.faults.push(Fault { object: index.name.clone(), lsns, error });
                    }
                    chunks => parts.extend(chunks?),
                }
            }
            parts.extend(timeline.chunks.iter().cloned());
            self.verify_chunks(timeline.id, &timeline.gaps, parts, sample, &mut verified, each).await?;
            for backup in &timeline.backups {
                verified.objects += 1;
                match self.read_index(&backup.list).await {
                    Err(error @ Error::Damaged { .. }) => {
                        verified.faults.push(Fault { object: backup.list.name.clone(), lsns: None, error });
                    }
                    chunks => self.verify_chunks(NONE, &[], chunks?, sample, &mut verified, each).await?,
                }
            }
        }
        // What was replaced or expired meanwhile is not missing.
        let mut now = self.clone();
        if !verified.faults.is_empty() && now.refresh().await? {
            let named = now.named().await?;
            let folder = |fault: &Fault| FOLDERS.iter().any(|folder| fault.object.split('/').next() == Some(folder));
            verified.faults.retain(|fault| !folder(fault) || named.contains(&fault.object));
        }
        Ok(verified)
    }

    async fn verify_chunks(
        &self,
        timeline: u32,
        gaps: &[Gap],
        chunks: Vec<Chunk>,
        sample: f64,
        verified: &mut Verified,
        each: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut next = chunks.first().map_or(0, |chunk| chunk.first);
        for chunk in &chunks {
            let gap = gaps.iter().any(|gap| gap.last + 1 == chunk.first);
            if chunk.first != next && !gap {
                let why = format!("timeline {timeline} lacks records {next} to {}", chunk.first - 1);
                let lsns = Some((Lsn(next), Lsn(chunk.first - 1)));
                verified.faults.push(Fault { object: chunk.name.clone(), lsns, error: Error::NotThere { why } });
            }
            next = chunk.last + 1;
        }
        let share = (sample.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32;
        let mut sampled = Vec::new();
        for chunk in chunks {
            if u32::from_le_bytes(random()?) <= share {
                sampled.push(chunk);
            }
        }
        let check = async |chunk: Chunk| {
            let place = self.place(timeline);
            let read = async {
                let fetched = fetch(&self.store, &chunk, place, &self.keys).await?;
                let lsns = chunk.first..chunk.last + 1;
                let records = blocking(move || fetched.check_whole().and_then(|()| fetched.records(&lsns))).await??;
                let times = records.iter().map(|record| record.micros);
                let range = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
                if range != (chunk.from, chunk.to) {
                    return Err(Error::damaged(&chunk.name, "its records have other times than the manifest says"));
                }
                Ok(records.len() as u64)
            };
            let read = read.await;
            (chunk, read)
        };
        let mut checks = std::pin::pin!(stream::iter(sampled).map(check).buffered(READS));
        while let Some((chunk, read)) = checks.next().await {
            verified.objects += 1;
            verified.bytes += chunk.bytes;
            match read {
                Ok(records) => verified.records += records,
                Err(error @ Error::Damaged { .. }) => {
                    let lsns = Some((Lsn(chunk.first), Lsn(chunk.last)));
                    verified.faults.push(Fault { object: chunk.name, lsns, error });
                }
                Err(error) => return Err(error),
            }
            each(verified.bytes);
        }
        Ok(())
    }

    /// What is not to be kept: whole chunks at the beginning of the newest timeline's history, and
    /// timelines that are no part of it and whose last record is older. Without any condition,
    /// nothing. All points that are kept can be restored as before: from the first chunk that is
    /// left. Removes nothing.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn expirable(&self, keep: Keep) -> Result<Expired> {
        let unnamed = self.unnamed().await?.len() as u64;
        let manifests = self.old_manifests().await?.len() as u64;
        let leftovers = self.leftovers().await?.len() as u64;
        Ok(Expired { unnamed, manifests, leftovers, ..self.old(keep).await? })
    }

    async fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let store = self.store.clone();
        blocking(move || store.leftovers(LEFT_FOR)).await?
    }

    /// The same, without what no manifest names. Goes by what the manifests say of indexes and
    /// chunks; an index goes only as a whole.
    async fn old(&self, keep: Keep) -> Result<Expired> {
        let mut expired = Expired::default();
        let Ok(newest) = self.timeline(None) else { return Ok(expired) };
        let (newest, last, whole) = (newest.id, newest.last, newest.whole);
        let path = self.state.history(newest, last);
        let (first, _) = self.range(Some(newest))?;
        let mut floor = u64::MAX;
        if let Some(from) = keep.from {
            floor = floor.min(from.0);
        }
        if let Some(since) = keep.since {
            // The state of then is a point that is kept, so the record before is, too.
            floor = floor.min(match self.lsn_at(Some(newest), since).await {
                Err(Error::NotThere { .. }) => first.0,
                lsn => lsn?.0,
            });
        }
        if keep.bytes.is_some() || keep.chunks.is_some() {
            let mut all = Vec::new();
            let mut chunks = self.chunks(newest, first.0..last + 1);
            while let Some(Wanted { chunk, .. }) = chunks.next(self).await? {
                all.push((chunk.first, chunk.bytes));
            }
            let least = |least: Option<u64>, size: fn(u64) -> u64| {
                let mut left = least?;
                let newest = all.iter().rev().find(|(_, bytes)| {
                    left = left.saturating_sub(size(*bytes));
                    left == 0
                });
                Some(newest.map_or(first.0, |(first, _)| *first))
            };
            let floors = [least(keep.bytes, |bytes| bytes), least(keep.chunks, |_| 1)];
            floor = floors.into_iter().flatten().fold(floor, u64::min);
        }
        let backups = self.backups_up_to(newest, last);
        if let Some(count) = keep.backups {
            // (Without so many, all.)
            let oldest = backups.len().checked_sub(count.max(1) as usize).and_then(|at| backups.get(at));
            floor = floor.min(oldest.map_or(first.0, |backup| backup.consistent));
        }
        if floor == u64::MAX {
            return Ok(expired);
        }
        // The newest point is kept in any case: that to which a restore goes by default. (Without
        // one, all is.)
        let floor = floor.min(whole.max(first.0));
        // The backup with which the first point that is kept can be restored, and those behind it
        // stay, with the records that they need.
        let base = backups.iter().rposition(|backup| backup.consistent <= floor).unwrap_or(0);
        let floor = backups[base..].iter().map(|backup| backup.log_start).fold(floor, u64::min);
        let old_backups: HashSet<&str> = backups[..base].iter().map(|backup| &backup.list.name[..]).collect();
        // Timelines that are kept, and those that they come from.
        let mut needed: HashSet<u32> = path.iter().map(|(id, ..)| *id).collect();
        // (It may have no records yet; an archiver is about to add some.)
        needed.insert(newest);
        let mut forked = HashSet::new();
        for timeline in self.timelines().filter(|timeline| !path.iter().any(|(id, ..)| *id == timeline.id)) {
            let latest = parts(timeline).map(|part| part.to).max().unwrap_or(timeline.began);
            if keep.since.map_or(timeline.last >= floor, |since| latest >= since) {
                let history = self.state.history(timeline.id, timeline.last);
                forked.extend(history.iter().map(|(id, ..)| *id));
                needed.extend(history.iter().map(|(id, ..)| *id));
            }
        }
        for timeline in self.timelines() {
            if !needed.contains(&timeline.id) {
                expired.timelines.push(timeline.id);
                (expired.chunks, expired.bytes) = (expired.chunks + timeline.chunk_count(), expired.bytes + timeline.bytes());
                continue;
            }
            // What another timeline that is kept comes from stays as it is.
            if forked.contains(&timeline.id) {
                continue;
            }
            for backup in timeline.backups.iter().filter(|backup| old_backups.contains(&backup.list.name[..])) {
                expired.backups.push((timeline.id, backup.list.name.clone()));
                expired.bytes += backup.list.bytes;
            }
            // (Behind where another timeline left it, it may be newer than its LSNs say.)
            let old = |part: &Part| part.last < floor && keep.since.is_none_or(|since| part.to < since);
            let mut before = None;
            for part in parts(timeline).take_while(old) {
                before = Some(Lsn(part.last + 1));
                (expired.chunks, expired.bytes) = (expired.chunks + part.chunks, expired.bytes + part.bytes);
            }
            expired.before.extend(before.map(|before| (timeline.id, before)));
        }
        Ok(expired)
    }

    pub(crate) async fn all_chunks(&self, timeline: &Timeline) -> Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        for index in &timeline.indexes {
            chunks.extend(self.read_index(index).await?);
        }
        chunks.extend(timeline.chunks.iter().cloned());
        Ok(chunks)
    }

    /// The objects of a backup.
    async fn objects(&self, backup: &Backup) -> Result<impl Iterator<Item = String>> {
        let chunks = self.read_index(&backup.list).await?;
        Ok([backup.list.name.clone()].into_iter().chain(chunks.into_iter().map(|chunk| chunk.name)))
    }

    /// The objects that manifests name, but for manifests.
    async fn named(&self) -> Result<HashSet<String>> {
        let mut named = HashSet::new();
        for timeline in self.timelines() {
            named.extend(timeline.indexes.iter().map(|index| index.name.clone()));
            named.extend(self.all_chunks(timeline).await?.into_iter().map(|chunk| chunk.name));
            for backup in &timeline.backups {
                named.extend(self.objects(backup).await?);
            }
        }
        Ok(named)
    }

    /// Objects of earlier epochs that no manifest names.
    async fn unnamed(&self) -> Result<Vec<String>> {
        let named = self.named().await?;
        // (What the archiver of this epoch has uploaded, it may be about to confirm.)
        let earlier = |name: &String| {
            let epoch = name.rsplit('-').nth(1).and_then(|epoch| epoch.parse::<u64>().ok());
            epoch.is_some_and(|epoch| epoch < self.newest_epoch())
        };
        let mut unnamed = Vec::new();
        for folder in FOLDERS {
            unnamed.extend(self.store.list(folder).await?.into_iter().filter(|name| earlier(name) && !named.contains(name)));
        }
        Ok(unnamed)
    }

    /// Removes what is not to be kept, and objects that no manifest names: first from the archive,
    /// by a manifest, then from the store. An archiver may run meanwhile. Of the manifests those go
    /// that lie before the newest summary, by the 1,024. What is left by a call that fails, the next
    /// one removes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn expire(&mut self, keep: Keep) -> Result<Expired> {
        self.refresh().await?;
        let (mut expired, gone) = loop {
            let expired = self.old(keep).await?;
            let (changes, gone) = self.expiry(&expired).await?;
            // (What an archiver has changed meanwhile may be what was to go.)
            if changes.is_empty() || self.commit_beside_once(&changes).await? {
                break (expired, gone);
            }
        };
        self.store.delete_all(gone).await?;
        let unnamed = self.unnamed().await?;
        expired.unnamed = unnamed.len() as u64;
        self.store.delete_all(unnamed).await?;
        expired.manifests = self.remove_old_manifests().await?;
        for path in self.leftovers().await? {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", path, error)),
                _ => expired.leftovers += 1,
            }
        }
        Ok(expired)
    }

    /// The changes that an expiry makes, and the objects that no manifest names then.
    async fn expiry(&self, expired: &Expired) -> Result<(Vec<Change>, Vec<String>)> {
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        for &(timeline, before) in &expired.before {
            let of = self.timeline(Some(timeline))?;
            gone.extend(of.indexes.iter().filter(|index| index.last < before.0).map(|index| index.name.clone()));
            gone.extend(self.all_chunks(of).await?.into_iter().filter(|chunk| chunk.last < before.0).map(|chunk| chunk.name));
            changes.push(Change::Expire { timeline, before: before.0 });
        }
        for (timeline, name) in &expired.backups {
            let of = self.timeline(Some(*timeline))?;
            for backup in of.backups.iter().filter(|backup| backup.list.name == *name) {
                gone.extend(self.objects(backup).await?);
            }
            changes.push(Change::RemoveBackup { timeline: *timeline, name: name.clone() });
        }
        for &timeline in &expired.timelines {
            let of = self.timeline(Some(timeline))?;
            for backup in &of.backups {
                gone.extend(self.objects(backup).await?);
            }
            gone.extend(of.indexes.iter().map(|index| index.name.clone()));
            gone.extend(self.all_chunks(of).await?.into_iter().map(|chunk| chunk.name));
            changes.push(Change::Drop { timeline });
        }
        Ok((changes, gone))
    }

    /// Whether a record that is written comes back: a canary is made, as the archiver makes chunks,
    /// with the same keys, read, compared, and removed.
    ///
    /// # Errors
    /// What an archiver or a restore would meet.
    pub async fn check(&self) -> Result<()> {
        self.check_keys()?;
        let place = self.place(0);
        let canary: [u8; 64] = random()?;
        let mut builder = Builder::new(place, Lsn(1), &self.keys, 1)?;
        builder.push(1, &canary)?;
        let (chunk, bytes): (Chunk, Bytes) = builder.finish(format!("canary/{}", hex(&random::<8>()?)), true)?;
        self.create_own(&chunk.name, &bytes).await?;
        let back = fetch(&self.store, &chunk, place, &self.keys).await.and_then(|fetched| fetched.records(&(1..2)));
        let deleted = self.store.delete(&chunk.name).await;
        let same = back?.first().is_some_and(|record| record.data[..] == canary[..]);
        deleted?;
        if same { Ok(()) } else { Err(Error::damaged(&chunk.name, "what was read is not what was written")) }
    }
}
