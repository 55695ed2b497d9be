//! Times as the archive counts them: in microseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use foreword_command::units::{age, human as bytes, lsn, size};

/// A moment: `2026-11-29T08:30:00Z`, a day, or how long ago.
pub(crate) fn moment(text: &str) -> Result<u64, String> {
    foreword_command::units::moment(text).map(micros)
}

pub(crate) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A moment to the second; nothing for one that is not known.
pub(crate) fn time(micros: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_micros(micros));
    moment.map_or_else(|| "?".to_owned(), foreword_command::units::timestamp_seconds)
}
