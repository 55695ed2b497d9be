//! The crash suite's two workloads, checked against a model. A violation is returned, not panicked, so that deliberate bugs can be counted.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod full;
/// The log's tests have it, too.
#[path = "../../../foreword/tests/common/hooked.rs"]
pub mod hooked;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use foreword::disk::Disk;
use foreword::{Durability, SyncPolicy};
use foreword_pages::{Options, PageId, Savepoint, Store, Txn};
use foreword_sim::{Choice, OpKind, SimDisk};

pub const DIR: &str = "/store";

/// What went wrong, in words.
pub type Checked<T = ()> = Result<T, String>;

#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A store that does nothing by itself and has hardly any memory, so that pages are stolen all the time.
pub fn options(disk: &SimDisk, threads: usize) -> Options {
    let log = foreword::Options::new()
        .segment_bytes(64 << 10)
        .buffer_bytes(512 << 10)
        .background(false)
        .sync(SyncPolicy::manual())
        .on_error(|_| ());
    // Recovery, too, has hardly any memory: its windows are many, and end early.
    let options = Options::new().page_bytes(4096).pool_bytes(16 * 4096).recovery_bytes(20_000);
    options.background(false).recovery_threads(threads).disk(disk.handle()).log(log)
}

/// Pages that are in use, with what is in them.
type State = BTreeMap<PageId, Rc<Vec<u8>>>;

/// The first page that is ever allocated. It says which state the pages are in.
const FIRST: PageId = PageId(2);

/// The page that is the root in a state: another in each, so that each commit names one.
fn root(states: &[State], at: usize) -> Option<PageId> {
    states[at].keys().nth(at % states[at].len().max(1)).copied()
}

/// All states that were committed, in order.
#[derive(Clone, Debug)]
pub struct Model {
    states: Vec<State>,
    /// This one, or a later one, must come back.
    durable: usize,
}

/// A transaction under way.
struct Open<'s> {
    txn: Txn<'s>,
    delta: Delta,
    savepoints: Vec<(Savepoint, Delta)>,
}

#[derive(Clone, Debug, Default)]
struct Delta {
    written: State,
    freed: Vec<PageId>,
}

#[derive(Clone)]
pub struct World {
    pub disk: SimDisk,
    pub model: Model,
    pub rng: Rng,
    pub crashes: u64,
    pub page_bytes: usize,
    /// Full page images are switched on and off from one opening to the next.
    pub switches_images: bool,
    /// Pages are logged whole, so that they may be torn.
    pub may_tear: bool,
}

impl World {
    pub fn new(seed: u64) -> World {
        let model = Model { states: vec![State::new()], durable: 0 };
        let (disk, rng) = (SimDisk::new(seed), Rng::new(seed));
        World { disk, model, rng, crashes: 0, page_bytes: 4096, switches_images: false, may_tear: true }
    }

    fn options(&self, threads: usize, images: bool) -> Options {
        let options = options(&self.disk, threads).page_bytes(self.page_bytes).pool_bytes(16 * self.page_bytes);
        options.full_page_images(images)
    }

