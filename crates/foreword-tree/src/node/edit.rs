//! How single entries of a page change: in the same way when the change is made and when it is
//! redone.

use super::{CELL_HEADER, COUNT, Cell, Fault, GARBAGE, HEAP, Node, SLOT, Value, put_u16, u16_at};

/// Inserts an entry at a place.
pub(crate) fn insert(bytes: &mut [u8], at: usize, rest: &[u8], value: Value<'_>) -> Result<(), Fault> {
    let node = Node::new(bytes)?;
    let cell = Cell { rest, value };
    if at > node.count || SLOT + cell.bytes() > node.room() {
        return Err("an entry has no room, or no place");
    }
    if SLOT + cell.bytes() > node.gap() {
        compact(bytes)?;
    }
    let node = Node::new(bytes)?;
    let (count, slot, end) = (node.count, node.slot(at), node.slot(node.count));
    bytes.copy_within(slot..end, slot + SLOT);
    let start = push(bytes, &cell);
    put_u16(bytes, slot, start);
    put_u16(bytes, COUNT, count + 1);
    Ok(())
}

/// Removes the entry at a place.
pub(crate) fn remove(bytes: &mut [u8], at: usize) -> Result<(), Fault> {
    let node = Node::new(bytes)?;
    let cell = node.cell(at)?.bytes();
    let (count, garbage) = (node.count, node.garbage);
    let (slot, end) = (node.slot(at), node.slot(node.count));
    bytes.copy_within(slot + SLOT..end, slot);
    // What lies between the slots and the heap is zeros: images of the page leave them out.
    bytes[end - SLOT..end].fill(0);
    put_u16(bytes, COUNT, count - 1);
    put_u16(bytes, GARBAGE, garbage + cell);
    Ok(())
}

/// Gives the entry at a place another value.
pub(crate) fn replace(bytes: &mut [u8], at: usize, value: Value<'_>) -> Result<(), Fault> {
    let node = Node::new(bytes)?;
    let old = node.cell(at)?;
    if old.value.bytes.len() == value.bytes.len() {
        let start = u16_at(bytes, node.slot(at));
        let rest = old.rest.len();
        put_u16(bytes, start + 2, value.len_field().into());
        bytes[start + CELL_HEADER + rest..][..value.bytes.len()].copy_from_slice(value.bytes);
        return Ok(());
    }
    let new = Cell { rest: old.rest, value };
    if new.bytes() > node.room() + old.bytes() {
        return Err("a value has no room");
    }
    let rest = old.rest.to_vec();
    remove(bytes, at)?;
    insert(bytes, at, &rest, value)
}

/// Puts a cell at the heap's front, for which there is room. Returns where.
fn push(bytes: &mut [u8], cell: &Cell<'_>) -> usize {
    let start = u16_at(bytes, HEAP) - cell.bytes();
    put_u16(bytes, start, cell.rest.len());
    put_u16(bytes, start + 2, cell.value.len_field().into());
    let (rest, value) = bytes[start + CELL_HEADER..][..cell.bytes() - CELL_HEADER].split_at_mut(cell.rest.len());
    rest.copy_from_slice(cell.rest);
    value.copy_from_slice(cell.value.bytes);
    put_u16(bytes, HEAP, start);
    start
}

/// Moves the cells to the end of the page, so that all its room is one.
fn compact(bytes: &mut [u8]) -> Result<(), Fault> {
    let before = bytes.to_vec();
    let node = Node::new(&before)?;
    let len = bytes.len();
    put_u16(bytes, HEAP, len);
    put_u16(bytes, GARBAGE, 0);
    // (A page whose cells lie over one another has no room for all of them.)
    let mut left = len - node.slot(node.count);
    for at in 0..node.count {
        let cell = node.cell(at)?;
        left = left.checked_sub(cell.bytes()).ok_or("its entries lie over one another")?;
        let start = push(bytes, &cell);
        put_u16(bytes, node.slot(at), start);
    }
    let heap = u16_at(bytes, HEAP);
    bytes[node.slot(node.count)..heap].fill(0);
    Ok(())
}
