//! Figures as text.

use foreword_measure::sample::Spread;

/// A median with what it lies between.
pub(crate) fn told(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("nothing".into(), |s| format!("{:.digits$} [{:.digits$} to {:.digits$}]", s.median, s.min, s.max))
}
