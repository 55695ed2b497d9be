//! The store: pages, transactions on them, and the thread that takes checkpoints.

use std::io;
use std::path::Path;
use std::sync::Arc;

use foreword::disk::Disk;
use foreword::{Log, LogId, Lsn};

use crate::background::Background;
use crate::backup::{self, Backup};
use crate::checkpoint::{Checkpointed, WriteBack};
use crate::engine::Engine;
use crate::file::{self, LOG, PageFile};
use crate::latch::{Owner, Wait};
use crate::page::PageId;
use crate::pool::{PageRef, Pool};
use crate::recovery::{self, Recovery};
use crate::sabotage::{self, Bug};
use crate::session::Session;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use crate::txn::{Commit, Txn};
use crate::{Error, Options, Result};

/// Pages that survive: a page file and its log, open for reading and writing.
///
/// All methods but [`close`](Store::close) take `&self` and may be called from any number of
/// threads. A clone is another handle of the same store. When the last handle is dropped, the
/// background thread ends; when the last transaction and session are, too, the files are closed.
#[derive(Clone, Debug)]
pub struct Store(Arc<Open>);

/// What the handles of a store share.
#[derive(Debug)]
struct Open {
    engine: Arc<Engine>,
    background: Mutex<Option<Background>>,
    recovery: Recovery,
}

