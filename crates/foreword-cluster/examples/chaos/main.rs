//! The campaign `scripts/cluster-chaos.sh`, which makes the network namespaces and the disks that
//! this runs on: processes of `foreword-raft` on a network that is cut, with kills, frozen
//! processes, full disks and changes of the members; and a judge of all that clients were told.
//!
//! - `network`: what becomes of packets. It runs in the namespace of the bridge, as the clients do.
//! - `nodes`: processes, their disks, and what is known of them.
//! - `faults`: what happens, as a seed decides, and for how long.
//! - `clients`: calls, and what is told of them to the judge, which `foreword-raft demo` has, too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
mod faults;
#[path = "../../src/bin/foreword-raft/judge.rs"]
mod judge;
mod network;
mod nodes;
#[path = "../../src/sim/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use judge::Judge;
use network::Network;
use nodes::Nodes;
use random::Random;

/// The longest time without an acknowledged append while a majority was healthy and connected; and
/// the longest until one is acknowledged after all faults.
const AVAILABLE: Duration = Duration::from_secs(30);

/// A time without an acknowledged append that is said.
const LONG: Duration = Duration::from_secs(4);
/// So many things that are wrong are shown.
const SHOWN: usize = 20;

#[derive(Parser)]
struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: u64,
    /// For how long things happen
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Node N is in the namespace of this name and N
    #[arg(long)]
    spaces: String,
    /// Node N's file system is mounted at N in here
    #[arg(long)]
    disks: PathBuf,
    /// Where the nodes' standard error goes
    #[arg(long)]
    out: PathBuf,
    /// The commands
    #[arg(long)]
    foreword_raft: PathBuf,
    #[arg(long)]
    foreword: PathBuf,
    /// No faults, but all nodes are once put back to an earlier copy of their disks: what was
    /// acknowledged meanwhile is lost, and must be missed
    #[arg(long)]
    roll_back: bool,
}

impl Random {
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the clients fared.
struct Service {
    acknowledged: Instant,
    /// Since when a majority has been healthy and connected; `None` while it is not.
    healthy: Option<Instant>,
    longest: Duration,
    healthy_for: Duration,
    /// The bound was exceeded, and that was said.
    said: bool,
}

struct World {
    args: Args,
    begun: Instant,
    judge: Judge,
    network: Network,
    nodes: Nodes,
    service: Mutex<Service>,
    /// What failed besides what the judge finds.
    troubles: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// Faults end, and no other comes.
    healing: AtomicBool,
    /// Clients end.
    ending: AtomicBool,
}

impl World {
    fn say(&self, what: impl AsRef<str>) {
        println!("[{:6.1} s] {}", self.begun.elapsed().as_secs_f64(), what.as_ref());
    }

    fn trouble(&self, what: String) {
        self.say(format!("FAILED: {what}"));
        lock(&self.troubles).push(what);
    }

    fn count(&self, what: &str) {
        *lock(&self.counts).entry(what.to_owned()).or_default() += 1;
    }

    fn acknowledged(&self) {
        let mut service = lock(&self.service);
        let now = Instant::now();
        let gap = service.healthy.map_or(Duration::ZERO, |healthy| now - service.acknowledged.max(healthy));
        service.longest = service.longest.max(gap);
        service.acknowledged = now;
        drop(service);
        if gap > LONG {
            self.say(format!("acknowledged again, with a majority healthy for the last {:.1} s", gap.as_secs_f64()));
        }
    }

