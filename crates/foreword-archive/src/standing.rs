//! What an archive has of a log: in which timeline an archiver goes on, or where a new one begins.

use std::path::Path;
use std::time::Duration;

use foreword::{Lsn, View};
use serde::{Deserialize, Serialize};

use crate::archive::{Archive, now_micros};
use crate::chunk::Record;
use crate::error::{Error, Result};
use crate::manifest::{Parent, Timeline};
use crate::tasks::blocking;

/// Beside a restored log: which archive it comes from.
pub(crate) const ORIGIN: &str = "ARCHIVE";
/// How often a log that does not fit is looked at again, before that is believed, and after what
/// pause.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);
/// So many records of the log and the archive are compared, up to the last that both have.
const COMPARED: u64 = 64;

/// What stands in the file `ARCHIVE` beside a log that was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) archive: String,
    pub(crate) timeline: u32,
    pub(crate) last: u64,
    /// Of the log: what was cut since was cut of what was restored.
    pub(crate) generation: u32,
    /// It is no standby any more.
    #[serde(default)]
    pub(crate) promoted: bool,
}

impl Origin {
    pub(crate) fn read(dir: &Path) -> Result<Option<Origin>> {
        let path = dir.join(ORIGIN);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|error| Error::io("read", &path, error))?,
        };
        let invalid =
            |error: serde_json::Error| Error::Invalid { what: "file ARCHIVE", why: format!("{}: {error}", path.display()) };
        serde_json::from_str(&text).map(Some).map_err(invalid)
    }
}

pub(crate) enum Attach {
    As(u32),
    Generation(u32, u32),
    New(Timeline),
}

/// How far an archive has a log; see [`Archive::standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The timeline that an archiver would go on in; `None`: it would begin one.
    pub timeline: Option<u32>,
    /// Up to this record the archive has what the log has, but for what either has dropped. 0 where
    /// it has nothing of it.
    pub archived: Lsn,
}

impl Archive {
    /// How far the archive has the log in a directory, by its history and its last records, as an
    /// archiver would find it. Changes nothing, there or here. Reads an object or two; of a log that
    /// was cut, all that the archive has of what was cut. Waits up to a second for a log that is being
    /// opened or cut at this moment.
    ///
    /// # Errors
    /// [`Error::Foreign`] if the archive is none of this log, or a standby has taken its place;
    /// [`Error::Diverged`] if their records differ, or the log ends before what the archive has: it
    /// is an older copy, say. [`Error::Log`], and those of reading.
    pub async fn standing(&mut self, dir: impl AsRef<Path>) -> Result<Standing> {
        let dir = dir.as_ref();
        let at = dir.to_owned();
        let view = blocking(move || View::open(at)).await??;
        let attach = loop {
            match (Beside { archive: self, view: &view, dir }).look_well().await {
                // A small chunk may have become part of a larger one, and be gone.
                Err(Error::Damaged { .. }) if self.refresh().await? => {}
                looked => break looked?,
            }
        };
        let (timeline, archived) = match attach {
            Attach::As(id) | Attach::Generation(id, _) => {
                (Some(id), self.state.timelines.get(&id).map_or(0, |timeline| timeline.last))
            }
            Attach::New(timeline) => (None, timeline.parent.map_or(0, |parent| parent.last)),
        };
        Ok(Standing { timeline, archived: Lsn(archived) })
    }
}

/// A log, and the archive that may have some of it.
pub(crate) struct Beside<'a> {
    pub(crate) archive: &'a Archive,
    pub(crate) view: &'a View,
    pub(crate) dir: &'a Path,
}

