//! The records of the log, as bytes: **no I/O**.
//!
//! ```text
//! version  u8      1
//! kind     u8      which; the high bit says that it is a copy which compaction made
//! group    varint
//! previous varint  0: the group begins with this record; 1: the group's previous record is the one
//!                  directly before this one in the log; otherwise the previous record's LSN + 1
//! index    varint  Append, Purge, Committed: the index; TruncateAfter: the index + 1, 0 for "all"
//! data             the rest: the caller's bytes
//! ```
//!
//! A varint has 7 bits a byte, the low ones first, in the shortest form.

use foreword::Lsn;

use crate::{Error, Result};

const VERSION: u8 = 1;
const MOVED: u8 = 0x80;
const VOTE: u8 = 1;
const APPEND: u8 = 2;
const TRUNCATE_AFTER: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;
const REMOVED: u8 = 6;

/// What a record says of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body<'a> {
    Vote(&'a [u8]),
    Append(u64, &'a [u8]),
    /// Entries behind the index are gone; without one, all.
    TruncateAfter(Option<u64>),
    /// Entries up to the index are gone.
    Purge(u64, &'a [u8]),
    Committed(u64, &'a [u8]),
    Removed,
}

/// The previous record of the same group. With it, a gap that a salvage left is attributed to
/// groups: a group whose record names a lost record has lost that record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Previous {
    /// There is none: earlier records under this id belong to a group that was removed.
    None,
    /// The record directly before, in the same batch.
    Adjacent,
    At(Lsn),
}

impl Previous {
    pub(crate) fn after(last: Lsn) -> Previous {
        if last == Lsn::ZERO { Previous::None } else { Previous::At(last) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) group: u64,
    pub(crate) previous: Previous,
    /// The record is a copy of an older one, made by compaction. A copy has the same meaning.
    pub(crate) moved: bool,
    pub(crate) body: Body<'a>,
}

impl<'a> Record<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, index, data): (u8, Option<u64>, &[u8]) = match self.body {
            Body::Vote(data) => (VOTE, None, data),
            Body::Append(index, data) => (APPEND, Some(index), data),
            Body::TruncateAfter(index) => (TRUNCATE_AFTER, Some(index.map_or(0, |index| index + 1)), &[]),
            Body::Purge(index, data) => (PURGE, Some(index), data),
            Body::Committed(index, data) => (COMMITTED, Some(index), data),
            Body::Removed => (REMOVED, None, &[]),
        };
        let mut bytes = Vec::with_capacity(32 + data.len());
        bytes.extend([VERSION, kind | if self.moved { MOVED } else { 0 }]);
        put(&mut bytes, self.group);
        put(
            &mut bytes,
            match self.previous {
                Previous::None => 0,
                Previous::Adjacent => 1,
                Previous::At(lsn) => lsn.0 + 1,
            },
        );
        if let Some(index) = index {
            put(&mut bytes, index);
        }
        bytes.extend_from_slice(data);
        bytes
    }

    /// # Errors
    /// [`Error::UnknownRecord`], [`Error::BadRecord`]: neither a panic nor an allocation, whatever
    /// the bytes.
    pub(crate) fn decode(lsn: Lsn, bytes: &'a [u8]) -> Result<Record<'a>> {
        let bad = |why| Error::BadRecord { lsn, why };
        let [version, kind, rest @ ..] = bytes else { return Err(bad("it is shorter than any record of this library")) };
        let (moved, kind) = (kind & MOVED != 0, kind & !MOVED);
        if *version != VERSION || !(VOTE..=REMOVED).contains(&kind) {
            return Err(Error::UnknownRecord { lsn, version: *version, kind });
        }
        let mut rest = rest;
        let mut number = || take(&mut rest).ok_or(bad("a number in it is cut off, or too large"));
        let group = number()?;
        let previous = match number()? {
            0 => Previous::None,
            1 => Previous::Adjacent,
            more => Previous::At(Lsn(more - 1)),
        };
        let body = match kind {
            VOTE => Body::Vote(rest),
            REMOVED => Body::Removed,
            _ => {
                let index = number()?;
                if index == u64::MAX && kind != TRUNCATE_AFTER {
                    return Err(bad("an index in it is too large"));
                }
                match kind {
                    APPEND => Body::Append(index, rest),
                    TRUNCATE_AFTER => Body::TruncateAfter(index.checked_sub(1)),
                    PURGE => Body::Purge(index, rest),
                    _ => Body::Committed(index, rest),
                }
            }
        };
        if matches!(body, Body::Removed | Body::TruncateAfter(_)) && !rest.is_empty() {
            return Err(bad("bytes follow where it should end"));
        }
        Ok(Record { group, previous, moved, body })
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if (at == 9 && byte > 1) || (at > 0 && byte == 0) {
            return None; // More than 64 bits; not the shortest form.
        }
        number |= bits << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Record<'static>> {
        let numbers = [0, 1, 127, 128, 1 << 40, u64::MAX - 1];
        let mut all = Vec::new();
        for n in numbers {
            let bodies = [
                Body::Vote(b"v"),
                Body::Append(n, b"data"),
                Body::TruncateAfter(Some(n)),
                Body::TruncateAfter(None),
                Body::Purge(n, b""),
                Body::Committed(n, b"c"),
                Body::Removed,
            ];
            for body in bodies {
                for previous in [Previous::None, Previous::Adjacent, Previous::At(Lsn(n.max(1)))] {
                    for moved in [false, true] {
                        all.push(Record { group: n, previous, moved, body });
                    }
                }
            }
        }
        all
    }

    #[test]
    fn what_is_written_is_read() {
        for record in all() {
            assert_eq!(Record::decode(Lsn(1), &record.encode()).unwrap(), record);
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error() {
        for record in all() {
            let bytes = record.encode();
            for cut in 0..bytes.len() {
                _ = Record::decode(Lsn(1), &bytes[..cut]);
            }
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    if let Ok(record) = Record::decode(Lsn(1), &flipped) {
                        assert_eq!(record.encode(), flipped, "one form for each record");
                    }
                }
            }
        }
        assert!(matches!(Record::decode(Lsn(7), &[1, 9, 0, 0]), Err(Error::UnknownRecord { lsn: Lsn(7), version: 1, kind: 9 })));
        assert!(matches!(Record::decode(Lsn(7), &[2, 1, 0, 0]), Err(Error::UnknownRecord { version: 2, .. })));
    }
}
