//! The parts of a change of one page, as records have them: bytes at their places, and what a
//! handler of the user makes of a payload. They are made one after the other. No I/O.

use crate::leb::{Input, put_all};
use crate::types::{HandlerError, RedoTypes};

const BYTES: u8 = 1;
const TYPED: u8 = 2;
/// The most bytes that a typed part has before its payload.
const TYPED_HEAD_MAX: usize = 16;

/// A part of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Bytes { offset: usize, bytes: &'a [u8] },
    Typed { number: u16, payload: &'a [u8] },
}

/// Parts, encoded. Invariant: they can be decoded, and their bytes lie in a page's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a>(&'a [u8]);

/// A handler has failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) number: u16,
    pub(crate) why: HandlerError,
}

impl<'a> Part<'a> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Part::Bytes { offset, bytes } => {
                out.push(BYTES);
                put_all(out, &[offset as u64, bytes.len() as u64]);
                out.extend_from_slice(bytes);
            }
            Part::Typed { number, payload } => {
                out.reserve(payload.len() + TYPED_HEAD_MAX);
                out.push(TYPED);
                put_all(out, &[u64::from(number), payload.len() as u64]);
                out.extend_from_slice(payload);
            }
        }
    }

    fn read(input: &mut Input<'a>, body: usize) -> Result<Part<'a>, &'static str> {
        match input.byte()? {
            BYTES => {
                let offset = input.up_to(body)?;
                let len = input.up_to(body - offset)?;
                Ok(Part::Bytes { offset, bytes: input.take(len)? })
            }
            TYPED => {
                let number = input.type_number()?;
                let len = input.up_to(usize::MAX)?;
                Ok(Part::Typed { number, payload: input.take(len)? })
            }
            _ => Err("a part of no known kind"),
        }
    }

    /// Makes the part in a page's body. If a handler fails, the body is anything.
    pub(crate) fn apply(&self, body: &mut [u8], types: &RedoTypes) -> Result<(), Failed> {
        match *self {
            Part::Bytes { offset, bytes } => body[offset..][..bytes.len()].copy_from_slice(bytes),
            Part::Typed { number, payload } => {
                types.call(number, |redo| redo(body, payload)).map_err(|why| Failed { number, why })?;
            }
        }
        Ok(())
    }
}

impl<'a> Parts<'a> {
    /// Checks parts for pages with bodies of so many bytes.
    pub(crate) fn decode(bytes: &'a [u8], body: usize) -> Result<Parts<'a>, &'static str> {
        let mut input = Input(bytes);
        while !input.0.is_empty() {
            Part::read(&mut input, body)?;
        }
        Ok(Parts(bytes))
    }

    /// Parts that were [put](Part::put).
    pub(crate) fn new(bytes: &'a [u8]) -> Parts<'a> {
        Parts(bytes)
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Part<'a>> {
        let mut input = Input(self.0);
        std::iter::from_fn(move || Part::read(&mut input, usize::MAX).ok())
    }

    /// The types of the user that the parts are of.
    pub(crate) fn types(self) -> impl Iterator<Item = u16> {
        self.iter().filter_map(|part| match part {
            Part::Typed { number, .. } => Some(number),
            Part::Bytes { .. } => None,
        })
    }

    /// Makes all parts in a page's body. If one fails, the body is as it was.
    pub(crate) fn apply(self, body: &mut [u8], types: &RedoTypes) -> Result<(), Failed> {
        let before: Option<Box<[u8]>> = self.types().next().is_some().then(|| (&*body).into());
        self.iter().try_for_each(|part| part.apply(body, types)).inspect_err(|_| {
            if let Some(before) = &before {
                body.copy_from_slice(before);
            }
        })
    }
}

/// Bytes that are compared at a time.
const STRIDE: usize = 64;

/// Where two bodies of one length begin and end to differ. `None`: they are the same.
pub(crate) fn difference(old: &[u8], new: &[u8]) -> Option<std::ops::Range<usize>> {
    let is_same = |pair: &(&[u8], &[u8])| pair.0 == pair.1;
    let strides = old.chunks_exact(STRIDE).zip(new.chunks_exact(STRIDE)).take_while(is_same).count();
    let start = strides * STRIDE;
    let start = start + old[start..].iter().zip(&new[start..]).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let strides = old.rchunks_exact(STRIDE).zip(new.rchunks_exact(STRIDE)).take_while(is_same).count();
    let len = new.len() - strides * STRIDE;
    let len = len - old[..len].iter().rev().zip(new[..len].iter().rev()).take_while(|(a, b)| a == b).count();
    (len > 0).then_some(start..start + len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_difference_begins_and_ends_with_bytes_that_differ(
            len in 0usize..400, flips in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
        ) {
            let old = vec![7; len];
            let mut new = old.clone();
            flips.iter().filter(|(at, _)| *at < len).for_each(|(at, byte)| new[*at] = *byte);
            let differs: Vec<usize> = (0..len).filter(|&at| old[at] != new[at]).collect();
            let expected = differs.first().zip(differs.last()).map(|(first, last)| *first..last + 1);
            prop_assert_eq!(difference(&old, &new), expected);
        }
    }
}
