//! The records of trees: how a change of a page is logged and redone, and what is logged to undo
//! it. No I/O.
//!
//! Numbers are little-endian. What undoes a change names the tree and the key, and no place: by
//! then the entry may have moved.

use foreword_pages::{Change, HandlerError, Options, PageId};

use crate::node::{self, Fault, Node, OwnedValue, Plan, Source, Value, u64_of};

/// Types of records. Redo: a place, an entry.
const INSERT: u16 = 0x5401;
/// A place.
const REMOVE: u16 = 0x5402;
/// A place, a value.
const REPLACE: u16 = 0x5403;
/// The bytes that the page begins with, and those that it ends with.
const BUILD: u16 = 0x5404;
/// How many entries stay, the next page, the upper fence.
const CUT: u16 = 0x5405;
/// Undo: a tree and a key, which is to be removed.
pub(crate) const UNDO_INSERT: u16 = 0x5401;
/// A tree, a key and a value, which are to be inserted.
pub(crate) const UNDO_REMOVE: u16 = 0x5402;
/// A tree, a key and a value, which the key is to have.
pub(crate) const UNDO_REPLACE: u16 = 0x5403;
/// Nothing: a page that only its transaction knows is freed when that is undone.
pub(crate) const UNDO_NOTHING: u16 = 0x5404;

const IS_LONG: u16 = 0x8000;

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u16).to_le_bytes());
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    put_len(out, value.bytes.len() | if value.is_long { usize::from(IS_LONG) } else { 0 });
    out.extend_from_slice(value.bytes);
}

/// Bytes of a payload.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("a record ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn len(&mut self) -> Result<usize, Fault> {
        self.u16().map(usize::from)
    }

    fn id(&mut self) -> Result<u64, Fault> {
        u64_of(self.take(8)?).ok_or("a record ends too early")
    }

    fn value(&mut self) -> Result<Value<'a>, Fault> {
        let field = self.u16()?;
        let bytes = self.take(usize::from(field & !IS_LONG))?;
        Ok(Value { bytes, is_long: field & IS_LONG != 0 })
    }
}

/// Adds an entry that comes into a page. `rest` is the key without the page's prefix.
pub(crate) fn insert(change: &mut Change, page: PageId, at: usize, rest: &[u8], value: Value<'_>) {
    let mut payload = Vec::with_capacity(6 + rest.len() + value.bytes.len());
    put_len(&mut payload, at);
    put_len(&mut payload, rest.len());
    payload.extend_from_slice(rest);
    put_value(&mut payload, value);
    change.redo(page, INSERT, &payload);
}

/// Adds that an entry goes.
pub(crate) fn remove(change: &mut Change, page: PageId, at: usize) {
    change.redo(page, REMOVE, &(at as u16).to_le_bytes());
}

/// Adds that an entry gets another value.
pub(crate) fn replace(change: &mut Change, page: PageId, at: usize, value: Value<'_>) {
    let mut payload = Vec::with_capacity(4 + value.bytes.len());
    put_len(&mut payload, at);
    put_value(&mut payload, value);
    change.redo(page, REPLACE, &payload);
}

/// Adds that a page of this length is built.
pub(crate) fn build(change: &mut Change, page: PageId, len: usize, plan: &Plan<'_>) -> Result<(), Fault> {
    let (head, heap) = plan.build(len)?;
    let mut payload = Vec::with_capacity(2 + head.len() + heap.len());
    put_len(&mut payload, head.len());
    payload.extend_from_slice(&head);
    payload.extend_from_slice(&heap);
    change.redo(page, BUILD, &payload);
    Ok(())
}

/// Adds that the entries from a place on go, and what the page ends with then.
pub(crate) fn cut(change: &mut Change, page: PageId, keep: usize, next: PageId, high: &[u8]) {
    let mut payload = Vec::with_capacity(10 + high.len());
    put_len(&mut payload, keep);
    payload.extend_from_slice(&next.0.to_le_bytes());
    payload.extend_from_slice(high);
    change.redo(page, CUT, &payload);
}

