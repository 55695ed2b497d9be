//! One segment file: how it is opened, read and written.

use std::io;
use std::path::{Path, PathBuf};

use crate::bug::bug;
use crate::error::{Damage, DamageKind, Doing};
use crate::files::dir::Dir;
use crate::files::disk::{self, Access, DiskFile};
use crate::files::fill::{at_once, fill};
use crate::files::names::segment_name;
use crate::format::{
    self, BLOCK, Binding, Body, FrameHeader, Head, Kind, LINK_BLOCK, LogId, Position, SECTOR, SEGMENT_BLOCKS_MAX,
    SEGMENT_BLOCKS_MIN, SegmentHeader,
};
use crate::{Error, Lsn, Result};

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

/// What is in a segment's last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// A SEAL, which vouches for the file with the next epoch, and the end that it names.
    There(u32),
    Absent,
    Damaged,
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

    /// Whether its file is longer: by the damage that says that it has not its length. All of the
    /// segment is there then.
    pub(crate) fn ends_before(&self, length: &Damage) -> bool {
        length.kind == DamageKind::Size && length.offset > self.at(self.blocks).byte()
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

    /// Makes sure that the segment has its space, which a copy of it may have lost: so that no
    /// write fails for want of it.
    pub(crate) fn reserve_space(&self) -> Result<()> {
        let reserved = self.file.allocate(self.at(self.blocks).byte()).map(drop);
        reserved.doing("reserve the segment's space", &self.path)
    }

    /// Whether neither a LINK nor the first frame behind it was written.
    pub(crate) fn is_unused(&self) -> Result<bool> {
        Ok(self.head(LINK_BLOCK)? == Head::Unwritten && self.head(LINK_BLOCK + 1)? == Head::Unwritten)
    }

    /// Reads, checks and opens the frame at a block. `end` bounds it (the block behind the last
    /// that it may have).
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

    /// What is in the last block of a segment that is not cut.
    pub(crate) fn seal(&self) -> Result<Seal> {
        let mut buf = Vec::new();
        Ok(match self.frame(self.data_end(), self.blocks, &mut buf)? {
            Found::Frame(header) if header.kind == Kind::Seal && header.payload_len >= 4 => {
                Seal::There(format::u32_at(format::payload(&header, &buf), 0))
            }
            Found::Unwritten | Found::Torn => Seal::Absent,
            Found::Frame(_) | Found::Damaged(_) => Seal::Damaged,
        })
    }

    /// Writes bytes at a block, durably if asked.
    pub(crate) fn write(&self, block: u32, bufs: &mut [io::IoSlice<'_>], durable: bool) -> Result<()> {
        let write = |bufs: &[io::IoSlice<'_>], at| {
            if durable { self.file.write_durable_at(bufs, at) } else { self.file.write_at(bufs, at) }
        };
        let wrote = disk::write_all(bufs, self.at(block).byte(), write).doing("write the segment", &self.path);
        bug!(
            RetryFlush,
            if durable && wrote.is_err() {
                return self.sync();
            }
        );
        wrote
    }

    /// Makes a segment that has no LINK unwritten again, durably: a fork had begun it. (Zeros that
    /// are durable before anything else is written there keep the rule that what validates at a
    /// place is the only thing that was ever written there.)
    pub(crate) fn blank(&self) -> io::Result<()> {
        fill(&*self.file, self.at(LINK_BLOCK).byte()..self.at(self.blocks).byte(), false, &at_once)?;
        self.file.sync()
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let mut synced = self.file.sync();
        bug!(
            RetryFlush,
            if synced.is_err() {
                synced = self.file.sync()
            }
        );
        synced.doing("sync the segment", &self.path)
    }
}

impl Dir {
    /// Gives the space of a segment's unwritten blocks, up to the SEAL's, back to the file system:
    /// from `block` on, behind which nothing was written. They go on reading as unwritten. Best
    /// effort: what a file system cannot do stays taken. One that can be the reserve, once it is
    /// superseded, keeps its space for that.
    pub(crate) fn give_back(&self, segment: &Segment, block: u32) {
        let mut keeps = self.can_be_reserve(segment.blocks);
        bug!(GiveReserveBack, keeps = false);
        if keeps {
            return;
        }
        if let Some(blocks) = segment.data_end().checked_sub(block).filter(|&blocks| blocks > 0) {
            let _ = segment.file.punch(segment.at(block).byte(), u64::from(blocks) * BLOCK as u64);
        }
    }

    /// Opens a segment by its header; `Err` inside if the header is damaged (rows 9, 14 and 15). A
    /// file of a wrong length (row 17) opens, with the damage beside it: where the log left the
    /// segment before the cut, nothing is missing.
    pub(crate) fn open_segment(
        &self,
        expect: Option<LogId>,
        epoch: u64,
        access: Access,
    ) -> Result<std::result::Result<(Segment, Option<Damage>), Damage>> {
        self.open_segment_reading(expect, epoch, access, &mut vec![0; BLOCK])
    }

    /// The same, and as much of the segment's beginning as there is room for, at least a block: one
    /// call where many are opened.
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
        let short = (len != bytes).then(|| {
            let more = if len > bytes { ": what is behind is not the log's" } else { "" };
            damage(DamageKind::Size, len, format!("the file has {len} bytes, its header says {bytes}{more}"))
        });
        let binding = Binding::new(header.log, epoch);
        Ok(Ok((Segment { file, path, blocks: header.segment_blocks, binding }, short)))
    }
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
