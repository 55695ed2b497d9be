//! The page file: pages at their places, behind the write-ahead rule.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use foreword::disk::{Access, Disk, DiskDir, DiskFile};
use foreword::{Log, LogId, Lsn};

use crate::page::{PAGE_MAX, PAGE_MIN, Page, PageId};
use crate::record::VERSION;
use crate::sabotage::{self, Bug};
use crate::{Error, Result};

const NAME: &str = "PAGES";
const TMP: &str = "PAGES.tmp";
const MAGIC: &[u8; 8] = b"FWRDPAGE";
const IDENTITY: usize = 36;
/// Where page 0 names the last checkpoint: a sector of its own, so that it is written as a whole or not at all.
const CHECKPOINT: usize = 512;
const SECTOR: usize = 512;

/// The page file. Page 0 is its identity, and names the last checkpoint; the others are where their ids say.
#[derive(Debug)]
pub(crate) struct PageFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    page_bytes: usize,
    /// The end of the last checkpoint, as it was when the file was opened.
    checkpoint: Option<Lsn>,
    /// The first write that failed: nothing is known of what it covered, so nothing may follow.
    failed: OnceLock<Error>,
}

impl PageFile {
    /// Opens the page file that belongs to a log; makes it if the log has never been used.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, log: &Log, page_bytes: usize) -> Result<PageFile> {
        let path = dir.join(NAME);
        let is_new = log.last_lsn() == Lsn::ZERO;
        let handle = disk.open_dir(dir).map_err(Error::io("open the directory", dir))?;
        let file = match handle.open(NAME, Access::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && is_new => {
                create(handle.as_ref(), log.id(), page_bytes).map_err(Error::io("create the page file", &path))?;
                handle.open(NAME, Access::Write)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotAStore { path, why: "the page file is not there, though its log is".into() });
            }
            opened => opened,
        };
        let file = file.map_err(Error::io("open the page file", &path))?;
        if is_new {
            // Its name may be there because somebody who was killed renamed it: it must be durable before the first record is.
            handle.sync().map_err(Error::io("sync the directory", dir))?;
        }
        let mut head = [0; CHECKPOINT + SECTOR];
        let read = file.read_full_at(&mut head, 0).map_err(Error::io("read the page file", &path))?;
        let page_bytes = identify(&head[..read], log.id(), &path)?;
        Ok(PageFile { file, path, page_bytes, checkpoint: checkpoint_in(&head[CHECKPOINT..]), failed: OnceLock::new() })
    }

    /// The LSN at which the last complete checkpoint ended, as it was when the file was opened. `None`: there was none, or the sector is damaged.
    pub(crate) fn checkpoint(&self) -> Option<Lsn> {
        self.checkpoint
    }

    /// Says, durably, at which LSN the last complete checkpoint ended.
    pub(crate) fn set_checkpoint(&self, end: Lsn) -> Result<()> {
        self.check()?;
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(&end.0.to_le_bytes());
        let crc = crc32c::crc32c(&sector[..8]);
        sector[8..12].copy_from_slice(&crc.to_le_bytes());
        let written = self.file.write_all_at(&sector, CHECKPOINT as u64);
        written.map_err(|e| self.fail(Error::io("write the first page", &self.path)(e)))?;
        self.sync()
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many pages it has room for, with page 0.
    pub(crate) fn pages(&self) -> Result<u64> {
        let len = self.file.len().map_err(Error::io("look at the page file", &self.path))?;
        Ok(len.div_ceil(self.page_bytes as u64))
    }

    /// Reads a page; [`Error::Rotten`] if it is not what was written.
    pub(crate) fn read(&self, id: PageId, page: &mut Page, log: &Log) -> Result<()> {
        let bytes = page.bytes_mut();
        let offset = id.0 * bytes.len() as u64;
        let read = self.file.read_full_at(bytes, offset).map_err(Error::io("read a page", &self.path))?;
        bytes[read..].fill(0);
        let fault = page.fault(id).or_else(|| {
            // By the write-ahead rule the log was durable as far as this, when it was written.
            let last = log.durable_lsn();
            (page.lsn() > last)
                .then(|| format!("it bears LSN {}, and the log ends at {last}: one of them is an older copy", page.lsn()))
        });
        match fault {
            Some(why) => Err(self.rotten(id, why)),
            None => Ok(()),
        }
    }

    pub(crate) fn rotten(&self, page: PageId, why: String) -> Error {
        Error::Rotten { page, path: self.path.clone(), why }
    }

    /// Writes a page: the only place where one is written, and so the place of the **write-ahead rule**. No page reaches the disk before
    /// the log up to the last change in it is durable. Not synced: see [`sync`](PageFile::sync).
    pub(crate) fn write(&self, page: &mut Page, log: &Log) -> Result<()> {
        self.check()?;
        if !sabotage::has(Bug::PageBeforeLog) {
            log.sync_to(page.lsn())?;
        }
        page.seal();
        let offset = page.id().0 * self.page_bytes as u64;
        self.file.write_all_at(page.bytes(), offset).map_err(|e| self.fail(Error::io("write a page", &self.path)(e)))
    }

    /// Makes all pages durable that were written.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check()?;
        if sabotage::has(Bug::NoPageSync) {
            return Ok(());
        }
        self.file.sync().map_err(|e| self.fail(Error::io("sync the page file", &self.path)(e)))
    }

    /// Whether the store can still be used.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failed.get() {
            Some(error) => Err(Error::Poisoned(Arc::new(error.clone()))),
            None => Ok(()),
        }
    }

    /// From here on, nothing is written and nothing changed.
    pub(crate) fn fail(&self, error: Error) -> Error {
        self.failed.get_or_init(|| error.clone());
        error
    }
}

