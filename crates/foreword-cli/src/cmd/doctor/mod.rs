//! `foreword doctor`: what a disk gives to a log, and what to make of it.

use std::time::Duration;

use foreword_measure::report::Unit;
use foreword_measure::sample::Spread;

use self::advice::Advice;
use self::examine::{Findings, Measured, NEED_BYTES};
use super::ground::{self, Ground, Setting};
use crate::exit::{Failure, Status};
use crate::output::{Column, Output};
use crate::units;

mod advice;
mod examine;
mod page;

/// Examine a disk: what a durable write costs by strategy, whether flushes do anything, and which options fit
///
/// A durable write (one that survives a power failure) of 4 KiB is timed in files that grow, are fallocated, zero-filled or recycled, flushed by fdatasync, fsync,
/// RWF_DSYNC or O_DIRECT + RWF_DSYNC (and sync_file_range, where that is honest); by size; with 1 to 8 in flight; in interleaved rounds, of which the medians count. Then
/// sequential bandwidth, what the system says of the mount and the write cache, whether a flush takes as long as the medium needs, and a
/// recommendation, in words and as options.
///
/// A 4 KiB write's time is the least that a commit on this disk can take; commits from many threads share it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword doctor                              the disk of this directory
  foreword doctor /var/lib/mydb --html disk.html
  foreword doctor /mnt/new --json | jq '.strategies[] | [.state, .method, .latency.p50_ns]'

Reading the table: `p50` is what a commit waits for; `p99` what one in a hundred does; `to base` is the ratio of medians, round by round, to a zero-filled file with
fdatasync. Exit status 0 whatever was found; 1 if it could not be measured, or the machine is busy.")]
pub(crate) struct Args {
    #[command(flatten)]
    ground: ground::Args,
    /// How long to measure in all, without preparations
    #[arg(long = "for", value_name = "TIME", default_value = "15s", value_parser = units::time)]
    time: Duration,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let ground = Ground::enter(&args.ground, "foreword-doctor", NEED_BYTES)?;
    let findings = examine::examine(&ground, args.time)?;
    let setting = ground.leave();
    let advice = Advice::of(&setting, &findings);
    let mut out = Output::new();
    if args.ground.json {
        out.json(&json(&setting, &findings, &advice)?)?;
    } else {
        print(&mut out, &setting, &findings, &advice)?;
    }
    out.flush()?;
    ground::write_page(&args.ground, || page::page(&setting, &findings, &advice))?;
    Ok(Status::Fine)
}

fn json(setting: &Setting, findings: &Findings, advice: &Advice) -> Result<serde_json::Value, Failure> {
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
    out.line(format_args!("\nA durable write of 4 KiB, one at a time"))?;
    let head =
        [Column::left("file"), Column::left("flush"), Column::right("p50"), Column::right("p99"), Column::right("to base")];
    out.table(&head, &findings.strategies.iter().map(strategy_row).collect::<Vec<_>>())?;
    for unavailable in &findings.unavailable {
        out.line(format_args!("Not measured: {}: {}.", unavailable.name(), unavailable.why))?;
    }
    out.line(format_args!("\nBy size, and by how many are in flight (zero-filled)"))?;
    let head = [
        Column::left("flush"),
        Column::right("bytes"),
        Column::right("in flight"),
        Column::right("p50"),
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
        out.line(format_args!("- {words}"))?;
    }
    let lines = advice.options.map(|options| options.lines().join("\n  "));
    lines.map_or(Ok(()), |lines| out.line(format_args!("\n  {lines}")))
}

fn strategy_row(measured: &Measured) -> Vec<String> {
    let latency = |q| Unit::Seconds.text(measured.latency.quantile(q).as_secs_f64());
    let ratio = measured.to_base.map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.median));
    vec![measured.state.name().to_owned(), measured.method.name().to_owned(), latency(0.5), latency(0.99), ratio]
}

fn shape_row(measured: &Measured) -> Vec<String> {
    let latency = |q| Unit::Seconds.text(measured.latency.quantile(q).as_secs_f64());
    vec![
        measured.method.name().to_owned(),
        Unit::Bytes.text(measured.block_bytes as f64),
        measured.in_flight.to_string(),
        latency(0.5),
        latency(0.99),
        Unit::Count.text(measured.writes_per_second.median),
        Unit::BytesPerSecond.text(measured.writes_per_second.median * measured.block_bytes as f64),
    ]
}
