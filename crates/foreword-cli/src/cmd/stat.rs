//! `foreword stat`: a log at a glance.

use std::path::PathBuf;
use std::time::SystemTime;

use foreword::inspect::{self, SegmentInfo, SegmentState};
use foreword::{Hold, Lsn, View};
use serde_json::{Value, json};

use crate::exit::{Failure, Status};
use crate::output::{Column, Output, Tone};
use crate::verdict;
use foreword_command::units;

/// Show a log's segments, records and sizes
///
/// Reads little: the verdict is on the log's tail only. `foreword verify` reads everything.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword stat mylog
  foreword stat mylog --json | jq .last_lsn")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let view = View::open(&args.dir)?;
    let segments = inspect::segments(&args.dir)?;
    let last = view.last_lsn()?;
    let mut out = Output::new();
    if args.json {
        print_json(&mut out, &view, last, &segments)?;
    } else {
        print_text(&mut out, &view, last, &segments)?;
    }
    out.flush()?;
    Ok(match view.verdict() {
        Some(foreword::Verdict::Corruption(_)) => Status::Corruption,
        _ => Status::Fine,
    })
}

fn fill(segment: &SegmentInfo) -> u64 {
    (segment.used_bytes * 100).checked_div(segment.file_bytes).unwrap_or(0)
}

fn total(segments: &[SegmentInfo]) -> u64 {
    segments.iter().map(|s| s.file_bytes).sum()
}

/// When the first record was written, and the last; as far as they can be read.
fn times(view: &View, last: Lsn) -> Option<(SystemTime, SystemTime)> {
    let mut reader = view.reader_at(Lsn::ZERO);
    let oldest = reader.next().ok()??.time();
    Some((oldest, reader.get(last).ok()?.time()))
}

fn print_text(out: &mut Output, view: &View, last: Lsn, segments: &[SegmentInfo]) -> Result<(), Failure> {
    let found = view.verdict();
    out.field("log", view.id())?;
    out.field("writer", if view.has_writer() { "has it open" } else { "none" })?;
    out.toned("verdict", verdict::tone(found.as_ref()), verdict::tail_sentence(found.as_ref()))?;
    if let Some(damage) = verdict::damage(found.as_ref()) {
        verdict::damage_fields(out, damage)?;
    }
    out.field("records", verdict::records(records(view, last), view.start_lsn(), last))?;
    if let Some((oldest, newest)) = times(view, last) {
        let [oldest, newest] = [oldest, newest].map(units::timestamp);
        out.field("written", format_args!("{oldest} to {newest}"))?;
    }
    let recoverable = view.recoverable_lsn()?;
    if recoverable > last {
        out.field("unproven", verdict::range(last.next(), recoverable))?;
    }
    out.field("size", format_args!("{} in {} segments", units::human(total(segments)), segments.len()))?;
    let holds = view.holds();
    for (name, hold) in holds.iter().flatten() {
        let (lsn, limit) = (hold.lsn, units::limit(&hold.limit));
        let (keeps, lost) = if hold.lost { ("was to keep", ": lost, for it had reached that limit") } else { ("keeps", "") };
        out.field("hold", format_args!("`{name}` {keeps} LSN {lsn} and later{limit}{lost}"))?;
    }
    verdict::holds_unknown(out, holds.as_ref().err())?;
    if !view.given_up().is_empty() {
        out.field("given up", format_args!("LSN {}, in earlier repairs", verdict::stretches(&view.given_up())))?;
    }
    out.line(format_args!(""))?;
    let rows: Vec<Vec<String>> = segments.iter().map(|segment| row(out, segment)).collect();
    let numbers = ["epoch", "first LSN", "last LSN", "used", "file", "fill"].map(Column::right);
    out.table(&[&numbers[..], &[Column::left("state")]].concat(), &rows)
}

fn records(view: &View, last: Lsn) -> u64 {
    view.records_between(view.start_lsn(), last.next())
}

fn row(out: &Output, segment: &SegmentInfo) -> Vec<String> {
    let lsn = |lsn: Option<Lsn>| lsn.map_or("-".to_owned(), |lsn| lsn.to_string());
    let state = match &segment.state {
        SegmentState::Damaged(why) => out.paint(Tone::Bad, format!("damaged: {why}")),
        SegmentState::Current => out.paint(Tone::Good, segment.state.name().to_owned()),
        state => state.name().to_owned(),
    };
    vec![
        segment.epoch.to_string(),
        lsn(segment.lsns.map(|(first, _)| first)),
        lsn(segment.lsns.map(|(_, last)| last)),
        units::human(segment.used_bytes),
        units::human(segment.file_bytes),
        format!("{} %", fill(segment)),
        state,
    ]
}

fn print_json(out: &mut Output, view: &View, last: Lsn, segments: &[SegmentInfo]) -> Result<(), Failure> {
    let found = view.verdict();
    let holds = view.holds();
    out.json(&json!({
        "id": view.id().to_string(),
        "writer": view.has_writer(),
        "verdict": verdict::name(found.as_ref()),
        "damage": verdict::damage(found.as_ref()).map(verdict::damage_json),
        "start_lsn": view.start_lsn().0,
        "last_lsn": last.0,
        "records": records(view, last),
        "oldest": times(view, last).map(|(oldest, _)| units::timestamp(oldest)),
        "newest": times(view, last).map(|(_, newest)| units::timestamp(newest)),
        "recoverable_lsn": view.recoverable_lsn()?.0,
        "looked_at": "tail",
        "bytes": total(segments),
        "holds": holds.as_ref().ok().map(|all| all.iter().map(|(name, hold)| (name.clone(), Value::from(hold.lsn.0))).collect::<Value>()),
        "lost_holds": holds.as_ref().ok().map(|all| all.iter().filter(|(_, hold)| hold.lost).map(|(name, _)| name.clone()).collect::<Value>()),
        "hold_limits": holds.as_ref().ok().map(|all| all.iter().map(|(name, hold)| (name.clone(), limit_json(hold))).collect::<Value>()),
        "holds_unknown": holds.as_ref().err().map(ToString::to_string),
        "given_up": verdict::stretches_json(&view.given_up()),
        "segments": segments.iter().map(segment_json).collect::<Value>(),
    }))
}

fn limit_json(hold: &Hold) -> Value {
    json!({ "bytes": hold.limit.bytes, "seconds": hold.limit.age.map(|age| age.as_secs()) })
}

fn segment_json(segment: &SegmentInfo) -> Value {
    json!({
        "epoch": segment.epoch,
        "file": segment.path.display().to_string(),
        "state": segment.state.name(),
        "first_lsn": segment.lsns.map(|(first, _)| first.0),
        "last_lsn": segment.lsns.map(|(_, last)| last.0),
        "used_bytes": segment.used_bytes,
        "file_bytes": segment.file_bytes,
    })
}
