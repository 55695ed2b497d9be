//! The examination as a page.

use foreword_measure::floor::{FileState, Method};
use foreword_measure::report::{Axis, Bar, Group, Plot, Point, Report, Section, Series, Table, Unit};
use foreword_measure::sample::Spread;

use super::advice::Advice;
use super::examine::{BLOCK, Findings, Measured};
use crate::cmd::baseline::Comparison;
use crate::cmd::ground::Setting;

pub(super) fn page(setting: &Setting, findings: &Findings, advice: &Advice, comparison: Option<&Comparison>) -> Report {
    let mut report = Report::new(format!("What {} gives to a log", setting.place.dir.display()))
        .text("Durable writes by strategy, size and number in flight, measured in interleaved rounds. A point or bar is the median of the rounds; its whisker goes from the least to the most.");
    report.warnings.clone_from(&setting.doubts);
    report.facts = setting.facts();
    report = report.section(recommendation(advice));
    report.sections.extend(comparison.map(Comparison::section));
    report.section(strategies(findings)).section(sizes(findings)).section(in_flight(findings))
}

fn recommendation(advice: &Advice) -> Section {
    let mut points = vec![format!("Flushes are {}: {}.", advice.flush.verdict.name(), advice.flush.why)];
    points.extend(advice.words.iter().cloned());
    let section = Section::new("Recommendation").list(points);
    match advice.options {
        Some(options) => section.code(options.lines().join("\n")),
        None => section,
    }
}

fn strategies(findings: &Findings) -> Section {
    let methods: Vec<Method> = Method::ALL.into_iter().filter(|&m| findings.strategies.iter().any(|s| s.method == m)).collect();
    let group = |state: FileState| Group {
        name: state.name().to_owned(),
        bars: methods.iter().map(|&method| Some(Bar::from(findings.strategy(state, method)?.median_seconds))).collect(),
    };
    let names = methods.iter().map(|m| m.name().to_owned()).collect();
    let latency = Plot::grouped_bars(
        "A durable write of 4 KiB",
        Axis::linear("median latency", Unit::Seconds),
        names,
        FileState::ALL.map(group).to_vec(),
    )
    .text("By the state of the file and the way of flushing, one write at a time.");
    let zeroed = findings.strategies.iter().filter(|s| s.state == FileState::Zeroed);
    let distribution =
        Plot::distribution("How often it takes longer", zeroed.map(|s| (s.method.name().to_owned(), s.latency.distribution())))
            .text("Zero-filled file, 4 KiB, all rounds: the latency that this part of the writes did not exceed.");
    let rows: Vec<_> = findings.unavailable.iter().map(|u| vec![u.name(), u.why.clone()]).collect();
    let section = Section::new("By strategy").plot(latency).plot(distribution);
    if rows.is_empty() { section } else { section.table(Table::new("Not measured", &["strategy", "why"], rows).words(2)) }
}

/// A line for each method.
fn by_method<'a>(all: impl Iterator<Item = &'a Measured>, point: impl Fn(&Measured) -> Point) -> Vec<Series> {
    let all: Vec<&Measured> = all.collect();
    let mut methods: Vec<Method> = Vec::new();
    for measured in &all {
        if !methods.contains(&measured.method) {
            methods.push(measured.method);
        }
    }
    let line = |&method: &Method| Series::measured(method.name(), all.iter().filter(|m| m.method == method).map(|m| point(m)));
    methods.iter().map(line).collect()
}

fn sizes(findings: &Findings) -> Section {
    let mut series = by_method(findings.sizes(), |m| (m.block_bytes as f64, m.median_seconds).into());
    let bandwidth = findings.write_bandwidth.median;
    let at = |bytes: usize| (bytes as f64, bytes as f64 / bandwidth);
    let range = findings.sizes().map(|m| m.block_bytes);
    let (low, high) = (range.clone().min().unwrap_or(BLOCK), range.max().unwrap_or(BLOCK));
    series.push(Series::limit("at full bandwidth", [at(low), at(high)]));
    let plot = Plot::lines("Latency by size", Axis::log("bytes of a write", Unit::Bytes).discrete(), Axis::log("median latency", Unit::Seconds), series)
        .text("As long as the line is flat, a larger group of records costs no time. The dashed line is the time that the bytes alone take. Measured after the above, in larger files: 4 KiB is the same write at another time.");
    let mut rows = vec![row("writing, one flush at the end", findings.write_bandwidth)];
    rows.extend(findings.read_bandwidth.map(|read| row("reading, past the page cache", read)));
    Section::new("By size").plot(plot).table(Table::new("Sequential bandwidth", &["", "median", "least", "most"], rows))
}

fn row(name: &str, spread: Spread) -> Vec<String> {
    let text = |value| Unit::BytesPerSecond.text(value);
    vec![name.to_owned(), text(spread.median), text(spread.min), text(spread.max)]
}

fn in_flight(findings: &Findings) -> Section {
    let mut series = by_method(findings.in_flight(), |m| (m.in_flight as f64, m.writes_per_second).into());
    let best = findings.best().map_or(Method::Fdatasync, |best| best.method);
    let one = findings.in_flight().find(|m| m.method == best && m.in_flight == 1).map(|m| m.writes_per_second.median);
    let most = findings.in_flight().map(|m| m.in_flight).max().unwrap_or(1) as f64;
    if let Some(one) = one {
        series.push(Series::limit("if flushes overlapped without limit", [(1.0, one), (most, one * most)]));
    }
    let plot = Plot::lines(
        "Durable writes a second by how many are in flight",
        Axis::log("in flight", Unit::Count).discrete(),
        Axis::log("durable writes/s", Unit::Count),
        series,
    )
    .text("4 KiB into a zero-filled file. Where this rises, the disk does several flushes at once.");
    Section::new("By number in flight").plot(plot)
}
