//! One segment file: how it is made, recycled, read and written; and the other names in a log's directory.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bug::{self, Bug};
use crate::error::{Damage, DamageKind, Doing};
use crate::files::disk::{self, Access, Disk, DiskDir, DiskFile};
use crate::files::lock::{LOCK, Writer};
use crate::files::outside::HOLDS;
use crate::files::reserve;
use crate::format::{
    self, BLOCK, Binding, Body, FrameBuf, FrameHeader, Head, LINK_BLOCK, LogId, Position, SECTOR, SegmentHeader,
};
use crate::options::{SEGMENT_BLOCKS_MAX, SEGMENT_BLOCKS_MIN};
use crate::{Error, Lsn, Result};

pub(crate) const IDENTITY: &str = "LOG";
pub(crate) const DAMAGED: &str = "damaged";
pub(crate) const STATS: &str = "STATS";
pub(crate) const TMP: &str = ".tmp";

/// Beyond what any log reaches; so epochs can be counted up without a thought of overflow.
pub(crate) const EPOCH_MAX: u64 = u64::MAX >> 8;

/// An epoch that a log may have reached, or 0: what bears a higher one is strange, for it may leave no room for others behind it.
pub(crate) fn within_reach(epoch: u64) -> u64 {
    if epoch <= EPOCH_MAX / 2 { epoch } else { 0 }
}

/// How much is zero-filled at a time: little delays many commits a little, much delays few for long.
const FILL_STEP: usize = 256 << 10;

/// A log's directory: the handle through which everything goes, and the path that it was opened by, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    pub(crate) handle: Arc<dyn DiskDir>,
    pub(crate) path: PathBuf,
    /// For a writer, from when it has the lock.
    pub(crate) writer: Option<Arc<Writer>>,
    /// What a writer does ahead of need ([`Options::zero_fill`](crate::Options::zero_fill), [`Options::reserve`](crate::Options::reserve)).
    pub(crate) zero_fill: bool,
    pub(crate) reserve: bool,
}

pub(crate) fn segment_name(epoch: u64) -> String {
    format!("{epoch:020}.seg")
}

/// By this machine's clock; nothing, if it stands before that.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time that frames bear.
pub(crate) fn now_micros() -> u64 {
    since_1970().as_micros() as u64
}

/// How often a reader looks again at a log that a writer changes meanwhile, and how long it waits before.
const LOOKS_AGAIN: u32 = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Whether a log makes a file under another name first, so that it is complete when it has this one.
fn is_made_by_rename(name: &str) -> bool {
    name == IDENTITY || reserve::NAMES.contains(&name) || parse_segment_name(name).is_some()
}

fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let epoch = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?;
    epoch.filter(|&epoch| epoch <= EPOCH_MAX)
}

/// What `LOCK` says: no two openings write the same into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writers {
    text: Option<String>,
    here: bool,
}

/// The names in a log's directory, sorted out.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Epochs with a segment file, ascending.
    pub(crate) epochs: Vec<u64>,
    /// What an unfinished step of an earlier writer left: the next writer removes it.
    pub(crate) temporary: Vec<String>,
    pub(crate) identity: bool,
    /// Names that a log does not use.
    pub(crate) others: Vec<String>,
}

