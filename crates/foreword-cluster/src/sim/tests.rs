//! What is run in `cargo test`: some seeds, a seed twice, and faults that were found. And, if it is
//! asked for, each deliberate bug.

use std::collections::BTreeMap;
use std::time::Duration;

use super::network::{Link, address};
use super::plan::Plan;
use super::world::{PATIENCE, World};
use super::{Bug, Sim, lock};
use crate::Client;

fn given(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |given| given.parse().unwrap())
}

/// `FOREWORD_CLUSTER_SEEDS`, or as many as take a few seconds; from `FOREWORD_CLUSTER_SEED` on.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let first = given("FOREWORD_CLUSTER_SEED", 0);
    first..first + given("FOREWORD_CLUSTER_SEEDS", default)
}

fn fail(plan: &Plan, why: String) -> ! {
    println!("seed {}: {why}", plan.seed);
    let (small, why) = plan.shrink(None, why);
    panic!("seed {}: {why}\nwith {small:#?}", plan.seed);
}

/// What a suite must have gone through: any, and one of so many seeds that chance alone does not
/// leave one out.
const ALWAYS: &[&str] = &["appends acknowledged", "records followed", "restarts", "entries purged"];
const OF_MANY: (u64, &[&str]) = (
    100,
    &[
        "power failures",
        "power failures within a change",
        "power failures of all",
        "kills",
        "bits flipped",
        "full disks",
        "flushes and writes that fail",
        "stalled disks",
        "partitions",
        "partitions of one way",
        "messages lost",
        "messages twice",
        "leads handed over",
        "learners",
        "nodes removed",
        "nodes promoted",
        "nodes that stopped by themselves",
        "damaged nodes that refused to go on",
        "snapshots installed",
        "truncations by followers",
        "voters lost as soon as they had voted",
        "nodes lost behind a truncation",
        "retries of append_once",
        "calls with an unknown outcome",
    ],
);

#[test]
fn clusters_keep_their_promises() {
    let mut seen = BTreeMap::<&str, u64>::new();
    for seed in seeds(4) {
        let plan = Plan::of(seed);
        let ran = plan.run(None);
        if let Err(why) = ran.verdict {
            fail(&plan, why);
        }
        for (what, count) in ran.seen {
            let sum = seen.entry(what).or_default();
            *sum = if what.starts_with("longest") { count.max(*sum) } else { *sum + count };
        }
    }
    println!("{seen:#?}");
    let many = if seeds(4).count() as u64 >= OF_MANY.0 { OF_MANY.1 } else { &[] };
    for what in ALWAYS.iter().chain(many) {
        assert!(seen.get(what).is_some_and(|count| *count > 0), "no {what}");
    }
}

#[test]
#[cfg_attr(not(tokio_unstable), ignore = "needs RUSTFLAGS='--cfg tokio_unstable'")]
fn a_seed_gives_the_same_run() {
    let plan = Plan { ms: 1500, ..Plan::of(given("FOREWORD_CLUSTER_SEED", 0)) };
    let runs = [(); 2].map(|()| plan.run(None));
    assert!(runs[0].verdict.is_ok() && runs[0].seen["calls"] > 10, "{:?}", runs[0].verdict);
    assert_eq!(runs[0].seen, runs[1].seen);
    assert_eq!(runs[0].trace, runs[1].trace);
}

/// Found by seed 0: an index of places that led into entries that the snapshot stands for. (Each
/// record at the front was unreadable, until another came that had a place.)
#[test]
fn whatever_the_front_is_what_is_kept_can_be_read() {
    Sim::run(1, None, async |sim| {
        let world = World::new(sim);
        let log = world.start(1, None).await.unwrap();
        for record in 1..=150_u64 {
            assert_eq!(log.append(vec![7; 100]).await.unwrap(), record);
        }
        let mut purged = 0;
        for front in 2..=150 {
            log.truncate_front(front).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(log.first(), front);
            assert_eq!(log.read(front..).await.unwrap().first().map(|record| record.index), Some(front));
            purged = log.status().purged_entry;
        }
        assert!(purged > 100, "{purged}");
        world.stop(1, false).await;
    });
}

/// Whoever is cut off from the leader alone, a client or a node, has others pass its calls on. They
/// count once, also where the leader hears it and is not heard.
#[test]
fn who_is_cut_off_from_the_leader_alone_is_served() {
    for (seed, (to, from)) in [(true, true), (true, false), (false, true)].into_iter().enumerate() {
        Sim::run(seed as u64, None, async |sim| {
            let world = World::new(sim.clone());
            let leader = world.start(1, None).await.unwrap();
            for id in 2..=3 {
                world.start(id, Some(vec![1])).await.unwrap();
                leader.promote(id).await.unwrap();
            }
            let client = Client::new((1..=3).map(address), Some(Link::certificate(9))).unwrap().patience(PATIENCE);
            let node = world.up().into_iter().find(|(id, _, _)| *id == 2).unwrap().2;
            for host in [9, 2] {
                lock(&sim.net).cut = [to.then_some((host, 1)), from.then_some((1, host))].into_iter().flatten().collect();
                let session = leader.open_session().await.unwrap();
                let first = leader.last().await.unwrap() + 1;
                for sequence in 1..=15 {
                    let appended = match host {
                        9 => client.append_once(session, sequence, ["once"]).await,
                        _ => node.append_once(session, sequence, ["once"]).await,
                    };
                    assert_eq!(appended.unwrap(), first + sequence - 1, "{host} {to} {from}");
                    tokio::time::sleep(Duration::from_millis(500)).await; // Now and then the leader is tried again.
                }
                assert_eq!(leader.last().await.unwrap(), first + 14);
                assert!(leader.inner().leads());
            }
            for id in 1..=3 {
                world.stop(id, false).await;
            }
        });
    }
}

/// Each is found within so many seeds: `FOREWORD_CLUSTER_SEEDS`, 200 by default.
/// `FOREWORD_CLUSTER_BUG` names one.
#[test]
#[ignore = "takes minutes: scripts/campaign.sh --only cluster-bugs"]
fn each_deliberate_bug_is_found() {
    let only = std::env::var("FOREWORD_CLUSTER_BUG").ok();
    let mut missed = Vec::new();
    for bug in Bug::ALL.iter().filter(|bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"))) {
        let found = seeds(200).find_map(|seed| Some((seed, Plan::of(seed).run(Some(*bug)).verdict.err()?)));
        match found {
            Some((seed, why)) => println!("{bug:?}: by seed {seed}: {why}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
