//! What a power failure can leave.

use std::collections::HashSet;

use super::DiskState;
use super::inode::{Ino, Inode, Pending};
use super::names::NameOp;
use crate::SECTOR;
use crate::content::pieces;

/// The smallest change that a power failure keeps or loses, whatever it does with the others. The
/// numbers are indices into the pending changes of names, or of a file.
#[derive(Clone)]
pub(crate) enum CrashUnit {
    Name(usize),
    Len(Ino, usize),
    /// A sector of a pending write: its bytes in the write.
    Sector(Ino, usize, std::ops::Range<usize>),
}

impl CrashUnit {
    /// The same for all units of one write or one other operation.
    pub(crate) fn group(&self) -> (Ino, usize) {
        match self {
            CrashUnit::Name(i) => (Ino::MAX, *i),
            CrashUnit::Len(ino, i) | CrashUnit::Sector(ino, i, _) => (*ino, *i),
        }
    }
}

impl DiskState {
    /// What a power failure can decide, unit by unit.
    pub(crate) fn undecided(&self) -> Vec<CrashUnit> {
        let mut units: Vec<CrashUnit> = (0..self.name_ops.len()).map(CrashUnit::Name).collect();
        for (&ino, inode) in &self.inodes {
            let mut touched = HashSet::new();
            for (i, pending) in inode.pending.iter().enumerate() {
                let Pending::Write { at, data, sure } = pending else {
                    units.push(CrashUnit::Len(ino, i));
                    continue;
                };
                for (at, range) in pieces(*at, data.len(), SECTOR) {
                    // A sector that changes nothing is no unit.
                    let fresh = touched.insert(at / SECTOR as u64);
                    let there = fresh && inode.platter.equals(at, &data[range.clone()]);
                    if !(*sure || there) {
                        units.push(CrashUnit::Sector(ino, i, range));
                    }
                }
            }
        }
        units
    }

    /// The disk after a power failure that keeps some of the units, and whether all of them could
    /// be kept: a change of a name needs the earlier changes of that name, and a write after a cut
    /// needs the cut.
    pub(crate) fn crash(&self, units: &[CrashUnit], keep: &[bool], seed: u64) -> (DiskState, bool) {
        let mut after = DiskState::new(seed);
        (after.dirs, after.next_dir) = (self.dirs.clone(), self.next_dir);
        (after.next_ino, after.capacity) = (self.next_ino, self.capacity);
        after.names = self.durable_names.clone();
        let mut faithful = true;
        let mut kept = units.iter().zip(keep).peekable();
        let mut undone: Vec<&NameOp> = Vec::new();
        while let Some(&(&CrashUnit::Name(i), &keep)) = kept.peek() {
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
                        (CrashUnit::Len(..), Pending::Len { len, .. }) if *keep && !cut_off => platter.set_len(*len),
                        (CrashUnit::Len(..), Pending::Len { cuts, .. }) => cut_off |= cuts,
                        (CrashUnit::Sector(_, _, range), Pending::Write { at, data, .. }) if *keep && !cut_off => {
                            platter.write_within(at + range.start as u64, &data[range.clone()]);
                        }
                        _ => {}
                    }
                }
            }
            after.inodes.insert(ino, Inode::on_platter(platter));
        }
        after.durable_names = after.names.clone();
        after.forget_unlinked();
        (after, faithful)
    }
}
