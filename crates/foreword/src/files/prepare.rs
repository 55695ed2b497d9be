//! Segment files are made: of new space, of a segment that was dropped, or of the reserve.

use std::io;
use std::sync::Arc;

use crate::bug::bug;
use crate::files::dir::Dir;
use crate::files::disk::{Access, DiskFile};
use crate::files::fill::{Fill, at_once, fill};
use crate::files::names::{TMP, segment_name};
use crate::files::segment::{Found, Segment};
use crate::files::time::since_1970;
use crate::format::{self, BLOCK, Binding, LINK_BLOCK, LogId, SegmentHeader};
use crate::{Error, Result};

/// What a fresh segment is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stuff<'a> {
    /// New space, filled with zeros.
    Nothing,
    /// An old segment of this log, of a lower epoch or wholly unwritten: all that is in it reads as
    /// unwritten.
    Segment(u64),
    /// A file that was kept for a full disk.
    Reserve(&'a str),
}

/// A segment gets its name when its header is durable.
fn sync_header(file: &dyn DiskFile) -> io::Result<()> {
    bug!(SkipHeaderSync, return Ok(()));
    file.sync()
}

impl Dir {
    /// Makes a segment ready for use under its name. Durable when it returns. A file of that name
    /// is replaced if it is this log's own and no part of it: an error leaves no more than that, or
    /// a temporary file.
    ///
    /// `pace` is asked before each step of the zero-filling. What it does not fill stays only
    /// allocated: it has its space and reads as zeros, but writing there will cost a change of
    /// metadata.
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
                    self.sync_before_reuse()?;
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
            sync_header(&*file)?;
            self.place(&tmp, log, epoch)?;
            self.sync_names()?;
            Ok(file)
        })();
        match made {
            Ok(file) => Ok(Arc::new(Segment { file, path: self.file(&name), blocks, binding: Binding::new(log, epoch) })),
            Err(source) => {
                // What is half made only takes space, which may be just what is missing. That of the
                // reserve stays the log's.
                let mut reserve = if let Stuff::Reserve(name) = stuff { Some(name) } else { None };
                bug!(LoseUnmade, reserve = None);
                let _ = reserve.map_or_else(|| self.handle.remove(&tmp), |name| self.handle.rename(&tmp, name));
                Err(Error::Io { doing: "prepare a segment", path: self.file(&tmp), source: Arc::new(source) }
                    .or_no_space(&self.path, Some(bytes)))
            }
        }
    }

    /// Gives a prepared segment its name. A file that has it is only replaced if it is this log's
    /// own and no part of it: what an unfinished fork left, or a preparation that failed.
    fn place(&self, tmp: &str, log: LogId, epoch: u64) -> io::Result<()> {
        let name = segment_name(epoch);
        match self.handle.rename(tmp, &name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.may_replace(log, epoch) => self.handle.replace(tmp, &name),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let why = format!("{name} is there, and is not what this log may replace: see what it is, and move it away");
                Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
            }
            renamed => renamed,
        }
    }

    fn sync_before_reuse(&self) -> io::Result<()> {
        bug!(RecycleInPlace, return Ok(()));
        self.sync_names()
    }

    /// Whether the file under a segment's name may be replaced: it bears the log's identity and its
    /// epoch, and no LINK that makes it a part of the log.
    fn may_replace(&self, log: LogId, epoch: u64) -> bool {
        bug!(ReplaceAny, return true);
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
}
