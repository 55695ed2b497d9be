//! `foreword-archive expire`, `check`, `doctor` and `keygen`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foreword::Lsn;
use foreword_archive::{Atomicity, Keep, Key, Store, probe};
use serde_json::json;

use crate::exit::{Failure, Status};
use crate::{At, units};
use foreword_command::output;

/// Remove what is not to be kept
///
/// Says what would go; with --apply it goes. Whole chunks are removed, from the oldest on: what is
/// kept can be restored as before. With several conditions, what any of them keeps is kept. What
/// belongs to no one goes, too: uploads that were interrupted, and manifests that a summary has
/// taken the place of. An archiver may run meanwhile.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive expire s3://bucket/mylog --window 7d            # dry run
  foreword-archive expire s3://bucket/mylog --window 7d --apply
  foreword-archive expire s3://bucket/mylog --from 100000 --bytes 1G --apply
  foreword-archive expire s3://bucket/mylog --chunks 1000 --apply")]
pub(crate) struct ExpireArgs {
    #[command(flatten)]
    at: At,
    /// Keep each point of this window
    #[arg(long, value_name = "AGE", value_parser = units::age)]
    window: Option<Duration>,
    /// Keep all from this record on
    #[arg(long, value_name = "LSN", value_parser = units::lsn)]
    from: Option<Lsn>,
    /// Keep the newest chunks of so many bytes
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    bytes: Option<u64>,
    /// Keep the newest so many chunks
    #[arg(long, value_name = "COUNT")]
    chunks: Option<u64>,
    /// Keep the newest so many backups of a page store, and each point to which they restore it
    #[arg(long, value_name = "COUNT")]
    backups: Option<u64>,
    /// Do it
    #[arg(long)]
    apply: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn expire(args: ExpireArgs) -> Result<Status, Failure> {
    if args.window.is_none() && [args.from.map(|lsn| lsn.0), args.bytes, args.chunks, args.backups] == [None; 4] {
        return Err(Failure::Wrong("say what is to be kept: --window, --from, --bytes, --chunks, --backups".into()));
    }
    let mut archive = args.at.open().await?;
    let mut keep = Keep::default();
    let since = args.window.map(|window| SystemTime::now().checked_sub(window).unwrap_or(UNIX_EPOCH));
    keep.since = since.map(units::micros);
    (keep.from, keep.bytes, keep.chunks, keep.backups) = (args.from, args.bytes, args.chunks, args.backups);
    let expired = if args.apply { archive.expire(keep).await? } else { archive.expirable(keep).await? };
    if args.json {
        let before: Vec<_> =
            expired.before.iter().map(|(timeline, lsn)| json!({"timeline": timeline, "before": lsn.0})).collect();
        output::json(&json!({
            "applied": args.apply, "before": before, "timelines": expired.timelines, "chunks": expired.chunks,
            "backups": expired.backups.iter().map(|(timeline, name)| json!({"timeline": timeline, "name": name})).collect::<Vec<_>>(),
            "bytes": expired.bytes, "unnamed": expired.unnamed, "manifests": expired.manifests, "leftovers": expired.leftovers,
        }))?;
        return Ok(Status::Fine);
    }
    let verb = if args.apply { "removed" } else { "would remove (see --apply)" };
    for (timeline, before) in &expired.before {
        output::line(format!("timeline {timeline}: {verb} what is before {before}"))?;
    }
    for timeline in &expired.timelines {
        output::line(format!("timeline {timeline}: {verb} all of it"))?;
    }
    output::line(format!(
        "{verb}: {} chunks, {} backups, {}; {} objects that belong to no one; {} manifests; {} files of interrupted writes",
        expired.chunks,
        expired.backups.len(),
        units::bytes(expired.bytes),
        expired.unnamed,
        expired.manifests,
        expired.leftovers
    ))?;
    Ok(Status::Fine)
}

/// Send a canary through the archive, and read it back
#[derive(clap::Args)]
#[command(after_help = "Example:
  foreword-archive check s3://bucket/mylog && echo 'store, keys and rights are as they must be'")]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    at: At,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn check(args: CheckArgs) -> Result<Status, Failure> {
    let (archive, began) = (args.at.open().await?, Instant::now());
    archive.check().await?;
    match args.json {
        true => output::json(&json!({"came_back": true, "seconds": began.elapsed().as_secs_f64()}))?,
        false => output::line("a canary went through and came back")?,
    }
    Ok(Status::Fine)
}

/// Race for objects in a store, to see whether it creates one only once
///
/// Only one archiver of a log may go on, and that rests on the store. A race that two win refutes
/// it (exit status 3); races that one wins do not prove it. The bucket, or the directory, must be
/// there.
#[derive(clap::Args)]
#[command(after_help = "Example:
  AWS_ENDPOINT=http://localhost:8333 foreword-archive doctor s3://bucket/probe --races 100")]
pub(crate) struct DoctorArgs {
    /// The store
    #[arg(value_name = "ARCHIVE")]
    url: String,
    /// How many races
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    races: u32,
    /// How many take part in each
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    racers: u32,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn doctor(args: DoctorArgs) -> Result<Status, Failure> {
    let store = Store::open(&args.url)?;
    let seen = probe(&store, args.races, args.racers).await?;
    let (known, why) = match store.atomicity() {
        Atomicity::Known(what) => (true, *what),
        Atomicity::Unknown(why) => (false, *why),
        _ => (false, "not known"),
    };
    if args.json {
        output::json(&json!({
            "races": seen.races, "racers": seen.racers, "won_by_many": seen.many, "most_winners": seen.most, "won_by_none": seen.none,
            "errors": seen.errors, "refuted": seen.is_refuted(), "known_atomic": known, "why": why,
        }))?;
    } else {
        output::line(format!(
            "{} races of {}: {} won by more than one (at most {}), {} by none, {} racers got an error",
            seen.races, seen.racers, seen.many, seen.most, seen.none, seen.errors
        ))?;
        output::line(match (seen.is_refuted(), known) {
            (true, _) => {
                "REFUTED: it lets several create one object. Two archivers could go on at once: use another store".to_owned()
            }
            (false, true) => format!("it is on the list: {why}"),
            (false, false) => format!("not refuted, which proves nothing: {why}. To use it, tell push --trust-store"),
        })?;
    }
    Ok(if seen.is_refuted() { Status::Damaged } else { Status::Fine })
}

/// Print a new key
#[derive(clap::Args)]
#[command(after_help = "Example:
  (umask 077; foreword-archive keygen > archive.key)     # and a copy elsewhere: nothing reads the archive without it
  foreword-archive push mylog s3://bucket/mylog --create --key-file archive.key")]
pub(crate) struct KeygenArgs {}

pub(crate) fn keygen(_: KeygenArgs) -> Result<Status, Failure> {
    let key = Key::generate()?;
    output::line(key.to_text())?;
    crate::note(format!("its id is {}", key.id()));
    Ok(Status::Fine)
}
