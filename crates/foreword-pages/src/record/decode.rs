//! Bytes as records: everything that is read is checked.

use foreword::Lsn;

use super::{
    ABORT, BIT, CHECKPOINT_BEGIN, CHECKPOINT_END, COMMIT, Checkpoint, FORMAT, Header, KIND, RawChange, Record, SET, UNDO, UPDATE,
    VERSION, WITH_IMAGE,
};
use crate::page::{Edit, Image, Kind, PAGES_MAX, PageId, Redo};

impl Header {
    /// Decodes the header of a record. The change is left for later.
    pub(crate) fn decode(record: &[u8]) -> Result<(Header, RawChange<'_>), &'static str> {
        let mut input = Input(record);
        let first = input.byte()?;
        let header = match first & KIND {
            UPDATE => Header::Update { txn: input.number()?, prev: Lsn(input.number()?), page: input.page()? },
            UNDO => Header::Undo { txn: input.number()?, next: Lsn(input.number()?), page: input.page()? },
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

impl<'a> RawChange<'a> {
    /// The change that [`put`](RawChange::put) made these bytes of.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Option<RawChange<'a>> {
        bytes.split_first().map(|(&first, bytes)| RawChange { first, bytes })
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
                Record::Update { txn, prev, page, undo, redo }
            }
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

/// The low seven bits of each byte, side by side.
fn squeeze(word: u64) -> u64 {
    let word = word & 0x7f7f_7f7f_7f7f_7f7f;
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

/// A number of any length, and what follows it. By value, so that the rest of a record can stay in
/// registers.
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
pub(super) struct Input<'a>(pub(super) &'a [u8]);

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
    pub(super) fn number(&mut self) -> Result<u64, &'static str> {
        // Recovery reads millions of numbers, and nearly all of them end within eight bytes: those
        // eight are taken at once.
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

    /// Takes so many pages, each with an LSN.
    fn pages(&mut self, count: u64) -> Result<Vec<(PageId, Lsn)>, &'static str> {
        let mut last = 0;
        let mut page = |_| {
            last = self.number()?.checked_add(last).filter(|&page| page < PAGES_MAX).ok_or("a page id that cannot be")?;
            Ok((PageId(last), Lsn(self.number()?)))
        };
        (0..count).map(&mut page).collect()
    }

    /// Takes a number that is at most `max`.
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
