//! What the store writes to its log, as bytes: `docs/PAGES.md`. No I/O.

use foreword::Lsn;

use crate::page::{Edit, Image, Kind, PAGES_MAX, PageId, Redo};

/// The version of the page file's and of the records' format.
pub(crate) const VERSION: u32 = 2;

const UPDATE: u8 = 1;
const UNDO: u8 = 2;
const FORMAT: u8 = 3;
const COMMIT: u8 = 4;
const ABORT: u8 = 5;
const CHECKPOINT_BEGIN: u8 = 6;
const CHECKPOINT_END: u8 = 7;

const KIND: u8 = 0x0f;
/// The redo part is an image of the page. Of a checkpoint: pages that change are logged whole.
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
    /// From its begin on, the first change of a page that was on disk is an image.
    pub(crate) images: bool,
    /// Ids from here on were not given to transactions.
    pub(crate) next_txn: u64,
    /// Transactions that were alive: id, first LSN, the next LSN to be undone.
    pub(crate) live: Vec<(u64, Lsn, Lsn)>,
    /// Pages that were not on disk, and from which LSN on the log rebuilds them; by id.
    pub(crate) dirty: Vec<(PageId, Lsn)>,
    /// Behind the last page that was ever used: so many the page file has, with page 0.
    pub(crate) pages: u64,
    /// The maps that were on disk, and at which page LSN each was, or a later one; by id.
    pub(crate) maps: Vec<(PageId, Lsn)>,
}

/// What a record is about: all but its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Update { txn: u64, prev: Lsn, page: PageId },
    Undo { txn: u64, next: Lsn, page: PageId },
    Format { page: PageId },
    Commit { txn: u64 },
    Abort { txn: u64 },
    CheckpointBegin,
    CheckpointEnd,
}

/// What follows a head, not looked at yet: of most records, a change of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest<'a> {
    /// The record's first byte.
    first: u8,
    bytes: &'a [u8],
}

impl Head {
    /// Reads the beginning of a record.
    pub(crate) fn decode(record: &[u8]) -> Result<(Head, Rest<'_>), &'static str> {
        let mut input = Input(record);
        let first = input.byte()?;
        let head = match first & KIND {
            UPDATE => Head::Update { txn: input.number()?, prev: Lsn(input.number()?), page: input.page()? },
            UNDO => Head::Undo { txn: input.number()?, next: Lsn(input.number()?), page: input.page()? },
            FORMAT if first & WITH_IMAGE != 0 => Head::Format { page: input.page()? },
            COMMIT => Head::Commit { txn: input.number()? },
            ABORT => Head::Abort { txn: input.number()? },
            CHECKPOINT_BEGIN if input.number()? == u64::from(VERSION) => Head::CheckpointBegin,
            CHECKPOINT_BEGIN => return Err("it was written by another version"),
            CHECKPOINT_END => Head::CheckpointEnd,
            _ => return Err("it is of no known kind"),
        };
        Ok((head, Rest { first, bytes: input.0 }))
    }
}

impl<'a> Rest<'a> {
    /// Puts a change aside, at the end of others, as a compensation would: without what undoes it.
    pub(crate) fn put(redo: Redo<'_>, out: &mut Vec<u8>) {
        out.push(UNDO | flags(&redo, None));
        put_redo(out, &redo);
    }

    /// As it was put aside.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Option<Rest<'a>> {
        bytes.split_first().map(|(&first, bytes)| Rest { first, bytes })
    }

    /// What a change does to its page, with bodies of so many bytes.
    pub(crate) fn redo(self, body: usize) -> Result<Redo<'a>, &'static str> {
        let mut input = Input(self.bytes);
        let redo = if self.first & KIND == UPDATE { input.update(self.first, body)?.1 } else { input.redo(self.first, body)? };
        input.end()?;
        Ok(redo)
    }
}

