//! The buffer pool: a fixed number of frames, each with a latch; which page is in which frame; and
//! which pages the page file does not have yet.
//!
//! Invariant: locks are taken in this order: latches, the dirty states of their frames, a
//! transaction's undo chain, the log. A thread that holds a shard's lock does no I/O and waits for
//! no latch. Nor does a thread that makes room for a page: an owner waits for a latch only where it
//! asks for that page.

mod apply;
mod change;
mod frame;
mod guard;

use std::sync::Arc;
use std::time::{Duration, Instant};

use foreword::{Log, Lsn};

use crate::file::PageFile;
use crate::ids::{PageMap, mix};
use crate::latch::{Deadlock, Wait};
use crate::page::{HEADER, Page, PageId};
use crate::policy::{Policy, Victim};
use crate::sabotage::{self, Bug};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, TryLockError, lock, sleep};
use crate::types::RedoTypes;
use crate::{Error, Result};

pub(crate) use apply::Written;
pub(crate) use frame::{BufferFrame, Pin};
pub use guard::{PageMut, PageRef};

/// How long a thread waits for a frame when all are pinned.
const PATIENCE: Duration = Duration::from_secs(10);
const SHARD_FRAMES: usize = 1024;
const SHARDS_MAX: usize = 16;

/// The pages in memory.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) file: PageFile,
    pub(crate) log: Log,
    /// How the user's record types are redone.
    pub(crate) types: RedoTypes,
    shards: Box<[Shard]>,
    /// One more than the highest page id that was ever used.
    end: AtomicU64,
    /// The begin of the last checkpoint. A page whose last image is older is logged whole when it
    /// changes.
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

/// A part of the pool, with its own frames, table and policy. Each page belongs to one shard.
#[derive(Debug)]
struct Shard {
    table: Mutex<PageTable>,
    frames: Box<[Arc<BufferFrame>]>,
}

/// Which page is in which frame of a shard. Frames go by their number in the shard.
#[derive(Debug)]
struct PageTable {
    frame_of: PageMap<u32>,
    free: Vec<u32>,
    policy: Policy,
}

/// How a page that is not in the pool gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// From the page file.
    Read,
    /// A blank header. The body may be anything: the caller overwrites all of it.
    Blank,
}

/// A page that is in the table, and not in its frame yet. If loading fails or panics, the page
/// leaves the table, and a thread that waits for the page loads it instead.
struct Loading<'p> {
    shard: &'p Shard,
    index: u32,
    id: PageId,
    pin: Pin,
    page: Page,
    is_done: bool,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if self.is_done {
            self.pin.set_page(self.id);
            self.pin.latch.end_loading(self.page.clone());
            self.shard.lock().policy.insert(self.index, self.id);
        } else {
            let mut table = self.shard.lock();
            table.frame_of.remove(&self.id);
            // Threads may still have pins of the frame. It is taken only when those are gone.
            table.free.push(self.index);
            drop(table);
            // Invariant: those that this wakes do not find the page any more.
            self.pin.latch.end_loading(self.page.clone());
        }
    }
}

/// A frame that is to lose its page, while the page is written. If that fails or panics, the page
/// stays.
struct Leaving<'p> {
    shard: &'p Shard,
    victim: Victim,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shard.lock().policy.keep(self.victim);
    }
}

