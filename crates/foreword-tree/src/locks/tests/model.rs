//! Random requests, decided by a model too: lists that are searched from end to end.

use std::collections::BTreeMap;

use super::oracle::{check, circle_through, edges, picture};
use super::*;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn name(key: usize) -> Vec<u8> {
    [&[0; 9], KEYS[key].as_bytes()].concat()
}

#[derive(Clone, Default)]
struct Model {
    /// By key: each lock that was taken and not taken back.
    taken: [Vec<(u64, Mode)>; 4],
    queue: [Vec<(u64, Mode)>; 4],
}

impl Model {
    fn strongest(&self, key: usize, owner: u64) -> Option<Mode> {
        self.taken[key].iter().filter(|taken| taken.0 == owner).map(|taken| taken.1).max()
    }

    fn goes(&self, key: usize, owner: u64, mode: Mode) -> bool {
        self.taken[key].iter().all(|&(other, held)| other == owner || (held, mode) == (S, S))
    }

    fn waits(&self, owner: u64) -> Option<usize> {
        (0..KEYS.len()).find(|&key| self.queue[key].iter().any(|waiter| waiter.0 == owner))
    }

    fn is_granted(&self, key: usize, owner: u64, mode: Mode) -> bool {
        match self.strongest(key, owner) {
            Some(X) => true,
            Some(S) => mode == S || self.goes(key, owner, X),
            None => self.queue[key].is_empty() && self.goes(key, owner, mode),
        }
    }

    fn lock(&mut self, owner: u64, key: usize, mode: Mode, may_wait: bool) -> Answer {
        if self.is_granted(key, owner, mode) {
            self.taken[key].push((owner, mode));
            return Granted;
        }
        if !may_wait {
            return Waits;
        }
        if self.waits(owner).is_some() {
            return Answer::InUse;
        }
        let before = self.clone();
        let at = if self.strongest(key, owner).is_some() { 0 } else { self.queue[key].len() };
        self.queue[key].insert(at, (owner, mode));
        match circle_through(&edges(&self.picture()), owner) {
            None => Waits,
            Some(length) => {
                *self = before;
                Circle(vec![0; length])
            }
        }
    }

    fn advance(&mut self) -> Vec<(u64, bool)> {
        let mut granted = Vec::new();
        for key in 0..KEYS.len() {
            while let Some(&(owner, mode)) = self.queue[key].first() {
                if !self.goes(key, owner, mode) {
                    break;
                }
                self.queue[key].remove(0);
                self.taken[key].push((owner, mode));
                granted.push((owner, true));
            }
        }
        granted
    }

    fn picture(&self) -> oracle::Picture {
        let all = (0..KEYS.len()).map(|key| {
            let holders: BTreeMap<_, _> =
                self.taken[key].iter().map(|taken| (taken.0, self.strongest(key, taken.0).unwrap())).collect();
            (name(key), (holders, self.queue[key].clone()))
        });
        all.filter(|(_, lock)| !lock.0.is_empty()).collect()
    }
}

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What a run came across.
#[derive(Debug, Default)]
struct Seen {
    granted: u64,
    waits: u64,
    circles: u64,
    long_circles: u64,
    upgrades_waited: u64,
    in_use: u64,
}

/// The owners' names are not their positions, and one is zero.
fn run(seed: u64, seen: &mut Seen) {
    let mut rng = Rng(seed);
    let (mut stage, mut model) = (Stage::new(), Model::default());
    let owners = 2 + rng.below(7);
    for step in 0..150 {
        let (owner, at) = (rng.below(owners), rng.below(4) as usize);
        let (target, mode) = (key(KEYS[at]), if rng.below(100) < 60 { S } else { X });
        // A scheduler lets an owner that waits do nothing, but for misuse.
        let waits = model.waits(owner);
        let what = if waits.is_some() { [90, 90, 96, 0, 40, 60][rng.below(6) as usize] } else { rng.below(90) };
        let mut ended = Vec::new();
        match what {
            0..40 => {
                let (got, want) = (stage.lock(owner, target, mode), model.lock(owner, at, mode, true));
                match (&got, &want) {
                    (Circle(got), Circle(want)) => {
                        assert_eq!(got.len(), want.len(), "seed {seed} step {step}: {got:?}");
                        let mut with = model.clone();
                        let front = if with.strongest(at, owner).is_some() { 0 } else { with.queue[at].len() };
                        with.queue[at].insert(front, (owner, mode));
                        let edges = edges(&with.picture());
                        let next = got.iter().cycle().skip(1);
                        assert!(got[0] == owner && got.iter().zip(next).all(|(&a, &b)| edges.contains(&(a, b))), "{got:?}");
                        seen.circles += 1;
                        seen.long_circles += u64::from(got.len() > 2);
                    }
                    _ => assert_eq!(got, want, "seed {seed} step {step}"),
                }
                seen.granted += u64::from(got == Granted);
                seen.waits += u64::from(got == Waits);
                seen.in_use += u64::from(got == Answer::InUse);
                seen.upgrades_waited += u64::from(got == Waits && model.strongest(at, owner).is_some());
            }
            40..60 => {
                let granted = model.lock(owner, at, mode, false) == Granted;
                assert_eq!(stage.table.admits(owner, target, mode), granted, "seed {seed} step {step}");
                assert_eq!(stage.try_lock(owner, target, mode), granted, "seed {seed} step {step}");
            }
            60..75 => {
                let found = model.taken[at].iter().position(|&taken| taken == (owner, mode));
                found.map(|found| model.taken[at].remove(found));
                assert_eq!(stage.unlock(owner, target, mode), found.is_some(), "seed {seed} step {step}");
            }
            90..95 => {
                let at = waits.unwrap();
                model.queue[at].retain(|waiter| waiter.0 != owner);
                stage.withdraw(owner);
            }
            _ => {
                model.taken.iter_mut().for_each(|taken| taken.retain(|taken| taken.0 != owner));
                model.queue.iter_mut().for_each(|queue| queue.retain(|waiter| waiter.0 != owner));
                ended.extend(waits.map(|_| (owner, false)));
                stage.release(owner);
            }
        }
        ended.extend(model.advance());
        ended.sort_unstable();
        let mut got = stage.ended();
        got.sort_unstable();
        assert_eq!(got, ended, "seed {seed} step {step}");
        assert_eq!(picture(&stage.table), model.picture(), "seed {seed} step {step}");
        check(&stage.table);
        assert!(!oracle::has_circle(&edges(&model.picture())), "seed {seed} step {step}");
    }
    for owner in 0..owners {
        stage.release(owner);
        stage.ended();
    }
    assert!(oracle::is_empty(&stage.table));
}

#[test]
fn a_model_decides_the_same() {
    let seeds = std::env::var("FOREWORD_LOCK_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let mut seen = Seen::default();
    (0..seeds).for_each(|seed| run(seed, &mut seen));
    println!("{seen:?}");
    // What is to be tested did happen.
    let counts = [seen.granted, seen.waits, seen.circles, seen.long_circles, seen.upgrades_waited, seen.in_use];
    assert!(counts.iter().all(|&n| n > seeds / 8), "{seen:?}");
}
