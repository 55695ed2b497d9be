//! What a report has: sections, plots, tables.

use serde::Serialize;

use super::unit::Unit;

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Its title.
    pub title: String,
    /// Paragraphs below the title.
    pub text: Vec<String>,
    /// Warnings above all figures.
    pub warnings: Vec<String>,
    /// The machine, the disk, the options: name and value.
    pub facts: Vec<(String, String)>,
    /// The parts.
    pub sections: Vec<Section>,
}

/// A part of a page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Section {
    /// Its title.
    pub title: String,
    /// Paragraphs.
    pub text: Vec<String>,
    /// Plots, tables, lists and code, in this order.
    pub items: Vec<Item>,
}

/// What a section shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A plot, with its figures as a table below.
    Plot(Plot),
    /// A table.
    Table(Table),
    /// Points, one below the other.
    List(Vec<String>),
    /// Lines to be copied.
    Code(String),
}

/// A table of texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// Its title, which may be empty.
    pub title: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// How many columns, from the first on, are words and so to the left; the others are to the
    /// right.
    pub words: usize,
    /// Rows, each with a cell for each column. What follows a line break in a cell is small.
    pub rows: Vec<Vec<String>>,
}

/// A plot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plot {
    /// Its title.
    pub title: String,
    /// What it shows; may be empty.
    pub text: String,
    /// What is drawn.
    pub body: Body,
}

/// What a plot draws.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Lines through points.
    Lines {
        /// To the right.
        x: Axis,
        /// Up.
        y: Axis,
        /// The lines.
        series: Vec<Series>,
    },
    /// Bars to the right, in groups below one another.
    Bars {
        /// What a bar's length says.
        value: Axis,
        /// What the bars of each group are of.
        names: Vec<String>,
        /// The groups.
        groups: Vec<Group>,
    },
}

/// An axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Axis {
    /// What it measures.
    pub label: String,
    /// How numbers become places.
    pub scale: Scale,
    /// How numbers become text.
    pub unit: Unit,
    /// Only the values that occur have a tick (numbers of threads, sizes).
    pub discrete: bool,
}

/// How numbers become places. A number without a place (zero on a logarithmic axis) is in the table
/// only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their logarithms.
    Log,
    /// Fractions, by how rare the rest is: 0.9, 0.99 and 0.999 are equally far apart.
    Nines,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// Whether it was measured, or is a limit.
    pub role: Role,
    /// Its points, from left to right.
    pub points: Vec<Point>,
}

/// What a line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Measured: drawn with its points.
    Measured,
    /// A floor or a ceiling: drawn dashed.
    Limit,
}

/// A point, with the spread of the repetitions if it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// To the right.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// The least and most that it was.
    pub spread: Option<(f64, f64)>,
}

/// Bars that belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What they are of.
    pub name: String,
    /// One for each name of the plot; `None` where there is no such value.
    pub bars: Vec<Option<Bar>>,
}

/// A bar, with the spread of the repetitions if it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// Its length.
    pub value: f64,
    /// The least and most that it was.
    pub spread: Option<(f64, f64)>,
}

impl Report {
    /// A page with nothing but a title.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Report {
        Report { title: title.into(), ..Report::default() }
    }

    /// And a paragraph below the title.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Report {
        self.text.push(text.into());
        self
    }

    /// And a warning.
    #[must_use]
    pub fn warning(mut self, text: impl Into<String>) -> Report {
        self.warnings.push(text.into());
        self
    }

    /// And a fact.
    #[must_use]
    pub fn fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Report {
        self.facts.push((name.into(), value.into()));
        self
    }

    /// And a section.
    #[must_use]
    pub fn section(mut self, section: Section) -> Report {
        self.sections.push(section);
        self
    }
}

impl Section {
    /// A section with nothing but a title.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Section {
        Section { title: title.into(), ..Section::default() }
    }

    /// And a paragraph.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Section {
        self.text.push(text.into());
        self
    }

    /// And a plot.
    #[must_use]
    pub fn plot(mut self, plot: Plot) -> Section {
        self.items.push(Item::Plot(plot));
        self
    }

    /// And a table.
    #[must_use]
    pub fn table(mut self, table: Table) -> Section {
        self.items.push(Item::Table(table));
        self
    }

    /// And points.
    #[must_use]
    pub fn list(mut self, points: Vec<String>) -> Section {
        self.items.push(Item::List(points));
        self
    }

    /// And lines to be copied.
    #[must_use]
    pub fn code(mut self, lines: impl Into<String>) -> Section {
        self.items.push(Item::Code(lines.into()));
        self
    }
}

