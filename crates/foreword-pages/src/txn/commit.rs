//! How a transaction ends well.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use foreword::{Durability, Lsn};

use super::Txn;
use crate::Result;
use crate::engine::Engine;
use crate::sabotage::{self, Bug};

/// A future that completes when a transaction is durable, with the LSN of its commit record. Works
/// on any executor.
///
/// The transaction has committed already: dropping the future gives up only the waiting. Without
/// the log's background thread it completes only when another call makes the log durable.
#[derive(Debug)]
#[must_use = "a transaction that is not awaited may become durable at any time, or never"]
pub struct Commit {
    lsn: Lsn,
    /// `None`: there is nothing to wait for.
    durable: Option<foreword::Commit>,
}

impl Commit {
    /// A future for all that was logged up to an LSN.
    pub(crate) fn new(engine: &Engine, lsn: Lsn) -> Result<Commit> {
        let durable = if lsn > Lsn::ZERO { Some(engine.pool.log.durable(lsn)?) } else { None };
        Ok(Commit { lsn, durable })
    }

    /// The LSN of the commit record; [`Lsn::ZERO`] if the transaction changed nothing.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Future for Commit {
    type Output = Result<Lsn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Lsn>> {
        match &mut self.durable {
            Some(durable) => Pin::new(durable).poll(cx).map_err(Into::into),
            None => Poll::Ready(Ok(self.lsn)),
        }
    }
}

impl Txn {
    /// Commits the transaction, and returns when it is durable. Returns the LSN of the commit
    /// record ([`Lsn::ZERO`] if the transaction changed nothing). Concurrent commits share one
    /// flush of the log.
    ///
    /// # Errors
    /// As [`update`](Txn::update). Where there was no space, the transaction is rolled back. After
    /// any other error of the log, only reopening tells whether the transaction is committed.
    pub fn commit(self) -> Result<Lsn> {
        self.commit_with(Durability::Synced)
    }

    /// Commits the transaction, and returns when it has the durability that is asked for.
    /// Transactions become durable in the order in which they commit.
    ///
    /// # Errors
    /// As [`commit`](Txn::commit).
    pub fn commit_with(mut self, durability: Durability) -> Result<Lsn> {
        let lsn = self.end()?;
        match durability {
            Durability::Synced if !sabotage::has(Bug::CommitNotDurable) => self.engine.pool.log.sync_to(lsn)?,
            Durability::Written => {
                self.engine.pool.log.write()?;
            }
            _ => {}
        }
        Ok(lsn)
    }

    /// Commits the transaction, and returns a future that completes when it is durable. The log's
    /// background thread makes it so, together with others. The call itself appends the commit
    /// record: like all calls, it may wait for room in the log's memory, and if the transaction
    /// frees pages, for pages and latches.
    ///
    /// # Errors
    /// As [`commit`](Txn::commit); the future's, too.
    pub fn commit_async(mut self) -> Result<Commit> {
        let lsn = self.end()?;
        Commit::new(&self.engine, lsn)
    }

    fn end(&mut self) -> Result<Lsn> {
        self.check()?;
        let lsn = self.engine.commit(&mut self.active)?;
        self.done = true;
        Ok(lsn)
    }
}
