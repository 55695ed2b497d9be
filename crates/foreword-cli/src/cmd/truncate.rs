//! `foreword truncate`: drops records at the front or the back of a log.

use std::path::PathBuf;

use foreword::Lsn;
use serde_json::json;

use crate::exit::{Failure, Status};
use crate::output::Output;
use crate::{options, verdict};
use foreword_command::units;

/// Drop records from the front of a log, or cut them off at its back
///
/// The change is durable when the command returns. It cannot be undone.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword truncate mylog --before 5000    # keep 5000 and later
  foreword truncate mylog --from 9000      # keep up to 8999; LSN 9000 is used again")]
#[group(skip)]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    #[command(flatten)]
    cut: Cut,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Cut {
    /// Drop the records before this one, except those that a hold keeps
    #[arg(long, value_name = "LSN", value_parser = units::lsn)]
    before: Option<Lsn>,
    /// Cut off this record and all after it
    #[arg(long, value_name = "LSN", value_parser = units::lsn)]
    from: Option<Lsn>,
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let log = options::for_log(&args.dir).create(false).open(&args.dir)?;
    if let Some(before) = args.cut.before {
        let start = log.truncate_front(before)?;
        if start < before {
            // (Whole segments stay for a hold with a limit, also where it has just been lost.)
            let by = log.holds()?.into_iter().filter(|(_, hold)| hold.lsn <= start).max_by_key(|(_, hold)| hold.lsn);
            let whose = by.map_or("a hold".to_owned(), |(name, _)| format!("the hold `{name}`"));
            crate::output::note(format_args!("{whose} keeps LSN {start} and later"));
        }
    }
    if let Some(from) = args.cut.from {
        log.truncate_back(from)?;
    }
    let (start, last) = (log.start_lsn(), log.last_lsn());
    log.close()?;
    let mut out = Output::new();
    if args.json {
        out.json(&json!({ "start_lsn": start.0, "last_lsn": last.0 }))?;
    } else {
        out.field("records", verdict::range(start, last))?;
    }
    out.flush()?;
    Ok(Status::Fine)
}
