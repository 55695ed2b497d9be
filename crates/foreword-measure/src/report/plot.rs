//! A plot as SVG, in two widths, and its figures as a table.
//!
//! Colours and fonts are the page's (`page.css`): a mark has the class of its series, `c0` to `c7`,
//! and a shape of its own, so that colour is never all that tells.

use std::fmt::Write;

use super::escape::escaped;
use super::parts::{Axis, Bar, Body, Group, Plot, Point, Role, Series, Table};
use super::scale::{Span, on_axis};

/// Width and, of lines, height: text has the same size in both.
const WIDE: (f64, f64) = (760.0, 400.0);
const NARROW: (f64, f64) = (350.0, 330.0);

/// How wide a character is taken to be, in whatever font the reader has.
const CHAR: f64 = 8.0;
const COLORS: usize = 8;

/// The legend and the drawings.
pub(super) fn figure(plot: &Plot) -> String {
    let (wide, narrow) = match &plot.body {
        Body::Lines { x, y, series } => (lines(plot, x, y, series, WIDE), lines(plot, x, y, series, NARROW)),
        Body::Bars { value, names, groups } => (bars(plot, value, names, groups, WIDE), bars(plot, value, names, groups, NARROW)),
    };
    match wide.zip(narrow) {
        Some((wide, narrow)) => {
            format!("{}<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>\n", legend(plot))
        }
        None => "<p class=\"empty\">Nothing to draw.</p>\n".to_owned(),
    }
}

/// A row for each place on the x axis, or for each group.
pub(super) fn table(plot: &Plot) -> Table {
    let cell = |axis: &Axis, value: f64, spread: Option<(f64, f64)>| match spread {
        Some((low, high)) if low < high => {
            format!("{}\n{}–{}", axis.unit.text(value), axis.unit.text(low), axis.unit.text(high))
        }
        _ => axis.unit.text(value),
    };
    let none = || "–".to_owned();
    match &plot.body {
        Body::Lines { x, y, series } => {
            let mut places: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.x)).collect();
            places.sort_by(f64::total_cmp);
            places.dedup();
            let at = |series: &Series, place: f64| {
                let point = series.points.iter().find(|p| p.x == place);
                point.map_or_else(none, |p| cell(y, p.y, p.spread))
            };
            let head = std::iter::once(x.label.clone()).chain(series.iter().map(|s| s.name.clone())).collect();
            let row = |&place: &f64| std::iter::once(on_axis(x, place)).chain(series.iter().map(|s| at(s, place))).collect();
            Table { title: String::new(), head, words: 1, rows: places.iter().map(row).collect() }
        }
        Body::Bars { value, names, groups } => {
            let head = std::iter::once(String::new()).chain(names.iter().cloned()).collect();
            let bar = |bar: &Option<Bar>| bar.as_ref().map_or_else(none, |bar| cell(value, bar.value, bar.spread));
            let row = |group: &Group| std::iter::once(group.name.clone()).chain(group.bars.iter().map(bar)).collect();
            Table { title: String::new(), head, words: 1, rows: groups.iter().map(row).collect() }
        }
    }
}

/// Each series with its number among those of its role: that gives its colour and shape.
fn numbered(series: &[Series]) -> impl Iterator<Item = (usize, &Series)> {
    let mut counts = [0, 0];
    series.iter().map(move |series| {
        let count = &mut counts[usize::from(series.role == Role::Limit)];
        *count += 1;
        (*count - 1, series)
    })
}

