//! Target `segment`: one segment file, by a [recipe], and all that reads.

use crate::{oracle, recipe};

/// Tries one input.
pub fn run(data: &[u8]) {
    if let Some(mut files) = recipe::directory(data) {
        let segments = files.keys().filter(|name| crate::forge::epoch_of(name).is_some()).cloned();
        segments.skip(1).collect::<Vec<_>>().iter().for_each(|name| _ = files.remove(name));
        oracle::look(&oracle::disk(&files), &files);
    }
}
