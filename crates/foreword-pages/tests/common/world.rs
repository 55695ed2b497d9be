//! Random transactions, crashes in work and in recovery, and the model that the store is checked
//! against.

use std::collections::BTreeMap;
use std::rc::Rc;

use foreword::Durability;
use foreword_pages::{Options, PageId, Savepoint, Store, Txn};
use foreword_sim::{Choice, SimDisk};

use super::rng::Rng;
use super::{Checked, DIR, number, options};

/// Pages that are in use, with what is in them.
type Contents = BTreeMap<PageId, Rc<Vec<u8>>>;

/// The first page that is ever allocated. It has the number of the state that the pages are in.
const FIRST: PageId = PageId(2);

/// The root in a state. It differs from state to state, so that each commit names one.
fn root(states: &[Contents], at: usize) -> Option<PageId> {
    states[at].keys().nth(at % states[at].len().max(1)).copied()
}

/// All states that were committed, in order.
#[derive(Clone, Debug)]
pub struct Model {
    states: Vec<Contents>,
    /// The state that must come back, or a later one.
    durable: usize,
}

/// A transaction under way.
struct Open {
    txn: Txn,
    delta: Delta,
    savepoints: Vec<(Savepoint, Delta)>,
}

#[derive(Clone, Debug, Default)]
struct Delta {
    written: Contents,
    freed: Vec<PageId>,
}

#[derive(Clone)]
pub struct World {
    pub disk: SimDisk,
    pub model: Model,
    pub rng: Rng,
    pub crashes: u64,
    pub page_bytes: usize,
    /// Each opening switches full page images on or off.
    pub switches_images: bool,
    /// Pages are logged whole, so a crash may tear them.
    pub may_tear: bool,
}

impl World {
    pub fn new(seed: u64) -> World {
        let model = Model { states: vec![Contents::new()], durable: 0 };
        let (disk, rng) = (SimDisk::new(seed), Rng::new(seed));
        World { disk, model, rng, crashes: 0, page_bytes: 4096, switches_images: false, may_tear: true }
    }

    fn options(&self, threads: usize, images: bool) -> Options {
        let options = options(&self.disk, threads).page_bytes(self.page_bytes).pool_bytes(16 * self.page_bytes);
        options.full_page_images(images)
    }

    /// Opens the store, with up to this many crashes in recovery, and checks it against the model.
    pub fn reopen(&mut self, mut crashes: u32) -> Checked<Store> {
        let threads = 1 + self.rng.below(3) as usize;
        loop {
            if crashes > 0 {
                self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(40));
            }
            let images = !self.switches_images || self.rng.chance(50);
            // An opening that switches and crashes may have switched or not.
            self.may_tear &= images;
            let opened = self.options(threads, images).open(DIR);
            if self.disk.is_off() {
                drop(opened);
                self.crash();
                crashes -= 1;
                continue;
            }
            self.disk.power_off_at(u64::MAX);
            let store = opened.map_err(|e| format!("the store does not open: {e}"))?;
            self.may_tear = images;
            self.check(&store)?;
            return Ok(store);
        }
    }

    /// The power fails, or the process is killed.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.disk = match self.rng.below(10) {
            0 => self.disk.crash(&Choice::None),
            1 => self.disk.crash(&Choice::All),
            2 => self.disk.kill(),
            _ if self.may_tear => self.disk.crash(&Choice::Seed(self.rng.next())),
            _ => self.disk.crash(&Choice::Writes(self.rng.next())),
        };
    }

    fn check(&mut self, store: &Store) -> Checked {
        let Model { states, durable } = &self.model;
        let at = match store.read(FIRST) {
            Ok(page) => number(&page),
            Err(foreword_pages::Error::NotAllocated { .. }) => 0,
            Err(e) => return Err(format!("the first page cannot be read: {e}")),
        };
        if at < *durable || at >= states.len() {
            return Err(format!("state {at} came back; durable was {durable}, and the last {}", states.len() - 1));
        }
        let (named, expected) = (store.root().map_err(|e| format!("state {at}, the root: {e}"))?, root(states, at));
        if named != expected {
            return Err(format!("state {at}: the root is {named:?} instead of {expected:?}"));
        }
        for (&id, bytes) in &states[at] {
            let page = store.read(id).map_err(|e| format!("state {at}, page {id}: {e}"))?;
            if let Some(byte) = (0..page.len()).find(|&i| page[i] != bytes[i]) {
                return Err(format!("state {at}, page {id}, byte {byte}: {} instead of {}", page[byte], bytes[byte]));
            }
        }
        let stats = store.stats();
        if stats.pages_used != states[at].len() as u64 {
            return Err(format!("state {at}: {} pages are in use instead of {}", stats.pages_used, states[at].len()));
        }
        self.model.states.truncate(at + 1);
        self.model.durable = at;
        Ok(())
    }

    /// Works until the power fails, or this many steps are done. Unless the power failed, the store
    /// is closed or dropped then.
    pub fn live(&mut self, store: Store, steps: u32) -> Checked {
        let World { disk, model, rng, .. } = self;
        let mut open: Vec<Open> = Vec::new();
        for _ in 0..steps {
            let done = step(&store, model, rng, &mut open);
            match done {
                _ if disk.is_off() => break,
                Ok(()) => {}
                Err(e) => return Err(format!("a step failed: {e}")),
            }
        }
        // Transactions that are alive when the store is closed, or its disk is copied, are losers.
        let lost = if !disk.is_off() && rng.chance(50) { std::mem::take(&mut open) } else { Vec::new() };
        drop(open);
        if !disk.is_off() && rng.chance(20) {
            // They may have changes in the pages that this writes.
            let closed = store.close();
            if !disk.is_off() {
                closed.map_err(|e| format!("closing failed: {e}"))?;
            }
        } else {
            // The crash comes before anything that dropping the store does.
            let before = disk.copy();
            drop(store);
            *disk = before;
        }
        drop(lost);
        Ok(())
    }

    /// Runs one life after the other, each ended by a crash.
    pub fn run(&mut self, lives: u32) -> Checked {
        for _ in 0..lives {
            let deep = self.rng.below(4) as u32;
            let store = self.reopen(deep.min(2))?;
            self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(150));
            self.live(store, 120)?;
            self.crash();
        }
        drop(self.reopen(0)?);
        // A second opening finds nothing to do, and does nothing twice.
        drop(self.reopen(0)?);
        Ok(())
    }
}

