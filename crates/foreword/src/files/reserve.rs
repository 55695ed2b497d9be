//! Room that a log keeps for a full disk: two small files, of which opening, truncation and
//! checkpoints can make a segment when there is no space for one. Appends never take it.
//!
//! Two, so that it does not end: a log that had to go on in one of them and is killed goes on in
//! the other, and the first, which is superseded then, is the reserve again.
//!
//! One of them is there for each opening, because no segment follows one that was made of the
//! reserve before the reserve is whole again: space, also that of dropped segments, is first of all
//! the reserve's, and a checkpoint does not take the last of it.

use std::sync::Arc;

use crate::bug::bug;
use crate::error::is_full;
use crate::files::dir::Dir;
use crate::files::disk::Access;
use crate::files::fill::at_once;
use crate::files::names::{RESERVES, TMP, segment_name};
use crate::files::prepare::Stuff;
use crate::files::segment::Segment;
use crate::format::{BLOCK, LogId, SEGMENT_BLOCKS_MIN};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::{Error, Result};

/// Enough for a full frame, and what a segment has besides: all that a cut at the back has to write
/// again of most logs.
const BLOCKS: u32 = 96;

/// How many blocks a reserve of a log has whose segments have so many.
pub(crate) fn blocks(segment_blocks: u32) -> u32 {
    BLOCKS.min(segment_blocks)
}

/// Whether a file of so many blocks can be the reserve, and a segment of so many be made of it:
/// whatever the log's segments have now, it may have been opened with others before.
pub(crate) fn can_be_reserve(blocks: u32) -> bool {
    (SEGMENT_BLOCKS_MIN..=BLOCKS).contains(&blocks)
}

impl Dir {
    /// A segment made of the reserve, when there was no space for a new one, as `error` says. If
    /// the reserve is not there, there may still be space for one as small: what an unfinished step
    /// had made of the reserve was removed.
    ///
    /// `superseded` is how many blocks the segment has that the new one supersedes, if it does: it
    /// is of the reserve then. The new one is no larger than what is left for the next, in which
    /// all that it comes to hold must have room.
    pub(crate) fn take_reserve(
        &self,
        log: LogId,
        epoch: u64,
        segment_blocks: u32,
        superseded: u32,
        error: Error,
    ) -> Result<Arc<Segment>> {
        self.short.store(self.reserve, Ordering::Relaxed);
        match self.reserve_behind(superseded) {
            Some((blocks, name)) => self.prepare(log, epoch, blocks, Stuff::Reserve(name), &at_once),
            None => self.prepare(log, epoch, blocks(segment_blocks), Stuff::Nothing, &at_once).map_err(|_| error),
        }
    }

    /// How many blocks a segment has that is made of the reserve now, and of which part; none, if
    /// there is no reserve. See [`take_reserve`](Dir::take_reserve).
    pub(crate) fn reserve_behind(&self, superseded: u32) -> Option<(u32, &'static str)> {
        let there = RESERVES.map(|name| (self.blocks_of(name).min(BLOCKS), name));
        let mut there: Vec<_> = there.into_iter().filter(|&(blocks, _)| blocks >= SEGMENT_BLOCKS_MIN).collect();
        there.sort_unstable();
        let largest = there.last()?.0;
        let other = if there.len() > 1 { there[0].0 } else { 0 };
        let next = other.max(if can_be_reserve(superseded) { superseded } else { 0 });
        let blocks = if next == 0 { largest } else { largest.min(next) };
        there.into_iter().find(|&(has, _)| has >= blocks).map(|(_, name)| (blocks, name))
    }

    /// Whether a part of the reserve would be left for the next opening.
    pub(crate) fn has_reserve_to_spare(&self) -> bool {
        bug!(TakeLastReserve, return true);
        !self.reserve || RESERVES.iter().all(|name| self.blocks_of(name) >= SEGMENT_BLOCKS_MIN)
    }

    /// Whether what there is of space belongs to the reserve.
    pub(crate) fn reserve_is_short(&self) -> bool {
        bug!(ReserveLast, return false);
        self.short.load(Ordering::Relaxed)
    }

