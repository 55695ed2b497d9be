//! The pictures of docs/PERFORMANCE.md. They are drawn from the tables in
//! docs/performance/tables.md, so that the two cannot disagree.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use foreword_measure::report::{Axis, Span, Unit};

/// Draws the pictures of docs/PERFORMANCE.md from the tables in a document, and writes them beside
/// it.
#[derive(clap::Args)]
pub struct Args {
    /// The document with the tables, as `doc` writes them.
    #[arg(default_value = "docs/performance/tables.md")]
    tables: PathBuf,
}

impl Args {
    pub fn run(self) -> Result<()> {
        let text = std::fs::read_to_string(&self.tables).with_context(|| format!("read {}", self.tables.display()))?;
        for (name, svg) in pictures(&text)? {
            let path = self.tables.with_file_name(name);
            std::fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
            println!("{}", path.display());
        }
        Ok(())
    }
}

/// The file names of all pictures, and what is in them.
fn pictures(text: &str) -> Result<Vec<(&'static str, String)>> {
    let small = table(text, "Durable commits, records of 128 B", "Commits a second")?;
    let large = table(text, "Durable commits, records of 1 KiB", "Commits a second")?;
    let appends = table(text, "Buffered append", "Records a second, until all are durable")?;
    let opening = table(text, "Opening", "After a clean close")?;
    Ok(vec![
        ("commits.svg", commits(&small, "records of 128 B")?),
        ("commits-1k.svg", commits(&large, "records of 1 KiB")?),
        ("appends.svg", bandwidth(&appends)?),
        ("opening.svg", opening_times(&opening, "1 GiB")?),
    ])
}

/// A table of figures: a row for each contestant.
struct Table {
    head: Vec<String>,
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    fn row(&self, name: &str) -> Result<&[Option<f64>]> {
        let row = self.rows.iter().find(|(other, _)| other == name);
        Ok(&row.with_context(|| format!("the table has no row {name}"))?.1)
    }
}

/// The table below a title, in a section.
fn table(text: &str, section: &str, title: &str) -> Result<Table> {
    let missing = || format!("there is no table \"{title}\" below \"## {section}\"");
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).with_context(missing)?;
    let rest = rest.split_once("\n## ").map_or(rest, |(section, _)| section);
    let (_, rest) = rest.split_once(&format!("\n{title}:\n\n")).with_context(missing)?;
    let mut lines = rest.lines().take_while(|line| line.starts_with('|')).map(cells);
    let head = lines.next().with_context(missing)?.split_off(1);
    let row = |mut cells: Vec<String>| {
        let name = cells.remove(0).replace("**", "");
        let values: Result<Vec<_>> = cells.iter().map(|cell| value(cell)).collect();
        anyhow::Ok((name, values?))
    };
    let rows: Vec<_> = lines.skip(1).map(row).collect::<Result<_>>().with_context(missing)?;
    ensure!(rows.iter().all(|(_, values)| values.len() == head.len()), "{title}: rows of different lengths");
    Ok(Table { head, rows })
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// A figure as the tables show it (`118,000`, `1.8 ms`, `16 KiB`), in units without a prefix;
/// `None` where there is none.
fn value(cell: &str) -> Result<Option<f64>> {
    if cell == "–" {
        return Ok(None);
    }
    let (number, unit) = cell.split_once(' ').unwrap_or((cell, ""));
    let number: f64 = number.replace(',', "").parse().with_context(|| format!("{cell}: no number"))?;
    Ok(Some(match unit {
        "" | "s" | "B" => number,
        "ms" => number / 1e3,
        "µs" => number / 1e6,
        "KiB" => number * 1024.0,
        _ => anyhow::bail!("{cell}: an unknown unit"),
    }))
}

/// At most these lines: more cannot be told apart at a phone's width. The tables have the others.
const COMMITTERS: [(&str, &str); 6] =
    [("foreword", "ours"), ("floor", "floor"), ("writeahead", "a"), ("raft-engine", "b"), ("okaywal", "c"), ("sqlite", "d")];
