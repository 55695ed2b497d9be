//! `foreword dump`: the structures in the log's files, place by place.

use std::path::PathBuf;

use foreword::inspect::{self, Content, ControlInfo, Frame, RecordInfo};
use serde_json::{Value, json};

use crate::exit::{Failure, Status};
use crate::output::{Output, Tone, note};
use crate::verdict;
use foreword_command::plain;
use foreword_command::units;

/// Show each structure in the log's files, with its offset
///
/// Dumps one segment or all of them. Torn and damaged places are shown as such, and the dump goes
/// on behind them. Of a frame's records the first 16 lengths are shown, and how many are left out.
/// Exit status 3: a place is DAMAGED, or there is no segment. Whether a record is lost for it,
/// `foreword verify` says.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword dump mylog
  foreword dump mylog 3 | grep MARK
  foreword dump mylog --json | jq 'select(.kind == \"DAMAGED\")'")]
pub(crate) struct Args {
    /// The log's directory
    dir: PathBuf,
    /// The epoch of a segment (the file name is the epoch in 20 digits)
    segment: Option<u64>,
    /// Print one JSON object per structure, with nothing left out
    #[arg(long)]
    json: bool,
    /// Leave nothing out: show the lengths of all records of each frame
    #[arg(long)]
    full: bool,
}

/// How many elements of a list are shown by default.
const FEW: usize = 16;

/// A list as text, or its first elements and what is left out.
fn list<'a, T>(all: &'a [T], full: bool, one: impl Fn(&T) -> String, left_out: impl Fn(&'a [T]) -> String) -> String {
    let few = if full || all.len() <= FEW { all.len() } else { FEW };
    let mut text = all[..few].iter().map(one).collect::<Vec<_>>().join(" ");
    if few < all.len() {
        text.push_str(&format!(" and {} (--full)", left_out(&all[few..])));
    }
    text
}

pub(crate) fn run(args: &Args) -> Result<Status, Failure> {
    let mut out = Output::new();
    let epochs = match args.segment {
        Some(epoch) => vec![epoch],
        None => inspect::segments(&args.dir)?.into_iter().map(|s| s.epoch).collect(),
    };
    let mut status = Status::Fine;
    if epochs.is_empty() {
        note(format_args!("there is no segment, though `LOG` says that there is a log: see `foreword verify`"));
        status = Status::Corruption;
    }
    for epoch in epochs {
        let frames = inspect::frames(&args.dir, epoch)?;
        if !args.json {
            let title = out.paint(Tone::Name, format!("segment {epoch}"));
            out.line(format_args!("{title}"))?;
        }
        for frame in frames {
            let frame = frame?;
            if matches!(frame.content, Content::Damaged(_)) {
                status = Status::Corruption;
            }
            if args.json {
                out.json(&frame_json(epoch, &frame))?;
            } else {
                let kind = out.paint(tone(&frame.content), format!("{:<9}", kind(&frame.content)));
                out.line(format_args!("{:>11}  {:>7}  {kind}  {}", frame.offset, frame.bytes, plain(text(&frame, args.full))))?;
            }
        }
    }
    out.flush()?;
    Ok(status)
}

fn kind(content: &Content) -> &'static str {
    match content {
        Content::Header { .. } => "HEADER",
        Content::Link { .. } => "LINK",
        Content::Data { .. } => "DATA",
        Content::Mark { .. } => "MARK",
        Content::Seal { .. } => "SEAL",
        Content::Unwritten => "unwritten",
        Content::Torn => "TORN",
        Content::Damaged(_) => "DAMAGED",
        _ => "?",
    }
}

