//! Clients, each of which tells the judge what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreword_cluster::{Client, Error, Record};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{Random, World};

/// A client's calls have a patience of 3 s; so much later they have returned.
const RETURNS: Duration = Duration::from_secs(20);

pub(crate) fn begin(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let seed = world.args.seed;
    let mut tasks = Vec::new();
    for n in 0..4 {
        tasks.push(tokio::spawn(in_a_session(world.clone(), n, Random(seed ^ (n << 32)))));
    }
    for n in 4..6 {
        tasks.push(tokio::spawn(without(world.clone(), n, Random(seed ^ (n << 32)))));
    }
    for n in 6..10 {
        tasks.push(tokio::spawn(reader(world.clone(), Random(seed ^ (n << 32)))));
    }
    for slot in 1..=world.args.nodes {
        tasks.push(tokio::spawn(follower(world.clone(), slot, Random(seed ^ ((10 + slot) << 32)))));
    }
    tasks
}

/// A call that does not return in time is a fault of its own.
async fn returns<T>(world: &World, what: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(RETURNS, call).await {
        Ok(returned) => returned,
        Err(_) => {
            world.trouble(format!("{what} has not returned within {RETURNS:?}, with a patience of 3 s"));
            Err(Error::Closed)
        }
    }
}

fn sizes(random: &mut Random) -> Vec<usize> {
    let count = if random.percent(80) { 1 } else { random.between(2, 5) };
    (0..count)
        .map(|_| if random.percent(5) { random.between(4 << 10, 60 << 10) } else { random.between(32, 2000) } as usize)
        .collect()
}

async fn think(random: &mut Random) {
    sleep(Duration::from_millis(if random.percent(90) { random.below(12) } else { random.below(100) })).await;
}

/// Appends in a session, and again where the answer is lost, also at another node.
async fn in_a_session(world: Arc<World>, n: u64, mut random: Random) {
    let mut client = world.client(n);
    let (mut session, mut sequence) = (None, 0);
    while !world.is_ending() {
        think(&mut random).await;
        let Some(id) = session else {
            session = returns(&world, "open_session", client.open_session()).await.ok();
            sequence = 0;
            continue;
        };
        sequence += 1;
        if !once(&world, &mut client, (id, sequence), &sizes(&mut random), &mut random).await {
            session = None;
        }
    }
}

/// Whether the session can go on.
async fn once(world: &World, client: &mut Client, call: (u64, u64), sizes: &[usize], random: &mut Random) -> bool {
    let (append, records) = world.judge.append(sizes);
    let begun = Instant::now();
    // Whether it may have been appended.
    let mut lost = false;
    loop {
        match returns(world, "append_once", client.append_once(call.0, call.1, records.clone())).await {
            Ok(index) => {
                world.judge.acknowledge(append, index);
                world.acknowledged();
                if random.percent(5) {
                    world.count("retries of what was acknowledged");
                    lost = true;
                    continue;
                }
                return true;
            }
            Err(Error::SessionExpired { .. } | Error::SequenceForgotten { .. }) => {
                world.count("sessions that expired");
                return false;
            }
            Err(Error::Unknown { .. }) => lost = true,
            Err(error) => note(world, &error),
        }
        world.count("retries of append_once");
        let late = world.is_ending() && begun.elapsed() > Duration::from_secs(20);
        if late || random.percent(3) {
            if !lost {
                world.judge.refuse(append);
            }
            return !late; // The next sequence is free.
        }
        if random.percent(30) {
            *client = world.client(random.below(8));
        }
        sleep(Duration::from_millis(random.between(5, 60))).await;
    }
}

fn note(world: &World, error: &Error) {
    let kind = match error {
        Error::NoLeader { .. } => "calls refused: no leader",
        Error::Storage(_) => "calls refused: storage",
        Error::Closed => "calls refused: closed",
        _ => "calls refused: others",
    };
    world.count(kind);
}

/// Appends as it is: once, and does not know.
async fn without(world: Arc<World>, n: u64, mut random: Random) {
    let client = world.client(n);
    while !world.is_ending() {
        think(&mut random).await;
        let (append, records) = world.judge.append(&sizes(&mut random));
        match returns(&world, "append", client.append_batch(records)).await {
            Ok(index) => {
                world.judge.acknowledge(append, index);
                world.acknowledged();
            }
            Err(Error::Unknown { .. }) => world.count("answers of append that are lost"),
            Err(error) => {
                world.judge.refuse(append);
                note(&world, &error);
            }
        }
    }
}

