//! Three processes of one kind on loopback, on one disk.

use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use foreword_cluster::{Bytes, Client};
use futures_util::future::{join_all, select_all};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::{Result, etcd, nats};

pub(crate) const NODES: usize = 3;
/// Within so much time a node starts, and a cluster has a leader.
const STARTS: Duration = Duration::from_secs(30);
/// A node that has not answered a put within this is asked again, after a failover.
const ATTEMPT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Foreword,
    Etcd,
    Nats,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Foreword => "foreword",
            Kind::Etcd => "etcd",
            Kind::Nats => "nats",
        })
    }
}

/// One client's connections. Clones share them.
#[derive(Clone)]
pub(crate) enum Connection {
    Foreword(Client),
    Etcd(etcd::Connection),
    Nats(nats::Connection),
}

impl Connection {
    /// Returns when a majority has the records durable.
    pub(crate) async fn append(&self, key: u64, records: Vec<Bytes>) -> Result<()> {
        match self {
            Connection::Foreword(client) => client.append_batch(records).await.map(drop).map_err(|error| error.to_string()),
            Connection::Etcd(connection) => connection.put(key, &records).await.map_err(|status| status.to_string()),
            Connection::Nats(connection) => connection.publish(&records).await,
        }
    }
}

struct Node {
    process: Option<Child>,
    /// Where clients call it.
    address: String,
    /// Where other members of etcd and servers of NATS do.
    peer: String,
}

pub(crate) struct Cluster {
    kind: Kind,
    program: PathBuf,
    dir: PathBuf,
    nodes: Vec<Node>,
    failovers: Option<Failovers>,
}

/// Who asks for an acknowledgement after each failover.
struct Failovers {
    client: Client,
    session: u64,
    sequence: u64,
}

