//! Looking at a log's files as they are: what `foreword stat` and `foreword dump` print.
//!
//! For people who want to know what is on the disk. Nothing here decides anything, or changes a
//! byte; whether a log is sound, [`verify`](crate::verify) says.
//!
//! ```
//! # fn main() -> Result<(), foreword::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let log = foreword::Options::new().segment_bytes(1 << 20).open(dir.path())?;
//! # log.commit(b"one")?;
//! for segment in foreword::inspect::segments(dir.path())? {
//!     println!("segment {}: {} of {} bytes used", segment.epoch, segment.used_bytes, segment.file_bytes);
//!     for frame in foreword::inspect::frames(dir.path(), segment.epoch)? {
//!         println!("{:?}", frame?);
//!     }
//! }
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::iter::FusedIterator;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Damage, DamageKind, Doing};
use crate::files::dir::Dir;
use crate::files::disk::{Access, Disk, OsDisk};
use crate::files::lock::{UNKNOWN_HOLDER, holder_text};
use crate::files::names::segment_name;
use crate::files::segment::{Found, Segment};
use crate::format::{
    self, BLOCK, Binding, CLOSED, CONTINUES, Control, Entry, FrameHeader, Head, Kind, LINK_BLOCK, Link, LogId, Position,
    SegmentHeader,
};
use crate::limit::{Hold, judged};
use crate::observe::publish::{self, Published};
use crate::read::record::time_of;
use crate::recovery;
use crate::{Error, Lsn, Result};

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its epoch, by its name.
    pub epoch: u64,
    /// The file.
    pub path: PathBuf,
    /// What it is to the log.
    pub state: SegmentState,
    /// The first and the last record that begin in it, if any do.
    pub lsns: Option<(Lsn, Lsn)>,
    /// How far it is written, or, if the log has gone on elsewhere, how much of it belongs to the
    /// log.
    pub used_bytes: u64,
    /// The length of the file.
    pub file_bytes: u64,
}

/// What a segment file is to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentState {
    /// Made ready, not in use yet.
    Prepared,
    /// The newest of the log.
    Current,
    /// Of the log, which has gone on in a later one.
    Sealed,
    /// Cut off, or left by a crash: not of the log any more.
    Superseded,
    /// Its header or its LINK cannot be used. (What lies behind them is not looked at here.)
    Damaged(String),
}

impl SegmentState {
    /// One word, for tables and scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            SegmentState::Prepared => "prepared",
            SegmentState::Current => "current",
            SegmentState::Sealed => "sealed",
            SegmentState::Superseded => "superseded",
            SegmentState::Damaged(_) => "damaged",
        }
    }
}

/// The segment files in a log's directory, oldest first. May be asked while a writer has the log
/// open.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotALog`], [`Error::UnsupportedVersion`], [`Error::Io`].
pub fn segments(dir: impl AsRef<Path>) -> Result<Vec<SegmentInfo>> {
    segments_on(Arc::new(OsDisk::new()), dir)
}

/// As [`segments`], on a file system of one's own.
///
/// # Errors
/// As [`segments`].
pub fn segments_on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>) -> Result<Vec<SegmentInfo>> {
    let dir = Dir::open(&*disk, dir.as_ref())?;
    dir.look(|looked, _| Ok(matches!(looked, Err(Error::Io { .. }))), |_| segments_now(&dir))
}

/// The process that has a log open for writing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Writer {
    /// What it wrote of itself in `LOCK`: its process id.
    pub holder: String,
    /// How its log is doing, as it said at most a second or so before. `None`: it has not yet, or
    /// does not ([`Options::publish`](crate::Options::publish)).
    pub published: Option<Published>,
}

/// The process that has the log in a directory open for writing, if any has, and what it says of
/// itself. Cheap, and without effect on it: two small files are read.
///
/// # Errors
/// [`Error::Io`].
pub fn writer(dir: impl AsRef<Path>) -> Result<Option<Writer>> {
    let dir = match Dir::open(&OsDisk::new(), dir.as_ref()) {
        Err(Error::NotFound { .. } | Error::NotALog { .. }) => return Ok(None),
        opened => opened?,
    };
    if !dir.has_writer()? {
        return Ok(None);
    }
    let holder = dir.holder();
    // A killed process leaves its own, until the next has removed it.
    let its_own = |p: &Published| holder == holder_text(p.process) || holder == UNKNOWN_HOLDER;
    let published = publish::read(&dir).filter(its_own);
    Ok(Some(Writer { holder, published }))
}