pub(crate) fn pairs(records: &[Record]) -> impl Iterator<Item = (u64, &[u8])> {
    records.iter().map(|record| (record.index, &record.data[..]))
}

/// Reads at any node.
async fn reader(world: Arc<World>, mut random: Random) {
    let clients: Vec<Client> = (1..=world.args.nodes).map(|slot| world.client_at(slot)).collect();
    while !world.is_ending() {
        sleep(Duration::from_millis(random.between(5, 50))).await;
        let at = random.below(world.args.nodes);
        let client = &clients[at as usize];
        let known = world.judge.known();
        let from = known.saturating_sub(random.below(40)).max(1);
        let local = random.percent(20);
        let who = format!("a read at node {}", world.nodes.id(at + 1));
        let read = match local {
            true => returns(&world, "read_local", client.read_local(from..)).await,
            false => returns(&world, "read", client.read(from..)).await,
        };
        match read {
            Ok(records) if local => {
                world.judge.shown(&who, from, pairs(&records));
                world.count("local reads");
            }
            Ok(records) => {
                let whole = records.iter().map(|record| record.data.len()).sum::<usize>() < 900_000 && records.len() < 16_000;
                world.judge.read(&who, from, known, whole, pairs(&records));
                world.count("linearizable reads");
            }
            Err(Error::Dropped { first, .. }) => world.judge.gone(&who, first),
            Err(_) => world.count("reads refused"),
        }
    }
}

/// Follows at a node, for a while each time.
async fn follower(world: Arc<World>, slot: u64, mut random: Random) {
    let mut next = 1;
    while !world.is_ending() {
        sleep(Duration::from_millis(random.below(100))).await;
        let until = tokio::time::Instant::now() + Duration::from_millis(random.between(500, 8000));
        let mut records = world.client_at(slot).follow(next);
        let who = format!("a follower at node {}", world.nodes.id(slot));
        while let Ok(Some(record)) = tokio::time::timeout_at(until, records.next()).await {
            match record {
                Ok(record) => {
                    world.judge.shown(&who, next, [(record.index, &record.data[..])]);
                    next = record.index + 1;
                    world.count("records followed");
                }
                Err(Error::Dropped { first, .. }) => {
                    world.judge.gone(&who, first);
                    next = next.max(first);
                    break;
                }
                Err(_) => break,
            }
            if world.is_ending() {
                break;
            }
        }
    }
}

/// Appends so many bytes, so that a full disk is noticed.
pub(crate) async fn flood(world: Arc<World>, seed: u64, left: Arc<AtomicU64>) {
    let mut random = Random(seed);
    let mut client = world.client(random.below(8));
    let Ok(session) = returns(&world, "open_session", client.open_session()).await else { return };
    let mut sequence = 0;
    let batch = [60 << 10; 16];
    let bytes = batch.iter().sum::<usize>() as u64;
    while left.load(Ordering::Relaxed) >= bytes && !world.is_ending() {
        left.fetch_sub(bytes, Ordering::Relaxed);
        sequence += 1;
        if !once(&world, &mut client, (session, sequence), &batch, &mut random).await {
            return;
        }
    }
}

/// Reads all up to now, for the judge, and has the records before the last some dropped: whether
/// they are.
pub(crate) async fn sweep(world: &World, swept: &mut u64, keep: u64) -> bool {
    let client = world.client(0);
    let known = world.judge.known();
    let begun = Instant::now();
    while *swept < known && begun.elapsed() < Duration::from_secs(30) {
        if let Ok(records) = returns(world, "read", client.read(*swept + 1..)).await {
            world.judge.shown("a sweep", *swept + 1, pairs(&records));
            *swept += records.len() as u64;
        }
    }
    let front = (*swept + 1).min(known.saturating_sub(keep));
    if front <= 1 {
        return false;
    }
    world.judge.cut(front);
    match returns(world, "truncate_front", client.truncate_front(front)).await {
        Ok(now) => {
            world.count("fronts cut");
            world.say(format!("the front is cut to {now}"));
            *swept >= known
        }
        Err(error) => {
            world.say(format!("the front is not cut: {error}"));
            false
        }
    }
}
