//! The machine's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By this machine's clock; nothing, if it stands before that.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time that frames bear.
pub(crate) fn now_micros() -> u64 {
    since_1970().as_micros() as u64
}