const APPENDERS: [(&str, &str); 5] =
    [("foreword", "ours"), ("floor", "floor"), ("okaywal", "c"), ("sharded-log", "a"), ("commitlog", "d")];

fn commits(table: &Table, what: &str) -> Result<String> {
    let threads = |head: &str| head.strip_prefix("T=").and_then(|n| n.parse().ok()).context("a column T=n");
    let x: Vec<f64> = table.head.iter().map(|head| threads(head)).collect::<Result<_>>()?;
    let lines = COMMITTERS.iter().map(|&(name, class)| Line::new(name, class, &x, table.row(name)?)).collect::<Result<_>>()?;
    let plot = Plot {
        title: "Durable commits a second",
        about: format!("by threads, {what}, on logarithmic scales"),
        across: Axis::log("threads, each waiting for its own commit", Unit::Count).discrete(),
        up: Axis::log("", Unit::Count),
        lines,
    };
    plot.svg()
}

fn bandwidth(table: &Table) -> Result<String> {
    let x: Vec<f64> = table.head.iter().map(|head| value(head)?.context("a column with a size")).collect::<Result<_>>()?;
    let line = |&(name, class): &(&'static str, &'static str)| {
        let bytes: Vec<_> = table.row(name)?.iter().zip(&x).map(|(rate, size)| rate.map(|rate| rate * size / 1e6)).collect();
        Line::new(name, class, &x, &bytes)
    };
    let lines = APPENDERS.iter().map(line).collect::<Result<_>>()?;
    let plot = Plot {
        title: "Appended until durable",
        about: "MB/s of records, from one thread, with one sync at the end".to_owned(),
        across: Axis::log("size of a record", Unit::Bytes).discrete(),
        up: Axis::linear("", Unit::Count),
        lines,
    };
    plot.svg()
}

// The size of a picture. GitHub shows it 358 wide on a phone that is 390 wide: text of 16.5 is 11.3
// there.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 430.0;
/// How wide a character of that text is taken to be.
const CHAR: f64 = 8.6;

const STYLE: &str = "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:16.5px;fill:#4c5661}\
.title{font-size:20px;font-weight:600;fill:#1f2328}.end{text-anchor:end}.middle{text-anchor:middle}\
.page{fill:#fff}.grid{stroke:#d8dee4;fill:none}\
.line{fill:none;stroke:currentColor;stroke-width:2.2;stroke-linejoin:round}.mark,.name{fill:currentColor}\
.ours.line{stroke-width:4}.ours.name{font-weight:700}.floor.line{stroke-dasharray:7 5}\
.ours{color:#0068b5}.floor{color:#6e7781}.a{color:#b4400f}.b{color:#00795a}.c{color:#a2307a}.d{color:#806400}\
@media(prefers-color-scheme:dark){text{fill:#a7b1bc}.title{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#2b323b}\
.mark,.name{fill:currentColor}\
.ours{color:#5cb2f5}.floor{color:#9aa5b1}.a{color:#ff8f5a}.b{color:#3ecf9f}.c{color:#f08bca}.d{color:#e2bd45}}";

/// What is drawn so far.
#[derive(Default)]
struct Canvas(String);

impl Canvas {
    /// `y` is the middle of the text.
    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let _ = writeln!(self.0, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text>", y + 5.5);
    }

    fn path(&mut self, class: &str, path: &str) {
        let _ = writeln!(self.0, "<path class=\"{class}\" d=\"{path}\"/>");
    }

    fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64) {
        let _ = writeln!(self.0, "<circle class=\"mark {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
    }

    /// The whole picture: its title, what it shows in words, and what was drawn.
    fn svg(self, title: &str, about: &str, height: f64) -> String {
        let mut head = Canvas::default();
        head.text("title", 12.0, 22.5, title);
        head.text("", 12.0, 46.5, about);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\">\n<title>{title}, {about}</title>\n<style>{STYLE}</style>\n\
             <path class=\"page\" d=\"M0 0H{WIDTH}V{height}H0Z\"/>\n{}{}</svg>\n",
            head.0, self.0
        )
    }
}