    /// The error of what has to wait until the reserve is whole again.
    pub(crate) fn no_space_but_for_the_reserve(&self, segment_blocks: u32) -> Error {
        let bytes = u64::from(segment_blocks) * BLOCK as u64;
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Error::NoSpace { dir: self.path.clone(), bytes: Some(bytes), source: Arc::new(source) }
    }

    /// Whether a file of so many blocks can be the reserve of this log.
    pub(crate) fn can_be_reserve(&self, has: u32) -> bool {
        self.reserve && can_be_reserve(has)
    }

    /// Gives up a block of the reserve: on a full disk, so little as a directory takes can be had of
    /// nothing else. False if each part would be too small for a segment then.
    pub(crate) fn shrink_reserve(&self) -> bool {
        let largest = RESERVES.map(|name| (self.blocks_of(name), name)).into_iter().max();
        let Some((blocks, name)) = largest.filter(|&(blocks, _)| blocks > SEGMENT_BLOCKS_MIN) else { return false };
        let file = self.handle.open(name, Access::Write);
        file.and_then(|file| file.set_len(u64::from(blocks - 1) * BLOCK as u64)).is_ok()
    }

    /// How many blocks each part of the reserve has.
    pub(crate) fn reserve_blocks(&self) -> [u32; 2] {
        RESERVES.map(|name| self.blocks_of(name))
    }

    /// Gives each part of the reserve back what it had, if it has less now, as far as there is space.
    pub(crate) fn grow_reserve(&self, had: [u32; 2]) {
        for (name, blocks) in RESERVES.into_iter().zip(had).filter(|&(name, blocks)| self.blocks_of(name) < blocks) {
            let _ = self.reserve_space(name, blocks);
        }
    }

    /// Those of some segments that can be the reserve of a log, and the others.
    pub(crate) fn fit_for_reserve(&self, epochs: impl IntoIterator<Item = u64>) -> (Vec<u64>, Vec<u64>) {
        epochs.into_iter().partition(|&epoch| self.can_be_reserve(self.blocks_of(&segment_name(epoch))))
    }

    /// Makes a temporary file, which an unfinished step left, the reserve that it may have been
    /// made of, if that is missing or smaller. Not durable.
    pub(crate) fn rescue_reserve(&self, name: &str) -> bool {
        bug!(LoseBegun, return false);
        name.ends_with(TMP) && self.can_be_reserve(self.blocks_of(name)) && self.becomes_reserve(name)
    }

    /// Makes what of the reserve is missing, or smaller than the log's segments ask for: of
    /// superseded segments that fit, as far as there are any; else anew, if there is room. That
    /// there is none, or that it fails, is no error of anything else. The superseded segments that
    /// are left, and whether the reserve is as it should be.
    pub(crate) fn keep_reserve(&self, segment_blocks: u32, superseded: Vec<u64>) -> (Vec<u64>, bool) {
        let blocks = blocks(segment_blocks);
        if !self.lacks_reserve(segment_blocks) {
            self.short.store(false, Ordering::Relaxed);
            return (superseded, true);
        }
        let given = superseded.len();
        let left = self.fill_reserve(superseded);
        let (mut changed, mut no_space) = (left.len() < given, false);
        for name in RESERVES.iter().filter(|name| self.blocks_of(name) < blocks) {
            if let Err(error) = self.make_reserve(name, blocks) {
                crate::trace::warn!(error = %error, "cannot keep room for a full disk");
                no_space = is_full(&error);
                break;
            }
            changed = true;
        }
        self.short.store(no_space, Ordering::Relaxed);
        if changed {
            let _ = self.sync();
        }
        (left, !self.lacks_reserve(segment_blocks))
    }

    /// Whether a part of the reserve is missing, or smaller than the log's segments ask for.
    pub(crate) fn lacks_reserve(&self, segment_blocks: u32) -> bool {
        self.reserve && RESERVES.iter().any(|name| self.blocks_of(name) < blocks(segment_blocks))
    }

