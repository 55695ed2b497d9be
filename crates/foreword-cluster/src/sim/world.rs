//! The nodes, their disks, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foreword::SyncPolicy;
use foreword_sim::{Choice, Effect, Fault, OpKind, SimDisk};
use openraft::async_runtime::WatchReceiver;
use tokio::time::sleep;

use super::check::History;
use super::network::{Link, address};
use super::plan::Happens;
use super::{Random, Sim, lock};
use crate::{Error, Options, ReplicatedLog};

/// How long a call may wait in the simulation; the network's own patience is added where a test
/// compares.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Up,
    Starting,
    Down,
    /// Its disk has lost something: it never comes back.
    Ruined,
    /// It is no member any more.
    Gone,
}

struct Slot {
    disk: SimDisk,
    log: Option<ReplicatedLog>,
    is: Is,
    /// How often it was started.
    life: u64,
    /// A bit was flipped on its disk.
    flipped: bool,
    full: bool,
}

#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    sim: Arc<Sim>,
    slots: Mutex<BTreeMap<u64, Slot>>,
    pub(super) history: History,
    /// Members change one after the other here, as when one operator does it.
    operator: tokio::sync::Mutex<()>,
}

/// A node that a caller may call, and its life.
pub(super) type Called = (u64, u64, ReplicatedLog);

impl World {
    pub(super) fn new(sim: Arc<Sim>) -> World {
        World(Arc::new(Inner {
            sim,
            slots: Mutex::default(),
            history: History::default(),
            operator: tokio::sync::Mutex::default(),
        }))
    }

    pub(super) fn history(&self) -> &History {
        &self.0.history
    }

    pub(super) fn sim(&self) -> &Arc<Sim> {
        &self.0.sim
    }

    fn options(id: u64, disk: &SimDisk) -> Options {
        let log = foreword::Options::new().segment_bytes(64 << 10).background(false).sync(SyncPolicy::manual());
        let log = log.on_error(|_| ()).disk(disk.handle());
        let storage = foreword_raft::Options::new().log(log).background(false).cache_bytes(8 << 10);
        Options::new()
            .node(id)
            .advertise(address(id))
            .tls(Link::certificate(id))
            .storage(storage.compact_factor(2).compact_slack(32 << 10).compact_step(4 << 10))
            .timing(Duration::from_millis(50), (Duration::from_millis(200), Duration::from_millis(400)))
            .checkpoint_bytes(2 << 10)
            .sessions(6)
            .patience(PATIENCE)
    }

    /// Opens a node, with a new disk or that of before.
    pub(super) async fn start(&self, id: u64, joins: Option<Vec<u64>>) -> Result<ReplicatedLog, Error> {
        let disk = lock(&self.0.slots).get(&id).map(|slot| slot.disk.clone());
        let disk = disk.unwrap_or_else(|| SimDisk::new(self.0.sim.draw(Random::next)));
        disk.set_capacity(None);
        disk.heal();
        let mut options = World::options(id, &disk);
        if let Some(others) = joins {
            options = options.join(others.into_iter().map(address));
        }
        let life = {
            let mut slots = lock(&self.0.slots);
            let slot = slots.entry(id).or_insert_with(|| Slot {
                disk: disk.clone(),
                log: None,
                is: Is::Starting,
                life: 0,
                flipped: false,
                full: false,
            });
            slot.life += 1;
            slot.full = false;
            slot.life
        };
        let log = options.open("/node").await?;
        {
            let mut slots = lock(&self.0.slots);
            let Some(slot) = slots.get_mut(&id).filter(|slot| slot.life == life) else { return Err(Error::Closed) };
            slot.log = Some(log.clone());
            slot.is = Is::Up;
        }
        if let Err(why) = log.inner().entries_in_order().await {
            self.0.history.violated(format!("node {id} comes back with {why}"));
        }
        lock(&self.0.sim.net).up.insert(id, (log.inner().clone(), life));
        tokio::spawn(self.clone().drive(id, life, log.clone()));
        Ok(log)
    }

    /// Compacts, and sees when the node has failed: what threads and a service manager do
    /// elsewhere.
    async fn drive(self, id: u64, life: u64, log: ReplicatedLog) {
        loop {
            sleep(Duration::from_micros(self.0.sim.draw(|random| random.between(1000, 20_000)))).await;
            if !self.lives(id, life) {
                return;
            }
            let logs = log.inner().logs();
            if self.0.sim.draw(|random| random.chance(100)) && logs.compact().is_ok_and(|done| done.dropped > 0) {
                self.0.sim.count("fronts of a disk's log dropped");
            }
            let running = log.inner().raft().metrics().borrow_watched().running_state.clone();
            let failed = logs.failure().map(|error| error.to_string()).or(running.err().map(|error| error.to_string()));
            if let Some(why) = failed {
                self.failed(id, &why).await;
                return;
            }
        }
    }

