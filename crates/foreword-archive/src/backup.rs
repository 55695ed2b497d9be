//! Backups: copies of what stands on a log, of a page file say. With the log's records behind it a
//! copy can be restored to any LSN or time.
//!
//! A copy is bytes, which mean nothing here. They are cut into pieces, and lie in chunks as records
//! do, compressed, encrypted and checked: piece 1, 2, ... of no timeline (0). The manifest names a
//! list of these chunks, and the LSNs between which the copy needs the log.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use foreword::{LogId, Lsn};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use crate::archive::{Archive, now_micros, object_name};
use crate::chunk::{Builder, Chunk, Hash};
use crate::decode::fetch;
use crate::error::{Error, Result};
use crate::manifest::{Backup, Change, Index};
use crate::restore::{Plan, RestoreOptions, Target, sync_parent};
use crate::tasks::{Task, blocking};

/// The timeline of a copy's chunks.
pub(crate) const NONE: u32 = 0;
/// Bytes of a copy in a piece, and so in a block.
const PIECE: usize = 256 << 10;
/// Bytes of a copy in a chunk.
const CHUNK: u64 = 4 << 20;
/// Chunks that are uploaded, or downloaded, at once.
const AT_ONCE: usize = 4;
/// Where the copy lies in a directory that is restored.
const COPY: &str = "PAGES.backup";
const LOG: &str = "log";

/// What a copy needs of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The log.
    pub log: LogId,
    /// The first LSN that restoring the copy needs.
    pub log_start: Lsn,
    /// The first LSN to which it can be restored.
    pub consistent: Lsn,
}

/// Cuts what is written into pieces and chunks.
struct Cutter<'a> {
    archive: &'a Archive,
    builder: Builder,
    first: u64,
    piece: Vec<u8>,
    bytes: u64,
    level: i32,
    out: mpsc::Sender<(Chunk, Bytes)>,
}

impl Cutter<'_> {
    fn push(&mut self, piece: &[u8]) -> Result<()> {
        self.bytes += piece.len() as u64;
        self.builder.push(now_micros(), piece)?;
        if self.builder.size() >= CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        let next = self.builder.next();
        if next.0 == self.first {
            return Ok(());
        }
        let fresh = Builder::new(self.archive.place(NONE), next, &self.archive.keys, self.level)?;
        let name = object_name("copy", NONE, self.first, next.prev().0, self.archive.epoch)?;
        let (chunk, bytes) = std::mem::replace(&mut self.builder, fresh).finish(name, true)?;
        self.first = next.0;
        let gone = |_| Error::io("copy", "to the archive", io::Error::other("an upload has failed"));
        self.out.blocking_send((chunk, bytes)).map_err(gone)
    }

    fn cut(&mut self) -> Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.push(&piece)
    }
}

