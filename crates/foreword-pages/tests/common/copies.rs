//! A store that is backed up while it works, and restored to LSNs: against a model.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use foreword::{Lsn, View};
use foreword_pages::{Backup, Options, PageId, Store, Txn};

use super::{Checked, Rng};

const HOLD: &str = "copies";

/// The contents of all pages in use, by the LSN of the commit that made them so.
type States = BTreeMap<u64, BTreeMap<PageId, Vec<u8>>>;

/// A store, and what it must have been at each LSN. Its log keeps everything.
pub struct Copies {
    pub tmp: tempfile::TempDir,
    pub options: Options,
    pub store: Option<Store>,
    pub states: States,
    pub rng: Rng,
    open: Vec<(Txn, BTreeMap<PageId, Vec<u8>>)>,
    steps: u64,
}

/// Works on the store each time that a page is written: as other threads do, at the worst moments.
struct Working<'a> {
    copies: &'a mut Copies,
    to: Vec<u8>,
    pages: u64,
}

impl Write for Working<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.extend_from_slice(bytes);
        self.pages += 1;
        for _ in 0..self.copies.rng.below(4) {
            self.copies.step().map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Copies {
    pub fn new(seed: u64, images: bool) -> Copies {
        let memory = Path::new("/dev/shm");
        let tmp = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let log = foreword::Options::new().segment_bytes(64 << 10).buffer_bytes(512 << 10);
        let options = Options::new().page_bytes(4096).pool_bytes(16 * 4096).recovery_bytes(20_000).background(false).log(log);
        let options = options.full_page_images(images);
        let store = options.open(tmp.path().join("store")).unwrap();
        let states = States::from([(0, BTreeMap::new())]);
        let mut copies = Copies { tmp, options, store: Some(store), states, rng: Rng::new(seed), open: Vec::new(), steps: 0 };
        View::open(copies.log()).unwrap().hold(HOLD, Lsn::FIRST).unwrap();
        for _ in 0..60 {
            copies.step().unwrap();
        }
        copies
    }

    pub fn log(&self) -> PathBuf {
        self.tmp.path().join("store/log")
    }

    fn now(&self) -> &BTreeMap<PageId, Vec<u8>> {
        self.states.last_key_value().unwrap().1
    }

    /// Makes, changes or frees pages; commits, rolls back, or leaves it for later; and at times takes
    /// a checkpoint.
    pub fn step(&mut self) -> Checked {
        self.steps += 1;
        let store = self.store.clone().unwrap();
        let said = |e: foreword_pages::Error| format!("a step failed: {e}");
        if self.steps.is_multiple_of(13) {
            let taken = if self.rng.chance(50) { store.checkpoint() } else { store.checkpoint_all() };
            taken.map_err(said)?;
        }
        // Those of transactions that live are theirs.
        let theirs: Vec<PageId> = self.open.iter().flat_map(|(_, pages)| pages.keys().copied()).collect();
        let free: Vec<PageId> = self.now().keys().filter(|id| !theirs.contains(id)).copied().collect();
        let mut txn = store.begin();
        let mut changed = BTreeMap::new();
        let mut gone = None;
        for _ in 0..1 + self.rng.below(3) {
            let id = match free.is_empty() || free.len() < 40 && self.rng.chance(40) {
                true => txn.allocate().map_err(said)?,
                false => *self.rng.pick(&free),
            };
            let len = store.page_len();
            let mut page = changed.remove(&id).or_else(|| self.now().get(&id).cloned()).unwrap_or_else(|| vec![0; len]);
            let most = if self.rng.chance(20) { len as u64 } else { 30 };
            let size = 1 + self.rng.below(most) as usize;
            let at = self.rng.below((len - size + 1) as u64) as usize;
            let bytes: Vec<u8> = (0..size).map(|_| self.rng.next() as u8).collect();
            txn.update(id, at, &bytes).map_err(said)?;
            page[at..at + size].copy_from_slice(&bytes);
            changed.insert(id, page);
        }
        if let Some(&id) = free.iter().find(|id| !changed.contains_key(id)).filter(|_| self.rng.chance(10)) {
            txn.free(id).map_err(said)?;
            gone = Some(id);
        }
        match self.rng.below(10) {
            0 => txn.abort().map_err(said)?,
            1 if gone.is_none() && self.open.len() < 3 => self.open.push((txn, changed)),
            _ => self.committed(txn, changed, gone)?,
        }
        if self.open.len() == 3 {
            let (txn, changed) = self.open.remove(0);
            self.committed(txn, changed, None)?;
        }
        Ok(())
    }

    fn committed(&mut self, txn: Txn, changed: BTreeMap<PageId, Vec<u8>>, gone: Option<PageId>) -> Checked {
        let mut state = self.now().clone();
        state.extend(changed);
        gone.map(|id| state.remove(&id));
        let lsn = txn.commit().map_err(|e| format!("a commit failed: {e}"))?;
        self.states.insert(lsn.0, state);
        Ok(())
    }

    /// Backs the store up while it works.
    pub fn back_up(&mut self) -> Checked<(Backup, Vec<u8>)> {
        let store = self.store.clone().unwrap();
        let mut working = Working { copies: self, to: Vec::new(), pages: 0 };
        let backup = store.backup(&mut working).map_err(|e| format!("the backup failed: {e}"))?;
        let (to, pages) = (working.to, working.pages);
        if backup.bytes != to.len() as u64 || pages < 10 {
            return Err(format!("{backup:?} has {} bytes in {pages} pages", to.len()));
        }
        Ok((backup, to))
    }

    /// A directory with a copy, and the records of the log from one to another.
    pub fn restored(&self, copy: &[u8], first: Lsn, last: Lsn) -> PathBuf {
        let dir = self.tmp.path().join("restored");
        let _ = std::fs::remove_dir_all(&dir);
        let log = foreword::Options::new().segment_bytes(64 << 10).first_lsn(first).open(dir.join("log")).unwrap();
        let view = View::open(self.log()).unwrap().recoverable().unwrap();
        for record in view.iter(first).map(Result::unwrap).take_while(|record| record.lsn <= last) {
            log.append_copies(record.lsn, [(record.time, &record.data)]).unwrap();
        }
        assert_eq!(log.last_lsn(), last);
        log.close().unwrap();
        std::fs::write(dir.join("PAGES.backup"), copy).unwrap();
        dir
    }

    /// Opens what was restored to an LSN, and compares it.
    pub fn check(&self, dir: &Path, last: Lsn) -> Checked {
        for _ in 0..2 {
            let store = self.options.open(dir).map_err(|e| format!("restored to {last}, it does not open: {e}"))?;
            let (at, state) = self.states.range(..=last.0).next_back().unwrap();
            if store.stats().pages_used != state.len() as u64 {
                let used = store.stats().pages_used;
                return Err(format!("at {last}, committed up to {at}: {used} pages are in use instead of {}", state.len()));
            }
            for (&id, bytes) in state {
                let page = store.read(id).map_err(|e| format!("at {last}, page {id}: {e}"))?;
                if page[..] != bytes[..] {
                    return Err(format!("at {last}, committed up to {at}: page {id} is another"));
                }
            }
            store.close().map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// The store ends, without a rollback of what has not committed.
    pub fn stop(&mut self) -> Lsn {
        let last = View::open(self.log()).unwrap();
        self.store.take().unwrap().close().unwrap();
        self.open.clear();
        last.recoverable_lsn().unwrap()
    }
}

/// Backs up, and restores to so many random LSNs: how many.
pub fn backed_up(seed: u64, images: bool, restores: u64) -> Checked<u64> {
    let mut copies = Copies::new(seed, images);
    let (backup, copy) = copies.back_up()?;
    let work = copies.rng.below(100);
    for _ in 0..work {
        copies.step()?;
    }
    let last = copies.stop();
    for restore in 0..restores {
        let to = match restore {
            0 => backup.consistent,
            1 => last,
            _ => Lsn(backup.consistent.0 + copies.rng.below(last.0 - backup.consistent.0 + 1)),
        };
        let dir = copies.restored(&copy, backup.log_start, to);
        copies.check(&dir, to)?;
    }
    Ok(restores)
}