fn segments_now(dir: &Dir) -> Result<Vec<SegmentInfo>> {
    let names = dir.names()?;
    if !names.identity && names.epochs.is_empty() {
        return Err(Error::NotFound { dir: dir.path.clone() });
    }
    let (log, chain) = match recovery::outline(dir)? {
        Some(outline) => (Some(outline.log), outline.chain),
        None => (None, Vec::new()),
    };
    names.epochs.iter().map(|&epoch| segment_info(dir, log, &chain, epoch)).collect()
}

fn segment_info(dir: &Dir, log: Option<LogId>, chain: &[Entry], epoch: u64) -> Result<SegmentInfo> {
    let path = dir.segment(epoch);
    let file = dir.handle.open(&segment_name(epoch), Access::Read).doing("open the segment", &path)?;
    let file_bytes = file.len().doing("read the segment's length", &path)?;
    let info = |state, lsns, used: u32| SegmentInfo {
        epoch,
        path: path.clone(),
        state,
        lsns,
        used_bytes: Position::new(epoch, used).byte(),
        file_bytes,
    };
    let segment = match dir.open_segment(log, epoch, Access::Read)? {
        Ok((segment, _)) => segment,
        Err(damage) => return Ok(info(SegmentState::Damaged(damage.evidence), None, 0)),
    };
    if let Some(index) = chain.iter().position(|e| e.epoch == epoch)
        && let Some((successor, end)) = chain.get(index + 1).zip(chain[index].end)
    {
        let (first, next) = (chain[index].first_lsn, successor.first_lsn);
        return Ok(info(SegmentState::Sealed, range(first, next), end));
    }
    let (first, end, next) = extent(&segment)?;
    if chain.iter().any(|e| e.epoch == epoch) {
        return Ok(info(SegmentState::Current, range(first, next), end));
    }
    Ok(match segment.frame(LINK_BLOCK, segment.data_end(), &mut Vec::new())? {
        Found::Frame(header) if header.kind == Kind::Link => info(SegmentState::Superseded, range(first, next), end),
        Found::Frame(_) => info(SegmentState::Damaged("another frame in the LINK's place".into()), None, end),
        Found::Unwritten | Found::Torn => info(SegmentState::Prepared, None, LINK_BLOCK),
        Found::Damaged(why) => info(SegmentState::Damaged(format!("the LINK: {why}")), None, end),
    })
}

/// The first and the last LSN, if there are any.
fn range(first: Lsn, next: Lsn) -> Option<(Lsn, Lsn)> {
    (next > first).then(|| (first, next.prev()))
}

/// The first LSN of a segment, the block behind its frames, and the LSN there; by the frames'
/// headers alone.
fn extent(segment: &Segment) -> Result<(Lsn, u32, Lsn)> {
    let (mut first, mut block, mut next) = (Lsn::ZERO, LINK_BLOCK, Lsn::ZERO);
    while block < segment.data_end() {
        let Head::Frame(header) = segment.head(block)? else { break };
        if block == LINK_BLOCK {
            first = header.first_lsn();
        }
        block += header.blocks();
        next = header.next_lsn();
    }
    Ok((first, block, next))
}

/// A stretch of a segment file: a frame, or a place where none is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The byte in the file at which it begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// When its records were first written, or it was made; `None` where there is no whole frame.
    pub time: Option<SystemTime>,
    /// What was durable when it was made, if it promises anything.
    pub promise: Option<PromiseInfo>,
    /// What it holds.
    pub content: Content,
}

/// What a frame says was durable when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromiseInfo {
    /// All before the offset in this segment,
    pub epoch: u64,
    /// in bytes,
    pub offset: u64,
    /// and all records up to this one.
    pub lsn: Lsn,
}

/// What stands in a stretch of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// The segment's header.
    #[non_exhaustive]
    Header {
        /// The format version.
        version: u32,
        /// The log that the segment says it is of.
        log: LogId,
        /// The epoch that it says it has.
        epoch: u64,
        /// How long it says that its file is.
        segment_bytes: u64,
        /// When it was made, to the millisecond.
        created: SystemTime,
        /// The epoch that the file had before, if it was recycled.
        recycled_from: Option<u64>,
    },
    /// What the segment follows.
    #[non_exhaustive]
    Link {
        /// The epoch of its predecessor and the byte at which the log leaves that, if there is one.
        follows: Option<(u64, u64)>,
        /// The LSN of the first record that begins in the segment.
        first_lsn: Lsn,
        /// If the log was cut: the first LSN that may stand for another record than before, and the
        /// generation since which that is so.
        cut: Option<(Lsn, u32)>,
        /// The log's state.
        state: ControlInfo,
    },
    /// Records.
    #[non_exhaustive]
    Data {
        /// How many bytes at its beginning belong to a record that began before.
        continued_bytes: u32,
        /// The records that begin in it.
        records: Vec<RecordInfo>,
        /// Whether the last of them, or the batch that they are of, goes on in the next frame.
        continues: bool,
    },
    /// The log's state, as of here.
    #[non_exhaustive]
    Mark {
        /// Whether the log was closed here.
        closed: bool,
        /// The LSN that the next record will have.
        next_lsn: Lsn,
        /// The log's state.
        state: ControlInfo,
    },
    /// A successor exists.
    #[non_exhaustive]
    Seal {
        /// The byte behind the last frame when the segment was sealed.
        end: u64,
    },
    /// Zeros, or what is left of the file's earlier life.
    Unwritten,
    /// A frame of which some sectors were never written.
    Torn,
    /// What no crash can leave.
    Damaged(String),
}