fn legend(plot: &Plot) -> String {
    let entry = |class: &str, sample: &str, name: &str| {
        format!(
            "<li><svg class=\"{class}\" width=\"28\" height=\"14\" viewBox=\"0 0 28 14\" aria-hidden=\"true\">{sample}</svg>{}</li>",
            escaped(name)
        )
    };
    let mut entries: Vec<String> = match &plot.body {
        Body::Lines { series, .. } => numbered(series)
            .map(|(i, s)| {
                let mark = if s.role == Role::Measured { mark(i, 14.0, 7.0) } else { String::new() };
                entry(&class(s.role, i), &format!("<path class=\"line\" d=\"M0 7H28\"/>{mark}"), &s.name)
            })
            .collect(),
        Body::Bars { names, .. } => names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                entry(&class(Role::Measured, i), "<rect class=\"bar\" x=\"6\" y=\"1\" width=\"16\" height=\"12\"/>", name)
            })
            .collect(),
    };
    if entries.len() < 2 {
        entries.clear();
    }
    if spreads(&plot.body) {
        entries.push(entry("whisker", "<path class=\"spread\" d=\"M4 7H24M4 3v8M24 3v8\"/>", "least to most"));
    }
    if entries.is_empty() { String::new() } else { format!("<ul class=\"legend\">{}</ul>\n", entries.concat()) }
}

/// Whether any value has a whisker.
fn spreads(body: &Body) -> bool {
    match body {
        Body::Lines { series, .. } => series.iter().any(|s| s.points.iter().any(|p| p.spread.is_some())),
        Body::Bars { groups, .. } => groups.iter().flat_map(|g| g.bars.iter().flatten()).any(|b| b.spread.is_some()),
    }
}

fn class(role: Role, number: usize) -> String {
    match role {
        Role::Measured => format!("c{}", number % COLORS),
        Role::Limit => format!("limit d{}", number % 3),
    }
}

/// A point's shape, which tells its series as its colour does.
fn mark(series: usize, x: f64, y: f64) -> String {
    let (l, r, t, b) = (x - 4.5, x + 4.5, y - 4.5, y + 4.5);
    match series % 6 {
        0 => format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.2\"/>"),
        1 => format!("<path class=\"mark\" d=\"M{l:.1} {t:.1}H{r:.1}V{b:.1}H{l:.1}Z\"/>"),
        2 => format!("<path class=\"mark\" d=\"M{x:.1} {:.1}L{:.1} {b:.1}H{:.1}Z\"/>", t - 1.0, r + 1.0, l - 1.0),
        3 => format!(
            "<path class=\"mark\" d=\"M{x:.1} {:.1}L{:.1} {y:.1}L{x:.1} {:.1}L{:.1} {y:.1}Z\"/>",
            t - 1.5,
            r + 1.5,
            b + 1.5,
            l - 1.5
        ),
        4 => format!("<path class=\"mark\" d=\"M{x:.1} {:.1}L{:.1} {t:.1}H{:.1}Z\"/>", b + 1.0, r + 1.0, l - 1.0),
        _ => format!("<path class=\"mark open\" d=\"M{l:.1} {t:.1}L{r:.1} {b:.1}M{l:.1} {b:.1}L{r:.1} {t:.1}\"/>"),
    }
}

/// The part of a drawing that is for the data.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    /// Margin at its left and right edge, so that marks do not touch the axes.
    edge: f64,
}

impl Area {
    fn x(&self, part: f64) -> f64 {
        self.left + self.edge + (self.right - self.left - 2.0 * self.edge) * part
    }

    fn y(&self, part: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * part
    }
}

fn svg(plot: &Plot, width: f64, height: f64, inside: &str) -> String {
    let title = escaped(&plot.title);
    format!(
        "<svg role=\"img\" aria-label=\"{title}\" viewBox=\"0 0 {width} {height:.0}\" width=\"{width}\" height=\"{height:.0}\">\n{inside}</svg>"
    )
}

