//! A standby: a restored log that is kept up to date.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foreword::{Log, Lsn, View};
use futures_util::FutureExt;

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::manifest::Change;
use crate::restore::{Plan, RestoreOptions, log_options, write_origin};
use crate::standing::Origin;
use crate::tasks::blocking;

/// A log that follows an archive. While it is open it is its log's writer: readers see it by a
/// [`foreword::View`].
#[derive(Debug)]
pub struct Standby {
    archive: Archive,
    log: Arc<Log>,
    dir: PathBuf,
    options: RestoreOptions,
    origin: Origin,
}

impl Standby {
    /// Opens a standby in a directory; restores all that the archive has into one that is not there
    /// or empty, if there is none.
    ///
    /// # Errors
    /// As [`Archive::restore`]; [`Error::Foreign`] for a log that was not restored from this
    /// archive; [`Error::Log`].
    pub async fn open(archive: Archive, dir: impl AsRef<Path>, options: RestoreOptions) -> Result<Standby> {
        let dir = dir.as_ref();
        Standby::open_in(archive, dir.to_owned(), options).await.map_err(|error| error.of_restore(dir))
    }

    async fn open_in(mut archive: Archive, dir: PathBuf, options: RestoreOptions) -> Result<Standby> {
        let empty = std::fs::read_dir(&dir).map_or(true, |mut entries| entries.next().is_none());
        if empty {
            archive.restore(&dir, &options).await?;
        }
        let not_of =
            || Error::Foreign { why: format!("the log in {} was not restored from archive {}", dir.display(), archive.id()) };
        let origin = Origin::read(&dir)?.filter(|origin| origin.archive == archive.id().to_string()).ok_or_else(not_of)?;
        if origin.promoted {
            let why = format!("the log in {} was promoted: it is no standby any more", dir.display());
            return Err(Error::Foreign { why });
        }
        let (at, segment_bytes) = (dir.clone(), options.segment_bytes);
        let log = blocking(move || log_options(segment_bytes).create(false).open(&at)).await??;
        let standby = Standby { archive, log: Arc::new(log), dir, options, origin };
        let untouched = standby.is_untouched().await;
        if !matches!(untouched, Ok(true)) {
            let log = standby.log.clone();
            blocking(move || log.close()).await??;
            untouched?;
            let why = format!("the log in {} was written to since it was restored", standby.dir.display());
            return Err(Error::Foreign { why });
        }
        Ok(standby)
    }

    /// Whether it has nothing but what the archive has.
    async fn is_untouched(&self) -> Result<bool> {
        let (dir, last) = (self.dir.clone(), self.log.last_lsn());
        if blocking(move || View::open(&dir).map(|view| view.generation())).await?? != self.origin.generation {
            return Ok(false);
        }
        if last.0 <= self.origin.last {
            return Ok(last.0 == self.origin.last);
        }
        // It was killed before it could say how far it had come.
        let archived = match self.archive.record(Some(self.origin.timeline), last).await {
            Err(Error::NotThere { .. }) => return Ok(false),
            archived => archived?,
        };
        let log = self.log.clone();
        let there = blocking(move || log.reader().get(last).map(|record| (record.data.to_vec(), record.time()))).await??;
        Ok(archived.is_copy(&there.0, there.1))
    }

    /// The last LSN that it has.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.log.last_lsn()
    }

    /// Appends what has come to the archive since: the last LSN that it has then, durable. Where the
    /// archive has gone on in another timeline, what that does not have is cut.
    ///
    /// # Errors
    /// [`Error::NotThere`] if the archive lacks records in between: restore anew;
    /// [`Error::NoSpace`]; those of reading, and of the log.
    pub async fn catch_up(&mut self) -> Result<Lsn> {
        let caught = self.catch_up_now().await;
        caught.map_err(|error| error.of_restore(&self.dir))
    }

    async fn catch_up_now(&mut self) -> Result<Lsn> {
        self.archive.refresh().await?;
        let timeline = self.archive.timeline(None)?;
        let (id, whole) = (timeline.id, timeline.whole);
        if id != self.origin.timeline {
            self.change_timeline(id).await?;
        }
        let next = self.log.last_lsn().next();
        if whole >= next.0 {
            let plan = Plan { timeline: id, first: next, last: Lsn(whole), objects: 0, bytes: 0 };
            self.archive.fill(&self.log, plan, &self.options).await?;
            self.note().await?;
        }
        Ok(self.log.last_lsn())
    }

    /// Cuts what another timeline does not share.
    async fn change_timeline(&mut self, id: u32) -> Result<()> {
        let path = self.archive.state.history(id, u64::MAX - 1);
        let shared = path.iter().find(|(of, ..)| *of == self.origin.timeline).map(|&(.., last)| last);
        let unrelated = || Error::NotThere {
            why: format!("timeline {id} does not come from timeline {}, which this log has: restore anew", self.origin.timeline),
        };
        let shared = Lsn(shared.ok_or_else(unrelated)?);
        if self.log.last_lsn() > shared {
            let log = self.log.clone();
            blocking(move || log.truncate_back(shared.next())).await??;
        }
        self.origin.timeline = id;
        self.note().await
    }

    /// Says in the directory how far it has come.
    async fn note(&mut self) -> Result<()> {
        self.origin.last = self.log.durable_lsn().0;
        let (dir, origin) = (self.dir.clone(), self.origin.clone());
        self.origin = blocking(move || write_origin(&dir, origin)).await??;
        Ok(())
    }

    /// Keeps up until `stop` is ready; looks at the archive as often as `each`. A store that does
    /// not answer is asked again. Closes the log.
    ///
    /// # Errors
    /// As [`catch_up`](Standby::catch_up).
    pub async fn run(
        mut self,
        each: Duration,
        stop: impl Future<Output = ()>,
        told: &mut dyn FnMut(&Result<Lsn>),
    ) -> Result<Lsn> {
        let mut stop = std::pin::pin!(stop.fuse());
        loop {
            let caught = self.catch_up().await;
            told(&caught);
            match caught {
                Err(error) if !error.is_retryable() => {
                    let _ = self.close().await;
                    return Err(error);
                }
                _ => {}
            }
            tokio::select! {
                () = &mut stop => return self.close().await,
                () = tokio::time::sleep(each) => {}
            }
        }
    }

    /// Closes it: the last LSN that it has.
    ///
    /// # Errors
    /// [`Error::Log`], [`Error::Io`], [`Error::NoSpace`].
    pub async fn close(mut self) -> Result<Lsn> {
        let log = self.log.clone();
        blocking(move || log.close()).await??;
        let noted = self.note().await;
        noted.map_err(|error| error.of_restore(&self.dir))?;
        Ok(self.log.last_lsn())
    }

    /// Makes it the log: whoever archived so far is fenced, what it had archived is caught up with,
    /// and the log is closed. When it goes on, and is archived, it does so in a timeline of its own.
    ///
    /// # Errors
    /// As [`catch_up`](Standby::catch_up).
    pub async fn promote(mut self) -> Result<Lsn> {
        self.archive.refresh().await?;
        self.archive.begin(Change::begin()).await?;
        self.catch_up().await?;
        // From here on, the old one cannot be archived any more.
        let old = self.archive.timeline(None)?.log.clone();
        self.archive.commit(&[Change::Retire { log: old }]).await?;
        self.origin.promoted = true;
        self.close().await
    }
}
