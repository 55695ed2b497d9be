//! Transactional stores of keys behind one small interface, each in its best honest setting.
//! Honest: an operation, and what it has read, is durable when it returns.

use std::path::Path;

use anyhow::Result;

use super::op::Op;

/// Bytes of cache that each store has.
pub(crate) const CACHE: usize = 256 << 20;

pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// The package that it is in.
    pub(crate) package: &'static str,
    pub(crate) setting: &'static str,
    /// Opens what is in a directory, or makes it.
    pub(crate) open: fn(&Path) -> Result<Box<dyn Store>>,
}

impl Contestant {
    /// The version of the package in this build.
    pub(crate) fn version(&self) -> &'static str {
        let (lock, name) = (include_str!("../../../Cargo.lock"), format!("name = \"{}\"\nversion = \"", self.package));
        lock.split_once(&name).and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default()
    }
}

/// Rows of YCSB, or accounts of transfers. Keys are in the order of their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Keys,
    Accounts,
}

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Is shown a key and its value; its error ends the showing.
pub(crate) type See<'s> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 's;

/// A store with its two tables, shared by the threads of a measurement.
pub(crate) trait Store: Send + Sync {
    /// Puts entries, in the order of their keys, durably, in as few transactions as it likes.
    fn load(&self, table: Table, entries: &mut dyn Iterator<Item = Entry>) -> Result<()>;

    /// What a thread carries out operations with. It is made before the clock starts.
    fn worker(&self) -> Worker<'_>;

    /// Shows all entries of a table, in the order of their keys.
    fn each(&self, table: Table, see: &mut See<'_>) -> Result<()>;

    /// Closes it in order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Carries out an operation in a durable transaction of its own, and returns how many bytes of
/// values it read in there.
pub(crate) type Worker<'s> = Box<dyn FnMut(&Op) -> Result<usize> + Send + 's>;
