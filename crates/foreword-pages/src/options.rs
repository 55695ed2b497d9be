//! How a store is opened.

use std::sync::Arc;
use std::time::Duration;

use foreword::disk::{Disk, OsDisk};

use crate::page::{PAGE_MAX, PAGE_MIN};
use crate::{Error, Result};

const POOL_PAGES_MIN: usize = 16;
const THREADS_MAX: usize = 64;

/// How a store is opened. The defaults suit most programs, except for the size of the buffer pool.
///
/// ```
/// # fn main() -> Result<(), foreword_pages::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let store = foreword_pages::Options::new().pool_bytes(16 << 20).open(dir.path())?;
/// store.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) page_bytes: usize,
    pub(crate) pool_bytes: usize,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) full_page_images: bool,
    pub(crate) recovery_threads: usize,
    pub(crate) recovery_bytes: usize,
    pub(crate) background: bool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log: foreword::Options,
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Options {
    /// The defaults: pages of 8 KiB, a pool of 64 MiB, a checkpoint every 64 MiB of log and every
    /// five minutes, a recovery thread for each processor.
    #[must_use]
    pub fn new() -> Options {
        Options {
            page_bytes: 8 << 10,
            pool_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Some(Duration::from_secs(300)),
            full_page_images: true,
            recovery_threads: std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
            recovery_bytes: 64 << 20,
            background: true,
            disk: Arc::new(OsDisk::new()),
            log: foreword::Options::new(),
        }
    }

    /// The size of the pages of a new store: a power of two from 4 to 64 KiB; 8 KiB by default. An
    /// existing store keeps its own.
    #[must_use]
    pub fn page_bytes(mut self, bytes: usize) -> Options {
        self.page_bytes = bytes;
        self
    }

    /// Bytes of the buffer pool: at least 16 pages; 64 MiB by default. Bookkeeping takes some 300
    /// bytes a page in addition.
    #[must_use]
    pub fn pool_bytes(mut self, bytes: usize) -> Options {
        self.pool_bytes = bytes;
        self
    }

    /// The background thread takes a checkpoint each time that so many bytes were logged; 64 MiB by
    /// default. Recovery reads at most about twice as much, and the log keeps as much, unless a
    /// transaction lives longer.
    #[must_use]
    pub fn checkpoint_bytes(mut self, bytes: u64) -> Options {
        self.checkpoint_bytes = bytes;
        self
    }

    /// The background thread takes a checkpoint at the latest so long after a change; five minutes
    /// by default. `None`: by bytes alone.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Option<Duration>) -> Options {
        self.checkpoint_interval = interval;
        self
    }

    /// Whether the first change of a page after a checkpoint logs all of the page (the default), so
    /// that a page that a crash tears can be rebuilt. Without images the log is smaller, and the
    /// disk must write a page as a whole or not at all.
    #[must_use]
    pub fn full_page_images(mut self, images: bool) -> Options {
        self.full_page_images = images;
        self
    }

    /// Threads that redo changes in recovery: 1 to 64; by default as many as there are processors.
    #[must_use]
    pub fn recovery_threads(mut self, threads: usize) -> Options {
        self.recovery_threads = threads;
        self
    }

    /// Bytes of the log that recovery has in memory at a time, beside the pool: 64 MiB by default.
    /// With more, recovery looks a page up less often.
    #[must_use]
    pub fn recovery_bytes(mut self, bytes: usize) -> Options {
        self.recovery_bytes = bytes;
        self
    }

    /// Whether the store has a background thread that takes checkpoints (the default). Without one
    /// only [`Store::checkpoint`](crate::Store::checkpoint) takes them: for deterministic tests.
    #[must_use]
    pub fn background(mut self, background: bool) -> Options {
        self.background = background;
        self
    }

    /// The disk to use, for the page file and the log. For tests.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Options {
        self.disk = disk;
        self
    }

    /// How the log is opened. Its disk is the store's.
    #[must_use]
    pub fn log(mut self, log: foreword::Options) -> Options {
        self.log = log;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |what, why| Err(Error::Invalid { what, why });
        if !(PAGE_MIN..=PAGE_MAX).contains(&self.page_bytes) || !self.page_bytes.is_power_of_two() {
            return invalid("page_bytes", format!("{} is no power of two from {PAGE_MIN} to {PAGE_MAX}", self.page_bytes));
        }
        if self.checkpoint_bytes == 0 {
            return invalid("checkpoint_bytes", "0 is too few".into());
        }
        if self.checkpoint_interval == Some(Duration::ZERO) {
            return invalid("checkpoint_interval", "0 is too short".into());
        }
        if !(1..=THREADS_MAX).contains(&self.recovery_threads) {
            return invalid("recovery_threads", format!("{} is not between 1 and {THREADS_MAX}", self.recovery_threads));
        }
        self.check_pool(self.page_bytes)
    }

    /// Checks the size of the pool. `page_bytes` may be that of an existing store.
    pub(crate) fn check_pool(&self, page_bytes: usize) -> Result<()> {
        let least = POOL_PAGES_MIN * page_bytes;
        if self.pool_bytes < least || self.pool_bytes / page_bytes > u32::MAX as usize {
            return Err(Error::Invalid {
                what: "pool_bytes",
                why: format!("{} is less than {least}, or too many", self.pool_bytes),
            });
        }
        Ok(())
    }
}
