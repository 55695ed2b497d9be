//! Many calls under way over one connection: each is acknowledged once, refused or unknown, whatever
//! becomes of the connection and of the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Cluster, Proxy, options, refused, run};
use foreword_cluster::{Client, Error};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What clients were told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeMap<u64, Vec<u8>>,
    unknown: BTreeSet<Vec<u8>>,
    refused: BTreeSet<Vec<u8>>,
}

/// So many tasks append over one client, each in a session or without one, until they are stopped.
struct Appending(Vec<JoinHandle<Told>>, Arc<AtomicBool>);

impl Appending {
    async fn begin(client: &Client, tasks: usize) -> Appending {
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = Vec::new();
        for task in 0..tasks {
            let session = if task % 2 == 0 { Some(client.open_session().await.unwrap()) } else { None };
            all.push(tokio::spawn(append(client.clone(), task, session, stop.clone())));
        }
        Appending(all, stop)
    }

    async fn end(self) -> Told {
        self.1.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for task in self.0 {
            let told = task.await.unwrap();
            for (index, record) in told.acknowledged {
                assert!(all.acknowledged.insert(index, record).is_none(), "index {index} was given twice");
            }
            all.unknown.extend(told.unknown);
            all.refused.extend(told.refused);
        }
        all
    }
}

async fn append(client: Client, task: usize, session: Option<u64>, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for n in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let record = format!("{task} {n}").into_bytes();
        let appended = match session {
            Some(session) => client.append_once(session, n, [record.clone()]).await,
            None => client.append(record.clone()).await,
        };
        match appended {
            Ok(index) => _ = told.acknowledged.insert(index, record),
            Err(error) if session.is_some() => panic!("{error}"),
            Err(error) if refused(&error) => _ = told.refused.insert(record),
            Err(_) => _ = told.unknown.insert(record),
        }
    }
    told
}

impl Told {
    fn check(&self, records: &[(u64, Vec<u8>)]) {
        let mut found = BTreeSet::new();
        for (index, record) in records {
            let text = String::from_utf8_lossy(record);
            assert!(found.insert(record), "{text} is there twice");
            assert!(!self.refused.contains(record), "{text} was refused");
            match self.acknowledged.get(index) {
                Some(acknowledged) => assert_eq!(acknowledged, record),
                None => assert!(self.unknown.contains(record), "{text} was appended, or acknowledged elsewhere"),
            }
        }
        let last = records.last().map_or(0, |(index, _)| *index);
        assert!(self.acknowledged.keys().all(|index| *index <= last), "an acknowledged record is lost");
    }
}

#[test]
fn over_a_connection_that_breaks_no_call_counts_twice_or_is_lost_in_silence() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let log = options(1).open(dir.path()).await.unwrap();
        let proxy = Proxy::new(watch::channel(log.address().to_owned()).1).await;
        let client = Client::new([&proxy.address], None).unwrap().patience(Duration::from_secs(15));
        let appending = Appending::begin(&client, 64).await;
        for n in 0..40 {
            tokio::time::sleep(Duration::from_millis(n * 7 % 41)).await;
            proxy.break_all();
        }
        let told = appending.end().await;
        let last = log.last().await.unwrap();
        told.check(&crate::common::everything(&log, last).await);
        assert!(!told.unknown.is_empty(), "no connection broke while a call was under way");
        log.close().await.unwrap();
    });
}

#[test]
fn when_the_leader_changes_each_call_under_way_is_acknowledged_once_refused_or_unknown() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let appending = Appending::begin(&cluster.client(), 64).await;
        for round in 0..4 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let leader = cluster.leader().await;
            match round % 2 {
                // Another has the lead, and this one stays.
                0 => _ = cluster.node(leader).transfer(None).await,
                // It is gone, and comes back.
                _ => {
                    cluster.stop(leader).await;
                    cluster.leader().await;
                    cluster.start(leader).await;
                }
            }
        }
        let told = appending.end().await;
        assert!(told.acknowledged.len() > 100);
        told.check(&cluster.records().await);
        cluster.close().await;
    });
}

#[test]
fn a_client_that_cannot_reach_the_leader_has_others_pass_its_calls_on() {
    run(async {
        // The leader is called at a proxy, by the other nodes, too.
        let (known, to) = watch::channel(String::new());
        let mut proxy = Proxy::new(to).await;
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap().to_string();
        drop(listener);
        known.send_replace(listens.clone());
        let leader = options(1).listen(listens).advertise(&proxy.address).open(dir.path().join("1")).await.unwrap();
        let mut others = Vec::new();
        for id in 2..=3 {
            let node = options(id).join([leader.address()]).open(dir.path().join(id.to_string())).await.unwrap();
            leader.promote(id).await.unwrap();
            others.push(node);
        }
        // The others have their connections, and no new one is made.
        for (node, index) in others.iter().zip(1..) {
            assert_eq!(node.append("as a member").await.unwrap(), index);
        }
        proxy.close().await;
        let addresses = others.iter().map(|node| node.address());
        let client = Client::new(addresses, None).unwrap().patience(Duration::from_secs(10));
        assert_eq!(client.append("passed on").await.unwrap(), 3);
        let session = client.open_session().await.unwrap();
        assert_eq!(client.append_once(session, 1, ["in a session"]).await.unwrap(), 4);
        assert_eq!(client.append_once(session, 1, ["in a session"]).await.unwrap(), 4);
        assert_eq!(client.truncate_front(2).await.unwrap(), 2);
        let ahead = client.truncate_front(99).await.unwrap_err();
        assert!(matches!(ahead, Error::Ahead { index: 99, next: 5, .. }), "{ahead}");
        // What other members can be asked, too: changes of the members, and reads.
        assert!(matches!(client.promote(9).await, Err(Error::Membership { .. })));
        assert_eq!(client.read(4..).await.unwrap().len(), 1);
        assert_eq!(leader.status().leader, Some(1), "another leads");
        for node in others.iter().chain([&leader]) {
            node.halt().await.unwrap();
        }
    });
}
