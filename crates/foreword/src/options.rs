//! How a log is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use crate::Log;
use crate::assemble::room::FRAME_BYTES;
use crate::files::disk::{Disk, OsDisk};
use crate::format::{BLOCK, LSN_MAX, LogId, SEGMENT_BLOCKS_MAX, SEGMENT_BLOCKS_MIN};
use crate::limit::Limit;
use crate::write::runtime::Runtime;
use crate::{Error, Lsn, Result};

/// Recycled segments kept ready, unless more are asked for.
const SPARES_KEPT: usize = 2;
const RECORD_MAX_LIMIT: u64 = (1 << crate::format::LENGTH_BITS) - 1;

/// When records become durable that no caller waits for.
///
/// [`commit`](Log::commit) and [`sync`](Log::sync) return when the records are durable under every
/// policy; the policy is about records that were only [appended](Log::append). Its parts add up:
/// whichever is due first.
///
/// ```
/// use foreword::SyncPolicy;
/// use std::time::Duration;
/// let policy = SyncPolicy::interval(Duration::from_millis(10)).or_every_bytes(1 << 20);
/// assert_eq!(policy.bytes, Some(1 << 20));
/// assert_eq!(SyncPolicy::default(), SyncPolicy::interval(Duration::from_millis(100)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncPolicy {
    /// At the latest so long after an append.
    pub interval: Option<Duration>,
    /// After so many bytes of appended records.
    pub bytes: Option<u64>,
    /// After so many appended records.
    pub records: Option<u64>,
}

impl SyncPolicy {
    /// Only when asked: by `commit`, `sync` and their like, and on close. (And when more than 16
    /// segments are written and not synced: each keeps a file open until then.)
    #[must_use]
    pub const fn manual() -> SyncPolicy {
        SyncPolicy { interval: None, bytes: None, records: None }
    }

    /// In the background, at the latest so long after an append.
    #[must_use]
    pub const fn interval(interval: Duration) -> SyncPolicy {
        SyncPolicy { interval: Some(interval), ..SyncPolicy::manual() }
    }

    /// In the background, after each so many appended records.
    #[must_use]
    pub const fn every_records(records: u64) -> SyncPolicy {
        SyncPolicy { records: Some(records), ..SyncPolicy::manual() }
    }

    /// In the background, after each so many appended bytes.
    #[must_use]
    pub const fn every_bytes(bytes: u64) -> SyncPolicy {
        SyncPolicy { bytes: Some(bytes), ..SyncPolicy::manual() }
    }

    /// This policy, and also after each so many appended bytes.
    #[must_use]
    pub const fn or_every_bytes(self, bytes: u64) -> SyncPolicy {
        SyncPolicy { bytes: Some(bytes), ..self }
    }

    /// This policy, and also after each so many appended records.
    #[must_use]
    pub const fn or_every_records(self, records: u64) -> SyncPolicy {
        SyncPolicy { records: Some(records), ..self }
    }
}

impl Default for SyncPolicy {
    /// Each 100 ms.
    fn default() -> Self {
        SyncPolicy::interval(Duration::from_millis(100))
    }
}

/// What opening does when the evidence says corruption. Whatever it is, the damaged files are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// [`Error::Corruption`]: nothing is changed.
    #[default]
    Refuse,
    /// The log ends at the damage: what follows it is given up, and its LSNs are given to new
    /// records. The files are put aside in `damaged/`.
    StopAtDamage,
    /// What is readable beyond the damage stays, with its LSNs; the LSNs between are given up for
    /// good and answer [`Error::GivenUp`]. A flipped bit costs a frame: the records that were
    /// written with the one that it struck, up to 64 KiB of them, or one larger record or batch. A
    /// copy of each damaged file is put aside in `damaged/`. Where nothing can be read behind the
    /// damage, the log goes on with the first LSN of which nothing is known
    /// ([`RecoveryReport::unknown_from`](crate::RecoveryReport)).
    Salvage,
}

/// Whether opening may make a log, or must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Existence {
    #[default]
    CreateIfMissing,
    MustExist,
    MustNotExist,
}

/// What the hook of [`Options::on_error`] is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackgroundError {
    /// Which log it is.
    pub log: LogId,
    /// What went wrong; it names the file.
    pub error: Error,
}

/// What the hook of [`Options::on_durable`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Durable {
    /// Which log it is.
    pub log: LogId,
    /// The last LSN that is durable: all before it are.
    pub lsn: Lsn,
}