fn create(dir: &dyn DiskDir, log: LogId, page_bytes: usize) -> io::Result<()> {
    let mut page = vec![0; page_bytes];
    page[..8].copy_from_slice(MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&(page_bytes as u32).to_le_bytes());
    page[16..32].copy_from_slice(&log.0);
    let crc = crc32c::crc32c(&page[..32]);
    page[32..36].copy_from_slice(&crc.to_le_bytes());
    let file = dir.open(TMP, Access::Create)?;
    file.write_all_at(&page, 0)?;
    file.sync()?;
    drop(file);
    dir.replace(TMP, NAME)
}

/// The page size of the file that begins so, if it is a page file and belongs to the log.
fn identify(head: &[u8], log: LogId, path: &Path) -> Result<usize> {
    let not = |why: String| Error::NotAStore { path: path.to_owned(), why };
    if head.len() < IDENTITY || head[..8] != *MAGIC {
        return Err(not("it does not begin as a page file does".into()));
    }
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    // Before the checksum: a newer version may have another.
    let version = u32_at(8);
    if version > VERSION {
        return Err(Error::UnsupportedVersion { path: path.to_owned(), found: version, supported: VERSION });
    }
    if u32_at(32) != crc32c::crc32c(&head[..32]) {
        return Err(not("its first page is damaged".into()));
    }
    if head[16..32] != log.0 {
        let mut id = [0; 16];
        id.copy_from_slice(&head[16..32]);
        return Err(not(format!("it belongs to the log {}, and the log here is {log}", LogId(id))));
    }
    let page_bytes = u32_at(12) as usize;
    if !(PAGE_MIN..=PAGE_MAX).contains(&page_bytes) || !page_bytes.is_power_of_two() {
        return Err(not(format!("pages of {page_bytes} bytes cannot be")));
    }
    Ok(page_bytes)
}

/// The LSN in the sector that names the last checkpoint.
fn checkpoint_in(sector: &[u8]) -> Option<Lsn> {
    let mut lsn = [0; 8];
    lsn.copy_from_slice(&sector[..8]);
    let is_whole = sector[8..12] == crc32c::crc32c(&lsn).to_le_bytes();
    Some(Lsn(u64::from_le_bytes(lsn))).filter(|&lsn| is_whole && lsn > Lsn::ZERO)
}
