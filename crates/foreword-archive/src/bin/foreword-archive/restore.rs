//! `foreword-archive restore`, `follow` and `promote`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreword::Lsn;
use foreword_archive::{RestoreOptions, Standby, Target};
use serde_json::json;

use crate::exit::{Failure, Status};
use crate::{At, stopped, units};
use foreword_command::directory::segment_bytes;
use foreword_command::{output, plain};

/// Restore a log from its archive
///
/// Makes an ordinary log in a directory that is not there, or empty. All that is read is checked. A
/// restore that was interrupted goes on where it was when it is called again.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive restore s3://bucket/mylog restored
  foreword-archive restore s3://bucket/mylog restored --to-time 2026-11-29T08:30:00Z
  foreword-archive restore s3://bucket/mylog restored --to-time 10s
  foreword-archive restore s3://bucket/mylog restored --to-lsn 4711 --timeline 2
  foreword-archive restore s3://bucket/store restored --pages --to-time 10s
  foreword-archive restore s3://bucket/mylog restored --plan    # what it comes to")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// The directory
    dir: PathBuf,
    /// Up to this record
    #[arg(long, value_name = "LSN", value_parser = units::lsn, conflicts_with = "to_time")]
    to_lsn: Option<Lsn>,
    /// What there was at this time: 2026-11-29T08:30:00Z, 2026-11-29 (midnight UTC), or how long
    /// ago, as in 10s or 2h 30m. By the clock of the machine that wrote the records
    #[arg(long, value_name = "TIME", value_parser = units::moment)]
    to_time: Option<u64>,
    /// Of which timeline's history [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    timeline: Option<u32>,
    /// Restore a page store: its log as DIR/log, and the newest backup from before as
    /// DIR/PAGES.backup. Opening the store makes its pages of that
    #[arg(long)]
    pages: bool,
    /// The size of the log's segments
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "64M")]
    segment_size: u64,
    /// Downloads at once
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    downloads: usize,
    /// Only say what would be restored
    #[arg(long)]
    plan: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let mut archive = args.at.open().await?;
    let mut options = RestoreOptions::default();
    options.to = match (args.to_lsn, args.to_time) {
        (Some(lsn), _) => Target::Lsn(lsn),
        (_, Some(time)) => Target::Time(time),
        _ => Target::Latest,
    };
    (options.timeline, options.segment_bytes, options.downloads) = (args.timeline, args.segment_size, args.downloads);
    // What is restored is what is said now, although the archive may go on.
    let (plan, backup) = match args.pages {
        true => archive.plan_backup(&options).await.map(|(plan, backup)| (plan, Some(backup)))?,
        false => (archive.plan(&options).await?, None),
    };
    let made = backup.as_ref().map(|backup| format!("the backup of {}, and ", units::time(backup.made))).unwrap_or_default();
    let timeline = archive.timeline(Some(plan.timeline))?;
    let last = timeline.last;
    let newest = timeline.indexes.iter().map(|index| index.to).chain(timeline.chunks.iter().map(|chunk| chunk.to)).max();
    let beyond = match options.to {
        Target::Latest if plan.last.0 < last => {
            format!(" (there are more, up to {last}; the last may be in the middle of a batch: --to-lsn {last} restores them)")
        }
        Target::Time(time) if plan.last.0 == last && newest.is_some_and(|newest| newest < time) => {
            format!(" (the newest that is archived is of {})", units::time(newest.unwrap_or(time)))
        }
        _ => String::new(),
    };
    let what = format!(
        "{made}records {} to {} of timeline {}: {} in {} objects{beyond}",
        plan.first,
        plan.last,
        plan.timeline,
        units::bytes(plan.bytes),
        plan.objects
    );
    let mut said = json!({"timeline": plan.timeline, "first": plan.first.0, "last": plan.last.0, "objects": plan.objects, "bytes": plan.bytes});
    said["backup_micros"] = json!(backup.as_ref().map(|backup| backup.made));
    said["archived"] = json!(last);
    (options.to, options.timeline) = (Target::Lsn(plan.last), Some(plan.timeline));
    if args.plan {
        if args.json {
            output::json(&said)?
        } else {
            output::line(what)?
        }
        return Ok(Status::Fine);
    }
    if !args.json {
        crate::note(format!("restores {what}"));
        options.on_progress = Some(Arc::new(progress(Instant::now())));
    }
    let began = Instant::now();
    match args.pages {
        true => _ = archive.restore_backup(&args.dir, &options).await?,
        false => _ = archive.restore(&args.dir, &options).await?,
    }
    let took = began.elapsed().as_secs_f64();
    if args.json {
        said["seconds"] = json!(took);
        output::json(&said)?;
    } else {
        let dir = plain(args.dir.display());
        output::line(format!("restored {} to {} into {dir} in {took:.1} s", plan.first, plan.last))?;
    }
    Ok(Status::Fine)
}