    async fn failed(&self, id: u64, why: &str) {
        self.0.sim.count("nodes that stopped by themselves");
        if why.contains("anic") {
            self.0.history.violated(format!("node {id} panicked: {why}"));
        }
        let (struck, flipped) = match lock(&self.0.slots).get(&id) {
            Some(slot) => (slot.full || slot.disk.is_off() || slot.disk.ops().iter().any(|op| op.struck), slot.flipped),
            None => return,
        };
        if !struck && !flipped {
            self.0.history.violated(format!("node {id} stopped though nothing had happened to its disk: {why}"));
        }
        let power = self.0.sim.draw(|random| random.chance(500));
        self.stop(id, power).await;
        if flipped && !struck {
            self.ruined(id);
        } else {
            self.start_later(id);
        }
    }

    fn start_later(&self, id: u64) {
        let (world, later) = (self.clone(), self.0.sim.draw(|random| random.between(20, 1500)));
        tokio::spawn(async move {
            sleep(Duration::from_millis(later)).await;
            world.restart(id).await;
        });
    }

    pub(super) async fn restart(&self, id: u64) {
        let flipped = match lock(&self.0.slots).get_mut(&id) {
            Some(slot) if slot.is == Is::Down => {
                slot.is = Is::Starting;
                slot.flipped
            }
            _ => return,
        };
        match self.start(id, None).await {
            Ok(_) => self.0.sim.count("restarts"),
            Err(Error::Storage(_)) if flipped => self.ruined(id),
            Err(Error::Invalid { .. }) => {
                // It was to join, and had not yet.
                if let Some(slot) = lock(&self.0.slots).get_mut(&id) {
                    slot.is = Is::Gone;
                }
            }
            Err(error) => self.0.history.violated(format!("node {id} does not start: {error}")),
        }
    }

    fn ruined(&self, id: u64) {
        self.0.sim.count("damaged nodes that refused to go on");
        if let Some(slot) = lock(&self.0.slots).get_mut(&id) {
            slot.is = Is::Ruined;
        }
        let world = self.clone();
        tokio::spawn(async move { world.replace(id).await });
    }

    /// Ends a node at once: what its disk has after a power failure, or a kill, is what it finds
    /// when it is started again.
    pub(super) async fn stop(&self, id: u64, power: bool) -> bool {
        let log = {
            let mut slots = lock(&self.0.slots);
            let Some(slot) = slots.get_mut(&id).filter(|slot| slot.is == Is::Up) else { return false };
            let after = match power {
                true => slot.disk.crash(&Choice::Seed(self.0.sim.draw(Random::next))),
                false => slot.disk.kill(),
            };
            slot.disk.power_off();
            slot.disk = after;
            slot.is = Is::Down;
            slot.life += 1;
            slot.log.take()
        };
        self.0.sim.note(&[id, u64::from(power)]);
        lock(&self.0.sim.net).up.remove(&id);
        if let Some(log) = log {
            log.inner().abandon().await;
        }
        true
    }

    /// How each node is.
    pub(super) fn are(&self) -> String {
        let slots = lock(&self.0.slots);
        let are =
            slots.iter().map(|(id, slot)| format!("{id} {:?}{}", slot.is, if slot.flipped { ", a bit flipped" } else { "" }));
        are.collect::<Vec<_>>().join("; ")
    }

    pub(super) fn up(&self) -> Vec<Called> {
        let slots = lock(&self.0.slots);
        slots.iter().filter_map(|(id, slot)| Some((*id, slot.life, slot.log.clone()?))).collect()
    }

    /// Some node that is up.
    pub(super) fn any(&self) -> Option<Called> {
        let up = self.up();
        let at = self.0.sim.draw(|random| random.below(up.len() as u64)) as usize;
        up.into_iter().nth(at)
    }

    pub(super) fn lives(&self, id: u64, life: u64) -> bool {
        lock(&self.0.slots).get(&id).is_some_and(|slot| slot.life == life && slot.is == Is::Up)
    }

    /// The voters, as a node that leads says; else as any says.
    pub(super) fn voters(&self) -> BTreeSet<u64> {
        let up = self.up();
        let leader = up.iter().find(|(_, _, log)| log.inner().leads()).or(up.first());
        let members = leader.map(|(_, _, log)| log.status().members).unwrap_or_default();
        members.into_iter().filter(|member| member.voter).map(|member| member.node).collect()
    }

    fn pick(&self, which: u64) -> Option<u64> {
        let up: Vec<u64> = self.up().into_iter().map(|(id, _, _)| id).collect();
        up.get(which as usize % up.len().max(1)).copied()
    }

