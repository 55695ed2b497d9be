//! Whole pages: what splits and joins make.

use foreword_pages::PageId;

use super::{
    CELL_HEADER, COUNT, Fault, HEADER, HEAP, HIGH_LEN, LEVEL, LOW_LEN, NEXT, NODE, Node, PREFIX_LEN, SLOT, UNBOUNDED, Value,
    common, put_u16,
};

/// Entries of a page that go into a page that is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) node: Node<'a>,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A key in two pieces, one behind the other: what its page has once for all keys, and the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Key<'a>(pub(crate) &'a [u8], pub(crate) &'a [u8]);

impl<'a> Key<'a> {
    pub(crate) fn len(self) -> usize {
        self.0.len() + self.1.len()
    }

    /// The key without so many of its first bytes, if it has them.
    fn without(self, bytes: usize) -> Option<Key<'a>> {
        let Key(first, second) = self;
        match first.get(bytes..) {
            Some(first) => Some(Key(first, second)),
            None => second.get(bytes - first.len()..).map(|second| Key(&[], second)),
        }
    }
}

/// A page that is to be built.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) level: u8,
    pub(crate) next: Option<PageId>,
    pub(crate) low: &'a [u8],
    pub(crate) high: Option<&'a [u8]>,
    pub(crate) entries: Vec<(Key<'a>, Value<'a>)>,
}

impl<'a> Plan<'a> {
    /// A page with the entries of others, in their order.
    pub(crate) fn of(
        sources: &[Source<'a>],
        level: u8,
        next: Option<PageId>,
        low: &'a [u8],
        high: Option<&'a [u8]>,
    ) -> Result<Plan<'a>, Fault> {
        let mut entries = Vec::with_capacity(sources.iter().map(|source| source.to.saturating_sub(source.from)).sum());
        for &Source { node, from, to } in sources {
            for at in from..to {
                entries.push((node.pieces(at)?, node.cell(at)?.value));
            }
        }
        Ok(Plan { level, next, low, high, entries })
    }

    fn prefix(&self) -> usize {
        self.high.map_or(0, |high| common(self.low, high))
    }

    /// The entries, with keys without the prefix. The first of an inner page is the page's lower
    /// fence, and need not be there twice.
    fn rests(&self) -> impl Iterator<Item = Result<(Key<'a>, Value<'a>), Fault>> {
        let prefix = self.prefix();
        self.entries.iter().enumerate().map(move |(at, &(key, value))| {
            let rest = if self.level > 0 && at == 0 { Some(Key::default()) } else { key.without(prefix) };
            Ok((rest.ok_or("a key is shorter than its prefix")?, value))
        })
    }

    /// Bytes of a page that this takes.
    pub(crate) fn bytes(&self) -> Result<usize, Fault> {
        let fences = HEADER + self.low.len() + self.high.map_or(0, <[u8]>::len);
        self.rests().try_fold(fences, |bytes, entry| {
            let (rest, value) = entry?;
            Ok(bytes + SLOT + CELL_HEADER + rest.len() + value.bytes.len())
        })
    }

    /// The page in two pieces, which a page of this length begins and ends with. All zeros lie
    /// between them.
    pub(crate) fn build(&self, len: usize) -> Result<(Vec<u8>, Vec<u8>), Fault> {
        let bytes = self.bytes()?;
        if bytes > len || self.entries.len() > usize::from(u16::MAX) {
            return Err("a page has no room for what is to be in it");
        }
        let mut head = vec![0; HEADER];
        head[0] = NODE;
        head[LEVEL] = self.level;
        put_u16(&mut head, COUNT, self.entries.len());
        head[NEXT..NEXT + 8].copy_from_slice(&self.next.map_or(0, |next| next.0).to_le_bytes());
        put_u16(&mut head, LOW_LEN, self.low.len());
        put_u16(&mut head, HIGH_LEN, self.high.map_or(UNBOUNDED.into(), <[u8]>::len));
        put_u16(&mut head, PREFIX_LEN, self.prefix());
        head.extend_from_slice(self.low);
        head.extend_from_slice(self.high.unwrap_or_default());
        let cells = bytes - head.len() - SLOT * self.entries.len();
        head.reserve(SLOT * self.entries.len());
        let mut heap = Vec::with_capacity(cells);
        for entry in self.rests() {
            let (rest, value) = entry?;
            head.extend_from_slice(&((len - cells + heap.len()) as u16).to_le_bytes());
            heap.extend_from_slice(&(rest.len() as u16).to_le_bytes());
            heap.extend_from_slice(&value.len_field().to_le_bytes());
            heap.extend_from_slice(rest.0);
            heap.extend_from_slice(rest.1);
            heap.extend_from_slice(value.bytes);
        }
        put_u16(&mut head, HEAP, len - heap.len());
        Ok((head, heap))
    }
}
