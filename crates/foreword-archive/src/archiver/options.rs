//! How to archive, and what the program is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use foreword::{Limit, Lsn};

use crate::error::Error;

/// Is told of events, from any thread.
pub type EventHook = Arc<dyn Fn(&Event) + Send + Sync>;

/// How to archive.
#[derive(Clone)]
#[non_exhaustive]
pub struct PushOptions {
    /// Bytes of records in a chunk: 8 MiB by default, from 64 KiB to 64 MiB.
    pub chunk_bytes: u64,
    /// A smaller chunk is cut when its first record is so old. 10 s by default.
    pub chunk_age: Duration,
    /// Beside that, what has come is uploaded as often as this, in small chunks that the next one
    /// replaces: so much may be missing in the archive when the disk is lost. `None`: the age of a
    /// chunk.
    pub rpo: Option<Duration>,
    /// Uploads at once: 4 by default. Each takes the memory of a chunk.
    pub uploads: usize,
    /// The level of compression (zstd): 1 by default.
    pub level: i32,
    /// The hold that keeps in the log what is not archived; `None`: nothing does. `archive` by
    /// default.
    pub hold: Option<String>,
    /// How much the hold keeps at most. Beyond it records are lost to the archive, which then says
    /// [`Error::Missed`]. No limit by default: the log's disk may fill up while the store is away.
    pub hold_limit: Limit,
    /// Go on where records were dropped before they were archived. The archive has a gap there.
    pub skip_missed: bool,
    /// Use a store that is not known to create an object only once.
    pub trust_store: bool,
    /// Begin an archive where there is none.
    pub create: bool,
    /// How long a store that fails is asked again; `None`: until it answers.
    pub patience: Option<Duration>,
    /// Is told what happens, from any thread.
    pub on_event: Option<EventHook>,
}

impl Default for PushOptions {
    fn default() -> PushOptions {
        PushOptions {
            chunk_bytes: 8 << 20,
            chunk_age: Duration::from_secs(10),
            rpo: None,
            uploads: 4,
            level: 1,
            hold: Some("archive".into()),
            hold_limit: Limit::NONE,
            skip_missed: false,
            trust_store: false,
            create: false,
            patience: None,
            on_event: None,
        }
    }
}

impl fmt::Debug for PushOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("chunk_bytes", &self.chunk_bytes)
            .field("chunk_age", &self.chunk_age)
            .field("rpo", &self.rpo)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

/// What an archiver does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// All up to here is in the archive.
    #[non_exhaustive]
    Archived {
        /// The last LSN.
        lsn: Lsn,
        /// Bytes of the objects that were confirmed with it.
        bytes: u64,
    },
    /// The store did not answer; it is asked again.
    #[non_exhaustive]
    Retrying {
        /// What it said.
        error: Error,
        /// For how long it has failed.
        since: Duration,
    },
    /// The log goes on in a new timeline.
    #[non_exhaustive]
    Began {
        /// Its number.
        timeline: u32,
        /// Why.
        reason: String,
    },
    /// The archive will not have these records.
    #[non_exhaustive]
    Skipped {
        /// The first.
        first: Lsn,
        /// The last.
        last: Lsn,
        /// Why.
        reason: String,
    },
}
