//! openraft's own suite on the adapter to 0.9: as it is; reopened after every call; after a power
//! failure behind every call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod machine;

use std::fmt::Debug;
use std::io::Cursor;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use ::openraft as openraft_10;
use foreword_raft::GroupLogs;
use foreword_raft::adapter::openraft_09::LogStore;
use foreword_sim::SimDisk;
use machine::{Disk, Machine, Machines};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StoredMembership, Vote,
};
use openraft_09 as openraft;
use tokio::sync::{Mutex, MutexGuard};

openraft::declare_raft_types!(
    pub(crate) Types: D = u64, R = ()
);

type Stored<T> = Result<T, StorageError<u64>>;
type Meta = SnapshotMeta<u64, BasicNode>;

/// The storage of a machine, which something befalls behind each call.
#[derive(Clone)]
struct Proxy(Arc<Mutex<Machine>>);

impl Proxy {
    async fn lock(&self) -> (MutexGuard<'_, Machine>, LogStore<Types>) {
        let machine = self.0.lock().await;
        let store = LogStore::new(machine.group());
        (machine, store)
    }
}

impl RaftLogReader<Types> for Proxy {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Stored<Vec<Entry<Types>>> {
        self.lock().await.1.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Stored<Vec<Entry<Types>>> {
        self.lock().await.1.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Types> for Proxy {
    type LogReader = Proxy;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        self.lock().await.1.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Proxy {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        let (mut machine, mut store) = self.lock().await;
        store.save_vote(vote).await?;
        machine.done();
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        self.lock().await.1.read_vote().await
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Stored<()> {
        let (mut machine, mut store) = self.lock().await;
        store.save_committed(committed).await?;
        store.group().sync().unwrap(); // It is a hint, and not durable by itself.
        machine.done();
        Ok(())
    }

    async fn read_committed(&mut self) -> Stored<Option<LogId<u64>>> {
        self.lock().await.1.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let (mut machine, mut store) = self.lock().await;
        store.blocking_append(entries).await?;
        machine.done();
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        let (mut machine, mut store) = self.lock().await;
        store.truncate(from).await?;
        machine.done();
        Ok(())
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Stored<()> {
        let (mut machine, mut store) = self.lock().await;
        store.purge(upto).await?;
        machine.done();
        Ok(())
    }
}

/// A state machine that knows where it is, and no more.
#[derive(Clone, Default)]
struct Counter(Arc<std::sync::Mutex<State>>);

#[derive(Default)]
struct State {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
    snapshot: Option<Meta>,
}

impl Counter {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotBuilder = Counter;

    async fn applied_state(&mut self) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        Ok(self.with(|state| (state.applied, state.membership.clone())))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<()>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let apply = |entry: Entry<Types>| {
            self.with(|state| {
                state.applied = Some(entry.log_id);
                if let EntryPayload::Membership(membership) = entry.payload {
                    state.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            })
        };
        Ok(entries.into_iter().map(apply).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Counter {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, _: Box<Cursor<Vec<u8>>>) -> Stored<()> {
        self.with(|state| {
            let (applied, membership) = (meta.last_log_id, meta.last_membership.clone());
            *state = State { applied, membership, snapshot: Some(meta.clone()) };
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(self.with(|state| state.snapshot.clone()).map(|meta| Snapshot { meta, snapshot: Box::default() }))
    }
}

impl RaftSnapshotBuilder<Types> for Counter {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        let meta = self.with(|state| {
            let id = state.applied.map_or(0, |applied| applied.index);
            let (last_log_id, last_membership) = (state.applied, state.membership.clone());
            let meta = Meta { last_log_id, last_membership, snapshot_id: id.to_string() };
            state.snapshot = Some(meta.clone());
            meta
        });
        Ok(Snapshot { meta, snapshot: Box::default() })
    }
}

struct Proxies(Machines);

impl StoreBuilder<Types, Proxy, Counter> for Proxies {
    async fn build(&self) -> Stored<((), Proxy, Counter)> {
        Ok(((), Proxy(Arc::new(Mutex::new(self.0.make()))), Counter::default()))
    }
}

/// Without a proxy: each store is another group of the same logs.
struct Groups {
    logs: GroupLogs,
    next: AtomicU64,
}

impl StoreBuilder<Types, LogStore<Types>, Counter> for Groups {
    async fn build(&self) -> Stored<((), LogStore<Types>, Counter)> {
        let group = self.logs.group(self.next.fetch_add(1, Ordering::Relaxed));
        Ok(((), LogStore::new(group), Counter::default()))
    }
}

#[test]
fn the_suite() {
    for disk in [Disk::real(), Disk::Sim(SimDisk::new(1))] {
        Suite::test_all(Groups { logs: disk.open(), next: AtomicU64::new(1) }).unwrap();
    }
}

#[test]
fn the_suite_through_openings_and_power_failures_behind_every_call() {
    Machines::all(|machines| Suite::test_all(Proxies(machines)).unwrap());
}

mod new {
    super::openraft_10::declare_raft_types!(
        pub(crate) Types: D = u64, R = ()
    );
}

/// A log that was written with 0.9 goes on with 0.10.
#[tokio::test]
async fn what_is_written_is_read_by_the_adapter_to_0_10() {
    use openraft_10::storage::{RaftLogReader as _, RaftLogStorage as _};

    let logs = Disk::Sim(SimDisk::new(1)).open();
    let mut old = LogStore::<Types>::new(logs.group(1));
    let log_id = |index| LogId::new(openraft::CommittedLeaderId::new(300, 2), index);
    let membership = openraft::Membership::new(vec![[1, 2].into()], [3].into_iter().collect::<std::collections::BTreeSet<u64>>());
    let payloads = [EntryPayload::Blank, EntryPayload::Normal(77), EntryPayload::Membership(membership), EntryPayload::Normal(1)];
    let entries =
        payloads.into_iter().enumerate().map(|(index, payload)| Entry::<Types> { log_id: log_id(index as u64), payload });
    let entries: Vec<_> = entries.collect();
    old.blocking_append(entries).await.unwrap();
    old.save_vote(&Vote::new_committed(301, 1)).await.unwrap();
    old.save_committed(Some(log_id(2))).await.unwrap();
    old.purge(log_id(1)).await.unwrap();

    let mut new = foreword_raft::adapter::openraft::LogStore::<new::Types>::new(logs.group(1));
    assert_eq!(new.read_vote().await.unwrap(), Some(openraft_10::Vote::new_committed(301, 1)));
    let leader = openraft_10::impls::leader_id_adv::LeaderId { term: 300, node_id: 2 };
    let log_id = |index| Some(openraft_10::LogId::new(leader, index));
    assert_eq!(new.read_committed().await.unwrap(), log_id(2));
    let state = new.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (log_id(1), log_id(3)));
    let mut entries = new.try_get_log_entries(..).await.unwrap();
    assert!(matches!(entries[1].payload, openraft_10::EntryPayload::Normal(1)));
    let openraft_10::EntryPayload::Membership(members) = entries.remove(0).payload else { panic!("no members") };
    assert_eq!((members.voter_ids().collect::<Vec<_>>(), members.learner_ids().collect::<Vec<_>>()), (vec![1, 2], vec![3]));
}
