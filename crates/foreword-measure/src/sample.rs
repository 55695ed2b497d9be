//! Figures that say how far they can be trusted: latencies, medians, spread, ratios.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// The values of repetitions: the median, and how far the others are from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many values.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// A quarter of the values lie below.
    pub q1: f64,
    /// Half of them do.
    pub median: f64,
    /// Three quarters do.
    pub q3: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// The spread of some values; `None` if there are none. Values that are no finite number are
    /// left out.
    ///
    /// ```
    /// use foreword_measure::sample::Spread;
    /// let spread = Spread::of(&[3.0, 1.0, 2.0, 10.0]).unwrap();
    /// assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.5, 10.0));
    /// assert_eq!(Spread::of(&[]), None);
    /// ```
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let at = |q: f64| {
            let place = q * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Some(Spread { n: sorted.len(), min, q1: at(0.25), median: at(0.5), q3: at(0.75), max })
    }

    /// The same in another unit.
    #[must_use]
    pub fn scaled(self, by: f64) -> Spread {
        let Spread { n, min, q1, median, q3, max } = self;
        Spread { n, min: min * by, q1: q1 * by, median: median * by, q3: q3 * by, max: max * by }
    }
}

/// The ratio a / b of interleaved repetitions: each `a` to the `b` of its own round, so that what
/// changed both drops out. Rounds that have only one of the two are left out; `None` if no round is
/// left.
///
/// ```
/// // The disk was twice as slow in the second round: the ratio does not care.
/// let ratio = foreword_measure::sample::ratio(&[3.0, 6.0], &[2.0, 4.0]).unwrap();
/// assert_eq!((ratio.min, ratio.median, ratio.max), (1.5, 1.5, 1.5));
/// ```
#[must_use]
pub fn ratio(a: &[f64], b: &[f64]) -> Option<Spread> {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    Spread::of(&ratios)
}

/// Beyond an hour a latency is an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// How long things took: an HDR histogram of nanoseconds, to three digits. As JSON: its count, mean
/// and percentiles, in nanoseconds.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "constants: three digits, and bounds in order")]
        Latencies(Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds"))
    }
}

impl Latencies {
    /// None yet.
    #[must_use]
    pub fn new() -> Latencies {
        Latencies::default()
    }

    /// Adds a latency.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(took.as_nanos().min(u128::from(LONGEST)) as u64);
    }

    /// Adds the latencies of another.
    pub fn merge(&mut self, other: &Latencies) {
        // Both have the same bounds, so it cannot fail; if it did, nothing would be lost but
        // figures.
        let _ = self.0.add(&other.0);
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that a fraction `q` (0 to 1) do not exceed; zero if there are none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        Duration::from_nanos(if self.0.is_empty() { 0 } else { self.0.value_at_quantile(q) })
    }

    /// Their mean; zero if there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }

    /// The longest; zero if there are none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// Points for a plot of the distribution: fraction, and the latency that it does not exceed, as
    /// far out as there are values to tell (p99.9 needs a thousand).
    #[must_use]
    pub fn distribution(&self) -> Vec<(f64, Duration)> {
        const FRACTIONS: [f64; 15] =
            [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999];
        let told = |q: &f64| (1.0 - q) * self.count() as f64 >= 1.0;
        FRACTIONS.into_iter().filter(told).map(|q| (q, self.quantile(q))).collect()
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} latencies, p50 {:?}, p99 {:?}, max {:?}", self.count(), self.quantile(0.5), self.quantile(0.99), self.max())
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let nanos = |time: Duration| time.as_nanos() as u64;
        let mut json = serializer.serialize_struct("Latencies", 9)?;
        json.serialize_field("count", &self.count())?;
        json.serialize_field("mean_ns", &nanos(self.mean()))?;
        json.serialize_field("min_ns", &if self.0.is_empty() { 0 } else { self.0.min() })?;
        json.serialize_field("p50_ns", &nanos(self.quantile(0.5)))?;
        json.serialize_field("p90_ns", &nanos(self.quantile(0.9)))?;
        json.serialize_field("p99_ns", &nanos(self.quantile(0.99)))?;
        json.serialize_field("p999_ns", &nanos(self.quantile(0.999)))?;
        json.serialize_field("p9999_ns", &nanos(self.quantile(0.9999)))?;
        json.serialize_field("max_ns", &nanos(self.max()))?;
        json.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_few_values() {
        let one = Spread::of(&[7.0, f64::NAN]).unwrap();
        assert_eq!((one.n, one.min, one.q1, one.median, one.q3, one.max), (1, 7.0, 7.0, 7.0, 7.0, 7.0));
        let five = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]).unwrap();
        assert_eq!((five.q1, five.median, five.q3), (2.0, 3.0, 4.0));
        assert_eq!(five.scaled(2.0).max, 10.0);
        assert_eq!(ratio(&[1.0], &[]), None);
        assert_eq!(ratio(&[1.0, 8.0], &[0.0, 4.0]).unwrap().median, 2.0, "a division by zero is no value");
    }

    #[test]
    fn latencies_are_told_to_three_digits_and_no_further_out_than_they_are_many() {
        let mut all = Latencies::new();
        assert_eq!((all.quantile(0.5), all.mean(), all.max(), all.distribution().len()), Default::default());
        for micros in 1..=1000 {
            let mut some = Latencies::new();
            some.record(Duration::from_micros(micros));
            all.merge(&some);
        }
        let p99 = all.quantile(0.99).as_nanos() as f64;
        assert!((p99 / 990e3 - 1.0).abs() < 2e-3, "{p99}");
        assert_eq!(all.distribution().last().unwrap().0, 0.999);
        all.record(Duration::from_secs(1 << 40));
        assert!(all.max() >= Duration::from_secs(3600), "{:?}", all.max());
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!((&json["count"], json.as_object().unwrap().len()), (&1001.into(), 9));
    }
}
