//! Clusters in one process, on real loopback.
#![allow(dead_code)]

use std::path::PathBuf;
use std::time::Duration;

use foreword_cluster::{Client, Error, Options, ReplicatedLog};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) type Log = ReplicatedLog;

/// Small files. The times are the usual ones: on a busy machine, with shorter ones leaders change
/// that nobody stopped.
pub(crate) fn options(id: u64) -> Options {
    let log = foreword::Options::new().segment_bytes(1 << 20);
    let storage = foreword_raft::Options::new().log(log).compact_slack(1 << 20);
    Options::new().node(id).listen("127.0.0.1:0").storage(storage).checkpoint_bytes(64 << 10).patience(Duration::from_secs(15))
}

pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) nodes: Vec<Option<Log>>,
    pub(crate) addresses: Vec<String>,
    options: fn(u64) -> Options,
}

impl Cluster {
    /// So many voters, with the ids from 1 on.
    pub(crate) async fn of(count: u64) -> Cluster {
        Cluster::with(count, options).await
    }

    pub(crate) async fn with(count: u64, options: fn(u64) -> Options) -> Cluster {
        let mut cluster = Cluster { dir: tempfile::tempdir().unwrap(), nodes: Vec::new(), addresses: Vec::new(), options };
        for id in 1..=count {
            cluster.join(id).await;
            if id > 1 {
                cluster.node(1).promote(id).await.unwrap();
            }
        }
        cluster
    }

    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// Opens a new node, which is a learner if it is not the first.
    pub(crate) async fn join(&mut self, id: u64) -> Log {
        let mut options = (self.options)(id);
        if !self.addresses.is_empty() {
            options = options.join(self.addresses.clone());
        }
        let log = options.open(self.path(id)).await.unwrap();
        assert_eq!(self.nodes.len() as u64 + 1, id);
        self.addresses.push(log.address().to_owned());
        self.nodes.push(Some(log.clone()));
        log
    }

    pub(crate) fn node(&self, id: u64) -> &Log {
        self.nodes[id as usize - 1].as_ref().unwrap()
    }

    pub(crate) fn up(&self) -> impl Iterator<Item = &Log> {
        self.nodes.iter().flatten()
    }

    /// Ends a node without handing over.
    pub(crate) async fn stop(&mut self, id: u64) {
        let log = self.nodes[id as usize - 1].take().unwrap();
        log.halt().await.unwrap();
    }

    pub(crate) async fn start(&mut self, id: u64) -> Log {
        let log = (self.options)(id).listen(self.addresses[id as usize - 1].clone()).open(self.path(id)).await.unwrap();
        self.nodes[id as usize - 1] = Some(log.clone());
        log
    }

    /// The node that leads, as the others that are up see it.
    pub(crate) async fn leader(&self) -> u64 {
        wait_for(|| {
            let led: Vec<_> = self.up().map(|log| log.status().leader).collect();
            let up: Vec<_> = self.up().map(Log::node).collect();
            led[0].filter(|leader| up.contains(leader) && led.iter().all(|other| *other == Some(*leader)))
        })
        .await
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.addresses, None).unwrap().patience(Duration::from_secs(15))
    }

    /// Checks that all nodes that are up get to have the same records, and gives them from the
    /// first on.
    pub(crate) async fn records(&self) -> Vec<(u64, Vec<u8>)> {
        let any = self.up().next().unwrap();
        let last = any.last().await.unwrap();
        let mut all = Vec::new();
        for log in self.up() {
            log.last().await.unwrap(); // So it has applied all that was acknowledged, dropped fronts among it.
            all.push(everything(log, last).await);
        }
        for other in &all[1..] {
            assert!(other == &all[0], "nodes differ");
        }
        all.swap_remove(0)
    }

    pub(crate) async fn close(mut self) {
        for log in self.nodes.iter_mut().filter_map(Option::take) {
            log.halt().await.unwrap();
        }
    }
}

/// What passes connections on to a node.
pub(crate) struct Proxy {
    pub(crate) address: String,
    breaks: watch::Sender<()>,
    accepts: JoinHandle<()>,
}

impl Proxy {
    /// `to` is where the node listens, when that is known.
    pub(crate) async fn new(to: watch::Receiver<String>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let breaks = watch::Sender::new(());
        let breaking = breaks.clone();
        let accepts = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let (mut broken, mut to) = (breaking.subscribe(), to.clone());
                tokio::spawn(async move {
                    let to = to.wait_for(|to| !to.is_empty()).await.unwrap().clone();
                    let Ok(mut to) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {},
                        _ = broken.changed() => {},
                    }
                });
            }
        });
        Proxy { address, breaks, accepts }
    }

    /// Breaks all connections.
    pub(crate) fn break_all(&self) {
        self.breaks.send_replace(());
    }

    /// Lets no other connection through. Those that are there stay.
    pub(crate) async fn close(&mut self) {
        self.accepts.abort();
        _ = (&mut self.accepts).await;
    }
}

pub(crate) async fn everything(log: &Log, last: u64) -> Vec<(u64, Vec<u8>)> {
    let mut records = Vec::new();
    let mut from = log.first();
    while from <= last {
        let read = log.read_local(from..=last).await.unwrap();
        assert!(!read.is_empty(), "nothing at {from}");
        for record in read {
            assert_eq!(record.index, from);
            records.push((record.index, record.data.to_vec()));
            from += 1;
        }
    }
    records
}

pub(crate) async fn wait_for<T>(mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = check() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come within 20 s");
}

/// Runs a test with a runtime of its own.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// Whether nothing was written for certain.
pub(crate) fn refused(error: &Error) -> bool {
    !matches!(error, Error::Unknown { .. })
}
