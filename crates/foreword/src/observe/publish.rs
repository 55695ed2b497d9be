//! What a log says of itself to other processes: a small text in the file `STATS`, about once a
//! second, while it is open.
//!
//! Nothing is decided by it: it is never synced, an error in writing it is no error of the log, and
//! what a killed process leaves of it is removed by the next writer. `docs/FORMAT.md` has its
//! lines.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::files::dir::Dir;
use crate::files::disk::{Access, DiskFile};
use crate::files::names::STATS;
use crate::files::text::{checked, push_checksum, push_escaped, unescaped};
use crate::files::time::since_1970;
use crate::limit::{Hold, Holds, Limit};
use crate::observe::stats::{Histogram, Stats};
use crate::read::record::time_of;
use crate::read::source::Source;
use crate::write::inner::LogInner;
use crate::write::runtime::Next;
use crate::{Error, Lsn};

/// How often a log says how it is doing, if anything has changed.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
const TITLE: &str = "foreword stats 1";
/// More than any of them has: a bound on what a reader of a strange file takes in.
const BYTES_MAX: usize = 32 << 10;

/// What the process that writes a log said of it last; see
/// [`inspect::writer`](crate::inspect::writer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Published {
    /// The process's id (in its own namespace, if it is in a container).
    pub process: u32,
    /// How long the log had been open.
    pub open_for: Duration,
    /// For how much of that nothing happened, and so nothing was written.
    pub quiet_for: Duration,
    /// When this was written, to the millisecond, by the writer's clock. A log in which nothing
    /// happens writes nothing.
    pub time: SystemTime,
    /// The counters and histograms.
    pub stats: Stats,
    /// The holds, by name.
    pub holds: BTreeMap<String, Hold>,
    /// Why the log accepts nothing more, if it failed.
    pub failure: Option<String>,
}

impl LogInner {
    pub(crate) fn stats(&self) -> Stats {
        let (readers, slowest_reader_lsn) = self.readable.tails.slowest();
        let Some(state) = self.peek() else { return self.counters.read() };
        let (start, holds) = (state.change.control.start, &state.change.control.holds);
        Stats {
            records: state.appended.records,
            record_bytes: state.appended.bytes,
            segments: self.chain().entries.len() as u64,
            segments_prepared: state.spares.ready.len() as u64,
            segments_dropped: state.removals.len() as u64,
            start_lsn: start,
            appended_lsn: state.last_lsn(),
            written_lsn: state.flushes.written(),
            durable_lsn: state.flushes.durable().lsn,
            flushes_under_way: state.flushes.running().count() as u64,
            oldest_flush_nanos: state.flushes.running().map(|started| started.elapsed().as_nanos() as u64).max().unwrap_or(0),
            readers,
            slowest_reader_lsn,
            holds: holds.len() as u64,
            first_held_lsn: holds.values().filter_map(|hold| hold.keeps(start)).min().unwrap_or_default(),
            failed: state.life.failure().is_some_and(|error| !matches!(error, Error::Closed)),
            ..self.counters.read()
        }
    }
}

