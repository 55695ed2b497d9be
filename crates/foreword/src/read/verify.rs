//! The check of everything.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::error::Damage;
use crate::files::dir::Dir;
use crate::files::disk::{Disk, OsDisk};
use crate::format::LogId;
use crate::read::view::records_between;
use crate::recovery::{self, Depth, Progress, Verdict};
use crate::{Error, Lsn, Result, View};

/// What [`verify`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What the evidence says. `None`: a writer has the log open; all that it said was durable was
    /// read and is sound.
    pub verdict: Option<Verdict>,
    /// The log's identity.
    pub id: LogId,
    /// The first LSN.
    pub start_lsn: Lsn,
    /// The last that is readable, and that recovery would return.
    pub last_lsn: Lsn,
    /// The last of which it is proven that it is durable. What lies between may be in the page
    /// cache alone, and be gone after a power failure, until the log is opened for writing.
    pub proven_lsn: Lsn,
    /// How many records are readable: all from the first LSN to the last but for those given up.
    pub records: u64,
    /// Segments of the log.
    pub segments: usize,
    /// Bytes of frames that were read and checked.
    pub checked_bytes: u64,
    /// Garbled sectors behind the end, where nothing was acknowledged.
    pub garbled_sectors: u64,
    /// LSNs that were given up in earlier repairs.
    pub given_up: Vec<(Lsn, Lsn)>,
    /// Why nobody knows what other processes ask to be kept, if that is so
    /// ([`Error::HoldsDamaged`], [`Error::Io`]): then nothing is dropped. The log itself is sound
    /// or not for all that.
    pub holds_unknown: Option<Error>,
}

/// How far a check is; see [`Verify::progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Done so far: bytes, or LSNs where a writer has the log open.
    pub done: u64,
    /// Of about so many.
    pub total: u64,
}

/// Reads and checks the whole log in a directory; changes nothing. To hear how far it is, or to end
/// it early, see [`Verify`].
///
/// Damage is not an error here but a verdict.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotALog`], [`Error::UnsupportedVersion`], [`Error::Io`].
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport> {
    Verify::new().run(dir)
}

/// How the check is told.
type Hook<'a> = dyn FnMut(VerifyProgress) -> ControlFlow<()> + 'a;

/// A check of a whole log, with options.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?.commit(b"one")?;
/// use foreword::{Error, Verify};
/// use std::ops::ControlFlow;
/// use std::time::{Duration, Instant};
/// let started = Instant::now();
/// let checked = Verify::new().progress(|now| {
///     println!("{} of {}", now.done, now.total);
///     if started.elapsed() < Duration::from_secs(60) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// });
/// match checked.run(dir.path()) {
///     Err(Error::Canceled) => println!("it takes too long"),
///     report => assert_eq!(report?.records, 1),
/// }
/// # Ok(()) }
/// ```
pub struct Verify<'a> {
    disk: Arc<dyn Disk>,
    progress: Box<Hook<'a>>,
}

impl std::fmt::Debug for Verify<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verify").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl Default for Verify<'_> {
    fn default() -> Self {
        Verify::new()
    }
}

impl<'a> Verify<'a> {
    /// As [`verify`] does it.
    #[must_use]
    pub fn new() -> Verify<'a> {
        Verify { disk: Arc::new(OsDisk::new()), progress: Box::new(|_| ControlFlow::Continue(())) }
    }

    /// The file system to use.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Verify<'a> {
        self.disk = disk;
        self
    }

    /// Is told now and then how far the check is, on the thread that makes it. `Break` ends it, with
    /// [`Error::Canceled`].
    #[must_use]
    pub fn progress(mut self, hook: impl FnMut(VerifyProgress) -> ControlFlow<()> + 'a) -> Verify<'a> {
        self.progress = Box::new(hook);
        self
    }

    /// Makes the check.
    ///
    /// # Errors
    /// As [`verify`]; [`Error::Canceled`].
    pub fn run(mut self, dir: impl AsRef<Path>) -> Result<VerifyReport> {
        verify_on(self.disk, dir.as_ref(), &mut |done, total| match (self.progress)(VerifyProgress { done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Canceled),
        })
    }
}

