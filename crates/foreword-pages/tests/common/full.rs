//! A small piece of work on a disk that becomes full. The process is killed in the middle.

use foreword_pages::{Error, PageId, Store};
use foreword_sim::{Choice, SimDisk};

use super::{Checked, DIR, Rng, options};

/// One run: how much room the process has, and when it is killed.
#[derive(Clone, Copy, Debug)]
pub struct FullDisk {
    /// Bytes that are free when the work begins.
    pub free: u64,
    /// The changing operation in which the process is killed.
    pub killed_at: u64,
}

/// What must be found: transaction n writes n into the root, and fills a page of its own with n.
#[derive(Default)]
struct Done {
    pages: Vec<PageId>,
    acknowledged: u64,
    refused: u64,
}

/// The first page that is ever allocated.
const ROOT: PageId = PageId(2);

impl FullDisk {
    /// Works until the work is done or the process is killed; opens the store on the full disk, and
    /// then with room. Returns the number of refusals for lack of room, and whether the process was
    /// killed.
    pub fn run(&self, disk: &SimDisk) -> Checked<(u64, bool)> {
        let mut done = Done::default();
        let store = options(disk, 1).open(DIR).map_err(|e| format!("it is not made: {e}"))?;
        let mut txn = store.begin();
        if txn.allocate().map_err(|e| e.to_string())? != ROOT {
            return Err("the root is not the first page".into());
        }
        txn.commit().map_err(|e| e.to_string())?;
        disk.set_free(self.free);
        disk.power_off_at(disk.changes().saturating_add(self.killed_at));
        let worked = done.work(&store, disk);
        let is_off = disk.is_off();
        if !is_off {
            worked?;
        }
        let killed = if self.killed_at.is_multiple_of(2) { disk.kill() } else { disk.crash(&Choice::Seed(self.killed_at)) };
        drop(store);
        // On the full disk the store opens, or the error is a lack of room.
        match options(&killed, 2).open(DIR) {
            Ok(store) => {
                done.check(&store)?;
                done.step(&store, &mut Rng::new(self.free))?;
                checkpoint(&store)?;
            }
            Err(e) if e.is_no_space() => done.refused += 1,
            Err(e) => return Err(format!("it does not open on the full disk: {e}")),
        }
        killed.set_capacity(None);
        let store = options(&killed.kill(), 2).open(DIR).map_err(|e| format!("with room it does not open: {e}"))?;
        done.check(&store)?;
        let refused = std::mem::take(&mut done.refused);
        done.step(&store, &mut Rng::new(1))?;
        if done.refused > 0 {
            return Err("it does not commit, though there is room".into());
        }
        store.close().map_err(|e| format!("it does not close: {e}"))?;
        Ok((refused, is_off))
    }
}

impl Done {
    fn work(&mut self, store: &Store, disk: &SimDisk) -> Checked {
        let mut rng = Rng::new(7);
        for round in 0..60 {
            self.step(store, &mut rng)?;
            if round % 7 == 6 {
                checkpoint(store)?;
            }
            if disk.is_off() {
                break;
            }
        }
        Ok(())
    }

    /// Runs a transaction. If it is refused, it is rolled back.
    fn step(&mut self, store: &Store, rng: &mut Rng) -> Checked {
        let n = self.pages.len() as u64 + 1;
        let mut txn = store.begin();
        let mut page = PageId(0);
        let changed = txn.allocate().and_then(|taken| {
            page = taken;
            txn.update(page, 0, &vec![n as u8; store.page_len()])?;
            txn.update(ROOT, 0, &n.to_le_bytes())
        });
        // A commit that fails after this may still be there, if the process is killed.
        let committed =
            changed.and_then(|()| if rng.chance(20) { txn.abort().map(|()| false) } else { txn.commit().map(|_| true) });
        match committed {
            Ok(true) => {
                self.pages.push(page);
                self.acknowledged = n;
            }
            Ok(false) => {}
            Err(e) if e.is_no_space() => self.refused += 1,
            Err(e) => {
                self.pages.push(page);
                return Err(format!("transaction {n}: {e}"));
            }
        }
        Ok(())
    }

    /// Checks that every acknowledged transaction is there, and each as a whole.
    fn check(&mut self, store: &Store) -> Checked {
        let root = store.read(ROOT).map_err(|e| e.to_string())?;
        let n = u64::from_le_bytes(root[..8].try_into().unwrap());
        drop(root);
        if !(self.acknowledged..=self.pages.len() as u64).contains(&n) {
            return Err(format!("{n} transactions are there; {} were acknowledged", self.acknowledged));
        }
        self.pages.truncate(n as usize);
        for (i, &page) in self.pages.iter().enumerate() {
            let bytes = store.read(page).map_err(|e| format!("page {page}: {e}"))?;
            if !bytes.iter().all(|&b| b == (i + 1) as u8) {
                return Err(format!("page {page} is not what transaction {} wrote", i + 1));
            }
        }
        let used = store.stats().pages_used;
        if used == n + 1 { Ok(()) } else { Err(format!("{used} pages are in use instead of {}", n + 1)) }
    }
}

/// The log may have no room for a checkpoint; the page file has what it needs.
fn checkpoint(store: &Store) -> Checked {
    match store.checkpoint_all() {
        Err(e) if !matches!(e, Error::Log(foreword::Error::NoSpace { .. })) => Err(format!("a checkpoint: {e}")),
        _ => Ok(()),
    }
}
