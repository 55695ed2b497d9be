//! How changes are undone: by keys. The entry is looked up anew, because others may have moved it
//! since.

use foreword_pages::{HandlerError, Options, Txn};

use super::{BTree, Done};
use crate::error::Error;
use crate::node::{Fault, OwnedValue};
use crate::records::{self, UNDO_INSERT, UNDO_NOTHING, UNDO_REMOVE, UNDO_REPLACE};
use crate::sabotage::{self, Bug};

fn missing() -> HandlerError {
    "an entry that is to be undone is not there as it was".into()
}

/// An error of the pages below stays what it is, as the store expects.
fn passed_on(error: Error) -> HandlerError {
    match error {
        Error::Pages(error) => error.into(),
        error => error.into(),
    }
}

fn undo_insert(txn: &mut Txn, payload: &[u8]) -> Result<(), HandlerError> {
    if sabotage::has(Bug::UndoByPlace) {
        return undo_at(txn, payload);
    }
    let (root, key) = records::read_key(payload)?;
    match (BTree { root }).remove(txn, key, None).map_err(passed_on)? {
        Done::Yes(Some(_)) => Ok(()),
        _ => Err(missing()),
    }
}

/// The deliberate bug: an insertion is undone where it was made.
fn undo_at(txn: &mut Txn, payload: &[u8]) -> Result<(), HandlerError> {
    let (page, at) = records::read_key(payload)?;
    let at = at.try_into().map(u16::from_le_bytes).map_err(HandlerError::from)?;
    let mut page = txn.fetch_exclusive(page)?;
    let mut change = foreword_pages::Change::new();
    records::remove(&mut change, page.id(), usize::from(at));
    Ok(txn.apply(&change, &mut [&mut page])?)
}

/// Gives a key the value that it had. `had`: whether it has another one now.
fn give_back(txn: &mut Txn, payload: &[u8], had: bool) -> Result<(), HandlerError> {
    let (root, key, value): (_, _, OwnedValue) =
        records::read_value(payload).map_err(|fault: Fault| HandlerError::from(fault))?;
    match (BTree { root }).put(txn, key, value.borrow(), true, None).map_err(passed_on)? {
        Done::Yes(old) if old.is_some() == had => Ok(()),
        _ => Err(missing()),
    }
}

/// The options with what undoes records of trees.
pub(crate) fn with_undo(options: Options) -> Options {
    options
        .undo_type(UNDO_INSERT, "tree insert", undo_insert)
        .undo_type(UNDO_REMOVE, "tree remove", |txn, payload| give_back(txn, payload, false))
        .undo_type(UNDO_REPLACE, "tree replace", |txn, payload| give_back(txn, payload, true))
        .undo_type(UNDO_NOTHING, "tree nothing", |_, _| Ok(()))
}
