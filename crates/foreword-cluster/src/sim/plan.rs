//! What a seed decides: which faults come when, and how much clients do. And the smallest part of
//! it that still fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::aimed::Election;
use super::world::World;
use super::{Bug, Random, Sim, clients, lock};

/// Something that happens. Nodes are given as places among those that are up then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happens {
    Power {
        node: u64,
    },
    /// After so many more changes of the disk, within one.
    PowerIn {
        node: u64,
        changes: u64,
    },
    PowerAll,
    Kill {
        node: u64,
    },
    Flip {
        node: u64,
    },
    Full {
        node: u64,
        free: u64,
        ms: u64,
    },
    /// A flush fails, or a write.
    Eio {
        node: u64,
        on: bool,
        skip: u64,
    },
    Stall {
        node: u64,
        ms: u64,
    },
    /// Nothing comes from the one side to the other, or back, or both.
    Cut {
        side: u64,
        to: bool,
        from: bool,
        ms: u64,
    },
    Weather {
        lost: u64,
        twice: u64,
        late: u64,
        by_calls: bool,
    },
    Transfer,
    Election(Election),
    /// As soon as a node has appended behind the next truncation.
    Truncation {
        power: bool,
    },
    Learner,
    Replace {
        node: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: u64,
    pub(super) clients: u64,
    /// How long clients work, and faults come; in milliseconds.
    pub(super) ms: u64,
    pub(super) faults: Vec<(u64, Happens)>,
}

/// What a run showed.
pub(super) struct Ran {
    pub(super) verdict: Result<(), String>,
    pub(super) seen: BTreeMap<&'static str, u64>,
    pub(super) trace: u64,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Plan {
        let mut random = Random(seed ^ 0x5157);
        let nodes = if random.chance(300) { 5 } else { 3 };
        let ms = random.between(3000, 6000);
        let calm = random.chance(150);
        let count = if calm { 1 } else { random.between(3, 12) };
        let mut faults = vec![(0, Plan::weather(&mut random))];
        faults.extend((0..count).map(|_| (random.below(ms), Plan::draw(&mut random))));
        let clients = random.between(2, 5);
        // Beside the others, and drawn behind them: those come as often as without.
        for _ in 0..random.below(3) {
            let (candidate, at) = (random.below(60), random.below(ms));
            let (back, power, silent) = (random.chance(500), random.chance(500), random.between(50, 1500));
            faults.push((at, Happens::Election(Election { candidate, back, power, silent })));
        }
        if random.chance(500) {
            faults.push((random.below(ms), Happens::Truncation { power: random.chance(500) }));
        }
        faults.sort_by_key(|(at, _)| *at);
        Plan { seed, nodes, clients, ms, faults }
    }

    fn weather(random: &mut Random) -> Happens {
        let mut some = |most| if random.chance(500) { random.below(most) } else { 0 };
        let (lost, twice, late) = (some(30), some(100), some(100));
        Happens::Weather { lost, twice, late, by_calls: random.chance(400) }
    }

    fn draw(random: &mut Random) -> Happens {
        let node = random.below(60);
        match random.below(34) {
            0..=4 => Happens::Power { node },
            5..=6 => Happens::PowerIn { node, changes: random.between(1, 30) },
            7..=8 => Happens::PowerAll,
            9..=11 => Happens::Kill { node },
            12..=13 => Happens::Flip { node },
            14..=15 => Happens::Full { node, free: random.below(100_000), ms: random.between(200, 2000) },
            16..=17 => Happens::Eio { node, on: random.chance(700), skip: random.below(20) },
            18..=19 => Happens::Stall { node, ms: random.between(100, 2000) },
            20..=25 => {
                let (to, from) = [(true, true), (true, true), (true, false), (false, true)][random.below(4) as usize];
                Happens::Cut { side: random.between(1, 254), to, from, ms: random.between(200, 3000) }
            }
            26..=27 => Plan::weather(random),
            28..=30 => Happens::Transfer,
            31 => Happens::Learner,
            _ => Happens::Replace { node },
        }
    }

    /// The smallest part found that fails, too, with what it fails by.
    pub(super) fn shrink(&self, bug: Option<Bug>, mut why: String) -> (Plan, String) {
        let mut plan = self.clone();
        let begun = std::time::Instant::now();
        let mut attempt = |plan: &mut Plan, smaller: Plan| {
            if smaller == *plan || begun.elapsed() > Duration::from_secs(60) {
                return false;
            }
            match smaller.run(bug).verdict {
                Err(error) => {
                    (*plan, why) = (smaller, error);
                    true
                }
                Ok(()) => false,
            }
        };
        let mut part = plan.faults.len();
        while part > 0 {
            let mut at = 0;
            while at < plan.faults.len() {
                let mut smaller = plan.clone();
                smaller.faults.drain(at..(at + part).min(plan.faults.len()));
                if !attempt(&mut plan, smaller) {
                    at += part;
                }
            }
            part /= 2;
        }
        for clients in 1..plan.clients {
            let smaller = Plan { clients, ..plan.clone() };
            if attempt(&mut plan, smaller) {
                break;
            }
        }
        loop {
            let smaller = Plan { ms: plan.ms * 2 / 3, ..plan.clone() };
            if plan.ms <= 200 || !attempt(&mut plan, smaller) {
                break;
            }
        }
        (plan, why)
    }

    pub(super) fn run(&self, bug: Option<Bug>) -> Ran {
        Sim::run(self.seed, bug, async |sim| self.simulate(sim).await)
    }

    async fn simulate(&self, sim: Arc<Sim>) -> Ran {
        let world = World::new(sim.clone());
        let verdict = match self.go(&world).await {
            Ok(()) => world.history().verdict(),
            Err(why) => Err(world.history().violation().unwrap_or(why)),
        };
        world.count_terms();
        for (id, _, _) in world.up() {
            world.stop(id, false).await;
        }
        let mut seen = lock(&sim.seen).clone();
        for (what, count) in world.history().counts() {
            *seen.entry(what).or_default() += count;
        }
        *seen.entry("simulated milliseconds").or_default() += sim.now();
        Ran { verdict, seen, trace: sim.trace.load(Ordering::Relaxed) }
    }

    async fn go(&self, world: &World) -> Result<(), String> {
        let begin = |error: crate::Error| format!("the cluster does not begin: {error}");
        let first = world.start(1, None).await.map_err(begin)?;
        for id in 2..=self.nodes {
            world.start(id, Some(vec![1])).await.map_err(begin)?;
            first.promote(id).await.map_err(begin)?;
        }
        let work = clients::begin(world, self.clients);
        let begun = world.sim().now();
        for (at, what) in &self.faults {
            sleep(Duration::from_millis((begun + at).saturating_sub(world.sim().now()))).await;
            let (world, what) = (world.clone(), what.clone());
            tokio::spawn(async move { world.happen(&what).await });
        }
        sleep(Duration::from_millis((begun + self.ms).saturating_sub(world.sim().now()))).await;
        clients::end(world, work).await?;
        clients::liveness(world).await
    }
}
