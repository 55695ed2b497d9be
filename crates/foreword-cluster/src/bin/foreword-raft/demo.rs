//! `foreword-raft demo`: shows what this is for. Three processes, of which the one that leads is
//! killed again and again, while clients append; and then all that was acknowledged must be there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foreword_cluster::{Bytes, Client};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use foreword_command::plain;

use crate::exit::{Failure, Status};
use crate::judge::{Found, Judge};
use foreword_command::output;

/// Show that acknowledged records survive: three processes, the leader killed (SIGKILL) again and
/// again
///
/// Starts three nodes on loopback, in a temporary directory. Clients append, each in a session.
/// Each second or so the process that leads is killed, and started again when another leads. At the
/// end the records of each node are compared with all that were acknowledged. Exit status 3 if one
/// is missing, if one is there twice, or if nodes differ.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  foreword-raft demo
  foreword-raft demo --for 60 --clients 64 --json")]
pub(crate) struct Args {
    /// For how many seconds the clients append
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How many clients there are, each with one append under way
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// How many bytes a record has
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(32..=65_536))]
    bytes: u64,
    /// Where the nodes' directories are made; they are kept [default: a temporary directory,
    /// removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A node's process. Killed when it is dropped.
struct Process {
    id: u64,
    child: Child,
    address: String,
}

impl Process {
    async fn start(dir: &Path, id: u64, listen: &str, join: Option<&str>) -> Result<Process, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::Wrong(format!("cannot find this program: {error}")))?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--json").args(["--id", &id.to_string(), "--listen", listen]).args(["--heartbeat", "50"]);
        if let Some(join) = join {
            command.args(["--join", join]);
        }
        command.arg(dir.join(id.to_string())).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Failure::Wrong(format!("cannot start a node: {error}")))?;
        let said = async {
            let mut line = String::new();
            if let Some(out) = child.stdout.take() {
                _ = BufReader::new(out).read_line(&mut line).await;
            }
            serde_json::from_str::<serde_json::Value>(&line).ok()
        };
        let said = tokio::time::timeout(Duration::from_secs(30), said).await.ok().flatten();
        let address = said.as_ref().and_then(|said| said["address"].as_str());
        match address {
            Some(address) => Ok(Process { id, address: address.to_owned(), child }),
            None => Err(Failure::Wrong(format!("node {id} did not start"))),
        }
    }

    async fn kill(mut self) {
        _ = self.child.kill().await;
    }
}

/// What clients are told, and when they end.
#[derive(Default)]
struct Told {
    judge: Judge,
    stop: AtomicBool,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let (dir, temporary) = match &args.dir {
        Some(dir) => (dir.clone(), false),
        None => (std::env::temp_dir().join(format!("foreword-raft-demo-{}", std::process::id())), true),
    };
    std::fs::create_dir_all(&dir).map_err(|error| Failure::Wrong(format!("cannot make {}: {error}", dir.display())))?;
    let done = show(&args, &dir).await;
    if temporary {
        _ = std::fs::remove_dir_all(&dir);
    }
    done
}

