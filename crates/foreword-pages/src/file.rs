//! The page file: pages at their places. The write-ahead rule is kept here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foreword::disk::{Access, Disk, DiskDir, DiskFile};
use foreword::{Log, LogId, Lsn};

use crate::page::{Kind, PAGE_MAX, PAGE_MIN, Page, PageId};
use crate::record::VERSION;
use crate::sabotage::{self, Bug};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, lock, sleep};
use crate::{Error, Result};

/// The directory of the log, beside the page file.
pub(crate) const LOG: &str = "log";
pub(crate) const NAME: &str = "PAGES";
/// A copy of a page file, from a backup, that is to become the page file.
pub(crate) const COPY: &str = "PAGES.backup";
const TMP: &str = "PAGES.tmp";
const MAGIC: &[u8; 8] = b"FWRDPAGE";
const IDENTITY: usize = 36;
/// Where page 0 names the last checkpoint. The name has a sector of its own, so a write of it is
/// done as a whole or not at all.
const CHECKPOINT: usize = 512;
const SECTOR: usize = 512;
/// How often a page that is not whole is read again for a copy, at longer and longer intervals:
/// more than a second in all.
const TORN_MAX: u32 = 10;
/// The least and the most that the file grows by; in between it grows by an eighth.
const GROWTH_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;

/// The page file. Page 0 is its identity, and names the last checkpoint. Every other page is where
/// its id says.
#[derive(Debug)]
pub(crate) struct PageFile {
    dir: Arc<dyn DiskDir>,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    log: LogId,
    page_bytes: usize,
    /// The LSN that ended the last complete checkpoint, when the file was opened.
    checkpoint: Option<Lsn>,
    /// Pages, with page 0, whose room is taken from the disk, durably. Invariant: no page behind
    /// the room is ever written.
    room: AtomicU64,
    growing: Mutex<()>,
    /// The process that opened the file: a forked child must not write.
    pub(crate) process: u32,
    /// The page LSN with which each map was written. A map that is read with a lower one is
    /// damaged.
    maps: Mutex<BTreeMap<PageId, Lsn>>,
    /// Held shared while the file is written: [`close`](PageFile::close) waits for that.
    writing: RwLock<()>,
    /// The first failure of a write. Nothing is known of what that write covered, so no write may
    /// follow.
    failed: OnceLock<Error>,
}

/// Poisons the store if the guarded work panics: nothing is known then of what was done.
struct Guarded<'f>(&'f PageFile, &'static str);

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        self.0.fail(Error::io(self.1, &self.0.path)(io::Error::other("it panicked")));
    }
}

