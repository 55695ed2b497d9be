//! What a user wants to change in pages, to be logged in one record. No I/O.

use std::ops::Range;

use crate::page::PageId;
use crate::parts::Part;

/// Changes of any number of places in any number of pages, which happen together or not at all:
/// [`Txn::apply`](crate::Txn::apply) makes them and logs them in one record.
///
/// ```
/// # fn main() -> Result<(), foreword_pages::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = foreword_pages::Store::open(dir.path())?;
/// use foreword_pages::Change;
///
/// let mut txn = store.begin();
/// let (one, two) = (txn.allocate()?, txn.allocate()?);
/// let (mut one, mut two) = (txn.fetch_exclusive(one)?, txn.fetch_exclusive(two)?);
/// let mut change = Change::new();
/// change.write(one.id(), 0, b"left").write(one.id(), 100, &two.id().0.to_le_bytes());
/// change.write(two.id(), 0, b"right");
/// txn.apply(&change, &mut [&mut one, &mut two])?;
/// assert_eq!(&two[..5], b"right");
/// txn.commit()?;
/// # drop((one, two));
/// # store.close() }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Change {
    bytes: Vec<u8>,
    places: Vec<(PageId, Place, Range<usize>)>,
    undo: Option<(u16, Range<usize>)>,
}

/// Bytes that are reserved beside the first that are added.
const ROOM: usize = 128;

#[derive(Clone, Copy, Debug)]
enum Place {
    Bytes { offset: usize },
    Typed { number: u16 },
}

impl Change {
    /// A change of nothing.
    #[must_use]
    pub fn new() -> Change {
        Change::default()
    }

    /// Adds bytes that are written into a page. Of these the record has what differs from the
    /// page's bytes, and those as well, unless a handler [undoes](Change::undo) the change.
    pub fn write(&mut self, page: PageId, offset: usize, bytes: &[u8]) -> &mut Change {
        let bytes = self.add(bytes);
        self.places.push((page, Place::Bytes { offset }, bytes));
        self
    }

    /// Adds a change that a [handler](crate::Options::redo_type) makes in a page, by a payload:
    /// "insert this at place 7". The record has the payload, and the bytes that it changes as they
    /// were before, unless a handler [undoes](Change::undo) the change.
    pub fn redo(&mut self, page: PageId, record_type: u16, payload: &[u8]) -> &mut Change {
        let payload = self.add(payload);
        self.places.push((page, Place::Typed { number: record_type }, payload));
        self
    }

    /// A [handler](crate::Options::undo_type) undoes the change, by a payload: "remove the key k,
    /// wherever it is". The bytes before are not logged. Necessary if others may move what is
    /// changed before the transaction ends.
    ///
    /// Within a [top action](crate::Txn::nested), and in a handler that undoes, a change is undone
    /// by bytes all the same: no other owner has its pages before it is closed.
    pub fn undo(&mut self, record_type: u16, payload: &[u8]) -> &mut Change {
        let payload = self.add(payload);
        self.undo = Some((record_type, payload));
        self
    }

    /// Makes it a change of nothing. It keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.undo = None;
    }

    fn add(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        if start == 0 {
            // With room for what undoes a small change.
            self.bytes.reserve(bytes.len() + ROOM);
        }
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// The places, each with its page, in the order in which they were added.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (PageId, Part<'_>)> {
        self.places.iter().map(|(page, place, bytes)| {
            let bytes = &self.bytes[bytes.clone()];
            let part = match *place {
                Place::Bytes { offset } => Part::Bytes { offset, bytes },
                Place::Typed { number } => Part::Typed { number, payload: bytes },
            };
            (*page, part)
        })
    }

    /// The type and the payload of what undoes the change, if a handler does.
    pub(crate) fn logical(&self) -> Option<(u16, &[u8])> {
        self.undo.as_ref().map(|(number, payload)| (*number, &self.bytes[payload.clone()]))
    }
}
