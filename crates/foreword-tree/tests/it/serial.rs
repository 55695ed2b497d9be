//! Serializability: threads append to lists and read them, as short transactions and long ones, on
//! so few keys that they meet all the time; and a checker looks for what no serial order explains.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};

use foreword_sim::{Choice, SimDisk};
use foreword_tree::foreword_pages::foreword::Durability;
use foreword_tree::{Db, Error, Result, Tree, Txn};

use crate::common::{Checked, DIR, Rng, crashes_wanted, options};
use crate::history::{self, Op, Outcome, Transaction};

const THREADS: u64 = 4;
/// Keys with lists.
const KEYS: u64 = 10;

fn key(n: u64) -> [u8; 3] {
    [b'k', n as u8, b'!']
}

/// The list of a value. What fills the value up is not part of it.
fn list(value: &[u8]) -> Vec<u64> {
    let (len, rest) = value.split_first().unwrap();
    rest.chunks(8).take(usize::from(*len)).map(|n| u64::from_le_bytes(n.try_into().unwrap())).collect()
}

fn value(list: &[u64], fill: u64) -> Vec<u8> {
    let mut bytes = vec![list.len() as u8];
    list.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.resize(bytes.len() + fill as usize, 0xff);
    bytes
}

/// One transaction at work.
struct Worker<'w> {
    txn: Txn,
    tree: Tree,
    rng: &'w mut Rng,
    next: &'w AtomicU64,
    ops: Vec<Op>,
}

impl Worker<'_> {
    fn append(&mut self, key_number: u64) -> Result<()> {
        let (tree, name, fresh) = (self.tree, key(key_number), self.next.fetch_add(1, Ordering::SeqCst));
        let found = if self.rng.chance(50) { self.txn.get_for_update(tree, name)? } else { self.txn.get(tree, name)? };
        let mut all = found.as_deref().map_or(Vec::new(), list);
        self.ops.push(Op::Read { key: key_number, list: all.clone() });
        all.push(fresh);
        // A list that is gone for a while.
        if self.rng.chance(40) && found.is_some() {
            assert!(self.txn.delete(tree, name)?);
            self.dither()?;
        }
        self.txn.put(tree, name, value(&all, self.rng.below(600)))?;
        self.ops.push(Op::Append { key: key_number, value: fresh });
        Ok(())
    }

    /// Lets others in between, and changes what is no list: so pages split and are joined.
    fn dither(&mut self) -> Result<()> {
        for _ in 0..self.rng.below(3) {
            std::thread::yield_now();
        }
        if self.rng.chance(40) {
            // Some have so much in common that what parts their pages is long, and the tree high.
            let (n, common) = (self.rng.below(KEYS), if self.rng.chance(50) { 0 } else { 380 });
            let name = [&key(n)[..2], &vec![b'x'; common], &[self.rng.below(4) as u8]].concat();
            if self.rng.chance(50) {
                self.txn.put(self.tree, name, vec![0; self.rng.below(900) as usize])?;
            } else {
                self.txn.delete(self.tree, name)?;
            }
        }
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        let from = self.rng.below(KEYS);
        let to = from + 1 + self.rng.below(KEYS - from);
        let (low, high) = ([b'k', from as u8], [b'k', to as u8]);
        let range = &low[..]..&high[..];
        let is_back = self.rng.chance(50);
        let scan = if is_back { self.txn.scan_back(self.tree, range) } else { self.txn.scan(self.tree, range) };
        let mut found = scan.collect::<Result<Vec<_>>>()?;
        if is_back {
            found.reverse();
        }
        let lists = found.iter().filter(|(key, _)| key[2] == b'!').map(|(key, value)| (u64::from(key[1]), list(value)));
        self.ops.push(Op::Scan { keys: from..to, found: lists.collect() });
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        for _ in 0..1 + self.rng.below(4) {
            let n = self.rng.below(KEYS);
            match self.rng.below(10) {
                0..5 => self.append(n)?,
                5..7 => {
                    let found = self.txn.get(self.tree, key(n))?;
                    self.ops.push(Op::Read { key: n, list: found.as_deref().map_or(Vec::new(), list) });
                }
                _ => self.scan()?,
            }
            self.dither()?;
        }
        Ok(())
    }
}

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Threads run transactions, so many each, and perhaps until the power fails.
struct Contention {
    db: Db,
    tree: Tree,
    disk: SimDisk,
    history: Mutex<Vec<Transaction>>,
    failure: Mutex<Option<String>>,
    clock: AtomicU64,
    next: AtomicU64,
}

impl Contention {
    fn new(seed: u64) -> Checked<Contention> {
        let disk = SimDisk::new(seed);
        let db = open(&disk)?;
        let tree = db.tree("lists").map_err(|e| e.to_string())?;
        let (history, failure) = (Mutex::default(), Mutex::default());
        Ok(Contention { db, tree, disk, history, failure, clock: AtomicU64::new(0), next: AtomicU64::new(1) })
    }

