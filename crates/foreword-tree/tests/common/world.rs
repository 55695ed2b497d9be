//! Random transactions on trees: keys that move under each other, rollbacks, long values, splits
//! and joins, and crashes, in work and in recovery; and the model that the trees are checked
//! against.

use std::collections::BTreeMap;
use std::ops::Bound;

use foreword_sim::{Choice, SimDisk};
use foreword_tree::foreword_pages::foreword::Durability;
use foreword_tree::{Db, Error, Result, Tree, Txn};

use super::{Checked, DIR, Rng, options};

pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a transaction has changed: the value of each key, or that there is none.
type Delta = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

struct Open {
    txn: Txn,
    delta: Delta,
}

/// Transactions on trees, and all states that were committed.
#[derive(Clone)]
pub struct World {
    pub disk: SimDisk,
    pub rng: Rng,
    pub crashes: u64,
    pub states: Vec<Contents>,
    pub durable: usize,
    /// What must not be, found within a transaction.
    pub violation: Option<String>,
    /// The trees were there when a crash came.
    pub trees: Option<(Tree, Tree)>,
    /// How many keys there can be.
    pub keys: u64,
    /// Whether more keys come than go: it changes every now and then.
    pub grows: bool,
    /// Keys have so much in common that trees get high.
    pub is_high: bool,
    /// The levels of the highest tree that there was.
    pub levels: u64,
}

