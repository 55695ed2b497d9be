//! The buffer pool: a fixed number of frames, each with a latch; which page is in which frame; and
//! which pages the page file does not have yet.
//!
//! Invariant: locks are taken in this order: the latch of one frame, the frame's dirty state, a
//! transaction's undo chain, the log. A thread that holds a shard's lock does no I/O and waits for
//! no latch.

mod change;
mod frame;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use foreword::{Log, Lsn};

use crate::file::PageFile;
use crate::ids::{PageMap, mix};
use crate::latch::{self, Deadlock};
use crate::page::{HEADER, Page, PageId};
use crate::policy::{Policy, Victim};
use crate::sync::lock;
use crate::{Error, Result};

use frame::BufferFrame;
pub(crate) use frame::Pin;

/// How long a thread waits for a frame when all are pinned.
const PATIENCE: Duration = Duration::from_secs(10);
const SHARD_FRAMES: usize = 1024;
const SHARDS_MAX: usize = 16;

/// The pages in memory.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) file: PageFile,
    pub(crate) log: Log,
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
    frames: Box<[BufferFrame]>,
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
        let mut table = self.shard.lock();
        table.frame_of.remove(&self.page);
        // Threads may still wait for the latch. The frame is taken only when their pins are gone.
        table.free.push(self.index);
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
        Shard { table: Mutex::new(table), frames: (0..frames).map(|_| BufferFrame::new()).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, PageTable> {
        lock(&self.table)
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

    /// Brings a page into the pool, if it is not there, and pins it.
    pub(crate) fn fetch(&self, page: PageId, load: Load) -> Result<Pin<'_>> {
        let shard = &self.shards[(mix(page.0) >> 40) as usize % self.shards.len()];
        loop {
            let mut table = shard.lock();
            if let Some(&index) = table.frame_of.get(&page) {
                table.policy.touch(index);
                let pin = Pin::new(&shard.frames[index as usize]);
                drop(table);
                if pin.frame.page() == page {
                    self.counters.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(pin);
                }
                // Another thread loads the page, with the latch held. If that fails, this thread
                // tries.
                drop(pin.read()?);
                continue;
            }
            let (mut table, index) = self.take_frame(shard, table)?;
            if table.frame_of.contains_key(&page) {
                table.free.push(index);
                continue;
            }
            // No other thread knows the frame yet, so its latch is free.
            let pin = Pin::new(&shard.frames[index as usize]);
            let latched = pin.frame.latch.write_free();
            table.frame_of.insert(page, index);
            drop(table);
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
        pin.frame.set_page(page);
        drop(latched);
        loading.done();
        Ok(pin)
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
                std::thread::sleep(Duration::from_millis(1));
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
            match self.write_back(&pin) {
                Ok(()) => {}
                // Another page may need no room.
                Err(e) if e.is_no_space() && refused < shard.frames.len() => refused += 1,
                Err(e) => return Err(e),
            }
            table = shard.lock();
            drop(pin);
            if frame.is_unused() && table.evict(frame, victim) {
                std::mem::forget(leaving);
                return Ok((table, victim.frame));
            }
            drop(table);
            drop(leaving);
            table = shard.lock();
        }
    }

    /// Writes a frame's page to the page file, if it is dirty.
    fn write_back(&self, pin: &Pin<'_>) -> Result<()> {
        let frame = pin.frame;
        let _one = latch::lock_or_deadlock(&frame.writing).map_err(|Deadlock| pin.deadlock())?;
        let (mut copy, changes) = {
            let page = pin.read()?;
            let mut dirty = frame.dirty();
            if dirty.rec_lsn.is_none() {
                return Ok(());
            }
            dirty.rec_lsn_after_copy = None;
            (page.clone(), dirty.changes)
        };
        self.file.write(&mut copy, &self.log)?;
        frame.dirty().written(changes);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes a page, if it is in the pool and dirty.
    pub(crate) fn write_page(&self, page: PageId) -> Result<()> {
        let shard = &self.shards[(mix(page.0) >> 40) as usize % self.shards.len()];
        let table = shard.lock();
        let Some(&index) = table.frame_of.get(&page) else { return Ok(()) };
        let pin = Pin::new(&shard.frames[index as usize]);
        drop(table);
        self.write_back(&pin)
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
