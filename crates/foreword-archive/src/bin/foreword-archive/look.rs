//! `foreword-archive status`, `cat` and `verify`.

use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use foreword::{Lsn, View};
use foreword_archive::{Archive, Error, Target};
use serde_json::json;

use foreword_command::output::NotWritten;
use foreword_command::plain;

use crate::exit::{Failure, Status};
use crate::{At, units};
use foreword_command::output;

/// What an archive has, and how far behind its log it is
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive status s3://bucket/mylog
  foreword-archive status s3://bucket/mylog mylog --json")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    at: At,
    /// The log's directory, to say what is not archived yet
    dir: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn status(args: StatusArgs) -> Result<Status, Failure> {
    let mut archive = args.at.open().await?;
    let now = units::micros(SystemTime::now());
    let quiet = now.saturating_sub(archive.changed_micros()) / 1_000_000;
    let (mut rows, mut timelines) = (Vec::new(), Vec::new());
    for timeline in archive.timelines() {
        let (chunks, bytes) = (timeline.chunk_count(), timeline.bytes());
        let stretches: Vec<_> = archive.stretches(timeline.id).into_iter().map(|(first, last)| (first.0, last.0)).collect();
        let ranges: Vec<_> = stretches.iter().map(|(first, last)| format!("{first} to {last}")).collect();
        // (Up to there a restore goes by default.)
        let is_divided = timeline.whole < timeline.last;
        let whole = if is_divided { format!(", whole batches up to {}", timeline.whole) } else { String::new() };
        let parent = timeline.parent.map(|parent| format!("{} at {}", parent.timeline, parent.last));
        rows.push(vec![
            timeline.id.to_string(),
            if ranges.is_empty() { "none".into() } else { ranges.join(", ") + &whole },
            chunks.to_string(),
            timeline.backups.len().to_string(),
            units::bytes(bytes),
            units::time(timeline.began),
            parent.clone().map_or_else(|| timeline.reason.clone(), |parent| format!("{}: from {parent}", timeline.reason)),
        ]);
        timelines.push(json!({
            "timeline": timeline.id, "log": timeline.log, "records": stretches, "last": timeline.last, "whole": timeline.whole, "chunks": chunks, "bytes": bytes,
            "began_micros": timeline.began, "reason": timeline.reason,
            "parent": timeline.parent.map(|parent| json!({"timeline": parent.timeline, "last": parent.last})),
            "backups": timeline.backups.iter().map(|backup| json!({
                "name": backup.list.name, "log_start": backup.log_start, "consistent": backup.consistent, "made_micros": backup.made,
                "bytes": backup.bytes, "stored_bytes": backup.list.bytes,
            })).collect::<Vec<_>>(),
            "gaps": timeline.gaps.iter().map(|gap| json!({"first": gap.first, "last": gap.last, "reason": gap.reason})).collect::<Vec<_>>(),
        }));
    }
    let mut said = json!({
        "archive": archive.id().to_string(), "epoch": archive.newest_epoch(), "manifests": archive.manifests(),
        "seconds_since_confirmed": quiet, "timelines": timelines,
    });
    let (mut lag, mut failed) = (None, None);
    if let Some(dir) = &args.dir {
        let standing = archive.standing(dir).await;
        let view = View::open(dir)?;
        let last = view.last_lsn()?;
        let archived = standing.as_ref().map_or(last, |standing| standing.archived).min(last);
        let from = archived.next().max(view.start_lsn());
        let behind = last.next().0.saturating_sub(from.0);
        let bytes = if behind > 0 { view.bytes_between(from, last.next())? } else { 0 };
        let holds: Vec<_> = view
            .holds()?
            .into_iter()
            .filter(|(_, hold)| hold.lsn <= from)
            .map(|(name, hold)| json!({"name": name, "lsn": hold.lsn.0}))
            .collect();
        let at = dir.display();
        said["log"] = match standing {
            Ok(_) => {
                let size = units::bytes(bytes);
                lag = Some(format!("{at} is archived up to {archived} of {last}: {behind} records behind, {size}"));
                json!({
                    "last": last.0, "archived": archived.0, "behind_records": behind, "behind_bytes": bytes, "holds": holds,
                })
            }
            Err(error) => {
                let said = json!({"last": last.0, "holds": holds, "refused": error.to_string()});
                failed = Some(error);
                said
            }
        };
    }
    if args.json {
        output::json(&said)?;
        return failed.map_or(Ok(Status::Fine), |error| Err(error.into()));
    }
    output::line(format!(
        "archive {}, epoch {}, {} manifests; the last was confirmed {quiet} s ago",
        archive.id(),
        archive.newest_epoch(),
        archive.manifests()
    ))?;
    output::table(&["timeline", "records", "chunks", "backups", "size", "began", "why"], &rows)?;
    lag.map_or(Ok(()), |lag| output::line(plain(lag)))?;
    // (What there is was said; why the log does not fit is the error.)
    failed.map_or(Ok(Status::Fine), |error| Err(error.into()))
}

/// Write records to standard output, straight from the archive
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive cat s3://bucket/mylog --from 1000 --to 1999
  foreword-archive cat s3://bucket/mylog --until 10m --json")]
