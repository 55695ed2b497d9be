//! A log, looked at repeatedly from outside. While its writer publishes figures, nothing else of
//! the log is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foreword::inspect::{self, Writer};
use foreword::{Error, Histogram, Hold, Lsn, Published, Stats, Verdict, View};

use crate::exit::Failure;

/// An active log publishes once a second: figures older than this are out of date.
const SILENT_AFTER: Duration = Duration::from_millis(2500);
/// A flush that takes longer than this is stuck, not slow.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// Clocks that differ by no more are as good as the same.
const CLOCKS_AGREE: Duration = Duration::from_secs(2);

pub(super) struct Watch {
    dir: PathBuf,
    /// Opened when it is needed, and kept.
    view: Option<View>,
    heard: Option<Heard>,
    looked: Instant,
    /// The last LSN by the files, and when.
    seen: Option<(Lsn, Instant)>,
}

/// The figures that the writer published last.
struct Heard {
    published: Published,
    /// When it was seen first, by a clock that does not jump.
    since: Instant,
    /// How old it was then, as far as its clock and ours tell.
    clocks: Clocks,
    /// What the log had done since it had spoken before.
    activity: Option<Activity>,
}

/// What was seen on one look.
pub(super) struct Look {
    pub(super) writer: Option<Writer>,
    /// There is a writer, and the file LOCK that it has locked was removed or replaced: it stops
    /// before it acknowledges anything more.
    pub(super) lock_gone: bool,
    /// What the log did between the last two times that it said anything; nothing is known on the
    /// first look.
    pub(super) activity: Option<Activity>,
    pub(super) start: Lsn,
    /// The last durable LSN; as far as files say, the last that is known to be.
    pub(super) durable: Lsn,
    pub(super) holds: BTreeMap<String, Hold>,
    /// Why nobody knows what other processes ask to be kept, if that is so.
    pub(super) holds_unknown: Option<Error>,
    /// Without a writer.
    pub(super) verdict: Option<Verdict>,
    /// Of all files in the directory.
    pub(super) disk_bytes: u64,
    pub(super) segment_files: u64,
    /// For how long the writer was observed to publish nothing new.
    pub(super) age: Duration,
    /// For how long by its clock and ours, and whether they may be believed.
    pub(super) clocks: Clocks,
}

/// What the writer's clock and ours say of when it spoke. They may be of two machines, and either
/// may have been set meanwhile: shown, and nothing is decided by it once anything was watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clocks {
    /// How long ago that was; `None` if it cannot be so.
    pub(super) age: Option<Duration>,
    /// By how much at least they disagree, if it cannot be so.
    pub(super) apart: Option<Duration>,
}

impl Clocks {
    /// Of what is seen now for the first time, and was said at most so long ago.
    fn of(said: SystemTime, at_most: Option<Duration>) -> Clocks {
        let said = said.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(said);
        let before = at_most.map_or(Duration::ZERO, |most| age.saturating_sub(most));
        let apart = said.saturating_sub(now).max(before);
        match apart > CLOCKS_AGREE {
            true => Clocks { age: None, apart: Some(apart) },
            false => Clocks { age: Some(age), apart: None },
        }
    }

    /// The age after some time more.
    fn after(self, time: Duration) -> Clocks {
        Clocks { age: self.age.map(|age| age + time), ..self }
    }
}

/// What happened in some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    pub(super) seconds: f64,
    pub(super) records: u64,
    /// All that only the writer knows.
    pub(super) work: Option<Work>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    pub(super) record_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) flushes: u64,
    pub(super) flush_nanos: Histogram,
    pub(super) group_records: Histogram,
}

/// How a log is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// No process has it open.
    Closed,
    Running,
    Idle,
    /// A flush does not end.
    Stalled,
    /// A flush was under way when the process last published, which is long ago.
    Silent,
    Failed,
}

impl Activity {
    /// All since the log was opened.
    pub(super) fn of(published: &Published) -> Activity {
        Activity::in_time(&Stats::default(), &published.stats, published.open_for)
    }

    /// Between two times that the log said what it had done: in the time between two looks, or, if
    /// the log did not rest as long, between the two.
    fn between(before: &Published, after: &Published, looks: Duration) -> Activity {
        let all = after.open_for.saturating_sub(before.open_for);
        let active = all.saturating_sub(after.quiet_for.saturating_sub(before.quiet_for));
        Activity::in_time(&before.stats, &after.stats, looks.clamp(active, all))
    }

    fn in_time(before: &Stats, after: &Stats, time: Duration) -> Activity {
        let rise = |of: fn(&Stats) -> u64| of(after).saturating_sub(of(before));
        let work = Work {
            record_bytes: rise(|s| s.record_bytes),
            written_bytes: rise(|s| s.written_bytes),
            flushes: rise(|s| s.flushes),
            flush_nanos: after.flush_nanos.since(&before.flush_nanos),
            group_records: after.group_records.since(&before.group_records),
        };
        Activity { seconds: time.as_secs_f64(), records: rise(|s| s.records), work: Some(work) }
    }

    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(1e-9)
    }
}

impl Look {
    pub(super) fn published(&self) -> Option<&Published> {
        self.writer.as_ref()?.published.as_ref()
    }

