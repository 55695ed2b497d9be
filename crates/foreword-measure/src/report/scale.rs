//! Values as text beside an axis, and as places on it.

use super::parts::{Axis, Scale};

/// `p99.9`.
fn percentile(fraction: f64) -> String {
    let text = format!("{:.3}", fraction * 100.0);
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A value on an axis as text.
pub(super) fn on_axis(axis: &Axis, value: f64) -> String {
    if axis.scale == Scale::Nines { percentile(value) } else { axis.unit.text(value) }
}

/// An axis that spans given values: where each is on it, from 0 to 1.
///
/// ```
/// use foreword_measure::report::{Axis, Span, Unit};
/// let span = Span::of(&Axis::log("commits/s", Unit::Count), [130.0, 870.0].into_iter()).unwrap();
/// assert_eq!(span.ticks(), [100.0, 200.0, 500.0, 1000.0]);
/// assert_eq!((span.place(100.0), span.place(1000.0), span.place(0.0)), (Some(0.0), Some(1.0), None));
/// ```
#[derive(Clone, Debug)]
pub struct Span {
    scale: Scale,
    /// Of what the scale makes of the values.
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Span {
    /// The axis that all values fit on. `None` if none of them has a place on the axis's scale.
    #[must_use]
    pub fn of(axis: &Axis, values: impl Iterator<Item = f64>) -> Option<Span> {
        let values: Vec<f64> = values.filter(|&v| bend(axis.scale, v).is_some()).collect();
        let bent: Vec<f64> = values.iter().filter_map(|&v| bend(axis.scale, v)).collect();
        let (low, high) = (bent.iter().copied().reduce(f64::min)?, bent.iter().copied().reduce(f64::max)?);
        let (low, high, mut ticks) = match axis.scale {
            Scale::Linear => linear_ticks(high),
            Scale::Log => log_ticks(low, high),
            Scale::Nines => (low, high.max(low + 0.1), nines()),
        };
        let (mut low, mut high) = (low, high);
        if axis.discrete {
            ticks = values;
            ticks.sort_by(f64::total_cmp);
            ticks.dedup();
            let edge = ((bent.iter().copied().fold(f64::MIN, f64::max) - bent.iter().copied().fold(f64::MAX, f64::min)) * 0.04)
                .max(0.05);
            low = bent.iter().copied().fold(f64::MAX, f64::min) - edge;
            high = bent.iter().copied().fold(f64::MIN, f64::max) + edge;
        }
        let mut span = Span { scale: axis.scale, low, high, ticks };
        span.ticks = span
            .ticks
            .iter()
            .copied()
            .filter(|&tick| span.place(tick).is_some_and(|p| (-1e-9..=1.0 + 1e-9).contains(&p)))
            .collect();
        Some(span)
    }

    /// The values to mark, in ascending order: round ones, or all values of a discrete axis.
    #[must_use]
    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }

    /// The place of a value, from 0 to 1; `None` if it has none on this scale.
    #[must_use]
    pub fn place(&self, value: f64) -> Option<f64> {
        Some((bend(self.scale, value)? - self.low) / (self.high - self.low))
    }
}

fn bend(scale: Scale, value: f64) -> Option<f64> {
    let bent = match scale {
        Scale::Linear => value,
        Scale::Log if value > 0.0 => value.log10(),
        Scale::Nines if (0.0..1.0).contains(&value) => -(1.0 - value).log10(),
        _ => return None,
    };
    bent.is_finite().then_some(bent)
}

/// From zero to a round number, in 4 to 8 steps.
fn linear_ticks(high: f64) -> (f64, f64, Vec<f64>) {
    let high = if high > 0.0 { high } else { 1.0 };
    let magnitude = 10_f64.powf((high / 4.0).log10().floor());
    let step =
        [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * magnitude).into_iter().find(|step| high / step <= 6.0).unwrap_or(10.0 * magnitude);
    let steps = (high / step - 1e-9).ceil();
    (0.0, steps * step, (0..=steps as u32).map(|i| f64::from(i) * step).collect())
}

/// From one of 1, 2, 5, 10 .. to another; all of them are ticks if they are few, else the powers of
/// ten.
fn log_ticks(low: f64, high: f64) -> (f64, f64, Vec<f64>) {
    let round: Vec<f64> = (low.floor() as i32 - 1..=high.ceil() as i32 + 1)
        .flat_map(|decade| [1.0, 2.0, 5.0].map(|m: f64| m * 10_f64.powi(decade)))
        .collect();
    let below = round.iter().copied().rfind(|r| r.log10() <= low + 1e-9).unwrap_or(10_f64.powf(low));
    let above = round.iter().copied().find(|r| r.log10() >= high - 1e-9 && *r > below).unwrap_or(10_f64.powf(high + 1.0));
    let within: Vec<f64> = round.into_iter().filter(|r| (below..=above).contains(r)).collect();
    let ticks = if within.len() <= 8 {
        within
    } else {
        within.into_iter().filter(|r| (r.log10() - r.log10().round()).abs() < 1e-9).collect()
    };
    (below.log10(), above.log10(), ticks)
}

fn nines() -> Vec<f64> {
    vec![0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]
}

#[cfg(test)]
mod tests {
    use super::super::unit::Unit;
    use super::*;

    #[test]
    fn percentiles_have_as_many_nines_as_they_need() {
        assert_eq!((percentile(0.5), percentile(0.999), percentile(0.99999)), ("p50".into(), "p99.9".into(), "p99.999".into()));
    }

    #[test]
    fn ticks_are_round_few_and_around_the_values() {
        let log = Axis::log("", Unit::Count);
        for (low, high) in [(1.0, 64.0), (9_500.0, 9_600.0), (1e-6, 5.0), (3.0, 3.0), (7_400.0, 627_000.0)] {
            let span = Span::of(&log, [low, high].into_iter()).unwrap();
            assert!((2..=9).contains(&span.ticks.len()), "{low}..{high}: {:?}", span.ticks);
            for value in [low, high] {
                assert!((-1e-6..=1.0 + 1e-6).contains(&span.place(value).unwrap()), "{low}..{high}");
            }
        }
        let linear = Axis::linear("", Unit::Count);
        for high in [0.3, 1.0, 7.0, 9_999.0, 0.0] {
            let span = Span::of(&linear, [high].into_iter()).unwrap();
            assert!((3..=8).contains(&span.ticks.len()), "{high}: {:?}", span.ticks);
            assert!(span.place(high).unwrap() <= 1.0 + 1e-9 && span.ticks[0] == 0.0);
        }
        let discrete = Span::of(&Axis::log("", Unit::Count).discrete(), [8.0, 1.0, 64.0, 8.0].into_iter()).unwrap();
        assert_eq!(discrete.ticks, [1.0, 8.0, 64.0]);
    }

    #[test]
    fn what_has_no_place_is_left_out() {
        let log = Axis::log("", Unit::Count);
        assert!(Span::of(&log, [0.0, -1.0, f64::NAN, f64::INFINITY].into_iter()).is_none());
        let span = Span::of(&log, [0.0, 10.0, 20.0].into_iter()).unwrap();
        assert_eq!(span.place(0.0), None);
        let nines = Axis { scale: Scale::Nines, ..Axis::linear("", Unit::Fraction) };
        let span = Span::of(&nines, [0.5, 0.999].into_iter()).unwrap();
        assert_eq!((span.place(1.0), span.ticks), (None, vec![0.5, 0.9, 0.99, 0.999]));
    }
}