impl Dir {
    pub(crate) fn new(handle: Arc<dyn DiskDir>, path: PathBuf) -> Dir {
        Dir { handle, path, writer: None, zero_fill: true, reserve: true }
    }

    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Dir> {
        let path = path.to_owned();
        match disk.open_dir(&path) {
            Ok(handle) => Ok(Dir::new(handle, path)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::NotFound { dir: path }),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                Err(Error::NotALog { dir: path, why: "it is a file, not a directory".into() })
            }
            Err(e) => Err(e).doing("open the directory", &path),
        }
    }

    /// What was found of the log here, if there is one.
    pub(crate) fn there<T>(&self, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| Error::NotFound { dir: self.path.clone() })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn segment(&self, epoch: u64) -> PathBuf {
        self.file(&segment_name(epoch))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.sync_names().doing("sync the directory", &self.path)
    }

    fn sync_names(&self) -> io::Result<()> {
        if bug::is(Bug::SkipDirSync) { Ok(()) } else { self.handle.sync() }
    }

    pub(crate) fn names(&self) -> Result<Names> {
        let mut names = Names::default();
        let listed = match self.handle.list() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::NotFound { dir: self.path.clone() }),
            listed => listed.doing("list the directory", &self.path)?,
        };
        for name in listed {
            match parse_segment_name(&name) {
                Some(epoch) => names.epochs.push(epoch),
                None if name == IDENTITY => names.identity = true,
                // Stats that are there when a log is opened are of a process that was killed.
                None if name == STATS || name.strip_suffix(TMP).is_some_and(is_made_by_rename) => names.temporary.push(name),
                None if name == LOCK || name == HOLDS || name == DAMAGED || reserve::NAMES.contains(&name.as_str()) => {}
                None => names.others.push(name),
            }
        }
        names.epochs.sort_unstable();
        Ok(names)
    }

    /// Who has the log open, or had it last. The text first: whoever takes the lock after that writes another before it changes anything else.
    pub(crate) fn writers(&self) -> Result<Writers> {
        let text = self.read_lock().ok();
        Ok(Writers { text, here: self.has_writer()? })
    }

    /// Looks at a log in which a writer may be at work, or come and go meanwhile: files appear and vanish, and what is read of them at different times need not
    /// fit together. So what cannot be relied on then, as `doubtful` tells, only counts if no writer was there, or after many looks. Both are told whether a
    /// writer was there when the look began.
    pub(crate) fn look<T>(
        &self,
        doubtful: impl Fn(&Result<T>, bool) -> Result<bool>,
        mut look: impl FnMut(bool) -> Result<T>,
    ) -> Result<T> {
        let mut left = LOOKS_AGAIN;
        loop {
            let before = self.writers()?;
            let looked = look(before.here);
            if left == 0 || !doubtful(&looked, before.here)? || (!before.here && self.writers()? == before) {
                return looked;
            }
            left -= 1;
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// Writes the identity, in place of a damaged one if there is one. It is locked before it has its
    /// name, so that at no time there is one that is not.
    pub(crate) fn write_identity(&self, log: LogId, damaged: bool) -> Result<()> {
        let tmp = format!("{IDENTITY}{TMP}");
        let path = self.file(&tmp);
        let file = self.create_anew(&tmp).doing("create the file", &path)?;
        file.write_all_at(identity_text(log).as_bytes(), 0).doing("write the file", &path)?;
        file.sync().doing("sync the file", &path)?;
        self.keep(self.handle.lock(&tmp).doing("lock the file", &path)?);
        let named = if damaged { self.handle.replace(&tmp, IDENTITY) } else { self.handle.rename(&tmp, IDENTITY) };
        named.doing("rename the file", &path)?;
        self.sync()
    }

    /// Makes a file that is this process's alone, for the users that the log is for. What has its name is removed.
    pub(crate) fn create_anew(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.remove_if_there(name)?;
        self.handle.create_like(name, IDENTITY)
    }

    /// Removes a file, if there is one of that name.
    pub(crate) fn remove_if_there(&self, name: &str) -> io::Result<()> {
        match self.handle.remove(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The identity, if the file is there; `Err(text)` inside if it is not as it was written.
    pub(crate) fn read_identity(&self) -> Result<std::result::Result<LogId, String>> {
        let path = self.file(IDENTITY);
        let file = self.handle.open(IDENTITY, Access::Read).doing("open the file", &path)?;
        let mut text = [0; 128];
        let n = file.read_full_at(&mut text, 0).doing("read the file", &path)?;
        let text = String::from_utf8_lossy(&text[..n]).into_owned();
        let id = text.lines().nth(1).and_then(|line| line.strip_prefix("uuid ")?.parse().ok());
        Ok(id.filter(|&id| identity_text(id) == text).ok_or(text))
    }

    /// Makes a segment ready for use under its name. Durable when it returns. A file of that name is replaced if it is this log's own
    /// and no part of it: an error leaves no more than that, or a temporary file.
    ///
    /// `pace` is asked before each step of the zero-filling. What it does not fill stays only allocated: it has its space and reads as zeros, but writing
    /// there will cost a change of metadata.
    pub(crate) fn prepare(
        &self,
        log: LogId,
        epoch: u64,
        blocks: u32,
        stuff: Stuff<'_>,
        pace: &dyn Fn(f32) -> Fill,
    ) -> Result<Arc<Segment>> {
        self.check_writer()?;
        let name = segment_name(epoch);
        let tmp = format!("{name}{TMP}");
        let bytes = u64::from(blocks) * BLOCK as u64;
        let made = (|| -> io::Result<Box<dyn DiskFile>> {
            let file = match stuff {
                Stuff::Segment(old) => {
                    self.remove_if_there(&tmp)?;
                    self.handle.rename(&segment_name(old), &tmp)?;
                    // Durable first: or a crash could leave the new header under the old name.
                    if !bug::is(Bug::RecycleInPlace) {
                        self.sync_names()?;
                    }
                    let file = self.handle.open(&tmp, Access::Write)?;
                    file.allocate(bytes)?; // A fork may have given part of it back.
                    file
                }
                Stuff::Reserve(name) => {
                    self.remove_if_there(&tmp)?;
                    self.handle.rename(name, &tmp)?;
                    let file = self.handle.open(&tmp, Access::Write)?;
                    if file.len()? != bytes {
                        file.set_len(bytes)?; // It was made larger just now.
                    }
                    // Whatever was in it, of this epoch too, is gone; its space is not.
                    fill(&*file, 0..bytes, false, &at_once)?;
                    file
                }
                Stuff::Nothing => self.reserve_file(&tmp, bytes, pace)?,
            };
            let header = SegmentHeader {
                version: format::VERSION,
                segment_blocks: blocks,
                log,
                epoch,
                created_ms: since_1970().as_millis() as u64,
                recycled_from: if let Stuff::Segment(old) = stuff { old } else { 0 },
                features: 0,
            };
            file.write_all_at(&header.encode(), 0)?;
            if !bug::is(Bug::SkipHeaderSync) {
                file.sync()?;
            }
            self.place(&tmp, log, epoch)?;
            self.sync_names()?;
            Ok(file)
        })();
        match made {
            Ok(file) => Ok(Arc::new(Segment { file, path: self.file(&name), blocks, binding: Binding::new(log, epoch) })),
            Err(source) => {
                // What is half made only takes space, which may be just what is missing.
                let _ = self.handle.remove(&tmp);
                Err(Error::Io { doing: "prepare a segment", path: self.file(&tmp), source: Arc::new(source) }
                    .or_no_space(&self.path, Some(bytes)))
            }
        }
    }

    /// Gives a prepared segment its name. A file that has it is only replaced if it is this log's own
    /// and no part of it: what an unfinished fork left, or a preparation that failed.
    fn place(&self, tmp: &str, log: LogId, epoch: u64) -> io::Result<()> {
        let name = segment_name(epoch);
        match self.handle.rename(tmp, &name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && (self.is_of_no_use(log, epoch) || bug::is(Bug::ReplaceAny)) => {
                self.handle.replace(tmp, &name)
            }
            renamed => renamed,
        }
    }

    /// Whether a segment bears the log's identity and its epoch, and no LINK that makes it a part of the log.
    fn is_of_no_use(&self, log: LogId, epoch: u64) -> bool {
        let Ok(Ok((segment, _))) = self.open_segment(Some(log), epoch, Access::Read) else { return false };
        segment.frame(LINK_BLOCK, segment.data_end(), &mut Vec::new()).is_ok_and(|found| !matches!(found, Found::Frame(_)))
    }

    /// Makes a file of zeros that has its space. Not durable.
    pub(crate) fn reserve_file(&self, name: &str, bytes: u64, pace: &dyn Fn(f32) -> Fill) -> io::Result<Box<dyn DiskFile>> {
        // A file of its own: one left here may still bear another name on the disk.
        let file = self.create_anew(name)?;
        // Where no space can be reserved, only zeros reserve it.
        let reserved = file.allocate(bytes)?;
        if self.zero_fill || !reserved {
            fill(&*file, 0..bytes, reserved, pace)?;
        }
        Ok(file)
    }

    /// Whether a segment file has so many blocks, so that it may be recycled as one that has.
    pub(crate) fn has_blocks(&self, epoch: u64, blocks: u32) -> bool {
        let len = self.handle.open(&segment_name(epoch), Access::Read).and_then(|file| file.len());
        len.is_ok_and(|len| len == u64::from(blocks) * BLOCK as u64)
    }

    /// Opens a segment by its header; `Err` inside if the header is damaged (rows 9, 14 and 15). A file of a wrong length (row 17) opens,
    /// with the damage beside it: where the log left the segment before the cut, nothing is missing.
    pub(crate) fn open_segment(
        &self,
        expect: Option<LogId>,
        epoch: u64,
        access: Access,
    ) -> Result<std::result::Result<(Segment, Option<Damage>), Damage>> {
        self.open_segment_reading(expect, epoch, access, &mut vec![0; BLOCK])
    }

    /// The same, and as much of the segment's beginning as there is room for, at least a block: one call where many are opened.
    pub(crate) fn open_segment_reading(
        &self,
        expect: Option<LogId>,
        epoch: u64,
        access: Access,
        beginning: &mut [u8],
    ) -> Result<std::result::Result<(Segment, Option<Damage>), Damage>> {
        let path = self.segment(epoch);
        let file = self.handle.open(&segment_name(epoch), access).doing("open the segment", &path)?;
        let len = file.len().doing("read the segment's length", &path)?;
        let read = file.read_full_at(beginning, 0).doing("read the segment's header", &path)?;
        beginning[read..].fill(0);
        let damage = |kind, offset, evidence: String| {
            let (first_lsn, last_lsn) = (Lsn::FIRST, None);
            Damage { kind, path: path.clone(), offset, first_lsn, last_lsn, proven: true, evidence }
        };
        if read < BLOCK {
            return Ok(Err(damage(DamageKind::Size, len, format!("the file has {len} bytes: its header is cut"))));
        }
        let Some(header) = SegmentHeader::decode(&mut beginning[..BLOCK]) else {
            let evidence = "the segment's header fails its checksums, though it was whole before the file had its name";
            return Ok(Err(damage(DamageKind::Header, 0, evidence.into())));
        };
        header.check_supported(&path)?;
        if let Some(log) = expect.filter(|&log| log != header.log) {
            let evidence = format!("a segment of log {} in the directory of log {log}", header.log);
            return Ok(Err(damage(DamageKind::Foreign, 0, evidence)));
        }
        if header.epoch != epoch {
            let evidence = format!("a copy of segment {} under this name", header.epoch);
            return Ok(Err(damage(DamageKind::Misplaced, 0, evidence)));
        }
        if !(SEGMENT_BLOCKS_MIN..=SEGMENT_BLOCKS_MAX).contains(&header.segment_blocks) {
            let evidence = format!("a header that says {} blocks", header.segment_blocks);
            return Ok(Err(damage(DamageKind::Structure, 0, evidence)));
        }
        let bytes = u64::from(header.segment_blocks) * BLOCK as u64;
        let short =
            (len != bytes).then(|| damage(DamageKind::Size, len, format!("the file has {len} bytes, its header says {bytes}")));
        let binding = Binding::new(header.log, epoch);
        Ok(Ok((Segment { file, path, blocks: header.segment_blocks, binding }, short)))
    }
}

const IDENTITY_BEGINS: &str = "foreword log format ";

fn identity_text(log: LogId) -> String {
    format!("{IDENTITY_BEGINS}{}\nuuid {log}\n", format::VERSION)
}

/// The version of the format that the text of `LOG` names.
pub(crate) fn stated_version(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix(IDENTITY_BEGINS)?.parse().ok()
}

impl SegmentHeader {
    /// Whether this library reads such a segment.
    pub(crate) fn check_supported(&self, path: &Path) -> Result<()> {
        if self.version != format::VERSION {
            return Err(Error::UnsupportedVersion { path: path.into(), found: self.version, supported: format::VERSION });
        }
        if self.features != 0 {
            return Err(Error::UnsupportedFeatures { path: path.into(), features: self.features });
        }
        Ok(())
    }
}

/// What a fresh segment is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stuff<'a> {
    /// New space, filled with zeros.
    Nothing,
    /// An old segment of this log, of a lower epoch or wholly unwritten: all that is in it reads as unwritten.
    Segment(u64),
    /// A file that was kept for a full disk.
    Reserve(&'a str),
}

/// How zero-filling goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    /// By one step more.
    Step,
    /// Not at all: somebody waits for the segment, or it is not worth it.
    Stop,
    /// The segment is not wanted any more: nothing is left of it.
    Abandon,
}

/// All of it, as fast as it goes: nothing else uses the log.
pub(crate) fn at_once(_done: f32) -> Fill {
    Fill::Step
}

/// Writes zeros in steps, each of which is on its way to the disk before the next, so that no commit's own flush waits behind the whole of it.
/// `reserved`: it may be left at that.
fn fill(file: &dyn DiskFile, bytes: Range<u64>, reserved: bool, pace: &dyn Fn(f32) -> Fill) -> io::Result<()> {
    let zeros = FrameBuf::zeroed((bytes.end - bytes.start).min(FILL_STEP as u64) as usize);
    let mut at = bytes.start;
    while at < bytes.end {
        match pace(at as f32 / bytes.end as f32) {
            Fill::Stop if reserved => break,
            Fill::Abandon => return Err(io::ErrorKind::Interrupted.into()),
            Fill::Step | Fill::Stop => {}
        }
        let step = (bytes.end - at).min(zeros.len() as u64);
        disk::write_all(&mut [io::IoSlice::new(&zeros[..step as usize])], at, |bufs, at| file.write_through_at(bufs, at))?;
        at += step;
    }
    Ok(())
}

/// An open segment file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) blocks: u32,
    pub(crate) binding: Binding,
}

/// What a read found where a frame may begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Frame(FrameHeader),
    Unwritten,
    Torn,
    Damaged(&'static str),
}

impl Segment {
    pub(crate) fn epoch(&self) -> u64 {
        self.binding.epoch
    }

    pub(crate) fn log(&self) -> LogId {
        self.binding.log
    }

    pub(crate) fn at(&self, block: u32) -> Position {
        Position::new(self.epoch(), block)
    }

    /// The seal's block, at which frames end.
    pub(crate) fn data_end(&self) -> u32 {
        self.blocks - 1
    }

    /// Reads at a block: how many bytes there were.
    pub(crate) fn read(&self, block: u32, buf: &mut [u8]) -> Result<usize> {
        self.file.read_full_at(buf, self.at(block).byte()).doing("read the segment", &self.path)
    }

    /// What begins at a block, by its first sector.
    pub(crate) fn head(&self, block: u32) -> Result<Head> {
        let mut sector = [0; SECTOR];
        if self.read(block, &mut sector)? < SECTOR {
            return Ok(Head::Damaged("the file ends"));
        }
        Ok(self.binding.head(block, &sector))
    }

    /// Makes sure that the segment has its space, which a copy of it may have lost: so that no write fails for want of it.
    pub(crate) fn reserve_space(&self) -> Result<()> {
        let reserved = self.file.allocate(self.at(self.blocks).byte()).map(drop);
        reserved.doing("reserve the segment's space", &self.path)
    }

    /// Whether neither a LINK nor the first frame behind it was written.
    pub(crate) fn is_unused(&self) -> Result<bool> {
        Ok(self.head(LINK_BLOCK)? == Head::Unwritten && self.head(LINK_BLOCK + 1)? == Head::Unwritten)
    }

    /// Reads, checks and opens the frame at a block. `end` bounds it (the block behind the last that it may have).
    pub(crate) fn frame(&self, block: u32, end: u32, buf: &mut Vec<u8>) -> Result<Found> {
        buf.resize(BLOCK, 0);
        if self.read(block, buf)? < BLOCK {
            return Ok(Found::Damaged("the file ends"));
        }
        self.rest_of_frame(block, end, buf)
    }

    /// The same, of which the first block was read.
    pub(crate) fn rest_of_frame(&self, block: u32, end: u32, buf: &mut Vec<u8>) -> Result<Found> {
        let header = match self.binding.head(block, &buf[..SECTOR]) {
            Head::Frame(header) => header,
            Head::Unwritten => return Ok(Found::Unwritten),
            Head::Middle => return Ok(Found::Damaged("the middle of a frame where one should begin")),
            Head::Damaged(why) => return Ok(Found::Damaged(why)),
        };
        if header.blocks() > end.saturating_sub(block) {
            return Ok(Found::Damaged("a frame that reaches beyond its bounds"));
        }
        buf.resize(header.frame_len(), 0);
        if self.read(block + 1, &mut buf[BLOCK..])? < header.frame_len() - BLOCK {
            return Ok(Found::Damaged("the file ends"));
        }
        Ok(match self.binding.open_body(block, &header, buf) {
            Ok(()) => Found::Frame(header),
            Err(Body::Torn) => Found::Torn,
            Err(Body::Damaged) => Found::Damaged("a frame that fails its checksum, though all of it was written"),
        })
    }

    /// Writes bytes at a block, durably if asked.
    pub(crate) fn write(&self, block: u32, bufs: &mut [io::IoSlice<'_>], durable: bool) -> Result<()> {
        let write = |bufs: &[io::IoSlice<'_>], at| {
            if durable { self.file.write_durable_at(bufs, at) } else { self.file.write_at(bufs, at) }
        };
        let wrote = disk::write_all(bufs, self.at(block).byte(), write).doing("write the segment", &self.path);
        if bug::is(Bug::RetryFlush) && durable && wrote.is_err() { self.sync() } else { wrote }
    }

    /// Makes a segment that has no LINK unwritten again, durably: a fork had begun it. (Zeros that are durable before anything else
    /// is written there keep the rule that what validates at a place is the only thing that was ever written there.)
    pub(crate) fn blank(&self) -> io::Result<()> {
        fill(&*self.file, self.at(LINK_BLOCK).byte()..self.at(self.blocks).byte(), false, &at_once)?;
        self.file.sync()
    }

    /// Gives the space of unwritten blocks, up to the SEAL's, back to the file system: from `block` on, behind which nothing was
    /// written. They go on reading as unwritten. Best effort: what a file system cannot do stays taken.
    pub(crate) fn give_back(&self, block: u32) {
        if let Some(blocks) = self.data_end().checked_sub(block).filter(|&blocks| blocks > 0) {
            let _ = self.file.punch(self.at(block).byte(), u64::from(blocks) * BLOCK as u64);
        }
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let synced = self.file.sync();
        let synced = if bug::is(Bug::RetryFlush) && synced.is_err() { self.file.sync() } else { synced };
        synced.doing("sync the segment", &self.path)
    }
}
