//! What the store writes to its log, as bytes: `docs/PAGES.md`. No I/O.

use foreword::Lsn;

use crate::page::{Edit, Image, Kind, PAGES_MAX, PageId, Redo};

/// The version of the page file's and of the records' format.
pub(crate) const VERSION: u32 = 1;

const UPDATE: u8 = 1;
const UNDO: u8 = 2;
const FORMAT: u8 = 3;
const COMMIT: u8 = 4;
const ABORT: u8 = 5;
const CHECKPOINT_BEGIN: u8 = 6;
const CHECKPOINT_END: u8 = 7;

const KIND: u8 = 0x0f;
/// The redo part is an image of the page.
const WITH_IMAGE: u8 = 0x10;
/// The change is of a bit.
const BIT: u8 = 0x20;
/// Its redo sets the bit.
const SET: u8 = 0x40;

/// A record, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record<'a> {
    /// A change by a transaction. `prev` is the one to be undone after it.
    Update {
        txn: u64,
        prev: Lsn,
        page: PageId,
        undo: Edit<'a>,
        redo: Redo<'a>,
    },
    /// A compensation: what undid a change. `next` is the one to be undone next.
    Undo {
        txn: u64,
        next: Lsn,
        page: PageId,
        redo: Redo<'a>,
    },
    /// A page begins anew. Of no transaction: it is not undone.
    Format {
        page: PageId,
        image: Image<'a>,
    },
    Commit {
        txn: u64,
    },
    /// The transaction is undone, all of it.
    Abort {
        txn: u64,
    },
    CheckpointBegin,
    CheckpointEnd(Checkpoint),
}

/// What a checkpoint found: where recovery is to begin, and what it cannot see from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) begin: Lsn,
    /// Ids from here on were not given to transactions.
    pub(crate) next_txn: u64,
    /// Transactions that were alive: id, first LSN, the next LSN to be undone.
    pub(crate) live: Vec<(u64, Lsn, Lsn)>,
    /// Pages that were not on disk, and from which LSN on the log rebuilds them; by id.
    pub(crate) dirty: Vec<(PageId, Lsn)>,
}

impl<'a> Record<'a> {
    pub(crate) fn page_and_redo(&self) -> Option<(PageId, Redo<'a>)> {
        match self {
            Record::Update { page, redo, .. } | Record::Undo { page, redo, .. } => Some((*page, *redo)),
            Record::Format { page, image } => Some((*page, Redo::Image(*image))),
            _ => None,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Record::Update { txn, prev, page, undo, redo } => {
                out.push(UPDATE | flags(redo, Some(undo)));
                put_all(out, &[*txn, prev.0, page.0]);
                put_edit(out, undo);
                match (undo, redo) {
                    // The bit and the length were said.
                    (Edit::Bytes { .. }, Redo::Edit(Edit::Bytes { bytes, .. })) => out.extend_from_slice(bytes),
                    (_, Redo::Image(image)) => put_image(out, image),
                    _ => {}
                }
            }
            Record::Undo { txn, next, page, redo } => {
                out.push(UNDO | flags(redo, None));
                put_all(out, &[*txn, next.0, page.0]);
                put_redo(out, redo);
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
                out.push(CHECKPOINT_END);
                checkpoint.encode(out);
            }
        }
    }

