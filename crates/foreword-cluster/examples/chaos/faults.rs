//! What happens. A seed decides what, to which node, and for how long; who leads then, and what the
//! processes do meanwhile, it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foreword_cluster::Error;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::network::Loss;
use crate::nodes::{Flood, promote, until_up};
use crate::{Random, World, clients};

/// So many at once.
const AT_ONCE: usize = 3;
/// How often the front is cut, and behind a full disk.
const CUTS: Duration = Duration::from_secs(30);
/// What is appended where a disk is full: more than the two segments of 64 MiB that may be there.
const FLOOD: u64 = 150 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CutOne,
    CutLeader,
    CutMinority,
    CutClients,
    OneWay,
    Lossy,
    Slow,
    KillOne,
    KillLeader,
    KillAll,
    FreezeOne,
    FreezeLeader,
    Full,
    Transfer,
    Replace,
}

/// How often each comes, of the sum of all.
const WEIGHTS: [(Kind, u64); 15] = [
    (Kind::CutOne, 8),
    (Kind::CutLeader, 12),
    (Kind::CutMinority, 8),
    (Kind::CutClients, 5),
    (Kind::OneWay, 12),
    (Kind::Lossy, 8),
    (Kind::Slow, 6),
    (Kind::KillOne, 8),
    (Kind::KillLeader, 10),
    (Kind::KillAll, 6),
    (Kind::FreezeOne, 3),
    (Kind::FreezeLeader, 10),
    (Kind::Full, 8),
    (Kind::Transfer, 8),
    (Kind::Replace, 5),
];

#[derive(Clone, Debug)]
struct Fault {
    number: u64,
    kind: Kind,
    /// A slot, for where no leader is meant.
    node: u64,
    lasts: Duration,
    /// What else is to be decided.
    chance: u64,
    /// Until the next comes.
    pause: Duration,
}

impl Fault {
    fn draw(number: u64, nodes: u64, random: &mut Random) -> Fault {
        let mut at = random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
        let mut kind = Kind::CutOne;
        for (each, weight) in WEIGHTS {
            if at < weight {
                kind = each;
                break;
            }
            at -= weight;
        }
        // Some last longer than anybody's patience.
        let lasts = if random.percent(12) { random.between(20_000, 40_000) } else { random.between(500, 10_000) };
        let pause = if random.percent(20) { random.between(5000, 12_000) } else { random.between(100, 4000) };
        Fault {
            number,
            kind,
            node: random.between(1, nodes),
            lasts: Duration::from_millis(lasts),
            chance: random.next(),
            pause: Duration::from_millis(pause),
        }
    }
}

/// Until all is over.
pub(crate) async fn happen(world: &Arc<World>) {
    let mut random = Random(world.args.seed);
    let mut active = JoinSet::new();
    let end = world.begun + Duration::from_secs(world.args.seconds);
    let (mut swept, mut cut) = (0, Instant::now());
    for number in 1.. {
        let fault = Fault::draw(number, world.args.nodes, &mut random);
        while active.len() >= AT_ONCE && Instant::now() < end {
            tokio::select! {
                _ = active.join_next() => {},
                () = sleep(end.saturating_duration_since(Instant::now())) => {},
            }
        }
        if Instant::now() >= end {
            break;
        }
        let pause = fault.pause;
        active.spawn(strike(world.clone(), fault));
        sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        while active.try_join_next().is_some() {}
        let flooded = world.nodes.flood(Flood::ToBeCut, Flood::ToBeCut);
        if cut.elapsed() > CUTS || flooded {
            if clients::sweep(world, &mut swept, 1000).await {
                world.nodes.flood(Flood::ToBeCut, Flood::No);
            }
            cut = Instant::now();
        }
    }
    world.healing.store(true, Ordering::Relaxed);
    while active.join_next().await.is_some() {}
}

async fn lasts(world: &World, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time && !world.is_healing() {
        sleep(Duration::from_millis(50).min(time)).await;
    }
}

async fn strike(world: Arc<World>, fault: Fault) {
    if let Err(why) = try_strike(&world, &fault).await {
        world.trouble(format!("fault {} ({:?}): {why}", fault.number, fault.kind));
    }
}

