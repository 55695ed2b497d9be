//! The buffer pool: a fixed number of frames, each with a latch; which page is in which; and what of it is not on disk yet.
//!
//! Locks are taken in this order: the latch of one frame, the frame's bookkeeping ([`Meta`]), a transaction's chain, the log. A shard's lock
//! is held for moments only, never over I/O, and nothing is waited for while it is held.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};

use foreword::{Log, Lsn};

use crate::file::PageFile;
use crate::ids::{PageMap, mix};
use crate::latch::{self, Deadlock, Held, Latch};
use crate::page::{Edit, HEADER, Image, OwnedEdit, Page, PageId, Redo};
use crate::policy::{Policy, Victim};
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

/// How long a thread waits for a frame when all are in use.
const PATIENCE: Duration = Duration::from_secs(10);
const SHARD_FRAMES: usize = 1024;
const SHARDS_MAX: usize = 16;

/// The pages in memory.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) file: PageFile,
    pub(crate) log: Log,
    shards: Box<[Shard]>,
    /// Behind the highest page that was ever used.
    end: AtomicU64,
    /// Pages whose last image is older than this are logged whole when they change: the begin of the last checkpoint.
    image_floor: AtomicU64,
    /// Whether pages are logged whole at all.
    images: AtomicBool,
    pub(crate) counters: Counters,
}

/// What the pool did.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) images: AtomicU64,
}

/// A part of the pool with frames, a table and a policy of its own: each page has its place in one.
#[derive(Debug)]
struct Shard {
    state: Mutex<State>,
    frames: Box<[Frame]>,
}

#[derive(Debug)]
struct State {
    table: PageMap<u32>,
    free: Vec<u32>,
    policy: Policy,
}

/// (Aligned, so that looking at one costs one trip to memory.)
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Frame {
    /// Has its bytes once a page was here: the pool takes memory as it fills.
    latch: Latch,
    meta: Mutex<Meta>,
    /// Held while the page is written, so that no older copy overwrites a newer.
    writing: Mutex<()>,
    /// Rises under the shard's lock alone: a frame that has none there can be taken.
    pins: AtomicU32,
    /// The page that is here, once it is loaded; 0: none.
    holds: AtomicU64,
}

/// How a frame stands to the disk.
#[derive(Debug, Default)]
struct Meta {
    /// If the page on disk is not this: the LSN from which on the log makes this of it.
    from: Option<Lsn>,
    /// The same, counted from the copy on that was taken last to be written.
    from_after: Option<Lsn>,
    changes: u64,
}

impl Meta {
    /// The page was changed by a record. `rebuilt`: from where on the log holds all of the page, if it does.
    fn changed(&mut self, lsn: Lsn, rebuilt: Option<Lsn>) {
        self.changes += 1;
        match rebuilt {
            Some(_) => (self.from, self.from_after) = (rebuilt, rebuilt),
            None => {
                self.from.get_or_insert(lsn);
                self.from_after.get_or_insert(lsn);
            }
        }
    }

    /// A copy was written that had seen so many changes.
    fn written(&mut self, changes: u64) {
        let clean = self.changes == changes || sabotage::has(Bug::CleanTooSoon);
        self.from = if clean { None } else { self.from_after };
    }
}

/// How a page that is not in the pool gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// From the page file.
    Read,
    /// Blank, but its body is anything: it is overwritten as a whole.
    Blank,
}

/// Keeps a page in the pool.
#[derive(Debug)]
pub(crate) struct Pin<'p> {
    frame: &'p Frame,
}

impl<'p> Pin<'p> {
    fn new(frame: &'p Frame) -> Pin<'p> {
        frame.pins.fetch_add(1, Ordering::AcqRel);
        Pin { frame }
    }

    pub(crate) fn read(&self) -> Result<RwLockReadGuard<'p, Page>> {
        self.frame.latch.read().map_err(|Deadlock| self.deadlock())
    }

    pub(crate) fn write(&self) -> Result<RwLockWriteGuard<'p, Page>> {
        self.frame.latch.write().map_err(|Deadlock| self.deadlock())
    }

    /// Says that this thread holds the latch beyond this call.
    pub(crate) fn held(&self) -> Held {
        self.frame.latch.held()
    }

    fn deadlock(&self) -> Error {
        Error::Deadlock { page: Some(PageId(self.frame.holds.load(Ordering::Acquire))) }
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.frame.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A page that is in the table, and not in its frame yet. If it does not get there (an error, or a panic), it leaves the table, and whoever waits
/// for it has his turn.
struct Loading<'p> {
    shard: &'p Shard,
    index: u32,
    page: PageId,
}

