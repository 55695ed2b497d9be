//! Target `options`: a log opened with any options, absurd ones too, on a small disk: either an
//! error that the documentation foretells, or a log that works.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use foreword::{Error, Log, LogId, Lsn, OnDamage, Options, Result, SyncPolicy};
use foreword_sim::SimDisk;

use crate::oracle::{self, DIR};

/// What the disk has room for.
const ROOM: u64 = 8 << 20;

/// A case: a log is made, worked with, closed, and opened again.
#[derive(Debug, Arbitrary)]
struct Case {
    first: Knobs,
    work: Vec<Step>,
    second: Knobs,
}

/// What an option is not given for is left at a default.
#[derive(Debug, Arbitrary)]
struct Knobs {
    existence: Existence,
    segment_bytes: Option<Number>,
    record_bytes_max: Option<Number>,
    buffer_bytes: Option<Number>,
    interval: Option<(u64, u32)>,
    sync_bytes: Option<u64>,
    sync_records: Option<u64>,
    on_damage: u8,
    background: bool,
    expect_lsn: Option<u64>,
    expect_id: Option<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Arbitrary)]
enum Existence {
    May,
    Must,
    MustNot,
}

/// Near a power of two, where the bounds are; or anywhere.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Number {
    Near(u8, i8),
    Any(u64),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Id {
    Right,
    Other([u8; 16]),
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Step {
    Append(Len),
    Commit(Len),
    Checkpoint(Len),
    Batch(u8, u16),
    Write,
    Sync,
    TruncateFront(u8),
    TruncateBack(u8),
    Hold(u8),
}

/// Up to 300 KB: more than the smallest segments take.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Len {
    Small(u8),
    Large(u16),
    /// So many more than are allowed.
    Over(u8),
}

impl Number {
    fn value(self) -> u64 {
        match self {
            Number::Near(power, plus) => (1u64 << (power % 64)).wrapping_add_signed(plus.into()),
            Number::Any(value) => value,
        }
    }
}

impl Len {
    fn bytes(self, max: u64) -> usize {
        let bytes = match self {
            Len::Small(n) => u64::from(n),
            Len::Large(n) => 5 * u64::from(n),
            Len::Over(n) => max.saturating_add(n.into()),
        };
        bytes.min(300_000) as usize
    }
}

impl Knobs {
    fn segment(&self) -> u64 {
        self.segment_bytes.map_or(64 << 10, Number::value)
    }

    fn record(&self) -> u64 {
        self.record_bytes_max.map_or(64 << 20, Number::value)
    }

    fn buffer(&self) -> u64 {
        self.buffer_bytes.map_or(8 << 20, Number::value)
    }

    fn interval(&self) -> Option<Duration> {
        let (seconds, nanos) = self.interval?;
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
    }

    fn options(&self, disk: &SimDisk, right: LogId) -> Options {
        let mut sync = SyncPolicy::manual();
        (sync.interval, sync.bytes, sync.records) = (self.interval(), self.sync_bytes, self.sync_records);
        let actions = [OnDamage::Refuse, OnDamage::StopAtDamage, OnDamage::Salvage];
        let options = Options::new()
            .segment_bytes(self.segment())
            .record_bytes_max(self.record())
            .buffer_bytes(usize::try_from(self.buffer()).unwrap_or(usize::MAX))
            .sync(sync)
            .on_damage(actions[usize::from(self.on_damage) % actions.len()])
            .background(self.background)
            .expect_lsn(Lsn(self.expect_lsn.unwrap_or(0)))
            .on_error(|_| ())
            .disk(disk.handle());
        let options = match self.existence {
            Existence::May => options,
            Existence::Must => options.create(false),
            Existence::MustNot => options.create_new(),
        };
        match self.expect_id {
            None => options,
            Some(Id::Right) => options.expect_id(right),
            Some(Id::Other(id)) => options.expect_id(LogId(id)),
        }
    }

    /// Whether all values are within the documented bounds.
    fn is_valid(&self) -> bool {
        let times = Duration::from_micros(100)..Duration::from_secs(86_400) + Duration::from_micros(1);
        (64 << 10..=4 << 30).contains(&self.segment())
            && (1..1 << 30).contains(&self.record())
            && (512 << 10..=1 << 30).contains(&self.buffer())
            && self.sync_bytes != Some(0)
            && self.sync_records != Some(0)
            && self.interval().is_none_or(|interval| times.contains(&interval))
    }