    fn is_healing(&self) -> bool {
        self.healing.load(Ordering::Relaxed)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Whether a majority works, and its members reach each other and the clients, in full. (Clients
    /// may not reach the node that leads: the others pass on what they append.)
    fn has_majority(&self) -> bool {
        let well = self.nodes.well();
        let all = self.args.nodes;
        (0..1u32 << all).any(|set| {
            let members: Vec<u64> = (1..=all).filter(|slot| set >> (slot - 1) & 1 == 1 && well.contains(slot)).collect();
            let with_clients = [&[0], &members[..]].concat();
            members.len() as u64 > all / 2
                && with_clients.iter().all(|a| with_clients.iter().all(|b| a == b || self.network.is_fine(*a, *b)))
        })
    }

    /// Measures the time without an acknowledged append, and says what the judge finds first.
    async fn watch(self: Arc<World>) {
        let (mut before, mut found) = (Instant::now(), 0);
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if found < SHOWN {
                for (kind, why) in self.judge.wrong(found) {
                    self.say(format!("WRONG: {kind}: {why}"));
                    found += 1;
                }
            }
            if self.is_ending() {
                continue; // Nobody appends any more.
            }
            let has_majority = self.has_majority();
            let mut service = lock(&self.service);
            let now = Instant::now();
            let Some(healthy) = service.healthy.filter(|_| has_majority) else {
                service.healthy = has_majority.then_some(now);
                (before, service.said) = (now, false);
                continue;
            };
            service.healthy_for += now - before;
            before = now;
            let gap = now - service.acknowledged.max(healthy);
            service.longest = service.longest.max(gap);
            let say = gap > AVAILABLE && !service.said;
            service.said |= say;
            drop(service);
            if say {
                self.trouble(format!("no append was acknowledged for {AVAILABLE:?}, with a majority healthy and connected"));
                self.nodes.statuses().iter().for_each(|status| self.say(format!("{status:?}")));
            }
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let network = match Network::new(args.nodes).await {
        Ok(network) => network,
        Err(why) => {
            println!("cannot run here: {why}");
            return ExitCode::from(2);
        }
    };
    let now = Instant::now();
    let world = Arc::new(World {
        nodes: Nodes::new(args.nodes),
        args,
        begun: now,
        judge: Judge::default(),
        network,
        service: Mutex::new(Service {
            acknowledged: now,
            healthy: None,
            longest: Duration::ZERO,
            healthy_for: Duration::ZERO,
            said: false,
        }),
        troubles: Mutex::default(),
        counts: Mutex::default(),
        healing: AtomicBool::new(false),
        ending: AtomicBool::new(false),
    });
    if let Err(why) = run(&world).await {
        world.trouble(why);
    }
    world.nodes.kill_all().await;
    summary(&world)
}

async fn run(world: &Arc<World>) -> Result<(), String> {
    world.say(format!("{} nodes, seed {}, {} s", world.args.nodes, world.args.seed, world.args.seconds));
    if !world.network.has_netem() {
        world.say("netem is not in this kernel: no delay of single packets. Loss is by a BPF filter, slow links by tbf");
    }
    tokio::spawn(nodes::supervise(world.clone()));
    tokio::spawn(nodes::look(world.clone()));
    nodes::found(world).await?;
    world.say("all vote");
    faults::try_the_network(world).await?;
    tokio::spawn(world.clone().watch());
    let clients = clients::begin(world);
    if world.args.roll_back {
        faults::roll_back(world).await?;
    } else {
        faults::happen(world).await;
    }
    // The cluster serves again, and all clients get what they still want.
    let healed = Instant::now();
    world.say("all is healed");
    while lock(&world.service).acknowledged < healed {
        if healed.elapsed() > AVAILABLE {
            world.nodes.statuses().iter().for_each(|status| world.say(format!("{status:?}")));
            return Err(format!("no append was acknowledged within {AVAILABLE:?} after all was healed"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.say(format!("an append is acknowledged {} ms later", healed.elapsed().as_millis()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.ending.store(true, Ordering::Relaxed);
    for client in clients {
        match tokio::time::timeout(Duration::from_secs(60), client).await {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => return Err(format!("a client panicked: {panic}")),
            Err(_) => return Err("a client's call has not returned within 60 s".to_owned()),
        }
    }
    let logs = nodes::logs(world).await?;
    for found in world.judge.compare(&logs) {
        let what = if found.is_bad() { "BAD" } else { "fine" };
        world.say(format!(
            "node {}: {} records, {} lost, {} twice, {} never appended, the same as the others': {}: {what}",
            found.node, found.records, found.lost, found.twice, found.strange, found.same
        ));
    }
    nodes::stop_and_verify(world).await
}

fn summary(world: &World) -> ExitCode {
    let wrong = world.judge.wrong(0);
    let troubles = lock(&world.troubles).clone();
    let (acknowledged, refused, open, there) = world.judge.counts();
    let service = lock(&world.service);
    println!("\nacknowledged       {acknowledged} records");
    println!("refused            {refused}");
    println!("unknown            {open}, of which {there} are there");
    println!("elections          {}", world.nodes.elections());
    println!("majority healthy   {:.1} s of {:.1} s", service.healthy_for.as_secs_f64(), world.begun.elapsed().as_secs_f64());
    println!("longest gap then   {:.1} s without an acknowledged append", service.longest.as_secs_f64());
    for (what, count) in lock(&world.counts).iter() {
        println!("{count:6}  {what}");
    }
    let mut kinds = BTreeMap::new();
    wrong.iter().for_each(|(kind, _)| *kinds.entry(*kind).or_insert(0) += 1);
    kinds.iter().for_each(|(kind, count)| println!("{count:6}  WRONG: {kind}"));
    wrong.iter().take(SHOWN).for_each(|(kind, why)| println!("{kind}: {why}"));
    troubles.iter().for_each(|trouble| println!("failed: {trouble}"));
    let passed = wrong.is_empty() && troubles.is_empty();
    println!("{}", if passed { "PASSED" } else { "FAILED" });
    ExitCode::from(u8::from(!passed))
}