impl Write for Cutter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..some]);
        if self.piece.len() == PIECE {
            self.cut().map_err(io::Error::other)?;
        }
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Archive {
    /// Archives a copy of what stands on the log, of a page store say, which `copy` writes, on a
    /// thread that may block: `foreword_pages::Store::backup` does. An archiver must have begun to
    /// archive the log, and may run meanwhile. The copy is of use once the log is archived up to
    /// [`Copied::consistent`]. Part of the archive when it returns, and durable. Takes some 40 MiB of memory.
    ///
    /// # Errors
    /// [`Error::Foreign`]: the newest timeline is not that of the copy's log. [`Error::NotThere`]:
    /// the archive does not have the records that it needs. [`Error::Fenced`]: an archiver has begun
    /// meanwhile; make another copy. [`Error::Io`] from `copy`; those of the store. What was
    /// uploaded by then, `expire` removes.
    pub async fn back_up(&mut self, copy: impl FnOnce(&mut dyn Write) -> io::Result<Copied> + Send + 'static) -> Result<Backup> {
        self.refresh().await?;
        self.check_keys()?;
        let mut archive = self.clone();
        // Of this epoch, so that no expiry takes it for what was left.
        archive.epoch = self.newest_epoch();
        let (out, chunks) = mpsc::channel(1);
        let cutting = archive.clone();
        let copying = Task::spawn(blocking(move || {
            let first = Lsn(1);
            let level = 1;
            let builder = Builder::new(cutting.place(NONE), first, &cutting.keys, level)?;
            let mut cutter = Cutter { archive: &cutting, builder, first: first.0, piece: Vec::new(), bytes: 0, level, out };
            let copied = copy(&mut cutter).map_err(|error| Error::io("copy", "to the archive", error))?;
            cutter.cut()?;
            cutter.send()?;
            Ok::<_, Error>((copied, cutter.bytes))
        }));
        let upload = async |(chunk, bytes): (Chunk, Bytes)| {
            archive.create_own(&chunk.name, &bytes).await?;
            Ok::<_, Error>(chunk)
        };
        let chunks = stream::unfold(chunks, async |mut chunks| Some((chunks.recv().await?, chunks)));
        let uploaded = chunks.map(upload).buffered(AT_ONCE).try_collect::<Vec<_>>().await;
        let copied = copying.end().await;
        // (Where an upload has failed, copying has, too.)
        let chunks = uploaded?;
        let (copied, bytes) = copied???;
        let list = archive.create_list("backup", NONE, &chunks).await?;
        let backup = Backup { list, log_start: copied.log_start.0, consistent: copied.consistent.0, made: now_micros(), bytes };
        loop {
            archive.refresh().await?;
            // (Looked at anew each time: an expiry may have removed what it needs.)
            let change = archive.confirms(&copied, &backup)?;
            if archive.commit_once(&[change]).await? {
                break;
            }
        }
        (self.state, self.tip) = (archive.state, archive.tip);
        Ok(backup)
    }

    /// The change that makes a copy part of the archive, if it can be restored.
    fn confirms(&self, copied: &Copied, backup: &Backup) -> Result<Change> {
        if self.newest_epoch() > self.epoch {
            return Err(Error::Fenced { epoch: self.epoch, by: self.newest_epoch() });
        }
        let timeline = self.timeline(None)?;
        if timeline.log != copied.log.to_string() {
            let why = format!("its newest timeline is of log {}, and the copy of one on {}", timeline.log, copied.log);
            return Err(Error::Foreign { why });
        }
        // (What is not archived yet, the archiver's hold keeps.)
        let first = self.first_before(timeline.id, timeline.last).0;
        if first > backup.log_start || backup.consistent < backup.log_start {
            let why = format!("the copy needs the log from {} on, and the archive begins with {first}", backup.log_start);
            return Err(Error::NotThere { why });
        }
        Ok(Change::Backup { timeline: timeline.id, backup: backup.clone() })
    }

    /// Creates an object with a list of chunks, which are in order.
    pub(crate) async fn create_list(&self, folder: &str, timeline: u32, chunks: &[Chunk]) -> Result<Index> {
        let invalid = |why: String| Error::Invalid { what: "list of chunks", why };
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Err(invalid("it is empty".into())) };
        let bytes = Bytes::from(serde_json::to_vec(chunks).map_err(|error| invalid(error.to_string()))?);
        let index = Index {
            name: object_name(folder, timeline, first.first, last.last, self.epoch)?,
            sha256: Hash::of(&bytes),
            first: first.first,
            last: last.last,
            to: chunks.iter().map(|chunk| chunk.to).max().unwrap_or(0),
            chunks: chunks.len() as u64,
            bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
        };
        self.create_own(&index.name, &bytes).await?;
        Ok(index)
    }

    /// The backups of a timeline's history, in the order of the LSNs from which on each can be
    /// restored: only those that are of use up to an LSN.
    pub(crate) fn backups_up_to(&self, timeline: u32, last: u64) -> Vec<&Backup> {
        let of = |(id, _, to): (u32, u64, u64)| {
            let backups = self.state.timelines.get(&id).map(|timeline| &timeline.backups[..]).unwrap_or_default();
            backups.iter().filter(move |backup| backup.consistent <= to)
        };
        let mut backups: Vec<_> = self.state.history(timeline, last).into_iter().flat_map(of).collect();
        backups.sort_by_key(|backup| backup.consistent);
        backups
    }

    /// What restoring comes to where a copy is restored with the log behind it, and with which: the
    /// newest that is of use. Writes nothing.
    ///
    /// # Errors
    /// As [`plan`](Archive::plan); [`Error::NotThere`]: there is no such backup.
    pub async fn plan_backup(&self, options: &RestoreOptions) -> Result<(Plan, Backup)> {
        let (log, backup) = self.plan_log_of_backup(options).await?;
        Ok((with_copy(log, &backup), backup))
    }

    /// What there is to restore of the log, and behind which backup.
    async fn plan_log_of_backup(&self, options: &RestoreOptions) -> Result<(Plan, Backup)> {
        let span = self.span(options).await?;
        let backups = self.backups_up_to(span.timeline, span.last.0);
        let Some(backup) = backups.into_iter().rfind(|backup| backup.log_start >= span.first.0) else {
            let why = format!("the archive has no backup of the pages that can be restored to {}", span.last);
            return Err(Error::NotThere { why });
        };
        let (timeline, to, from) = (Some(span.timeline), Target::Lsn(span.last), Some(Lsn(backup.log_start)));
        let log = self.plan(&RestoreOptions { timeline, to, from, ..options.clone() }).await?;
        Ok((log, backup.clone()))
    }

    /// Restores a page store to an LSN or a time, into a directory that is not there, or empty: its
    /// log as `log/`, and as `PAGES.backup` the newest copy from before. The page store makes its
    /// page file of that when it is opened, and recovers. Durable when it returns; one that was cut
    /// short goes on when it is called again.
    ///
    /// # Errors
    /// As [`restore`](Archive::restore), and [`plan_backup`](Archive::plan_backup).
    pub async fn restore_backup(&mut self, dir: impl AsRef<Path>, options: &RestoreOptions) -> Result<(Plan, Backup)> {
        let dir = dir.as_ref();
        let restored = async {
            let (log, backup) = self.plan_log_of_backup(options).await?;
            let at = dir.to_owned();
            blocking(move || prepare(&at)).await??;
            // The log last: without it nothing is there.
            self.restore_copy(&backup, &dir.join(COPY)).await?;
            self.restore_planned(&dir.join(LOG), log, options).await?;
            Ok((with_copy(log, &backup), backup))
        };
        restored.await.map_err(|error: Error| error.of_restore(dir))
    }

    /// Writes a copy to a file. Durable when it returns.
    async fn restore_copy(&self, backup: &Backup, to: &Path) -> Result<()> {
        let failed = |error| Error::io("write", to, error);
        let part = to.with_extension("part");
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(failed)?);
        let chunks = self.read_index(&backup.list).await?;
        let check = follow(&chunks, 1..backup.list.last + 1);
        check.map_err(|why| Error::damaged(&backup.list.name, why))?;
        let mut bytes = 0;
        let read = async |chunk: Chunk| {
            let fetched = fetch(&self.store, &chunk, self.place(NONE), &self.keys).await?;
            blocking(move || fetched.records(&(chunk.first..chunk.last + 1))).await?
        };
        let mut read = std::pin::pin!(stream::iter(chunks).map(read).buffered(AT_ONCE));
        while let Some(pieces) = read.try_next().await? {
            for piece in &pieces {
                bytes += piece.data.len() as u64;
            }
            file = blocking(move || {
                pieces.iter().try_for_each(|piece| file.write_all(&piece.data))?;
                Ok::<_, io::Error>(file)
            })
            .await?
            .map_err(failed)?;
        }
        if bytes != backup.bytes {
            return Err(Error::damaged(
                &backup.list.name,
                format!("its chunks have {bytes} bytes, and {} were copied", backup.bytes),
            ));
        }
        let to = to.to_owned();
        blocking(move || {
            let written = file.into_inner().map_err(io::IntoInnerError::into_error);
            let renamed = written.and_then(|file| file.sync_all()).and_then(|()| fs::rename(&part, &to));
            renamed.map_err(|error| Error::io("write", &to, error))?;
            sync_parent(&to)
        })
        .await?
    }
}

