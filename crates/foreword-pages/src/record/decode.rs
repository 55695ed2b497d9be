//! Bytes as records: everything that is read is checked.

use foreword::Lsn;

use super::{
    ABORT, BIT, CHANGE, CHECKPOINT_BEGIN, CHECKPOINT_END, CLOSE, COMMIT, ChangedPage, Checkpoint, FORMAT, Header, KIND, LOGICAL,
    NESTED, OF_CHANGE, Point, RawChange, Record, SET, UNDO, UPDATE, VERSION, WITH_IMAGE,
};
use crate::leb::Input;
use crate::page::{Edit, Image, Kind, PAGES_MAX, PageId, Redo};
use crate::parts::Parts;

impl Header {
    /// Decodes the header of a record. The change is left for later.
    pub(crate) fn decode(record: &[u8]) -> Result<(Header, RawChange<'_>), &'static str> {
        let mut input = Input(record);
        let first = input.byte()?;
        let header = match first & KIND {
            UPDATE => Header::Update { txn: input.number()?, prev: Lsn(input.number()?), page: input.page()? },
            CHANGE => Header::Change { txn: input.number()?, prev: Lsn(input.number()?) },
            UNDO => Header::Undo { txn: input.number()?, next: input.next(first & OF_CHANGE != 0)?, page: input.page()? },
            CLOSE => Header::Close { txn: input.number()?, next: Lsn(input.number()?) },
            FORMAT if first & WITH_IMAGE != 0 => Header::Format { page: input.page()? },
            COMMIT => Header::Commit { txn: input.number()? },
            ABORT => Header::Abort { txn: input.number()? },
            CHECKPOINT_BEGIN if input.number()? == u64::from(VERSION) => Header::CheckpointBegin,
            CHECKPOINT_BEGIN => return Err("it was written by another version"),
            CHECKPOINT_END => Header::CheckpointEnd,
            _ => return Err("it is of no known kind"),
        };
        Ok((header, RawChange { first, bytes: input.0 }))
    }
}

/// What undoes a change, if a handler does; and its pages.
type Pages<'a> = (Option<(u16, &'a [u8])>, Vec<ChangedPage<'a>>);

impl<'a> RawChange<'a> {
    /// The change that [`put`](RawChange::put) made these bytes of.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Option<RawChange<'a>> {
        bytes.split_first().map(|(&first, bytes)| RawChange { first, bytes })
    }

    /// Decodes what a change does to its pages, and how it is undone, in a store whose pages have
    /// bodies of so many bytes.
    pub(crate) fn pages(self, body: usize) -> Result<Pages<'a>, &'static str> {
        let mut input = Input(self.bytes);
        let logical = if self.first & LOGICAL != 0 { Some((input.type_number()?, input.bytes()?)) } else { None };
        let count = input.number()?;
        // A page takes three bytes at least. So a false count costs no memory.
        if count > input.0.len() as u64 / 3 {
            return Err("its counts do not add up");
        }
        let pages = (0..count).map(|_| input.changed_page(logical.is_some(), body)).collect::<Result<_, _>>()?;
        input.end()?;
        Ok((logical, pages))
    }

    /// Decodes what the change does to its page, in a store whose pages have bodies of so many
    /// bytes.
    pub(crate) fn redo(self, body: usize) -> Result<Redo<'a>, &'static str> {
        let mut input = Input(self.bytes);
        let redo = if self.first & KIND == UPDATE { input.update(self.first, body)?.1 } else { input.redo(self.first, body)? };
        input.end()?;
        Ok(redo)
    }
}

