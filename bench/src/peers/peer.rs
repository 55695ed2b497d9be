//! What a contestant is: its name, its setting, and how it is opened, written and read.

use std::path::Path;

use anyhow::{Result, bail};

use crate::window::Window;

/// By this variable alone walrus knows its directory: one for a whole process.
pub(super) const WALRUS_DIR: &str = "WALRUS_DATA_DIR";

/// What a contestant can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A record that is synced when the call returns.
    Commit,
    /// The same for a batch, as one.
    Batch,
    /// Commits in flight from one thread.
    Async,
    /// Records appended without waiting, and one sync at the end.
    Append,
    /// The same from several threads, each of which appends on while others do.
    Together,
    /// Reopening and reading everything.
    Read,
}

/// One contestant.
pub struct Peer {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// Its package, by which its version is found in `Cargo.lock`.
    pub package: &'static str,
    /// How it is configured, and why.
    pub setting: &'static str,
    /// What it lacks, and why.
    pub lacks: &'static [(Feature, &'static str)],
    /// Opens it for writing.
    pub open: fn(&Path, Need) -> Result<Box<dyn Log>>,
    /// Opens it and reads every record, with every checksum that it has verified. Order is its own.
    pub read: fn(&Path, Sink) -> Result<()>,
}

/// What a measurement will ask of a log, for those that prepare for it.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// About how many bytes of records will be written at most.
    pub bytes: u64,
}

/// An open log, shared by the threads of a measurement.
pub trait Log: Send + Sync {
    /// What one of so many threads writes through.
    fn writer(&self, thread: usize) -> Result<Box<dyn Writer + Send + '_>>;

    /// Flushes so far, if it counts them.
    fn flushes(&self) -> Option<u64> {
        None
    }

    /// Closes it in order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// One thread's side of a log.
pub trait Writer {
    /// Returns when the record is synced.
    fn commit(&mut self, _record: &[u8]) -> Result<()> {
        bail!("it never syncs")
    }

    /// Returns when the records are synced, all or none of which survive a crash.
    fn commit_batch(&mut self, _records: &[&[u8]]) -> Result<()> {
        bail!("no batches")
    }

    /// Appends what it is given until there is no more, and then syncs once.
    fn append_all(&mut self, _next: Records<'_>) -> Result<()> {
        bail!("no append without a sync")
    }

    /// Keeps a window of commits in flight from this thread.
    fn commit_window(&mut self, _window: &mut Window) -> Result<()> {
        bail!("no asynchronous commit")
    }
}

/// Gives one record after the other.
pub type Records<'a> = &'a mut dyn FnMut() -> Option<&'static [u8]>;

/// Takes one record after the other. (It owns what it borrows, because some hand it to threads and
/// managers of their own.)
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

impl Peer {
    /// Why it lacks a feature, if it does.
    pub fn lacks(&self, feature: Feature) -> Option<&'static str> {
        self.lacks.iter().find(|(f, _)| *f == feature).map(|(_, why)| *why)
    }

    /// Whether it is no log but the disk.
    pub fn is_floor(&self) -> bool {
        self.package.is_empty()
    }

    /// Its version in this build.
    pub fn version(&self) -> &'static str {
        version(self.package).unwrap_or("")
    }
}

/// The version of a package in this build. (Several of one name: the highest, which is the one that
/// is asked for here.)
fn version(package: &str) -> Option<&'static str> {
    let name = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../../Cargo.lock");
    let at = lock.rfind(&name)? + name.len();
    lock[at..].split('"').next()
}