async fn show(args: &Args, dir: &Path) -> Result<Status, Failure> {
    let say = |text: String| if args.json { Ok(()) } else { output::line(text) };
    let mut nodes = vec![Process::start(dir, 1, "127.0.0.1:0", None).await?];
    let first = nodes[0].address.clone();
    for id in 2..=3 {
        nodes.push(Process::start(dir, id, "127.0.0.1:0", Some(&first)).await?);
        Client::new([&first], None)?.promote(id).await?;
    }
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    say(format!("three processes on loopback, {} clients, {} bytes a record, {} s", args.clients, args.bytes, args.seconds))?;
    let told = Arc::new(Told::default());
    let clients: Vec<_> =
        (0..args.clients).map(|_| tokio::spawn(append(addresses.clone(), args.bytes as usize, told.clone()))).collect();
    let begun = Instant::now();
    let mut gaps = Vec::new();
    // Whoever asks after a kill how long it takes.
    let asker = Client::new(&addresses, None)?.patience(Duration::from_secs(60));
    let session = asker.open_session().await?;
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let Some(leader) = leader(&addresses).await else { continue };
        let Some(at) = nodes.iter().position(|node| node.id == leader) else { continue };
        let address = nodes[at].address.clone();
        nodes.remove(at).kill().await;
        let killed = Instant::now();
        let (append, records) = told.judge.append(&[args.bytes as usize]);
        let index = asker.append_once(session, gaps.len() as u64 + 1, records).await?;
        gaps.push(killed.elapsed());
        told.judge.acknowledge(append, index);
        nodes.push(Process::start(dir, leader, &address, None).await?);
    }
    told.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.map_err(|error| Failure::Wrong(error.to_string()))??;
    }
    let lasted = begun.elapsed();
    nodes.sort_by_key(|node| node.id);
    let mut logs = Vec::new();
    for node in &nodes {
        logs.push((node.id, 1, all(&node.address).await?));
    }
    let found = told.judge.compare(&logs);
    let (acknowledged, ..) = told.judge.counts();
    drop(nodes);
    gaps.sort();
    let (p50, worst) = (gaps.get(gaps.len() / 2).copied().unwrap_or_default(), gaps.last().copied().unwrap_or_default());
    let wrong = told.judge.wrong(0);
    let bad = found.iter().any(Found::is_bad) || !wrong.is_empty();
    let sum = |of: fn(&Found) -> u64| found.iter().map(of).max().unwrap_or(0);
    let (lost, twice) = (sum(|f| f.lost), sum(|f| f.twice));
    if args.json {
        let nodes: Vec<_> = found
            .iter()
            .map(|f| json!({ "node": f.node, "records": f.records, "lost": f.lost, "twice": f.twice, "strange": f.strange, "same": f.same }))
            .collect();
        output::json(&json!({ "acknowledged": acknowledged, "lost": lost, "twice": twice, "failovers": gaps.len(),
            "next_acknowledgement_ms": { "p50": p50.as_millis() as u64, "worst": worst.as_millis() as u64 },
            "seconds": lasted.as_secs_f64(), "nodes": nodes }))?;
    } else {
        output::line("")?;
        let rows: Vec<_> = found
            .iter()
            .map(|f| {
                let same = if f.same { "yes" } else { "NO" };
                vec![
                    f.node.to_string(),
                    f.records.to_string(),
                    f.lost.to_string(),
                    f.twice.to_string(),
                    f.strange.to_string(),
                    same.to_owned(),
                ]
            })
            .collect();
        output::table(&["node", "records", "lost", "twice", "never appended", "the same"], &rows)?;
        output::line("")?;
        let rows = vec![vec![
            acknowledged.to_string(),
            format!("{:.0}", acknowledged as f64 / lasted.as_secs_f64()),
            lost.to_string(),
            twice.to_string(),
            gaps.len().to_string(),
            format!("{} ms", p50.as_millis()),
            format!("{} ms", worst.as_millis()),
        ]];
        output::table(&["acknowledged", "a second", "lost", "twice", "failovers", "next acknowledgement, p50", "worst"], &rows)?;
        wrong.iter().take(20).try_for_each(|(kind, why)| output::line(format!("{kind}: {}", plain(why))))?;
    }
    Ok(if bad { Status::Lost } else { Status::Fine })
}

async fn append(addresses: Vec<String>, bytes: usize, told: Arc<Told>) -> Result<(), Failure> {
    let client = Client::new(addresses, None)?.patience(Duration::from_secs(60));
    let session = client.open_session().await?;
    let mut sequence = 0;
    while !told.stop.load(Ordering::Relaxed) {
        sequence += 1;
        let (append, records) = told.judge.append(&[bytes]);
        let index = client.append_once(session, sequence, records).await?;
        told.judge.acknowledge(append, index);
    }
    Ok(())
}

/// The node that leads, as a majority says.
async fn leader(addresses: &[String]) -> Option<u64> {
    let mut said = BTreeMap::new();
    for address in addresses {
        let client = Client::new([address], None).ok()?.patience(Duration::from_millis(200));
        if let Ok(status) = client.status().await
            && let Some(leader) = status.leader
        {
            *said.entry(leader).or_insert(0) += 1;
        }
    }
    said.into_iter().find(|(_, count)| *count > addresses.len() / 2).map(|(leader, _)| leader)
}

async fn all(address: &str) -> Result<Vec<Bytes>, Failure> {
    let client = Client::new([address], None)?.patience(Duration::from_secs(60));
    let mut records: Vec<Bytes> = Vec::new();
    loop {
        let read = client.read(records.len() as u64 + 1..).await?;
        if read.is_empty() {
            return Ok(records);
        }
        records.extend(read.into_iter().map(|record| record.data));
    }
}
