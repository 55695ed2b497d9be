//! The nodes: a slot is a namespace and a disk, in which a process is a node; another one, with
//! another id, when it was replaced.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foreword_cluster::{Bytes, Client, Error, Status};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::network::address;
use crate::{World, lock};

/// Within so much time a node starts, or stops.
const STARTS: Duration = Duration::from_secs(60);
const STOPS: Duration = Duration::from_secs(15);
/// So long after its disk was full a node may stop because of that.
const AFTER_FULL: Duration = Duration::from_secs(10);

struct Slot {
    /// The id of the node in it.
    id: u64,
    process: Option<Child>,
    /// The process has said that it takes part.
    up: Arc<AtomicBool>,
    /// The node has been up once: it is a member, and starts without others.
    was_up: bool,
    since: Instant,
    /// It is not to be started.
    hold: bool,
    /// It was killed by us.
    killed: bool,
    frozen: bool,
    full: bool,
    was_full: Option<Instant>,
    /// A fault has this node's process, or its place among the members.
    taken: bool,
    /// It was told to stop.
    stopped: bool,
    status: Option<Status>,
}

/// One disk is full at a time: what is appended then is on the others, too, until the front is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flood {
    #[default]
    No,
    Full,
    ToBeCut,
}

pub(crate) struct Nodes {
    slots: Mutex<Vec<Slot>>,
    next: AtomicU64,
    terms: Mutex<(u64, u64)>,
    flood: Mutex<Flood>,
}

impl Nodes {
    pub(crate) fn new(count: u64) -> Nodes {
        let slot = |id| Slot {
            id,
            process: None,
            up: Arc::default(),
            was_up: false,
            since: Instant::now(),
            hold: true,
            killed: false,
            frozen: false,
            full: false,
            was_full: None,
            taken: false,
            stopped: false,
            status: None,
        };
        Nodes {
            slots: Mutex::new((1..=count).map(slot).collect()),
            next: AtomicU64::new(count + 1),
            terms: Mutex::default(),
            flood: Mutex::default(),
        }
    }

    fn with<T>(&self, slot: u64, with: impl FnOnce(&mut Slot) -> T) -> T {
        with(&mut lock(&self.slots)[slot as usize - 1])
    }

    /// Slots whose nodes work. (Of one that is being replaced, nothing is expected.)
    pub(crate) fn well(&self) -> Vec<u64> {
        let slots = lock(&self.slots);
        let well =
            |slot: &Slot| slot.process.is_some() && slot.up.load(Ordering::Relaxed) && !slot.frozen && !slot.full && !slot.taken;
        (1..).zip(slots.iter()).filter(|(_, slot)| well(slot)).map(|(at, _)| at).collect()
    }

    pub(crate) fn id(&self, slot: u64) -> u64 {
        self.with(slot, |slot| slot.id)
    }

    /// The slot of the node that leads, as it says itself.
    pub(crate) fn leader(&self) -> Option<u64> {
        let slots = lock(&self.slots);
        let leads = (1..).zip(slots.iter()).filter_map(|(at, slot)| {
            let status = slot.status.as_ref().filter(|status| status.leader == Some(slot.id))?;
            Some((status.term, at))
        });
        leads.max().map(|(_, at)| at)
    }

    pub(crate) fn elections(&self) -> u64 {
        let (first, last) = *lock(&self.terms);
        last - first
    }

    pub(crate) fn statuses(&self) -> Vec<(u64, bool, Option<Status>)> {
        lock(&self.slots).iter().map(|slot| (slot.id, slot.up.load(Ordering::Relaxed), slot.status.clone())).collect()
    }

    pub(crate) fn take(&self, slot: u64) -> bool {
        self.with(slot, |slot| !std::mem::replace(&mut slot.taken, true))
    }

    pub(crate) fn give_back(&self, slot: u64) {
        self.with(slot, |slot| slot.taken = false);
    }

    /// The node has a new id, and a directory that is to be made.
    pub(crate) fn renew(&self, slot: u64) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.with(slot, |slot| (slot.id, slot.was_up, slot.status) = (id, false, None));
        id
    }

    /// Lets the process start, and again when it ends.
    pub(crate) fn release(&self, slot: u64) {
        self.with(slot, |slot| slot.hold = false);
    }

    pub(crate) fn is_up(&self, slot: u64) -> bool {
        self.with(slot, |slot| slot.process.is_some() && slot.up.load(Ordering::Relaxed))
    }

    /// `kill -9`, until it is [released](Nodes::release).
    pub(crate) async fn kill(&self, slot: u64) {
        let process = self.with(slot, |slot| {
            (slot.hold, slot.killed, slot.frozen) = (true, true, false);
            slot.process.take()
        });
        if let Some(mut process) = process {
            _ = process.kill().await;
        }
    }

    pub(crate) async fn kill_all(&self) {
        let count = lock(&self.slots).len() as u64;
        for slot in 1..=count {
            self.kill(slot).await;
        }
    }

    /// SIGSTOP and SIGCONT.
    pub(crate) async fn freeze(&self, slot: u64, freeze: bool) {
        let process = self.with(slot, |slot| {
            slot.frozen = freeze;
            slot.process.as_ref().and_then(Child::id)
        });
        signal(process, if freeze { "STOP" } else { "CONT" }).await;
    }

    /// Changes what is the case with full disks, if it is as expected.
    pub(crate) fn flood(&self, from: Flood, to: Flood) -> bool {
        let mut flood = lock(&self.flood);
        let as_expected = *flood == from;
        if as_expected {
            *flood = to;
        }
        as_expected
    }

    pub(crate) fn set_full(&self, slot: u64, full: bool) {
        self.with(slot, |slot| {
            slot.full = full;
            slot.was_full = Some(Instant::now());
        });
    }
}

