//! Draws the curve of group commit: `curve BENCH.json CURVE.svg CURVE.md` makes a picture and a
//! table of what `foreword bench --json` measured.
//!
//! The picture stands in a page of the book, in whatever colours that has: it is drawn in the
//! colour of the text.

use std::error::Error;
use std::fmt::Write;

use serde_json::Value;

/// What was measured with one strategy and so many threads.
struct Cell {
    strategy: String,
    threads: f64,
    rate: f64,
    group: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [json, svg, table] = &args[..] else { return Err("usage: curve BENCH.json CURVE.svg CURVE.md".into()) };
    let bench: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    let cells = cells(&bench).ok_or("this is not what `foreword bench --json` prints")?;
    std::fs::write(svg, picture(&cells)?)?;
    std::fs::write(table, self::table(&bench, &cells).ok_or("this is not what `foreword bench --json` prints")?)?;
    Ok(())
}

fn cells(bench: &Value) -> Option<Vec<Cell>> {
    let cell = |cell: &Value| {
        Some(Cell {
            strategy: cell["strategy"].as_str()?.to_owned(),
            threads: cell["threads"].as_f64()?,
            rate: cell["rate"]["median"].as_f64()?,
            group: cell["records_per_flush"].as_f64()?,
            p50_us: cell["latency"]["p50_ns"].as_f64()? / 1e3,
            p99_us: cell["latency"]["p99_ns"].as_f64()? / 1e3,
        })
    };
    bench["closed"].as_array()?.iter().map(cell).collect()
}

/// The cells of a strategy, by threads.
fn of<'a>(cells: &'a [Cell], strategy: &str) -> Vec<&'a Cell> {
    let mut some: Vec<&Cell> = cells.iter().filter(|cell| cell.strategy == strategy).collect();
    some.sort_by(|a, b| a.threads.total_cmp(&b.threads));
    some
}

/// The setting in a line, and a row for each number of threads.
fn table(bench: &Value, cells: &[Cell]) -> Option<String> {
    let (machine, place) = (&bench["setting"]["machine"], &bench["setting"]["place"]);
    let mut text = format!(
        "Measured on {} processors ({}, {}), {}, with records of {} bytes, {} s for each row in {} interleaved rounds.",
        machine["cpus"].as_u64()?,
        machine["hypervisor"].as_str().map_or("no virtual machine".to_owned(), |name| format!("a virtual machine, {name}")),
        machine["system"].as_str()?,
        place["file_system"].as_str().unwrap_or("an unknown file system"),
        bench["closed"][0]["record_bytes"].as_u64()?,
        bench["seconds_each"].as_f64()?,
        bench["rounds"].as_u64()?,
    );
    for doubt in bench["setting"]["doubts"].as_array()? {
        write!(text, " Doubt: {}.", doubt.as_str()?).ok()?;
    }
    text += "\n\n| threads | one flush each: commits/s | group commit: commits/s | ratio | commits a flush | p50 | p99 |\n|--:|--:|--:|--:|--:|--:|--:|\n";
    for (each, group) in of(cells, "each").iter().zip(of(cells, "group")) {
        let latency = |us: f64| if us < 1000.0 { format!("{us:.0} µs") } else { format!("{:.1} ms", us / 1e3) };
        let ratio = group.rate / each.rate;
        let (threads, each, rate, share) = (group.threads, each.rate, group.rate, group.group);
        let (p50, p99) = (latency(group.p50_us), latency(group.p99_us));
        writeln!(text, "| {threads} | {each:.0} | {rate:.0} | {ratio:.1} | {share:.1} | {p50} | {p99} |").ok()?;
    }
    Some(text)
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 50.0;

/// A logarithmic axis.
struct Axis {
    from: f64,
    to: f64,
    /// Where on the paper that is.
    start: f64,
    end: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        self.start + (self.end - self.start) * (value / self.from).log2() / (self.to / self.from).log2()
    }
}

/// Commits a second by threads, both axes logarithmic.
fn picture(cells: &[Cell]) -> Result<String, std::fmt::Error> {
    let (most_threads, least, most) = cells.iter().fold((2.0, f64::MAX, 0.0), |(threads, least, most): (f64, f64, f64), cell| {
        (threads.max(cell.threads), least.min(cell.rate), most.max(cell.rate))
    });
    let x = Axis { from: 1.0, to: most_threads, start: LEFT, end: WIDTH - RIGHT };
    let y = Axis { from: least / 1.5, to: most * 1.5, start: HEIGHT - BOTTOM, end: TOP };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Commits a second by threads\" style=\"width:100%;max-width:{WIDTH}px\" \
         fill=\"none\" stroke=\"currentColor\" font-size=\"13\" font-family=\"sans-serif\">\n"
    );
    let text = |svg: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
        writeln!(
            svg,
            "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" fill=\"currentColor\" stroke=\"none\">{text}</text>"
        )
    };
    let mut threads: Vec<f64> = of(cells, "group").iter().map(|cell| cell.threads).collect();
    threads.dedup();
    for threads in threads {
        text(&mut svg, x.at(threads), HEIGHT - BOTTOM + 20.0, "middle", &threads.to_string())?;
    }
    text(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", "threads")?;
    for rate in [1.0, 2.0, 5.0].into_iter().flat_map(|digit| (0..8).map(move |power| digit * 10f64.powi(power))) {
        if (y.from..=y.to).contains(&rate) {
            let (at, from, to) = (y.at(rate), LEFT, WIDTH - RIGHT);
            writeln!(svg, "<line x1=\"{from}\" x2=\"{to}\" y1=\"{at:.1}\" y2=\"{at:.1}\" opacity=\"0.15\"/>")?;
            text(&mut svg, LEFT - 8.0, at + 4.0, "end", &rate.to_string())?;
        }
    }
    for (strategy, name, dashes, above) in [("group", "group commit", "none", true), ("each", "one flush each", "6 4", false)] {
        let cells = of(cells, strategy);
        let points: Vec<String> = cells.iter().map(|cell| format!("{:.1},{:.1}", x.at(cell.threads), y.at(cell.rate))).collect();
        writeln!(svg, "<polyline points=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>", points.join(" "))?;
        for cell in &cells {
            let (x, y) = (x.at(cell.threads), y.at(cell.rate));
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"currentColor\"/>")?;
        }
        if let Some(cell) = cells.get(cells.len() / 2) {
            let (dx, dy, anchor) = if above { (-10.0, -10.0, "end") } else { (0.0, -12.0, "middle") };
            text(&mut svg, x.at(cell.threads) + dx, y.at(cell.rate) + dy, anchor, name)?;
        }
    }
    svg += "</svg>\n";
    Ok(svg)
}