    /// Reads a record of a store whose pages have bodies of so many bytes. Everything in it is checked against that.
    pub(crate) fn decode(bytes: &'a [u8], body: usize) -> Result<Record<'a>, &'static str> {
        let mut input = Input(bytes);
        let first = input.byte()?;
        let record = match first & KIND {
            UPDATE => {
                let (txn, prev, page) = (input.number()?, Lsn(input.number()?), input.page()?);
                let undo = input.edit(first ^ SET, body)?;
                let redo = match undo {
                    _ if first & WITH_IMAGE != 0 => Redo::Image(input.image(body)?),
                    Edit::Bytes { offset, bytes } => Redo::Edit(Edit::Bytes { offset, bytes: input.take(bytes.len())? }),
                    Edit::Bit { bit, set } => Redo::Edit(Edit::Bit { bit, set: !set }),
                };
                Record::Update { txn, prev, page, undo, redo }
            }
            UNDO => {
                let (txn, next, page) = (input.number()?, Lsn(input.number()?), input.page()?);
                let image = first & WITH_IMAGE != 0;
                let redo = if image { Redo::Image(input.image(body)?) } else { Redo::Edit(input.edit(first, body)?) };
                Record::Undo { txn, next, page, redo }
            }
            FORMAT if first & WITH_IMAGE != 0 => Record::Format { page: input.page()?, image: input.image(body)? },
            COMMIT => Record::Commit { txn: input.number()? },
            ABORT => Record::Abort { txn: input.number()? },
            CHECKPOINT_BEGIN => match input.number()? {
                1 => Record::CheckpointBegin,
                _ => return Err("it was written by another version"),
            },
            CHECKPOINT_END => Record::CheckpointEnd(Checkpoint::decode(&mut input)?),
            _ => return Err("it is of no known kind"),
        };
        if !input.0.is_empty() { Err("it is longer than it should be") } else { Ok(record) }
    }
}

impl Checkpoint {
    fn encode(&self, out: &mut Vec<u8>) {
        put_all(out, &[self.begin.0, self.next_txn, self.live.len() as u64, self.dirty.len() as u64]);
        for (txn, first, next) in &self.live {
            put_all(out, &[*txn, first.0, next.0]);
        }
        // By id, as the difference to the one before; and how far back.
        let mut last = 0;
        for (page, from) in &self.dirty {
            put_all(out, &[page.0 - last, from.0]);
            last = page.0;
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<Checkpoint, &'static str> {
        let (begin, next_txn) = (Lsn(input.number()?), input.number()?);
        let (live, dirty) = (input.number()?, input.number()?);
        // Each takes at least a byte for each number: a false count fails here, before it costs anything.
        let least = live.checked_mul(3).and_then(|n| n.checked_add(dirty.checked_mul(2)?));
        if least.is_none_or(|n| n > input.0.len() as u64) {
            return Err("its counts do not add up");
        }
        let live = (0..live)
            .map(|_| Ok((input.number()?, Lsn(input.number()?), Lsn(input.number()?))))
            .collect::<Result<_, &'static str>>()?;
        let mut last = 0;
        let dirty = (0..dirty)
            .map(|_| {
                last = input.number()?.checked_add(last).filter(|&page| page < PAGES_MAX).ok_or("a page id that cannot be")?;
                Ok((PageId(last), Lsn(input.number()?)))
            })
            .collect::<Result<_, &'static str>>()?;
        Ok(Checkpoint { begin, next_txn, live, dirty })
    }
}

fn flags(redo: &Redo<'_>, undo: Option<&Edit<'_>>) -> u8 {
    let image = if matches!(redo, Redo::Image(_)) { WITH_IMAGE } else { 0 };
    let bit = match (redo, undo) {
        (_, Some(Edit::Bit { set, .. })) => BIT | if *set { 0 } else { SET },
        (Redo::Edit(Edit::Bit { set, .. }), None) => BIT | if *set { SET } else { 0 },
        _ => 0,
    };
    image | bit
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_all(out: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        put(out, *value);
    }
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
        Redo::Image(image) => put_image(out, image),
    }
}