fn tone(content: &Content) -> Tone {
    match content {
        Content::Torn => Tone::Warn,
        Content::Damaged(_) => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn text(frame: &Frame, full: bool) -> String {
    let mut text = content_text(&frame.content, full);
    if let Some(time) = frame.time {
        text.push_str(&format!("; {}", units::timestamp(time)));
    }
    if let Some(promise) = frame.promise {
        text.push_str(&format!("; promises segment {} before {}, LSN {}", promise.epoch, promise.offset, promise.lsn));
    }
    text
}

fn content_text(content: &Content, full: bool) -> String {
    match content {
        Content::Header { version, log, epoch, segment_bytes, recycled_from, .. } => {
            let recycled = recycled_from.map(|old| format!(", recycled from {old}")).unwrap_or_default();
            format!("version {version}, log {log}, epoch {epoch}, {segment_bytes} bytes{recycled}")
        }
        Content::Link { follows, first_lsn, cut, state, .. } => {
            let follows = follows.map_or("nothing".to_owned(), |(epoch, end)| format!("segment {epoch} up to {end}"));
            let cut = cut.map_or(String::new(), |(at, since)| format!(", cut at LSN {at} since generation {since}"));
            format!("follows {follows}, first LSN {first_lsn}{cut}{}", state_text(state, full))
        }
        Content::Data { continued_bytes, records, continues, .. } => {
            let mut parts = Vec::new();
            if *continued_bytes > 0 {
                parts.push(format!("{continued_bytes} bytes of a record begun before"));
            }
            let left_out = |records: &[RecordInfo]| {
                format!(
                    "{} records of {} bytes",
                    records.len(),
                    records.iter().map(|record| u64::from(record.bytes)).sum::<u64>()
                )
            };
            let lens = list(records, full, |record| record.bytes.to_string(), left_out);
            if let (Some(first), Some(last)) = (records.first(), records.last()) {
                let lsns = if records.len() == 1 { first.lsn.to_string() } else { format!("{} to {}", first.lsn, last.lsn) };
                parts.push(format!("LSN {lsns}, bytes {lens}"));
            }
            if *continues {
                parts.push("goes on in the next frame".to_owned());
            }
            parts.join(", ")
        }
        Content::Mark { closed, next_lsn, state, .. } => {
            format!("{}next LSN {next_lsn}{}", if *closed { "closed, " } else { "" }, state_text(state, full))
        }
        Content::Seal { end, .. } => format!("the segment ends before {end}"),
        Content::Unwritten => String::new(),
        Content::Torn => "a frame of which some sectors were never written".to_owned(),
        Content::Damaged(why) => why.clone(),
        _ => String::new(),
    }
}

fn state_text(state: &ControlInfo, full: bool) -> String {
    let mut text = format!(", log starts at {}", state.start_lsn);
    if state.generation > 0 {
        text.push_str(&format!(", generation {}", state.generation));
    }
    for (name, hold) in &state.holds {
        text.push_str(&format!(", hold `{name}` {}{}", hold.lsn, units::limit(&hold.limit)));
    }
    if !state.given_up.is_empty() {
        let left_out = |stretches: &[_]| format!("{} stretches more", stretches.len());
        let lost = list(&state.given_up, full, |&stretch| verdict::stretches(&[stretch]), left_out);
        text.push_str(&format!(", given up {lost}"));
    }
    text
}

fn state_json(state: &ControlInfo) -> Value {
    json!({
        "start_lsn": state.start_lsn.0,
        "generation": state.generation,
        "holds": state.holds.iter().map(|(name, hold)| (name.clone(), Value::from(hold.lsn.0))).collect::<Value>(),
        "given_up": verdict::stretches_json(&state.given_up),
    })
}

fn frame_json(epoch: u64, frame: &Frame) -> Value {
    let mut value = content_json(&frame.content);
    value["segment"] = json!(epoch);
    value["offset"] = json!(frame.offset);
    value["bytes"] = json!(frame.bytes);
    value["kind"] = json!(kind(&frame.content));
    if let Some(time) = frame.time {
        value["time"] = json!(units::timestamp(time));
    }
    if let Some(promise) = frame.promise {
        value["promise"] = json!({ "segment": promise.epoch, "offset": promise.offset, "lsn": promise.lsn.0 });
    }
    value
}

fn content_json(content: &Content) -> Value {
    match content {
        Content::Header { version, log, epoch, segment_bytes, created, recycled_from, .. } => json!({
            "version": version,
            "log": log.to_string(),
            "epoch": epoch,
            "segment_bytes": segment_bytes,
            "created": units::timestamp(*created),
            "recycled_from": recycled_from,
        }),
        Content::Link { follows, first_lsn, cut, state, .. } => json!({
            "follows": follows.map(|(epoch, end)| json!({ "segment": epoch, "end": end })),
            "first_lsn": first_lsn.0,
            "cut": cut.map(|(at, since)| json!({ "lsn": at.0, "since_generation": since })),
            "state": state_json(state),
        }),
        Content::Data { continued_bytes, records, continues, .. } => json!({
            "continued_bytes": continued_bytes,
            "continues": continues,
            "records": records.iter().map(|r| json!({ "lsn": r.lsn.0, "bytes": r.bytes })).collect::<Value>(),
        }),
        Content::Mark { closed, next_lsn, state, .. } => {
            json!({ "closed": closed, "next_lsn": next_lsn.0, "state": state_json(state) })
        }
        Content::Seal { end, .. } => json!({ "end": end }),
        Content::Damaged(why) => json!({ "why": why }),
        _ => json!({}),
    }
}
