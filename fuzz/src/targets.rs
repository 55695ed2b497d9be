//! The targets by name.

use crate::{directory, input, options, segment};

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the names of `fuzz_targets/` and `corpus/`.
pub const TARGETS: [Target; 4] =
    [("segment", segment::run), ("directory", directory::run), ("options", options::run), ("input", input::run)];
