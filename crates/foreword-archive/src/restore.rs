//! Restoring: an ordinary log, with the records of a timeline's history up to an LSN or a time.
//!
//! It is made beside its place, as `DIR.restoring`, and renamed when it is whole: a log that is
//! there is all that was asked for. A restore that was interrupted goes on where it was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foreword::{Log, Lsn, Options};

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::standing::{ORIGIN, Origin};
use crate::tasks::blocking;

/// How often a restore begins anew because an object was replaced meanwhile.
const AGAIN_MAX: usize = 8;
/// Bytes that wait to be written.
const BUFFER: usize = 4 << 20;
/// Any record that was appended fits.
const RECORD_BYTES_MAX: u64 = (1 << 30) - 1;

/// Up to where to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// All that there is; only whole batches.
    Latest,
    /// This record, and all before it.
    Lsn(Lsn),
    /// All that was written up to this time, in microseconds since 1970: [`Archive::lsn_at`].
    Time(u64),
}

/// Is told how far a restore is: bytes of objects so far, and of all.
pub type ProgressHook = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to restore.
#[derive(Clone)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Up to where.
    pub to: Target,
    /// Of which timeline's history; the newest by default.
    pub timeline: Option<u32>,
    /// From which LSN on; from the first that there is by default.
    pub from: Option<Lsn>,
    /// The size of the log's segments; see [`foreword::Options::segment_bytes`].
    pub segment_bytes: u64,
    /// Downloads at once: 4 by default; fewer while 16 MiB of objects are on their way.
    pub downloads: usize,
    /// Is told how far it is: bytes of objects so far, and of all.
    pub on_progress: Option<ProgressHook>,
}

impl Default for RestoreOptions {
    fn default() -> RestoreOptions {
        RestoreOptions {
            to: Target::Latest,
            timeline: None,
            from: None,
            segment_bytes: 64 << 20,
            downloads: 4,
            on_progress: None,
        }
    }
}

impl std::fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestoreOptions").field("to", &self.to).field("timeline", &self.timeline).finish_non_exhaustive()
    }
}

/// What a restore will come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The timeline.
    pub timeline: u32,
    /// The first LSN of the log.
    pub first: Lsn,
    /// The last.
    pub last: Lsn,
    /// How many objects are read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Archive {
    /// What restoring comes to, and what it reads. Writes nothing.
    ///
    /// # Errors
    /// [`Error::NotThere`]; those of reading.
    pub async fn plan(&self, options: &RestoreOptions) -> Result<Plan> {
        let span = self.span(options).await?;
        let (bytes, objects) = self.chunks(span.timeline, span.first.0..span.last.0 + 1).size(self).await?;
        Ok(Plan { objects, bytes, ..span })
    }

    /// Of which timeline, and which records: the plan without what it reads. Reads nothing itself
    /// but for a time.
    pub(crate) async fn span(&self, options: &RestoreOptions) -> Result<Plan> {
        let timeline = self.timeline(options.timeline)?;
        let id = timeline.id;
        let last = match options.to {
            Target::Latest => Lsn(timeline.whole),
            Target::Lsn(lsn) => lsn,
            Target::Time(micros) => self.lsn_at(Some(id), micros).await?,
        };
        let first = self.first_before(id, last.0.min(timeline.last));
        let from = options.from.unwrap_or(first);
        if last.0 > timeline.last || last < first || from < first || from > last.next() {
            let there = self.stretches(id).into_iter().map(|(first, last)| format!("{first} to {last}")).collect::<Vec<_>>();
            let why = match there.is_empty() {
                _ if options.to == Target::Latest && last < first && timeline.last >= first.0 => format!(
                    "timeline {id} has records {}, and the last of them may be in the middle of a batch: \
                     --to-lsn {} restores them as they are",
                    there.join(", "),
                    timeline.last
                ),
                true => format!("timeline {id} has no records yet"),
                false if from < first => {
                    format!("timeline {id} has records {}, and not {from}; see `foreword-archive status`", there.join(", "))
                }
                false => format!("timeline {id} has records {}, and not {last}; see `foreword-archive status`", there.join(", ")),
            };
            return Err(Error::NotThere { why });
        }
        Ok(Plan { timeline: id, first: from, last, objects: 0, bytes: 0 })
    }

    /// Restores a log into a directory that is not there, or empty. It is an ordinary log, closed,
    /// with an identity of its own; the file `ARCHIVE` in it says where it comes from, so that it
    /// is archived in a timeline of its own when it goes on. All that is read is checked. Durable
    /// when it returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a directory that is not empty, or with the rest of another restore;
    /// [`Error::NotThere`]; [`Error::Damaged`], which names the object;
    /// [`Error::NoSpace`]; [`Error::Log`]. What is restored by then is kept beside the directory, for
    /// the next call.
    pub async fn restore(&mut self, dir: impl AsRef<Path>, options: &RestoreOptions) -> Result<Plan> {
        let dir = dir.as_ref();
        let restored = async {
            let plan = self.plan(options).await?;
            self.restore_planned(dir, plan, options).await?;
            Ok(plan)
        };
        restored.await.map_err(|error: Error| error.of_restore(dir))
    }

    /// The same, of a plan that there is already.
    pub(crate) async fn restore_planned(&mut self, dir: &Path, plan: Plan, options: &RestoreOptions) -> Result<()> {
        let origin =
            Origin { archive: self.id.to_string(), timeline: plan.timeline, last: plan.last.0, generation: 0, promoted: false };
        let work = Work::new(dir)?;
        let (at, segment_bytes) = (work.clone(), options.segment_bytes);
        // Of which timelines the history is, and up to where: a restore of any of it goes on.
        let history = self.state.history(plan.timeline, plan.last.0);
        let log = Arc::new(blocking(move || at.begin(origin, plan.first, &history, segment_bytes)).await??);
        let filled = self.fill(&log, plan, options).await;
        let closed = blocking({
            let log = log.clone();
            move || log.close()
        });
        let closed = closed.await?;
        filled?;
        closed?;
        drop(log);
        blocking(move || work.finish()).await?
    }

    /// Appends what a log lacks of a plan.
    pub(crate) async fn fill(&mut self, log: &Arc<Log>, plan: Plan, options: &RestoreOptions) -> Result<()> {
        for again in 0.. {
            let next = log.last_lsn().next().max(plan.first);
            if next > plan.last {
                break;
            }
            let chunks = self.chunks(plan.timeline, next.0..plan.last.0 + 1);
            let told = options.on_progress.clone().map(|hook| (hook, plan.bytes));
            match self.fill_from(log, chunks, options.downloads, told).await {
                // A small chunk may have become part of a larger one, and be gone.
                Err(error @ Error::Damaged { .. }) if again < AGAIN_MAX => {
                    if !self.refresh().await? {
                        return Err(error);
                    }
                }
                filled => {
                    filled?;
                    break;
                }
            }
        }
        let log = log.clone();
        let last = blocking(move || log.sync()).await??;
        if last != plan.last {
            return Err(Error::NotThere {
                why: format!("the archive has records up to {last}, and {} was to be the last", plan.last),
            });
        }
        Ok(())
    }
}