    fn run(&self, seed: u64, rounds: u64, durability: Durability) -> Checked {
        let (start, left) = (Barrier::new(THREADS as usize), AtomicU64::new(THREADS));
        std::thread::scope(|scope| {
            // Whatever the others do, all pages fit together.
            scope.spawn(|| {
                while left.load(Ordering::SeqCst) > 0 && !self.disk.is_off() {
                    match self.db.verify(false) {
                        Err(error @ Error::Damaged { .. }) => _ = self.failure.lock().unwrap().insert(error.to_string()),
                        _ => std::thread::yield_now(),
                    }
                }
            });
            for thread in 0..THREADS {
                let (start, left, mut rng) = (&start, &left, Rng::new(seed * 1000 + thread));
                scope.spawn(move || {
                    let _ends = OnDrop(|| _ = left.fetch_sub(1, Ordering::SeqCst));
                    start.wait();
                    for _ in 0..rounds {
                        let done = catch_unwind(AssertUnwindSafe(|| self.transaction(&mut rng, durability)));
                        if self.disk.is_off() || self.failure.lock().unwrap().is_some() {
                            return;
                        }
                        let failed = done.map_or_else(|_| Some("a panic".to_owned()), Result::err);
                        if let Some(failed) = failed {
                            self.failure.lock().unwrap().get_or_insert(failed);
                        }
                    }
                });
            }
        });
        self.failure.lock().unwrap().take().map_or(Ok(()), Err)
    }

    fn transaction(&self, rng: &mut Rng, durability: Durability) -> Checked {
        let began = self.clock.fetch_add(1, Ordering::SeqCst);
        let mut worker = Worker { txn: self.db.begin(), tree: self.tree, rng, next: &self.next, ops: Vec::new() };
        let done = worker.work();
        let Worker { txn, ops, rng, .. } = worker;
        let gives_up = rng.chance(15);
        let is_read_only = ops.iter().all(|op| !matches!(op, Op::Append { .. }));
        let ended = match &done {
            Ok(()) if gives_up => txn.abort().map(|()| Outcome::Aborted),
            Ok(()) => txn.commit_with(durability).map(|_| Outcome::Committed),
            Err(_) => txn.abort().map(|()| Outcome::Aborted),
        };
        let error = match (ended, done) {
            (Ok(outcome), Ok(()) | Err(Error::Deadlock { .. })) => {
                let time = Some((began, self.clock.fetch_add(1, Ordering::SeqCst)));
                self.history.lock().unwrap().push(Transaction { ops, outcome, time });
                return Ok(());
            }
            (Err(error), _) | (_, Err(error)) => error,
        };
        // It was under way when the power failed, if that is why. (What it read alone says nothing.)
        if !is_read_only {
            self.history.lock().unwrap().push(Transaction { ops, outcome: Outcome::Unknown, time: None });
        }
        Err(error.to_string())
    }
}

fn open(disk: &SimDisk) -> Checked<Db> {
    Db::open_with(options(disk, 1).pool_bytes(64 * 4096), DIR).map_err(|e| e.to_string())
}

fn expect_serial(history: &[Transaction]) -> Checked {
    history::check(history).first().map_or(Ok(()), |anomaly| Err(anomaly.to_string()))
}

/// Returns how many transactions there were.
pub(crate) fn contended(seed: u64) -> Checked<u64> {
    let work = Contention::new(seed)?;
    work.run(seed, 60, Durability::Buffered)?;
    let history = work.history.into_inner().unwrap();
    expect_serial(&history)?;
    work.db.verify(true).map_err(|e| e.to_string())?;
    Ok(history.len() as u64)
}

/// The power fails. What is there afterwards must be explained, too, by transactions that had
/// committed, and some of those that were about to.
pub(crate) fn contended_and_cut(seed: u64) -> Checked<u64> {
    let Contention { db, tree, disk, history, clock, .. } = {
        let work = Contention::new(seed)?;
        work.disk.power_off_at(work.disk.changes() + 10 + Rng::new(seed).below(100));
        work.run(seed, 60, Durability::Synced)?;
        work
    };
    let after = disk.crash(&Choice::Seed(seed));
    drop(db);
    let db = open(&after)?;
    db.verify(true).map_err(|e| format!("after a crash: {e}"))?;
    let mut history = history.into_inner().unwrap();
    let (txn, mut ops) = (db.begin(), Vec::new());
    for n in 0..KEYS {
        let found = txn.get(tree, key(n)).map_err(|e| e.to_string())?;
        ops.push(Op::Read { key: n, list: found.as_deref().map_or(Vec::new(), list) });
    }
    let now = clock.into_inner();
    history.push(Transaction { ops, outcome: Outcome::Committed, time: Some((now, now + 1)) });
    expect_serial(&history)?;
    Ok(1)
}

#[test]
fn what_transactions_read_has_a_serial_order() {
    let (mut transactions, wanted) = (0, crashes_wanted(100) * 40);
    for seed in 0.. {
        transactions += contended(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        if transactions >= wanted {
            println!("{transactions} transactions, {} seeds", seed + 1);
            break;
        }
    }
}

#[test]
fn what_a_crash_leaves_of_many_threads_has_a_serial_order() {
    // (After some, threads wait ten seconds for the latches of a split that the failure has cut
    // short. So a campaign has not as many of these as of others.)
    for seed in 0..crashes_wanted(40).min(400) {
        contended_and_cut(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}
