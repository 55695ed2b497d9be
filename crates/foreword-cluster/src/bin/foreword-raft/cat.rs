//! `foreword-raft cat`: records to standard output.

use std::io::Write;

use foreword_cluster::Record;
use futures_util::StreamExt;
use serde_json::json;

use foreword_command::output::NotWritten;

use crate::At;
use crate::exit::{Failure, Status};
use foreword_command::output;

/// Write records to standard output, each on a line
///
/// Linearizable, but for --local: what was acknowledged to anyone before is there.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft cat
  foreword-raft cat --from 1000 --to 1999 --json
  foreword-raft cat --follow | grep ERROR")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// The first record [default: the first that is kept]
    #[arg(long, value_name = "INDEX", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// The last record [default: the last]
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Continue with new records as they are committed
    #[arg(long, short)]
    follow: bool,
    /// Write what the node knows to be committed, without asking others: it may lag behind, and it
    /// answers also where a majority is lost
    #[arg(long)]
    local: bool,
    /// Write each as a JSON object: its index, and its text, in which what is no UTF-8 is replaced
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    if args.from > args.to {
        return Err(Failure::Wrong(format!("the range is empty: --from {} is behind --to {}", args.from, args.to)));
    }
    let client = args.at.client()?;
    let mut from = args.from;
    while from <= args.to {
        let records = match args.local {
            true => client.read_local(from..=args.to).await?,
            false => client.read(from..=args.to).await?,
        };
        let Some(last) = records.last() else { break };
        from = last.index + 1;
        show(&args, records.into_iter())?;
    }
    if args.follow && from <= args.to {
        if from == 0 {
            from = client.status().await?.first;
        }
        let mut records = client.follow(from);
        while let Some(record) = records.next().await {
            let record = record?;
            let end = record.index >= args.to;
            show(&args, std::iter::once(record))?;
            if end {
                break;
            }
        }
    }
    Ok(Status::Fine)
}

fn show(args: &Args, records: impl Iterator<Item = Record>) -> Result<(), Failure> {
    if args.json {
        for record in records {
            output::json(&json!({ "index": record.index, "data": String::from_utf8_lossy(&record.data) }))?;
        }
        return Ok(());
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for record in records {
        out.write_all(&record.data).and_then(|()| out.write_all(b"\n")).map_err(NotWritten::from)?;
    }
    out.flush().map_err(NotWritten::from)?;
    Ok(())
}