impl PageFile {
    /// Opens the page file that belongs to a log. Makes the file if the log has never been used.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, log: &Log, page_bytes: usize) -> Result<PageFile> {
        let path = dir.join(NAME);
        let is_new = log.last_lsn() == Lsn::ZERO;
        let handle = disk.open_dir(dir).map_err(Error::io("open the directory", dir))?;
        let file = match handle.open(NAME, Access::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_new => {
                expect_nothing(&*handle, dir)?;
                create(&*handle, log.id(), page_bytes).map_err(Error::room("create the page file", &path))?;
                handle.open(NAME, Access::Write)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotAStore { path, why: "the page file is not there, though its log is".into() });
            }
            opened => opened,
        };
        let file = file.map_err(Error::io("open the page file", &path))?;
        if is_new {
            // A process that was killed may have renamed the file. The name must be durable before
            // the first record is.
            handle.sync().map_err(Error::io("sync the directory", dir))?;
        }
        let head = read_head(&*file, &path)?;
        let page_bytes = identify_of(&head, log.id(), &path)?;
        let len = file.len().map_err(Error::io("look at the page file", &path))?;
        Ok(PageFile {
            dir: handle,
            file,
            path,
            log: log.id(),
            page_bytes,
            checkpoint: checkpoint_in(&head),
            room: AtomicU64::new(len / page_bytes as u64),
            growing: Mutex::default(),
            process: std::process::id(),
            maps: Mutex::default(),
            writing: RwLock::default(),
            failed: OnceLock::new(),
        })
    }

    /// The LSN at which the last complete checkpoint ended, as it was when the file was opened.
    /// `None`: there was none, or the sector is damaged.
    pub(crate) fn checkpoint(&self) -> Option<Lsn> {
        self.checkpoint
    }

    /// Names a checkpoint, by the LSN that ended it, durably.
    pub(crate) fn set_checkpoint(&self, end: Lsn) -> Result<()> {
        let _writing = self.may_write()?;
        self.write_at(&checkpoint_sector(end), CHECKPOINT as u64)?;
        self.sync_now()
    }

    /// Checks that the file's name still leads to this file, and that the file is complete. Called
    /// before the log that could rebuild the file is dropped. The file named the checkpoint that
    /// ended at `end` last, which no other file does.
    pub(crate) fn look(&self, end: Lsn) -> Result<()> {
        let displaced = |why: &str| Err(Error::Displaced { path: self.path.clone(), why: why.into() });
        let found = match self.dir.open(NAME, Access::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return displaced("no file is there"),
            found => found.map_err(Error::io("open the page file", &self.path))?,
        };
        let head = read_head(&*found, &self.path)?;
        if identify_of(&head, self.log, &self.path).is_err() || checkpoint_in(&head) != Some(end) {
            return displaced("another file is there");
        }
        self.check_pages(self.room.load(Ordering::Acquire)).map_err(|cut| self.fail(cut))
    }

    /// Checks that the file has as many pages as it is known to have had. If not, the file was cut.
    pub(crate) fn check_pages(&self, pages: u64) -> Result<()> {
        let len = self.file.len().map_err(Error::io("look at the page file", &self.path))?;
        let found = len / self.page_bytes as u64;
        if found >= pages {
            return Ok(());
        }
        Err(self.rotten(PageId(found), format!("the file ends before it, and had {pages} pages")))
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the room for a page from the disk, durably. So the page can be written, also by a
    /// recovery, whatever fills the disk afterwards.
    ///
    /// Where the file system cannot reserve space, zeros are written. (On a file system that never
    /// writes in place, and on a thin volume, neither reserves anything.)
    pub(crate) fn reserve(&self, page: PageId) -> Result<()> {
        let has_room = || page.0 < self.room.load(Ordering::Acquire);
        if has_room() || sabotage::has(Bug::RoomLater) {
            return Ok(());
        }
        let _writing = self.may_write()?;
        let _one = lock(&self.growing);
        if has_room() {
            return Ok(());
        }
        let page_bytes = self.page_bytes as u64;
        let growth = (page.0 * page_bytes / 8).clamp(*GROWTH_BYTES.start(), *GROWTH_BYTES.end());
        match self.grow(page.0 + growth.div_ceil(page_bytes)) {
            // There may be room for the page alone.
            Err(e) if e.is_no_space() => self.grow(page.0 + 1),
            grown => grown,
        }
    }

    fn grow(&self, pages: u64) -> Result<()> {
        let (before, after) = (self.room.load(Ordering::Acquire) * self.page_bytes as u64, pages * self.page_bytes as u64);
        let reserve = || match self.file.allocate(after)? {
            true => Ok(()),
            false => write_zeros(&*self.file, before, after),
        };
        let grown = self.guard("grow the page file", reserve);
        if let Err(e) = grown {
            // The part of the room that was taken is given back: other files may need it.
            let _ = self.file.set_len(before);
            return Err(Error::room("grow the page file", &self.path)(e));
        }
        self.sync_now()?;
        self.room.store(pages, Ordering::Release);
        Ok(())
    }

    /// The page LSN of each map that was written. Durable once the file is synced after this call.
    pub(crate) fn maps(&self) -> Vec<(PageId, Lsn)> {
        lock(&self.maps).iter().map(|(&page, &lsn)| (page, lsn)).collect()
    }

    /// Sets the page LSNs of the maps, by the last checkpoint.
    pub(crate) fn set_maps(&self, maps: &[(PageId, Lsn)]) {
        lock(&self.maps).extend(maps.iter().copied());
    }

    /// Reads a page; [`Error::Rotten`] if it is not what was written.
    pub(crate) fn read(&self, id: PageId, page: &mut Page, log: &Log) -> Result<()> {
        let bytes = page.bytes_mut();
        let offset = id.0 * bytes.len() as u64;
        let read = self.file.read_full_at(bytes, offset).map_err(Error::io("read a page", &self.path))?;
        bytes[read..].fill(0);
        let fault = page.fault(id).or_else(|| {
            // By the write-ahead rule the log was durable up to the page's LSN when the page was
            // written.
            let last = log.durable_lsn();
            (page.lsn() > last)
                .then(|| format!("it bears LSN {}, and the log ends at {last}: one of them is an older copy", page.lsn()))
        });
        let fault = fault.or_else(|| {
            let written = lock(&self.maps).get(&id).copied().filter(|&written| page.lsn() < written)?;
            Some(format!("it bears LSN {}, and was written with {written}: what was written is lost", page.lsn()))
        });
        match fault {
            Some(why) => Err(self.rotten(id, why)),
            None => Ok(()),
        }
    }

    /// Reads a page for a copy, while others may write it: whole, as it was at some moment.
    pub(crate) fn copy(&self, id: PageId, page: &mut Page) -> Result<()> {
        let mut tries = 0;
        loop {
            let bytes = page.bytes_mut();
            let read = self.file.read_full_at(bytes, id.0 * self.page_bytes as u64);
            let read = read.map_err(Error::io("read a page", &self.path))?;
            bytes[read..].fill(0);
            match page.fault(id) {
                None => return Ok(()),
                Some(why) if tries == TORN_MAX => return Err(self.rotten(id, why)),
                // It may be half of what is being written.
                Some(_) => sleep(Duration::from_millis(1 << tries)),
            }
            tries += 1;
        }
    }

    pub(crate) fn rotten(&self, page: PageId, why: String) -> Error {
        Error::Rotten { page, path: self.path.clone(), why }
    }

    /// Writes a page. Invariant, the **write-ahead rule**: no page reaches the disk before the log
    /// up to the last change in the page is durable. This is the only place where pages are
    /// written. The write is not synced: see [`sync`](PageFile::sync).
    pub(crate) fn write(&self, page: &mut Page, log: &Log) -> Result<()> {
        let _writing = self.may_write()?;
        if !sabotage::has(Bug::PageBeforeLog) {
            log.sync_to(page.lsn())?;
        }
        page.seal();
        self.write_at(page.bytes(), page.id().0 * self.page_bytes as u64)?;
        if page.kind() == Some(Kind::Map) {
            lock(&self.maps).insert(page.id(), page.lsn());
        }
        Ok(())
    }

    /// Writes bytes. Without room the store is not poisoned: the page stays in memory, and the log
    /// has what rebuilds it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = self.guard("write a page", || self.file.write_all_at(bytes, offset));
        written.map_err(Error::room("write a page", &self.path)).map_err(|e| if e.is_no_space() { e } else { self.fail(e) })
    }

    /// Makes all written pages durable.
    pub(crate) fn sync(&self) -> Result<()> {
        let _writing = self.may_write()?;
        self.sync_now()
    }

    fn sync_now(&self) -> Result<()> {
        if sabotage::has(Bug::NoPageSync) {
            return Ok(());
        }
        let synced = self.guard("sync the page file", || self.file.sync());
        synced.map_err(|e| self.fail(Error::io("sync the page file", &self.path)(e)))
    }

    /// Does work that must not be left half done. If it panics, the store is poisoned.
    pub(crate) fn guard<T>(&self, doing: &'static str, work: impl FnOnce() -> T) -> T {
        let guarded = Guarded(self, doing);
        let done = work();
        std::mem::forget(guarded);
        done
    }

    /// An error if the store is poisoned.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failed.get() {
            Some(closed @ Error::Log(foreword::Error::Closed)) => Err(closed.clone()),
            Some(error) => Err(Error::Poisoned(Arc::new(error.clone()))),
            None => Ok(()),
        }
    }

    /// Whether this is a forked child of the process that opened the store. The child has the
    /// memory of that process, and none of its threads.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// An error if the file must not be written: in a forked child, or after a failure.
    fn may_write(&self) -> Result<RwLockReadGuard<'_, ()>> {
        if self.is_forked() {
            let forked = io::Error::other("the process is a fork of the one that opened the store");
            self.fail(Error::io("write the page file", &self.path)(forked));
        }
        let writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        self.check().map(|()| writing)
    }

    /// From here on, nothing is written. Waits for what is being written.
    pub(crate) fn close(&self) {
        let _none = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        self.fail(Error::Log(foreword::Error::Closed));
    }

    /// Poisons the store: from here on, nothing is written and nothing changed. The first error
    /// counts.
    pub(crate) fn fail(&self, error: Error) -> Error {
        self.failed.get_or_init(|| error.clone());
        error
    }
}