/// A line on a terminal, written again and again; elsewhere a line each ten seconds.
fn progress(began: Instant) -> impl Fn(u64, u64) + Send + Sync {
    let terminal = std::io::stderr().is_terminal();
    let last = std::sync::Mutex::new(began);
    move |done, of| {
        let each = if terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let Ok(mut last) = last.lock() else { return };
        if last.elapsed() < each && done < of || !terminal && done >= of {
            return;
        }
        *last = Instant::now();
        let end = if terminal && done < of { '\r' } else { '\n' };
        let rate = units::bytes((done as f64 / began.elapsed().as_secs_f64().max(0.001)) as u64);
        _ = write!(std::io::stderr(), "{} of {}, {rate}/s   {end}", units::bytes(done), units::bytes(of));
    }
}

/// Keep a restored log up to date
///
/// Restores the log, if the directory is not there or empty, and appends what comes to the archive,
/// until SIGINT or SIGTERM. Meanwhile other programs can read it, and none can write to it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive follow s3://bucket/mylog standby
  foreword-archive follow s3://bucket/mylog standby --once      # catch up, and end")]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    at: At,
    /// The standby's directory
    dir: PathBuf,
    /// How often to look for more
    #[arg(long, value_name = "AGE", value_parser = units::age, default_value = "1s")]
    every: Duration,
    /// Catch up, and end
    #[arg(long)]
    once: bool,
    /// The size of the log's segments [default: those that it has, or 64M]
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    segment_size: Option<u64>,
    /// Write JSON: a line each time that more has come, or that it fails, and one at the end
    #[arg(long)]
    json: bool,
}

fn of_standby(dir: &Path, segment_size: Option<u64>) -> RestoreOptions {
    let mut options = RestoreOptions::default();
    if let Some(bytes) = segment_size.or_else(|| segment_bytes(dir)) {
        options.segment_bytes = bytes;
    }
    options
}

pub(crate) async fn follow(args: FollowArgs) -> Result<Status, Failure> {
    let options = of_standby(&args.dir, args.segment_size);
    let mut standby = Standby::open(args.at.open().await?, &args.dir, options).await?;
    let last = if args.once {
        standby.catch_up().await?;
        standby.close().await?
    } else {
        let mut before = Lsn::ZERO;
        let told = &mut |caught: &foreword_archive::Result<Lsn>| match caught {
            // (A reader that is gone ends nothing.)
            Err(error) if args.json => drop(output::json(&json!({"event": "failed", "error": error.to_string()}))),
            Err(error) => crate::note(error.to_string()),
            Ok(lsn) if args.json && *lsn != before => {
                before = *lsn;
                drop(output::json(&json!({"event": "caught_up", "lsn": lsn.0})));
            }
            Ok(_) => {}
        };
        standby.run(args.every, stopped(), told).await?
    };
    match args.json {
        true => output::json(&json!({"event": "done", "lsn": last.0}))?,
        false => output::line(format!("{} has all up to {last}", plain(args.dir.display())))?,
    }
    Ok(Status::Fine)
}

/// Make a standby the log
///
/// Fences the archiver of the old log, catches up with what it had archived, and closes the
/// standby's log, which a program can then open and write to. What the old log had not archived is
/// not there.
#[derive(clap::Args)]
#[command(after_help = "Example:
  foreword-archive promote s3://bucket/mylog standby
  foreword-archive push standby s3://bucket/mylog --follow     # in a timeline of its own")]
pub(crate) struct PromoteArgs {
    #[command(flatten)]
    at: At,
    /// The standby's directory
    dir: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn promote(args: PromoteArgs) -> Result<Status, Failure> {
    let standby = Standby::open(args.at.open().await?, &args.dir, of_standby(&args.dir, None)).await?;
    let last = standby.promote().await?;
    match args.json {
        true => output::json(&json!({"event": "promoted", "lsn": last.0}))?,
        false => {
            let dir = plain(args.dir.display());
            output::line(format!("{dir} is the log, up to {last}; the archiver of the old one is fenced"))?
        }
    }
    Ok(Status::Fine)
}
