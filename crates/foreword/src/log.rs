//! The log, open for writing: what a user calls. What appends is in `append`, what reads in `read`,
//! and what is kept in `keep`.

mod append;
mod keep;
mod read;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use crate::format::LogId;
use crate::observe::stats::{RecoveryReport, Stats};
use crate::open;
use crate::read::source::Source;
use crate::write::background::Background;
use crate::write::inner::LogInner;
use crate::{Error, Lsn, Options, Result};

/// How safe a record is to be before a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In this process's memory: it dies with the process. The log writes it soon: when a buffer is
    /// full, or by the [`SyncPolicy`](crate::SyncPolicy).
    Buffered,
    /// With the operating system: survives the process (a panic, `kill -9`), not the machine.
    Written,
    /// On the disk: survives the machine (power, kernel), as far as the disk keeps its word.
    Synced,
}

/// A write-ahead log, open for writing.
///
/// All methods take `&self` and may be called from any number of threads: put it into an [`Arc`] to
/// share it, and any of them may [`close`](Log::close) it. Dropping a log syncs and closes it, too,
/// but an error of that last sync only reaches [`Options::on_error`]; `close` returns it.
///
/// The log belongs to the process that opened it. In one that is forked from that, calls that would
/// write or wait give [`Error::LockLost`] at once, and so do futures; what was durable at the fork
/// can be read, and dropping it does nothing.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// use foreword::{Log, Lsn};
/// let log = Log::open(dir.path())?;
/// let lsn = log.commit(b"durable when this returns")?;
/// assert_eq!((lsn, log.durable_lsn()), (Lsn(1), Lsn(1)));
/// for record in log.iter(Lsn::ZERO) {
///     println!("{:?}", record?.data);
/// }
/// log.close()?;
/// # Ok(()) }
/// ```
pub struct Log {
    inner: Arc<LogInner>,
    background: Option<Background>,
    report: RecoveryReport,
}

/// What a panic interrupts leaves nothing half changed: the hooks and the disk, of which the
/// compiler cannot know, run where a panic ends with them.
impl UnwindSafe for Log {}
impl RefUnwindSafe for Log {}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.inner.dir.path).field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the log in a directory for writing, recovering it if need be. Blocks: recovery reads
    /// at most what is not known to be durable, and one segment. Makes the directory and its
    /// parents, if it may make a log.
    ///
    /// When it returns, every record in the log is durable.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotFound`], [`Error::AlreadyExists`], [`Error::NotALog`],
    /// [`Error::UnsupportedVersion`], [`Error::UnsupportedFeatures`], [`Error::Corruption`],
    /// [`Error::RolledBack`], [`Error::NoSpace`], [`Error::Invalid`], [`Error::Io`];
    /// [`Error::HoldsDamaged`] and [`Error::Busy`] of a repair, which moves the holds behind the
    /// damage; [`Error::LockLost`] if `LOCK` is removed or replaced meanwhile.
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<Log> {
        self.check()?;
        let (dir, opened) = open::open(self, dir.as_ref())?;
        let report = opened.report.clone();
        let inner = Arc::new(LogInner::new(dir, self.clone(), opened));
        let background = if self.background { Some(Background::start(&inner)?) } else { None };
        Ok(Log { inner, background, report })
    }
}

impl Log {
    /// Opens the log in a directory with the default [`Options`], making it if there is none, with
    /// the directory and those above it. Blocks.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Log> {
        Options::new().open(dir)
    }

    /// How a log may be opened; the same as [`Options::new`].
    #[must_use]
    pub fn options() -> Options {
        Options::new()
    }

    /// The log's identity.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.inner.id
    }

    /// The log's directory, by the path that it was opened by: the names of files in errors begin
    /// with it. A relative one stays so when the process changes its working directory, which makes
    /// no other difference to the log: a daemon opens its logs by absolute paths.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir.path
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// The last LSN that is durable: it and all before it survive the machine. [`Lsn::ZERO`] if
    /// none is. Never waits.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.inner.readable.durable()
    }

    /// The last LSN that the operating system has: it and all before it survive the process.
    #[must_use]
    pub fn written_lsn(&self) -> Lsn {
        self.inner.peek().map_or(self.durable_lsn(), |state| state.flushes.written())
    }

    /// The last LSN that was given out. [`Lsn::ZERO`] if none was.
    #[must_use]
    pub fn last_lsn(&self) -> Lsn {
        self.inner.peek().map_or(self.durable_lsn(), |state| state.last_lsn())
    }

    /// The first LSN of the log: older records were dropped. It need not be there yet, in an empty
    /// log.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.inner.chain().start
    }

    /// Counters and histograms.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The error by which the log accepts nothing more: what poisoned it, or that it was closed.
    /// `None` while it is well. Waits for no disk.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// assert!(log.failure().is_none());
    /// log.close()?;
    /// assert!(matches!(log.failure(), Some(foreword::Error::Closed)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let usable = self.inner.dir.check_process().and_then(|()| self.inner.open_state().map(drop));
        usable.err()
    }

    /// Closes the log: ends the background work (a segment that is being filled is given up), makes
    /// everything durable that was appended, removes what was dropped, marks the log as closed and
    /// gives the lock up. The error of that last sync is returned here. Blocks for that, and for
    /// what other threads are changing in the log ([`truncate_front`](Log::truncate_front),
    /// [`truncate_back`](Log::truncate_back), [`hold`](Log::hold)).
    ///
    /// Any thread may close a log that others use. Their calls give [`Error::Closed`] from then on,
    /// appends that wait for room among them, and commits that were waiting are acknowledged.
    /// Readers go on reading, so the log's files stay open until it and its readers are dropped;
    /// readers that wait for more are told that there is none. To close a log
    /// again waits for the thread that closes it, and returns what that call returned.
    ///
    /// A waker or hook may close the log, too, and logs whose hooks close each other are all
    /// closed: what waits for that very code is not waited for, and comes to its end later. (So a
    /// [hook](Options::on_durable) may be told of the last records after this has returned.) Where
    /// another thread is closing the log already, and may be waiting for this very code, that is
    /// [`Error::Busy`].
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::sync::Arc;
    /// let log = Arc::new(foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?);
    /// let other = log.clone();
    /// let writer = std::thread::spawn(move || while other.append("a record").is_ok() {});
    /// log.close()?; //    all that was appended is durable
    /// log.close()?; //    nothing more to do
    /// writer.join().unwrap();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Poisoned`] if the log had failed, or does now; [`Error::LockLost`] in a forked
    /// process. The log is closed all the same. [`Error::Busy`], which is said only to code that a
    /// call runs: another thread closes the log and waits for it, or it is the log's own disk, or a
    /// subscriber or recorder that hears of that disk's work.
    pub fn close(&self) -> Result<()> {
        self.inner.end(self.background.as_ref())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if self.inner.dir.check_process().is_err() {
            // The threads are not in this process, and what is of them must not be touched.
            std::mem::forget(self.background.take());
            return;
        }
        if self.inner.lock().life.has_ended() {
            return; // The thread that closed it got the error.
        }
        if let Err(error) = self.close() {
            self.inner.report(&error);
        }
    }
}
