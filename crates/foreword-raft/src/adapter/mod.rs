//! Adapters: storage for Raft libraries, each with a feature of its own. The [front
//! page](crate#adapters) compares them.

#[cfg(feature = "openraft")]
pub mod openraft;
#[cfg(feature = "openraft-09")]
pub mod openraft_09;
#[cfg(feature = "raft-rs")]
pub mod raft_rs;

#[cfg(any(feature = "openraft", feature = "openraft-09"))]
mod codec;

#[cfg(any(feature = "openraft", feature = "openraft-09"))]
pub(crate) use shared::*;

#[cfg(any(feature = "openraft", feature = "openraft-09"))]
mod shared {
    use std::io;
    use std::sync::Arc;

    use crate::batch::{Batch, Cut};
    use crate::{Entry, Error, Group, Result};

    /// How many bytes of entries go into one batch of the log; and how many are read at once where
    /// the library leaves that to us, but at least one entry.
    pub(crate) const BYTES_AT_ONCE: usize = 1 << 20;

    /// Appends entries, in batches; `done` hears of the last, and so of all. Those that were purged
    /// stay so; and the first of a log may have any index, as openraft's own storages have it. (The
    /// core is told by a purge, for there a log that begins later has lost what was before.)
    pub(crate) fn append(
        group: &Group,
        entries: impl Iterator<Item = io::Result<(u64, Vec<u8>)>>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        let (last, purged) = (group.last()?, group.purged()?.map(|purged| purged.index));
        for entry in entries {
            let (index, data) = entry?;
            if purged.is_some_and(|purged| index <= purged) {
                continue;
            }
            if last.is_none() && batch.entries.is_empty() && bytes == 0 && index > 1 {
                batch.cut = Cut::Snapshot(index - 1, &[]);
            }
            bytes += data.len();
            if bytes > BYTES_AT_ONCE && !batch.entries.is_empty() {
                group.submit(&std::mem::take(&mut batch), drop)?;
                bytes = data.len();
            }
            batch.entries.push((index, Arc::from(data)));
        }
        Ok(group.submit(&batch, |result| done(result.map_err(io::Error::from)))?)
    }

    /// The entries of a range as far as they are there: neither those that were purged, nor those
    /// behind the last.
    pub(crate) fn read(group: &Group, (from, behind): (u64, u64), bytes_max: u64) -> Result<Vec<Entry>> {
        unpurged(from, behind, Vec::new(), |from| group.entries(from..behind, bytes_max))
    }

    /// The same, if all of them are in memory: does not wait for the disk.
    pub(crate) fn read_from_memory(group: &Group, (from, behind): (u64, u64), bytes_max: u64) -> Result<Option<Vec<Entry>>> {
        unpurged(from, behind, Some(Vec::new()), |from| group.entries_from_memory(from, behind, bytes_max))
    }

    fn unpurged<T>(mut from: u64, behind: u64, nothing: T, read: impl Fn(u64) -> Result<T>) -> Result<T> {
        while from < behind {
            match read(from) {
                Err(Error::Purged { purged, .. }) => from = purged + 1,
                read => return read,
            }
        }
        Ok(nothing)
    }
}
