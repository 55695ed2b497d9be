//! Backups: a copy of the page file, made while the store runs, and how a store begins with one.
//!
//! Invariant: a copy and its log, from [`Backup::log_start`] to any LSN from
//! [`Backup::consistent`] on, are what a crash at that LSN could have left: recovery does the rest.
//! For the copy names a checkpoint that was complete before its first page was read, every page in
//! it is whole, and no page in it has a change behind [`Backup::consistent`].

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use foreword::disk::{Access, Disk, DiskFile};
use foreword::{Log, LogId, Lsn};

use crate::checkpoint::WriteBack;
use crate::engine::Engine;
use crate::file::{self, COPY};
use crate::page::{Page, PageId};
use crate::record::{Header, Record, VERSION};
use crate::sabotage::{self, Bug};
use crate::sync::lock;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"FWRDCOPY";
const TRAILER: usize = 76;

/// A backup that was made: what belongs to the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backup {
    /// The store's log. Another with the same records may take its place.
    pub log: LogId,
    /// The first LSN of it that a restore needs.
    pub log_start: Lsn,
    /// The first LSN to which the store can be restored with this copy.
    pub consistent: Lsn,
    /// Bytes of the copy.
    pub bytes: u64,
}

/// What stands behind the pages of a copy: that it is complete, and what belongs to it.
struct Trailer {
    backup: Backup,
    page_bytes: usize,
    /// The record that ends the checkpoint, and its CRC: a log without it is of another store.
    checkpoint: Lsn,
    checkpoint_crc: u32,
}

impl Engine {
    pub(crate) fn backup(self: &Arc<Self>, to: &mut (impl Write + ?Sized)) -> Result<Backup> {
        let Engine { pool, checkpoints, .. } = &**self;
        let mut write = |bytes: &[u8]| to.write_all(bytes).map_err(Error::io("write the copy of", pool.file.path()));
        self.checkpoint(WriteBack::All)?;
        // (If another was taken since, that one.)
        let last = *lock(&checkpoints.last);
        let page_bytes = pool.file.page_bytes();
        let pages = last.pages.max(1);
        write(&file::first_page(pool.log.id(), page_bytes, Some(last.end)))?;
        let mut page = Page::blank(page_bytes);
        for id in (1..pages).map(PageId) {
            pool.file.copy(id, &mut page)?;
            write(page.bytes())?;
        }
        // By the write-ahead rule no page that was read has a later change.
        let consistent = if sabotage::has(Bug::BackupTooEarly) { last.end } else { pool.log.durable_lsn().max(last.end) };
        // What was read is what was written only if no write has failed.
        pool.file.check()?;
        let bytes = (pages + 1) * page_bytes as u64;
        let backup = Backup { log: pool.log.id(), log_start: last.keep, consistent, bytes };
        write(&Trailer { backup, page_bytes, checkpoint: last.end, checkpoint_crc: last.end_crc }.encode())?;
        to.flush().map_err(Error::io("write the copy of", pool.file.path()))?;
        Ok(backup)
    }
}

