//! Three nodes in one process, on real loopback: what is acknowledged is there, once, on all of
//! them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Cluster, everything, options, refused, run, wait_for};
use foreword_cluster::{Error, Options, ReplicatedLog};
use futures_util::StreamExt;

#[test]
fn one_node_is_a_log_without_a_network() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let log = ReplicatedLog::open(dir.path()).await.unwrap();
        assert_eq!(log.last().await.unwrap(), 0);
        assert_eq!(log.append("one").await.unwrap(), 1);
        assert_eq!(log.append_batch(["two", "three"]).await.unwrap(), 2);
        let read = log.read(..).await.unwrap();
        assert_eq!(read.iter().map(|r| (r.index, &*r.data)).collect::<Vec<_>>(), [(1, &b"one"[..]), (2, b"two"), (3, b"three")]);
        assert_eq!(log.read(2..3).await.unwrap().len(), 1);
        assert_eq!(log.read(4..).await.unwrap(), []);
        log.close().await.unwrap();
        assert_eq!(log.append("four").await.unwrap_err(), Error::Closed);

        let log = ReplicatedLog::open(dir.path()).await.unwrap();
        assert_eq!((log.last().await.unwrap(), log.append("four").await.unwrap()), (3, 4));
        let followed: Vec<_> = log.follow(1).take(4).map(|record| record.unwrap().index).collect().await;
        assert_eq!(followed, [1, 2, 3, 4]);
        // Whoever waits for more hears of the end.
        let mut follow = log.follow(5);
        let waits = tokio::spawn(async move { follow.next().await });
        log.close().await.unwrap();
        assert_eq!(waits.await.unwrap().unwrap().unwrap_err(), Error::Closed);

        // One that is dropped ends by itself, soon.
        drop(ReplicatedLog::open(dir.path()).await.unwrap());
        for again in 0.. {
            match ReplicatedLog::open(dir.path()).await {
                Ok(log) => {
                    log.close().await.unwrap();
                    break;
                }
                Err(error) => assert!(again < 500, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn any_node_takes_any_call_and_all_nodes_have_all_records() {
    run(async {
        let cluster = Cluster::of(3).await;
        let mut tasks = Vec::new();
        for id in 1..=3 {
            for task in 0..8 {
                let log = cluster.node(id).clone();
                tasks.push(tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for n in 0..10 {
                        let record = format!("{id} {task} {n}");
                        acknowledged.push((log.append(record.clone()).await.unwrap(), record.into_bytes()));
                    }
                    acknowledged
                }));
            }
        }
        let mut acknowledged = Vec::new();
        for task in tasks {
            acknowledged.extend(task.await.unwrap());
        }
        // What was acknowledged is seen by a read that begins now, at whatever node.
        for id in 1..=3 {
            assert_eq!(cluster.node(id).last().await.unwrap(), 240);
            assert_eq!(cluster.node(id).read(240..).await.unwrap().len(), 1);
        }
        acknowledged.sort();
        assert_eq!(cluster.records().await, acknowledged);

        let client = cluster.client();
        assert_eq!(client.append("client").await.unwrap(), 241);
        assert_eq!(client.read(241..).await.unwrap()[0].data, "client");
        cluster.close().await;
    });
}

/// Clients append with and without sessions while the leader is lost three times, and then all
/// nodes at once.
#[test]
fn what_was_acknowledged_survives_the_loss_of_leaders_and_of_all_nodes() {
    run(async {
        let mut cluster = Cluster::of(3).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for task in 0..4 {
            let (client, stop) = (cluster.client(), stop.clone());
            tasks.push(tokio::spawn(async move {
                let session = client.open_session().await.unwrap();
                let (mut acknowledged, mut perhaps) = (Vec::new(), Vec::new());
                for n in 1.. {
                    let record = format!("{task} {n}").into_bytes();
                    if task % 2 == 0 {
                        acknowledged.push((client.append_once(session, n, [record.clone()]).await.unwrap(), record));
                    } else {
                        match client.append(record.clone()).await {
                            Ok(index) => acknowledged.push((index, record)),
                            Err(error) if refused(&error) => panic!("{error}"),
                            Err(_) => perhaps.push(record),
                        }
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                (acknowledged, perhaps)
            }));
        }
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let leader = cluster.leader().await;
            cluster.stop(leader).await;
            let next = cluster.leader().await;
            assert_ne!(next, leader);
            cluster.start(leader).await;
        }
        stop.store(true, Ordering::Relaxed);
        let (mut acknowledged, mut perhaps) = (Vec::new(), BTreeSet::new());
        for task in tasks {
            let (sure, unsure) = task.await.unwrap();
            acknowledged.extend(sure);
            perhaps.extend(unsure);
        }
        for id in 1..=3 {
            cluster.stop(id).await;
        }
        for id in 1..=3 {
            cluster.start(id).await;
        }
        let records = cluster.records().await;
        for (index, record) in &acknowledged {
            assert_eq!(&records[*index as usize - 1], &(*index, record.clone()));
        }
        // Nothing is there that was not asked for, and nothing twice.
        let mut expected: BTreeSet<_> = acknowledged.into_iter().map(|(_, record)| record).collect();
        expected.extend(perhaps);
        let found: BTreeSet<_> = records.iter().map(|(_, record)| record.clone()).collect();
        assert_eq!(found.len(), records.len());
        assert!(found.is_subset(&expected));
        cluster.close().await;
    });
}

#[test]
fn an_append_in_a_session_counts_once_wherever_it_is_repeated() {
    run(async {
        let mut cluster = Cluster::with(3, |id| options(id).sessions(2)).await;
        let session = cluster.node(2).open_session().await.unwrap();
        let first = cluster.node(1).append_once(session, 1, ["a", "b"]).await.unwrap();
        cluster.node(3).append("between").await.unwrap();
        assert_eq!(cluster.node(3).append_once(session, 1, ["a", "b"]).await.unwrap(), first);
        let leader = cluster.leader().await;
        cluster.stop(leader).await;
        assert_eq!(cluster.client().append_once(session, 1, ["a", "b"]).await.unwrap(), first);
        cluster.start(leader).await;
        // Records that were repeated are not read twice.
        let records = cluster.records().await;
        assert_eq!(records.iter().map(|(_, data)| &**data).collect::<Vec<_>>(), [&b"a"[..], b"b", b"between"]);
        // Others push it out, on all nodes.
        let log = cluster.node(1);
        log.open_session().await.unwrap();
        let third = log.open_session().await.unwrap();
        let expired = log.append_once(session, 2, ["c"]).await.unwrap_err();
        assert!(matches!(expired, Error::SessionExpired { client, .. } if client == session), "{expired}");
        log.append_once(third, 7, ["c"]).await.unwrap();
        for sequence in 8..=80 {
            log.append_once(third, sequence, ["c"]).await.unwrap();
        }
        let forgotten = log.append_once(third, 7, ["c"]).await.unwrap_err();
        assert!(matches!(forgotten, Error::SequenceForgotten { sequence: 7, .. }), "{forgotten}");
        log.close_session(third).await.unwrap();
        log.close_session(third).await.unwrap();
        cluster.close().await;
    });
}

#[test]
fn nodes_join_as_learners_vote_when_promoted_and_are_removed() {
    run(async {
        let mut cluster = Cluster::of(1).await;
        for n in 1..=50 {
            cluster.node(1).append(format!("{n}")).await.unwrap();
        }
        let learner = cluster.join(2).await;
        // A learner gets the log, and takes calls.
        let followed: Vec<_> = learner.follow(1).take(50).map(|record| record.unwrap().index).collect().await;
        assert_eq!(followed, (1..=50).collect::<Vec<_>>());
        let listed = || learner.status().members.iter().any(|member| member.node == 2 && !member.voter);
        wait_for(|| listed().then_some(())).await;
        assert_eq!(learner.append("by a learner").await.unwrap(), 51);
        // It does not count: without it the other goes on.
        cluster.stop(2).await;
        cluster.node(1).append("alone").await.unwrap();
        // It comes back elsewhere, and says so.
        let moved = options(2).open(cluster.path(2)).await.unwrap();
        assert_ne!(moved.address(), cluster.addresses[1]);
        cluster.addresses[1] = moved.address().to_owned();
        cluster.nodes[1] = Some(moved);
        let told = || cluster.node(1).status().members.iter().any(|member| member.address == cluster.addresses[1]);
        wait_for(|| told().then_some(())).await;
        cluster.join(3).await;
        cluster.node(2).promote(2).await.unwrap();
        cluster.node(1).promote(3).await.unwrap();
        assert!(matches!(cluster.node(1).promote(9).await, Err(Error::Membership { .. })));
        // Who leads hands over, before it is removed.
        // (Another may take the lead meanwhile, on a busy machine.)
        while cluster.leader().await == 1 {
            _ = cluster.node(1).transfer(None).await;
        }
        while cluster.leader().await != 1 {
            _ = cluster.node(1).transfer(Some(1)).await;
        }
        cluster.node(2).remove(1).await.unwrap();
        let leader = wait_for(|| cluster.node(2).status().leader.filter(|leader| *leader != 1)).await;
        assert_eq!(cluster.node(leader).append("without the first").await.unwrap(), 53);
        let members = cluster.node(leader).status().members;
        assert_eq!(members.iter().map(|member| (member.node, member.voter)).collect::<Vec<_>>(), [(2, true), (3, true)]);
        cluster.stop(1).await;
        cluster.node(leader).remove(5 - leader).await.unwrap();
        assert!(matches!(cluster.node(leader).remove(leader).await, Err(Error::Membership { .. })));
        cluster.node(leader).append("the last voter").await.unwrap();
        cluster.close().await;
    });
}

/// A group of which too few are left to agree would stand still for good.
#[test]
fn no_voter_is_removed_without_whom_the_others_cannot_agree() {
    run(async {
        let mut cluster = Cluster::with(3, |id| options(id).patience(Duration::from_millis(1500))).await;
        cluster.stop(3).await;
        let left = wait_for(|| cluster.node(1).status().leader.filter(|leader| *leader != 3)).await;
        let refused = loop {
            match cluster.node(left).remove(3 - left).await.unwrap_err() {
                Error::NoLeader { .. } => {}
                error => break error,
            }
        };
        assert!(matches!(&refused, Error::Membership { why, .. } if why.contains("node 3 by")), "{refused}");
        // It goes on, and what is lost can be removed.
        cluster.node(left).append("with two of three").await.unwrap();
        cluster.node(left).remove(3).await.unwrap();
        cluster.node(left).append("with two of two").await.unwrap();
        cluster.close().await;
    });
}

#[test]
fn the_front_is_dropped_on_all_nodes_and_a_late_one_gets_what_is_left() {
    run(async {
        let mut cluster = Cluster::of(2).await;
        // Far more than a checkpoint's bytes.
        let record = |n: u64| format!("{n} {}", "x".repeat(2000));
        let session = cluster.node(1).open_session().await.unwrap();
        assert_eq!(cluster.node(2).append_once(session, 1, [record(1)]).await.unwrap(), 1);
        for n in 0..40 {
            cluster.node(1).append_batch((2..=11).map(|m| record(10 * n + m))).await.unwrap();
        }
        assert_eq!(cluster.node(2).truncate_front(305).await.unwrap(), 305);
        assert_eq!(cluster.node(1).truncate_front(300).await.unwrap(), 305);
        assert!(matches!(cluster.node(1).truncate_front(403).await, Err(Error::Ahead { next: 402, .. })));
        for log in cluster.up() {
            wait_for(|| (log.status().purged_entry > 0).then_some(())).await;
            wait_for(|| (log.first() == 305).then_some(())).await;
            assert!(matches!(log.read(304..).await, Err(Error::Dropped { first: 305, .. })));
            assert!(log.follow(1).next().await.unwrap().is_err());
        }
        // It never gets what is gone, and all of what is not.
        let late = cluster.join(3).await;
        let records = cluster.records().await;
        assert_eq!(records.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (305..=401).collect::<Vec<_>>());
        assert!(records.iter().all(|(index, data)| *data == record(*index).into_bytes()));
        assert!(late.status().snapshot_entry > 0, "it was sent no snapshot");
        // And so after a restart, where the front was dropped again meanwhile.
        cluster.stop(3).await;
        for n in 40..80 {
            cluster.node(1).append_batch((2..=11).map(|m| record(10 * n + m))).await.unwrap();
        }
        cluster.node(1).truncate_front(790).await.unwrap();
        wait_for(|| (cluster.node(1).status().purged_entry > 60).then_some(())).await;
        let late = cluster.start(3).await;
        wait_for(|| (late.first() == 790).then_some(())).await;
        assert_eq!(cluster.records().await.len(), 12);
        for id in 1..=3 {
            cluster.stop(id).await;
            cluster.start(id).await;
        }
        assert_eq!(cluster.records().await.len(), 12);
        assert_eq!(cluster.node(3).append("and on").await.unwrap(), 802);
        // Sessions are part of what such a node gets, or begins with.
        assert_eq!(cluster.node(3).append_once(session, 1, [record(1)]).await.unwrap(), 1);
        assert_eq!(cluster.node(1).last().await.unwrap(), 802);
        cluster.close().await;
    });
}

#[test]
fn strangers_and_doubles_are_refused_by_name() {
    run(async {
        let mut cluster = Cluster::of(2).await;
        assert_eq!(cluster.node(1).append("kept").await.unwrap(), 1);
        let other = options(7).open(cluster.path(7)).await.unwrap();
        // A directory that belongs to another cluster: its node is not let in under any name.
        let id = cluster.node(1).status().cluster;
        assert_ne!(other.status().cluster, id);
        // A new directory with the id of a member.
        let double = options(2).join([cluster.addresses[0].clone()]).open(cluster.path(8)).await.unwrap_err();
        assert!(matches!(double, Error::NodeTaken { node: 2, .. }), "{double}");
        // A member whose directory was made anew does not get to vote: the others do not speak with
        // it.
        cluster.stop(2).await;
        std::fs::rename(cluster.path(2), cluster.dir.path().join("lost")).unwrap();
        let anew = options(2).listen(cluster.addresses[1].clone()).open(cluster.path(2)).await.unwrap();
        let refused = tokio::time::timeout(Duration::from_secs(1), cluster.node(1).append("one of two")).await;
        assert!(!matches!(refused, Ok(Ok(_))), "a node that has lost its log has voted for it");
        anew.halt().await.unwrap();
        // A majority is lost: nothing is answered but what is said not to ask for one.
        let left = foreword_cluster::Client::new([&cluster.addresses[0]], None).unwrap().patience(Duration::from_millis(500));
        assert!(left.read(1..).await.is_err());
        assert_eq!(left.read_local(1..).await.unwrap()[0].data, "kept");
        // The wrong id for a directory.
        other.close().await.unwrap();
        assert!(matches!(options(6).open(cluster.path(7)).await, Err(Error::Invalid { .. })));
        // Nobody can be reached where nobody listens; nothing was written.
        let client = foreword_cluster::Client::new(["127.0.0.1:1"], None).unwrap().patience(Duration::from_millis(100));
        assert!(matches!(client.append("x").await, Err(Error::NoLeader { .. })));
        // Whoever takes a call and says nothing may have carried it out, however the search for a
        // leader ends.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = [silent.local_addr().unwrap().to_string(), "127.0.0.1:1".to_owned()];
        let client = foreword_cluster::Client::new(silent, None).unwrap().patience(Duration::from_millis(300));
        assert!(matches!(client.append("x").await, Err(Error::Unknown { .. })));
        assert!(matches!(client.append_once(1, 1, ["x"]).await, Err(Error::Unknown { .. })));
        // Nobody to join is no cluster of its own; the directory is as new as before.
        let nobody = options(8).listen("127.0.0.1:0").join([""; 0]).open(cluster.path(20)).await;
        assert!(matches!(&nobody, Err(Error::Invalid { what, .. }) if what == "join"));
        options(9).open(cluster.path(20)).await.unwrap().close().await.unwrap();
        // In the open without certificates.
        let open = Options::new().listen("0.0.0.0:0").open(cluster.path(9)).await.unwrap_err();
        assert!(matches!(open, Error::Insecure { .. }));
        cluster.close().await;
    });
}

#[test]
fn what_is_too_large_or_nothing_is_refused() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let log = ReplicatedLog::open(dir.path()).await.unwrap();
        assert!(matches!(log.append(vec![0; 17 << 20]).await, Err(Error::Invalid { .. })));
        assert!(matches!(log.append_batch([""; 0]).await, Err(Error::Invalid { .. })));
        assert!(matches!(log.append_once(1, 0, ["x"]).await, Err(Error::Invalid { .. })));
        assert!(matches!(log.append_once(1, 1, ["x"]).await, Err(Error::SessionExpired { client: 1, .. })));
        assert_eq!(log.append(vec![7; 15 << 20]).await.unwrap(), 1);
        assert_eq!(log.append("").await.unwrap(), 2);
        let read = everything(&log, 2).await;
        assert_eq!((read[0].1.len(), read[1].1.len()), (15 << 20, 0));
        log.close().await.unwrap();
    });
}
