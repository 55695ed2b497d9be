//! The archiver: follows a log, cuts chunks, uploads several at once, and confirms them in order.
//!
//! A thread reads the log and makes chunks; tasks upload them; one task creates the manifests that
//! make them part of the archive, and then moves the hold. After a crash the next archiver begins
//! behind the last manifest: what was uploaded and not confirmed is of no account.

mod options;
mod reading;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foreword::{Lsn, View};
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::archive::Archive;
use crate::chunk::Chunk;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::manifest::{Change, Gap};
use crate::meters::Meters;
use crate::probe;
use crate::standing::{Attach, Beside};
use crate::store::{Atomicity, Store};
use crate::tasks::{Task, blocking};

pub use options::{Event, EventHook, PushOptions};
use reading::{Cutter, End, Piece, Reading, missed};

/// Chunks that are ready and wait for an upload.
const READY: usize = 1;
/// So many chunks of `rpo` become one of `chunk_age`, at most: all of them are still in the summary.
const PARTS_MAX: u32 = 100;

/// Archives a log. Only one can, for each archive: one that begins ends the one before.
#[derive(Debug)]
pub struct Archiver {
    archive: Archive,
    dir: PathBuf,
    view: View,
    options: PushOptions,
    timeline: u32,
    meters: Meters,
}

impl Archiver {
    /// Begins to archive the log in a directory, which a writer may have open, in this process or
    /// another. Fences whatever archived it before. Archives nothing yet.
    ///
    /// # Errors
    /// [`Error::NoArchive`], without [`create`](PushOptions::create); [`Error::NotAtomic`];
    /// [`Error::Foreign`]; [`Error::Diverged`]; [`Error::Missed`]; [`Error::Log`]; those of the
    /// store.
    pub async fn begin(dir: impl AsRef<Path>, store: Store, keys: Keys, options: PushOptions) -> Result<Archiver> {
        let within = (64 << 10..=64 << 20).contains(&options.chunk_bytes);
        if options.rpo.is_some_and(|rpo| rpo < options.chunk_age / PARTS_MAX) {
            let why = format!("at most {PARTS_MAX} small chunks may become one: a longer `rpo`, or a shorter `chunk_age`");
            return Err(Error::Invalid { what: "rpo", why });
        }
        if !within || options.uploads == 0 || options.uploads > 64 {
            let why = "a chunk has from 64 KiB to 64 MiB, and 1 to 64 are uploaded at once".into();
            return Err(Error::Invalid { what: "options", why });
        }
        let dir = dir.as_ref().to_owned();
        let at = dir.clone();
        let view = blocking(move || View::open(at)).await??;
        let (begin, meters) = (Change::begin(), Meters::new(&dir));
        let archive = match Archive::open(store.clone(), keys.clone()).await {
            Err(Error::NoArchive { .. }) if options.create => {
                if !options.trust_store {
                    trusted(&store).await?;
                }
                let created = Archive::create(store.clone(), keys.clone(), begin.clone()).await?;
                match created {
                    Some(archive) => archive,
                    // Another was faster: it may be that of another log.
                    None => return Box::pin(Archiver::begin(dir, store, keys, options)).await,
                }
            }
            opened => {
                let mut archive = opened?;
                archive.check_keys()?;
                if !options.trust_store && matches!(store.atomicity(), Atomicity::Unknown(_)) {
                    trusted(&store).await?;
                }
                // Before anything is changed: a log that is none of this archive's fences nobody.
                Beside { archive: &archive, view: &view, dir: &dir }.look_well().await?;
                archive.begin(begin).await?;
                archive
            }
        };
        let mut archiver = Archiver { archive, dir, view, options, timeline: 0, meters };
        archiver.attach().await?;
        archiver.meters.archived(archiver.archived().0);
        Ok(archiver)
    }

    /// The archive, as this archiver left it.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The timeline that the log is archived in.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// The last LSN that is archived.
    #[must_use]
    pub fn archived(&self) -> Lsn {
        Lsn(self.archive.state.timelines.get(&self.timeline).map_or(0, |timeline| timeline.last))
    }

    fn tell(&self, event: &Event) {
        if let Some(hook) = &self.options.on_event {
            hook(event);
        }
    }

    /// Finds or begins the log's timeline, and places the hold.
    async fn attach(&mut self) -> Result<()> {
        let beside = Beside { archive: &self.archive, view: &self.view, dir: &self.dir };
        match beside.look_well().await? {
            Attach::As(timeline) => self.timeline = timeline,
            Attach::Generation(timeline, generation) => {
                self.commit(Change::Generation { timeline, generation }).await?;
                self.timeline = timeline;
            }
            Attach::New(timeline) => {
                let (id, reason) = (timeline.id, timeline.reason.clone());
                self.commit(Change::Timeline(timeline)).await?;
                self.timeline = id;
                self.tell(&Event::Began { timeline: id, reason });
            }
        }
        self.hold().await
    }