/// Adds what undoes an insertion.
pub(crate) fn undo_insert(change: &mut Change, root: PageId, key: &[u8]) {
    change.undo(UNDO_INSERT, &[&root.0.to_le_bytes(), key].concat());
}

/// Adds what gives a key its value back.
pub(crate) fn undo_value(change: &mut Change, undo_type: u16, root: PageId, key: &[u8], value: Value<'_>) {
    let mut payload = root.0.to_le_bytes().to_vec();
    put_len(&mut payload, key.len());
    payload.extend_from_slice(key);
    put_value(&mut payload, value);
    change.undo(undo_type, &payload);
}

/// The deliberate bug [`UndoByPlace`](crate::sabotage::Bug::UndoByPlace): adds a page and a place.
pub(crate) fn undo_at(change: &mut Change, page: PageId, at: usize) {
    change.undo(UNDO_INSERT, &[&page.0.to_le_bytes()[..], &(at as u16).to_le_bytes()].concat());
}

/// The tree and the key of what undoes an insertion.
pub(crate) fn read_key(payload: &[u8]) -> Result<(PageId, &[u8]), Fault> {
    let mut input = Input(payload);
    Ok((PageId(input.id()?), input.0))
}

/// The tree, the key and the value of what gives a value back.
pub(crate) fn read_value(payload: &[u8]) -> Result<(PageId, &[u8], OwnedValue), Fault> {
    let mut input = Input(payload);
    let root = PageId(input.id()?);
    let len = input.len()?;
    let key = input.take(len)?;
    Ok((root, key, input.value()?.to_owned()))
}

fn redo_insert(page: &mut [u8], payload: &[u8]) -> Result<(), Fault> {
    let mut input = Input(payload);
    let (at, len) = (input.len()?, input.len()?);
    let rest = input.take(len)?;
    node::insert(page, at, rest, input.value()?)
}

fn redo_replace(page: &mut [u8], payload: &[u8]) -> Result<(), Fault> {
    let mut input = Input(payload);
    let at = input.len()?;
    node::replace(page, at, input.value()?)
}

fn redo_build(page: &mut [u8], payload: &[u8]) -> Result<(), Fault> {
    let mut input = Input(payload);
    let len = input.len()?;
    let (head, heap) = (input.take(len)?, input.0);
    put_ends(page, head, heap)
}

fn put_ends(page: &mut [u8], head: &[u8], heap: &[u8]) -> Result<(), Fault> {
    let zeros = page.len().checked_sub(head.len() + heap.len()).ok_or("a page is built that is too long")?;
    let (first, rest) = page.split_at_mut(head.len());
    let (middle, last) = rest.split_at_mut(zeros);
    first.copy_from_slice(head);
    middle.fill(0);
    last.copy_from_slice(heap);
    Ok(())
}

fn redo_cut(page: &mut [u8], payload: &[u8]) -> Result<(), Fault> {
    let mut input = Input(payload);
    let (keep, next) = (input.len()?, PageId(input.id()?));
    let before = page.to_vec();
    let node = Node::new(&before)?;
    let kept = Source { node, from: 0, to: keep };
    let (head, heap) = Plan::of(&[kept], node.level(), Some(next), node.low(), Some(input.0))?.build(page.len())?;
    put_ends(page, &head, &heap)
}

/// The options with what redoes records of trees.
pub(crate) fn with_redo(options: Options) -> Options {
    type Redo = fn(&mut [u8], &[u8]) -> Result<(), Fault>;
    let redo_remove: Redo = |page, payload| node::remove(page, Input(payload).len()?);
    let types: [(u16, &str, Redo); 5] = [
        (INSERT, "tree insert", redo_insert),
        (REMOVE, "tree remove", redo_remove),
        (REPLACE, "tree replace", redo_replace),
        (BUILD, "tree build", redo_build),
        (CUT, "tree cut", redo_cut),
    ];
    types.into_iter().fold(options, |options, (number, name, redo)| {
        options.redo_type(number, name, move |page, payload| redo(page, payload).map_err(HandlerError::from))
    })
}