/// Whether there is a file of this name in a directory.
pub(crate) fn is_in(disk: &dyn Disk, dir: &Path, name: &str) -> Result<bool> {
    let opened = disk.open_dir(dir).and_then(|dir| dir.open(name, Access::Write));
    match opened {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("open the page file", &dir.join(name))(e)),
    }
}

fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; (to - from).min(64 << 10) as usize];
    for at in (from..to).step_by(zeros.len().max(1)) {
        file.write_all_at(&zeros[..zeros.len().min((to - at) as usize)], at)?;
    }
    Ok(())
}

/// Checks that a directory without a page file has nothing in it but what making a store leaves
/// there when it is cut short: a store shares its directory with nobody.
pub(crate) fn expect_nothing(handle: &dyn DiskDir, dir: &Path) -> Result<()> {
    let names = handle.list().map_err(Error::io("list the directory", dir))?;
    match names.iter().find(|name| ![LOG, TMP, "lost+found"].contains(&name.as_str())) {
        None => Ok(()),
        Some(other) => {
            let why = format!("it holds other files ({other}), and no page file: give the store a directory of its own");
            Err(Error::NotAStore { path: dir.to_owned(), why })
        }
    }
}

/// The beginning of the file, as far as there is one: the identity, and the name of the last
/// checkpoint.
pub(crate) fn read_head(file: &dyn DiskFile, path: &Path) -> Result<Vec<u8>> {
    let mut head = vec![0; CHECKPOINT + SECTOR];
    let read = file.read_full_at(&mut head, 0).map_err(Error::io("read the page file", path))?;
    head.truncate(read);
    Ok(head)
}

