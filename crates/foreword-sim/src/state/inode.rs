//! A file: what the page cache shows of it, what the platter has, and what lies between.

use std::sync::Arc;

use crate::SECTOR;
use crate::content::{Content, pieces};
use crate::rng::Rng;

/// The number of a file.
pub(crate) type Ino = u64;

/// A change to a file that the platter may not have yet.
#[derive(Clone)]
pub(super) enum Pending {
    /// A new length; `cuts` if it shortens the file.
    Len { len: u64, cuts: bool },
    /// `sure`: the platter has it.
    Write { at: u64, data: Arc<[u8]>, sure: bool },
}

/// A file, by whatever name.
#[derive(Clone, Default)]
pub(crate) struct Inode {
    pub(crate) cache: Content,
    pub(super) platter: Content,
    pub(super) pending: Vec<Pending>,
    /// The platter is not what the cache shows, even with all pending changes.
    differs: bool,
    pub(crate) opens: u32,
}

impl Inode {
    /// A file as the platter has it, with a cold page cache.
    pub(super) fn on_platter(platter: Content) -> Inode {
        Inode { cache: platter.clone(), platter, ..Inode::default() }
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        if len != self.cache.len() {
            self.pending.push(Pending::Len { len, cuts: len < self.cache.len() });
            self.cache.set_len(len);
        }
    }

    fn lengthen(&mut self, end: u64) {
        if end > self.cache.len() {
            self.set_len(end);
        }
    }

    /// Writes into the page cache.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) {
        self.lengthen(at + data.len() as u64);
        self.cache.write(at, data);
        self.pending.push(Pending::Write { at, data: data.into(), sure: false });
    }

    /// Makes a hole, which reads as zeros: at once in the page cache, and on the platter like a
    /// write.
    pub(crate) fn punch(&mut self, at: u64, len: u64) {
        let end = (at + len).min(self.cache.len());
        if at < end {
            self.cache.punch(at, end - at);
            self.pending.push(Pending::Write { at, data: vec![0; (end - at) as usize].into(), sure: false });
        }
    }

    /// Writes to the page cache, and something else, perhaps elsewhere, to the platter.
    pub(crate) fn write_wrong(&mut self, at: u64, data: &[u8], platter: Option<(u64, &[u8])>) {
        self.lengthen(at + data.len() as u64);
        self.cache.write(at, data);
        self.differs = true;
        if let Some((at, data)) = platter {
            self.pending.push(Pending::Write { at, data: data.into(), sure: false });
        }
    }

    /// Writes to the page cache and the platter. Other pending writes stay pending.
    pub(crate) fn write_durable(&mut self, at: u64, data: &[u8]) {
        self.lengthen(at + data.len() as u64);
        self.cache.write(at, data);
        if self.pending.is_empty() {
            self.platter.write(at, data);
        } else {
            self.pending.push(Pending::Write { at, data: data.into(), sure: true });
        }
    }

    pub(crate) fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if !self.differs {
            self.platter = self.cache.clone();
            return;
        }
        for pending in pending {
            match pending {
                Pending::Len { len, .. } => self.platter.set_len(len),
                Pending::Write { at, data, .. } => self.platter.write_within(at, &data),
            }
        }
    }

    /// A failed sync: all pending writes are dropped, or some of their sectors; the pages are
    /// clean.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng) {
        let all = rng.chance(500);
        self.drop_pending(|_| all || rng.chance(500));
    }

    /// A failed durable write: as a failed sync, for the sectors of this write alone.
    pub(crate) fn fail_durable(&mut self, at: u64, data: &[u8], rng: &mut Rng) {
        self.lengthen(at + data.len() as u64);
        self.cache.write(at, data);
        self.differs = true;
        let all = rng.chance(500);
        for (at, range) in pieces(at, data.len(), SECTOR) {
            if !all && rng.chance(500) {
                self.pending.push(Pending::Write { at, data: data[range].into(), sure: true });
            }
        }
    }

    fn drop_pending(&mut self, mut dropped: impl FnMut(u64) -> bool) {
        self.differs = true;
        let mut kept = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let Pending::Write { at, data, sure: false } = &pending else {
                kept.push(pending);
                continue;
            };
            for (at, range) in pieces(*at, data.len(), SECTOR) {
                if !dropped(at) {
                    kept.push(Pending::Write { at, data: data[range].into(), sure: true });
                }
            }
        }
        self.pending = kept;
    }

    /// Reads clean pages from the platter anew. Pending changes stay.
    pub(crate) fn drop_cache(&mut self) {
        self.cache = self.platter.clone();
        for pending in &self.pending {
            match pending {
                Pending::Len { len, .. } => self.cache.set_len(*len),
                Pending::Write { at, data, .. } => self.cache.write_within(*at, data),
            }
        }
    }

    /// Damages the file, on the platter and in the cache.
    pub(crate) fn damage(&mut self, change: impl FnOnce(&mut Content)) {
        self.sync();
        change(&mut self.platter);
        self.cache = self.platter.clone();
        self.differs = false;
    }

    pub(crate) fn platter(&self) -> &Content {
        &self.platter
    }
}
