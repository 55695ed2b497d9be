//! What clients do, and what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::check::{Op, Saw};
use super::world::{PATIENCE, World};
use crate::Error;

/// Within so much time after the faults a cluster serves again, and all its nodes are equal.
const LIVELY: Duration = Duration::from_secs(20);
/// A call returns within its patience, and that of the call that it makes for it.
const RETURNS: Duration = Duration::from_secs(10);

pub(super) struct Work {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

pub(super) fn begin(world: &World, clients: u64) -> Work {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks: Vec<_> = (0..clients).map(|client| tokio::spawn(client_of(world.clone(), client, stop.clone()))).collect();
    tasks.push(tokio::spawn(follower(world.clone(), stop.clone())));
    Work { stop, tasks }
}

pub(super) async fn end(world: &World, work: Work) -> Result<(), String> {
    work.stop.store(true, Ordering::Relaxed);
    for (n, task) in work.tasks.into_iter().enumerate() {
        match timeout(3 * RETURNS, task).await {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => return Err(format!("client {n} panicked: {panic}")),
            Err(_) => return Err(format!("client {n} does not end")),
        }
    }
    world.history().violation().map_or(Ok(()), Err)
}

/// One record: what nothing else is.
fn record(world: &World) -> Bytes {
    let number = world.history().number();
    let bytes = world.sim().draw(|random| if random.chance(50) { random.below(2000) } else { random.below(120) });
    let mut record = number.to_le_bytes().to_vec();
    record.resize(8 + bytes as usize, number as u8);
    record.into()
}

fn records(world: &World, most: u64) -> Vec<Bytes> {
    let count = world.sim().draw(|random| random.between(1, most));
    (0..count).map(|_| record(world)).collect()
}

async fn client_of(world: World, _client: u64, stop: Arc<AtomicBool>) {
    let mut session = None;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let think = world.sim().draw(|random| if random.chance(700) { random.below(15) } else { random.below(120) });
        sleep(Duration::from_millis(think)).await;
        let next = world.history().next_observed();
        match world.sim().draw(|random| random.below(100)) {
            0..=34 => _ = call(&world, Op::Append(vec![record(&world)])).await,
            35..=49 => _ = call(&world, Op::Append(records(&world, 6))).await,
            50..=74 => {
                let Some(id) = session else {
                    session = open_session(&world).await;
                    sequence = 0;
                    continue;
                };
                sequence += 1;
                let op = Op::Once(id, sequence, records(&world, 3));
                if once(&world, op, &stop).await.is_err() {
                    session = None;
                }
            }
            75..=84 => {
                let from = world.sim().draw(|random| {
                    if random.chance(800) { next.saturating_sub(random.below(30)) } else { random.below(next + 5) }
                });
                _ = call(&world, Op::Read(from.max(1))).await;
            }
            85..=93 => _ = call(&world, Op::Last).await,
            94..=97 => {
                let to = next.saturating_sub(world.sim().draw(|random| random.below(60)));
                if to > 1 {
                    _ = call(&world, Op::Truncate(to)).await;
                }
            }
            98 => _ = open_session(&world).await, // So that others expire.
            _ => session = None,
        }
    }
}

