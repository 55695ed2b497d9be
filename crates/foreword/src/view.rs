//! Reading without writing: from another process than the writer's, or when there is none. And the check of everything.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::disk::{Disk, OsDisk};
use crate::error::Damage;
use crate::format::{self, Control, FRAME_BLOCKS_MAX, Head, Kind, LINK_BLOCK, Link, LogId, Position};
use crate::reader::{Chain, Iter, Reader, Source};
use crate::recovery::{self, Depth, Survey, Verdict};
use crate::segment::{Dir, Found};
use crate::{Error, Lsn, Result};

/// How often a reader that waits looks whether there is more.
const POLL: Duration = Duration::from_millis(5);
/// How often it looks while nobody has the log open: then a look reads what lies behind the end, and only a writer that came and went
/// between can have changed anything.
const POLL_AT_REST: Duration = Duration::from_millis(200);

/// A log, open for reading only. Changes nothing, takes no lock that a writer could meet for long.
///
/// While a writer has the log open, in this process or another, it shows what that has said is durable: the log tells so with each flush, and
/// 20 ms after it fell idle. When none has, because it was closed or killed, it shows exactly what recovery would return.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?.commit(b"one")?;
/// let view = foreword::View::open(dir.path())?;
/// assert_eq!(view.get(foreword::Lsn(1))?, b"one");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct View {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: Dir,
    state: Mutex<State>,
    /// Rises with each change of the chain.
    version: AtomicU64,
}

#[derive(Debug)]
struct State {
    chain: Arc<Chain>,
    control: Control,
    limit: Lsn,
    verdict: Option<Verdict>,
    /// With a writer: how far the tip was read for promises.
    seen: Position,
    live: bool,
    looked: Instant,
}

impl View {
    /// Opens the log in a directory for reading.
    ///
    /// A damaged log opens, too: what lies before the damage can be read, then comes [`Error::Corruption`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotALog`], [`Error::UnsupportedVersion`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<View> {
        View::open_on(Arc::new(OsDisk), dir)
    }

    /// As [`open`](View::open), on a file system of one's own.
    ///
    /// # Errors
    /// As [`open`](View::open).
    pub fn open_on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>) -> Result<View> {
        View::of(Dir::open(&*disk, dir.as_ref())?)
    }

    fn of(dir: Dir) -> Result<View> {
        let state = State::look(&dir, None)?;
        Ok(View { shared: Arc::new(Shared { dir, state: Mutex::new(state), version: AtomicU64::new(0) }) })
    }

    /// The log's identity.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.shared.chain().log
    }

    /// The first LSN of the log.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.shared.chain().start
    }

    /// The last LSN that can be read now.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn last_lsn(&self) -> Result<Lsn> {
        self.shared.limit(Lsn::MAX)
    }

    /// Whether a writer had the log open when it was looked at last.
    #[must_use]
    pub fn has_writer(&self) -> bool {
        self.shared.lock().live
    }

    /// The verdict on the log's tail, if no writer has it open.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.shared.lock().verdict.clone()
    }

    /// The holds, as the log says.
    #[must_use]
    pub fn holds(&self) -> std::collections::BTreeMap<String, Lsn> {
        self.shared.lock().control.holds.clone()
    }

    /// LSNs that were given up in repairs: first and last of each stretch.
    #[must_use]
    pub fn lost(&self) -> Vec<(Lsn, Lsn)> {
        self.shared.lock().control.lost()
    }

    /// A reader that stands before a record ([`Lsn::ZERO`]: the first).
    #[must_use]
    pub fn reader_at(&self, lsn: Lsn) -> Reader {
        Reader::new(self.shared.clone(), lsn)
    }

    /// Iterates over the records from an LSN on.
    #[must_use]
    pub fn iter(&self, from: Lsn) -> Iter {
        Iter::forward(self.reader_at(from))
    }

    /// Iterates backward, from an LSN (or the last) to the first.
    #[must_use]
    pub fn iter_back(&self, from: Lsn) -> Iter {
        Iter::backward(self.reader_at(from.next()))
    }

    /// One record.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get(&self, lsn: Lsn) -> Result<Vec<u8>> {
        Ok(self.reader_at(lsn).get(lsn)?.data.to_vec())
    }
}

impl State {
    fn look(dir: &Dir, before: Option<&State>) -> Result<State> {
        let doubtful = |looked: &Result<State>, writer: bool| match looked {
            // (With a writer, what is readable is what it says is durable; without, what was read is taken for the end of the log.)
            Ok(_) => Ok(!writer),
            Err(error) => Ok(matches!(error, Error::Io { .. } | Error::Corruption(_))),
        };
        dir.look(doubtful, |writer| if writer { State::live(dir, before) } else { State::settled(dir, before) })
    }

