//! How keys come, change and go.

use foreword_pages::{Change, Txn};

use super::{BTree, Done, Gate, entry_need, next_key, read};
use crate::error::{Error, Result};
use crate::node::{OwnedValue, Value};
use crate::records;
use crate::sabotage::{self, Bug};

impl BTree {
    /// Gives a key a value; one that has a value only if this `replaces` it. Returns the value that it
    /// had. A key that is new needs the lock on the key behind it, for an instant: it comes between
    /// that one and the one before.
    pub(crate) fn put(
        self,
        txn: &mut Txn,
        key: &[u8],
        value: Value<'_>,
        replaces: bool,
        mut gate: Option<Gate<'_>>,
    ) -> Result<Done<Option<OwnedValue>>> {
        loop {
            let mut leaf = self.leaf_to_change(txn, key)?;
            let id = leaf.id();
            let node = read(id, &leaf)?;
            let found = node.search(key).map_err(Error::damaged(id))?;
            let mut change = Change::new();
            let (old, need) = match found {
                Ok(at) => {
                    let old = node.cell(at).map_err(Error::damaged(id))?.value;
                    if old == value || !replaces {
                        return Ok(Done::Yes(Some(old.to_owned())));
                    }
                    (Some(old.to_owned()), value.bytes.len().saturating_sub(old.bytes.len()))
                }
                Err(_) => (None, entry_need(&node, key, value.bytes.len())),
            };
            if node.room() < need {
                drop(leaf);
                self.make_room(txn, key, need)?;
                continue;
            }
            match (found, &old) {
                (Ok(at), Some(old)) => {
                    records::replace(&mut change, id, at, value);
                    records::undo_value(&mut change, records::UNDO_REPLACE, self.root, key, old.borrow());
                }
                (Ok(at) | Err(at), _) => {
                    if let Some(next) = blocked(txn, (id, &leaf), at, &mut gate)? {
                        return Ok(Done::Blocked(next));
                    }
                    records::insert(&mut change, id, at, &key[node.prefix().len()..], value);
                    if sabotage::has(Bug::UndoByPlace) {
                        records::undo_at(&mut change, id, at);
                    } else {
                        records::undo_insert(&mut change, self.root, key);
                    }
                }
            }
            txn.apply(&change, &mut [&mut leaf])?;
            return Ok(Done::Yes(old));
        }
    }

    /// Removes a key. Returns its value. The key behind it has to be locked until the transaction
    /// ends: it is what tells others that there may be a key before it.
    pub(crate) fn remove(self, txn: &mut Txn, key: &[u8], mut gate: Option<Gate<'_>>) -> Result<Done<Option<OwnedValue>>> {
        let mut was_joined = false;
        loop {
            let mut leaf = self.leaf_to_change(txn, key)?;
            let id = leaf.id();
            let node = read(id, &leaf)?;
            let Ok(at) = node.search(key).map_err(Error::damaged(id))? else { return Ok(Done::Yes(None)) };
            let old = node.cell(at).map_err(Error::damaged(id))?.value.to_owned();
            // Pages are joined before the key goes, while no latch is held: what undoes an insertion
            // keeps the latch of the page that it has changed.
            let goes = entry_need(&node, key, old.bytes.len());
            let becomes_sparse = node.is_sparse_without(goes) && (!node.is_sparse_without(0) || node.count() == 1);
            if becomes_sparse && !was_joined && id != self.root {
                drop(leaf);
                let joined = self.join_around(txn, key, goes);
                // A rollback does not fail for pages that it can do without.
                if gate.is_some() {
                    joined?;
                }
                was_joined = true;
                continue;
            }
            if let Some(next) = blocked(txn, (id, &leaf), at + 1, &mut gate)? {
                return Ok(Done::Blocked(next));
            }
            let mut change = Change::new();
            records::remove(&mut change, id, at);
            records::undo_value(&mut change, records::UNDO_REMOVE, self.root, key, old.borrow());
            txn.apply(&change, &mut [&mut leaf])?;
            return Ok(Done::Yes(Some(old)));
        }
    }
}

/// Asks for the lock on the next key. `Some`: on which it has to be waited for.
#[allow(clippy::option_option)] // A lock that is missing; on the tree's end, which is no key.
fn blocked(
    txn: &Txn,
    leaf: (foreword_pages::PageId, &[u8]),
    at: usize,
    gate: &mut Option<Gate<'_>>,
) -> Result<Option<Option<Vec<u8>>>> {
    let Some(gate) = gate else { return Ok(None) };
    next_key(txn, leaf, at, |next| Ok(if gate(next)? { None } else { Some(next.map(<[u8]>::to_vec)) }))
}
