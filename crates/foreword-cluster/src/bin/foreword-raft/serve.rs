//! `foreword-raft serve`: a node.

use std::path::PathBuf;
use std::time::Duration;

use foreword_cluster::Options;
use serde_json::json;

use crate::TlsArgs;
use crate::exit::{Failure, Status};
use foreword_command::output;

/// Run a node
///
/// A new directory begins a new cluster, of which this node is the only voter; with --join, it
/// joins a cluster as a learner, and `foreword-raft join` makes it a voter. A directory that is not
/// new goes on as what it was. When it takes part, it prints its id and its address.
///
/// SIGINT and SIGTERM: it hands over the lead, and ends with status 0.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft serve log1
  foreword-raft serve --id 2 --listen 127.0.0.1:7002 --join 127.0.0.1:7001 log2
  foreword-raft serve --id 3 --listen 10.0.0.3:7001 --join 10.0.0.1:7001 --ca ca.pem --cert n3.pem --key n3.key log3")]
pub(crate) struct Args {
    /// The node's directory
    dir: PathBuf,
    /// The node's id: never that of another, not even of one that is gone [default: that of the
    /// directory, 1 for a new one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
    /// Where to listen for nodes and clients
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    listen: String,
    /// Where others reach this node, if not where it listens
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Join the cluster of these nodes
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    join: Vec<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// Listen without certificates where everyone on the network can read and write
    #[arg(long)]
    insecure: bool,
    /// How often a leader says that it is there, in milliseconds; it is replaced after 10 to 14
    /// times as long. The same on all nodes
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    heartbeat: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let beat = Duration::from_millis(args.heartbeat);
    let mut options = Options::new().listen(args.listen).insecure(args.insecure).timing(beat, (beat * 3, beat * 7));
    if !args.join.is_empty() {
        options = options.join(args.join);
    }
    if let Some(id) = args.id {
        options = options.node(id);
    }
    if let Some(address) = args.advertise {
        options = options.advertise(address);
    }
    if let Some(tls) = args.tls.load()? {
        options = options.tls(tls);
    }
    let log = options.open(&args.dir).await?;
    let (id, address, cluster) = (log.node(), log.address(), log.status().cluster);
    match args.json {
        true => output::json(&json!({ "node": id, "address": address, "cluster": cluster }))?,
        false => output::line(format!("node {id} of cluster {cluster} at {address}"))?,
    }
    let failed = ended(&log).await;
    log.close().await?;
    match failed {
        Some(why) => Err(Failure::Wrong(why)),
        None => Ok(Status::Fine),
    }
}

/// Waits for a signal, or until the node has stopped by itself: why.
async fn ended(log: &foreword_cluster::ReplicatedLog) -> Option<String> {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let signal = signal();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            () = &mut signal => return None,
            _ = look.tick() => if let Some(why) = log.status().failure { return Some(format!("the node has stopped: {why}")) },
        }
    }
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {},
            _ = terminate.recv() => {},
        },
        _ => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn signal() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
