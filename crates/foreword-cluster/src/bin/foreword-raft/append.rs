//! `foreword-raft append`: lines of standard input as records.

use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::sync::mpsc;

use crate::At;
use crate::exit::{Failure, Status};
use foreword_command::output;

/// Append each line of standard input as a record
///
/// In a session: a line counts once, also where the leader changes meanwhile. Lines that wait go
/// together, and keep their order. Prints the index of each as it is acknowledged: a majority has
/// it durable.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  seq 1000 | foreword-raft append --quiet
  echo hello | foreword-raft append --at 10.0.0.1:7001,10.0.0.2:7001")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// Print nothing
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
    /// Print one JSON object when all are acknowledged
    #[arg(long)]
    json: bool,
}

/// So many bytes of lines go at once.
const AT_ONCE: usize = 1 << 20;

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let client = args.at.client()?;
    let session = client.open_session().await?;
    let (sender, mut lines) = mpsc::channel(16 << 10);
    tokio::spawn(async move {
        let mut input = tokio::io::BufReader::new(tokio::io::stdin());
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line).await;
            if line.ends_with(b"\n") {
                line.pop();
            } else if matches!(read, Ok(0)) {
                return;
            }
            if sender.send(read.map(|_| line)).await.is_err() {
                return;
            }
        }
    });
    let (mut count, mut first, mut last) = (0u64, None, None);
    let mut sequence = 0;
    while let Some(line) = lines.recv().await {
        // All that has come meanwhile goes with it: one batch after the other, so that lines keep
        // their order.
        let mut batch = vec![line];
        let mut bytes = 0;
        while bytes < AT_ONCE
            && let Ok(line) = lines.try_recv()
        {
            bytes += line.as_ref().map_or(0, Vec::len) + 16;
            batch.push(line);
        }
        let unread = |error| Failure::Wrong(format!("cannot read standard input: {error}"));
        let batch = batch.into_iter().collect::<Result<Vec<_>, _>>().map_err(unread)?;
        let records = batch.len() as u64;
        sequence += 1;
        let index = client.append_once(session, sequence, batch).await?;
        count += records;
        first.get_or_insert(index);
        last = Some(index + records - 1);
        if !args.quiet && !args.json {
            let indices: Vec<String> = (index..index + records).map(|index| index.to_string()).collect();
            output::line(indices.join("\n"))?;
        }
    }
    client.close_session(session).await?;
    if args.json {
        output::json(&json!({ "records": count, "first": first, "last": last }))?;
    }
    Ok(Status::Fine)
}
