//! The fast path: what the tip's last frame says of all that lies before it, so that it need not be
//! read.

use super::files::Segments;
use crate::Result;
use crate::files::segment::{Found, Segment};
use crate::format::{
    self, BLOCK, CLOSED, Control, Entry, FrameHeader, Head, Kind, LINK_BLOCK, Position, Promise, SECTOR, Sector, way_in,
};

/// Read at once behind the end of a closed log: little, for memory that is new to the process takes
/// longer than the reading.
const READ_BEHIND: u32 = 8;

/// By bisection, a written block with an unwritten one behind it: the last that is written, unless
/// there are holes. `None` where it comes upon damage.
pub(super) fn last_written(segment: &Segment) -> Result<Option<u32>> {
    let (mut written, mut unwritten) = (LINK_BLOCK, segment.data_end());
    while unwritten - written > 1 {
        let middle = written + (unwritten - written) / 2;
        match segment.head(middle)? {
            Head::Frame(_) | Head::Middle => written = middle,
            Head::Unwritten => unwritten = middle,
            Head::Damaged(_) => return Ok(None),
        }
    }
    Ok(Some(written))
}

/// The CLOSED mark at which a log ends.
pub(super) struct Closed {
    /// Behind the mark.
    pub(super) end: Position,
    pub(super) mark: FrameHeader,
    pub(super) control: Control,
}

/// Row 1 without a scan: the last written block of the tip is that of a CLOSED mark, which promises
/// all before it. `None` if that is not so.
pub(super) fn closed_at(segments: &Segments<'_>, segment: &Segment, written: u32, control: &Control) -> Result<Option<Closed>> {
    let epoch = segment.epoch();
    let Some(found) = segments.found.get(&epoch).filter(|found| found.short.is_none()) else { return Ok(None) };
    // Sealed, there is more behind it, or should be. Without the seal, the next file shows whether
    // there was.
    if segment.head(found.blocks - 1)? != Head::Unwritten || segments.was_begun(epoch + 1)? {
        return Ok(None);
    }
    let mut buf = Vec::new();
    let Found::Frame(mark) = segment.frame(written, segment.data_end(), &mut buf)? else { return Ok(None) };
    let at = Position::new(epoch, written);
    if mark.kind != Kind::Mark || !mark.has(CLOSED) || mark.promise.position != at || mark.blocks() != 1 {
        return Ok(None);
    }
    let Some(new) = Control::decode(format::payload(&mark, &buf)) else { return Ok(None) };
    if mark.first_lsn() < control.start.max(new.start) || !mark.adds_up() {
        return Ok(None);
    }
    // Bisection sees few blocks, and of them only the first sectors: nothing may stand right behind
    // what it found.
    let end = (found.blocks - 1).min(written + 1 + format::FRAME_BLOCKS_MAX);
    let mut buf = vec![0; READ_BEHIND.min(end.saturating_sub(written + 1)) as usize * BLOCK];
    for block in (written + 1..end).step_by(READ_BEHIND as usize) {
        buf.truncate((end - block) as usize * BLOCK);
        let read = segment.read(block, &mut buf)?;
        let mut sectors = buf.chunks_exact(SECTOR).zip(u64::from(block) * (BLOCK / SECTOR) as u64..);
        if read < buf.len() || sectors.any(|(s, i)| segment.binding.classify(i, s) != Sector::Unwritten) {
            return Ok(None);
        }
    }
    Ok(Some(Closed { end: Position::new(epoch, written + 1), mark, control: new }))
}

/// A promise that covers the tip's LINK, made by a frame about where the tip's last written block
/// is: then all before the tip was durable. The LINK's own may be far older, if much was appended
/// before anything was synced.
pub(super) fn promised_within(
    segments: &Segments<'_>,
    tip: &Entry,
    segment: &Segment,
    written: u32,
    control: &Control,
) -> Result<Option<Promise>> {
    if segments.active(tip.epoch).is_none() || way_in(tip.epoch, control).is_some() {
        return Ok(None);
    }
    for block in (written.saturating_sub(format::FRAME_BLOCKS_MAX)..=written).rev().take_while(|&b| b > LINK_BLOCK) {
        if let Head::Frame(header) = segment.head(block)? {
            let promise = header.promise;
            return Ok((promise.position > segment.at(LINK_BLOCK)).then_some(promise));
        }
    }
    Ok(None)
}