/// How wide the longest of some texts is.
fn widest<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> f64 {
    texts.map(|text| text.as_ref().chars().count()).max().unwrap_or(0) as f64 * CHAR
}

/// A line through a contestant's points.
struct Line {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
    last: (f64, f64),
}

impl Line {
    fn new(name: &'static str, class: &'static str, x: &[f64], y: &[Option<f64>]) -> Result<Line> {
        let points: Vec<_> = x.iter().zip(y).filter_map(|(&x, y)| Some((x, (*y)?))).collect();
        let last = *points.last().with_context(|| format!("{name} has no figures"))?;
        Ok(Line { name, class, points, last })
    }

    /// What stands at its end.
    fn label(&self) -> String {
        let name = if self.name == "floor" { "disk alone" } else { self.name };
        format!("{name} {}", Unit::Count.text(self.last.1))
    }
}

struct Plot {
    title: &'static str,
    about: String,
    across: Axis,
    up: Axis,
    lines: Vec<Line>,
}

impl Plot {
    fn svg(&self) -> Result<String> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let across = Span::of(&self.across, points().map(|p| p.0)).context("no figures")?;
        let up = Span::of(&self.up, points().map(|p| p.1)).context("no figures")?;
        let left = 16.0 + widest(up.ticks().iter().map(|&y| self.up.unit.text(y)));
        let right = WIDTH - 20.0 - widest(self.lines.iter().map(Line::label));
        let (top, bottom) = (74.0, HEIGHT - 62.0);
        let x = |value: f64| left + (right - left) * across.place(value).unwrap_or(0.0);
        let y = |value: f64| bottom - (bottom - top) * up.place(value).unwrap_or(0.0);
        let place = |(a, b): (f64, f64)| (x(a), y(b));
        let mut canvas = Canvas::default();
        for &tick in up.ticks() {
            canvas.path("grid", &format!("M{left:.1} {:.1}H{right:.1}", y(tick)));
            canvas.text("end", left - 6.0, y(tick), &self.up.unit.text(tick));
        }
        for &tick in across.ticks() {
            canvas.path("grid", &format!("M{:.1} {bottom:.1}V{top}", x(tick)));
            canvas.text("middle", x(tick), bottom + 16.5, &self.across.unit.text(tick));
        }
        canvas.text("middle", (left + right) / 2.0, HEIGHT - 19.5, &self.across.label);
        // Labels stand at the lines' ends, pushed apart where they would touch. The first line is
        // drawn last, over the others.
        let ends: Vec<f64> = self.lines.iter().map(|line| place(line.last).1).collect();
        for (line, y) in self.lines.iter().zip(apart(&ends, 20.0, bottom)).rev() {
            let points: Vec<_> = line.points.iter().map(|&point| place(point)).collect();
            let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            canvas.path(&format!("line {}", line.class), &format!("M{}", path.join("L")));
            for &point in points.iter().filter(|_| line.name != "floor") {
                canvas.dot(line.class, point, 4.0);
            }
            canvas.text(&format!("name {}", line.class), right + 10.0, y, &line.label());
        }
        Ok(canvas.svg(self.title, &self.about, HEIGHT))
    }
}