    pub(super) fn health(&self) -> Health {
        let Some(writer) = &self.writer else { return Health::Closed };
        let busy = self.activity.as_ref().is_some_and(|a| a.records > 0);
        let Some(Published { stats, failure, .. }) = &writer.published else {
            return if busy { Health::Running } else { Health::Idle };
        };
        if failure.is_some() {
            return Health::Failed;
        }
        match (stats.flushes_under_way > 0, self.age > SILENT_AFTER) {
            (true, true) => Health::Silent,
            (true, false) if stats.oldest_flush_nanos > STALLED_AFTER.as_nanos() as u64 => Health::Stalled,
            (false, true) => Health::Idle,
            _ if busy => Health::Running,
            // Nothing was watched yet: what clocks say is all that there is.
            (true, _) if self.activity.is_none() => Health::Running,
            _ if self.activity.is_none() && self.clocks.age.is_none_or(|age| age <= SILENT_AFTER) => Health::Running,
            _ => Health::Idle,
        }
    }
}

impl Health {
    pub(super) fn name(self) -> &'static str {
        match self {
            Health::Closed => "closed",
            Health::Running => "running",
            Health::Idle => "idle",
            Health::Stalled => "stalled",
            Health::Silent => "silent",
            Health::Failed => "failed",
        }
    }
}

impl Watch {
    pub(super) fn new(dir: &Path) -> Watch {
        Watch { dir: dir.to_owned(), view: None, heard: None, looked: Instant::now(), seen: None }
    }

    pub(super) fn look(&mut self) -> Result<Look, Failure> {
        let writer = inspect::writer(&self.dir)?;
        let lock_gone = writer.as_ref().is_some_and(|writer| self.is_lock_gone(writer));
        let (disk_bytes, segment_files) = self.sizes()?;
        let published = writer.as_ref().and_then(|w| w.published.clone());
        let Some(published) = published else {
            self.heard = None;
            return Ok(Look { lock_gone, ..self.look_at_files(writer, disk_bytes, segment_files)? });
        };
        self.seen = None;
        let heard = self.hear(published);
        let age = heard.since.elapsed();
        let still = || Activity { seconds: age.as_secs_f64(), records: 0, work: Some(Work::default()) };
        let published = &heard.published;
        Ok(Look {
            activity: if age > SILENT_AFTER { Some(still()) } else { heard.activity.clone() },
            start: published.stats.start_lsn,
            durable: published.stats.durable_lsn,
            holds: published.holds.clone(),
            holds_unknown: None,
            verdict: None,
            disk_bytes,
            segment_files,
            age,
            clocks: heard.clocks.after(age),
            writer,
            lock_gone,
        })
    }

    /// A writer writes into LOCK before it publishes anything. A process that finds no LOCK creates
    /// an empty one, and is refused. (Where LOCK cannot be read, it cannot be removed, either.)
    fn is_lock_gone(&self, writer: &Writer) -> bool {
        match std::fs::metadata(self.dir.join("LOCK")) {
            Ok(lock) => lock.len() == 0 && writer.published.is_some(),
            // The writer may have closed the log meanwhile, but then LOCK stays.
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Sets what the writer says now against what it said before.
    fn hear(&mut self, published: Published) -> &Heard {
        let (now, since_last) = (Instant::now(), self.looked.elapsed());
        self.looked = now;
        let heard = match self.heard.take() {
            Some(before) if before.published.process == published.process && before.published.open_for <= published.open_for => {
                if before.published.open_for == published.open_for {
                    before
                } else {
                    let activity = Some(Activity::between(&before.published, &published, since_last));
                    let clocks = Clocks::of(published.time, Some(since_last));
                    Heard { published, since: now, clocks, activity }
                }
            }
            // The first time; or another process has the log open, or the same has opened it again:
            // its counters began anew.
            _ => {
                // Its process is running: it was started with this machine or later.
                let since_boot = uptime().map(|up| up.saturating_sub(published.open_for));
                let clocks = Clocks::of(published.time, since_boot);
                Heard { published, since: now, clocks, activity: None }
            }
        };
        self.heard.insert(heard)
    }

    /// What the log's files say, for a log without published figures.
    fn look_at_files(&mut self, writer: Option<Writer>, disk_bytes: u64, segment_files: u64) -> Result<Look, Failure> {
        let view = match &self.view {
            Some(view) => view,
            None => self.view.insert(View::open(&self.dir)?),
        };
        let (durable, now) = (view.last_lsn()?, Instant::now());
        let activity = self.seen.map(|(before, at)| Activity {
            seconds: (now - at).as_secs_f64(),
            records: durable.0.saturating_sub(before.0),
            work: None,
        });
        self.seen = Some((durable, now));
        let verdict = view.verdict();
        let start = view.start_lsn();
        let (holds, holds_unknown) = match view.holds() {
            Ok(holds) => (holds, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        Ok(Look {
            writer,
            lock_gone: false,
            activity,
            start,
            durable,
            holds,
            holds_unknown,
            verdict,
            disk_bytes,
            segment_files,
            age: Duration::ZERO,
            clocks: Clocks::default(),
        })
    }

    /// The bytes of all files in the directory, and how many of them are segments. A file may go
    /// while they are counted.
    fn sizes(&self) -> Result<(u64, u64), Failure> {
        let (mut bytes, mut segments) = (0, 0);
        let entries = match std::fs::read_dir(&self.dir) {
            // Opening it will say what is wrong.
            Err(_) => return Ok((0, 0)),
            Ok(entries) => entries,
        };
        for entry in entries {
            let entry = entry.map_err(Failure::io("list the directory"))?;
            bytes += entry.metadata().map_or(0, |m| if m.is_file() { m.len() } else { 0 });
            segments += u64::from(entry.path().extension().is_some_and(|e| e == "seg"));
        }
        Ok((bytes, segments))
    }
}

/// How long this machine has been running, where it says so.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split(' ').next()?.parse().ok()?).ok()
}