impl Open {
    /// Writes random bytes at a random place of a page.
    fn update(&mut self, id: PageId, last: &Contents, len: u64, rng: &mut Rng) -> foreword_pages::Result<()> {
        let offset = rng.below(len);
        let most = if rng.chance(10) { len } else { 40 };
        let size = (1 + rng.below(most)).min(len - offset);
        let bytes: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
        self.txn.update(id, offset as usize, &bytes)?;
        let page = self.delta.written.entry(id).or_insert_with(|| last[&id].clone());
        Rc::make_mut(page)[offset as usize..][..size as usize].copy_from_slice(&bytes);
        Ok(())
    }

    fn rollback_to(&mut self, savepoint: usize) -> foreword_pages::Result<()> {
        let Open { txn, delta, savepoints } = self;
        txn.rollback_to(&savepoints[savepoint].0)?;
        *delta = savepoints[savepoint].1.clone();
        savepoints.truncate(savepoint + 1);
        Ok(())
    }
}

/// Runs one step of one of up to three transactions.
fn step(store: &Store, model: &mut Model, rng: &mut Rng, open: &mut Vec<Open>) -> foreword_pages::Result<()> {
    if model.states.len() == 1 {
        // The very first transaction takes the first page.
        let mut txn = store.begin();
        assert_eq!(txn.allocate()?, FIRST);
        let delta = Delta { written: Contents::from([(FIRST, Rc::new(vec![0; store.page_len()]))]), ..Delta::default() };
        return commit(model, rng, Open { txn, delta, savepoints: Vec::new() });
    }
    if open.is_empty() || open.len() < 3 && rng.chance(20) {
        open.push(Open { txn: store.begin(), delta: Delta::default(), savepoints: Vec::new() });
        return Ok(());
    }
    let at = rng.below(open.len() as u64) as usize;
    let last = model.states.last().unwrap();
    // Pages that no other transaction changes.
    let is_taken = |id: &PageId| {
        *id == FIRST
            || open.iter().enumerate().any(|(i, o)| i != at && o.delta.written.contains_key(id) || o.delta.freed.contains(id))
    };
    let mine: Vec<PageId> = last.keys().chain(open[at].delta.written.keys()).copied().filter(|id| !is_taken(id)).collect();
    match rng.below(100) {
        0..50 if !mine.is_empty() => {
            let id = *rng.pick(&mine);
            open[at].update(id, last, store.page_len() as u64, rng)?;
        }
        0..62 if last.len() < 60 => {
            let page = open[at].txn.allocate()?;
            open[at].delta.written.insert(page, Rc::new(vec![0; store.page_len()]));
        }
        62..68 if mine.len() > 20 => {
            let id = *rng.pick(&mine);
            open[at].txn.free(id)?;
            open[at].delta.freed.push(id);
        }
        68..72 => {
            let savepoint = open[at].txn.savepoint();
            let delta = open[at].delta.clone();
            open[at].savepoints.push((savepoint, delta));
        }
        72..76 if !open[at].savepoints.is_empty() => {
            let to = rng.below(open[at].savepoints.len() as u64) as usize;
            open[at].rollback_to(to)?;
        }
        76..82 => {
            // The root is taken back with its transaction: by rollback, or by recovery.
            let Open { mut txn, .. } = open.swap_remove(at);
            txn.set_root(rng.chance(80).then(|| *rng.pick(&last.keys().copied().collect::<Vec<_>>())))?;
            match rng.below(6) {
                0 | 1 => txn.abort()?,
                2 => drop(store.checkpoint_all()?),
                _ => {}
            }
        }
        82..94 => return commit(model, rng, open.swap_remove(at)),
        94..99 => {
            let done = if rng.chance(20) { store.checkpoint_all()? } else { store.checkpoint()? };
            assert!(done.log_start <= done.redo_from && done.redo_from <= done.begin);
            model.durable = model.states.len() - 1;
        }
        _ => {}
    }
    Ok(())
}

fn commit(model: &mut Model, rng: &mut Rng, open: Open) -> foreword_pages::Result<()> {
    let Open { mut txn, delta, .. } = open;
    let last = model.states.last().unwrap();
    let mut state = last.clone();
    state.extend(delta.written);
    delta.freed.iter().for_each(|id| drop(state.remove(id)));
    let n = model.states.len();
    txn.update(FIRST, 0, &(n as u64).to_le_bytes())?;
    Rc::make_mut(state.get_mut(&FIRST).unwrap())[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let durability = *rng.pick(&[Durability::Synced, Durability::Synced, Durability::Buffered, Durability::Written]);
    // From here on the new state may come back.
    model.states.push(state);
    txn.set_root(root(&model.states, n))?;
    txn.commit_with(durability)?;
    if durability == Durability::Synced {
        model.durable = n;
    }
    Ok(())
}
