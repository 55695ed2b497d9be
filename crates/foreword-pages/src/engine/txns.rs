//! The transaction table: the transactions that have not ended, and what undoes each of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use foreword::Lsn;

use crate::page::{OwnedEdit, PageId};
use crate::sync::lock;

/// Bytes that a transaction keeps in memory to undo itself. Older steps are read from the log.
const STEPS_BYTES_MAX: usize = 1 << 20;

/// The transactions that have not ended.
#[derive(Debug, Default)]
pub(crate) struct TxnTable {
    entries: Mutex<Entries>,
    /// Transactions whose rollback failed. Each checkpoint tries them again; recovery undoes the
    /// rest.
    orphans: Mutex<Vec<Orphan>>,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    chains: BTreeMap<u64, Arc<Mutex<UndoChain>>>,
}

/// What rolling a transaction back needs once its `Txn` is gone.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) id: u64,
    pub(crate) chain: Arc<Mutex<UndoChain>>,
    /// Pages that the transaction freed: they stay in use.
    pub(crate) frees: Vec<PageId>,
}

/// What a transaction has logged and would have to undo.
///
/// Invariant: the chain's lock is held while a record of the transaction is appended. A checkpoint
/// locks each chain after it has begun, so it sees every record that was logged before its begin.
#[derive(Debug, Default)]
pub(crate) struct UndoChain {
    /// The transaction's first record; zero if there is none.
    pub(crate) first: Lsn,
    /// The record to be undone next; zero if there is none.
    pub(crate) next: Lsn,
    pub(crate) ended: bool,
    /// The latest of the records to be undone, oldest first.
    steps: VecDeque<UndoStep>,
    bytes: usize,
}

/// A change that was logged, as far as undoing it needs.
#[derive(Clone, Debug)]
pub(crate) struct UndoStep {
    pub(crate) lsn: Lsn,
    pub(crate) prev: Lsn,
    pub(crate) page: PageId,
    pub(crate) undo: OwnedEdit,
}

impl UndoStep {
    fn bytes(&self) -> usize {
        self.undo.cost() + size_of::<UndoStep>()
    }
}

impl UndoChain {
    /// Adds a step that was logged.
    pub(crate) fn push(&mut self, step: UndoStep) {
        if self.first == Lsn::ZERO {
            self.first = step.lsn;
        }
        self.next = step.lsn;
        self.bytes += step.bytes();
        self.steps.push_back(step);
        while self.bytes > STEPS_BYTES_MAX
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// Removes a step that was undone.
    pub(crate) fn pop(&mut self, step: &UndoStep) {
        self.next = step.prev;
        if self.steps.back().is_some_and(|s| s.lsn == step.lsn) {
            self.bytes -= step.bytes();
            self.steps.pop_back();
        }
    }

    /// The step to be undone next, if it is in memory.
    pub(crate) fn kept(&self) -> Option<UndoStep> {
        self.steps.back().filter(|step| step.lsn == self.next).cloned()
    }
}

impl TxnTable {
    /// Gives out ids from this one on.
    pub(crate) fn set_next_id(&self, id: u64) {
        self.entries().next_id = id;
    }

    /// Adds a transaction that recovery found alive. Its first record is not known: `next` stands
    /// in for it.
    pub(crate) fn take_up(&self, id: u64, next: Lsn) -> Arc<Mutex<UndoChain>> {
        let chain = Arc::new(Mutex::new(UndoChain { first: next, next, ..UndoChain::default() }));
        self.entries().chains.insert(id, chain.clone());
        chain
    }

    /// Adds a new transaction.
    pub(crate) fn begin(&self) -> (u64, Arc<Mutex<UndoChain>>) {
        let mut entries = self.entries();
        let id = entries.next_id;
        entries.next_id += 1;
        let chain = Arc::<Mutex<UndoChain>>::default();
        entries.chains.insert(id, chain.clone());
        (id, chain)
    }

    /// Removes a transaction that committed or was rolled back.
    pub(crate) fn end(&self, id: u64) {
        self.entries().chains.remove(&id);
    }

    /// Keeps a transaction whose rollback failed.
    pub(crate) fn add_orphan(&self, orphan: Orphan) {
        lock(&self.orphans).push(orphan);
    }

    /// Takes all transactions whose rollback failed.
    pub(crate) fn take_orphans(&self) -> Vec<Orphan> {
        std::mem::take(&mut *lock(&self.orphans))
    }

    pub(crate) fn count(&self) -> usize {
        self.entries().chains.len()
    }

    pub(crate) fn orphan_count(&self) -> usize {
        lock(&self.orphans).len()
    }

    /// What a checkpoint logs: the next id, and each transaction that has logged anything, with its
    /// first LSN and the LSN to be undone next.
    pub(crate) fn snapshot(&self) -> (u64, Vec<(u64, Lsn, Lsn)>) {
        let (next_id, chains) = {
            let entries = self.entries();
            (entries.next_id, entries.chains.iter().map(|(id, chain)| (*id, chain.clone())).collect::<Vec<_>>())
        };
        let live = chains.into_iter().filter_map(|(id, chain)| {
            let chain = lock(&chain);
            (!chain.ended && chain.first > Lsn::ZERO).then_some((id, chain.first, chain.next))
        });
        (next_id, live.collect())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        lock(&self.entries)
    }
}
