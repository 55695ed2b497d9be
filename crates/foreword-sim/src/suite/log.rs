//! The log under test: how it is opened, and what is read of it.

use std::collections::BTreeMap;

use foreword::{Error, Hold, Log, Lsn, Options, SyncPolicy, Verdict, View};

use super::model::{Checked, Found, violated};
use crate::SimDisk;

/// The log's directory.
pub(crate) const DIR: &str = "/log";

/// The options that decide what is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The size of the log's segments.
    pub segment_bytes: u64,
    /// Whether segments are filled with zeros first.
    pub zero_fill: bool,
    /// Whether the log reserves room for itself.
    pub reserve: bool,
}

impl Shape {
    /// The defaults of a log, with segments as small as can be.
    pub(crate) const SMALL: Shape = Shape::of(64 << 10);

    /// The defaults of a log, with segments of this size.
    pub(crate) const fn of(segment_bytes: u64) -> Shape {
        Shape { segment_bytes, zero_fill: true, reserve: true }
    }
}

/// Options without background threads: the same steps give the same changes of the disk.
pub(crate) fn options(disk: &SimDisk, shape: Shape) -> Options {
    let options = Options::new().segment_bytes(shape.segment_bytes).zero_fill(shape.zero_fill).reserve(shape.reserve);
    options.buffer_bytes(512 << 10).background(false).sync(SyncPolicy::manual()).on_error(|_| ()).disk(disk.handle())
}

/// Everything in a log, read forward.
pub(crate) fn read_log(log: &Log) -> Result<Found, Error> {
    let records = log.iter(Lsn::ZERO).map(|r| r.map(|r| (r.lsn.0, r.data))).collect::<Result<Vec<_>, _>>()?;
    Ok(Found { start: log.start_lsn().0, last: log.durable_lsn().0, records, holds: lsns(log.holds()?) })
}

/// What a view shows of a log that no process has open.
pub(crate) fn view(disk: &SimDisk) -> Result<(Option<Verdict>, Found), Error> {
    let view = View::open_on(disk.handle(), DIR)?.recoverable()?;
    let records = view.iter(Lsn::ZERO).map(|r| r.map(|r| (r.lsn.0, r.data))).collect::<Result<Vec<_>, _>>()?;
    let found = Found { start: view.start_lsn().0, last: view.last_lsn()?.0, records, holds: lsns(view.holds()?) };
    Ok((view.verdict(), found))
}

/// Opens the log and reads all of it.
pub(crate) fn recover(disk: &SimDisk, shape: Shape) -> Checked<(Log, Found)> {
    let log = options(disk, shape).open(DIR);
    match log.and_then(|log| read_log(&log).map(|found| (log, found))) {
        Ok(opened) => Ok(opened),
        Err(error) => violated("what a crash leaves opens", error.to_string()),
    }
}

pub(crate) fn summary(found: &Found) -> String {
    format!("records {} to {} (holds {:?})", found.start, found.last, found.holds)
}

fn lsns(holds: BTreeMap<String, Hold>) -> BTreeMap<String, Lsn> {
    holds.into_iter().map(|(name, hold)| (name, hold.lsn)).collect()
}
