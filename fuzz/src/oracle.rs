//! Everything that can be asked of a directory, and what must hold of the answers, whatever lies
//! there.

use std::collections::BTreeSet;
use std::fmt;
use std::io::IoSlice;
use std::path::Path;
use std::time::UNIX_EPOCH;

use foreword::disk::{Access, Disk};
use foreword::{Error, Iter, Log, Lsn, OnDamage, Options, Record, Result, SyncPolicy, Verdict, VerifyReport, View, inspect};
use foreword_sim::{Choice, SimDisk};

use crate::forge::{Binding, Files, Frame, epoch_of};

/// Where the log is on the simulated disk.
pub const DIR: &str = "/log";
/// More than can lie in the small files of a case: who returns more goes round in circles.
const MANY: usize = 1 << 20;

/// A disk that has these files, durably.
///
/// # Panics
/// Never: a simulated disk takes what it is given.
#[must_use]
pub fn disk(files: &Files) -> SimDisk {
    let sim = SimDisk::new(1);
    let written = write_files(&*sim.handle(), files);
    assert!(written.is_ok(), "{written:?}");
    sim
}

fn write_files(disk: &dyn Disk, files: &Files) -> std::io::Result<()> {
    let dir = disk.create_dir(Path::new(DIR))?;
    for (name, bytes) in files {
        let file = dir.open(name, Access::Create)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        file.sync()?;
    }
    dir.sync()
}

/// What can be read, and what ended it.
#[derive(Default)]
pub struct Read {
    /// In order.
    pub records: Vec<Record>,
    /// Why there are no more.
    pub error: Option<Error>,
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // (What is written again keeps its time to the second.)
        let second = |record: &Record| record.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let short = |record: &Record| (record.lsn.0, record.data.len(), crc32c::crc32c(&record.data), second(record));
        let lengths = self.records.iter().map(short);
        f.debug_struct("Read").field("lsn_len_crc_second", &lengths.collect::<Vec<_>>()).field("error", &self.error).finish()
    }
}

/// Reads to the end, or to the first error.
///
/// # Panics
/// If there is no end.
#[must_use]
pub fn read(iter: Iter) -> Read {
    let (mut records, mut error) = (Vec::new(), None);
    for item in iter {
        match item {
            Ok(record) => records.push(record),
            Err(e) => error = Some(e),
        }
        assert!(records.len() < MANY, "reading goes on for ever");
        if error.is_some() {
            break;
        }
    }
    Read { records, error }
}

/// What reading showed.
#[derive(Debug)]
pub struct Seen {
    report: VerifyReport,
    read: Read,
}

impl Seen {
    /// Whether the log is sound, as far as anybody can tell.
    fn is_sound(&self) -> bool {
        !matches!(self.report.verdict, Some(Verdict::Corruption(_)))
    }
}

/// Reads in every way there is; `None` if there is no log.
///
/// # Panics
/// If one way says other things than another or than the same way before, anything is written, or a
/// record is returned that no checksum seals.
pub fn look(disk: &SimDisk, files: &Files) -> Option<Seen> {
    let changes = disk.changes();
    inspect_all(disk);
    let seen = look_once(disk);
    let again = look_once(disk);
    assert_eq!(format!("{seen:?}"), format!("{again:?}"), "the same twice");
    assert_eq!(disk.changes(), changes, "reading writes nothing");
    if let Some(seen) = &seen {
        check_sealed(files, &seen.read.records);
    }
    seen
}

fn look_once(disk: &SimDisk) -> Option<Seen> {
    let report = foreword::Verify::new().disk(disk.handle()).run(DIR);
    let view = View::open_on(disk.handle(), DIR).and_then(|view| view.recoverable());
    match (report, view) {
        (Ok(report), Ok(view)) => Some(look_at(report, &view)),
        (Err(a), Err(b)) => {
            assert!(is_no_log(&a) && std::mem::discriminant(&a) == std::mem::discriminant(&b), "{a:?}, {b:?}");
            None
        }
        (report, view) => panic!("verify says {report:?}, a view {view:?}"),
    }
}