    fn disk<T>(&self, id: u64, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        lock(&self.0.slots).get_mut(&id).filter(|slot| slot.is == Is::Up).map(change)
    }

    pub(super) async fn happen(&self, what: &Happens) {
        let count = |what| self.0.sim.count(what);
        match *what {
            Happens::Power { node } | Happens::Kill { node } => {
                let Some(id) = self.pick(node) else { return };
                let power = matches!(what, Happens::Power { .. });
                if self.stop(id, power).await {
                    count(if power { "power failures" } else { "kills" });
                    self.start_later(id);
                }
            }
            Happens::PowerIn { node, changes } => {
                let Some(id) = self.pick(node) else { return };
                self.disk(id, |slot| slot.disk.power_off_at(slot.disk.changes() + changes));
                count("power failures within a change");
            }
            Happens::PowerAll => {
                count("power failures of all");
                for (id, _, _) in self.up() {
                    self.stop(id, true).await;
                    self.start_later(id);
                }
            }
            Happens::Flip { node } => self.flip(node).await,
            Happens::Full { node, free, ms } => {
                let Some(id) = self.pick(node) else { return };
                self.disk(id, |slot| {
                    slot.disk.set_free(free);
                    slot.full = true;
                });
                count("full disks");
                sleep(Duration::from_millis(ms)).await;
                self.disk(id, |slot| slot.disk.set_capacity(None));
            }
            Happens::Eio { node, on, skip } => {
                let Some(id) = self.pick(node) else { return };
                let op = if on { OpKind::Sync } else { OpKind::Write };
                self.disk(id, |slot| slot.disk.fault(Fault::new(op, Effect::Eio).skip(skip)));
                count("flushes and writes that fail");
            }
            Happens::Stall { node, ms } => {
                let Some(id) = self.pick(node) else { return };
                let until = self.0.sim.now() + ms;
                lock(&self.0.sim.stalled).insert(id, until);
                count("stalled disks");
            }
            Happens::Cut { side, to, from, ms } => {
                let all: Vec<u64> = lock(&self.0.slots).keys().copied().collect();
                let (one, other): (Vec<u64>, Vec<u64>) = all.iter().partition(|id| side >> (*id % 8) & 1 == 1);
                let pairs = one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b)));
                let pairs: Vec<(u64, u64)> =
                    pairs.flat_map(|(a, b)| [to.then_some((a, b)), from.then_some((b, a))]).flatten().collect();
                count(if to && from { "partitions" } else { "partitions of one way" });
                self.cut(pairs, Duration::from_millis(ms)).await;
            }
            Happens::Weather { lost, twice, late, by_calls } => {
                let mut net = lock(&self.0.sim.net);
                (net.lost, net.twice, net.late, net.by_calls) = (lost, twice, late, by_calls);
            }
            Happens::Transfer => {
                let Some((_, _, log)) = self.any() else { return };
                if log.transfer(None).await.is_ok() {
                    count("leads handed over");
                }
            }
            Happens::Election(election) => self.election(election).await,
            Happens::Truncation { power } => self.truncation(power).await,
            Happens::Learner => {
                let _one = self.0.operator.lock().await;
                if self.join().await.is_some() {
                    count("learners");
                }
            }
            Happens::Replace { node } => {
                let voters: Vec<u64> = self.voters().into_iter().collect();
                let Some(id) = voters.get(node as usize % voters.len().max(1)) else { return };
                // Whose bit was flipped may be lost as soon as it is found: with another gone, too,
                // there would be no majority.
                let flipped =
                    |(other, slot): (&u64, &Slot)| other != id && slot.flipped && !matches!(slot.is, Is::Ruined | Is::Gone);
                if !lock(&self.0.slots).iter().any(flipped) {
                    self.replace(*id).await;
                }
            }
        }
    }

    /// Nothing comes from the first of each pair to the second for so long.
    pub(super) async fn cut(&self, pairs: Vec<(u64, u64)>, time: Duration) {
        lock(&self.0.sim.net).cut.extend(pairs.iter().copied());
        sleep(time).await;
        pairs.iter().for_each(|pair| _ = lock(&self.0.sim.net).cut.remove(pair));
    }

    /// A bit of a node that is down. Not where a majority could be lost: the others have to be
    /// there.
    async fn flip(&self, node: u64) {
        let _one = self.0.operator.lock().await;
        let voters = self.voters();
        let well = |slots: &BTreeMap<u64, Slot>| {
            voters.iter().all(|id| slots.get(id).is_some_and(|slot| slot.is == Is::Up && !slot.flipped && !slot.full))
                && slots.values().all(|slot| slot.is != Is::Ruined)
        };
        let Some(id) = self.pick(node).filter(|_| well(&lock(&self.0.slots)) && voters.len() >= 3) else { return };
        if !self.stop(id, false).await {
            return;
        }
        if let Some(slot) = lock(&self.0.slots).get_mut(&id) {
            let files: Vec<_> = slot.disk.files().into_iter().filter(|(_, bytes)| *bytes > 0).collect();
            let (path, bytes) = &files[self.0.sim.draw(|random| random.below(files.len() as u64)) as usize];
            // Most bytes of a file are zeros that are not used yet: so among its first, half of the
            // time.
            let most = if self.0.sim.draw(|random| random.chance(500)) { *bytes } else { (*bytes).min(8 << 10) };
            let (byte, bit) = self.0.sim.draw(|random| (random.below(most), random.below(8)));
            slot.flipped = slot.disk.flip(path, byte, bit as u8);
        }
        self.0.sim.count("bits flipped");
        self.start_later(id);
    }

    /// Starts a new node, which joins as a learner.
    async fn join(&self) -> Option<u64> {
        let (id, others) = {
            let slots = lock(&self.0.slots);
            let id = slots.keys().next_back().copied().unwrap_or(0) + 1;
            (id, slots.iter().filter(|(_, slot)| slot.is == Is::Up).map(|(id, _)| *id).collect::<Vec<u64>>())
        };
        match self.start(id, Some(others)).await {
            Ok(_) => Some(id),
            Err(_) => {
                // It has not joined, or does not know: nobody starts it again.
                if let Some(slot) = lock(&self.0.slots).get_mut(&id) {
                    slot.is = Is::Gone;
                    slot.life += 1;
                }
                lock(&self.0.sim.net).up.remove(&id);
                self.forget(id).await;
                None
            }
        }
    }

    /// Removes a node from the members, and puts a new one in its place. As docs/REPLICATION.md has
    /// it: removed first.
    async fn replace(&self, id: u64) {
        let _one = self.0.operator.lock().await;
        if !self.forget(id).await {
            return;
        }
        self.stop(id, false).await;
        if let Some(slot) = lock(&self.0.slots).get_mut(&id) {
            slot.is = Is::Gone;
        }
        self.0.sim.count("nodes removed");
        for _ in 0..20 {
            if let Some(new) = self.join().await {
                for _ in 0..20 {
                    let Some((_, _, log)) = self.any() else { continue };
                    if log.promote(new).await.is_ok() {
                        self.0.sim.count("nodes promoted");
                        return;
                    }
                    sleep(Duration::from_millis(300)).await;
                }
                return;
            }
        }
    }

    async fn forget(&self, id: u64) -> bool {
        for _ in 0..20 {
            if let Some((_, _, log)) = self.any()
                && log.remove(id).await.is_ok()
            {
                return true;
            }
            sleep(Duration::from_millis(300)).await;
        }
        false
    }

    /// All faults end: what is down is started.
    pub(super) async fn heal(&self) {
        {
            let mut net = lock(&self.0.sim.net);
            net.cut.clear();
            (net.lost, net.late) = (0, 0);
            lock(&self.0.sim.stalled).clear();
        }
        let down: Vec<u64> = {
            let mut slots = lock(&self.0.slots);
            for slot in slots.values_mut() {
                slot.disk.heal();
                slot.disk.set_capacity(None);
            }
            slots.iter().filter(|(_, slot)| slot.is == Is::Down).map(|(id, _)| *id).collect()
        };
        for id in down {
            self.restart(id).await;
        }
    }

    /// The members that should be there, as the leader says.
    pub(super) fn members(&self) -> Option<Vec<Called>> {
        let up = self.up();
        let leader = up.iter().find(|(_, _, log)| log.inner().leads())?;
        let members: BTreeSet<u64> = leader.2.status().members.iter().map(|member| member.node).collect();
        let slots = lock(&self.0.slots);
        let wanted: BTreeSet<u64> =
            members.iter().filter(|id| slots.get(id).is_some_and(|slot| matches!(slot.is, Is::Up | Is::Down))).copied().collect();
        drop(slots);
        let there: Vec<Called> = up.iter().filter(|(id, _, _)| wanted.contains(id)).cloned().collect();
        (there.len() == wanted.len()).then_some(there)
    }

    pub(super) fn flipped(&self, id: u64) -> bool {
        lock(&self.0.slots).get(&id).is_some_and(|slot| slot.flipped)
    }

    /// Adds up what the nodes' disks and protocols went through.
    pub(super) fn count_terms(&self) {
        let term = self.up().iter().map(|(_, _, log)| log.status().term).max().unwrap_or(0);
        *lock(&self.0.sim.seen).entry("terms").or_default() += term;
        let purged = self.up().iter().map(|(_, _, log)| log.status().purged_entry).max().unwrap_or(0);
        *lock(&self.0.sim.seen).entry("entries purged").or_default() += purged;
    }
}