/// Numbers that are one line each: their names, and their places in the stats.
fn numbers(stats: &mut Stats) -> [(&'static str, &mut u64); 21] {
    [
        ("records", &mut stats.records),
        ("record_bytes", &mut stats.record_bytes),
        ("written_bytes", &mut stats.written_bytes),
        ("flushes", &mut stats.flushes),
        ("rotations", &mut stats.rotations),
        ("segments_created", &mut stats.segments_created),
        ("segments_recycled", &mut stats.segments_recycled),
        ("segments_removed", &mut stats.segments_removed),
        ("segments", &mut stats.segments),
        ("segments_prepared", &mut stats.segments_prepared),
        ("segments_dropped", &mut stats.segments_dropped),
        ("start_lsn", &mut stats.start_lsn.0),
        ("appended_lsn", &mut stats.appended_lsn.0),
        ("written_lsn", &mut stats.written_lsn.0),
        ("durable_lsn", &mut stats.durable_lsn.0),
        ("flushes_under_way", &mut stats.flushes_under_way),
        ("oldest_flush_nanos", &mut stats.oldest_flush_nanos),
        ("readers", &mut stats.readers),
        ("slowest_reader_lsn", &mut stats.slowest_reader_lsn.0),
        ("holds", &mut stats.holds),
        ("first_held_lsn", &mut stats.first_held_lsn.0),
    ]
}

fn histograms(stats: &mut Stats) -> [(&'static str, &mut Histogram); 3] {
    [
        ("flush_nanos", &mut stats.flush_nanos),
        ("group_records", &mut stats.group_records),
        ("rotation_wait_nanos", &mut stats.rotation_wait_nanos),
    ]
}

/// What changes only when something happens. (Writing to a string cannot fail.)
fn encode_state(stats: &mut Stats, holds: &Holds, failure: Option<&Error>, out: &mut String) {
    for (name, number) in numbers(stats) {
        let _ = writeln!(out, "{name} {number}");
    }
    for (name, histogram) in histograms(stats) {
        let _ = write!(out, "{name} {}", histogram.sum);
        for (i, n) in histogram.buckets.iter().enumerate().filter(|(_, n)| **n > 0) {
            let _ = write!(out, " {i}:{n}");
        }
        out.push('\n');
    }
    for (name, hold) in holds {
        let (blocks, seconds) = hold.limit.to_units();
        let _ = write!(out, "hold {} {blocks} {seconds} {} ", hold.lsn, u8::from(hold.lost));
        push_escaped(name, out);
    }
    if let Some(error) = failure {
        out.push_str("failure ");
        push_escaped(&error.to_string(), out);
    }
}

/// `None` if it is not whole, or not of this version.
fn decode(bytes: &[u8]) -> Option<Published> {
    let text = checked(bytes)?;
    // (Not `lines`: a name may end in a carriage return.)
    let mut lines = text.trim_end_matches('\n').split('\n');
    if lines.next() != Some(TITLE) {
        return None;
    }
    let mut published = Published {
        process: 0,
        open_for: Duration::ZERO,
        quiet_for: Duration::ZERO,
        time: UNIX_EPOCH,
        stats: Stats::default(),
        holds: BTreeMap::new(),
        failure: None,
    };
    for line in lines {
        let (name, value) = line.split_once(' ')?;
        match name {
            "process" => published.process = value.parse().ok()?,
            "open_nanos" => published.open_for = Duration::from_nanos(value.parse().ok()?),
            "quiet_nanos" => published.quiet_for = Duration::from_nanos(value.parse().ok()?),
            "unix_millis" => published.time = time_of(value.parse::<u64>().ok()?.checked_mul(1000)?),
            "hold" => {
                let mut parts = value.splitn(5, ' ');
                let mut number = || parts.next()?.parse::<u64>().ok();
                let (lsn, blocks, seconds, lost) = (number()?, number()?, number()?, number()? != 0);
                let limit = Limit::from_units(blocks.try_into().ok()?, seconds.try_into().ok()?);
                published.holds.insert(unescaped(parts.next()?), Hold { lost, ..Hold::new(Lsn(lsn), limit) });
            }
            "failure" => published.failure = Some(unescaped(value)),
            _ => decode_stat(&mut published.stats, name, value)?,
        }
    }
    published.stats.failed = published.failure.is_some();
    Some(published)
}

/// A name that is not known is of a later version, and passed over.
fn decode_stat(stats: &mut Stats, name: &str, value: &str) -> Option<()> {
    if let Some((_, number)) = numbers(stats).into_iter().find(|(n, _)| *n == name) {
        *number = value.parse().ok()?;
    }
    if let Some((_, histogram)) = histograms(stats).into_iter().find(|(n, _)| *n == name) {
        let mut parts = value.split(' ');
        histogram.sum = parts.next()?.parse().ok()?;
        for part in parts {
            let (i, n) = part.split_once(':')?;
            *histogram.buckets.get_mut(i.parse::<usize>().ok()?)? = n.parse().ok()?;
        }
    }
    Some(())
}

/// What the writer published, if it is whole. (One that is being written is whole a moment later.)
pub(crate) fn read(dir: &Dir) -> Option<Published> {
    for _ in 0..5 {
        let file = dir.handle.open(STATS, Access::Read).ok()?;
        let mut bytes = vec![0; BYTES_MAX];
        let n = file.read_full_at(&mut bytes, 0).ok()?;
        if let Some(published) = decode(&bytes[..n]) {
            return Some(published);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Writes the file, in a thread of its own: a disk that stalls is told of, and stalls nothing else.
#[derive(Debug)]
pub(crate) struct Publisher {
    opened: Instant,
    /// When it was last looked whether anything has changed.
    looked: Instant,
    /// How long nothing did.
    quiet: Duration,
    /// Nothing happens, until it is kicked.
    asleep: bool,
    file: Option<Box<dyn DiskFile>>,
    /// What was published, and what is to be; kept for their memory.
    before: String,
    state: String,
    text: String,
}

impl Publisher {
    pub(crate) fn new() -> Publisher {
        let (now, quiet) = (Instant::now(), Duration::ZERO);
        Publisher {
            opened: now,
            looked: now,
            quiet,
            asleep: false,
            file: None,
            before: String::new(),
            state: String::new(),
            text: String::new(),
        }
    }

    /// Says how the log is doing, [`EVERY`] so often while something happens there.
    pub(crate) fn step(&mut self, log: &LogInner) -> Next {
        if log.lock().life.stop {
            return Next::WhenKicked;
        }
        let now = Instant::now();
        if std::mem::take(&mut self.asleep) {
            (self.quiet, self.looked) = (self.quiet + (now - self.looked), now);
        }
        if now < self.looked + EVERY {
            return Next::At(self.looked + EVERY);
        }
        // A flush that ends from here on kicks.
        log.lock().requests.quiet = true;
        let idle = !self.publish(log);
        self.asleep = idle && log.readable.tails.slowest().0 == 0;
        if self.asleep {
            return Next::WhenKicked;
        }
        log.lock().requests.quiet = false;
        Next::At(self.looked + EVERY)
    }

    /// Says how the log is doing: to the recorder of metrics, and, unless nothing has changed, in
    /// the file. Whether something has.
    fn publish(&mut self, log: &LogInner) -> bool {
        let mut stats = log.stats();
        log.counters.meters.tell(&stats);
        let holds = log.known_holds();
        let failure = log.lock().life.failure().cloned();
        self.state.clear();
        encode_state(&mut stats, &holds, failure.as_ref(), &mut self.state);
        let since = self.looked.elapsed();
        self.looked += since;
        if self.state == self.before {
            self.quiet += since;
            return false;
        }
        let unix_millis = since_1970().as_millis();
        let (process, open_nanos) = (std::process::id(), (self.looked - self.opened).as_nanos());
        let quiet_nanos = self.quiet.as_nanos();
        self.text.clear();
        let _ = writeln!(self.text, "{TITLE}\nprocess {process}\nopen_nanos {open_nanos}\nquiet_nanos {quiet_nanos}");
        let _ = write!(self.text, "unix_millis {unix_millis}\n{}", self.state);
        push_checksum(&mut self.text);
        std::mem::swap(&mut self.state, &mut self.before);
        if log.options.publish && self.write(&log.dir).is_err() {
            // Another time, anew: nothing depends on it.
            self.file = None;
            self.before.clear();
        }
        true
    }

    fn write(&mut self, dir: &Dir) -> std::io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(dir.create_anew(STATS)?),
        };
        // What is behind the last line is left of a longer text.
        file.write_all_at(self.text.as_bytes(), 0)
    }

    /// No process has the log open for writing any more.
    pub(crate) fn withdraw(&mut self, log: &LogInner) {
        if self.file.take().is_some() {
            let _ = log.dir.handle.remove(STATS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds() -> Holds {
        let lost = Hold { lost: true, ..Hold::new(Lsn(5), Limit::bytes(8192).or_age(Duration::from_secs(7))) };
        BTreeMap::from([("a b\\n\n\\".to_owned(), lost), ("é".to_owned(), Hold::new(Lsn(6), Limit::NONE))])
    }

    fn text() -> String {
        let mut stats = Stats::default();
        let mut value = 7;
        for (_, number) in numbers(&mut stats) {
            *number = value;
            value *= 3;
        }
        for (_, histogram) in histograms(&mut stats) {
            histogram.sum = value;
            (histogram.buckets[0], histogram.buckets[63]) = (value, 1);
        }
        let mut text =
            format!("{TITLE}\nprocess 1\nopen_nanos 2000000000\nquiet_nanos 5\nunix_millis 3\nfrom_a_later_version 1 2\n");
        encode_state(&mut stats, &holds(), Some(&Error::Closed), &mut text);
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    #[test]
    fn what_is_published_is_read() {
        let mut published = decode(format!("{}left of a longer text\ncrc 00000000\n", text()).as_bytes()).unwrap();
        assert_eq!((published.process, published.open_for, published.time), (1, Duration::from_secs(2), time_of(3000)));
        assert_eq!(published.quiet_for, Duration::from_nanos(5));
        let mut value = 7;
        for (name, number) in numbers(&mut published.stats) {
            assert_eq!(*number, value, "{name}");
            value *= 3;
        }
        for (name, histogram) in histograms(&mut published.stats) {
            assert_eq!((histogram.sum, histogram.count(), histogram.buckets[63]), (value, value + 1, 1), "{name}");
        }
        assert_eq!(published.holds, holds());
        assert_eq!((published.failure.as_deref(), published.stats.failed), (Some("the log is closed"), true));
    }

    #[test]
    fn what_is_not_whole_is_not_there() {
        let text = text();
        let whole = text.trim_end().len();
        for cut in 0..whole {
            assert!(decode(&text.as_bytes()[..cut]).is_none(), "cut at {cut}");
        }
        for byte in 0..whole {
            let mut bytes = text.clone().into_bytes();
            bytes[byte] ^= 1;
            assert!(decode(&bytes).is_none(), "byte {byte}");
        }
        let other = text.replace(TITLE, "foreword stats 2");
        assert!(decode(other.as_bytes()).is_none());
    }
}
