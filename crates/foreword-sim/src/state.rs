//! What a disk holds: names, files, and what of both a power failure may take back.

mod crash;
mod inode;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::{PAGE, pieces};
use crate::faults::{Fault, Op};
use crate::rng::Rng;

pub(crate) use crash::CrashUnit;
pub(crate) use inode::{Ino, Inode};
use names::NameOp;

/// All that a disk has.
#[derive(Clone)]
pub(crate) struct DiskState {
    pub(crate) inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    /// The number of each directory, by its path.
    pub(crate) dirs: BTreeMap<PathBuf, u64>,
    next_dir: u64,
    /// The files by their paths, as the system shows them.
    pub(crate) names: BTreeMap<Arc<Path>, Ino>,
    /// The files by their paths, as the platter has them: `name_ops` lead from these to `names`.
    durable_names: BTreeMap<Arc<Path>, Ino>,
    name_ops: Vec<NameOp>,
    pub(crate) locked: BTreeSet<Ino>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) capacity: Option<u64>,
    /// Changing operations so far.
    pub(crate) changes: u64,
    /// The changing operation in which the power fails.
    pub(crate) power_off_at: Option<u64>,
    /// Whether the power has failed.
    pub(crate) off: bool,
    pub(crate) journal: Vec<Op>,
    pub(crate) rng: Rng,
}

impl DiskState {
    pub(crate) fn new(seed: u64) -> DiskState {
        DiskState {
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

    /// Makes a directory and its parents, if they are not there. Returns the directory's number.
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

    /// Moves a directory: changes all paths that lead into the directory.
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

    /// Makes the changes of names in a directory durable, with the earlier changes that they need.
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

    /// Drops the files that no name leads to, now or after a power failure, and that are not open.
    fn forget_unlinked(&mut self) {
        let mut used: HashSet<Ino> = self.names.values().chain(self.durable_names.values()).copied().collect();
        used.extend(self.name_ops.iter().map(NameOp::ino));
        self.inodes.retain(|ino, inode| inode.opens > 0 || used.contains(ino));
    }

    /// Bytes that files take: those with a name, and those that are open; and a page for each
    /// directory but the root.
    pub(crate) fn used(&self) -> u64 {
        let named: HashSet<Ino> = self.names.values().copied().collect();
        let takes = |(ino, inode): (&Ino, &Inode)| (inode.opens > 0 || named.contains(ino)).then(|| inode.cache.allocated());
        self.inodes.iter().filter_map(takes).sum::<u64>() + (self.dirs.len() as u64 - 1) * PAGE as u64
    }

    /// Whether there is room for a directory, and those of its parents that are not there.
    pub(crate) fn has_room_for_dirs(&self, path: &Path) -> bool {
        let new = path.ancestors().filter(|dir| !self.dirs.contains_key(*dir)).count();
        new == 0 || self.free() >= (new * PAGE) as u64
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// How many bytes of a write find room.
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

    /// The disk after all processes were killed: the page cache is as it was.
    pub(crate) fn kill(&self) -> DiskState {
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