impl Loading<'_> {
    fn done(self) {
        self.shard.lock().policy.insert(self.index, self.page);
        std::mem::forget(self);
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut state = self.shard.lock();
        state.table.remove(&self.page);
        // (Some may still wait for the latch: the frame is taken only when they have gone.)
        state.free.push(self.index);
    }
}

/// A frame that may leave, while its page is written. If that fails (or panics), it stays.
struct Leaving<'p> {
    shard: &'p Shard,
    victim: Victim,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shard.lock().policy.keep(self.victim);
    }
}

/// A change that was made and is not logged yet: taken back, unless it is [kept](Tentative::keep).
struct Tentative<'g> {
    page: &'g mut Page,
    undo: &'g OwnedEdit,
}

impl<'g> Tentative<'g> {
    fn make(page: &'g mut Page, edit: &Edit<'_>, undo: &'g OwnedEdit) -> Tentative<'g> {
        edit.apply(page);
        Tentative { page, undo }
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Tentative<'_> {
    fn drop(&mut self) {
        self.undo.as_edit().apply(self.page);
    }
}

impl Frame {
    fn meta(&self) -> MutexGuard<'_, Meta> {
        lock(&self.meta)
    }

    fn is_unused(&self) -> bool {
        self.pins.load(Ordering::Acquire) == 0
    }

    fn holds(&self, page: PageId) -> bool {
        self.holds.load(Ordering::Acquire) == page.0
    }
}

impl Shard {
    fn new(frames: usize) -> Shard {
        let frame = |_| Frame {
            latch: Latch::new(Page::blank(0)),
            meta: Mutex::default(),
            writing: Mutex::default(),
            pins: AtomicU32::new(0),
            holds: AtomicU64::new(0),
        };
        let state = State { table: PageMap::default(), free: (0..frames as u32).rev().collect(), policy: Policy::new(frames) };
        Shard { state: Mutex::new(state), frames: (0..frames).map(frame).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn is_unused(&self, frame: u32) -> bool {
        self.frames[frame as usize].is_unused()
    }
}

impl Pool {
    pub(crate) fn new(file: PageFile, log: Log, pool_bytes: usize) -> Pool {
        let frames = pool_bytes / file.page_bytes();
        let shards = (frames / SHARD_FRAMES).clamp(1, SHARDS_MAX);
        let share = |i: usize| frames / shards + usize::from(i < frames % shards);
        Pool {
            file,
            log,
            shards: (0..shards).map(|i| Shard::new(share(i))).collect(),
            end: AtomicU64::new(0),
            image_floor: AtomicU64::new(0),
            images: AtomicBool::new(true),
            counters: Counters::default(),
        }
    }

    pub(crate) fn frames(&self) -> usize {
        self.shards.iter().map(|s| s.frames.len()).sum()
    }

    /// How many bytes of a page are the user's.
    pub(crate) fn body(&self) -> usize {
        self.file.page_bytes() - HEADER
    }

    /// Behind the highest page that was ever used. The page file has as many, durably.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// So many pages were used, at least.
    pub(crate) fn raise_end(&self, pages: u64) {
        self.end.fetch_max(pages, Ordering::AcqRel);
    }

    /// From here on, the first change of a page whose last image is older than this LSN logs all of the page.
    pub(crate) fn raise_image_floor(&self, lsn: Lsn) {
        self.image_floor.fetch_max(lsn.0, Ordering::AcqRel);
    }

    pub(crate) fn logs_images(&self) -> bool {
        self.images.load(Ordering::Acquire)
    }

    /// Whether pages are logged whole from here on. A checkpoint must follow before the next change, and one that writes all: recovery
    /// goes by what it says.
    pub(crate) fn set_images(&self, images: bool) {
        self.images.store(images, Ordering::Release);
    }

    /// Brings a page into the pool, if it is not there, and keeps it there for as long as the pin lives.
    pub(crate) fn fetch(&self, page: PageId, load: Load) -> Result<Pin<'_>> {
        let shard = &self.shards[(mix(page.0) >> 40) as usize % self.shards.len()];
        loop {
            let mut state = shard.lock();
            if let Some(&index) = state.table.get(&page) {
                state.policy.touch(index);
                let pin = Pin::new(&shard.frames[index as usize]);
                drop(state);
                if pin.frame.holds(page) {
                    self.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(pin);
                }
                // Another thread loads it, with the latch held. If that fails, it is this thread's turn.
                drop(pin.read()?);
                continue;
            }
            let (mut state, index) = self.take_frame(shard, state)?;
            if state.table.contains_key(&page) {
                state.free.push(index);
                continue;
            }
            // No other thread knows the frame yet, so its latch is free.
            let pin = Pin::new(&shard.frames[index as usize]);
            let latched = pin.frame.latch.write_free();
            state.table.insert(page, index);
            drop(state);
            return self.load(shard, index, pin, latched, page, load);
        }
    }

    fn load<'p>(
        &self,
        shard: &'p Shard,
        index: u32,
        pin: Pin<'p>,
        mut latched: RwLockWriteGuard<'p, Page>,
        page: PageId,
        load: Load,
    ) -> Result<Pin<'p>> {
        let loading = Loading { shard, index, page };
        if latched.bytes().is_empty() {
            *latched = Page::blank(self.file.page_bytes());
        }
        match load {
            Load::Read => {
                self.counters.reads.fetch_add(1, Ordering::Relaxed);
                self.file.read(page, &mut latched, &self.log)?;
            }
            Load::Blank => {
                self.file.reserve(page)?;
                latched.clear_header();
            }
        }
        latched.set_id(page);
        self.raise_end(page.0 + 1);
        pin.frame.holds.store(page.0, Ordering::Release);
        drop(latched);
        loading.done();
        Ok(pin)
    }

