//! `foreword verify`: reads everything, and prints the verdict.

use std::ops::ControlFlow;
use std::path::PathBuf;

use foreword::{Lsn, OnDamage, Verify, VerifyReport};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::exit::{Failure, Status};
use crate::output::Output;
use crate::verdict;
use foreword_command::units;

/// Read and check the whole log
///
/// Prints the verdict with its row in the table of docs/FORMAT.md, the evidence, and which records
/// are readable. Changes nothing. Exit status 2: the tail is torn, nothing acknowledged is missing,
/// and opening the log for writing repairs it. Exit status 3: corruption.
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
    let check = Verify::new().progress(|now| {
        bar.set_length(now.total);
        bar.set_position(now.done);
        ControlFlow::Continue(())
    });
    let report = check.run(&args.dir)?;
    let losses = losses(args, &report);
    bar.finish_and_clear();
    let mut out = Output::new();
    if args.json {
        print_json(&mut out, args, &report, &losses)?;
    } else {
        print_text(&mut out, args, &report, &losses)?;
    }
    out.flush()?;
    Ok(Status::of(report.verdict.as_ref()))
}

/// What a repair would give up: by its name, stretches of LSNs, and whatever there was from another
/// on.
type Losses = Vec<(&'static str, Vec<(Lsn, Lsn)>, Option<Lsn>)>;

/// Both ways to repair a damaged log. (Neither may work, or the log may have a writer: `repair`
/// says why.)
fn losses(args: &Args, report: &VerifyReport) -> Losses {
    let ways = [("stop", OnDamage::StopAtDamage), ("salvage", OnDamage::Salvage)];
    let damaged = verdict::damage(report.verdict.as_ref()).is_some();
    let planned = ways.into_iter().filter(|_| damaged);
    let plan = |(name, action)| {
        let plan = foreword::repair_plan(&args.dir, action).ok()?;
        Some((name, plan.given_up, plan.unknown_from))
    };
    planned.filter_map(plan).collect()
}

fn next_step(args: &Args) -> String {
    format!("foreword repair {}", args.dir.display())
}

fn print_text(out: &mut Output, args: &Args, report: &VerifyReport, losses: &Losses) -> Result<(), Failure> {
    let found = report.verdict.as_ref();
    out.toned("verdict", verdict::tone(found), verdict::sentence(found))?;
    if let Some(damage) = verdict::damage(report.verdict.as_ref()) {
        verdict::damage_fields(out, damage)?;
        for (name, given_up, unknown_from) in losses {
            let lost = verdict::given_up(given_up, *unknown_from);
            out.field(&format!("--{name}"), format_args!("would give up {lost}"))?;
        }
        out.field("next", format_args!("restore a copy, or see `{}`", next_step(args)))?;
    }
    out.field("readable", verdict::records(report.records, report.start_lsn, report.last_lsn))?;
    if report.proven_lsn < report.last_lsn {
        out.field("unproven", verdict::unproven_from(report.proven_lsn.next(), verdict::damage(found).is_some()))?;
    }
    if !report.given_up.is_empty() {
        out.field("given up", format_args!("LSN {}, in earlier repairs", verdict::stretches(&report.given_up)))?;
    }
    if report.garbled_sectors > 0 {
        out.field("garbled", format_args!("{} blocks behind the end, where nothing was acknowledged", report.garbled_sectors))?;
    }
    verdict::holds_unknown(out, report.holds_unknown.as_ref())?;
    out.field("checked", format_args!("{} in {} segments", units::human(report.checked_bytes), report.segments))?;
    out.field("log", report.id)
}

fn print_json(out: &mut Output, args: &Args, report: &VerifyReport, losses: &Losses) -> Result<(), Failure> {
    let would_lose = losses.iter().map(|(name, lost, _)| ((*name).to_owned(), verdict::stretches_json(lost))).collect::<Value>();
    let and_from = losses.iter().map(|(name, _, from)| ((*name).to_owned(), json!(from.map(|lsn| lsn.0)))).collect::<Value>();
    let damaged = verdict::damage(report.verdict.as_ref()).is_some();
    out.json(&json!({
        "verdict": verdict::name(report.verdict.as_ref()),
        "damage": verdict::damage(report.verdict.as_ref()).map(verdict::damage_json),
        "id": report.id.to_string(),
        "start_lsn": report.start_lsn.0,
        "last_lsn": report.last_lsn.0,
        "proven_lsn": report.proven_lsn.0,
        "records": report.records,
        "repair_would_lose": if damaged { would_lose } else { Value::Null },
        "repair_would_lose_from": if damaged { and_from } else { Value::Null },
        "next": damaged.then(|| next_step(args)),
        "segments": report.segments,
        "checked_bytes": report.checked_bytes,
        "garbled_sectors": report.garbled_sectors,
        "given_up": verdict::stretches_json(&report.given_up),
        "holds_unknown": report.holds_unknown.as_ref().map(ToString::to_string),
    }))
}
