//! Records survive encoding and decoding, and no bytes make decoding panic.

use proptest::prelude::*;

use super::*;
use crate::leb::{Input, put, put_all};
use crate::page::Kind;
use crate::parts::Part;
use crate::types::RedoTypes;

impl<'a> Record<'a> {
    fn page_and_redo(&self) -> Option<(PageId, Redo<'a>)> {
        match self {
            Record::Update { page, redo, .. } | Record::Undo { page, redo, .. } => Some((*page, *redo)),
            Record::Format { page, image } => Some((*page, Redo::Image(*image))),
            _ => None,
        }
    }

    /// All that the record does to pages, and all that undoes it.
    fn redos(&self) -> Vec<Redo<'a>> {
        match self {
            Record::Change { pages, .. } => pages.iter().flat_map(|page| [page.redo, Redo::Parts(page.undo)]).collect(),
            _ => self.page_and_redo().map(|(_, redo)| redo).into_iter().collect(),
        }
    }
}

/// Parts, encoded, for as long as the test runs.
fn parts(all: &[Part<'_>]) -> Parts<'static> {
    let mut bytes = Vec::new();
    all.iter().for_each(|part| part.put(&mut bytes));
    Parts::decode(bytes.leak(), BODY).unwrap()
}

const BODY: usize = 4096 - 32;

fn image() -> Image<'static> {
    Image { kind: Kind::Data, head: b"head", zeros: BODY - 8, tail: b"tail" }
}

fn samples() -> Vec<Record<'static>> {
    let bytes = |bytes| Edit::Bytes { offset: 17, bytes };
    let bit = |set| Edit::Bit { bit: 12345, set };
    let (txn, page, is_nested) = (300, PageId(70000), false);
    let some = parts(&[Part::Bytes { offset: 17, bytes: b"new" }, Part::Typed { number: 65535, payload: b"seven" }]);
    let old = parts(&[Part::Bytes { offset: BODY - 3, bytes: b"old" }]);
    let one = ChangedPage { page, redo: Redo::Parts(some), undo: old };
    let two = ChangedPage { page: PageId(3), redo: Redo::Image(image()), undo: old };
    let none = Parts::new(&[]);
    vec![
        Record::Update { txn, prev: Lsn(0), is_nested, page, undo: bytes(b"old"), redo: Redo::Edit(bytes(b"new")) },
        Record::Update { txn, prev: Lsn(9), is_nested, page, undo: bytes(b"old"), redo: Redo::Image(image()) },
        Record::Update { txn, prev: Lsn(9), is_nested, page, undo: bit(false), redo: Redo::Edit(bit(true)) },
        Record::Update { txn, prev: Lsn(9), is_nested, page, undo: bit(true), redo: Redo::Edit(bit(false)) },
        Record::Update { txn, prev: Lsn(9), is_nested: true, page, undo: bit(true), redo: Redo::Image(image()) },
        Record::Undo { txn, next: Point::all_of(Lsn(u64::MAX)), page, redo: Redo::Edit(bytes(b"")) },
        Record::Undo { txn, next: Point::all_of(Lsn(0)), page, redo: Redo::Edit(bit(true)) },
        Record::Undo { txn, next: Point::all_of(Lsn(5)), page, redo: Redo::Image(image()) },
        Record::Undo { txn, next: Point { lsn: Lsn(5), left: 2 }, page, redo: Redo::Parts(old) },
        Record::Undo { txn, next: Point { lsn: Lsn(5), left: u32::MAX }, page, redo: Redo::Image(image()) },
        Record::Change { txn, prev: Lsn(9), is_nested: true, logical: None, pages: vec![one, two] },
        Record::Change {
            txn,
            prev: Lsn(0),
            is_nested,
            logical: Some((7, b"key")),
            pages: vec![ChangedPage { undo: none, ..one }, ChangedPage { undo: none, ..two }],
        },
        Record::Change { txn, prev: Lsn(0), is_nested, logical: Some((0, b"")), pages: Vec::new() },
        Record::Close { txn, next: Lsn(300) },
        Record::Format { page, image: Image::empty(BODY) },
        Record::Commit { txn: u64::MAX },
        Record::Abort { txn: 0 },
        Record::CheckpointBegin,
        Record::CheckpointEnd(Checkpoint {
            begin: Lsn(77),
            images: true,
            next_txn: 12,
            live: vec![(3, Lsn(5), Point { lsn: Lsn(70), left: 3 }), (11, Lsn(60), Point::all_of(Lsn(60)))],
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
        let (header, raw) = Header::decode(&bytes).unwrap();
        assert!(
            matches!(header, Header::Update { page: of, .. } | Header::Undo { page: of, .. } | Header::Format { page: of } if of == page)
        );
        assert_eq!(raw.redo(BODY), Ok(redo));
        let mut aside = b"others".to_vec();
        RawChange::put(redo, &mut aside);
        assert_eq!(RawChange::from_bytes(&aside[6..]).unwrap().redo(BODY), Ok(redo));
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
        let kinds = [UPDATE, UNDO, FORMAT, CHANGE].into_iter().flat_map(|kind| (0..16).map(move |flags| kind | flags << 4));
        for first in kinds {
            let bytes = [&[first][..], &bytes].concat();
            if let Ok(record) = Record::decode(&bytes, BODY) {
                let mut page = crate::page::Page::blank(4096);
                record.redos().iter().for_each(|redo| _ = redo.apply(&mut page, Lsn(1), &RedoTypes::default()));
            }
        }
    }

    #[test]
    fn no_flipped_byte_makes_it_panic(which in 0usize..19, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = Vec::new();
        samples()[which].encode(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(record) = Record::decode(&bytes, BODY) {
            let mut page = crate::page::Page::blank(4096);
            record.redos().iter().for_each(|redo| _ = redo.apply(&mut page, Lsn(1), &RedoTypes::default()));
        }
    }
}