async fn signal(process: Option<u32>, name: &str) {
    if let Some(process) = process {
        _ = Command::new("kill").args(["-s", name, &process.to_string()]).status().await;
    }
}

impl World {
    pub(crate) fn disk(&self, slot: u64) -> PathBuf {
        self.args.disks.join(slot.to_string())
    }

    pub(crate) fn dir(&self, slot: u64) -> PathBuf {
        self.disk(slot).join("log")
    }

    fn errors(&self, slot: u64) -> PathBuf {
        self.args.out.join(format!("node-{slot}.err"))
    }

    /// A client that knows this node first.
    pub(crate) fn client_at(&self, slot: u64) -> Client {
        Client::new([address(slot)], None).expect("an address").patience(Duration::from_secs(3))
    }

    /// A client that knows all nodes.
    pub(crate) fn client(&self, first: u64) -> Client {
        let all = self.args.nodes;
        let addresses = (0..all).map(|at| address((first + at) % all + 1));
        Client::new(addresses, None).expect("addresses").patience(Duration::from_secs(3))
    }

    fn start(&self, at: u64, slot: &mut Slot) {
        let errors = std::fs::File::options().create(true).append(true).open(self.errors(at)).expect("a file for errors");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{at}", self.args.spaces)]).arg(&self.args.foreword_raft);
        command.args(["serve", "--json", "--insecure", "--id", &slot.id.to_string(), "--listen", &address(at)]);
        if slot.id != 1 {
            let others: Vec<String> = (1..=self.args.nodes).filter(|other| *other != at).map(address).collect();
            command.args(["--join", &others.join(",")]);
        }
        command.arg(self.dir(at)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).kill_on_drop(true);
        let mut child = command.spawn().expect("ip, of iproute2");
        let up = Arc::new(AtomicBool::new(false));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let says = up.clone();
        tokio::spawn(async move {
            while let Ok(Some(_)) = lines.next_line().await {
                says.store(true, Ordering::Relaxed);
            }
        });
        (slot.process, slot.up, slot.since, slot.killed) = (Some(child), up, Instant::now(), false);
    }

    fn last_words(&self, slot: u64) -> String {
        let said = std::fs::read_to_string(self.errors(slot)).unwrap_or_default();
        said.lines().next_back().unwrap_or("nothing").to_owned()
    }
}

/// Starts what is down, and hears of what has ended by itself.
pub(crate) async fn supervise(world: Arc<World>) {
    loop {
        sleep(Duration::from_millis(30)).await;
        for at in 1..=world.args.nodes {
            let ended = world.nodes.with(at, |slot| {
                if let Some(process) = &mut slot.process {
                    if slot.up.load(Ordering::Relaxed) {
                        slot.was_up = true;
                    } else if slot.since.elapsed() > STARTS && !slot.frozen && slot.was_up && !slot.full {
                        slot.since = Instant::now();
                        return Some(Err(format!("node {} has not started within {STARTS:?}", slot.id)));
                    }
                    let Ok(Some(status)) = process.try_wait() else { return None };
                    (slot.process, slot.frozen, slot.since, slot.status) = (None, false, Instant::now(), None);
                    if slot.stopped || slot.killed {
                        return None;
                    }
                    let full = slot.full || slot.was_full.is_some_and(|was| was.elapsed() < AFTER_FULL);
                    // Who cannot join yet says so, and tries again.
                    let expected = full || !slot.was_up;
                    let words = world.last_words(at);
                    let what = format!("node {} has ended by itself: {status}: {words}", slot.id);
                    return Some(if expected { Ok((full, what)) } else { Err(what) });
                }
                if !slot.hold && !slot.stopped && slot.since.elapsed() > Duration::from_millis(300) {
                    world.start(at, slot);
                }
                None
            });
            match ended {
                None => {}
                Some(Ok((full, what))) => {
                    world.count(if full { "nodes that stopped on a full disk" } else { "tries to join that failed" });
                    world.say(what);
                }
                Some(Err(what)) => world.trouble(what),
            }
        }
    }
}