impl Cluster {
    /// Starts three processes with empty directories, and returns when one of them leads.
    pub(crate) async fn start(kind: Kind, program: &Path, dir: &Path) -> Result<Cluster> {
        std::fs::create_dir(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let mut cluster = Cluster { kind, program: program.to_owned(), dir: dir.to_owned(), nodes: Vec::new(), failovers: None };
        for port in free_ports(2 * NODES)?.chunks(2) {
            let at = |port| format!("127.0.0.1:{port}");
            cluster.nodes.push(Node { process: None, address: at(port[0]), peer: at(port[1]) });
        }
        for at in 0..NODES {
            cluster.start_node(at, true).await?;
            if kind == Kind::Foreword && at > 0 {
                let first = Client::new([&cluster.nodes[0].address], None).map_err(|error| error.to_string())?;
                first.promote(at as u64 + 1).await.map_err(|error| format!("a node does not become a voter: {error}"))?;
            }
        }
        if kind == Kind::Nats {
            cluster.create_stream().await?;
        }
        cluster.leader().await?;
        Ok(cluster)
    }

    /// Makes NATS's stream, once its servers have agreed on who may.
    async fn create_stream(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let server = nats::Connection::new(&self.nodes[0].address);
            // (What is asked too early is not answered.)
            let error = match timeout(Duration::from_secs(2), server.create(NODES)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => "no answer".to_owned(),
            };
            if begun.elapsed() > STARTS {
                return Err(format!("no stream after {STARTS:?}: {error}{}", self.said()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn start_node(&mut self, at: usize, new: bool) -> Result<()> {
        let id = (at + 1).to_string();
        let (dir, errors) = (self.dir.join(&id), self.dir.join(format!("{id}.err")));
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", self.program.display());
        let errors = std::fs::File::options().create(true).append(true).open(errors).map_err(failed)?;
        let mut command = Command::new(&self.program);
        let node = &self.nodes[at];
        match self.kind {
            Kind::Foreword => {
                command.args(["serve", "--json", "--id", &id, "--listen", &node.address]);
                if new && at > 0 {
                    command.args(["--join", &self.nodes[0].address]);
                }
                command.arg(dir).stdout(Stdio::piped());
            }
            Kind::Etcd => {
                let url = |address: &str| format!("http://{address}");
                let members = (1..).zip(&self.nodes).map(|(id, node)| format!("{id}={}", url(&node.peer)));
                command.args(["--name", &id, "--log-level", "error", "--logger", "zap"]).arg("--data-dir").arg(dir);
                command.args(["--initial-cluster", &members.collect::<Vec<_>>().join(",")]);
                for (option, address) in [
                    ("--listen-client-urls", &node.address),
                    ("--advertise-client-urls", &node.address),
                    ("--listen-peer-urls", &node.peer),
                    ("--initial-advertise-peer-urls", &node.peer),
                ] {
                    command.args([option, &url(address)]);
                }
                command.stdout(Stdio::null());
            }
            Kind::Nats => {
                let peers: Vec<String> = self.nodes.iter().map(|node| node.peer.clone()).collect();
                let file = self.dir.join(format!("{id}.conf"));
                std::fs::write(&file, nats::config(&id, &node.address, &node.peer, &peers, &dir)).map_err(failed)?;
                command.arg("--config").arg(file).stdout(Stdio::null());
            }
        }
        let mut process = command.stdin(Stdio::null()).stderr(errors).kill_on_drop(true).spawn().map_err(failed)?;
        if let Some(out) = process.stdout.take() {
            // It says a line when it takes part.
            let mut line = String::new();
            let said = timeout(STARTS, BufReader::new(out).read_line(&mut line)).await;
            if !matches!(said, Ok(Ok(length)) if length > 0) {
                return Err(format!("node {id} did not start{}", self.said()));
            }
        }
        self.nodes[at].process = Some(process);
        Ok(())
    }

    /// What the nodes said last, for an error: their files go with the benchmark.
    fn said(&self) -> String {
        let said = (1..=NODES).filter_map(|id| {
            let text = std::fs::read_to_string(self.dir.join(format!("{id}.err"))).ok()?;
            let last: Vec<&str> = text.lines().rev().take(3).collect();
            (!last.is_empty()).then(|| format!("\nnode {id} said: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n")))
        });
        said.collect()
    }

    /// The processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref()?.id()).collect()
    }

    /// How far a node is, if it knows a leader, and whether it leads itself.
    async fn ask(&self, at: usize) -> Option<(bool, u64)> {
        let address = &self.nodes[at].address;
        match self.kind {
            Kind::Foreword => {
                let client = Client::new([address], None).ok()?.patience(Duration::from_millis(300));
                let status = client.status().await.ok()?;
                Some((status.leader? == at as u64 + 1, status.applied_entry))
            }
            Kind::Etcd => {
                let asked = timeout(Duration::from_millis(300), async { etcd::Connection::new(address).member().await });
                let member = asked.await.ok()?.ok()?;
                member.knows_a_leader.then_some((member.leads, member.index))
            }
            Kind::Nats => {
                let asked = timeout(nats::ASKED, async { nats::Connection::new(address).info().await });
                let info = asked.await.ok()?.ok()?;
                (info.current == NODES - 1).then_some((info.leader == (at + 1).to_string(), info.last))
            }
        }
    }

    /// Which node leads. Waits until one does, and all know it and are as far.
    async fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < STARTS {
            let said = join_all((0..NODES).map(|at| self.ask(at))).await;
            let said: Vec<_> = said.into_iter().flatten().collect();
            let leaders: Vec<_> = (0..said.len()).filter(|at| said[*at].0).collect();
            if let ([leader], NODES) = (&leaders[..], said.len())
                && said.iter().all(|(_, index)| *index >= said[*leader].1)
            {
                return Ok(*leader);
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!("the {} cluster has no leader that all know after {STARTS:?}{}", self.kind, self.said()))
    }

    /// Another client, which calls the leader.
    pub(crate) async fn connect(&self, clients: usize) -> Result<Vec<Connection>> {
        let leader = self.leader().await?;
        let mut addresses: Vec<_> = self.nodes.iter().map(|node| &node.address).collect();
        addresses.swap(0, leader);
        let one = |_| match self.kind {
            Kind::Foreword => Client::new(&addresses, None).map(Connection::Foreword).map_err(|error| error.to_string()),
            Kind::Etcd => Ok(Connection::Etcd(etcd::Connection::new(addresses[0]))),
            Kind::Nats => Ok(Connection::Nats(nats::Connection::new(addresses[0]))),
        };
        (0..clients).map(one).collect()
    }

    /// Kills the leader (SIGKILL): how long it takes until an append is acknowledged that begins
    /// then. The process is started again afterwards, and has caught up on return.
    pub(crate) async fn fail_over(&mut self, record: &Bytes) -> Result<Duration> {
        let leader = self.leader().await?;
        if self.kind == Kind::Foreword && self.failovers.is_none() {
            let client = Client::new(self.nodes.iter().map(|node| &node.address), None).map_err(|error| error.to_string())?;
            let client = client.patience(Duration::from_secs(60));
            let session = client.open_session().await.map_err(|error| error.to_string())?;
            self.failovers = Some(Failovers { client, session, sequence: 0 });
        }
        // The client is connected, to the one that is killed.
        self.acknowledge(None, record).await?;
        sleep(Duration::from_secs(1)).await;
        let mut process = self.nodes[leader].process.take().ok_or("the leader is not there")?;
        let killed = Instant::now();
        process.start_kill().map_err(|error| error.to_string())?;
        let acknowledged = timeout(2 * STARTS, self.acknowledge(Some(leader), record)).await;
        let took = killed.elapsed();
        acknowledged.map_err(|_| format!("no append was acknowledged within {:?} after a kill", 2 * STARTS))??;
        _ = process.wait().await;
        self.start_node(leader, false).await?;
        self.leader().await?;
        Ok(took)
    }

    /// Appends until it is acknowledged. Foreword's client does so by itself; the members of the
    /// others that are left are both asked again and again.
    async fn acknowledge(&mut self, lost: Option<usize>, record: &Bytes) -> Result<()> {
        if let Some(Failovers { client, session, sequence }) = &mut self.failovers {
            *sequence += 1;
            let appended = client.append_once(*session, *sequence, [record.clone()]).await;
            return appended.map(drop).map_err(|error| error.to_string());
        }
        let kind = self.kind;
        let left = (0..NODES).filter(|at| Some(*at) != lost).map(|at| &self.nodes[at].address);
        let each = left.map(|address| {
            Box::pin(async move {
                let member = match kind {
                    Kind::Nats => Connection::Nats(nats::Connection::new(address)),
                    _ => Connection::Etcd(etcd::Connection::new(address)),
                };
                while !matches!(timeout(ATTEMPT, member.append(0, vec![record.clone()])).await, Ok(Ok(()))) {
                    sleep(Duration::from_millis(5)).await;
                }
            })
        });
        select_all(each).await;
        Ok(())
    }

    /// Kills all, and removes what they wrote.
    pub(crate) async fn end(mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                _ = process.kill().await;
            }
        }
        _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Ports that nothing listens at. (Something else could take one until they are used: then its
/// node does not start.)
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners: Vec<_> = listeners.collect::<std::io::Result<_>>().map_err(|error| format!("no port is free: {error}"))?;
    listeners.iter().map(|listener| Ok(listener.local_addr().map_err(|error| error.to_string())?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_each_is_another() {
        let ports = free_ports(6).unwrap();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), 6);
        ports.iter().for_each(|port| drop(TcpListener::bind(("127.0.0.1", *port)).unwrap()));
    }
}