pub(crate) struct CatArgs {
    #[command(flatten)]
    at: At,
    /// The first record [default: the first that the archive has without a gap]
    #[arg(long, value_name = "LSN", value_parser = units::lsn)]
    from: Option<Lsn>,
    /// The last record [default: the last]
    #[arg(long, value_name = "LSN", value_parser = units::lsn, conflicts_with = "until")]
    to: Option<Lsn>,
    /// End before the first record that was written after this time; as restore's --to-time
    #[arg(long, value_name = "TIME", value_parser = units::moment)]
    until: Option<u64>,
    /// Of which timeline's history [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    timeline: Option<u32>,
    /// A line of JSON for each record: its LSN, its time in microseconds since 1970, and its bytes
    /// as text, or in hexadecimal digits if they are none
    #[arg(long)]
    json: bool,
}

pub(crate) async fn cat(args: CatArgs) -> Result<Status, Failure> {
    let archive = args.at.open().await?;
    let (first, last) = archive.range(args.timeline)?;
    // (As of a log without records.)
    let has_none = archive.stretches(archive.timeline(args.timeline)?.id).is_empty();
    if has_none && args.from.is_none() && args.to.is_none() {
        return Ok(Status::Fine);
    }
    let from = args.from.unwrap_or(first);
    let to = match args.until {
        Some(until) => archive.lsn_at(args.timeline, until).await?,
        None => args.to.unwrap_or(last),
    };
    if from > to {
        return Err(Failure::Wrong(format!("the range is empty: {from} is behind {to}")));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut archive, mut next) = (archive, from);
    let copied = loop {
        match copy(&archive, &args, &mut next, to, &mut out).await {
            // A small chunk may have become part of a larger one, and be gone.
            Err(Failure::Archive(Error::Damaged { .. })) if archive.refresh().await? => {}
            copied => break copied,
        }
    };
    // Readable records come first, then the error that ended them.
    out.flush().map_err(NotWritten::from)?;
    copied?;
    Ok(Status::Fine)
}

/// Writes records, up to the one before `next`.
async fn copy(archive: &Archive, args: &CatArgs, next: &mut Lsn, to: Lsn, out: &mut impl Write) -> Result<(), Failure> {
    let mut records = archive.records(args.timeline, *next, to)?;
    while let Some(record) = records.next().await? {
        let written = match args.json {
            true => {
                let data = match std::str::from_utf8(&record.data) {
                    Ok(text) => json!({"lsn": record.lsn.0, "micros": record.micros, "text": text}),
                    Err(_) => json!({"lsn": record.lsn.0, "micros": record.micros, "hex": hex(&record.data)}),
                };
                writeln!(out, "{data}")
            }
            false => out.write_all(&record.data).and_then(|()| out.write_all(b"\n")),
        };
        written.map_err(NotWritten::from)?;
        *next = record.lsn.next();
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Read and check everything
///
/// The chain of manifests, and of each chunk its hash, its decryption, its records and their times.
/// Reads all of the archive; with --sample a part of it.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive verify s3://bucket/mylog
  foreword-archive verify s3://bucket/mylog --sample 5      # one chunk of twenty, by chance")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    at: At,
    /// Read only so many of a hundred chunks
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    sample: f64,
    /// Also restore in thought: that the newest point can be restored, and what that reads
    #[arg(long)]
    plan: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn verify(args: VerifyArgs) -> Result<Status, Failure> {
    if !(args.sample > 0.0 && args.sample <= 100.0) {
        return Err(Failure::Wrong("--sample is a number of percent: above 0, and up to 100".into()));
    }
    let archive = args.at.open().await?;
    let verified = archive.verify(args.sample / 100.0, &mut |_| {}).await?;
    if args.plan {
        let mut options = foreword_archive::RestoreOptions::default();
        options.to = Target::Latest;
        archive.plan(&options).await?;
    }
    let faults = verified.faults.iter().map(|fault| {
        json!({"object": fault.object, "first": fault.lsns.map(|lsns| lsns.0.0), "last": fault.lsns.map(|lsns| lsns.1.0), "why": fault.error.to_string()})
    });
    let faults: Vec<_> = faults.collect();
    if args.json {
        let gaps = verified.gaps.iter().map(
            |(timeline, first, last, reason)| json!({"timeline": timeline, "first": first.0, "last": last.0, "reason": reason}),
        );
        let gaps: Vec<_> = gaps.collect();
        output::json(
            &json!({"objects": verified.objects, "bytes": verified.bytes, "records": verified.records, "faults": faults,
                "gaps": gaps, "leftovers": verified.leftovers}),
        )?;
    } else {
        for fault in &verified.faults {
            let lsns = fault.lsns.map_or_else(String::new, |(first, last)| format!("; records {first} to {last} cannot be read"));
            output::line(plain(format_args!("{}{lsns}", fault.error)))?;
        }
        for (timeline, first, last, reason) in &verified.gaps {
            output::line(format!("timeline {timeline} does not have records {first} to {last}: {reason}"))?;
        }
        for path in &verified.leftovers {
            output::line(format!("{} was left by a write that was interrupted: `expire` removes it", path.display()))?;
        }
        let sound = if verified.faults.is_empty() { "all sound" } else { "NOT SOUND" };
        output::line(format!(
            "{} objects, {}, {} records: {sound}",
            verified.objects,
            units::bytes(verified.bytes),
            verified.records
        ))?;
    }
    Ok(if verified.faults.is_empty() { Status::Fine } else { Status::Damaged })
}