/// The directory that a restore works in.
#[derive(Clone, Debug)]
struct Work {
    dir: PathBuf,
    work: PathBuf,
}

impl Work {
    fn new(dir: &Path) -> Result<Work> {
        let name =
            dir.file_name().ok_or_else(|| Error::Invalid { what: "directory", why: format!("{} has no name", dir.display()) })?;
        let mut work = name.to_owned();
        work.push(".restoring");
        Ok(Work { dir: dir.to_owned(), work: dir.with_file_name(work) })
    }

    fn begin(&self, origin: Origin, first: Lsn, history: &[(u32, u64, u64)], segment_bytes: u64) -> Result<Log> {
        let invalid = |why: String| Error::Invalid { what: "directory", why };
        match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                let mut entries = entries.map_err(|error| Error::io("list", &self.dir, error))?;
                if entries.next().is_some() {
                    return Err(invalid(format!("{} is not empty: restore into a new one", self.dir.display())));
                }
            }
        }
        let is_there = fs::exists(&self.work).map_err(|error| Error::io("look for", &self.work, error))?;
        if is_there && !self.goes_on(&origin, first, history)? {
            let why = format!("{} is there, and not of a restore that could go on here: remove it first", self.work.display());
            return Err(invalid(why));
        }
        let log = log_options(segment_bytes).first_lsn(first).open(&self.work)?;
        write_origin(&self.work, origin)?;
        Ok(log)
    }

    /// Whether what an earlier restore has left is the beginning of this one.
    fn goes_on(&self, origin: &Origin, first: Lsn, history: &[(u32, u64, u64)]) -> Result<bool> {
        let view = match foreword::View::open(&self.work) {
            Err(foreword::Error::NotFound { .. }) => return Ok(true), // Not even a log: empty, or it is refused.
            view => view?,
        };
        let (start, last) = (view.start_lsn(), view.recoverable_lsn()?);
        let Some(there) = Origin::read(&self.work)? else {
            // It was killed before it could say what it is.
            return Ok(last < start && start == first);
        };
        let shared = history.iter().find(|(id, ..)| *id == there.timeline).map_or(0, |&(.., to)| to);
        Ok(there.archive == origin.archive && last.0 <= shared && start <= first && first <= last.next())
    }

    fn finish(&self) -> Result<()> {
        // (In the place of an empty one.)
        if fs::exists(&self.dir).map_err(|error| Error::io("look for", &self.dir, error))? {
            fs::remove_dir(&self.dir).map_err(|error| Error::io("remove", &self.dir, error))?;
        }
        fs::rename(&self.work, &self.dir).map_err(|error| Error::io("rename", &self.work, error))?;
        sync_parent(&self.dir)
    }
}

/// Records come in bulk: zeros that are written first would cost more than they save.
pub(crate) fn log_options(segment_bytes: u64) -> Options {
    let options = Options::new().segment_bytes(segment_bytes).record_bytes_max(RECORD_BYTES_MAX);
    options.buffer_bytes(BUFFER).zero_fill(false)
}

/// Says beside a log where it comes from. Durable when it returns.
pub(crate) fn write_origin(dir: &Path, origin: Origin) -> Result<Origin> {
    let origin = Origin { generation: foreword::View::open(dir)?.generation(), ..origin };
    let (path, tmp) = (dir.join(ORIGIN), dir.join("ARCHIVE.new"));
    let write = || {
        let mut file = File::create(&tmp)?;
        file.write_all(serde_json::to_string(&origin).map_err(io::Error::other)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&tmp, &path)
    };
    write().map_err(|error| Error::io("write", &path, error))?;
    sync_parent(&path)?;
    Ok(origin)
}

pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // (Windows has no handles on directories that can be synced.)
    let synced = if cfg!(unix) { File::open(parent).and_then(|dir| dir.sync_all()) } else { Ok(()) };
    synced.map_err(|error| Error::io("sync", parent, error))
}
