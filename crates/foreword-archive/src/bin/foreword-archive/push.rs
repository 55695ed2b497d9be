//! `foreword-archive push`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreword::{Limit, View};
use foreword_archive::{Archiver, Event, PushOptions, Store};
use serde_json::json;

use crate::exit::{Failure, Status};
use crate::{KeyArgs, stopped, units};
use foreword_command::output;

/// How long to wait before a store that does not answer is asked again, at the beginning.
const AGAIN: Duration = Duration::from_secs(5);
/// How long what has been read may take to be archived, when it is to end.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Archive a log
///
/// Archives all that is durable in the log, and with --follow what comes, until SIGINT or SIGTERM;
/// the log may be open in a program, and that may start and stop meanwhile. Only one may archive a
/// log: one that begins fences the one before (exit status 2). A hold keeps in the log what is not
/// archived.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-archive push mylog s3://bucket/mylog --create       # the first time
  foreword-archive push mylog s3://bucket/mylog --follow --rpo 1s
  foreword-archive push mylog s3://bucket/mylog --follow --keep-at-most 20G")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// Where the archive is
    #[arg(value_name = "ARCHIVE")]
    url: String,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Begin an archive where there is none; a directory is made, too
    #[arg(long)]
    create: bool,
    /// Bytes of records in a chunk
    #[arg(long, value_name = "SIZE", value_parser = units::size, default_value = "8M")]
    chunk: u64,
    /// Cut a smaller chunk when its first record is so old
    #[arg(long, value_name = "AGE", value_parser = units::age, default_value = "10s")]
    every: Duration,
    /// Upload what has come so often, in small chunks that the next one replaces: so much is lost
    /// with the disk, at most, while the store keeps up
    #[arg(long, value_name = "AGE", value_parser = units::age)]
    rpo: Option<Duration>,
    /// Uploads at once
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    uploads: usize,
    /// The level of compression (zstd): from 1, fast, to 19, small
    #[arg(long, value_name = "LEVEL", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// The name of the hold in the log
    #[arg(long, value_name = "NAME", default_value = "archive")]
    hold: String,
    /// Place no hold: records may be dropped from the log before they are archived
    #[arg(long, conflicts_with_all = ["hold", "keep_at_most"])]
    no_hold: bool,
    /// The hold keeps at most so much of the log while the store is away; beyond it records are
    /// lost to the archive, and push says which
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    keep_at_most: Option<u64>,
    /// Go on where records were dropped before they were archived
    #[arg(long)]
    skip_missed: bool,
    /// Use a store that is not known to create an object only once (see `doctor`)
    #[arg(long)]
    trust_store: bool,
    /// How long a store that fails is asked again [default: with --follow for ever, else 1m]
    #[arg(long, value_name = "AGE", value_parser = units::age)]
    patience: Option<Duration>,
    /// Say what happens as JSON, a line each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

impl Args {
    fn options(&self) -> PushOptions {
        let mut options = PushOptions::default();
        options.chunk_bytes = self.chunk;
        options.chunk_age = self.every;
        options.rpo = self.rpo;
        options.uploads = self.uploads;
        options.level = self.level;
        options.hold = (!self.no_hold).then(|| self.hold.clone());
        options.hold_limit = self.keep_at_most.map_or(Limit::NONE, Limit::bytes);
        options.skip_missed = self.skip_missed;
        options.trust_store = self.trust_store;
        options.create = self.create;
        options.patience = self.patience.or((!self.follow).then(|| Duration::from_secs(60)));
        let json = self.json;
        options.on_event = Some(Arc::new(move |event| tell(event, json)));
        options
    }
}

fn tell(event: &Event, json: bool) {
    let (said, what) = match event {
        Event::Archived { lsn, bytes, .. } => {
            if !json {
                return;
            }
            (String::new(), json!({"event": "archived", "lsn": lsn.0, "bytes": bytes}))
        }
        Event::Retrying { error, since, .. } => {
            let secs = since.as_secs();
            (
                format!("{error}; failing for {secs} s, and tried again"),
                json!({"event": "retrying", "error": error.to_string(), "seconds": secs}),
            )
        }
        Event::Began { timeline, reason, .. } => (
            format!("timeline {timeline} begins: {reason}"),
            json!({"event": "timeline", "timeline": timeline, "reason": reason}),
        ),
        Event::Skipped { first, last, reason, .. } => (
            format!("records {first} to {last} are not archived: {reason}"),
            json!({"event": "skipped", "first": first.0, "last": last.0, "reason": reason}),
        ),
        _ => return,
    };
    // (A reader that is gone ends nothing.)
    if json { drop(output::json(&what)) } else { crate::note(said) }
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let keys = args.keys.load()?;
    // (No directory is made for what is no log.)
    View::open(&args.dir)?;
    let store = if args.create { Store::create(&args.url)? } else { Store::open(&args.url)? };
    let began = Instant::now();
    let mut archiver = loop {
        match Archiver::begin(&args.dir, store.clone(), keys.clone(), args.options()).await {
            Err(error)
                if args.follow && error.is_retryable() && args.patience.is_none_or(|patience| began.elapsed() < patience) =>
            {
                crate::note(format!("{error}; tried again"));
                tokio::select! {
                    () = stopped() => return Err(error.into()),
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
            archiver => break archiver?,
        }
    };
    let from = archiver.archived();
    if args.follow {
        // A store that does not answer must not keep it from ending.
        let late = async {
            stopped().await;
            tokio::time::sleep(ENDS_WITHIN).await;
        };
        let ran = tokio::select! {
            ran = archiver.run(stopped()) => Some(ran),
            () = late => None,
        };
        let Some(ran) = ran else {
            return Err(Failure::Wrong(format!(
                "ended before all was archived; what is archived goes up to {}",
                archiver.archived()
            )));
        };
        ran?;
    } else {
        archiver.push_all().await?;
    }
    let to = archiver.archived();
    if args.json {
        output::json(
            &json!({"event": "done", "lsn": to.0, "records": to.0.saturating_sub(from.0), "timeline": archiver.timeline()}),
        )?;
    } else {
        let new = to.0.saturating_sub(from.0);
        output::line(format!(
            "archived up to {to} ({new} new records), timeline {}, in {:.1} s",
            archiver.timeline(),
            began.elapsed().as_secs_f64()
        ))?;
    }
    Ok(Status::Fine)
}
