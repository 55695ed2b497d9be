//! Units, and numbers as text.

use serde::Serialize;

/// How numbers become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// As they are: `128k`.
    Count,
    /// Seconds, as a time that fits: `98 µs`.
    Seconds,
    /// Bytes in powers of 1024: `4 KiB`.
    Bytes,
    /// Bytes a second in powers of 1000: `1.2 GB/s`.
    BytesPerSecond,
    /// A fraction, as percent: `12 %`; the nines as `p99.9`.
    Fraction,
}

impl Unit {
    /// A number as text for people.
    ///
    /// ```
    /// use foreword_measure::report::Unit;
    /// assert_eq!(Unit::Seconds.text(98.2e-6), "98.2 µs");
    /// assert_eq!(Unit::Count.text(118_400.0), "118k");
    /// assert_eq!(Unit::Bytes.text(4096.0), "4 KiB");
    /// assert_eq!(Unit::Fraction.text(0.125), "12.5 %");
    /// ```
    #[must_use]
    pub fn text(self, value: f64) -> String {
        text(self, value)
    }
}

/// A number as text for people: three digits say enough.
fn text(unit: Unit, value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match unit {
        Unit::Count => stepped(value, 1000.0, &["", "k", "M", "G"], ""),
        Unit::Seconds if value == 0.0 => "0".to_owned(),
        Unit::Seconds => {
            let (times, name) = [(1e9, " ns"), (1e6, " µs"), (1e3, " ms")]
                .into_iter()
                .find(|(times, _)| (value * times).abs() < 999.5)
                .unwrap_or((1.0, " s"));
            format!("{}{name}", three_digits(value * times))
        }
        Unit::Bytes => stepped(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"], " "),
        Unit::BytesPerSecond => stepped(value, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s"], " "),
        Unit::Fraction => format!("{} %", three_digits(value * 100.0)),
    }
}

fn stepped(mut value: f64, step: f64, names: &[&str], space: &str) -> String {
    let mut names = names.iter();
    let mut name = names.next().copied().unwrap_or_default();
    for next in names {
        if value.abs() < step - 0.5 {
            break;
        }
        (value, name) = (value / step, next);
    }
    format!("{}{space}{name}", three_digits(value))
}

/// `0.0123`, `1.23`, `12.3`, `123`, `1234`: without zeros that say nothing.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let cases = [
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 999.0, "999"),
            (Unit::Count, 999.7, "1k"),
            (Unit::Count, 1_234_567.0, "1.23M"),
            (Unit::Count, 0.0456, "0.0456"),
            (Unit::Seconds, 0.0, "0"),
            (Unit::Seconds, 5e-9, "5 ns"),
            (Unit::Seconds, 98.27e-6, "98.3 µs"),
            (Unit::Seconds, 0.9997e-3, "1 ms"),
            (Unit::Seconds, 2.5, "2.5 s"),
            (Unit::Seconds, 3600.0, "3600 s"),
            (Unit::Bytes, 128.0, "128 B"),
            (Unit::Bytes, 1024.0, "1 KiB"),
            (Unit::Bytes, 65536.0, "64 KiB"),
            (Unit::BytesPerSecond, 1.234e9, "1.23 GB/s"),
            (Unit::Fraction, 1.0, "100 %"),
            (Unit::Fraction, f64::NAN, "–"),
        ];
        for (unit, value, text) in cases {
            assert_eq!(unit.text(value), text, "{value}");
        }
    }
}