impl Store {
    /// Opens the store in a directory with the default [`Options`], making it if there is none, as
    /// [`Options::open`] does.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(&Options::default(), dir.as_ref())
    }

    /// How a store may be opened; the same as [`Options::new`].
    #[must_use]
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn open_with(options: &Options, dir: &Path) -> Result<Store> {
        options.check()?;
        let log = open_log(options, dir)?;
        backup::adopt(options.disk.as_ref(), dir, &log)?;
        let file = PageFile::open(&options.disk, dir, &log, options.page_bytes)?;
        options.check_pool(file.page_bytes())?;
        let pool = Pool::new(file, log, options.redo_types.clone(), options.pool_bytes);
        let engine = Arc::new(Engine::new(pool, options.undo_types.clone(), options.checkpoint_bytes));
        let recovery = recovery::run(&engine, options.recovery_threads, options.recovery_bytes)?;
        if engine.pool.logs_images() != options.full_page_images {
            engine.pool.set_images(options.full_page_images);
            if !sabotage::has(Bug::SwitchSilently) {
                engine.checkpoint(WriteBack::All)?;
            }
        } else if recovery.has_worked() {
            match engine.checkpoint(WriteBack::Old) {
                // The next checkpoint bounds what this one would have bounded.
                Err(e) if e.is_no_space() => {}
                taken => _ = taken?,
            }
        }
        let background = if options.background { Some(Background::start(&engine, options.checkpoint_interval)?) } else { None };
        Ok(Store(Arc::new(Open { engine, background: Mutex::new(background), recovery })))
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// The store's identity: that of its log. A restored copy has another.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.0.engine.pool.log.id()
    }

    /// Bytes of a page that the caller can use: the page's size without the store's header.
    #[must_use]
    pub fn page_len(&self) -> usize {
        self.0.engine.pool.body()
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Txn {
        Txn::begin(&self.0.engine)
    }

    /// Begins to read several pages at a time.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(&self.0.engine)
    }

    /// Reads a page: the short form of a [session](Store::session) with one guard. The page stays
    /// in memory and does not change while the [`PageRef`] lives. Those that would change it wait
    /// for that long, so hold it only for moments.
    ///
    /// The guard belongs to no transaction. So one that asks for the page to change it waits for
    /// ten seconds, also if the same thread has the guard. To hold pages and change pages, read by
    /// [`Txn::fetch_shared`]: then the transaction is told at once.
    ///
    /// # Errors
    /// [`Error::Deadlock`] after ten seconds; otherwise as [`Txn::fetch_shared`].
    pub fn read(&self, page: PageId) -> Result<PageRef> {
        self.0.engine.share(page, Owner::NONE, Wait::Bounded)?.ok_or(Error::Deadlock { page })
    }

    /// The page that was last [named](Txn::set_root) as the root, from which the others are found.
    /// `None` if there is no root.
    ///
    /// # Errors
    /// As [`read`](Store::read).
    pub fn root(&self) -> Result<Option<PageId>> {
        self.0.engine.root()
    }

    /// Waits until all transactions up to a commit record are durable, whatever durability they
    /// were committed with.
    ///
    /// # Errors
    /// [`Error::Log`].
    pub fn sync_to(&self, commit: Lsn) -> Result<()> {
        Ok(self.0.engine.pool.log.sync_to(commit)?)
    }

    /// As [`sync_to`](Store::sync_to), as a future, which works on any executor. The log's
    /// background thread makes it complete. It is complete at once for [`Lsn::ZERO`].
    ///
    /// # Errors
    /// [`Error::Log`]; the future's, too.
    pub fn durable(&self, commit: Lsn) -> Result<Commit> {
        Commit::new(&self.0.engine, commit)
    }

    /// Whether a transaction is alive that has this [id](Txn::id): it has neither committed nor been
    /// rolled back. One whose rollback failed is alive until a checkpoint completes that.
    #[must_use]
    pub fn is_live(&self, txn: u64) -> bool {
        self.0.engine.txns.has(txn)
    }

    /// Takes a checkpoint: bounds what recovery has to read, and drops the log before that. Changes
    /// go on meanwhile. No page is written twice. The checkpoint is durable when this returns. If
    /// nothing was logged since the last one, and that one left no page dirty, nothing is written.
    ///
    /// A checkpoint succeeds on a full disk. The log reserves room for its records
    /// ([`commit_checkpoint`](foreword::Log::commit_checkpoint) says how much), and the page file
    /// for pages. If the log has refused a change for lack of space, the checkpoint writes all
    /// dirty pages, as [`checkpoint_all`](Store::checkpoint_all) does, and moves the log into a
    /// segment with space, if it can. What is still kept then is kept by a live transaction or a
    /// hold.
    ///
    /// # Errors
    /// [`Error::Log`] with [`foreword::Error::NoSpace`]: the room is used up. Free some space: it
    /// is made again by itself.
    /// [`Error::Displaced`]: the page file is not where it was, and the log was not dropped.
    /// [`Error::Log`], [`Error::Io`], [`Error::Poisoned`].
    pub fn checkpoint(&self) -> Result<Checkpointed> {
        self.0.engine.checkpoint(WriteBack::Old)
    }

    /// As [`checkpoint`](Store::checkpoint), and writes all dirty pages: a recovery after this has
    /// next to nothing to do.
    ///
    /// # Errors
    /// As [`checkpoint`](Store::checkpoint).
    pub fn checkpoint_all(&self) -> Result<Checkpointed> {
        self.0.engine.checkpoint(WriteBack::All)
    }

    /// Copies the page file, while the store runs: a checkpoint that writes all pages, and then the
    /// pages, one after the other. The copy may mix old pages and new ones; with the log it becomes
    /// a store again. Keep the log elsewhere, as `foreword-archive` does: this call does not copy it,
    /// and does not hold it back.
    ///
    /// **To restore**, put the copy into a directory as `PAGES.backup`, and beside it, as `log/`, a
    /// log with the same records, from [`Backup::log_start`] to where the store is to be restored,
    /// at [`Backup::consistent`] or behind. Opening makes the copy the page file, and recovers:
    /// transactions that had committed by then are there, and no others.
    ///
    /// Blocks while it copies. No lock is held while `to` is written: other threads read, change
    /// and take checkpoints, and `to` itself may. No page that is not whole is copied. The copy is
    /// complete when this returns, and as durable as `to` makes it; one that was cut short is
    /// refused when it is opened. A store that is opened with full page images switched on or off
    /// needs a new backup: an old one restores it to no point behind that.
    ///
    /// # Errors
    /// Those of [`checkpoint`](Store::checkpoint); [`Error::Io`], from `to`, too; [`Error::Rotten`]:
    /// a page is damaged, and was not whole for a second.
    pub fn backup(&self, to: &mut (impl io::Write + ?Sized)) -> Result<Backup> {
        self.0.engine.backup(to)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Engine { pool, alloc, txns, checkpoints, .. } = &*self.0.engine;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            pages_used: alloc.used(),
            pool_pages: pool.frames() as u64,
            pool_hits: read(&pool.counters.hits),
            pages_read: read(&pool.counters.reads),
            pages_written: read(&pool.counters.writes),
            pages_dirty: pool.dirty_count(),
            page_images: read(&pool.counters.images),
            checkpoints: checkpoints.count(),
            transactions: txns.count() as u64,
            orphans: txns.orphan_count() as u64,
            checkpoint_failure: checkpoints.failure(),
            log: pool.log.stats(),
        }
    }

    /// Writes all dirty pages, marks the log as closed and gives the store up. The next opening has
    /// nothing to recover, but for transactions that have not ended.
    ///
    /// Other handles, transactions and sessions may be left. From here on they can read what is in
    /// memory, and every change is an error, [`foreword::Error::Closed`]. A transaction that has
    /// not committed is rolled back when the store is opened next.
    ///
    /// # Errors
    /// As [`checkpoint`](Store::checkpoint). The store is closed all the same, and what was
    /// committed is safe.
    pub fn close(self) -> Result<()> {
        let Open { engine, background, .. } = &*self.0;
        let background = lock(background).take();
        drop(background);
        let taken = engine.checkpoint(WriteBack::All);
        // Invariant: the page file is not written once the log is given up: it may be another
        // process's then.
        engine.pool.file.close();
        // Dropping the log closes it, too, but returns no error.
        let closed = engine.pool.log.close();
        taken?;
        Ok(closed?)
    }
}