    /// Takes a frame out of the table and the queues, writing what is in it if need be.
    fn take_frame<'s>(&self, shard: &'s Shard, mut state: MutexGuard<'s, State>) -> Result<(MutexGuard<'s, State>, u32)> {
        let deadline = Instant::now() + PATIENCE;
        let mut refused = 0;
        loop {
            if let Some(at) = state.free.iter().rposition(|&index| shard.is_unused(index)) {
                let index = state.free.swap_remove(at);
                return Ok((state, index));
            }
            let Some(victim) = state.policy.victim(|index| shard.is_unused(index)) else {
                drop(state);
                if Instant::now() > deadline {
                    return Err(Error::PoolExhausted { pages: self.frames() });
                }
                std::thread::sleep(Duration::from_millis(1));
                state = shard.lock();
                continue;
            };
            let frame = &shard.frames[victim.frame as usize];
            if state.evict(frame, victim) {
                return Ok((state, victim.frame));
            }
            let pin = Pin::new(frame);
            drop(state);
            let leaving = Leaving { shard, victim };
            match self.write_back(&pin) {
                Ok(()) => {}
                // There may be one that needs no room.
                Err(e) if e.is_no_space() && refused < shard.frames.len() => refused += 1,
                Err(e) => return Err(e),
            }
            state = shard.lock();
            drop(pin);
            if frame.is_unused() && state.evict(frame, victim) {
                std::mem::forget(leaving);
                return Ok((state, victim.frame));
            }
            drop(state);
            drop(leaving);
            state = shard.lock();
        }
    }

    /// Writes a frame's page to the page file, if it is not what is there. The frame is pinned.
    fn write_back(&self, pin: &Pin<'_>) -> Result<()> {
        let frame = pin.frame;
        let _one = latch::lock_or_deadlock(&frame.writing).map_err(|Deadlock| pin.deadlock())?;
        let (mut copy, changes) = {
            let page = pin.read()?;
            let mut meta = frame.meta();
            if meta.from.is_none() {
                return Ok(());
            }
            meta.from_after = None;
            (page.clone(), meta.changes)
        };
        self.file.write(&mut copy, &self.log)?;
        frame.meta().written(changes);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a page, if it is in the pool and not on disk.
    pub(crate) fn write_page(&self, page: PageId) -> Result<()> {
        let shard = &self.shards[(mix(page.0) >> 40) as usize % self.shards.len()];
        let state = shard.lock();
        let Some(&index) = state.table.get(&page) else { return Ok(()) };
        let pin = Pin::new(&shard.frames[index as usize]);
        drop(state);
        self.write_back(&pin)
    }

    /// The pages that are not on disk, and from which LSN on the log rebuilds each; by id.
    pub(crate) fn dirty_pages(&self) -> Vec<(PageId, Lsn)> {
        let frames = self.shards.iter().flat_map(|s| s.frames.iter());
        let dirty = frames.filter_map(|frame| {
            let meta = frame.meta();
            meta.from.map(|from| (PageId(frame.holds.load(Ordering::Acquire)), from))
        });
        let mut dirty: Vec<_> = dirty.collect();
        dirty.sort_unstable();
        dirty
    }

    /// How many pages are not on disk. Does not wait: a page that is just being changed counts.
    pub(crate) fn dirty_count(&self) -> u64 {
        let is_dirty = |frame: &&Frame| match frame.meta.try_lock() {
            Ok(meta) => meta.from.is_some(),
            Err(TryLockError::Poisoned(meta)) => meta.into_inner().from.is_some(),
            Err(TryLockError::WouldBlock) => true,
        };
        self.shards.iter().flat_map(|s| s.frames.iter()).filter(is_dirty).count() as u64
    }

    /// Logs a change and makes it, under the page's latch: so the LSNs of a page rise with the log. `log` is told what undoes the change and
    /// what redoes it, and appends the record. `None`: the page is so already, and nothing was logged.
    pub(crate) fn change(
        &self,
        page: PageId,
        edit: Edit<'_>,
        log: impl FnOnce(&OwnedEdit, Redo<'_>) -> Result<Lsn>,
    ) -> Result<Option<Lsn>> {
        self.file.check()?;
        let pin = self.fetch(page, Load::Read)?;
        let mut latched = pin.write()?;
        if matches!(edit, Edit::Bytes { .. }) {
            self.check_written(page, &latched)?;
        }
        let Some((undo, edit)) = difference(&latched, edit) else { return Ok(None) };
        // The checkpoint looks at the bookkeeping of each page after it has raised the floor: so either this sees the floor, or it sees this.
        let mut meta = pin.frame.meta();
        let images = self.logs_images();
        let is_old = images && latched.image_lsn().0 < self.image_floor.load(Ordering::Acquire);
        let imaged = latched.image_lsn() == Lsn::ZERO || is_old && !sabotage::has(Bug::NoImage);
        let made = Tentative::make(&mut latched, &edit, &undo);
        let redo = if imaged { Redo::Image(Image::of(made.page)) } else { Redo::Edit(edit) };
        let lsn = log(&undo, redo)?;
        made.keep();
        latched.set_lsn(lsn);
        if imaged {
            latched.set_image_lsn(lsn);
            self.counters.images.fetch_add(1, Ordering::Relaxed);
        }
        meta.changed(lsn, (images || imaged).then(|| latched.image_lsn()));
        Ok(Some(lsn))
    }

    /// A page that is in use, or that a record changes in part, had an image first: it cannot be blank, or what was written is
    /// lost. (The very first change of a map is of a bit, and is an image, too.)
    pub(crate) fn check_written(&self, page: PageId, latched: &Page) -> Result<()> {
        match latched.lsn() {
            Lsn::ZERO => Err(self.file.rotten(page, "nothing is there, and the page is in use".into())),
            _ => Ok(()),
        }
    }

    /// Begins a page anew. `log` appends the record.
    pub(crate) fn format(&self, page: PageId, image: Image<'_>, log: impl FnOnce() -> Result<Lsn>) -> Result<()> {
        self.file.check()?;
        let pin = self.fetch(page, Load::Blank)?;
        let mut latched = pin.write()?;
        let mut meta = pin.frame.meta();
        let lsn = log()?;
        Redo::Image(image).apply(&mut latched, lsn);
        meta.changed(lsn, Some(lsn));
        Ok(())
    }

    /// Makes changes of a page that are in the log already, in their order, but for those that it has: how many it had not.
    pub(crate) fn redo(&self, page: PageId, changes: &[(Lsn, Redo<'_>)], load: Load) -> Result<u64> {
        let Some((first, _)) = changes.first() else { return Ok(0) };
        let pin = self.fetch(page, load)?;
        let mut latched = pin.write()?;
        let mut applied = 0;
        for (lsn, redo) in changes {
            if matches!(redo, Redo::Edit(_)) {
                self.check_written(page, &latched)?;
            }
            if *lsn > latched.lsn() {
                redo.apply(&mut latched, *lsn);
                applied += 1;
            }
        }
        // What was read may never have been synced: it is written again in any case.
        if applied > 0 || !sabotage::has(Bug::TrustPages) {
            let rebuilt = self.logs_images().then(|| latched.image_lsn());
            pin.frame.meta().changed(*first, rebuilt);
        }
        Ok(applied)
    }
}

impl State {
    /// Takes an unused frame from its page, if that is on disk. `false`: it is not.
    fn evict(&mut self, frame: &Frame, victim: Victim) -> bool {
        if frame.meta().from.is_some() {
            return false;
        }
        let page = PageId(frame.holds.swap(0, Ordering::AcqRel));
        self.table.remove(&page);
        self.policy.gone(victim, page);
        true
    }
}

/// What undoes an edit, and the edit, without bytes that it does not change. `None`: it changes none.
fn difference<'e>(page: &Page, edit: Edit<'e>) -> Option<(OwnedEdit, Edit<'e>)> {
    match edit {
        Edit::Bytes { offset, bytes } => {
            let old = &page.body()[offset as usize..][..bytes.len()];
            let same = old.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            let (old, new) = (&old[same..], &bytes[same..]);
            let len = new.len() - old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
            let offset = offset + same as u32;
            let undo = OwnedEdit::Bytes { offset, bytes: old[..len].into() };
            (len > 0).then_some((undo, Edit::Bytes { offset, bytes: &new[..len] }))
        }
        Edit::Bit { bit, set } => {
            let is_set = page.body()[bit as usize / 8] >> (bit % 8) & 1 == 1;
            (is_set != set).then_some((OwnedEdit::Bit { bit, set: is_set }, edit))
        }
    }
}
