//! The comparison as a page.

use foreword_measure::report::{Axis, Bar, Group, Plot, Report, Section, Series, Table, Unit};
use foreword_measure::sample::Spread;

use super::limits::Limits;
use super::measure::{Cell, Plan, Results};
use super::strategy::Strategy;
use crate::cmd::baseline::Comparison;
use crate::cmd::ground::Setting;

pub(super) fn page(plan: &Plan, setting: &Setting, results: &Results, comparison: Option<&Comparison>) -> Report {
    let mut report = Report::new(format!("Sync strategies on {}", setting.place.dir.display())).text(format!(
        "Threads write records to a log, {} for each combination, in {} interleaved rounds. A point or bar is the median of the rounds; its whisker goes from the least to the most.",
        Unit::Seconds.text(plan.time.as_secs_f64()),
        plan.rounds
    ));
    report.warnings.clone_from(&setting.doubts);
    report.facts = setting.facts();
    report.facts.push(("segments".to_owned(), Unit::Bytes.text(plan.segment_bytes as f64)));
    report.sections.extend(comparison.map(Comparison::section));
    report = report.section(strategies(results));
    for limits in &results.limits {
        report = report.section(size(limits, results));
    }
    report
}

/// What the names stand for.
fn strategies(results: &Results) -> Section {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for cell in &results.closed {
        let strategy = cell.key.strategy;
        let what = match strategy {
            Strategy::Each => "a flush for each record, one at a time",
            Strategy::Every(_) => "each thread syncs after this many of its records",
            Strategy::Group => "each record is committed; threads that commit at the same time share a flush",
            Strategy::Interval(_) => "no call waits; a sync in the background at this interval",
            Strategy::Buffered => "no call waits; one sync at the end",
        };
        let row = vec![strategy.to_string(), what.to_owned(), strategy.durable(), strategy.may_lose()];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let head = ["name", "what", "a record is durable", "a power failure may take"];
    Section::new("The strategies")
        .text("Where a strategy is marked as not durable, its calls return before their records are durable: its rates and latencies are not those of a commit.")
        .table(Table::new("", &head, rows).words(4))
}

/// All that was measured with records of one size.
fn size(limits: &Limits, results: &Results) -> Section {
    let cells: Vec<&Cell> = results.closed.iter().filter(|c| c.key.record_bytes == limits.record_bytes).collect();
    let name = Unit::Bytes.text(limits.record_bytes as f64);
    let mut section = Section::new(format!("Records of {name}"))
        .table(limits_table(limits))
        .text("The ceiling is min(n / F, W / r, 1 / c), n being the records that share a flush.")
        .plot(throughput(&cells))
        .plot(reached(&cells));
    let mut threads: Vec<usize> = cells.iter().map(|c| c.key.threads).collect();
    threads.dedup();
    for threads in threads {
        let some = || cells.iter().filter(|c| c.key.threads == threads);
        let waiting = some().map(|c| (c.key.strategy.label(), c.latency.distribution()));
        let plural = if threads == 1 { "" } else { "s" };
        section = section.plot(
            Plot::distribution(format!("Latency with {threads} thread{plural}"), waiting)
                .text("From the call to its return: the time that this part of the calls did not exceed."),
        );
    }
    section = section.plot(groups(&cells)).table(written(&cells));
    match open_loop(limits.record_bytes, results) {
        Some(plot) => section.plot(plot),
        None => section,
    }
}

/// What no log could do better here.
fn limits_table(limits: &Limits) -> Table {
    let floor = &limits.floor;
    let spread = |unit: Unit, s: Spread| format!("{}\n{}–{}", unit.text(s.median), unit.text(s.min), unit.text(s.max));
    let durable = format!(
        "a durable write of {} into a zero-filled file, {}",
        Unit::Bytes.text(floor.block_bytes as f64),
        floor.method.name()
    );
    let row = |name: &str, what: &str, value: String| vec![name.to_owned(), what.to_owned(), value];
    let rows = vec![
        row("F", &durable, spread(Unit::Seconds, floor.median_seconds)),
        row("W", "what large writes get through", spread(Unit::BytesPerSecond, limits.bandwidth)),
        row("r", "a record on disk, when many share a frame", format!("{:.0} B", limits.framed_bytes)),
        row("c", "an append, of the processor", spread(Unit::Seconds, limits.append_seconds)),
    ];
    Table::new("Limits", &["", "what", "median"], rows).words(2)
}

/// Names in the order in which they come.
fn strategies_of(cells: &[&Cell]) -> Vec<Strategy> {
    let mut all: Vec<Strategy> = Vec::new();
    for cell in cells {
        if !all.contains(&cell.key.strategy) {
            all.push(cell.key.strategy);
        }
    }
    all
}

fn throughput(cells: &[&Cell]) -> Plot {
    let of = |strategy: Strategy| cells.iter().filter(move |c| c.key.strategy == strategy);
    let mut series: Vec<Series> = strategies_of(cells)
        .into_iter()
        .map(|strategy| Series::measured(strategy.label(), of(strategy).map(|c| (c.key.threads as f64, c.rate))))
        .collect();
    for strategy in strategies_of(cells).into_iter().filter(|s| s.waits()) {
        let ceiling = of(strategy).map(|c| (c.key.threads as f64, c.ceiling.median));
        series.push(Series::limit(format!("ceiling of {strategy}"), ceiling));
    }
    Plot::lines(
        "Records a second by threads",
        Axis::log("threads", Unit::Count).discrete(),
        Axis::log("records/s", Unit::Count),
        series,
    )
    .text("One flush for each record (each) beside group commit, and beside strategies whose calls return before their records are durable. Dashed: the most that this disk and processor allow.")
}

/// What part of the ceiling.
fn reached(cells: &[&Cell]) -> Plot {
    let mut threads: Vec<usize> = cells.iter().map(|c| c.key.threads).collect();
    threads.dedup();
    let group = |strategy: Strategy| Group {
        name: strategy.label(),
        bars: threads
            .iter()
            .map(|&threads| {
                let cell = cells.iter().find(|c| c.key.strategy == strategy && c.key.threads == threads)?;
                Some(Bar::from(cell.eta))
            })
            .collect(),
    };
    let names = threads.iter().map(|n| format!("{n} thread{}", if *n == 1 { "" } else { "s" })).collect();
    let groups = strategies_of(cells).into_iter().map(group).collect();
    Plot::grouped_bars(
        "What part of the ceiling was reached",
        Axis::linear("eta = measured / ceiling", Unit::Fraction),
        names,
        groups,
    )
    .text("Each round, divided by the limits measured in the same round. Above 100 %: the limits themselves vary by that much. A strategy that is not durable does not wait for a flush per record, so its ceiling is higher.")
}

/// How many records a flush made durable, for the strategy that groups most.
fn groups(cells: &[&Cell]) -> Plot {
    let grouping: Vec<&&Cell> = cells.iter().filter(|c| c.key.strategy == Strategy::Group).collect();
    let shown: Vec<&&Cell> =
        if grouping.is_empty() { cells.iter().filter(|c| c.key.strategy.waits()).collect() } else { grouping };
    let mut sizes: Vec<(u64, u64)> = shown.iter().flat_map(|c| c.groups.iter().map(|g| (g.from, g.to))).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let share = |cell: &Cell, from: u64| {
        let all: u64 = cell.groups.iter().map(|g| g.flushes).sum();
        let some = cell.groups.iter().find(|g| g.from == from)?.flushes;
        Some(Bar::from(some as f64 / all.max(1) as f64))
    };
    let group = |&(from, to): &(u64, u64)| Group {
        name: if from == to { from.to_string() } else { format!("{from}–{to}") },
        bars: shown.iter().map(|cell| share(cell, from)).collect(),
    };
    let names = shown
        .iter()
        .map(|c| format!("{}, {} thread{}", c.key.strategy, c.key.threads, if c.key.threads == 1 { "" } else { "s" }))
        .collect();
    Plot::grouped_bars(
        "Records that share a flush",
        Axis::linear("share of the flushes", Unit::Fraction),
        names,
        sizes.iter().map(group).collect(),
    )
    .text("How large the groups were: how many records became durable with one flush.")
}

fn written(cells: &[&Cell]) -> Table {
    let row = |cell: &&Cell| {
        let device = cell.device_bytes_per_byte.map_or("–".to_owned(), |bytes| format!("{bytes:.2}"));
        vec![
            cell.key.strategy.to_string(),
            cell.key.threads.to_string(),
            Unit::Count.text(cell.records_per_flush),
            format!("{:.2}", cell.log_bytes_per_byte),
            device,
        ]
    };
    let head = ["strategy", "threads", "records a flush", "by the log", "by the device"];
    Table::new("Bytes written to a byte of payload", &head, cells.iter().map(row).collect())
}

fn open_loop(record_bytes: usize, results: &Results) -> Option<Plot> {
    let cells: Vec<_> = results.open_loop.iter().filter(|c| c.key.record_bytes == record_bytes).collect();
    let threads = cells.first()?.key.threads;
    let mut series = Vec::new();
    for strategy in [Strategy::Group, Strategy::Each] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let of = cells.iter().filter(|c| c.key.strategy == strategy);
            let points: Vec<_> = of.map(|c| (c.offered, c.latency.quantile(quantile).as_secs_f64())).collect();
            if !points.is_empty() {
                series.push(Series::measured(format!("{strategy} {name}"), points));
            }
        }
    }
    let plot = Plot::lines(
        format!("Latency by load, {threads} threads"),
        Axis::log("records that arrive per second", Unit::Count).discrete(),
        Axis::log("latency", Unit::Seconds),
        series,
    );
    Some(plot.text("Records arrive at random moments, whether or not a thread is free; the latency counts from the arrival (no coordinated omission). Where a line turns up, the strategy is at its limit."))
}
