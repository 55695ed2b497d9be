//! What a disk holds: for each file what the page cache shows and what the platter has, and what lies between.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::SECTOR;
use crate::content::{Content, PAGE, pieces};
use crate::faults::{Fault, Op};
use crate::rng::Rng;

/// The index of a file.
pub(crate) type Ino = u64;

/// A change to a file that the platter may not have yet.
#[derive(Clone)]
pub(crate) enum Pending {
    /// A new length; `cuts` if it shortens the file.
    Len { len: u64, cuts: bool },
    /// `sure`: the platter has it.
    Write { at: u64, data: Arc<[u8]>, sure: bool },
}

#[derive(Clone, Default)]
pub(crate) struct Inode {
    pub(crate) cache: Content,
    platter: Content,
    pending: Vec<Pending>,
    /// The platter will not be what the cache is, even with all that is pending.
    differs: bool,
    pub(crate) opens: u32,
}

/// A change to a directory that the platter may not have yet.
#[derive(Clone)]
enum NameOp {
    Link(Arc<Path>, Ino),
    Rename(Arc<Path>, Arc<Path>, Ino),
    Unlink(Arc<Path>, Ino),
}

impl NameOp {
    fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        let (a, b) = match self {
            NameOp::Link(path, _) | NameOp::Unlink(path, _) => (path, None),
            NameOp::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(a).chain(b)
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut Arc<Path>> {
        let (a, b) = match self {
            NameOp::Link(path, _) | NameOp::Unlink(path, _) => (path, None),
            NameOp::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(a).chain(b)
    }

    fn ino(&self) -> Ino {
        match self {
            NameOp::Link(_, ino) | NameOp::Rename(_, _, ino) | NameOp::Unlink(_, ino) => *ino,
        }
    }

    /// Whether one cannot be durable without the other that came before it: they share a name or a file.
    fn needs(&self, earlier: &NameOp) -> bool {
        self.ino() == earlier.ino() || self.paths().any(|path| earlier.paths().any(|other| path == other))
    }

    fn apply(&self, names: &mut BTreeMap<Arc<Path>, Ino>) {
        match self {
            NameOp::Link(path, ino) => {
                names.insert(path.clone(), *ino);
            }
            NameOp::Rename(from, to, ino) => {
                names.remove(from);
                names.insert(to.clone(), *ino);
            }
            NameOp::Unlink(path, _) => {
                names.remove(path);
            }
        }
    }
}

/// One thing that a power failure may leave done or undone, whatever becomes of the others.
#[derive(Clone)]
pub(crate) enum Unit {
    Name(usize),
    Len(Ino, usize),
    /// A sector of a pending write.
    Sector(Ino, usize, std::ops::Range<usize>),
}

impl Unit {
    /// Units of the same write or operation have the same group.
    pub(crate) fn group(&self) -> (Ino, usize) {
        match self {
            Unit::Name(i) => (Ino::MAX, *i),
            Unit::Len(ino, i) | Unit::Sector(ino, i, _) => (*ino, *i),
        }
    }
}

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    /// Where each directory is, by a number of its own.
    pub(crate) dirs: BTreeMap<PathBuf, u64>,
    next_dir: u64,
    pub(crate) names: BTreeMap<Arc<Path>, Ino>,
    durable_names: BTreeMap<Arc<Path>, Ino>,
    name_ops: Vec<NameOp>,
    pub(crate) locked: BTreeSet<Ino>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) capacity: Option<u64>,
    /// Changing operations so far; at which of them the power fails; whether it has.
    pub(crate) changes: u64,
    pub(crate) power_off_at: Option<u64>,
    pub(crate) off: bool,
    pub(crate) journal: Vec<Op>,
    pub(crate) rng: Rng,
}

impl State {
    pub(crate) fn new(seed: u64) -> State {
        State {
            inodes: BTreeMap::new(),
            next_ino: 1,
            dirs: BTreeMap::from([(PathBuf::from("/"), 0)]),
            next_dir: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_ops: Vec::new(),
            locked: BTreeSet::new(),
            faults: Vec::new(),
            capacity: None,
            changes: 0,
            power_off_at: None,
            off: false,
            journal: Vec::new(),
            rng: Rng::new(seed),
        }
    }

