//! Nested top actions: parts of a transaction that are not undone with it.

use foreword::Lsn;

use super::{Cut, Txn};
use crate::Error;
use crate::engine::Nested;

impl Txn {
    /// Does work that stays when the transaction is rolled back: the split of a page that others
    /// use by then. What `act` changes, allocates and frees is there as a whole or not at all. If
    /// `act` fails, all of it is undone, and the transaction goes on. If `act` succeeds, the work
    /// counts: it is durable at the latest with the next commit of any transaction.
    ///
    /// The latches of the pages that the work changes are kept until it is closed or undone, also
    /// when their guards are dropped before. (The transaction can have guards of them meanwhile:
    /// one at a time.) So no other owner sees or changes what may still be undone. A guard that
    /// `act` leaves behind, in what it returns or elsewhere, keeps its latch.
    ///
    /// Top actions can be nested in each other; an inner one that has closed stays if the outer one
    /// fails.
    ///
    /// Pages that `act` frees are free when it is closed. The caller makes sure that no live
    /// transaction has changes in them that are undone by bytes.
    ///
    /// ```
    /// # fn main() -> Result<(), foreword_pages::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = foreword_pages::Store::open(dir.path())?;
    /// let mut txn = store.begin();
    /// let page = txn.nested(|txn| {
    ///     let page = txn.allocate()?;
    ///     txn.update(page, 0, b"stays")?;
    ///     Ok::<_, foreword_pages::Error>(page)
    /// })?;
    /// txn.update(page, 100, b"goes")?;
    /// txn.abort()?;
    /// assert_eq!(&store.read(page)?[..5], b"stays");
    /// assert_eq!(&store.read(page)?[100..104], [0; 4]);
    /// # store.close() }
    /// ```
    ///
    /// # Errors
    /// Those of `act`; and as [`update`](Txn::update). All is undone then; but where that has
    /// failed, too (no space for the log; or a guard of a page that is to be changed is alive), a
    /// part may be left. Then the pages stay latched, and the caller can only [abort](Txn::abort),
    /// or roll back to a savepoint before. If `act` panics, the same holds.
    pub fn nested<T, E: From<Error>>(&mut self, act: impl FnOnce(&mut Txn) -> Result<T, E>) -> Result<T, E> {
        self.check()?;
        let nested = self.engine.begin_nested(&mut self.active);
        let outer = std::mem::replace(&mut self.nested_from, nested.start);
        let mut scope = Scope { outer, nested, savepoints: self.savepoints.len(), is_over: false, txn: self };
        let done = act(scope.txn);
        scope.end(done)
    }
}

/// A top action that is under way. If it is dropped before it is over, as in a panic, it is to be
/// undone.
struct Scope<'t> {
    txn: &'t mut Txn,
    nested: Nested,
    /// Where the top action around this one begins.
    outer: Lsn,
    savepoints: usize,
    is_over: bool,
}

impl Scope<'_> {
    fn end<T, E: From<Error>>(&mut self, done: Result<T, E>) -> Result<T, E> {
        let error = match done {
            Ok(value) => match close(self.txn, self.nested) {
                Ok(()) => {
                    self.is_over = true;
                    return Ok(value);
                }
                Err(error) => {
                    // The value may have guards, which would be in the way of undoing.
                    drop(value);
                    error.into()
                }
            },
            Err(error) => error,
        };
        let Txn { engine, active, undo_to, .. } = &mut *self.txn;
        if engine.undo(active, self.nested.start).is_ok() {
            engine.drop_nested(active, self.nested);
            // Also what was cut short within it is undone now.
            *undo_to = None;
            self.is_over = true;
        }
        Err(error)
    }
}

/// Closes a top action, unless an undo within it was cut short.
fn close(txn: &mut Txn, nested: Nested) -> Result<(), Error> {
    txn.check()?;
    txn.engine.close_nested(&mut txn.active, nested, None)
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let Txn { active, savepoints, nested_from, undo_to, .. } = &mut *self.txn;
        *nested_from = self.outer;
        savepoints.truncate(self.savepoints);
        if !self.is_over {
            // The latches are kept until it is undone.
            active.depth -= 1;
            *undo_to = Some(Cut { to: self.nested.start, kept: self.nested.kept });
        }
    }
}