async fn try_strike(world: &Arc<World>, fault: &Fault) -> Result<(), String> {
    let nodes = &world.nodes;
    let leader = nodes.leader();
    let meant = matches!(fault.kind, Kind::CutLeader | Kind::KillLeader | Kind::FreezeLeader);
    let Some(slot) = (if meant { leader } else { Some(fault.node) }) else { return Ok(()) };
    let name = |slot: u64| match Some(slot) == leader {
        true => format!("node {} (slot {slot}), which leads,", nodes.id(slot)),
        false => format!("node {} (slot {slot})", nodes.id(slot)),
    };
    let others = |of: &[u64]| (1..=world.args.nodes).filter(|slot| !of.contains(slot)).collect::<Vec<u64>>();
    let seconds = format!("{:.1} s", fault.lasts.as_secs_f64());
    let between = |a: &[u64], b: &[u64], to: u64, from: u64| -> Vec<Loss> {
        let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b)));
        pairs
            .flat_map(|(a, b)| [Loss { from: a, to: b, per_mille: to }, Loss { from: b, to: a, per_mille: from }])
            .filter(|loss| loss.per_mille > 0)
            .collect()
    };
    // A stale leader is only dangerous if clients can reach it: mostly they can.
    let and_clients = |mut of: Vec<u64>| {
        if fault.chance.is_multiple_of(4) {
            of.push(0);
        }
        of
    };
    let with_clients = if fault.chance.is_multiple_of(4) { " and from clients" } else { "" };
    match fault.kind {
        Kind::CutOne | Kind::CutLeader => {
            let losses = between(&[slot], &and_clients(others(&[slot])), 1000, 1000);
            let what = format!("{} is cut from the others{with_clients} for {seconds}", name(slot));
            lose(world, fault, losses, "partitions of one node", what).await
        }
        Kind::CutMinority => {
            let minority: Vec<u64> = (0..(world.args.nodes - 1) / 2).map(|at| (slot - 1 + at) % world.args.nodes + 1).collect();
            let losses = between(&minority, &and_clients(others(&minority)), 1000, 1000);
            let what = format!("slots {minority:?} are cut from the others{with_clients} for {seconds}");
            lose(world, fault, losses, "partitions of a minority", what).await
        }
        Kind::CutClients => {
            let what = format!("{} is cut from clients for {seconds}", name(slot));
            lose(world, fault, between(&[slot], &[0], 1000, 1000), "nodes cut from clients", what).await
        }
        Kind::OneWay => {
            let all = others(&[slot]);
            let to = match fault.chance % 3 {
                0 => vec![all[(fault.chance / 16) as usize % all.len()]],
                _ => all,
            };
            let out = (fault.chance / 4).is_multiple_of(2);
            let way = if out { "sends nothing to" } else { "hears nothing from" };
            let what = format!("{} {way} slots {to:?} for {seconds}", name(slot));
            lose(world, fault, between(&[slot], &to, 1000 * u64::from(out), 1000 * u64::from(!out)), "loss of one way", what)
                .await
        }
        Kind::Lossy => {
            let per_mille = 50 + fault.chance / 8 % 400;
            let (to, from) = if fault.chance.is_multiple_of(2) { (per_mille, per_mille) } else { (per_mille, 0) };
            let losses = between(&[slot], &and_clients(others(&[slot])), to, from);
            let ways = if from > 0 { "to and from" } else { "to" };
            let what =
                format!("packets {ways} others{with_clients} of {} are lost, {} %, for {seconds}", name(slot), per_mille / 10);
            lose(world, fault, losses, "lossy links", what).await
        }
        Kind::Slow => {
            let how = world.network.slow(fault.number, slot, fault.chance).await?;
            world.say(format!("fault {}: what comes to {} is slow ({how}) for {seconds}", fault.number, name(slot)));
            world.count("slow links");
            lasts(world, fault.lasts).await;
            world.network.heal(fault.number).await?;
            healed(world, fault);
            Ok(())
        }
        Kind::KillOne | Kind::KillLeader => {
            if nodes.take(slot) {
                world.say(format!("fault {}: {} is killed, and started after {seconds}", fault.number, name(slot)));
                world.count(if Some(slot) == leader { "kills of the leader" } else { "kills of others" });
                kill(world, &[slot], fault.lasts).await?;
                healed(world, fault);
            }
            Ok(())
        }
        Kind::KillAll => {
            let all: Vec<u64> = (1..=world.args.nodes).filter(|slot| nodes.take(*slot)).collect();
            if (all.len() as u64) < world.args.nodes {
                all.iter().for_each(|slot| nodes.give_back(*slot));
                return Ok(());
            }
            let lasts = fault.lasts / 8;
            world.say(format!("fault {}: slots {all:?} are killed at once, and started after {lasts:?}", fault.number));
            world.count("kills of all");
            kill(world, &all, lasts).await?;
            healed(world, fault);
            Ok(())
        }
        Kind::FreezeOne | Kind::FreezeLeader => {
            if nodes.take(slot) {
                world.say(format!("fault {}: {} is stopped (SIGSTOP) for {seconds}", fault.number, name(slot)));
                world.count(if Some(slot) == leader { "leaders stopped (SIGSTOP)" } else { "others stopped (SIGSTOP)" });
                nodes.freeze(slot, true).await;
                lasts(world, fault.lasts.max(Duration::from_millis(1500))).await;
                nodes.freeze(slot, false).await;
                nodes.give_back(slot);
                healed(world, fault);
            }
            Ok(())
        }
        Kind::Full => full(world, fault, slot, &name(slot)).await,
        Kind::Transfer => {
            world.count("transfers of the lead");
            let target = fault.chance.is_multiple_of(2).then(|| nodes.id(slot));
            let done = world.client(slot).transfer(target).await;
            let to = target.map_or("any".to_owned(), |id| id.to_string());
            match done {
                Ok(id) => world.say(format!("fault {}: the lead goes to node {id} (asked: {to})", fault.number)),
                Err(error) => {
                    world.count("transfers that failed");
                    world.say(format!("fault {}: the lead does not go to {to}: {error}", fault.number));
                }
            }
            Ok(())
        }
        Kind::Replace => {
            if nodes.take(slot) {
                world.say(format!("fault {}: {} is replaced", fault.number, name(slot)));
                world.count("nodes replaced");
                let replaced = replace(world, slot).await;
                nodes.give_back(slot);
                replaced?;
                world.say(format!("fault {}: node {} votes", fault.number, nodes.id(slot)));
            }
            Ok(())
        }
    }
}

