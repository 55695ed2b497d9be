//! A report: facts, plots and tables, as one self-contained HTML page (no network, no scripts), and
//! as JSON.
//!
//! The page is light or dark as the reader prefers, and fits a desktop, a phone and paper. Below
//! each plot stand its figures as a table. Everything in the page is data of the types here, and is
//! in the page as JSON, too (`<script id="data" type="application/json">`).
//!
//! ```
//! use foreword_measure::report::*;
//!
//! let measured = Series::measured("group commit", [(1.0, 9_500.0), (8.0, 41_000.0), (64.0, 118_000.0)]);
//! let ceiling = Series::limit("ceiling", [(1.0, 9_800.0), (64.0, 627_000.0)]);
//! let plot = Plot::lines("Commits by threads", Axis::log("threads", Unit::Count).discrete(), Axis::log("commits/s", Unit::Count), vec![measured, ceiling])
//!     .text("128 B records, each acknowledged when it is durable.");
//! let report = Report::new("A bench").fact("disk", "vda").section(Section::new("Throughput").plot(plot));
//! assert!(report.to_html().starts_with("<!doctype html>"));
//! ```

mod escape;
mod html;
mod parts;
mod plot;
mod scale;
mod unit;

pub use parts::{Axis, Bar, Body, Group, Item, Plot, Point, Report, Role, Scale, Section, Series, Table};
pub use scale::Span;
pub use unit::Unit;

impl Report {
    /// The page as HTML.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

impl Plot {
    /// Its figures as a table.
    #[must_use]
    pub fn table(&self) -> Table {
        plot::table(self)
    }
}
