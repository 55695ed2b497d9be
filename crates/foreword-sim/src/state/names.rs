//! Changes of names in directories.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::inode::Ino;

/// A change to a directory that the platter may not have yet.
#[derive(Clone)]
pub(super) enum NameOp {
    Link(Arc<Path>, Ino),
    Rename(Arc<Path>, Arc<Path>, Ino),
    Unlink(Arc<Path>, Ino),
}

impl NameOp {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        let (a, b) = match self {
            NameOp::Link(path, _) | NameOp::Unlink(path, _) => (path, None),
            NameOp::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(a).chain(b)
    }

    pub(super) fn paths_mut(&mut self) -> impl Iterator<Item = &mut Arc<Path>> {
        let (a, b) = match self {
            NameOp::Link(path, _) | NameOp::Unlink(path, _) => (path, None),
            NameOp::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(a).chain(b)
    }

    pub(super) fn ino(&self) -> Ino {
        match self {
            NameOp::Link(_, ino) | NameOp::Rename(_, _, ino) | NameOp::Unlink(_, ino) => *ino,
        }
    }

    /// Whether this change cannot be durable without an earlier one: the two share a name or a
    /// file.
    pub(super) fn needs(&self, earlier: &NameOp) -> bool {
        self.ino() == earlier.ino() || self.paths().any(|path| earlier.paths().any(|other| path == other))
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<Arc<Path>, Ino>) {
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
