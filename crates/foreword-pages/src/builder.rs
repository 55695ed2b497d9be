//! How options are set, and a store is opened with them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foreword::disk::Disk;

use crate::txn::{Handler, Txn};
use crate::types::HandlerError;
use crate::{Options, Result, Store};

impl Options {
    /// The defaults: pages of 8 KiB, a pool of 64 MiB, a checkpoint every 64 MiB of log and every
    /// five minutes, a recovery thread for each processor.
    #[must_use]
    pub fn new() -> Options {
        Options::default()
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

    /// Registers how a change of the caller's own [type](crate::Change::redo) is made in a page:
    /// physiologically, as "insert these bytes at the 7th place". The handler gets the bytes of the
    /// page and the change's payload. Of two handlers for one number, the last counts.
    ///
    /// It is called when the change is made, and again by recovery, on any thread and with the page
    /// latched. It must depend on the two arguments alone, always do the same, and call no
    /// transaction. If it fails or panics the page is as it was, and the change, or opening, fails
    /// with [`Error::Handler`](crate::Error::Handler). A store whose log has a type that is not
    /// registered is not opened: [`Error::UnknownType`](crate::Error::UnknownType).
    ///
    /// The log holds numbers; the name is for messages.
    #[must_use]
    pub fn redo_type(
        mut self,
        number: u16,
        name: &str,
        redo: impl Fn(&mut [u8], &[u8]) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Options {
        self.redo_types.insert(number, name, Arc::new(redo));
        self
    }

    /// Registers how a change is [undone](crate::Change::undo) by what it meant, as "remove this
    /// key, wherever it is". The handler gets the transaction that is rolled back and the payload.
    /// It may latch and change any pages. Of two handlers for one number, the last counts.
    ///
    /// What it does is a [top action](crate::Txn::nested): it is there as a whole, and then the
    /// change counts as undone, or it is undone itself, by bytes, and the handler is called again.
    /// It is called when a transaction is rolled back (on the thread that does, or in a checkpoint)
    /// and by recovery: then other transactions that have not ended are undone before or after, and
    /// no top action is open. A failure or a panic is
    /// [`Error::Handler`](crate::Error::Handler), or the error of this crate that the handler
    /// passed on. It must not commit anything, and must not wait for what needs the transaction's
    /// latches.
    #[must_use]
    pub fn undo_type(
        mut self,
        number: u16,
        name: &str,
        undo: impl Fn(&mut Txn, &[u8]) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Options {
        self.undo_types.insert(number, name, Arc::new(Handler(undo)));
        self
    }

    /// Opens the store in a directory, making it if there is none, and recovers it if need be. A
    /// store is made only in a directory of its own: in one that is not there yet, or is empty but
    /// for `lost+found` and what was left by a creation that was cut short.
    ///
    /// # Errors
    /// [`Error::Log`](crate::Error::Log), [`Error::NotAStore`](crate::Error::NotAStore),
    /// [`Error::UnsupportedVersion`](crate::Error::UnsupportedVersion),
    /// [`Error::Rotten`](crate::Error::Rotten), [`Error::BadRecord`](crate::Error::BadRecord),
    /// [`Error::UnknownType`](crate::Error::UnknownType),
    /// [`Error::Handler`](crate::Error::Handler), [`Error::Io`](crate::Error::Io),
    /// [`Error::Invalid`](crate::Error::Invalid).
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(self, dir.as_ref())
    }
}