    /// Whether opening a log that ends so (`None`: where there is no log) may end in this error.
    fn foretells(&self, error: &Error, log: Option<(LogId, Lsn)>) -> bool {
        match error {
            Error::Invalid { .. } => !self.is_valid(),
            Error::NotFound { .. } => log.is_none() && self.existence == Existence::Must,
            Error::AlreadyExists { .. } => log.is_some() && self.existence == Existence::MustNot,
            Error::NotALog { .. } => log.is_none() && self.expect_id.is_some(),
            Error::Replaced { .. } => {
                log.is_some_and(|(id, _)| matches!(self.expect_id, Some(Id::Other(other)) if LogId(other) != id))
            }
            Error::RolledBack { .. } => self.expect_lsn.unwrap_or(0) > log.map_or(0, |(_, last)| last.0),
            Error::NoSpace { .. } => self.segment() > ROOM / 8,
            _ => false,
        }
    }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(ROOM));
    let Some(log) = open(&case.first, &disk, None) else { return };
    let mut model = Vec::new();
    case.work.iter().take(16).for_each(|&step| work(&log, step, &case.first, &mut model));
    let end = check(&log, &model);
    let closed = log.close();
    assert!(closed.is_ok(), "{closed:?}");
    disk.set_capacity(Some(2 * ROOM));
    if let Some(again) = open(&case.second, &disk, Some(end)) {
        check(&again, &model);
    }
}

/// What the log has: each record with its LSN.
type Model = Vec<(u64, Vec<u8>)>;

fn open(knobs: &Knobs, disk: &SimDisk, end: Option<(LogId, Lsn)>) -> Option<Log> {
    let right = end.map_or(LogId([0; 16]), |(id, _)| id);
    match knobs.options(disk, right).open(DIR) {
        Ok(log) => {
            assert!(knobs.is_valid(), "{knobs:?} was accepted");
            Some(log)
        }
        Err(error) => {
            assert!(knobs.foretells(&error, end), "{error:?} for {knobs:?} and {end:?}");
            None
        }
    }
}

/// Everything in the log is as the model has it, once it is durable. Its identity and last LSN.
fn check(log: &Log, model: &Model) -> (LogId, Lsn) {
    let synced = log.sync();
    assert!(synced.is_ok(), "{synced:?}");
    let read = oracle::read(log.iter(Lsn::ZERO));
    assert!(read.error.is_none(), "{:?}", read.error);
    let records: Model = read.records.into_iter().map(|record| (record.lsn.0, record.data)).collect();
    assert!(records == *model, "{} records, not {}", records.len(), model.len());
    (log.id(), log.last_lsn())
}

fn work(log: &Log, step: Step, knobs: &Knobs, model: &mut Model) {
    let (last, max) = (log.last_lsn(), knobs.record());
    let record = |len: Len| vec![last.0 as u8; len.bytes(max)];
    let one = |len: Len, append: &dyn Fn(&[u8]) -> Result<Lsn>| (vec![record(len)], append(&record(len)));
    let (batch, appended) = match step {
        Step::Append(len) => one(len, &|data| log.append(data)),
        Step::Commit(len) => one(len, &|data| log.commit(data)),
        Step::Checkpoint(len) => one(len, &|data| log.commit_checkpoint(data)),
        Step::Batch(n, len) => {
            let batch = vec![vec![n; usize::from(len) / 4]; usize::from(n % 20)];
            let appended = log.commit_batch(&batch);
            (batch, appended)
        }
        step => return change(log, step, last, model),
    };
    // A batch takes 4 bytes more for each of its records.
    let bytes = (batch.iter().map(Vec::len).sum::<usize>() + if batch.len() == 1 { 0 } else { 4 * batch.len() }) as u64;
    let next = last.next();
    match appended {
        Ok(lsn) => {
            assert!(lsn == next && bytes <= max && !batch.is_empty(), "{bytes} bytes at {lsn}, {next} expected, {max} allowed");
            model.extend((next.0..).zip(batch));
            assert_eq!(log.last_lsn().0, model.last().map_or(0, |(lsn, _)| *lsn));
            return;
        }
        Err(Error::TooLarge { .. }) => {
            assert!(bytes > max || matches!(step, Step::Checkpoint(_)) && bytes > 7000, "{bytes} of {max}")
        }
        Err(Error::Invalid { .. }) => assert!(batch.is_empty()),
        Err(Error::NoSpace { .. }) => {}
        Err(error) => panic!("{step:?}: {error:?}"),
    }
    assert_eq!(log.last_lsn(), last, "all or nothing");
}

/// Steps that append nothing.
fn change(log: &Log, step: Step, last: Lsn, model: &mut Model) {
    let done = match step {
        Step::Write => log.write().map(drop),
        Step::Sync => log.sync().map(drop),
        Step::Hold(lsn) => log.hold("fuzz", Lsn(lsn.into())),
        Step::TruncateFront(lsn) => log.truncate_front(Lsn(lsn.into())).map(|start| model.retain(|(at, _)| *at >= start.0)),
        Step::TruncateBack(lsn) => log.truncate_back(Lsn(lsn.into())).map(|()| model.retain(|(at, _)| *at < u64::from(lsn))),
        _ => Ok(()),
    };
    match (done, step) {
        (Ok(()), _) | (Err(Error::NoSpace { .. }), _) => {}
        (Err(Error::NotAppended { .. }), Step::TruncateFront(lsn) | Step::Hold(lsn)) if u64::from(lsn) > last.0 + 1 => {}
        (Err(Error::NotAppended { .. }), Step::TruncateBack(0)) => {}
        (Err(Error::Dropped { .. }), Step::TruncateBack(lsn)) if Lsn(lsn.into()) < log.start_lsn() => {}
        (Err(error), _) => panic!("{step:?}: {error:?}"),
    }
}