/// Opens the log. Makes a log if there is none, but not in the place of one that was lost, and not
/// beside files of others.
fn open_log(options: &Options, dir: &Path) -> Result<Log> {
    let (disk, path) = (options.disk.as_ref(), dir.join(LOG));
    if !has_log(disk, &path)? {
        if file::is_in(disk, dir, file::NAME)? {
            return Err(Error::NotAStore { path, why: "the log is not there, though its page file is".into() });
        }
        match disk.open_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            found => file::expect_nothing(&*found.map_err(Error::io("open the directory", dir))?, dir)?,
        }
    }
    Ok(options.log.clone().disk(options.disk.clone()).open(path)?)
}

/// Whether a log's directory has more than a writer leaves that has only looked at it.
fn has_log(disk: &dyn Disk, path: &Path) -> Result<bool> {
    match disk.open_dir(path).and_then(|dir| dir.list()) {
        Ok(names) => Ok(names.iter().any(|name| !matches!(name.as_str(), "LOCK" | "STATS"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("list the log's directory", path)(e)),
    }
}

/// What a store has done since it was opened, and its state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Pages that are allocated.
    pub pages_used: u64,
    /// Pages that the pool has room for.
    pub pool_pages: u64,
    /// Uses of pages that the pool had.
    pub pool_hits: u64,
    /// Pages read from the page file.
    pub pages_read: u64,
    /// Pages written to the page file.
    pub pages_written: u64,
    /// Pages in the pool that the page file does not have as they are: dirty pages.
    pub pages_dirty: u64,
    /// Changes that logged a full image of their page.
    pub page_images: u64,
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Transactions that have not ended.
    pub transactions: u64,
    /// Of those, transactions whose rollback failed. The next checkpoint tries again.
    pub orphans: u64,
    /// Why the last checkpoint failed, if it did. The log grows until a checkpoint succeeds. The
    /// background thread tries again when the log refuses a change, at the latest after
    /// [`checkpoint_interval`](crate::Options::checkpoint_interval).
    pub checkpoint_failure: Option<crate::Error>,
    /// The log's own counters.
    pub log: foreword::Stats,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::page::Edit;
    use crate::pool::Load;
    use crate::record::Record;

    /// A change may read the image floor before a checkpoint begins, and be logged when the
    /// checkpoint is under way. Then either the change is logged whole, or the checkpoint lists its
    /// page.
    #[test]
    fn a_checkpoint_waits_for_a_change_that_began_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().background(false);
        let store = options.open(dir.path()).unwrap();
        let mut txn = store.begin();
        let page = txn.allocate().unwrap();
        txn.commit().unwrap();
        store.checkpoint_all().unwrap();
        // The page was logged whole since the checkpoint, and is on disk. So the next change need
        // not log it whole, and the page is in no list.
        let mut txn = store.begin();
        txn.update(page, 0, b"old").unwrap();
        txn.commit().unwrap();
        let engine = &store.0.engine;
        engine.pool.write_page(page).unwrap();
        assert!(engine.pool.dirty_pages().iter().all(|&(dirty, _)| dirty != page));

        std::thread::scope(|scope| {
            let edit = Edit::Bytes { offset: 0, bytes: b"new" };
            let mut latched = engine.pool.exclude(page, Owner::NONE, Load::Read).unwrap();
            let changed = engine.pool.change(latched.open(), edit, |undo, redo| {
                let checkpoint = scope.spawn(|| engine.checkpoint(WriteBack::Old).unwrap());
                // The checkpoint must wait for this change. If it does not, it ends soon.
                let started = Instant::now();
                while !checkpoint.is_finished() && started.elapsed() < Duration::from_millis(500) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let mut scratch = Vec::new();
                let txn = 1_000_000;
                let (prev, is_nested, undo) = (Lsn::ZERO, false, undo.as_edit());
                let lsn = engine.append(&Record::Update { txn, prev, is_nested, page, undo, redo }, &mut scratch)?;
                engine.append(&Record::Commit { txn }, &mut scratch)?;
                Ok(lsn)
            });
            assert!(changed.unwrap().is_some());
        });
        store.0.engine.pool.log.sync().unwrap();
        drop(store);
        let store = options.open(dir.path()).unwrap();
        assert_eq!(store.read(page).unwrap()[..3], *b"new");
    }

    /// A change that is not logged is not in the page, neither after an error nor after a panic.
    #[test]
    fn a_change_that_is_not_logged_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().background(false).open(dir.path()).unwrap();
        let mut txn = store.begin();
        let page = txn.allocate().unwrap();
        txn.update(page, 0, b"old").unwrap();
        txn.commit().unwrap();
        let pool = &store.0.engine.pool;
        let latched = || pool.exclude(page, Owner::NONE, Load::Read).unwrap();
        let edit = Edit::Bytes { offset: 0, bytes: b"new" };
        assert!(pool.change(latched().open(), edit, |_, _| Err(Error::NotAllocated { page })).is_err());
        assert_eq!(store.read(page).unwrap()[..3], *b"old");
        let change = || pool.change(latched().open(), edit, |_, _| std::panic::resume_unwind(Box::new("a disk's")));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(change)).is_err());
        assert_eq!(store.read(page).unwrap()[..3], *b"old");
    }

    /// A forked child has its parent's pages in memory, and must not write them over the parent's.
    #[test]
    fn another_process_than_the_one_that_opened_it_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Options::new().background(false).open(dir.path()).unwrap();
        let mut txn = store.begin();
        let page = txn.allocate().unwrap();
        txn.commit().unwrap();
        let before = std::fs::read(dir.path().join("PAGES")).unwrap();
        let open = Arc::get_mut(&mut store.0).unwrap();
        Arc::get_mut(&mut open.engine).unwrap().pool.file.process ^= 1;
        assert!(store.0.engine.pool.write_page(page).is_err());
        assert!(matches!(store.checkpoint_all(), Err(Error::Poisoned(_))));
        assert!(matches!(store.begin().update(page, 0, b"x"), Err(Error::Poisoned(_))));
        assert_eq!(std::fs::read(dir.path().join("PAGES")).unwrap(), before);
    }
}
