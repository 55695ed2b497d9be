//! Reading without writing: from another process than the writer's, or when there is none. And the
//! check of everything.

mod inner;

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use self::inner::ViewInner;
use crate::error::DamageKind;
use crate::files::dir::Dir;
use crate::files::disk::{Disk, OsDisk};
use crate::files::outside::Outside;
use crate::format::LogId;
use crate::limit::{self, Hold, Holds, Limit};
use crate::read::iter::Iter;
use crate::read::reader::Reader;
use crate::read::record::Record;
use crate::read::source::Source;
use crate::read::watch::Seen;
use crate::recovery::Verdict;
use crate::{Error, Lsn, Result};

/// A log, open for reading only, in any process. It changes no record, and holds no lock for which
/// a writer waits for long. In a process that is forked from this one it goes on, unless another
/// thread was looking with it just then: that is [`Error::LockLost`] there.
///
/// A view shows the records that are proven to be durable. While a writer has the log open, these
/// are the records that it has said are durable: it says so with each flush, and 20 ms after the
/// log fell idle ([`Options::idle_mark`](crate::Options::idle_mark)). After a clean close, they are
/// all records. After a kill, they are those that the log had said are durable by then; what was
/// written behind them may be in the page cache alone, and [`recoverable`](View::recoverable) shows
/// it.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?.commit(b"one")?;
/// let view = foreword::View::open(dir.path())?;
/// assert_eq!(view.get(foreword::Lsn(1))?, b"one");
/// # Ok(()) }
/// ```
///
/// # To follow a log through restarts of its writer
///
/// While a writer has the log open, or after it was killed, a reader of a view waits for more.
/// After a clean close there is no more to wait for: [`wait_next`](Reader::wait_next) and
/// [`next_async`](Reader::next_async) give `None` at once, each time (and a stream ends). When
/// another writer goes on, the same reader reads on; nothing wakes it for that. So a follower takes
/// `None` for "not now", and asks again after a while:
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let options = foreword::Options::new().segment_bytes(1 << 20);
/// # options.open(dir.path())?.close()?;
/// # let (path, again) = (dir.path().to_owned(), options.clone());
/// # let writer = std::thread::spawn(move || for text in ["one", "two", "three"] {
/// #     let log = again.open(&path).unwrap();
/// #     log.commit(text).unwrap();
/// #     log.close().unwrap();
/// #     std::thread::sleep(std::time::Duration::from_millis(20));
/// # });
/// use foreword::View;
/// use std::time::Duration;
/// let view = View::open(dir.path())?;
/// let mut reader = view.reader(); // or at the LSN up to which an earlier run of this process came
/// let mut seen = Vec::new();
/// while seen.len() < 3 {
///     match reader.wait_next(Some(Duration::from_secs(1)))? {
///         Some(record) => seen.push(record.data.to_vec()),
///         None if view.has_writer() => {} //                  nothing for a second
///         None => std::thread::sleep(Duration::from_millis(100)), // no writer now: one may come
///     }
/// }
/// assert_eq!(seen, [&b"one"[..], b"two", b"three"]);
/// # writer.join().unwrap();
/// # Ok(()) }
/// ```
///
/// Where the new writer has cut records off, the next call is [`Error::Cut`]; where the directory
/// was replaced, [`Error::Replaced`].
#[derive(Clone, Debug)]
pub struct View {
    inner: Arc<ViewInner>,
}

