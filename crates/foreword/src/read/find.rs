//! Finds the frame in which a record begins.

use std::ops::Range;

use crate::files::segment::Segment;
use crate::format::{FrameHeader, Head};
use crate::{Lsn, Result};

/// The last frame in a stretch of a segment that begins at or before a record, which is the one
/// that it begins in, if it does so there. The stretch's first, which is not looked at, is such a
/// frame for all that do.
pub(crate) fn frame_at(segment: &Segment, lsn: Lsn, stretch: Range<u32>) -> Result<(u32, Option<FrameHeader>)> {
    frame_between(segment, stretch, &|header| header.first_lsn() <= lsn, &mut |_, _| ())
}

/// The last frame in a stretch, behind its first, of which something is true that is true of none
/// behind it. Each frame that is come by is told.
pub(super) fn frame_between(
    segment: &Segment,
    stretch: Range<u32>,
    holds: &dyn Fn(&FrameHeader) -> bool,
    tell: &mut dyn FnMut(u32, &FrameHeader),
) -> Result<(u32, Option<FrameHeader>)> {
    let (mut low, mut high) = (stretch.start, stretch.end.min(segment.data_end()));
    let mut found = None;
    // Going back, it is the one just before.
    if high.saturating_sub(low) > 1
        && let Head::Frame(header) = segment.head(high - 1)?
        && holds(&header)
    {
        tell(high - 1, &header);
        return Ok((high - 1, Some(header)));
    }
    while high.saturating_sub(low) > 1 {
        let middle = low + (high - low) / 2;
        let mut block = middle;
        let frame = loop {
            if block >= high {
                break None;
            }
            match segment.head(block)? {
                Head::Frame(header) => {
                    tell(block, &header);
                    break Some(header);
                }
                // Nothing begins behind what is not written.
                Head::Unwritten => break None,
                Head::Middle | Head::Damaged(_) => block += 1,
            }
        };
        match frame {
            Some(header) if holds(&header) => (low, found) = (block, Some(header)),
            _ => high = middle,
        }
    }
    Ok((low, found))
}
