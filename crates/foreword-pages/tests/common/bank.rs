//! Money moved between accounts by many threads, and crashes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use foreword_pages::{PageId, Store};
use foreword_sim::{Choice, SimDisk};

use super::rng::Rng;
use super::{Checked, DIR, number, options};

/// Accounts in pages. Threads move money between them, and count their transfers. Invariant: the
/// sum never changes.
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

    /// Moves money with all threads until the power fails, recovers, perhaps with more crashes, and
    /// checks.
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
