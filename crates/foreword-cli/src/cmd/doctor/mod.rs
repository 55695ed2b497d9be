//! `foreword doctor`: what a disk gives to a log, and what to make of it.

use std::time::Duration;

use foreword_measure::report::Unit;
use foreword_measure::sample::Spread;
use serde_json::Value;

use self::advice::Advice;
use self::examine::{Findings, Measured, NEED_BYTES, ROUNDS};
use super::baseline::{self, Quantity};
use super::ground::{self, Ground, Setting};
use crate::exit::{Failure, Status};
use crate::output::{Column, Output};
use foreword_command::units;

mod advice;
mod examine;
mod page;

/// Examine a disk: what a durable write costs by strategy, whether flushes work, and which options
/// fit
///
/// A durable write survives a power failure. Doctor times durable writes of 4 KiB into files that
/// grow, are fallocated, zero-filled or recycled, flushed by fdatasync, fsync, RWF_DSYNC or
/// O_DIRECT + RWF_DSYNC (and by sync_file_range where that is honest). Then it times zero-filled
/// files by size of the write and with 1 to 8 writes in flight, and sequential bandwidth. All
/// strategies take turns, round by round; the medians of the rounds count.
///
/// It prints what the system says of the mount and the write cache, whether a flush takes as long
/// as the medium needs, and a recommendation, in words and as options.
///
/// The time of a 4 KiB write is the least that a commit on this disk can take; commits of many
/// threads share it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword doctor                              the disk of this directory
  foreword doctor /var/lib/mydb --html disk.html
  foreword doctor --json > before.json
  foreword doctor --baseline before.json
  foreword doctor /mnt/new --json | jq '.strategies[] | [.state, .method, .median_seconds.median]'

Reading the tables: `median` is what a commit waits for: the median of the rounds' medians, as in the recommendation and in
the page; `p99` is that of all writes; `to base` compares the medians, round by round, with a zero-filled file and fdatasync.
The second table is measured later, in larger files: its 4 KiB rows are the same write at another time.

Exit status: 0 measured, whatever was found; 1 not measured (also if the machine is busy).")]
pub(crate) struct Args {
    #[command(flatten)]
    ground: ground::Args,
    /// How long to measure in all, without preparing files
    #[arg(long = "for", value_name = "TIME", default_value = "15s", value_parser = units::time)]
    time: Duration,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let baseline = args.ground.baseline(quantities)?;
    let ground = Ground::enter(&args.ground, "foreword-doctor", NEED_BYTES)?;
    let findings = examine::examine(&ground, args.time)?;
    let setting = ground.leave();
    let advice = Advice::of(&setting, &findings);
    let report = json(&setting, &findings, &advice)?;
    let comparison = baseline.map(|baseline| baseline.compare(&report, quantities));
    let mut out = Output::new();
    if args.ground.json {
        out.json(&baseline::with_comparison(report, comparison.as_ref())?)?;
    } else {
        print(&mut out, &setting, &findings, &advice)?;
        comparison.iter().try_for_each(|comparison| comparison.print(&mut out))?;
    }
    out.flush()?;
    ground::write_page(&args.ground, || page::page(&setting, &findings, &advice, comparison.as_ref()))?;
    Ok(Status::Fine)
}

/// What a report says that a later one is compared with.
fn quantities(report: &Value) -> Vec<Quantity> {
    let each = |list: &str| report[list].as_array().into_iter().flatten().cloned().collect::<Vec<_>>();
    let strategy = |m: Value| {
        let name = format!("4 KiB, {}, {}", m["state"].as_str()?, m["method"].as_str()?);
        Quantity::of(name, Unit::Seconds, &m["median_seconds"])
    };
    let shape = |m: Value| {
        let size = Unit::Bytes.text(m["block_bytes"].as_f64()?);
        let name = format!("writes/s, {size}, {} in flight, {}", m["in_flight"], m["method"].as_str()?);
        Quantity::of(name, Unit::Count, &m["writes_per_second"])
    };
    let bandwidth = |name, at| Quantity::of(name, Unit::BytesPerSecond, &report[at]);
    let strategies = each("strategies").into_iter().filter_map(strategy);
    let shapes = each("shapes").into_iter().filter_map(shape);
    let bandwidths = [bandwidth("writing in a row", "write_bandwidth"), bandwidth("reading in a row", "read_bandwidth")];
    strategies.chain(shapes).chain(bandwidths.into_iter().flatten()).collect()
}