/// A plan of the log, with the objects of the copy that it stands behind.
fn with_copy(log: Plan, backup: &Backup) -> Plan {
    Plan { objects: log.objects + 1 + backup.list.chunks, bytes: log.bytes + backup.list.bytes, ..log }
}

/// Whether chunks are those of all pieces.
pub(crate) fn follow(chunks: &[Chunk], pieces: Range<u64>) -> std::result::Result<(), &'static str> {
    let mut next = pieces.start;
    for chunk in chunks {
        if chunk.first != next || chunk.last < chunk.first {
            return Err("its chunks do not follow each other");
        }
        next = chunk.last + 1;
    }
    if next == pieces.end { Ok(()) } else { Err("it does not have all chunks") }
}

/// Makes the directory; refuses one with something else than what a restore was cut short leaves.
fn prepare(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|error| Error::io("create the directory", dir, error))?;
    let list = |error| Error::io("list", dir, error);
    for entry in fs::read_dir(dir).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        if name == COPY {
            // It may be of another backup, and is made anew beside the space that it takes.
            let copy = dir.join(COPY);
            fs::remove_file(&copy).map_err(|error| Error::io("remove", &copy, error))?;
        } else if !["PAGES.part", "log.restoring"].iter().any(|ours| name == *ours) {
            let why = format!("{} is not empty ({}): restore into a new one", dir.display(), name.display());
            return Err(Error::Invalid { what: "directory", why });
        }
    }
    sync_parent(dir)
}