/// Asks each node what it knows.
pub(crate) async fn look(world: Arc<World>) {
    let each = (1..=world.args.nodes).map(|slot| {
        let world = world.clone();
        async move {
            loop {
                sleep(Duration::from_millis(200)).await;
                let id = world.nodes.id(slot);
                let asked = world.client_at(slot).patience(Duration::from_millis(700)).status().await;
                let status = asked.ok().filter(|status| status.node == id);
                if let Some(status) = &status {
                    let mut terms = lock(&world.nodes.terms);
                    let first = if terms.0 == 0 { status.term } else { terms.0 };
                    *terms = (first, terms.1.max(status.term));
                }
                world.nodes.with(slot, |slot| {
                    if slot.id == id {
                        slot.status = status;
                    }
                });
            }
        }
    });
    futures_util::future::join_all(each).await;
}

/// Waits until a process has started.
pub(crate) async fn until_up(world: &World, slot: u64) -> Result<(), String> {
    let begun = Instant::now();
    while !world.nodes.is_up(slot) {
        if begun.elapsed() > 2 * STARTS {
            return Err(format!("node {} has not started: {}", world.nodes.id(slot), world.last_words(slot)));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Makes a node a voter, however often that is to be tried.
pub(crate) async fn promote(world: &World, slot: u64) -> Result<(), String> {
    let id = world.nodes.id(slot);
    let begun = Instant::now();
    let client = world.client(slot);
    loop {
        match client.promote(id).await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > 3 * STARTS => return Err(format!("node {id} does not become a voter: {error}")),
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}

/// The first nodes.
pub(crate) async fn found(world: &World) -> Result<(), String> {
    for slot in 1..=world.args.nodes {
        world.nodes.release(slot);
        until_up(world, slot).await?;
        if slot > 1 {
            promote(world, slot).await?;
        }
    }
    Ok(())
}

/// All nodes' logs, when they have the same.
pub(crate) async fn logs(world: &World) -> Result<Vec<(u64, u64, Vec<Bytes>)>, String> {
    let begun = Instant::now();
    let mut before = Vec::new();
    loop {
        let mut ends = Vec::new();
        for slot in 1..=world.args.nodes {
            let status = world.client_at(slot).status().await.ok().filter(|status| status.node == world.nodes.id(slot));
            ends.push(status.map(|status| (status.first, status.last)));
        }
        let equal = ends.iter().all(|end| *end == ends[0] && end.is_some_and(|(_, last)| last >= world.judge.known()));
        if equal && ends == before {
            break;
        }
        if begun.elapsed() > STARTS {
            // What they have is compared all the same.
            world.trouble(format!("nodes do not get to the same within {STARTS:?} after all was healed: {ends:?}"));
            break;
        }
        before = ends;
        sleep(Duration::from_millis(300)).await;
    }
    let mut logs = Vec::new();
    for slot in 1..=world.args.nodes {
        let id = world.nodes.id(slot);
        let client = world.client_at(slot).patience(STARTS);
        let failed = |error: Error| format!("node {id} cannot be read: {error}");
        let status = client.status().await.map_err(failed)?;
        let (first, mut records) = (status.first, Vec::new());
        while first + (records.len() as u64) <= status.last {
            let read = client.read_local(first + records.len() as u64..).await.map_err(failed)?;
            if read.is_empty() {
                break;
            }
            records.extend(read.into_iter().map(|record| record.data));
        }
        logs.push((id, first, records));
    }
    Ok(logs)
}

/// SIGTERM to all, and `foreword verify` of their directories.
pub(crate) async fn stop_and_verify(world: &World) -> Result<(), String> {
    for slot in 1..=world.args.nodes {
        let id = world.nodes.id(slot);
        let process = world.nodes.with(slot, |slot| {
            slot.stopped = true;
            slot.process.take()
        });
        let Some(mut process) = process else { return Err(format!("node {id} is not there in the end")) };
        signal(process.id(), "TERM").await;
        match tokio::time::timeout(STOPS, process.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(ended) => world.trouble(format!("node {id} was told to stop: {ended:?}: {}", world.last_words(slot))),
            Err(_) => world.trouble(format!("node {id} was told to stop, and has not within {STOPS:?}")),
        }
    }
    for slot in 1..=world.args.nodes {
        let verified = Command::new(&world.args.foreword).arg("verify").arg(world.dir(slot)).output().await;
        let verified = verified.map_err(|error| format!("cannot run foreword: {error}"))?;
        let said = String::from_utf8_lossy(&verified.stdout).into_owned() + &String::from_utf8_lossy(&verified.stderr);
        match verified.status.success() {
            true => world.say(format!("foreword verify of node {}: clean", world.nodes.id(slot))),
            false => world.trouble(format!("foreword verify of node {}: {}: {said}", world.nodes.id(slot), verified.status)),
        }
    }
    Ok(())
}