    /// Puts superseded segments that fit in the place of what of the reserve is missing or smaller:
    /// those that are left. Not durable.
    pub(crate) fn fill_reserve(&self, superseded: Vec<u64>) -> Vec<u64> {
        superseded.into_iter().filter(|epoch| !self.becomes_reserve(&segment_name(*epoch))).collect()
    }

    /// Puts a file in the place of what of the reserve is missing or smaller, if anything is.
    fn becomes_reserve(&self, file: &str) -> bool {
        let has = self.blocks_of(file);
        let worse = RESERVES.into_iter().find(|name| self.blocks_of(name) < has);
        worse.is_some_and(|name| self.has_space(file, has) && self.handle.replace(file, name).is_ok())
    }

    /// How many blocks a file has; none, if it is not there.
    pub(crate) fn blocks_of(&self, name: &str) -> u32 {
        let len = self.handle.open(name, Access::Read).and_then(|file| file.len());
        u32::try_from(len.unwrap_or(0) / BLOCK as u64).unwrap_or(u32::MAX)
    }

    fn has_space(&self, name: &str, blocks: u32) -> bool {
        self.reserve_space(name, blocks).is_ok()
    }

    fn reserve_space(&self, name: &str, blocks: u32) -> std::io::Result<bool> {
        self.handle.open(name, Access::Write)?.allocate(u64::from(blocks) * BLOCK as u64)
    }

    /// Gives the reserve the space that a copy of it may have lost. What gets none is no reserve,
    /// and goes.
    pub(crate) fn fill_holes_in_reserve(&self) {
        for name in RESERVES {
            if self.reserve_space(name, self.blocks_of(name)).is_err_and(|error| is_full(&error)) {
                let _ = self.handle.remove(name);
            }
        }
    }

    /// What has the name stays until there is all of the new one.
    fn make_reserve(&self, name: &str, blocks: u32) -> std::io::Result<()> {
        let tmp = format!("{name}{TMP}");
        let made = (|| {
            self.reserve_file(&tmp, u64::from(blocks) * BLOCK as u64, &at_once)?.sync()?;
            self.handle.replace(&tmp, name)
        })();
        if made.is_err() {
            let _ = self.handle.remove(&tmp);
        }
        made
    }
}

/// Lets one thread at a time make the reserve. Only a thread that has segments for it waits for it.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// How many have asked since the last came to its end. The first of them does it, for all.
    asked: AtomicU32,
    /// It was as it should be, when it was last looked at.
    whole: AtomicBool,
    /// It was not, after all that could be done.
    lacking: AtomicBool,
    /// There was room for a segment since.
    room: AtomicBool,
}

impl Keeping {
    /// A segment was prepared: there is room again.
    pub(crate) fn found_room(&self) {
        self.room.store(true, Ordering::Relaxed);
    }

    /// A part of the reserve is used.
    pub(crate) fn taken(&self) {
        self.whole.store(false, Ordering::Relaxed);
    }

    /// Whether the reserve may have to be made, and there was room since this was asked last.
    pub(crate) fn is_due(&self) -> bool {
        !self.whole.load(Ordering::Relaxed) && self.room.swap(false, Ordering::Relaxed)
    }

    /// Whether it could not be made as it should be.
    pub(crate) fn is_lacking(&self) -> bool {
        self.lacking.load(Ordering::Relaxed)
    }

    /// Whether a thread is making it.
    pub(crate) fn is_under_way(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 0
    }

    /// Does `keep`, which says whether the reserve is as it should be. If another thread does, it
    /// has that one do it once more, and does nothing itself: `false`.
    pub(crate) fn keep(&self, mut keep: impl FnMut() -> bool) -> bool {
        let mut seen = 1;
        if self.asked.fetch_add(1, Ordering::AcqRel) > 0 {
            return false;
        }
        loop {
            let whole = keep();
            self.whole.store(whole, Ordering::Relaxed);
            self.lacking.store(!whole, Ordering::Relaxed);
            match self.asked.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }
}