/// A row for each contestant, the fastest first.
fn opening_times(table: &Table, size: &str) -> Result<String> {
    let column = table.head.iter().position(|head| head == size).with_context(|| format!("no column {size}"))?;
    let rows = table.rows.iter().filter_map(|(name, values)| Some((name.as_str(), values[column]?)));
    let mut rows: Vec<(&str, f64)> = rows.collect();
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    let span = Span::of(&Axis::log("", Unit::Seconds), rows.iter().map(|row| row.1)).context("no figures")?;
    let (left, right, top, row) = (24.0 + widest(rows.iter().map(|(name, _)| name)), WIDTH - 96.0, 70.0, 25.0);
    let x = |value: f64| left + (right - left) * span.place(value).unwrap_or(0.0);
    let bottom = top + rows.len() as f64 * row;
    let mut canvas = Canvas::default();
    for &tick in span.ticks() {
        canvas.path("grid", &format!("M{:.1} {bottom}V{top}", x(tick)));
        canvas.text("middle", x(tick), bottom + 14.5, &Unit::Seconds.text(tick));
    }
    for (i, &(name, seconds)) in rows.iter().enumerate() {
        let (class, y) = (if name == "foreword" { "ours" } else { "floor" }, top + (i as f64 + 0.5) * row);
        canvas.text(&format!("name {class} end"), left - 14.0, y, name);
        canvas.dot(class, (x(seconds), y), 6.0);
        canvas.text("", x(seconds) + 12.0, y, &Unit::Seconds.text(seconds));
    }
    let about = format!("of {size}, in the page cache, on a logarithmic scale");
    Ok(canvas.svg("Opening a log after a clean close", &about, bottom + 34.0))
}

/// Heights in the same order, at least `gap` apart and none below `bottom`.
fn apart(heights: &[f64], gap: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|&a, &b| heights[a].total_cmp(&heights[b]));
    let mut places = heights.to_vec();
    // Down from the top, then up from the bottom, as often as it takes.
    for _ in 0..heights.len() {
        for pair in order.windows(2) {
            let short = gap - (places[pair[1]] - places[pair[0]]);
            if short > 0.0 {
                places[pair[0]] -= short / 2.0;
                places[pair[1]] += short / 2.0;
            }
        }
    }
    for (behind, &i) in order.iter().rev().enumerate() {
        places[i] = places[i].min(bottom - behind as f64 * gap);
    }
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_pictures_are_what_the_tables_give() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/performance");
        let tables = std::fs::read_to_string(dir.join("tables.md")).unwrap();
        for (name, svg) in pictures(&tables).unwrap() {
            let committed = std::fs::read_to_string(dir.join(name)).unwrap();
            assert!(committed == svg, "{name} is not what tables.md gives: `foreword-bench pictures` draws it anew");
        }
    }

    #[test]
    fn figures_are_read_as_they_are_shown() {
        let read = ["118,000", "1.8 ms", "660 µs", "2.52 s", "16 KiB", "128 B", "–"].map(|cell| value(cell).unwrap());
        assert_eq!(read[..4], [Some(118_000.0), Some(1.8e-3), Some(660e-6), Some(2.52)]);
        assert_eq!(read[4..], [Some(16384.0), Some(128.0), None]);
        assert!(value("1 day").is_err() && value("many").is_err());
    }

    #[test]
    fn a_table_is_found_by_its_section_and_title() {
        let of = |section: &str, row: &str| format!("\n## {section}\n\nRate:\n\n|  | T=1 |\n|---|---:|\n| {row} |\n");
        let text = [of("A", "**foreword** | 1,000"), of("B", "x | –")].concat();
        let found = table(&text, "A", "Rate").unwrap();
        assert_eq!((found.head, found.rows), (vec!["T=1".to_owned()], vec![("foreword".to_owned(), vec![Some(1000.0)])]));
        assert_eq!(table(&text, "B", "Rate").unwrap().row("x").unwrap(), [None]);
        assert!(table(&text, "A", "Latency").is_err() && table(&text, "C", "Rate").is_err());
    }

    #[test]
    fn labels_do_not_touch() {
        let places = apart(&[100.0, 101.0, 102.0, 300.0], 20.0, 300.0);
        assert!(places.windows(2).all(|p| p[1] - p[0] >= 19.0), "{places:?}");
        assert!(places.iter().all(|&y| y <= 300.0), "{places:?}");
    }
}