/// An error that says that this is no log, or not one for us.
fn is_no_log(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. } | Error::NotALog { .. } | Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. }
    )
}

fn look_at(report: VerifyReport, view: &View) -> Seen {
    let forward = read(view.iter(Lsn::ZERO));
    let given_up = |lsn: u64| report.given_up.iter().any(|(first, last)| (first.0..=last.0).contains(&lsn));
    for pair in forward.records.windows(2) {
        let (one, next) = (pair[0].lsn.0, pair[1].lsn.0);
        assert!(
            one < next && (one + 1 == next || given_up(one + 1) && given_up(next - 1)),
            "LSNs are dense: {one}, {next}, {report:?}"
        );
    }
    if let Some(Verdict::Corruption(damage)) = &report.verdict {
        assert!(matches!(forward.error, None | Some(Error::Corruption(_))), "{:?} for {damage:?}", forward.error);
    } else {
        assert!(forward.error.is_none(), "{:?} for {report:?}", forward.error);
        assert!(forward.records.last().is_none_or(|last| last.lsn == report.last_lsn), "{report:?}");
        let mut backward = read(view.iter_back(Lsn::MAX));
        backward.records.reverse();
        assert!(backward.error.is_none(), "{:?}", backward.error);
        assert!(backward.records == forward.records, "the same backward");
    }
    if let Some(middle) = forward.records.get(forward.records.len() / 2) {
        let got = view.get(middle.lsn);
        assert!(got.as_ref().is_ok_and(|data| *data == middle.data), "LSN {}: {got:?}", middle.lsn);
    }
    Seen { report, read: forward }
}

/// Looks at every structure, sound or not.
fn inspect_all(disk: &SimDisk) {
    let Ok(segments) = inspect::segments_on(disk.handle(), DIR) else { return };
    for segment in segments {
        let Ok(frames) = inspect::frames_on(disk.handle(), DIR, segment.epoch) else { continue };
        let mut end = 0;
        for frame in frames.map_while(Result::ok) {
            assert!(frame.offset == end && frame.bytes > 0, "{frame:?} at {end}");
            end += frame.bytes;
        }
    }
}

/// Each record, or what of it lies in the frame in which it begins, stands in a frame whose
/// checksums hold, at that LSN; and so does what continues it.
fn check_sealed(files: &Files, records: &[Record]) {
    let segments = files.iter().filter_map(|(name, bytes)| Some((Binding::of(bytes, epoch_of(name)?), bytes)));
    let frames: Vec<Frame> = segments.flat_map(|(binding, bytes)| binding.frames(bytes)).collect();
    for Record { lsn, data, .. } in records {
        let begins = |frame: &&Frame| {
            let index = lsn.0.checked_sub(frame.first_lsn).and_then(|index| frame.records.get(index as usize));
            index.is_some_and(|(len, part)| {
                *len == data.len() && data.starts_with(part) && continued(&data[part.len()..], &frames)
            })
        };
        assert!(
            frames.iter().any(|frame| begins(&frame)),
            "record {lsn} was returned, and no checksum seals it: {} bytes",
            data.len()
        );
    }
}

/// Whether a row of heads makes up the rest of a record.
fn continued(rest: &[u8], frames: &[Frame]) -> bool {
    let mut reached = BTreeSet::from([0]);
    while let Some(at) = reached.pop_first() {
        if at == rest.len() {
            return true;
        }
        let heads = frames.iter().map(|frame| &frame.head).filter(|head| !head.is_empty() && rest[at..].starts_with(head));
        reached.extend(heads.map(|head| at + head.len()));
    }
    false
}

/// How these logs are opened.
fn options(disk: &SimDisk) -> Options {
    Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual()).on_error(|_| ()).disk(disk.handle())
}

