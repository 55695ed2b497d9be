//! Committed records, as this node has applied them.

use std::sync::Arc;

use futures_util::{Stream, stream};
use openraft::EntryPayload;
use openraft::storage::RaftLogReader;

use super::Node;
use crate::error::{Error, Result};
use crate::rpc::{PAGE_BYTES, Page};

/// What is read at once, of [`PAGE_BYTES`] at most.
const PAGE_RECORDS: usize = 16 << 10;

/// Where a reader is.
#[derive(Default)]
struct Cursor {
    /// The record that is next.
    from: u64,
    /// An entry not behind it, and its first record; 0 if that is not known.
    entry: u64,
    first: u64,
}

impl Node {
    /// Committed records from an index on, as far as this node has applied them.
    pub(crate) async fn page(&self, from: u64, behind: u64, records: usize, bytes: usize) -> Result<Page> {
        // There is no record 0: that is the first.
        let from = if from == 0 { self.machine.progress().first } else { from };
        let mut cursor = Cursor { from, ..Cursor::default() };
        self.read(&mut cursor, behind, records.min(PAGE_RECORDS), bytes.min(PAGE_BYTES)).await
    }

    async fn read(&self, cursor: &mut Cursor, behind: u64, records: usize, bytes: usize) -> Result<Page> {
        self.check_open()?;
        let progress = self.machine.progress();
        let mut page = Page { from: cursor.from, records: Vec::new() };
        let dropped = |first| Error::Dropped { index: page.from, first };
        if cursor.from < progress.first {
            return Err(dropped(progress.first));
        }
        let behind = behind.min(progress.next);
        if cursor.from >= behind || records == 0 {
            return Ok(page);
        }
        if cursor.entry == 0 {
            let Some((entry, first)) = self.machine.find(cursor.from) else { return Err(dropped(progress.first)) };
            (cursor.entry, cursor.first) = (entry, first);
        }
        let mut room = bytes;
        let mut store = self.store.clone();
        while cursor.from < behind && cursor.entry <= progress.applied {
            let entries = match store.limited_get_log_entries(cursor.entry, progress.applied + 1).await {
                Ok(entries) if entries.first().is_some_and(|entry| entry.log_id.index() == cursor.entry) => entries,
                Ok(_) => {
                    // It was purged meanwhile; or this node was closed. What is kept may begin
                    // behind entries without a record.
                    self.check_open()?;
                    let again = self.machine.find(cursor.from).filter(|(entry, _)| *entry > cursor.entry);
                    if let Some((entry, first)) = again.filter(|_| cursor.from >= self.machine.progress().first) {
                        (cursor.entry, cursor.first) = (entry, first);
                        continue;
                    }
                    return if page.records.is_empty() { Err(dropped(self.machine.progress().first)) } else { Ok(page) };
                }
                Err(error) => {
                    self.check_open()?;
                    return Err(error.into());
                }
            };
            for entry in entries {
                let index = entry.log_id.index();
                let EntryPayload::Normal(proposal) = entry.payload else {
                    cursor.entry = index + 1;
                    continue;
                };
                let mut number = cursor.first;
                for (n, item) in (0..).zip(&proposal.items) {
                    if item.records().is_empty() || !self.machine.counts(index, n) {
                        continue;
                    }
                    for record in item.records() {
                        if number == cursor.from && number < behind {
                            let full = page.records.len() == records || (record.len() > room && !page.records.is_empty());
                            if full {
                                return Ok(page);
                            }
                            room = room.saturating_sub(record.len());
                            page.records.push(record.clone());
                            cursor.from += 1;
                        }
                        number += 1;
                    }
                }
                if cursor.from < number {
                    return Ok(page); // The end of the range lies in this entry.
                }
                (cursor.entry, cursor.first) = (index + 1, number);
            }
        }
        Ok(page)
    }

    /// The records from an index on, those to come among them. Ends with an error.
    pub(crate) fn pages(self: Arc<Self>, from: u64) -> impl Stream<Item = Result<Page>> + Send {
        let (progress, closed) = (self.machine.0.progress.subscribe(), self.closed.subscribe());
        let cursor = Cursor { from, ..Cursor::default() };
        stream::unfold(Some((self, progress, closed, cursor)), async |state| {
            let (node, mut progress, mut closed, mut cursor) = state?;
            if let Some(next) = Some(node.machine.progress().next).filter(|next| cursor.from > *next) {
                return Some((Err(Error::Ahead { index: cursor.from, next }), None));
            }
            loop {
                match node.read(&mut cursor, u64::MAX, PAGE_RECORDS, PAGE_BYTES).await {
                    Ok(page) if page.records.is_empty() => {}
                    Ok(page) => return Some((Ok(page), Some((node, progress, closed, cursor)))),
                    Err(error) => return Some((Err(error), None)),
                }
                let more = progress.wait_for(|progress| progress.next > cursor.from || progress.first > cursor.from);
                tokio::select! {
                    biased;
                    _ = more => {},
                    _ = closed.wait_for(|closed| *closed) => return Some((Err(Error::Closed), None)),
                }
            }
        })
    }
}
