//! Records as bytes.

use foreword::Lsn;

use super::{
    ABORT, BIT, CHANGE, CHECKPOINT_BEGIN, CHECKPOINT_END, CLOSE, COMMIT, ChangedPage, Checkpoint, FORMAT, LOGICAL, NESTED,
    OF_CHANGE, RawChange, Record, SET, UNDO, UPDATE, VERSION, WITH_IMAGE,
};
use crate::leb::{put, put_all};
use crate::page::{Edit, Image, PageId, Redo};

impl Record<'_> {
    /// Puts the record's bytes in place of what is in `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Record::Update { txn, prev, is_nested, page, undo, redo } => {
                out.push(UPDATE | flags(redo, Some(undo)) | if *is_nested { NESTED } else { 0 });
                put_all(out, &[*txn, prev.0, page.0]);
                put_edit(out, undo);
                match (undo, redo) {
                    // The bit, and the length, are there already.
                    (Edit::Bytes { .. }, Redo::Edit(Edit::Bytes { bytes, .. })) => out.extend_from_slice(bytes),
                    (_, Redo::Image(image)) => put_image(out, image),
                    _ => {}
                }
            }
            Record::Change { txn, prev, is_nested, logical, pages } => {
                let flags = if *is_nested { NESTED } else { 0 } | if logical.is_some() { LOGICAL } else { 0 };
                out.push(CHANGE | flags);
                put_all(out, &[*txn, prev.0]);
                if let Some((number, payload)) = logical {
                    put_all(out, &[u64::from(*number), payload.len() as u64]);
                    out.extend_from_slice(payload);
                }
                put(out, pages.len() as u64);
                pages.iter().for_each(|page| page.encode(logical.is_some(), out));
            }
            Record::Undo { txn, next, page, redo } => {
                let of_change = next.left > 0 || matches!(redo, Redo::Parts(_));
                out.push(UNDO | flags(redo, None) | if of_change { OF_CHANGE } else { 0 });
                put_all(out, &[*txn, next.lsn.0]);
                if of_change {
                    put(out, u64::from(next.left));
                }
                put(out, page.0);
                put_redo(out, redo);
            }
            Record::Close { txn, next } => {
                out.push(CLOSE);
                put_all(out, &[*txn, next.0]);
            }
            Record::Format { page, image } => {
                out.push(FORMAT | WITH_IMAGE);
                put(out, page.0);
                put_image(out, image);
            }
            Record::Commit { txn } => {
                out.push(COMMIT);
                put(out, *txn);
            }
            Record::Abort { txn } => {
                out.push(ABORT);
                put(out, *txn);
            }
            Record::CheckpointBegin => {
                out.push(CHECKPOINT_BEGIN);
                put(out, u64::from(VERSION));
            }
            Record::CheckpointEnd(checkpoint) => {
                out.push(CHECKPOINT_END | if checkpoint.images { WITH_IMAGE } else { 0 });
                checkpoint.encode(out);
            }
        }
    }
}

impl ChangedPage<'_> {
    fn encode(&self, is_logical: bool, out: &mut Vec<u8>) {
        put(out, self.page.0);
        match &self.redo {
            Redo::Image(image) => {
                out.push(WITH_IMAGE);
                put_image(out, image);
            }
            Redo::Parts(parts) => {
                out.push(0);
                put_bytes(out, parts.bytes());
            }
            // No change has one.
            Redo::Edit(_) => {}
        }
        if !is_logical {
            put_bytes(out, self.undo.bytes());
        }
    }
}

/// Puts bytes after their number.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl RawChange<'_> {
    /// Appends a change to `out`, as a compensation record has it: without what undoes the change.
    pub(crate) fn put(redo: Redo<'_>, out: &mut Vec<u8>) {
        out.push(UNDO | flags(&redo, None) | if matches!(redo, Redo::Parts(_)) { OF_CHANGE } else { 0 });
        put_redo(out, &redo);
    }
}

impl Checkpoint {
    fn encode(&self, out: &mut Vec<u8>) {
        let counts = [self.live.len(), self.dirty.len(), self.maps.len()].map(|n| n as u64);
        put_all(out, &[self.begin.0, self.next_txn, self.pages]);
        put_all(out, &counts);
        for (txn, first, next) in &self.live {
            put_all(out, &[*txn, first.0, next.lsn.0, u64::from(next.left)]);
        }
        put_pages(out, &self.dirty);
        put_pages(out, &self.maps);
    }
}

/// Puts each page's id, less the id before it, and its LSN.
fn put_pages(out: &mut Vec<u8>, pages: &[(PageId, Lsn)]) {
    let mut last = 0;
    for (page, lsn) in pages {
        put_all(out, &[page.0 - last, lsn.0]);
        last = page.0;
    }
}

/// The flags of an update or a compensation. An update's bit is set by its redo if the undo clears
/// it.
fn flags(redo: &Redo<'_>, undo: Option<&Edit<'_>>) -> u8 {
    let image = if matches!(redo, Redo::Image(_)) { WITH_IMAGE } else { 0 };
    let bit = match (redo, undo) {
        (_, Some(Edit::Bit { set, .. })) => BIT | if *set { 0 } else { SET },
        (Redo::Edit(Edit::Bit { set, .. }), None) => BIT | if *set { SET } else { 0 },
        _ => 0,
    };
    image | bit
}

fn put_edit(out: &mut Vec<u8>, edit: &Edit<'_>) {
    match edit {
        Edit::Bytes { offset, bytes } => {
            put_all(out, &[u64::from(*offset), bytes.len() as u64]);
            out.extend_from_slice(bytes);
        }
        Edit::Bit { bit, .. } => put(out, u64::from(*bit)),
    }
}

fn put_image(out: &mut Vec<u8>, image: &Image<'_>) {
    out.push(image.kind as u8);
    put_all(out, &[image.head.len() as u64, image.zeros as u64]);
    out.extend_from_slice(image.head);
    out.extend_from_slice(image.tail);
}

fn put_redo(out: &mut Vec<u8>, redo: &Redo<'_>) {
    match redo {
        Redo::Edit(edit) => put_edit(out, edit),
        Redo::Parts(parts) => put_bytes(out, parts.bytes()),
        Redo::Image(image) => put_image(out, image),
    }
}