/// The key of the number of the state. It has a tree of its own.
const STATE: &str = "state";

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let (keys, is_high) = ([12, 60, 300][rng.below(3) as usize], rng.chance(50));
        World {
            disk: SimDisk::new(seed),
            rng,
            crashes: 0,
            states: vec![Contents::new()],
            durable: 0,
            violation: None,
            trees: None,
            keys,
            grows: true,
            is_high,
            levels: 0,
        }
    }

    /// Opens the store, with up to this many crashes in recovery, and checks it against the model.
    pub fn reopen(&mut self, mut crashes: u32) -> Checked<Db> {
        loop {
            if crashes > 0 {
                self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(40));
            }
            let opened = Db::open_with(options(&self.disk, 1 + self.rng.below(3) as usize), DIR);
            if self.disk.is_off() {
                drop(opened);
                self.crash();
                crashes -= 1;
                continue;
            }
            self.disk.power_off_at(u64::MAX);
            let db = opened.map_err(|e| format!("the store does not open: {e}"))?;
            self.check(&db)?;
            return Ok(db);
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

    fn check(&mut self, db: &Db) -> Checked {
        let told = |e: Error| e.to_string();
        let verified = db.verify(true).map_err(|e| format!("after a crash: {e}"))?;
        self.levels = self.levels.max(verified.levels);
        let names = db.trees().map_err(told)?;
        let has_all = ["numbers", "work"].iter().all(|name| names.iter().any(|n| n == name));
        if !has_all {
            return if self.durable == 0 { Ok(()) } else { Err("a tree is gone".into()) };
        }
        let (numbers, work) = (db.tree("numbers").map_err(told)?, db.tree("work").map_err(told)?);
        let txn = db.begin();
        let at = txn.get(numbers, STATE).map_err(told)?.map_or(0, |n| u64::from_le_bytes(n.try_into().unwrap()) as usize);
        if at < self.durable || at >= self.states.len() {
            return Err(format!("state {at} came back; durable was {}, the last {}", self.durable, self.states.len() - 1));
        }
        let found: Contents = txn.scan(work, ..).collect::<Result<_>>().map_err(told)?;
        if found != self.states[at] || verified.keys != found.len() as u64 + u64::from(at > 0) {
            let all = found.keys().chain(self.states[at].keys());
            let wrong = all.into_iter().find(|key| found.get(*key) != self.states[at].get(*key));
            return Err(format!(
                "state {at}: the key {:?} is not as it was committed",
                wrong.map(|key| key.escape_ascii().to_string())
            ));
        }
        self.trees = Some((numbers, work));
        self.states.truncate(at + 1);
        self.durable = at;
        Ok(())
    }

    /// Works until the power fails, or this many steps are done.
    pub fn live(&mut self, db: Db, steps: u32) -> Checked {
        let mut open: Vec<Open> = Vec::new();
        for _ in 0..steps {
            let done = self.step(&db, &mut open);
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            match done {
                _ if self.disk.is_off() => break,
                // It is locked by another of the transactions. Nothing has happened.
                Ok(()) | Err(Error::Locked) => {}
                Err(e) => return Err(format!("a step failed: {e}")),
            }
        }
        let before = self.disk.copy();
        if self.disk.is_off() {
            // A top action that the failure has cut short keeps its latches. Rolling the others back
            // would wait for them, for ten seconds each; in a store that is closed it does not.
            let _ = db.clone().close();
        }
        drop((open, db));
        self.disk = before;
        Ok(())
    }

    /// Runs one life after the other, each ended by a crash.
    pub fn run(&mut self, lives: u32) -> Checked {
        for _ in 0..lives {
            let deep = self.rng.below(4) as u32;
            let db = self.reopen(deep.min(2))?;
            self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(150));
            self.live(db, 250)?;
            self.crash();
        }
        drop(self.reopen(0)?);
        drop(self.reopen(0)?);
        Ok(())
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.rng.below(self.keys);
        self.key_of(n)
    }

    fn key_of(&self, n: u64) -> Vec<u8> {
        if self.is_high {
            // What parts two pages is long, too, so that an inner page has room for few.
            return format!("{:02}/{:.<380}{n:04}", n % 5, "").into_bytes();
        }
        // Some are long, some begin alike.
        let len = if n.is_multiple_of(9) { 300 } else { n as usize * 7 % 30 };
        [format!("{:02}/key-{n:04}", n % 7).as_bytes(), &vec![b'.'; len]].concat()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.rng.below(20) {
            0 => self.rng.below(20_000),
            1..6 => self.rng.below(900),
            _ if self.is_high => 300 + self.rng.below(200),
            _ => self.rng.below(100),
        };
        vec![self.rng.next() as u8; len as usize]
    }

    /// What a transaction sees.
    fn seen(&self, delta: &Delta) -> Contents {
        let mut seen = self.states[self.states.len() - 1].clone();
        for (key, value) in delta {
            match value {
                Some(value) => _ = seen.insert(key.clone(), value.clone()),
                None => _ = seen.remove(key),
            }
        }
        seen
    }

    fn expect<T: PartialEq>(&mut self, found: &T, expected: &T, what: &str) {
        if found != expected {
            self.violation.get_or_insert_with(|| format!("{what} is not what the transaction should see"));
        }
    }

    /// Runs one step of one of up to three transactions.
    fn step(&mut self, db: &Db, open: &mut Vec<Open>) -> Result<()> {
        let Some((numbers, work)) = self.trees else {
            self.trees = Some((db.tree("numbers")?, db.tree("work")?));
            return Ok(());
        };
        if self.rng.chance(1) {
            self.grows = !self.grows;
        }
        if self.is_high && self.states.len() == 1 {
            let (mut txn, mut delta) = (db.begin(), Delta::new());
            for n in 0..self.keys {
                let (key, value) = (self.key_of(n * 7 % self.keys), self.value());
                txn.put(work, &key, &value)?;
                delta.insert(key, Some(value));
            }
            return self.commit(Open { txn, delta }, numbers);
        }
        if open.is_empty() || open.len() < 3 && self.rng.chance(20) {
            let mut txn = db.begin();
            txn.waits(false);
            open.push(Open { txn, delta: Delta::new() });
            return Ok(());
        }
        let at = self.rng.below(open.len() as u64) as usize;
        let key = self.key();
        let Open { txn, delta } = &mut open[at];
        match self.rng.below(100) {
            0..60 if self.rng.chance(if self.grows { 70 } else { 30 }) => {
                let value = self.value();
                if self.rng.chance(20) {
                    let is_new = txn.insert(work, &key, &value)?;
                    let expected = !self.seen(delta).contains_key(&key);
                    self.expect(&is_new, &expected, "a key that was to be new");
                    if is_new {
                        delta.insert(key, Some(value));
                    }
                } else {
                    txn.put(work, &key, &value)?;
                    delta.insert(key, Some(value));
                }
            }
            0..60 => {
                let there = txn.delete(work, &key)?;
                let expected = self.seen(delta).contains_key(&key);
                self.expect(&there, &expected, "a removed key");
                delta.insert(key, None);
            }
            60..66 => {
                let found = txn.get(work, &key)?;
                let expected = self.seen(delta).get(&key).cloned();
                self.expect(&found, &expected, "a key");
            }
            66..72 => {
                let to = self.key();
                let range = (Bound::Included(&key[..]), Bound::Excluded(&to[..]));
                let most = 1 + self.rng.below(40) as usize;
                let is_back = self.rng.chance(50);
                let scan = if is_back { txn.scan_back(work, range) } else { txn.scan(work, range) };
                let found: Vec<_> = scan.take(most).collect::<Result<_>>()?;
                let is_in = |entry: &(Vec<u8>, Vec<u8>)| key <= entry.0 && entry.0 < to;
                let mut expected: Vec<_> = self.seen(delta).into_iter().filter(is_in).collect();
                if is_back {
                    expected.reverse();
                }
                expected.truncate(most);
                self.expect(&found, &expected, "a range");
            }
            72..78 => open.swap_remove(at).txn.abort()?,
            78..92 => return self.commit(open.swap_remove(at), numbers),
            92..95 => {
                // What was read, and then committed, is durable.
                let txn = db.begin();
                let n = txn.get(numbers, STATE)?.map_or(0, |n| u64::from_le_bytes(n.try_into().unwrap()) as usize);
                self.expect(&n, &(self.states.len() - 1), "the state's number");
                txn.commit()?;
                self.durable = n;
            }
            95..99 => {
                if self.rng.chance(20) { db.store().checkpoint_all() } else { db.store().checkpoint() }?;
                self.durable = self.states.len() - 1;
            }
            _ => {
                self.levels = self.levels.max(db.verify(false)?.levels);
            }
        }
        Ok(())
    }

    fn commit(&mut self, open: Open, numbers: Tree) -> Result<()> {
        let Open { mut txn, delta } = open;
        let n = self.states.len();
        txn.put(numbers, STATE, (n as u64).to_le_bytes())?;
        self.states.push(self.seen(&delta));
        let durability = *self.rng.pick(&[Durability::Synced, Durability::Synced, Durability::Buffered]);
        txn.commit_with(durability)?;
        if durability == Durability::Synced {
            self.durable = n;
        }
        Ok(())
    }
}