/// Opens the log for writing, works with it, and opens it again, after a crash or without. The bits
/// of `work`: 1 crash, 2 a hold and a large record, 4 truncation of the front, 8 of the back.
///
/// # Panics
/// If it does not open though it is sound, has not what was read before, does not do what was
/// planned, or loses what is committed now.
pub fn write(disk: &SimDisk, files: &Files, seen: Option<&Seen>, action: OnDamage, work: u8) {
    let plan = foreword::repair_plan_on(disk.handle(), DIR, action);
    let log = match options(disk).on_damage(action).open(DIR) {
        Ok(log) => log,
        Err(error) => return assert!(may_refuse(&error, files, seen, action), "{error:?}, though {seen:?}"),
    };
    let before = read(log.iter(Lsn::ZERO));
    check_sealed(files, &before.records);
    if let Some(seen) = seen.filter(|seen| seen.is_sound()) {
        assert!(before.error.is_none(), "{:?}", before.error);
        assert!(before.records == seen.read.records, "recovery keeps what a view showed");
    }
    if action != OnDamage::Refuse {
        assert!(before.error.is_none(), "a repaired log can be read: {:?}", before.error);
        assert!(
            plan.as_ref().is_ok_and(|plan| plan.last_lsn == log.last_lsn()) || seen.is_none(),
            "{plan:?} ended in {}",
            log.last_lsn()
        );
    }
    // Behind damage in the middle, which opening need not see, only what is new can be read.
    let mut model = if before.error.is_none() { before.records } else { Vec::new() };
    let worked = work_with(&log, work, &mut model);
    assert!(worked.is_ok(), "a log that opened takes records: {worked:?}");
    let after = if work & 1 == 0 {
        let closed = log.close();
        assert!(closed.is_ok(), "{closed:?}");
        disk.copy()
    } else {
        disk.crash(&Choice::Seed(u64::from(work)))
    };
    let again = options(&after).create(false).open(DIR);
    assert!(again.is_ok(), "what was worked with opens: {again:?}, {seen:?}");
    let found = again.map_or(Read::default(), |log| read(log.iter(model[0].lsn)));
    assert_eq!(format!("{found:?}"), format!("{:?}", Read { records: model, error: None }), "found, not what was committed");
}

/// Whether this is a reason not to open a log of which this was seen.
fn may_refuse(error: &Error, files: &Files, seen: Option<&Seen>, action: OnDamage) -> bool {
    match (error, seen) {
        (error, None) => is_no_log(error),
        (Error::Corruption(_), Some(seen)) => !seen.is_sound() && action == OnDamage::Refuse,
        // An LSN from which no log goes on; more damages than a salvage can write down, or it would
        // have to go on above such an LSN.
        (Error::Invalid { .. }, Some(seen)) => {
            seen.report.last_lsn.0 >= 1 << 62 || (!seen.is_sound() && action == OnDamage::Salvage)
        }
        // A file where the directory of damaged files should be.
        (Error::Io { .. }, Some(seen)) => !seen.is_sound() && files.contains_key("damaged"),
        _ => false,
    }
}

/// Appends, cuts and drops; the model does the same.
fn work_with(log: &Log, work: u8, model: &mut Vec<Record>) -> Result<()> {
    let commit = |model: &mut Vec<Record>, batch: &[Vec<u8>]| {
        let first = log.commit_batch(batch)?;
        let mut reader = log.reader();
        for (lsn, data) in (first.0..).map(Lsn).zip(batch) {
            let time = reader.get(lsn)?.time();
            model.push(Record::new(lsn, data.clone(), time));
        }
        Ok::<(), Error>(())
    };
    commit(model, &[vec![work; 10]])?;
    commit(model, &[vec![], vec![1; 5000], vec![2; 3]])?;
    if work & 2 != 0 {
        log.hold("fuzz", log.last_lsn())?;
        // Longer than a segment.
        commit(model, &[vec![3; 100_000]])?;
    }
    if work & 8 != 0 {
        // In the middle, so that there is something to find and to write again, beside what was
        // repaired.
        let kept = model.len() / 2;
        log.truncate_back(model[kept].lsn)?;
        model.truncate(kept);
    }
    if work & 4 != 0 {
        let start = log.truncate_front(log.last_lsn())?;
        model.retain(|record| record.lsn >= start);
    }
    commit(model, &[vec![4; 7]])
}
