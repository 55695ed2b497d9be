//! `foreword verify`: reads everything, and says what the evidence says.

use std::path::PathBuf;

use foreword::VerifyReport;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::exit::{Failure, Status};
use crate::output::Output;
use crate::{units, verdict};

/// Read and check the whole log
///
/// Says the verdict and its row in the table of docs/FORMAT.md, the evidence, and what is readable. Changes nothing. Exit status 2: the tail is torn,
/// nothing acknowledged is missing (opening the log for writing mends it); 3: corruption.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword verify mylog
  foreword verify mylog --json | jq .verdict")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} %, {eta} to go") {
        bar.set_style(style);
    }
    let report = foreword::verify(&args.dir, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    let mut out = Output::new();
    if args.json {
        print_json(&mut out, &report)?;
    } else {
        print_text(&mut out, &report)?;
    }
    out.flush()?;
    Ok(Status::of(report.verdict.as_ref()))
}

fn print_text(out: &mut Output, report: &VerifyReport) -> Result<(), Failure> {
    let found = report.verdict.as_ref();
    out.toned("verdict", verdict::tone(found), verdict::sentence(found))?;
    if let Some(damage) = verdict::damage(report.verdict.as_ref()) {
        verdict::damage_fields(out, damage)?;
    }
    out.field("readable", verdict::range(report.start_lsn, report.last_lsn))?;
    if !report.lost.is_empty() {
        out.field("given up", format_args!("LSN {}, in earlier repairs", verdict::stretches(&report.lost)))?;
    }
    if report.garbled_sectors > 0 {
        out.field("garbled", format_args!("{} blocks behind the end, where nothing was acknowledged", report.garbled_sectors))?;
    }
    out.field("checked", format_args!("{} in {} segments", units::human(report.checked_bytes), report.segments))?;
    out.field("log", report.id)
}

fn print_json(out: &mut Output, report: &VerifyReport) -> Result<(), Failure> {
    out.json(&json!({
        "verdict": verdict::name(report.verdict.as_ref()),
        "damage": verdict::damage(report.verdict.as_ref()).map(verdict::damage_json),
        "id": report.id.to_string(),
        "start_lsn": report.start_lsn.0,
        "last_lsn": report.last_lsn.0,
        "segments": report.segments,
        "checked_bytes": report.checked_bytes,
        "garbled_sectors": report.garbled_sectors,
        "lost": verdict::stretches_json(&report.lost),
    }))
}
