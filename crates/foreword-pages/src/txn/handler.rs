//! A handler of the user's that undoes records, as the engine calls it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use super::Txn;
use crate::engine::txns::Active;
use crate::engine::{Engine, UndoType};
use crate::types::HandlerError;

/// Calls a function with the transaction that is rolled back.
pub(crate) struct Handler<F>(pub(crate) F);

impl<F> UndoType for Handler<F>
where
    F: Fn(&mut Txn, &[u8]) -> Result<(), HandlerError> + Send + Sync,
{
    fn undo(&self, engine: &Arc<Engine>, active: &mut Active, payload: &[u8]) -> Result<(), HandlerError> {
        let mut txn = Txn::resume(engine.clone(), active.lend());
        let done = catch_unwind(AssertUnwindSafe(|| self.0(&mut txn, payload)));
        let is_whole = txn.check();
        *active = txn.active.lend();
        txn.done = true;
        done.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(is_whole?)
    }
}