    /// Opens the store, with up to so many crashes in recovery, and holds it to the model.
    pub fn reopen(&mut self, mut crashes: u32) -> Checked<Store> {
        let threads = 1 + self.rng.below(3) as usize;
        loop {
            if crashes > 0 {
                self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(40));
            }
            let images = !self.switches_images || self.rng.chance(50);
            // From one to the other there is no telling how far it came.
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

    /// Works until the power fails, or so many steps are done. Then (unless the power failed) the store is closed or dropped.
    pub fn live(&mut self, store: Store, steps: u32) -> Checked {
        let World { disk, model, rng, .. } = self;
        {
            let mut open: Vec<Open<'_>> = Vec::new();
            for _ in 0..steps {
                let done = step(&store, model, rng, &mut open);
                match done {
                    _ if disk.is_off() => break,
                    Ok(()) => {}
                    Err(e) => return Err(format!("a step failed: {e}")),
                }
            }
            // Transactions that are alive when the store goes are losers; they do not roll back.
            if !disk.is_off() && rng.chance(50) {
                open.into_iter().for_each(std::mem::forget);
            }
        }
        if !disk.is_off() && rng.chance(20) {
            // (Forgotten transactions may have changes in the pages that this writes.)
            let closed = store.close();
            if !disk.is_off() {
                closed.map_err(|e| format!("closing failed: {e}"))?;
            }
        } else {
            // Whatever dropping the store does comes after the crash.
            let before = disk.copy();
            drop(store);
            *disk = before;
        }
        Ok(())
    }

    /// One life after the other, each ended by a crash.
    pub fn run(&mut self, lives: u32) -> Checked {
        for _ in 0..lives {
            let deep = self.rng.below(4) as u32;
            let store = self.reopen(deep.min(2))?;
            self.disk.power_off_at(self.disk.changes() + 1 + self.rng.below(150));
            self.live(store, 120)?;
            self.crash();
        }
        drop(self.reopen(0)?);
        // And again: nothing is left to be done, or done twice.
        drop(self.reopen(0)?);
        Ok(())
    }
}

fn number(page: &[u8]) -> usize {
    u64::from_le_bytes(page[..8].try_into().unwrap()) as usize
}

/// One step of one of up to three transactions.
fn step<'s>(store: &'s Store, model: &mut Model, rng: &mut Rng, open: &mut Vec<Open<'s>>) -> foreword_pages::Result<()> {
    if model.states.len() == 1 {
        // The first of all: it takes the first page.
        let mut txn = store.begin();
        assert_eq!(txn.allocate()?, FIRST);
        let delta = Delta { written: State::from([(FIRST, Rc::new(vec![0; store.page_len()]))]), ..Delta::default() };
        return commit(model, rng, Open { txn, delta, savepoints: Vec::new() });
    }
    if open.is_empty() || open.len() < 3 && rng.chance(20) {
        open.push(Open { txn: store.begin(), delta: Delta::default(), savepoints: Vec::new() });
        return Ok(());
    }
    let at = rng.below(open.len() as u64) as usize;
    let last = model.states.last().unwrap();
    // Pages that nobody else changes.
    let is_taken = |id: &PageId| {
        *id == FIRST
            || open.iter().enumerate().any(|(i, o)| i != at && o.delta.written.contains_key(id) || o.delta.freed.contains(id))
    };
    let mine: Vec<PageId> = last.keys().chain(open[at].delta.written.keys()).copied().filter(|id| !is_taken(id)).collect();
    match rng.below(100) {
        0..50 if !mine.is_empty() => {
            let id = *rng.pick(&mine);
            let Open { txn, delta, .. } = &mut open[at];
            let len = store.page_len() as u64;
            let offset = rng.below(len);
            let most = if rng.chance(10) { len } else { 40 };
            let size = (1 + rng.below(most)).min(len - offset);
            let bytes: Vec<u8> = (0..size).map(|_| rng.next() as u8).collect();
            txn.update(id, offset as usize, &bytes)?;
            let page = delta.written.entry(id).or_insert_with(|| last[&id].clone());
            Rc::make_mut(page)[offset as usize..][..size as usize].copy_from_slice(&bytes);
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
            let Open { txn, delta, savepoints } = &mut open[at];
            txn.rollback_to(&savepoints[to].0)?;
            *delta = savepoints[to].1.clone();
            savepoints.truncate(to + 1);
        }
        76..82 => {
            // Its root, too, is taken back: by itself, or by recovery.
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

fn commit(model: &mut Model, rng: &mut Rng, open: Open<'_>) -> foreword_pages::Result<()> {
    let Open { mut txn, delta, .. } = open;
    let last = model.states.last().unwrap();
    let mut state = last.clone();
    state.extend(delta.written);
    delta.freed.iter().for_each(|id| drop(state.remove(id)));
    let n = model.states.len();
    txn.update(FIRST, 0, &(n as u64).to_le_bytes())?;
    Rc::make_mut(state.get_mut(&FIRST).unwrap())[..8].copy_from_slice(&(n as u64).to_le_bytes());
    let durability = *rng.pick(&[Durability::Synced, Durability::Synced, Durability::Buffered, Durability::Written]);
    // From here on it may come back.
    model.states.push(state);
    txn.set_root(root(&model.states, n))?;
    txn.commit_with(durability)?;
    if durability == Durability::Synced {
        model.durable = n;
    }
    Ok(())
}

/// Accounts in pages; threads move money between them, and count what they have moved. The sum never changes.
pub struct Bank {
    pub disk: SimDisk,
    pub accounts: Vec<PageId>,
    pub ledgers: Vec<PageId>,
    pub acknowledged: Vec<AtomicU64>,
    pub attempted: Vec<AtomicU64>,
}

const MONEY: u64 = 1000;
const PER_PAGE: u64 = 16;

impl Bank {
    pub fn new(seed: u64, threads: usize, pages: usize) -> Checked<Bank> {
        let disk = SimDisk::new(seed);
        let store = options(&disk, 1).open(DIR).map_err(|e| e.to_string())?;
        let mut txn = store.begin();
        let mut take = |n: usize| (0..n).map(|_| txn.allocate().unwrap()).collect::<Vec<_>>();
        let (accounts, ledgers) = (take(pages), take(threads));
        for &page in &accounts {
            for slot in 0..PER_PAGE as usize {
                txn.update(page, slot * 200, &MONEY.to_le_bytes()).unwrap();
            }
        }
        txn.commit().map_err(|e| e.to_string())?;
        store.close().map_err(|e| e.to_string())?;
        let zeros = || (0..threads).map(|_| AtomicU64::new(0)).collect();
        Ok(Bank { disk, accounts, ledgers, acknowledged: zeros(), attempted: zeros() })
    }

    pub fn check(&self, store: &Store) -> Checked {
        let mut sum = 0u64;
        for &page in &self.accounts {
            let page = store.read(page).map_err(|e| e.to_string())?;
            for slot in 0..PER_PAGE as usize {
                sum = sum.wrapping_add(u64::from_le_bytes(page[slot * 200..][..8].try_into().unwrap()));
            }
        }
        let expected = self.accounts.len() as u64 * PER_PAGE * MONEY;
        if sum != expected {
            return Err(format!("there is {sum} instead of {expected}"));
        }
        for (thread, &ledger) in self.ledgers.iter().enumerate() {
            let moved = number(&store.read(ledger).map_err(|e| e.to_string())?) as u64;
            let acknowledged = self.acknowledged[thread].load(Ordering::SeqCst);
            let attempted = self.attempted[thread].load(Ordering::SeqCst);
            if !(acknowledged..=attempted).contains(&moved) {
                return Err(format!(
                    "thread {thread} moved {moved} times; {acknowledged} were acknowledged, {attempted} attempted"
                ));
            }
            self.acknowledged[thread].store(moved, Ordering::SeqCst);
            self.attempted[thread].store(moved, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Moves money with all threads until the power fails, crashes, recovers (perhaps with crashes), and checks.
    pub fn round(&mut self, rng: &mut Rng) -> Checked<u64> {
        let mut crashes = 1;
        let store = options(&self.disk, 1 + rng.below(3) as usize).open(DIR).map_err(|e| format!("does not open: {e}"))?;
        self.disk.power_off_at(self.disk.changes() + 1 + rng.below(120));
        let locks: Vec<Mutex<()>> = (0..self.accounts.len() as u64 * PER_PAGE).map(|_| Mutex::new(())).collect();
        let failed: Mutex<Option<String>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for thread in 0..self.ledgers.len() {
                let (bank, store, locks, failed) = (&*self, &store, &locks, &failed);
                let mut rng = Rng::new(rng.next());
                scope.spawn(move || {
                    while !bank.disk.is_off() {
                        let moved = bank.transfer(store, locks, thread, &mut rng);
                        if let Err(e) = moved
                            && !bank.disk.is_off()
                        {
                            *failed.lock().unwrap() = Some(e.to_string());
                            bank.disk.power_off();
                        }
                    }
                });
            }
        });
        if let Some(e) = failed.into_inner().unwrap() {
            return Err(format!("a transfer failed: {e}"));
        }
        let crash = |disk: &SimDisk, rng: &mut Rng| match rng.below(8) {
            0 => disk.kill(),
            _ => disk.crash(&Choice::Seed(rng.next())),
        };
        let after = crash(&self.disk, rng);
        drop(store);
        self.disk = after;
        for _ in 0..rng.below(3) {
            self.disk.power_off_at(self.disk.changes() + 1 + rng.below(30));
            drop(options(&self.disk, 2).open(DIR));
            if self.disk.is_off() {
                self.disk = crash(&self.disk, rng);
                crashes += 1;
            } else {
                self.disk.power_off_at(u64::MAX);
            }
        }
        let store = options(&self.disk, 2).open(DIR).map_err(|e| format!("does not open: {e}"))?;
        self.check(&store)?;
        let kept = self.disk.copy();
        drop(store);
        self.disk = kept.kill();
        Ok(crashes)
    }

    fn transfer(&self, store: &Store, locks: &[Mutex<()>], thread: usize, rng: &mut Rng) -> foreword_pages::Result<()> {
        if rng.chance(4) {
            store.checkpoint()?;
        }
        let n = locks.len() as u64;
        let (from, to) = (rng.below(n), rng.below(n));
        if from == to {
            return Ok(());
        }
        let place = |account: u64| (self.accounts[(account / PER_PAGE) as usize], (account % PER_PAGE) as usize * 200);
        let balance = |account: u64| {
            let (page, offset) = place(account);
            store.read(page).map(|page| u64::from_le_bytes(page[offset..][..8].try_into().unwrap()))
        };
        let (low, high) = (from.min(to) as usize, from.max(to) as usize);
        let _locks = (locks[low].lock().unwrap(), locks[high].lock().unwrap());
        let amount = rng.below(100);
        let mut txn = store.begin();
        for (account, value) in [(from, balance(from)?.wrapping_sub(amount)), (to, balance(to)?.wrapping_add(amount))] {
            let (page, offset) = place(account);
            txn.update(page, offset, &value.to_le_bytes())?;
        }
        if rng.chance(20) {
            return txn.abort();
        }
        let count = number(&store.read(self.ledgers[thread])?) as u64 + 1;
        txn.update(self.ledgers[thread], 0, &count.to_le_bytes())?;
        self.attempted[thread].store(count, Ordering::SeqCst);
        txn.commit()?;
        self.acknowledged[thread].store(count, Ordering::SeqCst);
        Ok(())
    }
}

/// A simulated disk that calls a function before operations on its files: once, before one of them, or before each. It cannot
/// reserve space.
#[derive(Clone)]
pub struct Hooked {
    disk: Arc<hooked::Hooked<SimDisk>>,
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    once: Mutex<Option<Once>>,
    each: Mutex<Option<Arc<Each>>>,
}

type Each = dyn Fn(OpKind, &str) + Send + Sync;

struct Once {
    ops: &'static [OpKind],
    /// So many of these operations pass first.
    skip: u64,
    call: Box<dyn FnOnce(&str) + Send>,
}

impl Hooked {
    pub fn new(disk: &SimDisk) -> Hooked {
        let calls = Arc::new(Calls::default());
        let called = calls.clone();
        let disk = hooked::hooked_unreserving(disk.clone(), move |op, name| {
            let kind = match op {
                hooked::Op::Read(_) => OpKind::Read,
                hooked::Op::Write | hooked::Op::Zero => OpKind::Write,
                hooked::Op::WriteDurable => OpKind::DurableWrite,
                hooked::Op::Sync => OpKind::Sync,
                hooked::Op::SetLen | hooked::Op::Allocate(_) => OpKind::SetLen,
                _ => return Ok(()),
            };
            called.before(kind, name);
            Ok(())
        });
        Hooked { disk, calls }
    }

    pub fn handle(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    pub fn before_each(&self, call: impl Fn(OpKind, &str) + Send + Sync + 'static) {
        *self.calls.each.lock().unwrap() = Some(Arc::new(call));
    }

    pub fn before(&self, ops: &'static [OpKind], skip: u64, call: impl FnOnce(&str) + Send + 'static) {
        *self.calls.once.lock().unwrap() = Some(Once { ops, skip, call: Box::new(call) });
    }

    /// Whether it has not been called.
    pub fn clear(&self) -> bool {
        self.calls.each.lock().unwrap().take();
        self.calls.once.lock().unwrap().take().is_some()
    }
}

impl Calls {
    fn before(&self, op: OpKind, name: &str) {
        let each = self.each.lock().unwrap().clone();
        if let Some(each) = each {
            each(op, name);
        }
        let mut once = self.once.lock().unwrap();
        if let Some(due) = once.take_if(|once| once.ops.contains(&op) && once.skip == 0) {
            drop(once);
            (due.call)(name);
        } else if let Some(once) = once.as_mut().filter(|once| once.ops.contains(&op)) {
            once.skip -= 1;
        }
    }
}

/// How often to crash: a few for each run of the tests, more when asked (`FOREWORD_CRASHES`).
pub fn crashes_wanted(default: u64) -> u64 {
    std::env::var("FOREWORD_CRASHES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}
