//! `foreword bench`: the sync strategies compared on a disk, beside the most that the disk could
//! do.

use std::time::Duration;

use foreword_measure::report::Unit;
use serde_json::Value;

use self::limits::Limits;
use self::measure::{Cell, Loads, OpenCell, Plan, Results};
use self::strategy::Strategy;
use super::baseline::{self, Quantity};
use super::ground::{self, Ground, Setting};
use crate::exit::{Failure, Status};
use crate::output::{Column, Output};
use foreword_command::units;

mod limits;
mod measure;
mod page;
mod strategy;

/// Compare sync strategies on a disk: throughput, latency and group sizes, beside the most that the
/// disk could do
///
/// Threads write records to a log as fast as they can, with each strategy:
///
///   each           one flush per record, one at a time
///   every[=N]      each thread syncs after N of its records (100)
///   group          each record is committed; threads that commit at the same time share a flush
///   interval[=T]   no call waits; a sync in the background every T (100ms)
///   buffered       no call waits; one sync at the end
///
/// With `each` and `group` a record is durable when the call returns. The calls of the others
/// promise less, and their rates and latencies are not those of a commit. All combinations take
/// turns, round by round; the medians count.
///
/// The physical limits are measured before and after each:
///
///   F   one durable write of the same blocks into a zero-filled file
///   W   the bandwidth of large writes
///   c   the processor time of an append
///
/// `ceiling` is min(n / F, W / r, 1 / c), where n records share a flush and a record takes r bytes
/// on disk; `eta` is the part of it that was reached. The front of the log is dropped as the log
/// grows, as after checkpoints, so that its files are used again.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  foreword bench
  foreword bench /var/lib/mydb --threads 1,16 --records 200 --strategies each,group
  foreword bench --open-loop auto --html bench.html
  foreword bench --json > before.json
  foreword bench --baseline before.json
  foreword bench --json | jq '.closed[] | [.strategy, .threads, .rate.median, .eta.median]'

Exit status: 0 measured, 1 not measured (also if the machine is busy)."
)]
pub(crate) struct Args {
    #[command(flatten)]
    ground: ground::Args,
    /// Numbers of threads
    #[arg(long, value_name = "N,N..", default_value = "1,8,64", value_delimiter = ',', value_parser = threads)]
    threads: Vec<usize>,
    /// Sizes of records
    #[arg(long, value_name = "SIZE,..", default_value = "128,1KiB", value_delimiter = ',', value_parser = record)]
    records: Vec<usize>,
    /// How long to measure each combination, over all rounds
    #[arg(long = "for", value_name = "TIME", default_value = "3s", value_parser = duration)]
    time: Duration,
    /// The number of rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// The strategies to compare
    #[arg(long, value_name = "NAME,..", default_value = "each,every=100,group,interval=100ms,buffered", value_delimiter = ',')]
    strategies: Vec<Strategy>,
    /// Afterwards, let records arrive at these rates per second, at random moments, with the most
    /// threads; `auto`: at 10 to 90 % of the rate that was reached. A latency then counts from the
    /// arrival, whether or not a thread was free (no coordinated omission)
    #[arg(long, value_name = "RATE,..", value_parser = loads)]
    open_loop: Option<Loads>,
    /// Size of the log's segments
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = units::size)]
    segment_size: u64,
}

fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or_else(|| "a number of threads is from 1 to 1024".to_owned())
}