impl Table {
    /// A table whose first column is words, the others numbers.
    #[must_use]
    pub fn new(title: impl Into<String>, head: &[&str], rows: Vec<Vec<String>>) -> Table {
        Table { title: title.into(), head: head.iter().map(|&name| name.to_owned()).collect(), words: 1, rows }
    }

    /// With words in so many columns.
    #[must_use]
    pub fn words(self, columns: usize) -> Table {
        Table { words: columns, ..self }
    }
}

impl Plot {
    /// Lines.
    #[must_use]
    pub fn lines(title: impl Into<String>, x: Axis, y: Axis, series: Vec<Series>) -> Plot {
        Plot { title: title.into(), text: String::new(), body: Body::Lines { x, y, series } }
    }

    /// Bars of one kind: name and value.
    #[must_use]
    pub fn bars<N: Into<String>>(title: impl Into<String>, value: Axis, bars: impl IntoIterator<Item = (N, Bar)>) -> Plot {
        let groups = bars.into_iter().map(|(name, bar)| Group { name: name.into(), bars: vec![Some(bar)] }).collect();
        let names = vec![value.label.clone()];
        Plot { title: title.into(), text: String::new(), body: Body::Bars { value, names, groups } }
    }

    /// Bars of several kinds.
    #[must_use]
    pub fn grouped_bars(title: impl Into<String>, value: Axis, names: Vec<String>, groups: Vec<Group>) -> Plot {
        Plot { title: title.into(), text: String::new(), body: Body::Bars { value, names, groups } }
    }

    /// The distribution of latencies, by strategy say: each name with its points as
    /// [`Latencies::distribution`](crate::sample::Latencies::distribution) gives them.
    #[must_use]
    pub fn distribution(
        title: impl Into<String>,
        of: impl IntoIterator<Item = (String, Vec<(f64, std::time::Duration)>)>,
    ) -> Plot {
        let series = of.into_iter().map(|(name, points)| {
            Series::measured(name, points.into_iter().map(|(fraction, latency)| (fraction, latency.as_secs_f64())))
        });
        let x = Axis { label: "percentile".to_owned(), scale: Scale::Nines, unit: Unit::Fraction, discrete: false };
        Plot::lines(title, x, Axis::log("latency", Unit::Seconds), series.collect())
    }

    /// With words below its title.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Plot {
        self.text = text.into();
        self
    }
}

impl Axis {
    /// A logarithmic axis.
    #[must_use]
    pub fn log(label: impl Into<String>, unit: Unit) -> Axis {
        Axis { label: label.into(), scale: Scale::Log, unit, discrete: false }
    }

    /// A linear axis, from zero.
    #[must_use]
    pub fn linear(label: impl Into<String>, unit: Unit) -> Axis {
        Axis { label: label.into(), scale: Scale::Linear, unit, discrete: false }
    }

    /// With ticks only at the values that occur.
    #[must_use]
    pub fn discrete(self) -> Axis {
        Axis { discrete: true, ..self }
    }
}

impl Series {
    /// A measured line.
    #[must_use]
    pub fn measured<P: Into<Point>>(name: impl Into<String>, points: impl IntoIterator<Item = P>) -> Series {
        Series { name: name.into(), role: Role::Measured, points: points.into_iter().map(Into::into).collect() }
    }

    /// A floor or a ceiling.
    #[must_use]
    pub fn limit<P: Into<Point>>(name: impl Into<String>, points: impl IntoIterator<Item = P>) -> Series {
        Series { role: Role::Limit, ..Series::measured(name, points) }
    }
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Point {
        Point { x, y, spread: None }
    }
}

impl From<(f64, crate::sample::Spread)> for Point {
    /// The median, and the least and most.
    fn from((x, y): (f64, crate::sample::Spread)) -> Point {
        Point { x, y: y.median, spread: Some((y.min, y.max)) }
    }
}

impl From<f64> for Bar {
    fn from(value: f64) -> Bar {
        Bar { value, spread: None }
    }
}

impl From<crate::sample::Spread> for Bar {
    /// The median, and the least and most.
    fn from(value: crate::sample::Spread) -> Bar {
        Bar { value: value.median, spread: Some((value.min, value.max)) }
    }
}
