//! Random transactions on a shared index: splits, rollbacks by key, savepoints and crashes, in work
//! and in recovery, and the model that the index is checked against.

use std::collections::{BTreeMap, BTreeSet};

use foreword::Durability;
use foreword_pages::{Error, PageId, Result, Savepoint, Store, Txn};
use foreword_sim::{Choice, SimDisk};

use super::rng::Rng;
use super::shelf::{Shelf, with_types};
use super::{Checked, DIR, number, options};

/// The page with the number of the state, and the index.
const FIRST: PageId = PageId(2);
const SHELF: Shelf = Shelf(PageId(3));
const KEYS: u64 = 120;

type Contents = BTreeMap<u32, u32>;

/// What a transaction has changed: the value of each key, or that there is none.
type Delta = BTreeMap<u32, Option<u32>>;

struct Open {
    txn: Txn,
    delta: Delta,
    savepoints: Vec<(Savepoint, Delta)>,
}

/// Transactions on one index, and all states that were committed.
#[derive(Clone)]
pub struct Shelves {
    pub disk: SimDisk,
    pub rng: Rng,
    pub crashes: u64,
    pub states: Vec<Contents>,
    pub durable: usize,
    /// What must not be, found within a transaction.
    pub violation: Option<String>,
}

impl Shelves {
    pub fn new(seed: u64) -> Shelves {
        let (disk, rng) = (SimDisk::new(seed), Rng::new(seed));
        Shelves { disk, rng, crashes: 0, states: vec![Contents::new()], durable: 0, violation: None }
    }

