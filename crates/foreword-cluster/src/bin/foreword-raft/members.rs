//! `foreword-raft join`, `remove`, `transfer`: who votes, and who leads.

use serde_json::json;

use crate::At;
use crate::exit::{Failure, Status};
use foreword_command::output;

/// Make a learner a voter
///
/// A node that was started with --join gets the log, and neither votes nor counts for a majority.
/// This waits until it has caught up, and makes it a voter.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft join 2
  foreword-raft join 3 --at 10.0.0.1:7001")]
pub(crate) struct JoinArgs {
    /// The node's id
    node: u64,
    #[command(flatten)]
    at: At,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn join(args: JoinArgs) -> Result<Status, Failure> {
    args.at.client()?.promote(args.node).await?;
    match args.json {
        true => output::json(&json!({ "node": args.node, "voter": true }))?,
        false => output::line(format!("node {} is a voter", args.node))?,
    }
    Ok(Status::Fine)
}

/// Remove a node from the cluster, learner or voter
///
/// Its id must never be used again. Its process goes on, without the cluster: end it, and remove
/// its directory.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft remove 2")]
pub(crate) struct RemoveArgs {
    /// The node's id
    node: u64,
    #[command(flatten)]
    at: At,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn remove(args: RemoveArgs) -> Result<Status, Failure> {
    args.at.client()?.remove(args.node).await?;
    match args.json {
        true => output::json(&json!({ "node": args.node, "removed": true }))?,
        false => output::line(format!("node {} is removed", args.node))?,
    }
    Ok(Status::Fine)
}

/// Hand the lead to another voter
///
/// Before its node is stopped, so that nobody waits for an election. (`serve` does so by itself
/// when it is asked to end.)
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft transfer
  foreword-raft transfer --to 2")]
pub(crate) struct TransferArgs {
    /// To which voter [default: the one that has most of the log]
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    #[command(flatten)]
    at: At,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn transfer(args: TransferArgs) -> Result<Status, Failure> {
    let leader = args.at.client()?.transfer(args.to).await?;
    match args.json {
        true => output::json(&json!({ "leader": leader }))?,
        false => output::line(format!("node {leader} leads"))?,
    }
    Ok(Status::Fine)
}