/// Page 0: the identity of the file, and the name of a checkpoint.
pub(crate) fn first_page(log: LogId, page_bytes: usize, checkpoint: Option<Lsn>) -> Vec<u8> {
    let mut page = vec![0; page_bytes];
    page[..8].copy_from_slice(MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&(page_bytes as u32).to_le_bytes());
    page[16..32].copy_from_slice(&log.0);
    let crc = crc32c::crc32c(&page[..32]);
    page[32..36].copy_from_slice(&crc.to_le_bytes());
    if let Some(end) = checkpoint {
        page[CHECKPOINT..CHECKPOINT + SECTOR].copy_from_slice(&checkpoint_sector(end));
    }
    page
}

fn checkpoint_sector(end: Lsn) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..8].copy_from_slice(&end.0.to_le_bytes());
    let crc = crc32c::crc32c(&sector[..8]);
    sector[8..12].copy_from_slice(&crc.to_le_bytes());
    sector
}

fn create(dir: &dyn DiskDir, log: LogId, page_bytes: usize) -> io::Result<()> {
    let file = dir.open(TMP, Access::Create)?;
    file.write_all_at(&first_page(log, page_bytes, None), 0)?;
    file.sync()?;
    drop(file);
    dir.rename(TMP, NAME)
}

/// What the beginning of a page file says of it.
pub(crate) struct Identity {
    pub(crate) log: LogId,
    pub(crate) page_bytes: usize,
}

/// The page size of the file with this beginning, if the file is a page file and belongs to the
/// log.
fn identify_of(head: &[u8], log: LogId, path: &Path) -> Result<usize> {
    let Identity { log: its, page_bytes } = identify(head, path)?;
    if its == log {
        return Ok(page_bytes);
    }
    Err(Error::NotAStore { path: path.to_owned(), why: format!("it belongs to the log {its}, and the log here is {log}") })
}

/// What the file with this beginning is, if it is a page file.
pub(crate) fn identify(head: &[u8], path: &Path) -> Result<Identity> {
    let not = |why: String| Error::NotAStore { path: path.to_owned(), why };
    if head.len() < IDENTITY || head[..8] != *MAGIC {
        return Err(not("it does not begin as a page file does".into()));
    }
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    // The version comes before the checksum: another version may have another checksum.
    let version = u32_at(8);
    if version != VERSION {
        return Err(Error::UnsupportedVersion { path: path.to_owned(), found: version, supported: VERSION });
    }
    if u32_at(32) != crc32c::crc32c(&head[..32]) {
        return Err(not("its first page is damaged".into()));
    }
    let page_bytes = u32_at(12) as usize;
    if !(PAGE_MIN..=PAGE_MAX).contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err(not(format!("pages of {page_bytes} bytes cannot be")));
    }
    let mut log = LogId([0; 16]);
    log.0.copy_from_slice(&head[16..32]);
    Ok(Identity { log, page_bytes })
}

/// The LSN in the sector that names the last checkpoint.
pub(crate) fn checkpoint_in(head: &[u8]) -> Option<Lsn> {
    let (lsn, crc) = head.get(CHECKPOINT..CHECKPOINT + 12)?.split_first_chunk::<8>()?;
    let is_whole = crc == crc32c::crc32c(lsn).to_le_bytes();
    Some(Lsn(u64::from_le_bytes(*lsn))).filter(|&lsn| is_whole && lsn > Lsn::ZERO)
}