impl Trailer {
    /// A page of it.
    fn encode(&self) -> Vec<u8> {
        let Backup { log, log_start, consistent, bytes } = self.backup;
        let mut page = vec![0; self.page_bytes];
        page[..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&(self.page_bytes as u32).to_le_bytes());
        page[16..32].copy_from_slice(&log.0);
        for (at, number) in [(32, bytes), (40, log_start.0), (48, consistent.0), (56, self.checkpoint.0)] {
            page[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        page[64..68].copy_from_slice(&self.checkpoint_crc.to_le_bytes());
        let crc = crc32c::crc32c(&page[..72]);
        page[72..TRAILER].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// That of a copy; or why it is none.
    fn read(copy: &dyn DiskFile, path: &Path) -> Result<Trailer> {
        let not = |why: &str| Error::NotAStore { path: path.to_owned(), why: why.into() };
        let head = file::read_head(copy, path)?;
        let identity = file::identify(&head, path)?;
        let len = copy.len().map_err(Error::io("look at the copy", path))?;
        let mut bytes = [0; TRAILER];
        let at = len.saturating_sub(identity.page_bytes as u64);
        let read = copy.read_full_at(&mut bytes, at).map_err(Error::io("read the copy", path))?;
        let u64_at = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let u32_at = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let is_whole = read == TRAILER && bytes[..8] == *MAGIC && u32_at(72) == crc32c::crc32c(&bytes[..72]);
        if !is_whole || u64_at(32) != len {
            return Err(not("the copy does not end as one does: it is not complete"));
        }
        let (mut log, page_bytes) = (LogId([0; 16]), u32_at(12) as usize);
        log.0.copy_from_slice(&bytes[16..32]);
        let backup = Backup { log, log_start: Lsn(u64_at(40)), consistent: Lsn(u64_at(48)), bytes: len };
        let checkpoint = Lsn(u64_at(56));
        if page_bytes != identity.page_bytes || file::checkpoint_in(&head) != Some(checkpoint) {
            return Err(not("its first page and its end do not belong together"));
        }
        Ok(Trailer { backup, page_bytes, checkpoint, checkpoint_crc: u32_at(64) })
    }

    /// Whether recovery can begin with the copy and this log; or why not.
    fn check(&self, log: &Log, body: usize, path: &Path) -> Result<()> {
        let not = |why: String| Err(Error::NotAStore { path: path.to_owned(), why });
        let Backup { log_start, consistent, .. } = self.backup;
        let (start, last) = (log.start_lsn(), log.last_lsn());
        if start > log_start || last < consistent {
            return not(format!(
                "it needs the log from {log_start} to {consistent} or further, and the log has {start} to {last}"
            ));
        }
        let checkpoint = log.get(self.checkpoint)?;
        let bad = |lsn| move |why| Error::BadRecord { lsn, why };
        let Ok(Record::CheckpointEnd(of)) = Record::decode(&checkpoint, body) else {
            return not(format!("record {} of the log is not the checkpoint that it names", self.checkpoint));
        };
        if crc32c::crc32c(&checkpoint) != self.checkpoint_crc {
            return not("it is a copy of another store".into());
        }
        // Redo begins pages with images, or reads them: it cannot change over.
        for record in log.iter(self.checkpoint.next()) {
            let record = record?;
            let lsn = record.lsn;
            if Header::decode(&record.data).map_err(bad(lsn))?.0 == Header::CheckpointEnd
                && let Record::CheckpointEnd(later) = Record::decode(&record.data, body).map_err(bad(lsn))?
                && later.images != of.images
            {
                let why = "full page images were switched on or off up to LSN";
                return not(format!("{why} {lsn}: use a copy that was made after that, or restore to a point before it"));
            }
        }
        Ok(())
    }
}

/// Makes a copy beside a log the page file, if there is a copy, and no page file. Repeating it after
/// a crash does the rest.
pub(crate) fn adopt(disk: &dyn Disk, dir: &Path, log: &Log) -> Result<()> {
    if log.last_lsn() == Lsn::ZERO || file::is_in(disk, dir, file::NAME)? || !file::is_in(disk, dir, COPY)? {
        return Ok(());
    }
    let path = dir.join(COPY);
    let handle = disk.open_dir(dir).map_err(Error::io("open the directory", dir))?;
    let copy = handle.open(COPY, Access::Write).map_err(Error::io("open the copy", &path))?;
    let trailer = Trailer::read(&*copy, &path)?;
    trailer.check(log, trailer.page_bytes - crate::page::HEADER, &path)?;
    let adopted = || -> io::Result<()> {
        // The page file is that of this log from here on. Its last page, the trailer, lies behind
        // all that were ever in use.
        let first = file::first_page(log.id(), trailer.page_bytes, Some(trailer.checkpoint));
        copy.write_all_at(&first, 0)?;
        copy.sync()?;
        handle.rename(COPY, file::NAME)?;
        handle.sync()
    };
    adopted().map_err(Error::room("make the copy the page file", &path))
}