/// What is left of a record.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number that is too large")
    }

    fn page(&mut self) -> Result<PageId, &'static str> {
        let id = self.number()?;
        if (1..PAGES_MAX).contains(&id) { Ok(PageId(id)) } else { Err("a page id that cannot be") }
    }

    /// A number that is at most so large.
    fn up_to(&mut self, max: usize) -> Result<usize, &'static str> {
        let value = self.number()?;
        if value <= max as u64 { Ok(value as usize) } else { Err("a place that does not lie in a page") }
    }

    fn edit(&mut self, first: u8, body: usize) -> Result<Edit<'a>, &'static str> {
        if first & BIT != 0 {
            return Ok(Edit::Bit { bit: self.up_to(body * 8 - 1)? as u32, set: first & SET != 0 });
        }
        let offset = self.up_to(body)?;
        let len = self.up_to(body - offset)?;
        Ok(Edit::Bytes { offset: offset as u32, bytes: self.take(len)? })
    }

    fn image(&mut self, body: usize) -> Result<Image<'a>, &'static str> {
        let kind = Kind::from_byte(self.byte()?).filter(|&kind| kind != Kind::Blank).ok_or("a page of no known kind")?;
        let head = self.up_to(body)?;
        let zeros = self.up_to(body - head)?;
        Ok(Image { kind, zeros, head: self.take(head)?, tail: self.take(body - head - zeros)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: usize = 4096 - 32;

    fn image() -> Image<'static> {
        Image { kind: Kind::Data, head: b"head", zeros: BODY - 8, tail: b"tail" }
    }

    fn samples() -> Vec<Record<'static>> {
        let bytes = |bytes| Edit::Bytes { offset: 17, bytes };
        let bit = |set| Edit::Bit { bit: 12345, set };
        let (txn, page) = (300, PageId(70000));
        vec![
            Record::Update { txn, prev: Lsn(0), page, undo: bytes(b"old"), redo: Redo::Edit(bytes(b"new")) },
            Record::Update { txn, prev: Lsn(9), page, undo: bytes(b"old"), redo: Redo::Image(image()) },
            Record::Update { txn, prev: Lsn(9), page, undo: bit(false), redo: Redo::Edit(bit(true)) },
            Record::Update { txn, prev: Lsn(9), page, undo: bit(true), redo: Redo::Edit(bit(false)) },
            Record::Update { txn, prev: Lsn(9), page, undo: bit(true), redo: Redo::Image(image()) },
            Record::Undo { txn, next: Lsn(u64::MAX), page, redo: Redo::Edit(bytes(b"")) },
            Record::Undo { txn, next: Lsn(0), page, redo: Redo::Edit(bit(true)) },
            Record::Undo { txn, next: Lsn(5), page, redo: Redo::Image(image()) },
            Record::Format { page, image: Image::empty(BODY) },
            Record::Commit { txn: u64::MAX },
            Record::Abort { txn: 0 },
            Record::CheckpointBegin,
            Record::CheckpointEnd(Checkpoint {
                begin: Lsn(77),
                next_txn: 12,
                live: vec![(3, Lsn(5), Lsn(70)), (11, Lsn(60), Lsn(60))],
                dirty: vec![(PageId(1), Lsn(50)), (PageId(2), Lsn(4)), (PageId(900), Lsn(77))],
            }),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        for record in samples() {
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes, BODY).as_ref(), Ok(&record));
            for len in 0..bytes.len() {
                assert!(Record::decode(&bytes[..len], BODY).is_err(), "{record:?} cut to {len}");
            }
            bytes.push(0);
            assert!(Record::decode(&bytes, BODY).is_err(), "{record:?} with a byte too many");
        }
    }

    #[test]
    fn an_update_costs_little_more_than_its_bytes() {
        let mut bytes = Vec::new();
        samples()[0].encode(&mut bytes);
        assert_eq!(bytes.len(), 1 + 2 + 1 + 3 + 1 + 1 + 3 + 3);
    }

    #[test]
    fn a_false_count_costs_nothing() {
        let mut bytes = vec![CHECKPOINT_END];
        put_all(&mut bytes, &[1, 1, u64::MAX / 2, u64::MAX / 2]);
        assert_eq!(Record::decode(&bytes, BODY), Err("its counts do not add up"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_reach_out_of_the_page(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = Record::decode(&bytes, BODY)
                && let Some((_, Redo::Edit(edit))) = record.page_and_redo()
            {
                prop_assert!(edit.fits(BODY));
            }
        }

        #[test]
        fn no_flipped_byte_makes_it_panic(which in 0usize..13, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = Vec::new();
            samples()[which].encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(record) = Record::decode(&bytes, BODY)
                && let Some((_, redo)) = record.page_and_redo()
            {
                let mut page = crate::page::Page::blank(4096);
                redo.apply(&mut page, Lsn(1));
            }
        }
    }
}
