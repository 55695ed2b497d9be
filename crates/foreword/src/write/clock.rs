//! The log's clock.

use std::time::Instant;

use crate::files::time::now_micros;

/// The time that ages are counted from: does not jump while the log is open.
#[derive(Debug)]
pub(crate) struct Clock {
    opened: Instant,
    /// When that was, in microseconds since 1970.
    micros: u64,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock { opened: Instant::now(), micros: now_micros() }
    }

    pub(crate) fn now(&self) -> u64 {
        self.micros.saturating_add(self.opened.elapsed().as_micros() as u64)
    }
}
