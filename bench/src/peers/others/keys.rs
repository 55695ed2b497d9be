//! Keys for stores.

use std::sync::atomic::{AtomicU64, Ordering};

/// Keys for those that are not logs but stores: a counter that all threads share, big-endian, so
/// that order of keys is order of insertion.
#[derive(Default)]
pub(super) struct Keys(AtomicU64);

impl Keys {
    pub(super) fn next(&self) -> [u8; 8] {
        self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes()
    }
}
