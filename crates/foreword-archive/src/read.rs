//! Reading records straight from an archive.

use std::collections::VecDeque;

use foreword::Lsn;

use crate::archive::Archive;
use crate::chunk::Record;
use crate::error::Result;
use crate::history::Chunks;
use crate::tasks::blocking;

/// Records of an archive, in order: [`Archive::records`].
pub struct Records<'a> {
    archive: &'a Archive,
    chunks: Chunks,
    records: VecDeque<Record>,
}

impl Archive {
    /// Reads records of a timeline's history (of the newest, by default), from an LSN to one that is
    /// included. Of the first and the last chunk only the blocks are read that are needed.
    ///
    /// # Errors
    /// [`Error::NotThere`](crate::Error::NotThere) if there is no such timeline. What is missing is
    /// said when it is read.
    pub fn records(&self, timeline: Option<u32>, from: Lsn, to: Lsn) -> Result<Records<'_>> {
        let timeline = self.timeline(timeline)?;
        let chunks = self.chunks(timeline.id, from.0..to.0.min(timeline.last) + 1);
        Ok(Records { archive: self, chunks, records: VecDeque::new() })
    }
}

impl Records<'_> {
    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// [`Error::NotThere`](crate::Error::NotThere), [`Error::Damaged`](crate::Error::Damaged), and
    /// those of the store.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Ok(Some(record));
            }
            let Some(wanted) = self.chunks.next(self.archive).await? else { return Ok(None) };
            let fetched = self.archive.fetch(&wanted).await?;
            self.records = blocking(move || fetched.records(&wanted.lsns)).await??.into();
        }
    }
}