impl Shard {
    fn new(frames: usize) -> Shard {
        let free = (0..frames as u32).rev().collect();
        let table = PageTable { frame_of: PageMap::default(), free, policy: Policy::new(frames) };
        Shard { table: Mutex::new(table), frames: (0..frames).map(|_| Arc::new(BufferFrame::new())).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, PageTable> {
        lock(&self.table)
    }

    fn is_unused(&self, frame: u32) -> bool {
        Pin::is_unused(&self.frames[frame as usize]) || sabotage::has(Bug::EvictPinned)
    }
}

impl Pool {
    pub(crate) fn new(file: PageFile, log: Log, types: RedoTypes, pool_bytes: usize) -> Pool {
        let frames = pool_bytes / file.page_bytes();
        let shards = (frames / SHARD_FRAMES).clamp(1, SHARDS_MAX);
        let share = |i: usize| frames / shards + usize::from(i < frames % shards);
        Pool {
            file,
            log,
            types,
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

    /// One more than the highest page id that was ever used. The page file has as many pages,
    /// durably.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Notes that so many pages were used, at least.
    pub(crate) fn raise_end(&self, pages: u64) {
        self.end.fetch_max(pages, Ordering::AcqRel);
    }

    /// From here on, a change of a page whose last image is older than this LSN logs all of the
    /// page.
    pub(crate) fn raise_image_floor(&self, lsn: Lsn) {
        self.image_floor.fetch_max(lsn.0, Ordering::AcqRel);
    }

    pub(crate) fn logs_images(&self) -> bool {
        self.images.load(Ordering::Acquire)
    }

    /// Sets whether pages are logged whole from here on. A checkpoint that writes all pages must
    /// follow before the next change: recovery goes by what the last checkpoint says.
    pub(crate) fn set_images(&self, images: bool) {
        self.images.store(images, Ordering::Release);
    }

    fn shard(&self, page: PageId) -> &Shard {
        &self.shards[(mix(page.0) >> 40) as usize % self.shards.len()]
    }

    /// Brings a page into the pool, if it is not there, and pins it.
    pub(crate) fn fetch(&self, page: PageId, load: Load) -> Result<Pin> {
        let shard = self.shard(page);
        loop {
            let mut table = shard.lock();
            if let Some(&index) = table.frame_of.get(&page) {
                table.policy.touch(index);
                let pin = Pin::new(&shard.frames[index as usize]);
                drop(table);
                if pin.page() == page {
                    self.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(pin);
                }
                // Another thread loads the page. If that fails, this thread tries.
                pin.latch.wait_loaded();
                continue;
            }
            let (mut table, index) = self.take_frame(shard, table)?;
            if table.frame_of.contains_key(&page) {
                table.free.push(index);
                continue;
            }
            // No other thread knows the frame yet.
            let pin = Pin::new(&shard.frames[index as usize]);
            let blank = pin.latch.begin_loading().filter(|page| !page.bytes().is_empty());
            table.frame_of.insert(page, index);
            drop(table);
            let blank = blank.unwrap_or_else(|| Page::blank(self.file.page_bytes()));
            return self.load(Loading { shard, index, id: page, pin, page: blank, is_done: false }, load);
        }
    }

    fn load(&self, mut loading: Loading<'_>, load: Load) -> Result<Pin> {
        let Loading { id, ref mut page, .. } = loading;
        match load {
            Load::Read => {
                self.counters.reads.fetch_add(1, Ordering::Relaxed);
                self.file.read(id, page, &self.log)?;
            }
            Load::Blank => {
                self.file.reserve(id)?;
                page.clear_header();
            }
        }
        page.set_id(id);
        self.raise_end(id.0 + 1);
        loading.is_done = true;
        Ok(loading.pin.clone())
    }

    /// Takes a frame from its page and out of the policy's queues. A dirty page is written first.
    fn take_frame<'s>(&self, shard: &'s Shard, mut table: MutexGuard<'s, PageTable>) -> Result<(MutexGuard<'s, PageTable>, u32)> {
        let deadline = Instant::now() + PATIENCE;
        let mut refused = 0;
        loop {
            if let Some(at) = table.free.iter().rposition(|&index| shard.is_unused(index)) {
                let index = table.free.swap_remove(at);
                return Ok((table, index));
            }
            let Some(victim) = table.policy.victim(|index| shard.is_unused(index)) else {
                drop(table);
                if Instant::now() > deadline {
                    return Err(Error::PoolExhausted { pages: self.frames() });
                }
                sleep(Duration::from_millis(1));
                table = shard.lock();
                continue;
            };
            let frame = &shard.frames[victim.frame as usize];
            if table.evict(frame, victim) {
                return Ok((table, victim.frame));
            }
            let pin = Pin::new(frame);
            drop(table);
            let leaving = Leaving { shard, victim };
            match self.write_back(&pin, Wait::No) {
                Ok(true) => {}
                // Another page may be free.
                Ok(false) => sleep(Duration::from_millis(1)),
                // Another page may need no room.
                Err(e) if e.is_no_space() && refused < shard.frames.len() => refused += 1,
                Err(e) => return Err(e),
            }
            table = shard.lock();
            drop(pin);
            if Pin::is_unused(frame) && table.evict(frame, victim) {
                std::mem::forget(leaving);
                return Ok((table, victim.frame));
            }
            drop(table);
            drop(leaving);
            table = shard.lock();
        }
    }

    /// Writes a frame's page to the page file, if it is dirty. `false`: it would have to wait for
    /// another owner.
    fn write_back(&self, pin: &Pin, wait: Wait) -> Result<bool> {
        // Its holder waits for a latch, but not without end.
        let _one = match wait {
            Wait::Bounded => lock(&pin.writing),
            Wait::No => match pin.writing.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(false),
                // A panic of the disk: `file` knows what that means.
                Err(TryLockError::Poisoned(one)) => one.into_inner(),
                Ok(one) => one,
            },
        };
        let copied = pin.latch.look(wait, |page| {
            let mut dirty = pin.dirty();
            dirty.rec_lsn?;
            dirty.rec_lsn_after_copy = None;
            Some((page.copy(), dirty.changes))
        });
        let (mut copy, changes) = match copied {
            Ok(Some(Some(copied))) => copied,
            Ok(Some(None)) => return Ok(true),
            Ok(None) => return Ok(false),
            Err(Deadlock) => return Err(pin.deadlock()),
        };
        self.file.write(&mut copy, &self.log)?;
        pin.dirty().written(changes);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Writes a page, if it is in the pool and dirty.
    pub(crate) fn write_page(&self, page: PageId) -> Result<()> {
        let shard = self.shard(page);
        let table = shard.lock();
        let Some(&index) = table.frame_of.get(&page) else { return Ok(()) };
        let pin = Pin::new(&shard.frames[index as usize]);
        drop(table);
        self.write_back(&pin, Wait::Bounded).map(|_| ())
    }

    /// The dirty pages by id, each with the LSN from which on the log rebuilds it.
    pub(crate) fn dirty_pages(&self) -> Vec<(PageId, Lsn)> {
        let frames = self.shards.iter().flat_map(|s| s.frames.iter());
        let dirty = frames.filter_map(|frame| {
            let dirty = frame.dirty();
            dirty.rec_lsn.map(|rec_lsn| (frame.page(), rec_lsn))
        });
        let mut dirty: Vec<_> = dirty.collect();
        dirty.sort_unstable();
        dirty
    }

    /// How many pages are not on disk. Does not wait: a page that is being changed counts.
    pub(crate) fn dirty_count(&self) -> u64 {
        self.shards.iter().flat_map(|s| s.frames.iter()).filter(|frame| frame.is_dirty()).count() as u64
    }
}

impl PageTable {
    /// Takes an unused frame from its page. `false`: the page is dirty.
    fn evict(&mut self, frame: &BufferFrame, victim: Victim) -> bool {
        if frame.dirty().rec_lsn.is_some() {
            return false;
        }
        let page = frame.take_page();
        self.frame_of.remove(&page);
        self.policy.gone(victim, page);
        true
    }
}
