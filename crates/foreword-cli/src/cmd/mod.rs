//! The subcommands.

pub(crate) mod append;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod chaos;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod dump;
mod ground;
pub(crate) mod manual;
pub(crate) mod repair;
pub(crate) mod stat;
pub(crate) mod top;
pub(crate) mod truncate;
pub(crate) mod verify;

use std::path::Path;

use foreword::inspect::{self, SegmentState};
use foreword::{Lsn, Options};

/// How to open a log that may be there: in segments of the size that it has.
fn options_for(dir: &Path) -> Options {
    // What is wrong with the log, opening it says.
    let segments = inspect::segments(dir).unwrap_or_default();
    match segments.iter().rfind(|s| s.state == SegmentState::Current) {
        Some(current) => Options::new().segment_bytes(current.file_bytes),
        None => Options::new(),
    }
}

/// An LSN among the arguments.
fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().ok().filter(|&lsn| lsn > 0).map(Lsn).ok_or_else(|| "an LSN is a number from 1 on".to_owned())
}
