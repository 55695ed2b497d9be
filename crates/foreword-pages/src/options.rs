//! How a store is opened.

use std::sync::Arc;
use std::time::Duration;

use foreword::disk::{Disk, OsDisk};

use crate::engine::UndoTypes;
use crate::page::{PAGE_MAX, PAGE_MIN};
use crate::types::RedoTypes;
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
    pub(crate) redo_types: RedoTypes,
    pub(crate) undo_types: UndoTypes,
}

impl Default for Options {
    fn default() -> Self {
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
            redo_types: RedoTypes::default(),
            undo_types: UndoTypes::default(),
        }
    }
}

impl Options {
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
