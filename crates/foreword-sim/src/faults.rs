//! Faults: what goes wrong, when, and for how long.

use std::path::Path;
use std::time::Duration;

/// What an operation does. A fault names the kind that it strikes; the journal has the kind of each
/// operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpKind {
    /// For a fault: every operation.
    Any,
    /// Opening a file that exists.
    Open,
    /// Opening a file, made or made empty.
    Create,
    /// Making a directory.
    CreateDir,
    /// Listing a directory.
    List,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Syncing a directory.
    SyncDir,
    /// Taking or asking for a lock.
    Lock,
    /// Reading.
    Read,
    /// Writing. A fault here strikes durable writes, too, before anything is written.
    Write,
    /// Writing and syncing what was written. Faults on [`Write`](OpKind::Write) and on
    /// [`Sync`](OpKind::Sync) strike it.
    DurableWrite,
    /// Syncing a file. A fault here strikes durable writes, too, after they are written to the page
    /// cache.
    Sync,
    /// Setting a length, with space for it or without.
    SetLen,
}

impl OpKind {
    /// Whether an operation of this kind can change what is on the disk, and so what a power
    /// failure leaves.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, OpKind::Any | OpKind::Open | OpKind::List | OpKind::Lock | OpKind::Read)
    }
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// An I/O error. A failed sync marks the pages clean, as ext4, XFS and Btrfs do, so a later
    /// sync succeeds. The disk never gets the data, or only some of its sectors. The page cache
    /// goes on showing the data, as that of ext4 and XFS does. (Btrfs shows again what was there
    /// before, so a program that reads back sees the loss. Rebello and others, "Can Applications
    /// Recover from fsync Failures?", USENIX ATC 2020, and the authors' CuttleFS, which simulates
    /// all three.)
    Eio,
    /// An error: no space. Nothing is done.
    NoSpace,
    /// An error: interrupted. Nothing is done.
    Interrupted,
    /// Reads and writes stop half-way and return that. Writes stop at the end of a sector.
    Short,
    /// A write that succeeds and never reaches the disk, whatever is synced. The page cache shows
    /// it.
    Lost,
    /// A write that reaches the disk this many sectors away. The page cache shows it in the right
    /// place.
    Misdirected(i32),
    /// One bit is wrong: in a write, on the disk; in a read, in the caller's buffer.
    Flip,
    /// A sync that succeeds and does nothing. The next sync covers what this one should have.
    Lie,
    /// The operation is done after so long.
    Stall(Duration),
}

/// A fault: which operations it strikes, after how many, how many of them, and what it does to
/// them.
///
/// ```
/// use foreword_sim::{Effect, Fault, OpKind};
/// let fault = Fault::new(OpKind::Sync, Effect::Eio).skip(3).times(2).on(".seg");
/// assert_eq!(fault.skip, 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of operation that the fault strikes.
    pub op: OpKind,
    /// What the fault does.
    pub effect: Effect,
    /// Operations of the kind that pass first.
    pub skip: u64,
    /// Operations that the fault strikes then.
    pub times: u64,
    /// If given, the fault strikes only paths that contain this.
    pub path: Option<String>,
}

impl Fault {
    /// Strikes the next operation of a kind, once.
    #[must_use]
    pub fn new(op: OpKind, effect: Effect) -> Fault {
        Fault { op, effect, skip: 0, times: 1, path: None }
    }

    /// Lets this many operations pass first.
    #[must_use]
    pub fn skip(mut self, operations: u64) -> Fault {
        self.skip = operations;
        self
    }

    /// Strikes this many operations in a row.
    #[must_use]
    pub fn times(mut self, operations: u64) -> Fault {
        self.times = operations;
        self
    }

    /// Strikes every operation from then on.
    #[must_use]
    pub fn forever(self) -> Fault {
        self.times(u64::MAX)
    }

    /// Strikes only files whose path contains a text.
    #[must_use]
    pub fn on(mut self, part_of_path: &str) -> Fault {
        self.path = Some(part_of_path.to_owned());
        self
    }

    fn concerns(&self, kind: OpKind, path: &Path) -> bool {
        let durable = kind == OpKind::DurableWrite && matches!(self.op, OpKind::Write | OpKind::Sync);
        let struck = durable || self.op == kind || self.op == OpKind::Any;
        struck && self.path.as_ref().is_none_or(|part| path.to_string_lossy().contains(part.as_str()))
    }

    /// Counts an operation. Returns whether the fault strikes it.
    pub(crate) fn strikes(&mut self, kind: OpKind, path: &Path) -> bool {
        if self.times == 0 || !self.concerns(kind, path) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times < u64::MAX {
            self.times -= 1;
        }
        true
    }
}

/// An operation on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Op {
    /// What the operation did.
    pub kind: OpKind,
    /// The file or directory.
    pub path: std::sync::Arc<Path>,
    /// The offset of a read or write; the new length, for [`OpKind::SetLen`].
    pub offset: u64,
    /// How many bytes.
    pub len: usize,
    /// Whether a fault or the power struck it.
    pub struck: bool,
}
