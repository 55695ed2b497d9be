//! Threads that lock at random: all go on, and a victim was in a circle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use super::model::Rng;
use super::oracle::{check, edges, has_circle, picture};
use super::*;

const THREADS: u64 = 8;
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Longer than any wait that ends.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct World {
    locks: Locks,
    /// What the owners know to have: no more than what they have.
    known: Mutex<BTreeMap<(usize, u64), Mode>>,
    owners: AtomicU64,
    ended: AtomicU64,
    victims: AtomicU64,
    is_over: AtomicBool,
    /// Some waits have an end: then a circle may dissolve while it is looked at.
    has_deadlines: bool,
}

impl World {
    /// Whether the owner had none of it before.
    fn took(&self, at: usize, owner: u64, mode: Mode) -> bool {
        let mut known = self.known.lock().unwrap();
        let before = known.insert((at, owner), mode);
        if before == Some(X) {
            known.insert((at, owner), X);
        }
        let mut others = known.range((at, 0)..=(at, u64::MAX)).filter(|other| other.0.1 != owner);
        assert!(others.all(|(_, &held)| (mode, held) == (S, S)), "{owner} took {at} {mode:?}");
        before.is_none()
    }

    /// Until the victim lets go, the others in the circle cannot go on: they wait as it says.
    fn check_circle(&self, circle: &[u64], at: usize, mode: Mode) {
        let mut picture = picture(&self.locks.table());
        let name = [&[0; 9], KEYS[at].as_bytes()].concat();
        let (holders, queue) = picture.get_mut(&name).unwrap();
        let place = if holders.contains_key(&circle[0]) { 0 } else { queue.len() };
        queue.insert(place, (circle[0], mode));
        let edges = edges(&picture);
        let next = circle.iter().cycle().skip(1);
        assert!(circle.iter().zip(next).all(|(&a, &b)| edges.contains(&(a, b))), "{circle:?} in {edges:?}");
    }

    fn transaction(&self, rng: &mut Rng) {
        let owner = self.owners.fetch_add(1, Relaxed);
        for _ in 0..1 + rng.below(5) {
            let (at, mode) = (rng.below(KEYS.len() as u64) as usize, if rng.below(10) < 6 { S } else { X });
            let target = key(KEYS[at]);
            let took = match rng.below(10) {
                0 => self.locks.try_lock(owner, target, mode),
                1 if self.has_deadlines => {
                    self.locks.lock_until(owner, target, mode, Instant::now() + Duration::from_micros(rng.below(300)))
                }
                _ => self.locks.lock(owner, target, mode).map(|()| true),
            };
            match took {
                Ok(true) => {
                    let is_new = self.took(at, owner, mode);
                    if is_new && rng.below(4) == 0 {
                        self.known.lock().unwrap().remove(&(at, owner));
                        assert!(self.locks.unlock(owner, target, mode));
                    }
                }
                Ok(false) => (),
                Err(Error::Deadlock { owners }) => {
                    assert_eq!(owners[0], owner);
                    self.victims.fetch_add(1, Relaxed);
                    if !self.has_deadlines {
                        self.check_circle(&owners, at, mode);
                    }
                    break;
                }
                Err(other) => panic!("{other}"),
            }
            if rng.below(2) == 0 {
                thread::yield_now();
            }
        }
        self.known.lock().unwrap().retain(|known, _| known.1 != owner);
        self.locks.release(owner);
        self.ended.fetch_add(1, Relaxed);
    }

    /// Looks at the table again and again, while threads work, for so long, and until there were
    /// some victims.
    fn watch(&self, threads: &[JoinHandle<()>], time: Duration) {
        let begin = Instant::now();
        let mut last = (0, begin);
        let is_enough = || begin.elapsed() >= time && self.victims.load(Relaxed) >= 5;
        while !is_enough() && !threads.iter().any(JoinHandle::is_finished) {
            {
                let table = self.locks.table();
                check(&table);
                assert!(!has_circle(&edges(&picture(&table))));
            }
            let ended = self.ended.load(Relaxed);
            if ended > last.0 {
                last = (ended, Instant::now());
            }
            assert!(last.1.elapsed() < PATIENCE, "no transaction ends: {:?}", self.locks);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn work(world: World) {
    let seconds = std::env::var("FOREWORD_LOCK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(0.5);
    let world = Arc::new(world);
    let work = |seed| {
        let world = world.clone();
        thread::spawn(move || {
            let mut rng = Rng(seed);
            while !world.is_over.load(Relaxed) {
                world.transaction(&mut rng);
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(work).collect();
    world.watch(&threads, Duration::from_secs_f64(seconds));
    world.is_over.store(true, Relaxed);
    let begin = Instant::now();
    while !threads.iter().all(JoinHandle::is_finished) {
        assert!(begin.elapsed() < PATIENCE, "a thread does not end: {:?}", world.locks);
        thread::sleep(Duration::from_millis(1));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(oracle::is_empty(&world.locks.table()));
    println!("{} transactions, {} victims", world.ended.load(Relaxed), world.victims.load(Relaxed));
}

#[test]
fn threads_go_on_and_victims_were_in_a_circle() {
    work(World::default());
}

#[test]
fn threads_go_on_that_give_up() {
    work(World { has_deadlines: true, ..World::default() });
}

/// All take the same keys in the same order: many wait, and there is never a victim.
#[test]
fn in_one_order_there_is_no_victim() {
    let locks = Locks::new();
    let counts: [AtomicU64; 3] = Default::default();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (locks, counts) = (&locks, &counts);
            scope.spawn(move || {
                for i in 0..500 {
                    let owner = thread * 500 + i;
                    for (name, count) in KEYS.iter().zip(counts) {
                        locks.lock(owner, key(name), X).unwrap();
                        // No other thread comes between.
                        let seen = count.load(Relaxed);
                        thread::yield_now();
                        count.store(seen + 1, Relaxed);
                    }
                    locks.release(owner);
                }
            });
        }
    });
    assert!(counts.iter().all(|count| count.load(Relaxed) == THREADS * 500));
}
