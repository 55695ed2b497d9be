//! What the files of a log's directory say about it.

use std::path::Path;

use foreword::inspect::{self, Content, SegmentState};

/// The size of a segment that was made of the reserve for a full disk, if the log's other segments
/// are larger (docs/FORMAT.md: 96 blocks).
const RESERVE_BYTES: u64 = 96 * 4096;

/// The size of a log's segments according to their headers, since a file may have been truncated or
/// extended. The newest segment counts, if possible a sound one that was not made of the reserve.
/// `None` where none can be read.
#[must_use]
pub fn segment_bytes(dir: &Path) -> Option<u64> {
    let segments = inspect::segments(dir).ok()?;
    let (damaged, sound): (Vec<_>, Vec<_>) = segments.iter().partition(|s| matches!(s.state, SegmentState::Damaged(_)));
    let newest_first = sound.iter().rev().chain(damaged.iter().rev());
    let mut sizes = newest_first.filter_map(|s| header_bytes(dir, s.epoch)).peekable();
    let newest = sizes.peek().copied();
    sizes.find(|&bytes| bytes != RESERVE_BYTES).or(newest)
}

fn header_bytes(dir: &Path, epoch: u64) -> Option<u64> {
    match inspect::frames(dir, epoch).ok()?.next()?.ok()?.content {
        Content::Header { segment_bytes, .. } => Some(segment_bytes),
        _ => None,
    }
}