fn healed(world: &World, fault: &Fault) {
    world.say(format!("fault {}: over", fault.number));
}

async fn lose(world: &World, fault: &Fault, losses: Vec<Loss>, kind: &str, what: String) -> Result<(), String> {
    world.say(format!("fault {}: {what}", fault.number));
    world.count(kind);
    world.network.lose(fault.number, losses).await?;
    lasts(world, fault.lasts).await;
    world.network.heal(fault.number).await?;
    healed(world, fault);
    Ok(())
}

/// Kills what was taken, and gives it back when it is up again.
async fn kill(world: &World, slots: &[u64], time: Duration) -> Result<(), String> {
    futures_util::future::join_all(slots.iter().map(|slot| world.nodes.kill(*slot))).await;
    lasts(world, time).await;
    slots.iter().for_each(|slot| world.nodes.release(*slot));
    for slot in slots {
        let up = until_up(world, *slot).await;
        world.nodes.give_back(*slot);
        up?;
    }
    Ok(())
}

async fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let done = Command::new(program).args(args).output().await.map_err(|error| format!("{program}: {error}"))?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

/// A file takes all that is free, while clients append more than the node has prepared.
async fn full(world: &Arc<World>, fault: &Fault, slot: u64, name: &str) -> Result<(), String> {
    let disk = world.disk(slot);
    let (disk, filler) = (disk.to_string_lossy().into_owned(), disk.join("filler").to_string_lossy().into_owned());
    if !world.nodes.flood(Flood::No, Flood::Full) {
        return Ok(());
    }
    let lasts_for = fault.lasts.max(Duration::from_secs(6));
    world.say(format!("fault {}: the disk of {name} is full for {lasts_for:?}", fault.number));
    world.count("full disks");
    world.nodes.set_full(slot, true);
    let left = Arc::new(AtomicU64::new(FLOOD));
    let floods: Vec<_> = (0..4).map(|n| tokio::spawn(clients::flood(world.clone(), fault.chance ^ n, left.clone()))).collect();
    let begun = Instant::now();
    while begun.elapsed() < lasts_for && !world.is_healing() {
        // Also what comes back meanwhile.
        let free = run("df", &["--output=avail", "-B1", &disk]).await?;
        let free: u64 = free.lines().nth(1).and_then(|free| free.trim().parse().ok()).ok_or("df says nothing")?;
        if free > 0 {
            let has = std::fs::metadata(&filler).map_or(0, |filler| filler.len());
            _ = run("fallocate", &["-l", &(has + free).to_string(), &filler]).await;
        }
        sleep(Duration::from_millis(200)).await;
    }
    left.store(0, Ordering::Relaxed);
    std::fs::remove_file(&filler).map_err(|error| format!("{filler}: {error}"))?;
    for flood in floods {
        flood.await.map_err(|panic| format!("a client panicked: {panic}"))?;
    }
    // What has stopped starts again.
    sleep(Duration::from_millis(500)).await;
    world.nodes.set_full(slot, false);
    world.nodes.flood(Flood::Full, Flood::ToBeCut);
    healed(world, fault);
    Ok(())
}