impl View {
    /// Opens the log in a directory for reading.
    ///
    /// A damaged log opens, too: what lies before the damage can be read, then comes
    /// [`Error::Corruption`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotALog`], [`Error::UnsupportedVersion`], [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<View> {
        View::open_on(Arc::new(OsDisk::new()), dir)
    }

    /// As [`open`](View::open), on a file system of one's own.
    ///
    /// # Errors
    /// As [`open`](View::open).
    pub fn open_on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>) -> Result<View> {
        let dir = Dir::open(&*disk, dir.as_ref())?;
        View::of(disk, dir)
    }

    /// A view of a directory that is open.
    pub(crate) fn of(disk: Arc<dyn Disk>, dir: Dir) -> Result<View> {
        View::begin(disk, dir, false)
    }

    fn begin(disk: Arc<dyn Disk>, dir: Dir, unproven: bool) -> Result<View> {
        Ok(View { inner: Arc::new(ViewInner::begin(disk, dir, unproven)?) })
    }

    /// The same log, with all that recovery would return now: where no writer has it open, that may
    /// be more than is proven to be durable (see [`recoverable_lsn`](View::recoverable_lsn)). What
    /// is read of it so may be gone after a power failure, and other records have its LSNs then:
    /// for a look after a crash, not for a replica.
    ///
    /// # Errors
    /// As [`open`](View::open).
    pub fn recoverable(&self) -> Result<View> {
        View::begin(self.inner.disk.clone(), self.inner.dir.clone(), true)
    }

    /// The log's identity.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.inner.chain().log
    }

    /// Looks at the log now. What a view says without looking ([`start_lsn`](View::start_lsn),
    /// [`generation`](View::generation), [`cut_since`](View::cut_since),
    /// [`has_writer`](View::has_writer), [`verdict`](View::verdict), [`given_up`](View::given_up),
    /// [`records_between`](View::records_between)) is of the last look; readers that read on, and
    /// all calls that can fail, look by themselves. Waits for the disk alone: it reads the small
    /// files, and what was written since the last look (13 to 61 µs where that was little; beside a
    /// writer of 70 MB/s that kept the disk busy, after 2 s without a look, 0.7 s).
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use foreword::{Lsn, Options, View};
    /// let log = Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// log.commit_batch(&["one", "two"])?;
    /// let view = View::open(dir.path())?;
    /// log.truncate_front(Lsn(2))?;
    /// view.refresh()?;
    /// assert_eq!(view.start_lsn(), Lsn(2));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotFound`], [`Error::Replaced`], [`Error::LockLost`] in a process
    /// that was forked while another thread looked: what was seen before stays.
    pub fn refresh(&self) -> Result<()> {
        self.inner.look(true)
    }

    /// How often records of the log were cut or given up so far ([`Log::truncate_back`], a
    /// salvage), as the view [saw the log last](View::refresh). The number is durable with the cut,
    /// and rises with each. With [`cut_since`](View::cut_since) a program that copies the log, and
    /// was stopped meanwhile, finds out what of its copy still stands.
    ///
    /// [`Log::truncate_back`]: crate::Log::truncate_back
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.inner.chain().generation
    }

    /// The first LSN that may stand for another record now than it did in an earlier
    /// [`generation`](View::generation): all before it is what it was. `None` if nothing was cut
    /// since, as the view [saw the log last](View::refresh).
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Lsn, Options, View};
    /// let log = Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// log.commit_batch(&["one", "two", "three"])?;
    /// let copied = View::open(dir.path())?.generation();
    /// log.truncate_back(Lsn(2))?;
    /// assert_eq!(View::open(dir.path())?.cut_since(copied), Some(Lsn(2)));
    /// # log.close() }
    /// ```
    #[must_use]
    pub fn cut_since(&self, generation: u32) -> Option<Lsn> {
        self.inner.chain().cuts.since(generation)
    }

    /// The first LSN of the log, as the view [saw it last](View::refresh).
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.inner.chain().start
    }

    /// The last LSN that can be read now.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Replaced`].
    pub fn last_lsn(&self) -> Result<Lsn> {
        self.inner.limit(Lsn::MAX)
    }

    /// The last LSN that recovery would return now: that of [`last_lsn`](View::last_lsn), or beyond
    /// it where no writer has the log open and it was not closed.
    ///
    /// # Errors
    /// As [`last_lsn`](View::last_lsn).
    pub fn recoverable_lsn(&self) -> Result<Lsn> {
        self.inner.limit(Lsn::MAX)?;
        Ok(self.inner.seen(|seen| seen.recoverable))
    }

    pub(crate) fn segments(&self) -> usize {
        self.inner.chain().entries.len()
    }

    /// Whether a writer had the log open when the view [saw it last](View::refresh).
    #[must_use]
    pub fn has_writer(&self) -> bool {
        self.inner.seen(Seen::live)
    }

    /// The verdict on the log's tail, if no writer had it open when the view
    /// [saw it last](View::refresh).
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.inner.seen(|seen| seen.verdict.clone())
    }

    /// The holds, by name, with those that the writer has not taken into the log yet.
    ///
    /// # Errors
    /// [`Error::HoldsDamaged`], [`Error::Io`]: these cannot be read. [`Error::Corruption`]: the log
    /// is damaged where it says them. [`Error::NotFound`], [`Error::Replaced`].
    pub fn holds(&self) -> Result<BTreeMap<String, Hold>> {
        let mut looked = Ok(());
        let holds = self.inner.dir.with_outside(self.id(), || {
            looked = self.refresh();
            self.inner.seen(|seen| (seen.chain.start, seen.control.holds.clone()))
        });
        looked.and_then(|()| self.knows_its_holds())?;
        holds.map_err(|error| self.inner.judge(error))
    }

    /// Places or moves a hold, as [`Log::hold`](crate::Log::hold) does in the writer's process; for
    /// a consumer in another process, whether or not a writer has the log open. The hold is durable
    /// when this returns: no truncation that begins after that drops what it keeps. (The file
    /// `HOLDS` has it, until the writer takes it into the log with its next truncation or hold.)
    /// The LSN behind the last keeps all that is to come. While a writer has the log open, one
    /// further on is taken, too, and keeps nothing until the writer has appended it: how far it has
    /// come is not known here. Needs the right to write to the directory; blocks while the writer
    /// truncates, for a tenth of a second at the most. A log has at most 32 holds, those of its own
    /// process included.
    ///
    /// It writes the small file twice, and syncs it each time: two flushes, one behind the other.
    /// On ext4 on a virtual disk (Linux 6.18) it took 121 to 176 µs, where a lone commit of 100
    /// bytes took 47 to 60 (medians of 400 calls, three runs on a machine that did other work,
    /// too). Where the hold stands already nothing is written: 14 to 22 µs. So move a hold once for
    /// many records.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use foreword::{Lsn, Options, View};
    /// let log = Options::new().segment_bytes(1 << 20).open(dir.path())?;
    /// for _ in 0..5 {
    ///     log.commit("a record")?;
    /// }
    /// // In another process:
    /// let view = View::open(dir.path())?;
    /// view.hold("an archiver", Lsn(3))?;
    /// // In the writer's:
    /// assert_eq!(log.truncate_front(Lsn(5))?, Lsn(3));
    /// # log.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Dropped`] if the LSN is gone; [`Error::NotAppended`] if no writer has the log open,
    /// and the LSN is more than one beyond what recovery would return; [`Error::HoldLost`] if the
    /// hold is [lost](Hold::lost): release it, and begin anew. [`Error::HoldsDamaged`],
    /// [`Error::Corruption`] as [`holds`](View::holds). [`Error::Busy`]: the writer, or another
    /// consumer, has the file for long. [`Error::Invalid`] as `Log::hold`: a 33rd hold, a wrong
    /// name, or a limit of 0. [`Error::NoSpace`]: the first hold that another process asks for
    /// takes 32 KiB. [`Error::Io`]: it may be placed or not. [`Error::Replaced`].
    pub fn hold(&self, name: &str, lsn: Lsn) -> Result<()> {
        self.place_hold(name, lsn, None)
    }

    /// The same, with a limit; see [`Log::hold_up_to`](crate::Log::hold_up_to).
    ///
    /// # Errors
    /// As [`hold`](View::hold).
    pub fn hold_up_to(&self, name: &str, lsn: Lsn, limit: Limit) -> Result<()> {
        self.place_hold(name, lsn, Some(limit))
    }

    fn place_hold(&self, name: &str, lsn: Lsn, limit: Option<Limit>) -> Result<()> {
        limit::check_hold(name, limit)?;
        let (mut outside, holds) = self.outside()?;
        // (How far a writer has come is not known here.)
        let last = self.inner.seen(|seen| (!seen.live()).then_some(seen.recoverable));
        let hold = limit::place(name, lsn, limit, (self.start_lsn(), last), &holds)?;
        if holds.get(name) == Some(&hold) { Ok(()) } else { outside.place(name, hold) }
    }

    /// Releases a hold, as [`Log::release`](crate::Log::release) does in the writer's process:
    /// whether there was one of that name.
    ///
    /// # Errors
    /// As [`hold`](View::hold).
    pub fn release(&self, name: &str) -> Result<bool> {
        // (Making the file of holds for nothing would take space.)
        if !self.holds()?.contains_key(name) {
            return Ok(false);
        }
        let (mut outside, holds) = self.outside()?;
        let there = holds.contains_key(name);
        if there {
            outside.release(name, &self.inner.seen(|seen| seen.control.holds.clone()))?;
        }
        Ok(there)
    }

    /// The holds stand in the log's last frames: where damage ends what can be read, those that
    /// were placed behind it are not known.
    fn knows_its_holds(&self) -> Result<()> {
        match self.verdict() {
            Some(Verdict::Corruption(damage)) if damage.kind != DamageKind::Identity => Err(Error::Corruption(Arc::new(damage))),
            _ => Ok(()),
        }
    }

    /// Takes the lock on what other processes ask for, and looks at the log then: the holds that
    /// there are.
    fn outside(&self) -> Result<(Outside, Holds)> {
        // (Nothing is made in a directory that another log has taken, or none is in.)
        self.refresh()?;
        let mut outside = self.inner.dir.outside(self.id()).map_err(|error| self.inner.judge(error))?;
        outside.settle()?; // What is there already is no news, and is to last.
        self.refresh()?;
        self.knows_its_holds()?;
        let mut holds = self.inner.seen(|seen| seen.control.holds.clone());
        outside.apply(&mut holds);
        Ok((outside, holds))
    }

    /// LSNs that were given up in repairs: first and last of each stretch, as the view
    /// [saw the log last](View::refresh).
    #[must_use]
    pub fn given_up(&self) -> Vec<(Lsn, Lsn)> {
        self.inner.seen(|seen| seen.control.lost())
    }

    /// How many records there are from one LSN up to another: without those that were dropped,
    /// those that repairs gave up, and those beyond the last that can be read; as the view
    /// [saw the log last](View::refresh).
    #[must_use]
    pub fn records_between(&self, from: Lsn, to: Lsn) -> u64 {
        let last = self.inner.seen(|seen| seen.limit(self.inner.unproven));
        records_between(from.max(self.start_lsn()), to.min(last.next()), &self.given_up())
    }

    /// A reader that stands before the first record; see [`Log::reader`](crate::Log::reader).
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader_at(Lsn::ZERO)
    }

    /// A reader that stands before a record; see [`Log::reader_at`](crate::Log::reader_at).
    #[must_use]
    pub fn reader_at(&self, lsn: Lsn) -> Reader {
        Reader::new(self.inner.clone(), lsn)
    }

    /// Iterates over the records from an LSN on; see [`Log::iter`](crate::Log::iter).
    #[must_use]
    pub fn iter(&self, from: Lsn) -> Iter {
        Iter::forward(self.reader_at(from))
    }

    /// Iterates over the records with LSNs in a range; see [`Log::range`](crate::Log::range).
    #[must_use]
    pub fn range(&self, lsns: impl RangeBounds<Lsn>) -> Iter {
        Iter::range(lsns, |from| self.reader_at(from))
    }

    /// Iterates backward, from an LSN (or the last) to the first; see
    /// [`Log::iter_back`](crate::Log::iter_back).
    #[must_use]
    pub fn iter_back(&self, from: Lsn) -> Iter {
        Iter::backward(self.reader_at(from.next()))
    }

    /// The LSN of the first record that was written at a time or after it, or one of them if the
    /// writer's clock was set back; see [`Log::lsn_at`](crate::Log::lsn_at).
    ///
    /// # Errors
    /// As [`Reader::seek_to_time`].
    pub fn lsn_at(&self, time: SystemTime) -> Result<Lsn> {
        self.reader().seek_to_time(time)
    }

    /// How many bytes the records have from one LSN up to another; see [`Reader::bytes_between`].
    ///
    /// # Errors
    /// As [`Reader::bytes_between`].
    pub fn bytes_between(&self, from: Lsn, to: Lsn) -> Result<u64> {
        self.reader().bytes_between(from, to)
    }

    /// One record; see [`Log::get`](crate::Log::get).
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get(&self, lsn: Lsn) -> Result<Vec<u8>> {
        Ok(self.reader_at(lsn).get(lsn)?.data.to_vec())
    }
}

/// How many records there are from one LSN up to another, where some stretches were given up.
pub(super) fn records_between(from: Lsn, to: Lsn, lost: &[(Lsn, Lsn)]) -> u64 {
    let count = |from: Lsn, to: Lsn| to.0.saturating_sub(from.0);
    let gone: u64 = lost.iter().map(|&(first, last)| count(first.max(from), last.next().min(to))).sum();
    count(from, to).saturating_sub(gone)
}

impl IntoIterator for &View {
    type Item = Result<Record>;
    type IntoIter = Iter;

    /// The records, from the first on: [`iter`](View::iter) from [`Lsn::ZERO`].
    fn into_iter(self) -> Iter {
        self.iter(Lsn::ZERO)
    }
}