fn json(setting: &Setting, findings: &Findings, advice: &Advice) -> Result<Value, Failure> {
    #[derive(serde::Serialize)]
    struct All<'a> {
        setting: &'a Setting,
        #[serde(flatten)]
        findings: &'a Findings,
        advice: &'a Advice,
    }
    serde_json::to_value(All { setting, findings, advice }).map_err(|e| Failure::Wrong(e.to_string()))
}

fn print(out: &mut Output, setting: &Setting, findings: &Findings, advice: &Advice) -> Result<(), Failure> {
    out.fields(&setting.facts())?;
    out.line(format_args!("\nA durable write of 4 KiB, one at a time (median: the median of {ROUNDS} rounds' medians)"))?;
    let head =
        [Column::left("file"), Column::left("flush"), Column::right("median"), Column::right("p99"), Column::right("to base")];
    out.table(&head, &findings.strategies.iter().map(strategy_row).collect::<Vec<_>>())?;
    for unavailable in &findings.unavailable {
        out.line(format_args!("Not measured: {}: {}.", unavailable.name(), unavailable.why))?;
    }
    out.line(format_args!(
        "\nBy size, and by number in flight: zero-filled files of 64 MiB, measured after the table above (4 KiB, one in \
         flight, is the same write, measured again)"
    ))?;
    let head = [
        Column::left("flush"),
        Column::right("bytes"),
        Column::right("in flight"),
        Column::right("median"),
        Column::right("p99"),
        Column::right("writes/s"),
        Column::right("bandwidth"),
    ];
    let rows = findings.shapes.iter().map(shape_row).collect::<Vec<_>>();
    out.table(&head, &rows)?;
    out.line(format_args!(""))?;
    let bandwidth = |spread: Spread, how| format!("{} in a row, {how}", Unit::BytesPerSecond.text(spread.median));
    let mut fields = vec![("writing".to_owned(), bandwidth(findings.write_bandwidth, "with one flush at the end"))];
    fields.extend(findings.read_bandwidth.map(|read| ("reading".to_owned(), bandwidth(read, "past the page cache"))));
    fields.push(("flushes".to_owned(), format!("{}: {}", advice.flush.verdict.name(), advice.flush.why)));
    fields.extend(setting.doubts.iter().map(|doubt| ("doubt".to_owned(), doubt.clone())));
    out.fields(&fields)?;
    out.line(format_args!("\nRecommendation"))?;
    for words in &advice.words {
        out.point(words)?;
    }
    let lines = advice.options.map(|options| options.lines().join("\n  "));
    lines.map_or(Ok(()), |lines| out.line(format_args!("\n  {lines}")))
}

fn strategy_row(measured: &Measured) -> Vec<String> {
    let ratio = measured.to_base.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median));
    let [median, p99] = median_and_p99(measured);
    vec![measured.state.name().to_owned(), measured.method.name().to_owned(), median, p99, ratio]
}

/// The median is that of the rounds' medians, as in the recommendation and the page; p99 is that of
/// all writes.
fn median_and_p99(measured: &Measured) -> [String; 2] {
    [measured.median_seconds.median, measured.latency.quantile(0.99).as_secs_f64()].map(|seconds| Unit::Seconds.text(seconds))
}

fn shape_row(measured: &Measured) -> Vec<String> {
    let [median, p99] = median_and_p99(measured);
    vec![
        measured.method.name().to_owned(),
        Unit::Bytes.text(measured.block_bytes as f64),
        measured.in_flight.to_string(),
        median,
        p99,
        Unit::Count.text(measured.writes_per_second.median),
        Unit::BytesPerSecond.text(measured.writes_per_second.median * measured.block_bytes as f64),
    ]
}