    fn settled(dir: &Dir, before: Option<&State>) -> Result<State> {
        let survey = recovery::survey(dir, dir.names()?, Depth::Tail, &[], &mut |_, _| {})?;
        survey.map(|survey| State::from_survey(survey, before)).ok_or_else(|| Error::NotFound { dir: dir.path.clone() })
    }

    fn from_survey(survey: Survey, before: Option<&State>) -> State {
        let Survey { log, verdict, chain, control, next_lsn, .. } = survey;
        let limit = next_lsn.prev();
        let chain = Chain { log, entries: chain, waivers: control.waivers.clone(), start: control.start, cuts: 0 };
        let verdict = Some(verdict);
        let chain = State::same_or_new(chain, limit, before);
        State { chain, control, limit, verdict, seen: Position::default(), live: false, looked: Instant::now() }
    }

    /// With a writer: the chain by its LINKs, and what the frames of its last segments promise.
    fn live(dir: &Dir, before: Option<&State>) -> Result<State> {
        let outline = recovery::outline(dir)?;
        let Some((log, entries, mut control)) = outline else { return Err(Error::NotFound { dir: dir.path.clone() }) };
        let tip = entries.last().map_or(0, |e| e.epoch);
        let known = before.filter(|b| b.live && b.seen.epoch == tip);
        let mut seen = known.map_or(Position::new(tip, LINK_BLOCK), |b| b.seen);
        let mut limit = known.map_or(Lsn::ZERO, |b| b.limit);
        if let Some(known) = known {
            control = known.control.clone();
        }
        let mut buf = Vec::new();
        if let Ok((segment, _)) = dir.open_segment(Some(log), tip, crate::disk::Access::Read)? {
            while seen.block < segment.data_end() {
                let Head::Frame(header) = segment.head(seen.block)? else { break };
                if header.blocks() > FRAME_BLOCKS_MAX {
                    break;
                }
                limit = limit.max(header.promise.lsn);
                if matches!(header.kind, Kind::Mark | Kind::Link) {
                    // Not all of it is there yet: another time.
                    let Found::Frame(whole) = segment.frame(seen.block, segment.data_end(), &mut buf)? else { break };
                    let payload = format::payload(&whole, &buf);
                    let new = match whole.kind {
                        Kind::Link => Link::decode(payload).map(|link| link.control),
                        _ => Control::decode(payload),
                    };
                    control = new.unwrap_or(control);
                }
                seen.block += header.blocks();
            }
        }
        let chain = Chain { log, entries, waivers: control.waivers.clone(), start: control.start, cuts: 0 };
        let chain = State::same_or_new(chain, limit, before);
        Ok(State { chain, control, limit, verdict: None, seen, live: true, looked: Instant::now() })
    }

    /// The chain as it was, if nothing of it has changed: readers go by its identity. A record that was seen and is cut off now is a cut.
    fn same_or_new(mut chain: Chain, limit: Lsn, before: Option<&State>) -> Arc<Chain> {
        let Some(before) = before else { return Arc::new(chain) };
        let cut = limit < before.limit
            || before.chain.entries.iter().any(|old| {
                let gone = !chain.entries.iter().any(|e| e.epoch == old.epoch);
                gone && old.first_lsn > chain.start
            });
        chain.cuts = before.chain.cuts + u64::from(cut);
        let same = !cut
            && chain.entries == before.chain.entries
            && chain.start == before.chain.start
            && chain.waivers == before.chain.waivers;
        if same { before.chain.clone() } else { Arc::new(chain) }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `limit`, for who asks again and again.
    fn limit_for_waiting(&self, beyond: Lsn) -> Result<Lsn> {
        let (at_rest, limit) = {
            let state = self.lock();
            (!state.live && state.limit <= beyond && state.looked.elapsed() < POLL_AT_REST, state.limit)
        };
        if at_rest && !self.dir.has_writer()? { Ok(limit) } else { self.limit(beyond) }
    }
}

impl Source for Shared {
    fn dir(&self) -> &Dir {
        &self.dir
    }