fn lines(plot: &Plot, x: &Axis, y: &Axis, series: &[Series], (width, height): (f64, f64)) -> Option<String> {
    let points = || series.iter().flat_map(|s| &s.points);
    let across = Span::of(x, points().map(|p| p.x))?;
    let up = Span::of(y, points().flat_map(|p| [Some(p.y), p.spread.map(|s| s.0), p.spread.map(|s| s.1)]).flatten())?;
    let longest = |axis: &Axis, ticks: &[f64]| {
        ticks.iter().map(|&tick| on_axis(axis, tick).chars().count()).max().unwrap_or(0) as f64 * CHAR
    };
    // The last tick below may stand at the very edge, and its text beyond it.
    let right = width - (longest(x, across.ticks()) / 2.0).max(10.0);
    let area = Area { left: longest(y, up.ticks()) + 10.0, right, top: 30.0, bottom: height - 46.0, edge: 9.0 };
    let mut out = String::new();
    up_axis(&mut out, y, &up, &area);
    across_axis(&mut out, x, &across, &area, true);
    let place = |p: &Point| Some((area.x(across.place(p.x)?), area.y(up.place(p.y)?)));
    let drawn =
        numbered(series).filter(|(_, s)| s.role == Role::Limit).chain(numbered(series).filter(|(_, s)| s.role == Role::Measured));
    for (i, s) in drawn {
        let mut sorted = s.points.clone();
        sorted.sort_by(|a, b| a.x.total_cmp(&b.x));
        let _ = write!(out, "<g class=\"series {}\">", class(s.role, i));
        let path: Vec<String> = sorted.iter().filter_map(place).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let _ = write!(out, "<path class=\"line\" d=\"M{}\"/>", path.join("L"));
        for point in sorted.iter().filter(|_| s.role == Role::Measured) {
            let Some((px, py)) = place(point) else { continue };
            if let Some((low, high)) = point.spread.and_then(|(low, high)| up.place(low).zip(up.place(high))) {
                let _ = write!(out, "<path class=\"spread\" d=\"M{px:.1} {:.1}V{:.1}\"/>", area.y(low), area.y(high));
            }
            let said = format!("{}: {} at {}", s.name, y.unit.text(point.y), on_axis(x, point.x));
            let _ = write!(out, "<g>{}<title>{}</title></g>", mark(i, px, py), escaped(&said));
        }
        out.push_str("</g>\n");
    }
    Some(svg(plot, width, height, &out))
}

fn up_axis(out: &mut String, axis: &Axis, span: &Span, area: &Area) {
    let _ = writeln!(out, "<text class=\"label\" x=\"2\" y=\"14\">{}</text>", escaped(&axis.label));
    for &tick in span.ticks() {
        let Some(y) = span.place(tick).map(|part| area.y(part)) else { continue };
        let _ = write!(out, "<path class=\"grid\" d=\"M{:.1} {y:.1}H{:.1}\"/>", area.left, area.right);
        let _ = writeln!(
            out,
            "<text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            area.left - 6.0,
            y + 4.0,
            escaped(&on_axis(axis, tick))
        );
    }
}

/// Ticks whose text would touch the previous tick's text get a line without a text.
fn across_axis(out: &mut String, axis: &Axis, span: &Span, area: &Area, named: bool) {
    let mut free = f64::MIN;
    for &tick in span.ticks() {
        let Some(x) = span.place(tick).map(|part| area.x(part)) else { continue };
        let _ = write!(out, "<path class=\"grid\" d=\"M{x:.1} {:.1}V{:.1}\"/>", area.top, area.bottom);
        let text = on_axis(axis, tick);
        let half = text.chars().count() as f64 * CHAR / 2.0;
        if x - half > free {
            free = x + half + 6.0;
            let _ =
                write!(out, "<text class=\"tick middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", area.bottom + 18.0, escaped(&text));
        }
        out.push('\n');
    }
    if named {
        let _ = writeln!(
            out,
            "<text class=\"label end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            area.right,
            area.bottom + 38.0,
            escaped(&axis.label)
        );
    }
}