/// Until it is known, or the client loses patience. And again then, now and then.
async fn once(world: &World, op: Op, stop: &AtomicBool) -> Result<(), ()> {
    loop {
        match call(world, op.clone()).await {
            Some(Saw::Index(_)) if world.sim().draw(|random| random.chance(150)) => {}
            Some(Saw::Index(_)) => return Ok(()),
            Some(Saw::Expired) => return Err(()),
            _ if stop.load(Ordering::Relaxed) => return Err(()),
            _ => {
                world.sim().count("retries of append_once");
                if world.sim().draw(|random| random.chance(50)) {
                    return Err(());
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn open_session(world: &World) -> Option<u64> {
    let (id, life, log) = world.any()?;
    let opened = timeout(RETURNS, log.open_session()).await.ok()?.ok()?;
    world.lives(id, life).then_some(opened)
}

/// Makes a call at some node, and notes it. `None`: the answer is lost.
async fn call(world: &World, op: Op) -> Option<Saw> {
    let Some((id, life, log)) = world.any() else {
        sleep(Duration::from_millis(50)).await;
        return None;
    };
    let called = world.history().called(op.clone());
    let done = async {
        match op.clone() {
            Op::Append(records) if records.len() == 1 => log.append(records[0].clone()).await.map(Saw::Index),
            Op::Append(records) => log.append_batch(records).await.map(Saw::Index),
            Op::Once(session, sequence, records) => log.append_once(session, sequence, records).await.map(Saw::Index),
            Op::Read(from) => {
                log.read(from..).await.map(|read| Saw::Records(read.into_iter().map(|r| (r.index, r.data)).collect()))
            }
            Op::Last => log.last().await.map(Saw::Last),
            Op::Truncate(to) => log.truncate_front(to).await.map(Saw::Front),
        }
    };
    let done = timeout(RETURNS, done).await;
    if !world.lives(id, life) {
        return None; // Who asked a process that ended has no answer.
    }
    let saw = match done {
        Err(_) => {
            world.history().violated(format!(
                "a call at node {id} has not returned within {RETURNS:?}, with a patience of {PATIENCE:?}: {op:?}"
            ));
            return None;
        }
        Ok(Ok(saw)) => saw,
        Ok(Err(Error::SessionExpired { .. } | Error::SequenceForgotten { .. })) => Saw::Expired,
        Ok(Err(Error::Dropped { first, .. })) => Saw::Dropped(first),
        Ok(Err(Error::Unknown { .. })) => {
            world.sim().count("calls with an unknown outcome");
            return None;
        }
        Ok(Err(error)) => {
            world.sim().count("calls refused");
            Saw::Refused(error.to_string())
        }
    };
    world.sim().note(&[id, called as u64]);
    world.history().returned(called, saw.clone());
    Some(saw)
}

/// Follows the log on one node after the other, learners among them.
async fn follower(world: World, stop: Arc<AtomicBool>) {
    let mut next = 1;
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(30)).await;
        let Some((id, life, log)) = world.any() else { continue };
        let until = Instant::now() + Duration::from_millis(world.sim().draw(|random| random.between(100, 1500)));
        let mut records = log.follow(next);
        while let Ok(Some(record)) = tokio::time::timeout_at(until, records.next()).await {
            if !world.lives(id, life) || stop.load(Ordering::Relaxed) {
                break;
            }
            match record {
                Ok(record) => {
                    if record.index != next {
                        world
                            .history()
                            .violated(format!("follow on node {id} gave record {} where {next} was next", record.index));
                    }
                    world.history().observed(id, record.index, &record.data);
                    next = record.index + 1;
                    world.sim().count("records followed");
                }
                Err(Error::Dropped { first, .. }) => {
                    world.history().may_have_dropped(first);
                    next = first;
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// Faults end: within bounded time all nodes serve, and are equal.
pub(super) async fn liveness(world: &World) -> Result<(), String> {
    world.heal().await;
    let deadline = Instant::now() + LIVELY;
    let begun = world.sim().now();
    let mut why = "no node leads".to_owned();
    loop {
        if let Some(violation) = world.history().violation() {
            return Err(violation);
        }
        if Instant::now() > deadline {
            let nodes: Vec<_> = world.up().into_iter().map(|(_, _, log)| log.status()).collect();
            return Err(format!("the cluster does not serve again within {LIVELY:?} after the faults: {why}\n{nodes:#?}"));
        }
        sleep(Duration::from_millis(50)).await;
        let Some(members) = world.members() else {
            why = format!("not all members are up, or none leads: {}", world.are());
            continue;
        };
        let mut served = true;
        for (id, _, _) in &members {
            let op = Op::Append(vec![record(world)]);
            if !matches!(call_at(world, *id, op).await, Some(Saw::Index(_))) {
                why = format!("node {id} does not append");
                served = false;
                break;
            }
        }
        if served && equal(world, &mut why).await {
            break;
        }
    }
    let took = world.sim().now() - begun;
    let longest = super::lock(&world.sim().seen).get("longest time to serve again, ms").copied().unwrap_or(0).max(took);
    super::lock(&world.sim().seen).insert("longest time to serve again, ms", longest);
    Ok(())
}

async fn call_at(world: &World, id: u64, op: Op) -> Option<Saw> {
    let (_, life, log) = world.up().into_iter().find(|(up, _, _)| *up == id)?;
    let Op::Append(records) = op.clone() else { return None };
    let called = world.history().called(op);
    let saw = timeout(RETURNS, log.append_batch(records)).await.ok()?.ok().filter(|_| world.lives(id, life)).map(Saw::Index)?;
    world.history().returned(called, saw.clone());
    Some(saw)
}

/// Reads all nodes' logs; whether they are the same.
async fn equal(world: &World, why: &mut String) -> bool {
    let Some(members) = world.members() else { return false };
    let last = match members.first() {
        Some((_, _, log)) => match timeout(RETURNS, log.last()).await {
            Ok(Ok(last)) => last,
            _ => return false,
        },
        None => return false,
    };
    for (id, _, log) in &members {
        let mut next = log.first();
        let first = next;
        while next <= last {
            match timeout(RETURNS, log.read(next..=last)).await {
                Ok(Ok(records)) if !records.is_empty() => {
                    records.iter().for_each(|record| world.history().observed(*id, record.index, &record.data));
                    next += records.len() as u64;
                }
                Ok(Err(Error::Storage(_))) if world.flipped(*id) => {
                    world.sim().count("damage found by a read");
                    break;
                }
                other => {
                    *why = format!("node {id} cannot read record {next} of {last}: {other:?}");
                    return false;
                }
            }
        }
        if next > last {
            world.history().final_log(*id, first, last);
        }
    }
    true
}
