//! Sizes, ages, times and LSNs, in and out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foreword::Lsn;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

pub(crate) fn lsn(text: &str) -> Result<Lsn, String> {
    text.parse().ok().filter(|lsn| *lsn > 0).map(Lsn).ok_or_else(|| "an LSN is a number from 1 on".to_owned())
}

/// An age: `1s`, `10m`, `1h 30m`, `7d`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let age = span.and_then(|age| Duration::try_from(age).ok());
    age.ok_or_else(|| "use an age as in 1s, 10m, 2h 30m or 7d".to_owned())
}

/// A moment, in microseconds since 1970: `2026-11-29T08:30:00Z`, a day, or how long ago.
pub(crate) fn moment(text: &str) -> Result<u64, String> {
    // (A `Date` would also be read from a time that has no offset, without that time.)
    let day = || text.parse::<Date>().ok().filter(|_| text.len() == 10)?.to_zoned(TimeZone::UTC).ok();
    let moment = match text.parse::<Timestamp>().ok().or_else(|| Some(day()?.timestamp())) {
        Some(moment) => SystemTime::from(moment),
        None => {
            let ago = age(text).map_err(|_| {
                "use a time as in 2026-11-29T08:30:00Z or 2026-11-29, or how long ago, as in 10s or 2h 30m".to_owned()
            })?;
            SystemTime::now().checked_sub(ago).ok_or_else(|| "that is before all records".to_owned())?
        }
    };
    Ok(micros(moment))
}

pub(crate) fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A size: `8M`, `64K`, `1G`, or bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => Some(0),
        "K" | "k" | "KiB" => Some(10),
        "M" | "MiB" => Some(20),
        "G" | "GiB" => Some(30),
        _ => None,
    };
    let size = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    size.ok_or_else(|| "use a size as in 64K, 8M or 1G".to_owned())
}

/// A moment to the second; nothing for one that is not known.
pub(crate) fn time(micros: u64) -> String {
    let moment = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    moment.map_or_else(|| "?".to_owned(), |moment| format!("{moment:.0}"))
}

pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
