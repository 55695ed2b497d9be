//! `foreword repair`: repairs a damaged log, once its owner has seen what that gives up.

use std::path::PathBuf;

use foreword::{Damage, Lsn, OnDamage, RecoveryReport, RepairPlan, Verdict, View};
use serde_json::{Value, json};

use crate::exit::{Failure, Status};
use crate::output::{Output, Tone};
use crate::{options, verdict};

/// Show what repairing a damaged log would give up; repair it with --apply
///
/// Without --apply nothing is changed, and without --stop and --salvage both are shown. Damaged
/// files are moved to the directory `damaged` in the log's directory, never deleted. A torn tail is
/// not damage: nothing acknowledged is missing, and opening the log repairs it, as --apply does.
/// Exit status 3: the damage is still there.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword repair mylog
  foreword repair mylog --salvage --apply")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// End the log at the damage: the records behind it are given up, and their LSNs are used again
    #[arg(long)]
    stop: bool,
    /// Keep the readable records behind the damage, with their LSNs; the LSNs between are given up
    /// for good
    #[arg(long, conflicts_with = "stop")]
    salvage: bool,
    /// Carry out the repair
    #[arg(long)]
    apply: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is, would be, or was given up.
struct Told {
    action: OnDamage,
    given_up: Vec<(Lsn, Lsn)>,
    unknown_from: Option<Lsn>,
    put_aside: Vec<String>,
    last_lsn: Lsn,
}

impl From<(OnDamage, RepairPlan)> for Told {
    fn from((action, plan): (OnDamage, RepairPlan)) -> Told {
        let RepairPlan { given_up, unknown_from, put_aside, last_lsn, .. } = plan;
        Told { action, given_up, unknown_from, put_aside, last_lsn }
    }
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let chosen: &[OnDamage] = match (args.stop, args.salvage) {
        (true, _) => &[OnDamage::StopAtDamage],
        (_, true) => &[OnDamage::Salvage],
        _ => &[OnDamage::StopAtDamage, OnDamage::Salvage],
    };
    let mut damage = None;
    let mut plans = Vec::new();
    for &action in chosen {
        let plan = foreword::repair_plan(&args.dir, action)?;
        damage = plan.damage.clone();
        plans.push(Told::from((action, plan)));
    }
    if let Some(damage) = damage.as_ref().filter(|_| args.apply && chosen.len() > 1) {
        let both = "choose --stop or --salvage: without --apply, both are shown";
        return Err(Failure::Wrong(format!("{} is damaged at offset {}; {both}", damage.path.display(), damage.offset)));
    }
    let found = if damage.is_none() { View::open(&args.dir)?.verdict() } else { None };
    let torn = found == Some(Verdict::TornTail);
    let applied = args.apply && found != Some(Verdict::Clean);
    if applied {
        plans = vec![apply(args, if damage.is_some() { chosen[0] } else { OnDamage::Refuse })?];
    }
    let mut out = Output::new();
    if args.json {
        out.json(&json!({
            "damage": damage.as_ref().map(verdict::damage_json),
            "in_use": damage.is_none() && found.is_none(),
            "torn_tail": torn,
            "applied": applied,
            "plans": plans.iter().map(told_json).collect::<Value>(),
        }))?;
    } else {
        print_text(&mut out, args, damage.as_ref(), found.as_ref(), &plans)?;
    }
    out.flush()?;
    Ok(if damage.is_some() && !args.apply { Status::Corruption } else { Status::Fine })
}

/// Opening the log is the repair: of a torn tail, too.
fn apply(args: &Args, action: OnDamage) -> Result<Told, Failure> {
    let log = options::for_log(&args.dir).create(false).on_damage(action).open(&args.dir)?;
    let report = log.recovery().clone();
    log.close()?;
    let RecoveryReport { given_up, unknown_from, put_aside, last_lsn, .. } = report;
    Ok(Told { action, given_up, unknown_from, put_aside, last_lsn })
}

fn print_text(
    out: &mut Output,
    args: &Args,
    damage: Option<&Damage>,
    found: Option<&Verdict>,
    plans: &[Told],
) -> Result<(), Failure> {
    let Some(damage) = damage else {
        match found {
            Some(Verdict::TornTail) => {
                let healed = if args.apply { "opening the log repaired it" } else { "opening the log repairs it" };
                out.toned(
                    "torn tail",
                    Tone::Warn,
                    format_args!("a crash cut a write short; nothing acknowledged is missing, and {healed}"),
                )?;
            }
            Some(Verdict::Unclosed) if args.apply => {
                out.field("unclosed", "the log was not closed; nothing was missing, and opening it recovered it")?;
            }
            Some(Verdict::Clean) if args.apply => out.line(format_args!("nothing to repair, and nothing was done"))?,
            None => return out.line(format_args!("{}", verdict::sentence(None))),
            _ => {}
        }
        return match plans.first() {
            Some(told) => out.line(format_args!("no corruption; the log ends with LSN {}", told.last_lsn)),
            None => Ok(()),
        };
    };
    out.toned("damage", Tone::Bad, if damage.proven { "proven" } else { "possible" })?;
    verdict::damage_fields(out, damage)?;
    for told in plans {
        out.line(format_args!(""))?;
        out.field(flag(told.action), if args.apply { "done" } else { "would do this (with --apply):" })?;
        let nothing = told.given_up.is_empty() && told.unknown_from.is_none();
        let gone = verdict::given_up(&told.given_up, told.unknown_from);
        out.toned("gives up", if nothing { Tone::Good } else { Tone::Warn }, gone)?;
        out.field("puts aside", files(&told.put_aside))?;
        out.field("log ends", format_args!("with LSN {}", told.last_lsn))?;
    }
    Ok(())
}

fn files(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [first, .., last] if names.len() > 4 => format!("{} files: {first} to {last}", names.len()),
        few => few.join(", "),
    }
}

fn flag(action: OnDamage) -> &'static str {
    match action {
        OnDamage::StopAtDamage => "--stop",
        OnDamage::Salvage => "--salvage",
        _ => "recover",
    }
}

fn told_json(told: &Told) -> Value {
    json!({
        "action": flag(told.action).trim_start_matches('-'),
        "given_up": verdict::stretches_json(&told.given_up),
        "unknown_from": told.unknown_from.map(|lsn| lsn.0),
        "put_aside": told.put_aside,
        "last_lsn": told.last_lsn.0,
    })
}