impl Beside<'_> {
    /// What is to be done before the log can be archived: a timeline that it goes on in, or what a
    /// new one is to be.
    async fn look(&self) -> Result<Attach> {
        let (view, state) = (self.view, &self.archive.state);
        let log = view.id().to_string();
        let view_ = view.clone();
        let last = blocking(move || view_.recoverable_lsn()).await??.0;
        let generation = view.generation();
        let new = |parent: Option<Parent>, first: u64, reason: &str| {
            Attach::New(Timeline {
                id: state.last_timeline + 1,
                log: log.clone(),
                generation,
                parent,
                first,
                reason: reason.to_owned(),
                began: now_micros(),
                gaps: Vec::new(),
                indexes: Vec::new(),
                chunks: Vec::new(),
                backups: Vec::new(),
                last: first - 1,
                whole: first - 1,
            })
        };
        if state.retired.contains(&log) {
            return Err(Error::Foreign { why: "a standby of this log was promoted, and has taken its place".into() });
        }
        let Some(timeline) = state.timelines.values().rev().find(|timeline| timeline.log == log) else {
            let dir = self.dir.to_owned();
            if let Some(origin) = blocking(move || Origin::read(&dir)).await?? {
                if origin.archive != self.archive.id.to_string() {
                    return Err(Error::Foreign { why: format!("this log was restored from archive {}", origin.archive) });
                }
                let kept = view.cut_since(origin.generation).map_or(origin.last, |cut| origin.last.min(cut.0 - 1));
                self.compare(origin.timeline, kept, last).await?;
                let kept = self.shared(origin.timeline, kept, origin.last.min(last)).await?;
                let parent = Parent { timeline: origin.timeline, last: kept };
                return Ok(new(Some(parent), kept + 1, "restored"));
            }
            return match state.timelines.values().next_back() {
                None => Ok(new(None, view.start_lsn().0, "created")),
                Some(other) => Err(Error::Foreign { why: format!("it is of log {}, and this is {log}", other.log) }),
            };
        };
        // (As serial numbers are compared: they may pass zero.)
        if (generation.wrapping_sub(timeline.generation) as i32) < 0 {
            let why = format!("records were cut {} times from it, and {generation} times from this one", timeline.generation);
            return Err(Error::Diverged { why });
        }
        let cut = view.cut_since(timeline.generation).map(|lsn| lsn.0);
        let kept = cut.map_or(timeline.last, |cut| timeline.last.min(cut - 1));
        self.compare(timeline.id, kept, last).await?;
        Ok(match cut {
            Some(cut) if cut <= timeline.last => {
                let kept = self.shared(timeline.id, kept, timeline.last.min(last)).await?;
                new(Some(Parent { timeline: timeline.id, last: kept }), kept + 1, "records were cut from the log")
            }
            _ if generation != timeline.generation => Attach::Generation(timeline.id, generation),
            _ => Attach::As(timeline.id),
        })
    }

    /// The same, of a log that may be opened, or cut, at this moment: what does not fit is looked at
    /// again.
    pub(crate) async fn look_well(&self) -> Result<Attach> {
        for _ in 0..LOOKS {
            match self.look().await {
                Err(Error::Diverged { .. } | Error::Log(_)) => tokio::time::sleep(PAUSE).await,
                looked => return looked,
            }
        }
        self.look().await
    }

    /// Whether the log has the records that the archive has: the last ones, with their times.
    async fn compare(&self, timeline: u32, lsn: u64, last: u64) -> Result<()> {
        let Some(of) = self.archive.state.timelines.get(&timeline) else {
            return Err(Error::Diverged { why: format!("the archive has no timeline {timeline} any more") });
        };
        if last < lsn {
            return Err(Error::Diverged { why: format!("the archive has records up to {lsn}, and the log up to {last}") });
        }
        let start = self.view.start_lsn().0;
        if lsn < start || lsn == 0 || of.gaps.iter().any(|gap| gap.last == lsn) {
            return Ok(());
        }
        let from = lsn.saturating_sub(COMPARED - 1).max(start).max(self.archive.first_before(timeline, lsn).0);
        if from > lsn {
            return Ok(());
        }
        let mut archived = self.archive.records(Some(timeline), Lsn(from), Lsn(lsn))?;
        let mut records = Vec::new();
        loop {
            match archived.next().await {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(Error::NotThere { .. }) => return Ok(()), // They have expired.
                Err(error) => return Err(error),
            }
        }
        let view = self.view.clone();
        blocking(move || {
            let mut reader = view.recoverable()?.reader();
            for record in records {
                let there = match reader.get(record.lsn) {
                    Err(foreword::Error::GivenUp { .. }) => continue,
                    there => there?,
                };
                if !record.is_copy(there.data, there.time()) {
                    return Err(Error::Diverged { why: format!("their records {} differ", record.lsn) });
                }
            }
            Ok(())
        })
        .await?
    }

    /// Up to where a log that was cut has the records of a timeline: up to `kept`, or on. Of cuts
    /// that lie long back the log only knows that they were behind that, and what was cut may have
    /// been appended again.
    async fn shared(&self, timeline: u32, kept: u64, end: u64) -> Result<u64> {
        let (first, _) = self.archive.range(Some(timeline))?;
        let from = (kept + 1).max(self.view.start_lsn().0).max(first.0);
        if from > end {
            return Ok(kept);
        }
        let mut archived = self.archive.records(Some(timeline), Lsn(from), Lsn(end))?;
        let (mut shared, mut next) = (kept, from);
        loop {
            let mut records = Vec::new();
            while (records.len() as u64) < COMPARED {
                match archived.next().await {
                    Ok(Some(record)) => records.push(record),
                    Ok(None) | Err(Error::NotThere { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            let (view, count) = (self.view.clone(), records.len());
            let same = blocking(move || {
                let mut reader = view.recoverable()?.reader();
                let mut same =
                    |record: &&Record| reader.get(record.lsn).is_ok_and(|there| record.is_copy(there.data, there.time()));
                Ok::<_, Error>(records.iter().take_while(|record| same(record)).count())
            });
            let same = same.await??;
            if same > 0 {
                shared = next + same as u64 - 1;
            }
            next += same as u64;
            if same < count || count == 0 {
                return Ok(shared);
            }
        }
    }
}