/// A record in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordInfo {
    /// Its LSN.
    pub lsn: Lsn,
    /// Its length.
    pub bytes: u32,
}

/// All of a log's state that is not records.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlInfo {
    /// Records before it were dropped.
    pub start_lsn: Lsn,
    /// How often LSNs were cut off at the back, and may stand for other records since.
    pub generation: u32,
    /// The holds and the LSNs they keep.
    pub holds: BTreeMap<String, Hold>,
    /// LSNs that were given up in repairs: first and last of each stretch.
    pub given_up: Vec<(Lsn, Lsn)>,
}

impl From<Control> for ControlInfo {
    fn from(control: Control) -> ControlInfo {
        let holds = judged(control.holds.clone(), control.start);
        ControlInfo { start_lsn: control.start, generation: control.generation, given_up: control.lost(), holds }
    }
}

/// Everything in one segment file, in order, sound or not.
///
/// # Errors
/// [`Error::NotFound`] if there is no log, [`Error::Invalid`] if it has no such segment;
/// [`Error::Io`], [`Error::UnsupportedVersion`]; [`Error::Corruption`] if neither the segment's header nor the file `LOG` can be read, so that nothing says which log it
/// is of.
pub fn frames(dir: impl AsRef<Path>, epoch: u64) -> Result<Frames> {
    frames_on(Arc::new(OsDisk::new()), dir, epoch)
}

/// As [`frames`], on a file system of one's own.
///
/// # Errors
/// As [`frames`].
pub fn frames_on(disk: Arc<dyn Disk>, dir: impl AsRef<Path>, epoch: u64) -> Result<Frames> {
    let dir = Dir::open(&*disk, dir.as_ref())?;
    let names = dir.names()?;
    if !names.identity && names.epochs.is_empty() {
        return Err(Error::NotFound { dir: dir.path });
    }
    if !names.epochs.contains(&epoch) {
        let there: Vec<_> = names.epochs.iter().map(u64::to_string).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        let why = format!("there is no segment {epoch} in {}; there are: {there}", dir.path.display());
        return Err(Error::Invalid { what: "epoch", why });
    }
    let path = dir.segment(epoch);
    let file = dir.handle.open(&segment_name(epoch), Access::Read).doing("open the segment", &path)?;
    let file_blocks = file.len().doing("read the segment's length", &path)? / BLOCK as u64;
    let mut block = vec![0; BLOCK];
    file.read_full_at(&mut block, 0).doing("read the segment's header", &path)?;
    let header = SegmentHeader::decode(&mut block);
    let (blocks, binding) = match (header, names.identity) {
        (Some(header), _) => {
            header.check_supported(&path)?;
            (header.segment_blocks, Binding::new(header.log, header.epoch))
        }
        (None, true) => match dir.read_identity()? {
            Ok(log) => (file_blocks.min(u64::from(u32::MAX)) as u32, Binding::new(log, epoch)),
            Err(_) => return Err(nameless(path)),
        },
        (None, false) => return Err(nameless(path)),
    };
    let blocks = blocks.max(1);
    let there = u64::from(blocks).min(file_blocks) as u32;
    let segment = Segment { file, path, blocks, binding };
    Ok(Frames { segment, header, block: 0, there, buf: Vec::new(), done: false })
}

fn nameless(path: PathBuf) -> Error {
    let evidence = "neither the segment's header nor the file LOG can be read: nothing says which log this is".to_owned();
    let (kind, first_lsn) = (DamageKind::Header, Lsn::FIRST);
    Error::Corruption(Arc::new(Damage { kind, path, offset: 0, first_lsn, last_lsn: None, proven: true, evidence }))
}

/// Iterates over a segment file; see [`frames`].
#[derive(Debug)]
pub struct Frames {
    segment: Segment,
    header: Option<SegmentHeader>,
    block: u32,
    /// Whole blocks that the file has, of those that it should have.
    there: u32,
    buf: Vec<u8>,
    done: bool,
}

