//! The transaction table: the transactions that have not ended, and what undoes each of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foreword::Lsn;

use crate::latch::Owner;
use crate::page::{OwnedEdit, PageId};
use crate::pool::Pin;
use crate::record::Point;
use crate::sync::{Mutex, MutexGuard, lock};

/// Bytes that a transaction keeps in memory to undo itself. Older steps are read from the log.
const STEPS_BYTES_MAX: usize = 1 << 20;

/// The transactions that have not ended.
#[derive(Debug, Default)]
pub(crate) struct TxnTable {
    entries: Mutex<Entries>,
    /// Transactions whose rollback failed. Each checkpoint tries them again; recovery undoes the
    /// rest.
    orphans: Mutex<Vec<Active>>,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    chains: BTreeMap<u64, Arc<Mutex<UndoChain>>>,
}

/// A transaction that has not ended: what changing pages for it needs, and rolling it back.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: u64,
    pub(crate) owner: Owner,
    pub(crate) chain: Arc<Mutex<UndoChain>>,
    /// Pages to free when the transaction commits, or the top action closes.
    pub(crate) frees: Vec<PageId>,
    /// How many top actions are under way, one in another.
    pub(crate) depth: u32,
    /// Pages that those have changed. Their latches are kept until they close.
    pub(crate) kept: Vec<Pin>,
    /// Memory for the bytes of a record.
    pub(crate) scratch: Vec<u8>,
    /// Memory for pages as they were before a change.
    pub(crate) before: Vec<u8>,
}

impl Active {
    fn new(id: u64, chain: Arc<Mutex<UndoChain>>) -> Active {
        let (frees, kept, scratch, before) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Active { id, owner: Owner::transaction(id), chain, frees, depth: 0, kept, scratch, before }
    }

    /// Lends the transaction to a handler, which undoes a record of it.
    pub(crate) fn lend(&mut self) -> Active {
        let rest = Active::new(self.id, self.chain.clone());
        std::mem::replace(self, rest)
    }

    /// Lets go of the latches that were kept since there were so many.
    pub(crate) fn let_go(&mut self, from: usize) {
        for pin in self.kept.drain(from.min(self.kept.len())..) {
            pin.latch.let_go(self.owner);
        }
    }
}

/// What a transaction has logged and would have to undo.
///
/// Invariant: the chain's lock is held while a record of the transaction is appended. A checkpoint
/// locks each chain after it has begun, so it sees every record that was logged before its begin.
#[derive(Debug, Default)]
pub(crate) struct UndoChain {
    /// The transaction's first record; zero if there is none.
    pub(crate) first: Lsn,
    /// What is to be undone next.
    pub(crate) next: Point,
    pub(crate) ended: bool,
    /// The latest of the records to be undone, oldest first.
    steps: VecDeque<UndoStep>,
    bytes: usize,
}

/// A record that was logged, as far as undoing it needs.
#[derive(Clone, Debug)]
pub(crate) struct UndoStep {
    pub(crate) lsn: Lsn,
    pub(crate) prev: Lsn,
    pub(crate) is_nested: bool,
    pub(crate) undo: Undo,
}

/// What undoes a record.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    Edit(PageId, OwnedEdit),
    /// Pages, each with the parts that undo its change. The last is undone first.
    Pages(Arc<[(PageId, Box<[u8]>)]>),
    /// A handler's type, and its payload.
    Logical(u16, Arc<[u8]>),
}

impl UndoStep {
    fn bytes(&self) -> usize {
        let heap = match &self.undo {
            Undo::Edit(_, edit) => edit.cost(),
            Undo::Pages(pages) => pages.iter().map(|(_, parts)| parts.len() + size_of::<(PageId, Box<[u8]>)>()).sum(),
            Undo::Logical(_, payload) => payload.len(),
        };
        heap + size_of::<UndoStep>()
    }
}

impl UndoChain {
    /// Adds a step that was logged.
    pub(crate) fn push(&mut self, step: UndoStep) {
        if self.first == Lsn::ZERO {
            self.first = step.lsn;
        }
        self.next = Point::all_of(step.lsn);
        self.bytes += step.bytes();
        self.steps.push_back(step);
        while self.bytes > STEPS_BYTES_MAX
            && let Some(oldest) = self.steps.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// Goes back to where this is to be undone next: what came later is undone, or closed.
    pub(crate) fn go_back(&mut self, next: Point) {
        self.next = next;
        while self.steps.back().is_some_and(|last| last.lsn > next.lsn)
            && let Some(last) = self.steps.pop_back()
        {
            self.bytes -= last.bytes();
        }
    }

    /// The step to be undone next, if it is in memory.
    pub(crate) fn kept(&self) -> Option<UndoStep> {
        self.steps.back().filter(|step| step.lsn == self.next.lsn).cloned()
    }
}

impl TxnTable {
    /// Gives out ids from this one on.
    pub(crate) fn set_next_id(&self, id: u64) {
        self.entries().next_id = id;
    }

    /// Adds a transaction that recovery found alive. Its first record is not known: `next` stands
    /// in for it.
    pub(crate) fn take_up(&self, id: u64, next: Point) -> Active {
        let chain = Arc::new(Mutex::new(UndoChain { first: next.lsn, next, ..UndoChain::default() }));
        self.entries().chains.insert(id, chain.clone());
        Active::new(id, chain)
    }

    /// Adds a new transaction.
    pub(crate) fn begin(&self) -> Active {
        let mut entries = self.entries();
        let id = entries.next_id;
        entries.next_id += 1;
        let chain = Arc::<Mutex<UndoChain>>::default();
        entries.chains.insert(id, chain.clone());
        Active::new(id, chain)
    }

    /// Removes a transaction that committed or was rolled back.
    pub(crate) fn end(&self, id: u64) {
        self.entries().chains.remove(&id);
    }

    /// Keeps a transaction whose rollback failed.
    pub(crate) fn add_orphan(&self, orphan: Active) {
        lock(&self.orphans).push(orphan);
    }

    /// Takes all transactions whose rollback failed.
    pub(crate) fn take_orphans(&self) -> Vec<Active> {
        std::mem::take(&mut *lock(&self.orphans))
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.entries().chains.contains_key(&id)
    }

    pub(crate) fn count(&self) -> usize {
        self.entries().chains.len()
    }

    pub(crate) fn orphan_count(&self) -> usize {
        lock(&self.orphans).len()
    }

    /// What a checkpoint logs: the next id, and each transaction that has logged anything, with its
    /// first LSN and what is to be undone next.
    pub(crate) fn snapshot(&self) -> (u64, Vec<(u64, Lsn, Point)>) {
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