    /// A directory, made with its parents if it is not there.
    pub(crate) fn create_dir(&mut self, path: &Path) -> u64 {
        let mut id = 0;
        for dir in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            id = *self.dirs.entry(dir.to_owned()).or_insert_with(|| {
                self.next_dir += 1;
                self.next_dir - 1
            });
        }
        id
    }

    /// Moves a directory: all paths that lead into it.
    pub(crate) fn rename_dir(&mut self, from: &Path, to: &Path) -> bool {
        let free = !self.dirs.contains_key(to) && !self.names.contains_key(to);
        if !self.dirs.contains_key(from) || !free || !to.parent().is_some_and(|dir| self.dirs.contains_key(dir)) {
            return false;
        }
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        self.dirs = std::mem::take(&mut self.dirs).into_iter().map(|(path, id)| (moved(&path), id)).collect();
        for names in [&mut self.names, &mut self.durable_names] {
            *names = std::mem::take(names).into_iter().map(|(path, ino)| (moved(&path).into(), ino)).collect();
        }
        for path in self.name_ops.iter_mut().flat_map(NameOp::paths_mut) {
            *path = moved(path).into();
        }
        true
    }

    pub(crate) fn link(&mut self, path: &Arc<Path>) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.inodes.insert(ino, Inode::default());
        self.change_names(NameOp::Link(path.clone(), ino));
        ino
    }

    pub(crate) fn rename(&mut self, from: &Arc<Path>, to: &Arc<Path>, ino: Ino) {
        self.change_names(NameOp::Rename(from.clone(), to.clone(), ino));
    }

    pub(crate) fn unlink(&mut self, path: &Arc<Path>, ino: Ino) {
        self.change_names(NameOp::Unlink(path.clone(), ino));
    }

    fn change_names(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.name_ops.push(op);
    }

    /// Makes the changes in a directory durable, and what they stand on.
    pub(crate) fn sync_dir(&mut self, dir: &Path) {
        let mut wanted: Vec<bool> = self.name_ops.iter().map(|op| op.paths().any(|p| p.parent() == Some(dir))).collect();
        for i in (0..wanted.len()).rev() {
            for j in 0..i {
                wanted[j] |= wanted[i] && self.name_ops[i].needs(&self.name_ops[j]);
            }
        }
        let mut wanted = wanted.into_iter();
        let names = &mut self.durable_names;
        self.name_ops.retain(|op| {
            let now = wanted.next() == Some(true);
            if now {
                op.apply(names);
            }
            !now
        });
        self.forget_unlinked();
    }

    /// Files that nothing can lead to any more.
    fn forget_unlinked(&mut self) {
        let mut used: HashSet<Ino> = self.names.values().chain(self.durable_names.values()).copied().collect();
        used.extend(self.name_ops.iter().map(NameOp::ino));
        self.inodes.retain(|ino, inode| inode.opens > 0 || used.contains(ino));
    }

    /// Bytes taken: by files with a name, and by open ones without.
    pub(crate) fn used(&self) -> u64 {
        let named: HashSet<Ino> = self.names.values().copied().collect();
        let takes = |(ino, inode): (&Ino, &Inode)| (inode.opens > 0 || named.contains(ino)).then(|| inode.cache.allocated());
        self.inodes.iter().filter_map(takes).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// How much of a write finds room.
    pub(crate) fn room_for(&self, ino: Ino, offset: u64, len: usize) -> usize {
        if self.capacity.is_none() {
            return len;
        }
        let mut free = self.free() / PAGE as u64;
        let Some(inode) = self.inodes.get(&ino) else { return 0 };
        for (at, range) in pieces(offset, len, PAGE) {
            if !inode.cache.has_page(at / PAGE as u64) {
                if free == 0 {
                    return range.start;
                }
                free -= 1;
            }
        }
        len
    }

    /// What power failure can decide, one by one.
    pub(crate) fn undecided(&self) -> Vec<Unit> {
        let mut units: Vec<Unit> = (0..self.name_ops.len()).map(Unit::Name).collect();
        for (&ino, inode) in &self.inodes {
            let mut touched = HashSet::new();
            for (i, pending) in inode.pending.iter().enumerate() {
                let Pending::Write { at, data, sure } = pending else {
                    units.push(Unit::Len(ino, i));
                    continue;
                };
                for (at, range) in pieces(*at, data.len(), SECTOR) {
                    // What changes nothing needs no deciding.
                    let fresh = touched.insert(at / SECTOR as u64);
                    let there = fresh && inode.platter.equals(at, &data[range.clone()]);
                    if !(*sure || there) {
                        units.push(Unit::Sector(ino, i, range));
                    }
                }
            }
        }
        units
    }

    /// The disk after a power failure that kept some of the units, and whether all of these could be kept: a change of a
    /// name needs the earlier changes of it, and what was written behind a cut needs the cut.
    pub(crate) fn crash(&self, units: &[Unit], keep: &[bool], seed: u64) -> (State, bool) {
        let mut after = State::new(seed);
        (after.dirs, after.next_dir) = (self.dirs.clone(), self.next_dir);
        (after.next_ino, after.capacity) = (self.next_ino, self.capacity);
        after.names = self.durable_names.clone();
        let mut faithful = true;
        let mut kept = units.iter().zip(keep).peekable();
        let mut undone: Vec<&NameOp> = Vec::new();
        while let Some(&(&Unit::Name(i), &keep)) = kept.peek() {
            let op = &self.name_ops[i];
            let possible = !undone.iter().any(|earlier| op.needs(earlier));
            faithful &= possible || !keep;
            if keep && possible {
                op.apply(&mut after.names);
            } else {
                undone.push(op);
            }
            kept.next();
        }
        for (&ino, inode) in &self.inodes {
            let mut platter = inode.platter.clone();
            let mut cut_off = false;
            for (i, pending) in inode.pending.iter().enumerate() {
                if let Pending::Write { at, data, sure: true } = pending {
                    platter.write_within(*at, data);
                }
                while let Some((unit, keep)) = kept.next_if(|(unit, _)| unit.group() == (ino, i)) {
                    faithful &= !(*keep && cut_off);
                    match (unit, pending) {
                        (Unit::Len(..), Pending::Len { len, .. }) if *keep && !cut_off => platter.set_len(*len),
                        (Unit::Len(..), Pending::Len { cuts, .. }) => cut_off |= cuts,
                        (Unit::Sector(_, _, range), Pending::Write { at, data, .. }) if *keep && !cut_off => {
                            platter.write_within(at + range.start as u64, &data[range.clone()]);
                        }
                        _ => {}
                    }
                }
            }
            after.inodes.insert(ino, Inode { cache: platter.clone(), platter, ..Inode::default() });
        }
        after.durable_names = after.names.clone();
        after.forget_unlinked();
        (after, faithful)
    }

    /// The disk after its users were killed: the page cache is as it was.
    pub(crate) fn kill(&self) -> State {
        let mut after = self.clone();
        after.inodes.values_mut().for_each(|inode| inode.opens = 0);
        after.locked.clear();
        after.faults.clear();
        after.journal.clear();
        (after.changes, after.power_off_at, after.off) = (0, None, false);
        after.forget_unlinked();
        after
    }
}

