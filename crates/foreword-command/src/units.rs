//! Sizes and times, as people write them.

use std::time::{Duration, SystemTime};

use foreword::Limit;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// A size: `65536`, `64K`, `64KiB`, `1M`, `4G` (powers of 1024).
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(format!("`{unit}` is no unit of size: use K, M or G")),
    };
    let number: u64 = number.parse().map_err(|_| "not a number, as in 65536, 64K or 1M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// A time: `100ms`, `2s`, `500us`, `1m`.
pub fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("a time has a unit, as in 500us, 100ms, 2s or 1m".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "not a number, as in 100ms or 2s".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())
}

/// A moment: `2026-11-29T08:30:00Z`, with another offset, a day (from its beginning in UTC), or so
/// long ago: `10m`, `1h 30m`, `2d`.
pub fn moment(text: &str) -> Result<SystemTime, String> {
    // (A `Date` would also be read from a time that has no offset, without that time.)
    let day = || text.parse::<Date>().ok().filter(|_| text.len() == 10)?.to_zoned(TimeZone::UTC).ok();
    if let Some(moment) = text.parse::<Timestamp>().ok().or_else(|| Some(day()?.timestamp())) {
        return Ok(moment.into());
    }
    let ago: SignedDuration = match text.parse::<Span>() {
        // A day is 24 hours here.
        Ok(span) => span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|e| e.to_string())?,
        Err(_) => {
            return Err("use a time as in 2026-11-29T08:30:00Z or 2026-11-29, or how long ago, as in 10m or 2h 30m".to_owned());
        }
    };
    let ago = Duration::try_from(ago).map_err(|_| "that is in the future".to_owned())?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| "that is before all records".to_owned())
}

/// A moment, exact, as scripts and people read it: `2026-11-29T08:30:00.123456Z`.
pub fn timestamp(moment: SystemTime) -> String {
    Timestamp::try_from(moment).map_or_else(|_| "?".to_owned(), |moment| format!("{moment:.6}"))
}

/// A moment to the second: `2026-11-29T08:30:00Z`.
pub fn timestamp_seconds(moment: SystemTime) -> String {
    Timestamp::try_from(moment).map_or_else(|_| "?".to_owned(), |moment| format!("{moment:.0}"))
}

/// An age: `10m`, `1h 30m`, `7d`.
pub fn age(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let age = span.and_then(|age| Duration::try_from(age).ok()).filter(|age| !age.is_zero());
    age.ok_or_else(|| "use an age as in 10m, 2h 30m or 7d".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// The limit of a hold, as text that follows what it keeps.
pub fn limit(limit: &Limit) -> String {
    let bytes = limit.bytes.map(human);
    let age = limit.age.map(|age| format!("{} s", age.as_secs()));
    match (bytes, age) {
        (None, None) => String::new(),
        (Some(bytes), None) => format!(", at most {bytes}"),
        (None, Some(age)) => format!(", for at most {age}"),
        (Some(bytes), Some(age)) => format!(", at most {bytes}, for at most {age}"),
    }
}

/// A size for people: `1.5 MiB`.
pub fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A duration in words: `0.4 s`, `12 s`, `3 min 5 s`, `7 h 30 min`, `12 days 3 h`.
pub fn long_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, large_name, small: u64, small_name| match small {
        0 => format!("{large} {large_name}"),
        _ => format!("{large} {large_name} {small} {small_name}"),
    };
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => two(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, if seconds < 172_800 { "day" } else { "days" }, seconds / 3600 % 24, "h"),
    }
}

/// Megabytes (10^6) a second.
pub fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64().max(1e-9)
}

/// An LSN among the arguments.
pub fn lsn(text: &str) -> Result<foreword::Lsn, String> {
    text.parse().ok().filter(|&lsn| lsn > 0).map(foreword::Lsn).ok_or_else(|| "an LSN is a number from 1 on".to_owned())
}

/// The same, or 0, which `stat` says of a log without records.
pub fn lsn_or_none(text: &str) -> Result<foreword::Lsn, String> {
    if text == "0" { Ok(foreword::Lsn::ZERO) } else { lsn(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_spelling_and_nothing_else() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65536), ("64KiB", 65536), ("64KB", 65536), ("3M", 3 << 20), ("4G", 4 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "K", "-1", "1T", "1.5M", "64 K", "99999999999999999999", "99999999999G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(time("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "100", "s", "1h", "-1s", "1.2.3s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_are_of_a_calendar_or_so_long_ago() {
        let at = |seconds: f64| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        assert_eq!(moment("1970-01-02T00:00:00Z"), Ok(at(86_400.0)));
        assert_eq!(moment("1970-01-01T02:00:00.5+02:00"), Ok(at(0.5)));
        assert_eq!(moment("1970-01-03"), Ok(at(172_800.0)));
        assert_eq!(timestamp(at(86_400.5)), "1970-01-02T00:00:00.500000Z");
        assert_eq!(timestamp_seconds(at(86_400.9)), "1970-01-02T00:00:00Z");
        assert_eq!(moment(&timestamp(at(1e9))), Ok(at(1e9)));
        for (text, seconds) in [("10m", 600), ("1h 30m", 5_400), ("2d", 172_800), ("0s", 0)] {
            let then = moment(text).unwrap();
            let ago = SystemTime::now().duration_since(then).unwrap();
            assert!((seconds..seconds + 10).contains(&ago.as_secs()), "{text}: {ago:?}");
        }
        assert_eq!(age("1h 30m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "0s", "10", "-5m", "2026-11-29", "99999999999d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["", "yesterday", "10", "-5m", "2026-13-01T00:00:00Z", "2026-02-30", "2026-11-29T08:30", "20261129", "99999999999d"]
        {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_times() {
        let text = |seconds| long_time(Duration::from_secs_f64(seconds));
        let times = [0.42, 12.9, 185.0, 3600.0, 27_000.0, 90_000.0, 604_800.0].map(text);
        assert_eq!(times, ["0.4 s", "12 s", "3 min 5 s", "1 h", "7 h 30 min", "1 day 1 h", "7 days"]);
    }

    #[test]
    fn human_sizes() {
        assert_eq!(
            (human(0), human(1023), human(1536), human(5 << 40)),
            ("0 B".into(), "1023 B".into(), "1.5 KiB".into(), "5.0 TiB".into())
        );
    }
}