/// As docs/REPLICATION.md has it: removed first; then a new one with a new id in an empty directory.
async fn replace(world: &World, slot: u64) -> Result<(), String> {
    let id = world.nodes.id(slot);
    let begun = Instant::now();
    let client = world.client(slot % world.args.nodes);
    loop {
        let error = match client.remove(id).await {
            Ok(()) => break,
            Err(error) => error,
        };
        if matches!(&error, Error::Membership { .. }) {
            world.count("removals refused");
        }
        if begun.elapsed() > Duration::from_secs(180) {
            return Err(format!("node {id} is not removed: {error}"));
        }
        sleep(Duration::from_millis(300)).await;
    }
    world.nodes.kill(slot).await;
    std::fs::remove_dir_all(world.dir(slot)).map_err(|error| format!("{}: {error}", world.dir(slot).display()))?;
    world.nodes.renew(slot);
    world.nodes.release(slot);
    until_up(world, slot).await?;
    promote(world, slot).await
}

/// A cut that does not cut would be a test of nothing.
pub(crate) async fn try_the_network(world: &World) -> Result<(), String> {
    let client = world.client_at(1).patience(Duration::from_secs(1));
    for losses in [vec![Loss { from: 0, to: 1, per_mille: 1000 }], vec![Loss { from: 1, to: 0, per_mille: 1000 }]] {
        world.network.lose(0, losses).await?;
        if client.status().await.is_ok() {
            return Err("cannot run here: packets arrive that are filtered".to_owned());
        }
        world.network.heal(0).await?;
        let begun = Instant::now();
        while client.status().await.is_err() {
            if begun.elapsed() > Duration::from_secs(20) {
                return Err("packets do not arrive that are not filtered".to_owned());
            }
        }
    }
    Ok(())
}

/// All nodes are put back to what their disks had some time ago.
pub(crate) async fn roll_back(world: &World) -> Result<(), String> {
    let all: Vec<u64> = (1..=world.args.nodes).collect();
    for (from, to) in [("log", "copy"), ("copy", "log")] {
        sleep(Duration::from_secs(5)).await;
        for slot in &all {
            world.nodes.take(*slot);
            world.nodes.kill(*slot).await;
        }
        world.say(format!("all are killed; {to} becomes what {from} is"));
        for slot in &all {
            let (from, to) = (world.disk(*slot).join(from), world.disk(*slot).join(to));
            if to.exists() {
                std::fs::remove_dir_all(&to).map_err(|error| error.to_string())?;
            }
            run("cp", &["-a", &from.to_string_lossy(), &to.to_string_lossy()]).await?;
        }
        for slot in &all {
            world.nodes.release(*slot);
            until_up(world, *slot).await?;
            world.nodes.give_back(*slot);
        }
    }
    sleep(Duration::from_secs(5)).await;
    Ok(())
}
