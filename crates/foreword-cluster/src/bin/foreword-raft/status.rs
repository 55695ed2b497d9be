//! `foreword-raft status`: the cluster, as the leader sees it.

use serde_json::json;

use foreword_command::plain;

use crate::At;
use crate::exit::{Failure, Status};
use foreword_command::output;

/// Say who leads, who votes, and how far each node is
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft status
  foreword-raft status --at 10.0.0.1:7001 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    at: At,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let client = args.at.client()?;
    let mut status = client.status().await?;
    // The leader knows how far the others are. If it is not there, this node's view is what there
    // is.
    let leader = status.leader.filter(|leader| *leader != status.node);
    let leader = leader.and_then(|leader| status.members.iter().find(|member| member.node == leader));
    if let Some(leader) = leader {
        let mut at = args.at.clone();
        at.at = vec![leader.address.clone()];
        if let Ok(seen) = at.client()?.status().await {
            status = seen;
        }
    }
    if args.json {
        let members: Vec<_> = status
            .members
            .iter()
            .map(|member| {
                json!({ "node": member.node, "address": member.address, "voter": member.voter,
                    "lag_entries": member.matched_entry.map(|matched| status.last_entry.saturating_sub(matched)) })
            })
            .collect();
        output::json(&json!({ "cluster": status.cluster, "seen_by": status.node, "leader": status.leader, "term": status.term,
            "first": status.first, "last": status.last, "members": members }))?;
        return Ok(Status::Fine);
    }
    output::line(format!("cluster  {}", plain(&status.cluster)))?;
    output::line(match status.leader {
        Some(leader) => format!("leader   node {leader}, term {}", status.term),
        None => format!("leader   none known to node {}, term {}", status.node, status.term),
    })?;
    output::line(match status.first > status.last {
        true => format!("records  none; the next is {}", status.first),
        false => format!("records  {} to {}", status.first, status.last),
    })?;
    let rows: Vec<_> = status
        .members
        .iter()
        .map(|member| {
            let lag = member.matched_entry.map(|matched| status.last_entry.saturating_sub(matched).to_string());
            let kind = match (Some(member.node) == status.leader, member.voter) {
                (true, _) => "leader",
                (_, true) => "voter",
                _ => "learner",
            };
            vec![member.node.to_string(), kind.to_owned(), member.address.clone(), lag.unwrap_or_else(|| "-".to_owned())]
        })
        .collect();
    output::table(&["node", "is", "address", "entries behind"], &rows)?;
    Ok(Status::Fine)
}