impl Frames {
    fn step(&mut self) -> Result<Frame> {
        let at = self.block;
        let (blocks, made, content) = if at == 0 { (1, None, self.header_content()) } else { self.content_at(at)? };
        let promise = made.map(|header| header.promise).filter(|p| p.position.epoch > 0).map(|p| PromiseInfo {
            epoch: p.position.epoch,
            offset: p.position.byte(),
            lsn: p.lsn,
        });
        let time = made.map(|header| time_of(header.time));
        self.block = at + blocks;
        let bytes = Position::new(0, blocks).byte();
        Ok(Frame { offset: Position::new(0, at).byte(), bytes, time, promise, content })
    }

    fn header_content(&self) -> Content {
        match self.header {
            None => Content::Damaged("the header fails its checksums".to_owned()),
            Some(header) => Content::Header {
                version: header.version,
                log: header.log,
                epoch: header.epoch,
                segment_bytes: Position::new(0, header.segment_blocks).byte(),
                created: time_of(header.created_ms.saturating_mul(1000)),
                recycled_from: Some(header.recycled_from).filter(|&epoch| epoch > 0),
            },
        }
    }

    fn content_at(&mut self, at: u32) -> Result<(u32, Option<FrameHeader>, Content)> {
        if at >= self.there {
            return Ok((1, None, Content::Damaged("the file ends".to_owned())));
        }
        // Only the SEAL has its place in the last block.
        let end = if at < self.segment.data_end() { self.segment.data_end() } else { self.segment.blocks };
        Ok(match self.segment.frame(at, end, &mut self.buf)? {
            Found::Frame(header) => (header.blocks(), Some(header), content(&header, format::payload(&header, &self.buf))),
            Found::Unwritten => (self.run(at, end, |head| head == Head::Unwritten)?, None, Content::Unwritten),
            Found::Torn => (self.broken_blocks(at, end)?, None, Content::Torn),
            Found::Damaged(why) => (self.broken_blocks(at, end)?, None, Content::Damaged(why.to_owned())),
        })
    }

    /// How many blocks a frame that is not whole has: by its header if that holds, else up to where
    /// something else begins.
    fn broken_blocks(&self, at: u32, end: u32) -> Result<u32> {
        match self.segment.head(at)? {
            Head::Frame(header) => Ok(header.blocks().min(end - at)),
            _ => self.run(at, end, |head| matches!(head, Head::Middle | Head::Damaged(_))),
        }
    }

    /// How many blocks from one on are alike.
    fn run(&self, at: u32, end: u32, alike: impl Fn(Head) -> bool) -> Result<u32> {
        let mut block = at + 1;
        while block < end.min(self.there) && alike(self.segment.head(block)?) {
            block += 1;
        }
        Ok(block - at)
    }
}

impl Iterator for Frames {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Result<Frame>> {
        if self.done || self.block >= self.segment.blocks || self.block > self.there {
            return None;
        }
        let frame = self.step();
        self.done = frame.is_err();
        Some(frame)
    }
}

impl FusedIterator for Frames {}

fn content(header: &FrameHeader, payload: &[u8]) -> Content {
    let broken = || Content::Damaged("its checksum holds, but it does not add up".to_owned());
    match header.kind {
        Kind::Header => Content::Damaged("a HEADER that is not at the beginning".to_owned()),
        Kind::Link => Link::decode(payload).map_or_else(broken, |link| Content::Link {
            follows: (link.pred.epoch > 0).then(|| (link.pred.epoch, link.pred.byte())),
            first_lsn: header.first_lsn(),
            cut: link.cut.map(|cut| (cut.at, cut.since)),
            state: link.control.into(),
        }),
        Kind::Mark => Control::decode(payload).map_or_else(broken, |control| Content::Mark {
            closed: header.has(CLOSED),
            next_lsn: header.first_lsn(),
            state: control.into(),
        }),
        Kind::Seal if payload.len() >= 4 => Content::Seal { end: Position::new(0, format::u32_at(payload, 0)).byte() },
        Kind::Seal => broken(),
        Kind::Data => records(header, payload).map_or_else(broken, |records| Content::Data {
            continued_bytes: header.head_len,
            records,
            continues: header.has(CONTINUES),
        }),
    }
}

fn records(header: &FrameHeader, payload: &[u8]) -> Option<Vec<RecordInfo>> {
    let mut rest = payload.get(header.head_len as usize..)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (len, tail) = rest.split_at_checked(4)?;
        let bytes = format::record_len(format::u32_at(len, 0))?;
        records.push(RecordInfo { lsn: Lsn(header.first.lsn.0.saturating_add(records.len() as u64)), bytes: bytes as u32 });
        // The last may go on in the next frame.
        rest = tail.get(bytes..).unwrap_or_default();
    }
    Some(records)
}
