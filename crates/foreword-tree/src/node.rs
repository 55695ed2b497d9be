//! A page of a tree: what lies where in it, and how it is read. No I/O.
//!
//! Invariant: every key that can ever come into a page lies between its two fences, so it begins
//! with the prefix that both fences have in common. The page has that prefix once. (The prefix of a
//! page without an upper fence is empty.)
//!
//! Reading checks each place that the page names before it looks there: a page that is damaged is a
//! [`Fault`], and no panic.

mod build;
mod edit;

use foreword_pages::PageId;

pub(crate) use build::{Key, Plan, Source};
pub(crate) use edit::{insert, remove, replace};

/// What is wrong with a page.
pub(crate) type Fault = &'static str;

/// The kind of a page, its first byte.
pub(crate) const NODE: u8 = 1;
pub(crate) const LONG: u8 = 2;

const LEVEL: usize = 1;
const COUNT: usize = 2;
const HEAP: usize = 4;
const GARBAGE: usize = 6;
const NEXT: usize = 8;
const LOW_LEN: usize = 16;
const HIGH_LEN: usize = 18;
const PREFIX_LEN: usize = 20;
const HEADER: usize = 24;

/// The length of an upper fence that there is not.
const UNBOUNDED: u16 = u16::MAX;
/// In the length of a value: the value lies elsewhere.
const IS_LONG: u16 = 0x8000;
/// Bytes of a cell before its key: the lengths of the key's rest and of the value.
const CELL_HEADER: usize = 4;
const SLOT: usize = 2;
/// Bytes that an inner page has of a child.
pub(crate) const CHILD: usize = 8;

/// A page that is less full than this share of it is to be joined with a neighbour.
const SPARSE_SHARE: usize = 4;

/// The most bytes of a key, for pages with so many bytes. So two fences take a quarter of a page.
pub(crate) fn key_max(page: usize) -> usize {
    page / 8 - 32
}

/// The most bytes of a key and its value that lie in a leaf. So at least three entries have room.
pub(crate) fn entry_max(page: usize) -> usize {
    page / 4 - 32
}

/// A value, as a leaf has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) bytes: &'a [u8],
    /// The bytes say where the value lies.
    pub(crate) is_long: bool,
}

/// A [`Value`] that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedValue {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_long: bool,
}

impl Value<'_> {
    pub(crate) fn to_owned(self) -> OwnedValue {
        OwnedValue { bytes: self.bytes.to_vec(), is_long: self.is_long }
    }

    fn len_field(&self) -> u16 {
        self.bytes.len() as u16 | if self.is_long { IS_LONG } else { 0 }
    }
}

impl OwnedValue {
    pub(crate) fn borrow(&self) -> Value<'_> {
        Value { bytes: &self.bytes, is_long: self.is_long }
    }
}

/// Bytes of a page that a key and a value take.
pub(crate) fn entry_bytes(key_rest: usize, value: usize) -> usize {
    SLOT + CELL_HEADER + key_rest + value
}

/// What a search looks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seek<'k> {
    /// Where this key is, or would be.
    Key(&'k [u8]),
    /// Where the keys lie that come right before this one, which is not empty.
    Before(&'k [u8]),
    /// The last key.
    Last,
}

/// An entry of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<'a> {
    /// The key without the page's prefix.
    pub(crate) rest: &'a [u8],
    pub(crate) value: Value<'a>,
}

impl Cell<'_> {
    fn bytes(&self) -> usize {
        CELL_HEADER + self.rest.len() + self.value.bytes.len()
    }
}

/// A page of a tree, to be read. Invariant: its fences, slots and heap lie in the page, one behind
/// the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    bytes: &'a [u8],
    count: usize,
    heap: usize,
    garbage: usize,
    low: &'a [u8],
    high: Option<&'a [u8]>,
    prefix: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn put_u16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
}