/// What the hook of [`Options::on_rotate`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotated {
    /// Which log it is.
    pub log: LogId,
    /// The segment in which the log has gone on.
    pub epoch: u64,
    /// The LSN of the first record in it.
    pub first_lsn: Lsn,
}

/// Hears of errors that no caller is waiting for.
pub(crate) type ErrorHook = Arc<dyn Fn(BackgroundError) + Send + Sync>;
/// Hears of what has become durable.
pub(crate) type DurableHook = Arc<dyn Fn(Durable) + Send + Sync>;
/// Hears of segments.
pub(crate) type RotateHook = Arc<dyn Fn(Rotated) + Send + Sync>;

/// How a log is opened for writing. The defaults are right for most.
///
/// ```
/// # fn main() -> Result<(), foreword::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// use foreword::Options;
/// let log = Options::new().segment_bytes(1 << 20).open(dir.path())?;
/// log.commit(b"hello")?;
/// log.close()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) existence: Existence,
    pub(crate) first_lsn: Lsn,
    pub(crate) segment_bytes: u64,
    pub(crate) record_bytes_max: u64,
    pub(crate) buffer_bytes: usize,
    pub(crate) spare_segments: usize,
    pub(crate) zero_fill: bool,
    pub(crate) reserve: bool,
    pub(crate) sync: SyncPolicy,
    pub(crate) retain: Limit,
    pub(crate) idle_mark: Option<Duration>,
    pub(crate) on_damage: OnDamage,
    pub(crate) background: bool,
    pub(crate) runtime: Option<Runtime>,
    pub(crate) publish: bool,
    pub(crate) expect_lsn: Lsn,
    pub(crate) expect_id: Option<LogId>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) on_error: Option<ErrorHook>,
    pub(crate) on_durable: Option<DurableHook>,
    pub(crate) on_rotate: Option<RotateHook>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("existence", &self.existence)
            .field("first_lsn", &self.first_lsn)
            .field("segment_bytes", &self.segment_bytes)
            .field("record_bytes_max", &self.record_bytes_max)
            .field("buffer_bytes", &self.buffer_bytes)
            .field("spare_segments", &self.spare_segments)
            .field("zero_fill", &self.zero_fill)
            .field("reserve", &self.reserve)
            .field("sync", &self.sync)
            .field("retain", &self.retain)
            .field("idle_mark", &self.idle_mark)
            .field("on_damage", &self.on_damage)
            .field("background", &self.background)
            .field("runtime", &self.runtime)
            .field("publish", &self.publish)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults: create the log if it is missing, segments of 64 MiB, records up to 64 MiB, a
    /// background sync each 100 ms, refuse damage.
    #[must_use]
    pub fn new() -> Options {
        Options {
            existence: Existence::default(),
            first_lsn: Lsn::FIRST,
            segment_bytes: 64 << 20,
            record_bytes_max: 64 << 20,
            buffer_bytes: 8 << 20,
            spare_segments: 0,
            zero_fill: true,
            reserve: true,
            sync: SyncPolicy::default(),
            retain: Limit::NONE,
            idle_mark: Some(Duration::from_millis(20)),
            on_damage: OnDamage::default(),
            background: true,
            runtime: None,
            publish: false,
            expect_lsn: Lsn::ZERO,
            expect_id: None,
            disk: Arc::new(OsDisk::new()),
            on_error: None,
            on_durable: None,
            on_rotate: None,
        }
    }

    /// `true` (the default): make the log if there is none. `false`: [`Error::NotFound`] then.
    ///
    /// A log is made in a directory of its own, which is made, too, if it is not there. One with
    /// other files in it, and no log, is refused ([`Error::NotALog`]); only `lost+found` may be
    /// there.
    #[must_use]
    pub fn create(mut self, create: bool) -> Options {
        self.existence = if create { Existence::CreateIfMissing } else { Existence::MustExist };
        self
    }

    /// Make a new log; [`Error::AlreadyExists`] if there is one.
    #[must_use]
    pub fn create_new(mut self) -> Options {
        self.existence = Existence::MustNotExist;
        self
    }

    /// The size of a segment file: 64 KiB to 4 GiB, rounded up to 4 KiB; 64 MiB by default. It is
    /// that of new segments: an existing log goes on in this size.
    ///
    /// Each segment costs a file, its place in the directory and two flushes; a cut at the back or
    /// a reader that is told of one reads at most one segment again. So small segments are for
    /// small records: one of 64 MiB lies in a thousand segments of 64 KiB, and takes the better
    /// part of a minute there.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// The largest record, and the largest batch with 4 bytes for each of its records: up to 1 GiB
    /// less a byte; 64 MiB by default. A record larger than a segment spans several.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: u64) -> Options {
        self.record_bytes_max = bytes;
        self
    }

    /// How much may be appended and not yet written before an append has to wait for that: 512 KiB
    /// to 1 GiB; 8 MiB by default. A single record or batch may exceed it.
    ///
    /// As much memory, and up to 2 MiB of it for readers of what was written last, a log that has
    /// written so fast has for the next time; one that falls [idle](Options::idle_mark) gives it
    /// back.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Options {
        self.buffer_bytes = bytes;
        self
    }

    /// How many segments are ready behind the one in use when the log is opened: 0 to 256; 0 by
    /// default.
    ///
    /// A segment is filled with zeros before it is used, or a commit there would cost about twice
    /// as much. By default that is done for the next segment while the log fills this one, and so
    /// in the way of its commits. With this, opening does it ahead (it blocks for as long: 64 MiB
    /// may take 0.1 s), and truncation at the front keeps so many dropped segments for reuse, which
    /// need no zeros again. Choose as many as the log fills between two truncations, and no commit
    /// meets zero-filling. It is done with them all before more are made.
    ///
    /// Their space is reserved: within it the disk cannot be full. On a full disk the log opens
    /// with as many as there is room for
    /// ([`Stats::segments_prepared`](crate::Stats::segments_prepared)).
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::Options;
    /// let log = Options::new().segment_bytes(1 << 20).spare_segments(3).open(dir.path())?;
    /// assert_eq!(log.stats().segments_prepared, 3);
    /// # log.close() }
    /// ```
    #[must_use]
    pub fn spare_segments(mut self, segments: usize) -> Options {
        self.spare_segments = segments;
        self
    }

    /// Whether a new segment is filled with zeros before it is used (the default). Without, its
    /// space is only reserved: the log writes half as many bytes where segments are not used again,
    /// and a commit takes about twice as long, for the file system notes with each which blocks are
    /// written. For disks that wear, and where records come in bulk. A file system that reserves no
    /// space gets the zeros all the same.
    #[must_use]
    pub fn zero_fill(mut self, fill: bool) -> Options {
        self.zero_fill = fill;
        self
    }

    /// Whether the log keeps room for itself (the default): two files of up to 384 KiB, from which
    /// it opens, truncates and takes holds on a full disk. Without, it may need some freed first:
    /// for very many small logs, where that space counts. Files that are there already stay, and
    /// serve.
    ///
    /// What was used of them is made again when the log frees space, or has space for a segment.
    /// Where another program frees it, the background finds that within a minute: it tries after
    /// half a second, one second, two, and so on.
    #[must_use]
    pub fn reserve(mut self, reserve: bool) -> Options {
        self.reserve = reserve;
        self
    }

    /// When records become durable that no caller waits for.
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Options {
        self.sync = policy;
        self
    }

    /// Has the log drop its oldest records by itself: whole segments, when the records behind them
    /// are as many bytes as the limit says, or when theirs are older. By default ([`Limit::NONE`])
    /// it drops nothing. It stops at [holds](Log::hold), as [`Log::truncate_front`] does, which it
    /// calls in effect, in the background: when a segment is full, and when the oldest has become
    /// too old. Where a hold is in the way, it looks at it again every half second. Nothing without
    /// [`background`](Options::background).
    ///
    /// The newest segment that has records stays. A log to which nothing is appended keeps the
    /// records in it, however old: up to [`segment_bytes`](Options::segment_bytes) of them. To drop
    /// those, too, call
    /// `truncate_front` with the LSN behind the last: the log has no record then. Their space is
    /// freed with the segment, when the log has gone on in another.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Limit, Lsn, Options};
    /// use std::time::Duration;
    /// let week = Duration::from_secs(7 * 86_400);
    /// let log = Options::new().segment_bytes(64 << 10).retain(Limit::bytes(200_000).or_age(week)).open(dir.path())?;
    /// for _ in 0..100 {
    ///     log.commit([0; 10_000])?;
    /// }
    /// while log.start_lsn() < Lsn(60) {
    ///     std::thread::sleep(Duration::from_millis(1));
    /// }
    /// assert!(log.start_lsn() <= Lsn(81), "the last 200,000 bytes are there");
    /// # log.close() }
    /// ```
    #[must_use]
    pub fn retain(mut self, limit: Limit) -> Options {
        self.retain = limit;
        self
    }

    /// How long after its last flush a log is idle: 1 ms to a day; 20 ms by default. Then it writes
    /// a MARK, by one flush more, which says that what came before is durable. That is what tells a
    /// damaged last record from one that was never acknowledged, until the next commit, or closing,
    /// says so: opening after a crash gives up what is damaged behind the last such word, and
    /// refuses what is damaged before it.
    ///
    /// A log whose commits come one by one, further apart than this, makes two flushes for each.
    /// `None`: it makes one, damage to its last commit is taken for a torn write, and readers in
    /// other processes ([`View`](crate::View)) see that commit with the next flush.
    #[must_use]
    pub fn idle_mark(mut self, after: Option<Duration>) -> Options {
        self.idle_mark = after;
        self
    }

    /// What to do about corruption. With anything but [`OnDamage::Refuse`], opening reads and
    /// checks the whole log: it is a repair, not a way to open a log every day.
    #[must_use]
    pub fn on_damage(mut self, action: OnDamage) -> Options {
        self.on_damage = action;
        self
    }

    /// Whether the log has a thread of its own for background work (the default). Without it
    /// nothing is synced by policy, futures make progress only when a call syncs, segments are
    /// prepared by the append that needs them, and removed by the truncation that drops them. No
    /// MARK follows a lone commit ([`idle_mark`](Options::idle_mark)). For deterministic tests.
    #[must_use]
    pub fn background(mut self, background: bool) -> Options {
        self.background = background;
        self
    }

    /// Threads that this log shares with others for its background work; by default it has its own.
    /// See [`Runtime`]. Of no use without [`background`](Options::background).
    #[must_use]
    pub fn runtime(mut self, runtime: &Runtime) -> Options {
        self.runtime = Some(runtime.clone());
        self
    }

    /// Whether the log tells other processes how it is doing: about once a second, if anything has
    /// changed, it writes its counters into the file `STATS` in its directory, for
    /// [`inspect::writer`](crate::inspect::writer) and `foreword top`. Nothing waits for that file,
    /// and nothing is decided by it. Off by default; it takes one thread more. Without
    /// [`background`](Options::background) there is none.
    #[must_use]
    pub fn publish(mut self, publish: bool) -> Options {
        self.publish = publish;
        self
    }

    /// The LSN of the first record, if a log is made: for the copy of one that has lost its front
    /// ([`Log::append_copies`]), or one that goes on from a snapshot. From 1, the default, and
    /// below 2^62. Means nothing for a log that is there.
    #[must_use]
    pub fn first_lsn(mut self, lsn: Lsn) -> Options {
        self.first_lsn = lsn;
        self
    }

    /// An LSN that the caller knows to have been durable. [`Error::RolledBack`] if the log ends
    /// before it, or is not there: the one thing that no evidence inside the directory can show, a
    /// directory put back whole from an old copy.
    #[must_use]
    pub fn expect_lsn(mut self, lsn: Lsn) -> Options {
        self.expect_lsn = lsn;
        self
    }

    /// The identity that the log must have ([`Log::id`]). [`Error::Replaced`] if it is another's:
    /// the wrong disk is mounted, say. [`Error::NotALog`] if there is none: no disk is. So no log
    /// is made.
    #[must_use]
    pub fn expect_id(mut self, id: LogId) -> Options {
        self.expect_id = Some(id);
        self
    }

    /// The file system to use. For tests.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Options {
        self.disk = disk;
        self
    }

    /// The hook that is told of an error that no caller waits for: of a background sync, of a
    /// dropped segment that cannot be removed (it is tried again), or of the last sync when a log
    /// is dropped without [`close`](Log::close). By default a line on standard error. It may use
    /// the log, and close it; a panic in it does no harm.
    #[must_use]
    pub fn on_error(mut self, hook: impl Fn(BackgroundError) + Send + Sync + 'static) -> Options {
        self.on_error = Some(Arc::new(hook));
        self
    }

    /// The hook that is told of records that became durable: each call has the last LSN that is,
    /// and stands for all before it. For an owner with many callbacks waiting, as a Raft storage
    /// has: one call answers all that a flush made durable, and none needs a
    /// [`Commit`](crate::Commit) of its own.
    ///
    /// The LSNs rise from call to call, until [`Log::truncate_back`] gives some of them to other
    /// records: then they go on from there. What was durable when the log was opened is not told,
    /// nor is a failure (see [`on_error`](Options::on_error)). When [`Log::close`] returns, all
    /// that became durable was told; but where a call of the hook waits for that very call, or
    /// makes it, the hook is told of the rest when it returns.
    ///
    /// It runs under no lock and one call at a time, on the log's own thread, the one that flushes
    /// for the [`SyncPolicy`] and for futures: no other call waits for the hook (an append whose
    /// buffers are full flushes itself), but those flushes do, and what waits for them, so be
    /// quick, or hand over to a thread of your own. What came meanwhile is one call. (What is told
    /// last when the log is closed, is told by the call that closes it; without
    /// [`background`](Options::background) all is told by the calls that flush.) It may use the
    /// log, and close it or another: logs whose hooks close each other are all closed. A call that
    /// could not come to its end before the hook does is [`Error::Busy`], as
    /// [`wait_durable`](Log::wait_durable) and [`wait_next`](crate::Reader::wait_next) are without
    /// a time, also on another log of the [`Runtime`]. (A future cannot say so: do not block on
    /// one.) A panic in it does no harm.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Lsn, Options};
    /// let (durable, told) = std::sync::mpsc::channel();
    /// let log = Options::new().segment_bytes(1 << 20).on_durable(move |told| _ = durable.send(told.lsn)).open(dir.path())?;
    /// log.append("one")?;
    /// log.append("two")?;
    /// log.close()?;
    /// assert_eq!(told.try_iter().last(), Some(Lsn(2)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_durable(mut self, hook: impl Fn(Durable) + Send + Sync + 'static) -> Options {
        self.on_durable = Some(Arc::new(hook));
        self
    }

    /// The hook that is told that the log has gone on in another segment: its epoch, and the LSN of
    /// the first record in it. What the segments before it hold is complete and durable by then,
    /// and so is that they are followed: an archiver may copy them
    /// ([`inspect::segments`](crate::inspect::segments) names the files), or a checkpoint be taken
    /// that frees them. In order, and before [`on_durable`](Options::on_durable) tells of a record
    /// in it. A cut at the back begins another segment, too. That of which the log goes on when it
    /// is opened is not told.
    ///
    /// It runs as [`on_durable`](Options::on_durable) does, and where that does.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use foreword::{Lsn, Options};
    /// let (rotated, told) = std::sync::mpsc::channel();
    /// let log = Options::new().segment_bytes(64 << 10).on_rotate(move |told| _ = rotated.send(told)).open(dir.path())?;
    /// for _ in 0..10 {
    ///     log.commit([0; 10_000])?;
    /// }
    /// log.close()?;
    /// let told = told.recv().unwrap();
    /// assert!(told.log == log.id() && told.epoch > 1 && told.first_lsn > Lsn::FIRST);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_rotate(mut self, hook: impl Fn(Rotated) + Send + Sync + 'static) -> Options {
        self.on_rotate = Some(Arc::new(hook));
        self
    }

    pub(crate) fn segment_blocks(&self) -> u32 {
        self.segment_bytes.div_ceil(BLOCK as u64) as u32
    }

    /// How many recycled segments are kept ready; others are removed.
    pub(crate) fn spares_kept(&self) -> usize {
        SPARES_KEPT.max(self.spare_segments)
    }

    /// How many buffers of a frame a log has at most between one use and the next.
    pub(crate) fn buffers(&self) -> usize {
        self.buffer_bytes / FRAME_BYTES
    }

    pub(crate) fn check(&self) -> Result<()> {
        let within = |what, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::Invalid { what, why: format!("{value} is not between {min} and {max}") })
        };
        let blocks = |n: u32| u64::from(n) * BLOCK as u64;
        within("segment_bytes", self.segment_bytes, blocks(SEGMENT_BLOCKS_MIN), blocks(SEGMENT_BLOCKS_MAX))?;
        self.retain.check("retain")?;
        within("first_lsn", self.first_lsn.0, Lsn::FIRST.0, LSN_MAX.0 / 2)?;
        within("record_bytes_max", self.record_bytes_max, 1, RECORD_MAX_LIMIT)?;
        within("buffer_bytes", self.buffer_bytes as u64, 512 << 10, 1 << 30)?;
        within("spare_segments", self.spare_segments as u64, 0, 256)?;
        within("sync.bytes", self.sync.bytes.unwrap_or(1), 1, u64::MAX)?;
        within("sync.records", self.sync.records.unwrap_or(1), 1, u64::MAX)?;
        let micros = self.sync.interval.map_or(1000, |d| d.as_micros().min(u128::from(u64::MAX)) as u64);
        within("sync.interval in microseconds", micros, 100, 86_400_000_000)?;
        let millis = self.idle_mark.map_or(1, |d| d.as_millis().min(u128::from(u64::MAX)) as u64);
        within("idle_mark in milliseconds", millis, 1, 86_400_000)
    }
}