impl Inode {
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

    /// Into the page cache.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) {
        self.lengthen(at + data.len() as u64);
        self.cache.write(at, data);
        self.pending.push(Pending::Write { at, data: data.into(), sure: false });
    }

    /// Makes a hole, which reads as zeros: at once in the page cache, and on the platter like a write.
    pub(crate) fn punch(&mut self, at: u64, len: u64) {
        let end = (at + len).min(self.cache.len());
        if at < end {
            self.cache.punch(at, end - at);
            self.pending.push(Pending::Write { at, data: vec![0; (end - at) as usize].into(), sure: false });
        }
    }

    /// To the page cache, and something else, perhaps elsewhere, to the platter.
    pub(crate) fn write_wrong(&mut self, at: u64, data: &[u8], platter: Option<(u64, &[u8])>) {
        self.lengthen(at + data.len() as u64);
        self.cache.write(at, data);
        self.differs = true;
        if let Some((at, data)) = platter {
            self.pending.push(Pending::Write { at, data: data.into(), sure: false });
        }
    }

    /// To the platter, with the sectors around it as the cache has them.
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

    /// A failed sync: what was to be written is dropped, all of it or some sectors; the pages are clean.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng) {
        let all = rng.chance(500);
        self.drop_pending(|_| all || rng.chance(500));
    }

    /// A failed durable write: as a failed sync, but for the sectors of that write alone.
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

    /// Reads clean pages from the platter anew; what is pending stays.
    pub(crate) fn drop_cache(&mut self) {
        self.cache = self.platter.clone();
        for pending in &self.pending {
            match pending {
                Pending::Len { len, .. } => self.cache.set_len(*len),
                Pending::Write { at, data, .. } => self.cache.write_within(*at, data),
            }
        }
    }

    /// Damages what is there, on the platter and in the cache.
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
