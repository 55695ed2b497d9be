//! The subcommands.

pub(crate) mod append;
mod baseline;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod chaos;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod dump;
mod ground;
pub(crate) mod hold;
pub(crate) mod manual;
pub(crate) mod repair;
pub(crate) mod stat;
pub(crate) mod top;
pub(crate) mod truncate;
pub(crate) mod verify;

use std::path::Path;

use foreword::inspect::{self, Content, SegmentState};
use foreword::{Lsn, Options};

/// What a segment has that was made of the room kept for a full disk, if the log's own are larger (docs/FORMAT.md: 96 blocks).
const RESERVE_BYTES: u64 = 96 * 4096;

/// How to open a log that may be there: in segments of the size that it has. What no caller waits for is told as everything else is.
fn options_for(dir: &Path) -> Options {
    let options = Options::new().publish(true).on_error(|error| crate::note(format_args!("{error}")));
    // What is wrong with the log, opening it says.
    match segment_bytes(dir) {
        Some(bytes) => options.segment_bytes(bytes),
        None => options,
    }
}

/// The size of a log's segments, as their headers say: a file may have been cut, or have grown. The newest tells it, if possible one that is
/// sound, and not one that was made in need.
fn segment_bytes(dir: &Path) -> Option<u64> {
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

/// An LSN among the arguments.
fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().ok().filter(|&lsn| lsn > 0).map(Lsn).ok_or_else(|| "an LSN is a number from 1 on".to_owned())
}