    /// Opens the store, with up to this many crashes in recovery, and checks it against the model.
    pub fn reopen(&mut self, mut crashes: u32) -> Checked<Store> {
        loop {
            if crashes > 0 {
                self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(30));
            }
            let opened = with_types(options(&self.disk, 1 + self.rng.below(3) as usize)).open(DIR);
            if self.disk.is_off() {
                drop(opened);
                self.crash();
                crashes -= 1;
                continue;
            }
            self.disk.power_off_at(u64::MAX);
            let store = opened.map_err(|e| format!("the store does not open: {e}"))?;
            self.check(&store)?;
            return Ok(store);
        }
    }

    pub fn crash(&mut self) {
        self.crashes += 1;
        self.disk = match self.rng.below(8) {
            0 => self.disk.crash(&Choice::None),
            1 => self.disk.crash(&Choice::All),
            2 => self.disk.kill(),
            _ => self.disk.crash(&Choice::Seed(self.rng.next())),
        };
    }

    fn check(&mut self, store: &Store) -> Checked {
        let at = match store.read(FIRST) {
            Ok(page) => number(&page),
            Err(Error::NotAllocated { .. }) => 0,
            Err(e) => return Err(format!("the first page cannot be read: {e}")),
        };
        if at < self.durable || at >= self.states.len() {
            return Err(format!("state {at} came back; durable was {}, the last {}", self.durable, self.states.len() - 1));
        }
        if at > 0 {
            let (found, pages) = SHELF.read(&store.session()).map_err(|e| format!("state {at}: {e}"))?;
            if found != self.states[at] {
                let keys: BTreeSet<_> = found.keys().chain(self.states[at].keys()).collect();
                let wrong = keys.into_iter().find(|key| found.get(key) != self.states[at].get(key));
                return Err(format!("state {at}: the key {wrong:?} is not as it was committed"));
            }
            let used = store.stats().pages_used;
            if used != pages + 1 {
                return Err(format!("state {at}: {used} pages are in use instead of {}", pages + 1));
            }
        }
        self.states.truncate(at + 1);
        self.durable = at;
        Ok(())
    }

    /// Works until the power fails, or this many steps are done.
    pub fn live(&mut self, store: Store, steps: u32) -> Checked {
        let mut open: Vec<Open> = Vec::new();
        for _ in 0..steps {
            let done = self.step(&store, &mut open);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            match done {
                _ if self.disk.is_off() => break,
                Ok(()) => {}
                Err(e) => return Err(format!("a step failed: {e}")),
            }
        }
        let before = self.disk.copy();
        drop((open, store));
        self.disk = before;
        Ok(())
    }

    /// Runs one life after the other, each ended by a crash.
    pub fn run(&mut self, lives: u32) -> Checked {
        for _ in 0..lives {
            let deep = self.rng.below(4) as u32;
            let store = self.reopen(deep.min(2))?;
            self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(100));
            self.live(store, 150)?;
            self.crash();
        }
        drop(self.reopen(0)?);
        drop(self.reopen(0)?);
        Ok(())
    }

    /// Runs one step of one of up to three transactions.
    fn step(&mut self, store: &Store, open: &mut Vec<Open>) -> Result<()> {
        if self.states.len() == 1 {
            let mut txn = store.begin();
            assert_eq!(txn.allocate()?, FIRST);
            assert_eq!(Shelf::new(&mut txn)?.0, SHELF.0);
            return self.commit(Open { txn, delta: Delta::new(), savepoints: Vec::new() });
        }
        if open.is_empty() || open.len() < 3 && self.rng.chance(20) {
            open.push(Open { txn: store.begin(), delta: Delta::new(), savepoints: Vec::new() });
            return Ok(());
        }
        let at = self.rng.below(open.len() as u64) as usize;
        let key = self.rng.below(KEYS) as u32;
        let is_taken = open.iter().enumerate().any(|(other, o)| other != at && o.delta.contains_key(&key));
        match self.rng.below(100) {
            0..60 if !is_taken => self.change(store, &mut open[at], key)?,
            60..65 => SHELF.shrink(&mut open[at].txn)?,
            65..69 => {
                let Open { txn, delta, savepoints } = &mut open[at];
                savepoints.push((txn.savepoint(), delta.clone()));
            }
            69..75 if !open[at].savepoints.is_empty() => {
                let to = self.rng.below(open[at].savepoints.len() as u64) as usize;
                let Open { txn, delta, savepoints } = &mut open[at];
                txn.rollback_to(&savepoints[to].0)?;
                *delta = savepoints[to].1.clone();
                savepoints.truncate(to + 1);
            }
            75..80 => open.swap_remove(at).txn.abort()?,
            80..93 => return self.commit(open.swap_remove(at)),
            93..98 => {
                if self.rng.chance(20) { store.checkpoint_all() } else { store.checkpoint() }?;
                self.durable = self.states.len() - 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Inserts a key, or removes it.
    fn change(&mut self, store: &Store, open: &mut Open, key: u32) -> Result<()> {
        let Shelves { rng, states, durable, violation, .. } = self;
        let committed = states[states.len() - 1].get(&key).copied();
        match open.delta.get(&key).copied().unwrap_or(committed) {
            Some(value) => {
                assert_eq!(SHELF.remove(&mut open.txn, key)?, Some(value));
                open.delta.insert(key, None);
            }
            None => {
                let value = rng.next() as u32;
                let fails = rng.chance(30);
                let between = &mut |txn: &Txn, page| {
                    // The log becomes durable, the pages are written, and the split fails.
                    if store.begin().try_fetch_exclusive(page)?.is_some() {
                        *violation = Some(format!("another has page {page} before its split is closed"));
                    }
                    drop(txn.try_fetch_exclusive(page)?);
                    if rng.chance(50) {
                        if rng.chance(50) { store.checkpoint() } else { store.checkpoint_all() }?;
                        *durable = states.len() - 1;
                    }
                    if fails { txn.fetch_shared(PageId(0)).map(drop) } else { Ok(()) }
                };
                match SHELF.insert(&mut open.txn, key, value, between) {
                    Ok(is_new) => assert!(is_new),
                    Err(Error::NotAllocated { page: PageId(0), .. }) => return Ok(()),
                    Err(e) => return Err(e),
                }
                open.delta.insert(key, Some(value));
            }
        }
        Ok(())
    }

    fn commit(&mut self, open: Open) -> Result<()> {
        let Open { mut txn, delta, .. } = open;
        let mut state = self.states[self.states.len() - 1].clone();
        for (key, value) in delta {
            match value {
                Some(value) => _ = state.insert(key, value),
                None => _ = state.remove(&key),
            }
        }
        let n = self.states.len();
        txn.update(FIRST, 0, &(n as u64).to_le_bytes())?;
        self.states.push(state);
        let durability = *self.rng.pick(&[Durability::Synced, Durability::Synced, Durability::Buffered]);
        txn.commit_with(durability)?;
        if durability == Durability::Synced {
            self.durable = n;
        }
        Ok(())
    }
}
