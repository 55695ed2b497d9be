//! How subcommands open a log.

use std::path::Path;

use foreword::Options;
use foreword_command::directory::segment_bytes;

use crate::output;

/// Options to open a log that may exist: with the segment size that it has. Background errors are
/// printed like all others.
pub(crate) fn for_log(dir: &Path) -> Options {
    let options = Options::new().publish(true).on_error(|told| output::error(&told.error));
    // If the log is damaged, opening it says so.
    match segment_bytes(dir) {
        Some(bytes) => options.segment_bytes(bytes),
        None => options,
    }
}