/// A number of eight bytes.
pub(crate) fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// How many bytes two keys have in common, from the first on.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl<'a> Node<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Node<'a>, Fault> {
        if bytes.len() <= HEADER || bytes[0] != NODE {
            return Err("it is no page of a tree");
        }
        let [count, heap, garbage, low] = [COUNT, HEAP, GARBAGE, LOW_LEN].map(|at| u16_at(bytes, at));
        let (high, prefix) = (u16_at(bytes, HIGH_LEN), u16_at(bytes, PREFIX_LEN));
        let is_bounded = high != usize::from(UNBOUNDED);
        let fences = HEADER + low + if is_bounded { high } else { 0 };
        if fences + SLOT * count > heap || heap > bytes.len() || garbage > bytes.len() - heap || prefix > low {
            return Err("its parts do not lie in it");
        }
        let (low, high) = bytes[HEADER..fences].split_at(low);
        let prefix = &low[..prefix];
        Ok(Node { bytes, count, heap, garbage, low, high: is_bounded.then_some(high), prefix })
    }

    /// How many levels lie below the page: none below a leaf.
    pub(crate) fn level(&self) -> u8 {
        self.bytes[LEVEL]
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the page.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The page to the right on the same level.
    pub(crate) fn next(&self) -> Option<PageId> {
        u64_of(&self.bytes[NEXT..]).filter(|&id| id > 0).map(PageId)
    }

    /// No key of the page is lower.
    pub(crate) fn low(&self) -> &'a [u8] {
        self.low
    }

    /// All keys of the page are lower. `None`: there is no bound.
    pub(crate) fn high(&self) -> Option<&'a [u8]> {
        self.high
    }

    pub(crate) fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// Whether the page is where a key belongs.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.low <= key && self.high.is_none_or(|high| key < high)
    }

    /// Bytes that entries can still take.
    pub(crate) fn room(&self) -> usize {
        self.gap() + self.garbage
    }

    /// Bytes between the slots and the heap.
    fn gap(&self) -> usize {
        self.heap - self.slot(self.count)
    }

    /// Whether the page is, without so many bytes, so empty that a neighbour should take it in.
    pub(crate) fn is_sparse_without(&self, bytes: usize) -> bool {
        self.bytes.len() - self.room() - bytes.min(self.bytes.len() - self.room()) < self.bytes.len() / SPARSE_SHARE
            || self.level() > 0 && self.count == 1
    }

    fn slot(&self, at: usize) -> usize {
        HEADER + self.low.len() + self.high.map_or(0, <[u8]>::len) + SLOT * at
    }

    /// The entry at a place.
    pub(crate) fn cell(&self, at: usize) -> Result<Cell<'a>, Fault> {
        if at >= self.count {
            return Err("it has no such entry");
        }
        let start = u16_at(self.bytes, self.slot(at));
        if start < self.heap || start + CELL_HEADER > self.bytes.len() {
            return Err("an entry does not lie in it");
        }
        let (rest, value) = (u16_at(self.bytes, start), u16_at(self.bytes, start + 2));
        let (value, is_long) = (value & !usize::from(IS_LONG), value & usize::from(IS_LONG) != 0);
        let cell = self.bytes.get(start + CELL_HEADER..start + CELL_HEADER + rest + value);
        let (rest, bytes) = cell.ok_or("an entry does not lie in it")?.split_at(rest);
        Ok(Cell { rest, value: Value { bytes, is_long } })
    }

    /// The key at a place. In an inner page: no key of the child there is lower.
    pub(crate) fn key(&self, at: usize) -> Result<Vec<u8>, Fault> {
        let Key(prefix, rest) = self.pieces(at)?;
        Ok([prefix, rest].concat())
    }

    /// The same without a copy.
    pub(crate) fn pieces(&self, at: usize) -> Result<Key<'a>, Fault> {
        if self.level() > 0 && at == 0 {
            return Ok(Key(self.low, &[]));
        }
        Ok(Key(self.prefix, self.cell(at)?.rest))
    }

    /// Where a key is, or else where it would be. The key is one that the page [covers](Node::covers).
    pub(crate) fn search(&self, key: &[u8]) -> Result<Result<usize, usize>, Fault> {
        let rest = key.get(self.prefix.len()..).ok_or("a key is shorter than its prefix")?;
        // The first entry of an inner page has no key: all keys are higher.
        let (mut from, mut to) = (usize::from(self.level() > 0).min(self.count), self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.cell(middle)?.rest.cmp(rest) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Ok(middle)),
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Ok(Err(from))
    }

    /// The place of the first key that is not lower than this one, which may lie beyond the fences.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> Result<usize, Fault> {
        match self {
            _ if key <= self.low => Ok(0),
            _ if self.high.is_some_and(|high| key >= high) => Ok(self.count),
            _ => Ok(self.search(key)?.unwrap_or_else(|at| at)),
        }
    }

    /// The place of the child where the search goes on.
    pub(crate) fn way(&self, seek: Seek<'_>) -> Result<usize, Fault> {
        let found = match seek {
            Seek::Key(key) => self.search(key)?.map_or_else(|at| at.checked_sub(1), Some),
            Seek::Before(key) => self.lower_bound(key)?.max(1).checked_sub(1),
            Seek::Last => self.count.checked_sub(1),
        };
        found.filter(|&at| at < self.count).ok_or("it has no child")
    }

    /// The child at a place.
    pub(crate) fn child(&self, at: usize) -> Result<PageId, Fault> {
        let Cell { value, .. } = self.cell(at)?;
        let id = u64_of(value.bytes).filter(|_| value.bytes.len() == CHILD && !value.is_long);
        id.map(PageId).ok_or("an entry leads to no page")
    }
}

#[cfg(test)]
mod tests;
