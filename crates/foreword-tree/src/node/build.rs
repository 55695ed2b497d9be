//! Whole pages: what splits and joins make.

use foreword_pages::PageId;

use super::{
    CELL_HEADER, COUNT, Cell, Fault, HEADER, HEAP, HIGH_LEN, LEVEL, LOW_LEN, NEXT, NODE, Node, PREFIX_LEN, SLOT, UNBOUNDED,
    Value, common, put_u16,
};

/// Entries of a page that go into a page that is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) node: Node<'a>,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A page that is to be built.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) level: u8,
    pub(crate) next: Option<PageId>,
    pub(crate) low: &'a [u8],
    pub(crate) high: Option<&'a [u8]>,
    pub(crate) entries: Vec<(Vec<u8>, Value<'a>)>,
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
        let mut entries = Vec::new();
        for &Source { node, from, to } in sources {
            for at in from..to {
                entries.push((node.key(at)?, node.cell(at)?.value));
            }
        }
        Ok(Plan { level, next, low, high, entries })
    }

    fn prefix(&self) -> usize {
        self.high.map_or(0, |high| common(self.low, high))
    }

    /// A key without the prefix. The first of an inner page is the page's lower fence, and need not
    /// be there twice.
    fn rest<'k>(&self, at: usize, key: &'k [u8]) -> Result<&'k [u8], Fault> {
        if self.level > 0 && at == 0 {
            return Ok(&[]);
        }
        key.get(self.prefix()..).ok_or("a key is shorter than its prefix")
    }

    /// Bytes of a page that this takes.
    pub(crate) fn bytes(&self) -> Result<usize, Fault> {
        let mut bytes = HEADER + self.low.len() + self.high.map_or(0, <[u8]>::len);
        for (at, (key, value)) in self.entries.iter().enumerate() {
            bytes += SLOT + CELL_HEADER + self.rest(at, key)?.len() + value.bytes.len();
        }
        Ok(bytes)
    }

    /// The page in two pieces, which a page of this length begins and ends with. All zeros lie
    /// between them.
    pub(crate) fn build(&self, len: usize) -> Result<(Vec<u8>, Vec<u8>), Fault> {
        if self.bytes()? > len || self.entries.len() > usize::from(u16::MAX) {
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
        let mut heap = Vec::new();
        let cells = self.bytes()? - head.len() - SLOT * self.entries.len();
        for (at, (key, value)) in self.entries.iter().enumerate() {
            head.extend_from_slice(&((len - cells + heap.len()) as u16).to_le_bytes());
            let cell = Cell { rest: self.rest(at, key)?, value: *value };
            heap.extend_from_slice(&(cell.rest.len() as u16).to_le_bytes());
            heap.extend_from_slice(&cell.value.len_field().to_le_bytes());
            heap.extend_from_slice(cell.rest);
            heap.extend_from_slice(cell.value.bytes);
        }
        put_u16(&mut head, HEAP, len - heap.len());
        Ok((head, heap))
    }
}