fn bars(plot: &Plot, axis: &Axis, names: &[String], groups: &[Group], (width, _): (f64, f64)) -> Option<String> {
    const THICK: f64 = 16.0;
    let values = || groups.iter().flat_map(|g| g.bars.iter().flatten());
    // A whisker that is far longer than any bar is cut off, so that the bars can be seen.
    let longest = values().map(|b| b.value).fold(0.0, f64::max);
    let span = Span::of(axis, values().flat_map(|b| [Some(b.value), b.spread.map(|s| s.1.min(2.0 * longest))]).flatten())?;
    // Names stand before their bars where there is room, else above them.
    let longest = groups.iter().map(|g| g.name.chars().count()).max().unwrap_or(0) as f64 * CHAR;
    let beside = longest + 12.0 < width * 0.4;
    // The text of the first tick is centered on the bars' beginning.
    let first = span.ticks().first().map_or(0, |&tick| on_axis(axis, tick).chars().count()) as f64 * CHAR / 2.0;
    let (left, above) = if beside { (longest + 12.0, 0.0) } else { (first.max(4.0), 20.0) };
    let count = |group: &Group| group.bars.iter().flatten().count() as f64;
    let high = |group: &Group| above + count(group).max(1.0) * (THICK + 3.0) + 9.0;
    // The values stand in a column of their own at the right edge: a text behind a whisker would
    // seem to be the whisker's.
    let spread = values().any(|b| b.spread.is_some());
    let top = if spread { 22.0 } else { 6.0 };
    let bottom = top + groups.iter().map(high).sum::<f64>();
    let area = Area { left, right: width - 70.0, top, bottom, edge: 0.0 };
    let mut out = String::new();
    across_axis(&mut out, axis, &span, &area, true);
    let column = width - 2.0;
    if spread {
        let _ = writeln!(out, "<text class=\"label end\" x=\"{column:.1}\" y=\"14\">median</text>");
    }
    let mut y = top + 4.0;
    for group in groups {
        let (name_x, name_y, anchor) =
            if beside { (left - 8.0, y + count(group) * (THICK + 3.0) / 2.0 + 3.0, "end") } else { (left, y + 13.0, "start") };
        let _ =
            writeln!(out, "<text class=\"name {anchor}\" x=\"{name_x:.1}\" y=\"{name_y:.1}\">{}</text>", escaped(&group.name));
        let mut bar_y = y + above;
        for (i, bar) in group.bars.iter().enumerate().filter_map(|(i, bar)| Some((i, bar.as_ref()?))) {
            let part = span.place(bar.value).unwrap_or(0.0).max(0.0);
            let kind = names.get(i).map_or("", String::as_str);
            let said = format!("{}, {kind}: {}", group.name, axis.unit.text(bar.value));
            let end = area.x(part);
            let _ = write!(
                out,
                "<g class=\"series {}\"><rect class=\"bar mark\" x=\"{left:.1}\" y=\"{bar_y:.1}\" width=\"{:.1}\" height=\"{THICK}\"><title>{}</title></rect>",
                class(Role::Measured, i),
                (end - left).max(1.0),
                escaped(&said)
            );
            if let Some((low, high)) = bar.spread.and_then(|(low, high)| span.place(low).zip(span.place(high))) {
                let (low, tip, middle) = (area.x(low), area.x(high.min(1.0)), bar_y + THICK / 2.0);
                let stop = if high <= 1.0 { format!("M{tip:.1} {:.1}v8", middle - 4.0) } else { String::new() };
                let _ = write!(out, "<path class=\"spread\" d=\"M{low:.1} {middle:.1}H{tip:.1}{stop}\"/>");
            }
            let text = escaped(&axis.unit.text(bar.value));
            let (class, x) = if spread { ("value end", column) } else { ("value", end + 5.0) };
            let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text></g>", bar_y + 12.5);
            bar_y += THICK + 3.0;
        }
        y += high(group);
    }
    Some(svg(plot, width, bottom + 46.0, &out))
}

#[cfg(test)]
mod tests {
    use super::super::{Plot, Unit};
    use super::*;

