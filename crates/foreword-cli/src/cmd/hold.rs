//! `foreword hold`: keeps records for a consumer, or releases them.

use std::path::PathBuf;
use std::time::Duration;

use foreword::{Limit, Lsn, View};
use serde_json::json;

use crate::exit::{Failure, Status};
use crate::output::{Output, note};
use foreword_command::units;

/// Keep records for a consumer, under a name, whatever is truncated; or release them
///
/// The hold is durable and in force when the command returns, whether or not a program has the log
/// open. To move a hold, place it again. A log has at most 32 holds.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword hold mylog archiver                  # keep all records, and those to come
  foreword hold mylog archiver --from 5000      # move it: keep 5000 and later
  foreword hold mylog replica --max-bytes 10G --max-age 7d
                                                # up to a limit, beyond which the hold is lost
  foreword hold mylog archiver --release        # the next truncation may drop the records")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// The hold's name
    name: String,
    /// The first record to keep [default: the first of the log, for a new hold]
    #[arg(long, value_name = "LSN", value_parser = units::lsn)]
    from: Option<Lsn>,
    /// Keep at most this many bytes of records (which take more on the disk: a small record that is
    /// committed alone takes 4 KiB)
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    max_bytes: Option<u64>,
    /// Keep no records older than this
    #[arg(long, value_name = "TIME", value_parser = units::age)]
    max_age: Option<Duration>,
    /// Release the hold
    #[arg(long, conflicts_with_all = ["from", "max_bytes", "max_age"])]
    release: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let (view, name) = (View::open(&args.dir)?, &args.name);
    if args.release {
        if !view.release(name)? {
            return Err(Failure::Wrong(format!("there is no hold `{name}`: `foreword stat` lists the holds")));
        }
    } else {
        let there = view.holds()?.get(name).copied();
        let from = args.from.or(there.map(|hold| hold.lsn)).unwrap_or(Lsn::ZERO);
        let mut limit = Limit::NONE;
        (limit.bytes, limit.age) = (args.max_bytes, args.max_age);
        if limit == Limit::NONE {
            view.hold(name, from)?
        } else {
            view.hold_up_to(name, from, limit)?
        }
        let last = view.last_lsn()?;
        if from > last.next() {
            let last =
                if last == Lsn::ZERO { "no record is durable".to_owned() } else { format!("the last that is durable is {last}") };
            note(format_args!("LSN {from} is not there yet: {last}"));
        }
    }
    let hold = view.holds()?.get(name).copied().filter(|_| !args.release);
    let mut out = Output::new();
    if args.json {
        out.json(&json!({
            "name": name,
            "lsn": hold.map(|hold| hold.lsn.0),
            "lost": hold.map(|hold| hold.lost),
            "limit_bytes": hold.and_then(|hold| hold.limit.bytes),
            "limit_seconds": hold.and_then(|hold| hold.limit.age).map(|age| age.as_secs()),
        }))?;
    } else if let Some(hold) = hold {
        out.field("hold", format_args!("`{name}` keeps LSN {} and later{}", hold.lsn, units::limit(&hold.limit)))?;
    } else {
        out.field("released", format_args!("`{name}`"))?;
    }
    out.flush()?;
    Ok(Status::Fine)
}