impl<'a> Record<'a> {
    #[cfg(test)]
    fn page_and_redo(&self) -> Option<(PageId, Redo<'a>)> {
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
                out.push(CHECKPOINT_END | if checkpoint.images { WITH_IMAGE } else { 0 });
                checkpoint.encode(out);
            }
        }
    }

    /// Reads a record of a store whose pages have bodies of so many bytes. Everything in it is checked against that.
    pub(crate) fn decode(bytes: &'a [u8], body: usize) -> Result<Record<'a>, &'static str> {
        let (head, rest) = Head::decode(bytes)?;
        let mut input = Input(rest.bytes);
        let record = match head {
            Head::Update { txn, prev, page } => {
                let (undo, redo) = input.update(rest.first, body)?;
                Record::Update { txn, prev, page, undo, redo }
            }
            Head::Undo { txn, next, page } => Record::Undo { txn, next, page, redo: input.redo(rest.first, body)? },
            Head::Format { page } => Record::Format { page, image: input.image(body)? },
            Head::Commit { txn } => Record::Commit { txn },
            Head::Abort { txn } => Record::Abort { txn },
            Head::CheckpointBegin => Record::CheckpointBegin,
            Head::CheckpointEnd => Record::CheckpointEnd(Checkpoint::decode(&mut input, rest.first & WITH_IMAGE != 0)?),
        };
        input.end()?;
        Ok(record)
    }
}

impl Checkpoint {
    fn encode(&self, out: &mut Vec<u8>) {
        let counts = [self.live.len(), self.dirty.len(), self.maps.len()].map(|n| n as u64);
        put_all(out, &[self.begin.0, self.next_txn, self.pages]);
        put_all(out, &counts);
        for (txn, first, next) in &self.live {
            put_all(out, &[*txn, first.0, next.0]);
        }
        put_pages(out, &self.dirty);
        put_pages(out, &self.maps);
    }