    fn chain(&self) -> Arc<Chain> {
        self.lock().chain.clone()
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn limit(&self, seen: Lsn) -> Result<Lsn> {
        let mut state = self.lock();
        // Many readers of one view ask in turn; one look serves them all.
        let stale = state.looked.elapsed() >= POLL || seen == Lsn::MAX;
        if stale && (seen >= state.limit || state.live) {
            let new = State::look(&self.dir, Some(&state))?;
            if !Arc::ptr_eq(&new.chain, &state.chain) {
                self.version.fetch_add(1, Ordering::Release);
            }
            *state = new;
        }
        Ok(state.limit)
    }

    fn damage(&self) -> Option<Damage> {
        match &self.lock().verdict {
            Some(Verdict::Corruption(damage)) => Some(damage.clone()),
            _ => None,
        }
    }

    fn wait(&self, beyond: Lsn, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        while self.limit_for_waiting(beyond)? <= beyond {
            if self.damage().is_some() {
                return Ok(true); // The next read says so.
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    fn poll(&self, beyond: Lsn, waker: &Waker) -> Poll<Result<bool>> {
        match self.limit_for_waiting(beyond) {
            Ok(limit) if limit > beyond || self.damage().is_some() => Poll::Ready(Ok(true)),
            Ok(_) => {
                // Nobody in this process knows when there is more.
                let waker = waker.clone();
                let spawned = std::thread::Builder::new().name("foreword-wait".into()).spawn(move || {
                    std::thread::sleep(POLL);
                    waker.wake();
                });
                match spawned {
                    Ok(_) => Poll::Pending,
                    Err(e) => {
                        Poll::Ready(Err(Error::Io { doing: "start a thread", path: self.dir.path.clone(), source: Arc::new(e) }))
                    }
                }
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// What the evidence says. `None`: a writer has the log open; all that it said was durable was read and is sound.
    pub verdict: Option<Verdict>,
    /// The log's identity.
    pub id: LogId,
    /// The first LSN.
    pub start_lsn: Lsn,
    /// The last that is readable.
    pub last_lsn: Lsn,
    /// Segments of the log.
    pub segments: usize,
    /// Bytes of frames that were read and checked.
    pub checked_bytes: u64,
    /// Garbled sectors behind the end, where nothing was acknowledged.
    pub garbled_sectors: u64,
    /// LSNs that were given up in earlier repairs.
    pub lost: Vec<(Lsn, Lsn)>,
}

/// Reads and checks the whole log in a directory; changes nothing. `progress` is told how many bytes are done, of about how many.
///
/// Damage is not an error here but a verdict.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotALog`], [`Error::UnsupportedVersion`], [`Error::Io`].
pub fn verify(dir: impl AsRef<Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
    verify_on(Arc::new(OsDisk), dir, progress)
}

/// As [`verify`], on a file system of one's own.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
    let dir = Dir::open(&*disk, dir.as_ref())?;
    // Beside a writer the reader itself looks again; and what is found twice alike is there: all of a large log is read for it.
    let found = RefCell::new(None);
    let doubtful = |looked: &Result<VerifyReport>, writer: bool| match looked {
        _ if writer => Ok(false),
        Ok(VerifyReport { verdict: Some(Verdict::Corruption(damage)), .. }) => {
            let before = found.replace(Some(damage.clone()));
            Ok(before.as_ref() != Some(damage))
        }
        Err(error) => Ok(matches!(error, Error::Io { .. } | Error::Corruption(_))),
        // It was closed when its end was read; what a writer that is there now has written since is to be in it.
        Ok(VerifyReport { verdict: Some(Verdict::Clean), .. }) => dir.has_writer(),
        Ok(_) => Ok(true),
    };
    dir.look(doubtful, |writer| if writer { verify_beside_writer(&dir, progress) } else { verify_at_rest(&dir, progress) })
}

fn verify_at_rest(dir: &Dir, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
    let survey = recovery::survey(dir, dir.names()?, Depth::All, &[], progress)?;
    let survey = survey.ok_or_else(|| Error::NotFound { dir: dir.path.clone() })?;
    Ok(VerifyReport {
        id: survey.log,
        start_lsn: survey.control.start,
        last_lsn: survey.last_lsn(),
        segments: survey.chain.len(),
        checked_bytes: survey.scanned,
        garbled_sectors: survey.garbled_behind,
        lost: survey.control.lost(),
        verdict: Some(survey.verdict),
    })
}

/// Reads all that the writer says is durable.
fn verify_beside_writer(dir: &Dir, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
    let view = View::of(dir.clone())?;
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
            Err(error) => return Err(error),
        }
        if at.0 % 4096 == 0 {
            progress(at.0.saturating_sub(start_lsn.0), records);
        }
    }
    let state = view.shared.lock();
    Ok(VerifyReport {
        verdict,
        id: state.chain.log,
        start_lsn,
        last_lsn,
        segments: state.chain.entries.len(),
        checked_bytes,
        garbled_sectors: 0,
        lost: state.control.lost(),
    })
}