    /// Keeps in the log what is not archived.
    async fn hold(&mut self) -> Result<()> {
        let Some(name) = self.options.hold.clone() else { return Ok(()) };
        let limit = self.options.hold_limit;
        loop {
            let (view, hold, next) = (self.view.clone(), name.clone(), self.archived().next());
            match blocking(move || view.hold_up_to(&hold, next, limit)).await? {
                Ok(()) => return Ok(()),
                Err(foreword::Error::Dropped { start, .. } | foreword::Error::HoldLost { start, .. }) => {
                    if start > next {
                        self.skip(missed(next.0, start.0)).await?;
                    }
                    let (view, hold) = (self.view.clone(), name.clone());
                    blocking(move || view.release(&hold)).await??;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Records that the log does not have any more.
    async fn skip(&mut self, gap: Gap) -> Result<()> {
        if !self.options.skip_missed {
            return Err(Error::Missed { first: Lsn(gap.first), last: Lsn(gap.last) });
        }
        self.give_up(gap).await
    }

    async fn give_up(&mut self, gap: Gap) -> Result<()> {
        let event = Event::Skipped { first: Lsn(gap.first), last: Lsn(gap.last), reason: gap.reason.clone() };
        let records = gap.last - gap.first + 1;
        self.commit(Change::Gap { timeline: self.timeline, gap }).await?;
        self.meters.skipped(records);
        self.tell(&event);
        Ok(())
    }

    async fn commit(&mut self, change: Change) -> Result<()> {
        let mut patience = Patience::new(self);
        while let Err(error) = self.archive.commit(std::slice::from_ref(&change)).await {
            patience.wait(error).await?;
        }
        Ok(())
    }

    /// Archives all that is durable now: the last LSN that the archive has.
    ///
    /// # Errors
    /// As [`run`](Archiver::run).
    pub async fn push_all(&mut self) -> Result<Lsn> {
        let view = self.view.clone();
        let last = blocking(move || view.last_lsn()).await??;
        let generation = self.archive.state.timelines.get(&self.timeline).map(|timeline| timeline.generation);
        if generation != Some(self.view.generation()) {
            // What was cut may be all that was not archived.
            self.attach().await?;
        }
        let driven = self.drive(Some(last), std::future::pending()).await;
        self.ended(driven)?;
        Ok(self.archived())
    }

    /// Archives what is durable and what comes, until `stop` is ready: then what has been read is
    /// archived, too. Blocks no thread of the runtime.
    ///
    /// # Errors
    /// [`Error::Fenced`]: another archiver has begun. [`Error::Missed`], without
    /// [`skip_missed`](PushOptions::skip_missed). [`Error::Log`]: damage, say. [`Error::Store`],
    /// once [`patience`](PushOptions::patience) is over. After an error, begin again.
    pub async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<()> {
        // Says once a second how far behind it is, whatever it waits for.
        let (view, meters) = (self.view.clone(), self.meters.clone());
        let _watching = cfg!(feature = "metrics").then(|| {
            Task::spawn(async move {
                loop {
                    let view = view.clone();
                    if let Ok(Ok(last)) = blocking(move || view.last_lsn()).await {
                        meters.durable(last.0);
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            })
        });
        let driven = self.drive(None, stop).await;
        self.ended(driven)
    }

    /// Notes an end that needs a decision.
    fn ended(&self, driven: Result<()>) -> Result<()> {
        if driven.as_ref().is_err_and(|error| !error.is_retryable()) {
            self.meters.stopped();
        }
        driven
    }

    async fn drive(&mut self, end: Option<Lsn>, stop: impl Future<Output = ()>) -> Result<()> {
        let mut stop = std::pin::pin!(stop.fuse());
        let stopping = Arc::new(AtomicBool::new(false));
        loop {
            let (pieces, mut ready) = mpsc::channel(READY);
            let reading = Reading {
                cutter: Cutter {
                    place: self.archive.place(self.timeline),
                    keys: self.archive.keys.clone(),
                    epoch: self.archive.epoch,
                    options: self.options.clone(),
                },
                view: self.view.clone(),
                from: self.archived().next(),
                generation: self.archive.state.timelines.get(&self.timeline).map_or(0, |timeline| timeline.generation),
                end,
                stopping: stopping.clone(),
                out: pieces,
            };
            let thread = std::thread::Builder::new().name("foreword-archive".into()).spawn(move || reading.run());
            thread.map_err(|error| Error::io("start a thread", "", error))?;
            let mut uploads = FuturesOrdered::new();
            let mut ended = None;
            let ended = loop {
                tokio::select! {
                    () = &mut stop => stopping.store(true, Ordering::Relaxed),
                    piece = ready.recv(), if ended.is_none() && uploads.len() < self.options.uploads => match piece {
                        Some(Piece::Chunk(chunk, bytes)) => uploads.push_back(Task::spawn(self.upload(chunk, bytes)).end()),
                        Some(Piece::End(end)) => ended = Some(end),
                        // (It ends by saying so.)
                        None => ended = Some(End::Failed(Error::io("read", self.dir.clone(), std::io::Error::other("the thread panicked")))),
                    },
                    Some(uploaded) = uploads.next(), if !uploads.is_empty() => {
                        let mut chunks: Vec<Chunk> = vec![uploaded??];
                        // (All that are up, and follow.)
                        while let Some(Some(uploaded)) = uploads.next().now_or_never() {
                            chunks.push(uploaded??);
                        }
                        self.confirm(chunks).await?;
                    }
                }
                if uploads.is_empty()
                    && let Some(ended) = ended.take()
                {
                    break ended;
                }
            };
            match ended {
                End::Done => return Ok(()),
                End::Failed(error) => return Err(error),
                End::Cut => self.attach().await?,
                End::Missed(gap) => self.skip(gap).await?,
                End::GivenUp(gap) => self.give_up(gap).await?,
            }
            if end.is_some_and(|end| self.archived() >= end) || stopping.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Makes chunks that are uploaded part of the archive, and lets the log drop their records.
    async fn confirm(&mut self, chunks: Vec<Chunk>) -> Result<()> {
        let bytes = chunks.iter().map(|chunk| chunk.bytes).sum();
        let (count, timeline, before, began) = (chunks.len() as u64, self.timeline, self.archived(), Instant::now());
        // What larger chunks take the place of.
        let mut replaced = Vec::new();
        let mut there = self.archive.state.timelines.get(&timeline).map(|timeline| timeline.chunks.clone()).unwrap_or_default();
        for chunk in &chunks {
            replaced.extend(there.extract_if(.., |old| old.first >= chunk.first).map(|old| old.name));
            there.push(chunk.clone());
        }
        drop(there);
        let adds: Vec<_> = chunks.into_iter().map(|chunk| Change::Add { timeline, chunk }).collect();
        let mut patience = Patience::new(self);
        // Made once for a manifest: by it, one whose answer was lost is known to be this archiver's.
        let mut changes = None;
        loop {
            let confirmed = async {
                let changes = match &mut changes {
                    Some(changes) => changes,
                    none => none.insert(adds.iter().cloned().chain(self.archive.index_some(timeline).await?).collect::<Vec<_>>()),
                };
                self.archive.commit_once(changes).await
            };
            match confirmed.await {
                Ok(true) => break,
                // What was expired meanwhile is not to be listed.
                Ok(false) => changes = None,
                Err(error) => patience.wait(error).await?,
            }
        }
        self.meters.confirmed(began.elapsed(), self.archived().0 - before.0, count, bytes);
        self.meters.archived(self.archived().0);
        self.hold().await?;
        self.tell(&Event::Archived { lsn: self.archived(), bytes });
        // (What cannot be deleted now goes with the next `expire`.)
        for name in replaced {
            let _ = self.archive.store.delete(&name).await;
        }
        Ok(())
    }

    fn upload(&self, chunk: Chunk, bytes: Bytes) -> impl Future<Output = Result<Chunk>> + use<> {
        let (archive, mut patience) = (self.archive.clone(), Patience::new(self));
        async move {
            while let Err(error) = archive.create_own(&chunk.name, &bytes).await {
                patience.wait(error).await?;
            }
            patience.meters.uploaded(patience.began.elapsed());
            Ok(chunk)
        }
    }
}

/// A store that is not known to be atomic must at least not be seen to be otherwise, and then be
/// allowed by name.
async fn trusted(store: &Store) -> Result<()> {
    if let Atomicity::Unknown(why) = store.atomicity() {
        return Err(Error::NotAtomic { why: format!("{}: {why}", store.url()) });
    }
    probe::creates_once(store).await
}

/// How a store that does not answer is asked again: after a pause that is twice as long each time,
/// up to half a minute, for as long as the options allow.
struct Patience {
    began: Instant,
    tries: u32,
    most: Option<Duration>,
    hook: Option<EventHook>,
    meters: Meters,
}

impl Patience {
    fn new(archiver: &Archiver) -> Patience {
        let PushOptions { patience: most, on_event: hook, .. } = archiver.options.clone();
        Patience { began: Instant::now(), tries: 0, most, hook, meters: archiver.meters.clone() }
    }

    /// Waits before the next try; or gives the error back, if trying again does not help, or not
    /// any more.
    async fn wait(&mut self, error: Error) -> Result<()> {
        let pause = Duration::from_millis(100 << self.tries.min(9)).min(Duration::from_secs(30));
        if !error.is_retryable() || self.most.is_some_and(|most| self.began.elapsed() + pause > most) {
            return Err(error);
        }
        self.meters.retrying(self.began.elapsed());
        if let Some(hook) = &self.hook {
            hook(&Event::Retrying { error, since: self.began.elapsed() });
        }
        self.tries += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