impl<'a> Record<'a> {
    /// Decodes a record of a store whose pages have bodies of so many bytes. A change that does not
    /// lie in the body is an error.
    pub(crate) fn decode(bytes: &'a [u8], body: usize) -> Result<Record<'a>, &'static str> {
        let (header, raw) = Header::decode(bytes)?;
        let mut input = Input(raw.bytes);
        let record = match header {
            Header::Update { txn, prev, page } => {
                let (undo, redo) = input.update(raw.first, body)?;
                Record::Update { txn, prev, is_nested: raw.first & NESTED != 0, page, undo, redo }
            }
            Header::Change { txn, prev } => {
                let (logical, pages) = raw.pages(body)?;
                return Ok(Record::Change { txn, prev, is_nested: raw.first & NESTED != 0, logical, pages });
            }
            Header::Close { txn, next } => Record::Close { txn, next },
            Header::Undo { txn, next, page } => Record::Undo { txn, next, page, redo: input.redo(raw.first, body)? },
            Header::Format { page } => Record::Format { page, image: input.image(body)? },
            Header::Commit { txn } => Record::Commit { txn },
            Header::Abort { txn } => Record::Abort { txn },
            Header::CheckpointBegin => Record::CheckpointBegin,
            Header::CheckpointEnd => Record::CheckpointEnd(Checkpoint::decode(&mut input, raw.first & WITH_IMAGE != 0)?),
        };
        input.end()?;
        Ok(record)
    }
}

impl Checkpoint {
    fn decode(input: &mut Input<'_>, images: bool) -> Result<Checkpoint, &'static str> {
        let (begin, next_txn, pages) = (Lsn(input.number()?), input.number()?, input.number()?);
        let (live, dirty, maps) = (input.number()?, input.number()?, input.number()?);
        // Invariant: a count is at most what the bytes that follow can hold, a byte for each
        // number. So a false count fails before it costs memory.
        let least =
            [(live, 4), (dirty, 2), (maps, 2)].into_iter().try_fold(0u64, |sum, (n, each)| sum.checked_add(n.checked_mul(each)?));
        if least.is_none_or(|n| n > input.0.len() as u64) {
            return Err("its counts do not add up");
        }
        if pages > PAGES_MAX {
            return Err("more pages than there can be");
        }
        let live = (0..live)
            .map(|_| Ok((input.number()?, Lsn(input.number()?), input.next(true)?)))
            .collect::<Result<_, &'static str>>()?;
        Ok(Checkpoint { begin, images, next_txn, pages, live, dirty: input.pages(dirty)?, maps: input.pages(maps)? })
    }
}

impl<'a> Input<'a> {
    /// Takes what is to be undone next, perhaps with the number of pages that are left of it.
    #[inline]
    fn next(&mut self, with_left: bool) -> Result<Point, &'static str> {
        let lsn = Lsn(self.number()?);
        let left = if with_left { self.number()? } else { 0 };
        Ok(Point { lsn, left: u32::try_from(left).map_err(|_| "more pages than a record can have")? })
    }

    /// Takes bytes that come after their number.
    fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let len = self.up_to(usize::MAX)?;
        self.take(len)
    }

    fn changed_page(&mut self, is_logical: bool, body: usize) -> Result<ChangedPage<'a>, &'static str> {
        let page = self.page()?;
        let redo = match self.byte()? {
            0 => Redo::Parts(Parts::decode(self.bytes()?, body)?),
            WITH_IMAGE => Redo::Image(self.image(body)?),
            _ => return Err("a page of a change of no known kind"),
        };
        let undo = Parts::decode(if is_logical { &[] } else { self.bytes()? }, body)?;
        if undo.types().next().is_some() {
            return Err("a handler would undo a part");
        }
        Ok(ChangedPage { page, redo, undo })
    }

    #[inline]
    fn page(&mut self) -> Result<PageId, &'static str> {
        let id = self.number()?;
        if (1..PAGES_MAX).contains(&id) { Ok(PageId(id)) } else { Err("a page id that cannot be") }
    }

    /// Takes so many pages, each with an LSN.
    fn pages(&mut self, count: u64) -> Result<Vec<(PageId, Lsn)>, &'static str> {
        let mut last = 0;
        let mut page = |_| {
            last = self.number()?.checked_add(last).filter(|&page| page < PAGES_MAX).ok_or("a page id that cannot be")?;
            Ok((PageId(last), Lsn(self.number()?)))
        };
        (0..count).map(&mut page).collect()
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

    /// Takes an update's undo and its redo.
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
        match first & (WITH_IMAGE | OF_CHANGE) {
            0 => Ok(Redo::Edit(self.edit(first, body)?)),
            OF_CHANGE => Ok(Redo::Parts(Parts::decode(self.bytes()?, body)?)),
            _ => Ok(Redo::Image(self.image(body)?)),
        }
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
