//! Faults: what goes wrong, when, and for how long.

use std::path::Path;
use std::time::Duration;

/// What an operation does. Faults name the kinds they strike; the journal says what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpKind {
    /// For a fault: every operation.
    Any,
    /// Opening a file that exists.
    Open,
    /// Opening a file anew and empty.
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
    /// Writing and syncing what was written. Faults on [`Write`](OpKind::Write) and on [`Sync`](OpKind::Sync) strike it.
    DurableWrite,
    /// Syncing a file. A fault here strikes durable writes, too, after they are written to the page cache.
    Sync,
    /// Setting a length, with space for it or without.
    SetLen,
}

impl OpKind {
    /// Whether such an operation can change what is on the disk: after which a power failure can find something else.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, OpKind::Any | OpKind::Open | OpKind::List | OpKind::Lock | OpKind::Read)
    }
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// An I/O error. A failed sync marks the pages clean, as ext4, XFS and Btrfs do, so that a later sync succeeds; the disk never gets the data (or
    /// only some of its sectors), and the page cache goes on showing it, as that of ext4 and XFS does. (Btrfs shows again what was there before, so that
    /// who reads it back is not deceived. Rebello and others, "Can Applications Recover from fsync Failures?", USENIX ATC 2020, and the
    /// authors' CuttleFS, which plays all three.)
    Eio,
    /// No space; nothing is done.
    NoSpace,
    /// Interrupted; nothing is done.
    Interrupted,
    /// Reads and writes stop half-way and say so; writes, at the end of a sector.
    Short,
    /// A write that says it is done and never reaches the disk, whatever is synced. The page cache shows it.
    Lost,
    /// A write that reaches the disk so many sectors away. The page cache shows it where it should be.
    Misdirected(i32),
    /// One bit is wrong: on the disk, of a write; in the caller's buffer, of a read.
    Flip,
    /// A sync that says it is done and did nothing. What it covered waits for the next.
    Lie,
    /// The operation takes so long, and is done then.
    Stall(Duration),
}

/// A fault: which operations it strikes, from which on, how many of them, and what it does to them.
///
/// ```
/// use foreword_sim::{Effect, Fault, OpKind};
/// let fault = Fault::new(OpKind::Sync, Effect::Eio).skip(3).times(2).on(".seg");
/// assert_eq!(fault.skip, 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it strikes.
    pub op: OpKind,
    /// What it does.
    pub effect: Effect,
    /// How many operations of the kind it lets pass first.
    pub skip: u64,
    /// How many it strikes then.
    pub times: u64,
    /// Only files whose path contains this.
    pub path: Option<String>,
}

impl Fault {
    /// Strikes the next operation of a kind, once.
    #[must_use]
    pub fn new(op: OpKind, effect: Effect) -> Fault {
        Fault { op, effect, skip: 0, times: 1, path: None }
    }

    /// Lets so many pass first.
    #[must_use]
    pub fn skip(mut self, operations: u64) -> Fault {
        self.skip = operations;
        self
    }

    /// Strikes so many in a row.
    #[must_use]
    pub fn times(mut self, operations: u64) -> Fault {
        self.times = operations;
        self
    }

    /// Strikes from then on for ever.
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

    /// Counts an operation: the fault's effect, if it strikes.
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

/// An operation that was asked of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Op {
    /// What.
    pub kind: OpKind,
    /// Of which file or directory.
    pub path: std::sync::Arc<Path>,
    /// Where in it, for reads and writes; the new length, for [`OpKind::SetLen`].
    pub offset: u64,
    /// How many bytes.
    pub len: usize,
    /// Whether a fault or the power struck it.
    pub struck: bool,
}