fn record(text: &str) -> Result<usize, String> {
    let bytes = units::size(text)?;
    if (1..=1 << 20).contains(&bytes) { Ok(bytes as usize) } else { Err("a record here has 1 byte to 1M".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    units::time(text).and_then(|time| if time.is_zero() { Err("longer than nothing".to_owned()) } else { Ok(time) })
}

fn loads(text: &str) -> Result<Loads, String> {
    if text == "auto" {
        return Ok(Loads::Auto);
    }
    let rate = |text: &str| text.trim().parse().ok().filter(|rate| (1.0..=1e7).contains(rate));
    text.split(',')
        .map(rate)
        .collect::<Option<_>>()
        .map(Loads::Rates)
        .ok_or_else(|| "use auto, or rates from 1 to 10000000".to_owned())
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let plan = plan(args)?;
    let baseline = args.ground.baseline(quantities)?;
    let log_bytes = (measure::SEGMENTS_MAX + 4) * plan.segment_bytes;
    let need = log_bytes + limits::NEED_BYTES * plan.records.len() as u64;
    let ground = Ground::enter(&args.ground, "foreword-bench", need)?;
    let results = measure::measure(&ground, &plan)?;
    let setting = ground.leave();
    let report = json(args, &setting, &results)?;
    let comparison = baseline.map(|baseline| baseline.compare(&report, quantities));
    let mut out = Output::new();
    if args.ground.json {
        out.json(&baseline::with_comparison(report, comparison.as_ref())?)?;
    } else {
        print(&mut out, &setting, &results)?;
        comparison.iter().try_for_each(|comparison| comparison.print(&mut out))?;
    }
    out.flush()?;
    ground::write_page(&args.ground, || page::page(&plan, &setting, &results, comparison.as_ref()))?;
    Ok(Status::Fine)
}

fn plan(args: &Args) -> Result<Plan, Failure> {
    if args.open_loop.is_some() && !args.strategies.iter().any(|s| s.waits()) {
        return Err(Failure::Wrong(
            "--open-loop is about waiting for the disk: it takes `each` or `group` among the strategies".to_owned(),
        ));
    }
    Ok(Plan {
        strategies: distinct(&args.strategies),
        threads: distinct(&args.threads),
        records: distinct(&args.records),
        time: args.time,
        rounds: args.rounds as usize,
        segment_bytes: args.segment_size,
        open_loop: args.open_loop.clone(),
    })
}

/// What a report says that a later one is compared with: the disk first, so that its own changes
/// are seen.
fn quantities(report: &Value) -> Vec<Quantity> {
    let each = |list: &str| report[list].as_array().into_iter().flatten().cloned().collect::<Vec<_>>();
    let bytes = |of: &Value| Unit::Bytes.text(of["record_bytes"].as_f64().unwrap_or(f64::NAN));
    let limits = each("limits").into_iter().flat_map(|limits| {
        let size = bytes(&limits);
        let flush = Quantity::of(format!("F, {size} records"), Unit::Seconds, &limits["floor"]["median_seconds"]);
        let bandwidth = Quantity::of(format!("W, {size} records"), Unit::BytesPerSecond, &limits["bandwidth"]);
        flush.into_iter().chain(bandwidth)
    });
    let rate = |cell: Value| {
        let name = format!("{}, {} threads, {} records", cell["strategy"].as_str()?, cell["threads"], bytes(&cell));
        Quantity::of(format!("records/s, {name}"), Unit::Count, &cell["rate"])
    };
    limits.chain(each("closed").into_iter().filter_map(rate)).collect()
}

/// Removes duplicates, so that nothing is measured twice.
fn distinct<T: Copy + PartialEq>(all: &[T]) -> Vec<T> {
    let mut some: Vec<T> = Vec::new();
    for &one in all {
        if !some.contains(&one) {
            some.push(one);
        }
    }
    some
}

fn json(args: &Args, setting: &Setting, results: &Results) -> Result<Value, Failure> {
    #[derive(serde::Serialize)]
    struct All<'a> {
        setting: &'a Setting,
        rounds: u64,
        seconds_each: f64,
        segment_bytes: u64,
        #[serde(flatten)]
        results: &'a Results,
    }
    let all =
        All { setting, rounds: args.rounds, seconds_each: args.time.as_secs_f64(), segment_bytes: args.segment_size, results };
    serde_json::to_value(all).map_err(|e| Failure::Wrong(e.to_string()))
}

fn print(out: &mut Output, setting: &Setting, results: &Results) -> Result<(), Failure> {
    out.fields(&setting.facts())?;
    for limits in &results.limits {
        out.line(format_args!("\n{}", limits_line(limits)))?;
        let of_size = |cell: &&Cell| cell.key.record_bytes == limits.record_bytes;
        let numbers = ["threads", "records/s", "p50", "p99", "p99.9", "group", "bytes/byte", "ceiling", "eta"].map(Column::right);
        let rows: Vec<_> = results.closed.iter().filter(of_size).map(row).collect();
        out.table(&[&[Column::left("strategy"), Column::left("durable")], &numbers[..]].concat(), &rows)?;
        let rows: Vec<_> =
            results.open_loop.iter().filter(|cell| cell.key.record_bytes == limits.record_bytes).map(open_row).collect();
        if !rows.is_empty() {
            out.line(format_args!("\nOpen loop: latency from the moment that a record arrived"))?;
            let numbers = ["threads", "offered/s", "done/s", "p50", "p99", "p99.9"].map(Column::right);
            out.table(&[&[Column::left("strategy")], &numbers[..]].concat(), &rows)?;
        }
    }
    out.line(format_args!(
        "\ndurable: when a record is. Only `on return` is a commit; the other calls promise less.\n\
         group: records per flush. bytes/byte: bytes that the log wrote, with framing and padding, for each byte of a record."
    ))?;
    setting.doubts.iter().try_for_each(|doubt| out.line(format_args!("doubt: {doubt}")))
}

/// The limits, in a line.
fn limits_line(limits: &Limits) -> String {
    let floor = &limits.floor;
    format!(
        "{} records. F {} ({}, {}), W {}, r {:.0} B, c {}",
        Unit::Bytes.text(limits.record_bytes as f64),
        Unit::Seconds.text(floor.median_seconds.median),
        floor.method.name(),
        Unit::Bytes.text(floor.block_bytes as f64),
        Unit::BytesPerSecond.text(limits.bandwidth.median),
        limits.framed_bytes,
        Unit::Seconds.text(limits.append_seconds.median)
    )
}

fn row(cell: &Cell) -> Vec<String> {
    let latency = |q| Unit::Seconds.text(cell.latency.quantile(q).as_secs_f64());
    vec![
        cell.key.strategy.to_string(),
        cell.key.strategy.durable(),
        cell.key.threads.to_string(),
        Unit::Count.text(cell.rate.median),
        latency(0.5),
        latency(0.99),
        latency(0.999),
        Unit::Count.text(cell.records_per_flush),
        format!("{:.2}", cell.log_bytes_per_byte),
        format!("{} {}", Unit::Count.text(cell.ceiling.median), cell.ceiling_by.formula()),
        format!("{:.2}", cell.eta.median),
    ]
}

fn open_row(cell: &OpenCell) -> Vec<String> {
    let latency = |q| Unit::Seconds.text(cell.latency.quantile(q).as_secs_f64());
    vec![
        cell.key.strategy.to_string(),
        cell.key.threads.to_string(),
        Unit::Count.text(cell.offered),
        Unit::Count.text(cell.rate),
        latency(0.5),
        latency(0.99),
        latency(0.999),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_bounded() {
        assert_eq!((threads("64"), record("1KiB"), loads("auto")), (Ok(64), Ok(1024), Ok(Loads::Auto)));
        assert_eq!(loads("100, 2500.5"), Ok(Loads::Rates(vec![100.0, 2500.5])));
        for wrong in ["0", "1025", "x", "-1"] {
            assert!(threads(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "2M", ""] {
            assert!(record(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "0", "inf", "nan", "1,,2", "1e9"] {
            assert!(loads(wrong).is_err(), "{wrong}");
        }
        assert!(duration("0s").is_err());
        assert_eq!(distinct(&[1, 8, 1]), [1, 8]);
    }
}