    fn example() -> Plot {
        let measured = Series::measured("a <b>", [(1.0, 100.0), (8.0, 800.0), (64.0, 0.0)]);
        let limit = Series::limit("ceiling", [(1.0, 120.0), (64.0, 7680.0)]);
        let x = Axis::log("threads", Unit::Count).discrete();
        Plot::lines("Commits & threads", x, Axis::log("commits/s", Unit::Count), vec![measured, limit])
    }

    #[test]
    fn a_table_has_all_figures_even_those_that_cannot_be_drawn() {
        let table = example().table();
        assert_eq!(table.head, ["threads", "a <b>", "ceiling"]);
        assert_eq!(table.rows, [["1", "100", "120"], ["8", "800", "–"], ["64", "0", "7.68k"]]);
        let spread = Bar { value: 2.0, spread: Some((1.0, 3.0)) };
        let bars = Plot::bars("t", Axis::linear("s", Unit::Seconds), [("x", spread), ("y", 0.5.into())]).table();
        assert_eq!(bars.rows, [["x", "2 s\n1 s–3 s"], ["y", "500 ms"]]);
    }

    #[test]
    fn each_point_that_has_a_place_is_drawn_once_in_each_width_and_text_is_escaped() {
        let figure = figure(&example());
        let drawings = figure.split_once("class=\"wide\"").unwrap().1;
        assert_eq!(drawings.matches("class=\"mark\"").count(), 2 * 2, "the zero has no place on a logarithmic axis");
        assert_eq!(drawings.matches("class=\"series limit d0\"").count(), 2);
        assert!(figure.contains("a &lt;b&gt;") && figure.contains("Commits &amp; threads") && !figure.contains("<b>"));
        assert!(!figure.contains("NaN") && !figure.contains("inf"));
    }

    #[test]
    fn a_bar_s_median_stands_in_a_column_and_not_at_the_whisker_s_end() {
        let bar = |value: f64, most: f64| Bar { value, spread: Some((value / 2.0, most)) };
        let plot = Plot::bars("t", Axis::linear("s", Unit::Seconds), [("x", bar(1.0, 3.0)), ("y", bar(2.0, 2.5))]);
        let drawn = figure(&plot);
        let places = |class: &str| -> Vec<&str> {
            drawn.split(class).skip(1).map(|rest| rest.split_once("x=\"").unwrap().1.split_once('"').unwrap().0).collect()
        };
        assert_eq!(places("class=\"value end\""), ["758.0", "758.0", "348.0", "348.0"], "one column in each width");
        assert_eq!(drawn.matches(">median</text>").count(), 2);
        assert!(drawn.contains("least to most"), "the whisker is explained");
        let plain = figure(&Plot::bars("t", Axis::linear("s", Unit::Seconds), [("x", 1.0.into())]));
        assert!(!plain.contains("median") && !plain.contains("least to most"));
    }

    #[test]
    fn a_tick_stays_in_the_drawing_when_names_stand_above_the_bars() {
        let names = ["a name that is too long to stand beside its bar", "b"];
        let plot = Plot::bars("t", Axis::linear("share", Unit::Fraction), names.map(|name| (name, 0.5.into())));
        let drawn = figure(&plot);
        let narrow = drawn.split_once("class=\"narrow\"").unwrap().1;
        let (before, _) = narrow.split_once(">0 %</text>").unwrap();
        let x: f64 = before.rsplit_once("x=\"").unwrap().1.split_once('"').unwrap().0.parse().unwrap();
        assert!(x >= 1.5 * CHAR, "{x}");
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let nothing = Plot::lines("t", Axis::log("x", Unit::Count), Axis::log("y", Unit::Count), Vec::new());
        assert!(figure(&nothing).contains("Nothing to draw"));
        let zeros = Plot::bars("t", Axis::linear("x", Unit::Count), [("a", 0.0.into()), ("b", 0.0.into())]);
        let drawn = figure(&zeros);
        assert_eq!(drawn.matches("class=\"bar mark\"").count(), 4);
        assert!(!drawn.contains("NaN"));
    }
}