fn verify_on(disk: Arc<dyn Disk>, dir: &Path, progress: Progress<'_>) -> Result<VerifyReport> {
    let dir = Dir::open(&*disk, dir)?;
    // Beside a writer the reader itself looks again; and what is found twice alike is there: all of
    // a large log is read for it.
    let found = RefCell::new(None);
    let doubtful = |looked: &Result<VerifyReport>, writer: bool| match looked {
        _ if writer => Ok(false),
        Ok(VerifyReport { verdict: Some(Verdict::Corruption(damage)), .. }) => {
            let before = found.replace(Some(damage.clone()));
            Ok(before.as_ref() != Some(damage))
        }
        Err(error) => Ok(matches!(error, Error::Io { .. } | Error::Corruption(_))),
        // It was closed when its end was read; what a writer that is there now has written since is
        // to be in it.
        Ok(VerifyReport { verdict: Some(Verdict::Clean), .. }) => dir.has_writer(),
        Ok(_) => Ok(true),
    };
    dir.look(
        doubtful,
        |writer| if writer { verify_beside_writer(disk.clone(), &dir, progress) } else { verify_at_rest(&dir, progress) },
    )
}

fn verify_at_rest(dir: &Dir, progress: Progress<'_>) -> Result<VerifyReport> {
    let survey = dir.there(recovery::survey(dir, dir.names()?, Depth::All, &[], progress)?)?;
    let (start_lsn, last_lsn, given_up) = (survey.control.start, survey.last_lsn(), survey.control.lost());
    Ok(VerifyReport {
        id: survey.log,
        start_lsn,
        last_lsn,
        proven_lsn: survey.proven_lsn(),
        records: records_between(start_lsn, last_lsn.next(), &given_up),
        segments: survey.chain.len(),
        checked_bytes: survey.scanned,
        garbled_sectors: survey.garbled_behind,
        given_up,
        holds_unknown: dir.wishes(survey.log).err(),
        verdict: Some(survey.verdict),
    })
}

/// Reads all that the writer says is durable.
fn verify_beside_writer(disk: Arc<dyn Disk>, dir: &Dir, progress: Progress<'_>) -> Result<VerifyReport> {
    let view = View::of(disk, dir.clone())?;
    let mut reader = view.reader_at(Lsn::ZERO);
    let (start_lsn, last_lsn) = (view.start_lsn(), view.last_lsn()?);
    let (mut checked_bytes, records) = (0, last_lsn.0.saturating_sub(start_lsn.0) + 1);
    let mut verdict = None;
    loop {
        let at = reader.position();
        match reader.next() {
            Ok(Some(record)) if record.lsn <= last_lsn => checked_bytes += record.data.len() as u64,
            Ok(_) => break,
            Err(Error::Corruption(damage)) => {
                verdict = Some(Verdict::Corruption(Damage::clone(&damage)));
                break;
            }
            Err(Error::Dropped { start, .. }) => reader.seek(start),
            Err(Error::Cut { .. }) => {}
            Err(error) => return Err(error),
        }
        if at.0 % 4096 == 0 {
            progress(at.0.saturating_sub(start_lsn.0), records)?;
        }
    }
    // Before the damage.
    let last_lsn = if verdict.is_some() { reader.position().prev() } else { last_lsn };
    Ok(VerifyReport {
        verdict,
        id: view.id(),
        start_lsn,
        last_lsn,
        proven_lsn: last_lsn,
        records: view.records_between(start_lsn, last_lsn.next()),
        segments: view.segments(),
        checked_bytes,
        garbled_sectors: 0,
        given_up: view.given_up(),
        holds_unknown: view.holds().err(),
    })
}