    fn decode(input: &mut Input<'_>, images: bool) -> Result<Checkpoint, &'static str> {
        let (begin, next_txn, pages) = (Lsn(input.number()?), input.number()?, input.number()?);
        let (live, dirty, maps) = (input.number()?, input.number()?, input.number()?);
        // Each takes at least a byte for each number: a false count fails here, before it costs anything.
        let least =
            [(live, 3), (dirty, 2), (maps, 2)].into_iter().try_fold(0u64, |sum, (n, each)| sum.checked_add(n.checked_mul(each)?));
        if least.is_none_or(|n| n > input.0.len() as u64) {
            return Err("its counts do not add up");
        }
        if pages > PAGES_MAX {
            return Err("more pages than there can be");
        }
        let live = (0..live)
            .map(|_| Ok((input.number()?, Lsn(input.number()?), Lsn(input.number()?))))
            .collect::<Result<_, &'static str>>()?;
        Ok(Checkpoint { begin, images, next_txn, pages, live, dirty: input.pages(dirty)?, maps: input.pages(maps)? })
    }
}

/// Each page by its id, as the difference to the one before, and its LSN.
fn put_pages(out: &mut Vec<u8>, pages: &[(PageId, Lsn)]) {
    let mut last = 0;
    for (page, lsn) in pages {
        put_all(out, &[page.0 - last, lsn.0]);
        last = page.0;
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

/// The low seven bits of each byte, side by side.
fn squeeze(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// A number and what follows it. (By value, so that what is left of a record can stay in registers.)
#[cold]
fn any_number(mut input: &[u8]) -> Result<(u64, &[u8]), &'static str> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(TOO_SHORT)?;
        input = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok((value, input));
        }
    }
    Err("a number that is too large")
}

const TOO_SHORT: &str = "it ends too early";

/// What is left of a record.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    #[inline(always)]
    fn number(&mut self) -> Result<u64, &'static str> {
        // Nearly all end within eight bytes, which are taken at once: recovery reads millions.
        if let Some(bytes) = self.0.first_chunk() {
            let word = u64::from_le_bytes(*bytes);
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let len = ends.trailing_zeros() as usize / 8 + 1;
                self.0 = &self.0[len..];
                return Ok(squeeze(word & (u64::MAX >> (64 - 8 * len))));
            }
        }
        let (value, rest) = any_number(self.0)?;
        self.0 = rest;
        Ok(value)
    }

    #[inline]
    fn page(&mut self) -> Result<PageId, &'static str> {
        let id = self.number()?;
        if (1..PAGES_MAX).contains(&id) { Ok(PageId(id)) } else { Err("a page id that cannot be") }
    }

    /// So many pages, with an LSN each.
    fn pages(&mut self, count: u64) -> Result<Vec<(PageId, Lsn)>, &'static str> {
        let mut last = 0;
        let mut page = |_| {
            last = self.number()?.checked_add(last).filter(|&page| page < PAGES_MAX).ok_or("a page id that cannot be")?;
            Ok((PageId(last), Lsn(self.number()?)))
        };
        (0..count).map(&mut page).collect()
    }

    /// A number that is at most so large.
    #[inline]
    fn up_to(&mut self, max: usize) -> Result<usize, &'static str> {
        let value = self.number()?;
        if value <= max as u64 { Ok(value as usize) } else { Err("a place that does not lie in a page") }
    }

    #[inline]
    fn edit(&mut self, first: u8, body: usize) -> Result<Edit<'a>, &'static str> {
        if first & BIT != 0 {
            return Ok(Edit::Bit { bit: self.up_to(body * 8 - 1)? as u32, set: first & SET != 0 });
        }
        let offset = self.up_to(body)?;
        let len = self.up_to(body - offset)?;
        Ok(Edit::Bytes { offset: offset as u32, bytes: self.take(len)? })
    }

    /// What an update undoes, and what it redoes.
    #[inline]
    fn update(&mut self, first: u8, body: usize) -> Result<(Edit<'a>, Redo<'a>), &'static str> {
        let undo = self.edit(first ^ SET, body)?;
        let redo = match undo {
            _ if first & WITH_IMAGE != 0 => Redo::Image(self.image(body)?),
            Edit::Bytes { offset, bytes } => Redo::Edit(Edit::Bytes { offset, bytes: self.take(bytes.len())? }),
            Edit::Bit { bit, set } => Redo::Edit(Edit::Bit { bit, set: !set }),
        };
        Ok((undo, redo))
    }

    #[inline]
    fn redo(&mut self, first: u8, body: usize) -> Result<Redo<'a>, &'static str> {
        if first & WITH_IMAGE != 0 { Ok(Redo::Image(self.image(body)?)) } else { Ok(Redo::Edit(self.edit(first, body)?)) }
    }

    #[inline]
    fn end(&self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err("it is longer than it should be") }
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
                images: true,
                next_txn: 12,
                live: vec![(3, Lsn(5), Lsn(70)), (11, Lsn(60), Lsn(60))],
                dirty: vec![(PageId(1), Lsn(50)), (PageId(2), Lsn(4)), (PageId(900), Lsn(77))],
                pages: 70_000,
                maps: vec![(PageId(1), Lsn(50)), (PageId(32513), Lsn(9))],
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
            bytes.pop();
            let Some((page, redo)) = record.page_and_redo() else { continue };
            let (head, rest) = Head::decode(&bytes).unwrap();
            assert!(
                matches!(head, Head::Update { page: of, .. } | Head::Undo { page: of, .. } | Head::Format { page: of } if of == page)
            );
            assert_eq!(rest.redo(BODY), Ok(redo));
            let mut aside = b"others".to_vec();
            Rest::put(redo, &mut aside);
            assert_eq!(Rest::from_bytes(&aside[6..]).unwrap().redo(BODY), Ok(redo));
        }
    }

    #[test]
    fn an_update_costs_little_more_than_its_bytes() {
        let mut bytes = Vec::new();
        samples()[0].encode(&mut bytes);
        assert_eq!(bytes.len(), 1 + 2 + 1 + 3 + 1 + 1 + 3 + 3);
    }

    #[test]
    fn numbers_of_all_lengths_are_read_wherever_they_stand() {
        let mut bytes = Vec::new();
        for value in (0..64).flat_map(|bits| [(1 << bits) - 1, 1 << bits, 3 << bits]).chain([u64::MAX]) {
            for behind in [0, 1, 7, 8, 20] {
                bytes.clear();
                put(&mut bytes, value);
                bytes.resize(bytes.len() + behind, 0xff);
                let mut input = Input(&bytes);
                assert_eq!((input.number(), input.0.len()), (Ok(value), behind));
            }
        }
        let mut too_large = Input(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
        assert!(too_large.number().is_err());
    }

    #[test]
    fn a_false_count_costs_nothing() {
        let mut bytes = vec![CHECKPOINT_END];
        put_all(&mut bytes, &[1, 1, 1]);
        for counts in [[u64::MAX / 2, u64::MAX / 2, 0], [0, 0, u64::MAX], [0, 1, 0], [u64::MAX / 3, 1, 1]] {
            let mut bytes = bytes.clone();
            put_all(&mut bytes, &counts);
            assert_eq!(Record::decode(&bytes, BODY), Err("its counts do not add up"), "{counts:?}");
        }
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
