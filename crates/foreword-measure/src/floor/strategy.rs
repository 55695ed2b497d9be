//! How a record can be made durable.

use std::fmt;

use serde::Serialize;

use crate::machine::Place;

/// What a file is like where the next block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The file ends there: each write makes it longer, which is a change of metadata, too.
    Growing,
    /// Space is reserved (`fallocate`), but was never written: the first write to it is a change of
    /// metadata, too.
    Allocated,
    /// The file contains zeros that were written.
    Zeroed,
    /// The file contains old data, as a recycled segment does.
    Recycled,
}

impl FileState {
    /// All of them.
    pub const ALL: [FileState; 4] = [FileState::Growing, FileState::Allocated, FileState::Zeroed, FileState::Recycled];

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileState::Growing => "growing",
            FileState::Allocated => "fallocated",
            FileState::Zeroed => "zero-filled",
            FileState::Recycled => "recycled",
        }
    }
}

/// How a write is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A write, and `fdatasync` (its equal elsewhere).
    Fdatasync,
    /// A write, and `fsync`.
    Fsync,
    /// One call, `pwritev2` with `RWF_DSYNC`. Linux.
    Dsync,
    /// The same past the page cache (`O_DIRECT`). Linux.
    DirectDsync,
    /// A write, and `sync_file_range` that waits. Linux. Seldom honest: see
    /// [`Strategy::dishonest`].
    RangeSync,
    /// No flush at all: the page cache has it. Not durable; to compare with.
    Cached,
    /// `O_DIRECT` without a flush: the device has it, perhaps in a cache that loses it. Not
    /// durable; to compare with. Linux.
    DirectOnly,
}

impl Method {
    /// All that make a write durable.
    pub const ALL: [Method; 5] = [Method::Fdatasync, Method::Fsync, Method::Dsync, Method::DirectDsync, Method::RangeSync];

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Fdatasync => "fdatasync",
            Method::Fsync => "fsync",
            Method::Dsync => "RWF_DSYNC",
            Method::DirectDsync => "O_DIRECT + RWF_DSYNC",
            Method::RangeSync => "sync_file_range",
            Method::Cached => "no flush, page cache",
            Method::DirectOnly => "no flush, O_DIRECT",
        }
    }
}

/// A way to write durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Strategy {
    /// What the file is like.
    pub state: FileState,
    /// How a write is flushed.
    pub method: Method,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.state.name(), self.method.name())
    }
}

impl Strategy {
    /// All that make a write durable, state by state.
    #[must_use]
    pub fn all() -> Vec<Strategy> {
        FileState::ALL.iter().flat_map(|&state| Method::ALL.map(|method| Strategy { state, method })).collect()
    }

    /// Why a completed write would not be durable by this method in this place, if so.
    /// `sync_file_range` neither writes metadata nor empties the device's cache: it is honest only
    /// where blocks that were written before are written again in place, on a device without a
    /// volatile cache. What cannot be known counts as dishonest.
    #[must_use]
    pub fn dishonest(self, place: &Place) -> Option<&'static str> {
        if self.method != Method::RangeSync {
            return None;
        }
        if !matches!(self.state, FileState::Zeroed | FileState::Recycled) {
            return Some("it does not write the metadata that a block written for the first time needs");
        }
        if !place.file_system.as_deref().is_some_and(|kind| matches!(kind, "ext4" | "ext3" | "ext2" | "xfs")) {
            return Some("this file system may put a block elsewhere when it is written again");
        }
        if place.mount_options.iter().any(|option| option == "data=journal") {
            return Some("this file system puts data into its journal first");
        }
        match place.device.as_ref().and_then(|device| device.volatile_cache) {
            Some(false) => None,
            Some(true) => Some("the device has a volatile write cache, which it does not flush"),
            None => Some("nothing says whether the device has a volatile write cache, which it does not flush"),
        }
    }
}
